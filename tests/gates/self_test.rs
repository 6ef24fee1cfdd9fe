//! Tests the gates: plants each fault of a list in a copy of the repository. Its own gate must turn red, and no other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use rayon::prelude::*;

use super::tree::Tree;
use super::{GATES, Gate, TREE, tools};
use crate::support::recording::check;

/// A change that plants a fault. `§` marks the place that the gate must name.
enum Plant {
    /// Appends to the file.
    End(&'static str),
    /// Replaces the first occurrence of a text.
    Instead(&'static str, &'static str),
    /// Creates the file.
    New(&'static str),
    /// Commits with this subject.
    Commit(&'static str),
}

use Plant::{Commit, End, Instead, New};

/// The name of a fault, its gate, its file, the change, and the message of the gate. `LINE` stands for the line of `§`.
type Fault = (&'static str, &'static str, &'static str, Plant, &'static str);

/// Stands for an ordinary page, a different one for each fault of a round.
const PAGE: &str = "PAGE";
const LISTING: &str = "examples/sampling/src/lib.rs";
const HEAD: &str = ".git/HEAD";
const WORKFLOW: &str = ".github/workflows/planted.yml";

#[rustfmt::skip] // one row for each fault
const FAULTS: &[Fault] = &[
    // In two parts, because the gate reads this file too.
    ("a misspelt word on a page", "spelling", PAGE, End(concat!("\n§We rec", "ieve it.\n")), "PAGE:LINE:4: error: `rec"),
    ("a misspelt word in code", "spelling", LISTING, End(concat!("// We rec", "ieve it.\n")), "lib.rs:"),
    ("a word that the style does without", "spelling", PAGE, End("\n§Simply run it.\n"), "PAGE:LINE:1: error: `Simply` is disallowed"),
    ("a turn of phrase that the style does without", "phrases", PAGE, End(concat!("\n§Wh", "oever asks is to", "ld.\n")), "PAGE:LINE: headless clause"),
    ("more turns of phrase allowed than there are", "phrases", "tests/gates/phrases_left.txt", End("§3 src/SUMMARY.md\n"), "phrases_left.txt:LINE: src/SUMMARY.md has 0 now"),
    ("a heading without a blank line above it", "markdown", PAGE, End("\nText.\n§## A heading\n\nText.\n"), "PAGE:LINE:1: [MD022]"),
    ("a blank at the end of a line", "markdown", PAGE, End("\n§Text. \nText.\n"), "PAGE:LINE:6: [MD009]"),
    ("a heading twice on a page", "markdown", PAGE, End("\n## Two\n\nText.\n\n§## Two\n\nText.\n"), "PAGE:LINE:4: [MD024]"),
    ("a link of the README to a file that is not there", "markdown", "README.md", End("\n§[A file](nowhere.md)\n"), "README.md:LINE:10: [MD057]"),
    ("a link of the README to a heading that is not there", "markdown", "README.md", End("\n§[A heading](#nowhere)\n"), "README.md:LINE:1: [MD051]"),
    ("a block without a language", "blocks", PAGE, End("\n§```\ntext\n```\n"), "PAGE:LINE: the block has no language"),
    ("an ignored block", "blocks", PAGE, End("\n§```rust,ignore\nfn main() {}\n```\n"), "PAGE:LINE: an ignored block"),
    ("a `no_run` without a reason", "blocks", PAGE, End("\n§```rust,no_run\nfn main() {}\n```\n"), "PAGE:LINE: no_run needs a reason"),
    ("a block without an end", "markdown", PAGE, End("\n§```text\nText.\n"), "PAGE:LINE:1: [MD046]"),
    ("a line of a listing that is too long", "widths", LISTING, End("§// 3456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456\n"), "lib.rs:LINE: longer than 85"),
    ("a marked part of a listing that no page shows", "anchors", LISTING, End("§// ANCHOR: nowhere\n// ANCHOR_END: nowhere\n"), "lib.rs:LINE: no page shows ANCHOR nowhere"),
    ("a link to a page that is not there", "links", PAGE, End("\n§[A page](nowhere.md)\n"), "PAGE:LINE: the link nowhere.html: there is no"),
    ("a link to a heading that is not there", "links", PAGE, End("\n§[A heading](../introduction.md#nowhere)\n"), "PAGE:LINE: the link ../introduction.html#nowhere: introduction.html has no #nowhere"),
    ("a link in HTML to a page that is not there", "links", PAGE, End("\n§<a href=\"gone.html\">A page</a>\n"), "PAGE:LINE: the link gone.html: there is no"),
    ("an image that is not there", "links", PAGE, End("\n§![An image](nowhere.png)\n"), "PAGE:LINE: the link nowhere.png: there is no"),
    ("an include that is not there", "includes", PAGE, End("\n```text\n§{{#include nowhere.txt}}\n```\n"), "PAGE:LINE: {{#include nowhere.txt}} is not found"),
    ("an image without alt text", "images", PAGE, End("\n§![](../pictures/system.svg)\n"), "PAGE:LINE: the image ../pictures/system.svg has no alt text"),
    ("an image in HTML without alt text", "images", PAGE, End("\n§<img src=\"../pictures/system.svg\">\n"), "PAGE:LINE: the image ../pictures/system.svg has no alt text"),
    ("a word of the glossary that leads nowhere", "glossary", "src/appendix/how-it-is-tested.md", Instead("[lab](glossary.md#lab) takes", "§lab takes"), "how-it-is-tested.md:LINE: lab is used before"),
    ("a page outside the table of contents", "orphans", "src/reference/alone.md", New("# Alone\n\nText.\n"), "src/reference/alone.md: src/SUMMARY.md does not name it"),
    ("a recording that no page shows", "recordings", "src/recordings/alone.txt", New("Text.\n"), "src/recordings/alone.txt: no page shows it"),
    ("a recording that no test compares", "recordings", "src/recordings/alone.txt", New("Text.\n"), "src/recordings/alone.txt: no test compares it"),
    ("an older crate in prose", "versions", PAGE, End("\nSo it is since `§opentelemetry_sdk` 0.1.0.\n"), "PAGE:LINE: opentelemetry_sdk 0.1.0 is not the pinned {\""),
    ("an older crate in the address of its documentation", "versions", PAGE, End("\n[The SDK](https://§docs.rs/opentelemetry_sdk/0.1.0/)\n"), "PAGE:LINE: opentelemetry_sdk 0.1.0 is not"),
    ("an older crate in a manifest", "versions", PAGE, End("\n```toml\n[dependencies]\n§axum = \"0.1\"\n```\n"), "PAGE:LINE: axum 0.1 is not"),
    ("an older program in a command", "versions", PAGE, End("\n```sh\n§cargo install mdbook@0.4.52\n```\n"), "PAGE:LINE: mdbook 0.4.52 is not"),
    ("an older Rust", "versions", "README.md", End("\n§Rust 1.1 is enough.\n"), "README.md:LINE: Rust 1.1 is not"),
    ("an older broker", "versions", PAGE, End("\n§NATS 1.0.0 keeps it.\n"), "PAGE:LINE: NATS 1.0.0 is not"),
    ("a version of what nothing pins", "versions", PAGE, End("\n§Zipkin 3.5 shows it too.\n"), "PAGE:LINE: nothing pins Zipkin 3.5"),
    ("two versions of one OpenTelemetry crate", "twice", "Cargo.lock", End("\n[[package]]\nname = \"opentelemetry\"\nversion = \"0.1.0\"\n"), "Cargo.lock: opentelemetry is there twice: {\"0.1.0\", "),
    ("a long subject of a commit", "commits", HEAD, Commit("Write a subject that has more than the seventy-two characters of a good subject"), "good subject\" longer than 72"),
    ("a subject that isn't imperative", "commits", HEAD, Commit("Adds a commit"), "\"Adds a commit\" does not begin with an imperative"),
    ("a subject with a full stop", "commits", HEAD, Commit("Add a commit."), "\"Add a commit.\" ends with a full stop"),
    ("a crate that `cargo test` leaves out", "members", "Cargo.toml", Instead("[\".\", \"crates/*\", \"examples/*\", \"tests/support\"]", "[\".\", \"crates/*\"]"), "Cargo.toml: default-members lacks"),
    ("a `rust-version` that is too old", "rust_version", "examples/more_than_one_machine/Cargo.toml", Instead("rust-version = \"", "rust-version = \"1.85\" # \""), "Cargo.toml of \"more_than_one_machine\": rust-version is \"1.85\""),
    ("blocks in an older edition", "edition", "tests/skeptic/rustc.rs", Instead("EDITION: &str = \"", "EDITION: &str = \"2018\"; // \""), "tests/skeptic/rustc.rs: EDITION is not \""),
    ("a licence that is not allowed", "licences", "crates/w3c-trace-context/Cargo.toml", Instead("license = \"", "license = \"GPL-3.0-only\" # \""), "\"failed to satisfy license requirements\": \"w3c-trace-context\""),
    ("a workflow for a machine that is not there", "workflows", WORKFLOW, New("on: push\npermissions: {}\njobs:\n  job:\n    name: Job\n    runs-on: §ubuntu-newest\n    steps:\n      - run: 'true'\n"), "planted.yml:LINE:14: label \"ubuntu-newest\" is unknown"),
    ("an action that is not pinned by its hash", "permissions", WORKFLOW, New("on: push\npermissions: {}\njobs:\n  job:\n    name: Job\n    runs-on: ubuntu-latest\n    steps:\n      - uses: §actions/setup-go@v6\n"), "planted.yml:LINE: unpinned action"),
    ("a workflow that may write everything", "permissions", WORKFLOW, New("on: push\n§permissions: write-all\njobs:\n  one: &job\n    name: Job\n    runs-on: ubuntu-latest\n    steps:\n      - run: 'true'\n  two: *job\n"), "planted.yml:LINE: overly broad permissions"),
    ("a script with a variable that nobody sets", "scripts", "examples/compose_and_kubernetes/verify.sh", End("§echo \"$nowhere\"\n"), "verify.sh:LINE:7: warning: nowhere is referenced but not assigned"),
];

/// Whether a gate can run here.
fn runs(gate: &Gate) -> bool {
    gate.program.is_none() || tools::BINARIES.is_some()
}

fn gate(name: &str) -> &'static Gate {
    let gate = GATES.iter().find(|gate| gate.name == name);
    gate.unwrap_or_else(|| panic!("unknown gate {name}"))
}

/// Building the book takes longer than all other gates, so one build serves all faults that need it.
fn needs_the_book(gate: &Gate) -> bool {
    ["includes", "links"].contains(&gate.name)
}

/// Whether two faults can be planted together and still be distinguished.
fn fit(one: &Fault, other: &Fault) -> bool {
    let same_gate = one.1 == other.1 && !needs_the_book(gate(one.1));
    let same_file = one.2 == other.2 && one.2 != PAGE;
    // Cargo doesn't check a manifest that the lock file doesn't fit.
    let lock = |lock: &Fault, other: &Fault| lock.2 == "Cargo.lock" && other.2.contains("Cargo.");
    !(same_gate || same_file || lock(one, other) || lock(other, one))
}

/// Groups the faults into few rounds, because a gate is slow and reads all files.
fn rounds() -> Vec<Vec<&'static Fault>> {
    let mut rounds: Vec<Vec<&Fault>> = Vec::new();
    for fault in FAULTS.iter().filter(|fault| runs(gate(fault.1))) {
        let mut before = rounds.iter_mut();
        match before.find(|round| round.iter().all(|other| fit(fault, other))) {
            Some(round) => round.push(fault),
            None => rounds.push(vec![fault]),
        }
    }
    rounds
}

/// A fault in a copy.
struct Planted {
    gate: &'static str,
    what: &'static str,
    file: String,
    says: String,
}

/// Plants a fault; one that fits any page goes into `page`.
fn plant(fault: &'static Fault, copy: &Path, page: &str) -> Planted {
    let (what, gate, file, plant, says) = fault;
    if let Commit(subject) = plant {
        commit(copy, subject);
        return Planted { gate, what, file: (*file).to_owned(), says: (*says).to_owned() };
    }
    let file = if *file == PAGE { page } else { file };
    let text = fs::read_to_string(copy.join(file)).unwrap_or_default();
    let planted = match plant {
        End(more) => text + more,
        Instead(before, after) => {
            assert!(text.contains(before), "{what}: {file} has no {before:?}");
            text.replacen(before, after, 1)
        }
        New(text) | Commit(text) => (*text).to_owned(),
    };
    let (before, after) = planted.split_once('§').unwrap_or(("", &planted));
    let line = before.matches('\n').count() + 1;
    fs::write(copy.join(file), format!("{before}{after}")).expect("written");
    let says = says.replace(PAGE, file).replace("LINE", &line.to_string());
    let file = file.to_owned();
    Planted { gate, what, file, says }
}

/// Turns a copy into a repository with two commits: one that adds the gate on subjects, and the faulty one.
fn commit(copy: &Path, subject: &str) {
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "tests/gates/commits.rs"],
        &["commit", "--quiet", "--message=Start."],
        &["commit", "--quiet", "--allow-empty", "--message", subject],
    ] {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=Test", "-c", "user.email=test@example.com"]);
        let status = git.args(arguments).current_dir(copy).status();
        assert!(status.expect("git runs").success(), "git {arguments:?}");
    }
}

