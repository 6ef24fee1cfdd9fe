//! The lab's pages and files: the list, a trace, Jaeger's JSON, and sessions.

use std::path::Path;
use std::sync::Arc;

use lab::analysis::{Calls, Share, calls, critical_path, shares};
use lab::case::Case;
use lab::list::{Fields, Filter, List, duration};
use lab::recorder::Recorder;
use lab::session;
use lab::store::{Limits, Store};
use lab::summary::{Summary, breaks, grouped};
use lab::terminal;
use lab::tree::Tree;
use regex::Regex;
use serde_json::{Value, json};
use support::in_process::{
    JSON, Lab, NEW_YEAR, json_body, span, spans, table, trace_id, trace_path,
};
use support::{client, has, lacks};

/// A request that lost its context on the way from `a` to `b`: two traces.
const ROOT: &str = "1 a 1 SERVER 0..100 GET / http.request.method=GET url.path=/";
const CALL: &str =
    "1 a 2<1 CLIENT 10..90 POST http.request.method=POST url.full=http://b:80/process?x=1";
const ANSWER: &str = "2 b 3 SERVER 20..80 POST /process http.request.method=POST url.path=/process";

fn fallen_apart() -> String {
    [ROOT, CALL, ANSWER].join(";")
}

fn store(table: &str) -> Store {
    let store = Store::new(Limits::default());
    store.add(spans(table));
    store
}

/// The tree of the only trace of a table.
fn tree(table: &str) -> Tree {
    Tree::new(&spans(table).into_iter().map(Arc::new).collect::<Vec<_>>()).expect("a tree")
}

#[test]
fn the_critical_path_is_what_was_waited_for() {
    for (children, expected) in [
        // One after the other: each was waited for, and the root in between.
        (
            "1 a 2<1 CLIENT 10..40 x; 1 a 3<1 CLIENT 50..90 y",
            "root 0..10, x 10..40, root 40..50, y 50..90, root 90..100",
        ),
        // Side by side: the one that ended last.
        ("1 a 2<1 CLIENT 10..60 x; 1 a 3<1 CLIENT 20..90 y", "root 0..20, y 20..90, root 90..100"),
        // Below, as far as it lies within its parent: nobody waited for a task that outlives the answer.
        (
            "1 a 2<1 INTERNAL 80..500 task; 1 a 3<2 INTERNAL 200..400 late",
            "root 0..80, task 80..100",
        ),
        // A child whose clock is behind begins with its parent.
        (
            "1 b 2<1 SERVER 0..50 x; 1 a 3<2 CLIENT 10..20 y",
            "x 0..10, y 10..20, x 20..50, root 50..100",
        ),
    ] {
        let tree = tree(&format!("1 a 1 SERVER 0..100 root; {children}"));
        let name = |row: usize| tree.rows[row].span.name();
        let at = |time: u64| (time - tree.start) / 1_000_000;
        let path = critical_path(&tree);
        let path =
            path.iter().map(|it| format!("{} {}..{}", name(it.row), at(it.start), at(it.end)));
        assert_eq!(path.collect::<Vec<_>>().join(", "), expected);
    }
}

#[test]
fn time_and_calls_are_counted_by_service() {
    let tree = tree(
        "1 a 1   SERVER    0..100 root
         1 a 2<1 CLIENT   10..90  call error=
         1 b 3<2 SERVER   20..80  answer
         1 b 4<3 INTERNAL 30..60  x
         1 b 5<3 INTERNAL 50..70  y",
    );
    let share = |spans, errors, own, critical| {
        let [own_time, critical_time] =
            [own, critical].map(|milliseconds: u64| milliseconds * 1_000_000);
        Share { spans, errors, own_time, critical_time }
    };
    // 20 of the answer, 30 and 20 of x and y side by side.
    let expected = [("b", share(3, 0, 20 + 30 + 20, 60)), ("a", share(2, 1, 20 + 20, 40))];
    assert_eq!(shares(&tree, &critical_path(&tree)), expected);
    // A refusal is an error to the caller alone, and still one of the call.
    let expected = [(("a", "b"), Calls { count: 1, errors: 1 })];
    assert_eq!(calls([&tree]), expected.into_iter().collect());
}

