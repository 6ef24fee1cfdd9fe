//! llm-service over gRPC, and user-service, which calls it and is itself called over
//! HTTP. The spans of both protocols form one trace.

pub mod body;
pub mod call;
pub mod client;
pub mod code;
pub mod deadline;
pub mod llm_service;
pub mod server;
pub mod streaming;
pub mod upstream;
pub mod user_service;

/// The messages, client and server that `generate.sh` makes from `proto/llm.proto`.
pub mod generated {
    include!("generated/one_trace.rs");
}
