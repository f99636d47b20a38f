#!/usr/bin/env bash
# secrets.sh NAMESPACE: prints the six Secrets that the manifests refer to, with fresh random keys and two CAs whose keys are thrown away. Needs openssl. For a first try, and to show their shape:
#
#   k8s/secrets.sh daisi-ws | kubectl apply -f -
#
# In production let what keeps your secrets make them (External Secrets, Sealed Secrets, Vault ...). Nothing stays on disk. A second run
# makes other keys: sessions and tokens of the first are void then, and the pods have to be restarted.
set -euo pipefail

namespace=${1:?usage: secrets.sh NAMESPACE}

# hex BYTES: so many random bytes, in hex.
hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

gateway=$(hex 24) publisher=$(hex 24) redis=$(hex 24) probe=$(hex 24)

# In memory where there is such a folder.
work=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$work"' EXIT
umask 077
ec=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
# authority NAME: a CA for a year.
authority() {
  openssl req -x509 "${ec[@]}" -days 365 -subj "/CN=daisi-ws $1" -addext "basicConstraints=critical,CA:TRUE" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout "$work/$1.key" -out "$work/$1.crt" 2>/dev/null
}
authority ca
# Pods are each other's clients, and none of NATS' servers.
authority pods-ca

# certificate NAME USES NAMES [CA]: a certificate for these names, good for these uses and a year.
certificate() {
  local ca=${4:-ca}
  openssl req "${ec[@]}" -subj "/CN=$1" -keyout "$work/$1.key" -out "$work/$1.csr" 2>/dev/null
  openssl x509 -req -in "$work/$1.csr" -CA "$work/$ca.crt" -CAkey "$work/$ca.key" -CAcreateserial -days 365 -out "$work/$1.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=%s\nbasicConstraints=CA:FALSE\n' "$3" "$2") 2>/dev/null
}
# Servers of NATS are clients of each other; nobody else's certificate may be one.
certificate nats serverAuth,clientAuth "DNS:nats,DNS:*.nats-headless,DNS:nats.$namespace.svc,DNS:*.nats-headless.$namespace.svc,DNS:localhost,IP:127.0.0.1"
certificate redis serverAuth "DNS:redis,DNS:redis.$namespace.svc,DNS:localhost,IP:127.0.0.1"

certificate pods serverAuth,clientAuth "DNS:daisi-ws-pods" pods-ca

# tls NAME [CA]: the Secret of that server's certificate, with the keys that cert-manager gives one.
tls() {
  printf -- '---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata:\n  name: %s-tls\n  namespace: %s\nstringData:\n' "$1" "$namespace"
  for pair in "tls.crt:$1.crt" "tls.key:$1.key" "ca.crt:${2:-ca}.crt"; do
    printf '  %s: |\n' "${pair%%:*}"
    sed 's/^/    /' "$work/${pair#*:}"
  done
}

cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: daisi-ws-service-auth
  namespace: $namespace
stringData:
  secret_token: "$(hex 24)"
  token_aes_key: "$(hex 32)"
  admin_token_aes_key: "$(hex 32)"
  token_generation_admin_key: "$(hex 24)"
---
apiVersion: v1
kind: Secret
metadata:
  name: nats-auth
  namespace: $namespace
stringData:
  gateway_password: "$gateway"
  publisher_password: "$publisher"
  # What each may do is in components/nats-cluster/nats.conf.
  auth.conf: |
    GATEWAY_PASSWORD: "$gateway"
    PUBLISHER_PASSWORD: "$publisher"
---
apiVersion: v1
kind: Secret
metadata:
  name: redis-auth
  namespace: $namespace
stringData:
  password: "$redis"
  probe_password: "$probe"
  # The gateway's keys and commands, as docs/operations.md has them; a sign of life for probes; and nobody else.
  auth.conf: |
    user default off
    user daisi-ws on >$redis resetkeys ~session:* ~route:* ~routes:epoch ~pods ~pod:* ~pod_left:* ~pod_retirements:* ~token_cache:* resetchannels &session_kill:* -@all +evalsha +script|load +getrange +set +del +exists +incr +pexpire +pttl +sadd +srem +scard +sismember +smembers +srandmember +sinter +publish +psubscribe +ping +select +info +client|info +client|kill
    user probe on >$probe resetkeys resetchannels -@all +ping
YAML
tls nats
tls redis
tls pods pods-ca
