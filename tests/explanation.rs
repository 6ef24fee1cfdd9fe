//! Runs behind the explanation pages, which show their figures and tables, and the form of these pages.

use std::cell::RefCell;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support;
use crate::support::recording::{check, check_named, figures, recorded};
use crate::support::{
    FREE, Log, Setup, Stopped, client, refused, serve, shape, span, until, within_reason,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use course::services::{Plan, Service};
use explanation::equal_spans::{awaits, blocks, computes};
use explanation::parents::{outer, outer_below, parents, remote, work};
use explanation::{Bridge, recorded};
use lab::diagnose::diagnose;
use lab::otlp;
use lab::span::{Span, SpanId, SpanKind};
use lab::store::{Limits, Store};
use lab::wire::{Fault, LATENCY};
use opentelemetry::trace::FutureExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use serde_json::json;
use tokio::process::Command;
use tokio::spawn;
use tokio::sync::Notify;
use tracing::{Instrument as _, info_span};

/// Exports nothing before the flush at the end.
fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

async fn ask(setup: Setup) -> Stopped {
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    system.stop().await
}

/// The bytes on the wire between two services, and below each field the id that the two spans have recorded.
#[tokio::test(flavor = "multi_thread")]
async fn one_header_holds_the_ids_of_the_caller_and_both_ends_record_them() {
    let system = setup().wired().start().await;
    let url = format!("http://{}/api/query", system.gateway.address);
    let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
    let request = client().post(url).header("baggage", "tenant=acme").json(&query);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let user = system.wire.address(support::hop("gateway-user"));
    let stopped = system.stop().await;

    let exchanges = stopped.wire.exchanges();
    let hop = exchanges.iter().find(|it| it.hop == "gateway-user");
    let hop = hop.expect("one request");
    assert_eq!(hop.delivered.as_ref(), Some(&hop.sent));
    let tree = stopped.only_tree();
    let caller = span(&tree, "POST /process", SpanKind::Client);
    let called = span(&tree, "POST /process", SpanKind::Server);
    let header = hop.sent.lines().find_map(|it| it.strip_prefix("traceparent: "));
    let header = header.expect("a traceparent");
    assert_eq!(header, format!("00-{}-{}-01", caller.trace_id, caller.id));
    let place = |span: &Span| (span.trace_id, span.parent);
    assert_eq!(place(called), (caller.trace_id, Some(caller.id)));

    // Each value stands in the column where its bytes are in the header.
    let line = |label: &str, byte: usize, value: &str| format!("{label:16}{:byte$}{value}\n", "");
    let end = |title: &str, span: &Span, label: &str, id: SpanId| {
        let flags = format!("{:02x}", span.proto().flags & 0xff);
        let trace_id = line("  trace id", 3, &span.trace_id.to_string());
        let id = line(label, 36, &id.to_string());
        format!("{title}\n{trace_id}{id}{}", line("  flags", 53, &flags))
    };
    let parent = called.parent.expect("a parent");
    let drawing = [
        end("CLIENT span of api-gateway", caller, "  span id", caller.id),
        "\n".to_owned(),
        line("byte", 0, &format!("0  3{:32}36{:15}53", "", "")),
        line("traceparent", 0, header),
        "\n".to_owned(),
        end("SERVER span of user-service", called, "  parent span id", parent),
    ];
    check!("context-and-propagation/hop.txt", &drawing.concat());

    let user = user.expect("a proxy").to_string();
    let head = hop.sent.replace("\r\n", "\n").replace(&user, "127.0.0.1:5001");
    check!("context-and-propagation/head.txt", &(head.trim_end().to_owned() + "\n"),);
}

/// Does some work, whatever it returns.
async fn finish(work: impl Future) {
    work.await;
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Some code as text, and what it does.
type Case = (&'static str, fn() -> Work);

macro_rules! cases {
    ($($code:expr;)+) => { [$((stringify!($code), || Box::pin(async { finish($code).await }))),+] };
}

const CASES: [Case; 9] = cases! {
    work().with_context(remote());
    work().instrument(outer());
    work().instrument(outer_below(remote()).expect("a bridge"));
    work().with_context(remote()).instrument(outer());
    work().instrument(outer()).with_context(remote());
    async { work().instrument(outer()).await }.with_context(remote());
    async { spawn(work()).await }.instrument(outer());
    async { spawn(work().with_current_context()).await }.instrument(outer());
    async { spawn(work().in_current_span()).await }.instrument(outer());
};

/// Tests both the bridge as it is built and one that keeps the two stacks apart.
#[test]
fn the_order_of_wrapping_decides_which_span_is_the_parent() {
    for (activates, name) in
        [(true, recorded!("two-stacks/bridged.md")), (false, recorded!("two-stacks/apart.md"))]
    {
        let mut table = "| Row | Code | `outer` | `inner` | `plain` |\n\
                         |---|---|---|---|---|\n"
            .to_owned();
        for (number, (code, case)) in (1..).zip(CASES) {
            let bridge = Bridge { activates, ..Bridge::default() };
            let parents = parents(bridge, case()).expect("a runtime");
            let of = |name: &str| parents.get(name).map_or("–", String::as_str);
            // On one line, and as it would be in a function that can fail.
            let words: Vec<&str> = code.split_whitespace().collect();
            let code = words.join(" ").replace(".expect(\"a bridge\")", "?");
            // Where a line may break, on a narrow page.
            let code = code.replace(").", ")<wbr>.");
            let [outer, inner, plain] = ["outer", "inner", "plain"].map(of);
            table.push_str(&format!(
                "| {number} | <code>{code}</code> | {outer} | {inner} | {plain} |\n"
            ));
        }
        check_named(name, &table);
    }
}

/// The ways a backend can treat a batch of spans.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Takes,
    /// Takes the first batch only when it is let go.
    Stalls,
    Answers(StatusCode),
    TakesAndAnswers(StatusCode),
    Hangs,
    Refuses,
}

/// A backend that counts.
struct Backend {
    does: Does,
    requests: AtomicUsize,
    sent: AtomicUsize,
    store: Store,
    reached: Notify,
    go: Notify,
}

impl Backend {
    async fn serve(does: Does) -> (Arc<Backend>, SocketAddr) {
        let backend = Arc::new(Backend {
            does,
            requests: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            store: Store::new(Limits::default()),
            reached: Notify::new(),
            go: Notify::new(),
        });
        let route =
            post(async |State(backend): State<Arc<Backend>>, body: Bytes| backend.take(body).await);
        let routes = Router::new().route("/v1/traces", route).with_state(Arc::clone(&backend));
        (backend, serve(routes).await)
    }

    async fn take(&self, body: Bytes) -> StatusCode {
        let first = self.requests.fetch_add(1, Relaxed) == 0;
        let spans = otlp::from_protobuf(body).expect("spans").spans;
        self.sent.fetch_add(spans.len(), Relaxed);
        self.reached.notify_one();
        if self.does == Does::Stalls && first {
            self.go.notified().await;
        }
        match self.does {
            Does::Hangs => std::future::pending().await,
            Does::Answers(status) => return status,
            _ => self.store.add(spans),
        }
        match self.does {
            Does::TakesAndAnswers(status) => status,
            _ => StatusCode::OK,
        }
    }
}

/// Ten requests to llm-service, of two spans each: the row of a table.
async fn export_to(does: Does, name: &str) -> String {
    let (backend, address) = Backend::serve(does).await;
    let (nobody, _kept) = refused();
    let address = if does == Does::Refuses { nobody } else { address };
    let free = FREE.parse().expect("an address");
    let plan = Plan::new(&support::binaries().await, "llm-service", free, address)
        .with("OTEL_BSP_SCHEDULE_DELAY", 3_600_000);
    let plan = match does {
        Does::Hangs => plan.with("OTEL_EXPORTER_OTLP_TIMEOUT", 200),
        Does::Stalls => plan.with("OTEL_BSP_MAX_QUEUE_SIZE", 5),
        _ => plan,
    };
    let log = Log::default();
    let service = Service::start(plan, log.sink()).await.expect("it starts");
    let url = format!("http://{}/generate", service.address);
    let mut answered = 0;
    for number in 0..10 {
        // Six spans have ended, five fill a batch.
        if does == Does::Stalls && number == 3 {
            within_reason(backend.reached.notified()).await;
        }
        let request = client().post(&url).json(&json!({ "prompt": "What is a trace?" }));
        let status = request.send().await.expect("an answer").status();
        answered += usize::from(status == 200);
    }
    backend.go.notify_one();
    service.stop().await;
    let count = |line: String, key: &str| -> Option<usize> {
        let value = line.split_once(&format!(" {key}="))?.1;
        value.split(' ').next()?.parse().ok()
    };
    let report = log.find("llm-service", "spans were lost").pop();
    let lost = report.and_then(|line| count(line, "lost")).unwrap_or_default();
    let (requests, sent) = (backend.requests.load(Relaxed), backend.sent.load(Relaxed));
    let kept = backend.store.usage().spans;
    format!("| {name} | {answered} | {requests} | {sent} | {kept} | {lost} |\n")
}

/// Twenty spans end in each row. No client sees a difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_decides_how_often_a_span_arrives_and_not_what_a_client_sees() {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let rows = tokio::join!(
        export_to(Does::Takes, "takes them"),
        export_to(Does::Stalls, "takes its time, and the queue is of 5"),
        export_to(Does::Refuses, "refuses the connection"),
        export_to(Does::Hangs, "does not answer"),
        export_to(Does::Answers(StatusCode::INTERNAL_SERVER_ERROR), "answers 500"),
        export_to(Does::Answers(unavailable), "answers 503"),
        export_to(
            Does::TakesAndAnswers(StatusCode::GATEWAY_TIMEOUT),
            "takes them, and the answer is 504"
        ),
    );
    let head = "| The backend | Requests answered | Exports | Spans in them | Kept | Reported lost |\n\
                |---|---|---|---|---|---|\n";
    let rows = [rows.0, rows.1, rows.2, rows.3, rows.4, rows.5, rows.6].concat();
    check!("architecture/backends.md", &format!("{head}{rows}"));
}

