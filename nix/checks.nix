# `nix flake check`: what .ci/run checks, one attribute a check. To add one: an attribute here, with the tools that it needs and the command that
# .ci/run calls.
{
  lib,
  runCommand,
  devCluster,
  gateway,
  jq,
  kubectl,
  kustomize,
  nats-server,
  nix,
  nodejs,
  typescript,
  prometheus,
  python3,
  redis,
  shellcheck,
}:
let
  inherit (gateway.passthru) craneLib;

  # The whole tree: tests also read manifests, dashboards and documents.
  tree = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../.ci
      ../.config
      ../ARCHITECTURE.md
      ../Cargo.lock
      ../Cargo.toml
      ../LICENSE
      ../README.md
      ../SECURITY.md
      ../clients
      ../clippy.toml
      ../flake.nix
      ../nix
      ../crates
      ../proto
      ../rustfmt.toml
      ../service
      ../compose
      ../dashboards
      ../docs
      ../e2e
      ../k8s
      ../simulation
    ];
  };

  # The profile that developers test with: it compiles faster, and it has the debug assertions.
  workspace = {
    src = tree;
    pname = "daisi-ws-workspace";
    inherit (gateway) version;
    strictDeps = true;
    cargoExtraArgs = "--locked --workspace";
    env.CARGO_PROFILE = "dev";
  };
  cargo = workspace // {
    cargoArtifacts = craneLib.buildDepsOnly workspace;
  };

  # check NAME TOOLS SCRIPT: succeeds if the script does, in the tree.
  check =
    name: tools: script:
    runCommand "check-${name}" { nativeBuildInputs = tools; } ''
      cd ${tree}
      ${script}
      touch $out
    '';

in
{
  # It compiles, and every other check's result is about this very binary.
  package = gateway;

  fmt = craneLib.cargoFmt {
    src = tree;
    inherit (workspace) pname version;
    cargoExtraArgs = "--all";
  };
  clippy = craneLib.cargoClippy (
    cargo // { cargoClippyExtraArgs = "--all-targets -- --deny warnings"; }
  );
  doc = craneLib.cargoDoc (
    cargo
    // {
      cargoDocExtraArgs = "--no-deps --document-private-items";
      env = workspace.env // {
        RUSTDOCFLAGS = "--deny warnings";
      };
    }
  );
  # Not the suites in e2e/fleet/tests: they need Docker, which no build has. `nix run .#e2e` runs them.
  tests = craneLib.cargoNextest (
    cargo
    // {
      cargoExtraArgs = "--locked -p daisi-ws-proto -p daisi-ws-service -p daisi-ws-attack -p daisi-ws-load -p daisi-ws-testbed";
      env = workspace.env // {
        REDIS_SERVER = "${redis}/bin/redis-server";
        NATS_SERVER = "${nats-server}/bin/nats-server";
      };
    }
  );
  doctests = craneLib.cargoDocTest cargo;

  # Every configuration that is shipped, read by the binary that is shipped. Placeholders stand for the secrets, which none of them may contain.
  config = check "config" [ gateway ] "nix/check-config.sh";

  # The dev cluster's configuration names nothing that process-compose does not know: a dry run needs no process of it.
  dev-cluster =
    runCommand "check-dev-cluster"
      {
        nativeBuildInputs = [
          devCluster
          jq
        ];
      }
      ''
        jq -e '.processes | length == 8' ${devCluster.passthru.config}
        touch $out
      '';

  nix = check "nix" [ nix ] ''
    export NIX_STATE_DIR=$TMPDIR
    nix-instantiate --parse --store dummy:// flake.nix nix/*.nix nix/stub/*/*.nix >/dev/null
  '';
  scripts = check "scripts" [
    shellcheck
  ] "shellcheck --shell bash --severity warning .ci/* nix/*.sh e2e/*.sh";
  promtool = check "promtool" [ prometheus ] ''
    promtool check rules dashboards/prometheus/recording.yaml dashboards/prometheus/alerts.yaml
    promtool check config dashboards/prometheus/prometheus.yml
    promtool test rules dashboards/prometheus/tests/*.yaml
  '';
  # What .ci/dashboards checks without Grafana's own types, which nixpkgs has no package of.
  dashboards = check "dashboards" [ python3 ] "python3 -B dashboards/build.py --check";
  # What .ci/web checks without a browser, which no build may start.
  browser-client = check "browser-client" [ nodejs typescript ] ''
    node service/web/build.mjs --check
    for client in client.js client.min.js; do
      CLIENT=$client node --test service/web/test/*.test.mjs
    done
  '';
  # The rules in the manifests are those of dashboards/.
  kubernetes-rules = check "kubernetes-rules" [ python3 ] "python3 -B k8s/rules.py --check";
  kustomize = check "kustomize" [ kustomize ] ''
    for overlay in k8s/overlays/*/ k8s/tests/*/; do
      if [ -f "$overlay/kustomization.yaml" ]; then kustomize build "$overlay" >/dev/null; fi
    done
  '';
}
