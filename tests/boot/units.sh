# Both daemons and a service on the mesh address in one system, and a second machine in a namespace: what a
# year brings, in two boots. The argument is the number of the boot.
set -Eeuo pipefail
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND"; journalctl -q --no-pager -n 100 -u "mesh*" -u web -u galena || true' ERR
. /boot-common.sh

# Every thread of the service's process is $2, may do no more than $3, and gets no more by any way.
confined() {
  local uid task cap
  uid=$(id -u "$2")
  for task in /proc/"$(property "$1" MainPID)"/task/*; do
    [ "$(awk '/^Uid:/ { print $2, $3, $4, $5 }' "$task/status")" = "$uid $uid $uid $uid" ]
    cap=$(awk '/^CapEff:/ { print $2 }' "$task/status")
    [ $((0x$cap & ~$3)) = 0 ]
    grep -q '^NoNewPrivs:.1$' "$task/status"
    grep -q '^Seccomp:.2$' "$task/status"
    # Beside what is in force: nothing that a program or a later call could gain.
    for cap in CapPrm CapBnd CapAmb; do
      [ $((0x$(awk -v c="$cap:" '$1 == c { print $2 }' "$task/status") & ~0x1400 & ~$3)) = 0 ]
    done
  done
}

first_boot() {
  step "nothing is started, and nothing fails, before there is a configuration"
  for unit in mesh-agent mesh-controller web; do
    [ "$(property $unit ActiveState) $(property $unit Result)" = "inactive success" ]
  done
  local said
  said=$(systemd-analyze verify --man=no mesh-agent.service mesh-controller.service mesh-online.target 2>&1)
  [ -z "$said" ] || { echo "$said"; return 1; }

  step "the first start"
  configure
  systemctl start mesh-controller mesh-agent mesh-online.target
  wait_for 20 test -e /var/lib/mesh/agent/roster.json
  ADDRESS=$(mesh status --json | jq -r .self.address)
  echo "ADDRESS=$ADDRESS" >/etc/web.env
  start_galena
  wait_for 20 answers

  step "the identity comes as a credential, and nobody else can read it"
  [ "$(stat -c %U:%a /etc/mesh/identity)" = root:600 ]
  never runuser -u mesh -- cat /etc/mesh/identity
  never runuser -u nobody -- cat /run/credentials/mesh-agent.service/identity
  [ "$(stat -c %U:%a /var/lib/mesh/agent)" = mesh:700 ]
  [ "$(stat -c %U:%a /var/lib/mesh/controller)" = mesh-controller:700 ]
  [ "$(stat -c %U:%G:%a /run/mesh)" = root:mesh:1775 ]

  step "user, capabilities, filters"
  confined mesh-agent mesh 0x1400
  confined mesh-controller mesh-controller 0
  mesh status --json | jq -e '.confinement.in_force | index("files") and index("system calls")'
  mesh status --json | jq -e '[.confinement.missing[] | select(test("thread"))] == []'

  step "packets do not wait behind the programs that send them"
  for task in /proc/"$(property mesh-agent MainPID)"/task/*; do
    [ "$(sed 's/.*) //' "$task/stat" | cut -d ' ' -f 17)" = -10 ]
  done

  step "a reload keeps the process"
  local pid
  pid=$(property mesh-agent MainPID)
  systemctl reload mesh-agent mesh-controller
  wait_for 10 sh -c 'mesh logs | grep -q "configuration reloaded"'
  [ "$(property mesh-agent MainPID)" = "$pid" ]

  step "kill -9"
  for unit in mesh-agent mesh-controller; do
    pid=$(property $unit MainPID)
    kill -9 "$pid"
    wait_for 15 sh -c "[ \$(systemctl show -P MainPID $unit) -gt 0 ] && [ \$(systemctl show -P MainPID $unit) != $pid ] && systemctl -q is-active $unit"
  done
  wait_for 20 answers
  wait_for 10 systemctl -q is-active mesh-online.target

  step "a daemon that hangs is ended by the watchdog and started again"
  for unit in mesh-agent mesh-controller; do
    mkdir -p /run/systemd/system/$unit.service.d
    printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/$unit.service.d/watchdog.conf
  done
  systemctl daemon-reload
  systemctl restart mesh-controller mesh-agent
  for unit in mesh-agent mesh-controller; do kill -STOP "$(property $unit MainPID)"; done
  for unit in mesh-agent mesh-controller; do
    wait_for 15 sh -c "[ \$(systemctl show -P NRestarts $unit) -ge 1 ] && systemctl -q is-active $unit"
    journalctl -q --no-pager -u $unit | grep -q 'Watchdog timeout'
    journalctl -q --no-pager -u $unit | grep -q 'status=6/ABRT'
  done
  wait_for 20 answers
  # Alive, it is fed: no further restart in two periods.
  local restarts
  restarts=$(property mesh-agent NRestarts)
  sleep 4
  [ "$(property mesh-agent NRestarts)" = "$restarts" ]

  step "so is one of which a single thread hangs"
  pid=$(property mesh-agent MainPID)
  python3 /boot-stop-thread.py "$pid" mesh-outbound &
  wait_for 15 sh -c "[ \$(systemctl show -P NRestarts mesh-agent) -gt $restarts ] && systemctl -q is-active mesh-agent"
  wait
  [ "$(property mesh-agent MainPID)" != "$pid" ]
  journalctl -q --no-pager -u mesh-agent | grep 'the watchdog was not fed' | grep -q 'threads="outbound"'
  wait_for 20 answers
  rm /run/systemd/system/mesh-*.service.d/watchdog.conf
  systemctl daemon-reload

  step "a read-only disk"
  mount --bind /var/lib/mesh /var/lib/mesh
  mount -o remount,ro,bind /var/lib/mesh
  systemctl restart mesh-agent
  wait_for 20 answers
  systemctl stop mesh-agent
  umount /var/lib/mesh
  systemctl start mesh-agent

  step "a full disk"
  systemctl stop mesh-agent
  cp -a /var/lib/mesh/agent /root/state
  mount -t tmpfs -o size=256k,mode=700,uid="$(id -u mesh)",gid="$(id -g mesh)" tmpfs /var/lib/mesh/agent
  cp -a /root/state/. /var/lib/mesh/agent/
  dd if=/dev/zero of=/var/lib/mesh/agent/filler bs=4k 2>/dev/null || true
  systemctl start mesh-agent
  wait_for 20 answers
  # A newer roster is in force although it cannot be kept.
  jq '.machines.scheelite = {}' /etc/mesh/inventory.json >next.json
  cat next.json >/etc/mesh/inventory.json
  wait_for 10 sh -c 'mesh status --json | jq -e "[.peers[].name] | index(\"scheelite\")"'
  answers
  systemctl stop mesh-agent
  umount /var/lib/mesh/agent
  systemctl start mesh-agent
  wait_for 20 answers

  step "nothing is left after a stop"
  systemctl stop mesh-agent
  [ "$(property mesh-online.target ActiveState)" = inactive ]
  never ip link show mesh0
  ip -6 route show table all >routes
  never grep -e "$ADDRESS" -e "dev mesh0" routes
  systemctl stop mesh-controller
  [ "$(property mesh-controller Result)" = success ]
  [ "$(property mesh-agent Result)" = success ]
  systemctl stop galena
  find /run/mesh -mindepth 1 >files
  diff /dev/null files
  find /proc -maxdepth 1 \( -user mesh -o -user mesh-controller \) >processes
  diff /dev/null processes
  ss -Hlnup >ports
  never grep -E ':(4193|4194) ' ports
}

second_boot() {
  step "after a reboot everything is there, in order"
  . /etc/web.env
  for unit in mesh-controller mesh-agent mesh-online.target web; do
    [ "$(property $unit ActiveState)" = active ]
  done
  wait_for 5 serves 8080
  # The controller was there before the address that its JSON API is on.
  serves 4195
  [ "$(property web NRestarts)" = 0 ]
  [ "$(property mesh-agent NRestarts)" = 0 ]
  [ "$(property web ExecMainStartTimestampMonotonic)" -ge "$(property mesh-agent ActiveEnterTimestampMonotonic)" ]
  mesh status --json | jq -e '.self.address == "'"$ADDRESS"'" and .roster.serial >= 2'
  start_galena
  wait_for 20 answers

  step "a service that only wants the mesh outlives a restart of the agent"
  local pid
  pid=$(property web MainPID)
  systemctl restart mesh-agent
  [ "$(property web MainPID)" = "$pid" ]
  wait_for 20 answers
  wait_for 5 systemctl -q is-active mesh-online.target

  step "without the identity it tries for ever"
  mv /etc/mesh/identity away
  never systemctl restart mesh-agent
  wait_for 20 sh -c '[ $(systemctl show -P NRestarts mesh-agent) -ge 3 ]'
  mv away /etc/mesh/identity
  wait_for 10 systemctl -q is-active mesh-agent
  wait_for 20 answers
}

case $1 in 1) first_boot ;; 2) second_boot ;; esac
step "done"
