//! What a service must pass on, as a contract that a test can hold against it.

pub mod contract;
pub mod faults;
