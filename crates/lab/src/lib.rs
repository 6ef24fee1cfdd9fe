//! What a reader looks through: receives spans, keeps them, and shows them as traces; breaks requests on purpose, and says
//! why a trace is broken and whether a step of the tutorial is done.
//!
//! Data flows one way: [`receiver`] and [`grpc`] -> [`otlp`] -> [`store`] -> [`tree`], [`analysis`] and [`list`] ->
//! [`jaeger`] (JSON), [`viewer`] (HTML) and [`terminal`] (text). [`session`] keeps what was received in a file.
//! The [`wire`] stands between the services; [`request`] brings its headers and the traces together for [`diagnose`],
//! and an [`experiment`] is one request with a fault. What needs neither socket nor clock is in the crate `traces`.
//!
//! Around these: [`book`] builds the book, and [`publish`] makes a site of it; [`services`] starts its three, [`check`] looks at a step of the tutorial. [`site`]
//! serves all of it on one port; [`guard`] says who may speak to it, and [`listen`] how many at once.

pub mod book;
pub mod check;
pub mod experiment;
pub mod grpc;
pub mod guard;
pub mod jaeger;
pub mod list;
pub mod listen;
pub mod publish;
pub mod receiver;
pub mod request;
pub mod services;
pub mod session;
pub mod site;
pub mod store;
pub mod terminal;
pub mod viewer;
pub mod wire;

pub use traces::{
    analysis, case, diagnose, otlp, report, span, summary, traceparent, tree, waterfall,
};
