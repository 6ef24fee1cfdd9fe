//! The gates, tested: each fault of a list is planted in a copy of the repository, and turns its own gate red, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::tree::Tree;
use super::{GATES, Gate, TREE, tools};
use crate::support::recording;

/// What is planted in a file. `§` stands before the place that the gate must name.
enum Plant {
    /// At its end.
    End(&'static str),
    /// Instead of what stands there first.
    Instead(&'static str, &'static str),
    /// As a file of its own.
    New(&'static str),
}

use Plant::{End, Instead, New};

/// A fault, its gate, its file, how it is planted there, and what the gate must say. `LINE` is the line of `§`.
type Fault = (
    &'static str,
    &'static str,
    &'static str,
    Plant,
    &'static str,
);

/// A page without anything special.
const PAGE: &str = "src/reference/headers.md";
const LISTING: &str = "examples/sampling/src/lib.rs";
const WORKFLOW: &str = ".github/workflows/planted.yml";

#[rustfmt::skip] // one row for each fault
const FAULTS: &[Fault] = &[
    // In two parts, for the spelling of this file is right.
    ("a misspelt word on a page", "spelling", PAGE, End(concat!("\n§We rec", "ieve it.\n")), "headers.md:LINE:4: error: `rec"),
    ("a misspelt word in code", "spelling", LISTING, End(concat!("// We rec", "ieve it.\n")), "lib.rs:"),
    ("a word that the style does without", "spelling", PAGE, End("\n§Simply run it.\n"), "headers.md:LINE:1: error: `Simply` is disallowed"),
    ("a heading without a blank line above it", "markdown", PAGE, End("\nText.\n§## A heading\n\nText.\n"), "headers.md:LINE:1: [MD022]"),
    ("a blank at the end of a line", "markdown", PAGE, End("\n§Text. \nText.\n"), "headers.md:LINE:6: [MD009]"),
    ("a heading twice on a page", "markdown", PAGE, End("\n## Two\n\nText.\n\n§## Two\n\nText.\n"), "headers.md:LINE:4: [MD024]"),
    ("a link of the README to a file that is not there", "markdown", "README.md", End("\n§[A file](nowhere.md)\n"), "README.md:LINE:10: [MD057]"),
    ("a link of the README to a heading that is not there", "markdown", "README.md", End("\n§[A heading](#nowhere)\n"), "README.md:LINE:1: [MD051]"),
    ("a block without a language", "blocks", PAGE, End("\n§```\ntext\n```\n"), "headers.md:LINE: the block has no language"),
    ("an ignored block", "blocks", PAGE, End("\n§```rust,ignore\nfn main() {}\n```\n"), "headers.md:LINE: an ignored block"),
    ("a `no_run` without a reason", "blocks", PAGE, End("\n§```rust,no_run\nfn main() {}\n```\n"), "headers.md:LINE: no_run needs a reason"),
    ("a block without an end", "markdown", PAGE, End("\n§```text\nText.\n"), "headers.md:LINE:1: [MD046]"),
    ("a line of a listing that is too long", "widths", LISTING, End("§// 3456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456\n"), "lib.rs:LINE: longer than 85"),
    ("a marked part of a listing that no page shows", "anchors", LISTING, End("§// ANCHOR: nowhere\n// ANCHOR_END: nowhere\n"), "lib.rs:LINE: no page shows ANCHOR nowhere"),
    ("a link to a page that is not there", "links", PAGE, End("\n§[A page](nowhere.md)\n"), "headers.md:LINE: the link nowhere.html: there is no"),
    ("a link to a heading that is not there", "links", PAGE, End("\n§[A heading](../introduction.md#nowhere)\n"), "headers.md:LINE: the link ../introduction.html#nowhere: introduction.html has no #nowhere"),
    ("a link in HTML to a page that is not there", "links", PAGE, End("\n§<a href=\"gone.html\">A page</a>\n"), "headers.md:LINE: the link gone.html: there is no"),
    ("an image that is not there", "links", PAGE, End("\n§![An image](nowhere.png)\n"), "headers.md:LINE: the link nowhere.png: there is no"),
    ("an include that is not there", "includes", PAGE, End("\n```text\n§{{#include nowhere.txt}}\n```\n"), "headers.md:LINE: {{#include nowhere.txt}} is not found"),
    ("an image without alt text", "images", PAGE, End("\n§![](../pictures/system.svg)\n"), "headers.md:LINE: the image ../pictures/system.svg has no alt text"),
    ("an image in HTML without alt text", "images", PAGE, End("\n§<img src=\"../pictures/system.svg\">\n"), "headers.md:LINE: the image ../pictures/system.svg has no alt text"),
    ("a word of the glossary that leads nowhere", "glossary", "src/appendix/how-it-is-tested.md", Instead("[lab](glossary.md#lab) takes", "§lab takes"), "how-it-is-tested.md:LINE: lab is used before"),
    ("a page outside the table of contents", "orphans", "src/reference/alone.md", New("# Alone\n\nText.\n"), "src/reference/alone.md: src/SUMMARY.md does not name it"),
    ("a recording that no page shows", "recordings", "src/recordings/alone.txt", New("Text.\n"), "src/recordings/alone.txt: no page shows it"),
    ("an older crate in prose", "versions", PAGE, End("\nSo it is since `§opentelemetry_sdk` 0.1.0.\n"), "headers.md:LINE: opentelemetry_sdk 0.1.0 is not the pinned {\""),
    ("an older crate in the address of its documentation", "versions", PAGE, End("\n[The SDK](https://§docs.rs/opentelemetry_sdk/0.1.0/)\n"), "headers.md:LINE: opentelemetry_sdk 0.1.0 is not"),
    ("an older crate in a manifest", "versions", PAGE, End("\n```toml\n[dependencies]\n§axum = \"0.1\"\n```\n"), "headers.md:LINE: axum 0.1 is not"),
    ("an older program in a command", "versions", PAGE, End("\n```sh\n§cargo install mdbook@0.4.52\n```\n"), "headers.md:LINE: mdbook 0.4.52 is not"),
    ("an older Rust", "versions", "README.md", End("\n§Rust 1.1 is enough.\n"), "README.md:LINE: Rust 1.1 is not"),
    ("an older broker", "versions", PAGE, End("\n§NATS 1.0.0 keeps it.\n"), "headers.md:LINE: NATS 1.0.0 is not"),
    ("a version of what nothing pins", "versions", PAGE, End("\n§Zipkin 3.5 shows it too.\n"), "headers.md:LINE: nothing pins Zipkin 3.5"),
    ("two versions of one OpenTelemetry crate", "twice", "Cargo.lock", End("\n[[package]]\nname = \"opentelemetry\"\nversion = \"0.1.0\"\n"), "Cargo.lock: opentelemetry is there twice: {\"0.1.0\", "),
    ("a crate that `cargo test` leaves out", "members", "Cargo.toml", Instead("[\".\", \"crates/*\", \"examples/*\"]", "[\".\", \"crates/*\"]"), "Cargo.toml: default-members lacks"),
    ("a `rust-version` that is too old", "rust_version", "examples/scaling/Cargo.toml", Instead("rust-version = \"", "rust-version = \"1.85\" # \""), "Cargo.toml of \"scaling\": rust-version is \"1.85\""),
    ("blocks in an older edition", "edition", "tests/skeptic/rustc.rs", Instead("EDITION: &str = \"", "EDITION: &str = \"2018\"; // \""), "tests/skeptic/rustc.rs: EDITION is not \""),
    ("a licence that is not allowed", "licences", "crates/w3c-trace-context/Cargo.toml", Instead("license = \"", "license = \"GPL-3.0-only\" # \""), "\"failed to satisfy license requirements\": \"w3c-trace-context\""),
    ("a workflow for a machine that is not there", "workflows", WORKFLOW, New("on: push\npermissions: {}\njobs:\n  job:\n    name: Job\n    runs-on: §ubuntu-newest\n    steps:\n      - run: 'true'\n"), "planted.yml:LINE:14: label \"ubuntu-newest\" is unknown"),
    ("an action that is not pinned by its hash", "permissions", WORKFLOW, New("on: push\npermissions: {}\njobs:\n  job:\n    name: Job\n    runs-on: ubuntu-latest\n    steps:\n      - uses: §actions/setup-go@v6\n"), "planted.yml:LINE: unpinned action"),
    ("a workflow that may write everything", "permissions", WORKFLOW, New("on: push\n§permissions: write-all\njobs:\n  one: &job\n    name: Job\n    runs-on: ubuntu-latest\n    steps:\n      - run: 'true'\n  two: *job\n"), "planted.yml:LINE: overly broad permissions"),
    ("a script with a variable that nobody sets", "scripts", "examples/deployment/verify.sh", End("§echo \"$nowhere\"\n"), "verify.sh:LINE:7: warning: nowhere is referenced but not assigned"),
];

/// Whether a gate can run here.
fn runs(gate: &Gate) -> bool {
    gate.program.is_none() || tools::BINARIES.is_some()
}

fn gate(name: &str) -> &'static Gate {
    let gate = GATES.iter().find(|gate| gate.name == name);
    gate.unwrap_or_else(|| panic!("there is no gate {name}"))
}

/// Building the book takes longer than all other gates: it is done once, for all faults that it finds.
fn needs_the_book(gate: &Gate) -> bool {
    ["includes", "links"].contains(&gate.name)
}

/// The gates that are red on a copy, with what they say. Only those are asked that read what was planted.
fn red(copy: &Tree, faults: &[&Fault]) -> BTreeMap<&'static str, Vec<String>> {
    let built = faults.iter().any(|fault| needs_the_book(gate(fault.1)));
    let asked = GATES.iter().filter(|gate| {
        let read = |file: &str| gate.reads.iter().any(|part| file.contains(part));
        faults.iter().any(|fault| read(fault.2)) && (built || !needs_the_book(gate))
    });
    asked
        .map(|gate| (gate.name, (gate.problems)(copy)))
        .filter(|(_, problems)| !problems.is_empty())
        .collect()
}

