//! Follows the tutorial as a reader would: an empty folder, the listings and commands as the pages give them, and at
//! every step the output and the trace that the pages show.
//!
//! `SNAPSHOTS=overwrite cargo test --test follow_the_book` records the outputs and figures of the tutorial anew.

mod page;
mod reader;
#[path = "../support/mod.rs"]
mod support;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lab::book::{self, Page};
use page::Effort;
use reader::Reader;

/// The introduction and the tutorial, in the order of the book.
fn pages() -> Vec<Page> {
    let pages = book::pages(&book::root()).expect("the book can be read");
    let tutorial = pages.into_iter().filter(|page| {
        page.path.starts_with("src/tutorial") || page.path.ends_with("introduction.md")
    });
    tutorial.collect()
}

/// Whether the reader comes here on the way: other pages are for later.
fn on_the_way(page: &Page) -> bool {
    !page.path.ends_with("troubleshooting.md")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_works_as_it_is_printed() {
    let missing = ["curl", "git"].into_iter().find(|program| {
        let version = std::process::Command::new(program)
            .arg("--version")
            .output();
        version.is_err()
    });
    if let Some(program) = missing {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing");
        eprintln!("skipped: {program} is missing; install the package `{program}`");
        return;
    }
    let pages: Vec<Page> = pages().into_iter().filter(on_the_way).collect();
    let mut reader = Reader::new(pages.iter().map(|page| &*page.expanded));
    for page in &pages {
        if page.expanded.to_lowercase().contains("in terminal") {
            reader.follow(page).await;
        }
    }
    reader.nothing_runs();
    let theirs = files(
        &reader.project(),
        &["Cargo.lock", ".git", ".gitignore", "target"],
    );
    // What a reader does not need, and the tutorial does not write.
    let except = [
        "README.md",
        "rustfmt.toml",
        "test_distributed_trace.sh",
        "target",
    ];
    let ours = files(&book::root().join("examples/distributed_tracing"), &except);
    let names: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let different: Vec<_> = names
        .into_iter()
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .collect();
    assert!(
        different.is_empty(),
        "the reader's project is not the example: {different:?} differ"
    );
}

/// Every file below `folder` with its text, but for the marks that cut a file into listings.
fn files(folder: &Path, except: &[&str]) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(folder).expect("below it").to_owned();
            if except
                .iter()
                .any(|except| name.as_path() == Path::new(except))
            {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            let lines = text.lines().filter(|line| !line.starts_with("// ANCHOR"));
            files.insert(name, lines.map(|line| format!("{line}\n")).collect());
        }
    }
    files
}

/// The minutes that the book promises, compiling not counted.
const MINUTES: f64 = 20.0;

/// `cargo test --test follow_the_book reading -- --nocapture` prints the table.
#[test]
fn reading_and_typing_take_no_longer_than_the_book_says() {
    let mut total = 0.0;
    println!("words  commands  listings  minutes  page");
    for page in pages() {
        let effort = Effort::of(&page.expanded).expect("a page to follow");
        let Effort {
            words,
            commands,
            listings,
        } = effort;
        let minutes = effort.minutes();
        println!(
            "{words:5}  {commands:8}  {listings:8}  {minutes:7.1}  {}",
            page.path.display()
        );
        if on_the_way(&page) {
            total += minutes;
        }
    }
    println!("{total:32.1}  from the introduction to the end of the tutorial");
    assert!(
        total <= MINUTES,
        "{total:.1} minutes are more than the {MINUTES} that the book promises"
    );
}
