# IPv4 addresses: pins first, then what the previous roster gave, then the lowest free in name order.
let
  inherit (builtins)
    attrNames
    filter
    foldl'
    length
    ;
  ip = import ./ip.nix;
in
# `previous`: addresses by name, as texts or null. Gives { given, problems }, the addresses as numbers.
{
  machines,
  pool,
  previous,
}:
let
  names = attrNames machines;
  pin = name: machines.${name}.mesh.ipv4;
  pinned = filter (name: pin name != null) names;
  none = {
    given = { };
    owner = { };
    problems = [ ];
  };
  give = state: name: address: {
    inherit (state) problems;
    given = state.given // {
      ${name} = address;
    };
    owner = state.owner // {
      ${toString address} = name;
    };
  };
  told = state: problem: state // { problems = state.problems ++ [ problem ]; };
  ownerOf = state: address: state.owner.${toString address} or null;

  takePin =
    state: name:
    let
      other = ownerOf state (pin name);
    in
    if !(ip.isHost pool (pin name)) then
      told state {
        message = "the IPv4 address of machine `${name}`, `${ip.show4 (pin name)}`, is no host's in the pool `${ip.showNet pool}`";
        hint = "pin one inside the pool, or leave the pin out";
      }
    else if other != null then
      told state {
        message = "machines `${other}` and `${name}` pin one IPv4 address, `${ip.show4 (pin name)}`";
        hint = "pin another for one of the two";
      }
    else
      give state name (pin name);

  takePrevious =
    state: name:
    let
      text = previous.${name} or null;
      address = if text == null then null else ip.parse4 text;
    in
    if
      address == null
      || state.given ? ${name}
      || !(ip.isHost pool address)
      || ownerOf state address != null
    then
      state
    else
      give state name address;

  # The lowest address from `from` on that nobody has, or null.
  free =
    state: from:
    if !(ip.isHost pool from) then
      null
    else if ownerOf state from == null then
      from
    else
      free state (from + 1);

  takeFree =
    state: name:
    let
      address = free state state.next;
    in
    if state.given ? ${name} || state.isExhausted then
      state
    else if address == null then
      told state {
        message = "the IPv4 pool `${ip.showNet pool}` has no address left for machine `${name}` (${toString (length names)} machines)";
        hint = "take a larger pool";
      }
      // {
        isExhausted = true;
      }
    else
      give state name address
      // {
        next = address + 1;
        inherit (state) isExhausted;
      };

  kept = foldl' takePrevious (foldl' takePin none pinned) names;
  all = foldl' takeFree (
    kept
    // {
      next = ip.firstHost pool;
      isExhausted = false;
    }
  ) names;
in
if pool == null then
  {
    given = { };
    problems = map (name: {
      message = "machine `${name}` pins an IPv4 address, and there is no pool";
      hint = "give the network a pool, `network.ipv4`, or leave the pin out";
    }) pinned;
  }
else
  {
    inherit (all) given problems;
  }
