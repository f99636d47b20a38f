# Every command of this repository, by what it is for: `just --list`. Each recipe is one command that works without just, too; arguments go to it.
# `.ci/repository` holds this file against the scripts and the documents.

# Prints this list.
[private]
default:
    @just --justfile {{ justfile() }} --list --unsorted

# --- Run it -----------------------------------------------------------------------------------------------------------------------------------------

# A fleet of three pods in this process, with its console; needs nothing else.
[group('run')]
dev *ARGS:
    cargo run -- dev {{ ARGS }}

# Three pods on real NATS and Redis, with Prometheus and Grafana (Nix).
[group('run')]
cluster *ARGS:
    nix run . -- {{ ARGS }}

# The program, compiled by the flake; arguments are its own (Nix).
[group('run')]
gateway *ARGS:
    nix run .#gateway -- {{ ARGS }}

# Puts the program on PATH, compiled here.
[group('run')]
install:
    cargo install --locked --path service

# The fleet in containers, behind HAProxy, on http://127.0.0.1:8080.
[group('run')]
up: image
    compose/secrets.sh
    docker compose -f compose/compose.yaml up -d --wait

# Takes the fleet in containers down, with its data.
[group('run')]
down:
    docker compose -f compose/compose.yaml down -v

# --- While you work ---------------------------------------------------------------------------------------------------------------------------------

# Formats the Rust code (and with Nix: `nix fmt` the Nix files).
[group('work')]
fmt:
    cargo fmt --all

# Lints of all code, warnings denied.
[group('work')]
clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Unit tests of one package, which take seconds: `just unit -p daisi-ws-service mailbox`.
[group('work')]
unit *ARGS:
    cargo test --locked --lib {{ ARGS }}

# All tests, on a real Redis and NATS that it brings; arguments go to the test runner.
[group('work')]
test *ARGS:
    .ci/test {{ ARGS }}

# Documentation of the code, private items too, opened in a browser.
[group('work')]
doc:
    cargo doc --workspace --no-deps --locked --document-private-items --open

# A shell with toolchain, servers and tools (Nix).
[group('work')]
shell:
    nix develop

# Brings redis-server and nats-server, and says how tests find them: `eval "$(just servers)"`; also `oldest`, `valkey`.
[group('work')]
servers WHICH='current':
    @.ci/tools.sh --env {{ WHICH }}

# --- Check it ---------------------------------------------------------------------------------------------------------------------------------------

# Everything that must hold before a change lands; some half an hour.
[group('check')]
ci:
    .ci/run

# The same as attributes of the flake (Nix).
[group('check')]
flake-check:
    nix flake check --print-build-logs

# The suites of what speaks to NATS and Redis, on the oldest servers and on Valkey.
[group('check')]
other-servers *WHICH:
    .ci/servers {{ WHICH }}

# Licences, bans, sources, vulnerabilities, unused dependencies, the bill of materials, exact names.
[group('check')]
supply:
    .ci/supply

# What contributors meet: workflows and forms by their schemas, this index, the change log.
[group('check')]
repository:
    .ci/repository

# Packs a debug build as a release would be, and does with it what a user does.
[group('check')]
release *ARGS='check':
    .ci/release {{ ARGS }}

# The whole fleet under seeds, with everything around it broken: `run --seeds N`, `replay SEED --trace`, `shrink SEED`.
[group('check')]
simulate *ARGS='run --seeds 1000':
    cargo run --locked --profile quick -p daisi-ws-simulation -- {{ ARGS }}

# A thousand seeds, or as many as are named, compiled as the image's program is.
[group('check')]
seeds N='1000':
    .ci/seeds {{ N }}

# Breaks the code on purpose, one way after another, and has the simulation find it; half an hour.
[group('check')]
mutants *ARGS:
    .ci/mutants {{ ARGS }}

# The protocol of the session locks, in all states of a model; `--mutant NAME` breaks a rule and prints how it is found out.
[group('check')]
model *ARGS:
    cargo run --release --locked -p daisi-ws-lock-model -- {{ ARGS }}

# RFC 6455 by the Autobahn suite: `quick`, or `full` with compression.
[group('check')]
autobahn *ARGS='quick':
    .ci/autobahn {{ ARGS }}

# Manifests against schemas of Kubernetes, the gateway and real servers.
[group('check')]
k8s:
    .ci/k8s

