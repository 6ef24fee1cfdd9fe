//! The gates: tests that read the repository and find faults that nobody would notice in pages, listings, recordings, crates and
//! workflows. `self_test.rs` plants a fault for each gate in a copy and expects it to turn red.

mod binaries;
mod commits;
mod crates;
mod glossary;
mod links;
mod listings;
mod pages;
mod phrases;
mod self_test;
mod tools;
mod tree;
mod versions;

use std::sync::LazyLock;

use tree::Tree;

use support::installed;

/// One rule about the repository.
struct Gate {
    name: &'static str,
    /// The program that it runs; `None` if the rule is our own code.
    program: Option<&'static str>,
    /// It reads the files whose paths contain one of these.
    reads: &'static [&'static str],
    /// Lists the problems, one per line, with their places.
    problems: fn(&Tree) -> Vec<String>,
}

/// The repository.
pub static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::at(&support::root()));

macro_rules! gates {
    ($($name:ident: $problems:path, $program:expr, $reads:expr;)*) => {
        const GATES: &[Gate] = &[$(Gate {
            name: stringify!($name),
            program: $program,
            reads: &$reads,
            problems: $problems,
        }),*];

        $(#[test]
        fn $name() {
            let program: Option<&str> = $program;
            if program.is_some() && installed("gates").is_none() {
                return;
            }
            let problems = $problems(&TREE);
            assert!(problems.is_empty(), "{}", problems.join("\n"));
        })*
    };
}

gates! {
    spelling: tools::spelling, Some("typos"), [""];
    phrases: phrases::turns, None, [""];
    markdown: tools::markdown, Some("rumdl"), [".md", ".rumdl.toml"];
    blocks: listings::blocks, None, [".md"];
    widths: listings::widths, None, [".rs"];
    anchors: listings::anchors, None, ["src/", "examples/", "crates/"];
    links: links::links, None, ["src/", "examples/", "crates/", "theme/", "book.toml"];
    includes: links::includes, None, ["src/", "examples/", "crates/", "theme/", "book.toml"];
    glossary: glossary::words, None, [".md"];
    orphans: pages::orphans, None, [".md"];
    recordings: pages::recordings, None, [".md", "src/recordings/"];
    versions: versions::prose, None, [".md", "Cargo.lock", "Cargo.toml", ".ci/run", "tests/"];
    twice: crates::twice, None, ["Cargo.lock"];
    telemetry: crates::telemetry, None, ["Cargo.toml"];
    commits: commits::subjects, None, [".git/"];
    // Cargo itself checks that the lock file fits the manifests.
    members: crates::members, None, ["Cargo.toml"];
    rust_version: crates::rust_version, None, ["Cargo.toml"];
    edition: crates::edition, None, ["tests/skeptic/rustc.rs"];
    licences: tools::licences, Some("cargo-deny"), ["Cargo.toml"];
    workflows: tools::workflows, Some("actionlint"), [".github/"];
    permissions: tools::permissions, Some("zizmor"), [".github/"];
    scripts: tools::scripts, Some("shellcheck"), [".sh", ".ci/"];
}
