//! The receivers for HTTP and gRPC: the requests that they take from exporters, and those that they refuse.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use flate2::Compression;
use flate2::read::{GzEncoder, ZlibEncoder};
use lab::listen::{self, AllowedHosts};
use lab::otlp::{self, Rejected, SPANS_LIMIT};
use lab::proto::common::any_value::Value;
use lab::proto::common::{AnyValue, ArrayValue, KeyValue};
use lab::proto::trace::span::Link;
use lab::proto::trace::{self as proto, Span};
use lab::receiver::BODY_LIMIT;
use lab::recorder::Recorder;
use lab::span::{DEPTH_LIMIT, Flaw, SpanKind, Status, TEXT_LIMIT, TraceId, Unfit};
use lab::store::{Limits, Store};
use lab::wire::Wire;
use lab::{guard, receiver, viewer};
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use reqwest::{Client, Method};
use support::in_process::{
    JSON, Lab, PROTOBUF, attribute, json_body, log_table, logs_in_protobuf, protobuf, span, spans,
    table, trace_id, trace_path,
};
use support::{DEADLINE, client, has, serve, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};

fn packed(encoding: &str, body: &[u8]) -> Vec<u8> {
    let level = Compression::fast();
    let mut packed = Vec::new();
    match encoding {
        "gzip" => GzEncoder::new(body, level).read_to_end(&mut packed).expect("packed"),
        "deflate" => ZlibEncoder::new(body, level).read_to_end(&mut packed).expect("packed"),
        "zstd" => return zstd::encode_all(body, 1).expect("packed"),
        _ => return body.to_vec(),
    };
    packed
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(&protobuf(spans)[..]).expect("a request")
}

/// A row of a table whose span id is too short.
const SHORT: &str = r#"1 a 1 SERVER 0..1 short {"spanId": "0b0b"}"#;
const SOUND: &str = "1 a 1 SERVER 0..1 sound";
const LOG: &str = "1 a 1 9 1 sound key=value";

#[tokio::test]
async fn protobuf_is_read_in_every_encoding_and_answered_in_kind() {
    let lab = Lab::start().await;
    // Python's exporter sends deflate.
    for (id, encoding) in (1..).zip(["", "gzip", "deflate", "zstd"]) {
        let body = packed(encoding, &protobuf(vec![span(1, id, id - 1, encoding)]));
        assert_eq!(lab.export(PROTOBUF, encoding, body).await, (200, String::new()));
    }
    let tree = lab.page(trace_path(1) + ".txt").await;
    has(&tree, ["\n└─ gzip ", "\n   └─ deflate ", "\n      └─ zstd "]);
}

