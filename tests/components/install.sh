#!/usr/bin/env bash
# Installs what the guides run beside the services (brokers, proxies, collectors, backends, a model), and the programs of
# the gates. Each NAME.txt here pins one of them by version and hash, and goes to target/components/NAME.
# Needs Python 3.11 or newer, with venv.
#
# Usage: install.sh [NAME…], or all of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
from=tests/components
[ $# -gt 0 ] || set -- "$from"/*.txt
for name; do
  name=$(basename "$name" .txt)
  pinned=$from/$name.txt
  to=target/components/$name
  cmp --silent "$pinned" "$to/installed" && continue
  rm -rf "$to"
  python3 -m venv "$to"
  "$to/bin/pip" --quiet --disable-pip-version-check install --only-binary :all: --no-deps --require-hashes --requirement "$pinned"
  cp "$pinned" "$to/installed"
done
