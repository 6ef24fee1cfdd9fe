//! The gates: what nobody would notice in the pages, the listings, the recordings, the crates and the workflows. Each is a
//! test on the repository; `self_test.rs` plants a fault for each in a copy, and sees that it turns red.

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

use crate::support::installed;

/// One thing that must not be wrong.
struct Gate {
    name: &'static str,
    /// The program that it runs, where it is not our own code.
    program: Option<&'static str>,
    /// A part of the path of each file that it reads.
    reads: &'static [&'static str],
    /// The problems, one line for each, with its place.
    problems: fn(&Tree) -> Vec<String>,
}

/// The repository.
static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::at(&crate::support::root()));

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
    markdown: tools::markdown, Some("rumdl"), [".md"];
    blocks: listings::blocks, None, [".md"];
    widths: listings::widths, None, [".rs"];
    anchors: listings::anchors, None, ["src/", "examples/", "crates/"];
    links: links::links, None, ["src/", "examples/", "crates/", "theme/", "book.toml"];
    includes: links::includes, None, ["src/", "examples/", "crates/", "theme/", "book.toml"];
    images: pages::images, None, [".md"];
    glossary: glossary::words, None, [".md"];
    orphans: pages::orphans, None, [".md"];
    recordings: pages::recordings, None, [".md", "src/recordings/"];
    versions: versions::prose, None, [".md", "Cargo.lock", "Cargo.toml", ".ci/run", "tests/"];
    twice: crates::twice, None, ["Cargo.lock"];
    commits: commits::subjects, None, [".git/"];
    // Of the lock file cargo says itself whether the manifests fit.
    members: crates::members, None, ["Cargo.toml"];
    rust_version: crates::rust_version, None, ["Cargo.toml"];
    edition: crates::edition, None, ["tests/skeptic/rustc.rs"];
    licences: tools::licences, Some("cargo-deny"), ["Cargo.toml"];
    workflows: tools::workflows, Some("actionlint"), [".github/"];
    permissions: tools::permissions, Some("zizmor"), [".github/"];
    scripts: tools::scripts, Some("shellcheck"), [".sh", ".ci/"];
}
