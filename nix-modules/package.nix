# The `mesh` program from this repository.
{
  lib,
  rustPlatform,
}:
let
  root = ../.;
  manifest = (lib.importTOML (root + "/Cargo.toml")).workspace.package;
  # What the build reads, which a test compares with what Cargo did read: an edit of the documentation or of
  # a module is no new program.
  sources = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      (root + "/Cargo.toml")
      (root + "/Cargo.lock")
      (root + "/benches")
      (root + "/crates")
      (root + "/launchd")
      (root + "/systemd")
      (root + "/tests/Cargo.toml")
      (root + "/tests/fleet")
      (root + "/tests/src")
    ];
  };
in
rustPlatform.buildRustPackage {
  pname = "mesh";
  inherit (manifest) version;
  src = sources;
  cargoLock.lockFile = root + "/Cargo.lock";
  cargoBuildFlags = [
    "--package"
    "mesh-cli"
  ];
  # The tests make TUN devices and network namespaces; `cargo xtask test` runs them.
  doCheck = false;
  meta = {
    description = "Encrypted overlay network for a fleet that one inventory describes";
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "mesh";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
