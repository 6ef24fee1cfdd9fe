//! The file of `lab expect`: what it says of which spans, how it is written, and when a request has been watched for long enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use support::in_process::spans;
use traces::diagnose::Rule;
use traces::expect::compare::{matches, may_match, shown, updated, written};
use traces::expect::{
    Actual, Arrived, Body, Decision, Edge, File, Request, Verdict, Waiting, Watch, parse,
};
use traces::span::{Span, SpanId, TraceId};
use traces::traceparent::Traceparent;

/// The trace `1` of the tables, and the span 99, which sent the request.
fn sent() -> Traceparent {
    let parent_id = SpanId(99_u64.to_be_bytes());
    Traceparent { trace_id: TraceId([1; 16]), parent_id, sampled: true, random: false }
}

fn arrived(rows: &str) -> Arrived {
    let mut traces: BTreeMap<TraceId, Vec<Arc<Span>>> = BTreeMap::new();
    for span in spans(rows) {
        traces.entry(span.trace_id).or_default().push(Arc::new(span));
    }
    let trace = traces.remove(&sent().trace_id).unwrap_or_default();
    Arrived { trace, joined: traces.into_values().collect() }
}

fn request(file: &str) -> Request {
    let file = parse(file).unwrap_or_else(|mistake| panic!("{mistake} in\n{file}"));
    file.request(None).expect("one request").clone()
}

/// The difference between a file and spans; nothing where they match.
fn difference(file: &str, rows: &str) -> Option<String> {
    let request = request(file);
    let keys = request.attributes();
    let actual = Actual::new(&arrived(rows), &sent(), &keys, true);
    let difference = shown(&request, &actual, &keys);
    let counts = difference.counts;
    let is_empty = counts.missing + counts.surplus + counts.changed == 0;
    let is_right = matches(&request, &actual, &keys);
    assert_eq!(is_right, is_empty, "{file}\n{rows}\n{}", difference.text);
    if is_right {
        assert!(may_match(&request, &actual, &keys), "{file}\n{rows}");
    }
    (!is_right).then_some(difference.text)
}

#[track_caller]
fn fits(file: &str, rows: &str) {
    assert_eq!(difference(file, rows), None, "{file}");
}

#[track_caller]
fn differs(file: &str, rows: &str, expected: &str) {
    let found = difference(file, rows).expect("a difference");
    assert_eq!(narrow(&found), narrow(expected), "{file}");
}

/// The lines of a text, with columns as narrow as can be.
fn narrow(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.is_empty());
    let narrow = |line: &str| {
        let name = line.find(|it: char| it.is_alphanumeric()).unwrap_or_default();
        let columns = line[name..].split("  ").map(str::trim).filter(|it| !it.is_empty());
        line[..name].to_owned() + &columns.collect::<Vec<_>>().join("  ")
    };
    lines.map(narrow).collect()
}

const CHECKOUT: &str = "
# The order is paid before it is sent.
POST /checkout     SERVER    shop     200
├─ check           INTERNAL  shop
└─ POST /pay       CLIENT    shop     200
   └─ POST /pay    SERVER    payment  200
";

const PAID: &str = "
    1 shop    1<99 SERVER   0..90  POST /checkout http.response.status_code=200
    1 shop    2<1  INTERNAL 1..2   check
    1 shop    3<1  CLIENT   3..80  POST /pay http.response.status_code=200
    1 payment 4<3  SERVER   10..70 POST /pay http.response.status_code=200";

#[test]
fn a_tree_is_compared_span_by_span() {
    fits(CHECKOUT, PAID);
    differs(
        CHECKOUT,
        "1 shop 1<99 SERVER 0..90 POST /checkout http.response.status_code=500 error=late
         1 shop 3<1  CLIENT   3..80  POST /pay http.response.status_code=200
         1 payment 4<3 SERVER 10..70 POST /pay http.response.status_code=200
         1 payment 5<4 INTERNAL 11..12 charge",
        "
- POST /checkout     SERVER    shop     200
+ POST /checkout     SERVER    shop     500  error
- ├─ check           INTERNAL  shop
  └─ POST /pay       CLIENT    shop     200
     └─ POST /pay    SERVER    payment  200
+       └─ charge    INTERNAL  payment",
    );
}

