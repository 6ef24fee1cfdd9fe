//! Receives OTLP over HTTP and gRPC and keeps the newest traces in memory.
//!
//! Data flows one way: [`http`] and [`grpc`] -> [`intake`] -> [`store`], which writes what it gets to a file where a [`recorder`] is set.
//! Requests that were taken also wait in the queue of [`forward`] where one is set.
//! [`listen`] limits the number of connections, and [`guard`] checks where requests come from. [`receivers`] runs both.

pub mod forward;
pub mod grpc;
pub mod guard;
pub mod http;
pub mod intake;
pub mod listen;
pub mod receivers;
pub mod recorder;
pub mod store;

pub use receivers::Receivers;
