//! Follows the tutorial as a reader would: in an empty folder, with the listings and commands on the pages. At every step, the
//! output and the trace must be those on the pages.

mod page;
mod reader;
mod reel;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use course::book::{self, Page};
use page::effort;
use reader::Reader;
use support::includes::includes;
use support::recording::{Compared, folder};
use support::{binaries, is_missing, root};
use walkdir::{DirEntry, WalkDir};

/// The introduction and the tutorial as far as the reader follows it, in the order of the book. Troubleshooting is for later.
fn pages() -> Vec<Page> {
    let mut pages = book::pages(&root()).expect("the book can be read");
    pages.retain(|page| {
        let tutorial =
            page.path.starts_with("src/tutorial") && !page.path.ends_with("troubleshooting.md");
        tutorial || page.path.ends_with("introduction.md")
    });
    pages
}

/// The pages with steps. The figures of the introduction come from elsewhere.
fn to_follow() -> Vec<Page> {
    let mut pages = pages();
    pages.retain(|page| !page.path.ends_with("introduction.md"));
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_works_as_it_is_printed() -> anyhow::Result<()> {
    if is_missing("curl", "install the package `curl`") {
        return Ok(());
    }
    let pages = to_follow();
    let mut reader = Reader::new(&pages);
    for page in &pages {
        reader.follow(page).await?;
    }
    let scenes = reader.end().await?.iter();
    let scenes = scenes.map(|name| format!("src/recordings/walkthrough/{name}.html"));
    assert_eq!(walkthrough(), Vec::from_iter(scenes), "src/walkthrough.md must show all scenes");
    let theirs = files(&reader.project(), &["Cargo.lock", ".git", ".gitignore", "target"]);
    // The tutorial doesn't write what its reader doesn't need.
    let except = ["README.md", "queries.trace", "test_distributed_trace.sh", "target"];
    let ours = files(&root().join("examples/distributed_tracing"), &except);
    let names: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let different = names.into_iter().filter(|name| theirs.get(*name) != ours.get(*name));
    let different = Vec::from_iter(different);
    assert!(different.is_empty(), "the reader's project is not the example: {different:?} differ");
    Ok(())
}

/// The files that the walkthrough includes.
fn walkthrough() -> Vec<String> {
    let page = "src/walkthrough.md";
    let text = fs::read_to_string(root().join(page)).expect("the page");
    includes(page, &text).into_iter().map(|include| include.file).collect()
}

// The reader compares the recordings on the pages that are followed, and the scenes.
inventory::submit! {
    Compared(|| {
        let pages = to_follow().into_iter();
        let included = pages.flat_map(|page| includes(&page.path.to_string_lossy(), &page.source));
        let files = included.map(|include| include.file).chain(walkthrough());
        files.filter_map(|file| Some(file.strip_prefix("src/recordings/")?.to_owned())).collect()
    })
}

/// Reads every file below `folder`, without the marks that cut a file into listings.
fn files(folder: &Path, except: &[&str]) -> BTreeMap<PathBuf, String> {
    let entries = WalkDir::new(folder).into_iter();
    let entries = entries.filter_entry(|it| !except.iter().any(|name| it.path().ends_with(name)));
    let files = entries.map(|entry| entry.expect("an entry")).filter(|it| it.file_type().is_file());
    let read = |file: DirEntry| {
        let text = fs::read_to_string(file.path()).expect("text");
        let lines = text.lines().filter(|line| !line.starts_with("// ANCHOR"));
        let name = file.path().strip_prefix(folder).expect("below it").to_owned();
        (name, lines.map(|line| format!("{line}\n")).collect())
    };
    files.map(read).collect()
}

/// The minutes that the book promises, without compiling.
const MINUTES: f64 = 20.0;

/// For a reader of 200 words a minute who takes ten seconds for each command and each listing.
/// `cargo test --test book follow_the_book::reading -- --nocapture` prints the table.
#[test]
fn reading_and_typing_take_no_longer_than_the_book_says() {
    let mut total = 0.0;
    println!("words  commands  listings  minutes  page");
    for page in pages() {
        let [words, commands, listings] = effort(&page.expanded);
        let minutes = words as f64 / 200.0 + (commands + listings) as f64 / 6.0;
        println!("{words:5}  {commands:8}  {listings:8}  {minutes:7.1}  {}", page.path.display());
        total += minutes;
    }
    println!("{total:32.1}  from the introduction to the end of the tutorial");
    assert!(total <= MINUTES, "{total:.1} minutes are more than the {MINUTES} of the book");
}

/// All other tests use free ports, so this one compares the defaults.
#[tokio::test(flavor = "multi_thread")]
async fn the_defaults_are_what_the_pages_print() {
    let recorded = |name| fs::read_to_string(folder().join(name)).expect("a recording");
    let settings = recorded("reference/settings.md");
    for (name, default) in [
        ("API_GATEWAY_ADDR", "127.0.0.1:5000"),
        ("USER_SERVICE_ADDR", "127.0.0.1:5001"),
        ("USER_SERVICE_URL", "http://127.0.0.1:5001"),
        ("LLM_SERVICE_ADDR", "127.0.0.1:5002"),
        ("LLM_SERVICE_URL", "http://127.0.0.1:5002"),
    ] {
        let cells = [name, default].map(|it| format!("`{it}`"));
        let mut lines = settings.lines();
        let found = lines.any(|line| cells.iter().all(|cell| line.contains(cell)));
        assert!(found, "{name} is not {default}");
    }
    let help = recorded("help-course.txt");
    for port in ["3000", "4317", "4318", "5000", "5001", "5002"] {
        assert!(help.contains(&format!("[default: 127.0.0.1:{port}]")), "{port}: {help}");
    }
    let mut check = Command::new(binaries().await.join("course"));
    let check = check.args(["check", "--help"]).output().expect("it runs");
    let check = String::from_utf8(check.stdout).expect("text");
    assert!(check.contains("[default: ../distributed_tracing]"), "{check}");
}
