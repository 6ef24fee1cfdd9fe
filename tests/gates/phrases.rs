//! Turns of phrase that make prose hard to read: `phrases.txt` lists them. `phrases_left.txt` says how many of them each file
//! still has. That number may only fall.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use regex::Regex;

use super::TREE;
use super::tree::Tree;
use support::recording::overwrite;

const LEFT: &str = "tests/gates/phrases_left.txt";

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern")
}

/// A turn of phrase.
struct Phrase {
    name: &'static str,
    pattern: Regex,
    /// A pattern that the rest of the line must not match.
    unless: Option<Regex>,
}

/// The lines of the list: `NAME<tab>PATTERN<tab>UNLESS`.
static PHRASES: LazyLock<Vec<Phrase>> = LazyLock::new(|| {
    let phrases = include_str!("phrases.txt").lines().map(|line| {
        let [name, pattern, unless] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}: not three columns");
        };
        let unless = (!unless.is_empty()).then(|| regex(unless));
        Phrase { name, pattern: regex(pattern), unless }
    });
    phrases.collect()
});

impl Phrase {
    fn count(&self, line: &str) -> usize {
        let unless = |rest| self.unless.as_ref().is_some_and(|unless| unless.is_match(rest));
        self.pattern.find_iter(line).filter(|found| !unless(&line[found.end()..])).count()
    }
}

/// The prose of a file, with line numbers: a page without its code, the comments of a source and the longer strings of Rust.
fn prose(file: &str, text: &str) -> Vec<(usize, String)> {
    static CODE: LazyLock<Regex> = LazyLock::new(|| regex("`[^`]*`"));
    static COMMENT: LazyLock<Regex> = LazyLock::new(|| regex(r"^\s*(?:///|//!|//) .*|// .*$"));
    static STRING: LazyLock<Regex> = LazyLock::new(|| regex(r#""((?:[^"\\]|\\.){12,})""#));
    let mut fenced = false;
    let mut prose = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let start = line.trim_start();
        match file.rsplit('.').next() {
            Some("md") if start.starts_with("```") || start.starts_with("~~~") => fenced = !fenced,
            Some("md") if fenced || line.starts_with("{{#") => {}
            Some("md") => prose.push((number, CODE.replace_all(line, "`x`").into_owned())),
            Some(kind @ ("css" | "js" | "rs")) => {
                prose.extend(COMMENT.find(line).map(|it| (number, it.as_str().to_owned())));
                let strings = STRING.captures_iter(line).map(|it| it[1].to_owned());
                let strings = strings.filter(|it| kind == "rs" && it.contains(' '));
                prose.extend(strings.map(|it| (number, it)));
            }
            Some("sh" | "toml" | "yaml" | "yml") if start.starts_with('#') => {
                prose.push((number, line.to_owned()));
            }
            _ => {}
        }
    }
    prose
}

/// The phrases of each file that has some: the place and name of each.
fn found(tree: &Tree) -> BTreeMap<&str, Vec<String>> {
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for file in tree.files("", "").filter(|file| !file.starts_with("src/recordings/")) {
        for (number, line) in prose(file, &tree.read(file)) {
            for phrase in PHRASES.iter() {
                for _ in 0..phrase.count(&line) {
                    let place = format!("{file}:{number}: {}: {}", phrase.name, line.trim());
                    found.entry(file).or_default().push(place);
                }
            }
        }
    }
    found
}

/// Finds files with more of them than before and counts that can be lowered.
pub fn turns(tree: &Tree) -> Vec<String> {
    let found = found(tree);
    let left = tree.read(LEFT);
    let lines = left.lines().map(|line| {
        let (count, file) = line.split_once(' ').unwrap_or_default();
        (file, count.parse().unwrap_or_default())
    });
    let allowed: BTreeMap<&str, usize> = lines.clone().collect();
    // A list that was deleted begins again with what there is, when that is asked for.
    let default = if left.is_empty() && overwrite() { usize::MAX } else { 0 };
    let allowed = |file: &str| allowed.get(file).copied().unwrap_or(default);
    let mut problems = Vec::new();
    for (file, places) in &found {
        let allowed = allowed(file);
        // Nobody knows which of them are new.
        if places.len() > allowed {
            problems.extend(places.iter().map(|place| format!("{place} ({allowed} allowed)")));
        }
    }
    if overwrite() && tree.root() == TREE.root() {
        let counts = found.iter().map(|(file, it)| (it.len().min(allowed(file)), file));
        let counts = counts.filter(|(count, _)| *count > 0);
        let counts: String = counts.map(|(count, file)| format!("{count} {file}\n")).collect();
        if counts != left {
            fs::write(tree.root().join(LEFT), counts).expect("written");
        }
        return problems;
    }
    for (number, (file, count)) in (1..).zip(lines) {
        let now = found.get(file).map_or(0, Vec::len);
        if now < count {
            let place = format!("{LEFT}:{number}: {file}");
            problems
                .push(format!("{place} has {now} now: lower its count, with SNAPSHOTS=overwrite"));
        }
    }
    problems
}

#[test]
fn only_prose_is_read() {
    let prose = |file: &str, text: &str| -> Vec<String> {
        prose(file, text).into_iter().map(|(_, line)| line).collect()
    };
    let page = "One `code`.\n```rust\nfn main() {}\n```\n{{#include it}}\n";
    assert_eq!(prose("a.md", page), ["One `x`."]);
    let source = "/// A doc.\nlet it = \"at least twelve letters\"; // Why.\nlet it = \"short\";\n";
    let expected = ["/// A doc.", "// Why.", "at least twelve letters"];
    assert_eq!(prose("a.rs", source), expected);
    assert_eq!(prose("a.js", source), expected[..2]);
    assert_eq!(prose("a.toml", "# Why.\nkey = 1\n"), ["# Why."]);
}

#[test]
fn a_phrase_is_counted_unless_the_rest_of_its_line_makes_it_a_good_one() {
    let count = |line: &str| -> usize { PHRASES.iter().map(|it| it.count(line)).sum() };
    for (line, expected) in [
        (concat!("A value that is n", "o text."), 1),
        ("It is no longer there.", 0),
        ("There is no need to.", 0),
        (concat!("Ask who", " is down."), 1),
        ("Who is down?", 0),
        (concat!("It reads it, and wr", "ites it on", "ce more."), 2),
    ] {
        assert_eq!(count(line), expected, "{line}");
    }
}
