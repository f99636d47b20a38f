# push-image REF: pushes the images of both architectures as one, to a registry (ghcr.io/daisi/daisi-ws-service:1.2.3) or wherever skopeo can write to
# (oci:folder:tag). Credentials are skopeo's: `skopeo login` first. IMAGE_AMD64 and IMAGE_ARM64 name the archives.
if [[ $# != 1 ]]; then
  echo "usage: daisi-ws-push-image REF    as in ghcr.io/daisi/daisi-ws-service:1.2.3" >&2
  exit 2
fi
case $1 in
  docker://* | oci:* | oci-archive:* | dir:*) destination=$1 ;;
  *) destination=docker://$1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
layout=$work/layout

# Nothing is verified by signature here: the archives come from this very build.
copy() { skopeo --insecure-policy copy --quiet "$@"; }
add() {
  # Older skopeos read no compressed archive.
  gzip -dc "$2" >"$work/archive.tar"
  copy "docker-archive:$work/archive.tar" "oci:$layout:$1"
  rm "$work/archive.tar"
}
add amd64 "$IMAGE_AMD64"
add arm64 "$IMAGE_ARM64"

# One index that names both, as a blob of the layout, which then lists it alone.
entry() {
  jq --arg architecture "$1" '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $architecture)
    | {mediaType, digest, size, platform: {architecture: $architecture, os: "linux"}}' "$layout/index.json"
}
type=application/vnd.oci.image.index.v1+json
jq -cn --arg type "$type" --argjson amd64 "$(entry amd64)" --argjson arm64 "$(entry arm64)" \
  '{schemaVersion: 2, mediaType: $type, manifests: [$amd64, $arm64]}' >"$work/index"
digest=$(sha256sum "$work/index" | cut -d ' ' -f 1)
size=$(stat --format %s "$work/index")
cp "$work/index" "$layout/blobs/sha256/$digest"
jq -cn --arg type "$type" --arg digest "sha256:$digest" --argjson size "$size" \
  '{schemaVersion: 2, manifests: [{mediaType: $type, digest: $digest, size: $size, annotations: {"org.opencontainers.image.ref.name": "both"}}]}' \
  >"$layout/index.json"

copy --all --preserve-digests --digestfile "$work/digest" "oci:$layout:both" "$destination"
if [[ ${DIGEST_FILE:-} ]]; then cp "$work/digest" "$DIGEST_FILE"; fi
echo "pushed linux/amd64 and linux/arm64 to $destination"
