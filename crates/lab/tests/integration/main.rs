//! The lab alone: what it receives, what it shows, what its proxies pass on, and all of it as a process.

mod gate;
mod probe;
mod process;
mod receiver;
mod viewer;
mod wire;
