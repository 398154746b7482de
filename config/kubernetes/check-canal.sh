#!/bin/sh
# Lists what a Canal cluster uses that vswitch does not do, or that its configuration has to repeat:
#   check-canal.sh [NAMESPACE/CONFIGMAP of flannel's net-conf.json]
# Exit code 0: nothing; 1: something is listed; 2: the cluster could not be read. Changes nothing.
set -u
flannel=${1:-kube-system/canal-config}
found=0

say() {
  echo "$1"
  found=1
}

fail() {
  echo "check-canal: $1" >&2
  exit 2
}

# All policies and their like, whichever API they come by: Calico's custom resources
# (crd.projectcalico.org), its own API server (projectcalico.org), and the policies of
# administrators (policy.networking.k8s.io). Full names: "networkpolicies" alone is Kubernetes'.
served=$(kubectl api-resources --verbs=list -o name) || fail "kubectl api-resources failed"
for resource in $served; do
  case $resource in
  *.crd.projectcalico.org | *.projectcalico.org | *.policy.networking.k8s.io) ;;
  *) continue ;;
  esac
  case ${resource%%.*} in
  networkpolicies | globalnetworkpolicies) why="is not enforced" ;;
  stagednetworkpolicies | stagedglobalnetworkpolicies | stagedkubernetesnetworkpolicies)
    why="is not evaluated" ;;
  networksets | globalnetworksets) why="has no effect: only policies of Calico name it" ;;
  hostendpoints) why="does not protect the node" ;;
  tiers) why="does not order policies" ;;
  adminnetworkpolicies | baselineadminnetworkpolicies) why="is not enforced" ;;
  felixconfigurations) why="configures Felix alone; read its spec for what you rely on" ;;
  *) continue ;;
  esac
  names=$(kubectl get "$resource" --all-namespaces --no-headers \
    -o custom-columns=NAMESPACE:.metadata.namespace,NAME:.metadata.name) ||
    fail "kubectl get $resource failed"
  # Made by Calico itself in every cluster.
  [ "${resource%%.*}" = tiers ] && names=$(echo "$names" | grep -v ' default$')
  [ -z "$names" ] && continue
  while read -r namespace name; do
    [ "$namespace" = '<none>' ] && say "$resource $name: $why" ||
      say "$resource $namespace/$name: $why"
  done <<LINES
$names
LINES
done

conf=$(kubectl -n "${flannel%/*}" get configmap "${flannel#*/}" -o 'jsonpath={.data.net-conf\.json}') ||
  fail "no ConfigMap $flannel: name flannel's as NAMESPACE/CONFIGMAP"
conf=$(echo "$conf" | tr -d ' \t\n\r')
[ -n "$conf" ] || fail "ConfigMap $flannel has no net-conf.json"
value() {
  echo "$conf" | sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"
}
case $(value Type) in
vxlan)
  [ "$(value DirectRouting)" = true ] &&
    say "flannel DirectRouting: vswitch tunnels to every node, and drops what comes by a route"
  vni=$(value VNI)
  [ "${vni:-1}" = 1 ] || say "flannel VNI $vni: set vxlan_vni = $vni under [network]"
  port=$(value Port)
  [ "${port:-8472}" = 8472 ] || say "flannel Port $port: set vxlan_port = $port under [network]"
  ;;
host-gw) ;;
*) say "flannel backend '$(value Type)': vswitch has vxlan and host-gw" ;;
esac
exit "$found"
