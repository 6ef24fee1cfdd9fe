//! Every word of the glossary leads to it where a page uses it first.

use std::collections::BTreeSet;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

use super::tree::Tree;

const GLOSSARY: &str = "src/appendix/glossary.md";

/// A word of the glossary.
struct Term {
    anchor: String,
    /// In lower case. It is looked for first, because the pattern takes longer.
    word: String,
    /// The word and its plural in a sentence.
    pattern: Regex,
}

impl Term {
    fn new(word: &str, anchor: &str) -> Term {
        // A name such as OTLP has no other form.
        let is_name = word.chars().all(|c| c.is_ascii_uppercase());
        let case = if is_name { "(?-u)" } else { "(?i-u)" };
        Term {
            anchor: anchor.to_owned(),
            word: word.to_lowercase(),
            pattern: Regex::new(&format!(r"{case}\b{word}s?\b")).expect("a pattern"),
        }
    }
}

/// Finds the words that a page uses before it links them, as `LINE: WORD`.
fn unlinked(source: &str, terms: &[Term]) -> Vec<String> {
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
                let lower = text.to_lowercase();
                let used = |it: &&Term| lower.contains(&it.word) && it.pattern.is_match(&text);
                for term in terms.iter().filter(used) {
                    if linked.insert(term.anchor.clone()) {
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

pub fn words(tree: &Tree) -> Vec<String> {
    let heading = Regex::new(r"(?m)^## (.+) \{#(.+)\}$").expect("a pattern");
    let glossary = tree.read(GLOSSARY);
    let terms = heading.captures_iter(&glossary).map(|found| Term::new(&found[1], &found[2]));
    let terms = Vec::from_iter(terms);
    assert!(terms.len() > 10, "the glossary is empty");
    let pages = tree.pages().filter(|page| *page != GLOSSARY);
    let words = pages.flat_map(|page| {
        let words = unlinked(&tree.read(page), &terms);
        words.into_iter().map(move |word| format!("{page}:{word} is used before it is linked"))
    });
    words.collect()
}

#[test]
fn only_what_a_reader_reads_as_a_word_is_looked_at() {
    let terms = [Term::new("Span", "span")];
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
