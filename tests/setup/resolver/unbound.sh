#!/usr/bin/env bash
# A real openresolv with a real unbound that validates nothing, as the mesh's zone is not signed.
. /common.sh
unpack debian/unbound
unpack sid
ldconfig
systemd-sysusers 2>/dev/null || true
id unbound >/dev/null 2>&1 || useradd --system unbound
mkdir -p /etc/unbound/unbound.conf.d
cat >/etc/systemd/system/unbound.service <<'U'
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=/usr/sbin/unbound -d -p -c /etc/unbound/unbound.conf
ExecReload=+/bin/kill -HUP $MAINPID
U
cat >/etc/unbound/unbound.conf <<'C'
server:
  interface: 127.0.0.1
  username: ""
  chroot: ""
  module-config: "iterator"
  # It denies the reverse names of private addresses by itself.
  local-zone: "d.f.ip6.arpa." nodefault
forward-zone:
  name: "."
  forward-addr: 192.0.2.1
include: "/etc/unbound/unbound.conf.d/*.conf"
C
cat >/etc/resolvconf.conf <<'C'
name_servers=127.0.0.1
unbound_conf=/etc/unbound/unbound.conf.d/resolvconf.conf
C
systemctl daemon-reload
mesh_up
names
rm -f /etc/resolv.conf
touch /etc/unbound/unbound.conf.d/resolvconf.conf
systemctl start unbound
resolvconf -u
until_ok getent hosts outside.example
before=$(cat /etc/resolv.conf)
mesh resolver apply | tee /run/said
grep -q 'Set in resolvconf' /run/said || fail "not set in resolvconf"
[ "$(cat /etc/resolv.conf)" = "$before" ] || fail "resolv.conf changed"
check_split
mesh resolver undo | grep -q 'Undone in resolvconf'
check_gone
until_ok getent hosts outside.example
systemctl start mesh-resolver
check_split
systemctl stop mesh-resolver
check_gone
echo "all is well"
