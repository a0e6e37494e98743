# From an inventory as it is written, in its native form or in clan's, to { document, problems }.
let
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    concatMap
    elem
    filter
    foldl'
    intersectAttrs
    isAttrs
    isBool
    isList
    isString
    listToAttrs
    mapAttrs
    match
    removeAttrs
    stringLength
    ;
  text = import ./text.nix;
  inherit (text) shown quoted;
  ip = import ./ip.nix;
  keys = import ./keys.nix;
  read = import ./read.nix;
  rules = import ./rules.nix;
  inherit (read)
    areTexts
    field
    has
    isObject
    isParsed
    isText
    isTruth
    knows
    object
    texts
    ;

  networkKeys = [
    "id"
    "name"
    "domain"
    "signers"
    "ipv4"
  ];
  machineKeys = [
    "machineClass"
    "tags"
    "publicKey"
    "enabled"
    "mesh"
    "sshHostKeys"
    "deploy"
  ];
  meshKeys = [
    "address"
    "ipv4"
    "endpoints"
    "aliases"
    "routes"
    "gateways"
    "ciphers"
  ];
  classes = [
    "nixos"
    "darwin"
    "external"
  ];

  # What clan's own inventory has beside ours; passed over.
  clanKeys = [
    "meta"
    "modules"
    "services"
    "assertions"
    "options"
    "noInstanceOptions"
    "_inventoryFile"
  ];
  clanMachineKeys = [
    "name"
    "description"
    "icon"
    "installedAt"
  ];

  isNetworkId = id: match "[0-9a-f]{32}" id != null;
  parsed = parse: value: if isString value then parse value else null;
  isLabel =
    label:
    stringLength label >= 1 && stringLength label <= 253 && match ".*[[:cntrl:]].*" label == null;
  label =
    what: given:
    if isLabel given then
      [ ]
    else
      [ { message = "`${shown given}` is not a ${what}: 1 to 253 bytes without control characters"; } ];

  network = rec {
    values = described: {
      id = parsed (id: if isNetworkId id then id else null) (field "id" described);
      name = read.text (field "name" described);
      domain = read.text (field "domain" described);
      signers = if field "signers" described == null then null else texts described.signers;
      ipv4 = parsed pool (field "ipv4" described);
    };
    # An IPv4 subnet; never one of IPv6.
    pool =
      given:
      let
        net = ip.parseNet given;
      in
      if net == null || net.family == 6 then null else net;
    problems =
      isClan: whose: described:
      let
        what = key: "`${key}` of ${whose}";
        name = field "name" described;
        domain = field "domain" described;
        missing = {
          id = "`mesh inventory init` makes a random one";
          name = "any name that people know the network by";
          signers = "list the SSH public keys, or `mesh1` identities, that may sign rosters";
        };
        corrected = text.correctedLabels domain;
      in
      knows {
        inherit whose;
        known = networkKeys;
      } described
      ++ isParsed (what "id") "a network id: 32 of `0`-`9` and `a`-`f`" (
        id: if isNetworkId id then id else null
      ) (field "id" described)
      ++ isText (what "name") name
      ++ areTexts (what "signers") (field "signers" described)
      ++ isText (what "domain") domain
      ++ isParsed (what "ipv4") "an IPv4 pool such as `100.64.7.0/24`" pool (field "ipv4" described)
      ++ concatMap (
        key:
        if isClan || field key described != null then
          [ ]
        else
          [
            {
              message = "${whose} has no `${key}`";
              hint = missing.${key};
            }
          ]
      ) (attrNames missing)
      ++ (
        if isString name && (name == "" || stringLength name > 253) then
          [ { message = "a network's name has 1 to 253 bytes"; } ]
        else
          [ ]
      )
      ++ (
        if isString domain && !(text.isLabels domain) then
          [
            (
              {
                message = "`${shown domain}` is not a domain: labels of `a`-`z`, `0`-`9` and `-`, joined by dots";
              }
              // (if corrected == null then { } else { hint = "use `${corrected}`"; })
            )
          ]
        else
          [ ]
      );
  };

  machine = rec {
    values =
      given:
      let
        class = field "machineClass" given;
        enabled = field "enabled" given;
        key = parsed keys.member (field "publicKey" given);
        mesh = field "mesh" given;
      in
      {
        class = if elem class classes then class else "nixos";
        tags = texts (field "tags" given);
        publicKey = if key == null || key ? reason then null else key // { text = given.publicKey; };
        enabled = if isBool enabled then enabled else true;
        sshHostKeys = texts (field "sshHostKeys" given);
        mesh = {
          address = parsed ip.parse6 (field "address" mesh);
          ipv4 = parsed ip.parse4 (field "ipv4" mesh);
          endpoints = texts (field "endpoints" mesh);
          aliases = texts (field "aliases" mesh);
          routes = filter (net: net != null) (map ip.parseNet (texts (field "routes" mesh)));
          gateways = texts (field "gateways" mesh);
          ciphers = if field "ciphers" mesh == null then null else texts mesh.ciphers;
        };
      };
    problems =
      isClan: name: given:
      let
        whose = "machine `${shown name}`";
        what = key: "`${key}` of ${whose}";
        corrected = text.correctedName name;
      in
      (
        if text.isName name then
          [ ]
        else
          [
            (
              {
                message = text.notAName name;
              }
              // (if corrected == null then { } else { hint = "use `${corrected}`"; })
            )
          ]
      )
      ++ knows {
        inherit whose;
        known = machineKeys;
        passedOver = if isClan then clanMachineKeys else [ ];
      } given
      ++ areTexts (what "tags") (field "tags" given)
      ++ concatMap (label "tag") (texts (field "tags" given))
      ++ publicKeyProblems (what "publicKey") (field "publicKey" given)
      ++ isTruth (what "enabled") (field "enabled" given)
      ++ areTexts (what "sshHostKeys") (field "sshHostKeys" given)
      ++ isObject (what "deploy") (field "deploy" given)
      ++ classProblems (what "machineClass") (field "machineClass" given)
      ++ meshProblems (what "mesh") (field "mesh" given);
    publicKeyProblems =
      what: given:
      let
        key = keys.member given;
      in
      if !(isString given) || !(key ? reason) then
        isText what given
      else if key.isSecret then
        [
          {
            message = "${what} is the secret seed";
            hint = "put the output of `mesh keygen --public FILE` here, and make a new identity if others saw this one";
          }
        ]
      else
        [
          {
            message = "${what}: ${key.reason}";
            hint = "`mesh keygen --public FILE` prints it";
          }
        ];
    classProblems =
      what: given:
      if !(isString given) || elem given classes then
        isText what given
      else
        [
          {
            message = "${what} is `${shown given}`, which is no class";
            hint =
              if text.lower given == "macos" then "a Mac is `darwin`" else "the classes are ${quoted classes}";
          }
        ];
    meshProblems =
      whose: given:
      let
        what = key: "`${key}` of ${whose}";
        lists = [
          "endpoints"
          "aliases"
          "gateways"
          "routes"
          "ciphers"
        ];
      in
      knows {
        inherit whose;
        known = meshKeys;
      } given
      ++ concatMap (key: areTexts (what key) (field key given)) lists
      ++ concatMap (isParsed (what "routes") "a subnet such as `192.168.7.0/24`" ip.parseNet) (
        texts (field "routes" given)
      )
      ++ isParsed (what "address") "an IPv6 address" ip.parse6 (field "address" given)
      ++ isParsed (what "ipv4") "an IPv4 address" ip.parse4 (field "ipv4" given);
  };

  # Settings without what describes the network in clan's form.
  settings =
    isClan: given:
    let
      written = field "settings" given;
      value = if written == null then { } else written;
    in
    if isClan && isAttrs value then
      removeAttrs value (
        [
          "network"
          "rules"
        ]
        ++ networkKeys
      )
    else
      value;

  # Clan also takes a list of names for who has a role.
  assignments =
    isClan: given:
    if isClan && isList given then
      listToAttrs (
        map (name: {
          inherit name;
          value = null;
        }) (texts given)
      )
    else
      object given;

  assignmentKeys = [
    "tags"
    "machines"
  ];

  instance = rec {
    values = isClan: name: given: {
      module =
        let
          module = field "name" (field "module" given);
        in
        if isString module then module else name;
      settings = settings isClan given;
      roles = mapAttrs (
        _: role:
        {
          settings = settings isClan role;
        }
        // listToAttrs (
          map (key: {
            name = key;
            value = mapAttrs (_: assignment: { settings = settings isClan assignment; }) (
              assignments isClan (field key role)
            );
          }) assignmentKeys
        )
      ) (object (field "roles" given));
    };
    problems =
      isClan: name: given:
      let
        whose = "instance `${shown name}`";
        what = key: "`${key}` of ${whose}";
        module = field "module" given;
        roles = field "roles" given;
      in
      knows {
        inherit whose;
        known = [
          "module"
          "settings"
          "roles"
        ];
      } given
      ++ knows {
        whose = what "module";
        known = [
          "name"
          "input"
        ];
      } module
      ++ isText "`input` of ${what "module"}" (field "input" module)
      ++ isText "`name` of ${what "module"}" (field "name" module)
      ++ isObject (what "settings") (field "settings" given)
      ++ isObject (what "roles") roles
      ++ concatMap (role: roleProblems isClan "role `${shown role}` of ${whose}" roles.${role}) (
        attrNames (object roles)
      );
    roleProblems =
      isClan: whose: given:
      knows {
        inherit whose;
        known = [
          "settings"
          "tags"
          "machines"
        ];
        passedOver = if isClan then [ "extraModules" ] else [ ];
      } given
      ++ isObject "`settings` of ${whose}" (field "settings" given)
      ++ concatMap (
        key: assignmentProblems isClan "`${key}` of ${whose}" (field key given)
      ) assignmentKeys;
    assignmentProblems =
      isClan: whose: given:
      if isClan && isList given then
        areTexts whose given
      else
        isObject whose given
        ++ concatMap (
          name:
          let
            what = "`${shown name}` in ${whose}";
          in
          knows {
            whose = what;
            known = [ "settings" ];
          } given.${name}
          ++ isObject "`settings` of ${what}" (field "settings" given.${name})
        ) (attrNames (object given));
  };

  # What settings of the mesh instance and its roles there are.
  settingsOfMesh =
    instances: written:
    let
      meshes = filter (name: instances.${name}.module == "mesh") (attrNames instances);
      settingsOf =
        name:
        map (field "settings") ([ written.${name} ] ++ attrValues (object (field "roles" written.${name})));
    in
    concatMap settingsOf meshes;

  # In clan's form, what settings of the mesh instance or its roles say of the network.
  clansNetwork =
    instances: written:
    let
      described =
        given:
        if has "network" given then
          object given.network
        else
          intersectAttrs (listToAttrs (
            map (name: {
              inherit name;
              value = null;
            }) networkKeys
          )) (object given);
      says = given: builtins.any (key: has key given) networkKeys;
    in
    filter says (map described (settingsOfMesh instances written));
