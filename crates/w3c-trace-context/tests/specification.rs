//! The rules of both standards as tables: each row names its section, sends headers, and says what must come of it.
//!
//! `TC` is Trace Context Level 2, `B` is Baggage, each with the number of the section.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use w3c_trace_context::{
    BaggagePropagator, HeaderExtractor, HeaderInjector, TraceContextPropagator,
};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Headers in order; a name may come again.
fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn extract(list: &[(&str, &str)]) -> Context {
    let headers = headers(list);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(&headers))
}

/// The trace context that is passed on.
fn passed_on(cx: &Context) -> (Option<String>, Option<String>) {
    let mut headers = HeaderMap::new();
    TraceContextPropagator::new().inject_context(cx, &mut HeaderInjector(&mut headers));
    let text = |name| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
    (text("traceparent"), text("tracestate"))
}

/// The `tracestate` that is passed on where these came with a valid `traceparent`.
fn state(values: &[&str]) -> Option<String> {
    let mut list = vec![("traceparent", VALID)];
    list.extend(values.iter().map(|value| ("tracestate", *value)));
    let cx = extract(&list);
    assert_eq!(
        cx.span().span_context().trace_id().to_string(),
        TRACE_ID,
        "TC Tracestate Header: {values:?}"
    );
    passed_on(&cx).1
}

