//! The lab alone: what it receives, what it shows, what its proxies pass on, and all of it as a process.

mod corpus;
mod detail;
mod diff;
mod document;
mod expect;
mod forward;
mod gate;
mod limits;
mod list;
mod log_pages;
mod logs;
mod probe;
mod process;
mod programs;
mod proxies;
mod receiver;
#[cfg(unix)]
mod release;
mod run;
mod site;
mod viewer;
mod wire;
