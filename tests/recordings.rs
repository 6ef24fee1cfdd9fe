//! The figures outside of the tutorial are recorded from the real services, and still what the services give. Those of
//! the tutorial are recorded where it is followed: `tests/follow_the_book`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::support::recording::{self, check, figures, redact};
use crate::support::{FREE, Setup, Stopped, binaries, hung, refused};
use course::services::is_setting;
use lab::diagnose::diagnose;
use lab::process;
use lab::{otlp, waterfall};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

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

/// Nothing is wrong with how these are traced: the rules must not say so.
fn is_sound(stopped: &Stopped) {
    assert_eq!(diagnose(&stopped.trees(), &[]), []);
}

/// The traces that are left, the earliest first.
fn figure(stopped: &Stopped) -> String {
    let mut trees = stopped.trees();
    trees.sort_by_key(|tree| tree.start);
    figures(&trees)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_trace() {
    let stopped = ask(setup(), 200).await;
    is_sound(&stopped);
    let tree = stopped.only_tree();
    check!("whole.html", &figure(&stopped));
    check!("whole.txt", &tree.to_text());
    check!("whole.svg", &(waterfall::svg(&tree, 900) + "\n"));
    show_in_readme();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_header_is_dropped_on_both_hops() {
    let stopped = ask(setup().without_traceparent(), 200).await;
    check!("fallen-apart.html", &figure(&stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_spans_go_nowhere() {
    let (nobody, _kept) = refused();
    let key = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let setup = setup().with("user-service", key, format!("http://{nobody}"));
    let stopped = ask(setup, 200).await;
    check!("missing-service.html", &figure(&stopped));
    let lines = stopped.log.find("user-service", "WARN");
    let (_, line) = lines
        .last()
        .and_then(|line| line.split_once(" | "))
        .expect("a line about the loss");
    check!("lost-spans.txt", &(redact(line) + "\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer() {
    let (silent, _) = hung().await;
    let setup = setup()
        .with(
            "user-service",
            "LLM_SERVICE_URL",
            format!("http://{silent}"),
        )
        .with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    let stopped = ask(setup, 504).await;
    is_sound(&stopped);
    check!("slow.html", &figure(&stopped));
}

/// What the lab prints is recorded from the lab: its help, its list, and a trace.
#[tokio::test(flavor = "multi_thread")]
async fn the_lab_in_a_terminal() {
    let lab = binaries().await.join("lab");
    let course = binaries().await.join("course");
    let run_program = async |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        for (key, _) in
            std::env::vars().filter(|(key, _)| is_setting(key) || key.starts_with("LAB_"))
        {
            command.env_remove(key);
        }
        let output = command.args(arguments).output().await.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let run = async |arguments: &[&str]| run_program(&lab, arguments).await;
    check!("help.txt", &run(&["--help"]).await);
    check!("help-view.txt", &run(&["view", "--help"]).await);
    let help = run_program(&course, &["--help"]).await;
    check!("help-course.txt", &help);
    let help = run(&["break", "--help"]).await;
    let faults = help.split("Faults:\n").nth(1).expect("the faults");
    let faults = faults.split("\n\n").next().expect("a list");
    check!("faults.txt", &format!("{faults}\n"));

    let stopped = ask(setup(), 200).await;
    let failed = {
        let (nobody, _kept) = refused();
        let setup = setup().with(
            "user-service",
            "LLM_SERVICE_URL",
            format!("http://{nobody}"),
        );
        ask(setup, 502).await
    };
    // The order of the list is that of arrival, whichever service stops first.
    let traces =
        [stopped, failed].map(|it| it.store.trace(it.only_tree().trace_id).expect("a trace"));
    let lines = traces.map(|spans| {
        let request = otlp::to_request(spans.iter().map(AsRef::as_ref));
        serde_json::to_string(&request).expect("JSON")
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("traces.jsonl");
    fs::write(&path, lines.join("\n")).expect("written");
    let mut serving = Command::new(&lab);
    serving
        .args(["view", "--site", FREE, "--otlp", FREE, "--grpc", FREE])
        .arg("--open")
        .arg(&path)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut serving = process::spawn(serving).expect("it starts");
    let mut output = BufReader::new(serving.stdout.take().expect("an output")).lines();
    let site = loop {
        let line = output.next_line().await.expect("text").expect("it starts");
        if let Some(address) = line.strip_prefix("Traces   http://") {
            break address.trim_end_matches("/traces").to_owned();
        }
    };
    // In one recording: what the page shows as one session must be of one.
    let list = run(&["traces", "--site", &site]).await;
    let trace = run(&["trace", "--site", &site]).await;
    let session = [("list", list), ("trace", trace)].map(|(name, text)| {
        let (begin, end) = ("ANCHOR", "ANCHOR_END");
        format!("{begin}: {name}\n{text}{end}: {name}\n")
    });
    check!("terminal.txt", &session.concat());
}

/// The README shows a recording between the fences behind `<!-- recorded: whole.txt -->`.
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
        assert_eq!(
            shown, recorded,
            "the README does not show the recorded trace"
        );
    }
}