#[test]
fn traceparent() {
    let with = |version: &str, trace_id: &str, parent_id: &str, flags: &str| {
        format!("{version}-{trace_id}-{parent_id}-{flags}")
    };
    let (trace, parent) = (TRACE_ID, "00f067aa0ba902b7");
    let invalid = [
        ("TC traceparent Header Field Values: no value", String::new()),
        ("TC version: ff is forbidden", with("ff", trace, parent, "01")),
        ("TC version: digits in lower case", with("0A", trace, parent, "01")),
        ("TC version: hexadecimal", with("0.", trace, parent, "01")),
        ("TC version: hexadecimal", with(".0", trace, parent, "01")),
        ("TC version: a sign is no digit", with("+0", trace, parent, "01")),
        ("TC version: two digits", with("0", trace, parent, "01")),
        ("TC version: two digits", with("000", trace, parent, "01")),
        ("TC version: two digits", with("0000", trace, parent, "01")),
        ("TC trace-id: not all zero", with("00", &"0".repeat(32), parent, "01")),
        ("TC trace-id: lower case", with("00", &trace.to_uppercase(), parent, "01")),
        ("TC trace-id: hexadecimal", with("00", &trace.replace('4', "."), parent, "01")),
        ("TC trace-id: 32 digits", with("00", &trace[1..], parent, "01")),
        ("TC trace-id: 32 digits", with("00", &format!("{trace}0"), parent, "01")),
        ("TC parent-id: not all zero", with("00", trace, &"0".repeat(16), "01")),
        ("TC parent-id: lower case", with("00", trace, &parent.to_uppercase(), "01")),
        ("TC parent-id: hexadecimal", with("00", trace, &parent.replace('f', "."), "01")),
        ("TC parent-id: 16 digits", with("00", trace, &parent[1..], "01")),
        ("TC parent-id: 16 digits", with("00", trace, &format!("{parent}0"), "01")),
        ("TC trace-flags: hexadecimal", with("00", trace, parent, ".0")),
        ("TC trace-flags: lower case", with("00", trace, parent, "0A")),
        ("TC trace-flags: two digits", with("00", trace, parent, "1")),
        ("TC trace-flags: two digits", with("00", trace, parent, "001")),
        ("TC version-format: version 00 ends with the flags", with("00", trace, parent, "01-")),
        ("TC version-format: version 00 ends with the flags", with("00", trace, parent, "01.")),
        (
            "TC version-format: version 00 ends with the flags",
            with("00", trace, parent, "01-later"),
        ),
        (
            "TC Versioning of traceparent: a later version: at least 55 characters",
            with("cc", trace, parent, "1"),
        ),
        (
            "TC Versioning of traceparent: a later version: then a dash",
            with("cc", trace, parent, "01.later"),
        ),
        (
            "TC Versioning of traceparent: a later version: a valid trace-id",
            with("cc", &"0".repeat(32), parent, "01"),
        ),
        ("TC traceparent Header Field Values: a dash between the fields", VALID.replace('-', "_")),
    ];
    for (rule, value) in invalid {
        let received = [("traceparent", &*value), ("tracestate", "a=1")];
        let own = extract(&[("traceparent", VALID)]);
        let headers = headers(&received);
        let kept =
            TraceContextPropagator::new().extract_with_context(&own, &HeaderExtractor(&headers));
        assert!(kept.span().span_context().is_valid(), "what was there stays: {rule}: {value:?}");
        let cx = extract(&received);
        assert!(!cx.span().span_context().is_valid(), "{rule}: {value:?}");
        assert_eq!(
            passed_on(&cx),
            (None, None),
            "TC Tracestate Header: no tracestate without a traceparent: {value:?}"
        );
    }

    let valid = [
        ("TC Examples of HTTP traceparent Headers", VALID.to_owned(), VALID.to_owned()),
        ("RFC 9110 5.5 space around a value", format!("\t {VALID} \t"), VALID.to_owned()),
        (
            "TC Sampled Flag: sampled, unset",
            with("00", trace, parent, "00"),
            with("00", trace, parent, "00"),
        ),
        (
            "TC Random Trace ID Flag: random",
            with("00", trace, parent, "03"),
            with("00", trace, parent, "03"),
        ),
        (
            "TC Random Trace ID Flag: random alone",
            with("00", trace, parent, "02"),
            with("00", trace, parent, "02"),
        ),
        (
            "TC Other Flags: other flags are zero",
            with("00", trace, parent, "ff"),
            with("00", trace, parent, "03"),
        ),
        (
            "TC Other Flags: other flags are zero",
            with("00", trace, parent, "fc"),
            with("00", trace, parent, "00"),
        ),
        (
            "TC Versioning of traceparent: sent as version 00",
            with("cc", trace, parent, "01"),
            VALID.to_owned(),
        ),
        (
            "TC Versioning of traceparent: what follows is not read",
            with("cc", trace, parent, "01-later"),
            VALID.to_owned(),
        ),
        (
            "TC Versioning of traceparent: what follows is not read",
            with("01", trace, parent, "01-"),
            VALID.to_owned(),
        ),
        (
            "TC Versioning of traceparent: fe is a version",
            with("fe", trace, parent, "01"),
            VALID.to_owned(),
        ),
    ];
    for (rule, value, expected) in valid {
        let cx = extract(&[("traceparent", &value)]);
        assert!(cx.span().span_context().is_remote(), "{rule}: {value:?}");
        assert_eq!(passed_on(&cx).0, Some(expected), "{rule}: {value:?}");
    }
}

#[test]
fn traceparent_comes_once_and_by_its_name() {
    let other = VALID.replace("4bf9", "1111");
    for (rule, list) in [
        (
            "TC Traceparent Header: one value",
            vec![("traceparent", VALID), ("traceparent", &*other)],
        ),
        (
            "TC Traceparent Header: one value, also of the same twice",
            vec![("traceparent", VALID), ("traceparent", VALID)],
        ),
        (
            "TC Traceparent Header: one value, also when one is empty",
            vec![("traceparent", VALID), ("traceparent", "")],
        ),
        ("TC Header Name: the name", vec![("trace-parent", VALID)]),
        ("TC Header Name: the name", vec![("trace.parent", VALID)]),
        ("TC Tracestate Header: tracestate alone", vec![("tracestate", "a=1")]),
        ("no header", vec![]),
    ] {
        assert_eq!(passed_on(&extract(&list)), (None, None), "{rule}");
    }
    for name in ["TraceParent", "TRACEPARENT", "TrAcEpArEnT"] {
        assert_eq!(
            passed_on(&extract(&[(name, VALID)])).0.as_deref(),
            Some(VALID),
            "TC Header Name: {name}"
        );
    }
    let mut not_text = headers(&[("traceparent", VALID)]);
    not_text.append("traceparent", HeaderValue::from_bytes(b"\xff").expect("a value"));
    let cx = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &HeaderExtractor(&not_text));
    assert!(!cx.span().span_context().is_valid(), "one value, also when one is not text");
}

