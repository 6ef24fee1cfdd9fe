//! The figures outside of the tutorial are recorded from the real services, and still what the services give. Those of
//! the tutorial are recorded where it is followed: `tests/follow_the_book`.
//!
//! `SNAPSHOTS=overwrite cargo test --test recordings` records them anew.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use lab::viewer;
use regex::Regex;
use support::{Setup, Stopped, hung, refused};

/// Every file below src/recordings, with what it should hold now.
#[derive(Default)]
struct Recordings(Vec<(String, String)>);

impl Recordings {
    fn add(&mut self, name: &str, content: String) {
        self.0.push((name.to_owned(), content));
    }

    /// The traces as figures, the earliest first.
    fn add_traces(&mut self, name: &str, stopped: &Stopped) {
        let mut trees = stopped.trees();
        trees.sort_by_key(|tree| tree.start);
        let figures: Vec<String> = trees
            .iter()
            .map(|tree| viewer::waterfall(tree, &viewer::caption(tree)).into_string())
            .collect();
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
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
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

/// Exports nothing before the flush at the end.
fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

/// One request to the services that `setup` gives; they must answer it with `status`.
async fn ask(setup: Setup, status: u16) -> Stopped {
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), status);
    system.stop().await
}

async fn record() -> Recordings {
    let mut recordings = Recordings::default();

    let stopped = ask(setup(), 200).await;
    recordings.add_traces("whole", &stopped);
    recordings.add("whole.txt", stopped.only_tree().to_text());
    recordings.add("whole.svg", viewer::svg(&stopped.only_tree(), 900) + "\n");

    let stopped = ask(setup().without_traceparent(), 200).await;
    recordings.add_traces("fallen-apart", &stopped);

    let (nobody, _kept) = refused();
    let elsewhere = setup().with(
        "user-service",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        format!("http://{nobody}"),
    );
    let stopped = ask(elsewhere, 200).await;
    recordings.add_traces("missing-service", &stopped);
    let lines = stopped.log.find("user-service", "WARN");
    let last = lines.last().expect("a line about the loss");
    let (_, line) = last.split_once(" | ").expect("behind the name");
    recordings.add("lost-spans.txt", redact(line) + "\n");

    let (silent, _) = hung().await;
    let slow = setup()
        .with(
            "user-service",
            "LLM_SERVICE_URL",
            format!("http://{silent}"),
        )
        .with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    recordings.add_traces("slow", &ask(slow, 504).await);

    recordings
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
    record().await.check(&folder, overwrite);
    check_readme(&folder, overwrite);
}

/// A recording that is shown nowhere is compared by nobody.
#[test]
fn every_recording_is_shown() {
    let mut shown = fs::read_to_string(root().join("README.md")).expect("a README");
    for page in lab::book::pages(&root()).expect("the book can be read") {
        shown.push_str(&page.source);
    }
    let unused: Vec<PathBuf> = fs::read_dir(root().join("src/recordings"))
        .expect("the folder of the recordings")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            !shown.contains(&format!("recordings/{name}"))
                && !shown.contains(&format!("recorded: {name}"))
        })
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}
