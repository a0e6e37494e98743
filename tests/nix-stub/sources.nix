# Sources that were fetched, by name: the folders of the one that MESH_NIX_SOURCES names, none without it.
# nixpkgs (its `lib` is enough), nix-darwin, flake-parts, import-tree, clan-core.
let
  folder = builtins.getEnv "MESH_NIX_SOURCES";
in
if folder == "" then
  { }
else
  builtins.mapAttrs (name: _: /. + "${folder}/${name}") (builtins.readDir folder)
