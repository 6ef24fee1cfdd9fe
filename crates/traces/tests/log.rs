//! Log records: what is read of them, which of them belong to a trace, and what is too much.

use std::sync::Arc;

use prost::Message as _;
use serde_json::{Value, json};
use support::in_process::{NEW_YEAR, log_table, logs, logs_in_protobuf, spans, table, trace_id};
use traces::case::Case;
use traces::log::{LogRecord, Logs, Severity};
use traces::moments::{Exception, Moment, Moments};
use traces::otlp::{self, Batch, Error};
use traces::proto::common::any_value::Value as Any;
use traces::proto::common::{AnyValue, ArrayValue, KeyValue};
use traces::proto::logs::{LogRecord as Proto, ResourceLogs, ScopeLogs};
use traces::proto::logs_collector::ExportLogsServiceRequest;
use traces::read::{self, Form, Unreadable};
use traces::redact::Redacted;
use traces::span::{DEPTH_LIMIT, Flaw, SpanId, TEXT_LIMIT, VALUES_LIMIT};
use traces::tree::Tree;

const RECORD: &str = r#"1 shop 2 17 5 card refused order=7 {"eventName": "exception"}"#;

/// The facts of a record that lists show.
fn facts(record: &LogRecord) -> (&str, Severity, String, Option<String>) {
    (record.service(), record.severity(), record.body(), record.attribute("order"))
}

fn from_json(text: &str) -> Batch<LogRecord> {
    otlp::logs_from_json(text.as_bytes()).expect("log records")
}

#[test]
fn a_record_is_the_same_in_protobuf_and_in_json() {
    let protobuf = otlp::logs_from_protobuf(logs_in_protobuf(RECORD).into()).expect("a record");
    for record in [&logs(RECORD)[0], &protobuf.items[0]] {
        assert_eq!(record.trace_id.to_string(), trace_id(1));
        assert_eq!(record.span_id, Some(SpanId(2_u64.to_be_bytes())));
        let expected = ("shop", Severity::Error, "card refused".to_owned(), Some("7".to_owned()));
        assert_eq!(facts(record), expected);
        assert_eq!(
            (record.severity_text(), record.event_name()),
            ("ERROR".into(), "exception".into())
        );
    }
}

/// Protobuf's own JSON and Go's encoder write enums by name and spell field names differently.
#[test]
fn json_is_read_in_the_spellings_that_senders_use() {
    let text = json!({ "resource_logs": [{ "scope_logs": [{ "log_records": [{
        "trace_id": "BwcHBwcHBwcHBwcHBwcHBw==", "span_id": null, "severity_number": "SEVERITY_NUMBER_WARN2",
        "severity_text": "warning", "observed_time_unix_nano": 9, "body": "plain", "future": {},
    }] }] }] });
    let batch = from_json(&text.to_string());
    let [record] = &batch.items[..] else { panic!("{batch:?}") };
    assert_eq!((record.trace_id.to_string(), record.span_id), (trace_id(7), None));
    assert_eq!((record.severity(), record.severity_text()), (Severity::Warn, "warning".to_owned()));
    assert_eq!((record.time(), record.body()), (9, "plain".to_owned()));
}

/// OTLP says that a record with an invalid trace id is associated with no trace, and with an invalid span id with no span.
#[test]
fn a_record_without_a_valid_id_belongs_to_no_trace_or_to_no_span() {
    let of = |trace: Value, span: Value| json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [{ "traceId": trace, "spanId": span }] }] }] });
    for trace in [json!(""), json!(null), json!("00".repeat(16)), json!("0b0b")] {
        let batch = from_json(&of(trace.clone(), json!("")).to_string());
        assert_eq!((batch.items.len(), batch.without_trace), (0, 1), "{trace}");
    }
    let none = otlp::logs_from_protobuf(logs_in_protobuf("0 shop 0 9 1 started").into());
    assert_eq!(none.expect("it is read").without_trace, 1);
    for span in [json!(""), json!("00".repeat(8)), json!("0b")] {
        let batch = from_json(&of(json!(trace_id(1)), span.clone()).to_string());
        assert_eq!(batch.items[0].span_id, None, "{span}");
    }
}

/// The request of these records in each form.
fn read_in_all_forms(records: Vec<Proto>) -> [Result<Batch<LogRecord>, Error>; 3] {
    let scope_logs = vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let request = ExportLogsServiceRequest { resource_logs };
    [
        otlp::logs_from_protobuf(request.encode_to_vec().into()),
        otlp::logs_from_json(&serde_json::to_vec(&request).expect("JSON")),
        otlp::logs_from_request(request),
    ]
}

