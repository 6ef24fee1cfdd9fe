#!/usr/bin/env bash
# Packs a lab that was compiled for a target: one-trace-lab-TARGET.tar.gz with the program, its README and its licences, and the
# checksum of the archive beside it. The action `lab` and `cargo binstall` look for these names.
#
# Usage: release.sh TARGET FOLDER DESTINATION, where FOLDER has the program
set -euo pipefail
[ $# -eq 3 ] || { echo 'usage: release.sh TARGET FOLDER DESTINATION' >&2; exit 2; }
target=$1 folder=$2 destination=$3
crate=$(dirname "$0")/../crates/lab

program=lab
case $target in *windows*) program=lab.exe ;; esac
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
cp "$folder/$program" "$crate/README.md" "$crate/CHANGELOG.md" "$crate/LICENSE-APACHE" "$crate/LICENSE-MIT" "$packed"
chmod 755 "$packed/$program"

mkdir -p "$destination"
cd "$destination"
archive=one-trace-lab-$target.tar.gz
tar -C "$packed" -czf "$archive" .
if command -v sha256sum >/dev/null; then sha256sum "$archive"; else shasum -a 256 "$archive"; fi >"$archive.sha256"
