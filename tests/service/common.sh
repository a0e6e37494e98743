# What the scripts that run in a booted system have in common. The programs are in /opt/release.
set -euo pipefail
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
trap 'echo "FAILED in line $LINENO: $BASH_COMMAND"; tail -n 20 said words plan || true; journalctl -q --no-pager -n 60 -u "mesh*" || true' ERR
rm -f /usr/sbin/policy-rc.d # where an image of containers forbids its packages to start anything
mkdir -p /root/work
cd /root/work

step() { echo "== $*"; }

# Everything of mesh where packages and administrators put things.
traces() {
  find /etc /usr /var/lib /var/log /run \( -path /usr/share -o -path /var/lib/dpkg/info -o -path /var/lib/docker \) -prune \
    -o \( -name 'mesh*' -o -name 'org.mesh*' \) -print 2>/dev/null | sort
  grep -E '^mesh' /etc/passwd /etc/group || true
}

# Fails, and shows what is there, unless everything is as it was `before`.
no_traces() { traces | diff before -; }

# Fails if systemd has a unit of mesh. A name that somebody asked for and that is not found stays listed for
# a moment.
no_units() { ! systemctl list-units --all --no-legend 'mesh*' | grep -v 'not-found *inactive'; }

# The program `$1`, as another release would be: other bytes, the same behaviour.
next_release() { cp "$1" "$2" && printf '\0' >>"$2"; }

# An inventory with this machine in it, signed by an SSH key of its own.
describe() {
  local mesh=$1 key=$2
  jq --arg key "$key" '.machines = {cinnabar: {publicKey: $key}}
    | .instances.mesh.roles.controller.machines = {cinnabar: {}}' inventory.json >described.json
  "$mesh" inventory sign described.json --key ~/.ssh/id_ed25519 --serial 1 --out roster.json
}
