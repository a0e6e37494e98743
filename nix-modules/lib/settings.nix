# Merging of settings: objects deeply, scalars and lists replace, null unsets.
let
  inherit (builtins)
    attrNames
    concatMap
    foldl'
    genList
    elemAt
    isAttrs
    length
    removeAttrs
    ;

  withoutNulls = value: if isAttrs value then merge { } value else value;

  # Lays `over` on `base`.
  merge =
    base: over:
    if !(isAttrs base && isAttrs over) then
      withoutNulls over
    else
      foldl' (
        merged: key:
        if over.${key} == null then
          removeAttrs merged [ key ]
        else
          merged // { ${key} = merge (merged.${key} or null) over.${key}; }
      ) base (attrNames over);

  leaves =
    path: value:
    if isAttrs value then
      concatMap (key: leaves (path ++ [ key ]) value.${key}) (attrNames value)
    else
      [ { inherit path value; } ];
in
{
  inherit merge;

  # Everything that settings set, null included, each with the keys that lead to it.
  leaves = leaves [ ];

  # Whether both cannot be in force: they set one value differently, or one sets a value where the other
  # has an object.
  contradict =
    one: other:
    let
      common = if length one.path < length other.path then length one.path else length other.path;
      start = path: genList (elemAt path) common;
    in
    start one.path == start other.path
    && (length one.path != length other.path || one.value != other.value);
}
