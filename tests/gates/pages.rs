//! Gates on pages: each is in the table of contents, its images have alt text, and its recordings are shown and compared.

use std::collections::BTreeSet;

use pulldown_cmark::{Options, Parser, html};
use regex::Regex;

use super::links::tags;
use super::tree::{Tree, place};
use crate::support::recording::compared;

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
    let alone = tree.pages().filter(|page| {
        let path = page.trim_start_matches("src/");
        !summary.contains(&format!("]({path})")) && !included.contains(*page)
    });
    alone.map(|page| format!("{page}: src/SUMMARY.md does not name it")).collect()
}

/// Finds the images without alt text.
pub fn images(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.markdown() {
        let text = tree.read(file);
        if !text.contains("![") && !text.contains("<img") {
            continue;
        }
        let mut page = String::new();
        html::push_html(&mut page, Parser::new_ext(&text, Options::ENABLE_TABLES));
        for (name, attributes) in tags(&page) {
            let has_text = |alt: &String| !alt.trim().is_empty();
            if name == "img" && !attributes.get("alt").is_some_and(has_text) {
                let source = attributes.get("src").map_or("", String::as_str);
                let place = place(file, &text, text.find(source).unwrap_or_default());
                problems.push(format!("{place}: the image {source} has no alt text"));
            }
        }
    }
    problems
}

/// Finds the recordings that no page shows and those that no test compares.
pub fn recordings(tree: &Tree) -> Vec<String> {
    let all: String = tree.markdown().map(|file| tree.read(file)).collect();
    // A page may offer the traces of a folder as examples to try.
    let offer = Regex::new(r#"data-examples="[./]*/recordings/([^"]+)""#).expect("a pattern");
    let offers: Vec<_> = offer.captures_iter(&all).map(|found| found[1].to_owned()).collect();
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
