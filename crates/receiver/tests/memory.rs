//! The memory that requests take while they are decoded, whatever is in them. A program of its own, because it counts every byte.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

use axum::body::Body;
use axum::http::Request;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::encoding::encode_varint;
use tokio::sync::Mutex;
use tower::ServiceExt as _;
use traces::otlp;
use traces::proto::collector::ExportTraceServiceRequest;
use traces::proto::common::InstrumentationScope;
use traces::proto::logs::{LogRecord, ResourceLogs, ScopeLogs};
use traces::proto::logs_collector::ExportLogsServiceRequest;
use traces::proto::trace::span::Link;
use traces::proto::trace::{ResourceSpans, ScopeSpans, Span};
use traces_receiver::store::{Limits, Store};
use traces_receiver::{grpc, http};

/// The memory that requests may take beyond the store.
const AIM: isize = 64 * 1024 * 1024;

/// Counts the memory that the program holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time counts.
static ALONE: Mutex<()> = Mutex::const_new(());

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn add(size: usize) {
    let size = size.cast_signed();
    PEAK.fetch_max(HELD.fetch_add(size, Relaxed) + size, Relaxed);
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size().cast_signed(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The system moves a large block without copying it.
        HELD.fetch_sub(layout.size().cast_signed(), Relaxed);
        add(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// A body that consists of one piece many times, between a beginning and an end.
struct Bomb {
    name: &'static str,
    path: &'static str,
    media_type: &'static str,
    body: Vec<u8>,
}

fn packed(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(body).expect("memory");
    packed.finish().expect("memory")
}

fn json(name: &'static str, before: &str, piece: &str, after: &str) -> Bomb {
    let room = http::BODY_LIMIT - before.len() - after.len() - piece.len();
    let count = room / (piece.len() + 1);
    let body = [before, &format!("{piece},").repeat(count), piece, after].concat();
    let body = packed(body.as_bytes());
    Bomb { name, path: "/v1/traces", media_type: "application/json", body }
}

/// Nests a piece that fills a message of `limit` bytes in fields with these tags, the innermost last.
fn nested(piece: &[u8], fields: &[u8], limit: usize) -> Vec<u8> {
    let content = piece.repeat((limit - 100) / piece.len());
    fields.iter().rev().fold(content, |content, tag| {
        let mut message = vec![tag << 3 | 2];
        encode_varint(content.len() as u64, &mut message);
        message.extend(content);
        message
    })
}

fn protobuf(
    name: &'static str,
    [path, service]: [&'static str; 2],
    fields: &[u8],
    piece: &[u8],
) -> [Bomb; 2] {
    let over_http = packed(&nested(piece, fields, http::BODY_LIMIT));
    let message = packed(&nested(piece, fields, grpc::MESSAGE_LIMIT));
    let mut framed = vec![1];
    framed.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    framed.extend(message);
    [
        Bomb { name, path, media_type: "application/x-protobuf", body: over_http },
        Bomb { name, path: service, media_type: "application/grpc", body: framed },
    ]
}

/// The paths of each signal, over HTTP and over gRPC.
const TRACES: [&str; 2] =
    ["/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"];
const LOGS: [&str; 2] = ["/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"];

/// The fields of a sound span: the ids of its trace and of itself.
const SMALL_SPAN: [u8; 28] = {
    let mut span = [7; 28];
    (span[0], span[1], span[18], span[19]) = (0x0a, 16, 0x12, 8);
    span
};

fn bombs() -> Vec<Bomb> {
    const SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a","#;
    let span = |field: &str| format!("{SPAN}{field}");
    let in_value =
        |list: &str| span(&format!(r#""attributes":[{{"key":"a","value":{{"{list}":{{"values":["#));
    let value = "]}}}]}]}]}]}";
    let (trace, id) = ("07".repeat(16), "08".repeat(8));
    let scope = format!(r#"{{"spans":[{{"traceId":"{trace}","spanId":"{id}"}}]}}"#);
    let scope_in_protobuf = [&[0x12, 30, 0x12, 28], &SMALL_SPAN[..]].concat();
    let resource_in_protobuf = [&[0x0a, 32], &scope_in_protobuf[..]].concat();
    let mut bombs = vec![
        json("spans", r#"{"resourceSpans":[{"scopeSpans":[{"spans":["#, "{}", "]}]}]}"),
        json("snake_case", r#"{"resource_spans":[{"scope_spans":[{"spans":["#, "{}", "]}]}]}"),
        json("attributes", &span(r#""attributes":["#), "{}", "]}]}]}]}"),
        json("a map of attributes", &span(r#""attributes":{"#), r#""":0"#, "}}]}]}]}"),
        json("events", &span(r#""events":["#), "{}", "]}]}]}]}"),
        json("links", &span(r#""links":["#), "{}", "]}]}]}]}"),
        json("attributes of events", &span(r#""events":[{"attributes":["#), "{}", "]}]}]}]}]}"),
        json("a list", &in_value("arrayValue"), "{}", value),
        json("a list of numbers", &in_value("arrayValue"), "0", value),
        json("a map", &in_value("kvlistValue"), "{}", value),
        json("objects", &in_value("arrayValue"), r#"{"":0}"#, value),
        json("resources", r#"{"resourceSpans":["#, "{}", "]}"),
        json("numbers for resources", r#"{"resourceSpans":["#, "0", "]}"),
        json("scopes", r#"{"resourceSpans":[{"scopeSpans":["#, "{}", "]}]}"),
        json("resource", r#"{"resourceSpans":[{"resource":{"attributes":["#, "{}", "]}}]}"),
        json("entities", r#"{"resourceSpans":[{"resource":{"entityRefs":["#, "{}", "]}}]}"),
        json(
            "scope",
            r#"{"resourceSpans":[{"scopeSpans":[{"scope":{"attributes":["#,
            "{}",
            "]}}]}]}",
        ),
        json("escapes", r#"{"resourceSpans":[{"schemaUrl":""#, r"\ud800\u0000", r#""}]}"#),
        json("scopes with a span", r#"{"resourceSpans":[{"scopeSpans":["#, &scope, "]}]}"),
        json(
            "resources with a span",
            r#"{"resourceSpans":["#,
            &format!("{{\"scopeSpans\":[{scope}]}}"),
            "]}",
        ),
        json("depth", r#"{"resourceSpans":"#, "[[[[", ""),
    ];
    for (name, fields, piece) in [
        ("spans", &[1, 2][..], &[0x12, 0][..]),
        ("attributes", &[1, 2, 2], &[0x4a, 0]),
        ("events", &[1, 2, 2], &[0x5a, 0]),
        ("links", &[1, 2, 2], &[0x6a, 0]),
        ("attributes of an event", &[1, 2, 2, 11], &[0x1a, 0]),
        ("attributes of a link", &[1, 2, 2, 13], &[0x22, 0]),
        ("a list", &[1, 2, 2, 9, 2, 5], &[0x0a, 0]),
        ("a map", &[1, 2, 2, 9, 2, 6], &[0x0a, 0]),
        ("lists in lists", &[1, 2, 2, 9, 2, 5], &[0x0a, 2, 0x2a, 0]),
        ("resources", &[], &[0x0a, 0]),
        ("scopes", &[1], &[0x12, 0]),
        ("attributes of a resource", &[1, 1], &[0x0a, 0]),
        ("entities", &[1, 1], &[0x1a, 0]),
        ("keys of an entity", &[1, 1, 3], &[0x1a, 0]),
        ("attributes of a scope", &[1, 2, 1], &[0x1a, 0]),
        ("scopes with a span", &[1], &scope_in_protobuf),
        ("resources with a span", &[], &resource_in_protobuf),
        ("unknown fields", &[1, 2, 2], &[0xa2, 0x06, 0]),
    ] {
        bombs.extend(protobuf(name, TRACES, fields, piece));
    }
    bombs.extend(log_bombs());
    bombs
}

/// The fields of a sound log record: the ids of its trace and of its span.
const SMALL_RECORD: [u8; 28] = {
    let mut record = [7; 28];
    (record[0], record[1], record[18], record[19]) = (0x4a, 16, 0x52, 8);
    record
};

fn log_bombs() -> Vec<Bomb> {
    let trace = "07".repeat(16);
    let record =
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"traceId":"{trace}","#);
    let with = |field: &str| format!("{record}{field}");
    let small = format!(r#"{{"traceId":"{trace}"}}"#);
    let scope = format!(r#"{{"logRecords":[{small}]}}"#);
    let records = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":["#;
    let value = "]}}}]}]}]}";
    let logs = [
        json("records", records, "{}", "]}]}]}"),
        json("records of a trace", records, &small, "]}]}]}"),
        json("attributes of a record", &with(r#""attributes":["#), "{}", "]}]}]}]}"),
        json("a list as a body", &with(r#""body":{"arrayValue":{"values":["#), "{}", value),
        json("scopes with a record", r#"{"resourceLogs":[{"scopeLogs":["#, &scope, "]}]}"),
    ];
    let mut bombs: Vec<Bomb> =
        logs.into_iter().map(|bomb| Bomb { path: "/v1/logs", ..bomb }).collect();
    let of_trace = [&[0x12, 28], &SMALL_RECORD[..]].concat();
    let in_scope = [&[0x12, 30], &of_trace[..]].concat();
    // Behind the trace id, without which a record isn't read.
    let attribute = [&SMALL_RECORD[..], &[0x32, 0].repeat(16 * 1024)].concat();
    let list = [&[0x2a, 4, 0x2a, 2, 0x0a, 0], &SMALL_RECORD[..]].concat();
    for (name, fields, piece) in [
        ("records", &[1, 2][..], &[0x12, 0][..]),
        ("records of a trace", &[1, 2], &of_trace),
        ("attributes of a record", &[1, 2, 2], &attribute),
        ("lists as bodies", &[1, 2, 2], &list),
        ("scopes with a record", &[1], &in_scope),
        ("attributes of a resource", &[1, 1], &[0x0a, 0]),
    ] {
        bombs.extend(protobuf(name, LOGS, fields, piece));
    }
    bombs
}

/// A request with the largest number of items, each as small as it can be: of spans, or of log records in traces of their own.
fn sound(small: [u8; 28], id_at: usize) -> Vec<u8> {
    let item = |id: u64| {
        let mut item = small;
        item[id_at..id_at + 8].copy_from_slice(&id.to_be_bytes());
        [&[0x12, 28], &item[..]].concat()
    };
    let items: Vec<u8> = (1..=otlp::SPANS_LIMIT as u64).flat_map(item).collect();
    nested(&items, &[1, 2], items.len() + 100)
}

/// Sends a body to the receiver that it is for. Both receivers have one store, and so the same limits.
async fn send(store: &Store, bomb: &Bomb) -> u16 {
    let routes = match bomb.media_type {
        "application/grpc" => grpc::routes(store.clone()),
        _ => http::routes(store.clone()),
    };
    let request = Request::post(bomb.path)
        .header("content-type", bomb.media_type)
        .header("content-encoding", "gzip")
        .header("grpc-encoding", "gzip")
        .body(Body::from(bomb.body.clone()));
    let answer = routes.oneshot(request.expect("a request")).await;
    answer.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_takes_more_than_64_mb_beyond_the_store() {
    let _alone = ALONE.lock().await;
    let store = Store::new(Limits::default());
    let bombs = bombs();
    for bomb in &bombs {
        assert!(bomb.body.len() < 1024 * 1024, "{} is of {} bytes", bomb.name, bomb.body.len());
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        send(&store, bomb).await;
        let taken = PEAK.load(Relaxed) - before;
        let held = HELD.load(Relaxed) - before;
        let (name, path) = (bomb.name, bomb.media_type);
        assert!(taken - held.max(0) < AIM, "{name} in {path}: {taken} bytes, and {held} are left");
    }

    // Sent in parallel, they need as little memory, because each waits for its turn.
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let sent: isize = bombs.iter().map(|bomb| bomb.body.len().cast_signed()).sum();
    let mut requests = tokio::task::JoinSet::new();
    for bomb in bombs.into_iter().step_by(3) {
        let store = store.clone();
        requests.spawn(async move { send(&store, &bomb).await });
    }
    requests.join_all().await;
    let taken = PEAK.load(Relaxed) - before;
    assert!(taken < AIM + sent, "{taken} bytes for all of them in parallel");

    for (name, path, body) in [
        ("spans", "/v1/traces", sound(SMALL_SPAN, 20)),
        ("log records", "/v1/logs", sound(SMALL_RECORD, 2)),
    ] {
        let media_type = "application/x-protobuf";
        let sound = Bomb { name, path, media_type, body: packed(&body) };
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        assert_eq!(send(&store, &sound).await, 200);
        let taken = PEAK.load(Relaxed) - HELD.load(Relaxed);
        assert!(
            taken < AIM,
            "{taken} bytes for the largest sound request of {name}, beyond the {} that the store keeps",
            HELD.load(Relaxed) - before
        );
    }
}

/// Files unpack to more than bodies, and a document of another form than OTLP is read as a tree.
#[tokio::test]
async fn no_small_file_takes_more_than_64_mb() {
    let _alone = ALONE.lock().await;
    let large = |name, before: &str, piece: &str| {
        let body =
            format!("{before}{}", format!("{piece},").repeat((30 << 20) / (piece.len() + 1)));
        Bomb { name, path: "", media_type: "", body: packed(body.as_bytes()) }
    };
    let jaeger =
        r#"{"data":[{"traceID":"7","spans":[{"traceID":"7","spanID":"8","operationName":"a"},"#;
    let mut files = bombs();
    files.retain(|file| file.media_type != "application/grpc");
    files.extend([
        large("many spans", r#"{"resourceSpans":[{"scopeSpans":[{"spans":["#, "{}"),
        large("a list", "[", "0"),
        large("lines", "", "{}\n"),
        large("spans of Jaeger", jaeger, "{}"),
        large("spans of Zipkin", r#"[{"traceId":"7","id":"8","name":"a"},"#, "{}"),
        json("a list of Zipkin", r#"[{"traceId":"7","id":"8","name":"a"},"#, "{}", "]"),
        json("a trace of Jaeger", jaeger, "{}", r#"],"processes":{}}]}"#),
        json("objects without spans", r#"{"a":["#, r#"{"":{}}"#, "]}"),
    ]);
    for Bomb { name, media_type, body, .. } in &files {
        assert!(body.len() < 600_000, "{name} is of {} bytes", body.len());
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        let read = traces::read::stream(&body[..], drop);
        let taken = PEAK.load(Relaxed) - before;
        let problem = read.err().map(|it| it.to_string()).unwrap_or_default();
        assert!(taken < AIM, "{name} in {media_type}: {taken} bytes for {}: {problem}", body.len());
        assert!(
            *name != "many spans" || problem.contains("one document of more than"),
            "{problem}"
        );
    }
}

/// A file of 1 MB, of pieces with a number each.
fn file(name: &'static str, before: &str, piece: impl Fn(usize) -> String, after: &str) -> Bomb {
    let mut body = before.to_owned();
    for number in 0.. {
        let piece = piece(number);
        if body.len() + piece.len() + after.len() > 1_000_000 {
            break;
        }
        body += &piece;
        body.push(',');
    }
    body.pop();
    Bomb { name, path: "", media_type: "", body: (body + after).into_bytes() }
}

/// The trees of other forms than OTLP are small for their text. What is made of them must be so too.
#[tokio::test]
async fn no_file_of_1_mb_takes_more_than_64_mb() {
    let _alone = ALONE.lock().await;
    let scopes =
        |tags: &str| format!(r#"{{"data":[{{"processes":{{"p":{{"tags":[{tags}]}}}},"spans":["#);
    let of_scope = |number| {
        format!(
            r#"{{"traceID":"7","spanID":"{number:x}","processID":"p","tags":[{{"key":"otel.scope.name","value":"{number}"}}]}}"#
        )
    };
    let text = format!(r#"{{"key":"a","value":"{}"}}"#, "x".repeat(500_000));
    let list = format!(r#"{{"key":"a","value":[null{}]}}"#, ",null".repeat(40_000));
    let tags = r#"{"key":"a"},"#.repeat(20_000);
    let php = format!(r#"{{"resource":{{"a":"{}"}},"scopes":["#, "x".repeat(500_000));
    let v1 = r#"[{"traceId":"7","id":"8","annotations":[{"value":"cs"},{"value":"sr"},{"value":"ms"},{"value":"mr"}],"binaryAnnotations":["#;
    for Bomb { name, body, .. } in [
        file("a process with a long tag", &scopes(&text), of_scope, "]}]}"),
        file("a process with a list", &scopes(&list), of_scope, "]}]}"),
        file("a process with many tags", &scopes(tags.trim_end_matches(',')), of_scope, "]}]}"),
        file(
            "processes",
            r#"{"data":[{"traceID":"7","spans":["#,
            |number| {
                format!(
                    r#"{{"traceID":"7","spanID":"{number:x}","operationName":"a","process":{{"serviceName":"{number}"}}}}"#
                )
            },
            "]}]}",
        ),
        file(
            "scopes of PHP",
            &php,
            |number| {
                format!(
                    r#"{{"name":"{number}","spans":[{{"name":"a","context":{{"trace_id":"7","span_id":"{number:x}"}}}}]}}"#
                )
            },
            "]}",
        ),
        file(
            "late parts of Zipkin's spans",
            "[",
            |number| format!(r#"{{"traceId":"7","id":"{number:x}"}}"#),
            "]",
        ),
        file(
            "services of Zipkin",
            "[",
            |number| {
                format!(
                    r#"{{"traceId":"7","id":"{number:x}","localEndpoint":{{"serviceName":"{number}"}}}}"#
                )
            },
            "]",
        ),
        file("tags of Zipkin's version 1", v1, |_| r#"{"key":"","value":[0,0,0,0]}"#.into(), "]}]"),
    ] {
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        let read = traces::read::stream(&body[..], drop);
        let taken = PEAK.load(Relaxed) - before;
        assert!(taken < AIM, "{name}: {taken} bytes: {:?}", read.err());
    }
}

/// The number of spans of each store that is measured.
const SPANS: u64 = 50_000;

/// Adds log records to a new store. Returns the same as [`measured`] for one of them.
fn measured_logs(trace: impl Fn(u64) -> u64) -> (isize, isize) {
    let before = HELD.load(Relaxed);
    let store = Store::new(Limits { spans: usize::MAX, bytes: usize::MAX });
    for number in 1..=SPANS {
        let record = LogRecord {
            trace_id: u128::from(trace(number)).to_be_bytes().to_vec(),
            time_unix_nano: number,
            ..LogRecord::default()
        };
        let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let request = ExportLogsServiceRequest { resource_logs };
        store.add_logs(otlp::logs_from_request(request).expect("a record").items);
    }
    let held = HELD.load(Relaxed) - before;
    let usage = store.usage();
    let records = usage.logs.cast_signed();
    (held / records, usage.bytes.cast_signed() / records)
}

/// Adds spans to a new store, each in a request of its own. Returns what they take and what the store counts, in bytes for one.
fn measured(span: impl Fn(u64) -> (Span, String)) -> (isize, isize) {
    let before = HELD.load(Relaxed);
    let store = Store::new(Limits { spans: usize::MAX, bytes: usize::MAX });
    for number in 1..=SPANS {
        let (span, scope) = span(number);
        let scope = InstrumentationScope { name: scope, ..InstrumentationScope::default() };
        let scope_spans =
            vec![ScopeSpans { scope: Some(scope), spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let request = ExportTraceServiceRequest { resource_spans };
        store.add(otlp::from_request(request).expect("a span").items);
    }
    let held = HELD.load(Relaxed) - before;
    let spans = SPANS.cast_signed() as isize;
    (held / spans, store.usage().bytes.cast_signed() / spans)
}

/// A limit by bytes that left out the tables would be passed by many small traces.
#[tokio::test]
async fn the_store_counts_what_it_takes() {
    let _alone = ALONE.lock().await;
    let trace = |number: u64| u128::from(number).to_be_bytes().to_vec();
    let span = |of: u64, number: u64| Span {
        trace_id: trace(of),
        span_id: number.to_be_bytes().to_vec(),
        name: "GET /".to_owned(),
        ..Span::default()
    };
    let library = || "library".to_owned();
    let link = |number| Link { trace_id: trace(number), span_id: vec![1; 8], ..Link::default() };
    let small_traces = measured(|number| (span(number, number), library()));
    let large_trace = measured(|number| (span(1, number), library()));
    let sources = measured(|number| (span(number, number), format!("library {number}")));
    let links = measured(|number| {
        let links = vec![link(number + SPANS)];
        (Span { links, ..span(number, number) }, library())
    });
    for (name, (held, counted)) in [
        ("small traces", small_traces),
        ("a large trace", large_trace),
        ("sources", sources),
        ("links", links),
        ("log records of small traces", measured_logs(|number| number)),
        ("log records of large traces", measured_logs(|number| number % 10 + 1)),
    ] {
        println!("{name}: {held} bytes each, counted as {counted}");
        assert!(held <= counted, "{name}: {held} bytes each, counted as {counted}");
        assert!(counted <= 3 * held, "{name}: {held} bytes each, counted as {counted}");
    }
    // A small trace has no tables that it doesn't need.
    assert!(small_traces.0 < 700, "{small_traces:?}");
}
