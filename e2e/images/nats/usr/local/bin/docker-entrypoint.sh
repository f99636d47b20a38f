#!/bin/sh
# As the upstream image: options alone are for the server.
set -e
case ${1:-} in
  -*) set -- nats-server "$@" ;;
  js) shift && set -- nats-server -js "$@" ;;
esac
exec "$@"
