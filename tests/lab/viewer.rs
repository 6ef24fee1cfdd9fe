//! What the lab shows: the list, the page of a trace, Jaeger's JSON, and the files of a session.

use std::path::Path;
use std::sync::Arc;

use crate::support;
use crate::support::client;
use crate::support::in_process::{JSON, Lab, json_body, span, trace_path};
use lab::analysis::{Calls, Share, calls, critical_path, shares};
use lab::case::Case;
use lab::list::{Filter, List, duration};
use lab::session::{self, Recorder};
use lab::store::{Limits, Store};
use lab::summary::{Summary, breaks, grouped};
use lab::tree::Tree;
use lab::wire::Wire;
use lab::{otlp, terminal};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind::{self, Client, Internal, Server};
use serde_json::{Value, json};

/// A request in OTLP JSON: spans by service. Times in milliseconds.
#[derive(Clone)]
struct Made {
    trace: u8,
    service: &'static str,
    id: u64,
    parent: u64,
    name: &'static str,
    kind: SpanKind,
    start: u64,
    end: u64,
    more: Value,
}

/// A span of `service`, from `start` to `end` milliseconds.
fn made(
    trace: u8,
    service: &'static str,
    (id, parent): (u64, u64),
    name: &'static str,
    kind: SpanKind,
    (start, end): (u64, u64),
) -> Made {
    Made { trace, service, id, parent, name, kind, start, end, more: json!({}) }
}

impl Made {
    /// With these fields too.
    fn with(self, more: Value) -> Made {
        Made { more, ..self }
    }

    fn json(&self) -> Value {
        // 2026-01-01, so that no time is before 1970.
        let nanoseconds =
            |milliseconds: u64| (1_767_225_600_000_000_000 + milliseconds * 1_000_000).to_string();
        let mut span = json!({
            "traceId": format!("{:02x}", self.trace).repeat(16), "spanId": format!("{:016x}", self.id), "name": self.name,
            "kind": self.kind as i32, "startTimeUnixNano": nanoseconds(self.start), "endTimeUnixNano": nanoseconds(self.end),
        });
        if self.parent > 0 {
            span["parentSpanId"] = json!(format!("{:016x}", self.parent));
        }
        for (key, value) in self.more.as_object().expect("an object") {
            span[key] = value.clone();
        }
        let service = json!({ "key": "service.name", "value": { "stringValue": self.service } });
        json!({ "resource": { "attributes": [service] }, "scopeSpans": [{ "scope": { "name": "test" }, "spans": [span] }] })
    }
}

/// These spans as one request.
fn request(spans: &[Made]) -> Value {
    let spans: Vec<Value> = spans.iter().map(Made::json).collect();
    json!({ "resourceSpans": spans })
}

/// A lab that has received these spans.
async fn lab_with(spans: &[Made]) -> Lab {
    let lab = Lab::start().await;
    lab.store.add(otlp::from_json(request(spans).to_string().as_bytes()).expect("spans").spans);
    lab
}

/// The tree of trace 1.
fn tree(spans: &[Made]) -> Tree {
    let spans = otlp::from_json(request(spans).to_string().as_bytes()).expect("spans").spans;
    Tree::new(&spans.into_iter().map(Arc::new).collect::<Vec<_>>()).expect("a tree")
}

fn failed(message: &str) -> Value {
    json!({ "status": { "code": 2, "message": message } })
}

fn http(pairs: &[(&str, &str)]) -> Value {
    let attributes =
        pairs.iter().map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
    json!({ "attributes": attributes.collect::<Vec<_>>() })
}

/// Milliseconds of the critical path, as `NAME FROM..TO`.
fn path(spans: &[Made]) -> Vec<String> {
    let tree = tree(spans);
    let name = |row: usize| tree.rows[row].span.name().to_owned();
    let at = |time: u64| (time - tree.start) / 1_000_000;
    let path = critical_path(&tree);
    path.iter().map(|it| format!("{} {}..{}", name(it.row), at(it.start), at(it.end))).collect()
}

#[test]
fn the_critical_path_is_what_was_waited_for() {
    let root = || made(1, "a", (1, 0), "root", Server, (0, 100));
    // One after the other: each was waited for, and the root in between.
    let one_by_one = [
        root(),
        made(1, "a", (2, 1), "x", Client, (10, 40)),
        made(1, "a", (3, 1), "y", Client, (50, 90)),
    ];
    assert_eq!(
        path(&one_by_one),
        ["root 0..10", "x 10..40", "root 40..50", "y 50..90", "root 90..100"]
    );
    // Side by side: the one that ended last.
    let side_by_side = [
        root(),
        made(1, "a", (2, 1), "x", Client, (10, 60)),
        made(1, "a", (3, 1), "y", Client, (20, 90)),
    ];
    assert_eq!(path(&side_by_side), ["root 0..20", "y 20..90", "root 90..100"]);
    // Below, as far as it lies within its parent: nobody waited for a task that outlives the answer.
    let outlives = [
        root(),
        made(1, "a", (2, 1), "task", Internal, (80, 500)),
        made(1, "a", (3, 2), "late", Internal, (200, 400)),
    ];
    assert_eq!(path(&outlives), ["root 0..80", "task 80..100"]);
    // A child whose clock is behind begins with its parent.
    let skewed = [
        root(),
        made(1, "b", (2, 1), "x", Server, (0, 50)),
        made(1, "a", (3, 2), "y", Client, (10, 20)),
    ];
    assert_eq!(path(&skewed), ["x 0..10", "y 10..20", "x 20..50", "root 50..100"]);
}

