# Text: machine names, labels, and how messages quote what was given.
let
  inherit (builtins)
    all
    concatStringsSep
    elemAt
    filter
    genList
    isString
    length
    match
    replaceStrings
    split
    stringLength
    substring
    ;
in
rec {
  characters = text: genList (index: substring index 1 text) (stringLength text);

  lower = replaceStrings (characters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (
    characters "abcdefghijklmnopqrstuvwxyz"
  );

  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;

  removePrefix = prefix: text: substring (stringLength prefix) (-1) text;

  # The parts of a text between separators; `separator` is a regular expression.
  splitOn = separator: text: filter isString (split separator text);

  # Without the characters of the class `drop` at either end.
  trim =
    drop: text:
    let
      kept = match "[${drop}]*([^${drop}](.*[^${drop}])?)[${drop}]*" text;
    in
    if kept == null then "" else elemAt kept 0;

  # As `trim`, at the end alone.
  trimEnd =
    drop: text:
    let
      kept = match "(.*[^${drop}])[${drop}]*" text;
    in
    if kept == null then "" else elemAt kept 0;

  # Whole numbers with leading zeros, which JSON has not.
  number =
    digits:
    let
      kept = match "0*([1-9][0-9]*)" digits;
    in
    if kept == null then 0 else builtins.fromJSON (elemAt kept 0);

  repeat = count: text: concatStringsSep "" (genList (_: text) count);

  # As messages show what was given, in one line.
  shown = replaceStrings [ "\\" "\"" "'" "\n" "\r" "\t" ] [ "\\\\" "\\\"" "\\'" "\\n" "\\r" "\\t" ];

  # Names as a list for a sentence.
  quoted =
    names:
    let
      marked = map (name: "`${name}`") names;
      count = length marked;
    in
    if count == 0 then
      "nothing"
    else if count == 1 then
      elemAt marked 0
    else
      "${concatStringsSep ", " (genList (elemAt marked) (count - 1))} and ${elemAt marked (count - 1)}";

  # 1 to 63 of `a`-`z`, `0`-`9` and hyphen, no hyphen at either end.
  isName = text: match "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" text != null;

  # The name that was probably meant, or null if nothing is left of the text.
  correctedName =
    text:
    let
      joined = trim "-" (concatStringsSep "-" (splitOn "[^a-z0-9]+" (lower text)));
      cut = trim "-" (substring 0 63 joined);
    in
    if cut == "" then null else cut;

  notAName =
    text:
    "`${shown text}` is not a machine name: 1 to 63 of `a`-`z`, `0`-`9` and `-`, no `-` at either end";

  # Names joined by dots: domains and aliases.
  isLabels = text: stringLength text <= 253 && all isName (splitOn "[.]" text);

  # The labels that were probably meant, or null.
  correctedLabels =
    text:
    let
      labels = map correctedName (splitOn "[.]" text);
    in
    if isLabels text || builtins.elem null labels || all isName (splitOn "[.]" text) then
      null
    else
      concatStringsSep "." labels;

  # As a name of labels, or a wildcard, which is `*.` before one.
  isAlias =
    text:
    if hasPrefix "*." text then
      isLabels (removePrefix "*." text) && stringLength text <= 253
    else
      isLabels text;

  correctedAlias =
    text:
    let
      below = correctedLabels (removePrefix "*." text);
    in
    if hasPrefix "*." text then
      (if below == null then null else "*.${below}")
    else
      correctedLabels text;
}
