//! Reads traces and says what is in them: spans as they arrive, their tree, where the time went, what looks broken, and a
//! picture of it all. Uses no clock, no file and no socket, so that the lab and a browser run the same code.
//!
//! [`read`] reads files of many forms, [`otlp`] what is received, and [`headers`] headers; [`tree`] orders the spans; [`analysis`], [`summary`], [`compare`] and [`diagnose`] find facts, as data; [`report`] and
//! [`waterfall`] turn these into text and HTML. [`case`] puts a request and its headers on the wire into one file.
//! [`redact`] removes secrets before it is handed on, and [`embedded`] puts it into a page. [`proto`] has the messages of OTLP.

pub mod analysis;
pub mod case;
pub mod code;
pub mod compare;
mod conventions;
pub mod diagnose;
pub mod embedded;
pub mod exchange;
pub mod expect;
pub mod headers;
pub mod log;
pub mod model_call;
pub mod moments;
mod nanoseconds;
pub mod otlp;
pub mod proto;
pub mod read;
pub mod redact;
pub mod report;
pub mod shared;
pub mod span;
pub mod summary;
pub mod tree;
mod values;
pub mod waterfall;

pub use w3c_trace_context::traceparent;
