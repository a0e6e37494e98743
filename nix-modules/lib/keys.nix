# Keys as texts: members' public keys and signers. Nix cannot tell whether a key is a point of its curve;
# everything else about them is checked as in the program.
let
  inherit (builtins)
    bitAnd
    concatStringsSep
    elem
    elemAt
    genList
    listToAttrs
    match
    replaceStrings
    stringLength
    substring
    ;
  text = import ./text.nix;
  inherit (text) characters hasPrefix removePrefix;

  alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  values = listToAttrs (
    genList (value: {
      name = substring value 1 alphabet;
      inherit value;
    }) 64
  );
  hex = "0123456789abcdef";
  digit = value: substring (bitAnd value 15) 1 hex;

  # Standard base64 as hex digits; padding counts as zeros.
  toHex =
    encoded:
    let
      filled = replaceStrings [ "=" ] [ "A" ] encoded;
      value = index: values.${substring index 1 filled};
      pair =
        index:
        let
          both = value (2 * index) * 64 + value (2 * index + 1);
        in
        digit (both / 256) + digit (both / 16) + digit both;
    in
    concatStringsSep "" (genList pair (stringLength filled / 2));

  fromHexText = listToAttrs (
    genList (value: {
      name = digit (value / 16) + digit value;
      inherit value;
    }) 256
  );
  integer =
    digits:
    builtins.foldl' (sum: at: sum * 256 + fromHexText.${substring (2 * at) 2 digits}) 0 (
      genList (x: x) (stringLength digits / 2)
    );

  ascii = listToAttrs (
    genList (
      index:
      let
        character = substring index 1 printable;
      in
      {
        name = character;
        value = digit ((index + 32) / 16) + digit (index + 32);
      }
    ) 95
  );
  printable = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
  textToHex = value: concatStringsSep "" (map (character: ascii.${character}) (characters value));

  form = "not a public key: `mesh1` and 86 characters, or `wireguard:` and 44, are expected";
  encoding = "a public key of the wrong length or with characters that are no base64";
  secret = "this is the secret seed, not the public identity; take `mesh keygen --public FILE`'s output, and make a new identity if others saw this one";

  bad = reason: {
    inherit reason;
    isSecret = reason == secret;
  };

  identity =
    key:
    let
      encoded = removePrefix "mesh1" key;
      bytes = toHex (replaceStrings [ "-" "_" ] [ "+" "/" ] encoded);
    in
    if hasPrefix "mesh1-seed-" key then
      bad secret
    else if !(hasPrefix "mesh1" key) then
      bad form
    else if match "[A-Za-z0-9_-]{85}[AQgw]" encoded == null then
      bad encoding
    else
      {
        guest = false;
        ed25519 = substring 0 64 bytes;
        halves = [
          (substring 64 64 bytes)
          (substring 0 64 bytes)
        ];
      };

  # SSH's algorithms whose signatures are verified.
  verified = [
    "ssh-ed25519"
    "sk-ssh-ed25519@openssh.com"
    "ecdsa-sha2-nistp256"
    "sk-ecdsa-sha2-nistp256@openssh.com"
    "ssh-rsa"
  ];

  notASigner = "not a signer: an SSH public key (`ssh-ed25519 AAAA…`) or a `mesh1…` identity is expected";

  # A length and as many bytes, as SSH writes texts.
  field =
    bytes:
    if stringLength bytes < 8 then
      null
    else
      let
        size = 2 * integer (substring 0 8 bytes);
      in
      if stringLength bytes < 8 + size then
        null
      else
        {
          value = substring 8 size bytes;
          rest = substring (8 + size) (-1) bytes;
        };

  # Whether SSH's fields after the algorithm's name are those of such a key.
  wellFormed =
    algorithm: bytes:
    let
      one = field bytes;
      two = field one.rest;
      size = value: stringLength value / 2;
      only = one != null && one.rest == "";
      pair = one != null && two != null && two.rest == "";
    in
    if algorithm == "ssh-ed25519" then
      only && size one.value == 32
    else if algorithm == "ssh-rsa" then
      pair
    else if algorithm == "ecdsa-sha2-nistp256" then
      pair && one.value == textToHex "nistp256" && size two.value == 65
    else if algorithm == "sk-ssh-ed25519@openssh.com" then
      pair && size one.value == 32
    else
      one != null && two != null;

  rsaBits =
    bytes:
    let
      modulus = (field (field bytes).rest).value;
      positive = if substring 0 2 modulus == "00" then substring 2 (-1) modulus else modulus;
    in
    4 * stringLength positive;

  # An SSH public key: { algorithm, plain, bytes, rest }, of which `plain` is without the comment; or null.
  sshKey =
    line:
    let
      parts = match "([A-Za-z0-9+/=@.-]+) ([A-Za-z0-9+/]+)(=?=?)( .*)?" line;
      algorithm = elemAt parts 0;
      padding = elemAt parts 2;
      encoded = elemAt parts 1 + padding;
      decoded = toHex encoded;
      bytes = substring 0 (stringLength decoded - 2 * stringLength padding) decoded;
      name = field bytes;
      isWhole = stringLength encoded / 4 * 4 == stringLength encoded;
      isNamed = isWhole && name != null && name.value == textToHex algorithm;
    in
    if parts == null || !isNamed || !(wellFormed algorithm name.rest) then
      null
    else
      {
        inherit algorithm bytes;
        inherit (name) rest;
        plain = "${algorithm} ${encoded}";
      };

  sshSigner =
    line:
    let
      key = sshKey line;
    in
    if key == null then
      bad notASigner
    else if !(elem key.algorithm verified) then
      bad "SSH keys of kind `${key.algorithm}` cannot sign rosters; use Ed25519, ECDSA P-256, RSA or their hardware-token forms"
    else if key.algorithm == "ssh-rsa" && rsaBits key.rest < 2048 then
      bad "an RSA key must have at least 2048 bits to sign rosters"
    else
      { data = key.bytes; };
in
{
  # A member's key: { guest, halves } with the 32-byte keys in hex, or { reason, isSecret }.
  member =
    key:
    let
      encoded = removePrefix "wireguard:" key;
    in
    if !(hasPrefix "wireguard:" key) then
      identity key
    else if match "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=" encoded == null then
      bad encoding
    else
      {
        guest = true;
        halves = [ (substring 0 64 (toHex encoded)) ];
      };

  # An SSH host key as type and base64, without its comment; or null.
  hostKey = key: (sshKey (text.trimEnd " \t\r\n" key)).plain or null;

  # A signer: { text, data } with what two forms of one key have in common, or { reason, isSecret }.
  signer =
    given:
    let
      line = text.trim " \t\n\r" given;
      key = identity line;
    in
    if !(hasPrefix "mesh1" line) then
      { text = line; } // sshSigner line
    else if key ? reason then
      key
    else
      {
        text = line;
        data = "0000000b${textToHex "ssh-ed25519"}00000020${key.ed25519}";
      };
}
