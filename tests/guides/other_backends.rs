//! The services export to other backends with the very files that the guide shows: what arrives, what each backend drops
//! of it, and what happens when it refuses, cannot be trusted, or dies.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use course::services::{Plan, Service};
use lab::store::{Limits, Store};
use lab::{grpc, otlp, receiver};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use reqwest::Url;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::collector::collector;
use super::component::{Component, installed};
use super::example::{binaries, in_order, page, shapes};
use super::phoenix;
use super::tls::Tls;
use crate::support::recording::{check, figures};
use crate::support::{
    FREE, Log, Setup, System, WHOLE, arrived, client, free_port, json_of, serve, until,
    within_reason,
};

/// No key of anybody.
const KEY: &str = "hh_never_in_a_log";

const SERVICES: [&str; 3] = ["api-gateway", "user-service", "llm-service"];

/// The variables that a file of the guide sets, as a shell reads it; `to` takes the place of the host and port in it.
fn variables(file: &str, to: SocketAddr) -> Vec<(String, String)> {
    let path = crate::support::root().join(format!("examples/other_backends/{file}"));
    let shell = Command::new("sh")
        .args(["-euc", ". \"$0\"; env"])
        .arg(&path)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HH_API_KEY", KEY)
        .output();
    let shell = shell.expect("a shell");
    let problem = String::from_utf8_lossy(&shell.stderr);
    assert!(shell.status.success(), "{file}: {problem}");
    let set = String::from_utf8(shell.stdout).expect("text");
    let set = set.lines().filter_map(|line| line.split_once('='));
    let ours = set
        .filter(|(key, _)| key.starts_with("OTEL_") || ["HH_PROJECT", "HH_SOURCE"].contains(key));
    ours.map(|(key, value)| match key {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => (key.to_owned(), moved(value, to)),
        _ => (key.to_owned(), value.to_owned()),
    })
    .collect()
}

/// The same URL, at another host and port.
fn moved(url: &str, to: SocketAddr) -> String {
    let mut url: Url = url.parse().expect("a URL");
    url.set_ip_host(to.ip()).expect("it has a host");
    url.set_port(Some(to.port())).expect("it has a port");
    url.to_string().trim_end_matches('/').to_owned()
}

/// Services that send nothing before they stop, to the backend of a file of the guide.
fn sending(file: &str, to: SocketAddr) -> Setup {
    let setup = Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000);
    let variables = variables(file, to).into_iter();
    variables.fold(setup, |setup, (key, value)| setup.with("all", &key, value))
}

/// The same services, with the telemetry of the guide's example.
fn portable(setup: Setup) -> Setup {
    SERVICES.into_iter().fold(setup, |setup, service| {
        setup.run_by(service, &format!("portable_services {service}"))
    })
}

/// The lab's receiver, over HTTP or over gRPC, and what it has been sent.
async fn lab(over: fn(Store) -> Router) -> (Store, SocketAddr) {
    let store = Store::new(Limits::default());
    let address = serve(over(store.clone())).await;
    (store, address)
}

/// Jaeger and Tempo are not here: that their files lead to OTLP, and the tree to whoever speaks it, is all that this says
/// of them.
#[tokio::test(flavor = "multi_thread")]
async fn each_file_leads_to_a_receiver_of_otlp() {
    binaries().await;
    for file in ["jaeger.env", "tempo.env", "collector.env"] {
        let (store, address) = lab(receiver::routes).await;
        one_request(sending(file, address)).await;
        assert_eq!(shapes(&store.trees()), WHOLE, "{file}");
    }
    let (store, address) = lab(grpc::routes).await;
    one_request(portable(sending("collector-grpc.env", address))).await;
    assert_eq!(shapes(&store.trees()), WHOLE);
}

/// Asks once, and stops the services, which send their spans then.
async fn one_request(setup: Setup) {
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    system.stop().await;
}

/// What a receiver has been sent: path, headers and body of each request.
type Requests = Arc<Mutex<Vec<(Uri, HeaderMap, Bytes)>>>;

