#!/usr/bin/env bash
# Compiles the diagnosis for browsers: src/how-to/diagnose.wasm, which is committed, so that nobody needs this to read or
# to build the book. A test compares it with the sources, and with what they do natively.
#
# Needs the target of rustup (`rustup target add wasm32-unknown-unknown`), or Debian's rustc-web and rust-web-src.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=wasm32-unknown-unknown
sysroot=$(rustc --print sysroot)
RUST_LLD=$(find "$sysroot" -name rust-lld -type f | head -1)
export RUST_LLD
export RUSTFLAGS="--cfg getrandom_backend=\"unsupported\" -Clinker=$PWD/crates/browser_diagnosis/linker.sh -Clinker-flavor=wasm-ld"
# What is built must not tell where.
for folder in "$PWD" "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
  RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$folder=."
done
if [ -d /usr/lib/rustlib/src/rust/library ]; then
  # Debian's compiler has the sources of its library, and no linker for this target: rustup's has one. A library that is
  # compiled here makes the program a seventh smaller.
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
  standard_library=(-Z "build-std=std,panic_abort" -Z build-std-features=optimize_for_size)
  # Without the texts of panics, which nobody would see.
  RUSTFLAGS="$RUSTFLAGS -Zunstable-options -Cpanic=immediate-abort"
elif [ -d "$sysroot/lib/rustlib/$target/lib" ]; then
  standard_library=()
else
  echo "there is no $target: run rustup target add $target" >&2
  exit 1
fi
export CARGO_PROFILE_RELEASE_OPT_LEVEL=z CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_PANIC=abort
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_STRIP=true
cargo build --locked --release --package browser_diagnosis --target "$target" --target-dir target/browser_diagnosis "${standard_library[@]}"
install -m 644 "target/browser_diagnosis/$target/release/browser_diagnosis.wasm" src/how-to/diagnose.wasm
ls -l src/how-to/diagnose.wasm