#[tokio::test]
async fn a_clock_that_is_off_is_noted_and_does_not_stretch_the_trace() {
    let spans = r#"1 a 1   SERVER 10..100 root
                   1 b 2<1 SERVER  7..50  early
                   1 b 3<1 SERVER 60..40  backwards
                   1 b 4<1 SERVER  0..0   timeless {"startTimeUnixNano": "0", "endTimeUnixNano": "0"}"#;
    let lab = Lab::of(spans).await;
    let text = "\
root          SERVER    a   90.00 ms
├─ timeless   SERVER    b    0.00 ms  without a time
├─ early      SERVER    b   43.00 ms  clock skew: starts 3.00 ms before its parent
└─ backwards  SERVER    b    0.00 ms  ends before it starts
";
    assert_eq!(lab.page(trace_path(1) + ".txt").await, text);
    let page = lab.page(trace_path(1)).await;
    has(&page, ["4 spans from 2 services in 93.00 ms", "clocks of its services differ"]);
}

#[tokio::test]
async fn links_are_followed_both_ways() {
    let link = json!({ "links": [{ "traceId": trace_id(1), "spanId": "0000000000000001" }] });
    let spans = format!("1 a 1 INTERNAL 0..1 publish; 2 b 2 INTERNAL 5..6 process {link}");
    let lab = Lab::of(&spans).await;
    let publish = trace_path(1) + "?span=0000000000000001";
    let process = trace_path(2) + "?span=0000000000000002";
    has(&lab.page(&process).await, [&format!("href=\"{publish}\"")]);
    for path in [trace_path(1), publish] {
        has(&lab.page(path).await, [&format!("Linked from <a href=\"{process}\"")]);
    }
    let trace = &lab.get_json(format!("/api{}", trace_path(2))).await["data"][0];
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
    let lab = Lab::of(&format!("1 shop 1 SERVER 0..10 root {more}")).await;
    let fragment = lab.page(trace_path(1) + "/spans/0000000000000001").await;
    let text = Regex::new(r"(<[^>]*>|\s)+").expect("a pattern").replace_all(&fragment, " ");
    let expected = "\
Close root span id 0000000000000001 link to this span service shop kind SERVER status Error: no more \
started 2026-01-01 00:00:00.000 UTC , 0.00 ms into the trace duration 10.00 ms, with 0 right below library test \
tracestate vendor=1 remark error: no more Attributes text tea number 9007199254740993 int \
list [&quot;a&quot;,1.5,null] array map {&quot;k&quot;:true} map bytes 00ff bytes \
2 attributes more, dropped by the sender \
Events exception 4.00 ms after the start exception.message boom Resource service.name shop";
    assert_eq!(text.trim(), expected);
    // The page has the same detail that the script asks for alone.
    has(&lab.page(trace_path(1) + "?span=0000000000000001").await, ["<html", &fragment]);
    lacks(&fragment, ["<html"]);
}

#[test]
fn durations_are_read_with_their_units() {
    let texts = ["5ms", "1.5s", "300us", "300µs", "7ns", "2m", "20", " 1 s "];
    let nanoseconds = texts.map(|text| duration(text).expect(text).as_nanos());
    let ms = 1_000_000;
    assert_eq!(
        nanoseconds,
        [5 * ms, 1500 * ms, 300_000, 300_000, 7, 120_000 * ms, 20 * ms, 1000 * ms]
    );
    for text in ["", "ms", "-1s", "1x", "1e300s", "NaN", "infs"] {
        let error = duration(text).expect_err(text).to_string();
        assert_eq!(error, format!("{text:?} is not a duration: write 5ms, 1.5s or 300us"));
    }
}