#[test]
fn a_line_says_what_must_be_so_and_leaves_out_the_rest() {
    let span = |rest: &str| format!("1 shop 1<99 SERVER 0..90 GET /a/17 {rest}");
    for (line, rest, fitting) in [
        ("GET /a/17  shop", "", true),
        ("GET /a/17  SERVER  shop", "", true),
        ("GET /a/17  CLIENT  shop", "", false),
        ("GET /a/17  basket", "", false),
        ("GET /a  shop", "", false),
        ("GET /a/*  *", "", true),
        ("*  sh*p", "", true),
        (r"GET /a/\*  shop", "", false),
        ("GET /a/17  shop  200", "http.response.status_code=200", true),
        ("GET /a/17  shop  2*", "http.response.status_code=204", true),
        ("GET /a/17  shop  200", "http.status_code=404", false),
        ("GET /a/17  shop  200", "", false),
        ("GET /a/17  shop", "http.response.status_code=404", true),
        // An error is never silent.
        ("GET /a/17  shop", "error=late", false),
        ("GET /a/17  shop  error", "error=late", true),
        ("GET /a/17  shop  error", "", false),
        ("GET /a/17  shop  error Timeout", "error=late error.type=Timeout", true),
        ("GET /a/17  shop  error Refused", "error=late error.type=Timeout", false),
        ("GET /a/17  shop  http.route=/a/{id}", "http.route=/a/{id}", true),
        ("GET /a/17  shop  http.route=*", "http.route=/a/{id}", true),
        ("GET /a/17  shop  http.route=/a", "http.route=/a/{id}", false),
        ("GET /a/17  shop  http.route=*", "", false),
        ("GET /a/17  shop  < 91 ms", "", true),
        ("GET /a/17  shop  < 90 ms", "", false),
        ("GET /a/17  shop  <0.1s  # in time", "", true),
    ] {
        let difference = difference(line, &span(rest));
        assert_eq!(difference.is_none(), fitting, "{line}: {rest}: {difference:?}");
    }
}

#[test]
fn siblings_are_a_multiset_unless_the_file_says_then() {
    let rows = |times: [&str; 3]| {
        let [a, b, c] = times;
        format!(
            "1 shop 1<99 SERVER 0..90 top
             1 shop 2<1 INTERNAL {a} a; 1 shop 3<1 INTERNAL {b} b; 1 shop 4<1 INTERNAL {c} b"
        )
    };
    let in_order = rows(["1..9", "10..20", "12..22"]);
    let reversed = rows(["50..60", "10..20", "22..32"]);
    for file in ["top shop\n a shop\n b shop\n b shop", "top shop\n b shop x2\n a shop"] {
        let file = file.replace(" shop", "  shop").replace(" x2", "  x2");
        fits(&file, &in_order);
        fits(&file, &reversed);
    }
    let then = "top  shop\n a  shop\n then\n b  shop  x2";
    fits(then, &in_order);
    differs(
        then,
        &reversed,
        "
  top      shop
  ├─ a     shop
  ├─ then  # these begin before those above have ended
  └─ b     shop  x2",
    );
    // Clocks tick: a millisecond proves nothing.
    fits(then, &rows(["1..11", "10..20", "12..22"]));
    assert!(difference(then, &rows(["1..12", "10..20", "12..22"])).is_some());
}

#[test]
fn a_span_may_be_missing_or_repeated() {
    let rows = |count: usize| {
        let rows: String =
            (0..count).map(|it| format!("; 1 shop {}<1 CLIENT 1..2 GET /item", it + 2)).collect();
        format!("1 shop 1<99 SERVER 0..9 top{rows}")
    };
    let cases = [
        ("?", vec![0, 1]),
        ("x3", vec![3]),
        ("x2..4", vec![2, 3, 4]),
        ("x2..", vec![2, 3, 4, 5]),
        ("x0..1", vec![0, 1]),
    ];
    for (times, fitting) in cases {
        for count in 0..6 {
            let file = format!("top  shop\n  GET /item  shop  {times}");
            let difference = difference(&file, &rows(count));
            assert_eq!(
                difference.is_none(),
                fitting.contains(&count),
                "{times} {count}: {difference:?}"
            );
        }
    }
    differs(
        "top  shop\n  GET /item  CLIENT  shop  x2..4",
        &rows(1),
        "
  top           shop
  ├─ GET /item  CLIENT  shop  x2..4  # 1 found
- └─ GET /item  CLIENT  shop",
    );
    // A line stands as the file has it.
    let more = "1 shop 9<1 CLIENT 3..4 GET /more";
    differs(
        "top  shop\n  GET /item  CLIENT  shop  x1..4\n  GET /menu  CLIENT  shop  ?",
        &format!("{}; 1 shop 8<1 CLIENT 3..4 GET /menu; {more}", rows(3)),
        "
  top           shop
  ├─ GET /item  CLIENT  shop  x1..4  # 3 found
  ├─ GET /menu  CLIENT  shop  ?
+ └─ GET /more  CLIENT  shop",
    );
    // One of them has something below it that the others don't have.
    differs(
        "top  shop\n  GET /item  CLIENT  shop  x1..4",
        &format!("{}; 1 shop 9<2 CLIENT 1..2 GET /more", rows(3)),
        "
  top              shop
  ├─ GET /item     CLIENT  shop  x1..4  # 1 of 3 found
+ │  └─ GET /more  CLIENT  shop
  └─ GET /item     CLIENT  shop  x1..4  # 2 of 3 found",
    );
}

