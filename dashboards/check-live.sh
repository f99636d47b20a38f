#!/usr/bin/env bash
# check-live.sh: runs check_live.py with all that it needs: the gateway (a debug build will do), NATS, Redis, Prometheus, and two Python packages.
# It takes about five minutes.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
eval "$(.ci/tools.sh --env)"
environment=$(.ci/dashboards --tools)
eval "$environment"
if [[ ! ${DAISI_WS_BINARY:-} ]]; then
  cargo build --locked -p daisi-ws-service
  DAISI_WS_BINARY=${CARGO_TARGET_DIR:-$root/target}/debug/daisi-ws-service
fi
export DAISI_WS_BINARY
"$DASHBOARDS_PYTHON" -m pip install --quiet --disable-pip-version-check websockets==15.0.1 nats-py==2.11.0
exec "$DASHBOARDS_PYTHON" dashboards/check_live.py
