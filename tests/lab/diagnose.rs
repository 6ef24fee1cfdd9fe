//! Every rule finds what it is for, in a trace of real services or of the real SDK, and is silent about one that is close
//! to it. `SNAPSHOTS=overwrite cargo test --test book lab::diagnose` rewrites the recordings of both for the page.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::support;
use crate::support::in_process::Lab;
use crate::support::includes::includes;
use crate::support::recording::{Compared, check_as, redact};
use crate::support::{Setup, Stopped, client, refused};
use course::experiment::Experiment;
use course::hops::HOPS;
use lab::case::{self, Case};
use lab::diagnose::{Finding, Rule, of_header};
use lab::list::List;
use lab::otlp::{self, Problem};
use lab::report::{self, Links};
use lab::request;
use lab::traceparent::Traceparent;
use lab::wire::{Fault, Hop};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator, InMemorySpanExporter, RandomIdGenerator, SdkTracer, SdkTracerProvider,
};
use regex::Regex;
use serde_json::json;

/// The trigger of a rule, or what is close to it, and all rules that speak of it.
struct Try {
    case: Case,
    found: &'static [Rule],
}

fn of(case: Case, found: &'static [Rule]) -> Try {
    Try { case, found }
}

inventory::submit! {
    Compared(|| {
        let endings = [".html", ".json", "-near.json"];
        let of_rule = |rule: &Rule| endings.map(|ending| format!("diagnose/{}{ending}", rule.name()));
        Rule::ALL.iter().flat_map(of_rule).collect()
    })
}

fn compare(rule: Rule, trigger: Try, near: Try) {
    assert!(trigger.found.contains(&rule) && !near.found.contains(&rule));
    for (what, Try { case, found }) in [("", trigger), ("-near", near)] {
        let name = format!("{}{what}", rule.name());
        let findings = case.findings();
        let mut rules: Vec<Rule> = findings.iter().map(|finding| finding.rule).collect();
        rules.dedup();
        assert_eq!(rules, found, "{name}: {findings:#?}");
        // What is written is what is read.
        let json = case.to_json().expect("JSON");
        let read = Case::read(&json).expect("a case");
        assert_eq!(read.findings(), findings, "{name}");
        let mut json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        in_order(&mut json);
        let json = serde_json::to_string_pretty(&json).expect("JSON") + "\n";
        record(&format!("diagnose/{name}.json"), &json);
        if what.is_empty() {
            let links = Links { book: "../", span: &|_| None };
            let page = report::case(&case, &links).into_string() + "\n";
            record(&format!("diagnose/{name}.html"), &page);
        }
    }
}

/// Attributes come in any order: the SDK keeps a resource in a hash map.
fn in_order(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Array(items) => {
            if items.iter().all(|item| item.get("key").is_some()) {
                items.sort_by_key(|item| item["key"].as_str().map(str::to_owned));
            }
            items.iter_mut().for_each(in_order);
        }
        serde_json::Value::Object(fields) => fields.values_mut().for_each(in_order),
        _ => {}
    }
}