#[tokio::test]
async fn the_list_is_filtered_by_every_field() {
    let spans = "1 shop 1    SERVER     0..10  GET /cart user.id=Ada
         2 shop 2    SERVER    20..120 GET /cart error=database-gone
         2 db   3<2  CLIENT    30..40  SELECT
         3 mail 4<99 INTERNAL 200..201 send";
    let lab = Lab::of(spans).await;
    let every: &[u8] = &[3, 2, 1];
    for (query, expected) in [
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
    ] {
        let found = lab.get_json(format!("/traces.json?{query}")).await;
        let found = found.as_array().expect("a list").iter().map(|it| it["traceId"].clone());
        let expected: Vec<String> = expected.iter().copied().map(trace_id).collect();
        assert_eq!(found.collect::<Value>(), json!(expected), "{query}");
        let page = lab.page(format!("/traces?{query}")).await;
        assert!(expected.iter().all(|id| page.contains(id)), "{query}: {page}");
    }
    for (query, reason) in
        [("min=soon", "is not a duration"), ("status=bad", "use error, ok or pieces")]
    {
        let (status, page) = lab.get(format!("/traces?{query}")).await;
        assert_eq!(status, 400);
        has(&page, [reason, "role=\"alert\""]);
    }
    // A late span changes what the list says of its trace.
    has(&lab.page("/traces?status=error&service=mail").await, ["No trace passes"]);
    let late = table("3 mail 99 INTERNAL 199..300 top error=late");
    lab.export(JSON, "", late.to_string()).await;
    has(&lab.page("/traces?status=error&service=mail").await, [&trace_id(3)]);
}

#[tokio::test]
async fn a_long_list_is_shown_in_parts() {
    let id = |number: u64| format!("{number:032x}");
    let span = |number: u64| {
        let end = number + 1;
        format!("1 shop 1 SERVER {number}..{end} GET / {{\"traceId\": \"{}\"}}", id(number))
    };
    let lab = Lab::of(&(1..=250).map(span).collect::<Vec<_>>().join("\n")).await;
    let first = lab.page("/traces?name=GET").await;
    has(&first, ["1 to 200 are shown", &id(51)]);
    lacks(&first, [&id(50), "Newer traces"]);
    let (_, link) = first.rsplit_once("<a href=\"/traces?name=GET").expect("a link");
    let (query, _) = link.split_once('"').expect("its end");
    let second = lab.page(format!("/traces?name=GET{}", query.replace("&amp;", "&"))).await;
    has(&second, ["201 to 250 are shown", &id(50), "Newer traces"]);
    lacks(&second, ["Older traces"]);
    for behind in [250, usize::MAX] {
        let none = lab.page(format!("/traces?skip={behind}")).await;
        has(&none, ["250 traces", "no trace is so far down", "Newer traces"]);
    }
}

/// To see what is behind a long task, a span is looked at alone, on its own scale.
#[tokio::test]
async fn a_part_of_a_trace_is_shown_alone() {
    let spans = "1 a 1   SERVER     0..1000000 root
         1 b 2<1 CLIENT   100..140     part
         1 b 3<2 INTERNAL 110..120     below
         1 b 4<1 INTERNAL 200..300     other";
    let lab = Lab::of(spans).await;
    let page = lab.page(trace_path(1) + "?focus=0000000000000002").await;
    has(&page, ["2 spans from 1 service in 40.00 ms", "left:25.00%;width:25.00%"]);
    lacks(&page, ["s0000000000000004"]);
    let page = lab.page(trace_path(1) + "?span=0000000000000009").await;
    has(&page, ["This trace has no span <code>0000000000000009</code>"]);
}

