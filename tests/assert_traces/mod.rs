//! The trace of a request to real systems, compared with a file by `lab expect`.

pub mod command;
pub mod jaeger;
mod mistakes;
mod services;
mod steadiness;
mod systems;
