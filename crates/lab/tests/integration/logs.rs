//! Log records: how the receivers take them, how long the store keeps them, and where they are shown.

use std::path::Path;

use lab::case::Case;
use lab::recorder::Recorder;
use lab::session;
use lab::store::{LOGS_OF_TRACE, LOGS_PER_SPAN, Limits, Store};
use opentelemetry_proto::tonic::collector::logs::v1 as logs_service;
use prost::Message as _;
use serde_json::Value;
use support::in_process::{
    JSON, Lab, PROTOBUF, log_table, logs, logs_in_protobuf, spans, trace_id, trace_path,
};
use support::{has, lacks};
use tonic::Code;
use tonic::transport::Endpoint;

const SPAN: &str = "1 shop 1 SERVER 0..9 pay";
const RECORD: &str = "1 shop 1 17 5 card refused";

/// The bodies of the log records of trace 1.
fn bodies(store: &Store) -> Vec<String> {
    store.logs(spans(SPAN)[0].trace_id).iter().map(|record| record.body()).collect()
}

async fn post(lab: &Lab, media_type: &str, body: impl Into<Vec<u8>>) -> (u16, String) {
    lab.post("/v1/logs", &[("content-type", media_type)], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_over_http_and_grpc_and_are_answered_in_kind() {
    let lab = Lab::start().await;
    let (status, answer) = post(&lab, PROTOBUF, logs_in_protobuf("1 shop 1 9 1 protobuf")).await;
    assert_eq!((status, &*answer), (200, ""));
    let (status, answer) = post(&lab, JSON, log_table("1 shop 1 9 2 json").to_string()).await;
    assert_eq!((status, &*answer), (200, "{}"));
    let (status, answer) = post(&lab, "text/plain", "hello").await;
    assert_eq!(status, 415, "{answer}");

    let grpc = support::serve(lab::grpc::routes(lab.store.clone())).await;
    let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("a URL");
    let channel = channel.connect().await.expect("the receiver answers");
    let mut client = logs_service::logs_service_client::LogsServiceClient::new(channel);
    let request = logs_in_protobuf("1 shop 1 9 3 grpc; 0 shop 0 9 4 of no trace");
    let request = logs_service::ExportLogsServiceRequest::decode(&request[..]).expect("a request");
    let answer = client.export(request).await.expect("it is taken").into_inner();
    assert_eq!(answer.partial_success, None);
    assert_eq!(bodies(&lab.store), ["protobuf", "json", "grpc"]);
    let usage = lab.store.usage();
    assert_eq!((usage.logs, usage.logs_without_trace), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_rejected_with_the_reason() {
    let lab = Lab::start().await;
    let rows = format!("1 shop 1 9 1 sound; 1 shop 1 9 2 {}", "x".repeat(1024 * 1024 + 1));
    let reason = "a name or message is longer than 1048576 bytes";
    let (status, answer) = post(&lab, JSON, log_table(&rows).to_string()).await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((status, &answer["partialSuccess"]["rejectedLogRecords"]), (200, &"1".into()));
    assert_eq!(answer["partialSuccess"]["errorMessage"], reason);

    let (_, answer) = post(&lab, PROTOBUF, logs_in_protobuf(&rows)).await;
    let answer = logs_service::ExportLogsServiceResponse::decode(answer.as_bytes());
    let partial = answer.expect("an answer").partial_success.expect("a rejected record");
    assert_eq!((partial.rejected_log_records, &*partial.error_message), (1, reason));

    for (media_type, body, expected) in [
        (PROTOBUF, "hello", "not an OTLP request"),
        (JSON, r#"{"resourceLogs": 1}"#, "must be a list"),
    ] {
        let (status, answer) = post(&lab, media_type, body).await;
        assert_eq!(status, 400, "{answer}");
        has(&answer, [expected]);
    }
    // What is counted as refused are requests with spans.
    assert_eq!(lab.store.refused(), None);
}

#[test]
fn records_wait_for_their_span_and_leave_with_their_trace() {
    let store = Store::new(Limits { spans: 2, ..Limits::default() });
    let version = store.version();
    store.add_logs(logs(RECORD));
    assert!(store.version() > version, "live pages are woken");
    let trace = spans(SPAN)[0].trace_id;
    let changes = store.changes_of(trace);
    // A trace with nothing but records isn't one of the traces.
    assert_eq!((store.usage().traces, store.usage().logs), (0, 1));
    assert!(store.trace(trace).is_none() && store.traces().is_empty());
    assert!(
        store.ids().is_empty()
            && store.by_start(u64::MAX).next().is_none()
            && store.walk().next().is_none()
    );
    assert_eq!(bodies(&store), ["card refused"]);

    store.add(spans(SPAN));
    assert!(store.changes_of(trace) > changes);
    assert_eq!((store.usage().traces, bodies(&store).len()), (1, 1));
    store.add(spans("2 shop 1 SERVER 0..9 a; 3 shop 1 SERVER 0..9 b"));
    assert_eq!((store.usage().logs, bodies(&store).len(), store.was_evicted(trace)), (0, 0, true));
    store.add(spans("4 shop 1 SERVER 0..9 c; 5 shop 1 SERVER 0..9 d"));
    let fresh = Store::new(Limits { spans: 2, ..Limits::default() });
    fresh.add(spans("4 shop 1 SERVER 0..9 c; 5 shop 1 SERVER 0..9 d"));
    assert_eq!(store.usage().bytes, fresh.usage().bytes);
}

/// A walk goes on where it was, also when a trace without a span has left.
#[test]
fn a_walk_skips_traces_without_a_span() {
    let store = Store::new(Limits { spans: 2, ..Limits::default() });
    store.add_logs(logs(RECORD));
    store.add(spans("2 shop 1 SERVER 0..9 a; 3 shop 1 SERVER 0..9 b"));
    let names = |walk: &mut dyn Iterator<Item = Vec<std::sync::Arc<lab::span::Span>>>| {
        walk.map(|spans| spans[0].name().to_owned()).collect::<Vec<_>>()
    };
    let mut walk = store.walk();
    assert_eq!(walk.next().map(|spans| spans[0].name().to_owned()).as_deref(), Some("a"));
    store.add(spans("4 shop 1 SERVER 0..9 c"));
    assert_eq!(names(&mut walk), ["b"]);
    assert_eq!(names(&mut store.walk()), ["b", "c"]);
}

#[test]
fn a_record_that_is_sent_again_is_kept_once() {
    let store = Store::new(Limits::default());
    store.add_logs(logs(RECORD));
    store.add_logs(logs(RECORD));
    assert_eq!((store.usage().logs, store.usage().repeated), (1, 1));
}

/// A loop that logs must not push out the traces of others, nor the spans of its own.
#[test]
fn a_trace_has_a_limit_of_its_own_for_records() {
    let store = Store::new(Limits::default());
    store.add(spans(SPAN));
    let rows = (0..=LOGS_OF_TRACE).map(|time| format!("1 a 1 9 {time} x")).collect::<Vec<_>>();
    store.add_logs(logs(&rows.join("\n")));
    let usage = store.usage();
    assert_eq!((usage.spans, usage.logs, usage.logs_dropped), (1, LOGS_OF_TRACE, 1));

    let store = Store::new(Limits { bytes: 1024 * 1024, ..Limits::default() });
    store.add(spans(SPAN));
    let rows = (0..10).map(|time| format!("1 a 1 9 {time} {}", "x".repeat(100_000)));
    store.add_logs(logs(&rows.collect::<Vec<_>>().join("\n")));
    let usage = store.usage();
    assert_eq!((usage.spans, usage.logs, usage.logs_dropped), (1, 2, 8));
}

#[test]
fn the_oldest_traces_make_room_for_records() {
    let store = Store::new(Limits { spans: 2, ..Limits::default() });
    store.add(spans(SPAN));
    let rows: Vec<_> =
        (1..=2 * LOGS_PER_SPAN + 1).map(|trace| format!("{trace} shop 1 9 5 x")).collect();
    store.add_logs(logs(&rows.join("\n")));
    let usage = store.usage();
    assert_eq!((usage.spans, usage.logs, usage.evicted), (0, 2 * LOGS_PER_SPAN, 1));
}

/// Opens a session; returns its store and the number of records in its file.
fn opened(path: &Path) -> (Store, usize) {
    let store = Store::new(Limits::default());
    let contents = session::open(path, |piece| {
        store.add(piece.spans);
        store.add_logs(piece.logs);
    });
    (store, contents.expect("it opens").log_count)
}

#[test]
fn records_are_saved_with_the_spans_and_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let recorder = Recorder::append(&file).expect("a file");
    let store = Store::new(Limits::default()).recorded_by(recorder);
    store.add(spans(SPAN));
    store.add_logs(logs(RECORD));
    // What the store drops isn't saved.
    store.add_logs(logs(RECORD));
    let text = std::fs::read_to_string(&file).expect("text");
    assert_eq!(text.lines().filter(|line| line.starts_with("{\"resourceLogs\":[")).count(), 1);
    let (store, count) = opened(&file);
    assert_eq!((count, bodies(&store)), (1, vec!["card refused".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_trace_have_its_records_and_can_be_imported() {
    let lab = Lab::of(SPAN).await;
    lab.store.add_logs(logs(&format!("{RECORD}; 2 shop 1 9 5 of another trace")));
    let other = Lab::start().await;
    for form in [".json", ".case.json"] {
        let document = lab.page(trace_path(1) + form).await;
        has(&document, ["resourceSpans", "resourceLogs", "card refused"]);
        lacks(&document, ["of another trace"]);
        let (status, answer) =
            other.post("/traces/import", &[("content-type", JSON)], document).await;
        assert_eq!(status, 200, "{answer}");
        has(&answer, ["\"logRecords\":1"]);
    }
    assert_eq!((other.spans(), bodies(&other.store).len()), (1, 1));
    let whole = lab.get_json("/traces.case.json").await;
    assert_eq!(whole["resourceLogs"].as_array().map(Vec::len), Some(2), "{whole}");
    assert_eq!(whole["resourceSpans"].as_array().map(Vec::len), Some(1), "{whole}");
    // Without records there is no such field.
    lacks(&Lab::of(SPAN).await.page("/traces.case.json").await, ["resourceLogs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_with_records_alone_is_not_listed_and_its_page_says_what_came() {
    let lab = Lab::start().await;
    lab.store.add_logs(logs(r"1 <b> 1 17 5 card <i>refused"));
    assert_eq!(lab.get_json("/traces.json").await, serde_json::json!([]));
    assert_eq!(lab.get_json("/api/traces?limit=10").await["data"], serde_json::json!([]));
    has(
        &lab.page(trace_path(1)).await,
        ["1 log record of this trace arrived, and no span did.", "ERROR", "card &lt;i&gt;refused"],
    );
    for path in ["/traces", "/traces/map", "/traces?text=card"] {
        lab.page(path).await;
    }
    assert_eq!(lab.get(format!("/api/traces/{}", trace_id(1))).await.0, 404);
    for form in [".case.json", ".json"] {
        has(&lab.page(trace_path(1) + form).await, ["resourceLogs", "card <i>refused"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_records_over_grpc_is_taken() {
    let store = Store::new(Limits::default());
    let grpc = support::serve(lab::grpc::routes(store)).await;
    let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("a URL");
    let channel = channel.connect().await.expect("the receiver answers");
    let mut client = logs_service::logs_service_client::LogsServiceClient::new(channel);
    let resource_logs = vec![Default::default(); 2];
    let request = logs_service::ExportLogsServiceRequest { resource_logs };
    assert_eq!(client.export(request).await.err().map(|it| it.code()), None::<Code>);
}

/// Returns the text that `lab trace` prints for a trace, without colours.
fn printed(table: &str, records: &str) -> String {
    printed_to(Some(100), table, records)
}

fn printed_to(columns: Option<usize>, table: &str, records: &str) -> String {
    let mut document = support::in_process::table(table);
    document["resourceLogs"] = log_table(records)["resourceLogs"].take();
    let case = Case::read(document.to_string().as_bytes()).expect("a case");
    let id = logs("1 shop 1 9 1 x")[0].trace_id;
    let text = lab::terminal::trace(&case, id, columns).expect("the trace");
    anstream::adapter::strip_str(&text).to_string()
}

#[test]
fn the_terminal_shows_records_below_their_span() {
    let text = printed(
        "1 shop 1 SERVER 0..9 pay; 1 shop 2<1 INTERNAL 1..2 read",
        "1 shop 1 17 5 card \u{1b}[31mrefused order=7; 1 shop 7 9 3 lost; 1 shop 0 13 2 of none; 1 shop 1 9 6 {\"body\": {}}",
    );
    let lines: Vec<&str> = text.lines().collect();
    let at = |part: &str| lines.iter().position(|line| line.contains(part)).expect(part);
    has(lines[at("refused")], ["+5.00 ms  ERROR  card \\u{1b}[31mrefused  order=7"]);
    assert!(at("pay") < at("refused") && at("refused") < at("read"), "{text}");
    has(lines[at("lost")], ["+3.00 ms  INFO   shop: lost (its span 0000000000000007 never came)"]);
    has(lines[at("of none")], ["WARN   shop: of none (of no span)"]);
    // Without records there is nothing of them.
    lacks(&printed("1 shop 1 SERVER 0..9 pay", ""), ["Log records"]);
}

#[test]
fn the_terminal_shows_a_few_records_and_counts_the_others() {
    let rows: Vec<_> =
        (0..12).map(|time| format!("1 shop 1 9 {time} {}", "long ".repeat(50))).collect();
    let text = printed("1 shop 1 SERVER 0..9 pay", &rows.join("\n"));
    assert_eq!(text.lines().filter(|line| line.contains("INFO")).count(), 10, "{text}");
    has(&text, ["… 2 more: lab trace --json has all of them"]);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

/// A program or a file takes lines of any length, so nothing is cut off there.
#[test]
fn a_record_is_whole_where_no_terminal_reads_it() {
    let body = "long ".repeat(50);
    let text = printed_to(None, "1 shop 1 SERVER 0..9 pay", &format!("1 shop 1 9 5 {body}end"));
    has(&text, [&format!("{body}end")]);
}

#[test]
fn the_terminal_says_that_no_span_came() {
    let text = printed("2 shop 1 SERVER 0..9 other", "1 shop 1 17 5 refused; 1 shop 1 9 7 later");
    has(
        &text,
        [
            "no span has arrived, only 2 log records",
            "+0.00 ms  ERROR  shop: refused",
            "+2.00 ms  INFO   shop: later",
        ],
    );
}

/// An exception that is only a log record is one of the failure, as one in an event is.
#[test]
fn what_broke_has_the_exception_of_a_record() {
    let mut document = support::in_process::table("1 shop 1 SERVER 0..9 pay error=no");
    let record = "1 shop 1 17 5 it failed exception.type=IOError exception.message=refused";
    document["resourceLogs"] = log_table(record)["resourceLogs"].take();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("request.json");
    std::fs::write(&file, document.to_string()).expect("written");
    let lab = std::process::Command::new(env!("CARGO_BIN_EXE_lab"));
    let output = { lab }.args(["diagnose", "--brief"]).arg(&file).output().expect("it runs");
    let brief: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let exception = &brief["failure"]["exceptions"][0];
    assert_eq!((&exception["type"], &exception["message"]), (&"IOError".into(), &"refused".into()));
}