in
inventory:
let
  isClan = has "meta" inventory;
  written = key: object (field key inventory);
  named = key: isObject "`${key}` of the inventory" (field key inventory);
  machines = written "machines";
  instances = mapAttrs (instance.values isClan) (written "instances");
  descriptions = clansNetwork instances (written "instances");
  isDescribed = field "network" inventory != null;
  metaName = field "name" (field "meta" inventory);
  laid =
    base: over: base // builtins.removeAttrs over (filter (key: over.${key} == null) (attrNames over));
  ofClan = foldl' laid (network.values { }) (map network.values descriptions);
  ofNetwork =
    if isDescribed then
      network.values inventory.network
    else if isClan then
      laid ofClan { name = if ofClan.name == null then read.text metaName else null; }
    else
      network.values { };
  version = field "version" inventory;
  # In clan's form they may be settings, too.
  ofSettings = filter (given: given != null) (
    if isClan && !isDescribed then
      map (field "rules") (settingsOfMesh instances (written "instances"))
    else
      [ ]
  );
  ofInventory = field "rules" inventory;
  givenRules =
    if ofInventory != null then
      ofInventory
    else if ofSettings == [ ] then
      null
    else
      builtins.head ofSettings;

  versionProblems =
    if version == "mesh/v1" || (version == null && isClan) then
      [ ]
    else if version == null then
      [
        {
          message = "`version` is missing";
          hint = "add `\"version\": \"mesh/v1\"`";
        }
      ]
    else
      [
        {
          message = "this version of the inventory is not known";
          hint = "this release of mesh knows `\"version\": \"mesh/v1\"`";
        }
      ];

  networkProblems =
    if isDescribed then
      network.problems isClan "`network`" inventory.network
    else if isClan then
      concatMap (network.problems true "the network's settings") descriptions
      ++ (
        if ofClan.name != null then
          [ ]
        else if metaName == null then
          [
            {
              message = "neither the settings of the mesh instance nor `meta` say the network's `name`";
              hint = "give the clan a name: `meta.name`";
            }
          ]
        else
          isText "`name` of `meta`" metaName
      )
      ++ (
        if ofNetwork.id == null then
          [
            {
              message = "the settings of the mesh instance do not say the network's `id`";
              hint = "give the instance whose module is `mesh` the settings `network.id` and `network.signers`; `mesh inventory init` shows a random id";
            }
          ]
        else
          [ ]
      )
    else
      [
        {
          message = "`network` is missing";
          hint = "`mesh inventory init` makes one with a random id";
        }
      ];

  tagProblems =
    tag:
    let
      what = "tag `${shown tag}`";
      listed = (written "tags").${tag};
    in
    label "tag" tag
    ++ (
      # Unlike a field, an entry that is null is no list.
      if listed == null then
        [ { message = "${what} must be a list of texts, not null"; } ]
      else
        areTexts what listed
    );
