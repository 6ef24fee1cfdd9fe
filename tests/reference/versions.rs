//! The versions that the book was proved with, from the lock file.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{anchored, code, table};
use crate::support::recording::check;

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
    let example =
        packages.iter().find(|it| text(it, "name") == "distributed_tracing").expect("the example");
    let locked: BTreeMap<&str, &Value> = packages.iter().map(|it| (text(it, "name"), it)).collect();
    let names = example["dependencies"].as_array().expect("a list");
    let names = names.iter().filter(|it| it["kind"].is_null());
    let rows = names.map(|dependency| {
        let package = locked[text(dependency, "name")];
        let rust = package["rust_version"].as_str().unwrap_or("not said");
        vec![code(text(package, "name")), text(package, "version").to_owned(), rust.to_owned()]
    });
    let mut table = table(&["Crate", "Version", "Rust it needs"], rows);
    let rust = text(example, "rust_version");
    table += &format!("\nAll together need Rust {rust}.\n");
    anchored("services", &table)
}

/// Every crate in the graph whose own API holds types of `opentelemetry`: they go together or not at all.
fn joined(packages: &[Value]) -> String {
    let rows = packages.iter().filter_map(|package| {
        let published = !package["source"].is_null();
        let dependencies = package["dependencies"].as_array().expect("a list");
        let wants = dependencies
            .iter()
            .find(|it| text(it, "name") == "opentelemetry" && it["kind"].is_null())?;
        published.then(|| {
            vec![
                code(text(package, "name")),
                text(package, "version").to_owned(),
                code(text(wants, "req")),
            ]
        })
    });
    let head = ["Crate", "Version", "`opentelemetry` that it wants"];
    anchored("joined", &table(&head, rows))
}
