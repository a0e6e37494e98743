#!/usr/bin/env bash
# A real systemd-resolved: set, asked by libc through its stub and through its module, undone.
. /common.sh
unpack debian/systemd-resolved
systemd-sysusers
mkdir -p /etc/systemd/resolved.conf.d
printf '[Resolve]\nDNS=192.0.2.1\nFallbackDNS=\nLLMNR=yes\n' >/etc/systemd/resolved.conf.d/test.conf
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
systemctl daemon-reload
systemctl start dbus
systemctl reload dbus
mesh_up
systemctl start systemd-resolved
until_ok getent hosts outside.example
# There nobody answers, and that takes its time.
resolvectl llmnr up0 no

names
mesh resolver apply | tee /run/said
grep -q 'Set in systemd-resolved' /run/said
check_split
resolvectl query "cinnabar.$domain" | grep -qF "$address"
resolvectl query "$address" | grep -qF "cinnabar.$domain"
link=$(resolvectl status mesh0)
for line in -DefaultRoute -LLMNR -mDNS 'DNSSEC=no' "~$domain"; do
  grep -qF -e "$line" <<<"$link" || fail "no $line in: $link"
done
before=$(resolvectl status)
mesh resolver apply
[ "$(resolvectl status)" = "$before" ] || fail "applying twice is not applying once"

# It keeps what it was told over a restart of its own.
systemctl restart systemd-resolved
until_ok getent hosts outside.example
check_split

# Through its module for libc, with resolv.conf another's.
unpack debian/libnss-resolve
ldconfig
sed -i 's/^hosts:.*/hosts: files resolve [!UNAVAIL=return] dns/' /etc/nsswitch.conf
rm /etc/resolv.conf
echo 'nameserver 192.0.2.1' >/etc/resolv.conf
mesh resolver apply | grep -q 'Set in systemd-resolved'
check_split
# Without either, programs would not ask it: the hosts file, and nothing left in it.
sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf
mesh resolver apply | tee /run/said
grep -q 'Set in /etc/hosts' /run/said
grep -q 'programs do not ask it' /run/said
if resolvectl status mesh0 | grep -qF "~$domain"; then fail "systemd-resolved still asks"; fi
check_found
rm /etc/resolv.conf
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
mesh resolver apply | grep -q 'Set in systemd-resolved'
if grep -q mesh /etc/hosts; then fail "the hosts file has a block for nothing"; fi

# Undone, also without the names and the configuration.
rm /run/mesh/names.json
mv /etc/mesh/agent.toml /etc/mesh/agent.away
mesh resolver undo | grep -q 'Undone in systemd-resolved'
mv /etc/mesh/agent.away /etc/mesh/agent.toml
check_gone
link=$(resolvectl status mesh0)
if grep -qE "~|$address" <<<"$link"; then fail "left: $link"; fi
getent hosts outside.example | grep -qF 198.51.100.7

# The interface goes without a word, as with a killed agent, and comes again.
names
mesh resolver apply
ip link del mesh0
systemctl stop answer-mesh || true
systemctl reset-failed answer-mesh 2>/dev/null || true
getent hosts outside.example | grep -qF 198.51.100.7
interface_up
mesh resolver apply | grep -q 'Set in systemd-resolved'
check_split
mesh resolver undo
check_gone

# The same from the units' sandbox.
systemctl start mesh-resolver
check_split
grep -q resolved $state
systemctl start mesh-resolver-refresh
systemctl stop mesh-resolver
check_gone
echo "all is well"
