# Who may reach whom on what: how `rules` are read, and what they come to.
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatMap
    elem
    elemAt
    filter
    foldl'
    head
    isInt
    isList
    isString
    length
    map
    mapAttrs
    match
    sort
    ;
  text = import ./text.nix;
  inherit (text) shown;
  read = import ./read.nix;
  inherit (read)
    field
    isObject
    knows
    object
    ;

  most = 10000;
  verdicts = [
    "allow"
    "deny"
  ];
  roles = [
    "controller"
    "moon"
    "peer"
  ];
  has = value: value != null;
  wrongKind = what: expected: value: [
    { message = "${what} must be ${expected}, not ${read.kind value}"; }
  ];
  # Of what makes a problem for each entry.
  isListOf =
    what: of: value:
    if value == null then
      [ ]
    else if isList value then
      concatMap of value
    else
      wrongKind what "a list" value;
  list = value: if isList value then value else [ ];

  # A number as text, or text; null: neither.
  written =
    value:
    if isInt value then
      toString value
    else if isString value then
      value
    else
      null;
  isWritten =
    what: expected: parse: value:
    if value == null then
      [ ]
    else if written value == null then
      wrongKind what expected value
    else if parse (written value) == null then
      [ { message = "${what} is `${shown (written value)}`, which is not ${expected}"; } ]
    else
      [ ];
  parsed = parse: value: if written value == null then null else parse (written value);

  protocol = given: {
    numbers =
      if given == "icmp" then
        [
          1
          58
        ]
      else if given == "tcp" then
        [ 6 ]
      else if given == "udp" then
        [ 17 ]
      else
        [ (text.number given) ];
    name = given;
    hasPorts = given == "tcp" || given == "udp";
  };
  named = {
    "6" = "tcp";
    "17" = "udp";
    "1" = "icmp";
    "58" = "icmp";
  };
  parseProtocol =
    given:
    if
      elem given [
        "tcp"
        "udp"
        "icmp"
      ]
    then
      protocol given
    else if match "[0-9]+" given == null || text.number given > 255 then
      null
    else
      let
        number = toString (text.number given);
      in
      protocol (named.${number} or number);

  parsePort =
    given:
    if match "[0-9]{1,9}" given == null then
      null
    else
      let
        port = text.number given;
      in
      if port >= 1 && port <= 65535 then port else null;
  parsePorts =
    given:
    let
      two = match "([0-9]*)-([0-9]*)" given;
      first = parsePort (if two == null then given else elemAt two 0);
      last = parsePort (if two == null then given else elemAt two 1);
    in
    if first == null || last == null || first > last then
      null
    else
      {
        inherit first last;
        text = if first == last then toString first else "${toString first}-${toString last}";
      };

  # { rank, value, text }, in the order of which selectors stand; or { error }.
  selector =
    given:
    let
      unknown = {
        error = "not `*`, `guests`, a machine's name, `tag:TAG` or `role:ROLE`";
      };
      after = prefix: text.removePrefix prefix given;
      machine =
        name:
        if text.isName name then
          {
            rank = 2;
            value = name;
            text = if name == "guests" then "machine:guests" else name;
          }
        else
          unknown;
    in
    if given == "*" || given == "guests" then
      {
        rank = if given == "*" then 0 else 1;
        value = "";
        text = given;
      }
    else if text.hasPrefix "tag:" given then
      if after "tag:" == "" then
        unknown
      else
        {
          rank = 3;
          value = after "tag:";
          text = given;
        }
    else if text.hasPrefix "role:" given then
      if elem (after "role:") roles then
        {
          rank = 4;
          value = after "role:";
          text = given;
        }
      else
        {
          error = "the mesh has the roles `controller`, `moon` and `peer`";
        }
    else if text.hasPrefix "machine:" given then
      machine (after "machine:")
    else
      machine given;
  selectors = given: filter (one: !(one ? error)) (map selector (filter isString (list given)));
  isSelector =
    what: given:
    let
      one = selector given;
    in
    if one ? error then
      [ { message = "${what} is `${shown given}`, which says nobody: ${one.error}"; } ]
    else
      [ ];

  isVerdict =
    what: value:
    read.isText what value
    ++ (
      if isString value && !(elem value verdicts) then
        [ { message = "${what} is `${shown value}`"; } ]
      else
        [ ]
    );

  protocols = "`tcp`, `udp`, `icmp` or a protocol's number";
  ports = "a port from 1 to 65535, or two of them as in `8000-8999`";

  ruleProblems =
    label: name: given:
    let
      whose = "rule `${shown name}`";
      what = key: "`${key}` of ${whose}";
      value = key: field key given;
      given' = parsed parseProtocol (value "protocol");
      end =
        key:
        if value key == null then
          [
            {
              message = "${whose} has no `${key}`";
              hint = "say who is meant: `*`, `guests`, a machine's name, `tag:TAG` or `role:ROLE`";
            }
          ]
        else
          read.areTexts (what key) (value key)
          ++ concatMap (isSelector "an entry of ${what key}") (filter isString (list (value key)));
    in
    label "name of a rule" name
    ++ (
      if match "[[:print:][:cntrl:]]*" name == null then
        [ { message = "the rule's name `${shown name}` is not ASCII"; } ]
      else
        [ ]
    )
    ++ knows {
      inherit whose;
      known = [
        "from"
        "to"
        "protocol"
        "ports"
      ];
    } given
    ++ isWritten (what "protocol") protocols parseProtocol (value "protocol")
    ++ isListOf (what "ports") (
      port:
      if port == null then
        wrongKind "an entry of ${what "ports"}" ports port
      else
        isWritten "an entry of ${what "ports"}" ports parsePorts port
    ) (value "ports")
    ++ (
      if has given' && list (value "ports") != [ ] && !given'.hasPorts then
        [
          {
            message = "${what "ports"} are of `${given'.name}`, which has none";
            hint = "leave them out, or make it two rules: `tcp` and `udp` have ports";
          }
        ]
      else
        [ ]
    )
    ++ end "from"
    ++ end "to";

  testOf =
    given:
    let
      value = key: field key given;
      given' =
        if value "protocol" == null then protocol "tcp" else parsed parseProtocol (value "protocol");
      end = key: if isString (value key) then selector (value key) else { error = ""; };
      range = parsed parsePorts (value "port");
      isReadPort = value "port" == null || has range;
      portProblem =
        if !(has given') || !isReadPort then
          null
        else if given'.hasPorts && range == null then
          "a test of rules for `${given'.name}` has no `port`"
        else if !given'.hasPorts && has range then
          "a test of rules has a port, and `${given'.name}` has none"
        else
          null;
      isWide = has range && range.first != range.last;
    in
    {
      inherit portProblem isWide isReadPort;
      from = end "from";
      to = end "to";
      protocol = given';
      port = if has range then range.first else null;
      expect = value "expect";
    };

  testProblems =
    given:
    let
      value = key: field key given;
      what = key: "`${key}` of a test of rules";
      test = testOf given;
      end =
        key:
        if value key == null then
          [ { message = "a test of rules has no `${key}`"; } ]
        else if isString (value key) then
          isSelector (what key) (value key)
        else
          read.isText (what key) (value key);
    in
    # Unlike a field, an entry that is null is no object's; it has no fields.
    knows {
      whose = "a test of rules";
      known = [
        "from"
        "to"
        "protocol"
        "port"
        "expect"
      ];
    } given
    ++ end "from"
    ++ end "to"
    ++ isWritten (what "protocol") protocols parseProtocol (value "protocol")
    ++ isWritten (what "port") "a port" parsePorts (value "port")
    ++ (
      if has test.portProblem then
        [ { message = test.portProblem; } ]
      else if test.isWide then
        [ { message = "a test of rules asks for one port"; } ]
      else
        isVerdict (what "expect") (value "expect")
        ++ (
          if value "expect" == null then
            [
              {
                message = "a test of rules has no `expect`";
                hint = "say what is to come of it: `allow` or `deny`";
              }
            ]
          else
            [ ]
        )
    );

  tooMany =
    count: what:
    if count > most then
      [ { message = "${toString count} ${what}; ${toString most} is the most"; } ]
    else
      [ ];

  # Sorted, each once.
  inOrder =
    before: same: values:
    foldl' (
      kept: one: if kept != [ ] && same (elemAt kept (length kept - 1)) one then kept else kept ++ [ one ]
    ) [ ] (sort before values);
  selectorsInOrder = inOrder (
    one: other: if one.rank == other.rank then one.value < other.value else one.rank < other.rank
  ) (one: other: one.text == other.text);
  portsInOrder = inOrder (
    one: other: if one.first == other.first then one.last < other.last else one.first < other.first
  ) (one: other: one.text == other.text);
