# One disk, by disko.
{ inputs, ... }:
{
  flake.modules.nixos.disk = {
    imports = [ inputs.disko.nixosModules.disko ];
    disko.devices.disk.main = {
      type = "disk";
      device = "/dev/sda";
      content = {
        type = "gpt";
        partitions.boot = {
          size = "1M";
          type = "EF02";
        };
        partitions.root = {
          size = "100%";
          content = {
            type = "filesystem";
            format = "ext4";
            mountpoint = "/";
          };
        };
      };
    };
  };
}