#[test]
fn a_record_that_is_too_much_is_rejected_and_its_neighbours_are_kept() {
    let sound = Proto { trace_id: vec![7; 16], ..Proto::default() };
    let list = |values| Some(Any::ArrayValue(ArrayValue { values }));
    let nested = |value, _| AnyValue { value: list(vec![value]) };
    let long = "x".repeat(TEXT_LIMIT + 1);
    let text = |text: &str| Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) });
    let deep = (0..=DEPTH_LIMIT).fold(AnyValue::default(), nested);
    let many = AnyValue { value: list(vec![AnyValue::default(); VALUES_LIMIT + 1]) };
    let body = || "body".to_owned();
    for (record, flaw) in [
        (Proto { body: text(&long), ..sound.clone() }, Flaw::TextTooLong),
        (Proto { severity_text: long.clone(), ..sound.clone() }, Flaw::TextTooLong),
        (Proto { event_name: long, ..sound.clone() }, Flaw::TextTooLong),
        (Proto { body: Some(deep), ..sound.clone() }, Flaw::AttributeTooDeep(body())),
        (Proto { body: Some(many), ..sound.clone() }, Flaw::TooManyValues),
        (
            Proto { attributes: vec![KeyValue::default(); VALUES_LIMIT + 1], ..sound.clone() },
            Flaw::TooManyValues,
        ),
    ] {
        for batch in read_in_all_forms(vec![sound.clone(), record.clone(), sound.clone()]) {
            let batch = batch.expect("two records");
            let rejected = batch.rejected.expect("one is rejected");
            assert_eq!((batch.items.len(), rejected.items), (2, 1));
            assert_eq!(rejected.first.to_string(), flaw.to_string());
        }
        for refused in read_in_all_forms(vec![record]) {
            assert!(matches!(refused, Err(Error::Unfit(it)) if it.flaw == flaw));
        }
    }
}

#[test]
fn a_request_with_too_many_records_is_refused_also_if_they_belong_to_no_trace() {
    let records = vec![Proto::default(); otlp::SPANS_LIMIT + 1];
    for refused in read_in_all_forms(records) {
        let error = refused.expect_err("too many").to_string();
        assert_eq!(error, "more than 200000 log records in one request");
    }
}

#[test]
fn records_stand_in_the_order_of_time_and_each_once() {
    let mut kept = Logs::default();
    let rows = "1 a 1 9 5 later; 1 a 1 9 2 first; 1 a 1 9 5 too; 1 a 1 9 2 first; 1 b 1 9 2 first";
    let added: Vec<bool> =
        logs(rows).into_iter().map(|record| kept.add(Arc::new(record))).collect();
    assert_eq!(added, [true, true, true, false, true]);
    let bodies: Vec<String> = kept.iter().map(|record| record.body()).collect();
    assert_eq!(bodies, ["first", "first", "later", "too"]);
}

/// The Collector's file exporter writes a line for each request.
#[test]
fn a_file_has_the_records_of_its_traces() {
    let rows = "1 shop 1 9 5 of the trace; 0 shop 0 9 1 of none";
    let lines = format!("{}\n{}\n", table("1 shop 1 SERVER 0..9 pay"), log_table(rows));
    let contents = read::read(lines.as_bytes()).expect("spans");
    assert_eq!((contents.spans.len(), contents.logs.len(), contents.log_count), (1, 1, 1));
    assert_eq!(contents.others.to_string(), "1 log record without a trace");

    let alone = read::read(log_table("1 shop 1 9 5 alone").to_string().as_bytes());
    let alone = alone.expect("a record");
    assert_eq!((alone.form, alone.spans.len(), alone.logs.len()), (Form::OtlpJson, 0, 1));

    let message = logs_in_protobuf("1 shop 1 9 5 framed");
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    for bytes in [message.clone(), [&length[..], &message].concat()] {
        let contents = read::read(&bytes).expect("a record");
        assert_eq!((contents.form, contents.logs[0].body()), (Form::OtlpProtobuf, "framed".into()));
    }
    let none = read::read(log_table("0 shop 0 9 5 of none").to_string().as_bytes());
    assert!(matches!(none, Err(Unreadable::OtherSignals(_))), "{none:?}");
}

#[test]
fn a_case_has_its_records_in_the_order_of_time_and_writes_them_into_its_file() {
    let rows = "1 shop 1 9 5 later; 1 shop 1 9 2 first; 1 shop 1 9 2 first";
    let mut document = table("1 shop 1 SERVER 0..9 pay");
    document["resourceLogs"] = log_table(rows)["resourceLogs"].take();
    let case = Case::read(document.to_string().as_bytes()).expect("a case");
    let bodies = |case: &Case| case.logs.iter().map(|it| it.body()).collect::<Vec<_>>();
    assert_eq!(bodies(&case), ["first", "later"]);
    let again = Case::read(&case.to_json().expect("JSON")).expect("the same case");
    assert_eq!((again.trees.len(), bodies(&again)), (1, bodies(&case)));
}