#[tokio::test]
async fn json_is_read_with_string_enums_and_null_parents() {
    let lab = Lab::start().await;
    let media_type = "application/json; charset=utf-8";
    let answer = lab.export(media_type, "", json_body().to_string()).await;
    assert_eq!(answer, (200, "{}".to_owned()));
    let tree = lab.page(trace_path(0x0a) + ".txt").await;
    assert_eq!(tree, "from json  SERVER    python    2.50 ms  500, error: no\n");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason_and_the_store_is_untouched() {
    let lab = Lab::start().await;
    let refused = async |media_type, encoding, body: &[u8], status, reason| {
        let (answered, answer) = lab.export(media_type, encoding, body).await;
        assert_eq!((answered, lab.counts()), (status, [0, 0, 0]), "{reason}: {answer}");
        has(&answer, [reason]);
    };
    let valid = protobuf(vec![span(1, 1, 0, "good")]);
    for media_type in ["", "text/plain"] {
        refused(media_type, "", &valid, 415, "Content-Type must be").await;
    }
    refused(PROTOBUF, "", b"hello", 400, "not an OTLP request").await;
    refused(JSON, "", b"{", 400, "not an OTLP request in JSON").await;
    refused(JSON, "", b"{\"resourceSpans\": 1}", 400, "in JSON").await;
    let not_an_id = json_body().to_string().replacen("0a", "xy", 1);
    refused(JSON, "", not_an_id.as_bytes(), 400, "the trace id must be 16 bytes").await;

    let long = attribute("long", &"x".repeat(TEXT_LIMIT + 1));
    let nested =
        |value| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![value] })) };
    let value = Some((0..=DEPTH_LIMIT).fold(AnyValue::default(), |value, _| nested(value)));
    let deep = KeyValue { key: "deep".to_owned(), value, ..KeyValue::default() };
    let sound = span(1, 2, 0, "");
    for (span, reason) in [
        (Span { trace_id: vec![1; 15], ..sound.clone() }, "the trace id must be 16 bytes"),
        (Span { span_id: vec![0; 8], ..sound.clone() }, "the span id must be 8 bytes"),
        (
            Span { attributes: vec![long], ..sound.clone() },
            "the attribute \"long\" is longer than 1048576 bytes",
        ),
        (
            Span { attributes: vec![deep], ..sound.clone() },
            "the attribute \"deep\" is nested deeper than 32 levels",
        ),
    ] {
        refused(PROTOBUF, "", &protobuf(vec![span]), 400, reason).await;
    }
    let many = protobuf(vec![sound; SPANS_LIMIT + 1]);
    refused(PROTOBUF, "", &many, 400, "more than 200000 spans in one request").await;

    let large = vec![0; BODY_LIMIT + 1];
    refused(PROTOBUF, "", &large, 413, "a body has at most").await;
    for (encoding, reason) in [("gzip", "not gzip"), ("zstd", "not zstd")] {
        refused(PROTOBUF, encoding, &valid, 400, reason).await;
        refused(PROTOBUF, encoding, &packed(encoding, &large), 413, "unpacks to more than").await;
    }
    refused(PROTOBUF, "br", &valid, 415, "use gzip, deflate, zstd or none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_cannot_be_kept_is_told_and_does_not_cost_its_neighbours() {
    let lab = Lab::start().await;
    let bad = |id| Span { trace_id: vec![1; 15], ..span(1, id, 0, "bad") };
    let mixed = vec![bad(1), span(1, 2, 0, "good"), bad(3)];
    let reason = "span \"bad\": the trace id must be 16 bytes and not all zero";
    let expected =
        Some(ExportTracePartialSuccess { rejected_spans: 2, error_message: reason.to_owned() });
    let (status, answer) = lab.export(PROTOBUF, "", protobuf(mixed.clone())).await;
    let answer = ExportTraceServiceResponse::decode(answer.as_bytes()).expect("an answer");
    assert_eq!((status, answer.partial_success, lab.spans()), (200, expected.clone(), 1));

    let (status, answer) = lab.export(JSON, "", table(&[SOUND, SHORT].join(";")).to_string()).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    // A number of 64 bits is a text in OTLP JSON.
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1", "{answer}");
    assert_eq!((status, lab.spans()), (200, 2));

    let mut client = TraceServiceClient::new(grpc(&lab.store).await);
    let answer = client.export(request(mixed)).await.expect("it is taken");
    assert_eq!(answer.into_inner().partial_success, expected);
}