/// The wire holds a request back; then the called process stands still, as it does without a processor. The same figure
/// is compared with both.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_and_a_process_that_stands_still_give_the_same_trace() {
    let hop = support::hop("user-llm");
    let slow = {
        let system = setup().wired().start().await;
        system.wire.set(hop, Some(Fault::AddLatency));
        assert_eq!(system.ask("user_1").await.status(), 200);
        system.stop().await
    };
    let still = {
        let system = setup().wired().start().await;
        let id = system.llm.id().expect("it runs").to_string();
        let signal = async |name: &str| {
            let sent = Command::new("kill").args([name, &id]).status().await;
            assert!(sent.expect("kill runs").success());
        };
        signal("-STOP").await;
        let stopped = async {
            until(async || {
                let exchanges = system.wire.exchanges();
                let hops: Vec<&str> = exchanges.iter().map(|it| &*it.hop).collect();
                hops.contains(&hop.name).then_some(()).ok_or(hops.join(", "))
            })
            .await;
            // Not to wait for something: this is how long the process stands still.
            tokio::time::sleep(LATENCY).await;
            signal("-CONT").await;
        };
        let (answer, ()) = tokio::join!(system.ask("user_1"), stopped);
        assert_eq!(answer.status(), 200);
        system.stop().await
    };
    for stopped in [slow, still] {
        let tree = stopped.only_tree();
        let latency = u64::try_from(LATENCY.as_nanos()).expect("a short time");
        assert!(span(&tree, "POST /generate", SpanKind::Client).duration() >= latency);
        assert!(span(&tree, "POST /generate", SpanKind::Server).duration() < latency);
        assert_eq!(diagnose(&stopped.trees(), &[]), []);
        check!("what-a-trace-cannot-tell/slow.html", &figures(&[tree]));
    }
}

