#!/usr/bin/env bash
# smoke.sh IMAGE [REVISION]: what every image of the gateway must do, however it was built (Nix, compose/Containerfile), before any suite is worth running.
# With REVISION, the image must say that it is of it. Needs Docker, and Python 3.11 to read the bill of materials.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
image=${1:?usage: smoke.sh IMAGE [REVISION]} revision=${2:-}
docker=${DOCKER:-docker}

checks=0
ok() { checks=$((checks + 1)); printf 'ok: %s\n' "$1"; }
fail() {
  printf 'smoke.sh: %s: %s\n' "$image" "$1" >&2
  if [[ ${pod:-} ]]; then "$docker" logs "$pod" >&2 || true; fi
  exit 1
}
# Like production: nothing to write to, no privileges, and no network but a loopback of its own.
run() { "$docker" run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --network none "$@"; }
pod=
trap '[[ -z $pod ]] || "$docker" rm --force "$pod" >/dev/null' EXIT

# --- What it is.
inspect() { "$docker" image inspect --format "$1" "$image"; }
[[ $(inspect '{{.Config.User}}') =~ ^[1-9][0-9]*(:[0-9]+)?$ ]] || fail "its user is '$(inspect '{{.Config.User}}')', not the number of somebody who is not root"
ok "runs as user $(inspect '{{.Config.User}}')"
[[ $(inspect '{{json .Config.Entrypoint}} {{json .Config.Cmd}}') == '["/bin/daisi-ws-service"] ["serve"]' ]] || fail "it does not run daisi-ws-service serve"
ok "runs daisi-ws-service serve"
[[ $(inspect '{{json .Config.Healthcheck.Test}}') == '["CMD","/bin/daisi-ws-service","healthcheck"]' ]] || fail "its health check is not the binary's"
ok "probes itself"
ports=$(inspect '{{range $port, $_ := .Config.ExposedPorts}}{{$port}} {{end}}')
[[ $ports == *50051/tcp* && $ports == *8080/tcp* && $ports == *8081/tcp* ]] || fail "it exposes $ports"
ok "exposes 8080, 8081 and 50051"

# --- What is in it.
for program in /bin/sh /bin/bash /bin/busybox /usr/bin/env; do
  if run --entrypoint "$program" "$image" -c : >/dev/null 2>&1; then fail "there is a $program in it"; fi
done
ok "has no shell"
created=$("$docker" create "$image") # never started: only to look at its files
bundle=$("$docker" cp --follow-link "$created:/etc/ssl/certs/ca-certificates.crt" - 2>/dev/null | tar -xO 2>/dev/null | grep -c 'BEGIN CERTIFICATE' || true)
files=$(mktemp -d)
for file in /bin/daisi-ws-service /usr/share/sbom/daisi-ws-service.cdx.json; do
  "$docker" cp --follow-link "$created:$file" "$files/" || fail "it has no $file"
done
"$docker" rm "$created" >/dev/null
((bundle > 50)) || fail "its CA bundle has $bundle certificates"
ok "has a CA bundle ($bundle certificates)"
held=$(python3 -B "$here/../nix/supply/sbom.py" check --binary "$files/daisi-ws-service" --sbom "$files/daisi-ws-service.cdx.json") ||
  fail "its bill of materials is not true"
[[ $held =~ lists\ all\ ([0-9]+)\ crates ]]
ok "its bill of materials lists all ${BASH_REMATCH[1]} crates that its binary names"
rm -r "$files"

# --- What it does.
version=$(run "$image" --version)
[[ $version == daisi-ws-service\ * ]] || fail "its version is '$version'"
[[ -z $revision || $version == *"($revision)" ]] || fail "it says '$version', not that it is of $revision"
ok "$version"

code=0
errors=$(run --env DAISI_WS_APP_MAX_CONNECTIONS=0 "$image" check-config 2>&1) || code=$?
[[ $code == 78 && $errors == *app.max_connections* && $errors == *auth.secret_token* ]] || fail "a wrong configuration gave exit code $code: $errors"
ok "a wrong configuration ends with exit code 78 and names the keys"
code=0
run "$image" serve >/dev/null 2>&1 || code=$?
[[ $code == 78 ]] || fail "serve without secrets ended with exit code $code, not 78"
ok "serve without secrets ends with exit code 78"

# A whole fleet on memory, so that nothing else is needed: the sockets, gRPC and the probe are the real ones.
pod=$("$docker" run --detach --read-only --cap-drop ALL --security-opt no-new-privileges --network none --health-interval 1s "$image" dev --pods 2)
deadline=$((SECONDS + 30))
until "$docker" exec "$pod" /bin/daisi-ws-service healthcheck --url http://127.0.0.1:8080/ready >/dev/null 2>&1; do
  ((SECONDS < deadline)) || fail "it was not ready within 30 s"
  sleep 0.1
done
ok "comes up on a read-only file system without capabilities"
until [[ $("$docker" inspect --format '{{.State.Health.Status}}' "$pod") == healthy ]]; do
  ((SECONDS < deadline)) || fail "its health check says $("$docker" inspect --format '{{.State.Health.Status}}' "$pod")"
  sleep 0.2
done
ok "its health check says healthy"
"$docker" exec "$pod" /bin/daisi-ws-service publish --url http://127.0.0.1:8080 wa.acme.agent-7.chats '{"event_id":"1"}' >/dev/null ||
  fail "an event could not be published"
ok "takes an event"
"$docker" stop --time 20 "$pod" >/dev/null
code=$("$docker" inspect --format '{{.State.ExitCode}}' "$pod")
[[ $code == 0 ]] || fail "stopped, it ended with exit code $code"
ok "as process 1, drains at SIGTERM and ends with exit code 0"
echo "$image: $checks checks passed"
