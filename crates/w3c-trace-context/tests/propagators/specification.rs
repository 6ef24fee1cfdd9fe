//! The rules of both standards as tables. Each row has a rule and its section, the headers that arrive, and the expected result.
//!
//! `TC` is Trace Context Level 2, `B` is Baggage, each with the number of the section.

use super::*;
use opentelemetry::baggage::Baggage;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";
const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn received<Value: AsRef<[u8]>>(list: &[(&str, Value)]) -> Context {
    extract(&TraceContextPropagator::new(), &headers(list))
}

/// The trace context that is passed on.
fn passed_on(cx: &Context) -> (Option<String>, Option<String>) {
    let headers = inject(&TraceContextPropagator::new(), cx);
    let text = |name| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
    (text("traceparent"), text("tracestate"))
}

/// The `tracestate` that is passed on when these arrive with a valid `traceparent`.
fn state(values: &[&str]) -> Option<String> {
    let states = values.iter().map(|value| ("tracestate", *value));
    let cx = received(&Vec::from_iter([("traceparent", VALID)].into_iter().chain(states)));
    let trace_id = cx.span().span_context().trace_id().to_string();
    assert_eq!(trace_id, TRACE_ID, "TC Tracestate Header: {values:?}");
    passed_on(&cx).1
}

/// Writes out a `traceparent` in which `T` stands for the trace id and `P` for the parent id.
fn long(short: &str) -> String {
    short.replace('T', TRACE_ID).replace('P', PARENT_ID)
}

#[test]
fn traceparent() {
    let valid = |cx: &Context| cx.span().span_context().is_valid();
    let zeros = "0".repeat(32);
    for (rule, values) in [
        ("TC traceparent Header Field Values: no value", &[""][..]),
        ("TC version: ff is forbidden", &["ff-T-P-01"]),
        ("TC version: digits in lower case", &["0A-T-P-01"]),
        ("TC version: hexadecimal", &["0.-T-P-01", ".0-T-P-01"]),
        ("TC version: a sign is not a digit", &["+0-T-P-01"]),
        ("TC version: two digits", &["0-T-P-01", "000-T-P-01", "0000-T-P-01"]),
        ("TC trace-id: not all zero", &[&format!("00-{zeros}-P-01")]),
        ("TC trace-id: lower case", &[&format!("00-{}-P-01", TRACE_ID.to_uppercase())]),
        ("TC trace-id: hexadecimal", &[&format!("00-{}-P-01", TRACE_ID.replace('4', "."))]),
        ("TC trace-id: 32 digits", &[&format!("00-{}-P-01", &TRACE_ID[1..]), "00-T0-P-01"]),
        ("TC parent-id: not all zero", &["00-T-0000000000000000-01"]),
        ("TC parent-id: lower case", &[&format!("00-T-{}-01", PARENT_ID.to_uppercase())]),
        ("TC parent-id: hexadecimal", &[&format!("00-T-{}-01", PARENT_ID.replace('f', "."))]),
        ("TC parent-id: 16 digits", &["00-T-0f067aa0ba902b7-01", "00-T-P0-01"]),
        ("TC trace-flags: hexadecimal", &["00-T-P-.0"]),
        ("TC trace-flags: lower case", &["00-T-P-0A"]),
        ("TC trace-flags: two digits", &["00-T-P-1", "00-T-P-001"]),
        (
            "TC version-format: version 00 ends with the flags",
            &["00-T-P-01-", "00-T-P-01.", "00-T-P-01-later"],
        ),
        ("TC Versioning of traceparent: a later version: at least 55 characters", &["cc-T-P-1"]),
        ("TC Versioning of traceparent: a later version: then a dash", &["cc-T-P-01.later"]),
        (
            "TC Versioning of traceparent: a later version: a valid trace-id",
            &[&format!("cc-{zeros}-P-01")],
        ),
        ("TC traceparent Header Field Values: a dash between the fields", &["00_T_P_01"]),
    ] {
        for value in values.iter().map(|value| long(value)) {
            let list = [("traceparent", &*value), ("tracestate", "a=1")];
            let cx = received(&list);
            assert_eq!((valid(&cx), passed_on(&cx)), (false, (None, None)), "{rule}: {value:?}");
            let own = received(&[("traceparent", VALID)]);
            let kept = TraceContextPropagator::new()
                .extract_with_context(&own, &HeaderExtractor(&headers(&list)));
            assert!(valid(&kept), "the context that was there stays: {rule}: {value:?}");
        }
    }
    for (rule, value, expected) in [
        ("TC Examples of HTTP traceparent Headers", "00-T-P-01", "00-T-P-01"),
        ("RFC 9110 5.5 space around a value", "\t 00-T-P-01 \t", "00-T-P-01"),
        ("TC Sampled Flag: sampled, unset", "00-T-P-00", "00-T-P-00"),
        ("TC Random Trace ID Flag: random", "00-T-P-03", "00-T-P-03"),
        ("TC Random Trace ID Flag: random alone", "00-T-P-02", "00-T-P-02"),
        ("TC Other Flags: other flags are zero", "00-T-P-ff", "00-T-P-03"),
        ("TC Other Flags: other flags are zero", "00-T-P-fc", "00-T-P-00"),
        ("TC Versioning of traceparent: sent as version 00", "cc-T-P-01", "00-T-P-01"),
        ("TC Versioning of traceparent: the rest is not read", "cc-T-P-01-later", "00-T-P-01"),
        ("TC Versioning of traceparent: the rest is not read", "01-T-P-01-", "00-T-P-01"),
        ("TC Versioning of traceparent: the rest is not read", "cc-T-P-01-\u{e4}", "00-T-P-01"),
        ("TC Versioning of traceparent: fe is a version", "fe-T-P-01", "00-T-P-01"),
    ] {
        let cx = received(&[("traceparent", long(value))]);
        let remote = cx.span().span_context().is_remote();
        assert_eq!((remote, passed_on(&cx).0), (true, Some(long(expected))), "{rule}: {value:?}");
    }
}