#[test]
fn time_and_calls_are_counted_by_service() {
    let spans = [
        made(1, "a", (1, 0), "root", Server, (0, 100)),
        made(1, "a", (2, 1), "call", Client, (10, 90)).with(failed("")),
        made(1, "b", (3, 2), "answer", Server, (20, 80)),
        made(1, "b", (4, 3), "x", Internal, (30, 60)),
        made(1, "b", (5, 3), "y", Internal, (50, 70)),
    ];
    let tree = tree(&spans);
    let milliseconds = |number: u64| number * 1_000_000;
    let a = Share {
        spans: 2,
        errors: 1,
        own_time: milliseconds(20 + 20),
        critical_time: milliseconds(40),
    };
    // 20 of the answer, 30 and 20 of x and y side by side.
    let b = Share {
        spans: 3,
        errors: 0,
        own_time: milliseconds(20 + 30 + 20),
        critical_time: milliseconds(60),
    };
    assert_eq!(shares(&tree, &critical_path(&tree)), [("b", b), ("a", a)]);
    // A refusal is an error to the caller alone, and still one of the call.
    let expected = [(("a", "b"), Calls { count: 1, errors: 1 })];
    assert_eq!(calls([&tree]), expected.into_iter().collect());
}

#[tokio::test]
async fn a_clock_that_is_off_is_noted_and_does_not_stretch_the_trace() {
    let lab = lab_with(&[
        made(1, "a", (1, 0), "root", Server, (10, 100)),
        made(1, "b", (2, 1), "early", Server, (7, 50)),
        made(1, "b", (3, 1), "backwards", Server, (60, 40)),
        made(1, "b", (4, 1), "timeless", Server, (0, 0))
            .with(json!({ "startTimeUnixNano": "0", "endTimeUnixNano": "0" })),
    ])
    .await;
    let (_, text) = lab.get(&format!("{}.txt", trace_path(1))).await;
    for note in [
        "early",
        "clock skew: starts 3.00 ms before its parent",
        "ends before it starts",
        "without a time",
    ] {
        assert!(text.contains(note), "{note}: {text}");
    }
    let (_, page) = lab.get(&trace_path(1)).await;
    assert!(page.contains("4 spans from 2 services in 93.00 ms"), "{page}");
    assert!(page.contains("clocks of its services differ"), "{page}");
}

#[tokio::test]
async fn links_are_followed_both_ways() {
    let link =
        json!({ "links": [{ "traceId": "01".repeat(16), "spanId": format!("{:016x}", 1) }] });
    let lab = lab_with(&[
        made(1, "a", (1, 0), "publish", Internal, (0, 1)),
        made(2, "b", (2, 0), "process", Internal, (5, 6)).with(link),
    ])
    .await;
    let (_, page) = lab.get(&format!("{}?span=0000000000000002", trace_path(2))).await;
    assert!(page.contains(&format!("href=\"{}?span=0000000000000001\"", trace_path(1))), "{page}");
    for path in [trace_path(1), format!("{}?span=0000000000000001", trace_path(1))] {
        let (_, page) = lab.get(&path).await;
        assert!(
            page.contains(&format!(
                "Linked from <a href=\"{}?span=0000000000000002\"",
                trace_path(2)
            )),
            "{page}"
        );
    }
    let trace = &lab.get_json(&format!("/api{}", trace_path(2))).await["data"][0];
    assert_eq!(trace["spans"][0]["references"][0]["refType"], "FOLLOWS_FROM", "{trace}");
}

