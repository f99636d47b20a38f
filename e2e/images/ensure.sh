#!/usr/bin/env bash
# ensure.sh [NAME...]: makes sure that the images which the compose files and the suites name are there: nats redis haproxy prometheus
# alertmanager (all of them by default).
#
# An image that is there is left alone. One that is not is pulled; only where no registry answers it is made from Debian's packages, under the
# upstream name and tag and with the upstream ports, entry point and paths, so that nobody who uses it needs to know. OFFLINE=1 doesn't try to pull.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# A registry that can't be reached must not cost half a minute an image.
pull_timeout=${PULL_TIMEOUT:-60}
reachable=${OFFLINE:+no}

cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export DEB_IMAGE_CACHE=$cache
# Debian's suite that has the versions which the tags below name.
suite=forky

# ensure TAG COMMAND...: COMMAND makes the image where it can be had in no other way.
ensure() {
  local tag=$1
  shift
  if docker image inspect "$tag" >/dev/null 2>&1; then return; fi
  if [[ $reachable != no ]]; then
    if timeout "$pull_timeout" docker pull -q "$tag" >/dev/null 2>&1; then
      echo "$tag: pulled"
      return
    fi
    reachable=no
  fi
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "ensure.sh: $tag can't be pulled, and without apt-get it can't be made" >&2
    exit 1
  }
  "$@"
}

deb() { OVERLAY=$here/$overlay FILES=${files:-} DIRS=${dirs:-} "$here/deb-image.sh" "$@"; }

make_nats() {
  local overlay=nats
  deb "$1" "$suite" nats-server /usr/sbin/nats-server --change 'ENTRYPOINT ["docker-entrypoint.sh"]' \
    --change 'CMD ["nats-server","--config","/etc/nats/nats-server.conf"]' --change 'EXPOSE 4222 6222 8222'
}
make_redis() {
  local overlay=redis
  deb "$1" "$suite" redis-server "/usr/bin/redis-server /usr/bin/redis-cli" --change 'ENTRYPOINT ["docker-entrypoint.sh"]' \
    --change 'CMD ["redis-server"]' --change 'WORKDIR /data' --change 'VOLUME /data' --change 'EXPOSE 6379'
}
make_haproxy() {
  local overlay=haproxy
  deb "$1" "$suite" haproxy /usr/sbin/haproxy --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'USER haproxy' \
    --change 'CMD ["haproxy","-f","/usr/local/etc/haproxy/haproxy.cfg"]'
}
make_prometheus() {
  local overlay=prometheus dirs=/prometheus
  deb "$1" "$suite" prometheus "/usr/bin/prometheus /usr/bin/promtool" --change 'ENTRYPOINT ["/bin/prometheus"]' --change 'USER nobody' \
    --change 'CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]' \
    --change 'WORKDIR /prometheus' --change 'VOLUME /prometheus' --change 'EXPOSE 9090'
}
make_alertmanager() {
  local overlay=alertmanager data=/usr/share/prometheus/alertmanager
  local dirs=/alertmanager files="$data/default.tmpl $data/email.tmpl"
  deb "$1" "$suite" prometheus-alertmanager "/usr/bin/prometheus-alertmanager /usr/bin/amtool" --change 'ENTRYPOINT ["/bin/alertmanager"]' \
    --change 'CMD ["--config.file=/etc/alertmanager/alertmanager.yml","--storage.path=/alertmanager"]' --change 'USER nobody' \
    --change 'WORKDIR /alertmanager' --change 'VOLUME /alertmanager' --change 'EXPOSE 9093'
}

(($#)) || set -- nats redis haproxy prometheus alertmanager
for name in "$@"; do
  case $name in
    nats) ensure nats:2.15-alpine make_nats nats:2.15-alpine ;;
    redis) ensure redis:8-alpine make_redis redis:8-alpine ;;
    haproxy) ensure haproxy:3.2-alpine make_haproxy haproxy:3.2-alpine ;;
    prometheus) ensure prom/prometheus:v3.5.3 make_prometheus prom/prometheus:v3.5.3 ;;
    alertmanager) ensure prom/alertmanager:v0.33.1 make_alertmanager prom/alertmanager:v0.33.1 ;;
    *) echo "ensure.sh: unknown image: $name" >&2 && exit 1 ;;
  esac
done
