//! The services export to other backends with the very files that the guide shows. The tests compare what arrives and what each
//! backend drops, and what happens when a backend refuses, can't be trusted, or dies.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse as _;
use axum::routing::post;
use course::services::{CHAIN, Service};
use lab::proto::collector::ExportTraceServiceRequest;
use lab::proto::common::KeyValue;
use lab::proto::trace as proto;
use lab::span::{Span, any_text};
use lab::store::{Limits, Store};
use lab::{grpc, otlp, receiver};
use prost::Message as _;
use regex::Regex;
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::collector::{Collector, collector, entries};
use super::component::{Component, output_of};
use super::example::{
    all_run_by, arrived, ask, binaries, free_address, header, in_order, local, neighbor, page,
    shapes,
};
use super::phoenix;
use super::tls::serve_tls;
use crate::assert_traces::jaeger;
use support::in_process;
use support::process::{self, containing};
use support::recording::{check, figures};
use support::{
    Log, Setup, System, WHOLE, client, free_port, json_of, lacks, plan, root, serve, until,
};

/// Nobody's key.
const KEY: &str = "hh_never_in_a_log";

/// Sends spans as soon as this many have ended.
const BATCH_SIZE: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// The services, with the variables that a file of the guide sets, as a shell reads it. The address `to` takes the place of the host
/// and port in it.
fn sending(file: &str, to: SocketAddr) -> Setup {
    let path = root().join(format!("examples/other_backends/{file}"));
    let mut shell = Command::new("sh");
    shell.args(["-euc", ". \"$0\"; env"]).arg(path).env_clear().env("HH_API_KEY", KEY);
    let set = output_of(shell.env("PATH", std::env::var_os("PATH").unwrap_or_default()));
    let set = set.lines().filter_map(|line| line.split_once('='));
    let ours = |key: &str| key.starts_with("OTEL_") || ["HH_PROJECT", "HH_SOURCE"].contains(&key);
    set.filter(|(key, _)| ours(key)).fold(Setup::default(), |setup, (key, value)| match key {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => setup.with("all", key, moved(value, to)),
        _ => setup.with("all", key, value),
    })
}

/// The same URL, at another host and port.
fn moved(url: &str, to: SocketAddr) -> String {
    let mut url: Url = url.parse().expect("a URL");
    url.set_ip_host(to.ip()).expect("it has a host");
    url.set_port(Some(to.port())).expect("it has a port");
    url.to_string().trim_end_matches('/').to_owned()
}

/// The same services, with the telemetry of the guide's example.
fn portable(setup: Setup) -> Setup {
    all_run_by("portable_services", setup)
}

/// Tempo doesn't run here. This proves only that its file leads to a receiver of OTLP.
#[tokio::test(flavor = "multi_thread")]
async fn each_file_leads_to_a_receiver_of_otlp() {
    binaries().await;
    for file in ["tempo.env", "collector.env"] {
        let (store, address) = support::receiver().await;
        sending(file, address).answers("user_1", 200).await;
        assert_eq!(shapes(&store.trees()), WHOLE, "{file}");
    }
    let store = Store::new(Limits::default());
    let address = serve(grpc::routes(store.clone())).await;
    portable(sending("collector-grpc.env", address)).answers("user_1", 200).await;
    assert_eq!(shapes(&store.trees()), WHOLE);
}

/// Path, headers and spans of each request that a receiver has accepted.
type Requests = Arc<Mutex<Vec<(Uri, HeaderMap, Vec<Span>)>>>;

/// A receiver that accepts what HoneyHive accepts and refuses the rest.
fn honeyhive(taken: Requests) -> Router {
    let take = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let spans = otlp::from_protobuf(body).map(|batch| batch.items).unwrap_or_default();
        let session = |span: &Span| span.attribute("honeyhive.session_id").is_some();
        let status = if header(&headers, "authorization") != format!("Bearer {KEY}") {
            StatusCode::UNAUTHORIZED
        } else if header(&headers, "content-type") != "application/x-protobuf" {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        } else if spans.is_empty() || !spans.iter().all(session) {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        };
        if status == StatusCode::OK {
            taken.lock().expect("unpoisoned").push((uri, headers, spans));
        }
        status
    };
    Router::new().route("/opentelemetry/v1/traces", post(take))
}