#[tokio::test]
async fn all_that_arrived_of_a_span_is_on_its_page() {
    let more = json!({
        "traceState": "vendor=1", "droppedAttributesCount": 2, "status": { "code": 2, "message": "no more" },
        "attributes": [
            { "key": "text", "value": { "stringValue": "tea" } }, { "key": "number", "value": { "intValue": "9007199254740993" } },
            { "key": "list", "value": { "arrayValue": { "values": [{ "stringValue": "a" }, { "doubleValue": 1.5 }, {}] } } },
            { "key": "map", "value": { "kvlistValue": { "values": [{ "key": "k", "value": { "boolValue": true } }] } } },
            { "key": "bytes", "value": { "bytesValue": "AP8=" } },
        ],
        "events": [{ "name": "exception", "timeUnixNano": "1767225600004000000", "attributes": [{ "key": "exception.message", "value": { "stringValue": "boom" } }] }],
    });
    let lab = lab_with(&[made(1, "shop", (1, 0), "root", Server, (0, 10)).with(more)]).await;
    let (_, page) = lab.get(&format!("{}?span=0000000000000001", trace_path(1))).await;
    let expected = [
        "vendor=1",
        "2 attributes more, dropped by the sender",
        "Error",
        "no more",
        "tea",
        "9007199254740993",
        "[&quot;a&quot;,1.5,null]",
        "{&quot;k&quot;:true}",
        "00ff",
        "exception",
        "4.00 ms after the start",
        "boom",
        "service.name",
        "shop",
        "test",
        "SERVER",
    ];
    for text in expected {
        assert!(page.contains(text), "{text} is not on the page: {page}");
    }
    // The script's fragment is the same detail, alone.
    let url = format!("http://{}{}/spans/0000000000000001", lab.address, trace_path(1));
    let fragment = client().get(url).send().await;
    let fragment = fragment.expect("an answer").text().await.expect("text");
    assert!(!fragment.contains("<html") && page.contains(&fragment), "{fragment}");
}

#[test]
fn durations_are_read_with_their_units() {
    for (text, nanoseconds) in [
        ("5ms", 5_000_000),
        ("1.5s", 1_500_000_000),
        ("300us", 300_000),
        ("300µs", 300_000),
        ("7ns", 7),
        ("2m", 120_000_000_000),
        ("20", 20_000_000),
        (" 1 s ", 1_000_000_000),
    ] {
        assert_eq!(duration(text).map(|it| it.as_nanos()), Ok(nanoseconds), "{text}");
    }
    for text in ["", "ms", "-1s", "1x", "1e300s", "NaN", "infs"] {
        let error = duration(text).expect_err(text);
        let error = error.to_string();
        assert!(error.contains("is not a duration: write 5ms"), "{error}");
    }
}

#[tokio::test]
async fn the_list_is_filtered_by_every_field() {
    let lab = lab_with(&[
        made(1, "shop", (1, 0), "GET /cart", Server, (0, 10)).with(http(&[("user.id", "Ada")])),
        made(2, "shop", (2, 0), "GET /cart", Server, (20, 120)).with(failed("database gone")),
        made(2, "db", (3, 2), "SELECT", Client, (30, 40)),
        made(3, "mail", (4, 99), "send", Internal, (200, 201)),
    ])
    .await;
    let every: &[u8] = &[3, 2, 1];
    let cases: [(&str, &[u8]); 16] = [
        ("", every),
        ("service=shop", &[2, 1]),
        ("service=shop&status=ok", &[1]),
        ("status=error", &[2]),
        ("status=pieces", &[3]),
        ("name=cart", &[2, 1]),
        ("name=select", &[2]),
        ("min=5ms", &[2, 1]),
        ("max=50ms", &[3, 1]),
        ("min=5ms&max=50ms", &[1]),
        ("text=ada", &[1]),
        ("text=DATABASE", &[2]),
        ("text=0303", &[3]),
        ("text=shop", &[2, 1]),
        ("service=sho", &[]),
        ("unknown=field", every),
    ];
    for (query, expected) in cases {
        let url = format!("http://{}/traces.json?{query}", lab.address);
        let answer = client().get(url).send().await;
        let found: Vec<Summary> = answer.expect("an answer").json().await.expect("a list");
        let found: Vec<String> = found.iter().map(|it| it.trace_id.to_string()).collect();
        let expected: Vec<String> =
            expected.iter().map(|it| format!("{it:02x}").repeat(16)).collect();
        assert_eq!(found, expected, "{query}");
        let (_, page) = lab.get(&format!("/traces?{query}")).await;
        let shown = expected.iter().filter(|id| page.contains(id.as_str())).count();
        assert_eq!(shown, expected.len(), "{query}: {page}");
    }
    for (query, reason) in
        [("min=soon", "is not a duration"), ("status=bad", "use error, ok or pieces")]
    {
        let (status, page) = lab.get(&format!("/traces?{query}")).await;
        assert_eq!(status, 400);
        assert!(page.contains(reason) && page.contains("role=\"alert\""), "{page}");
    }
    // A late span changes what the list says of its trace.
    assert!(lab.get("/traces?status=error&service=mail").await.1.contains("No trace passes"));
    let late =
        request(&[made(3, "mail", (99, 0), "top", Internal, (199, 300)).with(failed("late"))]);
    lab.export(&[("content-type", JSON)], late.to_string()).await;
    assert!(lab.get("/traces?status=error&service=mail").await.1.contains(&"03".repeat(16)));
}

