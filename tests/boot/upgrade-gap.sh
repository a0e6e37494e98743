# Upgrades in a real systemd, to a program that does the same and back from one that ends, for `mesh-benches`:
# prints, a direction a line, the outcome, and how many packets were sent, lost, and held up for how long (ms).
set -Eeuo pipefail
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND"; journalctl -q --no-pager -n 50 -u "mesh*" -u galena || true' ERR
. /boot-common.sh
GOOD=/usr/local/bin/mesh-good
mesh() { "$GOOD" "$@"; }

cp /usr/bin/mesh "$GOOD"
configure >/dev/null 2>&1
systemctl start mesh-controller mesh-agent
wait_for 20 test -e /var/lib/mesh/agent/roster.json
ADDRESS=$(mesh status --json | jq -r .self.address)
start_galena
wait_for 20 answers
GALENA=$(mesh status --json | jq -r '.peers[] | select(.name == "galena").address')

# $1: the outcome that is expected of what comes in.
round() {
  cat >/usr/bin/mesh.new && chmod 755 /usr/bin/mesh.new && mv /usr/bin/mesh.new /usr/bin/mesh
  rm -f /run/stop
  python3 /boot-stream.py "$GALENA" >/run/there &
  ip netns exec galena python3 /boot-stream.py "$ADDRESS" >/run/back &
  wait_for 20 test -e "/run/flows-$GALENA"
  wait_for 20 test -e "/run/flows-$ADDRESS"
  local outcome
  outcome=$("$GOOD" agent upgrade --json 2>/dev/null || true)
  [ "$(jq -r .outcome <<<"$outcome")" = "$1" ]
  wait_for 20 answers >/dev/null
  touch /run/stop
  wait
  for way in there back; do echo "$1 $(cat /run/$way)"; done
}
for i in $(seq 25); do (cat "$GOOD"; echo "$i") | round upgraded; done
for i in $(seq 25); do printf '#!/bin/sh\n[ "$2" = self-check ] || exit 7\n' | round went_back; done
