//! The pages that a reader sees, mostly in a real browser: the pages of the lab, the pages of the book that one can try, and the
//! whole book as a site.

mod book;
mod document;
mod site;
mod viewer;

use std::net::SocketAddr;

use support::browser::{Browser, Look};
use support::skips::browser_is_missing;

/// The errors of a page that has none.
const NO_ERRORS: [String; 0] = [];

/// Opens a page. Without a browser, the current test counts as skipped.
async fn open(address: SocketAddr, path: &str, look: Look) -> Option<Browser> {
    match browser_is_missing() {
        true => None,
        false => Some(Browser::open(address, path, look).await),
    }
}

/// The parts of `text` between `start` and `end`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let parts = text.split(start).skip(1);
    parts.filter_map(|part| part.split_once(end)).map(|(it, _)| it).collect()
}

/// The only such part.
#[track_caller]
fn only<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let found = between(text, start, end);
    assert_eq!(found.len(), 1, "{start} … {end}: {found:?}");
    found[0]
}
