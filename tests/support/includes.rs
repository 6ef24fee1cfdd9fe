//! The only reader of mdBook's `{{#include}}` in these tests. mdBook expands includes but doesn't list them: `course::book::pages`
//! gives the expanded text.

use std::path::{Component, Path};
use std::sync::LazyLock;

use regex::Regex;

/// A file that a page includes, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Include {
    /// Its path from the root.
    pub file: String,
    /// The name of the `ANCHOR` around the part; empty for the whole file.
    pub part: String,
}

/// The files that a text includes, in its order. `page` is the path of the text from the root.
pub fn includes(page: &str, text: &str) -> Vec<Include> {
    static INCLUDE: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"\{\{#(?:rustdoc_)?include ([^}:]+)(?::([^}]+))?\}\}";
        Regex::new(pattern).expect("a pattern")
    });
    let found = INCLUDE.captures_iter(text).map(|found| Include {
        file: beside(page, &found[1]),
        part: found.get(2).map_or("", |it| it.as_str()).to_owned(),
    });
    found.collect()
}

/// Resolves a path that stands in `file`.
fn beside(file: &str, path: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.extend(name.to_str()),
            _ => {}
        }
    }
    parts.join("/")
}
