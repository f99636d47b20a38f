#!/usr/bin/env bash
# secrets.sh: makes the secrets and certificates of the compose environments in compose/secrets/, which git ignores. What is there is kept; remove
# the folder to get new ones. Needs openssl.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/secrets
mkdir -p "$folder"
chmod 700 "$folder"
umask 022
# One at a time: environments that are started together would make the same files.
exec 9>"$folder/.lock"
! command -v flock >/dev/null || flock 9
# The containers' users are not this one, and plain Compose mounts secrets as they are: the files are readable, and nobody but this user comes into
# their folder. Each is mounted by itself.

# secret NAME BYTES: so many random bytes, as hex, without an end of line.
secret() { [[ -s $folder/$1 ]] || openssl rand -hex "$2" | tr -d '\n' >"$folder/$1"; }

secret api_key 24
secret mint_key 24
secret token_aes_key 32
secret admin_token_aes_key 32
secret redis_password 24
secret nats_password 24
secret publisher_password 24
secret grafana_password 24

# Configurations with a password in them, for servers that read it from nowhere else.
# In Redis the gateway has the keys and commands of docs/operations.md, and nobody else comes in; what each user may do in NATS is in nats.secure.conf.
cat >"$folder/redis.conf" <<CONF
user default off
user daisi-ws on >$(cat "$folder/redis_password") resetkeys ~session:* ~route:* ~routes:epoch ~pods ~pod:* ~pod_left:* ~pod_retirements:* ~token_cache:* resetchannels &session_kill:* -@all +evalsha +script|load +getrange +set +del +exists +incr +pexpire +pttl +sadd +srem +scard +sismember +smembers +srandmember +sinter +publish +psubscribe +ping +select +info +client|info +client|kill
CONF
printf 'GATEWAY_PASSWORD: "%s"\nPUBLISHER_PASSWORD: "%s"\n' "$(cat "$folder/nats_password")" "$(cat "$folder/publisher_password")" >"$folder/nats-auth.conf"

# A CA of its own, and a certificate for each server under its name in the network.
if [[ ! -s $folder/ca.crt ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=daisi-ws compose CA" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout "$folder/ca.key" -out "$folder/ca.crt" 2>/dev/null
fi
for server in redis nats; do
  [[ -s $folder/$server.crt ]] && continue
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$server" \
    -keyout "$folder/$server.key" -out "$folder/$server.csr" 2>/dev/null
  openssl x509 -req -in "$folder/$server.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 365 \
    -extfile <(printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$server") \
    -out "$folder/$server.crt" 2>/dev/null
  rm "$folder/$server.csr"
done
chmod 644 "$folder"/*
chmod 600 "$folder/ca.key"
echo "secrets are in $folder"
