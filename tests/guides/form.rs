//! Rules for all guides: their form, and the checklist that links to them.

use std::collections::BTreeSet;

use regex::Regex;

use super::example::page;
use crate::support::includes::includes;

/// The guides that have an example.
const GUIDES: [&str; 15] = [
    "symptoms",
    "tasks-and-threads",
    "timeouts-and-retries",
    "sampling",
    "logs-and-metrics",
    "with-tracing",
    "test-propagation",
    "trust-boundaries",
    "compose-and-kubernetes",
    "more-than-one-machine",
    "real-llm",
    "other-backends",
    "message-queues",
    "service-mesh",
    "polyglot",
];

#[test]
fn a_guide_begins_with_a_figure_and_ends_with_how_to_verify_it() {
    for guide in GUIDES {
        let page = page(guide);
        let (opening, steps) = page.split_once("\n## ").expect("steps");
        let mut shown = includes(&format!("src/how-to/{guide}.md"), opening).into_iter();
        let folder = format!("src/recordings/{guide}/");
        let figure = shown.any(|include| include.file.starts_with(&folder));
        assert!(figure, "{guide} begins without a figure");
        let headings: Vec<&str> = steps.lines().filter(|line| line.starts_with("## ")).collect();
        let end = &headings[headings.len() - 2..];
        assert_eq!(end, ["## Verify it", "## What can go wrong"], "{guide}");
        let verify = steps.split("## Verify it").nth(1).expect("a section");
        assert!(verify.contains("```sh\ncargo "), "{guide} has no command to verify it");
    }
}

#[test]
fn the_checklist_leads_to_a_section_for_each_line_and_to_every_guide() {
    let page = page("checklist");
    let link = Regex::new(r"\]\(([^)#]+)#[^)]+\)").expect("a pattern");
    let mut pages = BTreeSet::new();
    for item in page.lines().filter(|line| line.starts_with("- [ ]")) {
        // A word of the glossary may be linked before it.
        let target = link.captures_iter(item).last();
        let target = target.unwrap_or_else(|| panic!("no link to a section: {item}"));
        pages.insert(target[1].to_owned());
    }
    for guide in GUIDES {
        assert!(pages.contains(&format!("{guide}.md")), "the checklist does not mention {guide}");
    }
}
