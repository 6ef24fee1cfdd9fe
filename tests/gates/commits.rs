//! The subjects of commits: imperative, and at most 72 characters.

use std::process::Command;

use super::TREE;
use super::tree::Tree;
use support::skips;

/// This file. Commits from before it was added have subjects of another style.
const SINCE: &str = "tests/gates/commits.rs";

/// First words that aren't verbs.
const NO_VERBS: [&str; 8] = ["A", "An", "How", "One", "The", "This", "Two", "What"];

/// Imperatives that end like another form of a verb.
const IMPERATIVES: [&str; 6] = ["Alias", "Bring", "Embed", "Focus", "Ping", "Shed"];

fn problem(subject: &str) -> Option<&'static str> {
    let first = subject.split(' ').next().unwrap_or_default();
    let other_form = first.ends_with("ing")
        || first.ends_with("ed") && !first.ends_with("eed")
        || first.ends_with('s') && !first.ends_with("ss");
    if subject.chars().count() > 72 {
        Some("longer than 72 characters")
    } else if !first.starts_with(|it: char| it.is_ascii_uppercase()) {
        Some("does not begin with a capital letter")
    } else if NO_VERBS.contains(&first) || other_form && !IMPERATIVES.contains(&first) {
        Some("does not begin with an imperative")
    } else if subject.ends_with('.') {
        Some("ends with a full stop")
    } else {
        None
    }
}

/// Finds the subjects of another style, among the commits that build upon the one that has added this file.
pub fn subjects(tree: &Tree) -> Vec<String> {
    let Some(commits) = commits(tree) else {
        if tree.root() == TREE.root() {
            let instead = "clone the repository with git, or run `git fetch --unshallow`";
            skips::skipped_even_in_ci("the history of commits", instead);
        }
        return Vec::new();
    };
    let problems = commits.lines().filter_map(|commit| {
        let (id, subject) = commit.split_once(' ')?;
        Some(format!("commit {id}: {subject:?} {}", problem(subject)?))
    });
    problems.collect()
}

/// The commits, one a line; `None` if git doesn't know them all.
fn commits(tree: &Tree) -> Option<String> {
    let git = |arguments: &[&str]| -> Option<String> {
        let git = Command::new("git").args(arguments).current_dir(tree.root()).output();
        String::from_utf8(git.ok().filter(|it| it.status.success())?.stdout).ok()
    };
    if git(&["rev-parse", "--is-shallow-repository"])?.trim() == "true" {
        return None;
    }
    let added = git(&["log", "--diff-filter=A", "--format=%H", "--", SINCE])?;
    let since = format!("{}..HEAD", added.lines().last()?);
    git(&["log", "--no-merges", "--ancestry-path", "--format=%h %s", &since])
}

#[test]
fn a_subject_is_a_short_imperative() {
    for right in
        ["Report skipped tests", "Pass the deadline on", "Speed up the gates", "Bring it back"]
    {
        assert_eq!(problem(right), None, "{right}");
    }
    let long = format!("Read {}", "x".repeat(68));
    for (wrong, expected) in [
        (&*long, "longer than 72 characters"),
        ("report skipped tests", "does not begin with a capital letter"),
        ("Reports skipped tests", "does not begin with an imperative"),
        ("Reported skipped tests", "does not begin with an imperative"),
        ("Reporting skipped tests", "does not begin with an imperative"),
        ("The skipped tests are reported", "does not begin with an imperative"),
        ("Report skipped tests.", "ends with a full stop"),
        ("", "does not begin with a capital letter"),
    ] {
        assert_eq!(problem(wrong), Some(expected), "{wrong}");
    }
}
