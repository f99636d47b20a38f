#!/usr/bin/env bash
# cost.sh: runs cost.py with all that it needs, on a release build.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
eval "$(.ci/tools.sh --env)"
environment=$(.ci/dashboards --tools)
eval "$environment"
if [[ ! ${DAISI_WS_BINARY:-} ]]; then
  cargo build --release --locked -p daisi-ws-service
  DAISI_WS_BINARY=${CARGO_TARGET_DIR:-$root/target}/release/daisi-ws-service
fi
export DAISI_WS_BINARY
"$DASHBOARDS_PYTHON" -m pip install --quiet --disable-pip-version-check websockets==15.0.1 nats-py==2.11.0
exec "$DASHBOARDS_PYTHON" dashboards/cost.py
