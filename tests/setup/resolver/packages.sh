#!/usr/bin/env bash
# Fetches the resolvers that mesh is tested with, and unpacks them below /opt/mesh-resolvers: this machine's
# own resolver stays as it is, which installing them would change.
#   debian/NAME  of this machine's release: systemd-resolved with libc's module, dnsmasq, unbound,
#                openresolv 3.12, resolvconf
#   sid/         openresolv 3.16 or later
# Does nothing when they are there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=/opt/mesh-resolvers
done=$dest/with-unbound
[ ! -e $done ] || exit 0
rm -rf $dest
mkdir -p $dest/debian $dest/debs
apt-get -qq update
cd $dest/debs
# each with what it depends on and this machine has not
for package in systemd-resolved libnss-resolve dnsmasq-base unbound openresolv resolvconf; do
  apt-get install -s --no-install-recommends $package | awk '/^Inst/ { print $2 }' >list
  mkdir $package
  (cd $package && xargs apt-get -qq download <../list) 2>/dev/null
  mkdir $dest/debian/$package
  for deb in $package/*.deb; do dpkg-deb -x "$deb" $dest/debian/$package; done
done
"$here"/../debian-private.sh sid $dest/sid openresolv -- '^[^o]' >/dev/null
rm -rf $dest/debs
touch $done
