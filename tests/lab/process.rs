//! The lab as a process: what `cargo run` does and prints, and how it ends when something is wrong.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{DEADLINE, FREE, binaries, client, until, within_reason};
use axum::Router;
use axum::routing::post;
use course::services::is_setting;
use lab::process;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// The flags that say where the lab and its services listen.
const ADDRESSES: [&str; 6] =
    ["--site", "--otlp", "--grpc", "--gateway", "--user-service", "--llm-service"];

/// A running lab, stopped when dropped.
struct Lab {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Lab {
    async fn start(arguments: &[&str]) -> Lab {
        Lab::spawn(command(arguments).await)
    }

    fn spawn(command: Command) -> Lab {
        let mut child = process::spawn(command).expect("the lab starts");
        let output = BufReader::new(child.stdout.take().expect("an output"));
        Lab { child, output }
    }

    /// Reads what the lab prints up to the line that starts with `start`, that line included.
    async fn read_to(&mut self, start: &str) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).await.expect("text") == 0 {
                let mut errors = String::new();
                let mut stderr = self.child.stderr.take().expect("an error output");
                stderr.read_to_string(&mut errors).await.expect("text");
                panic!("the lab ended before it printed {start:?}:\n{text}{errors}");
            }
            text.push_str(&line);
            if line.starts_with(start) {
                return text;
            }
        }
    }

    /// The services that the lab has started, and not git, which it asks for the commit while it builds the book.
    fn services(&self) -> Vec<String> {
        let id = self.child.id().expect("it runs").to_string();
        let output =
            std::process::Command::new("pgrep").args(["-P", &id, "_service|_gateway"]).output();
        let output = output.expect("pgrep runs; install the package `procps`");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Sends a signal and returns the exit code.
    async fn signal(&mut self, signal: &str) -> Option<i32> {
        kill(signal, &self.child.id().expect("it runs").to_string());
        self.child.wait().await.expect("it ends").code()
    }
}