/// The specification asks for a message and no rejected span where the answer only warns.
#[tokio::test]
async fn a_value_or_span_in_json_that_cannot_be_read_costs_itself_alone() {
    let lab = Lab::start().await;
    let taken = async |body: String, rejected: &str, reason: &str| {
        let (status, answer) = lab.export(JSON, "", body).await;
        assert_eq!(status, 200, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let partial = &answer["partialSuccess"];
        let message = partial["errorMessage"].as_str().expect("a message");
        assert_eq!((&partial["rejectedSpans"], message), (&rejected.into(), reason));
    };
    let spans = "1 shop 1 SERVER 0..9 pay items=1 paid=yes; 1 shop 2<1 INTERNAL 1..2 print";
    let body = table(spans).to_string();
    let bad_value = body.replacen(r#"{"stringValue":"1"}"#, r#"{"intValue":"one"}"#, 1);
    assert_ne!(bad_value, body);
    let reason =
        "span \"pay\": the attribute \"items\" is left out: \"one\" is not an integer of 64 bits";
    taken(bad_value.clone(), "0", reason).await;
    let json = lab.get_json(trace_path(1) + ".json").await;
    let kept = &json["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let keys = kept[0]["attributes"].as_array().expect("attributes").iter().map(|it| &it["key"]);
    assert_eq!((keys.collect::<Vec<_>>(), lab.spans()), (vec![&"paid".into()], 2));

    let bad_span = bad_value.replacen("\"0000000000000002\"", "\"no id\"", 1);
    let bad_span = bad_span.replace(&trace_id(1), &trace_id(2));
    let reason = "span \"print\": the span id must be 8 bytes and not all zero";
    taken(bad_span, "1", reason).await;
    assert_eq!(lab.spans(), 3);
}

#[tokio::test]
async fn a_value_at_the_limit_is_kept_whole() {
    let lab = Lab::start().await;
    let mut long = span(1, 1, 0, "long value");
    long.attributes = vec![attribute("long", &"x".repeat(TEXT_LIMIT))];
    lab.export_spans(vec![long]).await;
    let json = lab.get_json(trace_path(1) + ".json").await;
    let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let value = span["attributes"][0]["value"]["stringValue"].as_str();
    assert_eq!(value.map(str::len), Some(TEXT_LIMIT));
}

/// Equal resources are kept once: else the memory would be the senders' to fill.
#[tokio::test]
async fn requests_of_one_service_share_its_resource() {
    let lab = Lab::start().await;
    let service = "x".repeat(10_000);
    let sizes = [1, 2, 3].map(|id| {
        lab.store.add(spans(&format!("1 {service} {id} SERVER 0..1 x")));
        lab.store.usage().bytes
    });
    assert!(sizes[0] > 20_000, "as it is, and as a key: {sizes:?}");
    assert!(sizes[2] < sizes[0] + 2_000, "{sizes:?}");
}

/// A body of a few kilobytes that unpacks to millions of empty things must meet a limit, not fill the memory.
#[tokio::test]
async fn many_empty_spans_are_refused_before_they_take_room() {
    let lab = Lab::start().await;
    // Field 1 of the request (a resource), of 8 MiB; in it field 2 (a scope), each empty.
    let scopes = [0x12, 0].repeat(4 * 1024 * 1024);
    let mut body = vec![0x0a];
    prost::encoding::encode_varint(scopes.len() as u64, &mut body);
    body.extend(scopes);
    let (status, answer) = lab.export(PROTOBUF, "gzip", packed("gzip", &body)).await;
    assert_eq!(status, 400, "{answer}");
    has(&answer, ["the resources of the request"]);
}

/// Asks for the list of a lab behind `guard`, which must answer to the first names and not to the others.
async fn answers_to(guard: impl Fn(Router) -> Router, names: &[&str], not: &[&str]) {
    let pages = viewer::routes(Store::new(Limits::default()), Wire::default());
    let address = serve(guard(pages)).await;
    for host in names.iter().chain(not) {
        let request = client().get(format!("http://{address}/traces")).header("host", *host);
        let answer = request.send().await.expect("an answer");
        let expected = if names.contains(host) { 200 } else { 421 };
        assert_eq!(answer.status(), expected, "{host}");
        if expected == 421 {
            has(&answer.text().await.expect("text"), [host]);
        }
    }
}

/// A lab that others can reach: a page of a site whose name now points here must not read it either.
#[tokio::test(flavor = "multi_thread")]
async fn at_an_address_for_others_the_pages_answer_to_addresses_alone() {
    let names = ["192.168.1.7:3000", "[2001:db8::1]", "localhost:3000"];
    answers_to(guard::only_addresses, &names, &["evil.example", "127.0.0.1.evil.example"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_of_this_machine_is_misdirected() {
    let names = ["127.0.0.1:3000", "localhost:3000", "LOCALHOST", "[::1]:3000"];
    let rebound = "rebound.example.com:3000";
    let not = [rebound, "127.0.0.1.example.com", "user@example.com", "192.168.1.7:3000"];
    answers_to(guard::only_here, &names, &not).await;
}

/// A listener for OTLP over HTTP with these limits.
async fn listening(limits: impl Into<listen::Limits>) -> SocketAddr {
    let routes = receiver::routes(Store::new(Limits::default()));
    listening_with(limits, routes.route("/held", get(std::future::pending::<()>))).await
}

async fn listening_with(limits: impl Into<listen::Limits>, routes: Router) -> SocketAddr {
    let any = support::FREE.parse().expect("an address");
    let listener = listen::bind("--otlp", any).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (limits, never) = (limits.into(), std::future::pending());
    tokio::spawn(listen::serve(listener, limits, AllowedHosts::Any, routes, never));
    address
}

/// Asks on a connection of its own; returns the status and the text.
async fn ask(address: SocketAddr) -> (u16, String) {
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build();
    let request = client.expect("a client").get(format!("http://{address}/"));
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_new_ones() {
    let address = listening(3).await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(TcpStream::connect(address).await.expect("a connection"));
    }
    assert_eq!(ask(address).await.0, 404);
    // The oldest are closed, and nothing was sent on them.
    for mut stream in idle.drain(..7) {
        let read = support::within_reason(stream.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or_default(), 0);
    }
}

/// Half a head takes the place of a connection, and no request is known that would time out.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_half_a_head_is_closed() {
    let (head, idle) = (Duration::from_millis(50), Duration::from_secs(3600));
    let address = listening(listen::Limits { connections: 3, head, idle }).await;
    let mut half = TcpStream::connect(address).await.expect("a connection");
    half.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: loc").await.expect("it is sent");
    closes(half).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_and_one_with_a_request_is_not() {
    let idle = Duration::from_millis(50);
    let address = listening(listen::Limits { idle, ..listen::Limits::from(4) }).await;
    let connect = async |request: &str| {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("it is sent");
        stream
    };
    let asking = connect("GET /held HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    // With no byte, with an answer that has been sent, and with the beginning of HTTP/2.
    let settings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for request in ["", "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", settings] {
        closes(connect(request).await).await;
    }
    assert!(is_open(&asking), "its request isn't answered");
}

/// Its answer would wait for it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_read_its_answer_is_closed() {
    // It is closed when the lab has dropped the answer.
    let (answer, held) = watch::channel(());
    let held = Arc::new(Mutex::new(Some(held)));
    let endless = get(async move || {
        let held = held.lock().expect("no panic").take().expect("one request");
        let chunk = move || {
            let _held = &held;
            Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 10_000]))
        };
        Body::from_stream(futures_util::stream::repeat_with(chunk))
    });
    let idle = Duration::from_millis(50);
    let limits = listen::Limits { idle, ..listen::Limits::from(3) };
    let address = listening_with(limits, Router::new().route("/", endless)).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it is sent");
    support::within_reason(answer.closed()).await;
    drop(stream);
}

/// Reads until the connection is closed.
async fn closes(mut stream: TcpStream) {
    // Data that nobody has read turns the end into an error.
    let _ = support::within_reason(stream.read_to_end(&mut Vec::new())).await;
}

/// Whether nothing has come on a connection, not even its end.
fn is_open(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0; 1]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// An exporter that is refused a connection tries again; a lab without a limit would run out of files.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_answered_429_until_another_is_closed() {
    let address = listening(1).await;
    let mut first = TcpStream::connect(address).await.expect("a connection");
    let head = "POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 9\r\nexpect: 100-continue\r\n\r\n";
    first.write_all(head.as_bytes()).await.expect("it is sent");
    // The lab waits for the body.
    let read = support::within_reason(first.read(&mut [0; 12])).await;
    assert_eq!(read.expect("an answer"), 12);
    let (status, reason) = ask(address).await;
    assert_eq!(status, 429);
    has(&reason, ["--max-connections"]);
    // A command repeats the reason.
    let error = lab::client::Lab::at(&address.to_string()).hops().await;
    assert_eq!(error.expect_err("no list of hops").to_string(), reason.trim_end());
    crate::limits::bound_refusals(address).await;
    drop(first);
    // The lab sees the end of the first when it gets to it.
    until(async || match ask(address).await {
        (429, reason) => Err(reason),
        _ => Ok(()),
    })
    .await;
}

/// Every route that takes a body, with bodies that were right before somebody changed them. None may end the lab, and
/// none may make it grow.
#[tokio::test(flavor = "multi_thread")]
async fn mutilated_bodies_on_every_route_do_no_harm() {
    let lab = Lab::with(Limits { spans: 1000, bytes: 1 << 20 }).await;
    let grpc = grpc_address(&lab.store).await;
    let link = Link { trace_id: vec![2; 16], span_id: vec![3; 8], ..Link::default() };
    let span = Span {
        attributes: vec![attribute("key", "value")],
        links: vec![link],
        ..span(1, 1, 0, "name")
    };
    let good = protobuf(vec![span]);
    let json = json_body().to_string().into_bytes();
    let length = u8::try_from(good.len()).expect("short");
    let framed = [&[0, 0, 0, 0, length], &good[..]].concat();
    let grpc_path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let routes = [
        ("/v1/traces", PROTOBUF, "identity", good.clone()),
        ("/v1/traces", JSON, "identity", json.clone()),
        ("/v1/traces", PROTOBUF, "gzip", packed("gzip", &good)),
        ("/v1/traces", JSON, "gzip", packed("gzip", &json)),
        ("/v1/traces", PROTOBUF, "zstd", packed("zstd", &good)),
        ("/v1/logs", PROTOBUF, "identity", logs_in_protobuf(LOG)),
        ("/v1/logs", JSON, "identity", log_table(LOG).to_string().into_bytes()),
        ("/v1/metrics", JSON, "identity", json.clone()),
        ("/traces/import", JSON, "identity", json),
        (grpc_path, "application/grpc", "", framed),
    ];
    let mut random = Random(fastrand::Rng::with_seed(1));
    for (path, media_type, encoding, body) in routes {
        let (address, extra) = match media_type {
            "application/grpc" => (grpc, ("te", "trailers")),
            _ => (lab.address, ("content-encoding", encoding)),
        };
        for _ in 0..150 {
            let body = random.mutilate(&body);
            let request = client().post(format!("http://{address}{path}")).header(extra.0, extra.1);
            let answer = request.header("content-type", media_type).body(body.clone()).send().await;
            let answer = answer.unwrap_or_else(|error| panic!("{path} {body:02x?}: {error}"));
            let status = answer.status().as_u16();
            let known = [200, 400, 413, 415].contains(&status);
            assert!(known, "{path} {media_type} {encoding}: {status} for {body:02x?}");
            answer.bytes().await.expect("the whole answer");
        }
    }
    let usage = lab.store.usage();
    assert!(usage.spans <= 1000 && usage.bytes <= 1 << 20, "{usage:?}");
    // And it still shows what it took.
    for path in ["/traces", "/traces/map", "/api/traces?limit=1000", "/api/dependencies"] {
        lab.page(path).await;
    }
}

/// Makes the same mutations in every run.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end.max(1))
    }

    /// A few bytes changed, cut out, doubled or cut off.
    fn mutilate(&mut self, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        for _ in 0..=self.below(4) {
            let (at, length) = (self.below(body.len()), self.below(16));
            let end = (at + length).min(body.len());
            match self.below(5) {
                0 if !body.is_empty() => body[at] ^= 1 << self.below(8),
                1 if !body.is_empty() => body[at] = u8::try_from(self.below(256)).expect("a byte"),
                2 => drop(body.drain(at..end)),
                3 => drop(body.splice(at..at, body[at..end].to_vec())),
                _ => body.truncate(at + length),
            }
        }
        body
    }
}

