# What the flake uses of nixpkgs' lib, with the same meaning.
let
  inherit (builtins) attrNames elem filter foldl' isAttrs listToAttrs map pathExists stringLength substring;
in
rec {
  inherit (builtins) concatStringsSep head listToAttrs mapAttrs;
  splitString = separator: text: filter builtins.isString (builtins.split separator text);
  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  mergeAttrsList = foldl' (all: set: all // set) { };
  optionalString = condition: text: if condition then text else "";
  optionalAttrs = condition: set: if condition then set else { };
  importTOML = path: builtins.fromTOML (builtins.readFile path);
  versionAtLeast = version: wanted: builtins.compareVersions version wanted >= 0;
  assertMsg = condition: message: condition || throw message;
  getExe = drv: "${drv}/bin/${drv.meta.mainProgram}";
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  licenses = genAttrs [ "mit" "asl20" ] (name: name);
  platforms.linux = [ "x86_64-linux" "aarch64-linux" ];

  callPackageWith =
    scope: file: arguments:
    let
      f = import file;
      wanted = builtins.functionArgs f;
      missing = filter (name: !wanted.${name} && !(scope ? ${name}) && !(arguments ? ${name})) (attrNames wanted);
      # A name that the file does not take is a mistake that nixpkgs would refuse as well.
      unknown = filter (name: !(wanted ? ${name})) (attrNames arguments);
    in
    assert assertMsg (missing == [ ]) "${toString file} asks for what the stand-in does not have: ${toString missing}";
    assert assertMsg (unknown == [ ]) "${toString file} is given what it does not take: ${toString unknown}";
    f (builtins.intersectAttrs wanted scope // arguments);

  fileset = {
    maybeMissing = path: if pathExists path then path else null;
    # Paths that do not exist are an error, as in nixpkgs.
    unions = map (path: if path == null || pathExists path then path else throw "no such file: ${toString path}");
    toSource =
      { root, fileset }:
      let
        files = map toString (filter (path: path != null) fileset);
        within = path: file: path == file || hasPrefix "${file}/" path;
      in
      builtins.path {
        name = "source";
        path = root;
        filter = path: _type: builtins.any (file: within path file || within file path) files;
      };
  };
}
