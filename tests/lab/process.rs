//! The lab as a process, alone and as `cargo run` starts it: what it does and prints, and how it ends when something is wrong.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use course::services::is_setting;
use lab::process;
use serde_json::{Value, json};
use support::in_process::{JSON, table, trace_id};
use support::{DEADLINE, FREE, Setup, binaries, client, has, until, within_reason};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// The flags that say where the lab and its services listen.
const ADDRESSES: [&str; 6] =
    ["--site", "--otlp", "--grpc", "--gateway", "--user-service", "--llm-service"];

/// A running lab, stopped when dropped.
struct Lab {
    /// The program, which also has the commands that ask a lab.
    program: String,
    child: Child,
    output: BufReader<ChildStdout>,
    /// The lines up to the one that says that it is ready.
    printed: String,
}

impl Lab {
    /// The program `lab`, without the book and its services.
    async fn view(arguments: &str) -> Lab {
        Lab::ready(command("lab", &format!("view {arguments}")).await).await
    }

    /// The book, and with no argument the services too.
    async fn course(arguments: &str) -> Lab {
        Lab::ready(command("course", arguments).await).await
    }

    async fn ready(command: Command) -> Lab {
        let mut lab = Lab::spawn(command);
        lab.read_to(|line| line.contains("Ctrl-C stops")).await;
        lab
    }

    fn spawn(command: Command) -> Lab {
        let program = command.as_std().get_program().to_str().expect("text").to_owned();
        let mut child = process::spawn(command).expect("the lab starts");
        let output = BufReader::new(child.stdout.take().expect("an output"));
        Lab { program, child, output, printed: String::new() }
    }

    async fn read_to(&mut self, is_last: impl Fn(&str) -> bool) {
        while !self.printed.lines().last().is_some_and(&is_last) {
            let line = within_reason(self.output.read_line(&mut self.printed)).await;
            if line.expect("text") == 0 {
                let errors = self.errors().await;
                panic!("the lab ended too early:\n{}{errors}", self.printed);
            }
        }
    }

    /// The lab's whole error output, once it has ended.
    async fn errors(&mut self) -> String {
        let mut errors = String::new();
        let stderr = self.child.stderr.as_mut().expect("an error output");
        within_reason(stderr.read_to_string(&mut errors)).await.expect("text");
        errors
    }

    /// The address that was printed behind a label.
    fn address(&self, label: &str) -> &str {
        let line = self.printed.lines().find_map(|line| line.strip_prefix(label));
        line.unwrap_or_else(|| panic!("{label}: {}", self.printed)).trim()
    }

    /// The address of the pages.
    fn site(&self) -> &str {
        let (before, _) = self.printed.split_once("/traces\n").expect("a list of traces");
        before.rsplit_once("http://").expect("its address").1
    }

    fn otlp(&self) -> &str {
        self.address("OTLP").trim_start_matches("http://")
    }

    async fn get(&self, path: &str) -> String {
        text(&format!("http://{}{path}", self.site())).await
    }

