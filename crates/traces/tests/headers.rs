//! Headers as people paste them, and what is said about them.

use traces::case::Case;
use traces::diagnose::{Evidence, Rule, Seen};
use traces::headers::{Format, Pasted, find};
use traces::read::Unreadable;
use traces::report;
use traces::span::{span_id, trace_id};

const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01";

fn traceparent(values: &[&str]) -> Pasted {
    Pasted::Traceparent(values.iter().map(|value| (*value).to_owned()).collect())
}

fn text(pasted: &str) -> String {
    report::text(&Case::read(pasted.as_bytes()).expect("a case"), "")
}

#[test]
fn a_traceparent_is_found_however_it_was_pasted() {
    for pasted in [
        VALID.to_owned(),
        format!("\"{VALID}\""),
        format!("trace={VALID} method=GET"),
        format!("GET / HTTP/1.1\r\nhost: x\r\nTraceparent:  {VALID} \r\n\r\n"),
        format!("> GET /api HTTP/1.1\n> host: x\n> traceparent: {VALID}\n>\n< HTTP/1.1 200 OK\n"),
        format!("* [HTTP/2] [1] [traceparent: {VALID}]\n> GET / HTTP/2\n> traceparent: {VALID}\n"),
        format!("< HTTP/1.1 200 OK\n< traceparent: {VALID}\n"),
        format!("curl -v -H 'traceparent: {VALID}' http://localhost"),
        format!("curl http://localhost \\\n  -H \"Traceparent: {VALID}\" \\\n  -d '{{}}'"),
        format!("curl -H $'traceparent: {VALID}' http://localhost"),
        format!("curl -Htraceparent:{VALID} http://localhost"),
        format!("curl --header=traceparent:{VALID} http://localhost"),
        format!("curl --header='traceparent: {VALID}' http://localhost"),
        format!("http POST :5000/api/query traceparent:{VALID}"),
        format!("2026-11-28T21:00:00Z INFO request traceparent={VALID} status=200"),
        format!("2026-11-28 INFO headers: traceparent: {VALID}, host: x"),
        format!("INFO \"traceparent: {VALID} received\""),
        format!("[INFO] headers=map[Host:[x] Traceparent:[{VALID}]]"),
        format!(r#"{{"level":"info","traceparent":"{VALID}","msg":"hi"}}"#),
        format!(r#"{{"msg":"got {{\"traceparent\": \"{VALID}\"}}"}}"#),
        format!(r#"{{"headers":{{"traceparent":["{VALID}"]}}}}"#),
        format!(r#"[{{"name":"traceparent","value":"{VALID}"}}]"#),
        format!(r#"{{"key": "traceparent", "value": {{"stringValue": "{VALID}"}}}}"#),
        format!("{{'Host': 'x', 'traceparent': '{VALID}'}}"),
        format!("request.headers_mut().insert(\"traceparent\", \"{VALID}\");"),
        format!("Invoke-WebRequest -Headers @{{\"traceparent\"=\"{VALID}\"}}"),
        format!("TRACEPARENT={VALID} ./run"),
        format!("'HTTP_TRACEPARENT' => '{VALID}'"),
        format!("http.request.header.traceparent: {VALID}"),
        format!("traceparent:\n{VALID}\ntracestate:\nx=1"),
        format!("my-traceparent: none\ntraceparent: {VALID}"),
    ] {
        assert_eq!(find(&pasted), [traceparent(&[VALID])], "{pasted}");
        assert_eq!(text(&pasted), "This `traceparent` is valid and sampled.\n", "{pasted}");
    }
    for nothing in [
        "",
        "host: x",
        "no traceparent at all",
        "INFO traceparent=None status=200",
        "where the traceparent: it is a header",
        "{\"traceparent\": null}",
        "[\"a-b\"]",
        "b3: x",
    ] {
        assert_eq!(find(nothing), [], "{nothing}");
    }
    assert!(matches!(Case::read(b"host: x"), Err(Unreadable::NoTrace)));
}

/// Headers of one request are counted together, those of several requests each by itself.
#[test]
fn only_headers_of_one_request_are_repeated() {
    let one = traceparent(&[VALID, OTHER]);
    for pasted in [
        format!("GET / HTTP/1.1\ntraceparent: {VALID}\nhost: x\ntraceparent: {OTHER}\n"),
        format!("> GET / HTTP/1.1\n> traceparent: {VALID}\n> traceparent: {OTHER}\n"),
        format!("curl -H 'traceparent: {VALID}' \\\n  -H 'traceparent: {OTHER}' http://localhost"),
        format!(r#"{{"headers":{{"traceparent":["{VALID}","{OTHER}"]}}}}"#),
    ] {
        assert_eq!(find(&pasted), std::slice::from_ref(&one), "{pasted}");
        assert!(
            text(&pasted)
                .starts_with("A broken header (certain): There are 2 `traceparent` headers")
        );
    }
    let each = [traceparent(&[VALID]), traceparent(&[OTHER])];
    for pasted in [
        format!("GET / HTTP/1.1\ntraceparent: {VALID}\n\nGET / HTTP/1.1\ntraceparent: {OTHER}\n"),
        format!(
            "> GET / HTTP/1.1\n> traceparent: {VALID}\n< HTTP/1.1 200 OK\n< traceparent: {OTHER}\n"
        ),
        format!("INFO traceparent={VALID}\nINFO traceparent={OTHER}\nINFO traceparent={VALID}\n"),
        format!("{VALID}\n{OTHER}\n"),
    ] {
        assert_eq!(find(&pasted), each, "{pasted}");
        assert_eq!(text(&pasted), "These 2 `traceparent` headers are valid and sampled.\n");
    }
}

#[test]
fn values_joined_by_a_comma_are_named_as_such() {
    let both = format!("{VALID}, {OTHER}");
    for pasted in [
        both.clone(),
        format!("traceparent: {both}"),
        format!("curl -H 'traceparent: {both}' x"),
        format!("INFO traceparent={VALID},{OTHER}, status=200"),
    ] {
        let findings = Case::read(pasted.as_bytes()).expect("a case").findings();
        let [finding] = &findings[..] else { panic!("{pasted}: {findings:?}") };
        let expected = Evidence::HeadersJoined { seen: Seen::Alone, count: 2 };
        assert_eq!((finding.rule, &finding.evidence), (Rule::BrokenHeader, &expected), "{pasted}");
        assert!(text(&pasted).contains("2 values joined by a comma"));
        assert!(finding.advice()[0].contains("a proxy"));
    }
    // A comma in a value that is wrong otherwise.
    let wrong = Case::read(format!("traceparent: {VALID}, 00-1").as_bytes()).expect("a case");
    assert!(matches!(wrong.findings()[0].evidence, Evidence::HeaderInvalid { .. }));
}

#[test]
fn another_format_is_named_with_what_to_set() {
    let long = "80f198ee56343ba864fe8b2a57d3eff7";
    for (pasted, format, id, setting) in [
        (
            format!("GET / HTTP/1.1\nhost: x\nb3: {long}-e457b5a2e4d86bd1-1"),
            Format::B3,
            long,
            "tracecontext,baggage,b3 ",
        ),
        ("b3=64fe8b2a57d3eff7-e457b5a2e4d86bd1".to_owned(), Format::B3, "64fe8b2a57d3eff7", "b3 "),
        (
            format!("> X-B3-TraceId: {long}\n> X-B3-SpanId: e457b5a2e4d86bd1\n> X-B3-Sampled: 1"),
            Format::B3Multi,
            long,
            "b3multi",
        ),
        ("uber-trace-id: 3a5b:1c:0:1".to_owned(), Format::Jaeger, "3a5b", "baggage,jaeger"),
        (
            r#"{"x-datadog-trace-id": "258"}"#.to_owned(),
            Format::Datadog,
            "102",
            "DD_TRACE_PROPAGATION_STYLE",
        ),
        (
            format!(
                "X-Amzn-Trace-Id: Root=1-{}-{};Parent=53995c3f42cd8ad8",
                &long[..8],
                &long[8..]
            ),
            Format::XRay,
            long,
            "xray",
        ),
        (
            format!("curl -H 'X-Cloud-Trace-Context: {long}/1;o=1' x"),
            Format::GoogleCloud,
            long,
            "Google",
        ),
    ] {
        let id = trace_id(id).expect("an id");
        assert_eq!(find(&pasted), [Pasted::Foreign(format, id)], "{pasted}");
        let text = text(&pasted);
        for part in [
            format.header(),
            "Headers in another format (",
            "): The caller sent ",
            setting,
            &id.to_string(),
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // A caller that sends both.
    let both = format!("b3: {long}-e457b5a2e4d86bd1-1\ntraceparent: {VALID}");
    assert_eq!(find(&both), [traceparent(&[VALID])]);
}

#[test]
fn unusual_flags_and_versions_are_explained() {
    for (from, to, part) in [
        ("-01", "-03", "the trace id is random"),
        ("-01", "-05", "bits that the standard doesn't define"),
        ("00-4b", "cc-4b", "Its version is cc"),
    ] {
        let text = text(&VALID.replace(from, to));
        assert!(text.starts_with("This `traceparent` is valid and sampled. Its "), "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn ids_are_read_as_tools_write_them() {
    let full = trace_id("0000000000000000a7890b687652000e");
    assert!(full.is_some());
    for same in [
        "a7890b687652000e",
        "A7890B687652000E",
        "0xa7890b687652000e",
        " a7890b687652000e ",
        "00000000-0000-0000-a789-0b687652000e",
    ] {
        assert_eq!(trace_id(same), full, "{same}");
    }
    assert_eq!(span_id("2").map(|id| id.to_string()).as_deref(), Some("0000000000000002"));
    for wrong in ["", "-", "x", "4bf92f3577b34da6a3ce929d0e0e47360"] {
        assert_eq!(trace_id(wrong), None, "{wrong}");
    }
}

/// A trace isn't taken for the headers that it recorded, whether its form is known or not.
#[test]
fn headers_within_traces_that_are_not_read_are_not_looked_at() {
    let tag = format!(r#""tags": {{"traceparent": "{VALID}"}}"#);
    for (text, expected) in [
        (
            format!(r#"{{"transaction": {{"id": "1", "context": {{{tag}}}}}}}"#),
            "it looks like documents of Elastic APM",
        ),
        (
            format!(
                r#"{{"ID": "1", "RootSpan": {{"ID": "2", "Children": [{{"ID": "3", {tag}}}]}}}}"#
            ),
            "it looks like a trace of Tracetest",
        ),
        (
            format!(
                r#"{{"data": [{{"type": "stored-traces", "attributes": {{"spans": [{{{tag}}}]}}}}]}}"#
            ),
            "it looks like a trace of Lightstep",
        ),
        // Of programs that nobody has heard of.
        (
            format!(
                r#"{{"answer": {{"span-list": [{{"name": "a", "start-time-ms": 1, "end-time-ms": 2, {tag}}}]}}}}"#
            ),
            "it looks like spans in a form that the lab doesn't know",
        ),
        (
            format!(
                r#"[{{"span_id": "1", "parent_id": "", "timestamp": "2024-07-30", "duration_ms": 5, {tag}}}]"#
            ),
            "it looks like spans in a form that the lab doesn't know",
        ),
        // OTLP without ids, and a trace that was cut off.
        (
            format!(
                r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{{"name": "a", {tag}}}]}}]}}]}}"#
            ),
            "line 1: span \"a\": the trace id must be",
        ),
        (
            format!(r#"{{"data": [{{"spans": [{{"operationName": "a", {tag}}}, {{"#),
            "line 1: not JSON",
        ),
    ] {
        let refused = Case::read(text.as_bytes()).expect_err(&text).to_string();
        assert!(refused.starts_with(expected), "{text}: {refused}");
    }
    // Records of logs know their span, and may know how long it has been open.
    for log in [
        format!(
            r#"{{"timestamp": "2024-07-30", "level": "INFO", "span": {{"name": "request"}}, "spans": [{{"name": "request"}}], {tag}}}"#
        ),
        format!(
            r#"{{"@timestamp": "2024-07-30", "span": {{"id": "1"}}, "trace": {{"id": "2"}}, "event": {{"duration": 5}}, {tag}}}"#
        ),
        format!(
            r#"{{"start_time": "2024-07-30", "duration": 5, "span_id": "1", "timespan": {{"start": 1, "end": 2}}, {tag}}}"#
        ),
        format!(
            r#"{{"start_time": "2024-07-30", "duration": 5, "x_b3_spanid": "1", "x_b3_parentspanid": "2", {tag}}}"#
        ),
    ] {
        assert_eq!(text(&log), "This `traceparent` is valid and sampled.\n", "{log}");
    }
}