/// A receiver that takes what HoneyHive takes, and refuses the rest.
fn honeyhive(taken: Requests) -> Router {
    let take = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let header = |name| headers.get(name).and_then(|it| it.to_str().ok());
        if header(&AUTHORIZATION) != Some(&format!("Bearer {KEY}")) {
            return StatusCode::UNAUTHORIZED;
        }
        if header(&CONTENT_TYPE) != Some("application/x-protobuf") {
            return StatusCode::UNSUPPORTED_MEDIA_TYPE;
        }
        let spans = spans_of(&body);
        let session = |span: &Span| attribute(span, "honeyhive.session_id").is_some();
        if spans.is_empty() || !spans.iter().all(session) {
            return StatusCode::BAD_REQUEST;
        }
        taken.lock().expect("unpoisoned").push((uri, headers, body));
        StatusCode::OK
    };
    Router::new().route("/opentelemetry/v1/traces", post(take))
}

fn spans_of(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap_or_default();
    let resources = request.resource_spans.into_iter();
    let scopes = resources.flat_map(|it| it.scope_spans);
    scopes.flat_map(|it| it.spans).collect()
}

fn attribute(span: &Span, key: &str) -> Option<Any> {
    let found = span.attributes.iter().find(|it| it.key == key)?;
    found.value.clone()?.value
}

