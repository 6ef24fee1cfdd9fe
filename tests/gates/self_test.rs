//! Tests the gates: plants the faults of a list in a copy of the repository. Each must turn its own gate red, and no other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::tree::Tree;
use super::{GATES, Gate, TREE, tools};
use crate::reference::{code, table};
use support::recording::check;

/// A change that plants a fault. `§` marks the place that the gate must name.
enum Plant {
    /// Appends to the file; creates it if there is none.
    End(&'static str),
    /// Replaces the first occurrence of a text.
    Instead(&'static str, &'static str),
    /// Commits with this subject.
    Commit(&'static str),
}

use Plant::{Commit, End, Instead};

/// The name of a fault, its gate, its file, the change, and the message of the gate. `LINE` stands for the line of `§`.
/// Faults of several gates do not share a file.
type Fault = (&'static str, &'static str, &'static str, Plant, &'static str);

/// Stands for an ordinary page, a different one for each fault.
const PAGE: &str = "PAGE";
const HEAD: &str = ".git/HEAD";

#[rustfmt::skip] // one row for each fault
const FAULTS: &[Fault] = &[
    // In two parts, because the gate reads this file too.
    ("a misspelt word on a page", "spelling", PAGE, End(concat!("\n§We rec", "ieve it.\n")), "PAGE:LINE:4: error: `rec"),
    ("a misspelt word in code", "spelling", "examples/sampling/src/lib.rs", End(concat!("// We rec", "ieve it.\n")), "examples/sampling/src/lib.rs:"),
    ("a word that the style does without", "spelling", PAGE, End("\n§Simply run it.\n"), "PAGE:LINE:1: error: `Simply` is disallowed"),
    ("a turn of phrase that the style does without", "phrases", PAGE, End(concat!("\n§Wh", "oever asks is to", "ld.\n")), "PAGE:LINE: headless clause"),
    ("more turns of phrase allowed than there are", "phrases", "tests/gates/phrases_left.txt", End("§3 src/SUMMARY.md\n"), "phrases_left.txt:LINE: src/SUMMARY.md has 0 now"),
    ("a heading without a blank line above it", "markdown", PAGE, End("\nText.\n§## A heading\n\nText.\n"), "PAGE:LINE:1: [MD022]"),
    ("a blank at the end of a line", "markdown", PAGE, End("\n§Text. \nText.\n"), "PAGE:LINE:6: [MD009]"),
    ("a heading twice on a page", "markdown", PAGE, End("\n## Two\n\nText.\n\n§## Two\n\nText.\n"), "PAGE:LINE:4: [MD024]"),
    ("a link of the README to a file that is not there", "markdown", "README.md", End("\n§[A file](nowhere.md)\n"), "README.md:LINE:10: [MD057]"),
    ("a link of the README to a heading that is not there", "markdown", "README.md", End("\n§[A heading](#nowhere)\n"), "README.md:LINE:1: [MD051]"),
    ("a block without a language", "markdown", PAGE, End("\n§```\ntext\n```\n"), "PAGE:LINE:1: [MD040]"),
    ("an ignored block", "blocks", PAGE, End("\n§```rust,ignore\nfn main() {}\n```\n"), "PAGE:LINE: an ignored block"),
    ("a `no_run` without a reason", "blocks", PAGE, End("\n§```rust,no_run\nfn main() {}\n```\n"), "PAGE:LINE: no_run needs a reason"),
    ("a block without an end", "markdown", PAGE, End("\n§```text\nText.\n"), "PAGE:LINE:1: [MD046]"),
    ("a line of a listing that is too long", "widths", "examples/real_llm/src/lib.rs", End("§// 3456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456\n"), "lib.rs:LINE: longer than 85"),
    ("a marked part of a listing that no page shows", "anchors", "examples/symptoms/src/lib.rs", End("§// ANCHOR: nowhere\n// ANCHOR_END: nowhere\n"), "lib.rs:LINE: no page shows ANCHOR nowhere"),
    ("a link to a page that is not there", "links", PAGE, End("\n§[A page](nowhere.md)\n"), "PAGE:LINE: the link nowhere.html: there is no"),
    ("a link to a heading that is not there", "links", PAGE, End("\n§[A heading](../introduction.md#nowhere)\n"), "PAGE:LINE: the link ../introduction.html#nowhere: introduction.html has no #nowhere"),
    ("a link in HTML to a page that is not there", "links", PAGE, End("\n§<a href=\"gone.html\">A page</a>\n"), "PAGE:LINE: the link gone.html: there is no"),
    ("an image that is not there", "links", PAGE, End("\n§![An image](nowhere.png)\n"), "PAGE:LINE: the link nowhere.png: there is no"),
    ("an include that is not there", "includes", PAGE, End("\n```text\n§{{#include nowhere.txt}}\n```\n"), "PAGE:LINE: {{#include nowhere.txt}} is not found"),
    ("an image without alt text", "markdown", PAGE, End("\n§![](../pictures/system.svg)\n"), "PAGE:LINE:1: [MD045]"),
    ("an image in HTML without alt text", "markdown", PAGE, End("\n§<img src=\"../pictures/system.svg\">\n"), "PAGE:LINE:1: [MD033]"),
    ("a word of the glossary that leads nowhere", "glossary", "src/appendix/how-it-is-tested.md", Instead("[lab](glossary.md#lab) takes", "§lab takes"), "how-it-is-tested.md:LINE: lab is used before"),
    ("a page outside the table of contents", "orphans", "src/reference/alone.md", End("# Alone\n\nText.\n"), "src/reference/alone.md: src/SUMMARY.md does not name it"),
    ("a recording that no page shows", "recordings", "src/recordings/alone.txt", End("Text.\n"), "src/recordings/alone.txt: no page shows it"),
    ("a recording that no test compares", "recordings", "src/recordings/alone.txt", End("Text.\n"), "src/recordings/alone.txt: no test compares it"),
    ("an older crate in prose", "versions", PAGE, End("\nSo it is since `§opentelemetry_sdk` 0.1.0.\n"), "PAGE:LINE: opentelemetry_sdk 0.1.0 is not the pinned {\""),
    ("an older crate in the address of its documentation", "versions", PAGE, End("\n[The SDK](https://§docs.rs/opentelemetry_sdk/0.1.0/)\n"), "PAGE:LINE: opentelemetry_sdk 0.1.0 is not"),
    ("an older crate in a manifest", "versions", PAGE, End("\n```toml\n[dependencies]\n§axum = \"0.1\"\n```\n"), "PAGE:LINE: axum 0.1 is not"),
    ("an older program in a command", "versions", PAGE, End("\n```sh\n§cargo install mdbook@0.4.52\n```\n"), "PAGE:LINE: mdbook 0.4.52 is not"),
    ("an older Rust", "versions", "crates/lab/README.md", End("\n§Rust 1.1 is enough.\n"), "README.md:LINE: Rust 1.1 is not"),
    ("an older broker", "versions", PAGE, End("\n§NATS 1.0.0 keeps it.\n"), "PAGE:LINE: NATS 1.0.0 is not"),
    ("a version of what nothing pins", "versions", PAGE, End("\n§Zipkin 3.5 shows it too.\n"), "PAGE:LINE: nothing pins Zipkin 3.5"),
    ("two versions of one OpenTelemetry crate", "twice", "Cargo.lock", End("\n[[package]]\nname = \"opentelemetry\"\nversion = \"0.1.0\"\n"), "Cargo.lock: opentelemetry is there twice: {\"0.1.0\", "),
    ("a library that depends on an OpenTelemetry crate", "telemetry", "crates/traces/Cargo.toml", Instead("features = [\"serde\"] }", "features = [\"propagators\", \"serde\"] }"), ": it needs opentelemetry"),
    ("a long subject of a commit", "commits", HEAD, Commit("Write a subject that has more than the seventy-two characters of a good subject"), "good subject\" longer than 72"),
    ("a subject that isn't imperative", "commits", HEAD, Commit("Adds a commit"), "\"Adds a commit\" does not begin with an imperative"),
    ("a subject with a full stop", "commits", HEAD, Commit("Add a commit."), "\"Add a commit.\" ends with a full stop"),
    ("a crate that `cargo test` leaves out", "members", "Cargo.toml", Instead("[\".\", \"crates/*\", \"examples/*\", \"tests/support\"]", "[\".\", \"crates/*\"]"), "Cargo.toml: default-members lacks"),
    ("a `rust-version` that is too old", "rust_version", "examples/more_than_one_machine/Cargo.toml", Instead("rust-version = \"", "rust-version = \"1.85\" # \""), "Cargo.toml of \"more_than_one_machine\": rust-version is \"1.85\""),
    ("blocks in an older edition", "edition", "tests/skeptic/rustc.rs", Instead("EDITION: &str = \"", "EDITION: &str = \"2018\"; // \""), "tests/skeptic/rustc.rs: EDITION is not \""),
    ("a licence that is not allowed", "licences", "crates/w3c-trace-context/Cargo.toml", Instead("license = \"", "§license = \"GPL-3.0-only\" # \""), "crates/w3c-trace-context/Cargo.toml:LINE:12"),
    ("a workflow for a machine that is not there", "workflows", ".github/workflows/planted-1.yml", End("on: push\npermissions: {}\njobs:\n  job:\n    name: Job\n    runs-on: §ubuntu-newest\n    steps:\n      - run: 'true'\n"), "planted-1.yml:LINE:14: label \"ubuntu-newest\" is unknown"),
    ("an action that is not pinned by its hash", "permissions", ".github/workflows/planted-2.yml", End("on: push\npermissions: {}\njobs:\n  job:\n    name: Job\n    runs-on: ubuntu-latest\n    steps:\n      - uses: §actions/setup-go@v6\n"), "planted-2.yml:LINE: unpinned action"),
    ("a workflow that may write everything", "permissions", ".github/workflows/planted-3.yml", End("on: push\n§permissions: write-all\njobs:\n  one: &job\n    name: Job\n    runs-on: ubuntu-latest\n    steps:\n      - run: 'true'\n  two: *job\n"), "planted-3.yml:LINE: overly broad permissions"),
    ("a script with a variable that nobody sets", "scripts", "examples/compose_and_kubernetes/verify.sh", End("§echo \"$nowhere\"\n"), "verify.sh:LINE:7: warning: nowhere is referenced but not assigned"),
];

fn gate(name: &str) -> &'static Gate {
    let gate = GATES.iter().find(|gate| gate.name == name);
    gate.unwrap_or_else(|| panic!("unknown gate {name}"))
}

/// A fault in a copy: the file that has it, and the message that its gate must give.
struct Planted {
    fault: &'static Fault,
    file: String,
    message: String,
}

/// Plants a fault. One that fits any page goes into the next of `pages`.
fn plant<'a>(
    fault: &'static Fault,
    copy: &Path,
    pages: &mut impl Iterator<Item = &'a str>,
) -> Planted {
    let (what, _, file, change, message) = fault;
    let file = if *file == PAGE { pages.next().expect("too few pages") } else { file };
    let text = fs::read_to_string(copy.join(file)).unwrap_or_default();
    let planted = match change {
        End(more) => text + more,
        Instead(before, after) => {
            assert!(text.contains(before), "{what}: {file} has no {before:?}");
            text.replacen(before, after, 1)
        }
        Commit(subject) => {
            git(copy, &["commit", "--quiet", "--allow-empty", "--message", subject]);
            return Planted { fault, file: (*file).to_owned(), message: (*message).to_owned() };
        }
    };
    let (before, after) = planted.split_once('§').unwrap_or(("", &planted));
    let line = before.matches('\n').count() + 1;
    fs::write(copy.join(file), format!("{before}{after}")).expect("written");
    let message = message.replace(PAGE, file).replace("LINE", &line.to_string());
    Planted { fault, file: file.to_owned(), message }
}