/// Plants a fault in a copy, and returns what its gate must say.
fn plant((what, _, file, plant, says): &Fault, copy: &Path) -> String {
    let text = fs::read_to_string(copy.join(file)).unwrap_or_default();
    let planted = match plant {
        End(more) => text + more,
        Instead(before, after) => {
            assert!(text.contains(before), "{what}: {file} has no {before:?}");
            text.replacen(before, after, 1)
        }
        New(text) => (*text).to_owned(),
    };
    let (before, after) = planted.split_once('§').unwrap_or(("", &planted));
    let line = before.matches('\n').count() + 1;
    fs::write(copy.join(file), format!("{before}{after}")).expect("written");
    says.replace("LINE", &line.to_string())
}

/// Takes it out again.
fn restore((_, _, file, ..): &Fault, copy: &Path) {
    let restored = match TREE.files(file, "").next() {
        Some(_) => fs::write(copy.join(file), TREE.read(file)),
        None => fs::remove_file(copy.join(file)),
    };
    restored.expect("as it was");
}

/// What is wrong with the answer of the gates to some faults, if anything is.
fn answer(faults: &[&Fault], copy: &Path) -> Option<String> {
    let says: Vec<String> = faults.iter().map(|fault| plant(fault, copy)).collect();
    let red = red(&Tree::at(copy), faults);
    faults.iter().for_each(|fault| restore(fault, copy));
    let expected: BTreeSet<&str> = faults.iter().map(|fault| fault.1).collect();
    let right = red.keys().copied().eq(expected)
        && faults
            .iter()
            .zip(&says)
            .all(|(fault, says)| red[fault.1].iter().any(|problem| problem.contains(says)));
    let what: Vec<&str> = faults.iter().map(|fault| fault.0).collect();
    (!right).then(|| format!("{what:?}: expected {says:#?}, and got {red:#?}"))
}