#[test]
fn traceparent_comes_once_and_by_its_name() {
    let other = VALID.replace("4bf9", "1111");
    let twice = |second| vec![("traceparent", VALID.as_bytes()), ("traceparent", second)];
    for (rule, list) in [
        ("TC Traceparent Header: one value", twice(other.as_bytes())),
        ("TC Traceparent Header: one value, also of the same twice", twice(VALID.as_bytes())),
        ("TC Traceparent Header: one value, also when one is empty", twice(b"")),
        ("TC Traceparent Header: one value, also when one is not text", twice(b"\xff")),
        ("TC Header Name: the name", vec![("trace-parent", VALID.as_bytes())]),
        ("TC Header Name: the name", vec![("trace.parent", VALID.as_bytes())]),
        ("TC Tracestate Header: tracestate alone", vec![("tracestate", b"a=1")]),
        ("no header", vec![]),
    ] {
        assert_eq!(passed_on(&received(&list)), (None, None), "{rule}");
    }
    for name in ["TraceParent", "TRACEPARENT", "TrAcEpArEnT"] {
        let passed_on = passed_on(&received(&[(name, VALID)]));
        assert_eq!(passed_on.0.as_deref(), Some(VALID), "TC Header Name: {name}");
    }
}

#[test]
fn tracestate() {
    let many = |count: usize| Vec::from_iter((1..=count).map(|n| format!("k{n}={n}"))).join(",");
    let v = |count| "v".repeat(count);
    let kept = |rule, value: &str| assert_eq!(state(&[value]).as_deref(), Some(value), "{rule}");
    kept("TC list:", "foo=1,bar=2");
    kept("TC Key: all characters of a key", "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1");
    kept("TC Key: a digit first", "0a=1");
    kept("TC Key: at signs", "foo@=1,foo@@bar=2,foo@bar@baz=3,bar=4");
    kept("TC Key: 256 characters", &format!("{}=1", v(256)));
    kept("TC Key: anything behind an at sign", &format!("foo=1,{}@v=1,t@{}=1", v(242), v(15)));
    let legal = (b' '..=b'~').filter(|byte| !b",=".contains(byte)).map(char::from);
    kept("TC Value: all characters of a value", &format!("a={}", String::from_iter(legal)));
    kept("TC Value: leading spaces are part of a value", "a=  1");
    kept("TC Value: 256 characters", &format!("a={}", v(256)));
    kept("TC list: 32 members", &many(32));
    let over_512 = format!("a={},b={},c={}", v(250), v(250), v(250));
    kept("TC tracestate Limits: more than 512 characters", &over_512);

    let gone = |rule, value: &str| assert_eq!(state(&[value]), None, "{rule}: {value}");
    gone("TC list-members: no equals sign", "foo");
    gone("TC list-members: no key", "=1");
    gone("TC Key: lower case", "foo=1,FOO=2");
    gone("TC Key: other characters", "foo.bar=1");
    gone("TC Key: no space in a key", "foo =1");
    gone("TC Key: begins with a letter or digit", "@foo=1,bar=2");
    gone("TC Key: begins with a letter or digit", "_a=1");
    gone("TC Key: more than 256 characters", &format!("foo=1,{}=1", v(257)));
    gone("TC Value: an equals sign in a value", "foo=bar=baz");
    gone("TC Value: no value", "foo=,bar=3");
    gone("TC Value: a tab in a value", "foo=1\t2");
    gone("TC Value: more than 256 characters", &format!("foo=1,a={}", v(257)));
    gone("TC list: 33 members", &many(33));
    gone("TC list: 33 members, also with keys that are repeated", &format!("{},k1=2", many(32)));
    gone("TC list: 1,000 members of two keys", &["a=1,b=2"; 500].join(","));
}

