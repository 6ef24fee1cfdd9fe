//! A receiver and viewer of traces for the services on your own machine.
//!
//! Data flows one way: [`receiver`] (HTTP) and [`grpc`] -> [`store`], which are in the crate `traces-receiver`, -> [`list`] and [`request`] -> [`jaeger`] (JSON),
//! [`viewer`] (HTML), [`terminal`] (text), [`parts`] and [`brief`] (JSON for programs and agents). [`session`] reads and writes files. [`wire`] is a proxy to put in front of a
//! service. It records headers and breaks requests on demand. [`forward`] sends on what the receivers have taken.
//!
//! [`server`] runs all of this. [`render`] keeps large answers from holding up small ones. [`listen`] limits the number of connections, and [`guard`] checks where requests come from.
//! [`editor`] links to source files. [`probe`] asks a single service whether it passes on the trace.
//!
//! [`run`] starts a service that exports to the lab, and [`held`] keeps the lab running for it.
//!
//! [`cli`] is the command line, and [`client`] sends requests to a running lab. [`process`] starts programs that end
//! together with the program that started them. Code that needs neither a socket nor a clock is in the crate `traces`.

pub mod brief;
pub mod cli;
pub mod client;
pub mod editor;
pub mod forward;
pub mod held;
pub mod http;
pub mod jaeger;
pub mod list;
mod operations;
mod output;
pub mod parts;
pub mod probe;
pub mod process;
pub mod render;
pub mod request;
pub mod run;
pub mod server;
mod service_map;
pub mod session;
mod sources;
pub mod terminal;
pub mod viewer;
pub mod wire;

pub use output::{print, print_json};
pub use traces::{
    analysis, case, compare, diagnose, log, moments, otlp, proto, read, report, shared, span,
    summary, traceparent, tree, waterfall,
};
pub use traces_receiver::{
    forward as queue, grpc, guard, http as receiver, listen, receivers, recorder, store,
};
