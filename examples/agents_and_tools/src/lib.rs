//! An agent that calls the tools of an MCP server, and that server: one trace, over
//! HTTP and over the pipes of a child process.

pub mod agent;
pub mod client;
pub mod meta;
pub mod model;
pub mod server;
pub mod span;
pub mod weather;