fn git(folder: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=Test", "-c", "user.email=test@example.com"]);
    let status = git.args(arguments).current_dir(folder).status();
    assert!(status.expect("git runs").success(), "git {arguments:?}");
}

/// Plants faults in a copy, and lists each one that its gate misses, and each problem that no fault explains.
fn wrong(faults: &[&'static Fault]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    TREE.copy(folder);
    // The gate on subjects begins after the commit that adds it.
    git(folder, &["init", "--quiet"]);
    git(folder, &["add", "tests/gates/commits.rs"]);
    git(folder, &["commit", "--quiet", "--message=Start."]);
    let pages = TREE.pages();
    let mut pages =
        pages.filter(|page| page.matches('/').count() == 2 && !page.contains("appendix"));
    let planted = Vec::from_iter(faults.iter().map(|fault| plant(fault, folder, &mut pages)));
    let mut gates = BTreeMap::new();
    for Planted { file, fault: (what, gate, ..), .. } in &planted {
        let other = gates.insert(file, gate).is_some_and(|other| other != gate);
        assert!(!other, "{what}: another gate has a fault in {file}");
    }
    let copy = Tree::at(folder);
    // Gates that read none of the changed files stay as they are.
    let asked = GATES.iter().filter(|gate| {
        let reads = |it: &Planted| gate.reads.iter().any(|part| it.file.contains(part));
        runs(gate) && planted.iter().any(reads)
    });
    let red: BTreeMap<_, _> = asked.map(|gate| (gate.name, (gate.problems)(&copy))).collect();
    let prefix = format!("{}/", folder.display());
    // A path is looked for as a whole: `README.md` isn't in `crates/lab/README.md`.
    let names = |problem: &str, file: &str| {
        let problem = problem.replace(&prefix, "");
        let mut found = problem.match_indices(file);
        found.any(|(at, _)| !problem[..at].ends_with(|it: char| it == '/' || it.is_alphanumeric()))
    };
    let mut wrong = Vec::new();
    for Planted { fault: (what, gate, ..), message, .. } in &planted {
        let problems = &red[gate];
        if !problems.iter().any(|problem| problem.contains(message)) {
            wrong.push(format!("{what}: {gate} does not say {message:?}, but {problems:#?}"));
        }
    }
    for (gate, problem) in red.iter().flat_map(|(gate, it)| it.iter().map(move |it| (gate, it))) {
        let explains = |it: &Planted| {
            it.fault.1 == *gate && (names(problem, &it.file) || problem.contains(&it.message))
        };
        // The page to print repeats every fault of the book.
        if !problem.starts_with("print.html") && !planted.iter().any(explains) {
            wrong.push(format!("{gate} says {problem:?}"));
        }
    }
    wrong
}

/// Whether a gate can run here.
fn runs(gate: &Gate) -> bool {
    gate.program.is_none() || tools::BINARIES.is_some()
}

#[test]
fn each_fault_turns_its_gate_red_and_no_other() {
    let faults = FAULTS.iter().filter(|fault| runs(gate(fault.1)));
    // Cargo doesn't check a manifest that the lock file doesn't fit, so that file has a copy of its own.
    let (lock, others): (Vec<_>, Vec<_>) = faults.partition(|fault| fault.2 == "Cargo.lock");
    let wrong = [wrong(&lock), wrong(&others)].concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if lock.len() + others.len() == FAULTS.len() {
        // The table of faults and gates that the book shows.
        let rows = FAULTS.iter().map(|(what, name, ..)| {
            let by = gate(name).program.unwrap_or("our own code");
            vec![(*what).to_owned(), code(name), by.to_owned()]
        });
        check!("gates.md", &table(&["fault", "gate", "by"], rows));
    }
}

#[test]
fn every_gate_has_a_fault() {
    let faults = |gate: &&Gate| !FAULTS.iter().any(|fault| fault.1 == gate.name);
    let untested: Vec<_> = GATES.iter().filter(faults).map(|gate| gate.name).collect();
    assert_eq!(untested, Vec::<&str>::new());
}
