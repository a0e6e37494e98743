//! The mesh as a service of clan.

use std::{fs, process::Command};

use serde_json::Value;

use crate::evaluate::{self, Nix, workspace};

#[test]
fn a_clan_of_both_classes_joins_one_mesh() {
    let Some(nix) = Nix::new() else { return };
    let fleet = nix.json(&clan(
        &nix,
        r#"{
          inherit (fleet) exports manifest;
          inventory = cinnabar.services.mesh.inventory;
          units = lib.attrNames fleet.machines.cinnabar.json.units;
          plists = lib.attrNames fleet.machines.stibnite.json.plists;
          generator = stibnite.clan.core.vars.generators.mesh-identity;
          credential = cinnabar.systemd.services.mesh-agent.serviceConfig.LoadCredential;
          identity = stibnite.services.mesh.settings.identity_file;
          warnings = warned cinnabar ++ warned stibnite;
          failed = failed cinnabar ++ failed stibnite;
        }"#,
    ));
    assert_eq!(fleet["failed"], serde_json::json!([]));
    assert!(
        fleet["units"]
            .to_string()
            .contains("mesh-controller.service")
    );
    assert_eq!(fleet["plists"], serde_json::json!(["org.mesh.agent.plist"]));
    assert_eq!(
        fleet["credential"],
        "identity:/run/secrets/vars/mesh-identity/identity"
    );
    assert_eq!(
        fleet["identity"],
        "/run/secrets/vars/mesh-identity/identity"
    );

    // As clan's command line looks for a way to a machine.
    let exports = fleet["exports"].as_object().unwrap();
    assert_eq!(
        exports["mesh:mesh::"]["networking"]["module"],
        "clan_lib.network.direct"
    );
    assert!(exports["mesh:mesh::"]["networking"]["priority"].as_i64() > Some(900));
    assert_eq!(
        exports["mesh:mesh::cinnabar"]["peer"]["hosts"],
        serde_json::json!([{ "plain": "fdc3:582e:db61:0:f785:d658:d2e9:df7d" }])
    );

    // Every setting of the service that the mesh takes the place of is named with what takes its place.
    let warnings = fleet["warnings"].to_string();
    for (setting, instead) in [
        ("allowedIps", "roles.controller.settings.machines"),
        ("allowedIds", "roles.controller.settings.machines"),
        ("public", "signed inventory"),
        ("stableEndpoints", "Set `endpoints`"),
        ("orbitMoons", "the role `moon`"),
    ] {
        assert!(warnings.contains(&format!("`{setting}`")), "{warnings}");
        assert!(warnings.contains(instead), "{warnings}");
    }

    // The program resolves what the controller is given.
    let inventory = nix.file("clan.json", &fleet["inventory"].to_string());
    let resolved = Command::new(evaluate::program())
        .args(["inventory", "resolve", "--json"])
        .arg(inventory)
        .output()
        .unwrap();
    assert!(resolved.status.success(), "{resolved:?}");
    let resolved: Value = serde_json::from_slice(&resolved.stdout).unwrap();
    let members = &resolved["members"];
    assert_eq!(
        members["stibnite"]["tags"],
        serde_json::json!(["all", "darwin", "laptop"])
    );
    assert_eq!(
        members["cinnabar"]["roles"],
        serde_json::json!(["controller", "moon", "peer"])
    );
    assert_eq!(
        members["cinnabar"]["endpoints"],
        serde_json::json!(["203.0.113.7:4193"])
    );
    assert_eq!(
        members["stibnite"]["ciphers"],
        serde_json::json!(["chacha"])
    );
    assert_eq!(members["pixel"]["class"], "external");
    assert_eq!(resolved["network"]["domain"], "zt");
}

/// clan refuses a service whose settings it cannot tell as a JSON schema, for its command line and its forms.
#[test]
fn clan_itself_can_tell_the_settings() {
    let Some(nix) = Nix::new() else { return };
    if !nix.has("clan-core") {
        return;
    }
    let told = nix.json(&format!(
        r#"let
             clanLib = import (stub.sources.clan-core + "/lib") {{ inherit lib; }};
             service = clanLib.evalService {{ modules = [ {root}/nix-modules/clan-service.nix ]; prefix = [ ]; }};
           in {{
             inherit (service.config) manifest;
             schemas = lib.mapAttrs (_: schema: lib.attrNames schema."$defs".Input.properties) service.config.result.api.schema;
           }}"#,
        root = workspace().display(),
    ));
    assert_eq!(told["manifest"]["name"], "mesh");
    for (role, setting) in [
        ("controller", "machines"),
        ("moon", "stableEndpoints"),
        ("peer", "ciphers"),
    ] {
        let settings = told["schemas"][role].as_array().unwrap();
        assert!(
            settings.contains(&Value::from(setting)),
            "{role}: {settings:?}"
        );
    }
}