#[tokio::test]
async fn a_long_list_is_shown_in_parts() {
    let spans = (1..=250u64).map(|id| {
        let more = json!({ "traceId": format!("{id:032x}") });
        made(1, "shop", (1, 0), "GET /", Server, (id, id + 1)).with(more)
    });
    let lab = lab_with(&spans.collect::<Vec<_>>()).await;
    let (_, first) = lab.get("/traces?name=GET").await;
    assert!(
        first.contains("1 to 200 are shown") && first.contains(&format!("{:032x}", 51)),
        "{first}"
    );
    assert!(!first.contains(&format!("{:032x}", 50)) && !first.contains("Newer traces"));
    let (_, link) = first.split_once("<a href=\"/traces?name=GET").expect("a link");
    let (query, _) = link.split_once('"').expect("its end");
    let (_, second) = lab.get(&format!("/traces?name=GET{}", query.replace("&amp;", "&"))).await;
    assert!(
        second.contains("201 to 250 are shown") && second.contains(&format!("{:032x}", 50)),
        "{second}"
    );
    assert!(second.contains("Newer traces") && !second.contains("Older traces"));
}

/// To see what is behind a long task, a span is looked at alone, on its own scale.
#[tokio::test]
async fn a_part_of_a_trace_is_shown_alone() {
    let lab = lab_with(&[
        made(1, "a", (1, 0), "root", Server, (0, 1_000_000)),
        made(1, "b", (2, 1), "part", Client, (100, 140)),
        made(1, "b", (3, 2), "below", Internal, (110, 120)),
        made(1, "b", (4, 1), "other", Internal, (200, 300)),
    ])
    .await;
    let (_, page) = lab.get(&format!("{}?focus=0000000000000002", trace_path(1))).await;
    assert!(page.contains("2 spans from 1 service in 40.00 ms"), "{page}");
    assert!(page.contains("left:25.00%;width:25.00%"), "{page}");
    assert!(!page.contains("s0000000000000004"), "{page}");
    let (_, page) = lab.get(&format!("{}?span=0000000000000009", trace_path(1))).await;
    assert!(page.contains("This trace has no span <code>0000000000000009</code>"), "{page}");
}

/// A sender of odd numbers can spoil its own traces, and no page.
#[tokio::test]
async fn times_at_the_edge_of_their_range_break_no_page() {
    let end = json!({ "startTimeUnixNano": "1", "endTimeUnixNano": u64::MAX.to_string() });
    let lab = lab_with(&[
        made(1, "a", (1, 0), "call", Client, (0, 0)).with(end.clone()),
        made(2, "b", (1, 0), "answer", Server, (0, 0)).with(end.clone()),
        made(3, "c", (1, 0), "root", Server, (0, 0)).with(end.clone()),
        made(3, "c", (2, 1), "one", Internal, (0, 0)).with(end.clone()),
        made(3, "c", (3, 1), "two", Internal, (0, 0)).with(end),
        made(4, "d", (1, 1), "its own parent", Internal, (0, 1)),
        made(5, "e", (1, 0), "", Internal, (0, 1)).with(json!({ "startTimeUnixNano": "0" })),
    ])
    .await;
    let mut paths = vec!["/traces".to_owned(), "/traces/map".to_owned(), "/traces.json".to_owned()];
    for trace in 1..=5 {
        let path = trace_path(trace);
        paths.extend(
            ["", ".txt", ".json", ".html", "?span=0000000000000001", "?focus=0000000000000001"]
                .map(|form| path.clone() + form),
        );
        paths.push(format!("/api{path}"));
    }
    for path in paths {
        assert_eq!(lab.get(&path).await.0, 200, "{path}");
    }
    let (_, text) = lab.get(&format!("{}.txt", trace_path(4))).await;
    assert!(text.contains("its parent is below it") && !text.contains("is not here"), "{text}");
    let (_, list) = lab.get("/traces").await;
    assert!(list.contains("(no name)"), "{list}");
}

