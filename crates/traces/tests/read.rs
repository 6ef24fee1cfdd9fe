//! How files are read: each in `cases` has a form that tools write, or a peculiarity of one.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;

use prost::Message as _;
use support::in_process::table;
use traces::case::Case;
use traces::exchange::Exchange;
use traces::otlp;
use traces::proto::common::AnyValue;
use traces::proto::common::any_value::Value;
use traces::read::{self, Contents, Foreign, Form, Piece, UNPACKED_LIMIT, Unreadable};
use traces::span::{self, SpanKind, Status};

fn bytes(name: &str) -> Vec<u8> {
    fs::read(support::root().join("crates/traces/tests/cases").join(name)).expect(name)
}

fn case(name: &str) -> Contents {
    read::read(&bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The same for a text.
fn read_text(text: &str) -> Contents {
    read::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn names(contents: &Contents) -> Vec<&str> {
    contents.spans.iter().map(|span| span.name()).collect()
}

/// The same trace of two spans in each form.
#[test]
fn each_form_is_read_as_the_trace_that_it_is() {
    for (name, form) in [
        ("silent-jaeger-download.json", Form::Jaeger),
        ("silent-jaeger-api.json", Form::Jaeger),
        ("silent-tempo-batches.json", Form::OtlpJson),
        ("refused-base64-ids.json", Form::OtlpJson),
        ("bom-utf8.json", Form::OtlpJson),
        ("gzip.json.gz", Form::OtlpJson),
        ("refused-zipkin.json", Form::Zipkin),
        ("php-console.json", Form::PhpConsole),
    ] {
        let contents = case(name);
        assert_eq!(contents.form, form, "{name}");
        assert!(contents.problems.is_empty() && contents.others.is_empty(), "{name}: {contents:?}");
        let [root, child] = &contents.spans[..] else { panic!("{name}: {contents:?}") };
        assert_eq!(
            (root.name().to_uppercase(), child.name()),
            ("GET /CART".to_owned(), "load"),
            "{name}"
        );
        assert_eq!((root.service(), child.service()), ("shop", "shop"), "{name}");
        assert_eq!(
            (root.kind(), root.parent, child.parent),
            (SpanKind::Server, None, Some(root.id)),
            "{name}"
        );
        assert_eq!(
            (root.start(), root.duration()),
            (1_750_000_000_000_000_000, 30_000_000),
            "{name}"
        );
        assert_eq!(root.trace_id, child.trace_id, "{name}");
    }
    let contents = case("protobuf.pb");
    assert_eq!((contents.form, contents.spans.len()), (Form::OtlpProtobuf, 1));
}

#[test]
fn the_output_of_console_exporters_is_read_among_the_lines_of_a_log() {
    for (name, form, start) in [
        ("silent-go-stdouttrace.json", Form::GoConsole, 1_704_164_645_000_000_001),
        ("silent-python-console.json", Form::PythonConsole, 1_704_164_645_000_001_000),
    ] {
        let text = String::from_utf8(bytes(name)).expect("text");
        let log =
            format!("[2024-01-02] started\nGET / 200\n{text}\r\n{text}\n127.0.0.1 - GET / {{x}}\n");
        let contents = read_text(&log);
        let others = "3 lines of text, 1 repeated span";
        assert_eq!((contents.form, &*contents.others.to_string()), (form, others), "{name}");
        assert_eq!(names(&contents), ["list"], "{name}");
        let span = &contents.spans[0];
        assert_eq!(
            (span.service(), span.kind(), span.parent),
            ("shop", SpanKind::Server, None),
            "{name}"
        );
        assert_eq!((span.start(), span.duration()), (start, 10_000_000), "{name}");
        assert_eq!(span.attribute("http.request.method").as_deref(), Some("GET"), "{name}");
    }
}

#[test]
fn the_times_and_records_of_phps_console_exporter_are_read() {
    let text = String::from_utf8(bytes("php-console.json")).expect("text");
    let records = r#"{"resource": {}, "scope": {"name": "monolog", "logs": [{"body": "dice rolled", "trace_id": "e1"}]}}"#;
    let contents = read_text(&format!("{text}{records}\n"));
    assert_eq!(contents.others.to_string(), "1 log record");
    let child = &contents.spans[1];
    assert_eq!((child.duration(), child.status()), (10_000_000, Status::Error));
    assert_eq!(child.status_message(), "no such item");
    assert_eq!(child.proto().events[0].time_unix_nano, 1_750_000_000_015_000_000);
}

/// The file is what the console exporters of PHP's SDK printed, spans and log records, with other ids.
#[test]
fn phps_spans_are_read_beside_its_log_records_and_within_a_scope() {
    let printed = case("php-console-logs.txt");
    assert_eq!((printed.form, &*printed.others.to_string()), (Form::PhpConsole, "1 log record"));
    let [call, root] = &printed.spans[..] else { panic!("{printed:?}") };
    assert_eq!((call.name(), call.kind(), call.parent), ("GET", SpanKind::Client, Some(root.id)));
    assert_eq!((root.name(), root.service(), root.status()), ("GET /cart", "shop", Status::Ok));
    assert_eq!((call.status_message(), call.links.len()), ("no such item".to_owned(), 1));
    assert_eq!(call.proto().events[1].name, "exception");

    let text = String::from_utf8(bytes("php-console-logs.txt")).expect("text");
    // The same spans together, with one resource for all.
    let spans = text[text.find("}[").expect("the spans") + 1..].replace("]\n[", ",");
    let resource = &spans[spans.find("\"resource\"").expect("a resource")..];
    let resource = &resource[..resource.find('}').expect("its end") + 2];
    let spans = spans.replace(resource, "");
    let scope =
        format!(r#"{{"name": "shop", "version": "1.0", "attributes": [], "spans": {spans}}}"#);
    for wrapped in [
        format!(r#"{{{resource} "scope": {scope}}}"#),
        format!(r#"{{{resource} "scopes": [{scope}]}}"#),
        format!(r#"{{{resource} "scope": {scope}}}"#)
            .replace("\"service.name\"", "\"attributes\": {\"service.name\"")
            .replacen("}", "}}", 1),
    ] {
        let contents = read_text(&wrapped);
        assert_eq!((contents.form, contents.others.is_empty()), (Form::PhpConsole, true));
        assert_eq!(names(&contents), ["GET", "GET /cart"]);
        for (span, printed) in contents.spans.iter().zip(&printed.spans) {
            assert_eq!((span.proto(), span.service()), (printed.proto(), "shop"), "{wrapped}");
            assert_eq!((&*span.source.scope.name, &*span.source.scope.version), ("shop", "1.0"));
        }
    }
    // Metrics of the same exporters, and an object that has a scope of its own kind.
    let metrics = r#"{"resource": {}, "scope": {"name": "shop", "metrics": [{"name": "a"}]}}"#;
    let nothing = read::read(metrics.as_bytes()).expect_err("no spans").to_string();
    assert_eq!(nothing, "there are no spans in it, only 1 metric");
    let other = r#"{"scope": {"spans": [{"name": "bridge", "length": 3}]}}"#;
    assert!(matches!(read::read(other.as_bytes()), Err(Unreadable::UnknownJson(_))));
}

/// Its numbers of kinds begin with INTERNAL, and its times are pairs or microseconds.
#[test]
fn the_spans_of_javascripts_sdk_are_read() {
    let rest = r#""name": "GET /cart", "kind": 1, "status": {"code": 2, "message": "late"}, "attributes": {"a": 1},
        "events": [{"name": "retry", "time": [1750000000, 10000000]}]"#;
    for span in [
        format!(
            r#"{{"spanContext": {{"traceId": "e1", "spanId": "01"}}, "parentSpanContext": {{"spanId": "02"}}, {rest},
            "startTime": [1750000000, 0], "endTime": [1750000000, 30000000], "resource": {{"attributes": {{"service.name": "shop"}}}}}}"#
        ),
        format!(
            r#"{{"traceId": "e1", "id": "01", "parentId": "02", {rest}, "timestamp": 1750000000000000, "duration": 30000.0,
            "resource": {{"_attributes": {{"service.name": "shop"}}}}}}"#
        ),
    ] {
        let contents = read_text(&span);
        assert_eq!(contents.form, Form::JavaScript, "{span}");
        assert!(contents.problems.is_empty(), "{contents:?}");
        let span = &contents.spans[0];
        assert_eq!((span.service(), span.kind()), ("shop", SpanKind::Server));
        assert_eq!((span.status(), span.status_message()), (Status::Error, "late".to_owned()));
        assert_eq!((span.start(), span.duration()), (1_750_000_000_000_000_000, 30_000_000));
        assert_eq!(span.proto().events[0].time_unix_nano, 1_750_000_000_010_000_000);
        assert_eq!(span.attribute("a").as_deref(), Some("1"));
        let ids = (span.id.to_string(), span.parent.map(|id| id.to_string()));
        assert_eq!(ids, ("0000000000000001".to_owned(), Some("0000000000000002".to_owned())));
    }
}

/// Go's own JSON of Jaeger's model has numbers where protobuf's has text.
#[test]
fn a_duration_and_an_id_are_numbers_in_gos_json_of_jaeger() {
    let span = r#"{"trace_id": "AAAAAAAAAABSlpqJVVcaPw==", "span_id": "AAAAAABkfZg=", "parent_span_id": 6866147, "operation_name": "get",
        "start_time": "2017-01-26T21:46:31.639875Z", "duration": 22938000}"#;
    let text = format!(r#"{{"process": {{}}, "spans": [{span}]}}"#);
    let contents = read_text(&text);
    let span = &contents.spans[0];
    assert_eq!(span.duration(), 22_938_000);
    assert_eq!(span.parent.map(|id| id.to_string()).as_deref(), Some("000000000068c4e3"));
    for (written, nanoseconds) in
        [("\"5000ns\"", 5000), ("\"1.5ms\"", 1_500_000), ("\"0.1s\"", 100_000_000)]
    {
        let contents = read_text(&text.replace("22938000", written));
        assert_eq!(contents.spans[0].duration(), nanoseconds, "{written}");
    }
}

#[test]
fn a_status_of_phoenix_is_read_from_the_span() {
    let text = String::from_utf8(bytes("silent-python-console.json")).expect("text");
    let text = text.replace(
        r#""status": {"status_code": "UNSET"}"#,
        r#""status_code": "ERROR", "status_message": "late""#,
    );
    let contents = read_text(&text);
    assert_eq!(
        (contents.spans[0].status(), contents.spans[0].status_message()),
        (Status::Error, "late".to_owned())
    );
}

#[test]
fn a_time_that_is_none_is_left_out_and_named() {
    let text = String::from_utf8(bytes("silent-python-console.json")).expect("text");
    let time = "2024-01-02T03:04:05.000001Z";
    assert!(text.contains(time), "{text}");
    let read = |now: &str| read_text(&text.replace(time, now));
    for wrong in [
        "2024-13-02T03:04:05Z",
        "2024-00-02T03:04:05Z",
        "2024-01-00T03:04:05Z",
        "2024-01-32T03:04:05Z",
        "2024-04-31T03:04:05Z",
        "2023-02-29T03:04:05Z",
        "2100-02-29T03:04:05Z",
        "2024-01-02T24:04:05Z",
        "2024-01-02T03:60:05Z",
        "2024-01-02T03:04:61Z",
        "2024-01-02T03:04:05+24:00",
        "2024-01-02T03:04:05+01:60",
        "2024-01-02T03:04:05+1",
        "2024-01-02T03:04:05+01:00:00",
        "2024-01-02T03:04:05+01:00Z",
        "2024-01-02T03:04:05.Z",
        "2024-01-02T03:04:05.1x",
        "2024-01-02T03:04:05 Z",
        "2024/01/02T03:04:05Z",
        "2024-01-02-03:04:05Z",
        "2024-01-02T03-04-05Z",
        "2024-1-2T03:04:05Z",
        "2024-01-02",
        "+024-01-02T03:04:05Z",
        "2024-01-02T03:04",
        "today",
        "1704164645",
    ] {
        let contents = read(wrong);
        assert_eq!(contents.spans[0].start(), 0, "{wrong}");
        let problem = contents.problems[0].to_string();
        assert_eq!(
            problem,
            format!(
                "line 4: span \"list\": the field \"start_time\" is left out: {wrong:?} is not a time"
            )
        );
    }
    for (right, nanoseconds) in [
        (time, 1_704_164_645_000_001_000),
        ("2024-01-02T03:04:05", 1_704_164_645_000_000_000),
        ("2024-01-02t03:04:05z", 1_704_164_645_000_000_000),
        ("2024-01-02 03:04:05Z", 1_704_164_645_000_000_000),
        ("2024-01-02T04:34:05.5+01:30", 1_704_164_645_500_000_000),
        ("2024-01-01T19:04:05,25-0800", 1_704_164_645_250_000_000),
        ("2024-01-02T04:04:05+01", 1_704_164_645_000_000_000),
        ("2024-01-02T03:04:05.0000000019Z", 1_704_164_645_000_000_001),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        ("2000-02-29T00:00:00Z", 951_782_400_000_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", 0),
    ] {
        let contents = read(right);
        assert_eq!(contents.spans[0].start(), nanoseconds, "{right}");
        assert!(contents.problems.is_empty(), "{right}: {contents:?}");
    }
}

/// A document that breaks off costs a look at the rest of the text, so a text may have many.
#[test]
fn documents_behind_many_broken_ones_are_read() {
    let good = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "01", "spanId": "02", "name": "kept"}]}]}]}"#;
    let broken = "{\"resourceSpans\": [{\"a\":\n".repeat(100_000);
    let contents = read_text(&format!("{broken}{good}\n"));
    assert_eq!((names(&contents), contents.unread), (vec!["kept"], 100_001));
    let first = contents.problems[1].to_string();
    assert!(
        first.contains(": too many documents break off before this line, so from here on"),
        "{first}"
    );
    // A few are looked through to their ends.
    let few = read_text(&format!("{}{good}\n", "{\"resourceSpans\": [{\"a\":\n".repeat(10)));
    assert_eq!((names(&few), few.unread), (vec!["kept"], 10));
}

