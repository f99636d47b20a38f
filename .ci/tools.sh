#!/usr/bin/env bash
# tools.sh [--env]: makes sure that the servers the tests start are there: redis-server, and nats-server 2.10 or later.
#
# What is on PATH is used. What is missing is fetched once, on a Debian-like machine as root: redis-server is installed from the machine's own
# suite; nats-server, which older suites lack, is only unpacked into target/tools/bin, through an apt state of our own, so that the machine's apt
# configuration stays as it is. A second run does nothing and needs no network.
#
# `eval "$(.ci/tools.sh --env)"` also exports NATS_SERVER and REDIS_SERVER; everything else that is said goes to stderr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${CARGO_TARGET_DIR:-$root/target}/tools
bin=$tools/bin
suite=${NATS_SUITE:-trixie} # the oldest Debian suite whose nats-server is recent enough
wanted_major=2 wanted_minor=10

say() { printf 'tools.sh: %s\n' "$*" >&2; }

give_up() {
  say "$1"
  say "Install redis-server (7 or later) and nats-server ($wanted_major.$wanted_minor or later) so that both are on PATH,"
  say "or set REDIS_SERVER and NATS_SERVER to the programs, and run this again."
  exit 1
}

# recent_nats PROGRAM: does it run, in a version that we can use?
recent_nats() {
  local version major minor
  version=$("$1" --version 2>/dev/null | sed -n 's/.*v\([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p') || return 1
  [[ $version ]] || return 1
  major=${version%%.*} minor=${version#*.}
  ((major > wanted_major || (major == wanted_major && minor >= wanted_minor)))
}

find_redis() {
  if [[ ${REDIS_SERVER:-} ]]; then
    command -v "$REDIS_SERVER" >/dev/null || give_up "REDIS_SERVER is set to $REDIS_SERVER, which cannot be run."
    redis=$(command -v "$REDIS_SERVER")
  elif redis=$(command -v redis-server); then
    :
  else
    "$root/.ci/deb" install redis-server || give_up "redis-server is missing."
    redis=$(command -v redis-server) || give_up "redis-server was installed but is not on PATH."
  fi
}

find_nats() {
  if [[ ${NATS_SERVER:-} ]]; then
    recent_nats "$NATS_SERVER" || give_up "NATS_SERVER is set to $NATS_SERVER, which is no nats-server $wanted_major.$wanted_minor or later."
    nats=$(command -v "$NATS_SERVER")
  elif recent_nats nats-server; then
    nats=$(command -v nats-server)
  else
    if ! recent_nats "$bin/nats-server"; then
      # The program needs nothing but libc, so its package alone will do.
      "$root/.ci/deb" program "$suite" nats-server nats-server "$bin" || give_up "nats-server is missing or too old."
      recent_nats "$bin/nats-server" || give_up "the nats-server of $suite does not run here, or is older than $wanted_major.$wanted_minor."
    fi
    nats=$bin/nats-server
  fi
}

case ${1:-} in
  '' | --env) ;;
  *) give_up "unknown argument: $1" ;;
esac
find_redis
find_nats
if [[ ${1:-} == --env ]]; then
  printf 'export NATS_SERVER=%q REDIS_SERVER=%q\n' "$nats" "$redis"
else
  say "redis-server: $redis"
  say "nats-server: $nats"
fi