#[tokio::test(flavor = "multi_thread")]
async fn honeyhive_gets_path_key_and_a_session_on_every_span() {
    binaries().await;
    let taken = Requests::default();
    let tls = Tls::serve(honeyhive(taken.clone())).await;
    let setup = sending("honeyhive.env", tls.address).with("all", "SSL_CERT_FILE", tls.authority());
    let system = portable(setup.with("all", "RUST_LOG", "trace")).start().await;
    // The second belongs to a conversation: its caller names the session.
    assert_eq!(system.ask("user_1").await.status(), 200);
    let session = "8a1f2c3d-0000-4000-8000-000000000001";
    let request = client()
        .post(format!("http://{}/api/query", system.gateway.address))
        .header("baggage", format!("session_id={session}"))
        .json(&json!({ "user_id": "user_1", "query": "And a span?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let stopped = system.stop().await;
    for line in stopped.log.lines() {
        assert!(!line.contains(KEY) && !line.contains("spans were"), "{line}");
    }

    let taken = taken.lock().expect("unpoisoned");
    let mut spans: Vec<Span> = taken.iter().flat_map(|(.., body)| spans_of(body)).collect();
    assert_eq!(spans.len(), 14, "two requests of seven spans");
    spans.sort_by_key(|span| span.start_time_unix_nano);
    for (at, span) in spans.iter().enumerate() {
        let text = |key: &str| match attribute(span, key) {
            Some(Any::StringValue(text)) => text,
            other => panic!("{key} of {} is {other:?}", span.name),
        };
        let trace = lab::span::TraceId::parse(&hex(&span.trace_id)).expect("an id");
        let own = text("honeyhive.session_id").replace('-', "");
        let named = session.replace('-', "");
        assert_eq!(own, if at < 7 { trace.to_string() } else { named });
        assert_eq!(text("honeyhive.project"), "one-trace");
        assert_eq!(text("honeyhive.source"), "staging");
        let auto = attribute(span, "honeyhive.session_auto_create");
        assert_eq!(auto, Some(Any::BoolValue(true)));
    }
    let kinds = |kind: &str| {
        let kind = Some(Any::StringValue(kind.to_owned()));
        let of = |span: &&Span| attribute(span, "honeyhive_event_type") == kind;
        spans.iter().filter(of).count()
    };
    assert_eq!((kinds("model"), kinds("tool")), (2, 2));

    let (uri, headers, _) = &taken[0];
    let header = |name: &str| headers[name].to_str().expect("text").replace(KEY, "KEY");
    let model = spans.iter().find(|span| span.name.starts_with("chat "));
    let mut seen = format!(
        "POST {uri}\nauthorization: {}\ncontent-type: {}\n\n",
        header("authorization"),
        header("content-type")
    );
    let model = model.expect("the span of the model");
    seen.push_str(&format!("{}\n", model.name));
    for it in &model.attributes {
        if it.key.starts_with("honeyhive") {
            let value = lab::span::any_text(&it.value);
            let value = match it.key.as_str() {
                "honeyhive.session_id" => "<the trace id, as a UUID>".to_owned(),
                _ => value,
            };
            seen.push_str(&format!("  {} = {value}\n", it.key));
        }
    }
    check!("other-backends/honeyhive.txt", &seen);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// llm-service alone, which sends the two spans of a request as soon as they have ended.
async fn ask_llm_service(plan: impl FnOnce(Plan) -> Plan, backend: SocketAddr, log: &Log) {
    let free = FREE.parse().expect("an address");
    let llm = Plan::new(&binaries().await, "llm-service", free, backend)
        .with("OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .with("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 2);
    let llm = Service::start(plan(llm), log.sink()).await.expect("it starts");
    let request = client()
        .post(format!("http://{}/generate", llm.address))
        .json(&json!({ "user_id": "user_1", "prompt": "?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    llm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_has_its_value_decoded_and_is_left_out_where_it_cannot_be_sent() {
    let cases = [
        ("Bearer%20KEY", Some("Bearer KEY")),
        ("Bearer KEY", Some("Bearer KEY")),
        ("a%2Cb+c%25", Some("a,b+c%")),
        ("KEY%0A", None),
    ];
    for (value, expected) in cases {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let headers = Arc::clone(&sent);
        let take = async move |all: HeaderMap| {
            headers.lock().expect("unpoisoned").push(all);
        };
        let backend = serve(Router::new().route("/v1/traces", post(take))).await;
        let log = Log::default();
        let header = format!("Authorization={value}");
        let plan = |plan: Plan| plan.with("OTEL_EXPORTER_OTLP_HEADERS", header);
        ask_llm_service(plan, backend, &log).await;
        let sent = sent.lock().expect("unpoisoned");
        let sent = sent[0].get(AUTHORIZATION);
        let sent = sent.map(|it| it.to_str().expect("text"));
        assert_eq!(sent, expected, "{value}");
        assert_eq!(log.find("llm-service", "Authorization"), [""; 0]);
    }
}

/// What a backend answers: these statuses, with `Retry-After` where there is one, and 200 when it is asked again, or the
/// same. And how often it is asked.
struct Refusal(&'static [u16], &'static str, bool, usize);

const REFUSALS: [Refusal; 5] = [
    Refusal(&[400, 401, 403, 404, 500], "", true, 1),
    Refusal(&[429, 502, 503, 504], "", true, 2),
    Refusal(&[503], "", false, 4),
    Refusal(&[429, 503], "1", true, 2),
    Refusal(&[429, 503], "60", true, 1),
];

/// Says when it was asked.
async fn refusing(
    status: u16,
    retry_after: &'static str,
    then_takes: bool,
) -> (SocketAddr, Arc<Mutex<Vec<Instant>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = async move || -> Response {
        let mut times = times.lock().expect("unpoisoned");
        times.push(Instant::now());
        match retry_after {
            _ if then_takes && times.len() > 1 => StatusCode::OK.into_response(),
            "" => status.into_response(),
            after => (status, [(RETRY_AFTER, after)]).into_response(),
        }
    };
    let address = serve(Router::new().route("/v1/traces", post(answer))).await;
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_asked_again_only_where_that_may_help() {
    let mut table =
        "| The backend answers | is asked | the spans are |\n|---|---|---|\n".to_owned();
    for Refusal(statuses, retry_after, then_takes, asked) in REFUSALS {
        let delivered = then_takes && asked > 1;
        for status in statuses {
            let (backend, times) = refusing(*status, retry_after, then_takes).await;
            let log = Log::default();
            ask_llm_service(|plan| plan, backend, &log).await;
            let times = times.lock().expect("unpoisoned").clone();
            assert_eq!(times.len(), asked, "{status} {retry_after}");
            if let ("1", [first, second]) = (retry_after, &times[..]) {
                assert!(*second - *first >= Duration::from_secs(1), "{status}");
            }
            let lost = log.find("llm-service", "spans were lost");
            assert_eq!(lost.is_empty(), delivered, "{status} {retry_after}: {lost:?}");
        }
        let mut answers = statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        if !retry_after.is_empty() {
            answers.push_str(&format!(" with `Retry-After: {retry_after}`"));
        }
        answers.push_str(match (then_takes, delivered) {
            (true, true) => ", then 200",
            (true, false) => "",
            (false, _) => ", and no end",
        });
        let asked = ["once", "twice", "", "four times"][asked - 1];
        let spans = if delivered { "delivered" } else { "lost" };
        table.push_str(&format!("| {answers} | {asked} | {spans} |\n"));
    }
    check!("other-backends/refusals.md", &table);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_file_in_ssl_cert_file_and_no_other() {
    for (variable, trusted) in [("SSL_CERT_FILE", true), ("OTEL_EXPORTER_OTLP_CERTIFICATE", false)]
    {
        let store = Store::new(Limits::default());
        let tls = Tls::serve(receiver::routes(store.clone())).await;
        let log = Log::default();
        let endpoint = format!("https://{}", tls.address);
        let plan = |plan: Plan| {
            plan.with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).with(variable, tls.authority())
        };
        ask_llm_service(plan, tls.address, &log).await;
        let spans = if trusted { 2 } else { 0 };
        assert_eq!(store.usage().spans, spans, "{variable}");
        let lines = log.lines().into_iter().map(|line| without_time(&line));
        let mut wrong: Vec<String> = lines.filter(|line| !line.contains("| INFO")).collect();
        // It tries again, in vain.
        wrong.dedup();
        assert_eq!(wrong.is_empty(), trusted, "{variable}: {wrong:#?}");
        if !trusted {
            check!("other-backends/tls.txt", &(wrong.join("\n") + "\n"));
        }
    }
}

/// rotel, a collector of OTLP that installs without Docker. It passes on what it takes to `to`.
async fn rotel(http: u16, grpc: u16, to: SocketAddr, folder: &Path) -> Option<Component> {
    let installed = installed("rotel")?;
    let found = std::fs::read_dir(installed.join("lib")).expect("a folder");
    let python = found.filter_map(Result::ok).next().expect("one Python");
    let program = python.path().join("site-packages/rotel/rotel-agent");
    let mut command = tokio::process::Command::new(program);
    command
        .arg("start")
        .env("ROTEL_PID_FILE", folder.join("rotel.pid"))
        .env("ROTEL_LOG_FILE", folder.join("rotel.log"))
        .env("ROTEL_OTLP_HTTP_ENDPOINT", local(http).to_string())
        .env("ROTEL_OTLP_GRPC_ENDPOINT", local(grpc).to_string())
        .env("ROTEL_EXPORTER", "otlp")
        .env("ROTEL_OTLP_EXPORTER_PROTOCOL", "http")
        .env("ROTEL_OTLP_EXPORTER_ENDPOINT", format!("http://{to}"));
    let rotel = Component::start(command, "Starting Rotel").await;
    // It says so before it listens.
    for port in [http, grpc] {
        until(async || TcpStream::connect(local(port)).await).await;
    }
    Some(rotel)
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_passes_the_tree_on_over_http_and_over_grpc() {
    binaries().await;
    for file in ["collector.env", "collector-grpc.env"] {
        let folder = TempDir::new().expect("a folder");
        let (store, lab) = lab(receiver::routes).await;
        let (http, grpc) = (free_port(), free_port());
        let Some(_rotel) = rotel(http, grpc, lab, folder.path()).await else {
            return;
        };
        one_request(match file {
            "collector.env" => sending(file, local(http)),
            _ => portable(sending(file, local(grpc))),
        })
        .await;
        arrived(&store, 7).await;
        assert_eq!(shapes(&store.trees()), WHOLE, "{file}");
    }
}

/// A model that answers when it is let go. Says when it is asked.
async fn held_model() -> (SocketAddr, Arc<Notify>, Arc<Notify>) {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&asked), Arc::clone(&go));
    let answer = async move || {
        tell.notify_one();
        wait.notified().await;
        axum::Json(json!({
            "model": "held",
            "choices": [{ "message": { "content": "A trace." }, "finish_reason": "stop" }],
        }))
    };
    let address = serve(Router::new().route("/chat/completions", post(answer))).await;
    (address, asked, go)
}

/// Asks, kills the backend while the model is at work, and lets the model answer.
async fn kill_in_mid_request(system: &System, backend: Component, asked: &Notify, go: &Notify) {
    let kill = async {
        within_reason(asked.notified()).await;
        backend.kill().await;
        go.notify_one();
    };
    let (answer, ()) = tokio::join!(system.ask("user_1"), kill);
    let expected = json!({ "response": "A trace." });
    assert_eq!(json_of(answer).await, (200, expected));
}

/// api-gateway and llm-service send each request's spans as soon as they have ended; user-service sends when it stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_killed_in_mid_request_costs_spans_and_no_request() {
    let folder = TempDir::new().expect("a folder");
    let (store, lab) = lab(receiver::routes).await;
    let (http, grpc) = (free_port(), free_port());
    let Some(first) = rotel(http, grpc, lab, folder.path()).await else {
        return;
    };
    let (model, asked, go) = held_model().await;
    let setup = sending("collector.env", local(http))
        .with("llm-service", "LLM_BASE_URL", format!("http://{model}"))
        .with("llm-service", "LLM_MODEL", "held");
    let at_once = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
    let setup = setup.with("api-gateway", at_once, 2).with("llm-service", at_once, 2);
    let system = setup.start().await;
    kill_in_mid_request(&system, first, &asked, &go).await;
    for service in ["api-gateway", "llm-service"] {
        system.log.wait_for(service, "spans were dropped").await;
    }

    let _second = rotel(http, grpc, lab, folder.path()).await;
    go.notify_one();
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    arrived(&store, 10).await;
    let trees = in_order(store.trees());
    let left = "\
POST /process SERVER user-service http 200
  validate_user INTERNAL user-service
  POST /generate CLIENT user-service http 200
";
    let whole = WHOLE.replace("chat offline INTERNAL", "chat held CLIENT");
    assert_eq!(shapes(&trees), format!("{left}\n{whole}"));
    check!("other-backends/killed.html", &figures(&trees[..1]));
    let lines: Vec<String> = SERVICES
        .iter()
        .flat_map(|service| stopped.log.find(service, "spans were"))
        .map(|line| without_time(&line))
        .collect();
    check!("other-backends/killed.txt", &(lines.join("\n") + "\n"));
}

/// `SERVICE | LEVEL message`, as the time differs from run to run.
fn without_time(line: &str) -> String {
    let time = regex::Regex::new(r"\S+Z +").expect("a pattern");
    time.replace(line, "").into_owned()
}

fn pair(key: &str, value: Option<Any>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
}

/// A span with all that a span of Rust's SDK can have.
fn full_span() -> ExportTraceServiceRequest {
    let text = |value: &str| Some(Any::StringValue(value.to_owned()));
    let list = ArrayValue { values: vec![AnyValue { value: text("stop") }] };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![5; 8],
        trace_state: "acme=1".to_owned(),
        flags: 0x101,
        name: "GET /orders".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_795_618_957_123_456_789,
        end_time_unix_nano: 1_795_618_957_223_456_789,
        attributes: vec![
            pair("text", text("x")),
            pair("number", Some(Any::IntValue(7))),
            pair("fraction", Some(Any::DoubleValue(1.5))),
            pair("truth", Some(Any::BoolValue(true))),
            pair("list", Some(Any::ArrayValue(list))),
        ],
        events: vec![Event {
            time_unix_nano: 1_795_618_957_133_456_789,
            name: "retried".to_owned(),
            attributes: vec![pair("attempt", Some(Any::IntValue(1)))],
            ..Event::default()
        }],
        links: vec![Link { trace_id: vec![3; 16], span_id: vec![4; 8], ..Link::default() }],
        status: Some(Status { code: 2, message: "no stock".to_owned() }),
        ..Span::default()
    };
    let mut request = as_sent(vec![span]);
    let resource = &mut request.resource_spans[0];
    resource.resource = Some(Resource {
        attributes: vec![pair("service.name", text("orders"))],
        ..Resource::default()
    });
    resource.scope_spans[0].scope = Some(InstrumentationScope {
        name: "shop".to_owned(),
        version: "1.0".to_owned(),
        ..InstrumentationScope::default()
    });
    request
}

/// Spans of which nobody knows where they come from.
fn as_sent(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource = ResourceSpans { scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource] }
}

/// What is left of a span, part by part: the words of the guide's table.
fn kept(
    sent: &ExportTraceServiceRequest,
    got: &ExportTraceServiceRequest,
) -> Vec<(&'static str, bool)> {
    let parts = |request: &ExportTraceServiceRequest| {
        let resource = request.resource_spans[0].clone();
        let scope = resource.scope_spans[0].clone();
        (
            resource.resource.unwrap_or_default(),
            scope.scope.unwrap_or_default(),
            scope.spans[0].clone(),
        )
    };
    let (resource, scope, span) = parts(sent);
    let (got_resource, got_scope, got) = parts(got);
    let close = |a: u64, b: u64, by: u64| a.abs_diff(b) <= by;
    let times = |by| {
        close(span.start_time_unix_nano, got.start_time_unix_nano, by)
            && close(span.end_time_unix_nano, got.end_time_unix_nano, by)
    };
    let ids = |it: &Span| (it.trace_id.clone(), it.span_id.clone(), it.parent_span_id.clone());
    let sorted = |it: &[KeyValue]| {
        let mut attributes = it.to_vec();
        attributes.sort_by(|a, b| a.key.cmp(&b.key));
        attributes
    };
    let events = |it: &Span| -> Vec<(String, Vec<KeyValue>)> {
        let events = it.events.iter();
        events.map(|event| (event.name.clone(), event.attributes.clone())).collect()
    };
    vec![
        ("ids, parent, name", ids(&span) == ids(&got) && span.name == got.name),
        ("attributes, with their types", sorted(&span.attributes) == sorted(&got.attributes)),
        ("status and its message", span.status == got.status),
        ("events", events(&span) == events(&got)),
        ("times, to the microsecond", times(1_000)),
        ("times, to the nanosecond", times(0)),
        ("kind (SERVER, CLIENT, …)", span.kind == got.kind),
        ("resource: `service.name` and the rest", resource == got_resource),
        ("instrumentation scope", scope == got_scope),
        ("links", span.links == got.links),
        ("`tracestate`", span.trace_state == got.trace_state),
    ]
}

async fn export(to: SocketAddr, request: &ExportTraceServiceRequest) {
    let request = client()
        .post(format!("http://{to}/v1/traces"))
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(request.encode_to_vec());
    assert_eq!(request.send().await.expect("an answer").status(), 200);
}

async fn of_lab(store: &Store) -> ExportTraceServiceRequest {
    arrived(store, 1).await;
    let traces = store.traces();
    otlp::to_request(traces[0].iter().map(|span| &**span))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_phoenix_keeps_and_what_its_death_costs() {
    let folder = TempDir::new().expect("a folder");
    let address = local(free_port());
    let Some(running) = phoenix::start(address, folder.path()).await else {
        return;
    };

    // As its file says, into a project of its own.
    let system = sending("phoenix.env", address).start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    assert_eq!(system.ask("stranger").await.status(), 403);
    let stopped = system.stop().await;
    assert_eq!(stopped.log.find("api-gateway", "spans were"), [""; 0]);
    let read = as_sent(phoenix::spans(address, "one-trace", 11).await);
    let read = otlp::from_request(read);
    let seen = Store::new(Limits::default());
    seen.add(read.expect("spans").spans);
    let trees = in_order(seen.trees());
    let expected = format!("{WHOLE}\n{REFUSED}");
    assert_eq!(shapes(&trees), anonymous(&expected));
    check!("other-backends/phoenix.html", &figures(&trees[..1]));

    // One span with all that a span can have: to the lab, to Phoenix, and through a collector.
    let sent = full_span();
    let (direct, lab_direct) = lab(receiver::routes).await;
    let (collected, lab_collected) = lab(receiver::routes).await;
    export(lab_direct, &sent).await;
    let http = free_port();
    let Some(_rotel) = rotel(http, free_port(), lab_collected, folder.path()).await else {
        return;
    };
    export(local(http), &sent).await;
    export(address, &sent).await;
    let columns = [
        kept(&sent, &of_lab(&direct).await),
        kept(&sent, &of_lab(&collected).await),
        kept(&sent, &as_sent(phoenix::spans(address, "default", 1).await)),
    ];
    let mut table =
        "| Of a span | the lab | rotel, a collector | Phoenix |\n|---|---|---|---|\n".to_owned();
    for ((part, lab), ((_, rotel), (_, phoenix))) in
        columns[0].iter().zip(columns[1].iter().zip(&columns[2]))
    {
        let [lab, rotel, phoenix] =
            [lab, rotel, phoenix].map(|kept| if *kept { "kept" } else { "**dropped**" });
        table.push_str(&format!("| {part} | {lab} | {rotel} | {phoenix} |\n"));
    }
    check!("other-backends/kept.md", &table);

    // It takes protobuf only.
    let json = client().post(format!("http://{}/v1/traces", address));
    let json = json.header(CONTENT_TYPE, "application/json").body("{}").send().await;
    assert_eq!(json.expect("an answer").status(), 415);

    let (model, asked, go) = held_model().await;
    let system = sending("phoenix.env", address)
        .with("llm-service", "LLM_BASE_URL", format!("http://{model}"))
        .with("llm-service", "LLM_MODEL", "held")
        .start()
        .await;
    kill_in_mid_request(&system, running, &asked, &go).await;
    let stopped = system.stop().await;
    for (service, lost) in [("api-gateway", 2), ("user-service", 3), ("llm-service", 2)] {
        let line = format!("did not take them lost={lost} ended={lost}");
        assert_eq!(
            stopped.log.find(service, &line).len(),
            1,
            "{service}: {:#?}",
            stopped.log.lines()
        );
    }
}

const REFUSED: &str = "\
POST /api/query SERVER api-gateway http 403
  POST /process CLIENT api-gateway http 403 error 403
    POST /process SERVER user-service http 403
      validate_user INTERNAL user-service error user_service::InvalidUser
";

/// The tree as it is without kinds and services.
fn anonymous(shape: &str) -> String {
    let lines = shape.lines().map(|line| {
        let kind = regex::Regex::new(r"(SERVER|CLIENT|INTERNAL) \S+").expect("a pattern");
        kind.replace(line, "INTERNAL unknown_service").into_owned() + "\n"
    });
    lines.collect()
}

/// A service that is built as the tutorial builds it speaks HTTP alone.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_needs_an_exporter_that_may_choose_it() {
    let free = FREE.parse().expect("an address");
    let plan = Plan::new(&binaries().await, "llm-service", free, free);
    let plan = plan.with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let log = Log::default();
    let service = Service::start(plan, log.sink()).await.expect("it starts");
    service.stop().await;
    let said = log.find("llm-service", "`.with_tonic()` instead");
    assert_eq!(said.len(), 1, "{:?}", log.lines());
}

#[test]
fn the_configuration_of_the_collector_holds_together() {
    let file = collector("examples/other_backends/collector.yaml");
    let pipelines = file["service"]["pipelines"].as_mapping().expect("a map");
    let names: BTreeSet<&str> = pipelines.keys().filter_map(|it| it.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["traces/honeyhive", "traces/phoenix"]));
    assert!(page("other-backends").contains("other_backends/collector.yaml"));
}