#[test]
fn tracestate() {
    let (long, many) = (
        |letter: &str, count| letter.repeat(count),
        |count: usize| (1..=count).map(|n| format!("k{n}={n}")).collect::<Vec<_>>().join(","),
    );
    let kept = [
        ("TC list:", "foo=1,bar=2".to_owned()),
        (
            "TC Key: all characters of a key",
            "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1".to_owned(),
        ),
        ("TC Key: a digit first", "0a=1".to_owned()),
        ("TC Key: at signs", "foo@=1,foo@@bar=2,foo@bar@baz=3,bar=4".to_owned()),
        ("TC Key: 256 characters", format!("{}=1", long("z", 256))),
        (
            "TC Key: whatever is behind an at sign",
            format!("foo=1,{}@v=1,t@{}=1", long("t", 242), long("v", 15)),
        ),
        ("TC Value: all characters of a value", {
            let value: String =
                (b' '..=b'~').filter(|byte| !b",=".contains(byte)).map(char::from).collect();
            format!("a={value}")
        }),
        ("TC Value: leading spaces are part of a value", "a=  1".to_owned()),
        ("TC Value: 256 characters", format!("a={}", long("v", 256))),
        ("TC list: 32 members", many(32)),
        (
            "TC tracestate Limits: more than 512 characters",
            format!("a={},b={},c={}", long("v", 250), long("v", 250), long("v", 250)),
        ),
    ];
    for (rule, value) in kept {
        assert_eq!(state(&[&value]), Some(value.clone()), "{rule}");
    }

    let gone = [
        ("TC list-members: no equals sign", "foo".to_owned()),
        ("TC list-members: no key", "=1".to_owned()),
        ("TC Key: lower case", "foo=1,FOO=2".to_owned()),
        ("TC Key: other characters", "foo.bar=1".to_owned()),
        ("TC Key: no space in a key", "foo =1".to_owned()),
        ("TC Key: begins with a letter or digit", "@foo=1,bar=2".to_owned()),
        ("TC Key: begins with a letter or digit", "_a=1".to_owned()),
        ("TC Key: more than 256 characters", format!("foo=1,{}=1", long("z", 257))),
        ("TC Value: an equals sign in a value", "foo=bar=baz".to_owned()),
        ("TC Value: no value", "foo=,bar=3".to_owned()),
        ("TC Value: a tab in a value", "foo=1\t2".to_owned()),
        ("TC Value: more than 256 characters", format!("foo=1,a={}", long("v", 257))),
        ("TC list: 33 members", many(33)),
    ];
    for (rule, value) in gone {
        assert_eq!(state(&[&value]), None, "{rule}: {value}");
    }
}

#[test]
fn tracestate_in_several_headers_is_one_list() {
    for (rule, values, expected) in [
        (
            "TC tracestate Header Field Values: in order",
            vec!["foo=1,bar=2", "rojo=1", "baz=3"],
            Some("foo=1,bar=2,rojo=1,baz=3"),
        ),
        ("TC list: empty ones are allowed", vec!["", "foo=1", ""], Some("foo=1")),
        ("TC list: empty members are allowed", vec!["foo=1,, ,\t,bar=2,"], Some("foo=1,bar=2")),
        (
            "TC list: space around members",
            vec!["foo=1 \t , \t bar=2, \t baz=3"],
            Some("foo=1,bar=2,baz=3"),
        ),
        (
            "TC Combined Header Value: the first of a key",
            vec!["foo=1,bar=2,foo=3", "bar=4,baz=5"],
            Some("foo=1,bar=2,baz=5"),
        ),
        ("TC tracestate Header Field Values: an empty list is not sent", vec![""], None),
        ("TC list-members: one invalid member", vec!["foo=1", "BAR=2"], None),
    ] {
        assert_eq!(state(&values).as_deref(), expected, "{rule}: {values:?}");
    }
}

