//! The probe against a small service with spans, sound or with one fault, and as a process.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::routing::post;
use lab::cli;
use lab::http::Url;
use lab::probe::cases::{callers, cases};
use lab::probe::judge::{Judged, Out, Verdict};
use lab::probe::neighbor::Neighbor;
use lab::probe::request::Template;
use lab::probe::{Error, Plan, Probe, Report};
use lab::span::{SpanId, TraceId};
use lab::store::{Limits, Store};
use lab::traceparent::Traceparent;
use lab::wire::random_traceparent;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use serde_json::json;
use support::process::{fails, finds, run, write};
use support::{FREE, client, free_port, has, lacks, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Endpoint;

/// A way to break the rules, or to differ within them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    NothingExtracted,
    NothingInjected,
    SecondCallBare,
    SpawnedBare,
    InjectedTwice,
    InjectedTooEarly,
    InjectedInUpperCase,
    ParentKept,
    VersionKept,
    FlagsKept,
    FlagsCompared,
    AnyTraceIdBelieved,
    FailsOnInvalid,
    RestartsOnAnOddState,
    StateReordered,
    StateKeptAlone,
    BaggageDecoded,
    LargeHeadersRefused,
    NoClientSpans,
    NothingExported,
    // These are choices.
    FirstOfTwoBelieved,
    RandomFlagDropped,
    B3Read,
    CallsOnlyOnce,
    Caches,
    OneSpanForBoth,
    SamplesAll,
    OneSpanWithoutId,
    AllSpansWithoutId,
}

/// The service: it calls its neighbor `calls` times, the last time after the answer if `late`.
#[derive(Clone)]
struct Service {
    fault: Option<Fault>,
    calls: usize,
    late: bool,
    /// The neighbor, and where spans go. Known when the probe listens.
    around: Arc<OnceLock<(SocketAddr, SocketAddr)>>,
    answered: Arc<OnceLock<()>>,
}