/// A test that fails half-way must leave nothing running either: so the lab is asked to stop, not killed.
impl Drop for Lab {
    fn drop(&mut self) {
        let Some(id) = self.child.id() else { return };
        kill("-TERM", &id.to_string());
        let deadline = Instant::now() + DEADLINE;
        while let Ok(None) = self.child.try_wait()
            && Instant::now() < deadline
        {
            // At a pace that leaves the processor to the lab.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Sends `signal` to a process; says whether there was one.
fn kill(signal: &str, id: &str) -> bool {
    let status =
        std::process::Command::new("kill").args([signal, id]).stderr(Stdio::null()).status();
    status.expect("kill runs").success()
}

async fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().await.join("course"));
    // The course passes on what its user sets; a test is not that user.
    for (key, _) in std::env::vars().filter(|(key, _)| is_setting(key)) {
        command.env_remove(key);
    }
    command.args(arguments);
    // The others ask a running lab, and have but one address.
    let serves = arguments.first().is_none_or(|first| *first == "view" || first.starts_with("--"));
    let view = arguments.first() == Some(&"view");
    let flags = match (serves, view) {
        (false, _) => &ADDRESSES[..1],
        (_, true) => &ADDRESSES[..3],
        _ => &ADDRESSES[..],
    };
    for flag in flags {
        if !arguments.contains(flag) {
            command.args([flag, FREE]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the lab to its end, which must be a failure told in one line.
async fn failure(arguments: &[&str]) -> String {
    let output = command(arguments).await.output().await.expect("the lab runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("Error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    errors[0].to_owned()
}

/// The address behind `label` in what the lab printed.
fn address(printed: &str, label: &str) -> String {
    let line = printed
        .lines()
        .find(|line| line.starts_with(label))
        .unwrap_or_else(|| panic!("{label}: {printed}"));
    line.trim_start_matches(label).trim().to_owned()
}

/// The text, if it contains what is expected.
fn containing(expected: &str, text: String) -> Result<String, String> {
    match text.contains(expected) {
        true => Ok(text),
        false => Err(text),
    }
}

async fn text(url: &str) -> (u16, String) {
    let response = client().get(url).send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn cargo_run_traces_one_request_and_serves_the_book_and_the_traces() {
    let mut lab = Lab::start(&[]).await;
    let printed = lab.read_to("Ctrl-C").await;
    let (status, page) = text(&address(&printed, "The book")).await;
    assert_eq!(status, 200);
    assert!(page.contains("The 200 that lied"), "{page}");

    let trace = address(&printed, "This trace");
    let (status, page) = text(&trace).await;
    assert_eq!(status, 200);
    for expected in
        ["api-gateway", "user-service", "llm-service", "validate_user", "table class=\"waterfall\""]
    {
        assert!(page.contains(expected), "{expected} is not on the page: {page}");
    }
    let (_, list) = text(&address(&printed, "All traces")).await;
    assert!(list.contains(trace.rsplit('/').next().expect("an id")), "{list}");

    // The same tree in the terminal, as text, and in Jaeger's JSON.
    let (_, tree) = text(&format!("{trace}.txt")).await;
    assert!(printed.contains(&tree), "{printed}\n{tree}");
    let (_, json) = text(&trace.replace("/traces/", "/api/traces/")).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["data"][0]["spans"].as_array().map(Vec::len), Some(7), "{json}");
    let (_, services) = text(&format!("{}api/services", address(&printed, "The book"))).await;
    assert!(services.contains(r#"["api-gateway","llm-service","user-service"]"#), "{services}");
    assert_eq!(lab.signal("-INT").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_that_the_lab_prints_works_as_it_stands() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let mut lab = Lab::start(&[]).await;
    let printed = lab.read_to("Ctrl-C").await;
    let line = printed.lines().find(|line| line.starts_with("curl ")).expect("a curl");
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("NO_PROXY", "*").env("no_proxy", "*");
    let output = shell.output().await.expect("a shell");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_the_lab_ends_the_services() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut lab = Lab::start(&[]).await;
        lab.read_to("Ctrl-C").await;
        let services = lab.services();
        assert_eq!(services.len(), 3, "{services:?}");
        assert_eq!(lab.signal(signal).await, Some(0), "{signal}");
        let left: Vec<_> = services.iter().filter(|id| kill("-0", id)).collect();
        assert!(left.is_empty(), "{signal}: still running: {left:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_lab_leaves_no_service_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut killed = command(&[]).await;
    // It can't remove its book.
    killed.env("TMPDIR", folder.path());
    let mut lab = Lab::spawn(killed);
    lab.read_to("Ctrl-C").await;
    let services = lab.services();
    assert_eq!(services.len(), 3, "{services:?}");
    assert_eq!(lab.signal("-KILL").await, None);
    // Each dies immediately, but stays in the table of processes until the system has collected it.
    let runs = |id: &&String| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
        !matches!(state, None | Some(Some('Z' | 'X')))
    };
    until(async || {
        let left: Vec<_> = services.iter().filter(runs).collect();
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
}

/// The same test in a process of its own, below a program that is called `cargo` and is killed.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cargo_leaves_neither_tests_nor_their_processes_behind() {
    const INNER: &str = "ONE_TRACE_BELOW_CARGO";
    if std::env::var_os(INNER).is_some() {
        let mut child = Command::new("sh");
        child.args(["-c", "echo; echo started; exec sleep 300"]);
        let mut child = process::spawn(child).expect("a shell");
        child.wait().await.expect("it is killed with us");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let cargo = folder.path().join("cargo");
    std::fs::copy("/bin/sh", &cargo).expect("a shell of another name");
    let mut cargo = Command::new(cargo);
    cargo
        // A second command, so that the shell does not become the first.
        .args(["-c", r#""$0" --exact "$1" --nocapture; exit"#])
        .arg(std::env::current_exe().expect("the program of the tests"))
        .arg("lab::process::a_killed_cargo_leaves_neither_tests_nor_their_processes_behind")
        .env(INNER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut cargo = Lab::spawn(cargo);
    cargo.read_to("started").await;
    assert_eq!(cargo.signal("-KILL").await, None);
    // The tests and the process that they have started hold the other end for as long as they live.
    let mut rest = String::new();
    within_reason(cargo.output.read_to_string(&mut rest)).await.expect("text");
}

#[tokio::test(flavor = "multi_thread")]
async fn view_serves_without_services_and_takes_the_spans_of_others() {
    let mut lab = Lab::start(&["view"]).await;
    let printed = lab.read_to("Send spans here").await;
    let traces = address(&printed, "Traces");
    let (_, empty) = text(&traces).await;
    assert!(empty.contains("No trace yet"), "{empty}");

    let backend =
        address(&printed, "OTLP").trim_start_matches("http://").parse().expect("an address");
    let system = support::Setup::default().with_backend(backend).start().await;
    system.ask("user_1").await;
    system.stop().await;
    let (_, list) = text(&traces).await;
    for service in ["api-gateway", "user-service", "llm-service"] {
        assert!(list.contains(service), "{list}");
    }
    assert_eq!(lab.signal("-TERM").await, Some(0));
}

/// The services do not notice a lab that dies; the next one, at the same address, shows what was saved and what comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_lab_disturbs_nobody_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let file = file.to_str().expect("text");
    let mut killed = command(&["view", "--save", file]).await;
    // It cannot take its book with it.
    killed.env("TMPDIR", folder.path());
    let mut lab = Lab::spawn(killed);
    let printed = lab.read_to("Send spans here").await;
    let otlp = address(&printed, "OTLP");
    let otlp = otlp.trim_start_matches("http://");
    let setup = support::Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 10);
    let system = setup.with_backend(otlp.parse().expect("an address")).start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let traces = address(&printed, "Traces");
    until(async || containing(">7<", text(&traces).await.1)).await;
    assert_eq!(lab.signal("-KILL").await, None);

    assert_eq!(system.ask("user_2").await.status(), 200);
    let mut lab = Lab::start(&["view", "--otlp", otlp, "--open", file, "--save", file]).await;
    let printed = lab.read_to("Send spans here").await;
    assert!(printed.starts_with(&format!("Opened   {file}: 7 spans\n")), "{printed}");
    assert_eq!(system.ask("user_3").await.status(), 200);
    system.stop().await;
    let (_, list) = text(&address(&printed, "Traces")).await;
    assert!(list.matches(">7<").count() >= 2, "{list}");
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let error = failure(&["view", "--open", "/nowhere"]).await;
    assert!(error.contains("cannot open /nowhere (--open)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_traces_of_a_running_lab_are_shown_in_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let span = |trace: &str, name: &str, seconds: u64| {
        let start = 1_767_225_600_000_000_000_u64;
        let span = json!({
            "traceId": trace.repeat(16), "spanId": "0b".repeat(8), "name": name, "kind": 2,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + seconds * 1_000_000_000).to_string(),
        });
        json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string()
    };
    let lines = [span("a1", "first", 1), span("a2", "second", 2), span("b3", "third", 3)];
    write(folder.path(), "session.jsonl", &lines.join("\n"));
    let mut lab = Lab::start(&["view", "--open", file.to_str().expect("text")]).await;
    let printed = lab.read_to("Send spans here").await;
    let site = address(&printed, "Traces").replace("http://", "").replace("/traces", "");
    let ask = async |arguments: &[&str]| {
        let arguments = [arguments, &["--site", &site]].concat();
        let output = command(&arguments).await.output().await.expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };

    let list = ask(&["traces"]).await;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(names, ["third", "second", "first"]);
    assert!(!list.contains('\u{1b}'), "colours are for terminals: {list}");
    assert_eq!(ask(&["traces", "--min", "2s", "--limit", "1"]).await.lines().count(), 1);
    let json: Value =
        serde_json::from_str(&ask(&["traces", "--name", "FIRST", "--json"]).await).expect("JSON");
    assert_eq!(
        (&json[0]["traceId"], &json[0]["durationNano"]),
        (&json!("a1".repeat(16)), &json!(1_000_000_000))
    );

    assert!(ask(&["trace"]).await.starts_with(&format!("Trace {}", "b3".repeat(16))), "the newest");
    assert!(ask(&["trace", "A2"]).await.contains("second"));
    let json: Value = serde_json::from_str(&ask(&["trace", "a1", "--json"]).await).expect("JSON");
    assert_eq!(json["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"], "first");
    for (id, reason) in
        [("a", "2 traces begin with \"a\": write more"), ("c", "no trace id begins with \"c\"")]
    {
        let error = failure(&["trace", id, "--site", &site]).await;
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let error = failure(&["traces", "--site", "127.0.0.1:1"]).await;
    assert!(error.contains("no lab answers at 127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_is_broken_and_diagnosed_from_the_terminal() {
    let mut lab = Lab::start(&[]).await;
    let printed = lab.read_to("Ctrl-C stops").await;
    let site = address(&printed, "All traces").replace("http://", "");
    let site = site.replace("/traces", "");
    let ask = async |arguments: &[&str]| {
        let arguments = [arguments, &["--site", &site]].concat();
        let output = command(&arguments).await.output().await.expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(ask(&["diagnose"]).await, "The trace is in order.\n");
    assert_eq!(ask(&["break", "list"]).await.matches("no fault").count(), 3);
    let set = ask(&["break", "gateway-user", "drop-traceparent"]).await;
    assert!(
        set.lines()
            .any(|line| line.starts_with("gateway-user") && line.ends_with("drop-traceparent")),
        "{set}"
    );

    // Through the address that the lab has printed.
    let (_, gateway) = printed.split_once("curl -i ").expect("a command");
    let gateway = gateway.split(' ').next().expect("an address");
    let query = json!({ "user_id": "user_1", "query": "?" });
    let answer = client().post(gateway).json(&query).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let expected = "A broken header: On gateway-user";
    let broken = until(async || containing(expected, ask(&["diagnose"]).await)).await;
    assert!(
        broken.contains("On gateway-user, the `traceparent` that was sent did not arrive"),
        "{broken}"
    );
    assert!(
        broken.contains(&format!("http://{site}/how-to/diagnose.html#broken-header")),
        "{broken}"
    );
    // The header stands beside the span that sent it.
    let beside = "gateway-user  200  sent by POST /process of api-gateway  fault: drop-traceparent\n  - traceparent: 00-";
    until(async || containing(beside, ask(&["trace"]).await)).await;

    // The same from a file; more spans may arrive between the two.
    let folder = tempfile::tempdir().expect("a folder");
    let same = async || {
        let id = ask(&["traces", "--limit", "1", "--json"]).await;
        let id: Value = serde_json::from_str(&id).expect("JSON");
        let id = id[0]["traceId"].as_str().expect("an id");
        let broken = ask(&["diagnose", id]).await;
        let (status, case) = text(&format!("http://{site}/traces/{id}.case.json")).await;
        assert_eq!(status, 200);
        write(folder.path(), "case.json", &case);
        let file = folder.path().join("case.json");
        let told = ask(&["diagnose", file.to_str().expect("text")]).await;
        let broken = broken.replace(&format!("http://{site}/"), "the book's page ");
        match told == broken {
            true => Ok(()),
            false => Err(format!("{told}\nand\n{broken}")),
        }
    };
    until(same).await;

    assert_eq!(ask(&["break", "restore"]).await.matches("no fault").count(), 3);
    ask(&["break", "user-llm", "cut"]).await;
    let restored = ask(&["break", "user-llm", "restore"]).await;
    assert_eq!(restored.matches("no fault").count(), 3);
    for (arguments, reason) in [
        (&["break", "nowhere", "cut"][..], "unknown hop \"nowhere\": use one of client-gateway"),
        (&["break", "user-llm", "burn"], "unknown fault \"burn\": use one of drop-traceparent"),
        (&["break", "user-llm"], "which fault?"),
        (&["diagnose", "typo.json"], "typo.json is neither a file nor"),
    ] {
        let error = failure(&[arguments, &["--site", &site]].concat()).await;
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(lab.signal("-TERM").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_diagnosed_is_told_in_a_line() {
    let mut lab = Lab::start(&["view"]).await;
    let printed = lab.read_to("Send spans here").await;
    let site = address(&printed, "Traces").replace("http://", "");
    let site = site.replace("/traces", "");
    // Nothing has arrived: what to try, in order.
    for id in [None, Some("4bf92f3577b34da6a3ce929d0e0e4736")] {
        let arguments: Vec<&str> =
            ["diagnose"].into_iter().chain(id).chain(["--site", &*site]).collect();
        let output = command(&arguments).await.output().await.expect("it runs");
        let told = String::from_utf8(output.stdout).expect("text");
        assert!(told.starts_with("Nothing arrived: "), "{told}");
        assert!(told.contains("  1. Wait") && told.contains("  2. Stop"), "{told}");
    }
    let error = failure(&["break", "list", "--site", &site]).await;
    assert!(error.contains("this lab runs no services"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "notes.txt", "no trace at all");
    let file = folder.path().join("notes.txt");
    let error = failure(&["diagnose", file.to_str().expect("text")]).await;
    assert!(error.contains("notes.txt: there is no trace in it"), "{error}");
    let error = failure(&["diagnose", folder.path().to_str().expect("text")]).await;
    assert!(error.contains("cannot be read"), "{error}");
    assert_eq!(lab.signal("-TERM").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn help_has_the_limits_and_completions_the_commands() {
    let print = async |arguments: &[&str]| {
        let mut command = Command::new(binaries().await.join("course"));
        let output = command.args(arguments).output().await.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let help = print(&["--help"]).await;
    let limits = [
        lab::receiver::BODY_LIMIT,
        lab::grpc::MESSAGE_LIMIT,
        lab::otlp::SPANS_LIMIT,
        lab::span::TEXT_LIMIT,
        lab::span::DEPTH_LIMIT,
        lab::viewer::IMPORT_LIMIT,
    ];
    for limit in limits {
        assert!(help.contains(&limit.to_string()), "{limit}: {help}");
    }
    for flag in ["--max-spans", "--max-bytes", "--max-connections", "[default: 250]"] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = print(&["completions", shell]).await;
        for word in ["view", "traces", "trace", "diagnose", "break", "check", "max-connections"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let mut wrong = Command::new(binaries().await.join("course"));
    let output = wrong.args(["traces", "--min", "soon"]).output().await.expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("\"soon\" is not a duration: write 5ms"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_asks_the_lab_and_its_exit_code_is_the_answer() {
    let mut lab = Lab::start(&["view"]).await;
    let printed = lab.read_to("Send spans here").await;
    let site = address(&printed, "Book");
    let site = site.trim_start_matches("http://").trim_end_matches('/');
    // The project is compiled where the tutorial is followed.
    let folder = tempfile::tempdir().expect("a folder");
    let project = folder.path().to_str().expect("text");
    let set_up = ["check", "set-up", "--site", site, "--project", project];
    let error = failure(&set_up).await;
    assert!(error.contains("src/lib.rs cannot be read"), "{error}");
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    write(folder.path(), "src/lib.rs", "pub mod settings;\n");
    let error = failure(&set_up).await;
    assert!(error.contains("has no line `pub mod error;`"), "{error}");

    let error = failure(&["check", "1", "--site", site]).await;
    assert!(error.contains("not yet: no `POST /generate`"), "{error}");
    let error = failure(&["check", "1"]).await;
    assert!(error.contains("no lab answers at 127.0.0.1:0: start it"), "{error}");
    assert_eq!(lab.signal("-TERM").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_one_line_that_names_it() {
    let holder = tokio::net::TcpListener::bind(FREE).await.expect("a free port");
    let taken = holder.local_addr().expect("an address").to_string();
    for flag in ADDRESSES {
        let error = failure(&[flag, &taken]).await;
        assert!(error.contains(&taken) && error.contains("in use"), "{flag}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_that_does_not_build_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = failure(&["--book", folder.path().to_str().expect("text")]).await;
    assert!(error.contains("does not build"), "{error}");

    write(folder.path(), "book.toml", "[book]\ntitle = \"x\"\n");
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    write(folder.path(), "src/SUMMARY.md", "- [Missing](missing.md)\n");
    let error = failure(&["--book", folder.path().to_str().expect("text")]).await;
    assert!(error.contains("missing.md"), "{error}");
}

/// A program that is run by hand, with its own folder as the only hint where the book is.
async fn in_folder(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = command(arguments).await;
    command.current_dir(folder).env_remove("CARGO_MANIFEST_DIR");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_book_is_that_of_the_clone_it_runs_in_wherever_it_was_compiled() {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["src", "examples/distributed_tracing", "inside/it"] {
        std::fs::create_dir_all(folder.path().join(part)).expect("a folder");
    }
    write(folder.path(), "book.toml", "[book]\ntitle = \"x\"\n");
    write(folder.path(), "examples/distributed_tracing/Cargo.toml", "");
    write(folder.path(), "src/SUMMARY.md", "- [Moved](moved.md)\n");
    write(folder.path(), "src/moved.md", "# The clone was moved\n");
    let inside = folder.path().join("inside/it");
    let mut lab = Lab::spawn(in_folder(&inside, &["view"]).await);
    let printed = lab.read_to("Send spans here").await;
    let (_, page) = text(&address(&printed, "Book")).await;
    assert!(page.contains("The clone was moved"), "{page}");
    assert_eq!(lab.signal("-TERM").await, Some(0));

    let elsewhere = tempfile::tempdir().expect("a folder");
    let view = in_folder(elsewhere.path(), &["view"]).await;
    let mut lab = Lab::spawn(view);
    let printed = lab.read_to("Send spans here").await;
    assert!(printed.starts_with("Traces"), "{printed}");
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let output = in_folder(elsewhere.path(), &[]).await.output().await;
    let error = String::from_utf8(output.expect("it runs").stderr).expect("text");
    assert!(
        error.starts_with("Error: the book's repository is not here: run this in a clone of it"),
        "{error}"
    );
}

/// A request that is under way when the course gets SIGTERM is answered, and all of its spans are saved.
#[tokio::test(flavor = "multi_thread")]
async fn stopping_loses_no_span_of_a_request_that_is_under_way() {
    // A model that answers the first request and holds the second one back.
    let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let held_back = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let permits = std::sync::Arc::clone(&held_back);
    let model = post(async move || {
        asked.send(()).expect("the test goes on");
        permits.acquire().await.expect("a permit").forget();
        let message = json!({ "role": "assistant", "content": "hi" });
        let choice = json!({ "message": message, "finish_reason": "stop" });
        axum::Json(json!({ "model": "m", "choices": [choice] }))
    });
    let model = support::serve(Router::new().route("/v1/chat/completions", model)).await;

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let mut course = command(&["--save", file.to_str().expect("text")]).await;
    course.env("LLM_BASE_URL", format!("http://{model}/v1")).env("LLM_MODEL", "m");
    let mut course = Lab::spawn(course);
    let printed = course.read_to("Ctrl-C").await;
    requests.recv().await.expect("the first request");
    let (_, gateway) = printed.split_once("curl -i ").expect("a command");
    let gateway = gateway.split(' ').next().expect("an address").to_owned();
    let health = gateway.replace("/api/query", "/health");
    let query = json!({ "user_id": "user_1", "query": "?" });
    let under_way = tokio::spawn(client().post(gateway).json(&query).send());
    requests.recv().await.expect("the second request");

    kill("-TERM", &course.child.id().expect("it runs").to_string());
    // The gateway refuses connections once it is stopping, or once its proxy has ended without it.
    until(async || match client().get(&health).send().await {
        Ok(answer) => Err(format!("the gateway still answers {}", answer.status())),
        Err(_) => Ok(()),
    })
    .await;
    held_back.add_permits(1);
    let answer = under_way.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(course.child.wait().await.expect("it ends").code(), Some(0));
    let opened = lab::session::open(&file).expect("the session");
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    assert_eq!(opened.spans.len(), 2 * 7);
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_ends_the_lab_with_its_name() {
    let mut lab = Lab::start(&[]).await;
    lab.read_to("Ctrl-C").await;
    let services = lab.services();
    // Children are listed by age, and the leaf is started first.
    assert!(kill("-KILL", services.first().expect("a service")));
    let mut stderr = String::new();
    lab.child
        .stderr
        .take()
        .expect("an error output")
        .read_to_string(&mut stderr)
        .await
        .expect("text");
    assert_eq!(lab.child.wait().await.expect("it ends").code(), Some(1), "{stderr}");
    assert!(stderr.contains("Error: llm-service ended by itself"), "{stderr}");
    let left: Vec<_> = services.iter().filter(|id| kill("-0", id)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_test_passes_on_a_whole_trace_and_fails_on_a_broken_one() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let mut lab = Lab::start(&["view"]).await;
    let printed = lab.read_to("Send spans here").await;
    let site = address(&printed, "Book");
    let backend =
        address(&printed, "OTLP").trim_start_matches("http://").parse().expect("an address");
    let script = support::root().join("examples/distributed_tracing/test_distributed_trace.sh");
    let whole = support::Setup::default();
    let broken = support::Setup::default().without_traceparent();
    for (setup, patience, code, expected) in [
        (whole, "120", 0, "all checks passed"),
        (broken, "1", 1, "FAILED  the request is one trace"),
    ] {
        let setup = setup.with_backend(backend).with("all", "OTEL_BSP_SCHEDULE_DELAY", 50);
        let system = setup.start().await;
        let output = Command::new("bash")
            .arg(&script)
            .env("PATIENCE", patience)
            .env("LAB_URL", site.trim_end_matches('/'))
            .env("API_GATEWAY_URL", format!("http://{}", system.gateway.address))
            .env("USER_SERVICE_URL", format!("http://{}", system.user.address))
            .env("LLM_SERVICE_URL", format!("http://{}", system.llm.address))
            .output()
            .await
            .expect("bash runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(printed.contains(expected), "{printed}");
        assert_eq!(printed.matches("ok      http").count(), 3, "{printed}");
        system.stop().await;
    }
}