/// A sender of odd numbers can spoil its own traces, and no page.
#[tokio::test]
async fn times_at_the_edge_of_their_range_break_no_page() {
    let all = json!({ "startTimeUnixNano": "1", "endTimeUnixNano": u64::MAX.to_string() });
    let spans = format!(
        "1 a 1   CLIENT   0..0 call {all}
         2 b 1   SERVER   0..0 answer {all}
         3 c 1   SERVER   0..0 root {all}
         3 c 2<1 INTERNAL 0..0 one {all}
         3 c 3<1 INTERNAL 0..0 two {all}
         4 d 1<1 INTERNAL 0..1 its own parent
         5 e 1   INTERNAL 0..1 {{\"startTimeUnixNano\": \"0\"}}"
    );
    let lab = Lab::of(&spans).await;
    for path in ["/traces", "/traces/map", "/traces.json"] {
        lab.page(path).await;
    }
    for path in (1..=5).map(trace_path) {
        for form in
            ["", ".txt", ".json", ".html", "?span=0000000000000001", "?focus=0000000000000001"]
        {
            lab.page(format!("{path}{form}")).await;
        }
        lab.page(format!("/api{path}")).await;
    }
    let text = lab.page(trace_path(4) + ".txt").await;
    has(&text, ["its parent is below it"]);
    lacks(&text, ["is not here"]);
    has(&lab.page("/traces").await, ["(no name)"]);
}

fn summaries(list: &List) -> Vec<Arc<Summary>> {
    list.find(Filter::default()).map(Arc::new).collect()
}

#[test]
fn a_request_in_two_traces_is_told_from_two_requests() {
    let broken = |spans: &str| -> Vec<[String; 2]> {
        let found = breaks(&summaries(&List::new(store(spans))));
        found.into_iter().map(|it| [it.caller, it.called]).collect()
    };
    assert_eq!(broken(&fallen_apart()), [["a", "b"]]);
    let link = json!({ "links": [{ "traceId": trace_id(1), "spanId": "0000000000000002" }] });
    let later = format!("; {}", ANSWER.replace("20..80", "21..79"));
    let answered = "1 b 9<2 SERVER 20..80 POST /process".to_owned();
    // Each a little different, and not one request: what was changed, and the spans below the call instead.
    for (what, others) in [
        ("before the call", ANSWER.replace("20..80", "5..80")),
        ("long after it", ANSWER.replace("20..80", "20..200")),
        ("another path", ANSWER.replace("url.path=/process", "url.path=/other")),
        ("another method", ANSWER.replace("method=POST", "method=GET")),
        ("of the same service", ANSWER.replace(" b ", " a ")),
        ("no server", ANSWER.replace("SERVER", "INTERNAL")),
        ("linked", format!("{ANSWER} {link}")),
        ("called by others: the call was answered in its trace", answered + &later),
        ("two calls that could have reached it", CALL.replace("2<1", "6<1") + ";" + ANSWER),
        ("two that the call could have reached", ANSWER.replace("2 b 3", "3 b 7") + &later),
    ] {
        assert!(broken(&format!("{ROOT}; {CALL}; {others}")).is_empty(), "{what}");
    }
}

#[tokio::test]
async fn the_traces_of_one_request_stand_together() {
    let spans = fallen_apart() + "; 9 c 8 INTERNAL 50..60 between";
    let lab = Lab::of(&spans).await;
    let summaries = summaries(&List::new(lab.store.clone()));
    let id = |index: &usize| summaries[*index].trace_id.to_string();
    let groups = grouped(&summaries, &breaks(&summaries));
    let groups: Vec<Vec<String>> =
        groups.iter().map(|group| group.iter().map(id).collect()).collect();
    assert_eq!(groups, [vec![trace_id(9)], vec![trace_id(1), trace_id(2)]]);

    let list = lab.page("/traces").await;
    has(&list, ["One request in 2 traces, it seems", "was answered by <bdi>b</bdi>"]);
    for (this, other) in [(1, 2), (2, 1)] {
        let other = format!("href=\"{}\"", trace_path(other));
        has(&lab.page(trace_path(this)).await, ["a part of one request", &other]);
    }
    lacks(&lab.page(trace_path(9)).await, ["a part of one request"]);
}

#[tokio::test]
async fn the_map_shows_who_calls_whom() {
    // Services that call each other in a ring must not keep the drawing from its end.
    let ring = "1 a 1 CLIENT 0..10 x; 1 b 2<1 SERVER 1..9 y error=; 1 a 3<2 SERVER 2..8 z";
    let lab = Lab::of(ring).await;
    has(&lab.page("/traces/map").await, ["Calls between services", "1 error"]);
    let found = lab.get_json("/api/dependencies").await;
    let expected = json!([{ "parent": "a", "child": "b", "callCount": 1 }, { "parent": "b", "child": "a", "callCount": 1 }]);
    assert_eq!(found["data"], expected);
    // The hour around the trace's first second, and the one before.
    for (end, total) in [(NEW_YEAR + 1000, 2), (NEW_YEAR - 1, 0)] {
        let query = format!("/api/dependencies?endTs={end}&lookback=3600000");
        assert_eq!(lab.get_json(query).await["total"], total, "{end}");
    }
    assert_eq!(lab.get("/api/dependencies?endTs=soon").await.0, 400);
}

#[tokio::test]
async fn jaegers_search_takes_all_its_parameters() {
    let spans = "1 shop 1   SERVER    0..10   GET /cart user.id=Ada
         2 shop 2   SERVER 1000..1100 GET /cart error=gone
         2 db   3<2 CLIENT 1030..1040 SELECT";
    let lab = Lab::of(spans).await;
    let second = (NEW_YEAR + 1000) * 1000;
    for (query, count) in [
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
        (&format!("traceID={}&traceID={}", trace_id(1), trace_id(7)), 1),
    ] {
        assert_eq!(lab.get_json(format!("/api/traces?{query}")).await["total"], count, "{query}");
    }
    let wrong = "minDuration=long start=today tags=user.id tag=user.id traceID=xyz limit=-1";
    for query in wrong.split(' ') {
        let (status, answer) = lab.get(format!("/api/traces?{query}")).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!((status, &answer["errors"][0]["code"]), (400, &json!(400)), "{query}: {answer}");
    }
    // Ids without their leading zeros, as Jaeger writes them.
    lab.page(format!("/api/traces/{}", &trace_id(1)[1..])).await;
    let operations = lab.get_json("/api/operations?service=db").await;
    assert_eq!(operations["data"], json!([{ "name": "SELECT", "spanKind": "client" }]));
    assert_eq!(lab.get_json("/api/operations?service=db&spanKind=server").await["total"], 0);
    assert_eq!(lab.get("/api/operations").await.0, 400);
    assert_eq!(lab.get_json("/api/of/the/future").await["errors"][0]["code"], 404);
}

#[tokio::test]
async fn jaegers_query_api_finds_traces() {
    let lab = Lab::start().await;
    lab.export(JSON, "", json_body().to_string()).await;
    lab.export_spans(vec![span(1, 1, 0, "root"), span(1, 2, 1, "child")]).await;
    for (path, expected) in [
        ("services", json!(["python", "unknown_service"])),
        ("services/unknown_service/operations", json!(["child", "root"])),
    ] {
        assert_eq!(lab.get_json(format!("/api/{path}")).await["data"], expected);
    }
    for (query, total) in [("", 2), ("limit=1", 1), ("service=python", 1), ("operation=nothing", 0)]
    {
        assert_eq!(lab.get_json(format!("/api/traces?{query}")).await["total"], total, "{query}");
    }
    let trace = &lab.get_json(format!("/api{}", trace_path(0x0a))).await["data"][0];
    let span = &trace["spans"][0];
    // Microseconds.
    let found = ["operationName", "startTime", "duration"].map(|field| &span[field]);
    assert_eq!(found, [&json!("from json"), &json!(1000), &json!(2500)]);
    let process = span["processID"].as_str().expect("an id");
    assert_eq!(trace["processes"][process]["serviceName"], "python");
    let tags = span["tags"].as_array().expect("tags");
    for tag in [
        json!({ "key": "span.kind", "type": "string", "value": "server" }),
        json!({ "key": "error", "type": "bool", "value": true }),
        json!({ "key": "http.response.status_code", "type": "int64", "value": 500 }),
    ] {
        assert!(tags.contains(&tag), "{tag} is not in {tags:?}");
    }
    let child = &lab.get_json(format!("/api{}", trace_path(1))).await["data"][0]["spans"][1];
    assert_eq!(child["references"][0]["spanID"], "0000000000000001");
    assert_eq!(lab.get("/api/traces/xyz").await.0, 400);
    assert_eq!(lab.get(format!("/api{}", trace_path(9))).await.0, 404);
}

#[tokio::test]
async fn a_trace_that_is_downloaded_and_taken_again_is_the_same() {
    let lab = Lab::of(&fallen_apart()).await;
    lab.export(JSON, "", json_body().to_string()).await;
    let other = Lab::start().await;
    let import = async |body: &str| -> Value {
        let answer = other.post("/traces/import", &[("content-type", JSON)], body).await.1;
        serde_json::from_str(&answer).expect("JSON")
    };
    for trace in [1, 2, 0x0a] {
        let json = lab.page(trace_path(trace) + ".json").await;
        assert_eq!(import(&json).await["traceId"], trace_id(trace));
        assert_eq!(other.page(trace_path(trace) + ".json").await, json);
    }
    let refused = import("{").await["message"].to_string();
    assert!(refused.starts_with("\"line 1: not JSON"), "{refused}");
}

/// A page of another site can send a form, but no JSON, without asking first; and we do not say yes.
#[tokio::test]
async fn another_sites_page_can_put_nothing_into_the_list() {
    let (lab, path) = (Lab::start().await, "/traces/import");
    for media_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        let headers = [("content-type", media_type)];
        let (status, _) = lab.post(path, &headers, json_body().to_string()).await;
        assert_eq!(status, 415, "{media_type}");
    }
    let preflight = lab.page_sends(reqwest::Method::OPTIONS, path, "http://localhost:8000").await;
    assert_eq!((preflight.1, lab.spans()), (None, 0));
}

/// Opens a session; returns its store, and how many spans and which problems were in its file.
fn opened(path: &Path) -> Result<(Store, usize, Vec<String>), session::Error> {
    let store = Store::new(Limits::default());
    let opened = session::open(path, |piece| store.add(piece.spans))?;
    Ok((store, opened.count, opened.problems.iter().map(ToString::to_string).collect()))
}

#[test]
fn the_list_is_in_order_while_traces_grow_and_go() {
    let list = List::new(Store::new(Limits { spans: 4, ..Limits::default() }));
    let row = |trace: usize, id: usize, start: usize| {
        spans(&format!("{trace} shop {id} SERVER {start}..99 t{trace}"))
    };
    let names = |fields: Fields, skip: usize| -> (Vec<String>, usize) {
        let filter = Filter::try_from(&fields).expect("a filter");
        let page = list.page(&filter, skip, 2);
        assert!(!page.is_cut);
        (page.summaries.iter().map(|it| it.name.clone()).collect(), page.found)
    };
    for (trace, start) in [(1, 10), (2, 30), (3, 20)] {
        list.store.add(row(trace, trace, start));
    }
    assert_eq!(names(Fields::default(), 0).0, ["t2", "t3"]);
    // The root often arrives last.
    list.store.add(row(2, 4, 5));
    assert_eq!(names(Fields::default(), 0).0, ["t3", "t1"]);
    list.store.add(row(4, 5, 15));
    assert_eq!(names(Fields::default(), 0).0, ["t3", "t4"], "the first trace made room");
    for fields in [Fields::default(), Fields { name: "T".to_owned(), ..Fields::default() }] {
        assert_eq!(names(fields.clone(), 1), (vec!["t4".to_owned(), "t2".to_owned()], 3));
        assert_eq!(names(fields, usize::MAX).0, Vec::<String>::new());
    }
}

/// Some exporters send a span at its start and again at its end.
#[test]
fn a_span_that_comes_again_at_its_end_replaces_the_first() {
    let (store, fresh) = (Store::new(Limits::default()), Store::new(Limits::default()));
    let list = List::new(store.clone());
    let ended = "1 shop 1 SERVER 0..9 pay paid=yes";
    store.add(spans(r#"1 shop 1 SERVER 0..9 pay {"endTimeUnixNano": "0"}"#));
    assert_eq!(summaries(&list)[0].duration_nano, 0);
    store.add(spans(ended));
    fresh.add(spans(ended));
    assert_eq!(summaries(&list)[0].duration_nano, 9_000_000);
    assert_eq!(store.usage(), fresh.usage());
}

#[test]
fn a_session_is_kept_in_a_file_and_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let recorded = |store: Store| store.recorded_by(Recorder::append(&file).expect("a file"));
    let caller = [ROOT, CALL].join(";");
    for table in [&*caller, ANSWER] {
        // Twice: what is saved is added to what is there.
        recorded(Store::new(Limits::default())).add(spans(table));
    }
    let text = std::fs::read_to_string(&file).expect("text");
    assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 2);
    // What the store drops isn't saved.
    let again = recorded(opened(&file).expect("it opens").0);
    session::open(&file, |piece| again.add(piece.spans)).expect("it opens");
    let (store, count, problems) = opened(&file).expect("it opens");
    assert_eq!((count, problems, store.usage().traces), (3, Vec::new(), 2));
    let mut texts: Vec<String> = store.trees().iter().map(Tree::to_text).collect();
    texts.sort();
    assert_eq!(texts, [tree(&caller).to_text(), tree(ANSWER).to_text()]);
}

#[test]
fn what_cannot_be_read_of_a_file_does_not_cost_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    let (good, other) = (table(ROOT), table(ANSWER));
    // Laid out for people; half a line, as a lab that was killed leaves it; not OTLP; then another.
    let text = format!("{good:#}\n\n{{\"resourceSpans\": [{{\n[1]\n{other}\n");
    write(&text);
    let (store, count, problems) = opened(&file).expect("it opens");
    assert_eq!((count, store.usage().traces), (2, 2), "{problems:?}");
    let half =
        text[..text.find("{\"resourceSpans\": [{").expect("half a line")].lines().count() + 1;
    // The half line ends in a line break, which JSON allows. The next line can't go on with it.
    assert!(problems[0].starts_with(&format!("line {}: not JSON", half + 1)), "{problems:?}");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(session::open(&file, drop).expect("it opens").others.documents, 1);

    // What is saved behind half a line is not a part of it.
    write("{\"resourceSpans\": [{");
    Recorder::append(&file).expect("it can be written").record(spans(ANSWER).iter());
    let (_, count, problems) = opened(&file).expect("it opens");
    assert_eq!((count, problems.len()), (1, 1), "{problems:?}");

    write("hello\n");
    let of_opening = |path: &Path| opened(path).err().expect("an error").to_string();
    has(&of_opening(&file), ["nothing in", "can be read (--open)"]);
    has(&of_opening(&folder.path().join("none")), ["cannot open", "--open"]);
    let error = Recorder::append(folder.path()).err().expect("an error").to_string();
    has(&error, ["cannot write", "--save"]);
}