in
if !(builtins.isAttrs inventory) then
  {
    problems = [ { message = "an inventory is an object, not ${read.kind inventory}"; } ];
  }
else if has "head" inventory && has "signature" inventory then
  {
    problems = [
      {
        message = "this is a roster, not an inventory";
        hint = "an inventory is what rosters are signed of";
      }
    ];
  }
else
  {
    document = {
      network = ofNetwork;
      machines = mapAttrs (_: machine.values) (
        removeAttrs machines (filter (name: !(text.isName name)) (attrNames machines))
      );
      misnamed = filter (name: !(text.isName name)) (attrNames machines);
      tags = mapAttrs (_: texts) (written "tags");
      inherit instances;
      rules = rules.values givenRules;
    };
    problems =
      knows {
        whose = "the inventory";
        known = [
          "version"
          "network"
          "machines"
          "tags"
          "instances"
          "rules"
        ];
        passedOver = if isClan then clanKeys else [ ];
      } inventory
      ++ versionProblems
      ++ (if givenRules == null then [ ] else rules.problems label givenRules)
      ++ concatLists (
        map named [
          "machines"
          "tags"
          "instances"
        ]
      )
      ++ concatMap (name: machine.problems isClan name machines.${name}) (attrNames machines)
      ++ concatMap tagProblems (attrNames (written "tags"))
      ++ concatMap (name: instance.problems isClan name (written "instances").${name}) (
        attrNames instances
      )
      ++ networkProblems;
  }
