//! Headers as people paste them, and what is said about them.

use support::has;
use traces::case::Case;
use traces::diagnose::{Certainty, Evidence, Rule, Seen, diagnose};
use traces::exchange::Exchange;
use traces::headers::{Contradiction, Foreign, Format, Placeholder, find};
use traces::read::Unreadable;
use traces::report;
use traces::span::{span_id, trace_id};

const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ANOTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b8-01";
const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01";

/// The values of the `traceparent` headers of each request in a text.
fn values(text: &str) -> Vec<Vec<String>> {
    find(text).into_iter().map(|request| request.traceparent).collect()
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
        assert_eq!(values(&pasted), [[VALID]], "{pasted}");
        assert_eq!(text(&pasted), "This `traceparent` is valid and sampled.\n", "{pasted}");
    }
    for nothing in [
        "",
        "host: x",
        "no traceparent at all",
        "where the traceparent: it is a header",
        "I got this traceparent:",
        "{\"traceparent\": {\"type\": \"string\"}}",
        "coefficients a3=1 b3=0",
        "let it = Traceparent::parse(4);",
        "b3: 1",
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
    for pasted in [
        format!("GET / HTTP/1.1\ntraceparent: {VALID}\nhost: x\ntraceparent: {OTHER}\n"),
        format!("> GET / HTTP/1.1\n> traceparent: {VALID}\n> traceparent: {OTHER}\n"),
        format!("curl -H 'traceparent: {VALID}' \\\n  -H 'traceparent: {OTHER}' http://localhost"),
        format!(r#"{{"headers":{{"traceparent":["{VALID}","{OTHER}"]}}}}"#),
        format!(r#"{{"headers":{{"traceparent":"{VALID}","a":[1],"Traceparent":"{OTHER}"}}}}"#),
        format!(
            r#"[{{"name":"traceparent","value":"{VALID}"}},{{"name":"traceparent","value":"{OTHER}"}}]"#
        ),
        format!("[('traceparent', '{VALID}'), ('traceparent', '{OTHER}')]"),
        format!("INFO map[Traceparent:[{VALID} {OTHER}]]"),
    ] {
        assert_eq!(values(&pasted), [[VALID, OTHER]], "{pasted}");
        let text = text(&pasted);
        let expected = "A broken header (certain): This request has 2 `traceparent` headers";
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("different traces"), "{text}");
        let text = self::text(&pasted.replace(OTHER, ANOTHER));
        assert!(text.contains(" They name 2 different traces.\n"), "{text}");
    }
    let each = [[VALID], [OTHER]];
    for pasted in [
        format!("GET / HTTP/1.1\ntraceparent: {VALID}\n\nGET / HTTP/1.1\ntraceparent: {OTHER}\n"),
        format!(
            "> GET / HTTP/1.1\n> traceparent: {VALID}\n< HTTP/1.1 200 OK\n< traceparent: {OTHER}\n"
        ),
        format!("INFO traceparent={VALID}\nINFO traceparent={OTHER}\nINFO traceparent={VALID}\n"),
        format!("{VALID}\n{OTHER}\n"),
        format!(r#"[{{"traceparent": "{VALID}"}}, {{"traceparent": "{OTHER}"}}]"#),
        format!(
            r#"headers.insert("traceparent", "{VALID}"); headers.insert("traceparent", "{OTHER}");"#
        ),
        format!(r#"{{"msg": "in traceparent={VALID}, out traceparent={OTHER}"}}"#),
    ] {
        assert_eq!(values(&pasted), each, "{pasted}");
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
        let [request] = &find(&pasted)[..] else { panic!("{pasted}") };
        let [foreign] = request.foreign[..] else { panic!("{pasted}: {request:?}") };
        assert_eq!((foreign.format, foreign.trace_id), (format, Some(id)), "{pasted}");
        assert!(request.traceparent.is_empty());
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
}

#[test]
fn a_caller_that_sends_two_formats_must_name_one_trace_in_both() {
    let (trace, other) = (&VALID[3..35], &ANOTHER[3..35]);
    let (half, other_half) = (&trace[16..], &other[16..]);
    for (pasted, agrees) in [
        (format!("b3: {trace}-e457b5a2e4d86bd1-1\ntraceparent: {VALID}"), true),
        (format!("b3: {half}-e457b5a2e4d86bd1-1\ntraceparent: {VALID}"), true),
        (format!("traceparent: {VALID}\nX-Datadog-Trace-Id: {}", 0xa3ce_929d_0e0e_4736_u64), true),
        // A load balancer adds it to each request.
        (
            format!(
                "traceparent: {VALID}\nX-Amzn-Trace-Id: Root=1-{}-{}",
                &other[..8],
                &other[8..]
            ),
            true,
        ),
        // Of another request.
        (format!("INFO traceparent={VALID}\nINFO b3={other}-e457b5a2e4d86bd1-1"), true),
        (format!("INFO traceparent={VALID} b3={other}-e457b5a2e4d86bd1-1"), false),
        (format!("traceparent: {VALID}\nb3: {other_half}-e457b5a2e4d86bd1-1"), false),
        (format!("curl -H 'traceparent: {VALID}' \\\n -H 'x-b3-traceid: {other}' x"), false),
        (
            format!(
                r#"{{"traceparent": "{VALID}",
            "uber-trace-id": "{other}:1:0:1"}}"#
            ),
            false,
        ),
    ] {
        let findings = Case::read(pasted.as_bytes()).expect("a case").findings();
        let rules: Vec<Rule> = findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, if agrees { vec![] } else { vec![Rule::BrokenHeader] }, "{pasted}");
        if !agrees {
            assert!(matches!(findings[0].evidence, Evidence::HeadersContradict { .. }), "{pasted}");
            assert!(text(&pasted).starts_with(&format!(
                "A broken header (likely): This request has a `traceparent` of trace {trace} and a `"
            )));
        }
    }
}

#[test]
fn headers_that_contradict_each_other_are_found_on_the_wire_too() {
    let found = |trace: &str, sampled: u8| {
        let sent = format!(
            "GET / HTTP/1.1\r\ntraceparent: {VALID}\r\nb3: {trace}-e457b5a2e4d86bd1-{sampled}\r\n\r\n"
        );
        let exchange = Exchange {
            hop: "shop".to_owned(),
            to: "shop".to_owned(),
            start: 1,
            end: Some(2),
            delivered: Some(sent.clone()),
            sent,
            status: Some(200),
            fault: None,
        };
        diagnose(&[], &[exchange]).into_iter().map(|it| it.evidence).collect::<Vec<_>>()
    };
    let [Evidence::HeadersContradict { seen, format, .. }] = &found(&ANOTHER[3..35], 1)[..] else {
        panic!()
    };
    assert_eq!(*format, Format::B3);
    assert!(matches!(seen, Seen::OnHop { .. }));
    let trace = &VALID[3..35];
    assert!(matches!(found(trace, 1)[..], [Evidence::NothingArrived { .. }]));
    let [Evidence::HeadersContradict { contradiction, .. }] = &found(trace, 0)[..] else {
        panic!()
    };
    assert_eq!(*contradiction, Contradiction::Sampling { own: true });
}

#[test]
fn headers_of_one_trace_that_contradict_each_other_about_sampling_are_told() {
    let (sampled, unsampled) = (VALID, VALID.replace("b7-01", "b7-00"));
    let trace = &VALID[3..35];
    let number = 0xa3ce_929d_0e0e_4736_u64;
    let (time, random) = trace.split_at(8);
    let told = |pasted: &str| {
        let findings = Case::read(pasted.as_bytes()).expect("a case").findings();
        findings.into_iter().map(|it| (it.rule, it.evidence)).collect::<Vec<_>>()
    };
    for (format, not, yes) in [
        (Format::B3, format!("b3: {trace}-e457b5a2e4d86bd1-0"), "bd1-d"),
        (Format::B3, "b3: 0".to_owned(), ""),
        (Format::B3Multi, format!("x-b3-traceid: {trace}\nx-b3-sampled: 0"), "sampled: 1"),
        (Format::Jaeger, format!("uber-trace-id: {trace}:e457b5a2e4d86bd1:0:0"), ":0:1"),
        (
            Format::Datadog,
            format!("x-datadog-trace-id: {number}\nx-datadog-sampling-priority: 0"),
            "priority: 1",
        ),
        // A load balancer that goes on with the trace of the `traceparent`.
        (Format::XRay, format!("x-amzn-trace-id: Root=1-{time}-{random};Sampled=0"), "Sampled=1"),
        (Format::GoogleCloud, format!("x-cloud-trace-context: {trace}/1;o=0"), "o=1"),
    ] {
        let expected = |own| {
            let (seen, contradiction) = (Seen::Alone, Contradiction::Sampling { own });
            let evidence = Evidence::HeadersContradict { seen, format, contradiction };
            vec![(Rule::BrokenHeader, evidence)]
        };
        let pasted = format!("traceparent: {sampled}\n{not}");
        assert_eq!(told(&pasted), expected(true), "{pasted}");
        let sentence = format!(
            "that says to sample the trace and a `{}` that says not to. ",
            format.sampling_header()
        );
        has(&text(&pasted), [&*sentence, "decides about sampling again"]);
        // They agree.
        let pasted = format!("traceparent: {unsampled}\n{not}");
        assert!(matches!(told(&pasted)[..], [(Rule::Unsampled, _)]), "{pasted}");
        if !yes.is_empty() {
            let yes = not[..not.len() - yes.len()].to_owned() + yes;
            let pasted = format!("traceparent: {unsampled}\n{yes}");
            assert_eq!(told(&pasted), expected(false), "{pasted}");
            assert_eq!(told(&format!("traceparent: {sampled}\n{yes}")), [], "{yes}");
        }
    }
    // Each of these leaves the decision to the called service, or is about another trace.
    for other in [
        format!("b3: {trace}-e457b5a2e4d86bd1"),
        format!("x-b3-traceid: {trace}"),
        "x-amzn-trace-id: Sampled=0".to_owned(),
        format!("x-amzn-trace-id: Root=1-{time}-{};Sampled=0", random.replace('a', "b")),
    ] {
        assert_eq!(told(&format!("traceparent: {sampled}\n{other}")), [], "{other}");
    }
    // Another trace is said alone.
    let pasted = format!("traceparent: {sampled}\nb3: {}-e457b5a2e4d86bd1-0", &ANOTHER[3..35]);
    let [(_, Evidence::HeadersContradict { contradiction, .. })] = &told(&pasted)[..] else {
        panic!("{pasted}")
    };
    assert!(matches!(contradiction, Contradiction::Traces(_)), "{pasted}");
}

/// A report on several headers says of which each finding is.
#[test]
fn a_finding_in_a_text_with_several_headers_names_the_line_and_the_value() {
    let unsampled = OTHER.replace("b8-01", "b8-00");
    let pasted = format!(
        "GET / HTTP/1.1\ntraceparent: {VALID}\n\nGET / HTTP/1.1\ntraceparent: {unsampled}\n
GET / HTTP/1.1\nhost: x\ntraceparent: 00-1-2-3\n\nGET / HTTP/1.1\nb3: 0\n
GET / HTTP/1.1\ntraceparent: {VALID}\ntraceparent: {ANOTHER}\n"
    );
    let text = text(&pasted);
    for part in [
        "The `traceparent` in line 9, `00-1-2-3`, isn't valid at byte 4: ",
        &format!(
            "The `traceparent` in line 5, `{unsampled}`, is valid, but its sampled flag isn't set (byte 54), so"
        ),
        "`b3` in line 12 says not to sample",
        "The request in line 15 has 2 `traceparent` headers",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("line 2"), "{text}");
    let lines: Vec<usize> =
        find(&format!("\n\nINFO x {VALID}\nINFO {OTHER}")).iter().map(|it| it.line).collect();
    assert_eq!(lines, [3, 4]);
}

#[test]
fn a_caller_that_does_not_sample_is_named_in_every_format() {
    let long = "80f198ee56343ba864fe8b2a57d3eff7";
    for (pasted, header, has_id) in [
        ("b3: 0".to_owned(), "b3", false),
        ("curl -H 'b3: 0' x".to_owned(), "b3", false),
        (r#"{"b3": "0"}"#.to_owned(), "b3", false),
        ("X-B3-Sampled: 0".to_owned(), "x-b3-sampled", false),
        (format!("b3: {long}-e457b5a2e4d86bd1-0"), "b3", true),
        (format!("INFO b3={long}-e457b5a2e4d86bd1-0-e457b5a2e4d86bd2"), "b3", true),
        (format!("X-B3-TraceId: {long}\nX-B3-Sampled: 0"), "x-b3-sampled", true),
        ("uber-trace-id: 3a5b:1c:0:0".to_owned(), "uber-trace-id", true),
        (
            "x-datadog-trace-id: 258\nx-datadog-sampling-priority: -1".to_owned(),
            "x-datadog-sampling-priority",
            true,
        ),
        (
            format!("X-Amzn-Trace-Id: Root=1-{}-{};Sampled=0", &long[..8], &long[8..]),
            "x-amzn-trace-id",
            true,
        ),
        (format!("x-cloud-trace-context: {long}/1;o=0"), "x-cloud-trace-context", true),
    ] {
        let findings = Case::read(pasted.as_bytes()).expect(&pasted).findings();
        let rules: Vec<Rule> = findings.iter().map(|finding| finding.rule).collect();
        let expected =
            if has_id { vec![Rule::ForeignFormat, Rule::Unsampled] } else { vec![Rule::Unsampled] };
        assert_eq!(rules, expected, "{pasted}");
        let text = text(&pasted);
        assert!(text.contains(&format!("`{header}` says not to sample, so the caller")), "{text}");
    }
    for sampled in ["1", "d"] {
        let [request] = &find(&format!("b3: {long}-e457b5a2e4d86bd1-{sampled}"))[..] else {
            panic!()
        };
        let expected =
            Foreign { format: Format::B3, trace_id: trace_id(long), sampled: Some(true) };
        assert_eq!(request.foreign, [expected]);
    }
}

#[test]
fn quotes_and_the_end_of_a_sentence_are_no_part_of_a_value() {
    for pasted in [
        format!("traceparent: \"{VALID}\""),
        format!("traceparent: '{VALID}',"),
        format!("traceparent: {VALID}."),
        format!("traceparent: {VALID}, as you can see"),
        format!("The caller sent traceparent={VALID}."),
        format!("we logged \"traceparent: {VALID}.\""),
        format!("\"{VALID}\"."),
        format!("It was {VALID}, I think."),
    ] {
        assert_eq!(values(&pasted), [[VALID]], "{pasted}");
    }
    // As it was sent.
    for pasted in [
        format!("> traceparent: \"{VALID}\""),
        format!("GET / HTTP/1.1\ntraceparent: {VALID},"),
        format!("curl -H 'traceparent: \"{VALID}\"' x"),
        format!("curl --header 'traceparent: {VALID}.' x"),
    ] {
        let findings = Case::read(pasted.as_bytes()).expect("a case").findings();
        assert!(matches!(findings[0].evidence, Evidence::HeaderInvalid { .. }), "{pasted}");
    }
}

#[test]
fn a_text_in_place_of_a_value_is_named_as_what_it_is() {
    use Placeholder::{Empty, Null, Variable};
    for (pasted, value, expected) in [
        ("curl -H \"traceparent: $TP\" x", "$TP", Variable),
        ("curl -H 'traceparent: ${TRACEPARENT}' x", "${TRACEPARENT}", Variable),
        ("traceparent: {traceparent}", "{traceparent}", Variable),
        ("traceparent: \"{{ traceparent }}\"", "{{ traceparent }}", Variable),
        ("TRACEPARENT=$TP ./run", "$TP", Variable),
        ("TRACEPARENT=%TP%", "%TP%", Variable),
        ("traceparent=00-${TRACE}-${SPAN}-01", "00-${TRACE}-${SPAN}-01", Variable),
        ("00-$TRACE-$SPAN-01", "00-$TRACE-$SPAN-01", Variable),
        ("traceparent=null", "null", Null),
        ("INFO traceparent=None status=200", "None", Null),
        ("{\"traceparent\": null}", "null", Null),
        ("{\"traceparent\": \"undefined\"}", "undefined", Null),
        ("> traceparent: undefined", "undefined", Null),
        ("traceparent=<nil>", "<nil>", Null),
        ("traceparent:", "", Empty),
        ("traceparent=", "", Empty),
        ("{\"traceparent\": \"\"}", "", Empty),
        ("curl -H 'traceparent: ' x", "", Empty),
    ] {
        let findings = Case::read(pasted.as_bytes()).expect(pasted).findings();
        let [finding] = &findings[..] else { panic!("{pasted}: {findings:?}") };
        let Evidence::HeaderPlaceholder { placeholder, text, .. } = &finding.evidence else {
            panic!("{pasted}: {finding:?}")
        };
        assert_eq!((*placeholder, text.as_str()), (expected, value), "{pasted}");
        assert_eq!(finding.evidence.certainty(), Certainty::Likely);
    }
    // Where a header came, a log line without one says nothing.
    let log = format!("INFO traceparent=None\nINFO traceparent={VALID}");
    assert_eq!(values(&log), [[VALID]]);
    assert_eq!(
        text("traceparent: null").lines().next().expect("a line"),
        "A broken header (likely): This `traceparent` is the text `null`, which a program wrote because it had no value. \
         A service that gets this begins a trace of its own."
    );
}

/// A header that source code makes isn't one that was sent.
#[test]
fn a_template_in_source_code_is_not_a_header() {
    for code in [
        // Rust
        r#"let header = format!("traceparent: 00-{trace_id}-{span_id}-01");"#,
        r#"format!("traceparent: 00-{}-{}-01", trace, span)"#,
        r#"run(&format!("curl -H 'traceparent: {header}' {url}"))"#,
        r#"request.header("traceparent", "00-{trace_id}-{span_id}-01")"#,
        r#"tracing::info!("got traceparent={traceparent} from {caller}");"#,
        "/// Sends `traceparent: 00-{trace_id}-{span_id}-01`.\nfn send() {}",
        "use http::HeaderMap;\n\nstruct Request {\n    id: u8,\n    traceparent: Option<String>,\n}",
        "fn main() {\n    let request = Request {\n        traceparent: None,\n    };\n}",
        // JavaScript
        "fetch(url, { headers: { traceparent: `00-${traceId}-${spanId}-01` } })",
        "  headers: {\n    traceparent: `00-${traceId}-${spanId}-01`,\n  },",
        "const traceparent = `00-${traceId}-${spanId}-01`;",
        "console.log(`traceparent: ${header}`)",
        "const id = span.context();\nconst url = of(id);\nask(url, {\n  traceparent: header(id),\n})",
        // Python
        r#"f"traceparent: 00-{trace_id}-{span_id}-01""#,
        "headers = {'traceparent': '00-%032x-%016x-01' % (trace_id, span_id)}",
        r#"line = "traceparent: 00-{}-{}-01".format(trace_id, span_id)"#,
        "import os\nfrom a import b\n\nHEAD = '''\ntraceparent: 00-{trace_id}-{span_id}-01\n'''",
        // Go, Java, Kotlin, C#, PHP, Ruby, Swift, C and a script
        r#"log.Printf("traceparent: %s", header)"#,
        "test := Test{\n  header: of(id),\n}\nother := Test{\n  traceparent: []string{\"00-1-\"},\n}",
        r#"String header = "traceparent: 00-" + traceId + "-" + spanId + "-01";"#,
        r#"val traceparent = "00-$traceId-$spanId-01""#,
        r#"var header = $"traceparent: 00-{traceId}-{spanId}-01";"#,
        r#"$traceparent = "00-$traceId-$spanId-01";"#,
        "'traceparent' => '00-' . $traceId . '-' . $spanId . '-01',",
        r##"headers = { "traceparent" => "00-#{trace_id}-#{span_id}-01" }"##,
        r#"["traceparent": "00-\(traceId)-\(spanId)-01"]"#,
        r#"sprintf(buffer, "traceparent: 00-%s-%s-01", trace_id, span_id);"#,
        "#!/bin/sh\nTRACEPARENT=\"00-$TRACE_ID-$SPAN_ID-01\" ./run",
    ] {
        let error = Case::read(code.as_bytes()).expect_err(code);
        assert!(matches!(error, Unreadable::SourceCode), "{code}: {error}");
    }
    // These show no value at all, or one of another format.
    for code in [
        r#"headers["traceparent"] = "00-" + traceId + "-" + spanId + "-01";"#,
        r#"req.Header.Set("traceparent", fmt.Sprintf("00-%s-%s-01", traceID, spanID))"#,
        r#"headers = {"traceparent": f"00-{trace_id:032x}-{span_id:016x}-01"}"#,
        r#"let b3 = format!("b3: {trace_id}-{span_id}-0");"#,
        r#"allowed := map[string]struct{}{"traceparent": {}, "via": {}}"#,
    ] {
        assert_eq!(find(code), [], "{code}");
    }
    // A constant is what is sent.
    let both =
        format!("let a = format!(\"traceparent: {{a}}\");\nlet b = \"traceparent: {VALID}\";");
    assert_eq!(values(&both), [[VALID]]);
    let wrong = "let map = HeaderMap::new();\nlet id = id();\nmap.insert(\"traceparent\", \"00-abc-1-01\");";
    assert_eq!(values(wrong), [["00-abc-1-01"]]);
    let jaeger = "request.header(\"uber-trace-id\", \"3a5b%3A1c%3A0%3A1\")";
    assert_eq!(find(jaeger)[0].foreign[0].trace_id, trace_id("3a5b"));
    // A line that begins as JSON does.
    let braces = "static void f()\n{\n    log.info(\"traceparent: {}\", header);\n}\n";
    assert!(matches!(Case::read(braces.as_bytes()), Err(Unreadable::SourceCode)));
}

/// Near misses of source code: each of these shows a header as it was sent or printed.
#[test]
fn a_variable_in_a_header_that_was_sent_is_still_a_finding() {
    let page = "<script>\nvar x = f(1);\nlet y = x;\n</script>";
    let (sent, value) = ("> GET / HTTP/1.1\n> traceparent: ", "00-${T}-${S}-01");
    for pasted in [
        "curl -H \"traceparent: $TP\" x".to_owned(),
        format!("$ export A=$(date)\n$ out=$(curl -s -H \"traceparent: {value}\" http://x)"),
        format!("#!/bin/sh\nset -e\ncurl --header \"traceparent: {value}\" x"),
        "Run `curl -H 'traceparent: ${TP}' x` and look.".to_owned(),
        "curl -H $'traceparent: {TP}' x".to_owned(),
        "wget --header=\"traceparent: ${TP}\" x".to_owned(),
        format!("{sent}{value}\n>\n< HTTP/1.1 200 OK\n<\n{page}"),
        format!("{page}\n{sent}$TP\n"),
        format!("GET / HTTP/1.1\nhost: x\ntraceparent: {{{{tp}}}}\n\n{page}"),
        "GET / HTTP/1.1\ncookie: a = 1;\nvia: b = 2;\ntraceparent: ${TP}\n".to_owned(),
        format!(r#"{{"level": "info", "headers": {{"traceparent": "{value}"}}}}"#),
        format!("{{'Host': 'x', 'traceparent': '{value}'}}"),
        format!("[('traceparent', '{value}')]"),
        format!("INFO can't read traceparent: {value}"),
        format!("INFO \"traceparent: {value}\" received"),
        format!("Request {{\n    headers: {{\n        \"traceparent\": \"{value}\",\n    }},\n}}"),
        "  File \"a.py\", line 3, in f\n    return f(x)\nKeyError: no\ntraceparent: {tp}"
            .to_owned(),
        "services:\n  shop:\n    environment:\n      TRACEPARENT: ${TRACEPARENT}\n".to_owned(),
    ] {
        let findings = Case::read(pasted.as_bytes()).expect(&pasted).findings();
        let [finding] = &findings[..] else { panic!("{pasted}: {findings:?}") };
        let Evidence::HeaderPlaceholder { placeholder, .. } = &finding.evidence else {
            panic!("{pasted}: {finding:?}")
        };
        assert_eq!(*placeholder, Placeholder::Variable, "{pasted}");
    }
}

/// Each way to be wrong has advice of its own.
#[test]
fn the_advice_fits_what_is_wrong_with_the_value() {
    let mut advice = std::collections::BTreeSet::new();
    for wrong in [
        VALID[..30].to_owned(),
        VALID.to_uppercase(),
        VALID.replace("00f067aa0ba902b7", "0000000000000000"),
        format!("{VALID}-00"),
        VALID.replace("4bf9", "4bg9"),
        format!("{VALID},{OTHER}"),
        "$TRACE-PARENT".to_owned(),
        "null".to_owned(),
    ] {
        let pasted = format!("traceparent: {wrong}");
        let findings = Case::read(pasted.as_bytes()).expect(&pasted).findings();
        assert!(advice.insert(findings[0].advice()), "{wrong}");
    }
}

/// An id alone isn't a header.
#[test]
fn an_id_alone_is_told_as_such() {
    let (trace, span) = (&VALID[3..35], &VALID[36..52]);
    for pasted in [
        trace.to_owned(),
        format!("  \"{}\",\n", trace.to_uppercase()),
        format!("trace_id={trace}"),
        format!("\"traceId\": \"{trace}\""),
        format!("Trace ID: {trace}."),
        format!(
            "{}-{}-{}-{}-{}",
            &trace[..8],
            &trace[8..12],
            &trace[12..16],
            &trace[16..20],
            &trace[20..]
        ),
    ] {
        let error = Case::read(pasted.as_bytes()).expect_err(&pasted).to_string();
        let expected = format!("it is a trace id and nothing else. `lab trace {trace}` shows");
        assert!(error.starts_with(&expected), "{pasted}: {error}");
    }
    let error = Case::read(span.as_bytes()).expect_err(span).to_string();
    assert!(
        error.starts_with("it is the id of a span, or a short trace id, and nothing else."),
        "{error}"
    );
    for other in ["4bf92f3577b34da6a3ce929d0e0e473", "user=00f067aa0ba902b7"] {
        assert!(matches!(Case::read(other.as_bytes()), Err(Unreadable::NoTrace)), "{other}");
    }
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

/// The answer about a header in an unknown trace must not look like one about the trace.
#[test]
fn json_of_an_unknown_form_is_named_beside_its_headers() {
    let remark = |pasted: &str| {
        let case = Case::read(pasted.as_bytes()).expect("a case");
        let page =
            report::case(&case, &report::Links { book: Some(""), span: &|_| None }).into_string();
        assert!(page.contains("valid and sampled"), "{page}");
        assert_eq!(page.contains("no traces in a form that the lab knows"), case.unknown_json);
        case.unknown_json
    };
    assert!(remark(&format!(r#"{{"pages": [{{"headers": {{"traceparent": "{VALID}"}}}}]}}"#)));
    assert!(!remark(&format!("traceparent: {VALID}")));
}
