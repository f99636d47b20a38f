# `nix run .#load -- run all`: measures the gateway that Nix built, on Nix's Redis and NATS. What is measured, and how: e2e/load/README.md.
{
  writeShellApplication,
  gateway,
  nats-server,
  redis,
}:
let
  inherit (gateway.passthru) craneLib commonArgs;

  # The gateway's source and builder, and another package of the workspace.
  arguments = commonArgs // {
    pname = "daisi-ws-load";
    cargoExtraArgs = "--locked -p daisi-ws-load";
  };
  load = craneLib.buildPackage (
    arguments // { cargoArtifacts = craneLib.buildDepsOnly arguments; }
  );
in
writeShellApplication {
  name = "daisi-ws-load";
  meta.description = "Measures the gateway against its budgets and against the least that any server must do";
  runtimeInputs = [
    nats-server
    redis
  ];
  text = ''
    # Of another build: --service.
    export DAISI_WS_SERVICE=${gateway}/bin/daisi-ws-service
    exec ${load}/bin/daisi-ws-load "$@"
  '';
}
