#!/bin/sh
# The container listens on all addresses of its network, so it refuses to start without a token.
set -eu
: "${APP_TOKEN:?set APP_TOKEN to a long random string, for example from: openssl rand -hex 32}"
exec python app.py "$@"