#[test]
fn each_fault_turns_its_gate_red_and_no_other() {
    let faults = FAULTS.iter().filter(|fault| runs(gate(fault.1)));
    let (built, alone): (Vec<_>, Vec<_>) = faults.partition(|fault| needs_the_book(gate(fault.1)));
    let mut groups: Vec<&[&Fault]> = alone.chunks(1).collect();
    groups.push(&built);
    // A copy for each processor.
    let copies = rayon::current_num_threads();
    let wrong: Vec<String> = (0..copies)
        .into_par_iter()
        .flat_map_iter(|first| {
            let folder = tempfile::tempdir().expect("a folder");
            TREE.copy(folder.path());
            let groups = groups.iter().skip(first).step_by(copies);
            groups.filter_map(move |faults| answer(faults, folder.path()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if alone.len() + built.len() == FAULTS.len() {
        recording::check("gates.md", &table()).unwrap();
    }
}

#[test]
fn every_gate_has_a_fault() {
    let faults = |gate: &&Gate| !FAULTS.iter().any(|fault| fault.1 == gate.name);
    let untested: Vec<_> = GATES.iter().filter(faults).map(|gate| gate.name).collect();
    assert_eq!(untested, Vec::<&str>::new());
}

/// The faults and their gates, for the page that tells of them.
fn table() -> String {
    let mut table = "| fault | gate | by |\n|---|---|---|\n".to_owned();
    for (what, name, ..) in FAULTS {
        let by = gate(name).program.unwrap_or("our own code");
        writeln!(table, "| {what} | `{name}` | {by} |").expect("written");
    }
    table
}