in
{
  # What is wrong with `rules` as they are written; `label` judges names.
  problems =
    label: given:
    let
      value = key: field key given;
      accept = object (value "accept");
      tests = list (value "tests");
    in
    knows {
      whose = "`rules`";
      known = [
        "default"
        "accept"
        "tests"
      ];
    } given
    ++ isVerdict "`default` of `rules`" (value "default")
    ++ isObject "`accept` of `rules`" (value "accept")
    ++ tooMany (length (attrNames accept)) "rules"
    ++ concatMap (name: ruleProblems label name accept.${name}) (attrNames accept)
    ++ isListOf "`tests` of `rules`" testProblems (value "tests")
    ++ tooMany (length tests) "tests of rules";

  # What they say; null where there are none.
  values =
    given:
    let
      value = key: field key given;
      rule =
        _: given:
        let
          protocol = field "protocol" given;
          ports = map (parsed parsePorts) (list (field "ports" given));
        in
        {
          # What is not understood may have been meant to narrow it.
          isNarrow = all has ports && (protocol == null || has (parsed parseProtocol protocol));
          from = selectors (field "from" given);
          to = selectors (field "to" given);
          protocol = parsed parseProtocol protocol;
          ports = filter has ports;
        };
      rules = mapAttrs rule (object (value "accept"));
      isTest =
        test:
        !(test.from ? error)
        && !(test.to ? error)
        && has test.protocol
        && test.isReadPort
        && test.portProblem == null
        && !test.isWide
        && elem test.expect verdicts;
    in
    if given == null then
      null
    else
      {
        default = if elem (value "default") verdicts then value "default" else "allow";
        accept = removeAttrs rules (filter (name: !rules.${name}.isNarrow) (attrNames rules));
        tests = filter isTest (map testOf (list (value "tests")));
      };

  # What they come to between `members`, which are { tags, roles, isGuest } by name: { problems, resolution }. `checkTag` and
  # `checkMachine` say what is wrong with a tag or a machine that something speaks of.
  resolve =
    {
      checkTag,
      checkMachine,
    }:
    members: rules:
    let
      check =
        whose: one:
        if one.rank == 3 then
          checkTag whose one.value
        else if one.rank == 2 then
          checkMachine whose one.value
        else
          [ ];
      matches =
        name: one:
        let
          member = members.${name};
        in
        if one.rank == 0 then
          true
        else if one.rank == 1 then
          member.isGuest
        else if one.rank == 2 then
          one.value == name
        else if one.rank == 3 then
          elem one.value member.tags
        else
          elem one.value member.roles;
      accepts =
        rule: test:
        let
          protocols =
            if has rule.protocol then
              rule.protocol.numbers
            else if rule.ports == [ ] then
              null
            else
              [
                6
                17
              ];
          # ICMPv6's, where both are meant.
          number = elemAt test.protocol.numbers (length test.protocol.numbers - 1);
        in
        (protocols == null || elem number protocols)
        && (
          rule.ports == [ ]
          || (has test.port && any (range: range.first <= test.port && test.port <= range.last) rule.ports)
        );
      # The rule that accepts, or null.
      deciding =
        test: from: to:
        let
          deciders = filter (
            name:
            let
              rule = rules.accept.${name};
            in
            any (matches to) rule.to && any (matches from) rule.from && accepts rule test
          ) (attrNames rules.accept);
        in
        if deciders == [ ] then null else head deciders;
      verdict = rule: if has rule then "allow" else rules.default;
      failures =
        test:
        concatMap (
          from:
          map
            (to: {
              inherit from to;
              rule = deciding test from to;
            })
            (
              filter (to: from != to && matches to test.to && verdict (deciding test from to) != test.expect) (
                attrNames members
              )
            )
        ) (filter (from: matches from test.from) (attrNames members));
      testProblem =
        test:
        let
          failed = failures test;
          inherit (head failed) from to rule;
          port = if has test.port then " ${toString test.port}" else "";
          what = "`${to}` on ${test.protocol.name}${port}";
        in
        if failed == [ ] then
          [ ]
        else if has rule then
          [
            {
              message = "`${from}` is not to reach ${what}, and rule `${shown rule}` lets it";
              hint = "narrow that rule, or mend the test";
            }
          ]
        else if rules.default == "allow" then
          [
            {
              message = "`${from}` is not to reach ${what}, and the default lets it";
              hint = "say `default` = `deny`, or mend the test";
            }
          ]
        else
          [
            {
              message = "`${from}` is to reach ${what}, and no rule lets it";
              hint = "add a rule under `accept`, or mend the test";
            }
          ];
      one =
        rule:
        {
          from = map (end: end.text) (selectorsInOrder rule.from);
          to = map (end: end.text) (selectorsInOrder rule.to);
        }
        // (if has rule.protocol then { protocol = rule.protocol.name; } else { })
        // (
          if rule.ports == [ ] then { } else { ports = map (range: range.text) (portsInOrder rule.ports); }
        );
      oneTest =
        test:
        {
          from = test.from.text;
          to = test.to.text;
          protocol = test.protocol.name;
          inherit (test) expect;
        }
        // (if has test.port then { inherit (test) port; } else { });
    in
    {
      problems =
        concatLists (
          map (
            name:
            let
              rule = rules.accept.${name};
            in
            concatMap (check "rule `${shown name}`") (rule.from ++ rule.to)
          ) (attrNames rules.accept)
        )
        ++ concatMap (
          test: check "a test of rules" test.from ++ check "a test of rules" test.to ++ testProblem test
        ) rules.tests;
      resolution = {
        inherit (rules) default;
        accept = mapAttrs (_: one) rules.accept;
        tests = map oneTest rules.tests;
      };
    };
}
