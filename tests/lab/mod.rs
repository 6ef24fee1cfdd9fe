//! The lab: what it takes in, what it shows, what its wire does to requests, what it says of a trace, and all of it as
//! one process.

mod check;
mod diagnose;
mod process;
mod receiver;
mod viewer;
mod wire;