/// What the reference says of paths is so: each of its tables' paths answers.
#[tokio::test]
async fn every_path_of_the_reference_answers() {
    let lab = lab_with(&fallen_apart()).await;
    let page = support::root().join("src/reference/lab.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let paths = page.lines().filter_map(|line| line.strip_prefix("| `/")?.split_once('`'));
    let mut count = 0;
    for (path, _) in paths {
        let id = "01".repeat(16);
        let path = path
            .replace("{id}", &id)
            .replace("{span}", &format!("{:016x}", 1))
            .replace("{service}", "a");
        let query = if path == "api/operations" { "?service=a" } else { "" };
        assert_eq!(lab.get(&format!("/{path}{query}")).await.0, 200, "{path}");
        count += 1;
    }
    assert!(count > 10, "{count}");
}

const METHOD: &str = "http.request.method";

/// A request that lost its context on the way from `a` to `b`: two traces.
fn fallen_apart() -> [Made; 3] {
    [
        made(1, "a", (1, 0), "GET /", Server, (0, 100))
            .with(http(&[(METHOD, "GET"), ("url.path", "/")])),
        made(1, "a", (2, 1), "POST", Client, (10, 90))
            .with(http(&[(METHOD, "POST"), ("url.full", "http://b:80/process?x=1")])),
        made(2, "b", (3, 0), "POST /process", Server, (20, 80))
            .with(http(&[(METHOD, "POST"), ("url.path", "/process")])),
    ]
}

fn broken(spans: &[Made]) -> Vec<(String, String)> {
    let store = Store::new(Limits::default());
    store.add(otlp::from_json(request(spans).to_string().as_bytes()).expect("spans").spans);
    let found = breaks(&List::new(store).summaries());
    found.into_iter().map(|it| (it.caller, it.called)).collect()
}

#[test]
fn a_request_in_two_traces_is_told_from_two_requests() {
    assert_eq!(broken(&fallen_apart()), [("a".to_owned(), "b".to_owned())]);
    // Each a little different, and not one request: what was changed, and the span instead.
    let server = |times, pairs: &[(&str, &str)]| {
        made(2, "b", (3, 0), "POST /process", Server, times).with(http(pairs))
    };
    let same = [(METHOD, "POST"), ("url.path", "/process")];
    let linked =
        json!({ "links": [{ "traceId": "01".repeat(16), "spanId": format!("{:016x}", 2) }] });
    let [root, call, _] = fallen_apart();
    let mut linked_on_purpose = server((20, 80), &same);
    linked_on_purpose.more["links"] = linked["links"].clone();
    for (what, other) in [
        ("before the call", server((5, 80), &same)),
        ("long after it", server((20, 200), &same)),
        ("another path", server((20, 80), &[(METHOD, "POST"), ("url.path", "/other")])),
        ("another method", server((20, 80), &[(METHOD, "GET"), ("url.path", "/process")])),
        ("of the same service", Made { service: "a", ..server((20, 80), &same) }),
        ("no server", Made { kind: Internal, ..server((20, 80), &same) }),
        ("linked", linked_on_purpose),
    ] {
        assert_eq!(broken(&[root.clone(), call.clone(), other]), [], "{what}");
    }
    // Answered within its own trace: the other server was called by somebody else.
    let answered = [
        root.clone(),
        call.clone(),
        made(1, "b", (9, 2), "POST /process", Server, (20, 80)),
        server((21, 79), &same),
    ];
    assert_eq!(broken(&answered), []);
    // Two calls that could have reached it: nobody knows whose it is.
    let again = Made { id: 6, ..call.clone() };
    let two_calls = [root.clone(), call.clone(), again, server((20, 80), &same)];
    assert_eq!(broken(&two_calls), []);
    // Two that could be it: nobody knows which.
    let two =
        [root, call, server((20, 80), &same), Made { trace: 3, id: 7, ..server((30, 70), &same) }];
    assert_eq!(broken(&two), []);
}

#[tokio::test]
async fn the_traces_of_one_request_stand_together() {
    let mut spans = Vec::from(fallen_apart());
    spans.push(made(9, "c", (8, 0), "between", Internal, (50, 60)));
    let lab = lab_with(&spans).await;
    let list = List::new(lab.store.clone());
    let summaries = list.find(&Filter::default());
    let groups = grouped(&summaries, &breaks(&summaries));
    let ids = groups.iter().map(|group| {
        group
            .iter()
            .map(|index| summaries[*index].trace_id.to_string()[..2].to_owned())
            .collect::<Vec<_>>()
    });
    assert_eq!(ids.collect::<Vec<_>>(), [vec!["09"], vec!["01", "02"]]);

    let (_, page) = lab.get("/traces").await;
    assert!(
        page.contains("One request in 2 traces, it seems")
            && page.contains("was answered by <bdi>b</bdi>"),
        "{page}"
    );
    for (this, other) in [(1, 2), (2, 1)] {
        let (_, page) = lab.get(&trace_path(this)).await;
        assert!(
            page.contains("a part of one request")
                && page.contains(&format!("href=\"{}\"", trace_path(other))),
            "{page}"
        );
    }
    assert!(!lab.get(&trace_path(9)).await.1.contains("a part of one request"));
}

#[tokio::test]
async fn the_map_shows_who_calls_whom() {
    let lab = lab_with(&[
        made(1, "a", (1, 0), "x", Client, (0, 10)),
        made(1, "b", (2, 1), "y", Server, (1, 9)).with(failed("")),
        // Services that call each other in a ring must not keep the drawing from its end.
        made(1, "a", (3, 2), "z", Server, (2, 8)),
    ])
    .await;
    let (_, page) = lab.get("/traces/map").await;
    assert!(page.contains("Calls between services") && page.contains("1 error"), "{page}");
    let found = lab.get_json("/api/dependencies").await;
    let expected = json!([{ "parent": "a", "child": "b", "callCount": 1 }, { "parent": "b", "child": "a", "callCount": 1 }]);
    assert_eq!(found["data"], expected);
    // The trace began on 2026-01-01; that day, and the hour before.
    let day = 1_767_225_600_000_u64;
    assert_eq!(
        lab.get_json(&format!("/api/dependencies?endTs={}&lookback=3600000", day + 1000)).await["total"],
        2
    );
    assert_eq!(
        lab.get_json(&format!("/api/dependencies?endTs={}&lookback=3600000", day - 1)).await["total"],
        0
    );
    assert_eq!(lab.get("/api/dependencies?endTs=soon").await.0, 400);
}

#[tokio::test]
async fn jaegers_search_takes_all_its_parameters() {
    let lab = lab_with(&[
        made(1, "shop", (1, 0), "GET /cart", Server, (0, 10)).with(http(&[("user.id", "Ada")])),
        made(2, "shop", (2, 0), "GET /cart", Server, (1000, 1100)).with(failed("gone")),
        made(2, "db", (3, 2), "SELECT", Client, (1030, 1040)),
    ])
    .await;
    let second = 1_767_225_601_000_000_u64;
    let cases: &[(&str, u64)] = &[
        ("service=shop", 2),
        ("service=shop&operation=SELECT", 0),
        ("service=db&operation=SELECT&lookback=1h", 1),
        ("service=shop&operation=all", 2),
        ("service=shop&minDuration=50ms", 1),
        ("service=shop&maxDuration=50ms", 1),
        ("service=db&minDuration=50ms", 0),
        ("service=shop&maxDuration=9000us", 0),
        (&format!("service=shop&start={second}"), 1),
        (&format!("service=shop&end={}", second - 1), 1),
        (&format!("service=shop&start={}&end={}", second + 1, second + 2), 0),
        ("service=shop&tags=%7B%22user.id%22%3A+%22Ada%22%7D", 1),
        ("service=shop&tags=%7B%22error%22%3A%22true%22%7D", 1),
        ("service=shop&tag=user.id:Ada", 1),
        ("service=shop&tag=user.id:Ada&tag=error:true", 0),
        ("service=shop&tag=service.name:shop", 2),
        (&format!("traceID={}&traceID={}", "01".repeat(16), "07".repeat(16)), 1),
    ];
    for (query, count) in cases {
        assert_eq!(lab.get_json(&format!("/api/traces?{query}")).await["total"], *count, "{query}");
    }
    for query in [
        "minDuration=long",
        "start=today",
        "tags=user.id",
        "tag=user.id",
        "traceID=xyz",
        "limit=-1",
    ] {
        let answer = lab.get(&format!("/api/traces?{query}")).await;
        let errors: Value = serde_json::from_str(&answer.1).expect("JSON");
        assert_eq!(
            (answer.0, &errors["errors"][0]["code"]),
            (400, &json!(400)),
            "{query}: {errors}"
        );
    }
    // Ids without their leading zeros, as Jaeger writes them.
    assert_eq!(lab.get(&format!("/api/traces/{}", &"01".repeat(16)[1..])).await.0, 200);
    let operations = lab.get_json("/api/operations?service=db").await;
    assert_eq!(operations["data"], json!([{ "name": "SELECT", "spanKind": "client" }]));
    assert_eq!(lab.get_json("/api/operations?service=db&spanKind=server").await["total"], 0);
    assert_eq!(lab.get("/api/operations").await.0, 400);
    assert_eq!(lab.get_json("/api/of/the/future").await["errors"][0]["code"], 404);
}

#[tokio::test]
async fn a_trace_that_is_downloaded_and_taken_again_is_the_same() {
    let lab = lab_with(&fallen_apart()).await;
    lab.export(&[("content-type", JSON)], json_body().to_string()).await;
    let other = Lab::start().await;
    for trace in [1, 2, 0x0a] {
        let (status, json) = lab.get(&format!("{}.json", trace_path(trace))).await;
        assert_eq!(status, 200);
        let import = async |body: String| {
            let url = format!("http://{}/traces/import", other.address);
            let answer = client().post(url).header("content-type", JSON).body(body).send().await;
            answer.expect("an answer").json::<Value>().await.expect("JSON")
        };
        let answer = import(json.clone()).await;
        assert_eq!(answer["traceId"], format!("{trace:02x}").repeat(16), "{answer}");
        assert_eq!(other.get(&format!("{}.json", trace_path(trace))).await.1, json);
        assert_eq!(
            import("{".to_owned()).await["message"]
                .as_str()
                .map(|it| it.starts_with("line 1: not JSON")),
            Some(true)
        );
    }
}

/// A page of another site can send a form, but no JSON, without asking first; and we do not say yes.
#[tokio::test]
async fn another_sites_page_can_put_nothing_into_the_list() {
    let lab = Lab::start().await;
    let url = format!("http://{}/traces/import", lab.address);
    for media_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        let answer = client()
            .post(&url)
            .header("content-type", media_type)
            .body(json_body().to_string())
            .send()
            .await;
        assert_eq!(answer.expect("an answer").status(), 415, "{media_type}");
    }
    let (_, allowed) =
        lab.page_sends(reqwest::Method::OPTIONS, "/traces/import", "http://localhost:8000").await;
    assert_eq!(allowed, None);
    assert_eq!(lab.spans(), 0);
}

