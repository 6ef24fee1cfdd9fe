//! Every word of the glossary leads to it where a page uses it first.

use std::collections::BTreeSet;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::{Regex, RegexSet};

use super::tree::{Tree, place};

const GLOSSARY: &str = "src/appendix/glossary.md";

/// The words of the glossary: their anchors, and how they are written in a sentence.
struct Words {
    anchors: Vec<String>,
    patterns: RegexSet,
}

impl Words {
    fn of(glossary: &str) -> Words {
        let heading = Regex::new(r"(?m)^## (.+) \{#(.+)\}$").expect("a pattern");
        let words = heading.captures_iter(glossary).map(|found| {
            let (_, [word, anchor]) = found.extract();
            // A name such as OTLP has no other form.
            let is_name = word.chars().all(|c| c.is_ascii_uppercase());
            let case = if is_name { "(?-u)" } else { "(?i-u)" };
            (anchor.to_owned(), format!(r"{case}\b{word}s?\b"))
        });
        let (anchors, patterns): (_, Vec<String>) = words.unzip();
        Words { anchors, patterns: RegexSet::new(patterns).expect("patterns") }
    }
}

/// Finds the words that a page uses before it links them, as `PAGE:LINE: WORD`.
fn unlinked(page: &str, source: &str, words: &Words) -> Vec<String> {
    let mut linked: BTreeSet<String> = BTreeSet::new();
    let mut found = Vec::new();
    // Text in a heading, in code or in another link cannot be a link to the glossary.
    let mut closed = 0;
    let options = Options::ENABLE_TABLES | Options::ENABLE_HEADING_ATTRIBUTES;
    for (event, range) in Parser::new_ext(source, options).into_offset_iter() {
        match event {
            Event::Start(Tag::Link { dest_url, .. }) => {
                linked.extend(dest_url.split_once("glossary.md#").map(|(_, it)| it.to_owned()));
                closed += 1;
            }
            Event::Start(Tag::Heading { .. } | Tag::CodeBlock(_) | Tag::HtmlBlock) => closed += 1,
            Event::End(
                TagEnd::Link | TagEnd::Heading(_) | TagEnd::CodeBlock | TagEnd::HtmlBlock,
            ) => closed -= 1,
            Event::Text(text) if closed == 0 && !text.starts_with("{{#") => {
                for word in words.patterns.matches(&text).iter().map(|it| &words.anchors[it]) {
                    if linked.insert(word.clone()) {
                        found.push(format!("{}: {word}", place(page, source, range.start)));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

pub fn words(tree: &Tree) -> Vec<String> {
    let words = Words::of(&tree.read(GLOSSARY));
    assert!(words.anchors.len() > 10, "the glossary is empty");
    let mut problems = Vec::new();
    for page in tree.pages().filter(|page| *page != GLOSSARY) {
        let unlinked = unlinked(page, &tree.read(page), &words).into_iter();
        problems.extend(unlinked.map(|it| format!("{it} is used before it is linked")));
    }
    problems
}

#[test]
fn only_what_a_reader_reads_as_a_word_is_looked_at() {
    let words = Words::of("## Span {#span}\n");
    assert_eq!(unlinked("page.md", "Two spans.", &words), ["page.md:1: span"]);
    for page in [
        "A [span](../appendix/glossary.md#span), and another span.",
        "# A span\n\n`span` and [a span](elsewhere.md)\n\n```text\nspan\n```\n\n<p>span</p>",
        "Spandrels.",
    ] {
        assert_eq!(unlinked("page.md", page, &words), [""; 0], "{page}");
    }
}