impl Service {
    fn with(fault: impl Into<Option<Fault>>, calls: usize) -> Service {
        Service {
            fault: fault.into(),
            calls,
            late: false,
            around: Arc::default(),
            answered: Arc::default(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn extract(&self, headers: &HeaderMap) -> Option<Traceparent> {
        let values: Vec<&str> =
            headers.get_all("traceparent").iter().filter_map(|it| it.to_str().ok()).collect();
        if self.has(Fault::NothingExtracted) {
            return None;
        }
        if self.has(Fault::B3Read) && values.is_empty() {
            let b3 = headers.get("b3")?.to_str().ok()?;
            let (trace, rest) = b3.split_once('-')?;
            return Traceparent::parse(&format!("00-{trace}-{}-01", &rest[..16])).ok();
        }
        if self.has(Fault::AnyTraceIdBelieved) {
            let digits = |it: &&str| it.len() == 32 && it.bytes().all(|it| it.is_ascii_hexdigit());
            let trace_id = values.iter().flat_map(|value| value.split('-')).find(digits)?;
            let trace_id = TraceId::parse(trace_id)?;
            let parent_id = SpanId(fastrand::u64(1..).to_be_bytes());
            return Some(Traceparent { trace_id, parent_id, sampled: true, random: false });
        }
        let value = match values[..] {
            [value] => value,
            [value, _] if self.has(Fault::FirstOfTwoBelieved) => value,
            _ => return None,
        };
        let states = headers.get_all("tracestate").iter().count();
        let state = headers.get("tracestate").map_or("a=1", |it| it.to_str().expect("text"));
        let odd = states > 1
            || state.is_empty()
            || state.split(',').count() > 32
            || state.contains("lab=1,other");
        if self.has(Fault::RestartsOnAnOddState) && odd {
            return None;
        }
        if self.has(Fault::FlagsCompared) && ![Some("00"), Some("01")].contains(&value.get(53..55))
        {
            return None;
        }
        Traceparent::parse(value).ok()
    }

    /// The headers of a call under a CLIENT span, for a request with the headers `came`.
    fn inject(
        &self,
        came: &HeaderMap,
        caller: Option<Traceparent>,
        own: Traceparent,
        server: SpanId,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let text = |value: &str| HeaderValue::from_str(value).expect("a value");
        let mut value = own.to_string();
        match self.fault {
            Some(Fault::NothingInjected) => return headers,
            Some(Fault::InjectedTooEarly) => {
                value = Traceparent { parent_id: server, ..own }.to_string();
            }
            Some(Fault::InjectedInUpperCase) => value = value.to_uppercase(),
            Some(Fault::ParentKept) => {
                let parent_id = caller.map_or(own.parent_id, |it| it.parent_id);
                value = Traceparent { parent_id, ..own }.to_string();
            }
            Some(Fault::VersionKept) if caller.is_some() => {
                value.replace_range(..2, &came["traceparent"].to_str().expect("text")[..2]);
            }
            Some(Fault::FlagsKept) if caller.is_some() => {
                value.replace_range(53.., &came["traceparent"].to_str().expect("text")[53..55]);
            }
            Some(Fault::InjectedTwice) => {
                headers.append("traceparent", text(&value));
            }
            _ => {}
        }
        headers.append("traceparent", text(&value));
        let states: Vec<&str> =
            came.get_all("tracestate").iter().filter_map(|it| it.to_str().ok()).collect();
        let mut state = states.join(",");
        if self.has(Fault::StateReordered) {
            state = state.split(',').rev().collect::<Vec<_>>().join(",");
        }
        if !state.is_empty() && (caller.is_some() || self.has(Fault::StateKeptAlone)) {
            headers.insert("tracestate", text(&state));
        }
        if let Some(baggage) = came.get("baggage").filter(|_| caller.is_some()) {
            let decoded = baggage.to_str().expect("text").replace("%2C", "");
            let decoded = self.has(Fault::BaggageDecoded).then(|| text(&decoded));
            headers.insert("baggage", decoded.unwrap_or_else(|| baggage.clone()));
        }
        headers
    }

    async fn answer(&self, came: HeaderMap) -> StatusCode {
        let caller = self.extract(&came);
        if self.has(Fault::FailsOnInvalid) && came.contains_key("traceparent") && caller.is_none() {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        let size: usize = came.values().map(HeaderValue::len).sum();
        if self.has(Fault::LargeHeadersRefused) && size > 1000 {
            return StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        }
        let (neighbor, otlp) = *self.around.get().expect("the probe listens");
        let id = || SpanId(fastrand::u64(1..).to_be_bytes());
        let server = id();
        let new = || TraceId(fastrand::u128(1..).to_be_bytes());
        let trace_id = caller.map_or_else(new, |it| it.trace_id);
        let sampled = caller.is_none_or(|it| it.sampled) || self.has(Fault::SamplesAll);
        let random = caller.is_some_and(|it| it.random) && !self.has(Fault::RandomFlagDropped);
        let mut spans = vec![span(trace_id, server, caller.map(|it| it.parent_id), 2)];
        let mut calls = self.calls;
        let first = self.answered.set(()).is_ok();
        match self.fault {
            Some(Fault::CallsOnlyOnce) if !first => calls = 1,
            Some(Fault::Caches) if !first => calls = 0,
            _ => {}
        }
        for index in 0..calls {
            let (client_id, mut trace_id) = (id(), trace_id);
            let mut parent = Some(server);
            if self.has(Fault::SpawnedBare) && index == 1 {
                trace_id = new();
                parent = None;
            }
            let parent_id = if self.has(Fault::OneSpanForBoth) { server } else { client_id };
            let own = Traceparent { trace_id, parent_id, sampled, random };
            let mut headers = self.inject(&came, caller, own, server);
            if self.has(Fault::SecondCallBare) && index == 1 {
                headers.clear();
            }
            if !self.has(Fault::NoClientSpans) && !self.has(Fault::OneSpanForBoth) {
                spans.push(span(trace_id, client_id, parent, 3));
            }
            let call = client().post(format!("http://{neighbor}/work")).headers(headers).send();
            if self.late && index + 1 == calls {
                tokio::spawn(call);
            } else {
                call.await.expect("the neighbor answers");
            }
        }
        match self.fault {
            Some(Fault::OneSpanWithoutId) => spans.push(json!({ "traceId": trace_id })),
            Some(Fault::AllSpansWithoutId) => spans = vec![json!({ "traceId": trace_id })],
            _ => {}
        }
        if sampled && !self.has(Fault::NothingExported) {
            let spans = json!({ "resourceSpans": [{
                "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "shop" } }] },
                "scopeSpans": [{ "spans": spans }]
            }] });
            let request = client().post(format!("http://{otlp}/v1/traces")).json(&spans);
            // As a batch does, the spans come after the answer.
            tokio::spawn(request.send());
        }
        StatusCode::OK
    }
}

fn span(trace_id: TraceId, id: SpanId, parent: Option<SpanId>, kind: u8) -> serde_json::Value {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    json!({
        "traceId": trace_id, "spanId": id, "parentSpanId": parent.map_or_else(String::new, |it| it.to_string()), "kind": kind, "name": "work",
        "startTimeUnixNano": now.to_string(), "endTimeUnixNano": (now + 1000).to_string(),
    })
}

/// Long enough for a call within a busy machine.
const SETTLE: Duration = Duration::from_secs(1);

impl Service {
    /// Starts the service. Returns a plan to probe it, with a neighbor unless it is a leaf.
    async fn plan(&self) -> Plan {
        let answer = async |State(service): State<Service>, headers: HeaderMap| {
            service.answer(headers).await
        };
        let routes = Router::new().route("/", post(answer)).with_state(self.clone());
        plan_for(serve(routes).await, self.calls)
    }

    async fn probe(&self, plan: Plan) -> Result<Report, Error> {
        let probe = Probe::bind(plan).await.expect("it listens");
        let nowhere: SocketAddr = FREE.parse().expect("an address");
        let neighbor = probe.neighbors.first().copied().unwrap_or(nowhere);
        let [otlp, _] = probe.receivers.unwrap_or([nowhere; 2]);
        self.around.set((neighbor, otlp)).expect("it is set once");
        probe.run().await
    }

    async fn report(&self) -> Report {
        let plan = self.plan().await;
        self.probe(plan).await.expect("a report")
    }
}

fn plan_for(address: SocketAddr, calls: usize) -> Plan {
    let free = FREE.parse().expect("an address");
    let url = Url::parse(&format!("http://{address}/")).expect("a URL");
    let neighbor = Neighbor { name: "stock".into(), address: free, target: None };
    Plan {
        request: Template {
            method: Method::POST,
            url,
            headers: vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            body: "{}".into(),
        },
        cases: cases(),
        neighbors: if calls > 0 { vec![neighbor] } else { Vec::new() },
        answers: Vec::new(),
        ignored: Vec::new(),
        receivers: Some([free; 2]),
        edge: false,
        allowed: Vec::new(),
        settle: SETTLE,
        timeout: Duration::from_secs(60),
    }
}

/// The names of the cases with this verdict.
fn named(report: &Report, verdict: Verdict) -> Vec<&str> {
    let found = report.judged.iter().filter(|it| it.verdict == verdict);
    found.map(|it| &*it.case.name).collect()
}

fn case<'a>(report: &'a Report, name: &str) -> &'a Judged {
    let case = report.judged.iter().find(|it| it.case.name == name);
    case.unwrap_or_else(|| panic!("no case {name}"))
}

const CHOICES: [&str; 2] = ["B3 alone", "Jaeger's header alone"];

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_service_passes_however_often_it_calls() {
    for (calls, late) in [(1, false), (2, false), (1, true), (3, true), (0, false)] {
        let service = Service { late, ..Service::with(None, calls) };
        let mut plan = service.plan().await;
        plan.cases.extend(callers().expect("callers"));
        let report = service.probe(plan).await.expect("a report");
        let text = cli::probe_report(&report);
        assert_eq!(named(&report, Verdict::Noted), CHOICES, "{calls} {late}: {text}");
        assert_eq!(named(&report, Verdict::Sound).len(), report.judged.len() - 2, "{text}");
        assert!(!report.is_broken() && report.incomplete.is_none());
        let out = &case(&report, "sampled").out;
        assert_eq!(out.len(), calls.max(1), "{text}");
    }
}

/// The cases without a valid `traceparent`. Each header of the first is valid by itself.
const NOT_VALID: [&str; 8] = [
    "two headers",
    "two values, joined",
    "cut off",
    "upper case",
    "trace id of zeros",
    "parent id of zeros",
    "version 00 and more",
    "version ff",
];

/// The cases that a fault breaks, and a part of the sentence.
const BROKEN: [(Fault, &[&str], &str); 20] = [
    (
        Fault::NothingExtracted,
        &[
            "sampled",
            "not sampled",
            "sampled and random",
            "name as Traceparent",
            "32 members",
            "33 members",
            "empty tracestate",
            "one key twice",
            "two tracestate headers",
            "too much baggage",
            "baggage, encoded",
            "baggage",
        ],
        "the trace was not continued",
    ),
    (Fault::NothingInjected, &["sampled", "baggage"], "no traceparent was sent on"),
    (
        Fault::SecondCallBare,
        &["sampled", "baggage"],
        "no traceparent was sent on, in stock POST /work",
    ),
    (
        Fault::SpawnedBare,
        &["sampled", "no header"],
        "the calls of this one request are in 2 traces",
    ),
    (Fault::InjectedTwice, &["sampled", "no header"], "2 traceparent headers were sent on"),
    (Fault::InjectedTooEarly, &["sampled", "no header"], "a SERVER span, and not the CLIENT span"),
    (Fault::InjectedInUpperCase, &["sampled", "no header"], "an invalid traceparent was sent on"),
    (Fault::ParentKept, &["sampled", "not sampled"], "the caller's parent id was sent on"),
    (Fault::VersionKept, &["later version", "later version and more"], "version cc was sent on"),
    (Fault::FlagsKept, &["flags of the future"], "the flags ff were sent on"),
    (Fault::FlagsCompared, &["sampled and random"], "the trace was not continued"),
    (Fault::AnyTraceIdBelieved, NOT_VALID.split_at(1).1, "the ids of an invalid header were used"),
    (Fault::FailsOnInvalid, &NOT_VALID, "the service answered 500, and 200 to the first request"),
    (
        Fault::RestartsOnAnOddState,
        &["33 members", "empty tracestate", "one key twice", "two tracestate headers"],
        "the trace was not continued",
    ),
    (
        Fault::StateReordered,
        &["32 members", "33 members", "one key twice", "two tracestate headers"],
        "put into another order",
    ),
    (
        Fault::StateKeptAlone,
        &["cut off", "tracestate alone"],
        "although it came without a valid traceparent",
    ),
    (Fault::BaggageDecoded, &["baggage, encoded"], "was \"1,5\" and is \"15\""),
    (Fault::LargeHeadersRefused, &["too much baggage"], "the service answered 431"),
    (Fault::NoClientSpans, &["sampled", "no header"], "no span has the parent id"),
    (Fault::NothingExported, &[], ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_breaks_its_cases_for_its_reason() {
    let reports = BROKEN.map(|(fault, ..)| {
        let two = [Fault::SecondCallBare, Fault::SpawnedBare].contains(&fault);
        let service = Service::with(fault, if two { 2 } else { 1 });
        tokio::spawn(async move { service.report().await })
    });
    for ((fault, cases, reason), report) in BROKEN.into_iter().zip(reports) {
        let report = report.await.expect("a report");
        let text = cli::probe_report(&report);
        for name in cases {
            assert_eq!(case(&report, name).verdict, Verdict::Broken, "{fault:?} {name}: {text}");
        }
        has(&text, [reason]);
        // The cases that don't show the fault stay sound.
        let broken = named(&report, Verdict::Broken);
        let everywhere = broken.len() > 10;
        assert!(everywhere || broken == cases, "{fault:?}: {broken:?} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_is_red_for_some_fault() {
    let known: Vec<&str> = BROKEN.iter().flat_map(|(_, cases, _)| *cases).copied().collect();
    let only_reported = [CHOICES[0], CHOICES[1], "two headers"];
    for case in cases() {
        let name = &*case.name;
        assert!(known.contains(&name) || only_reported.contains(&name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_leave_open_is_reported_and_passes() {
    for (fault, name, sentence) in [
        (Fault::FirstOfTwoBelieved, "two headers", "the ids of one of the two headers were used"),
        (Fault::FlagsCompared, "flags of the future", "the trace was not continued"),
        (Fault::RandomFlagDropped, "sampled and random", "the random flag was not passed on"),
        (Fault::B3Read, "B3 alone", "the service reads B3"),
        (Fault::CallsOnlyOnce, "no header", "1 call came, and 2 for the first request"),
        (Fault::OneSpanForBoth, "sampled", "no CLIENT span here: the parent is its SERVER span"),
        (Fault::OneSpanForBoth, "no header", "two calls carry the same parent id"),
        (Fault::SamplesAll, "not sampled", "the call is sampled, and the caller isn't"),
    ] {
        let two = [Fault::CallsOnlyOnce, Fault::OneSpanForBoth].contains(&fault);
        let calls = if two { 2 } else { 1 };
        let service = Service::with(fault, calls);
        let plan = Plan { allowed: vec!["sampled and random".to_owned()], ..service.plan().await };
        let report = service.probe(plan).await.expect("a report");
        let text = cli::probe_report(&report);
        assert_eq!(case(&report, name).verdict, Verdict::Noted, "{fault:?}: {text}");
        assert!(!report.is_broken() && report.incomplete.is_none(), "{fault:?}: {text}");
        has(&text, [sentence]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_is_judged_by_its_spans() {
    let report = Service::with(Fault::NothingExtracted, 0).report().await;
    let text = cli::probe_report(&report);
    for name in ["sampled", "name as Traceparent", "baggage"] {
        assert_eq!(case(&report, name).verdict, Verdict::Broken, "{text}");
    }
    has(&text, ["the trace was not continued", "dict(request.headers)", "span of N"]);
    let report = Service::with(Fault::AnyTraceIdBelieved, 0).report().await;
    let text = cli::probe_report(&report);
    assert_eq!(case(&report, "version ff").verdict, Verdict::Broken, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_at_the_edge_starts_new_traces() {
    // A leaf shows nothing of a request that isn't sampled.
    for (fault, of_leaf, of_caller) in [(Some(Fault::NothingExtracted), 0, 0), (None, 14, 15)] {
        for (calls, broken) in [(0, of_leaf), (1, of_caller)] {
            let service = Service::with(fault, calls);
            let plan = Plan { edge: true, ..service.plan().await };
            let report = service.probe(plan).await.expect("a report");
            let text = cli::probe_report(&report);
            assert_eq!(named(&report, Verdict::Broken).len(), broken, "{calls}: {text}");
            assert!(report.incomplete.is_none());
        }
    }
}

/// A proxy that passes everything on and knows `traceparent` in lower case only.
async fn case_sensitive(service: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut head = vec![0; 64 * 1024];
            let length = caller.read(&mut head).await.expect("a request");
            let head =
                String::from_utf8_lossy(&head[..length]).replace("Traceparent:", "X-Unknown:");
            let mut service = TcpStream::connect(service).await.expect("a connection");
            service.write_all(head.as_bytes()).await.expect("it is written");
            tokio::spawn(async move { copy_bidirectional(&mut caller, &mut service).await });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_compared_in_one_case_is_found() {
    let service = Service::with(None, 1);
    let mut plan = service.plan().await;
    let address = case_sensitive(plan.request.url.authority.parse().expect("an address")).await;
    plan.request.url.authority = address.to_string();
    let report = service.probe(plan).await.expect("a report");
    assert_eq!(named(&report, Verdict::Broken), ["name as Traceparent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_alone_are_judged_without_spans() {
    let service = Service::with(None, 1);
    let plan = Plan { receivers: None, ..service.plan().await };
    let report = service.probe(plan).await.expect("a report");
    assert!(!report.is_broken() && report.incomplete.is_none());
    let out = &case(&report, "sampled").out;
    assert!(matches!(out[..], [Out::Traceparent { flags: 1, .. }]), "{out:?}");
}

/// A service with a cache calls nobody for the second request.
#[tokio::test(flavor = "multi_thread")]
async fn without_calls_the_spans_decide() {
    let report = Service::with(Fault::Caches, 1).report().await;
    let text = cli::probe_report(&report);
    assert!(!report.is_broken() && report.incomplete.is_none(), "{text}");
    has(&text, ["span of T below P"]);

    let service = Service::with(Fault::Caches, 1);
    let plan = Plan { receivers: None, ..service.plan().await };
    let report = service.probe(plan).await.expect("a report");
    let incomplete = report.incomplete.as_ref().expect("cases that show nothing").to_string();
    has(&incomplete, ["26 of 27 cases can't be judged", "no header, not sampled"]);
    has(&cli::probe_report(&report), ["neither a call nor a span shows what the service did"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_the_probe_rejects_are_reported_with_the_reason() {
    let reason = "the span id must be 8 bytes and not all zero";
    let report = Service::with(Fault::OneSpanWithoutId, 1).report().await;
    let text = cli::probe_report(&report);
    assert!(!report.is_broken() && report.incomplete.is_none(), "{text}");
    has(&text, ["Spans are missing here because the probe rejected some in ", reason]);

    let report = Service::with(Fault::AllSpansWithoutId, 1).report().await;
    let incomplete = report.incomplete.expect("no spans").to_string();
    has(&incomplete, ["the probe kept none of the spans that arrived: ", reason]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_probed_is_said_in_a_line() {
    let service = Service::with(Fault::NothingExported, 1);
    let report = service.report().await;
    let incomplete = report.incomplete.expect("no spans").to_string();
    has(&incomplete, ["no span has arrived", "OTEL_EXPORTER_OTLP_ENDPOINT", "--no-spans"]);

    // A leaf, and a neighbor that nobody calls.
    let service = Service::with(None, 0);
    let Plan { request, .. } = service.plan().await;
    let plan = Plan { request, ..plan_for(FREE.parse().expect("an address"), 1) };
    let error = service.probe(plan).await.err().expect("nobody is called");
    has(&error.to_string(), ["the service never called 127.0.0.1:", "--leaf"]);

    let refusing = serve(Router::new().fallback(async || (StatusCode::UNAUTHORIZED, "who?"))).await;
    let neighbor = format!("--neighbor 127.0.0.1:{} --otlp {FREE} --grpc {FREE}", free_port());
    let refused = format!("probe http://{refusing}/ {neighbor}");
    fails("lab", &refused, ["answers 401 Unauthorized to the first request (who?)", "--header"])
        .await;
    let asked = Arc::new(OnceLock::new());
    let once = async move || match asked.set(()) {
        Ok(()) => StatusCode::CREATED,
        Err(()) => StatusCode::CONFLICT,
    };
    let once = serve(Router::new().fallback(once)).await;
    let twice = format!("probe http://{once}/ --leaf --otlp {FREE} --grpc {FREE}");
    fails("lab", &twice, ["answers 409 Conflict when the first request, which it answered 201"])
        .await;
    let nobody = format!("probe http://127.0.0.1:1/ {neighbor}");
    fails("lab", &nobody, ["no service answers at 127.0.0.1:1: start it"]).await;
    let taken = format!("probe http://127.0.0.1:1/ --leaf --otlp {refusing} --grpc {FREE}");
    fails("lab", &taken, ["cannot listen on", "choose another with --otlp"]).await;
    let taken =
        format!("probe http://127.0.0.1:1/ --neighbor {refusing} --otlp {FREE} --grpc {FREE}");
    fails("lab", &taken, ["cannot listen on", "choose another with --neighbor"]).await;
    let https = format!("probe https://localhost/ {neighbor}");
    fails("lab", &https, ["https://localhost/ needs TLS", "the service behind TLS"]).await;
    fails("lab", &format!("probe nonsense {neighbor}"), ["\"nonsense\" is not a URL"]).await;
    let unknown = format!("probe http://127.0.0.1:1/ {neighbor} --allow fog");
    fails("lab", &unknown, ["no case is called \"fog\" (--allow); they are: sampled; "]).await;
    let output = run("lab", "probe http://127.0.0.1:1/").await;
    assert_eq!(output.status.code(), Some(2));
    let output = run("lab", "probe http://127.0.0.1:1/ --leaf --answer /x=@/nowhere.json").await;
    has(&String::from_utf8_lossy(&output.stderr), ["/nowhere.json cannot be read"]);
}

/// The context of a call, for a request with these headers.
fn continued(headers: &HeaderMap) -> Traceparent {
    let caller = headers.get("traceparent").and_then(|it| it.to_str().ok());
    let caller = caller.and_then(|it| Traceparent::parse(it).ok());
    let new = random_traceparent();
    caller.map_or(new, |it| Traceparent { parent_id: new.parent_id, random: false, ..it })
}

/// A service that wants an answer of its neighbor: 201 and JSON.
async fn demanding(neighbor: SocketAddr) -> SocketAddr {
    let answer = async move |headers: HeaderMap| {
        let own = continued(&headers);
        let health = client().get(format!("http://{neighbor}/health")).send().await;
        let call = client()
            .post(format!("http://{neighbor}/generate?q=1"))
            .header("traceparent", own.to_string());
        let answer = call.body("a question").send().await.expect("an answer");
        let is_right = answer.status() == 201
            && answer.headers()[CONTENT_TYPE] == "application/json"
            && health.is_ok_and(|it| it.status() == 204)
            && answer.text().await.expect("text") == r#"{"response":"a question"}"#;
        if is_right { StatusCode::OK } else { StatusCode::BAD_GATEWAY }
    };
    serve(Router::new().route("/", post(answer))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbor_answers_from_a_file_or_passes_on_to_the_real_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = write(folder.path(), "answer.json", r#"{"response":"a question"}"#);
    let real =
        Router::new().route("/health", axum::routing::get(async || StatusCode::NO_CONTENT)).route(
            "/generate",
            post(async |uri: axum::http::Uri, body: String| {
                assert_eq!((uri.query(), &*body), (Some("q=1"), "a question"));
                (StatusCode::CREATED, axum::Json(json!({ "response": body })))
            }),
        );
    let real = serve(real).await;
    let neighbors = [
        format!("--answer /generate=201\u{a0}@{answer} --answer /health=204 --neighbor"),
        "--neighbor".to_owned(),
    ];
    for (index, flags) in neighbors.iter().enumerate() {
        let port = free_port();
        let service = demanding(SocketAddr::from(([127, 0, 0, 1], port))).await;
        let target = if index == 1 { format!(",http://{real}") } else { String::new() };
        let arguments = format!(
            "probe http://{service}/ --body {{}} --no-spans --settle 1s --ignore /health {flags} \
             llm=127.0.0.1:{port}{target}"
        );
        let output = probe(&arguments).await;
        let [printed, errors] =
            [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
        // It passes on no tracestate and no baggage, which is its choice.
        assert_eq!(output.status.code(), Some(0), "{arguments} {printed}{errors}");
        has(&printed, ["00-T-S-01", "0 of 2 entries of the baggage were passed on"]);
        lacks(&printed, ["BROKEN", "2 x"]);
    }
}

/// A service that calls its neighbor over gRPC.
async fn calling_over_grpc(neighbor: SocketAddr) -> SocketAddr {
    let answer = async move |headers: HeaderMap| {
        let mut call = tonic::Request::new(ExportTraceServiceRequest::default());
        let own = continued(&headers).to_string().parse().expect("a value");
        call.metadata_mut().insert("traceparent", own);
        let url = format!("http://{neighbor}");
        let channel = Endpoint::from_shared(url).expect("a URL").connect().await;
        let mut client = TraceServiceClient::new(channel.expect("a connection"));
        client.export(call).await.map_or(StatusCode::BAD_GATEWAY, |_| StatusCode::OK)
    };
    serve(Router::new().route("/", post(answer))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_grpc_need_the_real_service() {
    let port = free_port();
    let service = calling_over_grpc(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let command = format!(
        "probe http://{service}/ --body {{}} --no-spans --settle 1s --neighbor ledger=127.0.0.1:{port}"
    );
    fails("lab", &command, ["the service calls ledger over gRPC", "name the real service"]).await;

    let real = serve(lab::grpc::routes(Store::new(Limits::default()))).await;
    let output = run("lab", &format!("{command},http://{real}")).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    has(&printed, ["00-T-S-01"]);
}

/// Runs the command. A blank within an argument is written as a non-breaking one.
async fn probe(arguments: &str) -> std::process::Output {
    let mut command = tokio::process::Command::new(support::binaries().await.join("lab"));
    command.args(arguments.split(' ').map(|it| it.replace('\u{a0}', " ")));
    command.output().await.expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_tracing_fails() {
    let port = free_port();
    let forward = async move || {
        let _ = client().get(format!("http://127.0.0.1:{port}/")).send().await;
    };
    let service = serve(Router::new().fallback(forward)).await;
    let found = finds(
        "lab",
        &format!("probe http://{service}/cart?id=1 --neighbor 127.0.0.1:{port} --otlp {FREE} --grpc {FREE} --settle 1s"),
    )
    .await;
    has(
        &found,
        [
            &format!("Sending 27 requests to GET http://{service}/cart?id=1, one after the other"),
            "no traceparent was sent on",
            "The service sends no traceparent",
            "HTTP client is not instrumented",
        ],
    );
}
