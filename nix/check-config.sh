#!/usr/bin/env bash
# check-config.sh: every configuration that the repository ships is valid for the daisi-ws-service on PATH, which reads it with placeholders for the
# secrets; and one that is not valid is refused, or this would prove nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Well-formed, and nobody's.
export DAISI_WS_AUTH_SECRET_TOKEN=check-config-0123456789 DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY=check-config-9876543210
DAISI_WS_AUTH_TOKEN_AES_KEY=$(printf '0123456789abcdef%.0s' 1 2 3 4) DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY=$(printf 'fedcba9876543210%.0s' 1 2 3 4)
export DAISI_WS_AUTH_TOKEN_AES_KEY DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY
export DAISI_WS_SERVER_POD_ID=check-config

checked=0
# A gateway's configuration is told by its sections; a manifest names an apiVersion, and other tools' files have neither.
while IFS= read -r file; do
  daisi-ws-service check-config --config "$file" >/dev/null || { echo "not valid: $file" >&2; exit 1; }
  echo "valid: $file"
  checked=$((checked + 1))
done < <(
  find service/config compose k8s e2e nix -name '*.yaml' -type f 2>/dev/null | sort | while IFS= read -r file; do
    if grep -qE '^(server|nats|redis|auth|app|adaptive_ttl|telemetry):' "$file" && ! grep -q '^apiVersion:' "$file"; then echo "$file"; fi
  done
)
((checked > 0)) || { echo "no configuration found" >&2; exit 1; }

bad=$(mktemp)
trap 'rm -f "$bad"' EXIT
echo 'app: {max_conections: 5}' >"$bad"
code=0
daisi-ws-service check-config --config "$bad" >/dev/null 2>&1 || code=$?
((code == 78)) || { echo "a misspelt key was answered with exit code $code, not 78" >&2; exit 1; }
echo "$checked configurations are valid, and a misspelt key is refused"