#[test]
fn a_log_of_containers_is_read_without_what_stands_before_each_line() {
    let text = String::from_utf8(bytes("silent-go-stdouttrace.json")).expect("text");
    for prefix in ["shop-1  | ", "2026-01-28T09:58:44Z stdout F "] {
        let log: String = text.lines().map(|line| format!("{prefix}{line}\n")).collect();
        assert_eq!(names(&read_text(&log)), ["list"], "{log}");
    }
}

#[test]
fn ids_of_an_example_are_replaced_and_belong_together() {
    let text = String::from_utf8(bytes("silent-jaeger-download.json")).expect("text");
    let text = text
        .replace("\"0000000000000001\"", "\"span-1\"")
        .replace("00000000000000e10000000000000000", "t");
    let line = text.replace('\n', " ");
    // The same spans again are the same, and one warning is enough.
    let contents = read_text(&format!("{text}\n{line}\n"));
    let [root, child] = &contents.spans[..] else { panic!("{contents:?}") };
    assert_eq!((child.parent, contents.others.repeated), (Some(root.id), 2));
    let problems: Vec<String> = contents.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "line 1: the ids of 4 of the spans are neither hexadecimal nor base64: they have other ids here"
        ]
    );
    // In each version of the lab, so that the address of a span stays right.
    assert_eq!(root.id.to_string(), "c704145f4f203041");
}

