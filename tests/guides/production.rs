//! Compares the files of the tutorial and those of examples/production with the changes that the page shows.

use crate::exercises::check_changes;
use crate::gates::TREE;
use support::recording::recorded;

#[test]
fn the_method_is_known_after_the_change_that_the_page_shows() {
    let read = |example| TREE.read(&format!("examples/{example}/src/incoming.rs"));
    let before = read("distributed_tracing");
    let shown = before.split_inclusive('\n').filter(|line| !line.contains("// ANCHOR"));
    let before = String::from_iter(shown);
    let recorded = recorded!("production/incoming.diff");
    check_changes("src/incoming.rs", [&before, &read("production")], recorded);
}