fn opened(path: &Path) -> anyhow::Result<(Store, usize, Vec<String>)> {
    let store = Store::new(Limits::default());
    let opened = session::open(path)?;
    let spans = opened.spans.len();
    store.add(opened.spans);
    let problems = opened.problems.iter().map(ToString::to_string);
    Ok((store, spans, problems.collect()))
}

#[test]
fn a_session_is_kept_in_a_file_and_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    for spans in [&fallen_apart()[..2], &fallen_apart()[2..]] {
        // Twice: what is saved is added to what is there.
        let store = Store::new(Limits::default())
            .recorded_by(Recorder::append(&file).expect("it can be written"));
        store.add(otlp::from_json(request(spans).to_string().as_bytes()).expect("spans").spans);
    }
    let text = std::fs::read_to_string(&file).expect("text");
    assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 2);
    // What the store drops isn't saved.
    let store = opened(&file).expect("it opens").0;
    let store = store.recorded_by(Recorder::append(&file).expect("it can be written"));
    store.add(session::open(&file).expect("it opens").spans);
    assert_eq!(session::open(&file).expect("it opens").spans.len(), 3);
    let (store, spans, problems) = opened(&file).expect("it opens");
    assert_eq!((spans, problems, store.usage().traces), (3, Vec::new(), 2));
    let expected = tree(&fallen_apart()[..2]);
    let trees = store.trees();
    assert_eq!(
        trees.iter().find(|tree| tree.trace_id == expected.trace_id).expect("trace 1").to_text(),
        expected.to_text()
    );
}

