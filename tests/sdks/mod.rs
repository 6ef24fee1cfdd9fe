//! SDKs in Python, JavaScript and Go export to the lab, and a client of Jaeger's query API reads from it. `install.sh` installs
//! them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::in_process::{Lab, span};
use crate::support::{FREE, client, is_missing, serve, skipped, within_reason};
use lab::diagnose::{Rule, diagnose};
use lab::process;
use lab::tree::Tree;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Where install.sh has put them; `None` where it has not been run since its versions changed.
fn installed() -> Option<PathBuf> {
    let read =
        |path: &str| std::fs::read_to_string(crate::support::root().join(path)).unwrap_or_default();
    let pinned = read("tests/sdks/requirements.txt") + &read("tests/sdks/package-lock.json");
    if read("target/sdks/installed") != pinned {
        let get = "run `bash tests/sdks/install.sh`";
        skipped("the programs of tests/sdks", get);
        return None;
    }
    Some(crate::support::root().join("target/sdks"))
}

/// A program that gets these variables and no other, and exports to `endpoint`.
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

/// Tags of a span, as `KEY TYPE VALUE`, but for those that a library adds of itself.
fn tags(tags: &Value) -> Vec<String> {
    let tags = tags.as_array().expect("tags").iter();
    let tags =
        tags.map(|tag| format!("{} {} {}", tag["key"], tag["type"], tag["value"]).replace('"', ""));
    let own = |tag: &String| {
        !["exception.stacktrace", "exception.escaped", "telemetry.", "service.instance."]
            .iter()
            .any(|it| tag.starts_with(it))
    };
    tags.filter(own).collect()
}

/// The trace that both senders send must be in the lab as they sent it.
async fn assert_shown(lab: &Lab, id: &str, sender: &str, language: &str, error: &str) {
    let (_, tree) = lab.get(&format!("/traces/{id}.txt")).await;
    let lines: Vec<&str> = tree.lines().map(str::trim_end).collect();
    let [server, charge, publish] = lines[..] else { panic!("{language}: {tree}") };
    let service = format!("{language}-service");
    assert!(
        server.starts_with(&format!("GET /orders/{{id}}  SERVER    {service}"))
            && server.ends_with("s  500"),
        "{tree}"
    );
    assert!(
        charge.starts_with(&format!("├─ charge card    INTERNAL  {service}"))
            && charge.ends_with("s  error: the card was declined"),
        "{tree}"
    );
    assert!(
        publish.starts_with(&format!("└─ publish order  PRODUCER  {service}"))
            && publish.contains("s  linked to trace 4bf92f3577b34da6a3ce929d0e0e4736"),
        "{tree}"
    );

    let trace = &lab.get_json(&format!("/api/traces/{id}")).await["data"][0];
    let spans = trace["spans"].as_array().expect("spans");
    let named = |name: &str| spans.iter().find(|span| span["operationName"] == name).expect(name);
    let mut attributes = vec![
        "http.request.method string GET",
        "http.response.status_code int64 500",
        "order.gift bool true",
    ];
    if language == "python" {
        attributes.push("order.number int64 9007199254740993");
    }
    let scope = format!("otel.scope.name string {sender}");
    attributes.extend([
        "order.total float64 19.5",
        r"order.items string [\tea\,\cups\]",
        "span.kind string server",
        &scope,
        "otel.scope.version string 0.1.0",
    ]);
    assert_eq!(tags(&named("GET /orders/{id}")["tags"]), attributes);
    let process = tags(&trace["processes"]["p1"]["tags"]);
    assert!(
        process.contains(&format!("service.name string {service}"))
            && process.contains(&"service.version string 1.2.3".to_owned()),
        "{process:?}"
    );
    let logs: Vec<Vec<String>> = named("charge card")["logs"]
        .as_array()
        .expect("logs")
        .iter()
        .map(|log| tags(&log["fields"]))
        .collect();
    let exception = format!("exception.type string {error}");
    assert_eq!(logs[0], ["event string retry", "attempt int64 2"]);
    assert_eq!(
        logs[1],
        ["event string exception", &exception, "exception.message string card expired"]
    );
    let link = json!({ "refType": "FOLLOWS_FROM", "traceID": "4bf92f3577b34da6a3ce929d0e0e4736", "spanID": "00f067aa0ba902b7" });
    let references = named("publish order")["references"].as_array().expect("references");
    assert!(references.contains(&link), "{references:?}");

    // What Jaeger's form has no place for is on the page.
    let publish = named("publish order")["spanID"].as_str().expect("an id");
    let (_, page) = lab.get(&format!("/traces/{id}?span={publish}")).await;
    assert!(page.contains("first attempt"), "{page}");
}