#[test]
fn tracestate_in_several_headers_is_one_list() {
    let list = |rule, values: &[&str], expected| {
        assert_eq!(state(values).as_deref(), expected, "{rule}: {values:?}");
    };
    let three = ["foo=1,bar=2", "rojo=1", "baz=3"];
    list("TC tracestate Header Field Values: in order", &three, Some("foo=1,bar=2,rojo=1,baz=3"));
    list("TC list: empty ones are allowed", &["", "foo=1", ""], Some("foo=1"));
    list("TC list: empty members are allowed", &["foo=1,, ,\t,bar=2,"], Some("foo=1,bar=2"));
    let spaces = ["foo=1 \t , \t bar=2, \t baz=3"];
    list("TC list: space around members", &spaces, Some("foo=1,bar=2,baz=3"));
    let repeated = ["foo=1,bar=2,foo=3", "bar=4,baz=5"];
    list("TC Combined Header Value: the first of a key", &repeated, Some("foo=1,bar=2,baz=5"));
    list("TC tracestate Header Field Values: an empty list is not sent", &[""], None);
    list("TC list-members: one invalid member", &["foo=1", "BAR=2"], None);
}

#[test]
fn a_tracestate_that_is_not_text_is_not_an_empty_one() {
    let states: [(&str, &[u8]); 2] = [("tracestate", b"a=1"), ("tracestate", b"b=\xff")];
    let cx = received(&[&[("traceparent", VALID.as_bytes())][..], &states].concat());
    assert_eq!(passed_on(&cx), (Some(VALID.into()), None));
}

#[test]
fn what_came_with_a_trace_goes_on_with_it_alone() {
    let state = "tenant@a-vendor-with-a-long-name=1";
    let cx = received(&[("traceparent", &*long("00-T-P-03")), ("tracestate", state)]);
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
        ("a child passes both on", child(trace_id, TraceState::NONE), ("02", Some(state))),
        ("another trace does not", child(7, TraceState::NONE), ("00", None)),
        ("what a sampler says counts", child(trace_id, own), ("02", Some("own=1"))),
    ] {
        assert_eq!((&*passed_on.0, passed_on.1.as_deref()), expected, "{rule}");
    }
}

#[test]
fn headers_that_are_there_are_replaced() {
    let stale = [("traceparent", "x"), ("traceparent", "y"), ("tracestate", "stale=1")];
    let mut sent = headers(&[&stale[..], &[("other", "z")]].concat());
    let cx = received(&[("traceparent", VALID)]);
    TraceContextPropagator::new().inject_context(&cx, &mut HeaderInjector(&mut sent));
    // The state of another trace must not be sent.
    assert_eq!(sent, headers(&[("traceparent", VALID), ("other", "z")]));
}

fn received_baggage(values: &[&str]) -> Context {
    let list = Vec::from_iter(values.iter().map(|value| ("baggage", *value)));
    extract(&BaggagePropagator::new(), &headers(&list))
}

/// The baggage that arrives, sorted: key, value, properties.
fn baggage(values: &[&str]) -> Vec<[String; 3]> {
    let cx = received_baggage(values);
    let entries = cx.baggage().iter().map(|(key, (value, properties))| {
        [key.to_string(), value.to_string(), properties.to_string()]
    });
    let mut entries = Vec::from_iter(entries);
    entries.sort();
    entries
}

