#!/usr/bin/env bash
# tools.sh [--env] [current | oldest | valkey]: makes sure that the servers the tests start are there, as docs/operations.md names them:
#   current (the default)  Redis 8 and NATS 2.15
#   oldest                 Redis 7.0 and NATS 2.10, the oldest that work
#   valkey                 Valkey 9 in the place of Redis, and NATS 2.15
#
# What REDIS_SERVER and NATS_SERVER name is used for `current`, and so is what is on PATH and recent enough. What is missing is fetched once, on a
# Debian-like machine as root, and unpacked into target/tools: nothing is installed. A second run does nothing and needs no network. Where nothing
# can be fetched, `current` takes from PATH whatever is not older than the oldest, and says so.
#
# `eval "$(.ci/tools.sh --env)"` also exports NATS_SERVER and REDIS_SERVER; everything else that is said goes to stderr.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${CARGO_TARGET_DIR:-$root/target}/tools
print=
if [[ ${1:-} == --env ]]; then print=yes && shift; fi
which=${1:-current}
# Each server: its name, the version that is wanted, the oldest that works, and where it comes from: the folder, the suite of Debian and how. NATS
# needs nothing but some libc; the others want all that they were built with.
current_nats=(nats-server 2.15 2.10 bin forky program)
case $which in
  current) redis=(redis-server 8.0 7.0 bin forky portable) nats=("${current_nats[@]}") ;;
  oldest) redis=(redis-server 7.0 7.0 oldest bookworm portable) nats=(nats-server 2.10 2.10 oldest trixie program) ;;
  valkey) redis=(valkey-server 9.0 7.2 valkey forky portable) nats=("${current_nats[@]}") ;;
  *) which='' ;;
esac

say() { printf 'tools.sh: %s\n' "$*" >&2; }
if [[ ! $which || $# -gt 1 ]]; then sed -n '2,5s/^# //p' "$0" >&2 && exit 2; fi

# runs PROGRAM VERSION: does it, in that version or a later one? For `oldest`: in that very one.
runs() {
  local found
  found=$("$1" --version 2>/dev/null | sed -n 's/.*v=\{0,1\}\([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' | head -n 1) || return 1
  [[ $found ]] || return 1
  if [[ $which == oldest ]]; then [[ $found == "$2" ]]; else [[ $(printf '%s\n' "$2" "$found" | sort -V | head -n 1) == "$2" ]]; fi
}

# place VARIABLE NAME WANTED OLDEST FOLDER SUITE HOW: prints where the server is.
place() {
  local named=${!1:-} fetched=$tools/$5/$2
  if [[ $which == current && $named ]]; then
    runs "$named" "$4" || { say "$1 is set to $named, which is no $2 $4 or later"; return 1; }
    command -v "$named"
  elif [[ $which != oldest ]] && runs "$2" "$3"; then
    command -v "$2"
  elif runs "$fetched" "$3" || { "$root/.ci/deb" "$7" "$6" "$2" "$2" "${fetched%/*}" && runs "$fetched" "$3"; }; then
    printf '%s\n' "$fetched"
  elif [[ $which == current ]] && runs "$2" "$4"; then
    say "$2 $3 can't be had: the one on PATH is taken, which is older"
    command -v "$2"
  else
    say "$2 $3 is missing: install it, so that it is on PATH, or set $1 to the program, and run this again"
    return 1
  fi
}

redis_program=$(place REDIS_SERVER "${redis[@]}")
nats_program=$(place NATS_SERVER "${nats[@]}")
if [[ $print ]]; then
  printf 'export NATS_SERVER=%q REDIS_SERVER=%q\n' "$nats_program" "$redis_program"
else
  say "$redis_program, $nats_program"
fi
