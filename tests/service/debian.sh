# The Debian package from its first installation to its purge, in a booted system.
. /opt/release/common.sh
traces >before

step "installed, it waits for its configuration"
dpkg -i /opt/release/first.deb >/dev/null
[ "$(systemctl is-enabled mesh-agent)" = enabled ]
[ "$(systemctl is-enabled mesh-controller)" = disabled ]
[ "$(systemctl is-active mesh-agent)" = inactive ]
code=0
mesh service install --yes 2>words || code=$?
[ "$code" = 1 ]
grep -q 'a package of this distribution' words

step "configured, both daemons run"
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
mesh keygen --out /etc/mesh/identity >/dev/null
mesh inventory init --name home --out inventory.json
cat >/etc/mesh/controller.toml <<END
network = "$(jq -r .network.id inventory.json)"
signers = ["$(cat ~/.ssh/id_ed25519.pub)"]
END
{ cat /etc/mesh/controller.toml; echo 'controllers = ["127.0.0.1:4194"]'; } >/etc/mesh/agent.toml
systemctl enable --now mesh-controller
describe mesh "$(mesh keygen --public /etc/mesh/identity)"
mesh inventory push roster.json --controller 127.0.0.1:4194 --yes
systemctl start mesh-agent
mesh status | grep -q 'admitted    yes'
mesh service status --json | jq -e '[.services[] | .installed and .running and .by == "package"] == [true, true]'

step "upgraded, the new release runs with the same configuration"
agent=$(systemctl show -P MainPID mesh-agent)
controller=$(systemctl show -P MainPID mesh-controller)
sums=$(sha256sum /etc/mesh/*)
dpkg -i /opt/release/second.deb >/dev/null
[ "$(systemctl show -P MainPID mesh-agent)" != "$agent" ]
[ "$(systemctl show -P MainPID mesh-controller)" != "$controller" ]
[ "$(sha256sum /etc/mesh/*)" = "$sums" ]
mesh service status --json | jq -e '[.services[] | .running and (.upgrade_pending | not)] == [true, true]'
mesh status | grep -q 'admitted    yes'

step "removed, the program is gone and what is the user's stays"
dpkg -r mesh >/dev/null
[ ! -e /usr/bin/mesh ]
[ "$(systemctl show -P LoadState mesh-agent)" = not-found ]
[ "$(sha256sum /etc/mesh/*)" = "$sums" ]
[ -z "$(pgrep -x mesh)" ]

step "purged, nothing is left"
dpkg -P mesh >/dev/null 2>&1
no_traces
no_units
