//! Facts about the repository that nobody would notice breaking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    lab::book::root()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(&path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Runs cargo in `folder`, and returns what it prints.
fn cargo(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The packages of the lock file, as cargo sees them.
fn packages() -> Vec<Value> {
    let printed = cargo(&root(), &["metadata", "--format-version=1", "--locked"]);
    let metadata: Value = serde_json::from_slice(&printed).expect("JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

/// Two versions of one OpenTelemetry crate have two sets of globals, and propagation silently does nothing.
#[test]
fn there_is_one_version_of_each_crate_that_carries_the_context() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let text = |key: &str| package[key].as_str().expect("text").to_owned();
        versions
            .entry(text("name"))
            .or_default()
            .insert(text("version"));
    }
    let shared = [
        "axum",
        "http",
        "reqwest",
        "tokio",
        "tower-http",
        "tracing-core",
    ];
    let carries = |name: &str| name.starts_with("opentelemetry") || shared.contains(&name);
    let twice: Vec<_> = versions
        .iter()
        .filter(|(name, all)| carries(name) && all.len() > 1)
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(
        versions.keys().filter(|name| carries(name)).count() > 10,
        "the filter finds nothing"
    );
}

/// A crate that plain `cargo test` leaves out would prove nothing, and nobody would see it.
#[test]
fn cargo_test_tests_every_crate() {
    let printed = cargo(
        &root(),
        &["metadata", "--format-version=1", "--locked", "--no-deps"],
    );
    let metadata: Value = serde_json::from_slice(&printed).expect("JSON");
    let sorted = |key: &str| {
        let list = metadata[key].as_array().expect("a list");
        let mut names: Vec<String> = list.iter().map(Value::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(
        sorted("workspace_default_members"),
        sorted("workspace_members")
    );
}

/// The `rust-version` is the newest that a dependency asks for: not a wish, and not more than needed.
#[test]
fn the_rust_version_is_what_the_dependencies_need() {
    let number = |version: &str| -> Vec<u32> {
        version
            .split('.')
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    let packages = packages();
    let (own, others): (Vec<&Value>, Vec<&Value>) = packages
        .iter()
        .partition(|package| package["source"].is_null());
    let needed = others
        .iter()
        .filter_map(|package| package["rust_version"].as_str())
        .max_by_key(|version| number(version));
    let needed = number(needed.expect("a version"));
    for package in own {
        let version = package["rust_version"]
            .as_str()
            .expect("every package of ours says");
        assert_eq!(number(version)[..2], needed[..2], "{}", package["name"]);
    }
}

/// The blocks of the book are compiled in the edition of `cargo new`.
#[test]
fn the_edition_of_the_blocks_is_the_one_that_readers_get() {
    let folder = tempfile::tempdir().expect("a folder");
    cargo(
        folder.path(),
        &["new", "--quiet", "--vcs", "none", "reader"],
    );
    let manifest = fs::read_to_string(folder.path().join("reader/Cargo.toml")).expect("a manifest");
    let edition = manifest
        .lines()
        .find(|line| line.starts_with("edition"))
        .expect("an edition");
    let expected = edition.replace("edition = ", "const EDITION: &str = ") + ";";
    assert!(
        read("tests/skeptic/rustc.rs").contains(&expected),
        "{expected}"
    );
}

fn markdown(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            markdown(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

/// Every fence of the book: the file, its line, the words behind the fence, and the line above it.
fn fences() -> Vec<(String, String, String)> {
    let mut files = Vec::new();
    markdown(&root().join("src"), &mut files);
    let mut fences = Vec::new();
    for file in files {
        let (mut open, mut above) = (false, "");
        let text = fs::read_to_string(&file).expect("text");
        for (index, line) in text.lines().enumerate() {
            if let Some(info) = line.trim_start().strip_prefix("```") {
                open = !open;
                if open {
                    let place = format!("{}:{}", file.display(), index + 1);
                    fences.push((place, info.to_owned(), above.to_owned()));
                }
            }
            if !line.trim().is_empty() {
                above = line;
            }
        }
        assert!(!open, "{}: a fence is not closed", file.display());
    }
    fences
}

#[test]
fn every_block_of_the_book_says_what_it_is_and_no_rust_is_exempt() {
    for (place, info, above) in fences() {
        assert!(!info.is_empty(), "{place}: the block has no language");
        assert!(
            !info.contains("ignore"),
            "{place}: an ignored block proves nothing"
        );
        let reason = above.starts_with("<!-- no_run: ") && above.ends_with(" -->");
        assert!(
            !info.contains("no_run") || reason,
            "{place}: no_run needs a reason: <!-- no_run: WHY --> above it"
        );
    }
}

#[test]
fn a_line_of_a_listing_fits_on_the_page() {
    let mut folders = vec![root().join("examples")];
    let mut long = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let lines = text
                    .lines()
                    .enumerate()
                    .filter(|(_, line)| line.chars().count() > 85);
                long.extend(lines.map(|(index, _)| format!("{}:{}", path.display(), index + 1)));
            }
        }
    }
    assert!(
        long.is_empty(),
        "longer than 85 characters:\n{}",
        long.join("\n")
    );
}