/// A file may have ids of any length, also of a megabyte. Only as much is kept as an id is long.
#[test]
fn ids_of_any_length_are_kept_in_the_length_of_an_id() {
    for digits in [1, 15, 17, 31, 33, 1 << 20] {
        let id = "a".repeat(digits);
        for text in [
            format!(
                r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{{"traceId": "{id}", "spanId": "{id}", "parentSpanId": "{id}b",
                    "links": [{{"traceId": "{id}", "spanId": "{id}"}}]}}]}}]}}],
                    "resourceLogs": [{{"scopeLogs": [{{"logRecords": [{{"traceId": "{id}", "spanId": "{id}"}}]}}]}}]}}"#
            ),
            format!(
                r#"{{"traceID": "{id}", "spanID": "{id}", "operationName": "a",
                    "references": [{{"traceID": "{id}", "spanID": "{id}b"}}, {{"traceID": "b{id}", "spanID": "{id}"}}]}}"#
            ),
            format!(
                r#"[{{"traceId": "{id}", "id": "{id}", "parentId": "{id}b", "localEndpoint": {{"serviceName": "shop"}}}}]"#
            ),
        ] {
            let contents = read_text(&text);
            let span = contents.spans[0].proto();
            let links = span.links.iter().map(|it| (it.trace_id.len(), it.span_id.len()));
            let own = (span.trace_id.len(), span.span_id.len(), span.parent_span_id.len());
            assert_eq!(own, (16, 8, 8), "{digits} digits");
            assert!(links.into_iter().all(|it| it == (16, 8)), "{digits} digits");
            let records = contents.logs.iter().map(|it| it.proto());
            let lengths = records.map(|it| (it.trace_id.len(), it.span_id.len()));
            assert!(lengths.into_iter().all(|it| it == (16, 8)), "{digits} digits");
        }
    }
}

#[test]
fn fields_that_exporters_leave_out_cost_nothing() {
    let contents = case("empty-array-attribute.jsonl");
    assert!(contents.problems.is_empty(), "{contents:?}");
    assert_eq!(names(&contents), ["lost with its line", "neighbour", "kept"]);
    assert_eq!(contents.spans[0].attribute("items").as_deref(), Some("[]"));
    let contents = case("attribute-without-key.json");
    assert!(contents.problems.is_empty(), "{contents:?}");
    assert_eq!(contents.spans[0].attribute("").as_deref(), Some("v"));
}