#[test]
fn baggage_entries() {
    let token = "!#$%&'*+-.^_`|~09azAZ";
    for (rule, header, expected) in [
        ("B Definition", "userId=alice", ["userId", "alice", ""]),
        ("B Definition: space is not part of it", " userId =\t alice \t", ["userId", "alice", ""]),
        ("B key: all characters of a token", &format!("{token}=1"), [token, "1", ""]),
        ("B value: an equals sign in a value", "k=a=b", ["k", "a=b", ""]),
        ("B value: percent-encoded", "k=DF%2028", ["k", "DF 28", ""]),
        ("B value: percent-encoded UTF-8", "k=%F0%9F%8E%92%c3%a4", ["k", "\u{1f392}\u{e4}", ""]),
        ("B value: not UTF-8", "k=a%FFb", ["k", "a\u{fffd}b", ""]),
        ("B value: a percent sign alone", "k=100%", ["k", "100%", ""]),
        ("B value: a percent sign alone", "k=%zz%4", ["k", "%zz%4", ""]),
        ("B value: once only", "k=%2541", ["k", "%41", ""]),
        ("B value: an empty value", "k=", ["k", "", ""]),
        ("B property: properties", "k=v;p1;p2=x", ["k", "v", "p1;p2=x"]),
        ("B property: properties as they came", "k=v ; p1 = %20 ;p2", ["k", "v", "p1 = %20 ;p2"]),
    ] {
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
        ("B property: a space in a key", "k=v;a b"),
        ("B property: no key", "k=v;=1"),
        ("B property: no property", "k=v;"),
        ("B property: a space in a value", "k=v;p=a b"),
        ("nothing", ""),
        ("nothing", " , ,"),
    ] {
        assert_eq!(baggage(&[header]).len(), 0, "{rule}: {header}");
        // The others stay.
        assert_eq!(baggage(&[&format!("{header},ok=1")]), [["ok", "1", ""]], "{rule}: {header}");
    }
    // HTTP allows other bytes than ASCII in a header. They spoil only their own entry.
    let not_text = headers(&[("baggage", &b"a=1,b=\xff,c=3"[..]), ("baggage", b"d=4")]);
    let cx = extract(&BaggagePropagator::new(), &not_text);
    let mut keys = Vec::from_iter(cx.baggage().iter().map(|(key, _)| key.as_str()));
    keys.sort();
    assert_eq!(keys, ["a", "c", "d"], "B Header Encoding");
    let several = [["a", "1", ""], ["b", "2", ""], ["c", "3", ""]];
    assert_eq!(baggage(&["a=1", "b=2,c=3"]), several, "B Baggage HTTP Header Format");
    let last = [["a", "3", ""], ["b", "2", ""]];
    assert_eq!(baggage(&["a=1,b=2,a=3"]), last, "the last of a key counts");
}

#[test]
fn baggage_limits() {
    let many = Vec::from_iter((0..100).map(|n| format!("k{n}=v"))).join(",");
    let whole = format!("k={}", "v".repeat(8190));
    for (rule, values, expected) in [
        ("B Limits: 64 entries", &[&*many][..], 64),
        ("B Limits: 8192 bytes", &[&whole], 1),
        ("B Limits: 8193 bytes", &[&format!("{whole}v")], 0),
        ("B Limits: invalid entries don't count", &[&"a b=1,".repeat(100), &many], 64),
        ("B Limits: invalid entries don't count", &[&format!("a b={}", &whole[2..]), &whole], 1),
        ("B Limits: spaces don't count", &[&" ".repeat(8192), &whole], 1),
        ("B Limits: entries that were replaced don't count", &[&whole, "k=1", "b=2"], 2),
        ("an entry that is too long doesn't cost those after it", &["a=1", &whole, "b=2"], 2),
        ("what fits is kept", &["a=1", &whole], 1),
    ] {
        assert_eq!(baggage(values).len(), expected, "{rule}");
    }
}

#[test]
fn baggage_is_passed_on_within_its_limits() {
    let sent = |cx: &Context| inject(&BaggagePropagator::new(), cx);
    // 8,192 bytes: 910 characters that take nine each when they are encoded.
    let wide = format!("k={}", "%E2%82%AC".repeat(910));
    for value in ["k=a=b", "k=100%25", "k=%22%2C%3B%5C%20", "k=v;p1;p2=%20", "k=%E2%82%AC", &wide] {
        assert_eq!(sent(&received_baggage(&[value])), headers(&[("baggage", value)]));
    }
    assert_eq!(sent(&received_baggage(&[""])), HeaderMap::new(), "an empty list is not sent");
    // The API takes any text as properties.
    let mut baggage = Baggage::new();
    baggage.insert_with_metadata("k", "v", "p=a b; q ;not a token;;=;r=%20");
    let properties = sent(&Context::new().with_baggage(baggage));
    assert_eq!(properties, headers(&[("baggage", "k=v;p=a%20b;q;r=%20")]));
    let too_long = KeyValue::new("k", "\u{20ac}".repeat(910) + "v");
    let too_long = Context::new().with_baggage([too_long]);
    assert_eq!(sent(&too_long), HeaderMap::new(), "8,193 bytes are more than 8,192");
}
