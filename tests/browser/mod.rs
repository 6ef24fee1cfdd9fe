//! The pages that a reader sees, mostly in a real browser: the pages of the lab, the pages of the book that one can try, and the
//! whole book as a site.

mod book;
mod site;
mod viewer;

/// The errors of a page that has none.
const NO_ERRORS: [String; 0] = [];

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