#[test]
fn what_cannot_be_read_costs_itself_alone_and_is_named() {
    let contents = case("int-out-of-range.json");
    assert_eq!(names(&contents), ["x", "neighbour"]);
    let [problem] = &contents.problems[..] else { panic!("{contents:?}") };
    assert_eq!(
        problem.to_string(),
        "line 29: span \"x\": the attribute \"items\" is left out: 18446744073709552000 is not an integer of 64 bits"
    );
    // A span without an id.
    let text = String::from_utf8(bytes("refused-base64-ids.json")).expect("text");
    let found = read_text(&text.replace("AAAAAAAAAAI=", ""));
    assert_eq!(names(&found), ["GET /cart"]);
    assert_eq!(
        found.problems[0].to_string(),
        "line 31: span \"load\": the span id must be 8 bytes and not all zero"
    );
}

/// In a document over several lines, the line is that of the value or of the span.
#[test]
fn a_problem_names_the_line_where_it_is() {
    let span = |name: &str, id: &str, value: &str| {
        format!(
            "{{\n\"traceId\": \"01\",\n\"spanId\": \"{id}\",\n\"name\": \"{name}\",\n\"startTimeUnixNano\": {value},
             \"attributes\": [\n{{\"key\": \"items\",\n\"value\": {{\"intValue\": {value}}}}}]}}"
        )
    };
    let document = |spans: &[String]| {
        format!(
            "\n{{\"resourceSpans\": [{{\"scopeSpans\": [{{\"spans\": [\n{}]}}]}}]}}",
            spans.join(",\n")
        )
    };
    let problems = |text: &str| -> Vec<String> {
        read_text(text).problems.iter().map(ToString::to_string).collect()
    };
    let found = problems(&document(&[span("a", "02", "1"), span("b", "03", "\"x\"")]));
    let [time, attribute] = &found[..] else { panic!("{found:?}") };
    assert!(time.starts_with("line 15: span \"b\": the field \"startTimeUnixNano\""), "{time}");
    assert!(attribute.starts_with("line 17: span \"b\": the attribute \"items\""), "{attribute}");
    let found = problems(&document(&[span("a", "02", "1"), span("b", "", "1")]));
    assert_eq!(found, ["line 14: span \"b\": the span id must be 8 bytes and not all zero"]);
    // One of two with this name.
    let found = problems(&document(&[span("b", "02", "1"), span("b", "", "1")]));
    assert_eq!(found, ["line 2: span \"b\": the span id must be 8 bytes and not all zero"]);
    let found = read::read(b"\n{\n\"resourceSpans\": [\n  x\n]}").expect_err("broken").to_string();
    assert_eq!(found, "line 4: not JSON: expected value, in column 3");
}

/// JavaScript writes half an emoji so when a text is cut, and other readers refuse the whole document.
#[test]
fn half_a_character_costs_itself_alone() {
    for (written, expected) in [
        (r"a\ud83d", "a\u{fffd}"),
        (r"\ude00b", "\u{fffd}b"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\\ud83d \ud83d", "\\ud83d \u{fffd}"),
    ] {
        let text = format!(
            r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{{"traceId": "{:032x}", "spanId": "{:016x}", "name": "{written}"}}]}}]}}]}}"#,
            1, 2
        );
        assert_eq!(names(&read_text(&text)), [expected]);
        let batch = otlp::from_json(text.as_bytes()).expect("spans");
        assert_eq!(batch.items[0].name(), expected);
    }
}

#[test]
fn words_as_ids_are_read_in_zipkins_form_too() {
    let text = r#"[{"traceId": "abc-trace", "id": "abc-span", "name": "a", "timestamp": 1, "duration": 2, "localEndpoint": {"serviceName": "shop"}},
        {"traceId": "abc-trace", "id": "b", "parentId": "abc-span", "name": "b", "timestamp": 1, "duration": 2, "localEndpoint": {"serviceName": "shop"}}]"#;
    let contents = read_text(text);
    let [root, child] = &contents.spans[..] else { panic!("{contents:?}") };
    assert_eq!((child.parent, contents.form), (Some(root.id), Form::Zipkin));
    assert!(contents.problems[0].to_string().contains("they have other ids here"));
}

#[test]
fn otlp_json_is_read_in_every_spelling_and_wrapper() {
    let text = String::from_utf8(bytes("refused-base64-ids.json")).expect("text");
    let snake =
        ["resourceSpans", "scopeSpans", "traceId", "spanId", "parentSpanId", "startTimeUnixNano"];
    let snake = snake.iter().fold(text.clone(), |text, name| {
        let with = |it: char| {
            if it.is_uppercase() { format!("_{}", it.to_lowercase()) } else { it.to_string() }
        };
        text.replace(name, &name.chars().map(with).collect::<String>())
    });
    let bare = text.split_once('[').and_then(|(_, it)| it.rsplit_once(']')).expect("a list").0;
    let old = text
        .replace("scopeSpans", "instrumentationLibrarySpans")
        .replace("\"scope\"", "\"instrumentationLibrary\"");
    let hex = text
        .replace("AAAAAAAAAOEAAAAAAAAAAA==", "E10000000000000000")
        .replace("AAAAAAAAAAE=", "0x1");
    for spelling in [
        &snake,
        &old,
        &hex,
        &format!("[{text}]"),
        &format!(r#"{{"trace": {text}, "metrics": {{}}, "status": "COMPLETE"}}"#),
        &format!(r#"{{"result": {text}}}"#),
        &text.replace("resourceSpans", "batches"),
        bare,
        &format!("INFO: exported {}", bare.replace('\n', "")),
    ] {
        let contents = read_text(spelling);
        assert_eq!(names(&contents), ["GET /cart", "load"], "{spelling}");
        assert_eq!(contents.form, Form::OtlpJson);
        assert_eq!(contents.spans[1].parent, Some(contents.spans[0].id), "{spelling}");
        assert_eq!(
            contents.spans[0].trace_id.to_string(),
            "00000000000000e10000000000000000",
            "{spelling}"
        );
    }
}

#[test]
fn other_signals_and_other_documents_are_counted_and_left_out() {
    let spans = String::from_utf8(bytes("bom-utf8.json")).expect("text");
    let logs = r#"{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": ""}, {}]}]}]}"#;
    let metrics = r#"{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{}]}]}]}"#;
    let contents = read_text(&format!("{spans}\n{logs}\n{metrics}\n{{\"level\": \"info\"}}\n"));
    assert_eq!(contents.spans.len(), 2);
    assert_eq!(
        contents.others.to_string(),
        "2 log records without a trace, 1 metric, 1 other JSON document"
    );
    assert!(contents.problems.is_empty(), "{contents:?}");
    let error = read::read(logs.as_bytes()).expect_err("no spans").to_string();
    assert_eq!(error, "there are no spans in it, only 2 log records without a trace");
}

#[test]
fn jaegers_tags_become_the_fields_that_they_were_made_from() {
    let text = r#"{"traceID": "1", "spans": [
        {"traceID": "1", "spanID": "a", "operationName": "call", "startTime": 1, "duration": 2, "processID": "p1",
         "references": [{"refType": "FOLLOWS_FROM", "traceID": "2", "spanID": "c"}, {"refType": "CHILD_OF", "traceID": "1", "spanID": "b"}],
         "tags": [{"key": "span.kind", "type": "string", "value": "client"}, {"key": "error", "type": "bool", "value": "true"},
                  {"key": "otel.status_description", "type": "string", "value": "refused"}, {"key": "n", "type": "int64", "value": "7"},
                  {"key": "otel.scope.name", "type": "string", "value": "http"}],
         "logs": [{"timestamp": 2, "fields": [{"key": "event", "type": "string", "value": "retry"}]}], "warnings": ["skewed"]}],
        "processes": {"p1": {"serviceName": "shop", "tags": [{"key": "host", "type": "string", "value": "h"}]}}}"#;
    let contents = read_text(text);
    let span = &contents.spans[0];
    assert_eq!(
        (span.kind(), span.status(), span.status_message()),
        (SpanKind::Client, Status::Error, "refused".to_owned())
    );
    assert_eq!(
        (span.id.to_string(), span.parent.map(|it| it.to_string())),
        ("000000000000000a".to_owned(), Some("000000000000000b".to_owned()))
    );
    assert_eq!((span.start(), span.duration(), span.links.len()), (1000, 2000, 1));
    assert_eq!(span.source.scope.name, "http");
    assert_eq!(
        ["n", "jaeger.warnings", "error", "span.kind"].map(|it| span.attribute(it)),
        [Some("7".to_owned()), Some("[\"skewed\"]".to_owned()), None, None]
    );
    assert_eq!(span.proto().events[0].name, "retry");
}

