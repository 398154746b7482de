#!/usr/bin/env bash
# Gets what `make test-kubernetes` plays with into target/kubernetes: Kubernetes 1.20.2, built from
# Debian's source package (10 to 20 minutes on two cores, the first time), with etcd beside it, and
# the image of the pods. containerd, runc, podman and the compiler come from apt. What apt has to
# know of source packages stays in that folder too.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$PWD/target/kubernetes
bin=$folder/bin
mkdir -p "$bin"

declare -A package_of=(
  [containerd]=containerd [runc]=runc [podman]=podman [etcd]=etcd-server [openssl]=openssl
  [docker-registry]=docker-registry
  [busybox]=busybox-static [nft]=nftables [ip]=iproute2 [unshare]=util-linux
)
if [ ! -x "$bin/kubelet" ]; then
  package_of+=([/usr/lib/go-1.19/bin/go]=golang-1.19-go [dpkg-source]=dpkg-dev)
fi
missing=()
for command in "${!package_of[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
[ -x /usr/lib/cni/loopback ] || missing+=(containernetworking-plugins)
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  # They were installed to be played with, not to serve this machine.
  for unit in etcd docker-registry containerd; do
    if [[ -d /run/systemd/system && " ${missing[*]} " = *" $unit"* ]]; then
      systemctl disable --quiet --now "$unit"
    fi
  done
fi
ln -sf "$(command -v etcd)" "$bin/etcd"

# GOPATH, because the package has no modules' sums; all that it needs is vendored.
build() {
  local root=$folder/go/src/k8s.io/kubernetes program
  export PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$folder/go GOCACHE=$folder/cache
  export GO111MODULE=off CGO_ENABLED=0 GOFLAGS=
  if [ ! -d "$root" ]; then
    source_package
    mkdir -p "$(dirname "$root")"
    tar -C "$folder/source" -xf "$folder"/source/kubernetes_1.20*.orig.tar.gz
    mv "$folder/source/kubernetes-1.20.2" "$root"
    newer_reflect2 "$root/vendor/github.com/modern-go/reflect2"
  fi
  cd "$root"
  if [ ! -e pkg/generated/openapi/zz_generated.openapi.go ]; then
    openapi
  fi
  for program in kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet; do
    echo "building $program"
    [ -x "$bin/$program" ] || go build -o "$bin/$program" "./cmd/$program"
  done
}

# The vendored release of reflect2 corrupts memory where Go is 1.18 or later; Debian has the next one.
newer_reflect2() {
  (cd "$folder/source" && apt-get download -qq -o APT::Sandbox::User=root golang-github-modern-go-reflect2-dev &&
    dpkg -x ./golang-github-modern-go-reflect2-dev_*.deb reflect2)
  rm "$1"/*.go "$1"/*.s
  cp "$folder"/source/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/* "$1"/
}

# Downloads the source package with a list of sources of its own.
source_package() {
  local apt=$folder/apt
  mkdir -p "$apt/lists/partial" "$folder/source"
  local uri
  # The first mirror that apt itself uses.
  uri=$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } |
    awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i < NF; i++) if ($i ~ /^http/) {print $i; exit}}')
  echo "deb-src ${uri:-http://deb.debian.org/debian} bookworm main" >"$apt/sources.list"
  local own=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::State::Lists=$apt/lists" -o APT::Sandbox::User=root)
  apt-get "${own[@]}" update
  (cd "$folder/source" && apt-get "${own[@]}" source --download-only kubernetes)
}

# The package leaves out generated code; this is how Kubernetes' own Makefile makes it.
openapi() {
  local dirs
  go build -o "$folder/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  dirs=$(grep -rl '+k8s:openapi-gen=' --include=*.go staging/src/k8s.io vendor/k8s.io cmd pkg |
    xargs -n1 dirname | sort -u |
    sed -e 's#^staging/src/##' -e 's#^vendor/##' -e 's#^cmd#k8s.io/kubernetes/cmd#' \
      -e 's#^pkg#k8s.io/kubernetes/pkg#' |
    grep -v -e gengo -e kube-openapi/ -e sample- -e /test | sort -u | paste -sd,)
  "$folder/openapi-gen" --logtostderr -i "$dirs" -p k8s.io/kubernetes/pkg/generated/openapi \
    -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt \
    -r "$folder/openapi-violations"
}

# Images of the play, all of busybox: one that waits, one that serves a page with its pod's name.
images() {
  local root
  root=$(mktemp -d)
  mkdir -p "$root"/{bin,etc,tmp,www}
  cp "$(command -v busybox)" "$root/bin/busybox"
  for applet in $("$root/bin/busybox" --list); do
    [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
  done
  image idle "$root" '["sleep","infinity"]'
  image web "$root" '["sh","-c","hostname >/www/index.html; exec httpd -f -h /www"]'
  rm -rf "$root"
}

image() {
  tar -C "$2" -c . | podman import --quiet --change "CMD $3" --change 'ENV PATH=/bin' - "vswitch-test-$1:1" >/dev/null
}

[ -x "$bin/kubelet" ] || (build)
podman image exists vswitch-test-web:1 || images
