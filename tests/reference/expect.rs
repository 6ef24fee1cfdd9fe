//! The files on the page about the file of `lab expect` say what the page says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use support::in_process::spans;
use support::includes::includes;
use traces::expect::compare::{matches, written};
use traces::expect::{Actual, Arrived, File, Request, parse};
use traces::span::{Span, SpanId, TraceId};
use traces::traceparent::Traceparent;

const PAGE: &str = "src/reference/expect.md";

/// A link to span 2 of the request's trace.
const LINK: &str =
    r#"{"links":[{"traceId":"01010101010101010101010101010101","spanId":"0000000000000002"}]}"#;

/// The trace `1` of a table, below the span 99 of the sender.
fn sent() -> Traceparent {
    let parent_id = SpanId(99_u64.to_be_bytes());
    Traceparent { trace_id: TraceId([1; 16]), parent_id, sampled: true, random: false }
}

fn arrived(table: &str) -> Arrived {
    let mut traces: BTreeMap<TraceId, Vec<Arc<Span>>> = BTreeMap::new();
    for span in spans(table) {
        traces.entry(span.trace_id).or_default().push(Arc::new(span));
    }
    let trace = traces.remove(&sent().trace_id).unwrap_or_default();
    Arrived { trace, joined: traces.into_values().collect() }
}

/// A file of the page, and spans that match it or don't.
struct Example {
    name: &'static str,
    file: File,
}

fn example(name: &'static str) -> Example {
    let path = support::root().join(format!("src/reference/expect/{name}.trace"));
    let text = std::fs::read_to_string(path).expect("an example");
    let file = parse(&text).unwrap_or_else(|mistake| panic!("{name}, {mistake}"));
    Example { name, file }
}

impl Example {
    fn compare(&self, request: Option<&str>, table: &str, expected: bool) -> &Self {
        let request = self.file.request(request).expect("a request");
        let keys = request.attributes();
        let actual = Actual::new(&arrived(table), &sent(), &keys, false);
        assert_eq!(matches(request, &actual, &keys), expected, "{}: {table}", self.name);
        self
    }

    #[track_caller]
    fn green(&self, table: &str) -> &Self {
        self.compare(None, table, true)
    }

    #[track_caller]
    fn red(&self, table: &str) -> &Self {
        self.compare(None, table, false)
    }
}

/// The rows of a checkout: the shop's span, and below it what else is given.
fn checkout(rest: &str) -> String {
    format!("1 shop 1<99 SERVER 0..90 POST /checkout; {rest}")
}

#[test]
fn the_page_shows_every_example_and_every_example_is_compared_here() {
    let page = std::fs::read_to_string(support::root().join(PAGE)).expect("the page");
    let shown = includes(PAGE, &page).into_iter();
    let shown = shown.filter_map(|it| {
        let name = it.file.strip_prefix("src/reference/expect/")?;
        Some(name.trim_end_matches(".trace").to_owned())
    });
    let shown: BTreeSet<String> = shown.collect();
    let folder = std::fs::read_dir(support::root().join("src/reference/expect"));
    let files = folder.expect("a folder").map(|entry| {
        let path = entry.expect("an entry").path();
        path.file_stem().expect("a name").to_string_lossy().into_owned()
    });
    assert_eq!(shown, files.collect::<BTreeSet<String>>());
    let source = include_str!("expect.rs");
    for name in shown {
        assert!(source.contains(&format!("example(\"{name}\")")), "{name} isn't compared");
    }
}

#[test]
fn a_tree_is_green_with_exactly_its_spans() {
    let paid = "1 shop 3<1 CLIENT 3..80 POST /pay http.response.status_code=200; \
                1 payment 4<3 SERVER 10..70 POST /pay http.response.status_code=200";
    let top = "1 shop 1<99 SERVER 0..90 POST /checkout http.response.status_code=200";
    let check = "1 shop 2<1 INTERNAL 1..2 check basket";
    let whole = format!("{top}; {check}; {paid}");
    let [tree, indented] = [example("tree"), example("indented")];
    for example in [&tree, &indented] {
        example.green(&whole);
        // Siblings stand in any order.
        example.green(&format!("{top}; {paid}; {}", check.replace("1..2", "85..86")));
        example.red(&format!("{top}; {paid}"));
        example.red(&format!("{whole}; 1 payment 5<4 INTERNAL 11..12 charge"));
        example.red(&format!("{whole}; {}", paid.replace("3<1", "6<1").replace("4<3", "7<6")));
        // An error that the file doesn't have.
        example.red(&whole.replace("10..70 POST /pay", "10..70 POST /pay error=late"));
    }
    // Only the first names statuses.
    let answered =
        whole.replace("10..70 POST /pay http.response.status_code=200", "10..70 POST /pay");
    tree.red(&answered);
    indented.green(&answered);
    let internal = whole.replace("payment 4<3 SERVER", "payment 4<3 INTERNAL");
    tree.red(&internal);
    indented.green(&internal);
}

