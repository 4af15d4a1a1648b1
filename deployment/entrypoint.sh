#!/bin/sh
# A container listens on every address of its network, so it does not start without a token.
set -eu
: "${APP_TOKEN:?set APP_TOKEN to a long random text, for example of: openssl rand -hex 32}"
exec python app.py "$@"