/// The first trace of a table, as the terminal shows it.
fn in_terminal(spans: &str) -> String {
    let case = Case::read(table(spans).to_string().as_bytes()).expect("a case");
    terminal::trace(&case, case.trees[0].trace_id, Some(100)).expect("a trace")
}

/// Most instrumentations name a call by its method alone.
#[test]
fn a_call_without_a_path_in_its_name_says_which_host_it_calls() {
    for (attributes, host) in [
        ("http.request.method=GET server.address=bank.example", "to bank.example, 401"),
        (
            "http.method=GET http.url=https://user:pw@bank.example:8443/charge?key=1",
            "to bank.example, 401",
        ),
        ("http.request.method=GET url.full=http://[::1]:80/charge", "to [::1], 401"),
        ("db.system.name=postgresql server.address=db.example", "401"),
        ("http.request.method=GET url.full=/charge", "401"),
    ] {
        let text = in_terminal(&format!(
            "1 shop 1 CLIENT 0..9 GET {attributes} http.response.status_code=401"
        ));
        let line = text.lines().find(|line| line.contains("shop")).expect("the span");
        assert!(line.ends_with(&format!("  {host}")), "{line}");
    }
    let named = in_terminal(
        "1 shop 1 CLIENT 0..9 GET /charge http.request.method=GET server.address=bank.example",
    );
    lacks(&named, ["bank.example"]);
}

