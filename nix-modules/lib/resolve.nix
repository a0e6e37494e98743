# From a decoded inventory to what `mesh inventory resolve` prints.
let
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    concatMap
    elem
    filter
    foldl'
    head
    listToAttrs
    map
    mapAttrs
    ;
  address = import ./address.nix;
  endpoint = import ./endpoint.nix;
  ip = import ./ip.nix;
  keys = import ./keys.nix;
  text = import ./text.nix;
  inherit (text) shown;

  set =
    names:
    listToAttrs (
      map (name: {
        inherit name;
        value = true;
      }) names
    );
  # Sorted, each once.
  sorted = names: attrNames (set names);

  # Each once, in the order in which they come.
  distinct =
    key: values:
    (foldl'
      (
        state: value:
        if state.seen ? ${key value} then
          state
        else
          {
            seen = state.seen // {
              ${key value} = true;
            };
            list = state.list ++ [ value ];
          }
      )
      {
        seen = { };
        list = [ ];
      }
      values
    ).list;

  # Problems of values that two machines have: `entries` are { name, value }, in the order of the names.
  twice =
    message: entries:
    let
      step =
        state: entry:
        let
          other = state.owner.${entry.value} or null;
        in
        {
          owner = state.owner // {
            ${entry.value} = entry.name;
          };
          problems = state.problems ++ (if other == null then [ ] else message other entry);
        };
    in
    (foldl' step {
      owner = { };
      problems = [ ];
    } entries).problems;

  perMachine = machines: f: concatMap (name: f name machines.${name}) (attrNames machines);

  isGuest = machine: machine.publicKey.guest or false;

  tagsOf =
    document:
    mapAttrs (
      name: machine:
      sorted (
        machine.tags
        ++ [
          "all"
          machine.class
        ]
        ++ filter (tag: elem name document.tags.${tag}) (attrNames document.tags)
      )
    ) document.machines;

  unknownMachine =
    document: whose: name:
    if document.machines ? ${name} || elem name document.misnamed then
      [ ]
    else
      [
        {
          message = "there is no machine `${shown name}` for ${whose}";
          hint = "declare it under `machines`, or take it out here";
        }
      ];

  # What is wrong with a tag that something speaks of.
  tagProblems =
    document: tags:
    let
      known = set (
        concatLists (attrValues tags)
        ++ attrNames document.tags
        ++ [
          "all"
          "nixos"
          "darwin"
          "external"
        ]
      );
    in
    whose: tag:
    if known ? ${tag} then
      [ ]
    else
      [
        {
          message = "no machine has the tag `${shown tag}` of ${whose}";
          hint = "give it to a machine, or declare it empty under `tags`: `\"${shown tag}\": []`";
        }
      ];

  assignmentProblems =
    document: tags:
    let
      ofTag = tag: concatMap (unknownMachine document "tag `${shown tag}`") document.tags.${tag};
      ofRole =
        instance: name: role:
        let
          whose = "role `${shown name}` of instance `${shown instance}`";
        in
        concatMap (tagProblems document tags whose) (attrNames role.tags)
        ++ concatMap (unknownMachine document whose) (attrNames role.machines);
      ofInstance =
        name:
        let
          inherit (document.instances.${name}) roles;
        in
        concatMap (role: ofRole name role roles.${role}) (attrNames roles);
    in
    concatMap ofTag (attrNames document.tags) ++ concatMap ofInstance (attrNames document.instances);

  keyProblems =
    machines:
    let
      entries = perMachine machines (
        name: machine:
        map (half: {
          inherit name;
          value = half;
        }) (machine.publicKey.halves or [ ])
      );
      message = other: entry: [
        {
          message = "machines `${other}` and `${entry.name}` have one key";
          hint = "an identity is one machine's; make another with `mesh keygen --out FILE`";
          inherit (entry) name;
        }
      ];
    in
    # One for a machine, although both its halves may be another's.
    map (problem: builtins.removeAttrs problem [ "name" ]) (
      distinct (problem: problem.name) (twice message entries)
    );

  domainOf = network: if network.domain == null then "mesh" else network.domain;

  aliasProblems =
    domain: machines:
    let
      # What of an alias is before the domain, where it ends in that, or null.
      beforeDomain =
        alias:
        let
          length = builtins.stringLength alias - builtins.stringLength domain - 1;
        in
        if length >= 0 && builtins.substring length (-1) alias == ".${domain}" then
          builtins.substring 0 length alias
        else
          null;
      entries = perMachine machines (
        name: machine:
        map (alias: {
          inherit name;
          value = alias;
        }) machine.mesh.aliases
      );
      # The other machine whose name a wildcard is below, or null.
      aboveOf =
        entry:
        let
          labels = text.splitOn "[.]" entry.value;
          last = builtins.elemAt labels (builtins.length labels - 1);
          isBelow = text.hasPrefix "*." entry.value && last != entry.name && machines ? ${last};
        in
        if isBelow then last else null;
      isFree =
        entry:
        text.isAlias entry.value
        && beforeDomain entry.value == null
        && !(machines ? ${entry.value})
        && aboveOf entry == null;
      problemsOf =
        entry:
        let
          corrected = text.correctedAlias entry.value;
          rest = beforeDomain entry.value;
        in
        if !(text.isAlias entry.value) then
          [
            (
              {
                message = "`${shown entry.value}` is not an alias: labels of `a`-`z`, `0`-`9` and `-`, joined by dots; a wildcard begins with `*.`";
              }
              // (if corrected == null then { } else { hint = "use `${corrected}`"; })
            )
          ]
        else if rest != null then
          [
            {
              message = "alias `${entry.value}` of machine `${entry.name}` ends in the domain, which is added to every alias: `${entry.value}.${domain}`";
              hint = if text.isAlias rest && !(machines ? ${rest}) then "use `${rest}`" else "leave it out";
            }
          ]
        else if machines ? ${entry.value} then
          [
            {
              message = "alias `${entry.value}` of machine `${entry.name}` is the name of a machine";
              hint = "take another alias";
            }
          ]
        else if aboveOf entry != null then
          [
            {
              message = "wildcard `${entry.value}` of machine `${entry.name}` is below the name of machine `${aboveOf entry}`";
              hint = "give it to `${aboveOf entry}`, or put it below another name";
            }
          ]
        else
          [ ];
      message =
        other: entry:
        if other == entry.name then
          [ ]
        else
          [
            {
              message = "machines `${other}` and `${entry.name}` have one alias, `${entry.value}`";
              hint = "take another alias for one of the two";
            }
          ];
    in
    concatMap problemsOf entries ++ twice message (filter isFree entries);

  hostKeyProblems =
    machines:
    let
      isKey = key: keys.hostKey key != null;
      wrong = name: {
        message = "an SSH host key of machine `${name}` is none";
        hint = "take the content of `/etc/ssh/ssh_host_ed25519_key.pub`, or what `ssh-keyscan` prints after the name";
      };
      entries = perMachine machines (
        name: machine:
        map (key: {
          inherit name;
          value = keys.hostKey key;
        }) (filter isKey machine.sshHostKeys)
      );
      message =
        other: entry:
        if other == entry.name then
          [ ]
        else
          [
            {
              message = "machines `${other}` and `${entry.name}` have one SSH host key";
              hint = "make another for one of the two: `ssh-keygen -A`, after the old one is gone";
            }
          ];
    in
    perMachine machines (
      name: machine: map (_: wrong name) (filter (key: !(isKey key)) machine.sshHostKeys)
    )
    ++ twice message entries;

  gatewayProblems =
    document: roles:
    let
      isMoon = name: builtins.any (given: given.role == "moon") roles.${name};
      one =
        name: machine: gateway:
        if !(document.machines ? ${gateway}) then
          unknownMachine document "`gateways` of machine `${name}`" gateway
        else if !(isMoon gateway) then
          [
            {
              message = "gateway `${gateway}` of machine `${name}` is no moon";
              hint = "give `${gateway}` the role `moon` in the mesh";
            }
          ]
        else if !(isGuest machine) && machine.publicKey != null then
          [
            {
              message = "machine `${name}` runs the agent and needs no gateway";
              hint = "`gateways` are for guests with a `wireguard:` key";
            }
          ]
        else
          [ ];
    in
    perMachine document.machines (name: machine: concatMap (one name machine) machine.mesh.gateways);

  ciphers = [
    "aes"
    "chacha"
  ];

  cipherProblems =
    name: machine:
    let
      listed = machine.mesh.ciphers;
      hint = "leave `ciphers` out for the default";
    in
    if listed == null then
      [ ]
    else
      map (cipher: {
        message = "there is no cipher `${shown cipher}`";
        hint = "the ciphers are `aes` and `chacha`";
      }) (filter (cipher: !(elem cipher ciphers)) listed)
      ++ (
        if isGuest machine && elem "aes" listed then
          [
            {
              message = "guest `${name}` speaks WireGuard, whose cipher is `chacha` alone";
              inherit hint;
            }
          ]
        else if !(elem "chacha" listed) then
          [
            {
              message = "machine `${name}` must list `chacha`, which every machine speaks";
              inherit hint;
            }
          ]
        else
          [ ]
      );

  signersOf =
    document:
    let
      given = map keys.signer (
        if document.network.signers == null then [ ] else document.network.signers
      );
    in
    {
      problems =
        map
          (
            text:
            {
              message = (keys.signer text).reason;
            }
            // (
              if builtins.match ".*PRIVATE KEY.*" text == null then
                { }
              else
                { hint = "take the public half, the file that ends in `.pub`"; }
            )
          )
          (
            filter (text: keys.signer text ? reason) (
              if document.network.signers == null then [ ] else document.network.signers
            )
          );
      texts = map (signer: signer.text) (
        distinct (signer: signer.data) (filter (signer: !(signer ? reason)) given)
      );
    };

  # The subnets that are the mesh's own.
  own =
    network:
    [ (address.prefix network.id) ]
    ++ (if network.ipv4 == null then [ ] else [ (ip.truncate network.ipv4) ]);

  routeProblems =
    network: name: net:
    let
      overlapping = filter (mine: ip.containsNet mine net || ip.containsNet net mine) (own network);
      text = ip.showNet net;
      reason =
        if ip.truncate net != net then
          "route `${text}` has bits beyond its length; write `${ip.showNet (ip.truncate net)}`"
        else if net.length == 0 then
          "route `${text}` is a default route"
        else if overlapping != [ ] then
          "route `${text}` overlaps the network's own `${ip.showNet (head overlapping)}`"
        else
          null;
    in
    if reason == null then [ ] else [ { message = "machine `${name}`: ${reason}"; } ];

  endpointProblems =
    network: machine:
    endpoint.problems machine.mesh.endpoints
    ++
      map
        (given: {
          message = "endpoint `${shown given}` is inside the mesh itself";
          hint = "name an address that the machine has without the mesh";
        })
        (
          filter (
            given:
            let
              parsed = endpoint.parse given;
            in
            parsed ? family && builtins.any (net: ip.contains net parsed.family parsed.address) (own network)
          ) machine.mesh.endpoints
        );

  # The addresses as hex digits; none for a machine whose address is an error.
  addressesOf =
    network: machines:
    let
      all = mapAttrs (
        name: machine:
        if machine.mesh.address == null then address.digits network.id name else machine.mesh.address
      ) machines;
      refusal = name: address.refusal network.id all.${name};
      isGood = name: refusal name == null;
      refused =
        name:
        let
          isPinned = machines.${name}.mesh.address != null;
          derived = address.digits network.id name;
        in
        {
          message = "the address of machine `${name}`: ${refusal name}";
          hint =
            if isPinned then
              "pin one inside `${ip.showNet (address.prefix network.id)}`, or leave the pin out: `${name}` then has `${ip.show6 derived}`"
            else
              "pin another: `machines.${name}.mesh.address`";
        };
      message = other: entry: [
        {
          message = "machines `${other}` and `${entry.name}` have one address, `${ip.show6 entry.value}`";
          hint = "pin another for one of the two: `machines.${entry.name}.mesh.address`";
        }
      ];
    in
    {
      given = all;
      problems =
        map refused (filter (name: !(isGood name)) (attrNames all))
        ++ twice message (
          map (name: {
            inherit name;
            value = all.${name};
          }) (filter isGood (attrNames all))
        );
    };
