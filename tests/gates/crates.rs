//! Facts about the crates that nobody would notice breaking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use regex::Regex;
use serde_json::Value;

use super::tree::{Tree, cargo};

/// The versions of each crate in the lock file.
pub fn locked(tree: &Tree) -> BTreeMap<String, BTreeSet<String>> {
    let entry = Regex::new("(?m)^name = \"(.+)\"\r?\nversion = \"(.+)\"").expect("a pattern");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for found in entry.captures_iter(&tree.read("Cargo.lock")) {
        versions.entry(found[1].to_owned()).or_default().insert(found[2].to_owned());
    }
    versions
}

/// Two versions of one OpenTelemetry crate have two sets of globals, and propagation silently does nothing. The same goes
/// for the other crates that carry the context.
pub fn twice(tree: &Tree) -> Vec<String> {
    let shared = ["axum", "http", "reqwest", "tokio", "tower-http", "tracing-core"];
    let mut locked = locked(tree);
    locked.retain(|name, _| name.starts_with("opentelemetry") || shared.contains(&name.as_str()));
    if locked.len() <= 10 {
        return vec!["Cargo.lock: it has too few crates to be true".to_owned()];
    }
    let twice = locked.into_iter().filter(|(_, all)| all.len() > 1);
    twice.map(|(name, all)| format!("Cargo.lock: {name} is there twice: {all:?}")).collect()
}

/// A program that depends on these crates must keep its own version of OpenTelemetry, so none of their normal dependencies may be
/// one of its crates.
pub fn telemetry(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for package in ["one-trace-lab", "trace-expect", "traces", "traces-receiver"] {
        let arguments =
            ["tree", "--locked", "--edges=normal", "--prefix=none", "--package", package];
        let printed = String::from_utf8(cargo(tree.root(), &arguments)).expect("text");
        let names = printed.lines().filter_map(|line| line.split(' ').next());
        let crates: BTreeSet<&str> = names.filter(|it| it.starts_with("opentelemetry")).collect();
        problems.extend(crates.iter().map(|it| format!("Cargo.toml of {package}: it needs {it}")));
    }
    problems
}

/// A crate that plain `cargo test` leaves out would prove nothing, and nobody would see it.
pub fn members(tree: &Tree) -> Vec<String> {
    let list = |key: &str| tree.metadata()[key].as_array().expect("a list");
    let tested = list("workspace_default_members");
    let left = list("workspace_members").iter().filter(|member| !tested.contains(member));
    left.map(|member| format!("Cargo.toml: default-members lacks {member}")).collect()
}

/// The `rust-version` is the newest that a dependency asks for: not a wish, and not more than needed.
pub fn rust_version(tree: &Tree) -> Vec<String> {
    let number = |version: &str| -> Vec<u32> {
        version.split('.').filter_map(|part| part.parse().ok()).take(2).collect()
    };
    let packages = tree.metadata()["packages"].as_array().expect("a list");
    let (own, others): (Vec<&Value>, Vec<&Value>) =
        packages.iter().partition(|package| package["source"].is_null());
    let versions = others.iter().filter_map(|package| package["rust_version"].as_str());
    let needed = versions.max_by_key(|version| number(version)).expect("a version");
    let said = |package: &Value| number(package["rust_version"].as_str().unwrap_or_default());
    let wrong = own.into_iter().filter(|package| said(package) != number(needed));
    let problem = |package: &Value| {
        let (name, said) = (&package["name"], &package["rust_version"]);
        format!("Cargo.toml of {name}: rust-version is {said}, and {needed} is needed")
    };
    wrong.map(problem).collect()
}

/// The blocks of the book are compiled in the edition of `cargo new`.
pub fn edition(tree: &Tree) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    cargo(folder.path(), &["new", "--quiet", "--vcs", "none", "reader"]);
    let manifest = fs::read_to_string(folder.path().join("reader/Cargo.toml")).expect("a manifest");
    let edition = manifest.lines().find_map(|line| line.strip_prefix("edition = "));
    let edition = edition.expect("an edition");
    let file = "tests/skeptic/rustc.rs";
    let same = tree.read(file).contains(&format!("const EDITION: &str = {edition};"));
    let problem = format!("{file}: EDITION is not {edition}, which `cargo new` gives");
    Vec::from_iter((!same).then_some(problem))
}
