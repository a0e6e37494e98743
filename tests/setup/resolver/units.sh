#!/usr/bin/env bash
# The units: with the agent's start, change, restart, crash and stop, on a machine that has the hosts file
# only. A stand-in for the agent writes the names; `mesh resolver` is the real one, in its sandbox.
. /common.sh
printf '127.0.0.1 localhost\n192.0.2.9 kept.example' >/etc/hosts
chmod 640 /etc/hosts
cp -p /etc/hosts /hosts.before
echo 'nameserver 192.0.2.1' >/etc/resolv.conf
# As the real agent's is: open to its own user alone.
useradd --system mesh 2>/dev/null || true
chown -R mesh /var/lib/mesh/agent
chmod 700 /var/lib/mesh/agent
chmod 600 /var/lib/mesh/agent/roster.json
mesh_up
has_block() { grep -q '^# BEGIN mesh ' /etc/hosts; }
no_block() { ! has_block; }

systemctl start mesh-agent
until_ok has_block
check_found
stat -c '%a %U' /etc/hosts | grep -qx '640 root'
systemctl is-active -q mesh-resolver.service mesh-resolver.path

# The names change.
sed -i "s/cinnabar\.$domain/kanban.$domain/; s/\"names\":{/&\"cinnabar.$domain\":[\"$address\"],/" /names.json
names
until_ok finds "kanban.$domain" "$address"
until_ok [ ! -e /run/mesh/names.changed ]

# They change again between the service's last look and systemd's next one, which is made long here.
dropin=/run/systemd/system/mesh-resolver-refresh.service.d
mkdir -p $dropin
printf '[Service]\nExecStartPost=+/bin/sleep 2\n' >$dropin/slow.conf
systemctl daemon-reload
cp /names.json /names.before
sed -i "s/kanban\.$domain/first.$domain/" /names.json
names
until_ok sh -c '[ "$(systemctl show -P SubState mesh-resolver-refresh)" = start-post ]'
sed -i "s/first\.$domain/second.$domain/" /names.json
names
[ "$(systemctl show -P SubState mesh-resolver-refresh)" = start-post ] || fail "the change came too late"
until_ok finds "second.$domain" "$address"
rm -r $dropin
mv /names.before /names.json
names
systemctl daemon-reload
until_ok finds "kanban.$domain" "$address"

# A restart, as for an upgrade: the block is there at every moment.
(
  while has_block; do :; done
  touch /run/gap
) &
watch=$!
systemctl restart mesh-agent
sleep 1
[ ! -e /run/gap ] || fail "a restart was seen"
kill $watch
systemctl is-active -q mesh-resolver.service mesh-resolver.path

# A crash: undone, then set again by the next start.
systemctl kill -s KILL --kill-who=main mesh-agent
until_ok sh -c '[ "$(systemctl show -P NRestarts mesh-agent)" -ge 1 ]'
until_ok systemctl is-active mesh-agent mesh-resolver.path
until_ok has_block
check_found

# A stop: no trace.
systemctl stop mesh-agent
no_block || fail "a block is left"
cmp /etc/hosts /hosts.before || fail "the hosts file is not what it was"
check_gone
[ -z "$(systemctl list-units --state=active,activating,failed --no-legend 'mesh*')" ] ||
  fail "left: $(systemctl list-units --no-legend 'mesh*')"

# A loss of power leaves the block and takes the record; the next start mends it, also a torn one.
systemctl start mesh-agent
until_ok has_block
cp /etc/hosts /hosts.set
systemctl stop mesh-agent
head -c -20 /hosts.set >/etc/hosts
systemctl start mesh-agent
until_ok cmp /etc/hosts /hosts.set
systemctl stop mesh-agent
no_block || fail "a block is left"
cmp /etc/hosts /hosts.before || fail "the hosts file is not what it was"

# A stop in the middle of the start.
for pause in 0 0.02 0.05 0.1 0.2; do
  systemctl start mesh-agent
  sleep $pause
  systemctl stop mesh-agent
  no_block || fail "left by a stop after $pause s"
done
cmp /etc/hosts /hosts.before || fail "the hosts file is not what it was"

# The agent lies: nothing is done.
sed 's/"domain":"[a-z]*"/"domain":"example"/' /names.json >/lies.json
mkdir -p /run/mesh
cp /lies.json /run/mesh/names.json
if mesh resolver apply; then fail "a lie was believed"; fi
cmp /etc/hosts /hosts.before
rm /run/mesh/names.json
echo "all is well"
