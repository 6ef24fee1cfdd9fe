#!/usr/bin/env bash
# The linker, without the hundreds of functions that wasm-bindgen exports for glue that nothing here calls: what is not
# exported, and not called, is left out.
set -euo pipefail
kept=()
while [ $# -gt 0 ]; do
  case "$1" in
    --export) [[ $2 == __* ]] || kept+=("$1" "$2"); shift ;;
    --export=__*) ;;
    *) kept+=("$1") ;;
  esac
  shift
done
exec "$RUST_LLD" "${kept[@]}"
