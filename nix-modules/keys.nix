# The keys of `agent.toml` and `controller.toml` as options, with what follows from the options of
# `services.mesh`; null leaves a key out. A test compares them with the keys that the program takes.
{
  lib,
  cfg,
  watched,
}:
let
  inherit (lib) mkOption types;
  # From an option of the same name, or not set.
  key =
    type: example: description: source:
    mkOption {
      type = types.nullOr type;
      inherit description example;
      default = source.value or null;
      defaultText = lib.literalMD (source.text or "not set");
    };
  unset = { };
  from = option: value: {
    text = "`services.mesh.${option}`";
    inherit value;
  };
  # What the program does by itself is not said, so that the file is short.
  unless =
    usual: option: value:
    from option (if value == usual then null else value);
  listen = option: usual: port: {
    text = "all addresses and `services.mesh.${option}`";
    value = if port == usual then null else "[::]:${toString port}";
  };

  # Of both files.
  common = {
    network = key types.str "000102030405060708090a0b0c0d0e0f" "The network's id." (
      from "network" cfg.network
    );
    signers = key (types.listOf types.str) [ "ssh-ed25519 AAAA… admin" ] "Who may sign rosters." (
      from "signers" cfg.signers
    );
    user = key types.str "mesh" "The account to run as, where the daemon is started as root." unset;
    confine = key types.bool false "Whether the daemon confines itself after the start." unset;
    identity_file =
      key types.str "/etc/mesh/identity"
        "Where the identity is; not set where the service manager passes it on."
        unset;
  };
in
{
  agent = common // {
    controllers = key (types.listOf types.str) [ "mesh.example.org:4194" ] "Where rosters come from." (
      from "controllers" cfg.controllers
    );
    name = key types.str "cinnabar" "The name to claim." (from "name" cfg.name);
    min_serial = key types.ints.positive 7 "The least serial of a roster to take." (
      from "minSerial" cfg.minSerial
    );
    interface = key types.str "mesh1" "The name of the interface." (
      unless "mesh0" "interface" cfg.interface
    );
    listen =
      key types.str "192.0.2.1:4193" "The UDP address of the data plane; `[::]` takes IPv4 too."
        (listen "port" 4193 cfg.port);
    group = key types.str "wheel" "Who may ask the agent." (unless "mesh" "group" cfg.group);
    dns = key types.bool false "Whether to answer names." (unless true "dns" cfg.dns);
    resolver = key types.str "none" "How this machine's programs find names." (
      unless "auto" "resolver" cfg.resolver
    );
    relay_listen =
      key types.str "[::]:443"
        "The address, TCP and UDP, for clients of a moon whose networks let no other UDP through."
        unset;
    relay_rate =
      key types.str "50MiB" "What a moon relays for all its clients together, in bytes a second."
        unset;
    offload = key (types.enum [
      "none"
      "tcp"
      "tcp-and-udp"
    ]) "none" "What the TUN device does in the kernel's place. For finding faults only." unset;
    queues =
      key types.ints.positive 2
        "Into how many queues the interface and the port are split when they are made."
        unset;
    metrics_listen =
      key types.str "127.0.0.1:9193"
        "The TCP address, on loopback or inside the mesh, on which Prometheus finds metrics."
        unset;
    port_mapping =
      key types.bool false "Whether the router is asked for a port, by PCP, NAT-PMP or UPnP."
        unset;
    state_dir = key types.str "/var/lib/mesh/agent" "Where the roster in force is kept." unset;
    socket = key types.str "/run/mesh/agent.sock" "The UNIX socket of the local API." unset;
  };

  controller = common // {
    inventory = key types.str "/etc/mesh/inventory.json" "The inventory to watch and sign." (
      watched "inventory"
    );
    roster = key types.str "/etc/mesh/roster.json" "The roster to watch." (watched "roster");
    listen = key types.str "192.0.2.1:4194" "The UDP address for agents; `[::]` takes IPv4 too." (
      listen "controller.port" 4194 cfg.controller.port
    );
    http_listen = key types.str "127.0.0.1:4195" "The JSON API over TCP." (
      from "controller.httpListen" cfg.controller.httpListen
    );
    group = key types.str "wheel" "Who may ask the controller." (from "group" cfg.group);
    state_dir = key types.str "/var/lib/mesh/controller" "Where the controller keeps its store." unset;
    socket = key types.str "/run/mesh/controller.sock" "The UNIX socket of the local API." unset;
  };
}
