//! Checks that SDKs in Python, JavaScript, Go and Java can export to the lab, and that a client of Jaeger's query API can read from it.
//! `install.sh` installs them, except Java's agent, which is one of `tests/components`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use crate::guides::component::Component;
use crate::probe::Around;
use lab::diagnose::{Rule, diagnose};
use lab::log::{LogRecord, Severity};
use lab::moments::{Exception, Moment, Moments};
use lab::process;
use lab::proto::trace::Span;
use lab::tree::Tree;
use regex::Regex;
use serde_json::{Value, json};
use support::in_process::{Lab, span};
use support::process::write;
use support::{arrived, client, free_port, has, is_missing, root, serve, skipped, within_reason};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// The folder that install.sh fills; `None` where it has not run since its versions changed.
pub fn installed() -> Option<PathBuf> {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_default();
    let pinned = read("tests/sdks/requirements.txt") + &read("tests/sdks/package-lock.json");
    if read("target/sdks/installed") == pinned {
        return Some(root().join("target/sdks"));
    }
    skipped("the programs of tests/sdks", "run `bash tests/sdks/install.sh`");
    None
}

/// A program that gets only these variables and exports to `endpoint`.
fn exporting(program: PathBuf, endpoint: SocketAddr, protocol: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{endpoint}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The tags of a span, as `KEY TYPE VALUE`, without the tags that a library adds by itself.
fn tags(tags: &Value) -> Vec<String> {
    const OWN: [&str; 4] =
        ["exception.stacktrace", "exception.escaped", "telemetry.", "service.instance."];
    let tags = tags.as_array().expect("tags").iter();
    tags.map(|tag| format!("{} {} {}", tag["key"], tag["type"], tag["value"]).replace('"', ""))
        .filter(|tag| !OWN.iter().any(|own| tag.starts_with(own)))
        .collect()
}

/// The trace that every sender's first link leads to.
const LINKED: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Fails unless the lab shows the trace that both senders send.
async fn assert_shown(lab: &Lab, id: &str, sender: &str, language: &str, error: &str) {
    let service = format!("{language}-service");
    let (_, tree) = lab.get(&format!("/traces/{id}.txt")).await;
    let times = Regex::new(r" +[\d.]+ (ms|µs|s)\b").expect("a pattern");
    let expected = format!(
        "\
GET /orders/{{id}}  SERVER    {service} TIME  500
├─ charge card    INTERNAL  {service} TIME  error: the card was declined
└─ publish order  PRODUCER  {service} TIME  linked to trace {LINKED}
"
    );
    assert_eq!(times.replace_all(&tree, " TIME"), expected);

    let trace = &lab.get_json(&format!("/api/traces/{id}")).await["data"][0];
    let spans = trace["spans"].as_array().expect("spans");
    let named = |name: &str| spans.iter().find(|span| span["operationName"] == name).expect(name);
    let mut attributes = vec![
        "http.request.method string GET".to_owned(),
        "http.response.status_code int64 500".into(),
        "order.gift bool true".into(),
        "order.number int64 9007199254740993".into(),
        "order.total float64 19.5".into(),
        r"order.items string [\tea\,\cups\]".into(),
        "span.kind string server".into(),
        format!("otel.scope.name string {sender}"),
        "otel.scope.version string 0.1.0".into(),
    ];
    // JavaScript has no integers of this size.
    attributes.retain(|it| language == "python" || !it.starts_with("order.number"));
    assert_eq!(tags(&named("GET /orders/{id}")["tags"]), attributes);
    let process = &trace["processes"]["p1"];
    assert_eq!(process["serviceName"], service);
    let process = tags(&process["tags"]);
    assert!(process.contains(&"service.version string 1.2.3".to_owned()), "{process:?}");
    let logs = named("charge card")["logs"].as_array().expect("logs");
    let logs: Vec<_> = logs.iter().map(|log| tags(&log["fields"])).collect();
    let exception = format!("exception.type string {error}");
    let retry = vec!["event string retry", "attempt int64 2"];
    let message = "exception.message string card expired";
    assert_eq!(logs, [retry, vec!["event string exception", &exception, message]]);
    let link =
        json!({ "refType": "FOLLOWS_FROM", "traceID": LINKED, "spanID": "00f067aa0ba902b7" });
    let publish = named("publish order");
    let references = publish["references"].as_array().expect("references");
    assert!(references.contains(&link), "{references:?}");

    // The page also shows what Jaeger's form has no place for.
    let publish = publish["spanID"].as_str().expect("an id");
    let (_, page) = lab.get(&format!("/traces/{id}?span={publish}")).await;
    assert!(page.contains("first attempt"), "{page}");
}

/// The rules of the diagnosis that report something about the traces of a lab.
fn rules(lab: &Lab) -> Vec<Rule> {
    let findings = diagnose(&lab.store.trees(), &[]);
    let mut rules: Vec<Rule> = findings.iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

/// Sends a trace with every protocol, packed and not, and checks it in the lab.
async fn send_all(
    program: PathBuf,
    file: &str,
    protocols: &[&str],
    language: &str,
    error: &str,
) -> Lab {
    let lab = Lab::start().await;
    let grpc = serve(lab::grpc::routes(lab.store.clone())).await;
    for protocol in protocols {
        for compression in [None, Some("gzip")] {
            let endpoint = if *protocol == "grpc" { grpc } else { lab.address };
            let mut sender = exporting(program.clone(), endpoint, protocol);
            sender.arg(root().join("tests/sdks").join(file));
            sender.envs(compression.map(|it| ("OTEL_EXPORTER_OTLP_COMPRESSION", it)));
            let output = within_reason(sender.output()).await.expect("it runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && errors.is_empty(), "{protocol}: {errors}");
            let id = String::from_utf8(output.stdout).expect("text");
            assert_shown(&lab, id.trim(), file, language, error).await;
        }
    }
    assert_eq!(lab.counts()[0], 2 * protocols.len());
    // The sender answers 500 and doesn't set the status of its span to error.
    assert_eq!(rules(&lab), [Rule::StatusNotSet]);
    lab
}

/// Returns the records that the lab shows at the span of this name, in the order of time.
fn records(lab: &Lab, tree: &Tree, span: &str) -> Vec<Arc<LogRecord>> {
    let row = tree.rows.iter().position(|row| row.span.name() == span).expect(span);
    let moments = Moments::new(tree, &lab.store.logs(tree.trace_id)).rows.swap_remove(row);
    let log = |moment| match moment {
        Moment::Log(record) => Some(record),
        Moment::Event(_) => None,
    };
    moments.into_iter().filter_map(log).collect()
}

/// Fails unless the record of each trace is at its span, with its exception. Both senders also log outside of a span.
fn assert_logged(lab: &Lab, error: &str) {
    let usage = lab.store.usage();
    assert_eq!((usage.logs, usage.logs_without_trace), (usage.traces, usage.traces));
    for tree in lab.store.trees() {
        let [record] = &records(lab, &tree, "charge card")[..] else { panic!("not one record") };
        assert_eq!(
            (&*record.body(), record.severity()),
            ("order 7 was not charged", Severity::Error)
        );
        let exception = Exception::of_log(record).expect("a record with an exception");
        assert_eq!((&*exception.r#type, &*exception.message), (error, "card expired"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_sdk_is_shown_as_it_sends() {
    let Some(folder) = installed() else { return };
    let protocols = ["http/protobuf", "grpc"];
    let python = folder.join("bin/python");
    let lab = send_all(python, "send.py", &protocols, "python", "ValueError").await;
    assert_logged(&lab, "ValueError");
}

#[tokio::test(flavor = "multi_thread")]
async fn javascripts_sdk_is_shown_as_it_sends() {
    if installed().is_none() || is_missing("node", "install Node.js 20") {
        return;
    }
    let protocols = ["http/json", "http/protobuf", "grpc"];
    let lab = send_all("node".into(), "send.mjs", &protocols, "nodejs", "RangeError").await;
    assert_logged(&lab, "RangeError");
}

/// Java's agent makes the spans, exports what `java.util.logging` writes, and records exceptions only as log records.
#[tokio::test(flavor = "multi_thread")]
async fn the_records_and_exceptions_of_javas_agent_are_at_their_spans() {
    let Some(folder) = support::installed("java") else { return };
    if is_missing("java", "install a JDK, 17 or newer") {
        return;
    }
    let lab = Lab::start().await;
    let mut agent = OsString::from("-javaagent:");
    agent.push(folder.join("opentelemetry-javaagent.jar"));
    let mut java = exporting("java".into(), lab.address, "http/protobuf");
    java.arg(agent)
        .arg(root().join("tests/sdks/Send.java"))
        // Without this, the agent leaves the compiler alone, which starts a program from its source.
        .env("OTEL_JAVAAGENT_ENABLED", "true")
        .env("OTEL_SERVICE_NAME", "java-service")
        .env("OTEL_METRICS_EXPORTER", "none")
        // The agent's own name of OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN.
        .env("OTEL_SEMCONV_EXCEPTION_SIGNAL_PREVIEW", "logs");
    let output = within_reason(java.output()).await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let [tree] = &lab.store.trees()[..] else { panic!("not one trace") };
    let [warning, exception] = &records(&lab, tree, "POST /charge")[..] else {
        panic!("not two records")
    };
    assert_eq!((&*warning.body(), warning.severity()), ("order 7 was not charged", Severity::Warn));
    assert_eq!(exception.event_name(), "http.server.request.exception");
    let exception = Exception::of_log(exception).expect("an exception");
    let Exception { r#type, message, stacktrace } = &exception;
    assert_eq!((&**r#type, &**message), ("java.lang.IllegalStateException", "card expired"));
    has(stacktrace.as_deref().expect("a stack trace"), ["at Send."]);
    let server = tree.rows.iter().find(|row| row.span.name() == "POST /charge").expect("a span");
    assert!(server.span.proto().events.is_empty(), "the exception is also an event");

    // It leads the details of the span.
    let (_, page) = lab.get(&format!("/traces/{}?span={}", tree.trace_id, server.span.id)).await;
    let (lead, rest) = page.split_once("<dt>span id").expect("details");
    has(lead, ["Exception, in a log record", "card expired"]);
    has(rest, ["order 7 was not charged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn gos_sdk_joins_a_trace_and_is_shown() {
    let Some(folder) = installed() else { return };
    let lab = Lab::start().await;
    let grpc = serve(lab::grpc::routes(lab.store.clone())).await;
    // Caddy doesn't say which port it has taken.
    let port = free_port();
    let data = tempfile::tempdir().expect("a folder");
    let mut caddy = exporting(folder.join("bin/caddy"), grpc, "grpc");
    caddy
        .args(["run", "--config"])
        .arg(root().join("tests/sdks/Caddyfile"))
        .env("CADDY_PORT", port.to_string())
        .env("XDG_DATA_HOME", data.path())
        .env("OTEL_SERVICE_NAME", "go-service");
    let caddy = Component::start(caddy, "serving initial configuration").await;

    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let request = client().get(format!("http://127.0.0.1:{port}/"));
    let answer = request.header("traceparent", format!("00-{trace}-{parent}-01")).send().await;
    assert_eq!(answer.expect("an answer").text().await.expect("text"), "traced");
    // After SIGTERM, Caddy sends the span that is still in the batch.
    let id = caddy.id().expect("it runs").to_string();
    std::process::Command::new("kill").arg(id).status().expect("kill runs");
    arrived(&lab.store, 1).await;

    let (_, tree) = lab.get(&format!("/traces/{trace}.txt")).await;
    let end = format!("200, orphan: parent {parent} is not here");
    let right = tree.starts_with("caddy  SERVER    go-service") && tree.trim_end().ends_with(&end);
    assert!(right, "{tree}");
    let (_, list) = lab.get("/traces").await;
    assert!(list.contains("its root is missing"), "{list}");
    assert_eq!(rules(&lab), [Rule::Orphan]);
}

/// Calls tools of jaeger-mcp, which offers Jaeger's query API to language models, over JSON-RPC with one message a line. Returns
/// the answers as texts.
async fn call<const N: usize>(
    program: PathBuf,
    lab: &Lab,
    calls: [(&str, Value); N],
) -> [String; N] {
    let mut command = exporting(program, lab.address, "grpc");
    command
        .env("JAEGER_URL", format!("http://{}", lab.address))
        .env("JAEGER_RETRY_ATTEMPTS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut client = process::spawn(command).expect("it runs");
    let mut input = client.stdin.take().expect("an input");
    let mut output = BufReader::new(client.stdout.take().expect("an output")).lines();
    let mut request = async |id, method: &str, params| {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        input.write_all(format!("{request}\n").as_bytes()).await.expect("it listens");
        loop {
            let line = within_reason(output.next_line()).await.expect("text").expect("an answer");
            let mut answer: Value = serde_json::from_str(&line).expect("JSON");
            if answer["id"] == id {
                return answer["result"].take();
            }
        }
    };
    let client = json!({ "name": "test", "version": "0" });
    let hello =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    request(0, "initialize", hello).await;
    let mut answers = [const { String::new() }; N];
    for (id, (tool, arguments)) in calls.into_iter().enumerate() {
        let call = json!({ "name": tool, "arguments": arguments });
        let result = request(id + 1, "tools/call", call).await;
        assert_ne!(result["isError"], true, "{tool}: {result}");
        answers[id] = result["content"][0]["text"].as_str().expect("text").to_owned();
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_of_jaeger_reads_the_lab() {
    let Some(folder) = installed() else { return };
    let lab = Lab::start().await;
    // The client only searches the last hour.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    let now = u64::try_from(now).expect("before 2554");
    let lately = |trace, id, parent, name| Span {
        start_time_unix_nano: now - 50_000_000,
        end_time_unix_nano: now,
        ..span(trace, id, parent, name)
    };
    let front = vec![lately(1, 1, 0, "GET /cart"), lately(2, 3, 0, "GET /help")];
    lab.export_of("front", front).await;
    lab.export_of("back", vec![lately(1, 2, 1, "SELECT")]).await;

    let (cart, help, microseconds) = ("01".repeat(16), "02".repeat(16), now / 1000);
    let search = |min_duration: &str| {
        json!({
            "service": "front", "operation": "GET /cart", "start": microseconds - 3_600_000_000, "end": microseconds,
            "min_duration": min_duration, "max_duration": "10s", "limit": 5,
        })
    };
    // A call, the texts that its answer must contain, and a text that it must not.
    let get = json!({ "trace_id": cart });
    let cases: [(&str, _, &[&str], &str); 6] = [
        ("jaeger_list_services", json!({}), &["front", "back"], "GET"),
        ("jaeger_list_operations", json!({ "service": "front" }), &["GET /cart"], "SELECT"),
        ("jaeger_search_traces", search("1ms"), &[&cart], &help),
        ("jaeger_search_traces", search("1s"), &[], &cart),
        ("jaeger_get_trace", get, &["`front` — 1 span(s)", "`back` — 1 span(s)"], &help),
        ("jaeger_get_dependencies", json!({ "lookback_hours": 1 }), &["front", "back"], "GET"),
    ];
    let calls = cases.each_ref().map(|(tool, arguments, ..)| (*tool, arguments.clone()));
    let answers = call(folder.join("bin/jaeger-mcp"), &lab, calls).await;
    assert_eq!(answers.len(), cases.len());
    for (answer, (.., texts, other)) in answers.iter().zip(cases) {
        let right = texts.iter().all(|text| answer.contains(text)) && !answer.contains(other);
        assert!(right, "{texts:?} without {other:?}: {answer}");
    }
}

/// Caddy as a proxy before `neighbor`. It makes one span for a request and passes on the id of that span.
pub struct Proxy {
    pub address: SocketAddr,
    _caddy: Component,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Returns `None` where Caddy isn't installed.
    pub async fn start(neighbor: SocketAddr, otlp: SocketAddr) -> Option<Proxy> {
        let caddy = installed()?.join("bin/caddy");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = tempfile::tempdir().expect("a folder");
        let hello = std::fs::read_to_string(root().join("tests/sdks/Caddyfile")).expect("text");
        let proxy = hello.replace("respond \"traced\"", &format!("reverse_proxy {neighbor}"));
        let file = write(folder.path(), "Caddyfile", &proxy);
        let mut caddy = exporting(caddy, otlp, "http/protobuf");
        caddy
            .args(["run", "--config", &file])
            .env("CADDY_PORT", address.port().to_string())
            .env("XDG_DATA_HOME", folder.path())
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            .env("OTEL_SERVICE_NAME", "caddy");
        let caddy = Component::start(caddy, "serving initial configuration").await;
        Some(Proxy { address, _caddy: caddy, _folder: folder })
    }
}

/// Caddy passes on every header of the caller, among them a `tracestate` that came without a valid `traceparent`.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_finds_caddy_sound_but_for_the_headers_that_it_copies() {
    let around = Around::free();
    let Some(proxy) = Proxy::start(around.neighbor, around.otlp).await else { return };
    let url = format!("http://{}/", proxy.address);
    let probed = around.probe(&url, &["--settle", "2s"]).await;
    assert_eq!(probed.status, Some(1), "{}", probed.printed);
    has(
        &probed.printed,
        [
            "the service has no CLIENT span here: the parent is its SERVER span",
            "although it came without a valid traceparent (TC Tracestate Header)\n        in cut off, tracestate alone\n",
            " 2 broken.",
        ],
    );
    let allowed = ["--settle", "2s", "--allow", "cut off", "--allow", "tracestate alone"];
    assert_eq!(around.probe(&url, &allowed).await.status, Some(0));
}
