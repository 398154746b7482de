#!/usr/bin/env bash
# The story, with real namespaces, the real shim, a real web server and curl: the client fetches
# the page, a NetworkPolicy makes the fetch hang, a label lets it through again.
#
# Everything happens in network namespaces made here and removed at the end, also on Ctrl-C: one
# plays the node (vswitchd runs in it), two are the pods. The host's own network is not touched.
set -uo pipefail
cd "$(dirname "$0")/.."

bin=${VSWITCH_BIN:-target/release}
shim=${VSWITCH_SHIM:-target/x86_64-unknown-linux-gnu/release/vswitch-cni}
id=vsdemo-$$
node=$id-node
folder=$(mktemp -d -t vswitch-demo-XXXXXX)
export VSWITCH_SOCKET=$folder/run/api.sock
export PATH=$bin:$PATH:/usr/sbin:/sbin

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else bold='' dim='' green='' red='' plain=''; fi

summary=()
failed=0
daemon=
web=

cleanup() {
  trap - EXIT INT TERM
  [ -z "$web" ] || kill "$web" 2>/dev/null
  for pod in client server; do cni DEL "$pod" >/dev/null 2>&1; done
  [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null; wait "$daemon" 2>/dev/null; }
  for namespace in "$node" "$id-client" "$id-server"; do
    ip netns pids "$namespace" 2>/dev/null | xargs -r kill -9 2>/dev/null
    ip netns del "$namespace" 2>/dev/null
  done
  rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }

# Shows a command, then runs it.
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; "$@"; }

verdict() { # NAME EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then
    summary+=("${green}ok${plain}    $1: $3")
  else
    summary+=("${red}FAIL${plain}  $1: expected $2, got $3")
    failed=1
  fi
  printf '%s-> %s%s\n' "$bold" "$3" "$plain"
}

# Attaches or detaches a pod as a container runtime does: environment and stdin, nothing else.
cni() { # COMMAND POD
  env -i CNI_COMMAND="$1" CNI_CONTAINERID="$id-$2" CNI_NETNS="/run/netns/$id-$2" CNI_IFNAME=eth0 \
    CNI_PATH=/opt/cni/bin CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=$2" \
    "$shim" <<<"{\"cniVersion\":\"1.0.0\",\"name\":\"vswitch\",\"type\":\"vswitch-cni\",\"socket\":\"$VSWITCH_SOCKET\"}"
}

fetch() { # NAME EXPECTED
  local page code result
  local command=(ip netns exec "$id-client" curl -sS --noproxy '*' --connect-timeout 2 --max-time 5
    "http://$server_ip/")
  printf '%s$ %s%s\n' "$dim" "${command[*]}" "$plain"
  page=$("${command[@]}" 2>&1)
  code=$?
  printf '%s\n' "$page"
  # curl(1): 28 is a time-out.
  case "$code:$page" in
    "0:it works") result=fetched ;;
    28:*) result=hangs ;;
    *) result="curl exit code $code" ;;
  esac
  verdict "$1" "$2" "$result"
}

trace() {
  show vsctl trace default/client default/server:80 | sed 's/^/   /' | tail -n "${1:-3}"
}

started=$SECONDS

step "a node, with vswitchd in standalone mode"
ip netns add "$node" && ip -n "$node" link set lo up || exit 1
cat >"$folder/vswitchd.toml" <<EOF
node_name = "node-a"
state_dir = "$folder/state"
run_dir = "$folder/run"
[network]
pod_cidrs = ["10.244.0.0/24"]
EOF
printf '%s$ vswitchd --config vswitchd.toml%s\n' "$dim" "$plain"
ip netns exec "$node" vswitchd --config "$folder/vswitchd.toml" >"$folder/log" 2>&1 &
daemon=$!
for _ in $(seq 100); do
  vsctl status -o json 2>/dev/null | grep -q '"ready": true' && break
  kill -0 "$daemon" 2>/dev/null || { cat "$folder/log"; exit 1; }
  sleep 0.1
done
show vsctl status || { cat "$folder/log"; exit 1; }

step "two pods, attached by the CNI plugin"
for pod in client server; do
  ip netns add "$id-$pod" || exit 1
  printf '%s$ CNI_COMMAND=ADD CNI_CONTAINERID=%s … vswitch-cni < conf%s\n' "$dim" "$id-$pod" "$plain"
  cni ADD "$pod" || { cat "$folder/log"; exit 1; }
  echo
done
show vsctl label pod server app=secure-pod
show vsctl get pods
show vsctl show
server_ip=$(vsctl get pod server -o json | sed -n 's/.*"podIP": "\([^"]*\)".*/\1/p')

step "a web server in the server pod"
mkdir -p "$folder/www" && echo "it works" >"$folder/www/index.html"
if command -v nginx >/dev/null; then
  cat >"$folder/nginx.conf" <<EOF
daemon off; master_process off; pid $folder/nginx.pid; error_log $folder/nginx.log;
events {}
http { access_log off; client_body_temp_path $folder/t; proxy_temp_path $folder/t;
  fastcgi_temp_path $folder/t; uwsgi_temp_path $folder/t; scgi_temp_path $folder/t;
  server { listen 80; listen [::]:80; root $folder/www; } }
EOF
  printf '%s$ nginx (port 80)%s\n' "$dim" "$plain"
  ip netns exec "$id-server" nginx -c "$folder/nginx.conf" 2>/dev/null &
else
  printf '%s$ busybox httpd -p 80%s\n' "$dim" "$plain"
  ip netns exec "$id-server" busybox httpd -f -p 80 -h "$folder/www" &
fi
web=$!
for _ in $(seq 50); do
  ip netns exec "$id-server" curl -s --noproxy '*' --max-time 1 http://127.0.0.1/ >/dev/null && break
  sleep 0.1
done

step "1. no policy: the client fetches the page"
fetch "no policy" fetched
trace 1

step "2. a policy admits only pods labelled allow-access=true: the fetch hangs"
cat config/samples/secure-pod.yaml
show vsctl apply -f config/samples/secure-pod.yaml
fetch "policy applied" hangs
trace 1

step "3. the client gets the label: the fetch works again"
show vsctl label pod client allow-access=true
fetch "client labelled" fetched
trace 1

step "what the switch saw"
show vsctl dump-flows IngressRule
show vsctl dump-flows IngressDefault
show vsctl dump-conntrack

step "what was denied meanwhile, and what would have helped"
show vsctl why default/client | tee "$folder/why"
lacking='would pass with label allow-access=true on pod default/client'
if grep -q "$lacking" "$folder/why"; then told="names the label"; else told="does not name the label"; fi
verdict "why" "names the label" "$told"

step "summary after $((SECONDS - started)) s"
printf '  %s\n' "${summary[@]}"
exit "$failed"