#[test]
fn a_terminal_shows_what_was_waited_for() {
    let text = in_terminal(&[ROOT, CALL].join(";"));
    // A tenth of the bar before the call, and a tenth behind it.
    let expected = "\
Trace 01010101010101010101010101010101: 2 spans from 1 service in 100.00 ms

GET /    a     100.00 ms  ██████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░██████
└─ POST  a      80.00 ms       ████████████████████████████████████████████       to b

█ critical path: what the request waited for   ░ the rest of a span
";
    assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
    // A span's name can't command the terminal.
    let text = in_terminal("1 a 1 SERVER 0..1 \u{1b}[2Jgone\u{202e}");
    has(&text, ["\\u{1b}[2Jgone\\u{202e}"]);
}

#[tokio::test]
async fn every_span_is_shown_also_where_the_parents_make_no_tree() {
    // A root with a child; an orphan; two that are each other's parents; one that is its own.
    let spans = "1 a 1 SERVER 1..2 s1; 1 a 2<1 SERVER 2..3 s2; 1 a 3<99 SERVER 3..4 s3; \
                 1 a 4<5 SERVER 4..5 s4; 1 a 5<4 SERVER 5..6 s5; 1 a 6<6 SERVER 6..7 s6";
    let lab = Lab::of(spans).await;
    let tree = lab.page(trace_path(1) + ".txt").await;
    let expected = "\
s1     SERVER    a    1.00 ms
└─ s2  SERVER    a    1.00 ms
s3     SERVER    a    1.00 ms  orphan: parent 0000000000000063 is not here
s5     SERVER    a    1.00 ms  its parent is below it
└─ s4  SERVER    a    1.00 ms
s6     SERVER    a    1.00 ms  its parent is below it
";
    assert_eq!(tree, expected);
    has(&lab.page("/traces").await, ["in 4 pieces"]);

    let chain = (1..=10_000).map(|id| span(2, id, id - 1, "link"));
    lab.export_spans(chain.collect()).await;
    assert_eq!(lab.page(trace_path(2) + ".txt").await.lines().count(), 10_000);
}

#[tokio::test]
async fn a_span_cannot_write_html() {
    let lab = Lab::of("1 a 1 SERVER 0..1 <script>alert(1)</script>").await;
    let detail = trace_path(1) + "?span=0000000000000001";
    for path in ["/traces", &trace_path(1), &detail] {
        let page = lab.page(path).await;
        has(&page, ["&lt;script&gt;"]);
        lacks(&page, ["<script>"]);
    }
    // And if one could: nothing but the viewer's own script runs.
    let answer = client().get(format!("http://{}/traces", lab.address)).send().await;
    let answer = answer.expect("an answer");
    let policy = answer.headers()["content-security-policy"].to_str().expect("text");
    has(policy, ["script-src 'self';", "default-src 'none'"]);
}