#[test]
fn a_tree_is_red_where_a_span_hangs_from_nothing() {
    let edges = example("several");
    let answered = |row: &str| format!("{row} http.response.status_code=200");
    for (row, expected) in [
        ("1 shop 1<99 SERVER 0..9 POST /checkout", true),
        ("1 shop 1<98 SERVER 0..9 POST /checkout", false),
        ("1 shop 1 SERVER 0..9 POST /checkout", false),
        ("2 shop 1 SERVER 0..9 POST /checkout", false),
    ] {
        edges.compare(Some("checkout"), &answered(row), expected);
    }
}

#[test]
fn patterns_and_escapes() {
    let rows = |id: &str, all: &str| {
        format!(
            "1 shop 1<99 SERVER 0..90 GET /baskets/{id} http.response.status_code=204; \
             1 shop 2<1 CLIENT 1..2 SELECT {all}; 1 cache-7 3<1 CLIENT 2..3 GET; \
             1 shop 4<1 INTERNAL 3..4 NAME {{\"name\":\" trim\"}}; 1 shop 5<1 INTERNAL 4..5"
        )
    };
    let patterns = example("patterns");
    patterns.green(&rows("17", "*")).green(&rows("17/items", "*"));
    patterns.red(&rows("17", "name"));
    patterns.red(&rows("17", "*").replace("204", "304"));
    patterns.red(&rows("17", "*").replace("cache-7", "store-7"));
}

#[test]
fn the_columns_behind_the_service() {
    let rows = "1 shop 1<99 SERVER 0..90 POST /checkout http.response.status_code=409 http.route=/checkout; \
                1 shop 2<1 CLIENT 1..80 POST /pay http.response.status_code=402 error=declined error.type=402; \
                1 payment 3<2 SERVER 2..70 POST /pay http.response.status_code=402 error=declined \
                error.type=CardDeclined card.kind=debit";
    let items = example("items");
    items.green(rows);
    items.red(&rows.replace("0..90", "0..300"));
    items.red(&rows.replace("http.route=/checkout", "http.route=/"));
    items.red(&rows.replace("CardDeclined", "Timeout"));
    items.red(&rows.replace(" card.kind=debit", ""));
    items.red(&rows.replace(" error=declined error.type=402", ""));
    items.red(&rows.replace("status_code=409", "status_code=200"));
    // The statuses of older conventions count too.
    items.green(&rows.replace("http.response.status_code", "http.status_code"));
}

#[test]
fn counts() {
    let rows = |counts: [usize; 4]| {
        let names = [
            "INTERNAL 1..2 read cache",
            "CLIENT 1..2 GET /stock",
            "CLIENT 1..2 INSERT",
            "CLIENT 1..2 POST /pay",
        ];
        let rows = names.iter().zip(counts).flat_map(|(row, count)| vec![*row; count]);
        let rows = rows.enumerate().map(|(index, row)| format!("1 shop {}<1 {row}", index + 2));
        checkout(&rows.collect::<Vec<_>>().join("; "))
    };
    let times = example("times");
    times.green(&rows([0, 1, 2, 1])).green(&rows([1, 9, 2, 3]));
    for counts in
        [[2, 1, 2, 1], [0, 0, 2, 1], [0, 1, 1, 1], [0, 1, 3, 1], [0, 1, 2, 0], [0, 1, 2, 4]]
    {
        times.red(&rows(counts));
    }
}

#[test]
fn dots_stand_for_anything() {
    let paid = "1 shop 3<1 CLIENT 3..80 POST /pay; 1 payment 4<3 SERVER 10..70 POST /pay";
    let any = example("any");
    any.green(&checkout(paid));
    any.green(&checkout(&format!("{paid}; 1 payment 5<4 CLIENT 11..12 INSERT; 1 shop 6<1 INTERNAL 1..2 check; 1 shop 7<6 INTERNAL 1..2 sum")));
    any.red(&checkout("1 shop 3<1 CLIENT 3..80 POST /pay"));
    // `...` takes a second call too.
    any.green(&checkout(&format!("{paid}; 1 shop 5<1 CLIENT 81..82 POST /pay")));
    // Not below the payment's CLIENT span.
    any.red(&checkout(&format!("{paid}; 1 shop 5<3 INTERNAL 4..5 connect")));
}

