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

# Calico's policies and their like, whichever API they come by: its custom resources
# (crd.projectcalico.org), or its own API server (projectcalico.org). Full names: "networkpolicies"
# alone is Kubernetes'. Administrators' policies (policy.networking.k8s.io) are all enforced.
served=$(kubectl api-resources --verbs=list -o name) || fail "kubectl api-resources failed"
for resource in $served; do
  case $resource in
  *.crd.projectcalico.org | *.projectcalico.org) ;;
  *) continue ;;
  esac
  case ${resource%%.*} in
  networkpolicies | globalnetworkpolicies) why="has a part that is not served" ;;
  hostendpoints) why="does not protect the node" ;;
  felixconfigurations) why="configures Felix alone; read its spec for what you rely on" ;;
  *) continue ;;
  esac
  names=$(kubectl get "$resource" --all-namespaces --no-headers \
    -o custom-columns=NAMESPACE:.metadata.namespace,NAME:.metadata.name,SPEC:.spec) ||
    fail "kubectl get $resource failed"
  # Calico's policies are enforced, but for these parts.
  case ${resource%%.*} in
  networkpolicies | globalnetworkpolicies) names=$(echo "$names" |
    grep -E '[[ ](doNotTrack:true|preDNAT:true|http:|services:)') ;;
  esac
  [ -z "$names" ] && continue
  while read -r namespace name _; do
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
