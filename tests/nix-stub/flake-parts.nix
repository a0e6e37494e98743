# A stand-in for flake-parts and import-tree: what a flake in the dendritic style needs of them to be evaluated.
# Same names and meaning; whatever it lacks is an error.
{ lib }:
let
  inherit (lib) mkOption types;

  # Outputs that are defined per system, as `flake.<output>.<system>`.
  transposed = [
    "packages"
    "checks"
    "devShells"
    "apps"
    "legacyPackages"
  ];
  attrs = mkOption {
    type = types.lazyAttrsOf types.raw;
    default = { };
  };

  # `modules.<class>.<name>`, to which many files may add; the real one has it after an import of
  # `flakeModules.modules`. Other outputs are anything.
  outputs = types.submodule {
    freeformType = types.lazyAttrsOf types.anything;
    options.modules = mkOption {
      type = types.lazyAttrsOf (types.lazyAttrsOf types.deferredModule);
      default = { };
    };
  };

  base =
    { config, inputs, ... }:
    {
      options = {
        systems = mkOption { type = types.listOf types.str; };
        flake = mkOption {
          type = outputs;
          default = { };
        };
        perSystem = mkOption {
          type = types.deferredModule;
          default = { };
        };
        allSystems = mkOption { type = types.lazyAttrsOf types.raw; };
      };
      config.allSystems = lib.genAttrs config.systems (
        system:
        (lib.evalModules {
          modules = [
            {
              options = lib.genAttrs transposed (_: attrs) // {
                formatter = mkOption {
                  type = types.nullOr types.package;
                  default = null;
                };
              };
              config._module.args = {
                inherit system;
                pkgs = inputs.nixpkgs.legacyPackages.${system};
              };
            }
            config.perSystem
          ];
        }).config
      );
    };

  mkFlake =
    { inputs }:
    module:
    let
      evaluated = lib.evalModules {
        specialArgs = {
          inherit inputs;
          inherit (inputs) self;
        };
        modules = [
          base
          module
        ];
      };
      inherit (evaluated) config;
    in
    lib.genAttrs transposed (output: lib.mapAttrs (_: system: system.${output}) config.allSystems)
    // {
      formatter = lib.mapAttrs (_: system: system.formatter) config.allSystems;
    }
    // config.flake;

  # Every Nix file below a folder but those below a path with `/_`.
  filesIn =
    folder:
    lib.concatLists (
      lib.mapAttrsToList (
        name: type:
        let
          path = folder + "/${name}";
        in
        if lib.hasPrefix "_" name then
          [ ]
        else if type == "directory" then
          filesIn path
        else
          lib.optional (lib.hasSuffix ".nix" name) path
      ) (builtins.readDir folder)
    );
in
{
  flake-parts = {
    lib = { inherit mkFlake; };
    flakeModules.modules = { };
  };
  import-tree = folder: { imports = filesIn folder; };
}
