//! The trace of a request to real systems, compared with a file by `lab expect`.

mod shop;
mod steadiness;
