//! Services while tracing is rolled out: one without spans, one that passes headers
//! on, and one that also reads and writes older headers.

pub mod b3;
pub mod forward;
