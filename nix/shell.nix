# `nix develop`: the toolchain that the package is built with, and what the tests, the manifests and a look into a running fleet need.
{
  mkShell,
  cargo,
  cargo-nextest,
  clippy,
  docker-client,
  docker-compose,
  gateway,
  grpcurl,
  jq,
  kubectl,
  kustomize,
  natscli,
  nats-server,
  nixfmt-tree,
  process-compose,
  prometheus,
  python3,
  redis,
  rust-analyzer,
  rustc,
  rustfmt,
  shellcheck,
  skopeo,
}:
mkShell {
  name = "daisi-ws-service";
  # What the package itself needs to be built, whatever that becomes.
  inputsFrom = [ gateway ];
  packages = [
    cargo
    cargo-nextest
    clippy
    rust-analyzer
    rustc
    rustfmt
    # Servers, and tools to look into them.
    grpcurl
    jq
    natscli
    nats-server
    process-compose
    prometheus
    redis
    # Images, manifests, scripts.
    docker-client
    docker-compose
    kubectl
    kustomize
    nixfmt-tree
    python3
    shellcheck
    skopeo
  ];
  # The tests then start these, and look for no others.
  REDIS_SERVER = "${redis}/bin/redis-server";
  NATS_SERVER = "${nats-server}/bin/nats-server";
}
