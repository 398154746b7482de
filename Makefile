# vswitch: build, try and test. `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PREFIX ?= /usr/local
CARGO ?= cargo
RELEASE := target/release
# The shim is linked statically: a runtime may start it where no libc fits.
SHIM_TARGET := x86_64-unknown-linux-gnu
SHIM := target/$(SHIM_TARGET)/release/vswitch-cni
# What builds the image; buildah is installed where there is none.
BUILDER ?= $(firstword $(foreach tool,podman buildah docker,$(shell command -v $(tool))))
IMAGE ?= vswitch:0.1.0
# How often `make chaos` kills the daemon, and what its instants and writes come from.
KILLS ?= 200
SEED ?= $(shell date +%s)
# What measures the datapath alone is built without the daemon, in a fraction of the time.
DATAPATH_ONLY := --locked -p vswitch-bench --no-default-features
INSTRUCTIONS := $(CARGO) build $(DATAPATH_ONLY) --release --bin vswitch-instructions && $(RELEASE)/vswitch-instructions
RUNNER := $(CARGO) $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo nextest run || echo test)

.PHONY: help setup setup-demo build build-release bpf demo cluster-demo test test-damage test-hostile chaos test-kubernetes conformance lint bench bench-adds bench-records bench-nodes bench-peers bench-commits bench-restart bench-instructions bench-micro flood scale image package install uninstall cleanup

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what building and testing need (Debian packages, kubectl)
	tests/setup.sh all

setup-demo:
	tests/setup.sh demo

build: ## debug build of everything
	$(CARGO) build --locked --workspace --all-targets

build-release:
	$(CARGO) build --locked --release -p vswitchd -p vsctl
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --release -p cni-shim --target $(SHIM_TARGET)

demo: setup-demo build-release ## play the story: fetch, policy blocks, label admits
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) tests/demo.sh

cluster-demo: build-release ## the story across a hub and three nodes, with kubectl (ARGS=host-gw: by routes)
	tests/setup.sh nodes
	$(CARGO) build --locked --release -p vswitch-tests --bin vswitch-cluster-demo
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) tests/run.sh '$(RELEASE)/vswitch-cluster-demo $(ARGS)'

test: setup build ## all tests
	tests/run.sh target/debug/vswitch-conformance '$(RUNNER) --locked --workspace --no-fail-fast' \
	  '$(INSTRUCTIONS)'

test-damage: setup ## damage every file of a store in 2,000 places and more; each start must notice, and close
	set -o pipefail; VSWITCH_DAMAGE=full $(CARGO) test --locked -p vswitch-tests --test damage -- --nocapture 2>&1 \
	  | tee target/test-damage.log | grep '^damage: ' || { cat target/test-damage.log; exit 1; }

chaos: setup build ## kill -9 at 200 random instants during writes of every kind; nothing may be lost (KILLS=…, SEED=…)
	set -o pipefail; VSWITCH_CHAOS_KILLS=$(KILLS) VSWITCH_CHAOS_SEED=$(SEED) tests/run.sh \
	  '$(CARGO) test --locked -p vswitch-tests --test chaos -- --nocapture' >target/chaos.log 2>&1 \
	  && grep '^chaos: ' target/chaos.log || { cat target/chaos.log; exit 1; }

test-hostile: setup build ## the tests of a node on hosts that forward, drop, have rules of iptables-legacy and a bridge of others, or no IPv6
	tests/hostile.sh 'forwarding drop iptables-legacy bridge' \
	  '$(RUNNER) --locked --offline --workspace --no-fail-fast --test netns --test cni --test nodes --test restart --test kube --test service --test cluster --test supervision --test chaos'
	tests/hostile.sh no-ipv6 '$(RUNNER) --locked --offline --workspace --no-fail-fast --test netns --test cni'

test-kubernetes: build image ## the story, Services, reboots, install and uninstall on a real Kubernetes 1.20.2; builds it first (15 minutes)
	tests/setup.sh nodes
	tests/kubernetes/setup.sh
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) VSWITCH_IMAGE=$(IMAGE) VSWITCH_RUNNER='$(RUNNER)' \
	  tests/run.sh target/debug/vswitch-kubernetes

conformance: setup build ## Kubernetes' NetworkPolicy e2e cases and those of ClusterNetworkPolicy, in process and in real namespaces
	tests/run.sh target/debug/vswitch-conformance

lint: ## rustfmt, clippy and rustdoc, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --quiet

bench: setup-demo build-release ## TCP pod to pod beside a straight veth, median of 5
	$(CARGO) build --locked --release -p vswitch-bench
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) $(RELEASE)/vswitch-bench $(ARGS)

bench-peers: ## the same work over vswitchd, veth, bridge, iptables, nftables, OVS; ratios, JSON, chart; ARGS=--quick, ARGS=--gate
	tests/setup.sh peers
	$(MAKE) --no-print-directory build-release
	$(CARGO) build --locked --release -p vswitch-bench --bin vswitch-peers --bin vswitch-load
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) $(RELEASE)/vswitch-peers $(ARGS)

bench-nodes: build-release ## TCP between pods of two nodes beside a kernel bridge with kernel vxlan, median of 5
	tests/setup.sh nodes
	$(CARGO) build --locked --release -p vswitch-bench --bin vswitch-bench-nodes
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) tests/run.sh '$(RELEASE)/vswitch-bench-nodes $(ARGS)'

