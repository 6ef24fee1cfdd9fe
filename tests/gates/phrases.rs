//! Turns of phrase that make prose hard to read: `phrases.txt` lists them. `phrases_left.txt` says how many of them each file
//! still has. That number may only fall.

use std::collections::BTreeMap;
use std::fs;

use regex::Regex;

use super::TREE;
use super::tree::Tree;
use crate::support::recording::overwrite;

const LEFT: &str = "tests/gates/phrases_left.txt";

/// The file types that have prose.
const TYPES: [&str; 8] = ["css", "js", "md", "rs", "sh", "toml", "yaml", "yml"];

/// A turn of phrase.
struct Phrase {
    name: String,
    pattern: Regex,
    /// A pattern that the rest of the line must not match.
    unless: Option<Regex>,
}

/// `NAME<tab>PATTERN<tab>UNLESS`, a line for each.
fn phrases() -> Vec<Phrase> {
    let lines = include_str!("phrases.txt").lines();
    let phrases = lines.map(|line| {
        let [name, pattern, unless] = *line.split('\t').collect::<Vec<_>>() else {
            panic!("{line}: not three columns");
        };
        let regex = |pattern| Regex::new(pattern).expect("a pattern");
        Phrase {
            name: name.to_owned(),
            pattern: regex(pattern),
            unless: (!unless.is_empty()).then(|| regex(unless)),
        }
    });
    phrases.collect()
}

impl Phrase {
    fn count(&self, line: &str) -> usize {
        let found = self.pattern.find_iter(line).filter(|found| {
            let unless = self.unless.as_ref();
            !unless.is_some_and(|unless| unless.is_match(&line[found.end()..]))
        });
        found.count()
    }
}

/// Finds the prose of a file: a page without its code, the comments of a source and the longer strings of Rust.
struct Prose {
    code_span: Regex,
    comment: Regex,
    string: Regex,
}

impl Prose {
    fn new() -> Prose {
        let regex = |pattern| Regex::new(pattern).expect("a pattern");
        Prose {
            code_span: regex("`[^`]*`"),
            comment: regex(r"^\s*(?:///|//!|//) .*|// .*$"),
            string: regex(r#""((?:[^"\\]|\\.){12,})""#),
        }
    }

    /// The lines that have prose, with their numbers.
    fn of(&self, file: &str, text: &str) -> Vec<(usize, String)> {
        let mut fenced = false;
        let mut prose = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let start = line.trim_start();
            match file.rsplit('.').next() {
                Some("md") if start.starts_with("```") || start.starts_with("~~~") => {
                    fenced = !fenced;
                }
                Some("md") if !fenced && !line.starts_with("{{#") => {
                    prose.push((number, self.code_span.replace_all(line, "`x`").into_owned()));
                }
                Some("md") => {}
                Some(kind @ ("css" | "js" | "rs")) => {
                    let comment = self.comment.find(line);
                    prose.extend(comment.map(|it| (number, it.as_str().to_owned())));
                    let strings = self.string.captures_iter(line).filter(|_| kind == "rs");
                    let strings = strings.map(|it| it[1].to_owned());
                    let strings = strings.filter(|string| string.contains(' '));
                    prose.extend(strings.map(|string| (number, string)));
                }
                _ if start.starts_with('#') => prose.push((number, line.to_owned())),
                _ => {}
            }
        }
        prose
    }
}

/// The phrases of each file that has some: the place and name of each.
fn found(tree: &Tree) -> BTreeMap<String, Vec<String>> {
    let (phrases, prose) = (phrases(), Prose::new());
    let files = tree.files("", "").filter(|file| {
        let kind = file.rsplit_once('.').map_or("", |(_, kind)| kind);
        TYPES.contains(&kind) && !file.starts_with("src/recordings/")
    });
    let found = files.map(|file| {
        let mut places = Vec::new();
        for (number, line) in prose.of(file, &tree.read(file)) {
            for phrase in &phrases {
                let place = format!("{file}:{number}: {}: {}", phrase.name, line.trim());
                places.extend(std::iter::repeat_n(place, phrase.count(&line)));
            }
        }
        (file.to_owned(), places)
    });
    found.filter(|(_, places)| !places.is_empty()).collect()
}

/// A file that has more of them than before, and a count that can be lowered.
pub fn turns(tree: &Tree) -> Vec<String> {
    let found = found(tree);
    let left = tree.read(LEFT);
    let lines = left.lines().map(|line| {
        let (count, file) = line.split_once(' ').unwrap_or_default();
        (file, count.parse().unwrap_or_default())
    });
    let allowed: BTreeMap<&str, usize> = lines.clone().collect();
    // A list that was deleted begins again with what there is, when that is asked for.
    let default = match left.is_empty() && overwrite() {
        true => usize::MAX,
        false => 0,
    };
    let allowed = |file: &str| allowed.get(file).copied().unwrap_or(default);
    let mut problems = Vec::new();
    for (file, places) in &found {
        let allowed = allowed(file);
        // Nobody knows which of them are new.
        if places.len() > allowed {
            let places = places.iter();
            problems.extend(places.map(|place| format!("{place} ({allowed} allowed)")));
        }
    }
    if overwrite() && tree.root() == TREE.root() {
        let counts = found.iter().map(|(file, places)| {
            let count = places.len().min(allowed(file));
            (count, file)
        });
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
            problems.push(format!(
                "{LEFT}:{number}: {file} has {now} now: lower its count, with SNAPSHOTS=overwrite"
            ));
        }
    }
    problems
}

#[test]
fn only_prose_is_read() {
    let prose = |file: &str, text: &str| -> Vec<String> {
        let lines = Prose::new().of(file, text);
        lines.into_iter().map(|(_, line)| line).collect()
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
    let count = |line: &str| -> usize { phrases().iter().map(|it| it.count(line)).sum() };
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
