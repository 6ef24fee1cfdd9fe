//! The blocks of the pages, and the files that they show.

use std::collections::BTreeSet;

use regex::Regex;

use super::tree::{Tree, place};

/// Finds the Rust blocks that are exempt from their test. (`markdown` finds the blocks without a language.)
pub fn blocks(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.markdown() {
        let text = tree.read(file);
        let mut above = "";
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            let reason = above.starts_with("<!-- no_run: ") && above.ends_with(" -->");
            let info = line.strip_prefix("```").unwrap_or_default();
            if info.contains("ignore") {
                problems.push(format!("{file}:{number}: an ignored block proves nothing"));
            } else if info.contains("no_run") && !reason {
                let needed = "no_run needs a reason: <!-- no_run: WHY --> above it";
                problems.push(format!("{file}:{number}: {needed}"));
            }
            above = if line.is_empty() { above } else { line };
        }
    }
    problems
}

/// Finds the lines of listings that don't fit on the page.
pub fn widths(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    // Generated code isn't shown.
    let shown = |file: &&str| !file.contains("/generated/");
    for file in tree.files("examples/", ".rs").filter(shown) {
        for (number, line) in (1..).zip(tree.read(file).lines()) {
            if line.chars().count() > 85 {
                problems.push(format!("{file}:{number}: longer than 85 characters"));
            }
        }
    }
    problems
}

/// Finds the parts of files that are marked for a page, and on none.
pub fn anchors(tree: &Tree) -> Vec<String> {
    let shown: BTreeSet<_> = tree.includes().map(|it| (it.file, it.part)).collect();
    let mark = Regex::new(r"ANCHOR: ?([\w-]+)").expect("a pattern");
    let mut problems = Vec::new();
    let folders = ["crates/", "examples/", "src/recordings/"];
    for file in folders.iter().flat_map(|folder| tree.files(folder, "")) {
        let text = tree.read(file);
        for found in mark.captures_iter(&text) {
            if !shown.contains(&(file.to_owned(), found[1].to_owned())) {
                let place = place(file, &text, found.get_match().start());
                problems.push(format!("{place}: no page shows ANCHOR {}", &found[1]));
            }
        }
    }
    problems
}