flood: setup-demo build-release ## what one pod's flood leaves the others, beside a pod that keeps its core busy; fails under 90 %
	$(CARGO) build --locked --release -p vswitch-bench --bin vswitch-flood --bin vswitch-load
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) tests/run.sh '$(RELEASE)/vswitch-flood $(ARGS)'

scale: ## what 1,000 namespaces, 10,000 pods, 10,000 policies and 200 of the cluster cost a node; fails over a limit
	$(CARGO) build --locked --release -p vswitch-bench
	$(RELEASE)/vswitch-scale $(ARGS)

bench-adds: build-release ## how long ADD takes with 250 pods while metrics and 10,000 Pod objects are read; fails over 50 ms
	tests/setup.sh demo
	$(CARGO) build --locked --release -p vswitch-bench --bin vswitch-adds
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) tests/run.sh '$(RELEASE)/vswitch-adds $(ARGS)'

bench-records: build-release ## new connections with flow records of all of them, and beside a flood that is denied; fails under 97 and 95 %
	tests/setup.sh demo
	$(CARGO) build --locked --release -p vswitch-bench --bin vswitch-records --bin vswitch-load
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) tests/run.sh '$(RELEASE)/vswitch-records $(ARGS)'

bench-commits: ## commit latency of the store, beside sled
	$(CARGO) build --locked --release -p vswitch-bench --bin vswitch-commits
	$(RELEASE)/vswitch-commits $(ARGS)

bench-restart: build-release ## how long a daemon with 250 pods takes to end and to be ready again; fails over a limit
	tests/setup.sh demo
	$(CARGO) build --locked --release -p vswitch-bench --bin vswitch-restart
	VSWITCH_BIN=$(CURDIR)/$(RELEASE) VSWITCH_SHIM=$(CURDIR)/$(SHIM) tests/run.sh '$(RELEASE)/vswitch-restart $(ARGS)'

bench-instructions: ## instructions of single packets by callgrind; fails at 5 % over bench/instructions.json
	tests/setup.sh bench
	$(INSTRUCTIONS) $(ARGS)

bench-micro: ## nanoseconds of the packet path's steps, and how engines scale over threads
	$(CARGO) bench $(DATAPATH_ONLY) --bench datapath -- $(ARGS)
	$(CARGO) build $(DATAPATH_ONLY) --release --bin vswitch-engines
	$(RELEASE)/vswitch-engines

bpf: ## build the fast path's programs anew (clang); the object is kept in the repository
	tests/setup.sh bpf
	clang -O2 -g -Wall -Werror -target bpf -mcpu=v3 -I/usr/include/$(shell uname -m)-linux-gnu \
	  -DSOURCE_CRC32='"$(shell python3 -c 'import zlib; print("%08x" % zlib.crc32(open("vswitchd/bpf/kernel_path.c", "rb").read()))')"' \
	  -c vswitchd/bpf/kernel_path.c -o vswitchd/bpf/kernel_path.o
	llvm-strip -g vswitchd/bpf/kernel_path.o

image: build-release ## container image $(IMAGE) for config/kubernetes, by podman, buildah or docker; the base is empty
	tests/setup.sh image
	config/image.sh $(RELEASE) $(SHIM) target/image
	$(if $(BUILDER),$(BUILDER),buildah) build --tag $(IMAGE) --file Containerfile .

package: build-release ## Debian package in target/debian
	tests/setup.sh package
	install -m 0755 $(SHIM) $(RELEASE)/vswitch-cni-static
	PATH=$(CURDIR)/target/tools/cargo-deb/bin:$$PATH $(CARGO) deb --locked -p vswitchd --no-build

install: build-release ## install the daemon, the CLI, the shim, the unit and the configuration
	install -D -m 0755 $(RELEASE)/vswitchd $(DESTDIR)$(PREFIX)/bin/vswitchd
	install -D -m 0755 $(RELEASE)/vsctl $(DESTDIR)$(PREFIX)/bin/vsctl
	install -D -m 0755 $(SHIM) $(DESTDIR)/opt/cni/bin/vswitch-cni
	install -d $(DESTDIR)/etc/systemd/system
	sed 's|/usr/bin/vswitchd|$(PREFIX)/bin/vswitchd|' config/vswitchd.service >$(DESTDIR)/etc/systemd/system/vswitchd.service
	test -e $(DESTDIR)/etc/vswitchd/vswitchd.toml || install -D -m 0644 config/vswitchd.toml $(DESTDIR)/etc/vswitchd/vswitchd.toml
	test -e $(DESTDIR)/etc/cni/net.d/10-vswitch.conflist || install -D -m 0644 config/10-vswitch.conflist $(DESTDIR)/etc/cni/net.d/10-vswitch.conflist

uninstall: cleanup ## remove what install put there, and what the daemon left in the kernel
	rm -f $(DESTDIR)$(PREFIX)/bin/vswitchd $(DESTDIR)$(PREFIX)/bin/vsctl $(DESTDIR)/opt/cni/bin/vswitch-cni \
	  $(DESTDIR)/etc/systemd/system/vswitchd.service $(DESTDIR)/etc/cni/net.d/10-vswitch.conflist

cleanup: ## undo what the installed daemon changed in the kernel (ports, gateway, nftables, sysctls)
	if test -x $(PREFIX)/bin/vswitchd; then $(PREFIX)/bin/vswitchd --cleanup; fi
