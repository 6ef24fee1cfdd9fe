//! The course: the book built and served, its three services started, the tutorial's checkpoints, and the experiments of
//! the fault lab. It stands on the lab, which receives and shows the traces.
//!
//! [`root`] finds the repository; [`book`] builds the book and [`publish`] finishes a site of it; [`services`] starts the
//! three services and [`hops`] are the ways between them; [`check`] looks at a step of the tutorial, and an [`experiment`]
//! is one request with a fault. [`site`] serves all of it next to the lab's pages.

pub mod book;
pub mod check;
pub mod experiment;
pub mod hops;
pub mod publish;
pub mod root;
pub mod services;
pub mod site;
