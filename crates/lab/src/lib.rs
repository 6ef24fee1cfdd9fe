//! What a reader looks through: receives spans, keeps them, and shows them as traces.
//!
//! Data flows one way: [`receiver`] -> [`store`] -> [`jaeger`] (JSON) and [`viewer`] (HTML), both by way of [`tree`].

pub mod book;
pub mod check;
pub mod grpc;
pub mod guard;
pub mod jaeger;
pub mod otlp;
pub mod receiver;
pub mod services;
pub mod site;
pub mod span;
pub mod store;
pub mod tree;
pub mod viewer;
