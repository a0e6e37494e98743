# What is wrong with `services.mesh`, each with what to do about it: { assertions, warnings }.
{
  lib,
  meshLib,
  cfg,
  fleet,
  self,
}:
let
  inherit (lib) optional;

  name = toString cfg.name;
  list = lib.concatMapStringsSep ", " (word: "`${word}`");
  isSecret = path: !lib.hasPrefix "${builtins.storeDir}/" (toString path);
  inStore = option: ''
    `services.mesh.${option}` is in the Nix store, which everyone on the machine can read. Name a file that is
    there when the agent runs, as a string: `mesh keygen --out /etc/mesh/identity` makes one, or take the path
    that your secrets come with (`config.sops.secrets.mesh.path`).'';
  corrected = meshLib.correctedName name;
  isUnknown = cfg.enable && fleet != null && meshLib.isName name && self == null;
in
{
  assertions = [
    {
      assertion = cfg.network != null;
      message = "`services.mesh.network` is not set. Set `services.mesh.inventory` or `services.mesh.roster`, from which it follows, or the id that `mesh inventory init` wrote.";
    }
    {
      assertion = cfg.signers != [ ];
      message = "`services.mesh.signers` is empty, so no roster could be trusted. List the SSH public keys that sign the fleet's rosters, in the inventory's `network.signers` or here.";
    }
    {
      assertion = isSecret cfg.identityFile;
      message = inStore "identityFile";
    }
    {
      assertion = isSecret cfg.controller.identityFile;
      message = inStore "controller.identityFile";
    }
    {
      assertion = meshLib.isName name;
      message =
        "`services.mesh.name` is `${name}`, which is no machine name: 1 to 63 of `a`-`z`, `0`-`9` and `-`. Set it to the machine's name in the inventory"
        + lib.optionalString (corrected != null) ", such as `${corrected}`"
        + ".";
    }
    {
      assertion = !isUnknown;
      message = "`services.mesh.name` is `${name}`, which is not in the inventory or roster. Add the machine there, or set `services.mesh.name` to one of ${list (lib.attrNames fleet.members)}.";
    }
    {
      assertion = cfg.inventory == null || cfg.roster == null;
      message = "`services.mesh.inventory` and `services.mesh.roster` are both set. Keep `roster` if somebody signs the inventory by hand, `inventory` if the controller does.";
    }
    {
      assertion = cfg.controller.inventory == null || cfg.controller.roster == null;
      message = "`services.mesh.controller.inventory` and `services.mesh.controller.roster` are both set, and a controller watches one file. Set the other to null.";
    }
    {
      assertion = cfg.enable -> cfg.port != cfg.controller.port || !cfg.controller.enable;
      message = "`services.mesh.port` and `services.mesh.controller.port` are both ${toString cfg.port}. Set one of them to another port.";
    }
  ];

  warnings =
    optional (cfg.enable && cfg.controllers == [ ])
      "`services.mesh.controllers` is empty: this machine gets no roster that it has not got already. Give the controller's machine `mesh.endpoints` in the inventory, or list `host:port` here."
    ++ optional (
      self != null && !self.enabled
    ) "Machine `${name}` is switched off in the inventory (`enabled = false`), so nobody talks to it."
    ++
      optional (self != null && (self.publicKey or null) == null)
        "Machine `${name}` has no `publicKey` in the inventory, so nobody talks to it. Run `mesh keygen --machine ${name} --out ${toString cfg.identityFile}` there, and put what it prints into the inventory; with clan, run `clan vars generate ${name}`."
    ++
      optional (cfg.controller.enable && self != null && !lib.elem "controller" self.roles)
        "`services.mesh.controller.enable` is set, but machine `${name}` has not the role `controller` in the inventory: no agent asks it. Add `roles.controller.machines.${name} = { }` there."
    ++
      optional (!cfg.controller.enable && self != null && lib.elem "controller" self.roles)
        "Machine `${name}` has the role `controller` in the inventory, but runs none. Set `services.mesh.controller.enable = true`.";
}
