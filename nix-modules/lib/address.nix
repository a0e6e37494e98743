# The formulas of docs/formats.md: prefix and addresses from the network id and machine names.
let
  inherit (builtins) hashString match substring;
  ip = import ./ip.nix;
  inherit (import ./text.nix) repeat;
in
rec {
  # The 12 hex digits of the /48: `fd` and 40 bits of a hash.
  prefixDigits =
    networkId: "fd" + substring 0 10 (hashString "sha256" "mesh-prefix-v1\n${networkId}");

  prefix = networkId: {
    family = 6;
    address = prefixDigits networkId + repeat 20 "0";
    length = 48;
  };

  # The 32 hex digits of a machine's address, unless it is pinned.
  digits =
    networkId: name:
    prefixDigits networkId
    + repeat 4 "0"
    + substring 0 16 (hashString "sha256" "mesh-address-v1\n${networkId}\n${name}");

  # What is wrong with an address for a machine, or null.
  refusal =
    networkId: address:
    let
      interface = substring 16 16 address;
    in
    if substring 0 12 address != prefixDigits networkId then
      "`${ip.show6 address}` is outside the network's prefix `${ip.showNet (prefix networkId)}`"
    else if substring 12 4 address == "ffff" then
      "`${ip.show6 address}` is in the subnet that the agents use among themselves"
    else if
      interface == repeat 16 "0"
      || match "02005efffe.*" interface != null
      || match "fdffffffffffff[89a-f]." interface != null
    then
      "the interface id of `${ip.show6 address}` is reserved (RFC 5453)"
    else
      null;
}
