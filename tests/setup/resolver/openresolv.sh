#!/usr/bin/env bash
# A real openresolv with a real dnsmasq, and what is done where it, or Debian's resolvconf, cannot split.
. /common.sh
unpack debian/dnsmasq-base
ldconfig
systemctl start dbus
mkdir -p /etc/dnsmasq.d /run/dnsmasq
cat >/etc/systemd/system/dnsmasq.service <<'U'
[Unit]
StartLimitIntervalSec=0
[Service]
Type=exec
ExecStart=/usr/sbin/dnsmasq -k -u root --conf-file=/etc/dnsmasq.conf
U
cat >/etc/dnsmasq.conf <<'C'
no-resolv
no-hosts
listen-address=127.0.0.1
bind-interfaces
server=192.0.2.1
conf-dir=/etc/dnsmasq.d
C
cat >/etc/resolvconf.conf <<'C'
name_servers=127.0.0.1
dnsmasq_conf=/etc/dnsmasq.d/resolvconf.conf
C
systemctl daemon-reload
mesh_up
names
rm -f /etc/resolv.conf

# Debian 12's: it would add our domains to everybody's search list.
unpack debian/openresolv
cat >/etc/resolvconf.conf <<'C'
name_servers=127.0.0.1
dnsmasq_conf=/etc/dnsmasq.d/resolvconf.conf
C
systemctl start dnsmasq
resolvconf -u
until_ok getent hosts outside.example
before=$(cat /etc/resolv.conf)
mesh resolver apply | tee /run/said
grep -q 'Set in /etc/hosts' /run/said
grep -q "everybody's search list" /run/said
check_found
[ "$(cat /etc/resolv.conf)" = "$before" ] || fail "resolv.conf changed"

# 3.16 and later.
rm -rf /lib/resolvconf /sbin/resolvconf /usr/lib/resolvconf
unpack sid
cat >/etc/resolvconf.conf <<'C'
name_servers=127.0.0.1
dnsmasq_conf=/etc/dnsmasq.d/resolvconf.conf
C
resolvconf -u
mesh resolver apply | tee /run/said
grep -q 'Set in resolvconf' /run/said || fail "not set in resolvconf"
if grep -q mesh /etc/hosts; then fail "the hosts file has a block for nothing"; fi
[ "$(cat /etc/resolv.conf)" = "$before" ] || fail "resolv.conf changed"
check_split
mesh resolver apply
resolvconf -l | grep -qF "nameserver $address"
mesh resolver undo | grep -q 'Undone in resolvconf'
check_gone
if resolvconf -l | grep -F "$address"; then fail "the entry is left"; fi
if grep -F "$address" /etc/dnsmasq.d/*; then fail "dnsmasq is still told"; fi
until_ok getent hosts outside.example
[ "$(cat /etc/resolv.conf)" = "$before" ] || fail "resolv.conf changed"

# The same from the units' sandbox.
systemctl start mesh-resolver
grep -qF "$address" /etc/dnsmasq.d/resolvconf.conf || fail "$(journalctl -b -o cat -u mesh-resolver)"
check_split
systemctl start mesh-resolver-refresh
systemctl stop mesh-resolver
check_gone
if grep -F "$address" /etc/dnsmasq.d/*; then fail "dnsmasq is still told"; fi

# A local server that does not read what openresolv writes: found out, taken back, and the hosts file serves.
sed -i '/conf-dir/d' /etc/dnsmasq.conf
systemctl restart dnsmasq
mesh resolver apply | tee /run/said
grep -q 'Set in /etc/hosts' /run/said
grep -q 'the local server does not find' /run/said
if resolvconf -l | grep -F "$address"; then fail "the entry is left"; fi
check_found
mesh resolver undo
check_gone

# Debian's resolvconf has no such thing as a private entry.
rm -rf /usr/sbin/resolvconf /usr/lib/resolvconf /etc/resolvconf.conf
unpack debian/resolvconf
mesh resolver apply | tee /run/said
grep -q 'Set in /etc/hosts' /run/said
grep -q 'unlike openresolv' /run/said
mesh resolver undo
check_gone
echo "all is well"