in
# `previous`: IPv4 addresses by name.
document: previous:
let
  inherit (document) machines network;
  tags = tagsOf document;
  assigned = import ./roles.nix document tags;
  inherit (assigned) roles;
  signers = signersOf document;
  addresses = addressesOf network machines;
  ipv4 = import ./ipv4.nix {
    inherit machines previous;
    pool = if network.ipv4 == null then null else ip.truncate network.ipv4;
  };
  isKnown = network.id != null && network.name != null;
  rules =
    if document.rules == null then
      {
        problems = [ ];
        resolution = null;
      }
    else
      (import ./rules.nix).resolve
        {
          checkTag = tagProblems document tags;
          checkMachine = unknownMachine document;
        }
        (mapAttrs (name: machine: {
          tags = tags.${name};
          roles = map (given: given.role) roles.${name};
          isGuest = isGuest machine;
        }) machines)
        document.rules;

  member =
    name: machine:
    {
      inherit name;
      inherit (machine) class enabled;
      publicKey = machine.publicKey.text or null;
      address = ip.show6 addresses.given.${name};
      ipv4 = if ipv4.given ? ${name} then ip.show4 ipv4.given.${name} else null;
      tags = tags.${name};
      roles = map (given: given.role) roles.${name};
      endpoints = distinct (text: text) (
        machine.mesh.endpoints ++ concatMap (given: given.settings.endpoints or [ ]) roles.${name}
      );
      aliases = sorted machine.mesh.aliases;
      routes = map ip.showNet machine.mesh.routes;
      gateways = filter text.isName machine.mesh.gateways;
      ciphers =
        if isGuest machine then
          [ "chacha" ]
        else if machine.mesh.ciphers == null then
          ciphers
        else
          sorted machine.mesh.ciphers;
    }
    // assigned.relayOf name
    // (
      if machine.sshHostKeys == [ ] then { } else { sshHostKeys = map keys.hostKey machine.sshHostKeys; }
    );
in
{
  problems =
    assignmentProblems document tags
    ++ assigned.problems
    ++ signers.problems
    ++ keyProblems machines
    ++ aliasProblems (domainOf network) machines
    ++ hostKeyProblems machines
    ++ gatewayProblems document roles
    ++ perMachine machines cipherProblems
    ++ (
      if isKnown then
        addresses.problems
        ++ ipv4.problems
        ++ perMachine machines (name: machine: concatMap (routeProblems network name) machine.mesh.routes)
        ++ perMachine machines (_: endpointProblems network)
        ++ rules.problems
      else
        [ ]
    );
  resolution = {
    version = 1;
    network = {
      inherit (network) id name;
      domain = domainOf network;
      prefix = ip.showNet (address.prefix network.id);
      ipv4 = if network.ipv4 == null then null else ip.showNet (ip.truncate network.ipv4);
      signers = signers.texts;
    }
    // (if rules.resolution == null then { } else { rules = rules.resolution; });
    members = mapAttrs member machines;
  };
}