#[test]
fn then_says_what_begins_after_what() {
    let rows = |stock: &str, prices: &str, pay: &str| {
        checkout(&format!(
            "1 shop 2<1 CLIENT {stock} GET /stock; 1 shop 3<1 CLIENT {prices} GET /prices; 1 shop 4<1 CLIENT {pay} POST /pay"
        ))
    };
    let order = example("order");
    order.green(&rows("1..9", "2..20", "20..30")).green(&rows("10..20", "1..9", "21..30"));
    order.green(&rows("1..9", "2..20", "19..30"));
    order.red(&rows("1..9", "2..20", "15..30")).red(&rows("10..20", "2..20", "1..9"));
}

#[test]
fn or_gives_alternatives() {
    let rows = |rest: &str| {
        format!("1 shop 1<99 SERVER 0..90 GET /prices; 1 shop 2<1 INTERNAL 1..2 read cache{rest}")
    };
    let or = example("or");
    or.green(&rows("")).green(&rows("; 1 shop 3<1 CLIENT 3..9 SELECT prices"));
    or.red(&rows("; 1 shop 3<1 CLIENT 3..9 SELECT prices; 1 shop 4<1 CLIENT 3..9 SELECT prices"));
    or.red("1 shop 1<99 SERVER 0..90 GET /prices; 1 shop 3<1 CLIENT 3..9 SELECT prices");
}

#[test]
fn links_lead_to_the_trace_that_a_queue_begins() {
    let order = "1 shop 1<99 SERVER 0..9 POST /orders; 1 shop 2<1 PRODUCER 1..2 send orders";
    let linked = format!("{order}; 2 worker 7 CONSUMER 5..9 process orders {LINK}");
    let handled = format!("{linked}; 2 worker 8<7 CLIENT 6..7 INSERT orders");
    let links = example("links");
    links.green(&handled);
    links.red(order).red(&linked);
    // Handled twice.
    links.red(&format!("{handled}; 3 worker 7 CONSUMER 15..19 process orders {LINK}; 3 worker 8<7 CLIENT 16..17 INSERT orders"));
    // In the same trace instead.
    let continued = format!("{order}; 1 worker 7<2 CONSUMER 5..9 process orders");
    links.red(&format!("{continued}; 1 worker 8<7 CLIENT 6..7 INSERT orders"));
    let batch = example("batch");
    batch.green(&continued).green(&linked);
    batch.red(order).red(&format!("{linked}; 1 worker 7<2 CONSUMER 5..9 process orders"));
}

#[test]
fn a_request_of_several_has_a_name() {
    let several = example("several");
    let answered = |status: u16| {
        format!("1 shop 1<99 SERVER 0..9 POST /checkout http.response.status_code={status}")
    };
    for (name, status) in [("checkout", 200), ("empty basket", 409)] {
        several.compare(Some(name), &answered(status), true);
        several.compare(Some(name), &answered(500), false);
    }
    assert!(several.file.request(None).is_err());
}

#[test]
fn edges_say_who_calls_whom() {
    let sound = format!(
        "1 shop 1<99 SERVER 0..9 POST /checkout; 1 shop 2<1 PRODUCER 1..2 send orders; \
         1 payment 4<1 SERVER 2..3 POST /pay; 2 worker 7 CONSUMER 5..9 process orders {LINK}"
    );
    let edges = example("edges");
    edges.green(&sound);
    edges.green(&format!("{sound}; 1 mail 5<1 SERVER 3..4 POST /mail"));
    // Names, kinds, statuses, errors and counts are open.
    edges.green(&format!("{sound}; 1 payment 6<1 INTERNAL 2..3 anything error=late"));
    edges.red(&format!("{sound}; 1 stock 6<1 SERVER 2..3 GET /stock"));
    edges.red(&sound.replace("2 worker 7", "1 worker 7<2").replace(LINK, ""));
    edges.red(&sound.replace("1<99", "1<98"));
}

/// The table of what `--update` replaces.
#[test]
fn the_page_says_what_is_replaced_by_patterns() {
    let page = std::fs::read_to_string(support::root().join(PAGE)).expect("the page");
    let (_, rows) = page.split_once("| Arrived | Written |\n|---|---|\n").expect("a table");
    let rows = rows.lines().map_while(|row| row.strip_prefix("| `")?.strip_suffix("` |"));
    let rows: Vec<_> = rows.map(|row| row.split_once("` | `").expect("two cells")).collect();
    assert!(rows.len() > 4);
    for (name, pattern) in rows {
        let fields = serde_json::json!({ "name": name });
        let arrived = arrived(&format!("1 shop 1<99 CLIENT 0..9 NAME {fields}"));
        let actual = Actual::new(&arrived, &sent(), &[], false);
        let (body, _) = written(&actual, &[], false);
        let request = Request { name: None, comments: Vec::new(), body };
        let file = File { requests: vec![request], comments: Vec::new() };
        assert_eq!(file.to_string(), format!("{pattern}  CLIENT  shop\n"), "{name}");
    }
}
