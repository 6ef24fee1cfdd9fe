//! Compares the files of the tutorial and those of examples/production with the changes that the page shows.

use crate::exercises::check_changes;
use crate::gates::TREE;
use support::recording::recorded;

#[test]
fn the_files_of_the_tutorial_are_those_of_production_after_the_changes_that_the_page_shows() {
    for (file, recorded) in [
        ("src/telemetry.rs", recorded!("production/telemetry.diff")),
        ("src/incoming.rs", recorded!("production/incoming.diff")),
    ] {
        let [before, after] = ["distributed_tracing", "production"].map(|example| {
            let text = TREE.read(&format!("examples/{example}/{file}"));
            let shown = text.split_inclusive('\n').filter(|line| !line.contains("// ANCHOR"));
            String::from_iter(shown)
        });
        check_changes(file, [&before, &after], recorded);
    }
}