#[test]
fn zipkins_error_tag_and_endpoints_are_kept() {
    let text = r#"[[{"traceId": "1", "id": "2", "kind": "CLIENT", "name": "get", "timestamp": 1, "duration": 2, "tags": {"error": "", "k": "v"},
        "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1", "port": 80}, "remoteEndpoint": {"serviceName": "db"},
        "annotations": [{"timestamp": 2, "value": "ws"}]}], [{"traceId": "3", "id": "4"}]]"#;
    let contents = read_text(text);
    let [call, bare] = &contents.spans[..] else { panic!("{contents:?}") };
    assert_eq!(
        (call.status(), call.kind(), bare.service(), bare.start()),
        (Status::Error, SpanKind::Client, "unknown_service", 0)
    );
    let expected = [
        ("k", "v"),
        ("peer.service", "db"),
        ("network.local.address", "10.0.0.1"),
        ("network.local.port", "80"),
    ];
    for (key, value) in expected {
        assert_eq!(call.attribute(key).as_deref(), Some(value));
    }
}

/// An entry without a kind and a duration is what a tracer has sent late of a span.
#[test]
fn late_parts_of_a_zipkin_span_are_joined_to_it() {
    let text = r#"[{"traceId": "1", "id": "2", "tags": {"late": "1", "k": "no"}, "localEndpoint": {"serviceName": "shop"}},
        {"traceId": "1", "id": "2", "kind": "CLIENT", "name": "get", "timestamp": 1, "duration": 2, "tags": {"k": "v"}, "localEndpoint": {"serviceName": "web"}},
        {"traceId": "1", "id": "2", "kind": "SERVER", "name": "get", "timestamp": 1, "duration": 2, "shared": true, "localEndpoint": {"serviceName": "shop"}},
        {"traceId": "1", "id": "2", "timestamp": 2, "annotations": [{"timestamp": 2, "value": "retry"}]},
        {"traceId": "1", "id": "3", "name": "alone", "tags": {"k": "v"}},
        {"traceId": "1", "id": "4", "name": "local", "timestamp": 1, "duration": 1}]"#;
    let contents = read_text(text);
    let spans = contents.spans.iter().map(|span| {
        let texts = ["late", "k"].map(|key| span.attribute(key).unwrap_or_default());
        (span.kind(), texts.join("-"), span.proto().events.len())
    });
    let mut spans: Vec<_> = spans.collect();
    spans.sort();
    let expected = [
        (SpanKind::Unspecified, "-", 0),
        (SpanKind::Unspecified, "-v", 0),
        (SpanKind::Server, "1-no", 0),
        (SpanKind::Client, "-v", 1),
    ];
    assert_eq!(spans, expected.map(|(kind, texts, events)| (kind, texts.to_owned(), events)));
}

/// In version 1 both sides of a call may be in one span.
#[test]
fn zipkins_version_1_is_read_by_its_annotations() {
    let case = Case::read(&bytes("zipkin-version-1.json")).expect("a case");
    let rows = case.trees[0].rows.iter().map(|row| {
        let span = &row.span;
        (row.depth, span.kind(), span.service(), span.start(), span.duration())
    });
    let expected = [
        (0, SpanKind::Client, "front", 10_000, 30_000),
        (1, SpanKind::Server, "back", 15_000, 20_000),
        (2, SpanKind::Unspecified, "back", 20_000, 5_000),
    ];
    assert_eq!(rows.collect::<Vec<_>>(), expected);
    let called = &case.trees[0].rows[1].span;
    assert_eq!(called.attribute("k").as_deref(), Some("v"));
    assert_eq!(called.proto().events[0].name, "cache miss");
}

