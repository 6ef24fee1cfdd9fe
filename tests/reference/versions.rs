//! The versions that the book was proved with, from the lock file.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{anchored, code, table};
use support::recording::check;

#[test]
fn the_versions_are_those_of_the_lock_file() {
    let metadata = crate::gates::TREE.metadata();
    let packages = metadata["packages"].as_array().expect("a list");
    check!("reference/versions.md", &(used(packages) + &joined(packages)),);
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The dependencies of the services in their locked versions. `tests/gates` checks that each exists only once.
fn used(packages: &[Value]) -> String {
    let example = packages.iter().find(|it| text(it, "name") == "production").expect("the example");
    let locked: BTreeMap<&str, &Value> = packages.iter().map(|it| (text(it, "name"), it)).collect();
    let dependencies = example["dependencies"].as_array().expect("a list").iter();
    let of_the_service = |it: &&Value| it["kind"].is_null() && it["path"].is_null();
    let rows = dependencies.filter(of_the_service).map(|dependency| {
        let package = locked[text(dependency, "name")];
        let rust = package["rust_version"].as_str().unwrap_or("not said");
        vec![code(text(package, "name")), text(package, "version").to_owned(), rust.to_owned()]
    });
    let table = table(&["Crate", "Version", "Rust it needs"], rows);
    let rust = text(example, "rust_version");
    anchored("services", &format!("{table}\nAll together need Rust {rust}.\n"))
}

/// Every crate in the graph whose own API holds types of `opentelemetry`: they go together or not at all.
fn joined(packages: &[Value]) -> String {
    let published = packages.iter().filter(|package| !package["source"].is_null());
    let rows = published.filter_map(|package| {
        let mut dependencies = package["dependencies"].as_array().expect("a list").iter();
        let wanted =
            dependencies.find(|it| text(it, "name") == "opentelemetry" && it["kind"].is_null())?;
        let version = text(package, "version").to_owned();
        Some(vec![code(text(package, "name")), version, code(text(wanted, "req"))])
    });
    let head = ["Crate", "Version", "`opentelemetry` that it wants"];
    anchored("joined", &table(&head, rows))
}
