#!/usr/bin/env bash
# Collects what the image holds: `image.sh PROGRAMS SHIM FOLDER` copies vswitchd and vsctl of the
# folder PROGRAMS, the CNI plugin SHIM, the nft of this machine, and every library that they
# load. nft is the only program that the daemon runs itself.
set -euo pipefail
programs=$1 shim=$2 folder=$3

rm -rf "$folder"
mkdir -p "$folder"/{etc/vswitchd,opt/cni/bin,run,tmp,usr/bin,usr/sbin,var/lib/vswitchd}
# Runtimes name namespaces by either path.
ln -s /run "$folder/var/run"
nft=$(PATH=$PATH:/usr/sbin:/sbin command -v nft)
install -m 0755 "$programs/vswitchd" "$programs/vsctl" "$folder/usr/bin/"
install -m 0755 "$shim" "$folder/usr/bin/vswitch-cni"
install -m 0755 "$nft" "$folder/usr/sbin/nft"

# Libraries go where the loader was told to look for them; without them the program does not
# start, so a missing one fails here. Names are resolved by those of glibc that it opens later.
libraries() {
  ldd "$folder/usr/bin/vswitchd" "$folder/usr/bin/vsctl" "$folder/usr/sbin/nft" |
    awk '/not found/ {print "missing: " $1 >"/dev/stderr"; exit 1}
         /=> \// {print $3} /^\t\/.* \(/ {print $1}' | sort -u
}
for library in $(libraries); do
  install -D -m 0755 "$(realpath "$library")" "$folder$library"
done
printf 'hosts: files dns\n' >"$folder/etc/nsswitch.conf"
