#!/usr/bin/env bash
# Installs the Python tutorial that this book descends from, as it is published: the SDK with its dependencies, and the
# tutorial's own files, which come with the SDK's sources. Needs Python 3.11 or newer, with venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=target/python-original
pinned=tests/python_original/requirements.txt
cmp --silent "$pinned" "$to/installed" && exit

rm -rf "$to"
python3 -m venv "$to"
pip() { "$to/bin/pip" --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes --requirement "$pinned"
sed -n '/^honeyhive==/,/[^\\]$/p' "$pinned" >"$to/honeyhive.txt"
pip download --no-deps --no-binary :all: --no-build-isolation --require-hashes --requirement "$to/honeyhive.txt" --dest "$to"
tar xzf "$to"/honeyhive-*.tar.gz --directory "$to" --strip-components 3 --wildcards '*/examples/tutorials/distributed_tracing'
cp "$pinned" "$to/installed"
