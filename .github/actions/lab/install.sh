#!/usr/bin/env bash
# Installs the lab from a release, after checking the checksum. If there is no program for this version and system, installs the same
# version from crates.io with cargo.
#
# Reads these variables:
#   RELEASES  the address of the releases, such as https://github.com/OWNER/NAME/releases/download
#   TO        the folder to install in; the program goes to TO/bin
#   VERSION   the version of the lab; by default, the one that this repository has
set -euo pipefail

fail() { printf '::error::%s\n' "$*"; exit 1; }
download() { curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"; }
checksum() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi <"$1" | cut -d ' ' -f 1; }

manifest=$(dirname "$0")/../../../crates/lab/Cargo.toml
version=${VERSION:-$(sed -n 's/^version = "\(.*\)"$/\1/p' "$manifest" | head -n 1)}
program=lab
case $(uname -s)-$(uname -m) in
  Linux-x86_64) target=x86_64-unknown-linux-musl ;;
  Linux-aarch64 | Linux-arm64) target=aarch64-unknown-linux-musl ;;
  Darwin-x86_64) target=x86_64-apple-darwin ;;
  Darwin-arm64) target=aarch64-apple-darwin ;;
  MINGW*-x86_64 | MSYS*-x86_64) target=x86_64-pc-windows-msvc program=lab.exe ;;
  *) target= ;;
esac

mkdir -p "$TO/bin"
archive=one-trace-lab-$target.tar.gz
address=$RELEASES/one-trace-lab-v$version/$archive
if [ -n "$target" ] && download "$address" "$TO/$archive"; then
  download "$address.sha256" "$TO/$archive.sha256" || fail "$address has no checksum: nothing was installed"
  expected=$(cut -d ' ' -f 1 "$TO/$archive.sha256")
  actual=$(checksum "$TO/$archive")
  [ "$actual" = "$expected" ] || fail "$address has the checksum $actual, not $expected: nothing was installed"
  (cd "$TO" && tar -xzf "$archive" -C bin "./$program")
else
  printf '::notice::No program for %s in one-trace-lab-v%s: cargo compiles it\n' "${target:-this system}" "$version"
  cargo install --locked --root "$TO" "one-trace-lab@$version"
fi
"$TO/bin/$program" --version
echo "$TO/bin" >>"${GITHUB_PATH:-/dev/null}"
