#!/usr/bin/env bash
# try.sh [NAMESPACE]: opens a socket on the fleet of this namespace, publishes an event, and ends well when the socket got it.
#
# Needs kubectl and curl. The upgrade is asked for by hand: frames of the server are not masked, so their text can be read in what curl prints.
set -euo pipefail

namespace=${1:-daisi-ws}
# An id of its own for this run, so that an event of another run can't pass for ours.
event=try-$$-$(date +%s)
work=$(mktemp -d)
children=()
trap 'kill "${children[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

gateway() { kubectl --namespace "$namespace" exec deployment/daisi-ws-service -- daisi-ws-service "$@"; }

# wait_for TEXT FILE WHAT: until the file has the text, for half a minute.
wait_for() {
  for ((i = 0; i < 150; i++)); do
    if grep --text --quiet -- "$1" "$2" 2>/dev/null; then return; fi
    sleep 0.2
  done
  echo "try.sh: $3 did not come within 30 s; what there is:" >&2
  cat "$2" >&2
  exit 1
}

kubectl --namespace "$namespace" rollout status deployment/daisi-ws-service --timeout 180s
kubectl --namespace "$namespace" port-forward service/daisi-ws-service :8080 >"$work/forward" &
children+=($!)
wait_for '127.0.0.1:' "$work/forward" 'the forwarded port'
port=$(sed -n 's/^Forwarding from 127\.0\.0\.1:\([0-9]*\) .*/\1/p' "$work/forward" | head -n 1)

key=$(kubectl --namespace "$namespace" get secret daisi-ws-service-auth --output 'jsonpath={.data.secret_token}' | base64 --decode)
token=$(gateway token user --company acme --agent agent-7 --user "$event")
# Key and token by a file of its own, not on the command line, where every user of this machine could read them.
printf 'header = "X-API-Key: %s"\nheader = "Authorization: Bearer %s"\n' "$key" "$token" >"$work/headers"
curl --silent --no-buffer --http1.1 --config "$work/headers" --output "$work/socket" \
  --header 'Connection: Upgrade' --header 'Upgrade: websocket' --header 'Sec-WebSocket-Version: 13' \
  --header "Sec-WebSocket-Key: $(head -c 16 /dev/urandom | base64)" "http://127.0.0.1:$port/ws/acme/agent-7" &
children+=($!)
wait_for '"type":"ready"' "$work/socket" 'the ready of the socket'

gateway publish wa.acme.agent-7.chats "{\"event_id\":\"$event\",\"row_data\":{\"unread_count\":3}}"
wait_for "$event" "$work/socket" 'the event'
echo "the socket got:"
tr -cd '[:print:]\n' <"$work/socket" | grep --only-matching '{"type":"event".*'
