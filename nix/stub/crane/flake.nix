# A stand-in for crane: the functions that this repository's flake uses, with only the arguments that it uses, on the machine's cargo. All builds share one
# target folder and one place for the source, so that dependencies are compiled once and two builds of the code can be compared. The profile is a cheap one.
{
  outputs =
    { self }:
    {
      mkLib =
        pkgs:
        let
          inherit (pkgs.stub) host run passed;
          cargo =
            suffix: script:
            {
              src,
              pname,
              version,
              cargoExtraArgs ? "--locked",
              cargoArtifacts ? null,
              strictDeps ? false,
              doCheck ? true,
              env ? { },
              passthru ? { },
              meta ? { },
              ...
            }:
            passed { inherit version passthru meta; } (
              run "${pname}${suffix}-${version}" (removeAttrs env [ "CARGO_PROFILE" ]) ''
                exec 9>${host.cargoTarget}.lock
                flock 9
                # Always the same folder, with files as of now: cargo compiles all that is in it again.
                rm -rf ${host.cargoTarget}/source
                mkdir -p ${host.cargoTarget}
                cp -r --no-preserve=timestamps,ownership ${src} ${host.cargoTarget}/source
                chmod -R u+w ${host.cargoTarget}/source
                cd ${host.cargoTarget}/source
                export CARGO_HOME=${host.cargoHome} CARGO_TARGET_DIR=${host.cargoTarget} CARGO_NET_OFFLINE=true
                export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_STRIP=true
                export CARGO_BUILD_TARGET=${host.rustTarget} RUSTFLAGS="-C target-feature=+crt-static"
                ${script cargoExtraArgs}
              ''
            );
          only =
            allowed: f: arguments:
            let
              common = [
                "src"
                "pname"
                "version"
                "strictDeps"
                "cargoExtraArgs"
                "cargoArtifacts"
                "doCheck"
                "env"
                "passthru"
                "meta"
              ];
              unknown = builtins.filter (name: !builtins.elem name (common ++ allowed)) (builtins.attrNames arguments);
            in
            if unknown == [ ] then f arguments else throw "crane's stand-in does not know: ${toString unknown}";
        in
        {
          buildDepsOnly = only [ ] (cargo "-deps" (arguments: "cargo metadata --locked --format-version 1 >/dev/null; touch $out"));
          buildPackage = only [ ] (
            all:
            cargo "" (arguments: ''
              cargo build ${arguments}
              mkdir -p $out/bin
              cp ${host.cargoTarget}/${host.rustTarget}/debug/${all.pname} $out/bin/
            '') all
          );
          mkCargoDerivation =
            only
              [
                "buildPhaseCargoCommand"
                "doInstallCargoArtifacts"
                "installPhaseCommand"
                "nativeBuildInputs"
                "pnameSuffix"
              ]
              (
                all:
                cargo all.pnameSuffix (_: ''
                  ${all.buildPhaseCargoCommand}
                  ${all.installPhaseCommand}
                '') all
              );
          cargoFmt = only [ ] (cargo "-fmt" (arguments: "cargo fmt ${arguments} -- --check; touch $out"));
          cargoClippy = only [ "cargoClippyExtraArgs" ] (
            all: cargo "-clippy" (arguments: "cargo clippy ${arguments} ${all.cargoClippyExtraArgs}; touch $out") all
          );
          cargoDoc = only [ "cargoDocExtraArgs" ] (
            all: cargo "-doc" (arguments: "cargo doc ${arguments} ${all.cargoDocExtraArgs}; touch $out") all
          );
          cargoNextest = only [ ] (cargo "-nextest" (arguments: "cargo nextest run ${arguments}; touch $out"));
          cargoDocTest = only [ ] (cargo "-doctest" (arguments: "cargo test --doc ${arguments}; touch $out"));
        };
    };
}
