# `mesh agent upgrade` in a real systemd, under a ping of 1 000 a second each way.
set -Eeuo pipefail
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND"; journalctl -q --no-pager -n 150 -u "mesh*" -u galena || true' ERR
. /boot-common.sh

# The program that gives the commands, whatever is installed.
GOOD=/usr/local/bin/mesh-good
mesh() { "$GOOD" "$@"; }
DROP_IN=/run/systemd/system/mesh-agent.service.d/50-mesh-upgrade.conf

# Puts what comes in at the place of the program, as packages do.
installed() { cat >/usr/bin/mesh.new && chmod 755 /usr/bin/mesh.new && mv /usr/bin/mesh.new /usr/bin/mesh; }
pid() { property mesh-agent MainPID; }

start_streams() {
  rm -f /run/stop
  python3 /boot-stream.py "$GALENA" >/run/there &
  ip netns exec galena python3 /boot-stream.py "$ADDRESS" >/run/back &
  wait_for 20 test -e "/run/flows-$GALENA"
  wait_for 20 test -e "/run/flows-$ADDRESS"
}

# At most $1 lost in each direction.
stop_streams() {
  touch /run/stop
  wait
  local sent lost longest
  for way in there back; do
    read -r sent lost longest <"/run/$way"
    echo "$way: $lost of $sent lost, held up for $longest ms"
    [ "$lost" -le "$1" ]
  done
}

# Upgrades, which is to end with outcome $1.
upgrade() {
  OUTCOME=$("$GOOD" agent upgrade --json || true)
  echo "$OUTCOME"
  [ "$(jq -r .outcome <<<"$OUTCOME")" = "$1" ]
}

cp /usr/bin/mesh "$GOOD"
step "both machines"
configure
systemctl start mesh-controller mesh-agent
wait_for 20 test -e /var/lib/mesh/agent/roster.json
ADDRESS=$(mesh status --json | jq -r .self.address)
start_galena
wait_for 20 answers
GALENA=$(mesh status --json | jq -r '.peers[] | select(.name == "galena").address')

step "an upgrade to another program that does the same"
for round in 1 2 3; do
  before=$(pid)
  start_streams
  (cat "$GOOD"; echo "$round") | installed
  upgrade upgraded
  stop_streams 1
  [ "$(pid)" != "$before" ]
done
[ "$(journalctl -q -u mesh-agent | grep -c "went on with the last process's sessions")" = 3 ]
upgrade same

step "two upgrades at once are one after the other"
(cat "$GOOD"; echo two) | installed
"$GOOD" agent upgrade --json >/run/one &
"$GOOD" agent upgrade --json >/run/other &
wait
[ "$(jq -r .outcome /run/one /run/other | sort | xargs)" = "same upgraded" ]

step "who stops it in the midst of an upgrade has it stopped"
before=$(pid)
(cat "$GOOD"; echo stopped) | installed
another() { [ "$(pid)" != 0 ] && [ "$(pid)" != "$before" ] && [ "$(property mesh-agent ActiveState)" = active ]; }
(wait_for 20 another && systemctl stop mesh-agent) &
upgrade not_running
wait
[ "$(property mesh-agent ActiveState)" = inactive ]
never test -e "$DROP_IN"
systemctl start mesh-agent
wait_for 20 answers

step "a program that fails its self-check"
before=$(pid)
start_streams
printf '#!/bin/sh\necho "no such processor" >&2\nexit 1\n' | installed
upgrade unfit
[ "$(jq -r .reason <<<"$OUTCOME")" = "no such processor" ]
stop_streams 0
[ "$(pid)" = "$before" ]

step "one that ends when it is started"
printf '#!/bin/sh\n[ "$2" = self-check ] || exit 7\n' | installed
start_streams
upgrade went_back
# Two starts and a reload of systemd lie in between: the figure is for the log.
stop_streams 2000
answers
[ "$(readlink "/proc/$(pid)/exe")" = /var/lib/mesh/supervise/previous ]
test -e "$DROP_IN"

step "an upgrade that cannot begin leaves it so"
mv /usr/bin/mesh /usr/bin/mesh.away
never "$GOOD" agent upgrade
mv /usr/bin/mesh.away /usr/bin/mesh
test -e "$DROP_IN"

step "one that is never ready"
printf '#!/bin/sh\n[ "$2" = self-check ] || exec sleep 1000\n' | installed
upgrade went_back
wait_for 20 answers

step "and a good one after all"
(cat "$GOOD"; echo again) | installed
start_streams
upgrade upgraded
stop_streams 1
never test -e "$DROP_IN"
[ "$(readlink "/proc/$(pid)/exe")" = /usr/bin/mesh ]

step "a kill leaves the device to the next process, and no session"
index=$(cat /sys/class/net/mesh0/ifindex)
before=$(pid)
taken=$(journalctl -q -u mesh-agent | grep -c "went on with the last process's sessions")
kill -9 "$before"
wait_for 20 another
wait_for 20 answers
[ "$(cat /sys/class/net/mesh0/ifindex)" = "$index" ]
[ "$(journalctl -q -u mesh-agent | grep -c "went on with the last process's sessions")" = "$taken" ]

step "a stop leaves nothing"
systemctl stop mesh-agent
never test -e /sys/class/net/mesh0
[ "$(property mesh-agent NFileDescriptorStore)" = 0 ]
[ -z "$(ss -Hlun 'sport = :4193')" ]
upgrade not_running
step "done"