    /// Runs a command that asks this lab, and must succeed.
    async fn ask(&self, arguments: &str) -> String {
        let output = run(&self.program, &format!("{arguments} --site {}", self.site())).await;
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that asks this lab, and must fail with this reason.
    async fn refuses(&self, arguments: &str, reason: &str) {
        fails(&self.program, &format!("{arguments} --site {}", self.site()), [reason]).await;
    }

    /// The three services that the lab has started, and not git, which it asks for the commit while it builds the book. They
    /// are listed by age, and the leaf is started first.
    fn services(&self) -> Vec<String> {
        let id = self.id();
        let output =
            std::process::Command::new("pgrep").args(["-P", &id, "_service|_gateway"]).output();
        let output = output.expect("pgrep runs; install the package `procps`");
        let services = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(services.lines().count(), 3, "{services}");
        services.lines().map(str::to_owned).collect()
    }

    fn id(&self) -> String {
        self.child.id().expect("it runs").to_string()
    }

    /// Sends a signal and returns the exit code.
    async fn signal(&mut self, signal: &str) -> Option<i32> {
        kill(signal, &self.id());
        within_reason(self.child.wait()).await.expect("it ends").code()
    }
}

/// A test that fails half-way must leave nothing running either: so the lab is asked to stop, not killed. It must end well.
impl Drop for Lab {
    fn drop(&mut self) {
        let Some(id) = self.child.id() else { return };
        kill("-TERM", &id.to_string());
        let deadline = Instant::now() + DEADLINE;
        let mut ended = None;
        while ended.is_none() && Instant::now() < deadline {
            // At a pace that leaves the processor to the lab.
            std::thread::park_timeout(Duration::from_millis(5));
            ended = self.child.try_wait().unwrap_or_default();
        }
        if !std::thread::panicking() {
            assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", self.printed);
        }
    }
}

/// Sends `signal` to a process; says whether there was one.
fn kill(signal: &str, id: &str) -> bool {
    let mut kill = std::process::Command::new("kill");
    kill.args([signal, id]).stderr(Stdio::null()).status().expect("kill runs").success()
}

/// A command that listens on free ports, unless the arguments say where.
async fn command(program: &str, arguments: &str) -> Command {
    let mut command = Command::new(binaries().await.join(program));
    // The course passes on what its user sets; a test is not that user.
    for (key, _) in std::env::vars().filter(|(key, _)| is_setting(key)) {
        command.env_remove(key);
    }
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let flags = match arguments.first() {
        Some(&"view") => &ADDRESSES[..3],
        // The others ask a running lab.
        Some(first) if !first.starts_with("--") => &[],
        _ => &ADDRESSES[..],
    };
    command.args(&arguments);
    for flag in flags.iter().filter(|flag| !arguments.contains(flag)) {
        command.args([flag, FREE]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(program: &str, arguments: &str) -> Output {
    command(program, arguments).await.output().await.expect("it runs")
}

/// Runs a command to its end, which must be a failure told in one line with these parts.
async fn fails<const N: usize>(program: &str, arguments: &str, parts: [&str; N]) {
    let output = run(program, arguments).await;
    let stderr = String::from_utf8(output.stderr).expect("text");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("Error: ")).collect();
    assert_eq!((output.status.code(), errors.len()), (Some(1), 1), "{arguments}: {stderr}");
    has(errors[0], parts);
}

/// The text, if it contains what is expected.
fn containing(expected: &str, text: String) -> Result<String, String> {
    match text.contains(expected) {
        true => Ok(text),
        false => Err(text),
    }
}

/// The page at an address.
async fn text(url: &str) -> String {
    let response = client().get(url).send().await.expect("an answer");
    assert_eq!(response.status(), 200, "{url}");
    response.text().await.expect("text")
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn cargo_run_traces_one_request_and_serves_the_book_and_the_traces() {
    let mut lab = Lab::course("").await;
    has(&text(lab.address("The book")).await, ["The 200 that lied"]);
    let trace = lab.address("This trace");
    let services = ["api-gateway", "user-service", "llm-service"];
    has(&text(trace).await, services);
    has(&text(trace).await, ["validate_user", "table class=\"waterfall\""]);
    has(&text(lab.address("All traces")).await, [trace.rsplit('/').next().expect("an id")]);

    // The same tree in the terminal, as text, and in Jaeger's JSON.
    has(&lab.printed, [&text(&format!("{trace}.txt")).await]);
    let json = text(&trace.replace("/traces/", "/api/traces/")).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["data"][0]["spans"].as_array().map(Vec::len), Some(7), "{json}");
    let services = lab.get("/api/services").await;
    has(&services, [r#"["api-gateway","llm-service","user-service"]"#]);
    assert_eq!(lab.signal("-INT").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_that_the_lab_prints_works_as_it_stands() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let lab = Lab::course("").await;
    let line = lab.printed.lines().find(|line| line.starts_with("curl ")).expect("a curl");
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("NO_PROXY", "*").env("no_proxy", "*");
    let output = shell.output().await.expect("a shell");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200"), "{output:?}");
}

/// Fails if one of the services still runs.
fn all_ended(services: &[String], why: &str) {
    let left: Vec<_> = services.iter().filter(|id| kill("-0", id)).collect();
    assert!(left.is_empty(), "{why}: still running: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_the_lab_ends_the_services() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut lab = Lab::course("").await;
        let services = lab.services();
        assert_eq!(lab.signal(signal).await, Some(0), "{signal}");
        all_ended(&services, signal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_ends_the_lab_with_its_name() {
    let mut lab = Lab::course("").await;
    let services = lab.services();
    assert!(kill("-KILL", &services[0]));
    let errors = lab.errors().await;
    assert_eq!(lab.child.wait().await.expect("it ends").code(), Some(1), "{errors}");
    has(&errors, ["Error: llm-service ended by itself"]);
    all_ended(&services, &errors);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_lab_leaves_no_service_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut killed = command("course", "").await;
    // It can't remove its book.
    killed.env("TMPDIR", folder.path());
    let mut lab = Lab::ready(killed).await;
    let services = lab.services();
    assert_eq!(lab.signal("-KILL").await, None);
    // Each dies immediately, but stays in the table of processes until the system has collected it.
    let state = |id: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('X')
    };
    until(async || {
        let states: String = services.iter().map(state).collect();
        states.chars().all(|state| "ZX".contains(state)).then_some(()).ok_or(states)
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
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut cargo = Lab::spawn(cargo);
    cargo.read_to(|line| line.starts_with("started")).await;
    assert_eq!(cargo.signal("-KILL").await, None);
    // The tests and the process that they have started hold the other end for as long as they live.
    let mut rest = String::new();
    within_reason(cargo.output.read_to_string(&mut rest)).await.expect("text");
}

#[tokio::test(flavor = "multi_thread")]
async fn view_serves_without_services_and_takes_the_spans_of_others() {
    let mut lab = Lab::view("").await;
    has(&lab.get("/traces").await, ["No trace yet"]);
    let spans = table("1 shop 1 CLIENT 0..9 call; 1 mail 2<1 SERVER 1..8 answer").to_string();
    let request = client().post(format!("http://{}/v1/traces", lab.otlp()));
    let answer = request.header("content-type", JSON).body(spans).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    has(&lab.get("/traces").await, ["shop", "mail"]);
    assert_eq!(lab.signal("-TERM").await, Some(0));
}

/// The services do not notice a lab that dies; the next one, at the same address, shows what was saved and what comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_lab_disturbs_nobody_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl").display().to_string();
    let mut lab = Lab::view(&format!("--save {file}")).await;
    let otlp = lab.otlp().to_owned();
    let setup = Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 10);
    let system = setup.with_backend(otlp.parse().expect("an address")).start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    until(async || containing(">7<", lab.get("/traces").await)).await;
    assert_eq!(lab.signal("-KILL").await, None);

    assert_eq!(system.ask("user_2").await.status(), 200);
    let lab = Lab::view(&format!("--otlp {otlp} --open {file} --save {file}")).await;
    assert!(lab.printed.starts_with(&format!("Opened   {file}: 7 spans\n")), "{}", lab.printed);
    assert_eq!(system.ask("user_3").await.status(), 200);
    system.stop().await;
    let list = lab.get("/traces").await;
    assert!(list.matches(">7<").count() >= 2, "{list}");
    fails("lab", "view --open /nowhere", ["cannot open /nowhere (--open)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_traces_of_a_running_lab_are_shown_in_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let spans = table(
        "161 a 11 SERVER 0..1000 first
         162 a 11 SERVER 0..2000 second
         179 a 11 SERVER 0..3000 third",
    );
    let file = write(folder.path(), "session.jsonl", &spans.to_string());
    let lab = Lab::view(&format!("--open {file}")).await;
    let list = lab.ask("traces").await;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(names, ["third", "second", "first"]);
    assert!(!list.contains('\u{1b}'), "colours are for terminals: {list}");
    assert_eq!(lab.ask("traces --min 2s --limit 1").await.lines().count(), 1);
    let found = lab.ask("traces --name FIRST --json").await;
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let fields = ["traceId", "durationNano"].map(|field| &found[0][field]);
    assert_eq!(fields, [&json!(trace_id(0xa1)), &json!(1_000_000_000)]);

    let newest = lab.ask("trace").await;
    assert!(newest.starts_with(&format!("Trace {}", trace_id(0xb3))), "{newest}");
    has(&lab.ask("trace A2").await, ["second"]);
    let json: Value = serde_json::from_str(&lab.ask("trace a1 --json").await).expect("JSON");
    assert_eq!(json["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"], "first");
    lab.refuses("trace a", "2 traces begin with \"a\": write more").await;
    lab.refuses("trace c", "no trace id begins with \"c\"").await;
    let wrong = run("lab", "traces --min soon").await;
    has(&String::from_utf8_lossy(&wrong.stderr), ["\"soon\" is not a duration: write 5ms"]);
    let nobody = "traces --site 127.0.0.1:1";
    fails("lab", nobody, ["no lab answers at 127.0.0.1:1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_is_broken_and_diagnosed_from_the_terminal() {
    let lab = Lab::course("").await;
    let site = format!("http://{}/", lab.site());
    assert_eq!(lab.ask("diagnose").await, "The trace is in order.\n");
    assert_eq!(lab.ask("break list").await.matches("no fault").count(), 3);
    let set = lab.ask("break gateway-user drop-traceparent").await;
    let broken =
        |line: &str| line.starts_with("gateway-user") && line.ends_with("drop-traceparent");
    assert!(set.lines().any(broken), "{set}");

    // Through the address that the lab has printed.
    let (_, gateway) = lab.printed.split_once("curl -i ").expect("a command");
    let gateway = gateway.split(' ').next().expect("an address");
    let query = json!({ "user_id": "user_1", "query": "?" });
    let answer = client().post(gateway).json(&query).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let expected =
        "A broken header: On gateway-user, the `traceparent` that was sent did not arrive";
    let broken = until(async || containing(expected, lab.ask("diagnose").await)).await;
    has(&broken, [&format!("{site}how-to/diagnose.html#broken-header")]);
    // The header stands beside the span that sent it.
    let beside = "gateway-user  200  sent by POST /process of api-gateway  fault: drop-traceparent\n  - traceparent: 00-";
    until(async || containing(beside, lab.ask("trace").await)).await;

    // The same from a file; more spans may arrive between the two.
    let folder = tempfile::tempdir().expect("a folder");
    until(async || {
        let id = lab.ask("traces --limit 1 --json").await;
        let id: Value = serde_json::from_str(&id).expect("JSON");
        let id = id[0]["traceId"].as_str().expect("an id");
        let broken = lab.ask(&format!("diagnose {id}")).await.replace(&site, "the book's page ");
        let case = lab.get(&format!("/traces/{id}.case.json")).await;
        let file = write(folder.path(), "case.json", &case);
        let told = lab.ask(&format!("diagnose {file}")).await;
        (told == broken).then_some(()).ok_or(format!("{told}\nand\n{broken}"))
    })
    .await;

    assert_eq!(lab.ask("break restore").await.matches("no fault").count(), 3);
    lab.ask("break user-llm cut").await;
    let restored = lab.ask("break user-llm restore").await;
    assert_eq!(restored.matches("no fault").count(), 3);
    for (arguments, reason) in [
        ("break nowhere cut", "unknown hop \"nowhere\": use one of client-gateway"),
        ("break user-llm burn", "unknown fault \"burn\": use one of drop-traceparent"),
        ("break user-llm", "which fault?"),
        ("diagnose typo.json", "typo.json is neither a file nor"),
    ] {
        lab.refuses(arguments, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_diagnosed_is_told_in_a_line() {
    let lab = Lab::view("").await;
    // Nothing has arrived: what to try, in order.
    for arguments in ["diagnose", "diagnose 4bf92f3577b34da6a3ce929d0e0e4736"] {
        let told = run("lab", &format!("{arguments} --site {}", lab.site())).await.stdout;
        let told = String::from_utf8(told).expect("text");
        assert!(told.starts_with("Nothing arrived: "), "{told}");
        has(&told, ["  1. Wait", "  2. Stop"]);
    }
    lab.refuses("break list", "this lab runs no services").await;
    let folder = tempfile::tempdir().expect("a folder");
    let notes = write(folder.path(), "notes.txt", "no trace at all");
    fails("lab", &format!("diagnose {notes}"), ["notes.txt: there is no trace in it"]).await;
    let no_file = format!("diagnose {}", folder.path().display());
    fails("lab", &no_file, ["cannot be read"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_have_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run("course", &format!("completions {shell}")).await;
        assert!(output.status.success(), "{shell}: {output:?}");
        let script = String::from_utf8(output.stdout).expect("text");
        has(&script, ["view", "traces", "trace", "diagnose", "break", "check", "max-connections"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_asks_the_lab_and_its_exit_code_is_the_answer() {
    let lab = Lab::course("view").await;
    // The project is compiled where the tutorial is followed.
    let folder = tempfile::tempdir().expect("a folder");
    let set_up = format!("check set-up --project {}", folder.path().display());
    lab.refuses(&set_up, "src/lib.rs cannot be read").await;
    write(folder.path(), "src/lib.rs", "pub mod settings;\n");
    lab.refuses(&set_up, "has no line `pub mod error;`").await;

    lab.refuses("check 1", "not yet: no `POST /generate`").await;
    let nobody = format!("check 1 --site {FREE}");
    fails("course", &nobody, ["no lab answers at 127.0.0.1:0: start it"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_one_line_that_names_it() {
    let holder = tokio::net::TcpListener::bind(FREE).await.expect("a free port");
    let taken = holder.local_addr().expect("an address").to_string();
    for flag in ADDRESSES {
        fails("course", &format!("{flag} {taken}"), [&taken, "in use"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_that_does_not_build_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = format!("--book {}", folder.path().display());
    fails("course", &book, ["does not build"]).await;
    write(folder.path(), "book.toml", "[book]\ntitle = \"x\"\n");
    write(folder.path(), "src/SUMMARY.md", "- [Missing](missing.md)\n");
    fails("course", &book, ["missing.md"]).await;
}

/// A program that is run by hand, with its own folder as the only hint where the book is.
async fn in_folder(folder: &Path, arguments: &str) -> Command {
    let mut command = command("course", arguments).await;
    command.current_dir(folder).env_remove("CARGO_MANIFEST_DIR");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_book_is_that_of_the_clone_it_runs_in_wherever_it_was_compiled() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("book.toml", "[book]\ntitle = \"x\"\n"),
        ("examples/distributed_tracing/Cargo.toml", ""),
        ("src/SUMMARY.md", "- [Moved](moved.md)\n"),
        ("src/moved.md", "# The clone was moved\n"),
        ("inside/it/file", ""),
    ] {
        write(folder.path(), name, text);
    }
    let lab = Lab::ready(in_folder(&folder.path().join("inside/it"), "view").await).await;
    has(&text(lab.address("Book")).await, ["The clone was moved"]);

    let elsewhere = tempfile::tempdir().expect("a folder");
    let lab = Lab::ready(in_folder(elsewhere.path(), "view").await).await;
    assert!(lab.printed.starts_with("Traces"), "{}", lab.printed);
    let output = in_folder(elsewhere.path(), "").await.output().await.expect("it runs");
    let error = String::from_utf8(output.stderr).expect("text");
    let expected = "Error: the book's repository is not here: run this in a clone of it";
    assert!(error.starts_with(expected), "{error}");
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
    let file = folder.path().join("session.jsonl").display().to_string();
    let mut course = command("course", &format!("--save {file}")).await;
    course.env("LLM_BASE_URL", format!("http://{model}/v1")).env("LLM_MODEL", "m");
    let mut course = Lab::ready(course).await;
    requests.recv().await.expect("the first request");
    let (_, gateway) = course.printed.split_once("curl -i ").expect("a command");
    let gateway = gateway.split(' ').next().expect("an address").to_owned();
    let health = gateway.replace("/api/query", "/health");
    let query = json!({ "user_id": "user_1", "query": "?" });
    let under_way = tokio::spawn(client().post(gateway).json(&query).send());
    requests.recv().await.expect("the second request");

    kill("-TERM", &course.id());
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
    let opened = lab::session::open(Path::new(&file)).expect("the session");
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    assert_eq!(opened.spans.len(), 2 * 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_test_passes_on_a_whole_trace_and_fails_on_a_broken_one() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let lab = Lab::view("").await;
    let backend = lab.otlp().parse().expect("an address");
    let script = support::root().join("examples/distributed_tracing/test_distributed_trace.sh");
    for (setup, patience, code, expected) in [
        (Setup::default(), "120", 0, "all checks passed"),
        (Setup::default().without_traceparent(), "1", 1, "FAILED  the request is one trace"),
    ] {
        let setup = setup.with_backend(backend).with("all", "OTEL_BSP_SCHEDULE_DELAY", 50);
        let system = setup.start().await;
        let output = Command::new("bash")
            .arg(&script)
            .env("PATIENCE", patience)
            .env("LAB_URL", format!("http://{}", lab.site()))
            .env("API_GATEWAY_URL", format!("http://{}", system.gateway.address))
            .env("USER_SERVICE_URL", format!("http://{}", system.user.address))
            .env("LLM_SERVICE_URL", format!("http://{}", system.llm.address))
            .output()
            .await
            .expect("bash runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        has(&printed, [expected]);
        assert_eq!(printed.matches("ok      http").count(), 3, "{printed}");
        system.stop().await;
    }
}