/// Removes the fault again.
fn restore(planted: &Planted, copy: &Path) {
    let file = &planted.file;
    if file == HEAD {
        return fs::remove_dir_all(copy.join(".git")).expect("as it was");
    }
    let restored = match TREE.files(file, "").next() {
        Some(_) => fs::write(copy.join(file), TREE.read(file)),
        None => fs::remove_file(copy.join(file)),
    };
    restored.expect("as it was");
}

/// The gates that are red on a copy, with their problems. Runs only the gates that read a changed file.
fn red(copy: &Tree, round: &[Planted]) -> BTreeMap<&'static str, Vec<String>> {
    let built = round.iter().any(|it| needs_the_book(gate(it.gate)));
    let asked = GATES.iter().filter(|gate| {
        let read = |file: &str| gate.reads.iter().any(|part| file.contains(part));
        round.iter().any(|it| read(&it.file)) && (built || !needs_the_book(gate))
    });
    asked
        .map(|gate| (gate.name, (gate.problems)(copy)))
        .filter(|(_, problems)| !problems.is_empty())
        .collect()
}

/// Plants a round of faults and lists each fault that its gate misses, and each problem that no fault explains.
fn wrong(round: &[&'static Fault], copy: &Path) -> Vec<String> {
    let pages =
        TREE.pages().filter(|page| page.matches('/').count() == 2 && !page.contains("appendix"));
    let planted: Vec<Planted> =
        round.iter().zip(pages).map(|(fault, page)| plant(fault, copy, page)).collect();
    assert_eq!(planted.len(), round.len(), "there are too few pages");
    let red = red(&Tree::at(copy), &planted);
    planted.iter().for_each(|it| restore(it, copy));
    let said = |it: &&Planted| {
        let problems = red.get(it.gate);
        problems.is_some_and(|said| said.iter().any(|problem| problem.contains(&it.says)))
    };
    let unsaid = planted.iter().filter(|it| !said(it));
    let unsaid = unsaid.map(|it| {
        format!("{}: {} does not say {:?}, but {:#?}", it.what, it.gate, it.says, red.get(it.gate))
    });
    let all = red.iter().flat_map(|(gate, said)| said.iter().map(move |problem| (*gate, problem)));
    // The page to print repeats every fault of the book.
    let all = all.filter(|(_, problem)| !problem.starts_with("print.html"));
    let unasked = all.filter(|(gate, problem)| {
        let about = |it: &Planted| problem.contains(&it.file) || problem.contains(&it.says);
        !planted.iter().any(|it| it.gate == *gate && about(it))
    });
    let unasked = unasked.map(|(gate, problem)| format!("{gate} says {problem:?}"));
    unsaid.chain(unasked).collect()
}

#[test]
fn each_fault_turns_its_gate_red_and_no_other() {
    let rounds = rounds();
    // One copy per processor.
    let copies = rayon::current_num_threads().min(rounds.len());
    let wrong: Vec<String> = (0..copies)
        .into_par_iter()
        .flat_map_iter(|first| {
            let folder = tempfile::tempdir().expect("a folder");
            TREE.copy(folder.path());
            let rounds = rounds.iter().skip(first).step_by(copies);
            rounds.flat_map(move |round| wrong(round, folder.path()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if rounds.iter().map(Vec::len).sum::<usize>() == FAULTS.len() {
        check!("gates.md", &table());
    }
}

#[test]
fn every_gate_has_a_fault() {
    let faults = |gate: &&Gate| !FAULTS.iter().any(|fault| fault.1 == gate.name);
    let untested: Vec<_> = GATES.iter().filter(faults).map(|gate| gate.name).collect();
    assert_eq!(untested, Vec::<&str>::new());
}

/// The table of faults and gates that the book shows.
fn table() -> String {
    let mut table = "| fault | gate | by |\n|---|---|---|\n".to_owned();
    for (what, name, ..) in FAULTS {
        let by = gate(name).program.unwrap_or("our own code");
        writeln!(table, "| {what} | `{name}` | {by} |").expect("written");
    }
    table
}