/// The two sides of a call share an id in Zipkin's model.
#[test]
fn both_spans_that_share_an_id_are_kept_in_the_right_places() {
    let case = Case::read(&bytes("shared-span-id.json")).expect("a case");
    let [tree] = &case.trees[..] else { panic!("{case:?}") };
    let rows: Vec<_> =
        tree.rows.iter().map(|row| (row.depth, row.span.name(), row.span.service())).collect();
    assert_eq!(
        rows,
        [
            (0, "get", "front"),
            (1, "get", "front"),
            (2, "get /things", "back"),
            (3, "lookup", "back")
        ]
    );
    let called = &tree.rows[2].span;
    assert_eq!(called.shared_id(), Some(tree.rows[1].span.id));
    let ids: BTreeSet<_> = tree.rows.iter().map(|row| row.span.id).collect();
    assert_eq!(ids.len(), 4);
    // The file has the ids as they came, so opening it gives the same tree.
    let again = Case::read(&case.to_json().expect("JSON")).expect("a case");
    assert_eq!(again.trees[0].to_text(), tree.to_text());
    assert_eq!(again.trees[0].rows[2].span.id, called.id);
}

#[test]
fn what_is_packed_or_in_utf16_is_read() {
    let text = String::from_utf8(bytes("refused-zipkin.json")).expect("text");
    let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect()
    };
    let frame = ruzstd::encoding::compress_to_vec(
        text.as_bytes(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7][..], &frame].concat();
    let protobuf = bytes("protobuf.pb");
    let length = u32::try_from(protobuf.len()).expect("short").to_be_bytes();
    let framed = [&length[..], &protobuf].concat();
    for (bytes, spans) in [
        (utf16(u16::to_le_bytes), 2),
        (utf16(u16::to_be_bytes), 2),
        (text.encode_utf16().flat_map(u16::to_be_bytes).collect(), 2),
        (gzip(text.as_bytes()), 2),
        (gzip(&frame), 2),
        (frame, 2),
        (skippable, 2),
        (gzip(&protobuf), 1),
        // As the Collector's file exporter writes it.
        ([&framed[..], &framed].concat(), 2),
    ] {
        let contents = read::read(&bytes).expect("spans");
        assert_eq!(contents.spans.len() + contents.others.repeated, spans);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("gzip")
}

#[test]
fn a_file_that_unpacks_to_too_much_is_refused() {
    let zeros = vec![b' '; 1024 * 1024];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..=UNPACKED_LIMIT / zeros.len() {
        encoder.write_all(&zeros).expect("written");
    }
    let error = read::read(&encoder.finish().expect("gzip")).expect_err("too much").to_string();
    assert_eq!(error, "it unpacks to more than 268435456 bytes");
    let mut broken = gzip(&bytes("refused-zipkin.json"));
    broken.truncate(100);
    let error = read::read(&broken).expect_err("broken").to_string();
    assert!(error.starts_with("it begins like gzip and can't be unpacked"), "{error}");
}

