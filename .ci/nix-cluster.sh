#!/usr/bin/env bash
# nix-cluster.sh FOLDER COMMAND...: COMMAND runs the dev cluster; what it prints is true, it delivers, a killed pod comes back, it drains at a signal, and
# keys and stream survive a restart. FOLDER takes its data.
set -euo pipefail
work=$1
shift
export DAISI_WS_DEV_DATA=$work/cluster
rm -rf "$DAISI_WS_DEV_DATA"
fail() {
  printf 'nix-cluster.sh: %s\n' "$1" >&2
  tail -n 20 "$work/cluster.log" "$DAISI_WS_DEV_DATA"/log/*.log >&2 || true
  exit 1
}

# Ports that are free now: the offset moves all of them.
busy() { ss -Hltn "sport = :$1" | grep -q .; }
for offset in $(seq 11000 37 14000) none; do
  free=yes
  for port in 3000 4222 6379 8080 8081 8082 8090 8180 8181 8182 8222 9090; do if busy $((port + offset)); then free=no; fi; done
  # 50051 and on would leave the range.
  if [[ $free == yes ]]; then break; fi
done
[[ $offset != none ]] || fail "no free ports"
export DAISI_WS_DEV_PORT_OFFSET=$offset

cluster=
end() { if [[ $cluster ]]; then kill -TERM "$cluster" 2>/dev/null || true; wait "$cluster" || true; fi; }
trap end EXIT
start() {
  # Emptied here: the command below does it a moment later, and what an earlier start has written would be read as this one's.
  : >"$work/cluster.log"
  "$@" >>"$work/cluster.log" 2>&1 &
  cluster=$!
  local deadline=$((SECONDS + 150))
  until grep -q 'Ctrl-C drains the fleet' "$work/cluster.log"; do
    kill -0 "$cluster" 2>/dev/null || fail "the cluster ended before it was up"
    ((SECONDS < deadline)) || fail "the cluster was not up in time"
    sleep 0.2
  done
}
stop() {
  local code=0
  kill -TERM "$cluster"
  wait "$cluster" || code=$?
  cluster=
  [[ $code == 0 ]] || fail "the cluster ended with exit code $code"
}
# until_true WHAT COMMAND...: within 30 s.
until_true() {
  local what=$1 deadline=$((SECONDS + 30))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "$what"
    sleep 0.3
  done
}
port() { echo $(($1 + offset)); }
scraped() { [[ $(curl -s "http://127.0.0.1:$(port 9090)/api/v1/query?query=sum(up)" | jq -r '.data.result[0].value[1] // 0') == 3 ]]; }
pid_of() { ss -Hltnp "sport = :$1" | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | head -n 1; }
replaced() { local now; now=$(pid_of "$1"); [[ $now && $now != "$2" ]] && curl -sf "http://127.0.0.1:$1/ready" >/dev/null; }

start "$@"
for pod in 8080 8081 8082 8090; do curl -sf "http://127.0.0.1:$(port $pod)/ready" >/dev/null || fail "the pod at $(port $pod) is not ready"; done
until_true "Prometheus does not scrape three pods" scraped
# The printed address opens a socket on one pod; an event that is published reaches it, whichever pod took it.
address=$(sed -n 's/^ *sari *//p' "$work/cluster.log")
python3 - "$address" "$(port 4222)" <<'PYTHON' || fail "a printed address does not deliver"
import base64, json, os, socket, sys, urllib.parse

url, nats_port = urllib.parse.urlsplit(sys.argv[1]), int(sys.argv[2])
browser = socket.create_connection((url.hostname, url.port), timeout=20)
key = base64.b64encode(os.urandom(16)).decode()
browser.sendall(
    f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
)
got = b""

def until(text):
    global got
    while text not in got:
        data = browser.recv(4096)
        if not data:
            sys.exit(f"closed before {text!r}: {got!r}")
        got += data

until(b'"type":"ready"')
nats = socket.create_connection(("127.0.0.1", nats_port), timeout=20)
event = json.dumps({"event_id": "nix-check", "row_data": {"unread_count": 3}}).encode()
nats.sendall(b'CONNECT {"verbose":false}\r\nPUB wa.acme.agent-7.chats %d\r\n%s\r\nPING\r\n' % (len(event), event))
until(b"nix-check")
PYTHON
before=$(pid_of "$(port 8081)")
kill -KILL "$before"
until_true "a killed pod did not come back" replaced "$(port 8081)" "$before"
stop
if busy "$(port 8080)" || busy "$(port 4222)"; then fail "something still listens after the cluster ended"; fi
keys=$(cat "$DAISI_WS_DEV_DATA/secrets/token_aes_key")

start "$@"
[[ $(cat "$DAISI_WS_DEV_DATA/secrets/token_aes_key") == "$keys" ]] || fail "the keys changed"
kept() { [[ $(curl -s "http://127.0.0.1:$(port 8222)/jsz" | jq '.messages // 0') -ge 1 ]]; }
until_true "the stream was empty after a restart" kept
stop
rm -rf "$DAISI_WS_DEV_DATA"
