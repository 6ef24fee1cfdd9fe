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
    fn check(&self, folder: &Path) {
        let overwrite = std::env::var("SNAPSHOTS").is_ok_and(|mode| mode == "overwrite");
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

/// What `curl` prints; `None` where there is no curl, which is a failure in CI.
fn curl(arguments: &[&str]) -> Option<String> {
    match Command::new("curl")
        .args(["--silent", "--noproxy", "*"])
        .args(arguments)
        .output()
    {
        Ok(output) => Some(
            String::from_utf8(output.stdout)
                .expect("text")
                .replace('\r', ""),
        ),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "curl is missing: {error}");
            eprintln!("skipped: curl is missing ({error}); install the package `curl`");
            None
        }
    }
}

/// `curl` as the tutorial has it: a JSON body, and further arguments.
fn post(address: SocketAddr, path: &str, body: &str, more: &[&str]) -> Option<String> {
    let url = format!("http://{address}{path}");
    let mut arguments = vec![
        url.as_str(),
        "-H",
        "content-type: application/json",
        "-d",
        body,
    ];
    arguments.extend(more);
    curl(&arguments).map(|output| output + "\n")
}

const QUERY: &str = r#"{"user_id": "user_1", "query": "What is a trace?"}"#;

/// Exports nothing before the flush at the end.
fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

async fn record() -> Option<Recordings> {
    let mut recordings = Recordings::default();

    let system = setup().start().await;
    let traceparent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = r#"{"prompt": "What is a trace?"}"#;
    recordings.add(
        "step-1-answer.txt",
        post(system.llm.address, "/generate", body, &["-H", traceparent])?,
    );
    recordings.add_traces("step-1", &system.stop().await);

    let system = setup().start().await;
    let traceparent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    recordings.add(
        "step-2-answer.txt",
        post(system.user.address, "/process", QUERY, &["-H", traceparent])?,
    );
    recordings.add_traces("step-2", &system.stop().await);

    let system = setup().start().await;
    recordings.add(
        "whole-answer.txt",
        post(system.gateway.address, "/api/query", QUERY, &[])?,
    );
    let stopped = system.stop().await;
    recordings.add_traces("whole", &stopped);
    recordings.add("whole.svg", viewer::svg(&stopped.only_tree(), 900) + "\n");

    let system = setup().start().await;
    let query = QUERY.replace("user_1", "stranger");
    recordings.add(
        "unknown-user-answer.txt",
        post(system.gateway.address, "/api/query", &query, &["-i"])?,
    );
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
        post(gateway.address, "/api/query", QUERY, &["-i"])?,
    );
    gateway.stop().await;
    user.stop().await;
    recordings.add_traces("llm-down", &Stopped { store, log });

    let system = setup().without_traceparent().start().await;
    recordings.add(
        "fallen-apart-answer.txt",
        post(system.gateway.address, "/api/query", QUERY, &["-i"])?,
    );
    recordings.add_traces("fallen-apart", &system.stop().await);

    Some(recordings)
}

/// What the README shows of a recording, between the fences behind `<!-- recorded: NAME -->`.
#[test]
fn the_readme_shows_the_recorded_trace() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let (_, rest) = readme
        .split_once("<!-- recorded: whole.txt -->\n```text\n")
        .expect("the mark");
    let (shown, _) = rest.split_once("```").expect("the end of the block");
    let recorded =
        fs::read_to_string(root().join("src/recordings/whole.txt")).expect("a recording");
    assert_eq!(redact(shown), redact(&recorded));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recordings_of_the_book_are_what_the_services_give_today() {
    if let Some(recordings) = record().await {
        recordings.check(&root().join("src/recordings"));
    }
}
