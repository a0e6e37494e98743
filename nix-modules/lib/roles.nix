# Who has which role in the mesh, with which settings.
let
  inherit (builtins)
    any
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    head
    isInt
    isString
    length
    mapAttrs
    match
    ;
  inherit (import ./settings.nix) contradict leaves merge;
  inherit (import ./read.nix)
    areTexts
    field
    isTruth
    knows
    texts
    ;
  inherit (import ./text.nix) quoted shown;
  endpoint = import ./endpoint.nix;

  # In the order in which a roster has them.
  names = [
    "controller"
    "moon"
    "peer"
  ];
  known =
    role:
    if role == "peer" then
      [ "relayOnly" ]
    else
      [
        "endpoints"
        "relay"
        "relayRateLimit"
      ];

  # 1 TiB a second, as in the program.
  rateMax = 1099511627776;
  units = {
    KiB = 1024;
    MiB = 1048576;
    GiB = 1073741824;
  };
  # Bytes a second of a `relayRateLimit`; null: not written as such.
  rateOf =
    rate:
    let
      parts = match "[+]?0*([1-9][0-9]{0,12})(KiB|MiB|GiB)?" rate;
      number = builtins.fromJSON (builtins.head parts);
      unit = builtins.elemAt parts 1;
      factor = if unit == null then 1 else units.${unit};
    in
    if isInt rate then
      if rate > 0 && rate <= rateMax then rate else null
    else if !(isString rate) || parts == null || number > rateMax / factor then
      null
    else
      number * factor;
  isRate = rate: rateOf rate != null;

  settingsProblems =
    role: settings:
    let
      whose = "the settings of role `${role}`";
      what = key: "`${key}` of ${whose}";
      rate = field "relayRateLimit" settings;
      only = key: check: if elem key (known role) then check (what key) (field key settings) else [ ];
    in
    knows {
      inherit whose;
      known = known role;
    } settings
    ++ only "endpoints" (what: given: areTexts what given ++ endpoint.problems (texts given))
    ++ only "relay" isTruth
    ++ only "relayOnly" isTruth
    ++ (
      if rate == null || !(elem "relayRateLimit" (known role)) || isRate rate then
        [ ]
      else
        [
          {
            message = "${what "relayRateLimit"} must be bytes a second: a whole number, or text such as `10MiB`";
          }
        ]
    );

  roleProblems =
    name: role:
    let
      layers = [
        role
      ]
      ++ attrValues role.tags
      ++ attrValues role.machines;
    in
    if elem name names then
      concatMap (layer: settingsProblems name layer.settings) layers
    else
      [
        {
          message = "the mesh has no role `${shown name}`";
          hint = "its roles are ${quoted names}";
        }
      ];

  # Pairs of values that two tags of a machine set differently: { key, message, hint } each.
  conflicts =
    roleName: role: machine: tags:
    let
      set = concatMap (
        tag:
        map (leaf: leaf // { inherit tag; }) (leaves (role.tags.${tag} or { settings = { }; }).settings)
      ) tags;
      clashing = leaf: filter (other: other.tag < leaf.tag && contradict leaf other) set;
      told = leaf: other: {
        key = builtins.toJSON [
          roleName
          other.tag
          other.path
          leaf.tag
          leaf.path
        ];
        message = "tags `${other.tag}` and `${leaf.tag}` set `${concatStringsSep "." leaf.path}` differently, and machine `${machine}` has both";
        hint = "set it by one tag, or by machine";
      };
    in
    concatMap (leaf: map (told leaf) (clashing leaf)) set;

  # Each once for a pair of places, whichever machine came upon it first.
  once =
    found:
    (foldl'
      (
        state: problem:
        if state.seen ? ${problem.key} then
          state
        else
          {
            seen = state.seen // {
              ${problem.key} = true;
            };
            list = state.list ++ [ (builtins.removeAttrs problem [ "key" ]) ];
          }
      )
      {
        seen = { };
        list = [ ];
      }
      found
    ).list;
