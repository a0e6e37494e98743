# What the tests of the resolver share, inside a booted system: a mesh interface with a DNS server on it in
# the agent's place, one in the place of the default, and both write down what they are asked.
# shellcheck shell=bash
set -euo pipefail
packages=/opt/mesh-resolvers
domain=mesh
state=/run/mesh-resolver/state.json
# The address and the names file were made by the test, which signed the roster.
address=$(python3 -c 'import json; print(json.load(open("/names.json"))["address"])')
reverse=$(python3 -c "import ipaddress; print(ipaddress.ip_address('$address').reverse_pointer)")

fail() {
  echo "FAILED: $*"
  echo "--- asked of the agent:"; cat /run/asked.mesh || true
  echo "--- asked of the default:"; cat /run/asked.default || true
  mesh resolver status || true
  cat /etc/resolv.conf /etc/hosts || true
  journalctl -b -o cat | tail -30
  exit 1
}
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

# Unpacks packages over the running system, whose /lib is a link.
unpack() {
  local dir
  for dir; do tar -C "$packages/$dir" -c . | tar -C / -x --keep-directory-symlink; done
}

# Waits until a command succeeds.
until_ok() {
  local i
  for i in $(seq 100); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  fail "waited for: $*"
}

# A unit for a server that is ready when `systemctl start` returns.
serve() { # NAME ADDRESS NAME=ADDRESS...
  local name=$1 at=$2
  shift 2
  systemd-run -q --unit "answer-$name" -p Type=notify -p NotifyAccess=all \
    python3 /answer.py "$at" "/run/asked.$name" "$@"
}

default_up() {
  ip link set lo up
  # The default's server needs an address that is not loopback: systemd-resolved takes it for a server.
  ip link add up0 type veth peer name up1
  for link in up0 up1; do
    ip link set $link addrgenmode none
    ip link set $link up
  done
  ip addr add 192.0.2.1/24 dev up0
  serve default 192.0.2.1 outside.example=198.51.100.7
}

mesh_up() {
  default_up
  interface_up
}

interface_up() {
  ip link add mesh0 type veth peer name mesh1
  for link in mesh0 mesh1; do
    ip link set $link addrgenmode none
    ip link set $link up
  done
  ip addr add "$address/128" dev mesh0 nodad
  serve mesh "$address" "cinnabar.$domain=$address"
}

# The agent writes its names: whole, by a rename.
names() {
  mkdir -p /run/mesh
  cp /names.json /run/mesh/.names
  mv /run/mesh/.names /run/mesh/names.json
  touch /run/mesh/names.changed
}

# As programs ask.
finds() { [ "$(getent ahostsv6 "$1" | awk 'NR == 1 { print $1 }')" = "$2" ]; }

asked() { # SERVER NAME: whether it was
  grep -qxF "$2" "/run/asked.$1"
}

# The mesh's names are found, and its server is asked for nothing else; the default's as ever.
check_found() {
  finds "cinnabar.$domain" "$address" || fail "cinnabar.$domain is not found"
  [ "$(getent hosts "$address" | awk '{ print $2 }')" = "cinnabar.$domain" ] || fail "no reverse name"
  getent hosts outside.example | grep -qF 198.51.100.7 || fail "the default does not answer"
  mesh resolver status || fail "status"
}

check_split() {
  : >/run/asked.mesh
  : >/run/asked.default
  check_found
  getent hosts nothing.example || true
  getent hosts plain || true
  asked mesh "cinnabar.$domain" || fail "the agent was not asked"
  if grep -vE "(^|\.)$domain\$|\.ip6\.arpa\$" /run/asked.mesh; then fail "the agent was asked for others' names"; fi
  if grep -E "(^|\.)$domain\$" /run/asked.default; then fail "the default was asked for the mesh's names"; fi
}

check_gone() {
  if finds "cinnabar.$domain" "$address"; then fail "cinnabar.$domain is still found"; fi
  [ ! -e $state ] || fail "there still is a record"
  if grep -q mesh /etc/hosts; then fail "something is left in /etc/hosts"; fi
}
