#!/usr/bin/env bash
# Runs tests as on a host that others have set up: `hostile.sh 'SETTING…' COMMAND…`. The settings hold
# in the namespace that the commands run in and in that of every node which a test makes; those of
# this machine stay. Each COMMAND is a command line, as for run.sh.
#   forwarding       IPv4 and IPv6 are forwarded, and reverse paths are checked strictly
#   drop             nftables and iptables drop what is forwarded, but for the gateway's, as
#                    docs/operations.md asks of an operator
#   iptables-legacy  rules of its own in the legacy tables filter, nat and mangle
#   bridge           a bridge with the addresses of Docker's
#   no-ipv6          IPv6 is disabled
set -euo pipefail

set_sysctls() {
  local value=$1 key
  shift
  for key in "$@"; do
    echo "$value" >"/proc/sys/net/$key"
  done
}

apply() {
  local setting
  for setting in $VSWITCH_TEST_HOST; do
    case $setting in
      forwarding)
        set_sysctls 1 ipv4/ip_forward ipv6/conf/all/forwarding ipv4/conf/all/rp_filter
        ;;
      drop)
        nft 'table inet foreign { chain forward { type filter hook forward priority filter - 5; policy drop;
          iifname "vsw0" accept; oifname "vsw0" accept; }; }'
        iptables-legacy -P FORWARD DROP
        iptables-legacy -A FORWARD -i vsw0 -j ACCEPT
        iptables-legacy -A FORWARD -o vsw0 -j ACCEPT
        ;;
      iptables-legacy)
        iptables-legacy -N FOREIGN
        iptables-legacy -A FOREIGN -p tcp --dport 25 -j REJECT
        iptables-legacy -A INPUT -j FOREIGN
        iptables-legacy -A OUTPUT -j FOREIGN
        iptables-legacy -A INPUT -m conntrack --ctstate INVALID -j DROP
        iptables-legacy -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o br-foreign -j MASQUERADE
        iptables-legacy -t nat -A PREROUTING -p tcp --dport 9999 -j DNAT --to 172.17.0.2:80
        iptables-legacy -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
        ;;
      bridge)
        ip link add br-foreign type bridge
        ip address add 172.17.0.1/16 dev br-foreign
        [ "$(cat /proc/sys/net/ipv6/conf/br-foreign/disable_ipv6)" = 1 ] ||
          ip address add fd17::1/64 dev br-foreign nodad
        ip link set br-foreign up
        ;;
      no-ipv6)
        set_sysctls 1 ipv6/conf/all/disable_ipv6 ipv6/conf/default/disable_ipv6
        ;;
      *)
        echo "hostile.sh: no such setting: $setting" >&2
        return 2
        ;;
    esac
  done
}

# The harness calls it so in the namespace of a node.
if [ $# -eq 0 ]; then
  apply
  exit
fi

export VSWITCH_TEST_HOST=$1
VSWITCH_TEST_HOST_SETUP=$(realpath "$0")
export VSWITCH_TEST_HOST_SETUP
shift
if [ -z "${VSWITCH_TEST_HOST_INSIDE:-}" ]; then
  VSWITCH_TEST_HOST_INSIDE=1 exec unshare --net "$0" "$VSWITCH_TEST_HOST" "$@"
fi
ip link set lo up
apply
exec "$(dirname "$0")/run.sh" "$@"