#[test]
fn the_last_missing_child_is_the_last_of_the_file() {
    differs(
        "top  shop\n a  shop\n b  shop\n  c  shop",
        "1 shop 1<99 SERVER 0..9 top; 1 shop 2<1 INTERNAL 1..2 a; 1 other 3<1 INTERNAL 1..2 d",
        "
  top     shop
  ├─ a    shop
- └─ b    shop
-    └─ c  shop
+ └─ d    INTERNAL  other",
    );
}

#[test]
fn equal_lines_are_given_to_spans_so_that_the_fewest_differ() {
    // A greedy comparison gives the first `a` to the first line.
    let file = "top  shop\n a  shop\n  x  shop\n a  shop\n  y  shop\n a  shop  ?";
    let rows = |below: [&str; 3]| {
        let rows: String = below
            .iter()
            .enumerate()
            .map(|(at, below)| {
                let (a, b) = (at * 2 + 2, at * 2 + 3);
                let below = match *below {
                    "" => String::new(),
                    name => format!("; 1 shop {b}<{a} INTERNAL 2..3 {name}"),
                };
                format!("; 1 shop {a}<1 INTERNAL 1..4 a{below}")
            })
            .collect();
        format!("1 shop 1<99 SERVER 0..9 top{rows}")
    };
    for order in [["x", "y", ""], ["y", "x", ""], ["", "y", "x"], ["y", "", "x"]] {
        fits(file, &rows(order));
    }
    assert!(difference(file, &rows(["x", "x", ""])).is_some());
    // A pattern takes what nothing else takes.
    let patterns = "top  shop\n *  shop\n a  shop\n  x  shop\n a*  shop";
    fits(
        patterns,
        "1 shop 1<99 SERVER 0..9 top; 1 shop 2<1 INTERNAL 1..4 a; 1 shop 3<2 INTERNAL 2..3 x; 1 shop 4<1 INTERNAL 1..2 a; 1 shop 5<1 INTERNAL 1..2 b",
    );
}

#[test]
fn any_spans_may_stand_where_the_file_has_dots() {
    let file = "POST /checkout  shop\n  ...\n  POST /pay  CLIENT  shop\n    ...";
    fits(file, PAID);
    fits(file, "1 shop 1<99 SERVER 0..90 POST /checkout; 1 shop 3<1 CLIENT 3..80 POST /pay");
    assert!(difference(file, "1 shop 1<99 SERVER 0..90 POST /checkout").is_some());
    // A second call isn't what the dots stand for: they take it too.
    fits(file, &format!("{PAID}; 1 shop 5<1 CLIENT 81..82 POST /pay"));
}

const QUEUED: &str = "
POST /orders          SERVER    shop
└─ send orders        PRODUCER  shop
   └─ links
      └─ get orders   CONSUMER  worker
         └─ INSERT    CLIENT    worker
";

#[test]
fn a_queue_begins_a_trace_that_is_linked() {
    let link =
        r#"{"links":[{"traceId":"01010101010101010101010101010101","spanId":"0000000000000002"}]}"#;
    let sent = "1 shop 1<99 SERVER 0..9 POST /orders; 1 shop 2<1 PRODUCER 1..2 send orders";
    let linked = format!(
        "{sent}; 2 worker 7 CONSUMER 5..9 get orders {link}; 2 worker 8<7 CLIENT 6..7 INSERT"
    );
    fits(QUEUED, &linked);
    // Of a batch, only what is linked counts.
    let batch = format!(
        "{sent}; 2 worker 6 INTERNAL 4..9 poll; 2 worker 7<6 CONSUMER 5..9 get orders {link}; \
         2 worker 8<7 CLIENT 6..7 INSERT; 2 worker 9<6 CONSUMER 5..9 get orders"
    );
    fits(QUEUED, &batch);
    assert!(difference(QUEUED, sent).is_some());
    // Handled twice.
    let twice = format!(
        "{linked}; 3 worker 7 CONSUMER 15..19 get orders {link}; 3 worker 8<7 CLIENT 16..17 INSERT"
    );
    differs(
        QUEUED,
        &twice,
        "
  POST /orders             SERVER    shop
  └─ send orders           PRODUCER  shop
     └─ links
        ├─ get orders      CONSUMER  worker
        │  └─ INSERT       CLIENT    worker
+       └─ get orders      CONSUMER  worker
+          └─ INSERT       CLIENT    worker",
    );
    // One message continues the trace, a batch links.
    let either = "
POST /orders  shop
  send orders  PRODUCER  shop
    get orders  CONSUMER  worker
      ...
    or
    links
      get orders  CONSUMER  worker
        ...
";
    fits(either, &linked);
    let continued =
        format!("{sent}; 1 worker 7<2 CONSUMER 5..9 get orders; 1 worker 8<7 CLIENT 6..7 INSERT");
    fits(either, &continued);
    assert!(difference(either, sent).is_some());
    assert!(
        difference(either, &format!("{linked}; 1 worker 7<2 CONSUMER 5..9 get orders")).is_some()
    );
}

