//! The lab as a process: what `cargo run` does and prints, and how it ends when something is wrong.

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::services::is_setting;
use serde_json::Value;
use support::{FREE, binaries, client};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// The flags that say where the lab and its services listen.
const ADDRESSES: [&str; 6] = [
    "--site",
    "--otlp",
    "--grpc",
    "--gateway",
    "--user-service",
    "--llm-service",
];

/// A running lab, stopped when dropped.
struct Lab {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Lab {
    async fn start(arguments: &[&str]) -> Lab {
        let mut child = command(arguments).await.spawn().expect("the lab starts");
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

    /// The processes that the lab has started.
    fn children(&self) -> Vec<String> {
        let id = self.child.id().expect("it runs").to_string();
        let output = std::process::Command::new("pgrep")
            .args(["-P", &id])
            .output();
        let output = output.expect("pgrep runs; install the package `procps`");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Sends a signal, and returns the exit code.
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
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Ok(None) = self.child.try_wait()
            && Instant::now() < deadline
        {
            std::thread::yield_now();
        }
    }
}

/// Sends `signal` to a process; says whether there was one.
fn kill(signal: &str, id: &str) -> bool {
    let status = std::process::Command::new("kill")
        .args([signal, id])
        .stderr(Stdio::null())
        .status();
    status.expect("kill runs").success()
}

async fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().await.join("lab"));
    // The lab passes on what its user sets; a test is not that user.
    for (key, _) in std::env::vars().filter(|(key, _)| is_setting(key)) {
        command.env_remove(key);
    }
    for flag in ADDRESSES {
        if !arguments.contains(&flag) {
            command.args([flag, FREE]);
        }
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the lab to its end, which must be a failure told in one line.
async fn failure(arguments: &[&str]) -> String {
    let output = command(arguments)
        .await
        .output()
        .await
        .expect("the lab runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("Error: "))
        .collect();
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

async fn text(url: &str) -> (u16, String) {
    let response = client().get(url).send().await.expect("an answer");
    (
        response.status().as_u16(),
        response.text().await.expect("text"),
    )
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
    for expected in [
        "api-gateway",
        "user-service",
        "llm-service",
        "validate_user",
        "table class=\"waterfall\"",
    ] {
        assert!(
            page.contains(expected),
            "{expected} is not on the page: {page}"
        );
    }
    assert!(
        !page.contains("<script"),
        "the page must work without JavaScript"
    );
    let (_, list) = text(&address(&printed, "All traces")).await;
    assert!(
        list.contains(trace.rsplit('/').next().expect("an id")),
        "{list}"
    );

    // The same tree in the terminal, as text, and in Jaeger's JSON.
    let (_, tree) = text(&format!("{trace}.txt")).await;
    assert!(printed.contains(&tree), "{printed}\n{tree}");
    let (_, json) = text(&trace.replace("/traces/", "/api/traces/")).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json["data"][0]["spans"].as_array().map(Vec::len),
        Some(7),
        "{json}"
    );
    let (_, services) = text(&format!("{}api/services", address(&printed, "The book"))).await;
    assert!(
        services.contains(r#"["api-gateway","llm-service","user-service"]"#),
        "{services}"
    );
    assert_eq!(lab.signal("-INT").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_that_the_lab_prints_works_as_it_stands() {
    if support::is_missing("curl", "the package `curl`") {
        return;
    }
    let mut lab = Lab::start(&[]).await;
    let printed = lab.read_to("Ctrl-C").await;
    let line = printed
        .lines()
        .find(|line| line.starts_with("curl "))
        .expect("a curl");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env("NO_PROXY", "*")
        .env("no_proxy", "*");
    let output = shell.output().await.expect("a shell");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_the_lab_ends_the_services() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut lab = Lab::start(&[]).await;
        lab.read_to("Ctrl-C").await;
        let services = lab.children();
        assert_eq!(services.len(), 3, "{services:?}");
        assert_eq!(lab.signal(signal).await, Some(0), "{signal}");
        let left: Vec<_> = services.iter().filter(|id| kill("-0", id)).collect();
        assert!(left.is_empty(), "{signal}: still running: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn view_serves_without_services_and_takes_the_spans_of_others() {
    let mut lab = Lab::start(&["view"]).await;
    let printed = lab.read_to("Send spans here").await;
    let traces = address(&printed, "Traces");
    let (_, empty) = text(&traces).await;
    assert!(empty.contains("No trace yet"), "{empty}");

    let backend = address(&printed, "OTLP")
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let system = support::Setup::default()
        .with_backend(backend)
        .start()
        .await;
    system.ask("user_1").await;
    system.stop().await;
    let (_, list) = text(&traces).await;
    assert!(
        list.contains("api-gateway, user-service, llm-service"),
        "{list}"
    );
    assert_eq!(lab.signal("-TERM").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_asks_the_lab_and_its_exit_code_is_the_answer() {
    let mut lab = Lab::start(&["view"]).await;
    let printed = lab.read_to("Send spans here").await;
    let site = address(&printed, "Book");
    let site = site.trim_start_matches("http://").trim_end_matches('/');
    let output = command(&["check", "set-up", "--site", site]).await.output();
    let output = output.await.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stdout.starts_with(b"passed: the lab runs"),
        "{output:?}"
    );

    let error = failure(&["check", "1", "--site", site]).await;
    assert!(error.contains("not yet: no `POST /generate`"), "{error}");
    let error = failure(&["check", "1"]).await;
    assert!(
        error.contains("no lab answers at 127.0.0.1:0: start it"),
        "{error}"
    );
    assert_eq!(lab.signal("-TERM").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_one_line_that_names_it() {
    let holder = tokio::net::TcpListener::bind(FREE)
        .await
        .expect("a free port");
    let taken = holder.local_addr().expect("an address").to_string();
    for flag in ADDRESSES {
        let error = failure(&[flag, &taken]).await;
        assert!(
            error.contains(&taken) && error.contains("in use"),
            "{flag}: {error}"
        );
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

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_ends_the_lab_with_its_name() {
    let mut lab = Lab::start(&[]).await;
    lab.read_to("Ctrl-C").await;
    let services = lab.children();
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
    assert_eq!(
        lab.child.wait().await.expect("it ends").code(),
        Some(1),
        "{stderr}"
    );
    assert!(
        stderr.contains("Error: llm-service ended by itself"),
        "{stderr}"
    );
    let left: Vec<_> = services.iter().filter(|id| kill("-0", id)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_test_passes_on_a_whole_trace_and_fails_on_a_broken_one() {
    if support::is_missing("curl", "the package `curl`") {
        return;
    }
    let mut lab = Lab::start(&["view"]).await;
    let printed = lab.read_to("Send spans here").await;
    let site = address(&printed, "Book");
    let backend = address(&printed, "OTLP")
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let script = lab::book::root().join("examples/distributed_tracing/test_distributed_trace.sh");
    let whole = support::Setup::default();
    let broken = support::Setup::default().without_traceparent();
    for (setup, patience, code, expected) in [
        (whole, "20", 0, "all checks passed"),
        (broken, "1", 1, "FAILED  the request is one trace"),
    ] {
        let setup = setup
            .with_backend(backend)
            .with("all", "OTEL_BSP_SCHEDULE_DELAY", 50);
        let system = setup.start().await;
        let output = Command::new("bash")
            .arg(&script)
            .env("PATIENCE", patience)
            .env("LAB_URL", site.trim_end_matches('/'))
            .env(
                "API_GATEWAY_URL",
                format!("http://{}", system.gateway.address),
            )
            .env(
                "USER_SERVICE_URL",
                format!("http://{}", system.user.address),
            )
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
