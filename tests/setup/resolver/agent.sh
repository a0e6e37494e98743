#!/usr/bin/env bash
# The whole: the real agent from its stored roster, in its unit, and a real systemd-resolved.
. /common.sh
unpack debian/systemd-resolved
systemd-sysusers
systemd-tmpfiles --create /usr/lib/tmpfiles.d/mesh.conf
chmod 600 /etc/mesh/identity
chown -R mesh: /var/lib/mesh/agent
chmod 700 /var/lib/mesh/agent
mkdir -p /etc/systemd/resolved.conf.d
printf '[Resolve]\nDNS=192.0.2.1\nFallbackDNS=\nLLMNR=no\n' >/etc/systemd/resolved.conf.d/test.conf
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
systemctl daemon-reload
systemctl start dbus
systemctl reload dbus
default_up
systemctl start systemd-resolved
until_ok getent hosts outside.example

systemctl start mesh-agent mesh-online.target
# Who waits for the mesh finds its names.
check_found
getent hosts "galena.$domain"
if getent hosts "nobody.$domain"; then fail "a name of nobody"; fi
systemctl restart mesh-agent
until_ok finds "cinnabar.$domain" "$address"
systemctl kill -s KILL --kill-who=main mesh-agent
until_ok sh -c '[ "$(systemctl show -P NRestarts mesh-agent)" -ge 1 ]'
until_ok finds "cinnabar.$domain" "$address"
check_found
systemctl stop mesh-agent
check_gone
[ ! -e /run/mesh-resolver ] || fail "left: /run/mesh-resolver"
getent hosts outside.example | grep -qF 198.51.100.7
[ -z "$(systemctl list-units --state=active,activating,failed --no-legend 'mesh*')" ] ||
  fail "left: $(systemctl list-units --no-legend 'mesh*')"
echo "all is well"
