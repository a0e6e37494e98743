# IP addresses and subnets. An IPv6 address is its 32 hex digits, an IPv4 address a whole number; a subnet
# is { family, address, length }.
let
  inherit (builtins)
    all
    bitAnd
    concatStringsSep
    elemAt
    foldl'
    genList
    length
    listToAttrs
    match
    stringLength
    substring
    ;
  text = import ./text.nix;
  inherit (text) number repeat splitOn;

  hexDigits = "0123456789abcdef";
  values = listToAttrs (
    genList (value: {
      name = substring value 1 hexDigits;
      inherit value;
    }) 16
  );
  digit = value: substring value 1 hexDigits;
  # 2 to the power of something below 63.
  power = exponent: foldl' (product: _: product * 2) 1 (genList (x: x) exponent);

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

  octet = address: index: bitAnd (address / power (24 - 8 * index)) 255;

  # Four decimal octets, each matching the regular expression `form`, as a number; null for anything else.
  parseQuad =
    form: address:
    let
      octets = map number (splitOn "[.]" address);
      isQuad = match "${form}[.]${form}[.]${form}[.]${form}" address != null;
    in
    if isQuad && all (octet: octet < 256) octets then
      foldl' (sum: octet: sum * 256 + octet) 0 octets
    else
      null;

  # An IPv6 address whose last 32 bits may be written as IPv4.
  parseGroups =
    form: address:
    let
      mixed = match "(.*:)([0-9]+[.][0-9.]+)" address;
      quad = parseQuad form (elemAt mixed 1);
      plain =
        if mixed == null then
          address
        else if quad == null then
          ""
        else
          "${elemAt mixed 0}${hex4 (quad / 65536)}:${hex4 (bitAnd quad 65535)}";
      halves = map (half: if half == "" then [ ] else splitOn ":" half) (splitOn "::" plain);
      given = builtins.concatLists halves;
      missing = 8 - length given;
      complete = if length halves == 2 then missing > 0 else length halves == 1 && missing == 0;
      fill = group: repeat (4 - stringLength group) "0" + text.lower group;
      middle = genList (_: "0") missing;
    in
    if !complete || !(all (group: match "[0-9a-fA-F]{1,4}" group != null) given) then
      null
    else
      concatStringsSep "" (
        map fill (if length halves == 1 then given else elemAt halves 0 ++ middle ++ elemAt halves 1)
      );

  hex4 = value: concatStringsSep "" (genList (at: digit (bitAnd (value / power (12 - 4 * at)) 15)) 4);
in
rec {
  # Without leading zeros, which some read as octal; subnets are read more leniently.
  parse4 = parseQuad "(0|[1-9][0-9]{0,2})";
  parse6 = parseGroups "(0|[1-9][0-9]{0,2})";

  show4 = address: concatStringsSep "." (genList (index: toString (octet address index)) 4);

  # 32 hex digits in the canonical text form of RFC 5952.
  show6 =
    digits:
    let
      groups = genList (index: stripZeros (substring (index * 4) 4 digits)) 8;
      run = longestRun groups;
      after = run.start + run.size;
      between =
        from: to: concatStringsSep ":" (genList (index: elemAt groups (from + index)) (to - from));
      mapped = match "0{20}ffff(.{8})" digits;
      low = foldl' (sum: at: sum * 16 + values.${substring at 1 (elemAt mapped 0)}) 0 (genList (x: x) 8);
    in
    if mapped != null then
      "::ffff:${show4 low}"
    else if run.size < 2 then
      between 0 8
    else
      "${between 0 run.start}::${between after 8}";

  # `address/length`, or null.
  parseNet =
    net:
    let
      parts = match "([^/]*)/([0-9]{1,3})" net;
      bits = number (elemAt parts 1);
      four = parseQuad "([0-9]{1,3})" (elemAt parts 0);
      six = parseGroups "([0-9]{1,3})" (elemAt parts 0);
    in
    if parts == null then
      null
    else if four != null then
      if bits > 32 || stringLength (elemAt parts 1) > 2 then
        null
      else
        {
          family = 4;
          address = four;
          length = bits;
        }
    else if six == null || bits > 128 then
      null
    else
      {
        family = 6;
        address = six;
        length = bits;
      };

  showNet = net: "${(if net.family == 4 then show4 else show6) net.address}/${toString net.length}";

  # The first `length` bits of an address, the others zero.
  mask =
    family: length: address:
    if family == 4 then
      address - bitAnd address (power (32 - length) - 1)
    else
      let
        whole = length / 4;
        rest = length - 4 * whole;
        partial =
          if rest == 0 then
            ""
          else
            let
              value = values.${substring whole 1 address};
            in
            digit (value - bitAnd value (power (4 - rest) - 1));
        kept = substring 0 whole address + partial;
      in
      kept + repeat (32 - stringLength kept) "0";

  truncate = net: net // { address = mask net.family net.length net.address; };

  contains =
    net: family: address:
    net.family == family && mask family net.length address == mask family net.length net.address;

  # Whether the second subnet lies in the first.
  containsNet = net: other: net.length <= other.length && contains net other.family other.address;

  # Whether a machine may have the address: not an IPv4 subnet's network or broadcast address.
  isHost =
    pool: address:
    let
      first = mask 4 pool.length pool.address;
      last = first + power (32 - pool.length) - 1;
    in
    address >= first && address <= last && (pool.length >= 31 || (address != first && address != last));

  # The first address of an IPv4 subnet that a machine may have.
  firstHost = pool: mask 4 pool.length pool.address + (if pool.length >= 31 then 0 else 1);

  # The reverse DNS name of 32 hex digits, or of the first `count` of them for a zone.
  reverse6 =
    count: digits:
    concatStringsSep "." (genList (index: substring (count - 1 - index) 1 digits) count) + ".ip6.arpa";

  reverse4 =
    count: address:
    concatStringsSep "." (genList (index: toString (octet address (count - 1 - index))) count)
    + ".in-addr.arpa";

  # The reverse zones of an IPv4 subnet, cut where names of zones can be: at whole octets.
  reverseZones4 =
    net:
    let
      octets = if net.length == 0 then 1 else (net.length + 7) / 8;
      zones = power (8 * octets - net.length);
      step = power (32 - 8 * octets);
    in
    genList (index: reverse4 octets (mask 4 net.length net.address + index * step)) zones;
}
