//! Rules for all guides: their form, and the checklist that links to them.

use std::collections::BTreeSet;

use regex::Regex;

use super::example::page;
use support::includes::includes;

/// The guides that have an example.
const GUIDES: &str = "symptoms tasks-and-threads timeouts-and-retries sampling logs-and-metrics \
    with-tracing test-propagation trust-boundaries compose-and-kubernetes more-than-one-machine \
    real-llm other-backends databases-and-caches message-queues grpc service-mesh polyglot \
    assert-traces-in-ci browsers streams-jobs-processes slow-requests roll-out agents-and-tools";

#[test]
fn a_guide_begins_with_a_figure_and_ends_with_how_to_verify_it() {
    for guide in GUIDES.split(' ') {
        let page = page(guide);
        let (opening, steps) = page.split_once("\n## ").expect("steps");
        let shown = includes(&format!("src/how-to/{guide}.md"), opening);
        let folder = format!("src/recordings/{guide}/");
        let figure = shown.iter().any(|include| include.file.starts_with(&folder));
        assert!(figure, "{guide} begins without a figure");
        let headings: Vec<&str> = steps.lines().filter(|line| line.starts_with("## ")).collect();
        let end = headings.last_chunk().expect("two headings");
        assert_eq!(end, &["## Verify it", "## What can go wrong"], "{guide}");
        let verify = steps.split("## Verify it").nth(1).expect("a section");
        assert!(verify.contains("```sh\ncargo "), "{guide} has no command to verify it");
    }
}

#[test]
fn the_checklist_leads_to_a_section_for_each_line_and_to_every_guide() {
    let page = page("checklist");
    // A symptom has a page of its own instead of a section.
    let link = r"\]\((?:([^)#]+)\.md#[^)]+|(symptoms)/[^)#]+\.md)\)";
    let link = Regex::new(link).expect("a pattern");
    let items = page.lines().filter(|line| line.starts_with("- [ ]"));
    let pages = items.map(|item| {
        let mut pages = link.captures_iter(item).map(|found| {
            let page = found.get(1).or(found.get(2)).expect("a page");
            page.as_str().to_owned()
        });
        // A word of the glossary may be linked before the section.
        let page = pages.find(|it| !it.ends_with("/glossary"));
        page.unwrap_or_else(|| panic!("no section: {item}"))
    });
    let pages: BTreeSet<String> = pages.collect();
    let missing: Vec<&str> = GUIDES.split(' ').filter(|it| !pages.contains(*it)).collect();
    assert_eq!(missing, [""; 0], "the checklist does not mention them");
}
