//! Decides which incoming context to trust, and which context to send to whom.

pub mod edge;
pub mod outgoing;
pub mod tenant;