#[test]
fn a_span_that_hangs_from_nothing_is_a_difference() {
    let file = "GET /a  SERVER  shop";
    fits(file, "1 shop 1<99 SERVER 0..9 GET /a");
    differs(
        file,
        "1 shop 1<98 SERVER 0..9 GET /a",
        "
- GET /a  SERVER  shop
+ GET /a  SERVER  shop  # its parent 0000000000000062 has not arrived",
    );
    differs(
        file,
        "1 shop 1 SERVER 0..9 GET /a",
        "
- GET /a  SERVER  shop
+ GET /a  SERVER  shop  # without the parent that was sent",
    );
    differs(
        file,
        "2 shop 1 SERVER 0..9 GET /a",
        "
- GET /a  SERVER  shop
+ GET /a  SERVER  shop  # in another trace, 02020202020202020202020202020202",
    );
}

#[test]
fn edges_say_who_calls_whom_and_nothing_else() {
    let file = "edges\n-> shop\nshop -> payment\nshop -> mail  ?";
    fits(file, PAID);
    fits(file, &format!("{PAID}; 1 mail 9<1 SERVER 80..81 POST /mail"));
    fits("edges\n-> *\n* -> pay*", PAID);
    differs(
        file,
        "1 shop 1<99 SERVER 0..9 POST /checkout; 1 stock 2<1 SERVER 1..2 GET /stock; 2 payment 3 SERVER 2..3 POST /pay",
        "
  edges
  -> shop
- shop -> payment
  shop -> mail  ?
+ -> payment  # POST /pay: in another trace, 02020202020202020202020202020202
+ shop -> stock",
    );
    // One of several spans of a service is enough.
    let apart = "1 shop 1<99 SERVER 0..9 POST /checkout; 2 mail 5 SERVER 1..2 GET /a; 2 mail 6 SERVER 3..4 GET /b";
    differs(
        "edges\n-> shop",
        apart,
        "
  edges
  -> shop
+ -> mail  # GET /a: in another trace, 02020202020202020202020202020202",
    );
    let link =
        r#"{"links":[{"traceId":"01010101010101010101010101010101","spanId":"0000000000000001"}]}"#;
    fits(
        "edges\n-> shop\nshop ~> worker",
        &format!("1 shop 1<99 SERVER 0..9 a; 2 worker 7 CONSUMER 5..9 b {link}"),
    );
}

#[test]
fn a_file_is_written_from_spans_and_changed_where_they_differ() {
    let actual = Actual::new(&arrived(PAID), &sent(), &[], false);
    let (body, generalised) = written(&actual, &[], false);
    assert_eq!(generalised.len(), 0);
    let file = File {
        requests: vec![Request { name: None, comments: Vec::new(), body }],
        comments: Vec::new(),
    };
    assert_eq!(narrow(&file.to_string()), narrow(CHECKOUT)[1..]);
    fits(&file.to_string(), PAID);

    let by_hand = "
# Paid, and then mailed.
POST /checkout  SERVER  shop  200  < 2 s
  # Sometimes cached.
  check  *  ?  # see the wiki
  POST /pay  CLIENT  shop  x1..3
    POST /p*  payment
  then
  POST /mail  shop
";
    let request = request(by_hand);
    let rows = "
        1 shop    1<99 SERVER   0..90  POST /checkout http.response.status_code=201
        1 shop    3<1  CLIENT   3..80  POST /pay
        1 payment 4<3  SERVER   10..70 POST /pay
        1 payment 5<4  CLIENT   11..12 INSERT INTO orders 4711";
    let keys = request.attributes();
    let actual = Actual::new(&arrived(rows), &sent(), &keys, false);
    let (body, generalised) = updated(&request, &actual, &keys);
    assert_eq!(generalised.len(), 0);
    let changed = File { requests: vec![Request { body, ..request }], comments: Vec::new() };
    assert_eq!(
        narrow(&changed.to_string()),
        narrow(
            "\
# Paid, and then mailed.
POST /checkout                     SERVER  shop     201  < 2 s
   # Sometimes cached.
├─ check                                   *        ?  # see the wiki
└─ POST /pay                       CLIENT  shop     x1..3
   └─ POST /p*                             payment
      └─ INSERT INTO orders 4711   CLIENT  payment
"
        )
    );
    fits(&changed.to_string(), rows);
}