#[test]
fn what_is_not_read_is_refused_by_its_name_with_a_way_out() {
    let xray = String::from_utf8(bytes("silent-xray.json")).expect("text");
    for (text, expected) in [
        (&*xray, Foreign::XRay),
        (
            r#"[[{"trace_id": 12, "span_id": 3, "resource": "GET /", "service": "a"}]]"#,
            Foreign::Datadog,
        ),
        (r#"{"traceEvents": [{"ph": "X", "ts": 1}]}"#, Foreign::ChromeTrace),
        (r#"[{"ph": "X", "ts": 1, "pid": 1}]"#, Foreign::ChromeTrace),
        ("{\"metadata\": {}}\n{\"transaction\": {\"id\": \"1\"}}", Foreign::ElasticApm),
        (r#"{"projectId": "p", "traceId": "1", "spans": [{"spanId": "1"}]}"#, Foreign::CloudTrace),
        (r#"{"event_id": "1", "contexts": {"trace": {}}, "spans": []}"#, Foreign::Sentry),
        (r#"{"traces": [{"traceID": "1", "rootTraceName": "a"}]}"#, Foreign::TempoSearch),
        (
            r#"{"traceID": "1", "rootTraceName": "a", "spanSet": {"spans": []}}"#,
            Foreign::TempoSearch,
        ),
        (r#"{"batchWriteSpansRequest": [{"name": "p", "spans": []}]}"#, Foreign::CloudTrace),
        (
            r#"{"data": [{"fields": [{"name": "traceID", "values": ["1"]}]}]}"#,
            Foreign::GrafanaFrame,
        ),
        (
            r#"[{"traceId": "1", "traceSegmentId": "2", "spans": [{"operationName": "a", "startTime": 1, "spanId": 0}]}]"#,
            Foreign::SkyWalking,
        ),
        (
            r#"{"trace": {"id": "1"}, "observations": [{"id": "2", "startTime": "a"}]}"#,
            Foreign::Langfuse,
        ),
        (r#"{"post": [{"id": "1", "dotted_order": "a"}]}"#, Foreign::LangSmith),
        (
            "2022-06-09 DEBUG {\"kind\": \"exporter\"}\nSpan #0\n    Trace ID       : 7d40\n",
            Foreign::CollectorDebug,
        ),
        (
            "{\n  name          : /a\n  parent_span_id: 00\n  span kind     : Client\n}",
            Foreign::CppConsole,
        ),
        (
            "'GET /' : 70c2 7fd1 SERVER [tracer:\n a:1] AttributesMap{data=\n{}}",
            Foreign::JavaConsole,
        ),
        (
            r#"{"data": null, "errors": [{"code": 404, "msg": "trace not found"}]}"#,
            Foreign::ErrorAnswer,
        ),
        (r#"{"log": {"entries": []}}"#, Foreign::Har),
        ("{\n  resource: {},\n  traceId: '61e8',\n  name: 'GET'\n}", Foreign::JavaScriptConsole),
        ("Activity.TraceId:            61e8\n", Foreign::DotNetConsole),
        ("<!DOCTYPE html><p>Sign in", Foreign::Html),
        ("PK\u{3}\u{4}\u{0}", Foreign::Archive),
        ("\u{1}\u{0}", Foreign::Binary),
    ] {
        let error = read::read(text.as_bytes()).expect_err(text);
        assert!(
            matches!(&error, Unreadable::Foreign { foreign } if *foreign == expected),
            "{text}: {error}"
        );
        let error = error.to_string();
        assert!(
            error.contains("The lab reads OTLP in JSON or protobuf") && !error.ends_with(". "),
            "{error}"
        );
    }
    let record = r#"{"traceId": "3f2a", "id": "order-7", "msg": "no span"}"#;
    let error = read::read(record.as_bytes()).expect_err("a record");
    assert!(matches!(error, Unreadable::UnknownJson(_)), "{error}");
    let error = read::read(br#"{"a": 1, "b": 2}"#).expect_err("unknown").to_string();
    assert!(
        error.starts_with(
            "it is JSON without spans in a form that the lab knows (its fields: a, b)"
        ),
        "{error}"
    );
}

#[test]
fn the_schemas_of_resource_and_scope_are_saved() {
    let text = String::from_utf8(bytes("refused-base64-ids.json")).expect("text");
    let text = text
        .replacen("\"resource\":", "\"schemaUrl\": \"https://a.example\", \"resource\":", 1)
        .replacen("\"scope\":", "\"schemaUrl\": \"https://b.example\", \"scope\":", 1);
    let contents = read_text(&text);
    let request = otlp::to_request(&contents.spans);
    for spans in [
        otlp::from_protobuf(request.encode_to_vec().into()).expect("spans").items,
        otlp::from_request(request).expect("spans").items,
        contents.spans,
    ] {
        let again = &otlp::to_request(&spans).resource_spans[0];
        assert_eq!(again.schema_url, "https://a.example");
        assert_eq!(again.scope_spans[0].schema_url, "https://b.example");
    }
}

#[test]
fn integers_that_readers_of_json_would_round_are_text() {
    let json = |number| span::json(Some(&Value::IntValue(number)));
    assert_eq!(json((1 << 53) - 1), (1_i64 << 53) - 1);
    assert_eq!(json(1 << 53), "9007199254740992");
    assert_eq!(json(i64::MIN), "-9223372036854775808");
    let value = Some(AnyValue { value: Some(Value::IntValue(1 << 53)) });
    assert_eq!(span::any_text(&value), "9007199254740992");
}

/// A span with the id, name, kind, service and start of another is dropped only if the other says as much.
#[test]
fn only_a_span_that_says_no_more_than_another_is_dropped() {
    let span = "1 shop 1 SERVER 0..9 list";
    let spans = |rows: &[&str]| {
        let text: String = rows.iter().map(|row| format!("{}\n", table(row))).collect();
        let contents = read_text(&text);
        let repeated = contents.others.repeated;
        let case = Case::from(contents);
        (case.trees[0].rows.len(), repeated)
    };
    let (a, both) = (format!("{span} a=1"), format!("{span} b=2 a=1"));
    assert_eq!(spans(&[span, span, span]), (1, 2));
    // As exporters write a span again that has more by then, and as a proxy adds to one of two copies.
    assert_eq!(spans(&[span, &a, &both, &a]), (1, 3));
    for other in [
        "a=2",
        "b=1",
        "error=late",
        r#"{"events": [{"name": "a"}]}"#,
        r#"{"endTimeUnixNano": "1"}"#,
    ] {
        let other = format!("{span} {other}");
        assert_eq!(spans(&[&a, &other, &a, &other]), (2, 2), "{other}");
    }
    // Whatever their order is, they get the same ids.
    let ids = |rows: [&str; 2]| -> BTreeSet<_> {
        let text = rows.map(|row| table(row).to_string()).join("\n");
        let case = Case::read(text.as_bytes()).expect("a case");
        case.trees[0].rows.iter().map(|row| (row.span.id, row.span.attribute("a"))).collect()
    };
    let other = format!("{span} a=2");
    assert_eq!(ids([&a, &other]), ids([&other, &a]));
}

#[test]
fn a_span_that_was_written_again_at_its_end_has_ended() {
    let ended = table("1 shop 1 SERVER 0..9 list");
    let started = table(r#"1 shop 1 SERVER 0..9 list {"endTimeUnixNano": "0"}"#);
    let case = Case::read(format!("{started}\n{ended}").as_bytes()).expect("a case");
    let ended: Vec<bool> = case.trees[0].rows.iter().map(|row| row.span.has_ended()).collect();
    assert_eq!(ended, [true]);
}

#[test]
fn times_of_requests_are_text_in_json_and_numbers_are_read() {
    let exchange = Exchange {
        hop: "shop".to_owned(),
        to: "shop".to_owned(),
        start: u64::MAX,
        end: Some(u64::MAX - 1),
        sent: "GET / HTTP/1.1\r\n".to_owned(),
        delivered: None,
        status: None,
        fault: None,
    };
    let mut json = serde_json::to_value(&exchange).expect("JSON");
    assert_eq!([&json["start"], &json["end"]], ["18446744073709551615", "18446744073709551614"]);
    let read = |json: &serde_json::Value| serde_json::from_value::<Exchange>(json.clone()).ok();
    assert_eq!(read(&json), Some(exchange.clone()));
    json["start"] = u64::MAX.into();
    json["end"] = (u64::MAX - 1).into();
    assert_eq!(read(&json), Some(exchange.clone()));
    json["end"] = serde_json::Value::Null;
    assert_eq!(read(&json), Some(Exchange { end: None, ..exchange }));
    json["start"] = "soon".into();
    assert_eq!(read(&json), None);
}

/// Documents of 40 KB each, 120 of them, with a span each.
fn large_documents() -> Vec<serde_json::Value> {
    let value = "x".repeat(40_000);
    let row = |id: usize| format!("1 shop {id} SERVER 0..9 span-{id} value={value}");
    (1..=120).map(|id| table(&row(id))).collect()
}

/// Reads a file in pieces. Returns the names of its spans in each piece.
fn pieces(bytes: &[u8]) -> (Vec<Vec<String>>, Contents) {
    let mut pieces = Vec::new();
    let sink = |Piece { spans, .. }: Piece| {
        pieces.push(spans.iter().map(|span| span.name().to_owned()).collect());
    };
    let contents = read::stream(bytes, sink).expect("spans");
    (pieces, contents)
}

/// A file in pieces has the same spans as the whole file, however its documents are cut.
#[test]
fn a_large_file_is_read_in_pieces() {
    let documents = large_documents();
    let join = |between: &str, write: &dyn Fn(&serde_json::Value) -> String| {
        documents.iter().map(write).collect::<Vec<_>>().join(between)
    };
    let lines = join("\n", &|it| it.to_string());
    let pretty = join("\n", &|it| format!("{it:#}"));
    let gzip = |text: &str| gzip_bytes(text.as_bytes());
    let half = lines.len() / 2;
    let members = [gzip(&lines[..half]), gzip(&lines[half..])].concat();
    let protobuf = documents.iter().flat_map(|document| {
        let batch = otlp::from_json(document.to_string().as_bytes()).expect("spans");
        let message = otlp::to_request(&batch.items).encode_to_vec();
        let length = u32::try_from(message.len()).expect("small").to_be_bytes();
        [&length[..], &message].concat()
    });
    for (form, bytes) in [
        ("lines", lines.clone().into_bytes()),
        ("laid out", pretty.clone().into_bytes()),
        ("without line ends", join("", &|it| it.to_string()).into_bytes()),
        (
            "a byte order mark, CRLF",
            format!("\u{feff}{}", pretty.replace('\n', "\r\n")).into_bytes(),
        ),
        ("a log", join("\nstarted 1 é [x]\n", &|it| it.to_string()).into_bytes()),
        ("a log of docker", join("\n", &|it| format!("shop-1  | {it}")).into_bytes()),
        ("one document", format!("[{}]", join(",", &|it| it.to_string())).into_bytes()),
        ("gzip", gzip(&lines)),
        ("two members of gzip", members),
        ("gzip in gzip", gzip_bytes(&gzip(&lines))),
        ("messages of protobuf", protobuf.collect()),
    ] {
        let (pieces, contents) = pieces(&bytes);
        let expected: Vec<String> = (1..=120).map(|id| format!("span-{id}")).collect();
        assert_eq!(pieces.concat(), expected, "{form}");
        assert_eq!((contents.count, contents.unread), (120, 0), "{form}: {contents:?}");
        assert!(
            ["one document", "without line ends"].contains(&form) || pieces.len() > 1,
            "{form} is read as a whole"
        );
        let whole = read::read(&bytes).expect("spans");
        assert_eq!((whole.form, whole.others), (contents.form, contents.others), "{form}");
    }
}

fn gzip_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

/// The lab shows the spans before the cut, and the reason why the rest is missing.
#[test]
fn a_large_file_that_is_cut_off_costs_only_its_end() {
    let lines: Vec<String> = large_documents().iter().map(ToString::to_string).collect();
    let lines = lines.join("\n");
    let packed = gzip_bytes(lines.as_bytes());
    for (bytes, reason) in [
        (&packed[..packed.len() - 100], "it begins like gzip and can't be unpacked"),
        (&lines.as_bytes()[..lines.len() - 100], "not JSON: EOF"),
    ] {
        let (pieces, contents) = pieces(bytes);
        assert!(pieces.concat().len() >= 100, "{}", contents.count);
        let problems: Vec<String> = contents.problems.iter().map(ToString::to_string).collect();
        assert!(problems.iter().any(|it| it.contains(reason)), "{problems:?}");
    }
}

/// The spans of a piece are handed on before the next one is read.
#[test]
fn a_large_file_is_never_in_memory_as_a_whole() {
    use std::cell::Cell;
    struct Counted<'a> {
        from: &'a [u8],
        read: &'a Cell<usize>,
    }
    impl std::io::Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.from.read(buffer)?;
            self.read.set(self.read.get() + count);
            Ok(count)
        }
    }
    let line = large_documents()[0].to_string() + "\n";
    let lines = line.repeat(500);
    let (read, handed_on) = (Cell::new(0), Cell::new(0));
    let mut most = 0;
    let sink = |Piece { spans, .. }: Piece| {
        most = most.max(read.get() - handed_on.get());
        handed_on.set(read.get());
        assert!(!spans.is_empty());
    };
    read::stream(Counted { from: lines.as_bytes(), read: &read }, sink).expect("spans");
    assert_eq!(read.get(), lines.len());
    assert!(most <= lines.len() / 4, "{most} of {} bytes", lines.len());
}

/// Each of these lines begins a list that never ends. Looking for its end from each line would take the square of their number.
#[test]
fn lists_that_break_off_are_given_up() {
    let span = table("1 shop 1 SERVER 0..9 kept").to_string();
    let file = |line: &str, long: usize| {
        format!("{}{}\n{span}\n", line.repeat(200), "1,".repeat(long)).into_bytes()
    };
    let is_given_up = |contents: &Contents| {
        let mut problems = contents.problems.iter().map(ToString::to_string);
        problems.any(|it| it.contains("too many documents break off"))
    };
    for line in ["[1,\n", "[\n", "[\"a\",\n", "{\"a\": [\n"] {
        let contents = read::read(&file(line, 20_000)).expect("a span");
        assert_eq!(names(&contents), ["kept"]);
        assert!(is_given_up(&contents), "{line}: {:?}", contents.problems.first());
    }
    let (pieces, contents) = pieces(&file("[1,\n", 2_200_000));
    assert_eq!(pieces.concat(), ["kept"]);
    assert!(is_given_up(&contents), "{:?}", contents.problems);
}

/// A process of Jaeger that many spans share is read once, so its flaw is counted once.
#[test]
fn a_shared_process_is_read_once() {
    let span = |id: usize| {
        serde_json::json!({ "traceID": "1", "spanID": format!("{id:x}"), "operationName": "a",
            "startTime": 1, "duration": 1, "processID": "p1" })
    };
    let tags = serde_json::json!([{ "key": "pid", "type": "int64", "value": "many" }]);
    let file = serde_json::json!({ "data": [{ "traceID": "1", "spans": (1..=50).map(span).collect::<Vec<_>>(),
        "processes": { "p1": { "serviceName": "shop", "tags": tags } } }] });
    let contents = read_text(&file.to_string());
    assert_eq!((contents.spans.len(), contents.unread), (50, 1));
    assert!(contents.spans.iter().all(|span| span.service() == "shop"));
}
