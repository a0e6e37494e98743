# `mesh service` as a newcomer uses it: both daemons on one machine, and then none.
. /opt/release/common.sh
new=/opt/release/mesh
traces >before

step "without a terminal and without --yes, the plan is shown and nothing is done"
code=0
"$new" service install </dev/null >plan 2>words || code=$?
[ "$code" = 2 ]
grep -q '+ /etc/systemd/system/mesh-agent.service' plan
grep -q -- '--yes' words
"$new" service install --dry-run >plan
grep -q 'systemctl enable' plan
no_traces

step "without a configuration everything is there, and the next step is said"
"$new" service install --yes >said 2>/dev/null
grep -q 'does not say `network`, `signers`, `controllers`' said
[ "$(systemctl is-enabled mesh-agent)" = enabled ]
[ "$(systemctl is-active mesh-agent)" = inactive ]
/usr/local/bin/mesh service uninstall --purge --yes >/dev/null 2>&1
no_traces

step "the controller"
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
"$new" inventory init --name home --out inventory.json
id=$(jq -r .network.id inventory.json)
"$new" service install controller --network "$id" --signer ~/.ssh/id_ed25519.pub --yes >said 2>/dev/null
grep -q 'the controller runs' said
[ "$(systemctl is-active mesh-controller)" = active ]
describe mesh "$(mesh keygen --public /etc/mesh/identity)"
mesh inventory push roster.json --controller 127.0.0.1:4194 --yes

step "the agent beside it"
identity=$(sha256sum /etc/mesh/identity)
"$new" service install --network "$id" --signer ~/.ssh/id_ed25519.pub --controller 127.0.0.1:4194 --yes >said 2>/dev/null
grep -q 'this machine is `cinnabar`' said
[ "$(sha256sum /etc/mesh/identity)" = "$identity" ]
mesh status | grep -q 'admitted    yes'
mesh service status --json >state
jq -e '[.services[] | .installed and .enabled and .running and (.upgrade_pending | not) and .by == "mesh service"] == [true, true]' state

step "a second time there is nothing to do, and a configuration is never overwritten"
mesh service install >said
grep -q 'the agent runs' said
code=0
mesh service install --network "$id" --yes 2>words || code=$?
[ "$code" = 2 ]
grep -q 'never overwritten' words

step "another release takes over"
next_release "$new" next
agent=$(systemctl show -P MainPID mesh-agent)
controller=$(systemctl show -P MainPID mesh-controller)
./next service install --yes >said 2>/dev/null
mesh service status agent --json | jq -e '.services[0] | .running and (.upgrade_pending | not)'
[ "$(systemctl show -P MainPID mesh-agent)" != "$agent" ]
mesh service status controller --json | jq -e '.services[0].upgrade_pending'
./next service install controller --yes >said 2>/dev/null
[ "$(systemctl show -P MainPID mesh-controller)" != "$controller" ]
mesh service status controller --json | jq -e '.services[0].upgrade_pending | not'
cmp next /usr/local/bin/mesh

step "one goes and the other stays"
mesh service uninstall --yes >said 2>/dev/null
grep -q 'stay; `--purge` removes them' said
[ ! -e /etc/systemd/system/mesh-agent.service ]
[ "$(systemctl show -P LoadState mesh-agent)" = not-found ]
[ "$(systemctl is-active mesh-controller)" = active ]
[ -e /etc/mesh/agent.toml ]
[ "$(sha256sum /etc/mesh/identity)" = "$identity" ]
mesh service uninstall >said
grep -q 'nothing to remove' said

step "purged, nothing is left"
./next service uninstall --purge --yes >/dev/null 2>&1
./next service uninstall controller --purge --yes >/dev/null 2>&1
no_traces
no_units

step "an image gets the same, without a start"
mkdir -p image/etc
cp /etc/passwd /etc/group /etc/shadow /etc/gshadow image/etc/
"$new" service install --root "$PWD/image" --yes >/dev/null 2>&1
grep -q '^mesh-controller:' image/etc/passwd
[ -L image/etc/systemd/system/multi-user.target.wants/mesh-agent.service ]
[ -x image/usr/local/bin/mesh ]
no_traces
