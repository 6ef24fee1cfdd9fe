//! Work that isn't one request with one answer: streams, sockets, jobs and child
//! processes.

pub mod child;
pub mod environment;
pub mod hang_up;
pub mod jobs;
pub mod progress;
pub mod socket;

/// The attribute that says how a stream or a request ended. The conventions define
/// none.
pub const END: &str = "one_trace.end";
/// The value of [`END`] where the client closed the connection.
pub const CLIENT_LEFT: &str = "client_left";
