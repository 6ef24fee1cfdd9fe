//! The blocks of the pages, and the files that they show.

use std::collections::BTreeSet;

use regex::Regex;

use super::tree::{Tree, place};

/// Each block says what it is, and no Rust is exempt from its test.
pub fn blocks(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.markdown() {
        let (mut open, mut above) = (false, "");
        let text = tree.read(file);
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(info) = line.trim_start().strip_prefix("```") {
                open = !open;
                let reason = above.starts_with("<!-- no_run: ") && above.ends_with(" -->");
                let problem = match info {
                    _ if !open => None,
                    "" => Some("the block has no language"),
                    _ if info.contains("ignore") => Some("an ignored block proves nothing"),
                    _ if info.contains("no_run") && !reason => {
                        Some("no_run needs a reason: <!-- no_run: WHY --> above it")
                    }
                    _ => None,
                };
                problems.extend(problem.map(|problem| format!("{file}:{number}: {problem}")));
            }
            if !line.trim().is_empty() {
                above = line;
            }
        }
    }
    problems
}

/// A line of a listing fits on the page.
pub fn widths(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.files("examples/", ".rs") {
        for (number, line) in (1..).zip(tree.read(file).lines()) {
            if line.chars().count() > 85 {
                problems.push(format!("{file}:{number}: longer than 85 characters"));
            }
        }
    }
    problems
}

/// A part of a file that is marked for a page is on one.
pub fn anchors(tree: &Tree) -> Vec<String> {
    let shown: BTreeSet<(String, String)> = tree.includes().map(|it| (it.file, it.part)).collect();
    let mark = Regex::new(r"ANCHOR: ?([\w-]+)").expect("a pattern");
    let mut problems = Vec::new();
    let files = ["crates/", "examples/", "src/recordings/"];
    for file in files.iter().flat_map(|folder| tree.files(folder, "")) {
        let text = tree.read(file);
        for found in mark.captures_iter(&text) {
            let part = (file.to_owned(), found[1].to_owned());
            if !shown.contains(&part) {
                let place = place(file, &text, found.get(0).expect("a match").start());
                problems.push(format!("{place}: no page shows ANCHOR {}", part.1));
            }
        }
    }
    problems
}
