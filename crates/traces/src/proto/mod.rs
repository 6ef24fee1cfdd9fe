//! The messages of OTLP for traces and logs, generated from its definitions, and their JSON form.
//!
//! `cargo run --manifest-path crates/traces/proto/Cargo.toml` writes the generated files again. These crates don't use
//! `opentelemetry-proto`, because it depends on the API and the SDK: a program that has us among its dependencies keeps its own
//! version of OpenTelemetry.

pub mod collector;
pub mod common;
mod json;
pub mod logs;
pub mod logs_collector;
pub mod resource;
pub mod trace;
