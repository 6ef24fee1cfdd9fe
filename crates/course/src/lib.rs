//! The course: builds and serves the book, starts its three services, checks the steps of the tutorial and runs the
//! experiments of the fault lab. The crate `lab` receives and shows the traces.
//!
//! [`root`] finds the repository. [`book`] builds the book, and [`publish`] prepares its pages for the web. [`services`]
//! starts the three services, and [`hops`] lists the connections between them. [`start`] writes the project that
//! the tutorial starts from, [`check`] checks a step of the tutorial, and [`experiment`] sends one request with a fault. [`site`] serves all of this next to the lab's pages.

pub mod book;
pub mod check;
pub mod experiment;
pub mod hops;
pub mod publish;
pub mod root;
pub mod services;
pub mod site;
pub mod start;