/// Compares a recording with `now`, without regard to ports either.
fn record(name: &str, now: &str) {
    let rules = [
        (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
        (r#""intValue": "\d{4,5}""#, "\"intValue\": \"<port>\""),
        (r"\b\d{19}\b", "<nanoseconds>"),
    ];
    let normal = |text: &str| {
        let text = rules.iter().fold(text.to_owned(), |text, (pattern, word)| {
            let pattern = Regex::new(pattern).expect("a pattern");
            pattern.replace_all(&text, *word).into_owned()
        });
        redact(&text)
    };
    check_as(name, now, normal).unwrap();
}

// The real services.

fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

/// The traces that are left, without the wire.
fn traces(stopped: &Stopped) -> Case {
    Case::new(stopped.trees(), Vec::new())
}

async fn asked(setup: Setup, user: &str) -> Stopped {
    let system = setup.start().await;
    system.ask(user).await;
    system.stop().await
}

async fn post(address: SocketAddr, path: &str, traceparent: Option<&str>) {
    let body = json!({ "user_id": "user_1", "query": "?", "prompt": "?" });
    let mut request = client().post(format!("http://{address}{path}")).json(&body);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    assert_eq!(request.send().await.expect("an answer").status(), 200);
}

/// Acts as a caller whose spans go elsewhere.
async fn called(traceparent: &str) -> Stopped {
    let system = setup().wired().start().await;
    let address = system.wire.address(HOPS[2]).expect("a proxy");
    post(address, "/generate", Some(traceparent)).await;
    system.stop().await
}

async fn experiment(hop: Hop, fault: Option<Fault>) -> Case {
    let system = setup().wired().start().await;
    let gateway = system.wire.address(HOPS[0]).expect("a proxy");
    let sent = Experiment { hop, fault }.send(gateway, &system.wire, &system.store);
    let id = sent.await.expect("it is sent");
    let stopped = system.stop().await;
    request::case(&List::new(stopped.store), &stopped.wire, id).expect("a case")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_arrived() {
    let stopped = asked(setup().with("all", "OTEL_SDK_DISABLED", "true").wired(), "user_1").await;
    let silent = Case::new(stopped.trees(), stopped.wire.exchanges());
    let whole = traces(&asked(setup(), "user_1").await);
    compare(Rule::NothingArrived, of(silent, &[Rule::NothingArrived]), of(whole, &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_get_through() {
    let cut = experiment(HOPS[1], Some(Fault::TruncateTraceparent)).await;
    let upper = experiment(HOPS[1], Some(Fault::UpperCaseName)).await;
    compare(Rule::BrokenHeader, of(cut, &[Rule::BrokenHeader]), of(upper, &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_sampled() {
    let cleared = experiment(HOPS[2], Some(Fault::ClearSampled)).await;
    // The lowest bit is set, and another one that a reader may not know.
    let stopped = called("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03").await;
    let case = Case::new(stopped.trees(), stopped.wire.exchanges());
    compare(Rule::Unsampled, of(cleared, &[Rule::Unsampled]), of(case, &[Rule::Orphan]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_several_traces() {
    let apart = traces(&asked(setup().without_traceparent(), "user_1").await);
    // Two requests that know nothing of each other.
    let system = setup().start().await;
    let (user, llm) = (system.user.address, system.llm.address);
    post(user, "/process", None).await;
    post(llm, "/generate", None).await;
    let two = traces(&system.stop().await);
    assert_eq!(two.trees.len(), 2);
    compare(Rule::FallenApart, of(apart, &[Rule::FallenApart]), of(two, &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_are_missing() {
    let (nobody, _kept) = refused();
    let key = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let lost = setup().with("user-service", key, format!("http://{nobody}"));
    let lost = traces(&asked(lost, "user_1").await);
    let called = called("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await;
    compare(
        Rule::MissingSpans,
        of(lost, &[Rule::MissingSpans]),
        of(traces(&called), &[Rule::Orphan]),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan() {
    let called = called("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await;
    // The same with the span of its caller.
    let whole = experiment(HOPS[0], None).await;
    compare(Rule::Orphan, of(traces(&called), &[Rule::Orphan]), of(whole, &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_without_an_error_status() {
    let mut gateway = Process::new("api-gateway");
    gateway.span("POST /api/query", SpanKind::Server, None, |span| {
        span.set_attribute(KeyValue::new("http.response.status_code", 502));
    });
    // A refusal isn't a failure of the server, and the client's span records it.
    let refused = traces(&asked(setup(), "stranger").await);
    compare(Rule::StatusNotSet, of(case([gateway]), &[Rule::StatusNotSet]), of(refused, &[]));
}

// The SDK.

/// A process with an SDK of its own, whose spans are kept.
struct Process {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    exporter: InMemorySpanExporter,
    resource: Resource,
}

impl Process {
    fn new(service: &'static str) -> Process {
        Process::with(service, [], RandomIdGenerator::default())
    }

    fn with<const N: usize>(
        service: &'static str,
        resource: [KeyValue; N],
        ids: impl IdGenerator + 'static,
    ) -> Process {
        let resource =
            Resource::builder().with_service_name(service).with_attributes(resource).build();
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_id_generator(ids)
            .with_simple_exporter(exporter.clone())
            .build();
        Process { tracer: provider.tracer("test"), provider, exporter, resource }
    }

    /// A SERVER span that others can be below.
    fn open(&self, name: &'static str) -> opentelemetry_sdk::trace::Span {
        self.start(self.tracer.span_builder(name).with_kind(SpanKind::Server), None)
    }

    /// Starts a span below `parent`, hands it to `change`, and ends it.
    fn span(
        &mut self,
        name: &'static str,
        kind: SpanKind,
        parent: Option<&SpanContext>,
        change: impl FnOnce(&mut opentelemetry_sdk::trace::Span),
    ) -> SpanContext {
        let builder = self.tracer.span_builder(name).with_kind(kind);
        let mut span = self.start(builder, parent);
        change(&mut span);
        span.end();
        span.span_context().clone()
    }

    fn start(
        &self,
        builder: SpanBuilder,
        parent: Option<&SpanContext>,
    ) -> opentelemetry_sdk::trace::Span {
        let context = Context::new();
        let context = match parent {
            Some(parent) => context.with_remote_span_context(parent.clone()),
            None => context,
        };
        builder.start_with_context(&self.tracer, &context)
    }
}

/// The exported spans, read as they would be from the network.
fn case<const N: usize>(processes: [Process; N]) -> Case {
    let resource_spans = processes.into_iter().flat_map(|process| {
        let spans = process.exporter.get_finished_spans().expect("spans");
        process.provider.shutdown().expect("it ends");
        group_spans_by_resource_and_scope(spans, &(&process.resource).into())
    });
    let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
    Case::read(&serde_json::to_vec(&request).expect("JSON")).expect("a case")
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// A CLIENT span of `from` for 10 ms, and below it a SERVER span of `to` that starts `offset` later, or earlier.
fn call(from: &mut Process, to: &mut Process, ahead: Duration, behind: Duration) {
    let start = SystemTime::now();
    let builder = from
        .tracer
        .span_builder("POST /process")
        .with_kind(SpanKind::Client)
        .with_start_time(start);
    let mut client = from.start(builder, None);
    let begins = start + ahead - behind;
    let builder =
        to.tracer.span_builder("POST /process").with_kind(SpanKind::Server).with_start_time(begins);
    let mut server = to.start(builder, Some(client.span_context()));
    server.end_with_timestamp(begins + 5 * MILLISECOND);
    client.end_with_timestamp(start + 10 * MILLISECOND);
}

#[test]
fn clocks_that_differ() {
    let pair = || (Process::new("api-gateway"), Process::new("user-service"));
    let (mut gateway, mut user) = pair();
    call(&mut gateway, &mut user, Duration::ZERO, 50 * MILLISECOND);
    let apart = case([gateway, user]);
    // As much as a coarse clock explains.
    let (mut gateway, mut user) = pair();
    call(&mut gateway, &mut user, Duration::ZERO, MILLISECOND);
    compare(Rule::ClockSkew, of(apart, &[Rule::ClockSkew]), of(case([gateway, user]), &[]));
}

#[test]
fn a_wrong_parent() {
    let (mut gateway, mut user) = (Process::new("api-gateway"), Process::new("user-service"));
    let start = SystemTime::now();
    let at = |milliseconds: u32| start + milliseconds * MILLISECOND;
    let builder = |process: &Process, name: &'static str, kind: SpanKind, from: u32| {
        process.tracer.span_builder(name).with_kind(kind).with_start_time(at(from))
    };
    let mut server = gateway.start(builder(&gateway, "POST /api/query", SpanKind::Server, 0), None);
    let mut client = gateway.start(
        builder(&gateway, "POST /process", SpanKind::Client, 1),
        Some(server.span_context()),
    );
    // The header has the id of the span around the call.
    let mut below = user
        .start(builder(&user, "POST /process", SpanKind::Server, 2), Some(server.span_context()));
    below.end_with_timestamp(at(3));
    client.end_with_timestamp(at(4));
    server.end_with_timestamp(at(5));
    let wrong = case([gateway, user]);

    // A call that fails, and is tried again.
    (gateway, user) = (Process::new("api-gateway"), Process::new("user-service"));
    let mut server = gateway.start(builder(&gateway, "POST /api/query", SpanKind::Server, 0), None);
    let mut first = gateway.start(
        builder(&gateway, "POST /process", SpanKind::Client, 1),
        Some(server.span_context()),
    );
    first.set_status(Status::error("no answer"));
    first.end_with_timestamp(at(2));
    let mut second = gateway.start(
        builder(&gateway, "POST /process", SpanKind::Client, 3),
        Some(server.span_context()),
    );
    let mut below = user
        .start(builder(&user, "POST /process", SpanKind::Server, 4), Some(second.span_context()));
    below.end_with_timestamp(at(5));
    second.end_with_timestamp(at(6));
    server.end_with_timestamp(at(7));
    compare(Rule::WrongParent, of(wrong, &[Rule::WrongParent]), of(case([gateway, user]), &[]));
}

#[test]
fn several_roots() {
    /// Gives every root the same trace id, as one does who passes on the trace id alone.
    #[derive(Debug)]
    struct Same(TraceId);
    impl IdGenerator for Same {
        fn new_trace_id(&self) -> TraceId {
            self.0
        }
        fn new_span_id(&self) -> SpanId {
            RandomIdGenerator::default().new_span_id()
        }
    }
    let id = RandomIdGenerator::default().new_trace_id();
    let mut gateway = Process::with("api-gateway", [], Same(id));
    let mut user = Process::with("user-service", [], Same(id));
    gateway.span("POST /api/query", SpanKind::Server, None, |_| {});
    user.span("POST /process", SpanKind::Server, None, |_| {});
    let roots = case([gateway, user]);

    // One root, and one whose parent is elsewhere.
    let mut gateway = Process::with("api-gateway", [], Same(id));
    let mut user = Process::new("user-service");
    gateway.span("POST /api/query", SpanKind::Server, None, |_| {});
    let other = RandomIdGenerator::default().new_span_id();
    let parent = SpanContext::new(id, other, TraceFlags::SAMPLED, true, TraceState::default());
    user.span("POST /process", SpanKind::Server, Some(&parent), |_| {});
    compare(
        Rule::SeveralRoots,
        of(roots, &[Rule::SeveralRoots]),
        of(case([gateway, user]), &[Rule::Orphan]),
    );
}

#[test]
fn a_wrong_kind() {
    let http =
        |span: &mut opentelemetry_sdk::trace::Span, key: &'static str, value: &'static str| {
            span.set_attribute(KeyValue::new("http.request.method", "POST"));
            span.set_attribute(KeyValue::new(key, value));
        };
    let (mut gateway, mut user) = (Process::new("api-gateway"), Process::new("user-service"));
    let client = gateway.span("POST /process", SpanKind::Internal, None, |span| {
        http(span, "url.full", "http://127.0.0.1:5001/process");
    });
    user.span("POST /process", SpanKind::Internal, Some(&client), |span| {
        http(span, "http.route", "/process")
    });
    let wrong = case([gateway, user]);

    // Work within a service, with an attribute of its request.
    let mut gateway = Process::new("api-gateway");
    let mut server = gateway.open("POST /process");
    http(&mut server, "http.route", "/process");
    let context = server.span_context().clone();
    gateway.span("render", SpanKind::Internal, Some(&context), |span| {
        span.set_attribute(KeyValue::new("http.route", "/process"));
    });
    server.end();
    compare(Rule::WrongKind, of(wrong, &[Rule::WrongKind]), of(case([gateway]), &[]));
}

#[test]
fn two_versions_of_one_library() {
    let process = |instance: &'static str, version: &'static str| {
        let resource = [
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("telemetry.sdk.version", version),
        ];
        let mut process = Process::with("api-gateway", resource, RandomIdGenerator::default());
        process.span("POST /api/query", SpanKind::Server, None, |_| {});
        process
    };
    let twice = case([process("7b41", "0.32.0"), process("7b41", "0.33.1")]);
    // A new version on its way through the instances of a service.
    let rolling = case([process("7b41", "0.32.0"), process("c0de", "0.33.1")]);
    compare(Rule::MixedVersions, of(twice, &[Rule::MixedVersions]), of(rolling, &[]));
}

#[test]
fn a_name_that_never_repeats() {
    let named = |names: &[&'static str], path: &'static str| {
        let mut process = Process::new("user-service");
        let mut root = process.open("GET /");
        for name in names {
            process.span(name, SpanKind::Internal, Some(root.span_context()), |span| {
                span.set_attribute(KeyValue::new("url.path", path));
            });
        }
        root.end();
        process
    };
    let ids = named(
        &[
            "GET /users/42",
            "GET /orders/8f14e45f-ceea-467f-a8f3-3f1b2c4d5e6f",
            "load 1234567",
            "mail to ada@example.com",
        ],
        "/users/42",
    );
    let routes = named(
        &[
            "GET /v2/users/{id}",
            "GET /errors/404",
            "POST /oauth2/token",
            "chat gpt-4o-2024-08-06",
            "cafebabe deadbeef",
            "HTTP 500",
        ],
        "/users/42",
    );
    compare(
        Rule::HighCardinality,
        of(case([ids]), &[Rule::HighCardinality]),
        of(case([routes]), &[]),
    );
}

#[test]
fn a_secret_in_a_span() {
    let with = |attributes: &[(&'static str, &'static str)]| {
        let mut process = Process::new("api-gateway");
        let mut root = process.open("POST /api/query");
        for (key, value) in attributes {
            process.span("work", SpanKind::Internal, Some(root.span_context()), |span| {
                span.set_attribute(KeyValue::new(*key, *value));
            });
        }
        root.end();
        process
    };
    let secrets = [
        ("http.request.header.authorization", "Bearer 0123456789abcdef0123456789abcdef"),
        ("user.password", "correct horse"),
        ("db.connection", "postgres://app:hunter22@db/app"),
        ("url.full", "https://example.com/?q=1&api_key=0123456789abcdef"),
        ("note", "key sk-0123456789abcdef0123456789abcdef in use"),
    ];
    let harmless = [
        ("http.request.header.authorization", "[REDACTED]"),
        ("gen_ai.usage.input_tokens", "1234567890"),
        ("session.token.count", "a hundred thousand"),
        ("password.policy", "at least 12 characters"),
        ("www-authenticate", "Bearer authentication-required-here"),
        ("task", "task-sk-and-other-words-that-are-long-enough"),
        ("url.full", "https://user@example.com/?token=REDACTED"),
        ("api.key.name", "deployment of 2026"),
    ];
    let found = case([with(&secrets)]);
    // Each of them, and never the secret itself.
    let findings = found.findings();
    assert_eq!(findings.len(), secrets.len(), "{findings:#?}");
    let told = report::text(&findings, "");
    for part in ["0123456789abcdef", "correct horse", "hunter22"] {
        assert!(!told.contains(part), "{told}");
    }
    compare(Rule::Secret, of(found, &[Rule::Secret]), of(case([with(&harmless)]), &[]));
}

// Headers alone.

#[test]
fn a_header_is_read_byte_by_byte() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert!(of_header(valid).is_none());
    assert!(Traceparent::parse(&valid.replace("00-4b", "01-4b")).is_ok());
    assert!(Traceparent::parse(&(valid.replace("00-4b", "cc-4b") + "-more")).is_ok());
    let cases = [
        (String::new(), 0, "ends here"),
        (valid[..30].to_owned(), 30, "within the trace id"),
        (valid[..35].to_owned(), 35, "after the trace id"),
        (valid[..54].to_owned(), 54, "within the flags"),
        (valid.to_uppercase(), 4, "upper case"),
        (valid.replace("00-", "ff-"), 0, "version ff"),
        (valid.replace("4bf9", "4bg9"), 5, "not a hexadecimal digit"),
        (valid.replace("00f067aa0ba902b7", "0000000000000000"), 36, "all zero"),
        (valid.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), 3, "all zero"),
        (valid.replace("-00f0", "_00f0"), 35, "stands where"),
        (format!("{valid}-00"), 55, "there is more"),
        (format!("{valid}0"), 55, "there is more"),
        ("é".repeat(55), 0, "not a hexadecimal digit"),
    ];
    for (value, byte, reason) in cases {
        let broken = Traceparent::parse(&value).expect_err(&value);
        assert_eq!(broken.byte, byte, "{value}: {broken}");
        assert!(broken.reason.to_string().contains(reason), "{value}: {broken}");
        assert_eq!(of_header(&value).expect("a finding").rule, Rule::BrokenHeader);
    }
    let unsampled = valid.replace("-01", "-00");
    assert_eq!(of_header(&unsampled).expect("a finding").rule, Rule::Unsampled);
}

#[test]
fn what_is_pasted_is_read_as_what_it_is() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let found = |text: &str| -> Vec<Rule> {
        let case = Case::read(text.as_bytes()).expect("a case");
        case.findings().iter().map(|finding| finding.rule).collect()
    };
    assert_eq!(found(valid), []);
    assert_eq!(found(&format!("\n{valid}\n")), []);
    assert_eq!(found(&format!("POST / HTTP/1.1\nhost: x\nTraceparent: {valid}\n\n")), []);
    assert_eq!(found("traceparent: 00-1-2-3"), [Rule::BrokenHeader]);
    let twice = format!("traceparent: {valid}\ntraceparent: {valid}");
    assert_eq!(found(&twice), [Rule::BrokenHeader]);
    assert_eq!(found(r#"{"resourceSpans": []}"#), [Rule::NothingArrived]);
    for wrong in ["", "hello", "host: x"] {
        let error = Case::read(wrong.as_bytes()).expect_err(wrong);
        assert!(matches!(error, case::Error::NoTrace), "{wrong}: {error}");
    }
    for wrong in ["\n[1", "\n{\"a\""] {
        let error = Case::read(wrong.as_bytes()).expect_err(wrong);
        let case::Error::Unreadable(Problem { line, error }) = error else {
            panic!("{wrong}: {error}")
        };
        assert!(matches!(error, otlp::Error::NotJson(_)), "{wrong}: {error}");
        assert_eq!(line, 2, "{wrong}");
    }
}

/// No number of spans makes a page of it, nor a wait.
#[test]
fn ten_thousand_findings_are_told_in_a_few_sentences() {
    let mut process = Process::new("api-gateway");
    let id = RandomIdGenerator::default().new_trace_id();
    for _ in 0..10_000 {
        let parent = SpanContext::new(
            id,
            RandomIdGenerator::default().new_span_id(),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        process.span("POST /api/query/12345", SpanKind::Server, Some(&parent), |_| {});
    }
    let findings = case([process]).findings();
    assert!(findings.len() <= 20, "{}", findings.len());
    let orphans = findings.iter().filter(|finding| finding.rule == Rule::Orphan);
    let orphans: Vec<&Finding> = orphans.collect();
    let spans = orphans.iter().map(|finding| finding.spans.len());
    assert_eq!(spans.sum::<usize>(), 10_000);
    let more: Vec<usize> = orphans.iter().map(|finding| finding.more).collect();
    assert_eq!(more, [0, 0, 0, 0, 0, 0, 0, 0, 0, 9_990]);
    let cause = report::cause(orphans[9]);
    assert!(cause.ends_with(" 9990 more like this."), "{cause}");
}

/// A span that was exported twice, and children of one parent that is missing, are one finding.
#[test]
fn what_is_the_same_is_told_once() {
    let child = |id: &str| json!({ "traceId": "0a".repeat(16), "spanId": id, "parentSpanId": "0c".repeat(8), "name": "SELECT", "kind": 3 });
    let (one, two) = (child("0000000000000001"), child("0000000000000002"));
    let request = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [one, one, two] }] }] });
    let case = Case::read(request.to_string().as_bytes()).expect("a case");
    let findings = case.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].rule, Rule::MissingSpans);
    assert_eq!((findings[0].spans.len(), findings[0].same), (2, 1));
    assert_eq!(
        report::cause(&findings[0]),
        "The parent 0c0c0c0c0c0c0c0c of `SELECT` (CLIENT, unknown_service) has not arrived. It is of the same process: it has \
         not ended, or was not sent. The same of 1 more."
    );
}

/// The command of the guide that sends a span by hand.
#[tokio::test(flavor = "multi_thread")]
async fn the_span_of_the_guide_arrives() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let page = support::root().join("src").join(report::GUIDE.replace(".html", ".md"));
    let page = std::fs::read_to_string(page).expect("the guide");
    let (_, command) = page.split_once("```sh\ncurl ").expect("a command");
    let (command, _) = command.split_once("```").expect("its end");
    let lab = Lab::start().await;
    let here = command.replace("localhost:4318", &lab.address.to_string());
    assert_ne!(here, command);
    let mut shell = tokio::process::Command::new("bash");
    let sent = shell.arg("-c").arg(format!("curl --noproxy '*' {here}")).output();
    let output = sent.await.expect("bash runs");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200"), "{output:?}");
    assert_eq!(lab.store.trees()[0].name(), "by hand");
}

/// The page has a section for each rule, in their order, with a trace that the rule finds.
#[test]
fn the_guide_has_every_rule() {
    let path = format!("src/{}", report::GUIDE.replace(".html", ".md"));
    let page = std::fs::read_to_string(support::root().join(&path)).expect("the guide");
    let sections: Vec<&str> = page.lines().filter(|line| line.starts_with("### ")).collect();
    let expected = Rule::ALL.map(|rule| format!("### {} {{#{}}}", rule.title(), rule.name()));
    assert_eq!(sections, expected);
    let included = includes(&path, &page);
    let shown: Vec<&str> = included.iter().map(|include| &*include.file).collect();
    assert_eq!(
        shown,
        Rule::ALL.map(|rule| format!("src/recordings/diagnose/{}.html", rule.name()))
    );
}

/// The lists of rules and their names agree with each other.
#[test]
fn every_rule_is_listed_once() {
    let mut sorted = Rule::ALL.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, Rule::ALL);
}
