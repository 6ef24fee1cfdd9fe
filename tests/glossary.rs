//! Every word of the glossary leads to it where a page uses it first.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

const GLOSSARY: &str = "src/appendix/glossary.md";

/// A word of the glossary: its anchor, and how it is written in a sentence.
struct Term {
    anchor: String,
    pattern: Regex,
}

fn terms() -> Vec<Term> {
    let page = fs::read_to_string(lab::book::root().join(GLOSSARY)).expect("a glossary");
    let heading = Regex::new(r"(?m)^## (.+) \{#(.+)\}$").expect("a pattern");
    let terms: Vec<Term> = heading
        .captures_iter(&page)
        .map(|found| Term {
            anchor: found[2].to_owned(),
            pattern: pattern(&found[1]),
        })
        .collect();
    assert!(terms.len() > 10, "the glossary is empty");
    terms
}

/// The word and its plural. Of a name such as OTLP, nothing else is meant.
fn pattern(word: &str) -> Regex {
    let any_case = if word.chars().all(|c| c.is_ascii_uppercase()) {
        ""
    } else {
        "(?i)"
    };
    Regex::new(&format!(r"{any_case}\b{word}s?\b")).expect("a pattern")
}

/// Where a page uses words before it links them, as `LINE: WORD`.
fn unlinked(source: &str, terms: &[Term]) -> Vec<String> {
    let mut linked: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    // Text in a heading, in code or in another link cannot be a link to the glossary.
    let mut closed = 0;
    let options = Options::ENABLE_TABLES | Options::ENABLE_HEADING_ATTRIBUTES;
    for (event, range) in Parser::new_ext(source, options).into_offset_iter() {
        match event {
            Event::Start(Tag::Link { dest_url, .. }) => {
                linked.extend(anchor(&dest_url, terms));
                closed += 1;
            }
            Event::Start(Tag::Heading { .. } | Tag::CodeBlock(_) | Tag::HtmlBlock) => closed += 1,
            Event::End(
                TagEnd::Link | TagEnd::Heading(_) | TagEnd::CodeBlock | TagEnd::HtmlBlock,
            ) => {
                closed -= 1;
            }
            Event::Text(text) if closed == 0 && !text.starts_with("{{#") => {
                let used = terms.iter().filter(|term| term.pattern.is_match(&text));
                for term in used {
                    if linked.insert(&term.anchor) {
                        let line = source[..range.start].matches('\n').count() + 1;
                        found.push(format!("{line}: {}", term.anchor));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// The term that a link leads to.
fn anchor<'a>(url: &CowStr, terms: &'a [Term]) -> Option<&'a str> {
    let (_, anchor) = url.split_once("glossary.md#")?;
    let term = terms.iter().find(|term| term.anchor == anchor)?;
    Some(&term.anchor)
}

#[test]
fn a_word_of_the_glossary_leads_to_it_where_a_page_uses_it_first() {
    let terms = terms();
    let mut missing = Vec::new();
    for page in lab::book::pages(&lab::book::root()).expect("the book can be read") {
        if page.path.ends_with(Path::new(GLOSSARY)) {
            continue;
        }
        let words = unlinked(&page.source, &terms);
        missing.extend(
            words
                .iter()
                .map(|word| format!("{}:{word}", page.path.display())),
        );
    }
    assert!(
        missing.is_empty(),
        "used before it is linked:\n{}",
        missing.join("\n")
    );
}

#[test]
fn only_what_a_reader_reads_as_a_word_is_looked_at() {
    let terms = [Term {
        anchor: "span".to_owned(),
        pattern: pattern("Span"),
    }];
    let used = "Two spans.";
    assert_eq!(unlinked(used, &terms), ["1: span"]);
    for page in [
        "A [span](../appendix/glossary.md#span), and another span.",
        "# A span\n\n`span` and [a span](elsewhere.md)\n\n```text\nspan\n```\n\n<p>span</p>",
        "Spandrels.",
    ] {
        assert_eq!(unlinked(page, &terms), Vec::<String>::new(), "{page}");
    }
}