#[test]
fn what_cannot_be_read_of_a_file_does_not_cost_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let good = request(&fallen_apart()[..1]);
    let other = request(&fallen_apart()[2..]);
    // Laid out for people; half a line, as a lab that was killed leaves it; not OTLP; then another.
    let text = format!("{good:#}\n\n{{\"resourceSpans\": [{{\n[1]\n{other}\n");
    std::fs::write(&file, &text).expect("written");
    let (store, spans, problems) = opened(&file).expect("it opens");
    assert_eq!((spans, store.usage().traces), (2, 2), "{problems:?}");
    let lines = |part: &str| text[..text.find(part).expect("it is there")].lines().count() + 1;
    assert!(
        problems[0].starts_with(&format!("line {}: not JSON", lines("{\"resourceSpans\": [{"))),
        "{problems:?}"
    );
    assert!(problems[1].contains("not an OTLP trace request"), "{problems:?}");

    // What is saved behind half a line is not a part of it.
    std::fs::write(&file, "{\"resourceSpans\": [{").expect("written");
    let recorder = Recorder::append(&file).expect("it can be written");
    let spans = otlp::from_json(other.to_string().as_bytes()).expect("spans");
    recorder.record(spans.spans.iter());
    let (_, spans, problems) = opened(&file).expect("it opens");
    assert_eq!((spans, problems.len()), (1, 1), "{problems:?}");

    std::fs::write(&file, "hello\n").expect("written");
    let error = opened(&file).err().expect("an error").to_string();
    assert!(error.contains("nothing in") && error.contains("line 1: not JSON"), "{error}");
    let error = opened(&folder.path().join("none")).err().expect("an error").to_string();
    assert!(error.contains("cannot open") && error.contains("--open"), "{error}");
    let error = Recorder::append(folder.path()).err().expect("an error").to_string();
    assert!(error.contains("cannot write") && error.contains("--save"), "{error}");
}

/// A lab that was installed by itself has no book.
#[tokio::test]
async fn a_lab_without_a_book_says_so() {
    let store = Store::new(Limits::default());
    let otlp = "127.0.0.1:4318".parse().expect("an address");
    let address = support::serve(course::site::pages(store, Wire::default(), None, otlp)).await;
    let answer = client().get(format!("http://{address}/")).send().await.expect("an answer");
    let page = answer.text().await.expect("text");
    assert!(page.contains("The book is not here") && page.contains("href=\"/traces\""), "{page}");
    let answer = client().get(format!("http://{address}/x.html")).send().await.expect("an answer");
    assert_eq!(answer.status(), 404);
    let page = answer.text().await.expect("text");
    assert!(page.contains("The book is not here"), "{page}");
}

#[tokio::test]
async fn a_terminal_shows_what_was_waited_for() {
    let json = request(&fallen_apart()[..2]).to_string();
    let text = in_terminal(json.as_bytes());
    let text = anstream::adapter::strip_str(&text).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("Trace {}: 2 spans from 1 service in 100.00 ms", "01".repeat(16)));
    assert!(lines[2].starts_with("GET /    a     100.00 ms  "), "{text}");
    // A tenth of the bar before the call, and a tenth behind it.
    let bars: Vec<&str> = lines[2..4].iter().filter_map(|line| line.split("ms  ").nth(1)).collect();
    assert!(bars[0].starts_with("██████░") && bars[0].ends_with("░██████"), "{text}");
    assert!(bars[1].trim().chars().all(|it| it == '█'), "{text}");
    // Whoever names a span cannot command the terminal.
    let evil = Made { name: "\u{1b}[2Jgone\u{202e}", ..made(1, "a", (1, 0), "", Server, (0, 1)) };
    let text = in_terminal(request(&[evil]).to_string().as_bytes());
    assert!(text.contains("\\u{1b}[2Jgone\\u{202e}"), "{text}");
}

