# Reads a systemd unit file of the repository as NixOS' unit options, so that the text is written once.
#
# Understands what those files use: sections, `Key=Value`, comments. A key that is repeated becomes a list,
# as NixOS writes one.
{ lib }:
let
  inherit (builtins) match readFile;

  # Unit keys that NixOS has options of its own for: setting them twice, there and in `unitConfig`, is an
  # error that a user's `systemd.services.mesh-agent.after` would run into.
  optionOf = {
    After = "after";
    Before = "before";
    BindsTo = "bindsTo";
    Conflicts = "conflicts";
    PartOf = "partOf";
    Requires = "requires";
    Wants = "wants";
  };

  # A configuration may say otherwise without `mkForce`.
  defaults = lib.mapAttrs (_: lib.mkDefault);

  words = value: lib.filter (word: word != "") (lib.splitString " " value);

  add =
    section: key: value:
    let
      before = section.${key} or null;
    in
    section
    // {
      ${key} = if before == null then value else lib.toList before ++ [ value ];
    };

  step =
    path: state: line:
    let
      heading = match "\\[([A-Za-z]+)]" line;
      entry = match "([A-Za-z0-9]+)=(.*)" line;
    in
    if match "[ \t]*|[#;].*" line != null then
      state
    else if heading != null then
      state // { current = lib.head heading; }
    else if entry == null || lib.hasSuffix "\\" line then
      throw "`${toString path}`: `${line}` is no line that unit.nix reads"
    else
      state
      // {
        sections = state.sections // {
          ${state.current} = add (state.sections.${state.current} or { }) (lib.head entry) (lib.last entry);
        };
      };

  sectionsOf =
    path:
    (lib.foldl' (step path) {
      current = "";
      sections = { };
    } (lib.splitString "\n" (readFile path))).sections;
in
{
  # The unit at `path` for `systemd.services.NAME`, `.targets.NAME`, `.paths.NAME`. `edit` changes the keys
  # of the section that is called as the unit's type.
  unitOf =
    path: edit:
    let
      sections = sectionsOf path;
      unit = sections.Unit or { };
      install = sections.Install or { };
      type = lib.last (lib.splitString "." (baseNameOf path));
      section = lib.toUpper (lib.substring 0 1 type) + lib.substring 1 (-1) type;
      ordering = lib.mapAttrs' (
        key: option: lib.nameValuePair option (words (unit.${key} or ""))
      ) optionOf;
    in
    ordering
    // {
      description = lib.mkDefault unit.Description;
      unitConfig = defaults (removeAttrs unit ([ "Description" ] ++ lib.attrNames optionOf));
      wantedBy = words (install.WantedBy or "");
    }
    // lib.optionalAttrs (sections ? ${section}) {
      "${type}Config" = defaults (edit sections.${section});
    };
}
