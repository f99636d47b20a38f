# dev-cluster: a fleet on this machine. Everything that it writes is in one folder, .daisi-ws-dev of the current folder or $DAISI_WS_DEV_DATA: keys,
# streams, metrics, logs. Stopped, it is safe to delete; started again, the stream is as it was. DAISI_WS_DEV_PORT_OFFSET moves all ports.
usage() {
  echo "usage: daisi-ws-dev-cluster    (DAISI_WS_DEV_DATA=FOLDER, DAISI_WS_DEV_PORT_OFFSET=N)" >&2
  exit 2
}
[[ $# == 0 ]] || usage
offset=${DAISI_WS_DEV_PORT_OFFSET:-0}
[[ $offset =~ ^[0-9]+$ ]] || usage

DATA=${DAISI_WS_DEV_DATA:-$PWD/.daisi-ws-dev}
mkdir -p "$DATA"/{log,secrets,nats,redis,prometheus,grafana,provisioning/{datasources,dashboards}}
DATA=$(cd "$DATA" && pwd)
chmod 700 "$DATA/secrets"
# A repository that holds the folder shall not offer to commit it.
echo '*' >"$DATA/.gitignore"

NATS_PORT=$((4222 + offset)) NATS_HTTP=$((8222 + offset)) REDIS_PORT=$((6379 + offset))
PROMETHEUS_PORT=$((9090 + offset)) GRAFANA_PORT=$((3000 + offset)) CONSOLE_HTTP=$((8090 + offset))
export DATA NATS_PORT NATS_HTTP REDIS_PORT PROMETHEUS_PORT GRAFANA_PORT CONSOLE_HTTP
targets=()
for pod in $PODS; do
  export "POD_${pod}_HTTP=$((8079 + pod + offset))" "POD_${pod}_PROBE=$((8179 + pod + offset))" "POD_${pod}_GRPC=$((50050 + pod + offset))"
  targets+=("\"127.0.0.1:$((8179 + pod + offset))\"")
done

# Keys, made once: tokens outlive a restart.
secret() { [[ -s $DATA/secrets/$1 ]] || head -c "$2" /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$DATA/secrets/$1"; }
secret api_key 24
secret mint_key 24
secret token_aes_key 32
secret admin_token_aes_key 32
export DAISI_WS_AUTH_SECRET_TOKEN_FILE=$DATA/secrets/api_key
export DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY_FILE=$DATA/secrets/mint_key
export DAISI_WS_AUTH_TOKEN_AES_KEY_FILE=$DATA/secrets/token_aes_key
export DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY_FILE=$DATA/secrets/admin_token_aes_key
export DAISI_WS_NATS_URL=nats://127.0.0.1:$NATS_PORT DAISI_WS_REDIS_ADDRESS=127.0.0.1:$REDIS_PORT
export DAISI_WS_SERVER_BIND_ADDRESS=127.0.0.1
# A configuration that lies about in the current folder is not this fleet's.
echo '{}' >"$DATA/config.yaml"
export DAISI_WS_CONFIG=$DATA/config.yaml

cat >"$DATA/prometheus.yml" <<YAML
global: { scrape_interval: 5s, evaluation_interval: 5s }
rule_files: ["$RULES/*.yaml"]
scrape_configs:
  - job_name: daisi-ws-service
    static_configs: [{ targets: [$(IFS=,; echo "${targets[*]}")] }]
YAML
cat >"$DATA/provisioning/datasources/prometheus.yaml" <<YAML
apiVersion: 1
datasources:
  - { name: Prometheus, uid: prometheus, type: prometheus, access: proxy, url: "http://127.0.0.1:$PROMETHEUS_PORT", isDefault: true }
YAML
cat >"$DATA/provisioning/dashboards/daisi-ws.yaml" <<YAML
apiVersion: 1
providers:
  - { name: daisi-ws, type: file, options: { path: "$DASHBOARDS" } }
YAML
# On the loopback address only, so nobody needs to log in.
export GF_SERVER_HTTP_ADDR=127.0.0.1 GF_SERVER_HTTP_PORT=$GRAFANA_PORT
export GF_PATHS_DATA=$DATA/grafana GF_PATHS_LOGS=$DATA/grafana/log GF_PATHS_PROVISIONING=$DATA/provisioning
export GF_AUTH_ANONYMOUS_ENABLED=true GF_AUTH_ANONYMOUS_ORG_ROLE=Admin GF_AUTH_DISABLE_LOGIN_FORM=true
export GF_ANALYTICS_REPORTING_ENABLED=false GF_ANALYTICS_CHECK_FOR_UPDATES=false GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES=false

# Its own interface is behind a socket in the folder: a TCP port would be the first pod's.
socket=$DATA/process-compose.sock
rm -f "$socket"
process-compose up --config "$CLUSTER_CONFIG" --tui=false --ordered-shutdown --disable-dotenv --use-uds --unix-socket "$socket" \
  --log-file "$DATA/log/process-compose.log" >"$DATA/log/all.log" 2>&1 &
fleet=$!
trap 'kill -TERM "$fleet" 2>/dev/null || true' INT TERM

up() { daisi-ws-service healthcheck --url "$1" 2>/dev/null; }
wait_for() {
  local name=$1 url=$2 deadline=$((SECONDS + 90))
  until up "$url"; do
    if ! kill -0 "$fleet" 2>/dev/null || ((SECONDS >= deadline)); then
      echo "daisi-ws-dev-cluster: $name did not come up; see $DATA/log/" >&2
      kill -TERM "$fleet" 2>/dev/null || true
      wait "$fleet" || true
      exit 1
    fi
    sleep 0.3
  done
}
for pod in $PODS; do
  port=POD_${pod}_HTTP
  wait_for "pod-$pod" "http://127.0.0.1:${!port}/ready"
done
wait_for console "http://127.0.0.1:$CONSOLE_HTTP/ready"
wait_for prometheus "http://127.0.0.1:$PROMETHEUS_PORT/-/ready"
wait_for grafana "http://127.0.0.1:$GRAFANA_PORT/api/health"

key=$(cat "$DATA/secrets/api_key")
user() { daisi-ws-service token user --company acme --agent agent-7 --user "$1"; }
echo
echo "The fleet is up."
echo
for pod in $PODS; do
  port=POD_${pod}_HTTP
  echo "  pod-$pod       http://127.0.0.1:${!port}/ready"
done
cat <<TEXT
  console     http://127.0.0.1:$CONSOLE_HTTP/
  Prometheus  http://127.0.0.1:$PROMETHEUS_PORT
  Grafana     http://127.0.0.1:$GRAFANA_PORT
  NATS        $DAISI_WS_NATS_URL
  Redis       $DAISI_WS_REDIS_ADDRESS

Open a socket (any WebSocket client will do, on any pod; a second one takes the session over):

  sari  ws://127.0.0.1:$POD_1_HTTP/ws/acme/agent-7?x-api-key=$key&token=$(user sari)
  budi  ws://127.0.0.1:$POD_2_HTTP/ws/acme/agent-7?x-api-key=$key&token=$(user budi)
  root  ws://127.0.0.1:$POD_3_HTTP/ws/admin?x-api-key=$key&token=$(daisi-ws-service token admin --admin root)

Publish an event:

  DAISI_WS_NATS_URL=$DAISI_WS_NATS_URL daisi-ws-service publish wa.acme.agent-7.chats '{"event_id":"1","row_data":{"unread_count":3}}'

Kill a pod's process: it comes back. To watch, stop and start:  process-compose attach --use-uds --unix-socket $socket
Logs, keys and streams: $DATA (safe to delete once this has ended). Ctrl-C drains the fleet.

TEXT

# A signal ends the first wait, not the fleet: it drains, and the second one sees it out.
status=0
wait "$fleet" || status=$?
while kill -0 "$fleet" 2>/dev/null; do
  status=0
  wait "$fleet" || status=$?
done
exit "$status"
