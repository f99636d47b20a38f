# The gateway, by crane: dependencies are a derivation of their own, so that a change of the code compiles only the code.
{
  lib,
  pkgs,
  stdenv,
  rustc,
  python3,
  crane,
  # The commit, for `--version`. It goes into the last step alone: a new commit builds no dependency again.
  revision,
}:
let
  craneLib = crane.mkLib pkgs;
  workspace = (lib.importTOML ../Cargo.toml).workspace.package;

  # What cargo reads: not the documents, manifests and dashboards beside it, whose changes shall build nothing.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../crates
      ../proto
      ../service
      # Members of the workspace, without which cargo refuses the manifest; load.nix builds one of them.
      (lib.fileset.maybeMissing ../e2e)
      (lib.fileset.maybeMissing ../simulation)
    ];
  };

  commonArgs = {
    inherit src;
    pname = "daisi-ws-service";
    inherit (workspace) version;
    strictDeps = true;
    # The features of the gateway alone: with the whole workspace, those that only tests ask for would be in it too.
    cargoExtraArgs = "--locked -p daisi-ws-service";
    # checks.nix runs the tests, on a profile that compiles faster.
    doCheck = false;
  };

  # What is linked in, for whom it is built: from the same lock and features, by cargo's own answers. It compiles nothing.
  sbom = craneLib.mkCargoDerivation (
    commonArgs
    // {
      pnameSuffix = "-sbom";
      cargoArtifacts = null;
      doInstallCargoArtifacts = false;
      nativeBuildInputs = [ python3 ];
      env.DAISI_WS_REVISION = revision;
      buildPhaseCargoCommand = lib.concatStringsSep " " [
        "python3 -B ${./supply/sbom.py} make --manifest-path Cargo.toml --target ${stdenv.hostPlatform.rust.rustcTarget} --output sbom.json"
        # Otherwise the C library is a file of its own, in the image too.
        (lib.optionalString stdenv.hostPlatform.isStatic "--libc musl@${pkgs.musl.version}")
      ];
      # As it lies in an image.
      installPhaseCommand = "install -D -m 644 sbom.json $out/usr/share/sbom/daisi-ws-service.cdx.json";
    }
  );
in
# Said here, where it can be understood, and not by cargo an hour into the build.
assert lib.assertMsg (lib.versionAtLeast rustc.version workspace.rust-version)
  "this nixpkgs has rustc ${rustc.version}, and Cargo.toml asks for ${workspace.rust-version}";
craneLib.buildPackage (
  commonArgs
  // {
    cargoArtifacts = craneLib.buildDepsOnly commonArgs;
    env.DAISI_WS_REVISION = revision;
    passthru = { inherit craneLib commonArgs sbom; };
    meta = {
      description = "WebSocket gateway between NATS JetStream and browsers";
      mainProgram = "daisi-ws-service";
      license = [
        lib.licenses.mit
        lib.licenses.asl20
      ];
      platforms = lib.platforms.linux;
    };
  }
)
