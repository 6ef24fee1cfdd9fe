//! Runs behind the explanation pages, which show their figures and tables, and the form of these pages.

use std::cell::RefCell;
use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use course::services::Service;
use explanation::equal_spans::{awaits, blocks, computes};
use explanation::parents::{outer, outer_below, parents, remote, work};
use explanation::{Bridge, recorded};
use futures_util::future::join_all;
use lab::diagnose::diagnose;
use lab::otlp;
use lab::span::{Span, SpanId, SpanKind};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::wire::{Fault, LATENCY};
use opentelemetry::trace::FutureExt as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use serde_json::json;
use support::in_process::request_by_sdk;
use support::recording::{check, check_named, figures, recorded};
use support::{Log, Setup, client, plan, refused, serve, shape, span, until, within_reason};
use tokio::process::Command;
use tokio::spawn;
use tokio::sync::Notify;
use tracing::{Instrument as _, info_span};

/// The bytes on the wire between two services, and below each field the id that the two spans have recorded.
#[tokio::test(flavor = "multi_thread")]
async fn one_header_holds_the_ids_of_the_caller_and_both_ends_record_them() {
    let system = Setup::default().wired().start().await;
    system.ask_with(&[("baggage", "tenant=acme")]).await;
    let user = system.wire.address("gateway-user");
    let stopped = system.stop().await;

    let mut exchanges = stopped.wire.exchanges().into_iter();
    let hop = exchanges.find(|it| it.hop == "gateway-user").expect("one request");
    assert_eq!(hop.delivered.as_ref(), Some(&hop.sent));
    let tree = stopped.only_tree();
    let caller = span(&tree, "POST /process", SpanKind::Client);
    let called = span(&tree, "POST /process", SpanKind::Server);
    let header = format!("00-{}-{}-01", caller.trace_id, caller.id);
    let mut headers = hop.sent.lines().filter_map(|it| it.strip_prefix("traceparent: "));
    assert_eq!(headers.next(), Some(&*header));
    assert_eq!((called.trace_id, called.parent), (caller.trace_id, Some(caller.id)));

    // Each value stands in the column where its bytes are in the header.
    let line = |label: &str, byte: usize, value: &str| format!("{label:16}{:byte$}{value}\n", "");
    let end = |title: &str, span: &Span, label: &str, id: SpanId| {
        let flags = format!("{:02x}", span.proto().flags & 0xff);
        let trace_id = line("  trace id", 3, &span.trace_id.to_string());
        let id = line(label, 36, &id.to_string());
        format!("{title}\n{trace_id}{id}{}", line("  flags", 53, &flags))
    };
    let drawing = [
        end("CLIENT span of api-gateway", caller, "  span id", caller.id),
        "\n".to_owned(),
        line("byte", 0, &format!("0  3{:32}36{:15}53", "", "")),
        line("traceparent", 0, &header),
        "\n".to_owned(),
        end("SERVER span of user-service", called, "  parent span id", caller.id),
    ];
    check!("context-and-propagation/hop.txt", &drawing.concat());

    let user = user.expect("a proxy").to_string();
    let head = hop.sent.replace("\r\n", "\n").replace(&user, "127.0.0.1:5001");
    check!("context-and-propagation/head.txt", &(head.trim_end().to_owned() + "\n"));
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
        let head = "| Row | Code | `outer` | `inner` | `plain` |\n|---|---|---|---|---|\n";
        let mut table = head.to_owned();
        for (number, (code, case)) in (1..).zip(CASES) {
            let bridge = Bridge { activates, ..Bridge::default() };
            let parents = parents(bridge, case()).expect("a runtime");
            let [outer, inner, plain] = ["outer", "inner", "plain"]
                .map(|name| parents.get(name).map_or("–", String::as_str));
            // On one line, and as it would be in a function that can fail.
            let words: Vec<&str> = code.split_whitespace().collect();
            let code = words.join(" ").replace(".expect(\"a bridge\")", "?");
            // Where a line may break, on a narrow page.
            let code = code.replace(").", ")<wbr>.");
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
#[derive(Default)]
struct Backend {
    requests: AtomicUsize,
    sent: AtomicUsize,
    reached: Notify,
    go: Notify,
}

impl Backend {
    async fn take(&self, does: Does, body: Bytes, store: &Store) -> StatusCode {
        let first = self.requests.fetch_add(1, Relaxed) == 0;
        let spans = otlp::from_protobuf(body).expect("spans").items;
        self.sent.fetch_add(spans.len(), Relaxed);
        self.reached.notify_one();
        if does == Does::Stalls && first {
            self.go.notified().await;
        }
        let status = match does {
            Does::Hangs => std::future::pending().await,
            Does::Answers(status) => return status,
            Does::TakesAndAnswers(status) => status,
            _ => StatusCode::OK,
        };
        store.add(spans);
        status
    }
}

/// Ten requests to llm-service, of two spans each: the row of a table.
async fn export_to(does: Does, name: &str) -> String {
    let (backend, store) = (Arc::new(Backend::default()), Store::new(Limits::default()));
    let (taking, kept) = (Arc::clone(&backend), store.clone());
    let take = async move |body: Bytes| taking.take(does, body, &kept).await;
    let address = serve(Router::new().route("/v1/traces", post(take))).await;
    let (nobody, _kept) = refused();
    let address = if does == Does::Refuses { nobody } else { address };
    let plan = plan(&support::binaries().await, "llm-service", address);
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
    let report = log.find("llm-service", "spans were lost").pop().unwrap_or_default();
    let lost = report.split(' ').find_map(|word| word.strip_prefix("lost=")).unwrap_or("0");
    let [requests, sent] = [&backend.requests, &backend.sent].map(|count| count.load(Relaxed));
    let kept = store.usage().spans;
    format!("| {name} | {answered} | {requests} | {sent} | {kept} | {lost} |\n")
}

/// Twenty spans end in each row. No client sees a difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_decides_how_often_a_span_arrives_and_not_what_a_client_sees() {
    let rows = [
        (Does::Takes, "takes them"),
        (Does::Stalls, "takes its time, and the queue is of 5"),
        (Does::Refuses, "refuses the connection"),
        (Does::Hangs, "does not answer"),
        (Does::Answers(StatusCode::INTERNAL_SERVER_ERROR), "answers 500"),
        (Does::Answers(StatusCode::SERVICE_UNAVAILABLE), "answers 503"),
        (Does::TakesAndAnswers(StatusCode::GATEWAY_TIMEOUT), "takes them, and the answer is 504"),
    ];
    let rows = join_all(rows.map(|(does, name)| export_to(does, name))).await;
    let head = "| The backend | Requests answered | Exports | Spans in them | Kept | Reported lost |\n\
                |---|---|---|---|---|---|\n";
    check!("architecture/backends.md", &(head.to_owned() + &rows.concat()));
}

/// The wire holds a request back; then the called process stands still, as it does without a processor. The same figure
/// is compared with both.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_and_a_process_that_stands_still_give_the_same_trace() {
    let hop = "user-llm";
    let system = Setup::default().wired().start().await;
    system.wire.set(hop, Some(Fault::AddLatency));
    assert_eq!(system.ask("user_1").await.status(), 200);
    let slow = system.stop().await;

    let system = Setup::default().wired().start().await;
    let id = system.llm.id().expect("it runs");
    support::freeze(id).await;
    let stand_still = async {
        until(async || {
            let exchanges = system.wire.exchanges();
            let hops: Vec<&str> = exchanges.iter().map(|it| &*it.hop).collect();
            hops.contains(&hop).then_some(()).ok_or(hops.join(", "))
        })
        .await;
        // Not to wait for something: this is how long the process stands still.
        tokio::time::sleep(LATENCY).await;
        let sent = Command::new("kill").args(["-CONT", &id.to_string()]).status().await;
        assert!(sent.expect("kill runs").success());
    };
    let (answer, ()) = tokio::join!(system.ask("user_1"), stand_still);
    assert_eq!(answer.status(), 200);
    for stopped in [slow, system.stop().await] {
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
    let lost = ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{nobody}"));
    let unmade = ("OTEL_SDK_DISABLED", "true".to_owned());
    for (key, value) in [lost, unmade] {
        let setup = Setup::default().with("llm-service", key, value);
        let trees = [setup.answers("user_1", 200).await.only_tree()];
        assert_eq!(diagnose(&trees, &[]), []);
        check!("what-a-trace-cannot-tell/leaf.html", &figures(&trees));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_only_passes_the_context_on_is_not_missed() {
    let setup = Setup::default().with("user-service", "OTEL_SDK_DISABLED", true);
    let stopped = setup.wired().answers("user_1", 200).await;
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

/// The tree of these spans, as the lab gets them.
fn received(spans: Vec<SpanData>) -> Tree {
    let resource = Resource::builder_empty().with_service_name("one-service").build();
    let request = request_by_sdk(spans, &resource);
    let store = Store::new(Limits::default());
    store.add(otlp::from_request(request).expect("spans").items);
    let [tree] = <[Tree; 1]>::try_from(store.trees()).expect("one trace");
    tree
}

/// Two of the three leave the processor alone, and only one of these lets others use the thread.
#[test]
fn a_span_is_as_long_whether_it_waits_or_works() {
    let used = RefCell::new(Vec::new());
    let handle = async {
        let works: [Work; 3] = [Box::pin(awaits()), Box::pin(blocks()), Box::pin(computes())];
        for work in works {
            let before = processor_time();
            work.await;
            let both = processor_time().zip(before);
            let time = both.map_or(Duration::ZERO, |(after, before)| after - before);
            used.borrow_mut().push(time);
        }
    };
    let bridge = Bridge { times: true, ..Bridge::default() };
    let spans = recorded(bridge, async { handle.instrument(info_span!("handle")).await })
        .expect("a runtime");
    let tree = received(spans);
    let milliseconds = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    let head = "| Span | Duration | Entered (`busy_ns`) | Processor time |\n|---|---|---|---|\n";
    let mut table = head.to_owned();
    let (mut entered, mut worked) = (Vec::new(), Vec::new());
    for (name, processor) in ["awaits", "blocks", "computes"].into_iter().zip(used.take()) {
        let span = span(&tree, name, SpanKind::Internal);
        let length = Duration::from_nanos(span.duration());
        assert!(length >= Duration::from_millis(100), "{name}: {length:?}");
        let busy = span.attribute("busy_ns").and_then(|it| it.parse().ok());
        let busy = Duration::from_nanos(busy.expect("a number"));
        let times = [length, busy, processor].map(milliseconds).join(" | ");
        table.push_str(&format!("| `{name}` | {times} |\n"));
        entered.push(busy);
        worked.push(processor);
    }
    assert!(entered[0] < entered[1] / 2 && entered[0] < entered[2] / 2, "{entered:?}");
    if processor_time().is_some() {
        assert!(worked[0] < worked[2] / 2 && worked[1] < worked[2] / 2, "{worked:?}");
    }
    check!("what-a-trace-cannot-tell/equal.html", &figures(&[tree]));
    check!("what-a-trace-cannot-tell/equal.md", &table);
}

/// The pages of the explanation, in the order of the book.
const PAGES: [&str; 6] = [
    "context-and-propagation",
    "two-stacks",
    "architecture",
    "what-a-trace-cannot-tell",
    "what-tracing-costs",
    "what-is-changing",
];

/// The page says of the W3C's suite what the README of the strict propagators says, which lists each test that the SDK fails.
#[test]
fn the_readme_lists_as_many_failed_tests_as_the_page_counts() {
    let read = |path: &str| fs::read_to_string(support::root().join(path)).expect(path);
    let readme = read("crates/w3c-trace-context/README.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let row = readme.lines().find(|line| line.starts_with("| `opentelemetry_sdk` 0"));
    let [_, sdk, passed, of_level_2, _] = &cells(row.expect("a row"))[..] else {
        panic!("{row:?}")
    };
    let (_, table) = readme.split_once("| test | sends |\n|---|---|\n").expect("a table");
    let rows =
        table.lines().take_while(|line| line.starts_with('|')).map(|line| cells(line)[1].clone());
    let (second, first): (Vec<String>, Vec<String>) =
        rows.partition(|it| it.ends_with("(level 2)"));
    let count = |rows: &[String]| rows.iter().map(|row| row.split(", ").count()).sum::<usize>();
    let number = |cell: &String| cell.parse::<usize>().expect("a number");
    assert_eq!(40 - number(passed), count(&first));
    assert_eq!(41 - number(of_level_2), count(&first) + count(&second));
    let page = read("src/explanation/context-and-propagation.md").replace('\n', " ");
    let said = format!("{sdk}, an axum service passes {passed} of its 40 tests");
    assert!(page.contains(&said), "the page does not say {said}");
}

#[test]
fn an_explanation_has_no_steps_and_ends_with_questions() {
    let read = |path: &str| fs::read_to_string(support::root().join("src").join(path)).expect(path);
    let summary = read("SUMMARY.md");
    let lines = summary.lines();
    let listed = lines.filter_map(|line| line.split_once("](explanation/")?.1.strip_suffix(".md)"));
    assert_eq!(listed.collect::<Vec<_>>(), PAGES);
    for page in PAGES {
        let text = read(&format!("explanation/{page}.md"));
        let (argument, questions) = text.split_once("\n## Why?\n").expect(page);
        assert!(!questions.contains("\n## "), "{page}: the questions are the end");
        let count = questions.matches("\n<details><summary>Why ").count();
        assert!((2..=3).contains(&count), "{page}: {count} questions");
        assert!(!argument.contains("```sh"), "{page}: an explanation has no steps");
    }
}
