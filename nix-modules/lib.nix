# The mesh's formulas in pure Nix: prefix and addresses from the network id and machine names.
#
# No evaluation-time dependency and no nixpkgs: `import ./lib.nix`. The formulas are fixed, and are the
# same as in the `mesh` program (docs/formats.md); a test compares the two over a thousand names.
let
  inherit (builtins)
    concatStringsSep
    elemAt
    foldl'
    genList
    hashString
    length
    mapAttrs
    match
    stringLength
    substring
    ;

  checkedNetworkId =
    networkId:
    if match "[0-9a-f]{32}" networkId != null then
      networkId
    else
      throw "`${networkId}` is not a network id: 32 of `0`-`9` and `a`-`f`";

  checkedName =
    name:
    if match "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" name != null then
      name
    else
      throw "`${name}` is not a machine name: 1 to 63 of `a`-`z`, `0`-`9` and `-`, no `-` at either end";

  # One group of four hex digits without its leading zeros.
  stripZeros =
    group:
    if stringLength group > 1 && substring 0 1 group == "0" then
      stripZeros (substring 1 (stringLength group - 1) group)
    else
      group;

  # The longest run of zero groups, the leftmost of equals: { start, size }.
  longestRun =
    groups:
    let
      step =
        state: index:
        let
          current =
            if elemAt groups index != "0" then
              {
                start = index + 1;
                size = 0;
              }
            else
              {
                inherit (state.current) start;
                size = state.current.size + 1;
              };
        in
        {
          inherit current;
          best = if current.size > state.best.size then current else state.best;
        };
      none = {
        start = 0;
        size = 0;
      };
    in
    (foldl' step {
      current = none;
      best = none;
    } (genList (index: index) (length groups))).best;

  # 32 hex digits as an IPv6 address in the canonical text form of RFC 5952.
  addressText =
    digits:
    let
      groups = genList (index: stripZeros (substring (index * 4) 4 digits)) 8;
      run = longestRun groups;
      after = run.start + run.size;
      between = from: to: concatStringsSep ":" (genList (index: elemAt groups (from + index)) (to - from));
    in
    if run.size < 2 then between 0 8 else "${between 0 run.start}::${between after 8}";

  zeros = count: concatStringsSep "" (genList (_: "0") count);

  # The 12 hex digits of the /48: `fd` and 40 bits of a hash.
  prefixDigits =
    networkId: "fd" + substring 0 10 (hashString "sha256" "mesh-prefix-v1\n${checkedNetworkId networkId}");

  # 16 hex digits, or an error for those that RFC 5453 reserves.
  interfaceDigits =
    networkId: name:
    let
      digits = substring 0 16 (
        hashString "sha256" "mesh-address-v1\n${checkedNetworkId networkId}\n${checkedName name}"
      );
      reserved =
        digits == zeros 16
        || match "02005efffe.*" digits != null
        || match "fdffffffffffff[89a-f]." digits != null;
    in
    if reserved then
      throw "the derived interface id of machine `${name}` is reserved (RFC 5453); pin its address"
    else
      digits;
in
rec {
  # The network's /48, such as `fdc3:582e:db61::/48`.
  prefixFor = networkId: "${addressText (prefixDigits networkId + zeros 20)}/48";

  # The machines' /64, subnet 0 of the prefix.
  subnetFor = networkId: "${addressText (prefixDigits networkId + zeros 20)}/64";

  # The address of the machine called `name`, unless it is pinned.
  addressFor =
    networkId: name: addressText (prefixDigits networkId + zeros 4 + interfaceDigits networkId name);

  # The addresses of all machines of an inventory (an attribute set as `inventory.json` has it), by name;
  # pins are taken as they are.
  addressesOf =
    inventory:
    mapAttrs (
      name: machine:
      let
        pin = (machine.mesh or { }).address or null;
      in
      if pin == null then addressFor inventory.network.id name else pin
    ) (inventory.machines or { });
}