#[test]
fn what_is_another_value_in_every_run_becomes_a_star() {
    for (name, pattern) in [
        ("GET /users/17", "GET /users/*"),
        ("GET /users/17/orders/4711?page=3", "GET /users/*/orders/*?page=*"),
        ("GET http://localhost:43117/a", "GET http://localhost:*/a"),
        ("GET http://10.1.2.3:43117/a", "GET http://*:*/a"),
        ("load 9f86d081884c7d65", "load *"),
        ("load 123e4567-e89b-12d3-a456-426614174000", "load *"),
        ("start v1.24.3", "start *"),
        ("mail to ada@example.com", "mail to *"),
        ("GET http://ada@example.com:8080/a", "GET http://ada@example.com:*/a"),
        ("checkout-6d4cf56db6-x7k2p", "checkout-*"),
    ] {
        let found = traces::expect::generalised(name).map(|glob| glob.to_string());
        assert_eq!(found.as_deref(), Some(pattern), "{name}");
    }
    for name in [
        "GET /users/{id}",
        "GET /v1/traces",
        "SELECT shop.orders",
        "HTTP/1.1 200",
        "user-service",
        "opentelemetry.proto.collector",
        "deadbeef",
        "chat gpt-4",
        "retry 3",
        "s3 put",
        "a:8080",
        "chat gpt-4o-2024-08-06",
    ] {
        assert_eq!(traces::expect::generalised(name), None, "{name}");
    }
}

#[test]
fn every_name_can_be_written_and_read() {
    for name in [
        "",
        " ",
        "  a  b ",
        "# a",
        "a # b",
        "a  # b",
        "*",
        "\\",
        "\\*",
        "\"\"",
        "[a]",
        "│ a",
        "└─ a",
        "?",
        "x2",
        "...",
        "links",
        "a\tb",
        "a\nb",
        "a\u{202e}b",
        "名前",
        "a -> b",
        "error",
        "< 3 ms",
        "\u{2500}",
        "|",
        "a \\ b",
    ] {
        let table = format!("1 shop 1<99 SERVER 0..9 NAME {}", serde_json::json!({ "name": name }));
        for service in ["shop", name] {
            let mut arrived = arrived(&table);
            if service != "shop" {
                // The table has no blanks in a service's name, so the name stands as an attribute.
                let rest = serde_json::json!({ "name": name, "attributes": [{ "key": "a", "value": { "stringValue": name } }] });
                arrived = self::arrived(&format!("1 shop 1<99 SERVER 0..9 NAME {rest}"));
            }
            let keys = ["a".to_owned()];
            let actual = Actual::new(&arrived, &sent(), &keys, false);
            let (body, _) = written(&actual, &keys, false);
            let file = File {
                requests: vec![Request { name: None, comments: Vec::new(), body }],
                comments: Vec::new(),
            };
            let read =
                parse(&file.to_string()).unwrap_or_else(|it| panic!("{name:?}: {it}\n{file}"));
            assert_eq!(read, file, "{name:?}");
            let request = read.request(None).expect("one");
            let keys = request.attributes();
            let actual = Actual::new(&arrived, &sent(), &keys, false);
            assert!(matches(request, &actual, &keys), "{name:?}: {file}");
        }
    }
}

#[test]
fn every_service_can_be_written_in_an_edge() {
    for name in
        ["", " ", "a b", "->", "a -> b", "?", "\\ ", "#", "[a]", "*", "│", "名前 x", "edges"]
    {
        let name = traces::expect::Glob::literal(name);
        for (from, link) in [(None, true), (Some(name.clone()), false)] {
            let edges = vec![Edge::new(from, name.clone(), link)];
            let request = Request { name: None, comments: Vec::new(), body: Body::Edges(edges) };
            let file = File { requests: vec![request], comments: Vec::new() };
            assert_eq!(parse(&file.to_string()), Ok(file.clone()), "{file}");
        }
    }
}

/// `or` may stand where a branch begins.
#[test]
fn a_separator_belongs_to_the_lines_around_it() {
    for separator in ["or", "then"] {
        let below = format!(
            "a  shop\n└─ b  shop\n   ├─ c  shop\n   │  └─ d  shop\n      {separator}\n   └─ e  shop\n"
        );
        let expected = parse(&below).expect("a file");
        let branch = below.replace(&format!("      {separator}"), &format!("   {separator}"));
        assert_ne!(branch, below);
        assert_eq!(parse(&branch), Ok(expected), "{branch}");
    }
}

