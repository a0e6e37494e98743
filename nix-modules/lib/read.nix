# Reading parts of an inventory, and telling what is wrong with them. A field that is null counts as absent.
let
  inherit (builtins)
    attrNames
    concatLists
    elem
    filter
    isAttrs
    isBool
    isList
    isString
    typeOf
    ;
  inherit (import ./text.nix) quoted shown;

  kind =
    value:
    {
      null = "null";
      bool = "a truth value";
      int = "a number";
      float = "a number";
      string = "text";
      list = "a list";
      set = "an object";
      path = "a path";
      lambda = "a function";
    }
    .${typeOf value};

  wrongKind = what: expected: value: [
    { message = "${what} must be ${expected}, not ${kind value}"; }
  ];
in
rec {
  inherit kind;

  # The value of a field, or null.
  field = key: set: if isAttrs set then set.${key} or null else null;

  has = key: set: isAttrs set && set ? ${key};

  # Values of the expected kind, and something empty in place of others.
  object = value: if isAttrs value then value else { };
  text = value: if isString value then value else null;
  texts = value: if isList value then filter isString value else [ ];

  isObject =
    what: value: if value == null || isAttrs value then [ ] else wrongKind what "an object" value;

  isText = what: value: if value == null || isString value then [ ] else wrongKind what "text" value;

  isTruth =
    what: value: if value == null || isBool value then [ ] else wrongKind what "true or false" value;

  areTexts =
    what: value:
    if value == null then
      [ ]
    else if isList value then
      concatLists (
        map (item: if isString item then [ ] else wrongKind "an entry of ${what}" "text" item) value
      )
    else
      wrongKind what "a list of texts" value;

  # Whether an object has known keys only.
  knows =
    {
      whose,
      known,
      passedOver ? [ ],
    }:
    value:
    isObject whose value
    ++ map (key: {
      message = "unknown key `${shown key}` in ${whose}";
      hint = if known == [ ] then "it takes none" else "it takes ${quoted known}";
    }) (filter (key: !(elem key known) && !(elem key passedOver)) (attrNames (object value)));

  # Text that `parse` makes something of.
  isParsed =
    what: expected: parse: value:
    if isString value && parse value == null then
      [ { message = "${what} is `${shown value}`, which is not ${expected}"; } ]
    else
      isText what value;
}
