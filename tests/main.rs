//! The tests of the book, except those of its code blocks (`skeptic.rs`). They are one program, so that it is linked only once and
//! other tests run while one waits.
//!
//! `SNAPSHOTS=overwrite cargo test --test book NAME` rewrites the recordings that the tests of that name compare.

mod assert_traces;
mod browser;
mod exercises;
mod explanation;
mod fault_lab;
mod follow_the_book;
mod gates;
mod guides;
mod probe;
mod python_original;
mod recordings;
mod reference;
mod sdks;
mod skips;
mod system;
mod tutorial;
mod under_fire;