/// The same figure is compared with both.
#[tokio::test(flavor = "multi_thread")]
async fn spans_that_are_lost_and_spans_that_were_never_made_look_the_same() {
    let (nobody, _kept) = refused();
    let endpoint = format!("http://{nobody}");
    let lost = setup().with("llm-service", "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let unmade = setup().with("llm-service", "OTEL_SDK_DISABLED", true);
    for setup in [lost, unmade] {
        let stopped = ask(setup).await;
        assert_eq!(diagnose(&stopped.trees(), &[]), []);
        let figure = figures(&[stopped.only_tree()]);
        check!("what-a-trace-cannot-tell/leaf.html", &figure);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_only_passes_the_context_on_is_not_missed() {
    let setup = setup().with("user-service", "OTEL_SDK_DISABLED", true);
    let stopped = ask(setup.wired()).await;
    let tree = stopped.only_tree();
    assert!(tree.is_whole());
    assert_eq!(tree.services(), ["api-gateway", "llm-service"], "{}", shape(&tree));
    let trees = stopped.trees();
    assert_eq!(diagnose(&trees, &[]), []);
    assert_eq!(diagnose(&trees, &stopped.wire.exchanges()), []);
    check!("what-a-trace-cannot-tell/passed-on.html", &figures(&trees));
}

/// The processor time that this thread has used: the first number of `schedstat` (`man 5 proc`), which only Linux has.
fn processor_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// A span of `recorded`, as the lab gets it.
fn received(spans: Vec<SpanData>) -> Store {
    let resource = Resource::builder_empty().with_service_name("one-service").build();
    let resource_spans = group_spans_by_resource_and_scope(spans, &(&resource).into());
    let request = ExportTraceServiceRequest { resource_spans };
    let store = Store::new(Limits::default());
    store.add(otlp::from_request(request).expect("spans").spans);
    store
}

/// Two of the three leave the processor alone, and only one of these lets others use the thread.
#[test]
fn a_span_is_as_long_whether_it_waits_or_works() {
    let used = RefCell::new(Vec::new());
    let handle = async {
        let measured = async |work: Work| {
            let before = processor_time();
            work.await;
            let both = processor_time().zip(before);
            let time = both.map_or(Duration::ZERO, |(after, before)| after - before);
            used.borrow_mut().push(time);
        };
        measured(Box::pin(awaits())).await;
        measured(Box::pin(blocks())).await;
        measured(Box::pin(computes())).await;
    };
    let bridge = Bridge { times: true, ..Bridge::default() };
    let spans = recorded(bridge, async { handle.instrument(info_span!("handle")).await })
        .expect("a runtime");
    let store = received(spans);
    let tree = &store.trees()[0];
    let milliseconds = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    let mut table =
        "| Span | Duration | Entered (`busy_ns`) | Processor time |\n|---|---|---|---|\n"
            .to_owned();
    let (mut entered, mut worked) = (Vec::new(), Vec::new());
    for (name, processor) in ["awaits", "blocks", "computes"].into_iter().zip(used.take()) {
        let span = span(tree, name, SpanKind::Internal);
        let length = Duration::from_nanos(span.duration());
        assert!(length >= Duration::from_millis(100), "{name}: {length:?}");
        let busy = span.attribute("busy_ns").and_then(|it| it.parse().ok());
        let busy = Duration::from_nanos(busy.expect("a number"));
        let times = [length, busy, processor].map(milliseconds).join(" | ");
        table.push_str(&format!("| `{name}` | {times} |\n"));
        entered.push(busy);
        worked.push(processor);
    }
    let least = |times: &[Duration], index: usize| times[0] < times[index] / 2;
    assert!(least(&entered, 1) && least(&entered, 2), "{entered:?}");
    if processor_time().is_some() {
        assert!(least(&worked, 2) && worked[1] < worked[2] / 2, "{worked:?}");
    }
    check!("what-a-trace-cannot-tell/equal.html", &figures(&store.trees()),);
    check!("what-a-trace-cannot-tell/equal.md", &table);
}

/// The pages of the explanation, in the order of the book.
const PAGES: [&str; 6] = [
    "context-and-propagation",
    "two-stacks",
    "architecture",
    "what-a-trace-cannot-tell",
    "what-tracing-costs",
    "suite",
];

#[test]
fn an_explanation_has_no_steps_and_ends_with_questions() {
    let root = support::root();
    let summary = fs::read_to_string(root.join("src/SUMMARY.md")).expect("a summary");
    let listed: Vec<&str> = summary
        .lines()
        .filter_map(|line| line.split_once("](explanation/")?.1.strip_suffix(".md)"))
        .collect();
    assert_eq!(listed, PAGES);
    for page in PAGES {
        let text =
            fs::read_to_string(root.join(format!("src/explanation/{page}.md"))).expect("a page");
        let (argument, questions) = text.split_once("\n## Why?\n").expect(page);
        assert!(!questions.contains("\n## "), "{page}: the questions are the end");
        let count = questions.matches("\n<details><summary>Why ").count();
        assert!((2..=3).contains(&count), "{page}: {count} questions");
        assert!(!argument.contains("```sh"), "{page}: an explanation has no steps");
    }
}
