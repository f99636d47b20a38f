# `nix run .#e2e`: puts the image that Nix built into Docker and runs the failover suites against it. Run it in a checkout: suites are built with cargo
# there, from the tree as it is.
{
  writeShellApplication,
  cargo,
  cargo-nextest,
  docker-client,
  images,
  rustc,
  stdenv,
}:
writeShellApplication {
  name = "daisi-ws-e2e";
  meta.description = "Loads the images into Docker and runs the failover suites";
  runtimeInputs = [
    cargo
    cargo-nextest
    docker-client
    rustc
    # The linker.
    stdenv.cc
  ];
  text = ''
    if ! [[ -x .ci/e2e ]]; then
      echo "daisi-ws-e2e: run this at the root of a checkout: .ci/e2e is not here." >&2
      exit 2
    fi
    ${images.image} | docker load --quiet
    # The suites take this image, and build none.
    export DAISI_WS_IMAGE=daisi-ws-service:local
    exec .ci/e2e "''${@:-full}"
  '';
}
