//! The outputs and pictures of the book are recorded from the real services, and still what the services give.
//!
//! `SNAPSHOTS=overwrite cargo test --test recordings` records them anew.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::tree::Tree;
use lab::viewer;
use regex::Regex;
use support::{Setup, Stopped, System};

/// Every file below src/recordings, with what it should hold now.
#[derive(Default)]
struct Recordings(Vec<(String, String)>);

impl Recordings {
    fn add(&mut self, name: &str, content: String) {
        self.0.push((name.to_owned(), content));
    }

    /// The traces as text and as a picture, the earliest first.
    fn add_traces(&mut self, name: &str, stopped: &Stopped) {
        let mut trees = stopped.trees();
        trees.sort_by_key(|tree| tree.start);
        let text: Vec<String> = trees.iter().map(Tree::to_text).collect();
        let figures: Vec<String> = trees
            .iter()
            .map(|tree| viewer::waterfall(tree, &viewer::caption(tree)).into_string())
            .collect();
        self.add(&format!("{name}.txt"), text.join("\n"));
        self.add(&format!("{name}.html"), figures.join("\n") + "\n");
    }

    /// Writes them, or compares them with what is there, ids and times aside.
    fn check(&self, folder: &Path, overwrite: bool) {
        let mut stale = Vec::new();
        for (name, content) in &self.0 {
            let path = folder.join(name);
            if overwrite {
                fs::write(&path, content).expect("the recording can be written");
            }
            let recorded = fs::read_to_string(&path).unwrap_or_default();
            if redact(&recorded) != redact(content) {
                stale.push(format!("{name}: recorded\n{recorded}\nbut now\n{content}"));
            }
        }
        let mut unknown: Vec<String> = fs::read_dir(folder)
            .expect("the folder of the recordings")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|file| !self.0.iter().any(|(name, _)| name == file))
            .collect();
        unknown.sort();
        assert_eq!(unknown, Vec::<String>::new(), "files that no test records");
        assert!(
            stale.is_empty(),
            "stale (SNAPSHOTS=overwrite records anew):\n{}",
            stale.join("\n")
        );
    }
}

/// Puts a word in the place of everything that differs from run to run.
fn redact(text: &str) -> String {
    let rules = [
        (r" *\d+\.\d\d ms", " <time>"),
        (r"margin-left:[\d.]+%;width:[\d.]+%", "<place>"),
        (r"\b[0-9a-f]{32}\b", "<trace id>"),
        (r"\b[0-9a-f]{16}\b", "<span id>"),
        (r"date: .*", "date: <now>"),
        (r"127\.0\.0\.1:\d+", "<address>"),
    ];
    rules.iter().fold(text.to_owned(), |text, (pattern, word)| {
        Regex::new(pattern)
            .expect("a pattern")
            .replace_all(&text, *word)
            .into_owned()
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the `curl` that stands on `page` before the answer `name`, against `address`, and returns what it prints;
/// `None` where there is no curl, which is a failure in CI.
fn ask_as_on(page: &str, name: &str, address: SocketAddr) -> Option<String> {
    let text = fs::read_to_string(root().join("src/tutorial").join(page)).expect("the page");
    let include = format!("{{{{#include ../recordings/{name}-answer.txt}}}}");
    let (before, _) = text
        .split_once(&include)
        .unwrap_or_else(|| panic!("{page} shows {name}-answer.txt"));
    let (_, block) = before.rsplit_once("```sh\n").expect("a command before it");
    let (command, _) = block.split_once("```").expect("the end of the block");
    assert!(command.starts_with("curl "), "{page}: {command}");
    let port = Regex::new(r"127\.0\.0\.1:\d+").expect("a pattern");
    let command = port.replace(command, address.to_string());
    let output = Command::new("sh")
        .args(["-c", &command])
        .env("NO_PROXY", "*")
        .output()
        .expect("a shell");
    if output.status.code() == Some(127) {
        assert!(std::env::var_os("CI").is_none(), "curl is missing");
        eprintln!("skipped: curl is missing; install the package `curl`");
        return None;
    }
    Some(
        String::from_utf8(output.stdout)
            .expect("text")
            .replace('\r', "")
            + "\n",
    )
}

/// Exports nothing before the flush at the end.
fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

async fn record() -> Option<Recordings> {
    let mut recordings = Recordings::default();

    let system = setup().start().await;
    recordings.add(
        "step-1-answer.txt",
        ask_as_on("llm-service.md", "step-1", system.llm.address)?,
    );
    recordings.add_traces("step-1", &system.stop().await);

    let system = setup().start().await;
    recordings.add(
        "step-2-answer.txt",
        ask_as_on("user-service.md", "step-2", system.user.address)?,
    );
    recordings.add_traces("step-2", &system.stop().await);

    let system = setup().start().await;
    recordings.add(
        "whole-answer.txt",
        ask_as_on("api-gateway.md", "whole", system.gateway.address)?,
    );
    let stopped = system.stop().await;
    recordings.add_traces("whole", &stopped);
    recordings.add("whole.svg", viewer::svg(&stopped.only_tree(), 900) + "\n");

    let system = setup().start().await;
    let answer = ask_as_on("break-it.md", "unknown-user", system.gateway.address)?;
    recordings.add("unknown-user-answer.txt", answer);
    recordings.add_traces("unknown-user", &system.stop().await);

    let System {
        gateway,
        user,
        llm,
        store,
        log,
    } = setup().start().await;
    llm.stop().await;
    recordings.add(
        "llm-down-answer.txt",
        ask_as_on("break-it.md", "llm-down", gateway.address)?,
    );
    gateway.stop().await;
    user.stop().await;
    recordings.add_traces("llm-down", &Stopped { store, log });

    let system = setup().without_traceparent().start().await;
    let answer = ask_as_on("break-it.md", "fallen-apart", system.gateway.address)?;
    recordings.add("fallen-apart-answer.txt", answer);
    recordings.add_traces("fallen-apart", &system.stop().await);

    Some(recordings)
}

/// The README shows a recording between the fences behind `<!-- recorded: whole.txt -->`.
fn check_readme(recordings: &Path, overwrite: bool) {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("a README");
    let mark = "<!-- recorded: whole.txt -->\n```text\n";
    let (before, rest) = readme.split_once(mark).expect("the mark");
    let (shown, after) = rest.split_once("```").expect("the end of the block");
    let recorded = fs::read_to_string(recordings.join("whole.txt")).expect("a recording");
    if overwrite {
        fs::write(&path, format!("{before}{mark}{recorded}```{after}"))
            .expect("the README can be written");
    } else {
        assert_eq!(
            shown, recorded,
            "the README does not show the recorded trace"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recordings_of_the_book_are_what_the_services_give_today() {
    let folder = root().join("src/recordings");
    let overwrite = std::env::var("SNAPSHOTS").is_ok_and(|mode| mode == "overwrite");
    if let Some(recordings) = record().await {
        recordings.check(&folder, overwrite);
    }
    check_readme(&folder, overwrite);
}
