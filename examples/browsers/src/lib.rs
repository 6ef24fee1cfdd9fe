//! A gateway that pages in browsers call, and the page that calls it.

pub mod collect;
pub mod cors;
pub mod gateway;
pub mod page;
pub mod server_timing;
