# Underlay endpoints, `host:port`.
let
  inherit (builtins)
    all
    elemAt
    filter
    length
    match
    stringLength
    ;
  ip = import ./ip.nix;
  inherit (import ./text.nix) number shown splitOn;

  isHostName =
    host:
    let
      labels = splitOn "[.]" host;
      last = elemAt labels (length labels - 1);
    in
    stringLength host <= 253
    && all (label: match "[A-Za-z0-9_-]{1,63}" label != null) labels
    && match "[0-9]*" last == null;
in
rec {
  # { host, port } and, where the host is an address, { family, address }; or { reason }.
  parse =
    endpoint:
    let
      parts = match "(.*):([^:]*)" endpoint;
      host = elemAt parts 0;
      digits = match "0*([0-9]{1,5})" (elemAt parts 1);
      port = number (elemAt digits 0);
      bracketed = match "\\[(.*)]" host;
      inner = elemAt bracketed 0;
      six = ip.parse6 inner;
      four = ip.parse4 host;
    in
    if ip.parse6 endpoint != null then
      { reason = "`${endpoint}` has no port; an IPv6 address with one is written `[${endpoint}]:4193`"; }
    else if parts == null then
      { reason = "`${shown endpoint}` has no port; write `host:4193`"; }
    else if digits == null || port == 0 || port > 65535 then
      { reason = "`${shown (elemAt parts 1)}` is not a port: 1 to 65535"; }
    else if bracketed != null then
      if six == null then
        { reason = "`${shown inner}` is not an IPv6 address"; }
      else
        {
          inherit host port;
          family = 6;
          address = six;
        }
    else if four != null then
      {
        inherit host port;
        family = 4;
        address = four;
      }
    else if ip.parse6 host != null then
      {
        inherit host port;
        family = 6;
        address = ip.parse6 host;
      }
    else if isHostName host then
      { inherit host port; }
    else
      { reason = "`${shown host}` is neither an address nor a host name"; };

  # What is wrong with endpoints.
  problems =
    endpoints:
    map (endpoint: { message = "not an endpoint: ${(parse endpoint).reason}"; }) (
      filter (endpoint: parse endpoint ? reason) endpoints
    );
}
