# The mesh's formulas in pure Nix: prefix, addresses and names from the inventory, and the inventory
# resolved as `mesh inventory resolve` does it.
#
# No evaluation-time dependency and no nixpkgs: `import ./lib.nix`. docs/nix-lib.md shows each function;
# the formulas are fixed, and are the same as in the `mesh` program (docs/formats.md). Tests compare the two.
let
  inherit (builtins)
    attrNames
    attrValues
    concatMap
    concatStringsSep
    elemAt
    filter
    fromJSON
    fromTOML
    genList
    isPath
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    readFile
    ;
  address = import ./lib/address.nix;
  decode = import ./lib/decode.nix;
  endpoint = import ./lib/endpoint.nix;
  ip = import ./lib/ip.nix;
  resolveDocument = import ./lib/resolve.nix;
  text = import ./lib/text.nix;

  # The port of a controller, beside the agent's 4193.
  controllerPort = 4194;

  checkedNetworkId =
    networkId:
    if match "[0-9a-f]{32}" networkId != null then
      networkId
    else
      throw "`${networkId}` is not a network id: 32 of `0`-`9` and `a`-`f`";

  show =
    problem: "error: ${problem.message}" + (if problem ? hint then "\nhint: ${problem.hint}" else "");

  # A path, or the text of one, is read; anything else is the inventory itself.
  read =
    inventory:
    if !(isPath inventory || isString inventory) then
      inventory
    else if match ".*[.]toml" (toString inventory) != null then
      fromTOML (readFile inventory)
    else
      fromJSON (readFile inventory);

  # What was resolved before, or an inventory to resolve.
  resolved = value: if value ? members then value else resolve value;

  problemsWith =
    previous: inventory:
    let
      decoded = decode (read inventory);
    in
    if decoded ? document then
      let
        result = resolveDocument decoded.document (previousAddresses decoded.document previous);
      in
      {
        problems = decoded.problems ++ result.problems;
        inherit (result) resolution;
      }
    else
      decoded;

  # IPv4 addresses of a roster of the same network.
  previousAddresses =
    document: previous:
    if previous == null then
      { }
    else
      let
        roster = read previous;
        isSame = roster.head.network or roster.network.id == document.network.id;
      in
      if isSame then mapAttrs (_: member: member.ipv4 or null) roster.members else { };

  resolveWith =
    { previous }:
    inventory:
    let
      result = problemsWith previous inventory;
    in
    if result.problems == [ ] then
      result.resolution
    else
      throw (concatStringsSep "\n\n" (map show result.problems));

  resolve = resolveWith { previous = null; };

  nameOf =
    name:
    if text.isName name then
      name
    else
      let
        corrected = text.correctedName name;
      in
      throw (text.notAName name + (if corrected == null then "" else "; use `${corrected}`"));

  isOn = member: member.enabled;
  membersOf = value: attrValues (resolved value).members;
  addressesOfMember =
    member: [ member.address ] ++ (if member.ipv4 == null then [ ] else [ member.ipv4 ]);
  # A member's full names, without wildcards.
  namesOf =
    network: member:
    map (name: "${name}.${network.domain}") ([ member.name ] ++ filter text.isLabels member.aliases);
in
rec {
  inherit nameOf resolve resolveWith;

  # Reads an inventory in JSON or, by its extension, TOML.
  readInventory = read;

  # What is wrong with an inventory: a list of { message, hint }, empty if it resolves.
  problemsOf = inventory: (problemsWith null inventory).problems;

  # The name that was probably meant by a text that is none, or null.
  correctedName = text.correctedName;
  isName = text.isName;

  # The network's /48, such as `fdc3:582e:db61::/48`.
  prefixFor = networkId: ip.showNet (address.prefix (checkedNetworkId networkId));

  # The machines' /64, subnet 0 of the prefix.
  subnetFor = networkId: ip.showNet (address.prefix (checkedNetworkId networkId) // { length = 64; });

  # The address of the machine called `name`, unless it is pinned.
  addressFor =
    networkId: name:
    let
      digits = address.digits (checkedNetworkId networkId) (nameOf name);
      refusal = address.refusal networkId digits;
    in
    if refusal == null then ip.show6 digits else throw "${refusal}; pin the address of `${name}`";

  # The addresses of all machines by name, pins among them.
  addressesOf = value: mapAttrs (_: member: member.address) (resolved value).members;

  # An address as URLs and `host:port` want it: IPv6 in brackets.
  urlHost = given: if match ".*:.*" given == null then given else "[${given}]";

  # The reverse DNS name of an address.
  reverseName =
    given:
    let
      four = ip.parse4 given;
      six = ip.parse6 given;
    in
    if four != null then
      ip.reverse4 4 four
    else if six != null then
      ip.reverse6 32 six
    else
      throw "`${given}` is not an IP address";

  # The reverse zone of the network's /48.
  reverseZoneFor = networkId: ip.reverse6 12 (address.prefix (checkedNetworkId networkId)).address;

  # The reverse zones of a fleet, those of its IPv4 pool among them.
  reverseZonesOf =
    value:
    let
      inherit ((resolved value)) network;
    in
    [ (reverseZoneFor network.id) ]
    ++ (if network.ipv4 == null then [ ] else ip.reverseZones4 (ip.parseNet network.ipv4));

  # Each address with the names that it has, as `networking.hosts` takes it. Wildcards are not for a hosts
  # file and left out.
  hostsFor =
    value:
    let
      inherit ((resolved value)) network;
      entry =
        member:
        map (own: {
          name = own;
          value = namesOf network member;
        }) (addressesOfMember member);
    in
    listToAttrs (concatMap entry (membersOf value));

  # The entries of `programs.ssh.knownHosts`: each machine's SSH host keys under all its names and addresses.
  # As `mesh hosts --format nix` calls them.
  knownHostsFor =
    value:
    let
      inherit ((resolved value)) network;
      isWildcard = alias: !(text.isLabels alias);
      entries =
        member:
        let
          keys = member.sshHostKeys or [ ];
          wildcards = filter isWildcard member.aliases;
          entry = index: {
            name = if index == 0 then member.name else "${member.name}.${toString (index + 1)}";
            value = {
              hostNames = [
                member.name
              ]
              ++ namesOf network member
              ++ map (alias: "${alias}.${network.domain}") wildcards
              ++ addressesOfMember member;
              publicKey = elemAt keys index;
            };
          };
        in
        genList entry (length keys);
    in
    listToAttrs (concatMap entries (membersOf value));

  # The text of a Mac's `/etc/resolver/<domain>`: the fleet's names are asked of the agent at `address`.
  resolverFileFor = address: "nameserver ${address}\n";

  # `host:port` of the controllers that are switched on, where they are reached without the mesh.
  controllersOf =
    value:
    let
      isController = member: isOn member && builtins.elem "controller" member.roles;
      reached =
        member: map (given: "${(endpoint.parse given).host}:${toString controllerPort}") member.endpoints;
      all = concatMap reached (filter isController (membersOf value));
    in
    attrNames (
      listToAttrs (
        map (name: {
          inherit name;
          value = null;
        }) all
      )
    );

  # The members that a predicate takes, by name.
  membersWhere =
    predicate: value:
    let
      inherit ((resolved value)) members;
    in
    listToAttrs (
      map (name: {
        inherit name;
        value = members.${name};
      }) (filter (name: predicate members.${name}) (attrNames members))
    );
}
