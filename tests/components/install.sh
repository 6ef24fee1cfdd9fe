#!/usr/bin/env bash
# Installs what the guides run beside the services (brokers, proxies, collectors, backends, a model, a web SDK), and the programs of
# the gates. Each NAME.txt here pins one of them by version and hash. It goes to target/components/NAME.
# Needs Python 3.11 or newer, with venv, Node.js 20 with npm, and Maven; Jaeger needs Go 1.24 or newer and some minutes.
#
# Usage: install.sh [NAME…], or all of them but Jaeger.
set -euo pipefail
cd "$(dirname "$0")/../.."
from=tests/components
if [ $# -eq 0 ]; then
  for pinned in "$from"/*.txt; do
    [ "$pinned" = "$from/jaeger.txt" ] || set -- "$@" "$pinned"
  done
fi
for name; do
  name=$(basename "$name" .txt)
  pinned=$from/$name.txt
  to=target/components/$name
  cmp --silent "$pinned" "$to/installed" && continue
  rm -rf "$to"
  if artifact=$(grep '^io[.]' "$pinned"); then
    mvn --quiet --batch-mode dependency:copy "-Dartifact=$artifact" "-DoutputDirectory=$PWD/$to" -Dmdep.stripVersion
    cp "$pinned" "$to/installed"
    continue
  fi
  if program=$(grep '^github.com/' "$pinned"); then
    mkdir -p "$to"
    # In a module: `go install` refuses a program whose module replaces others.
    (cd "$to" && go mod init components && go get -tool "$program" && go build -trimpath -o bin/ "${program%@*}")
    cp "$pinned" "$to/installed"
    continue
  fi
  if lock=$(grep '/package-lock.json$' "$pinned"); then
    sha256sum --check --quiet <<<"$lock"
    mkdir -p "$to"
    folder=$(dirname "${lock##* }")
    cp "$folder/package.json" "$folder/package-lock.json" "$to"
    (cd "$to" && npm ci --ignore-scripts --no-audit --no-fund --loglevel error >/dev/null)
    cp "$pinned" "$to/installed"
    continue
  fi
  python3 -m venv "$to"
  "$to/bin/pip" --quiet --disable-pip-version-check install --only-binary :all: --no-deps --require-hashes --requirement "$pinned"
  cp "$pinned" "$to/installed"
done
