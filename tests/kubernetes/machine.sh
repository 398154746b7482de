#!/usr/bin/env bash
# Process 1 of a machine: `machine.sh DISK` in namespaces of its own. The machine sees the programs
# of the host; what it writes below /etc, /opt and /var goes to DISK, and is there at its next start.
set -euo pipefail
disk=$1

for path in etc opt var; do
  mkdir -p "$disk/$path" "$disk/work/$path"
  mount -t overlay machine "/$path" \
    -o "lowerdir=/$path,upperdir=$disk/$path,workdir=$disk/work/$path"
done
# Not the host's configuration of the CNI; and the kubelet wants a real file system.
mkdir -p "$disk"/{net.d,kubelet,containerd} /etc/cni/net.d /opt/cni/bin /var/lib/kubelet
mount --bind "$disk/net.d" /etc/cni/net.d
mount --bind "$disk/kubelet" /var/lib/kubelet
cp -n /usr/lib/cni/* /opt/cni/bin/
mount -t tmpfs machine /run
mkdir -p /run/netns /run/lock
mount -t proc machine /proc
# The kubelet and runtimes rely on it.
mount --make-rshared /
touch /run/is-up

# Processes whose parents have ended are this one's, which waits for them.
while true; do sleep 3600; done