/// Comments stay with their lines.
#[test]
fn comments_are_kept() {
    let file = "\
# above
[a]  # name
# tree
top               shop  200  # top
   # above c
├─ ...  # dots
   # above d
├─ c              shop  # c
   # or
   # below or
├─ or
├─ d              shop
└─ links  # links
      # e
   └─ ...  # last

# b
[b]
edges  # edges
# enters
-> shop  # entered
# mail
shop -> mail  ?  # may be
# end
";
    let parsed = parse(file).expect("a file");
    let lines = |text: &str| {
        let comments = text.split('#').skip(1).filter_map(|it| it.lines().next());
        let mut comments: Vec<String> = comments.map(|it| it.trim().to_owned()).collect();
        comments.sort();
        comments
    };
    assert_eq!(lines(&parsed.to_string()), lines(file), "{parsed}");
    assert_eq!(parse(&parsed.to_string()), Ok(parsed.clone()), "{parsed}");

    let rows = "1 shop 1<99 SERVER 0..9 top http.response.status_code=404; 1 shop 2<1 INTERNAL 1..2 c; 1 bank 3<1 SERVER 1..2 x";
    for request in parsed.requests {
        let actual = Actual::new(&arrived(rows), &sent(), &[], false);
        let (body, _) = updated(&request, &actual, &[]);
        let text = |request| File { requests: vec![request], comments: Vec::new() }.to_string();
        let (before, after) = (text(request.clone()), text(Request { body, ..request }));
        assert_ne!(before, after);
        assert_eq!(lines(&before), lines(&after), "{after}");
    }
}

#[test]
fn a_line_that_is_wrong_is_named() {
    for (file, mistake) in [
        (
            "a",
            "line 1: \"a\" is not a span: write name, kind and service, with two blanks between them",
        ),
        (
            "POST /a SERVER  shop",
            "line 1: \"POST /a SERVER\" ends in a kind: write two blanks before it",
        ),
        ("a  shop\n\tb  shop", "line 2: a tab: indent with blanks"),
        ("a  shop\n    b  shop\n  c  shop", "line 3: its indentation fits no line above it"),
        (
            "  a  shop\nb  shop",
            "line 2: the first span of a request must not be indented more than those after it",
        ),
        ("a  shop  x4..2", "line 1: \"x4..2\" is not a count: write `x3`, `x2..4` or `x2..`"),
        ("a  shop  < 3 parsecs", "line 1: \"< 3 parsecs\" is not a limit: write `< 300 ms`"),
        ("a  shop  ?  x2", "line 1: \"x2\" is said twice"),
        (
            "a  shop  maybe",
            "line 1: \"maybe\" says nothing about a span: a status, `error`, `key=value`, `< 300 ms`, `?` or `x2..4` can stand behind the service",
        ),
        ("a  shop\n  ...\n    b  shop", "line 3: nothing can stand below `...`"),
        ("a  shop\n  or\n  b  shop", "line 2: nothing stands before `or`"),
        ("a  shop\n  b  shop\n  then", "line 3: nothing stands behind `then`"),
        ("a  shop\n  links", "line 2: nothing stands behind `links`"),
        (
            "a  shop\n[b]",
            "line 2: a second request: start each with its name in brackets, such as `[checkout]`",
        ),
        ("[b]\na  shop\n[b]\na  shop", "line 3: a second request \"b\""),
        ("[b]\n[c]\na  shop", "line 1: the request has neither a span nor `edges`"),
        (
            "a  SERVER",
            "line 1: \"a  SERVER\" has no service: write it behind the kind, with two blanks between them",
        ),
        ("a  server  shop", "line 1: \"server\" is not a kind: write SERVER"),
        (
            "a  SPAN_KIND_CLIENT  shop  200",
            "line 1: \"SPAN_KIND_CLIENT\" is not a kind: write CLIENT",
        ),
        (
            "edges  shop\n",
            "line 1: `edges` stands alone on its line: write the calls below it, or for a span of that name its kind",
        ),
        (
            "a  shop\n  or\n    b  shop",
            "line 3: nothing can stand below `or`: indent it like the lines that it separates",
        ),
    ] {
        assert_eq!(parse(file).expect_err(file).to_string(), mistake, "{file}");
    }
    for edge in [
        "shop",
        "-> shop and bank",
        "shop -> bank -> mail",
        "shop -> bank  200",
        "->",
        "?",
        "-> ?  ?  ?",
    ] {
        let mistake = format!(
            "line 2: {edge:?} is not an edge: write `caller -> called`, `-> entered` or `sender ~> receiver`, and `\\ ` for a blank in a service"
        );
        let text = format!("edges\n{edge}\n");
        assert_eq!(parse(&text).expect_err(edge).to_string(), mistake);
    }
    // These are services.
    for line in ["a  server", "a  client  200", "edges  INTERNAL  shop"] {
        assert!(parse(line).is_ok(), "{line}");
    }
    let deep: String = (0..200).map(|depth| format!("{}a  shop\n", " ".repeat(depth))).collect();
    assert_eq!(parse(&deep).expect_err("deep").to_string(), "line 101: more than 100 levels");
    let several = parse("[a]\na  shop\n\n[b c]\nb  shop\n").expect("two requests");
    assert_eq!(several.to_string(), "[a]\na  shop\n\n[b c]\nb  shop\n");
    let no_name = several.request(None).expect_err("two").to_string();
    assert_eq!(no_name, "it has several requests: name one of a, b c");
    assert!(several.request(Some("b c")).is_ok());
}