#[tokio::test]
async fn a_span_that_comes_twice_is_kept_once_and_counted() {
    let lab = Lab::start().await;
    lab.export_spans(vec![span(1, 1, 0, "same")]).await;
    assert!(!lab.page("/traces").await.contains("repeated"));
    // An exporter that got no answer sends the request again.
    lab.export_spans(vec![span(1, 1, 0, "same"), span(1, 1, 0, "same")]).await;
    assert_eq!(lab.spans(), 1);
    lab.export_spans(vec![span(1, 1, 0, "another with its id")]).await;
    assert_eq!((lab.spans(), lab.store.usage().repeated), (2, 2));
    has(&lab.page("/traces").await, ["1 trace, 2 spans", "; 2 repeated spans dropped"]);
}

#[tokio::test]
async fn the_oldest_trace_makes_room_by_spans_and_by_bytes() {
    // Room for three traces of one span, and not for four spans.
    let measure = Lab::start().await;
    for trace in [1, 2, 3] {
        measure.export_spans(vec![span(trace, 1, 0, "x")]).await;
    }
    let bytes = measure.store.usage().bytes;
    for limits in [Limits { spans: 3, ..Limits::default() }, Limits { bytes, ..Limits::default() }]
    {
        let lab = Lab::with(limits).await;
        for trace in [1, 2, 3] {
            lab.export_spans(vec![span(trace, 1, 0, "x")]).await;
        }
        // A late span of the oldest trace joins it, and so makes it too much.
        lab.export_spans(vec![span(1, 2, 0, "x")]).await;
        assert_eq!(lab.counts(), [2, 2, 1]);
        assert_eq!(lab.get(trace_path(1)).await.0, 404);
        lab.page(trace_path(3)).await;
        has(&lab.page("/traces").await, ["1 older trace of 2 spans made room"]);
        // A trace that is larger than the store makes room too.
        lab.export_spans((1..=10).map(|id| span(4, id, 0, "x")).collect()).await;
        assert_eq!(lab.counts(), [0, 0, 4]);
    }
}

