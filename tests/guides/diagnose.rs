//! Every rule finds what it is for, in a trace of real services or of the real SDK, and is silent about one that is close
//! to it. `SNAPSHOTS=overwrite cargo test --test book guides::diagnose` rewrites the recordings of both for the page.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::example::ask;
use crate::fault_lab::experiment;
use course::hops::HOPS;
use lab::case::Case;
use lab::diagnose::{Finding, Rule};
use lab::proto::collector::ExportTraceServiceRequest;
use lab::report::{self, Links};
use lab::wire::Fault;
use opentelemetry::trace::SpanKind::{self, Client, Internal, Server};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator, InMemorySpanExporter, RandomIdGenerator, SdkTracerProvider,
};
use regex::Regex;
use support::check;
use support::in_process::{self, Lab};
use support::includes::includes;
use support::process::{command, finds};
use support::recording::{Compared, check_as, folder as folder_of_recordings, redact};
use support::{Setup, Stopped, hung, lacks, refused};

inventory::submit! {
    Compared(|| {
        let endings = [".html", ".json", "-near.json"];
        let of_rule = |rule: &Rule| endings.map(|ending| format!("diagnose/{}{ending}", rule.name()));
        Rule::ALL.iter().flat_map(of_rule).collect()
    })
}

/// Compares both with their recordings: the trigger, of which `rule` speaks alone, and what is close to it, of which only the rules
/// of `near_rules` speak.
fn compare(rule: Rule, trigger: Case, near: Case, near_rules: &[Rule]) {
    assert!(!near_rules.contains(&rule));
    for (what, case, expected) in [("", trigger, &[rule][..]), ("-near", near, near_rules)] {
        let name = format!("{}{what}", rule.name());
        let findings = case.findings();
        let mut rules: Vec<Rule> = findings.iter().map(|finding| finding.rule).collect();
        rules.dedup();
        assert_eq!(rules, expected, "{name}: {findings:#?}");
        for finding in &findings {
            let (sure, certainty) = (how_sure(finding.rule), finding.evidence.certainty());
            assert!(sure.contains(&certainty.to_string()), "{name}: {certainty}, not {sure}");
        }
        // What is written is what is read.
        let json = case.to_json().expect("JSON");
        assert_eq!(Case::read(&json).expect("a case").findings(), findings, "{name}");
        let mut json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        in_order(&mut json);
        record(&format!("diagnose/{name}.json"), &format!("{json:#}\n"));
        if what.is_empty() {
            let links = Links { book: Some("../"), span: &|_| None };
            let page = report::case(&case, &links).into_string() + "\n";
            record(&format!("diagnose/{name}.html"), &page);
        }
    }
}

