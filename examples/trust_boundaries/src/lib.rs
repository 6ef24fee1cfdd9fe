//! What to believe of those who call, and what to tell those who are called.

pub mod edge;
pub mod outgoing;
pub mod tenant;