/// A file may have ids of another length. Those of a record and of its span stay the same.
#[test]
fn records_and_spans_with_renamed_ids_stay_together() {
    let document = json!({
        "resourceSpans": [{ "scopeSpans": [{ "spans": [{ "traceId": "trace-1", "spanId": "span-1", "name": "a" }] }] }],
        "resourceLogs": [{ "scopeLogs": [{ "logRecords": [{ "traceId": "trace-1", "spanId": "span-1" }] }] }],
    });
    let contents = read::read(document.to_string().as_bytes()).expect("a span");
    let (span, record) = (&contents.spans[0], &contents.logs[0]);
    assert_eq!((record.trace_id, record.span_id), (span.trace_id, Some(span.id)));
}

#[test]
fn secrets_in_a_record_are_redacted_before_it_is_handed_on() {
    let rows = "1 shop 1 9 5 sent Bearer abcdef0123456789 db.password=hunter22; 1 shop 1 9 6 sound";
    let mut case = Case::read(log_table(rows).to_string().as_bytes()).expect("a case");
    let mut redacted = Redacted::default();
    redacted.names(&mut case);
    redacted.values(&mut case);
    let bodies: Vec<String> = case.logs.iter().map(|it| it.body()).collect();
    assert_eq!(bodies, ["[redacted]", "sound"]);
    assert_eq!(case.logs[0].attribute("db.password").as_deref(), Some("[redacted]"));
    assert_eq!(redacted.values, 2);
}

/// The moments of a row as text: events by their names, records by their bodies.
fn shown(moments: &[Moment]) -> Vec<String> {
    let text = |moment: &Moment| match moment {
        Moment::Event(event) => event.name.clone(),
        Moment::Log(record) => record.body(),
    };
    moments.iter().map(text).collect()
}

fn tree(text: &str) -> Tree {
    let spans: Vec<_> = spans(text).into_iter().map(Arc::new).collect();
    Tree::new(&spans).expect("a tree")
}

#[test]
fn records_stand_between_the_events_of_their_span() {
    let event = |name: &str, time: u64| json!({ "name": name, "timeUnixNano": ((NEW_YEAR + time) * 1_000_000).to_string() });
    let events = json!({ "events": [event("began", 1), event("ended", 8)] }).to_string();
    let tree = tree(&format!("1 shop 1 SERVER 0..9 pay {events}; 1 shop 2<1 INTERNAL 1..2 read"));
    let rows = "1 shop 1 9 5 between; 1 shop 2 9 1 below; 1 shop 7 9 3 of a lost span; 1 shop 0 9 2 of none; 2 shop 1 9 5 other";
    let logs: Vec<_> = logs(rows).into_iter().map(Arc::new).collect();
    let moments = Moments::new(&tree, &logs);
    assert_eq!(shown(&moments.rows[0]), ["began", "between", "ended"]);
    assert_eq!(shown(&moments.rows[1]), ["below"]);
    let lost: Vec<_> = moments.without_span.iter().map(|it| it.body()).collect();
    assert_eq!(lost, ["of a lost span", "of none"]);
}

/// In Zipkin's model, both sides of a call have one id.
#[test]
fn a_record_belongs_to_the_side_of_the_call_that_logged_it() {
    let tree = tree("1 shop 1 CLIENT 0..9 call; 1 bank 1 SERVER 1..8 answer");
    let logs: Vec<_> = logs("1 bank 1 9 5 by the bank; 1 shop 1 9 6 by the shop")
        .into_iter()
        .map(Arc::new)
        .collect();
    let moments = Moments::new(&tree, &logs);
    assert_eq!(shown(&moments.rows[0]), ["by the shop"]);
    assert_eq!(shown(&moments.rows[1]), ["by the bank"]);
}

/// With `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN=logs`, an exception is only a record.
#[test]
fn an_exception_is_known_as_an_event_and_as_a_record() {
    let attributes = "exception.type=IOError exception.message=refused";
    let event = json!({ "events": [{ "name": "exception", "attributes": [
        { "key": "exception.type", "value": { "stringValue": "IOError" } },
        { "key": "exception.message", "value": { "stringValue": "refused" } },
    ] }] });
    let tree = tree(&format!("1 shop 1 SERVER 0..9 pay {event}"));
    let logs = logs(&format!("1 shop 1 17 5 it failed {attributes}; 1 shop 1 17 6 no exception"));
    let logs: Vec<_> = logs.into_iter().map(Arc::new).collect();
    let moments = Moments::new(&tree, &logs);
    let exceptions: Vec<_> = moments.rows[0].iter().map(Moment::exception).collect();
    let expected =
        Exception { r#type: "IOError".into(), message: "refused".into(), stacktrace: None };
    assert_eq!(exceptions, [Some(expected.clone()), Some(expected), None]);
}