in
# `document` as decode.nix has it, `tags` of each machine as sorted lists.
document: tags:
let
  meshes = filter (name: document.instances.${name}.module == "mesh") (attrNames document.instances);
  mesh = document.instances.${head meshes};
  isSingle = length meshes == 1;
  present = filter (role: mesh.roles ? ${role}) names;
  has = role: machine: role.machines ? ${machine} || any (tag: role.tags ? ${tag}) tags.${machine};
  merged =
    role: machine:
    let
      byTag = map (tag: role.tags.${tag}.settings) (filter (tag: role.tags ? ${tag}) tags.${machine});
      byMachine = if role.machines ? ${machine} then [ role.machines.${machine}.settings ] else [ ];
    in
    foldl' merge { } (
      [
        mesh.settings
        role.settings
      ]
      ++ byTag
      ++ byMachine
    );
  ofMachine =
    machine:
    map (role: {
      inherit role;
      settings = merged mesh.roles.${role} machine;
    }) (filter (role: has mesh.roles.${role} machine) present);
  roles =
    if isSingle then
      mapAttrs (machine: _: ofMachine machine) document.machines
    else
      mapAttrs (_: _: [ ]) document.machines;

  controllers = filter (machine: any (given: given.role == "controller") roles.${machine}) (
    attrNames document.machines
  );
  isGuest = machine: (document.machines.${machine}.publicKey or null).guest or false;
  controllerProblems =
    if meshes == [ ] then
      [
        {
          message = "no instance is the mesh, so there is no controller";
          hint = "add under `instances`: `\"mesh\": { \"roles\": { \"controller\": { \"machines\": { \"NAME\": {} } }, \"peer\": { \"tags\": { \"all\": {} } } } }`";
        }
      ]
    else if !isSingle then
      [
        {
          message = "instances `${head meshes}` and `${builtins.elemAt meshes 1}` are both of module `mesh`";
          hint = "an inventory describes one mesh; join the two";
        }
      ]
    else
      map (machine: {
        message = "controller `${machine}` is a guest, which cannot run one";
        hint = "give it a `mesh1` identity: `mesh keygen --out FILE`";
      }) (filter isGuest controllers)
      ++ (
        if any (machine: document.machines.${machine}.enabled) controllers then
          [ ]
        else if controllers == [ ] then
          [
            {
              message = "no machine has the role `controller` in the mesh";
              hint = "give an always-on machine the role: `\"controller\": { \"machines\": { \"NAME\": {} } }`";
            }
          ]
        else
          [
            {
              message = "the only controller, `${head controllers}`, is switched off";
              hint = "switch it on, or give another machine the role `controller`";
            }
          ]
      );

  conflictProblems = once (
    concatMap (
      role:
      concatMap (
        machine:
        if has mesh.roles.${role} machine then
          conflicts role mesh.roles.${role} machine tags.${machine}
        else
          [ ]
      ) (attrNames document.machines)
    ) present
  );
in
{
  # Machines to lists of { role, settings }, in the order of the roles.
  inherit roles;
  # What a roster says of a machine as a relay, and of how it is reached: nothing where its release decides.
  relayOf =
    machine:
    let
      relaying = filter (given: given.role != "peer") roles.${machine};
      refuses = given: (given.settings.relay or null) == false;
      limits = filter (limit: limit != null) (
        map (given: rateOf (given.settings.relayRateLimit or null)) relaying
      );
      only = given: given.role == "peer" && (given.settings.relayOnly or null) == true;
    in
    (if relaying != [ ] && builtins.all refuses relaying then { relay = false; } else { })
    // (
      if limits == [ ] then
        { }
      else
        { relayRateLimit = builtins.foldl' (a: b: if a < b then a else b) (head limits) limits; }
    )
    // (if builtins.any only roles.${machine} then { relayOnly = true; } else { });
  problems =
    controllerProblems
    ++ (
      if isSingle then
        knows {
          whose = "the settings of the mesh instance";
          known = [ ];
        } mesh.settings
        ++ concatLists (map (role: roleProblems role mesh.roles.${role}) (attrNames mesh.roles))
        ++ conflictProblems
      else
        [ ]
    );
}
