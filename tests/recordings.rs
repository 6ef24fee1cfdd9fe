//! Compares the figures and outputs that belong to no single page with new runs of the services. `tests/follow_the_book` compares
//! those of the tutorial.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::guides::example::sent;
use course::services::is_setting;
use lab::diagnose::diagnose;
use lab::process;
use lab::tree::Tree;
use lab::waterfall;
use support::recording::{self, check, figures, redact};
use support::{FREE, Setup, Stopped, binaries, hung, in_order, refused};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// The trees of services that have stopped, the earliest first. No rule finds a fault in them.
fn sound(stopped: &Stopped) -> Vec<Tree> {
    let trees = in_order(stopped.trees());
    assert_eq!(diagnose(&trees, &[]), []);
    trees
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_trace_is_what_the_pages_and_the_readme_show() {
    let trees = sound(&Setup::default().answers("user_1", 200).await);
    check!("whole.html", &figures(&trees));
    check!("whole.txt", &trees[0].to_text());
    check!("whole.svg", &(waterfall::svg(&trees[0], 900) + "\n"));
    show_in_readme();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_headers_leave_the_recorded_traces() {
    let stopped = Setup::default().without_traceparent().answers("user_1", 200).await;
    check!("fallen-apart.html", &figures(&in_order(stopped.trees())));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_spans_leave_the_recorded_gap_and_a_warning() {
    let (nobody, _kept) = refused();
    let key = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let setup = Setup::default().with("user-service", key, format!("http://{nobody}"));
    let stopped = setup.answers("user_1", 200).await;
    check!("missing-service.html", &figures(&in_order(stopped.trees())));
    let line = stopped.log.find("user-service", "WARN").pop().expect("a line about the loss");
    check!("lost-spans.txt", &(redact(line.split_once(" | ").expect("a line").1) + "\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_leaves_the_recorded_trace() {
    let setup = Setup::default().with_llm_service_at(hung().await.0);
    let setup = setup.with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    check!("slow.html", &figures(&sound(&setup.answers("user_1", 504).await)));
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
    check!("help-probe.txt", &output("lab", &["probe", "--help"]).await);
    check!("help-expect.txt", &output("lab", &["expect", "--help"]).await);
    check!("help-mutate.txt", &output("lab", &["mutate", "--help"]).await);
    check!("help-course.txt", &output("course", &["--help"]).await);
    let help = output("lab", &["break", "--help"]).await;
    let (_, faults) = help.split_once("Faults:\n").expect("the faults");
    let (faults, _) = faults.split_once("\n\n").unwrap_or((faults, ""));
    check!("faults.txt", &format!("{faults}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_prints_the_recorded_list_and_trace() {
    let (nobody, _kept) = refused();
    let failed = Setup::default().with_llm_service_at(nobody);
    // The list is in order of arrival, whichever service stops first.
    let traces =
        [Setup::default().answers("user_1", 200).await, failed.answers("user_1", 502).await];
    let lines = traces.map(|it| sent(&it.only_tree()));
    let mut file = tempfile::NamedTempFile::with_suffix(".jsonl").expect("a file");
    file.write_all(lines.join("\n").as_bytes()).expect("written");
    let mut serving = Command::new(binaries().await.join("lab"));
    serving
        .args(["view", "--site", FREE, "--otlp", FREE, "--grpc", FREE, "--open"])
        .arg(file.path())
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
    let path = support::root().join("README.md");
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
