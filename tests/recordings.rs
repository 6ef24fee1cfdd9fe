//! Compares the figures and outputs that belong to no single page with new runs of the services. `tests/follow_the_book` compares
//! those of the tutorial.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use crate::support::recording::{self, check, figures, redact};
use crate::support::{FREE, Setup, Stopped, binaries, hung, refused};
use course::services::is_setting;
use lab::diagnose::diagnose;
use lab::process;
use lab::{otlp, waterfall};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Services that export nothing before their last flush.
fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

/// Sends one request to new services, which must answer with `status`.
async fn ask(setup: Setup, status: u16) -> Stopped {
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), status);
    system.stop().await
}

/// Fails if a rule finds a fault: these traces have none.
fn is_sound(stopped: &Stopped) {
    assert_eq!(diagnose(&stopped.trees(), &[]), []);
}

/// The figure of all traces, the earliest first.
fn figure(stopped: &Stopped) -> String {
    let mut trees = stopped.trees();
    trees.sort_by_key(|tree| tree.start);
    figures(&trees)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_trace_is_what_the_pages_and_the_readme_show() {
    let stopped = ask(setup(), 200).await;
    is_sound(&stopped);
    let tree = stopped.only_tree();
    check!("whole.html", &figure(&stopped));
    check!("whole.txt", &tree.to_text());
    check!("whole.svg", &(waterfall::svg(&tree, 900) + "\n"));
    show_in_readme();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_headers_leave_the_recorded_traces() {
    let stopped = ask(setup().without_traceparent(), 200).await;
    check!("fallen-apart.html", &figure(&stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_spans_leave_the_recorded_gap_and_a_warning() {
    let (nobody, _kept) = refused();
    let key = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let setup = setup().with("user-service", key, format!("http://{nobody}"));
    let stopped = ask(setup, 200).await;
    check!("missing-service.html", &figure(&stopped));
    let lines = stopped.log.find("user-service", "WARN");
    let (_, line) =
        lines.last().and_then(|line| line.split_once(" | ")).expect("a line about the loss");
    check!("lost-spans.txt", &(redact(line) + "\n"));
}

/// Services whose user-service calls `address` instead of llm-service.
fn with_llm_at(address: SocketAddr) -> Setup {
    setup().with("user-service", "LLM_SERVICE_URL", format!("http://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_leaves_the_recorded_trace() {
    let (silent, _) = hung().await;
    let setup = with_llm_at(silent).with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    let stopped = ask(setup, 504).await;
    is_sound(&stopped);
    check!("slow.html", &figure(&stopped));
}

/// Returns the output of one of our programs. The settings of this machine are removed.
async fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(binaries().await.join(program));
    for (key, _) in std::env::vars() {
        if is_setting(&key) || key.starts_with("LAB_") {
            command.env_remove(key);
        }
    }
    let output = command.args(arguments).output().await.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_print_the_recorded_help() {
    check!("help.txt", &output("lab", &["--help"]).await);
    check!("help-view.txt", &output("lab", &["view", "--help"]).await);
    check!("help-course.txt", &output("course", &["--help"]).await);
    let help = output("lab", &["break", "--help"]).await;
    let faults = help.split("Faults:\n").nth(1).expect("the faults");
    let faults = faults.split("\n\n").next().expect("a list");
    check!("faults.txt", &format!("{faults}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_prints_the_recorded_list_and_trace() {
    let stopped = ask(setup(), 200).await;
    let (nobody, _kept) = refused();
    let failed = ask(with_llm_at(nobody), 502).await;
    // The list is in order of arrival, whichever service stops first.
    let traces =
        [stopped, failed].map(|it| it.store.trace(it.only_tree().trace_id).expect("a trace"));
    let lines = traces.map(|spans| {
        let request = otlp::to_request(spans.iter().map(AsRef::as_ref));
        serde_json::to_string(&request).expect("JSON")
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("traces.jsonl");
    fs::write(&path, lines.join("\n")).expect("written");
    let mut serving = Command::new(binaries().await.join("lab"));
    serving
        .args(["view", "--site", FREE, "--otlp", FREE, "--grpc", FREE])
        .arg("--open")
        .arg(&path)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut serving = process::spawn(serving).expect("it starts");
    let mut lines = BufReader::new(serving.stdout.take().expect("an output")).lines();
    let site = loop {
        let line = lines.next_line().await.expect("text").expect("it starts");
        if let Some(address) = line.strip_prefix("Traces   http://") {
            break address.trim_end_matches("/traces").to_owned();
        }
    };
    // One recording, because the page shows it as one session.
    let list = output("lab", &["traces", "--site", &site]).await;
    let trace = output("lab", &["trace", "--site", &site]).await;
    let session = [("list", list), ("trace", trace)].map(|(name, text)| {
        let (begin, end) = ("ANCHOR", "ANCHOR_END");
        format!("{begin}: {name}\n{text}{end}: {name}\n")
    });
    check!("terminal.txt", &session.concat());
}

/// Compares or rewrites the block of the README behind `<!-- recorded: whole.txt -->`.
fn show_in_readme() {
    let path = crate::support::root().join("README.md");
    let readme = fs::read_to_string(&path).expect("a README");
    let mark = "<!-- recorded: whole.txt -->\n```text\n";
    let (before, rest) = readme.split_once(mark).expect("the mark");
    let (shown, after) = rest.split_once("```").expect("the end of the block");
    let recorded = fs::read_to_string(recording::folder().join("whole.txt")).expect("a recording");
    if recording::overwrite() {
        fs::write(&path, format!("{before}{mark}{recorded}```{after}")).expect("written");
    } else {
        assert_eq!(shown, recorded, "the README does not show the recorded trace");
    }
}