# The browser client and the console in a headless browser; arguments choose tests.
[group('check')]
web *ARGS:
    .ci/web {{ ARGS }}

# The flake by the real Nix, on stand-ins for its inputs; `--all` builds every check.
[group('check')]
nix *ARGS:
    .ci/nix {{ ARGS }}

# Rules and dashboards: promtool, the generator, Grafana's own types.
[group('check')]
dashboards *ARGS:
    .ci/dashboards {{ ARGS }}

# Every panel has data and every alert fires, on a live fleet; five minutes.
[group('check')]
dashboards-live:
    dashboards/check-live.sh

# Every parser of what comes from outside under libFuzzer: `smoke`, `long SECONDS`, `merge`.
[group('check')]
fuzz *ARGS='smoke':
    .ci/fuzz {{ ARGS }}

# The fleet in containers under faults: `quick`, `full`, `faults`, `some FILTER...`.
[group('check')]
e2e *ARGS='quick':
    .ci/e2e {{ ARGS }}

# The failover suites on the Nix image (Nix).
[group('check')]
e2e-nix *ARGS:
    nix run .#e2e -- {{ ARGS }}

# The program is well in an image: `just smoke daisi-ws-service:local`.
[group('check')]
smoke *ARGS:
    e2e/smoke.sh {{ ARGS }}

# --- Measure it -------------------------------------------------------------------------------------------------------------------------------------

# Costs of a socket, a connect and a delivery beside their budgets; five minutes for `all`.
[group('measure')]
load *ARGS='run all':
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --locked -p daisi-ws-service -p daisi-ws-load
    servers=$(.ci/tools.sh --env)
    eval "$servers"
    exec "${CARGO_TARGET_DIR:-target}/release/daisi-ws-load" {{ ARGS }}

# The same from the flake (Nix).
[group('measure')]
load-nix *ARGS='run all':
    nix run .#load -- {{ ARGS }}

# Hot paths, piece by piece (criterion): `just bench --bench hot_path`.
[group('measure')]
bench *ARGS:
    cargo bench -p daisi-ws-service {{ ARGS }}

# Attacks on a pod from outside, and what its users feel: `just attack list`.
[group('measure')]
attack *ARGS='list':
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --locked -p daisi-ws-service
    servers=$(.ci/tools.sh --env)
    eval "$servers"
    exec cargo run --locked -p daisi-ws-attack -- {{ ARGS }}

# What metrics and traces cost, on a release build.
[group('measure')]
telemetry-cost:
    dashboards/cost.sh

# --- Make what is committed and made from something else --------------------------------------------------------------------------------------------

# Code of proto/proto.
[group('generate')]
proto:
    UPDATE_GENERATED=1 cargo test --locked -p daisi-ws-proto

# docs/configuration.md, of the defaults.
[group('generate')]
configuration:
    UPDATE_DOCS=1 cargo test --locked -p daisi-ws-service --test it docs::

# The browser client, readable and minified, with its types, of clients/typescript.
[group('generate')]
client:
    node service/web/build.mjs

# Grafana dashboards, and the rules in the manifests.
[group('generate')]
panels:
    python3 -B dashboards/build.py
    python3 -B k8s/rules.py

# docs/faults.md, by every row of the table, for real.
[group('generate')]
faults:
    .ci/e2e faults

# --- Ship it ----------------------------------------------------------------------------------------------------------------------------------------

# The image daisi-ws-service:local, without Nix and without a registry.
[group('ship')]
image *ARGS:
    compose/image.sh {{ ARGS }}

# An output of the flake: gateway, gateway-static, image-archive, sbom and so on (Nix).
[group('ship')]
build OUTPUT='gateway':
    nix build --print-build-logs .#{{ OUTPUT }}

# Both architectures as one manifest, to a registry (Nix).
[group('ship')]
push REF:
    nix run .#push-image -- {{ REF }}

# Secrets in the shape that the manifests want, for a first try: `just k8s-secrets daisi-ws | kubectl apply -f -`.
[group('ship')]
k8s-secrets NAMESPACE:
    @k8s/secrets.sh {{ NAMESPACE }}

# An event from a publisher to a socket, on the cluster that kubectl talks to, with k8s/overlays/dev on it.
[group('ship')]
k8s-try:
    k8s/overlays/dev/try.sh
