# A stand-in for nixpkgs where there is none: the few attributes that this repository's flake uses, on the machine's own programs. It proves the flake's
# wiring, the scripts' behaviour and the images' contents, not nixpkgs' code. Only .ci/nix uses it; it adds host.json, what the machine has.
{
  outputs =
    { self }:
    let
      host = builtins.fromJSON (builtins.readFile ./host.json);
      lib = import ./lib.nix;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
        system:
        let
          native = lib.head (lib.splitString "-" system);
          pkgsFor = cpu: import ./packages.nix { inherit host lib system cpu pkgsFor; };
        in
        pkgsFor native
      );
    };
}