/// The rules that find something: none may find what is not there.
fn rules(trees: &[Tree]) -> Vec<Rule> {
    let found = diagnose(trees, &[]);
    let mut rules: Vec<Rule> = found.iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

/// Sends with every protocol, packed and not, and looks at what is in the lab.
async fn send_all(program: PathBuf, file: &str, protocols: &[&str], language: &str, error: &str) {
    let lab = Lab::start().await;
    let grpc = serve(lab::grpc::routes(lab.store.clone())).await;
    for protocol in protocols {
        for compression in [None, Some("gzip")] {
            let endpoint = if *protocol == "grpc" { grpc } else { lab.address };
            let mut sender = exporting(program.clone(), endpoint, protocol);
            sender.arg(crate::support::root().join("tests/sdks").join(file));
            if let Some(compression) = compression {
                sender.env("OTEL_EXPORTER_OTLP_COMPRESSION", compression);
            }
            let output = within_reason(sender.output()).await.expect("it runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && errors.is_empty(), "{protocol}: {errors}");
            let id = String::from_utf8(output.stdout).expect("text");
            assert_shown(&lab, id.trim(), file, language, error).await;
        }
    }
    assert_eq!(lab.counts()[0], 2 * protocols.len());
    // The sender answers 500, and does not say that this is an error.
    assert_eq!(rules(&lab.store.trees()), [Rule::StatusNotSet]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_sdk_is_shown_as_it_sends() {
    let Some(folder) = installed() else { return };
    let protocols = ["http/protobuf", "grpc"];
    send_all(folder.join("bin/python"), "send.py", &protocols, "python", "ValueError").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascripts_sdk_is_shown_as_it_sends() {
    if installed().is_none() || is_missing("node", "install Node.js 20") {
        return;
    }
    let protocols = ["http/json", "http/protobuf", "grpc"];
    send_all("node".into(), "send.mjs", &protocols, "nodejs", "RangeError").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gos_sdk_joins_a_trace_and_is_shown() {
    let Some(folder) = installed() else { return };
    let lab = Lab::start().await;
    let grpc = serve(lab::grpc::routes(lab.store.clone())).await;
    // Caddy does not say which port it took, so it is given one that was free.
    let port = TcpListener::bind(FREE)
        .await
        .expect("a free port")
        .local_addr()
        .expect("an address")
        .port();
    let data = tempfile::tempdir().expect("a folder");
    let mut caddy = exporting(folder.join("bin/caddy"), grpc, "grpc");
    caddy
        .args(["run", "--config"])
        .arg(crate::support::root().join("tests/sdks/Caddyfile"))
        .env("CADDY_PORT", port.to_string())
        .env("XDG_DATA_HOME", data.path())
        .env("OTEL_SERVICE_NAME", "go-service")
        .stderr(Stdio::piped());
    let mut caddy = process::spawn(caddy).expect("Caddy runs");
    let mut log = BufReader::new(caddy.stderr.take().expect("an output")).lines();
    let started = async {
        while let Some(line) = log.next_line().await.expect("text") {
            println!("{line}");
            if line.contains("serving initial configuration") {
                return;
            }
        }
        panic!("Caddy ended");
    };
    within_reason(started).await;
    tokio::spawn(async move {
        while let Ok(Some(line)) = log.next_line().await {
            println!("{line}");
        }
    });

    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let request = client().get(format!("http://127.0.0.1:{port}/"));
    let answer = request.header("traceparent", format!("00-{trace}-{parent}-01")).send().await;
    assert_eq!(answer.expect("an answer").text().await.expect("text"), "traced");
    // SIGTERM sends what is still in the batch.
    let id = caddy.id().expect("it runs").to_string();
    std::process::Command::new("kill").arg(id).status().expect("kill runs");
    within_reason(caddy.wait()).await.expect("it ends");

    let (_, tree) = lab.get(&format!("/traces/{trace}.txt")).await;
    assert!(tree.starts_with("caddy  SERVER    go-service"), "{tree}");
    assert!(
        tree.trim_end().ends_with(&format!("200, orphan: parent {parent} is not here")),
        "{tree}"
    );
    let (_, list) = lab.get("/traces").await;
    assert!(list.contains("its root is missing"), "{list}");
    assert_eq!(rules(&lab.store.trees()), [Rule::Orphan]);
}

/// jaeger-mcp, which offers Jaeger's query API to language models as tools, over JSON-RPC, a message a line.
struct JaegerClient {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    calls: u64,
}

impl JaegerClient {
    async fn start(program: PathBuf, lab: &Lab) -> JaegerClient {
        let mut client = exporting(program, lab.address, "grpc");
        client
            .env("JAEGER_URL", format!("http://{}", lab.address))
            .env("JAEGER_RETRY_ATTEMPTS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = process::spawn(client).expect("it runs");
        let input = child.stdin.take().expect("an input");
        let output = BufReader::new(child.stdout.take().expect("an output")).lines();
        let mut client = JaegerClient { _child: child, input, output, calls: 0 };
        let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" } });
        client.request("initialize", hello).await;
        client.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        client
    }

    async fn send(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.input.write_all(line.as_bytes()).await.expect("it listens");
    }

    async fn request(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        self.send(
            json!({ "jsonrpc": "2.0", "id": self.calls, "method": method, "params": parameters }),
        )
        .await;
        loop {
            let line =
                within_reason(self.output.next_line()).await.expect("text").expect("an answer");
            println!("{line}");
            let message: Value = serde_json::from_str(&line).expect("JSON");
            if message["id"] == self.calls {
                return message["result"].clone();
            }
        }
    }

    /// Calls a tool; returns its answer as text.
    async fn call(&mut self, tool: &str, arguments: Value) -> String {
        let result =
            self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        let text = result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        assert_ne!(result["isError"], true, "{tool} {arguments}: {text}");
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_of_jaeger_reads_the_lab() {
    let Some(folder) = installed() else { return };
    let lab = Lab::start().await;
    // Its searches are of the last hour.
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

    let mut jaeger = JaegerClient::start(folder.join("bin/jaeger-mcp"), &lab).await;
    let (cart, help) = ("01".repeat(16), "02".repeat(16));
    let services = jaeger.call("jaeger_list_services", json!({})).await;
    assert!(services.contains("front") && services.contains("back"), "{services}");
    let operations = jaeger.call("jaeger_list_operations", json!({ "service": "front" })).await;
    assert!(operations.contains("GET /cart") && !operations.contains("SELECT"), "{operations}");
    let microseconds = now / 1000;
    let search = json!({
        "service": "front", "operation": "GET /cart", "start": microseconds - 3_600_000_000, "end": microseconds,
        "min_duration": "1ms", "max_duration": "10s", "limit": 5,
    });
    let found = jaeger.call("jaeger_search_traces", search.clone()).await;
    assert!(found.contains(&cart) && !found.contains(&help), "{found}");
    let mut slower = search;
    slower["min_duration"] = json!("1s");
    let found = jaeger.call("jaeger_search_traces", slower).await;
    assert!(!found.contains(&cart), "{found}");
    let trace = jaeger.call("jaeger_get_trace", json!({ "trace_id": cart })).await;
    for service in ["`front` — 1 span(s)", "`back` — 1 span(s)"] {
        assert!(trace.contains(service), "{trace}");
    }
    let map = jaeger.call("jaeger_get_dependencies", json!({ "lookback_hours": 1 })).await;
    assert!(map.contains("front") && map.contains("back"), "{map}");
}
