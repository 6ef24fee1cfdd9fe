//! A contract on the headers that a service passes on, services that keep it, and
//! services that break it.

pub mod contract;
pub mod faults;
pub mod sound;