/// Returns the decision of a watch, for tables that arrive at these seconds and a request that ended after one. The watch looks when
/// something arrives and when it asked to.
fn decide(file: &str, arrivals: &[(u64, &str)]) -> (Verdict, u64) {
    let request = request(file);
    let seconds = Duration::from_secs;
    let waiting = Waiting { settle: seconds(6), timeout: seconds(30) };
    let mut watch = Watch::new(&request, sent(), waiting);
    let mut now = seconds(0);
    loop {
        let rows: Vec<&str> =
            arrivals.iter().filter(|(at, _)| seconds(*at) <= now).map(|(_, rows)| *rows).collect();
        let ended = (now >= seconds(1)).then_some(seconds(1));
        match watch.look(now, ended, &arrived(&rows.join(";"))) {
            Decision::Done(verdict) => return (verdict, now.as_secs()),
            Decision::WaitUntil(time) => {
                assert!(time > now);
                let next = arrivals.iter().map(|(at, _)| seconds(*at)).filter(|at| *at > now);
                now = next
                    .chain([seconds(1)].into_iter().filter(|it| *it > now))
                    .chain([time])
                    .min()
                    .expect("a time");
            }
        }
    }
}

#[test]
fn a_trace_matches_when_nothing_has_arrived_for_a_while() {
    let (first, second) = PAID.split_at(PAID.find("    1 payment").expect("a row"));
    assert_eq!(decide(CHECKOUT, &[(1, PAID)]), (Verdict::Matches, 7));
    assert_eq!(decide(CHECKOUT, &[(1, first), (5, second)]), (Verdict::Matches, 11));
    // The caller's span is the last to come.
    assert_eq!(decide(CHECKOUT, &[(5, second), (1, first)]), (Verdict::Matches, 11));
    assert_eq!(decide(CHECKOUT, &[(1, second), (20, first)]), (Verdict::Matches, 26));
    // What is missing may come until the end.
    assert_eq!(decide(CHECKOUT, &[(1, first)]), (Verdict::TimedOut, 31));
    assert_eq!(decide(CHECKOUT, &[(1, second)]), (Verdict::TimedOut, 31));
    assert_eq!(decide(CHECKOUT, &[(1, first), (28, second)]), (Verdict::Unsettled, 31));
    // A surplus span can't go away, but others may still come.
    let surplus = "1 payment 9<4 INTERNAL 11..12 charge";
    assert_eq!(decide(CHECKOUT, &[(1, PAID), (5, surplus)]), (Verdict::Differs, 11));
    // As long as its parent is missing, nobody knows where it belongs.
    let orphan = "1 payment 9<8 INTERNAL 11..12 charge";
    assert_eq!(decide(CHECKOUT, &[(1, PAID), (5, orphan)]), (Verdict::TimedOut, 31));
    // Another request of the system doesn't count.
    let other = "5 shop 1 SERVER 0..9 GET /health";
    assert_eq!(decide(CHECKOUT, &[(1, PAID), (5, other)]), (Verdict::Matches, 7));
}

/// A random tree as a table: up to `count` spans with few names, in a random order, so that many siblings are alike.
fn random_rows(random: &mut fastrand::Rng, count: usize) -> Vec<String> {
    let mut rows = vec!["1 shop 1<99 SERVER 0..900 top".to_owned()];
    for id in 2..=count {
        let parent = random.usize(1..id);
        let (service, name) = (random.choice(["shop", "stock"]), random.choice(["a", "b", "c"]));
        let (service, name) = (service.expect("one"), name.expect("one"));
        let start = random.usize(1..500);
        rows.push(format!("1 {service} {id}<{parent} INTERNAL {start}..{} {name}", start + 20));
    }
    rows
}

/// The row with this id, and those below it.
fn below(rows: &[String], id: usize) -> Vec<usize> {
    let ids = |row: &str| -> (usize, usize) {
        let (id, parent) = row.split(' ').nth(2).and_then(|it| it.split_once('<')).expect("ids");
        (id.parse().expect("a number"), parent.parse().expect("a number"))
    };
    let mut found = vec![id];
    for row in rows {
        let (id, parent) = ids(row);
        if found.contains(&parent) {
            found.push(id);
        }
    }
    found
}

