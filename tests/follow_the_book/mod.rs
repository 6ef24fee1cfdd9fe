//! Follows the tutorial as a reader would: an empty folder, the listings and commands as the pages give them, and at
//! every step the output and the trace that the pages show.

mod page;
mod reader;
mod reel;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support;
use crate::support::includes::includes;
use crate::support::recording::Compared;
use course::book::{self, Page};
use page::Effort;
use reader::Reader;

/// The introduction and the tutorial, in the order of the book.
fn pages() -> Vec<Page> {
    let pages = book::pages(&support::root()).expect("the book can be read");
    let tutorial = pages.into_iter().filter(|page| {
        page.path.starts_with("src/tutorial") || page.path.ends_with("introduction.md")
    });
    tutorial.collect()
}

/// Whether the reader comes here on the way: other pages are for later.
fn on_the_way(page: &Page) -> bool {
    !page.path.ends_with("troubleshooting.md")
}

/// Whether there is something to do: the figures of the introduction come from elsewhere.
fn to_follow(page: &Page) -> bool {
    on_the_way(page) && !page.path.ends_with("introduction.md")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_works_as_it_is_printed() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let pages: Vec<Page> = pages().into_iter().filter(to_follow).collect();
    let mut reader = Reader::new(pages.iter().map(|page| &*page.expanded));
    for page in &pages {
        reader.follow(page).await;
    }
    reader.nothing_runs();
    let scenes = reader.last_scene().await;
    is_shown(&scenes);
    let theirs = files(&reader.project(), &["Cargo.lock", ".git", ".gitignore", "target"]);
    // What a reader does not need, and the tutorial does not write.
    let except = ["README.md", "test_distributed_trace.sh", "target"];
    let ours = files(&support::root().join("examples/distributed_tracing"), &except);
    let names: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let different: Vec<_> =
        names.into_iter().filter(|name| theirs.get(*name) != ours.get(*name)).collect();
    assert!(different.is_empty(), "the reader's project is not the example: {different:?} differ");
}

/// The walkthrough shows all scenes in their order.
fn is_shown(scenes: &[String]) {
    let file = |name: &String| format!("src/recordings/walkthrough/{name}.html");
    assert_eq!(walkthrough(), scenes.iter().map(file).collect::<Vec<_>>());
}

/// The files that the walkthrough includes.
fn walkthrough() -> Vec<String> {
    let page = "src/walkthrough.md";
    let text = fs::read_to_string(support::root().join(page)).expect("the page");
    let included = includes(page, &text).into_iter().map(|include| include.file);
    included.collect()
}

// The reader compares the recordings on the pages that are followed, and the scenes.
inventory::submit! {
    Compared(|| {
        let followed = pages().into_iter().filter(to_follow);
        let included = followed.flat_map(|page| includes(&page.path.to_string_lossy(), &page.source));
        let files = included.map(|include| include.file).chain(walkthrough());
        files.filter_map(|file| Some(file.strip_prefix("src/recordings/")?.to_owned())).collect()
    })
}

/// Reads every file below `folder`, without the marks that cut a file into listings.
fn files(folder: &Path, except: &[&str]) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(folder).expect("below it").to_owned();
            if except.iter().any(|except| name.as_path() == Path::new(except)) {
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

/// `cargo test --test book follow_the_book::reading -- --nocapture` prints the table.
#[test]
fn reading_and_typing_take_no_longer_than_the_book_says() {
    let mut total = 0.0;
    println!("words  commands  listings  minutes  page");
    for page in pages() {
        let effort = Effort::of(&page.expanded);
        let Effort { words, commands, listings } = effort;
        let minutes = effort.minutes();
        println!("{words:5}  {commands:8}  {listings:8}  {minutes:7.1}  {}", page.path.display());
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

/// The tests give everything other ports, so the defaults are compared here.
#[tokio::test(flavor = "multi_thread")]
async fn the_defaults_are_what_the_pages_print() {
    let settings = support::recording::folder().join("reference/settings.md");
    let settings = fs::read_to_string(settings).expect("a recording");
    for (name, default) in [
        ("API_GATEWAY_ADDR", "127.0.0.1:5000"),
        ("USER_SERVICE_ADDR", "127.0.0.1:5001"),
        ("USER_SERVICE_URL", "http://127.0.0.1:5001"),
        ("LLM_SERVICE_ADDR", "127.0.0.1:5002"),
        ("LLM_SERVICE_URL", "http://127.0.0.1:5002"),
    ] {
        let row = |line: &str| {
            line.contains(&format!("`{name}`")) && line.contains(&format!("`{default}`"))
        };
        assert!(settings.lines().any(row), "{name} is not {default}");
    }
    let help = |arguments: &'static [&'static str]| async move {
        let course = support::binaries().await.join("course");
        let output = tokio::process::Command::new(course).args(arguments).output().await;
        String::from_utf8(output.expect("the lab runs").stdout).expect("text")
    };
    let lab = help(&["--help"]).await;
    for port in ["3000", "4317", "4318", "5000", "5001", "5002"] {
        assert!(lab.contains(&format!("[default: 127.0.0.1:{port}]")), "{port}: {lab}");
    }
    let check = help(&["check", "--help"]).await;
    assert!(check.contains("[default: ../distributed_tracing]"), "{check}");
}
