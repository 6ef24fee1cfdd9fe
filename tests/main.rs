//! What keeps the book honest, but for its blocks (`skeptic.rs`): all in one program, which is compiled and linked once, and in
//! which a test that waits leaves the processor to the others.
//!
//! `SNAPSHOTS=overwrite cargo test --test book NAME` records anew what the tests of that name compare.

mod browser;
mod exercises;
mod explanation;
mod follow_the_book;
mod gates;
mod guides;
mod lab;
mod python_original;
mod recordings;
mod reference;
mod sdks;
mod support;
mod system;
