# Stands in for the input `nixpkgs` where nixpkgs cannot be had:
#     nix flake check --no-build --override-input nixpkgs path:./tests/nix-stub path:.
{
  description = "A stand-in for nixpkgs";

  outputs =
    { self }:
    let
      lib = import ./lib.nix;
      stub = import ./. { inherit lib; };
    in
    {
      inherit lib stub;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ] stub.pkgsFor;
    };
}