/// What the real clan tells its command line of a clan that uses ZeroTier.
#[test]
fn the_inventory_that_clan_tells_is_imported() {
    let Some(nix) = Nix::new() else { return };
    if !nix.has("clan-core") || !nix.has("flake-parts") {
        return;
    }
    let told = nix.json(&format!(
        r#"let
             inputs = import {root}/tests/nix-stub/inputs.nix {{ self.outPath = "{flake}/vars"; inherit mesh; }};
             flake = inputs.flake-parts.lib.mkFlake {{ inherit inputs; }} {{
               systems = [ "x86_64-linux" ];
               imports = [ inputs.clan-core.flakeModules.default ];
               clan.meta = {{ name = "fleet"; domain = "zt"; }};
               clan.inventory.machines.cinnabar.tags = [ "cloud" ];
               clan.inventory.machines.stibnite.machineClass = "darwin";
               clan.inventory.instances.zt = {{
                 module.name = "zerotier";
                 roles.controller.machines.cinnabar = {{ }};
                 roles.moon.machines.cinnabar.settings.stableEndpoints = [ "203.0.113.7" ];
                 roles.peer.tags.all = {{ }};
               }};
             }};
           in flake.clanInternals.inventoryClass.inventorySerialization"#,
        root = workspace().display(),
        flake = nix.flake().display(),
    ));
    let clan = nix.file("clan.json", &told.to_string());
    let mesh = nix.flake().join("mesh.json");
    let imported = Command::new(evaluate::program())
        .args(["import", "clan"])
        .arg(clan)
        .arg("--out")
        .arg(&mesh)
        .output()
        .unwrap();
    assert!(imported.status.success(), "{imported:?}: {told}");
    let resolved = Command::new(evaluate::program())
        .args(["inventory", "resolve", "--json"])
        .arg(mesh)
        .output()
        .unwrap();
    assert!(resolved.status.success(), "{resolved:?}");
    let resolved: Value = serde_json::from_slice(&resolved.stdout).unwrap();
    assert_eq!(
        resolved["members"]["cinnabar"]["endpoints"],
        serde_json::json!(["203.0.113.7:4193"])
    );
    assert_eq!(resolved["members"]["stibnite"]["class"], "darwin");
}

/// clan runs this script in a sandbox with `$out`, and takes the files that the generator names.
#[test]
fn clans_generator_makes_an_identity() {
    let Some(nix) = Nix::new() else { return };
    let script = nix.json(&clan(
        &nix,
        "stibnite.clan.core.vars.generators.mesh-identity.script",
    ));
    let out = tempfile::tempdir().unwrap();
    let path = format!("{}/bin:/usr/bin:/bin", nix.build("program").display());
    let made = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script.as_str().unwrap()])
        .env("out", out.path())
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let public = fs::read_to_string(out.path().join("identity.pub")).unwrap();
    assert!(
        public.trim().parse::<mesh_types::PublicIdentity>().is_ok(),
        "{public}"
    );
    assert!(out.path().join("identity").exists());
}

#[test]
fn a_clan_without_an_identity_of_its_controller_says_how_to_make_one() {
    let Some(nix) = Nix::new() else { return };
    let empty = tempfile::tempdir().unwrap();
    let expression = clan(&nix, "failed stibnite").replace(
        nix.flake().to_str().unwrap(),
        empty.path().to_str().unwrap(),
    );
    let said = nix.json(&expression).to_string();
    assert!(said.contains("Run `clan vars generate cinnabar`"), "{said}");
}

/// An expression over the machines of a clan with a server and a Mac.
fn clan(nix: &Nix, expression: &str) -> String {
    format!(
        r#"let
             fleet = stub.clan {{
               service = {root}/nix-modules/clan-service.nix;
               directory = {flake};
               meta = {{ name = "fleet"; domain = "zt"; }};
               darwin = [ "stibnite" ];
               machines.cinnabar = {{ machineClass = "nixos"; tags = [ "all" "nixos" "cloud" ]; }};
               machines.stibnite = {{ machineClass = "darwin"; tags = [ "all" "darwin" "laptop" ]; }};
               modulesFor = _: [ {{ services.mesh.package = program; }} ];
               instances.mesh.roles = {{
                 controller.settings.network.id = "000102030405060708090a0b0c0d0e0f";
                 controller.settings.machines.pixel = {{ machineClass = "external"; publicKey = "wireguard:Jlyg+H2ftB4Fywv7yb4bKwSSTpnPCw/bveoEVLWXd0w="; mesh.gateways = [ "cinnabar" ]; }};
                 controller.machines.cinnabar = {{ allowedIps = [ "fd00::1" ]; allowedIds = [ "deadbeef00" ]; public = true; }};
                 moon.machines.cinnabar = {{ stableEndpoints = [ "203.0.113.7/9993" ]; }};
                 peer.machines = {{ cinnabar = {{ }}; stibnite = {{ orbitMoons = [ "deadbeef00" ]; ciphers = [ "chacha" ]; }}; }};
               }};
             }};
             cinnabar = fleet.machines.cinnabar.config;
             stibnite = fleet.machines.stibnite.config;
           in {expression}"#,
        root = workspace().display(),
        flake = nix.flake().display(),
    )
}
