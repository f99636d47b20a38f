#!/usr/bin/env bash
# image.sh [TAG]: builds the static binary and the gateway's image around it, as daisi-ws-service:local by default. Needs cargo, Python 3.11 and Docker.
# DAISI_WS_REVISION=$(git rev-parse HEAD) puts the revision into the binary; PROFILE=quick compiles faster, for what is slower.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tag=${1:-daisi-ws-service:local}

# The C library goes into the binary. Only with the target named are build scripts and macros, which can't be static, left out of that.
target=$(uname -m)-unknown-linux-gnu
profile=${PROFILE:-release}
RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile "$profile" --locked --target "$target" -p daisi-ws-service

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "${CARGO_TARGET_DIR:-target}/$target/$profile/daisi-ws-service" "$context/"
libc=$(getconf GNU_LIBC_VERSION)
python3 -B nix/supply/sbom.py make --target "$target" --libc "${libc/ /@}" --output "$context/daisi-ws-service.cdx.json"
for bundle in "${CA_BUNDLE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
  if [[ -f $bundle ]]; then
    cp -L "$bundle" "$context/ca-certificates.crt"
    break
  fi
done
[[ -f $context/ca-certificates.crt ]] || { echo "image.sh: no CA bundle on this machine; set CA_BUNDLE" >&2; exit 1; }
chmod 755 "$context/daisi-ws-service"
chmod 644 "$context/ca-certificates.crt" "$context/daisi-ws-service.cdx.json"
# The same times each time, so that nothing is rebuilt for them.
touch -d @1 "$context"/*
docker build --quiet --file compose/Containerfile --tag "$tag" "$context" >/dev/null
docker image inspect --format "{{index .RepoTags 0}}: {{.Size}} bytes" "$tag"
