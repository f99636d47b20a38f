#!/usr/bin/env bash
# secrets.sh NAMESPACE: prints the three Secrets that the manifests refer to, with fresh random keys. For a first try, and to show their shape:
#
#   k8s/secrets.sh daisi-ws | kubectl apply -f -
#
# In production let what keeps your secrets make them (External Secrets, Sealed Secrets, Vault ...). Nothing is written to disk. A second run
# makes other keys: sessions and tokens of the first are void then, and the pods have to be restarted.
set -euo pipefail

namespace=${1:?usage: secrets.sh NAMESPACE}

# hex BYTES: so many random bytes, in hex.
hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

gateway=$(hex 24) publisher=$(hex 24) redis=$(hex 24)

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
  # The gateway makes and reads its stream; publishers may only publish, and hear that it was stored.
  auth.conf: |
    authorization {
      users: [
        { user: gateway, password: "$gateway" }
        { user: publisher, password: "$publisher", permissions: { publish: "wa.>", subscribe: "_INBOX.>" } }
      ]
    }
---
apiVersion: v1
kind: Secret
metadata:
  name: redis-auth
  namespace: $namespace
stringData:
  password: "$redis"
  auth.conf: |
    requirepass $redis
YAML
