//! What all guides have in common: their form, their recordings, and the checklist that leads to them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

use super::example::page;
use crate::support::recording;

/// Each guide with an example, whose test has its name with `_` for `-`.
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
        let figure = format!("{{{{#include ../recordings/{guide}/");
        assert!(opening.contains(&figure), "{guide} begins without a figure");
        let headings: Vec<&str> = steps
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        let end = &headings[headings.len() - 2..];
        assert_eq!(end, ["## Verify it", "## What can go wrong"], "{guide}");
        let verify = steps.split("## Verify it").nth(1).expect("a section");
        assert!(
            verify.contains("```sh\ncargo "),
            "{guide} has no command to verify it"
        );
    }
}

/// A recording that is shown nowhere, or that no test compares, is none.
#[test]
fn every_recording_of_a_guide_is_shown_and_compared() {
    for guide in GUIDES {
        let file = format!("tests/guides/{}.rs", guide.replace('-', "_"));
        let test = fs::read_to_string(crate::support::root().join(file)).expect("a test");
        let page = page(guide);
        for name in recording::names(guide) {
            assert!(
                page.contains(&format!("/{guide}/{name}}}}}")),
                "{guide}/{name} is not shown"
            );
            let stem = Path::new(&name)
                .file_stem()
                .and_then(|it| it.to_str())
                .expect("a name");
            // Some names are put together in the test.
            let parts = stem.rsplit_once('-').map_or((stem, stem), |parts| parts);
            let compared =
                test.contains(stem) || (test.contains(parts.0) && test.contains(parts.1));
            // Costs are written by a benchmark.
            assert!(
                compared || name == "cost.md",
                "no test compares {guide}/{name}"
            );
        }
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
        assert!(
            pages.contains(&format!("{guide}.md")),
            "{guide} earns no line"
        );
    }
}
