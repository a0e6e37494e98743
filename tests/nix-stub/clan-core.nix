# A stand-in for clan-core's flake-parts module: machines of clan's inventory with what the services that are
# defined by the flake's other inputs give them. clan's own services are passed over.
{ stub }:
{ config, inputs, ... }:
let
  inherit (stub) lib;
  inherit (lib) mkOption types;
  cfg = config.clan;
  anything = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };

  # As clan does, a machine has the tags `all` and its class.
  tagsOf =
    machine:
    machine.tags
    ++ [
      "all"
      machine.machineClass
    ];
  withTag =
    tag:
    lib.attrNames (lib.filterAttrs (_: machine: lib.elem tag (tagsOf machine)) cfg.inventory.machines);

  # A role's machines with their settings, those by tag among them.
  assigned =
    role:
    let
      byTag = lib.mapAttrsToList (tag: given: lib.genAttrs (withTag tag) (_: given.settings or { })) (
        role.tags or { }
      );
      byName = lib.mapAttrs (_: given: given.settings or { }) (role.machines or { });
    in
    {
      settings = role.settings or { };
      machines = lib.foldl' lib.recursiveUpdate { } (byTag ++ [ byName ]);
    };

  services = lib.filterAttrs (
    _: instance: instance.module.input != "clan-core"
  ) cfg.inventory.instances;
  evaluated = lib.mapAttrs (
    name: instance:
    stub.clan {
      service = inputs.${instance.module.input}.clan.modules.${instance.module.name};
      instances.${name}.roles = lib.mapAttrs (_: assigned) instance.roles;
      inherit (cfg.inventory) machines;
      inherit (cfg) meta;
      directory = cfg.directory;
      modulesFor = machine: [ cfg.machines.${machine} ];
      darwin = ofClass "darwin";
    }
  ) services;
  ofClass =
    class:
    lib.attrNames (lib.filterAttrs (_: machine: machine.machineClass == class) cfg.inventory.machines);
  # A file of this name in the clan's folder is to clan a part of its own inventory. What is not of its form is
  # an option that does not exist.
  file = "${cfg.directory}/inventory.json";
  foreign = lib.optionals (builtins.pathExists file) (
    lib.subtractLists [ "instances" "machines" "meta" "tags" ] (lib.attrNames (lib.importJSON file))
  );
  # One service is modelled at a time.
  machines = lib.throwIf (foreign != [ ]) "The option `clan.inventory.${lib.head foreign}' does not exist: `${file}`" (
    lib.head (lib.attrValues evaluated)
  ).machines;
in
{
  options.clan = {
    meta = anything;
    machines = mkOption {
      type = types.lazyAttrsOf types.deferredModule;
      default = { };
    };
    inventory.machines = anything;
    inventory.instances = anything;
    directory = mkOption {
      type = types.raw;
      default = inputs.self;
    };
  };
  config.flake = {
    nixosConfigurations = lib.genAttrs (ofClass "nixos") (name: machines.${name});
    darwinConfigurations = lib.genAttrs (ofClass "darwin") (name: machines.${name});
  };
}