#[test]
fn the_last_thousand_traces_that_made_room_are_remembered() {
    let store = Store::new(Limits { spans: 1, ..Limits::default() });
    for id in 1..=1002 {
        store.add(spans(&format!(r#"1 a 1 SERVER 0..1 x {{"traceId":"{id:032x}"}}"#)));
    }
    let ids = [1, 2, 1001].map(|id: u128| TraceId(id.to_be_bytes()));
    assert_eq!(ids.map(|id| store.was_evicted(id)), [false, true, true]);
}

#[tokio::test]
async fn a_resource_counts_as_bytes_too() {
    let lab = Lab::with(Limits { bytes: 10_000, ..Limits::default() }).await;
    lab.store.add(spans(&format!("1 {} 1 SERVER 0..1 x", "x".repeat(20_000))));
    assert_eq!(lab.counts(), [0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_taken_and_not_kept() {
    let lab = Lab::start().await;
    for (media_type, status) in [(PROTOBUF, 200), (JSON, 200), ("text/plain", 415)] {
        let answer = lab.post("/v1/metrics", &[("content-type", media_type)], "{}").await;
        assert_eq!(answer.0, status, "{media_type}");
    }
    let channel = grpc(&lab.store).await;
    let resource_metrics = vec![Default::default(); 2];
    let request = metrics::ExportMetricsServiceRequest { resource_metrics };
    let mut client = metrics::metrics_service_client::MetricsServiceClient::new(channel);
    client.export(request).await.expect("metrics are taken");
    assert_eq!(lab.spans(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_this_machine_may_send_spans() {
    let lab = Lab::start().await;
    let ours = ["http://localhost:8080", "http://127.0.0.1:3000", "http://[::1]:5173"];
    let others = ["https://example.com", "http://localhost.example.com", "null"];
    for origin in ours.iter().chain(&others) {
        let expected = (200, ours.contains(origin).then(|| (*origin).to_owned()));
        for method in [Method::OPTIONS, Method::POST] {
            let answer = lab.page_sends(method.clone(), "/v1/traces", origin).await;
            assert_eq!(answer, expected, "{method} {origin}");
        }
    }
}

/// The address of a gRPC receiver behind the guard, as in the lab.
async fn grpc_address(store: &Store) -> SocketAddr {
    serve(guard::only_here(lab::grpc::routes(store.clone()))).await
}

async fn grpc(store: &Store) -> Channel {
    let address = grpc_address(store).await;
    let endpoint = Endpoint::try_from(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_takes_spans_and_refuses_what_is_wrong_with_a_reason() {
    let store = Store::new(Limits::default());
    let client = TraceServiceClient::new(grpc(&store).await);
    for (id, mut client) in (1..).zip([
        client.clone(),
        client.clone().send_compressed(CompressionEncoding::Gzip),
        client.clone().send_compressed(CompressionEncoding::Zstd),
    ]) {
        client.export(request(vec![span(1, id, 0, "a")])).await.expect("it is taken");
        assert_eq!(store.usage().spans as u64, id);
    }
    let bad = Span { trace_id: vec![1; 15], ..span(1, 4, 0, "bad") };
    let status = client.clone().export(request(vec![bad])).await.expect_err("it is refused");
    assert_eq!((status.code(), store.usage().spans), (Code::InvalidArgument, 3));
    has(status.message(), ["the trace id must be 16 bytes"]);
}

#[tokio::test]
async fn an_unknown_method_of_grpc_is_unimplemented() {
    let address = grpc_address(&Store::new(Limits::default())).await;
    for path in ["TraceService/Import", "ProfilesService/Export"] {
        let url = format!("http://{address}/opentelemetry.proto.collector.trace.v1.{path}");
        let answer = client().post(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["grpc-status"], "12", "{path}");
    }
}

/// Everything runs on one thread here, so a write that blocked it would hold up the page too.
#[tokio::test]
async fn a_slow_disk_holds_up_no_page_while_grpc_saves() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let disk = File::options().read(true).write(true).open(&pipe);
    let mut disk = BufReader::new(disk.expect("a pipe"));
    let lab = Lab::start().await;
    let store = lab.store.clone().recorded_by(Recorder::append(&pipe).expect("it can be written"));

    let (answered, go_on) = std::sync::mpsc::channel();
    let (read, line) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Without an answer the disk goes on too, so that the test can fail.
        let _ = go_on.recv_timeout(DEADLINE / 2);
        let _ = read.send(disk.read_until(b'\n', &mut Vec::new()));
    });
    let order = std::cell::RefCell::new(Vec::new());
    let mut client = TraceServiceClient::new(grpc(&store).await);
    let export = async {
        let large = request(vec![span(1, 1, 0, &"x".repeat(200_000))]);
        client.export(large).await.expect("it is taken");
        order.borrow_mut().push("saved");
    };
    let page = async {
        // The span is shown before it is saved.
        support::arrived(&lab.store, 1).await;
        lab.page("/traces").await;
        order.borrow_mut().push("page");
        answered.send(()).expect("the disk waits");
    };
    tokio::join!(export, page);
    let line = line.recv_timeout(DEADLINE).expect("a line is saved");
    line.expect("the pipe can be read");
    assert_eq!(*order.borrow(), ["page", "saved"]);
}

#[test]
fn a_span_that_is_not_kept_is_known_by_its_flaw() {
    let flaw = Unfit { span: Some("short".to_owned()), flaw: Flaw::SpanId };
    let error = otlp::from_json(table(SHORT).to_string().as_bytes()).expect_err("nothing is left");
    assert!(matches!(&error, otlp::Error::Unfit(unfit) if *unfit == flaw), "{error}");

    let batch = otlp::from_json(table(&[SHORT, SOUND].join(";")).to_string().as_bytes());
    let batch = batch.expect("one is left");
    let rejected = Rejected { items: 1, first: flaw.into() };
    assert_eq!((batch.items.len(), batch.rejected), (1, Some(rejected)));
}

#[test]
fn kinds_and_statuses_have_the_names_of_otlp() {
    for kind in (0..6).map(|number| proto::span::SpanKind::try_from(number).expect("a kind")) {
        assert_eq!(format!("SPAN_KIND_{}", SpanKind::from(kind)), kind.as_str_name());
    }
    for code in (0..3).map(|number| proto::status::StatusCode::try_from(number).expect("a code")) {
        assert_eq!(format!("STATUS_CODE_{}", Status::from(code)), code.as_str_name());
    }
}
