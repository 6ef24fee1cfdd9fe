//! Calls that are tried again, within the time that the caller still waits, and not
//! at all while the other side is down.

pub mod budget;
pub mod circuit;
pub mod retry;