#[tokio::test(flavor = "multi_thread")]
async fn honeyhive_gets_path_key_and_a_session_on_every_span() {
    binaries().await;
    let taken = Requests::default();
    let (address, trusted) = serve_tls(honeyhive(taken.clone())).await;
    let path = trusted.path().display();
    let setup = sending("honeyhive.env", address).with("all", "SSL_CERT_FILE", path);
    let system = portable(setup.with("all", "RUST_LOG", "trace")).start().await;
    // The second request belongs to a conversation: its caller names the session.
    let session = "8a1f2c3d-0000-4000-8000-000000000001";
    let baggage = format!("session_id={session}");
    for headers in [&[][..], &[("baggage", &*baggage)]] {
        assert_eq!(ask(system.gateway.address, "/api/query", headers).await, 200);
    }
    let stopped = system.stop().await;
    for line in stopped.log.lines() {
        assert!(!line.contains(KEY) && !line.contains("spans were"), "{line}");
    }

    let taken = taken.lock().expect("unpoisoned");
    let mut spans: Vec<&Span> = taken.iter().flat_map(|(.., spans)| spans).collect();
    assert_eq!(spans.len(), 14, "two requests of seven spans");
    spans.sort_by_key(|span| span.start());
    for (at, span) in spans.iter().enumerate() {
        let mut id = span.trace_id.to_string();
        for at in [20, 16, 12, 8] {
            id.insert(at, '-');
        }
        let id = if at < 7 { &*id } else { session };
        let expected: Vec<KeyValue> = serde_json::from_value(json!([
            { "key": "honeyhive.project", "value": { "stringValue": "one-trace" } },
            { "key": "honeyhive.source", "value": { "stringValue": "staging" } },
            { "key": "honeyhive.session_id", "value": { "stringValue": id } },
            { "key": "honeyhive.session_auto_create", "value": { "boolValue": true } },
        ]))
        .expect("attributes");
        let mut attributes = span.proto().attributes;
        attributes.retain(|it| it.key.starts_with("honeyhive."));
        assert_eq!(attributes, expected, "{}", span.name());
    }
    let of_kind = |kind: &str| {
        let kinds = spans.iter().filter_map(|span| span.attribute("honeyhive_event_type"));
        kinds.filter(|it| it == kind).count()
    };
    assert_eq!(["model", "tool"].map(of_kind), [2, 2]);

    let (uri, headers, _) = &taken[0];
    let mut seen = format!("POST {uri}\n");
    for name in ["authorization", "content-type"] {
        seen += &format!("{name}: {}\n", header(headers, name).replace(KEY, "KEY"));
    }
    let model = spans.iter().find(|span| span.name().starts_with("chat ")).expect("a span");
    seen += &format!("\n{}\n", model.name());
    for it in model.proto().attributes.iter().filter(|it| it.key.starts_with("honeyhive")) {
        let value = match &*it.key {
            "honeyhive.session_id" => "<the trace id, as a UUID>".to_owned(),
            _ => any_text(&it.value),
        };
        seen += &format!("  {} = {value}\n", it.key);
    }
    check!("other-backends/honeyhive.txt", &seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_forwards_over_tls_with_a_key_that_it_never_shows() {
    let taken = Requests::default();
    let (address, trusted) = serve_tls(honeyhive(taken.clone())).await;
    let url = format!("https://{address}/opentelemetry");
    for is_trusted in [true, false] {
        let mut command = process::command("lab", &format!("view --forward {url}")).await;
        command.env("LAB_FORWARD_HEADERS", format!("Authorization=Bearer%20{KEY}"));
        if is_trusted {
            command.env("SSL_CERT_FILE", trusted.path());
        }
        let mut lab = process::Lab::ready(command).await;
        let session = in_process::attribute("honeyhive.session_id", "1");
        let span = proto::Span { attributes: vec![session], ..in_process::span(1, 1, 0, "x") };
        let body = in_process::protobuf(vec![span]);
        let to = lab.otlp().parse().expect("an address");
        assert_eq!(export(to, in_process::PROTOBUF, body).await, 200);
        let counts = if is_trusted { ": 1 request." } else { ": 0 requests; 1 waiting." };
        let page = until(async || containing(counts, lab.get("/traces").await)).await;
        assert_eq!(lab.signal("-TERM").await, Some(0));
        let errors = lab.errors().await;
        assert_eq!(errors.contains("invalid peer certificate"), !is_trusted, "{errors}");
        lacks(&(page + &errors + &lab.printed), [KEY]);
    }
    let taken = taken.lock().expect("unpoisoned");
    assert_eq!((taken.len(), taken[0].2[0].name()), (1, "x"));
}

/// Starts llm-service alone, asks it once and stops it. It sends the two spans of the request as soon as they have ended.
async fn ask_llm_service(backend: SocketAddr, variables: &[(&str, String)]) -> Log {
    let log = Log::default();
    let plan = plan(&binaries().await, "llm-service", backend).with(BATCH_SIZE, 2);
    let plan = variables.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
    let llm = Service::start(plan, log.sink()).await.expect("it starts");
    assert_eq!(ask(llm.address, "/generate", &[]).await, 200);
    llm.stop().await;
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_has_its_value_decoded_and_is_left_out_where_it_cannot_be_sent() {
    for (value, expected) in [
        ("Bearer%20KEY", Some("Bearer KEY")),
        ("Bearer KEY", Some("Bearer KEY")),
        ("a%2Cb+c%25", Some("a,b+c%")),
        ("KEY%0A", None),
    ] {
        let (backend, mut requests) = neighbor().await;
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", format!("Authorization={value}"));
        let log = ask_llm_service(backend, &[headers]).await;
        let sent = requests.try_recv().expect("a request");
        let sent = sent.get(AUTHORIZATION).map(|it| it.to_str().expect("text"));
        assert_eq!(sent, expected, "{value}");
        assert_eq!(log.find("llm-service", "Authorization"), [""; 0]);
    }
}

/// Lets a service export to a backend that answers with `status`, and from the second request on with `then`. Returns the times of the
/// requests, and whether the service lost its spans.
async fn refused(status: u16, after: &'static str, then: u16) -> (Vec<Instant>, bool) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let answer = async move || {
        let mut times = times.lock().expect("unpoisoned");
        times.push(Instant::now());
        let status = if times.len() > 1 { then } else { status };
        let status = StatusCode::from_u16(status).expect("a status");
        match after {
            "" => status.into_response(),
            after => (status, [(RETRY_AFTER, after)]).into_response(),
        }
    };
    let backend = serve(Router::new().route("/v1/traces", post(answer))).await;
    let log = ask_llm_service(backend, &[]).await;
    let times = asked.lock().expect("unpoisoned").clone();
    (times, !log.find("llm-service", "spans were lost").is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_asked_again_only_where_that_may_help() {
    let mut table =
        "| The backend answers | is asked | the spans are |\n|---|---|---|\n".to_owned();
    for (answers, statuses, after, then, asked, spans) in [
        ("400, 401, 403, 404, 500", &[400, 401, 403, 404, 500][..], "", 200, 1, "lost"),
        ("429, 502, 503, 504, then 200", &[429, 502, 503, 504], "", 200, 2, "delivered"),
        ("503, and no end", &[503], "", 503, 4, "lost"),
        ("429, 503 with `Retry-After: 1`, then 200", &[429, 503], "1", 200, 2, "delivered"),
        ("429, 503 with `Retry-After: 60`", &[429, 503], "60", 200, 1, "lost"),
    ] {
        for status in statuses {
            let (times, lost) = refused(*status, after, then).await;
            if let ("1", [first, second]) = (after, &times[..]) {
                assert!(*second - *first >= Duration::from_secs(1), "{status}");
            }
            assert_eq!((times.len(), lost), (asked, spans == "lost"), "{status} {after}");
        }
        let asked = ["once", "twice", "three times", "four times"][asked - 1];
        table += &format!("| {answers} | {asked} | {spans} |\n");
    }
    check!("other-backends/refusals.md", &table);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_file_in_ssl_cert_file_and_no_other() {
    for (variable, spans) in [("SSL_CERT_FILE", 2), ("OTEL_EXPORTER_OTLP_CERTIFICATE", 0)] {
        let store = Store::new(Limits::default());
        let (address, trusted) = serve_tls(receiver::routes(store.clone())).await;
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{address}"));
        let authority = (variable, trusted.path().display().to_string());
        let log = ask_llm_service(address, &[endpoint, authority]).await;
        assert_eq!(store.usage().spans, spans, "{variable}");
        let mut wrong = without_times(log.lines());
        wrong.retain(|line| !line.contains("| INFO"));
        // It tries again, in vain.
        wrong.dedup();
        assert_eq!(wrong.is_empty(), spans > 0, "{variable}: {wrong:#?}");
        if !wrong.is_empty() {
            check!("other-backends/tls.txt", &(wrong.join("\n") + "\n"));
        }
    }
}

/// Starts the Collector with the guide's file. It receives on two ports, over HTTP and over gRPC.
async fn collecting(
    [http, grpc]: [u16; 2],
    phoenix: SocketAddr,
    honeyhive: SocketAddr,
) -> Option<Component> {
    let moved = [("127.0.0.1:4318", local(http)), ("127.0.0.1:4317", local(grpc))];
    let [phoenix, honeyhive] = [phoenix, honeyhive].map(|to| format!("http://{to}"));
    let variables =
        [("PHOENIX_ENDPOINT", &*phoenix), ("HONEYHIVE_ENDPOINT", &honeyhive), ("HH_API_KEY", KEY)];
    let file = "examples/other_backends/collector.yaml";
    Some(Collector::with(file, &moved, &variables)?.start().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collector_sends_every_span_to_both_backends() {
    binaries().await;
    for file in ["collector.env", "collector-grpc.env"] {
        let [(first, phoenix), (second, honeyhive)] =
            [support::receiver().await, support::receiver().await];
        let [http, grpc] = [free_port(), free_port()];
        let Some(_collector) = collecting([http, grpc], phoenix, honeyhive).await else { return };
        let setup = match file {
            "collector.env" => sending(file, local(http)),
            _ => portable(sending(file, local(grpc))),
        };
        setup.answers("user_1", 200).await;
        for (store, named) in [(first, true), (second, false)] {
            let trees = arrived(&store, 7).await;
            assert_eq!(shapes(&trees), WHOLE, "{file}");
            let names = trees[0].rows.iter().map(|row| row.span.attribute("service.name"));
            assert!(
                names.eq(trees[0]
                    .rows
                    .iter()
                    .map(|row| named.then(|| row.span.service().to_owned())))
            );
        }
    }
}

/// Starts services and asks them once. Their model kills the backend while it is at work.
async fn kill_in_mid_request(setup: Setup, backend: Component) -> System {
    let backend = Arc::new(Mutex::new(Some(backend)));
    let answer = async move || {
        let running = backend.lock().expect("unpoisoned").take();
        if let Some(running) = running {
            running.kill().await;
        }
        axum::Json(json!({
            "model": "held",
            "choices": [{ "message": { "content": "A trace." }, "finish_reason": "stop" }],
        }))
    };
    let model = serve(Router::new().route("/v1/chat/completions", post(answer))).await;
    let system = setup.with_model(model, "held").start().await;
    let answer = json!({ "response": "A trace." });
    assert_eq!(json_of(system.ask("user_1").await).await, (200, answer));
    system
}

/// api-gateway and llm-service send each request's spans as soon as they have ended; user-service sends when it stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_killed_in_mid_request_costs_spans_and_no_request() {
    let [(store, lab), (_, other)] = [support::receiver().await, support::receiver().await];
    let ports = [free_port(), free_port()];
    let Some(first) = collecting(ports, other, lab).await else { return };
    let setup = sending("collector.env", local(ports[0]));
    let setup = setup.with("api-gateway", BATCH_SIZE, 2).with("llm-service", BATCH_SIZE, 2);
    let system = kill_in_mid_request(setup, first).await;
    for service in ["api-gateway", "llm-service"] {
        system.log.wait_for(service, "spans were dropped").await;
    }

    let _second = collecting(ports, other, lab).await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    let trees = arrived(&store, 10).await;
    let left = "\
POST /process SERVER user-service http 200
  validate_user INTERNAL user-service
  POST /generate CLIENT user-service http 200
";
    let whole = WHOLE.replace("chat offline INTERNAL", "chat held CLIENT");
    assert_eq!(shapes(&trees), format!("{left}\n{whole}"));
    check!("other-backends/killed.html", &figures(&trees[..1]));
    let callers_first = CHAIN.iter().rev();
    let lines = callers_first.flat_map(|service| stopped.log.find(service, "spans were"));
    check!("other-backends/killed.txt", &(without_times(lines.collect()).join("\n") + "\n"));
}

/// Log lines as `SERVICE | LEVEL message`, because the times differ from run to run.
fn without_times(lines: Vec<String>) -> Vec<String> {
    let time = Regex::new(r"\S+Z +").expect("a pattern");
    lines.iter().map(|line| time.replace(line, "").into_owned()).collect()
}

/// A span with everything that a span of Rust's SDK can have.
fn full_span() -> ExportTraceServiceRequest {
    let span = json!({
        "traceId": "01".repeat(16), "spanId": "02".repeat(8), "parentSpanId": "05".repeat(8),
        "traceState": "acme=1", "flags": 0x101, "name": "GET /orders", "kind": 2,
        "startTimeUnixNano": 1_795_618_957_123_456_789_u64,
        "endTimeUnixNano": 1_795_618_957_223_456_789_u64,
        "attributes": [
            { "key": "text", "value": { "stringValue": "x" } },
            { "key": "number", "value": { "intValue": 7 } },
            { "key": "fraction", "value": { "doubleValue": 1.5 } },
            { "key": "truth", "value": { "boolValue": true } },
            { "key": "list", "value": { "arrayValue": { "values": [{ "stringValue": "stop" }] } } },
        ],
        "events": [{
            "timeUnixNano": 1_795_618_957_133_456_789_u64,
            "name": "retried",
            "attributes": [{ "key": "attempt", "value": { "intValue": 1 } }],
        }],
        "links": [{ "traceId": "03".repeat(16), "spanId": "04".repeat(8) }],
        "status": { "code": 2, "message": "no stock" },
    });
    let service = json!({ "key": "service.name", "value": { "stringValue": "orders" } });
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": [service] },
        "scopeSpans": [{ "scope": { "name": "shop", "version": "1.0" }, "spans": [span] }],
    }] });
    serde_json::from_value(request).expect("OTLP")
}

/// The parts of a request's only span, in the words of the guide's table.
fn parts(request: &ExportTraceServiceRequest) -> [(&'static str, String); 11] {
    let resource = &request.resource_spans[0];
    let scope = &resource.scope_spans[0];
    let span = &scope.spans[0];
    let mut attributes = span.attributes.clone();
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    let events: Vec<_> = span.events.iter().map(|it| (&it.name, &it.attributes)).collect();
    let times = [span.start_time_unix_nano, span.end_time_unix_nano];
    let ids = (&span.trace_id, &span.span_id, &span.parent_span_id);
    [
        ("ids, parent, name", format!("{ids:?} {}", span.name)),
        ("attributes, with their types", format!("{attributes:?}")),
        ("status and its message", format!("{:?}", span.status)),
        ("events", format!("{events:?}")),
        ("times, to the microsecond", format!("{:?}", times.map(|it| (it + 500) / 1_000))),
        ("times, to the nanosecond", format!("{times:?}")),
        ("kind (SERVER, CLIENT, …)", span.kind.to_string()),
        ("resource: `service.name` and the rest", format!("{:?}", resource.resource)),
        ("instrumentation scope", format!("{:?}", scope.scope)),
        ("links", format!("{:?}", span.links)),
        ("`tracestate`", span.trace_state.clone()),
    ]
}

async fn export(to: SocketAddr, content_type: &str, body: Vec<u8>) -> u16 {
    let request = client().post(format!("http://{to}/v1/traces"));
    let request = request.header(CONTENT_TYPE, content_type).body(body);
    request.send().await.expect("an answer").status().as_u16()
}

/// Queries Jaeger's API until it has found something.
async fn of_jaeger(api: SocketAddr, query: &str) -> Value {
    let url = format!("http://{api}/api/{query}");
    until(async || {
        let answer = client().get(&url).send().await.expect("an answer");
        let found = answer.status().is_success();
        let answer: Value = answer.json().await.unwrap_or_default();
        if found && answer["data"] != json!([]) { Ok(answer) } else { Err(answer) }
    })
    .await
}

/// Removes the attribute in which Jaeger complains about a span, here that its parent is missing.
fn without_warnings(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    let scopes = request.resource_spans.iter_mut().flat_map(|it| &mut it.scope_spans);
    for span in scopes.flat_map(|it| &mut it.spans) {
        span.attributes.retain(|it| it.key != "@jaeger@warnings");
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn jaeger_has_the_whole_tree() {
    let [otlp, api] = [free_address(), free_address()];
    let Some(_jaeger) = jaeger::start([otlp, api]).await else { return };
    sending("jaeger.env", otlp).answers("user_1", 200).await;
    let found = of_jaeger(api, "traces?service=api-gateway").await;
    let read = lab::read::read(found.to_string().as_bytes()).expect("Jaeger's JSON");
    let seen = Store::new(Limits::default());
    seen.add(read.spans);
    assert_eq!(shapes(&seen.trees()), WHOLE);
}

async fn of_lab(store: &Store) -> ExportTraceServiceRequest {
    arrived(store, 1).await;
    otlp::to_request(store.traces()[0].iter().map(|span| &**span))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_phoenix_keeps_and_what_its_death_costs() {
    let folder = TempDir::new().expect("a folder");
    let address = free_address();
    let Some(running) = phoenix::start(address, folder.path()).await else { return };

    // Its file names a project of its own.
    let system = sending("phoenix.env", address).start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    assert_eq!(system.ask("stranger").await.status(), 403);
    let stopped = system.stop().await;
    assert_eq!(stopped.log.find("api-gateway", "spans were"), [""; 0]);
    let read = otlp::from_request(phoenix::spans(address, "one-trace", 11).await);
    let seen = Store::new(Limits::default());
    seen.add(read.expect("spans").items);
    let trees = in_order(seen.trees());
    let known = Regex::new(r"(SERVER|CLIENT|INTERNAL) [\w-]+").expect("a pattern");
    let expected = format!("{WHOLE}\n{FORBIDDEN}");
    assert_eq!(shapes(&trees), known.replace_all(&expected, "INTERNAL unknown_service"));
    check!("other-backends/phoenix.html", &figures(&trees[..1]));

    // The same span to the lab, through a Collector, to Jaeger and to Phoenix.
    let [otlp, api] = [free_address(), free_address()];
    let Some(_jaeger) = jaeger::start([otlp, api]).await else { return };
    let (direct, lab_direct) = support::receiver().await;
    let (collected, lab_collected) = support::receiver().await;
    let ports = [free_port(), free_port()];
    let (_, other) = support::receiver().await;
    let Some(_collector) = collecting(ports, other, lab_collected).await else { return };
    let sent = full_span();
    for to in [lab_direct, local(ports[0]), otlp, address] {
        assert_eq!(export(to, "application/x-protobuf", sent.encode_to_vec()).await, 200);
    }
    let jaeger = of_jaeger(api, &format!("v3/traces/{}", "01".repeat(16))).await;
    let received = [
        of_lab(&direct).await,
        of_lab(&collected).await,
        without_warnings(serde_json::from_value(jaeger["result"].clone()).expect("OTLP")),
        phoenix::spans(address, "default", 1).await,
    ];
    let received = received.map(|it| parts(&it));
    let mut table =
        "| Of a span | the lab | the Collector | Jaeger | Phoenix |\n|---|---|---|---|---|\n"
            .to_owned();
    for (at, (name, value)) in parts(&sent).iter().enumerate() {
        let kept = |of: &[(_, String); 11]| if of[at].1 == *value { "kept" } else { "**dropped**" };
        table += &format!("| {name} | {} |\n", received.each_ref().map(kept).join(" | "));
    }
    check!("other-backends/kept.md", &table);

    // It accepts protobuf only.
    assert_eq!(export(address, "application/json", b"{}".into()).await, 415);

    let system = kill_in_mid_request(sending("phoenix.env", address), running).await;
    let stopped = system.stop().await;
    for (service, lost) in [("api-gateway", 2), ("user-service", 3), ("llm-service", 2)] {
        let line = format!("did not take them lost={lost} ended={lost}");
        let found = stopped.log.find(service, &line);
        assert_eq!(found.len(), 1, "{service}: {:#?}", stopped.log.lines());
    }
}

const FORBIDDEN: &str = "\
POST /api/query SERVER api-gateway http 403
  POST /process CLIENT api-gateway http 403 error 403
    POST /process SERVER user-service http 403
      validate_user INTERNAL user-service error production::user_service::InvalidUser
";

/// A service that is built as the tutorial builds it speaks only HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_needs_an_exporter_that_may_choose_it() {
    let log =
        ask_llm_service(free_address(), &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".into())]).await;
    let said = log.find("llm-service", "`.with_tonic()` instead");
    assert_eq!(said.len(), 1, "{:?}", log.lines());
}

#[test]
fn the_configuration_of_the_collector_holds_together() {
    let file = collector("examples/other_backends/collector.yaml");
    let pipelines = entries(&file["service"]["pipelines"]).map(|(name, _)| name);
    assert_eq!(pipelines.collect::<Vec<_>>(), ["traces/phoenix", "traces/honeyhive"]);
    assert!(page("other-backends").contains("other_backends/collector.yaml"));
}