#[test]
fn a_tracestate_that_is_not_text_is_not_an_empty_one() {
    let mut headers = headers(&[("traceparent", VALID), ("tracestate", "a=1")]);
    let not_text = HeaderValue::from_bytes(b"b=\xff").expect("a value");
    headers.append("tracestate", not_text);
    let cx = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &HeaderExtractor(&headers));
    assert_eq!(passed_on(&cx), (Some(VALID.into()), None));
}

#[test]
fn what_came_with_a_trace_goes_on_with_it_alone() {
    let long = "tenant@a-vendor-with-a-long-name=1".to_owned();
    let random = VALID.replace("-01", "-03");
    let cx = extract(&[("traceparent", &random), ("tracestate", &long)]);
    // As the SDK makes a span that is not sampled: without any flag.
    let child = |trace_id: u128, state| {
        let flags = TraceFlags::NOT_SAMPLED;
        let span = SpanContext::new(trace_id.into(), 1.into(), flags, false, state);
        let (traceparent, tracestate) = passed_on(&cx.with_remote_span_context(span));
        (traceparent.expect("a valid span").split_off(53), tracestate)
    };
    let trace_id = u128::from_str_radix(TRACE_ID, 16).expect("a number");
    let own = TraceState::from_key_value([("own", "1")]).expect("valid");
    for (rule, passed_on, expected) in [
        ("a child passes both on", child(trace_id, TraceState::NONE), ("02", Some(&*long))),
        ("another trace does not", child(7, TraceState::NONE), ("00", None)),
        ("what a sampler says counts", child(trace_id, own), ("02", Some("own=1"))),
    ] {
        assert_eq!((&*passed_on.0, passed_on.1.as_deref()), expected, "{rule}");
    }
}

#[test]
fn headers_that_are_there_are_replaced() {
    let mut headers = headers(&[
        ("traceparent", "x"),
        ("traceparent", "y"),
        ("tracestate", "stale=1"),
        ("other", "z"),
    ]);
    TraceContextPropagator::new()
        .inject_context(&extract(&[("traceparent", VALID)]), &mut HeaderInjector(&mut headers));
    assert_eq!(headers.get_all("traceparent").iter().collect::<Vec<_>>(), [VALID]);
    assert!(!headers.contains_key("tracestate"), "the state of another trace must not be sent");
    assert_eq!(headers["other"], "z");
}

/// The baggage that came, sorted: key, value, properties.
fn baggage(values: &[&str]) -> Vec<(String, String, String)> {
    let list: Vec<_> = values.iter().map(|value| ("baggage", *value)).collect();
    let headers = headers(&list);
    let cx =
        BaggagePropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(&headers));
    let mut entries: Vec<_> = cx
        .baggage()
        .iter()
        .map(|(key, (value, properties))| {
            (key.to_string(), value.to_string(), properties.to_string())
        })
        .collect();
    entries.sort();
    entries
}

