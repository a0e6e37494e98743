# What the scripts in this folder share: they run in a booted system.
export HOME=/root
cd /root

step() { echo "== $* ($SECONDS s)"; }

# Until the command succeeds, at most $1 seconds.
wait_for() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "in vain: $*"; return 1; }
    sleep 0.1
  done
}

# As `!`, which `set -e` does not look at.
never() {
  if "$@" >/dev/null 2>&1; then
    echo "it should fail: $*"
    return 1
  fi
}

property() { systemctl show -P "$2" "$1"; }
answers() { mesh ping galena -c 1; }
serves() { (exec 3<>"/dev/tcp/$ADDRESS/$1"); }

# The second machine, beyond a veth pair.
start_galena() {
  ip netns add galena
  ip link add wire0 type veth peer name wire1 netns galena
  ip address add 10.9.0.1/24 dev wire0
  ip link set wire0 up
  ip -n galena address add 10.9.0.2/24 dev wire1
  ip -n galena link set wire1 up
  ip -n galena link set lo up
  systemd-run -q --unit=galena -p Type=notify -p NetworkNamespacePath=/run/netns/galena \
    mesh agent run --config /etc/galena/agent.toml
}

configure() {
  systemd-sysusers mesh.conf
  systemd-tmpfiles --create mesh.conf
  mkdir -p /etc/mesh /etc/galena
  mesh keygen --out /etc/mesh/identity >/dev/null
  mesh keygen --out /etc/galena/identity >/dev/null
  mesh inventory init --name home --out inventory.json
  local id signer address
  id=$(jq -r .network.id inventory.json)
  signer=$(mesh keygen --public /etc/mesh/identity)
  jq --arg signer "$signer" --arg galena "$(mesh keygen --public /etc/galena/identity)" '
    .network.signers = [$signer]
    | .machines = {cinnabar: {publicKey: $signer}, galena: {publicKey: $galena}}
    | .instances = {mesh: {roles: {
        controller: {machines: {cinnabar: {}}}, peer: {tags: {all: {}}}}}}' inventory.json >/etc/mesh/inventory.json
  address=$(mesh inventory show /etc/mesh/inventory.json --json | jq -r .members.cinnabar.address)
  cat >/etc/mesh/controller.toml <<END
network = "$id"
signers = ["$signer"]
inventory = "/etc/mesh/inventory.json"
group = "mesh"
http_listen = "[$address]:4195"
END
  cat >/etc/mesh/agent.toml <<END
network = "$id"
signers = ["$signer"]
controllers = ["127.0.0.1:4194"]
END
  cat >/etc/galena/agent.toml <<END
network = "$id"
signers = ["$signer"]
controllers = ["10.9.0.1:4194"]
identity_file = "/etc/galena/identity"
state_dir = "/var/lib/galena"
socket = "/run/galena/mesh/agent.sock"
END
}
