#!/bin/sh
# As the upstream image: options or a configuration alone are for the server, and the server is built to listen without protected mode.
set -e
case ${1:-} in
  -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "${1:-}" = redis-server ]; then
  case ${2:-} in
    *.conf) ;;
    *) shift && set -- redis-server --protected-mode no "$@" ;;
  esac
fi
exec "$@"
