//! Gates on pages: each is in the table of contents, and its recordings are shown and compared.

use std::collections::BTreeSet;

use regex::Regex;

use super::tree::Tree;
use support::recording::compared;

/// The recordings that only a benchmark writes: its figures differ from machine to machine, so no test compares them.
const MEASURED: [&str; 4] = [
    "sampling/cost.md",
    "what-tracing-costs/instructions.md",
    "what-tracing-costs/parts.md",
    "with-tracing/cost.md",
];

/// Finds the pages that neither the table of contents nor another page includes: they aren't in the book.
pub fn orphans(tree: &Tree) -> Vec<String> {
    let summary = tree.read("src/SUMMARY.md");
    let included: BTreeSet<String> = tree.includes().map(|it| it.file).collect();
    let listed = |page: &str| summary.contains(&format!("]({})", page.trim_start_matches("src/")));
    let alone = tree.pages().filter(|page| !listed(page) && !included.contains(*page));
    alone.map(|page| format!("{page}: src/SUMMARY.md does not name it")).collect()
}

/// Finds the recordings that no page shows and those that no test compares.
pub fn recordings(tree: &Tree) -> Vec<String> {
    let all: String = tree.markdown().map(|file| tree.read(file)).collect();
    // A page may offer the traces of a folder as examples to try.
    let offer = Regex::new(r#"data-examples="[./]*/recordings/([^"]+)""#).expect("a pattern");
    let offers = Vec::from_iter(offer.captures_iter(&all).map(|found| found[1].to_owned()));
    let included: BTreeSet<_> = tree.includes().map(|it| it.file).collect();
    let compared = compared();
    let mut problems = Vec::new();
    for file in tree.files("src/recordings/", "") {
        let name = file.trim_start_matches("src/recordings/");
        let offered = |folder: &String| name.starts_with(folder) && name.ends_with(".json");
        let shown = included.contains(file)
            || all.contains(&format!("recordings/{name}"))
            || all.contains(&format!("<!-- recorded: {name} -->"))
            || offers.iter().any(offered);
        if !shown {
            problems.push(format!("{file}: no page shows it"));
        }
        if !compared.contains(name) && !MEASURED.contains(&name) {
            problems.push(format!("{file}: no test compares it"));
        }
    }
    problems
}