#[tokio::test]
async fn every_span_is_shown_also_where_the_parents_make_no_tree() {
    let lab = Lab::start().await;
    // A root with a child; an orphan; two that are each other's parents; one that is its own.
    let spans = [(1, 0), (2, 1), (3, 99), (4, 5), (5, 4), (6, 6)];
    lab.export_spans(spans.map(|(id, parent)| span(1, id, parent, &format!("s{id}"))).to_vec())
        .await;
    let (_, tree) = lab.get(&format!("{}.txt", trace_path(1))).await;
    for (id, _) in spans {
        assert_eq!(tree.matches(&format!("s{id} ")).count(), 1, "{tree}");
    }
    assert!(tree.contains("orphan: parent 0000000000000063 is not here"), "{tree}");
    assert!(lab.get("/traces").await.1.contains("in 4 pieces"));
}

#[tokio::test]
async fn a_chain_of_ten_thousand_spans_is_shown() {
    let lab = Lab::start().await;
    lab.export_spans((1..=10_000).map(|id| span(1, id, id - 1, "link")).collect()).await;
    let (status, tree) = lab.get(&format!("{}.txt", trace_path(1))).await;
    assert_eq!((status, tree.lines().count()), (200, 10_000));
}

#[tokio::test]
async fn a_span_cannot_write_html() {
    let lab = Lab::start().await;
    lab.export_spans(vec![span(1, 1, 0, "<script>alert(1)</script>")]).await;
    let detail = format!("{}?span=0000000000000001", trace_path(1));
    for path in ["/traces".to_owned(), trace_path(1), detail] {
        let (_, page) = lab.get(&path).await;
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
    }
    // And if one could: nothing but the viewer's own script runs.
    let answer = client().get(format!("http://{}/traces", lab.address)).send().await;
    let answer = answer.expect("an answer");
    let policy = answer.headers()["content-security-policy"].to_str().expect("text");
    assert!(
        policy.contains("script-src 'self';") && policy.contains("default-src 'none'"),
        "{policy}"
    );
}

#[tokio::test]
async fn jaegers_query_api_finds_traces() {
    let lab = Lab::start().await;
    lab.export(&[("content-type", JSON)], json_body().to_string()).await;
    lab.export_spans(vec![span(1, 1, 0, "root"), span(1, 2, 1, "child")]).await;

    assert_eq!(lab.get_json("/api/services").await["data"], json!(["python", "unknown_service"]));
    let operations = lab.get_json("/api/services/unknown_service/operations").await;
    assert_eq!(operations["data"], json!(["child", "root"]));
    assert_eq!(lab.get_json("/api/traces").await["total"], 2);
    assert_eq!(lab.get_json("/api/traces?limit=1").await["total"], 1);
    assert_eq!(lab.get_json("/api/traces?service=python").await["total"], 1);
    assert_eq!(lab.get_json("/api/traces?operation=nothing").await["total"], 0);

    let found = lab.get_json(&format!("/api{}", trace_path(0x0a))).await;
    let span = &found["data"][0]["spans"][0];
    assert_eq!(span["operationName"], "from json");
    assert_eq!(
        (&span["startTime"], &span["duration"]),
        (&json!(1000), &json!(2500)),
        "microseconds"
    );
    assert_eq!(
        found["data"][0]["processes"][span["processID"].as_str().expect("an id")]["serviceName"],
        "python"
    );
    let tags = span["tags"].as_array().expect("tags");
    for tag in [
        json!({ "key": "span.kind", "type": "string", "value": "server" }),
        json!({ "key": "error", "type": "bool", "value": true }),
        json!({ "key": "http.response.status_code", "type": "int64", "value": 500 }),
    ] {
        assert!(tags.contains(&tag), "{tag} is not in {tags:?}");
    }
    let child = &lab.get_json(&format!("/api{}", trace_path(1))).await["data"][0]["spans"][1];
    assert_eq!(child["references"][0]["spanID"], "0000000000000001");

    assert_eq!(lab.get("/api/traces/xyz").await.0, 400);
    assert_eq!(lab.get(&format!("/api{}", trace_path(9))).await.0, 404);
}

/// The first trace of a text, as the terminal shows it.
fn in_terminal(json: &[u8]) -> String {
    let case = Case::read(json).expect("a case");
    let id = case.trees.first().expect("a trace").trace_id;
    terminal::trace(&case, id, 100).expect("a trace")
}
