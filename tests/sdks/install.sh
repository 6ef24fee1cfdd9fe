#!/usr/bin/env bash
# Installs OpenTelemetry SDKs of other languages that export to the lab (Python, JavaScript, and Go inside Caddy) and a client
# of Jaeger's query API. Needs Python 3.10 or newer with venv, and Node.js 20 with npm.
set -euo pipefail
cd "$(dirname "$0")/../.."
from=tests/sdks
to=target/sdks
pinned() { cat "$from/requirements.txt" "$from/package-lock.json"; }
pinned | cmp --silent - "$to/installed" && exit

rm -rf "$to"
python3 -m venv "$to"
"$to/bin/pip" --quiet --disable-pip-version-check install --only-binary :all: --require-hashes \
  --requirement "$from/requirements.txt"
# npm installs where the manifest is. The one install script among the packages only prints a warning.
cp "$from/package.json" "$from/package-lock.json" "$to"
npm ci --prefix "$to" --ignore-scripts --no-audit --no-fund --loglevel error >/dev/null
pinned >"$to/installed"