#[test]
fn baggage_entries() {
    for (rule, header, expected) in [
        ("B Definition", "userId=alice", ("userId", "alice", "")),
        ("B Definition: space is not part of it", " userId =\t alice \t", ("userId", "alice", "")),
        (
            "B key: all characters of a token",
            "!#$%&'*+-.^_`|~09azAZ=1",
            ("!#$%&'*+-.^_`|~09azAZ", "1", ""),
        ),
        ("B value: an equals sign in a value", "k=a=b", ("k", "a=b", "")),
        ("B value: percent-encoded", "k=DF%2028", ("k", "DF 28", "")),
        ("B value: percent-encoded UTF-8", "k=%F0%9F%8E%92%c3%a4", ("k", "\u{1f392}\u{e4}", "")),
        ("B value: not UTF-8", "k=a%FFb", ("k", "a\u{fffd}b", "")),
        ("B value: a percent sign alone", "k=100%", ("k", "100%", "")),
        ("B value: a percent sign alone", "k=%zz%4", ("k", "%zz%4", "")),
        ("B value: once only", "k=%2541", ("k", "%41", "")),
        ("B value: an empty value", "k=", ("k", "", "")),
        ("B property: properties", "k=v;p1;p2=x", ("k", "v", "p1;p2=x")),
        ("B property: properties as they came", "k=v ; p1 = %20 ;p2", ("k", "v", "p1 = %20 ;p2")),
    ] {
        let (key, value, properties) = expected;
        let expected = (key.to_owned(), value.to_owned(), properties.to_owned());
        assert_eq!(baggage(&[header]), [expected], "{rule}: {header}");
    }
    for (rule, header) in [
        ("B Definition: no equals sign", "k"),
        ("B key: no key", "=v"),
        ("B key: a space in a key", "a b=v"),
        ("B key: not a token", "a@b=v"),
        ("B value: a space in a value", "k=a b"),
        ("B value: a quotation mark", "k=\"v\""),
        ("B value: a backslash", "k=a\\b"),
        ("nothing", ""),
        ("nothing", " , ,"),
    ] {
        assert_eq!(baggage(&[header]), [], "{rule}: {header}");
        let both = format!("{header},ok=1");
        assert_eq!(baggage(&[&both]).len(), 1, "the others stay: {both}");
    }
    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned(), String::new());
    assert_eq!(
        baggage(&["a=1", "b=2,c=3"]),
        [entry("a", "1"), entry("b", "2"), entry("c", "3")],
        "B Baggage HTTP Header Format: several headers"
    );
    assert_eq!(
        baggage(&["a=1,b=2,a=3"]),
        [entry("a", "3"), entry("b", "2")],
        "the last of a key counts"
    );
}

#[test]
fn baggage_limits() {
    let many: Vec<String> = (0..100).map(|n| format!("k{n}=v")).collect();
    assert_eq!(baggage(&[&many.join(",")]).len(), 64, "B Limits: 64 entries");
    let whole = format!("k={}", "v".repeat(8190));
    assert_eq!(baggage(&[&whole]).len(), 1, "B Limits: 8192 bytes");
    assert_eq!(baggage(&[&format!("{whole}v")]).len(), 0);
    assert_eq!(baggage(&["a=1", &whole]).len(), 1, "what fits is kept");
}

#[test]
fn baggage_is_passed_on_within_its_limits() {
    let pass_on = |values: &[&str]| {
        let list: Vec<_> = values.iter().map(|value| ("baggage", *value)).collect();
        let propagator = BaggagePropagator::new();
        let cx =
            propagator.extract_with_context(&Context::new(), &HeaderExtractor(&headers(&list)));
        let mut sent = HeaderMap::new();
        propagator.inject_context(&cx, &mut HeaderInjector(&mut sent));
        sent.get("baggage").map(|value| value.to_str().expect("text").to_owned())
    };
    for value in ["k=a=b", "k=100%25", "k=%22%2C%3B%5C%20", "k=v;p1;p2=%20", "k=%E2%82%AC"] {
        assert_eq!(pass_on(&[value]).as_deref(), Some(value));
    }
    assert_eq!(pass_on(&[""]), None, "nothing is not sent");
    // 3,000 characters that are nine bytes each when encoded.
    let wide = format!("k={}", "%E2%82%AC".repeat(900));
    assert_eq!(pass_on(&[&wide]).map(|header| header.len()), Some(wide.len()));
    let mut sent = HeaderMap::new();
    let cx =
        Context::new().with_baggage([opentelemetry::KeyValue::new("k", "\u{20ac}".repeat(2000))]);
    BaggagePropagator::new().inject_context(&cx, &mut HeaderInjector(&mut sent));
    assert!(sent.is_empty(), "18,000 bytes are more than 8,192");
}
