//! Asserts a trace: compares what has arrived for one request with a file that people read and write.
//!
//! A [`File`] holds one or several requests. [`Arrived`] is what a receiver or a backend has of one of them, [`Actual`] arranges it,
//! and [`compare`] says whether it is as the file says, and where not. [`Watch`] decides when to look for the last time: a trace is
//! never complete, and a test that is red too early is worthless.
//!
//! The format of the file is in the book's reference, `reference/expect.md`.

pub(crate) mod actual;
mod align;
pub mod compare;
mod edges;
mod file;
mod flow;
mod general;
mod glob;
mod parse;
mod watch;
mod write;

pub use actual::{Actual, Arrived, Detached, Node};
pub use file::{
    Alternative, Body, Children, Comments, Edge, Expected, File, Item, NoRequest, Outcome, Request,
    Times,
};
pub use general::generalised;
pub use glob::Glob;
pub use parse::{Mistake, Problem, parse};
pub use watch::{Decision, Verdict, Waiting, Watch};
pub use write::Generalised;