#[test]
fn any_tree_matches_the_file_that_was_written_from_it_and_no_other() {
    let mut random = fastrand::Rng::with_seed(22);
    for round in 0..150 {
        let count = random.usize(2..14);
        let mut rows = random_rows(&mut random, count);
        let actual = Actual::new(&arrived(&rows.join(";")), &sent(), &[], false);
        let (body, _) = written(&actual, &[], false);
        let request = Request { name: None, comments: Vec::new(), body };
        let looks = |rows: &[String]| {
            let actual = Actual::new(&arrived(&rows.join(";")), &sent(), &[], true);
            let attached = Actual::new(&arrived(&rows.join(";")), &sent(), &[], false).attached();
            (matches(&request, &actual, &[]), may_match(&request, &attached, &[]))
        };
        let whole = rows.clone();
        random.shuffle(&mut rows);
        assert_eq!(looks(&rows), (true, true), "{round}: {rows:?}");
        // Whatever has arrived of it, the rest may come.
        let some: Vec<String> = rows.iter().filter(|_| random.bool()).cloned().collect();
        if !some.is_empty() && some.len() < rows.len() {
            assert_eq!(looks(&some), (false, true), "{round}: {some:?}");
        }
        // A span too much can't be right, however little else is there.
        let parent = random.usize(1..=count);
        let more = format!("1 other {}<{parent} INTERNAL 1..2 d", count + 1);
        let above = |id: usize| below(&whole, id).contains(&parent);
        let path: Vec<String> = (1..=count)
            .filter(|id| above(*id))
            .map(|id| whole[id - 1].clone())
            .chain([more])
            .collect();
        assert_eq!(looks(&path), (false, false), "{round}: {path:?}");
        // A subtree that moved to another place of the tree.
        let moved = random.usize(2..=count);
        let subtree = below(&whole, moved);
        let elsewhere: Vec<usize> = (1..=count).filter(|id| !subtree.contains(id)).collect();
        let to = *random.choice(&elsewhere).expect("the top");
        let mut changed = whole.clone();
        let (before, after) = changed[moved - 1].split_once('<').expect("a parent");
        let (_, after) = after.split_once(' ').expect("a kind");
        changed[moved - 1] = format!("{before}<{to} {after}");
        let same_shape = {
            let actual = Actual::new(&arrived(&changed.join(";")), &sent(), &[], false);
            let (body, _) = written(&actual, &[], false);
            canonical(&body.clone()) == canonical(&request.body)
        };
        assert_eq!(looks(&changed).0, same_shape, "{round}: {changed:?}");
    }
}

/// A tree written such that the order of siblings doesn't matter.
fn canonical(body: &traces::expect::Body) -> String {
    fn of(tree: &traces::expect::Children) -> String {
        let items = tree.alternatives[0].groups[0].iter();
        let mut items: Vec<String> = items
            .map(|item| match item {
                traces::expect::Item::Any(_) => "...".to_owned(),
                traces::expect::Item::Span(span) => {
                    let (name, service, times) = (&span.name, &span.service, span.times);
                    format!("{name} {service} {times}({})", of(&span.children))
                }
            })
            .collect();
        items.sort();
        // Equal siblings stand for as many lines.
        items.join(",")
    }
    match body {
        traces::expect::Body::Tree(tree) => of(tree),
        traces::expect::Body::Edges(_) => String::new(),
    }
}

#[test]
fn what_differs_is_all_that_is_shown() {
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..150 {
        let count = random.usize(3..14);
        let rows = random_rows(&mut random, count);
        let actual = Actual::new(&arrived(&rows.join(";")), &sent(), &[], false);
        let (body, _) = written(&actual, &[], false);
        let request = Request { name: None, comments: Vec::new(), body };
        let lost = below(&rows, random.usize(2..=count));
        let rest: Vec<String> =
            (1..=count).filter(|id| !lost.contains(id)).map(|id| rows[id - 1].clone()).collect();
        let actual = Actual::new(&arrived(&rest.join(";")), &sent(), &[], false);
        let shown = shown(&request, &actual, &[]);
        assert_eq!(shown.counts.missing, lost.len(), "{round}: {}", shown.text);
        assert_eq!((shown.counts.surplus, shown.counts.changed), (0, 0), "{round}: {}", shown.text);
        // And the file that is written from it matches.
        let (body, _) = updated(&request, &actual, &[]);
        let request = Request { body, ..request };
        assert!(matches(&request, &actual, &[]), "{round}: {}", shown.text);
    }
}

#[test]
fn a_request_that_was_sent_twice_does_not_have_several_roots() {
    let has_several = |rows: &str| {
        arrived(rows)
            .findings(&sent(), &[])
            .iter()
            .any(|finding| finding.rule == Rule::SeveralRoots)
    };
    let twice = "1 shop 1<99 SERVER 0..9 POST /checkout; 1 shop 2<99 SERVER 10..19 POST /checkout";
    assert!(!has_several(twice));
    assert!(has_several(&format!("{twice}; 1 mail 3 SERVER 12..13 POST /mail")));
}
