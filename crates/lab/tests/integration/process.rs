//! The lab as a process: what it does and prints, and how it ends when something is wrong.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lab::{process, session};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use serde_json::{Value, json};
use support::in_process::{JSON, NEW_YEAR, PROTOBUF, protobuf, span, table, trace_id, trace_path};
use support::process::{Lab, fails, run, write};
use support::{Setup, client, has, lacks, until, within_reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Set in the process of a test that [`below`] starts.
#[cfg(target_os = "linux")]
const INNER: &str = "ONE_TRACE_INNER_TEST";

/// Runs a test of this program again, in a process of its own that a shell with this path starts.
#[cfg(target_os = "linux")]
fn below(shell: &Path, test: &str) -> Lab {
    let mut command = Command::new(shell);
    command
        // A second command, so that the shell does not become the first.
        .args(["-c", r#""$0" --exact "$1" --nocapture; exit"#])
        .arg(std::env::current_exe().expect("the program of the tests"))
        .arg(format!("process::{test}"))
        .env(INNER, "1")
        .env("CARGO", "cargo")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Lab::spawn(command)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cargo_leaves_neither_tests_nor_their_processes_behind() {
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
    let test = "a_killed_cargo_leaves_neither_tests_nor_their_processes_behind";
    let mut cargo = below(&cargo, test);
    cargo.read_to(|line| line.starts_with("started")).await;
    assert_eq!(cargo.signal("-KILL").await, None);
    // The tests and the process that they have started hold the other end for as long as they live.
    let mut rest = String::new();
    within_reason(cargo.output.read_to_string(&mut rest)).await.expect("text");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_test_whose_cargo_is_already_gone_starts_no_process() {
    if std::env::var_os(INNER).is_some() {
        println!("\nwaiting");
        std::io::stdin().read_line(&mut String::new()).expect("a line");
        let mut child = Command::new("echo");
        child.arg("started");
        process::spawn(child).expect("a program").wait().await.expect("it ends");
        return;
    }
    let test = "a_test_whose_cargo_is_already_gone_starts_no_process";
    let mut shell = below(Path::new("/bin/sh"), test);
    shell.read_to(|line| line.starts_with("waiting")).await;
    let mut input = shell.child.stdin.take().expect("an input");
    assert_eq!(shell.signal("-KILL").await, None);
    // The shell is gone, so the test is an orphan.
    input.write_all(b"\n").await.expect("the test reads");
    let mut rest = String::new();
    within_reason(shell.output.read_to_string(&mut rest)).await.expect("text");
    lacks(&rest, ["started"]);
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
    // The pages show spans before they are in the file.
    until(async || match session::open(Path::new(&file), drop) {
        Ok(opened) if opened.count == 7 => Ok(()),
        opened => Err(format!("{:?}", opened.map(|it| it.count))),
    })
    .await;
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
    let fields = ["traceId", "durationNano", "startTimeUnixNano"].map(|field| &found[0][field]);
    let start = json!((NEW_YEAR * 1_000_000).to_string());
    assert_eq!(fields, [&json!(trace_id(0xa1)), &json!(1_000_000_000), &start]);

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
async fn what_cannot_be_diagnosed_is_told_in_a_line() {
    let lab = Lab::view("").await;
    // Nothing has arrived: what to try, in order.
    for (arguments, status) in [("diagnose", 1), ("diagnose 4bf92f3577b34da6a3ce929d0e0e4736", 2)] {
        let output = run("lab", &format!("{arguments} --site {}", lab.site())).await;
        assert_eq!(output.status.code(), Some(status), "{arguments}: {output:?}");
        let told = String::from_utf8(output.stdout).expect("text");
        assert!(told.starts_with("Nothing arrived (likely): "), "{told}");
        has(&told, ["  1. Wait", "  2. Stop"]);
    }
    lab.refuses("break list", "this lab has no proxies").await;
    let folder = tempfile::tempdir().expect("a folder");
    let notes = write(folder.path(), "notes.txt", "no trace at all");
    fails("lab", &format!("diagnose {notes}"), ["notes.txt: there is no trace in it"]).await;
    let no_file = format!("diagnose {}", folder.path().display());
    fails("lab", &no_file, ["cannot be read"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_traces_of_a_file_are_shown_without_a_lab() {
    let folder = tempfile::tempdir().expect("a folder");
    let zipkin = json!([
        { "traceId": "a1", "id": "1", "kind": "SERVER", "name": "first", "timestamp": 1_000_000, "duration": 1000,
          "localEndpoint": { "serviceName": "shop" } },
        { "traceId": "b1", "id": "2", "name": "second", "timestamp": 2_000_000, "duration": 3_000_000 },
    ]);
    let file = write(folder.path(), "zipkin.txt", &zipkin.to_string());
    let printed = async |arguments: &str| {
        let output = run("lab", &format!("{arguments} --site 127.0.0.1:1")).await;
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let list = printed(&format!("traces {file}")).await;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(names, ["second", "first"]);
    has(&printed(&format!("traces {file} --service shop")).await, ["first", "1 span"]);
    has(&printed(&format!("trace {file}")).await, ["second", "3.00 s"]);
    has(&printed(&format!("trace {file} A1")).await, ["first", "1.00 ms"]);
    let json: Value =
        serde_json::from_str(&printed(&format!("trace {file} a1 --json")).await).expect("JSON");
    assert_eq!(json["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"], "first");
    fails("lab", &format!("trace {file} c"), ["no trace id in", "begins with \"c\""]).await;
    fails("lab", "trace /nowhere c", ["/nowhere is not a file"]).await;
    let page = write(folder.path(), "page.json", "<html>Sign in</html>");
    fails("lab", &format!("traces {page}"), ["it looks like an HTML page. The lab reads"]).await;
}

/// The ids of the spans that a lab has acknowledged.
#[derive(Clone, Default)]
struct Acknowledged {
    last: Arc<AtomicU64>,
    ids: Arc<Mutex<HashSet<u64>>>,
}

impl Acknowledged {
    /// A request with a span that no other has, and its id.
    fn next(&self) -> (u64, Vec<u8>) {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        (id, protobuf(vec![span(1, id, 0, "sent")]))
    }

    fn add(&self, id: u64) {
        self.ids.lock().expect("no panic").insert(id);
    }

    fn ids(&self) -> HashSet<u64> {
        self.ids.lock().expect("no panic").clone()
    }

    /// Sends spans over HTTP until one isn't acknowledged.
    async fn send_over_http(self, otlp: String) {
        loop {
            let (id, body) = self.next();
            let request = client().post(format!("http://{otlp}/v1/traces"));
            let request = request.header("content-type", PROTOBUF).body(body);
            match request.send().await {
                Ok(answer) if answer.status().is_success() => self.add(id),
                _ => return,
            }
        }
    }

    /// The same over gRPC, on one connection.
    async fn send_over_grpc(self, url: String) {
        let mut client = TraceServiceClient::connect(url).await.expect("a connection");
        loop {
            let (id, body) = self.next();
            let request = ExportTraceServiceRequest::decode(&body[..]).expect("a request");
            match client.export(request).await {
                Ok(_) => self.add(id),
                Err(_) => return,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_span_is_saved_by_a_lab_that_stops_while_senders_go_on() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("session.jsonl");
        let mut lab = Lab::view(&format!("--save {}", file.display())).await;
        let acknowledged = Acknowledged::default();
        let mut senders = JoinSet::new();
        for _ in 0..4 {
            senders.spawn(acknowledged.clone().send_over_http(lab.otlp().to_owned()));
            senders.spawn(acknowledged.clone().send_over_grpc(lab.address("gRPC").to_owned()));
        }
        // One sender never finishes its request.
        let mut half = TcpStream::connect(lab.otlp()).await.expect("a connection");
        let head = "POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 9\r\n\r\n{";
        half.write_all(head.as_bytes()).await.expect("it is sent");
        until(async || match acknowledged.ids().len() {
            200.. => Ok(()),
            few => Err(few),
        })
        .await;
        assert_eq!(lab.signal(signal).await, Some(0), "{signal}");
        within_reason(senders.join_all()).await;
        let mut saved = HashSet::new();
        let read = session::open(&file, |piece| {
            saved.extend(piece.spans.iter().map(|it| u64::from_be_bytes(it.id.0)));
        });
        read.expect("a session");
        let mut lost: Vec<u64> = acknowledged.ids().difference(&saved).copied().collect();
        lost.sort_unstable();
        assert!(lost.is_empty(), "{signal}: {lost:?} are lost of {}", acknowledged.ids().len());
    }
}

/// Sends spans of one trace to a lab.
async fn send(lab: &Lab, ids: std::ops::RangeInclusive<u64>) {
    let body = protobuf(ids.map(|id| span(1, id, 0, "x")).collect());
    let request = client().post(format!("http://{}/v1/traces", lab.otlp()));
    let answer = request.header("content-type", PROTOBUF).body(body).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_is_larger_than_the_store_is_missed_by_everybody() {
    let mut lab = Lab::view("--max-spans 10").await;
    send(&lab, 1..=11).await;
    let reason = "1 trace with 11 spans arrived and had to be dropped: the lab keeps at most 10 spans (--max-spans)";
    has(&lab.get("/traces").await, [reason]);
    let page = client().get(format!("http://{}{}", lab.site(), trace_path(1))).send().await;
    has(&page.expect("an answer").text().await.expect("text"), ["Spans of this trace arrived"]);
    let listed = run("lab", &format!("traces --site {}", lab.site())).await;
    has(&String::from_utf8_lossy(&listed.stderr), [reason]);
    lab.refuses("trace", reason).await;
    lab.refuses("trace --json", reason).await;
    // A trace that fits is shown as always.
    send(&lab, 1..=2).await;
    has(&lab.get("/traces").await, ["1 trace, 2 spans", "1 older trace of 11 spans made room"]);
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let warning = format!("Warning: trace {} is larger than the lab's memory", trace_id(1));
    assert_eq!(lab.errors().await.matches(&warning).count(), 1);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_saved_file_that_is_deleted_is_missed_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let mut lab = Lab::view(&format!("--save {}", file.display())).await;
    send(&lab, 1..=1).await;
    std::fs::remove_file(&file).expect("it is there");
    send(&lab, 2..=2).await;
    send(&lab, 3..=3).await;
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let errors = lab.errors().await;
    let warning = format!("Warning: {} was deleted or replaced", file.display());
    assert_eq!(errors.matches(&warning).count(), 1, "{errors}");
}