/// Reads in the guide how sure the findings of a rule are.
fn how_sure(rule: Rule) -> String {
    let path = support::root().join("src").join(report::GUIDE.replace(".html", ".md"));
    let page = std::fs::read_to_string(path).expect("the guide");
    let (_, section) = page.split_once(&format!("{{#{}}}", rule.name())).expect("a section");
    let line = section.lines().find_map(|line| line.strip_prefix("**How sure:** "));
    line.expect("it says how sure it is").to_owned()
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

/// The traces that are left, without the wire.
fn traces(stopped: &Stopped) -> Case {
    Case::new(stopped.trees(), Vec::new())
}

/// Acts as a caller whose spans go elsewhere, with these flags in its header.
async fn called(flags: &str) -> Stopped {
    let system = Setup::default().wired().start().await;
    let address = system.wire.address(HOPS[2].name).expect("a proxy");
    let traceparent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
    assert_eq!(ask(address, "/generate", &[("traceparent", &traceparent)]).await, 200);
    system.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_arrived() {
    let stopped = Setup::default()
        .with("all", "OTEL_SDK_DISABLED", "true")
        .wired()
        .answers("user_1", 200)
        .await;
    let silent = Case::new(stopped.trees(), stopped.wire.exchanges());
    let whole = traces(&Setup::default().answers("user_1", 200).await);
    compare(Rule::NothingArrived, silent, whole, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_get_through() {
    let cut = experiment(HOPS[1], Some(Fault::TruncateTraceparent)).await;
    let upper = experiment(HOPS[1], Some(Fault::UpperCaseName)).await;
    compare(Rule::BrokenHeader, cut, upper, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_in_another_format() {
    let b3 = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
    let traceparent = ("traceparent", "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01");
    let with = async |headers: &[(&str, &str)]| {
        let system = Setup::default().wired().start().await;
        let address = system.wire.address(HOPS[2].name).expect("a proxy");
        assert_eq!(ask(address, "/generate", headers).await, 200);
        let stopped = system.stop().await;
        Case::new(stopped.trees(), stopped.wire.exchanges())
    };
    // A caller that sends both formats.
    let (foreign, both) = (with(&[b3]).await, with(&[b3, traceparent]).await);
    compare(Rule::ForeignFormat, foreign, both, &[Rule::Orphan]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_sampled() {
    let cleared = experiment(HOPS[2], Some(Fault::ClearSampled)).await;
    // The lowest bit is set, and another one that a reader may not know.
    let stopped = called("03").await;
    let case = Case::new(stopped.trees(), stopped.wire.exchanges());
    compare(Rule::Unsampled, cleared, case, &[Rule::Orphan]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_several_traces() {
    let apart = traces(&Setup::default().without_traceparent().answers("user_1", 200).await);
    // Two requests that know nothing of each other.
    let system = Setup::default().start().await;
    assert_eq!(ask(system.user.address, "/process", &[]).await, 200);
    assert_eq!(ask(system.llm.address, "/generate", &[]).await, 200);
    let two = traces(&system.stop().await);
    assert_eq!(two.trees.len(), 2);
    compare(Rule::FallenApart, apart, two, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_are_missing() {
    let (nobody, _kept) = refused();
    let key = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let lost = Setup::default().with("user-service", key, format!("http://{nobody}"));
    let lost = traces(&lost.answers("user_1", 200).await);
    compare(Rule::MissingSpans, lost, traces(&called("01").await), &[Rule::Orphan]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan() {
    // The same with the span of its caller.
    let whole = experiment(HOPS[0], None).await;
    compare(Rule::Orphan, traces(&called("01").await), whole, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_without_an_error_status() {
    let failed = [("http.response.status_code", "502")];
    let failed = by_sdk(&[("api-gateway", (1, 0), Server, (0, 1), "POST /api/query", &failed)]);
    // A refusal isn't a failure of the server, and the client's span records it.
    let refused = traces(&Setup::default().answers("stranger", 403).await);
    compare(Rule::StatusNotSet, failed, refused, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up() {
    // Its caller stops waiting before user-service does.
    let gives_up = Setup::default().with_llm_service_at(hung().await.0);
    let gives_up = gives_up.with("api-gateway", "USER_SERVICE_TIMEOUT_MS", 200);
    let gives_up = traces(&gives_up.answers("user_1", 504).await);
    // It stops waiting itself and answers with an error.
    let slow = Setup::default().with_llm_service_at(hung().await.0);
    let slow = slow.with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    compare(Rule::HungUp, gives_up, traces(&slow.answers("user_1", 504).await), &[]);
}

// The SDK.

/// A span: its service, with attributes of the resource; its number, and its parent's or 0; its kind; from when to when in
/// milliseconds; its name; and its attributes, of which `error` sets the status.
type Made<'a> =
    (&'a str, (u64, u64), SpanKind, (u64, u64), &'static str, &'a [(&'static str, &'static str)]);

/// Gives every root the same trace id, as one does who passes on the trace id alone.
#[derive(Debug)]
struct OneTrace(TraceId);

impl IdGenerator for OneTrace {
    fn new_trace_id(&self) -> TraceId {
        self.0
    }
    fn new_span_id(&self) -> SpanId {
        RandomIdGenerator::default().new_span_id()
    }
}

/// A trace whose spans the SDK makes, in a process for each service, read as it would be from the network. A parent that
/// isn't among the spans has not arrived.
fn by_sdk(spans: &[Made]) -> Case {
    read(&request_by_sdk(spans))
}

fn read(request: &ExportTraceServiceRequest) -> Case {
    Case::read(&serde_json::to_vec(request).expect("JSON")).expect("a case")
}

/// The traces of several cases.
fn together(cases: impl IntoIterator<Item = Case>) -> Case {
    Case::new(cases.into_iter().flat_map(|case| case.trees).collect(), Vec::new())
}

fn request_by_sdk(spans: &[Made]) -> ExportTraceServiceRequest {
    // The spans of several cases are compared with each other.
    let zero = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let trace = RandomIdGenerator::default().new_trace_id();
    let process = |service: &str| {
        let (name, attributes) = service.split_once(' ').unwrap_or((service, ""));
        let attributes = attributes.split_whitespace().filter_map(|pair| pair.split_once('='));
        let attributes =
            attributes.map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
        let resource = Resource::builder().with_service_name(name.to_owned());
        let resource = resource.with_attributes(attributes).build();
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_id_generator(OneTrace(trace))
            .with_simple_exporter(exporter.clone())
            .build();
        (provider, exporter, resource)
    };
    let (mut processes, mut contexts) = (BTreeMap::new(), BTreeMap::new());
    for (service, (id, parent), kind, (start, end), name, attributes) in spans {
        let (provider, ..) = processes.entry(*service).or_insert_with(|| process(service));
        let tracer = provider.tracer("test");
        let at = |milliseconds| zero + Duration::from_millis(milliseconds);
        let builder =
            tracer.span_builder(*name).with_kind(kind.clone()).with_start_time(at(*start));
        let elsewhere = || {
            let (parent, state) = (SpanId::from(*parent), TraceState::default());
            SpanContext::new(trace, parent, TraceFlags::SAMPLED, true, state)
        };
        let context = match parent {
            0 => Context::new(),
            _ => Context::new()
                .with_remote_span_context(contexts.get(parent).cloned().unwrap_or_else(elsewhere)),
        };
        let mut span = builder.start_with_context(&tracer, &context);
        for (key, value) in *attributes {
            match value.parse::<i64>() {
                _ if *key == "error" => span.set_status(Status::error(*value)),
                Ok(number) if *key == "http.response.status_code" => {
                    span.set_attribute(KeyValue::new(*key, number));
                }
                _ => span.set_attribute(KeyValue::new(*key, *value)),
            }
        }
        span.end_with_timestamp(at(*end));
        contexts.insert(*id, span.span_context().clone());
    }
    let resource_spans = processes.into_values().flat_map(|(provider, exporter, resource)| {
        let mut spans = exporter.get_finished_spans().expect("spans");
        provider.shutdown().expect("it ends");
        // The order in which a service exports them.
        spans.sort_by_key(|span| span.end_time);
        in_process::request_by_sdk(spans, &resource).resource_spans
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

#[test]
fn clocks_that_differ() {
    // A call, and its other end by a clock that is `behind` by that many milliseconds.
    let call = |behind: u64| {
        by_sdk(&[
            ("api-gateway", (1, 0), Client, (100, 110), "POST /process", &[]),
            ("user-service", (2, 1), Server, (100 - behind, 105 - behind), "POST /process", &[]),
        ])
    };
    // One millisecond is as much as a coarse clock explains.
    compare(Rule::ClockSkew, call(50), call(1), &[]);
}

#[test]
fn a_root_in_the_middle_of_a_request() {
    let request =
        |service, times| by_sdk(&[(service, (1, 0), Server, times, "POST /process", &[])]);
    let job = |times| by_sdk(&[("user-service", (1, 0), Internal, times, "validate_user", &[])]);
    // A task that was spawned without the context of its request.
    let spawned = together([request("user-service", (0, 9)), job((2, 4))]);
    // It goes on for longer than the request; two requests were there; another service answered one.
    let near = together([
        request("user-service", (0, 9)),
        request("user-service", (20, 29)),
        request("user-service", (21, 30)),
        request("llm-service", (50, 59)),
        job((8, 11)),
        job((22, 24)),
        job((52, 54)),
    ]);
    compare(Rule::RootWithin, spawned, near, &[]);
}

#[test]
fn a_trace_that_begins_with_a_call() {
    let call = by_sdk(&[
        ("user-service", (1, 0), Client, (20, 26), "POST /generate", &[]),
        ("llm-service", (2, 1), Server, (21, 25), "POST /generate", &[]),
    ]);
    let request = by_sdk(&[("user-service", (1, 0), Server, (0, 9), "POST /process", &[])]);
    // A script answers no requests.
    let script = by_sdk(&[
        ("load-test", (1, 0), Client, (0, 9), "POST /process", &[]),
        ("user-service", (2, 1), Server, (1, 8), "POST /process", &[]),
    ]);
    compare(Rule::ClientRoot, together([request, call]), script, &[]);
}

#[test]
fn a_span_without_an_end() {
    let spans: [Made; 2] = [
        ("api-gateway", (1, 0), Server, (0, 5), "POST /api/query", &[]),
        ("api-gateway", (2, 1), Internal, (1, 4), "validate", &[]),
    ];
    let ended = request_by_sdk(&spans);
    let mut open = ended.clone();
    // As tools write it that show requests while they run.
    let mut spans = open.resource_spans.iter_mut().flat_map(|it| &mut it.scope_spans);
    let mut spans = spans.by_ref().flat_map(|it| &mut it.spans);
    let top = spans.find(|span| span.parent_span_id.is_empty()).expect("a root");
    top.end_time_unix_nano = 0;
    compare(Rule::NotEnded, read(&open), read(&ended), &[]);
}

/// A call that was answered, and the request's span, which was open for as long as its task.
fn with_task(request: u64, task: u64) -> Case {
    let ok = [("http.response.status_code", "200")];
    by_sdk(&[
        ("web", (1, 0), Client, (0, 20), "POST /checkout", &ok),
        ("shop", (2, 1), Server, (1, request), "POST /checkout", &ok),
        ("shop", (3, 2), Internal, (5, task), "send_receipt", &[]),
    ])
}

#[test]
fn a_span_held_open_by_a_task() {
    // A task that ends late, and the span of its request on time.
    compare(Rule::HeldOpen, with_task(400, 400), with_task(18, 400), &[]);
}

#[test]
fn requests_below_one_long_span() {
    let below = |times: [(u64, u64); 3]| {
        let requests = (2..)
            .zip(times)
            .map(|(id, times)| -> Made { ("shop", (id, 1), Server, times, "GET /cart", &[]) });
        let connection: Made = ("shop", (1, 0), Internal, (0, 90_000), "connection", &[]);
        by_sdk(&[connection].into_iter().chain(requests).collect::<Vec<_>>())
    };
    let in_turn = below([(1, 9), (30_000, 30_009), (80_000, 80_009)]);
    // Parts of one request.
    let at_the_same_time = below([(1, 9), (2, 8), (3, 9)]);
    compare(Rule::LongLived, in_turn, at_the_same_time, &[]);
}

#[test]
fn too_many_tiny_spans() {
    let spans = |count: u64, duration: u64| {
        let children = (2..count + 2).map(|id| -> Made {
            ("shop", (id, 1), Internal, (id, id + duration), "price of an item", &[])
        });
        let root: Made = ("shop", (1, 0), Server, (0, 200), "GET /cart", &[]);
        let mut request = request_by_sdk(&[root].into_iter().chain(children).collect::<Vec<_>>());
        // A clock that is finer than milliseconds.
        let spans = request.resource_spans.iter_mut().flat_map(|it| &mut it.scope_spans);
        for span in spans.flat_map(|it| &mut it.spans).filter(|it| !it.parent_span_id.is_empty()) {
            span.start_time_unix_nano |= 1;
            span.end_time_unix_nano = (span.end_time_unix_nano | 1) + 20_000;
        }
        read(&request)
    };
    compare(Rule::TinySpans, spans(101, 0), spans(101, 1), &[]);
}

#[test]
fn a_service_without_a_name() {
    let of = |service| by_sdk(&[(service, (1, 0), Server, (0, 1), "POST /api/query", &[])]);
    // The SDK's own name for it.
    compare(Rule::NoServiceName, of("unknown_service"), of("api-gateway"), &[]);
}

#[test]
fn a_wrong_parent() {
    // The header has the id of the span around the call.
    let wrong = by_sdk(&[
        ("api-gateway", (1, 0), Server, (0, 5), "POST /api/query", &[]),
        ("api-gateway", (2, 1), Client, (1, 4), "POST /process", &[]),
        ("user-service", (3, 1), Server, (2, 3), "POST /process", &[]),
    ]);
    // A call that fails, and is tried again.
    let again = by_sdk(&[
        ("api-gateway", (1, 0), Server, (0, 7), "POST /api/query", &[]),
        ("api-gateway", (2, 1), Client, (1, 2), "POST /process", &[("error", "no answer")]),
        ("api-gateway", (3, 1), Client, (3, 6), "POST /process", &[]),
        ("user-service", (4, 3), Server, (4, 5), "POST /process", &[]),
    ]);
    compare(Rule::WrongParent, wrong, again, &[]);
}

#[test]
fn several_roots() {
    let second_below = |parent| {
        by_sdk(&[
            ("api-gateway", (1, 0), Server, (0, 1), "POST /api/query", &[]),
            ("user-service", (2, parent), Server, (2, 3), "POST /process", &[]),
        ])
    };
    // One root, and one whose parent is elsewhere.
    compare(Rule::SeveralRoots, second_below(0), second_below(99), &[Rule::Orphan]);
}

#[test]
fn a_wrong_kind() {
    let method = ("http.request.method", "POST");
    let call = [method, ("url.full", "http://127.0.0.1:5001/process")];
    let route = ("http.route", "/process");
    let wrong = by_sdk(&[
        ("api-gateway", (1, 0), Internal, (0, 3), "POST /process", &call),
        ("user-service", (2, 1), Internal, (1, 2), "POST /process", &[method, route]),
    ]);
    // Work within a service, with an attribute of its request.
    let work = by_sdk(&[
        ("api-gateway", (1, 0), Server, (0, 3), "POST /process", &[method, route]),
        ("api-gateway", (2, 1), Internal, (1, 2), "render", &[route]),
    ]);
    compare(Rule::WrongKind, wrong, work, &[]);
}

#[test]
fn two_versions_of_one_library() {
    let both = |resources: [&str; 2]| {
        // A case puts traces that begin together in the order of their ids, which are random.
        together(resources.into_iter().zip([(0, 1), (2, 3)]).map(|(resource, times)| {
            let service = format!("api-gateway service.instance.id={resource}");
            by_sdk(&[(&service, (1, 0), Server, times, "POST /api/query", &[])])
        }))
    };
    let old = "7b41 telemetry.sdk.version=0.32.0";
    let twice = both([old, "7b41 telemetry.sdk.version=0.33.1"]);
    // A new version on its way through the instances of a service.
    let rolling = both([old, "c0de telemetry.sdk.version=0.33.1"]);
    compare(Rule::MixedVersions, twice, rolling, &[]);
}

/// A process with a root, and below it a span for each name and attribute.
fn with_children<'a>(
    service: &'a str,
    root: &'static str,
    children: impl Iterator<Item = (&'static str, &'a [(&'static str, &'static str)])>,
) -> Case {
    let children = (2..).zip(children).map(|(id, (name, attributes))| -> Made {
        (service, (id, 1), Internal, (id, id + 1), name, attributes)
    });
    let root: Made = (service, (1, 0), Server, (0, 100), root, &[]);
    by_sdk(&[root].into_iter().chain(children).collect::<Vec<_>>())
}

#[test]
fn a_name_that_never_repeats() {
    let named = |names: &[&'static str]| {
        let children = names.iter().map(|name| (*name, &[("url.path", "/users/42")][..]));
        with_children("user-service", "GET /", children)
    };
    let ids = named(&[
        "GET /users/42",
        "GET /orders/8f14e45f-ceea-467f-a8f3-3f1b2c4d5e6f",
        "load 1234567",
        "mail to ada@example.com",
    ]);
    let routes = named(&[
        "GET /v2/users/{id}",
        "GET /errors/404",
        "POST /oauth2/token",
        "chat gpt-4o-2024-08-06",
        "cafebabe deadbeef",
        "HTTP 500",
    ]);
    compare(Rule::HighCardinality, ids, routes, &[]);
}

#[test]
fn a_secret_in_a_span() {
    let having = |attributes: &[(&'static str, &'static str)]| {
        let children = attributes.chunks(1).map(|attribute| ("work", attribute));
        with_children("api-gateway", "POST /api/query", children)
    };
    let secrets = [
        ("http.request.header.authorization", "Bearer 0123456789abcdef0123456789abcdef"),
        ("user.password", "correct horse"),
        ("db.connection", "postgres://app:hunter22@db/app"),
        ("url.full", "https://example.com/?q=1&api_key=0123456789abcdef"),
        ("note", "key sk-0123456789abcdef0123456789abcdef in use"),
    ];
    let harmless = having(&[
        ("http.request.header.authorization", "[REDACTED]"),
        ("gen_ai.usage.input_tokens", "1234567890"),
        ("session.token.count", "a hundred thousand"),
        ("password.policy", "at least 12 characters"),
        ("www-authenticate", "Bearer authentication-required-here"),
        ("task", "task-sk-and-other-words-that-are-long-enough"),
        ("url.full", "https://user@example.com/?token=REDACTED"),
        ("api.key.name", "deployment of 2026"),
    ]);
    let found = having(&secrets);
    // Each of them, and never the secret itself.
    let findings = found.findings();
    assert_eq!(findings.len(), secrets.len(), "{findings:#?}");
    lacks(&report::text(&found, ""), ["0123456789abcdef", "correct horse", "hunter22"]);
    compare(Rule::Secret, found, harmless, &[]);
}

/// No number of spans makes a page of it, nor a wait.
#[test]
fn ten_thousand_findings_are_told_in_a_few_sentences() {
    let span = |id| -> Made {
        ("api-gateway", (id, 20_000 + id), Server, (0, 1), "POST /api/query/12345", &[])
    };
    let findings = by_sdk(&(1..=10_000).map(span).collect::<Vec<_>>()).findings();
    assert!(findings.len() <= 20, "{}", findings.len());
    let orphans: Vec<&Finding> =
        findings.iter().filter(|finding| finding.rule == Rule::Orphan).collect();
    assert_eq!(orphans.iter().map(|finding| finding.spans.len()).sum::<usize>(), 10_000);
    let more: Vec<usize> = orphans.iter().map(|finding| finding.more).collect();
    assert_eq!(more, [0, 0, 0, 0, 0, 0, 0, 0, 0, 9_990]);
    let cause = report::cause(orphans[9]);
    assert!(cause.ends_with(" 9990 more like this."), "{cause}");
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

/// The command of the guide for CI, with a session that has a fault and with one that has none.
#[tokio::test(flavor = "multi_thread")]
async fn the_gate_of_the_guide_fails_the_job() {
    let page = support::root().join("src").join(report::GUIDE.replace(".html", ".md"));
    let page = std::fs::read_to_string(page).expect("the guide");
    let gates = page.lines().filter_map(|line| line.strip_prefix("lab diagnose session.jsonl "));
    let [arguments] = gates.collect::<Vec<_>>()[..] else { panic!("not one gate on the page") };
    for (session, status) in [("missing-spans", 1), ("missing-spans-near", 0)] {
        let folder = tempfile::tempdir().expect("a folder");
        let recorded = folder_of_recordings().join(format!("diagnose/{session}.json"));
        std::fs::copy(recorded, folder.path().join("session.jsonl")).expect("a copy");
        let mut gate = command("lab", &format!("diagnose session.jsonl {arguments}")).await;
        let output = gate.current_dir(folder.path()).output().await.expect("it runs");
        assert_eq!(output.status.code(), Some(status), "{session}: {output:?}");
        if status == 1 {
            let annotations = String::from_utf8(output.stdout).expect("text");
            assert!(annotations.starts_with("::error title=Spans are missing::"), "{annotations}");
        }
    }
}

/// The steps of the workflow that the guide shows, with a session that has a fault and with one that has none.
#[tokio::test(flavor = "multi_thread")]
async fn the_workflow_of_the_guide_fails_when_traces_are_broken() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let path = "examples/test_propagation/.github/workflows/traces.yml";
    let file = std::fs::read_to_string(support::root().join(path)).expect("a workflow");
    let file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&file).expect("YAML");
    let steps = file["jobs"]["traces"]["steps"].as_sequence().expect("steps");
    let step = |name: &str| steps.iter().find(|it| it["name"] == name).expect("a step");
    let test = step("Start the services and test them");
    assert_eq!(test["env"]["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://127.0.0.1:4318");
    let start = step("Start the lab")["run"].as_str().expect("a script");
    support::has(start, ["lab view --save session.jsonl", "http://127.0.0.1:3000/traces"]);
    for (session, passes) in [("missing-spans", false), ("missing-spans-near", true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let saved = folder.path().join("session.jsonl");
        let lab = support::process::Lab::view(&format!("--save {}", saved.display())).await;
        let recorded = folder_of_recordings().join(format!("diagnose/{session}.json"));
        let send = format!(
            "#!/bin/sh\ncurl --silent --fail --noproxy '*' --header 'content-type: application/json' \\
             --data-binary @{} \"$OTEL_EXPORTER_OTLP_ENDPOINT/v1/traces\"\n",
            recorded.display()
        );
        let script = folder.path().join("test.sh");
        std::fs::write(&script, send).expect("written");
        // Marked as a program by the shell itself.
        let run = |step: &serde_yaml_ng::Value| {
            let script = step["run"].as_str().expect("a script");
            let mut bash = tokio::process::Command::new("bash");
            bash.args(["-e", "-c", &format!("chmod +x test.sh\n{script}")])
                .current_dir(folder.path())
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", lab.otlp()))
                .env("LAB_SITE", lab.site());
            bash
        };
        let path = std::env::var("PATH").expect("a path");
        let path = format!("{}:{path}", support::binaries().await.display());
        let sent = run(test).output().await.expect("bash runs");
        assert!(sent.status.success(), "{sent:?}");
        let looked = run(step("Look at the traces")).env("PATH", path).output().await;
        let looked = looked.expect("bash runs");
        assert_eq!(looked.status.success(), passes, "{session}: {looked:?}");
        // The file that a failed job keeps.
        let mut arguments = format!("diagnose {}", saved.display());
        arguments.push_str(" --fail-on missing-spans");
        let kept = command("lab", &arguments).await.output().await.expect("it runs");
        assert_eq!(kept.status.success(), passes, "{session}: {kept:?}");
    }
}

/// The differences between two requests of the book's services, as the reference shows them.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_shows_differences_between_two_traces() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, shown) in [("nothing-arrived-near", "before.json"), ("hung-up", "after.json")] {
        let recorded = folder_of_recordings().join(format!("diagnose/{name}.json"));
        std::fs::copy(recorded, folder.path().join(shown)).expect("a copy");
    }
    let mut diff = command("lab", "diff before.json after.json").await;
    let output = diff.current_dir(folder.path()).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    check!("reference/diff.txt", &String::from_utf8(output.stdout).expect("text"));
}

/// The shape that the reference documents.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_shows_findings_as_json() {
    let file = folder_of_recordings().join("diagnose/status-not-set.json");
    let report = finds("lab", &format!("diagnose {} --format json", file.display())).await;
    check!("reference/findings.json", &report);
}

/// The answer that an agent gets in one call, with one field in each line.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_shows_what_broke_in_one_call() {
    let file = folder_of_recordings().join("diagnose/hung-up.json");
    let report = finds("lab", &format!("diagnose {} --brief", file.display())).await;
    check!("reference/diagnose-brief.json", &indented(report.trim_end()));
}

/// JSON that is all in one line, with a line for each field. Unlike a map, it keeps the order of the fields.
fn indented(json: &str) -> String {
    let (mut text, mut depth, mut is_text, mut is_escaped) = (String::new(), 0, false, false);
    for character in json.chars() {
        if "}]".contains(character) && !is_text {
            depth -= 1;
            text.push_str(&format!("\n{}", "  ".repeat(depth)));
        }
        text.push(character);
        if is_text || character == '"' {
            let is_end = is_text && character == '"' && !is_escaped;
            is_escaped = is_text && character == '\\' && !is_escaped;
            is_text = !is_end;
            continue;
        }
        depth += usize::from("{[".contains(character));
        match character {
            '{' | '[' | ',' => text.push_str(&format!("\n{}", "  ".repeat(depth))),
            ':' => text.push(' '),
            _ => {}
        }
    }
    let empty = Regex::new(r"\[\s+\]").expect("a pattern");
    empty.replace_all(&text, "[]").into_owned() + "\n"
}

/// The page has a section for each rule, in their order, with a trace that the rule finds.
#[test]
fn the_guide_has_every_rule() {
    let path = format!("src/{}", report::GUIDE.replace(".html", ".md"));
    let page = std::fs::read_to_string(support::root().join(&path)).expect("the guide");
    let sections: Vec<&str> = page.lines().filter(|line| line.starts_with("### ")).collect();
    let expected = Rule::ALL.map(|rule| format!("### {} {{#{}}}", rule.title(), rule.name()));
    assert_eq!(sections, expected);
    assert_eq!(page.matches("\n**How sure:** ").count(), Rule::ALL.len());
    let included = includes(&path, &page);
    let shown = included.iter().map(|include| &*include.file);
    let shown: Vec<&str> = shown.filter(|file| file.starts_with("src/recordings/")).collect();
    assert_eq!(
        shown,
        Rule::ALL.map(|rule| format!("src/recordings/diagnose/{}.html", rule.name()))
    );
}
