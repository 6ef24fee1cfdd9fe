//! Follows the tutorial as a reader would: in an empty folder, with the listings and commands on the pages. At every step, the
//! output and the trace must be those on the pages.

mod page;
mod reader;
mod reel;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use course::book::{self, Page};
use course::start::{lines, starter};
use page::{Effort, effort};
use reader::Reader;
use reel::escaped;
use support::includes::includes;
use support::recording::{Compared, check_named, folder};
use support::{is_missing, root};
use walkdir::{DirEntry, WalkDir};

/// The introduction and the tutorial as far as the reader follows it, in the order of the book. What comes after the last step
/// has nothing to do.
fn pages() -> Vec<Page> {
    let mut pages = book::pages(&root()).expect("the book can be read");
    pages.retain(|page| {
        let after = ["what-you-learned.md", "troubleshooting.md"];
        let is_step = !after.iter().any(|name| page.path.ends_with(name));
        page.path.starts_with("src/tutorial") && is_step || page.path.ends_with("introduction.md")
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
    let theirs = files(&reader.project(), &[".gitignore", "Cargo.lock", "target"]);
    // The tutorial doesn't write what its reader doesn't need.
    let except = ["README.md", "queries.trace", "test_distributed_trace.sh", "target"];
    let mut ours = files(&root().join("examples/distributed_tracing"), &except);
    // The manifest names the program that `cargo run` starts in the project.
    let manifest = PathBuf::from("Cargo.toml");
    ours.insert(manifest.clone(), starter(&root())?.remove(&manifest).expect("a manifest"));
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
        let is_mark = |line: &str| line.trim_start().starts_with("// ANCHOR");
        let lines = lines(&text).map(|(line, _)| line).filter(|line| !is_mark(line));
        let name = file.path().strip_prefix(folder).expect("below it").to_owned();
        (name, lines.map(|line| format!("{line}\n")).collect())
    };
    files.map(read).collect()
}

/// The files of the finished example that the last page shows in full.
const FINISHED: [&str; 4] = ["llm_service", "user_service", "api_gateway", "client"];

inventory::submit! {
    Compared(|| FINISHED.map(|file| format!("finished/{file}.html")).to_vec())
}

#[test]
fn the_last_page_marks_what_the_reader_added() {
    for file in FINISHED {
        let path = root().join(format!("examples/distributed_tracing/src/{file}.rs"));
        let source = fs::read_to_string(path).expect("the file");
        let mut html = "<pre class=\"finished\"><code>".to_owned();
        for (line, is_added) in lines(&source) {
            html += &match is_added {
                true => format!("<ins>{}</ins>\n", escaped(line)),
                false => format!("{}\n", escaped(line)),
            };
        }
        check_named(&format!("finished/{file}.html"), &(html + "</code></pre>\n"));
    }
}

/// The book promises 20 minutes, without compiling. `cargo test --test book follow_the_book::reading -- --nocapture` prints the
/// table.
#[test]
fn reading_and_typing_take_no_longer_than_the_book_says() {
    let mut total = Effort::default();
    println!("words  commands  lines  minutes  page");
    for page in pages() {
        let effort = effort(&page.expanded);
        let Effort { words, commands, lines, .. } = effort;
        let (minutes, path) = (effort.minutes(), page.path.display());
        println!("{words:5}  {commands:8}  {lines:5}  {minutes:7.1}  {path}");
        if page.path.starts_with("src/tutorial") && total.lines_before_a_trace.is_none() {
            total.lines_before_a_trace = effort.lines_before_a_trace.map(|it| it + total.lines);
        }
        total = Effort {
            words: total.words + words,
            commands: total.commands + commands,
            lines: total.lines + lines,
            longest: total.longest.max(effort.longest),
            ..total
        };
    }
    let minutes = total.minutes();
    println!("{total:?}: {minutes:.1} minutes from the introduction to the end of step 5");
    assert!(minutes <= 20.0, "{minutes:.1} minutes are more than the 20 of the book");
    assert!(total.lines <= 180, "{} lines are more than 180", total.lines);
    assert!(total.longest <= 45, "a listing of {} lines is longer than 45", total.longest);
    let before = total.lines_before_a_trace.expect("a trace");
    assert!(before <= 75, "{before} lines before the first trace are more than 75");
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
}
