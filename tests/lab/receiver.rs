//! What the lab takes in and what it refuses: over HTTP and gRPC, as exporters send it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;

use crate::support;
use crate::support::in_process::{
    JSON, Lab, PROTOBUF, attribute, json_body, protobuf, span, trace_path,
};
use crate::support::{DEADLINE, client, serve, until};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use lab::listen::{self, AllowedHosts};
use lab::otlp::{self, Rejected, SPANS_LIMIT};
use lab::session::Recorder;
use lab::span::{DEPTH_LIMIT, Flaw, SpanKind, Status, TEXT_LIMIT, Unfit};
use lab::store::{Limits, Store};
use lab::wire::Wire;
use lab::{guard, receiver, viewer};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::{self as proto, Span};
use prost::Message as _;
use reqwest::{Client, Method};
use serde_json::json;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("packed");
    encoder.finish().expect("packed")
}

#[tokio::test]
async fn protobuf_and_gzip_are_read_and_answered_in_kind() {
    let lab = Lab::start().await;
    let body = protobuf(vec![span(1, 1, 0, "plain")]);
    assert_eq!(lab.export(&[("content-type", PROTOBUF)], body).await, (200, Vec::new()));
    let body = gzip(&protobuf(vec![span(1, 2, 1, "packed")]));
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    assert_eq!(lab.export(&headers, body).await, (200, Vec::new()));
    let (_, tree) = lab.get(&format!("{}.txt", trace_path(1))).await;
    assert!(tree.contains("plain") && tree.contains("└─ packed"), "{tree}");
}

#[tokio::test]
async fn json_is_read_with_string_enums_and_null_parents() {
    let lab = Lab::start().await;
    let headers = [("content-type", "application/json; charset=utf-8")];
    let answer = lab.export(&headers, json_body().to_string()).await;
    assert_eq!(answer, (200, b"{}".to_vec()), "{}", String::from_utf8_lossy(&answer.1));
    let (_, tree) = lab.get(&format!("{}.txt", trace_path(0x0a))).await;
    assert_eq!(tree, "from json  SERVER    python    2.50 ms  500, error: no\n");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason_and_the_store_is_untouched() {
    let lab = Lab::start().await;
    let mut short_id = span(1, 2, 0, "short id");
    short_id.trace_id.pop();
    let mut zero_id = span(1, 2, 0, "zero id");
    zero_id.span_id = vec![0; 8];
    let mut long = span(1, 3, 0, "long value");
    long.attributes = vec![attribute("long", &"x".repeat(TEXT_LIMIT + 1))];
    let mut deep = span(1, 4, 0, "deep value");
    let nested =
        |value| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![value] })) };
    let value = (0..=DEPTH_LIMIT).fold(AnyValue::default(), |value, _| nested(value));
    deep.attributes =
        vec![KeyValue { key: "deep".to_owned(), value: Some(value), ..KeyValue::default() }];
    let only = |bad| protobuf(vec![bad]);
    let valid = protobuf(vec![span(1, 1, 0, "good")]);
    let bomb = gzip(&vec![0; receiver::BODY_LIMIT + 1]);
    // What it is, the headers, the body, and the status and reason expected.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, u16, &'a str);
    let cases: [Case; 14] = [
        ("no type", &[], valid.clone(), 415, "Content-Type must be"),
        ("a form", &[("content-type", "text/plain")], valid.clone(), 415, "Content-Type must be"),
        (
            "not protobuf",
            &[("content-type", PROTOBUF)],
            b"hello".to_vec(),
            400,
            "not an OTLP trace request",
        ),
        (
            "not JSON",
            &[("content-type", JSON)],
            b"{".to_vec(),
            400,
            "not an OTLP trace request in JSON",
        ),
        (
            "wrong JSON",
            &[("content-type", JSON)],
            b"{\"resourceSpans\": 1}".to_vec(),
            400,
            "in JSON",
        ),
        (
            "an id that is not hexadecimal",
            &[("content-type", JSON)],
            json_body().to_string().replacen("0a", "xy", 1).into_bytes(),
            400,
            "in JSON",
        ),
        (
            "short id",
            &[("content-type", PROTOBUF)],
            only(short_id),
            400,
            "the trace id must be 16 bytes",
        ),
        (
            "zero id",
            &[("content-type", PROTOBUF)],
            only(zero_id),
            400,
            "the span id must be 8 bytes",
        ),
        (
            "a long value",
            &[("content-type", PROTOBUF)],
            only(long),
            400,
            "the attribute \"long\" is longer than 1048576 bytes",
        ),
        (
            "a deep value",
            &[("content-type", PROTOBUF)],
            only(deep),
            400,
            "the attribute \"deep\" is nested deeper than 32 levels",
        ),
        (
            "too many spans",
            &[("content-type", PROTOBUF)],
            protobuf(vec![span(1, 1, 0, ""); SPANS_LIMIT + 1]),
            400,
            "more than 200000 spans in one request",
        ),
        (
            "not gzip",
            &[("content-type", PROTOBUF), ("content-encoding", "gzip")],
            valid.clone(),
            400,
            "not gzip",
        ),
        (
            "unknown packing",
            &[("content-type", PROTOBUF), ("content-encoding", "br")],
            valid,
            415,
            "use gzip, deflate, zstd or none",
        ),
        (
            "a bomb",
            &[("content-type", PROTOBUF), ("content-encoding", "gzip")],
            bomb,
            413,
            "unpacks to more than",
        ),
    ];
    for (what, headers, body, status, reason) in cases {
        let (answered, body) = lab.export(headers, body).await;
        let body = String::from_utf8_lossy(&body);
        assert_eq!(answered, status, "{what}: {body}");
        assert!(body.contains(reason), "{what}: {body}");
    }
    let (status, _) =
        lab.export(&[("content-type", PROTOBUF)], vec![0; receiver::BODY_LIMIT + 1]).await;
    assert_eq!(status, 413);
    assert_eq!(lab.counts(), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_cannot_be_kept_is_told_and_does_not_cost_its_neighbours() {
    let lab = Lab::start().await;
    let bad = |id| Span { trace_id: vec![1; 15], ..span(1, id, 0, "bad") };
    let spans = vec![bad(1), span(1, 2, 0, "good"), bad(3)];
    let reason = "span \"bad\": the trace id must be 16 bytes and not all zero";
    let (status, answer) = lab.export(&[("content-type", PROTOBUF)], protobuf(spans.clone())).await;
    let answer = ExportTraceServiceResponse::decode(&answer[..]).expect("an answer");
    let partial = answer.partial_success.expect("it is told");
    assert_eq!((status, partial.rejected_spans, partial.error_message.as_str()), (200, 2, reason));
    assert_eq!(lab.spans(), 1);

    let mut body = json_body();
    let spans_of_it = &mut body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let mut short = spans_of_it[0].clone();
    short["spanId"] = json!("0b0b");
    spans_of_it.as_array_mut().expect("spans").push(short);
    let (status, answer) = lab.export(&[("content-type", JSON)], body.to_string()).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    // A number of 64 bits is a text in OTLP JSON.
    assert_eq!(
        (status, &answer["partialSuccess"]["rejectedSpans"]),
        (200, &json!("1")),
        "{answer}"
    );
    assert_eq!(lab.spans(), 2);

    let mut client = TraceServiceClient::new(grpc(&lab.store).await);
    let answer = client
        .export(ExportTraceServiceRequest::decode(&protobuf(spans)[..]).expect("a request"))
        .await;
    let partial = answer.expect("it is taken").into_inner().partial_success.expect("it is told");
    assert_eq!((partial.rejected_spans, partial.error_message.as_str()), (2, reason));
}

#[tokio::test]
async fn deflate_is_unpacked_as_pythons_exporter_sends_it() {
    let lab = Lab::start().await;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&protobuf(vec![span(1, 1, 0, "a")])).expect("packed");
    let headers = [("content-type", PROTOBUF), ("content-encoding", "deflate")];
    assert_eq!(lab.export(&headers, encoder.finish().expect("packed")).await.0, 200);
    assert_eq!(lab.spans(), 1);
}

#[tokio::test]
async fn a_value_at_the_limit_is_kept_whole() {
    let lab = Lab::start().await;
    let mut long = span(1, 1, 0, "long value");
    long.attributes = vec![attribute("long", &"x".repeat(TEXT_LIMIT))];
    lab.export_spans(vec![long]).await;
    let json = lab.get_json(&format!("{}.json", trace_path(1))).await;
    let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let value = span["attributes"][0]["value"]["stringValue"].as_str();
    assert_eq!(value.map(str::len), Some(TEXT_LIMIT));
}

/// Equal resources are kept once: else the memory would be the senders' to fill.
#[tokio::test]
async fn requests_of_one_service_share_its_resource() {
    let lab = Lab::start().await;
    let mut sizes = Vec::new();
    for id in 1..=3 {
        let mut body = json_body();
        body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"] =
            json!(format!("{id:016x}"));
        let fat = json!({ "key": "fat", "value": { "stringValue": "x".repeat(10_000) } });
        body["resourceSpans"][0]["resource"]["attributes"] = json!([fat]);
        assert_eq!(lab.export(&[("content-type", JSON)], body.to_string()).await.0, 200);
        sizes.push(lab.store.usage().bytes);
    }
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
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    let (status, answer) = lab.export(&headers, gzip(&body)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("the resources of the request"), "{answer}");
}

/// Where others can reach the lab, a page whose site has pointed its name here must not read it either.
#[tokio::test(flavor = "multi_thread")]
async fn at_an_address_for_others_the_pages_answer_to_addresses_alone() {
    let pages = viewer::routes(Store::new(Limits::default()), Wire::default());
    let address = serve(guard::only_addresses(pages)).await;
    for (host, status) in [
        ("192.168.1.7:3000", 200),
        ("[2001:db8::1]", 200),
        ("localhost:3000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
    ] {
        let request = client().get(format!("http://{address}/traces"));
        let answer = request.header("host", host).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
    }
}

/// An exporter that is refused a connection tries again; a lab without a limit would run out of files.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_answered_429_until_another_is_closed() {
    let store = Store::new(Limits::default());
    let listener =
        listen::bind("--otlp", support::FREE.parse().expect("an address")).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(listen::serve(
        listener,
        1,
        AllowedHosts::Any,
        receiver::routes(store),
        std::future::pending(),
    ));
    let first = TcpStream::connect(address).await.expect("a connection");
    let ask = async || {
        let client =
            Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
        let answer = client.get(format!("http://{address}/")).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("text"))
    };
    let (status, reason) = ask().await;
    assert_eq!(status, 429);
    assert!(reason.contains("--max-connections"), "{reason}");
    // A command repeats the reason.
    let error = lab::client::Lab::at(&address.to_string()).hops().await;
    let error = error.expect_err("no list of hops").to_string();
    assert_eq!(error, reason.trim_end());
    drop(first);
    // The lab sees the end of the first when it gets to it.
    until(async || match ask().await {
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
    let good = {
        let mut span = span(1, 1, 0, "name");
        span.attributes = vec![attribute("key", "value")];
        span.links = vec![Link { trace_id: vec![2; 16], span_id: vec![3; 8], ..Link::default() }];
        protobuf(vec![span])
    };
    let json = json_body().to_string().into_bytes();
    let zstd = zstd::encode_all(&good[..], 1).expect("packed");
    let framed =
        |body: &[u8]| [&[0, 0, 0, 0, u8::try_from(body.len()).expect("short")], body].concat();
    let routes: [(&str, &str, &str, Vec<u8>); 9] = [
        ("/v1/traces", PROTOBUF, "identity", good.clone()),
        ("/v1/traces", JSON, "identity", json.clone()),
        ("/v1/traces", PROTOBUF, "gzip", gzip(&good)),
        ("/v1/traces", JSON, "gzip", gzip(&json)),
        ("/v1/traces", PROTOBUF, "zstd", zstd),
        ("/v1/logs", PROTOBUF, "identity", good.clone()),
        ("/v1/metrics", JSON, "identity", json.clone()),
        ("/traces/import", JSON, "identity", json),
        (
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "application/grpc",
            "",
            framed(&good),
        ),
    ];
    let mut random = Random(1);
    for (path, media_type, encoding, body) in routes {
        for _ in 0..150 {
            let body = random.mutilate(&body);
            let address = match media_type {
                "application/grpc" => grpc,
                _ => lab.address,
            };
            let request = client().post(format!("http://{address}{path}"));
            let request = request.header("content-type", media_type);
            let request = match encoding {
                "" => request.header("te", "trailers"),
                encoding => request.header("content-encoding", encoding),
            };
            let answer = request
                .body(body.clone())
                .send()
                .await
                .unwrap_or_else(|error| panic!("{path} {body:02x?}: {error}"));
            let status = answer.status().as_u16();
            assert!(
                matches!(status, 200 | 400 | 413 | 415),
                "{path} {media_type} {encoding}: {status} for {body:02x?}"
            );
            answer.bytes().await.expect("the whole answer");
        }
    }
    let usage = lab.store.usage();
    assert!(usage.spans <= 1000 && usage.bytes <= 1 << 20, "{usage:?}");
    // And it still shows what it took.
    for path in ["/traces", "/traces/map", "/api/traces?limit=1000", "/api/dependencies"] {
        assert_eq!(lab.get(path).await.0, 200, "{path}");
    }
}

/// A generator that gives the same numbers in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).expect("small")
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
async fn a_span_that_comes_twice_is_kept_once() {
    let lab = Lab::start().await;
    lab.export_spans(vec![span(1, 1, 0, "first"), span(1, 1, 0, "again")]).await;
    lab.export_spans(vec![span(1, 1, 0, "and again")]).await;
    assert_eq!(lab.spans(), 1);
}

#[tokio::test]
async fn the_oldest_trace_makes_room_by_spans_and_by_bytes() {
    let by_spans = Lab::with(Limits { spans: 3, ..Limits::default() }).await;
    // Room for three traces of one span, and not for four spans.
    let measure = Lab::start().await;
    measure.export_spans(vec![span(1, 1, 0, "x")]).await;
    let by_bytes =
        Lab::with(Limits { bytes: 3 * measure.store.usage().bytes, ..Limits::default() }).await;
    for lab in [by_spans, by_bytes] {
        for trace in [1, 2, 3] {
            lab.export_spans(vec![span(trace, 1, 0, "x")]).await;
        }
        // A late span of the oldest trace joins it, and so makes it too much.
        lab.export_spans(vec![span(1, 2, 0, "x")]).await;
        assert_eq!(lab.counts(), [2, 2, 1]);
        assert_eq!(lab.get(&trace_path(1)).await.0, 404);
        assert_eq!(lab.get(&trace_path(3)).await.0, 200);
        assert!(lab.get("/traces").await.1.contains("1 older trace of 2 spans made room"));
    }
}

#[tokio::test]
async fn a_resource_counts_as_bytes_too() {
    let lab = Lab::with(Limits { bytes: 10_000, ..Limits::default() }).await;
    let mut body = json_body();
    let attribute = json!({ "key": "fat", "value": { "stringValue": "x".repeat(20_000) } });
    body["resourceSpans"][0]["resource"]["attributes"] = json!([attribute]);
    assert_eq!(lab.export(&[("content-type", JSON)], body.to_string()).await.0, 200);
    assert_eq!(lab.counts(), [0, 0, 1]);
}

#[tokio::test]
async fn a_trace_larger_than_the_store_does_not_fill_it() {
    let lab = Lab::with(Limits { spans: 10, ..Limits::default() }).await;
    lab.export_spans((1..=11).map(|id| span(1, id, 0, "x")).collect()).await;
    assert_eq!(lab.counts(), [0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_is_unpacked_and_what_is_not_zstd_is_refused() {
    let lab = Lab::start().await;
    let headers = [("content-type", PROTOBUF), ("content-encoding", "zstd")];
    let pack = |body: &[u8]| zstd::encode_all(body, 1).expect("packed");
    let body = protobuf(vec![span(1, 1, 0, "a")]);
    assert_eq!(lab.export(&headers, pack(&body)).await.0, 200);
    assert_eq!(lab.spans(), 1);
    assert_eq!(lab.export(&headers, body).await.0, 400);

    let bomb = pack(&vec![0; receiver::BODY_LIMIT + 1]);
    assert!(bomb.len() < receiver::BODY_LIMIT);
    assert_eq!(lab.export(&headers, bomb).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_metrics_are_taken_and_not_kept() {
    let lab = Lab::start().await;
    for path in ["/v1/logs", "/v1/metrics"] {
        for (content_type, status) in [(PROTOBUF, 200), (JSON, 200), ("text/plain", 415)] {
            let request = client().post(format!("http://{}{path}", lab.address));
            let answer = request.header("content-type", content_type).body("{}").send().await;
            assert_eq!(answer.expect("an answer").status(), status, "{path} {content_type}");
        }
    }
    assert_eq!(lab.spans(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_this_machine_may_send_spans() {
    let lab = Lab::start().await;
    for (origin, allowed) in [
        ("http://localhost:8080", true),
        ("http://127.0.0.1:3000", true),
        ("http://[::1]:5173", true),
        ("https://example.com", false),
        ("http://localhost.example.com", false),
        ("null", false),
    ] {
        let expected = allowed.then(|| origin.to_owned());
        let preflight = lab.page_sends(Method::OPTIONS, "/v1/traces", origin).await;
        assert_eq!(preflight, (200, expected.clone()), "{origin}");
        let sent = lab.page_sends(Method::POST, "/v1/traces", origin).await;
        assert_eq!(sent, (200, expected), "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_of_this_machine_is_misdirected() {
    let store = Store::new(Limits::default());
    let address = serve(guard::only_here(viewer::routes(store, Wire::default()))).await;
    let port = address.port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        ("LOCALHOST".to_owned(), 200),
        (format!("[::1]:{port}"), 200),
        (format!("rebound.example.com:{port}"), 421),
        ("127.0.0.1.example.com".to_owned(), 421),
        ("user@example.com".to_owned(), 421),
        ("192.168.1.7:3000".to_owned(), 421),
    ] {
        let request = client().get(format!("http://{address}/traces")).header("host", &host);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
        if status == 421 {
            assert!(answer.text().await.expect("text").contains(&host), "{host}");
        }
    }
}

/// Where a gRPC receiver is, which is behind the guard as in the lab.
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
    let channel = grpc(&store).await;
    let request =
        |span| ExportTraceServiceRequest::decode(&protobuf(vec![span])[..]).expect("a request");
    for (id, encoding) in
        [(1, None), (2, Some(CompressionEncoding::Gzip)), (3, Some(CompressionEncoding::Zstd))]
    {
        let mut client = TraceServiceClient::new(channel.clone());
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        client.export(request(span(1, id, 0, "a"))).await.expect("it is taken");
        assert_eq!(store.usage().spans, usize::try_from(id).expect("a number"));
    }
    let mut bad = span(1, 4, 0, "bad");
    bad.trace_id = vec![1; 15];
    let refused = TraceServiceClient::new(channel).export(request(bad)).await;
    let status = refused.expect_err("it is refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("the trace id must be 16 bytes"), "{status}");
    assert_eq!(store.usage().spans, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_takes_logs_and_metrics_and_does_not_keep_them() {
    let store = Store::new(Limits::default());
    let channel = grpc(&store).await;
    let mut logs = LogsServiceClient::new(channel.clone());
    logs.export(ExportLogsServiceRequest::default()).await.expect("logs are taken");
    let mut metrics = MetricsServiceClient::new(channel);
    metrics.export(ExportMetricsServiceRequest::default()).await.expect("metrics are taken");
    assert_eq!(store.usage().spans, 0);
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
    let recorder = Recorder::append(&pipe).expect("it can be written");
    let lab = Lab::start().await;
    let store = lab.store.clone().recorded_by(recorder);

    let (answered, go_on) = std::sync::mpsc::channel();
    let disk = std::thread::spawn(move || {
        // Without an answer the disk goes on too, so that the test can fail.
        let _ = go_on.recv_timeout(DEADLINE / 2);
        disk.read_until(b'\n', &mut Vec::new()).expect("a line");
    });
    let order = std::cell::RefCell::new(Vec::new());
    let mut client = TraceServiceClient::new(grpc(&store).await);
    let request =
        ExportTraceServiceRequest::decode(&protobuf(vec![span(1, 1, 0, &"x".repeat(200_000))])[..]);
    let export = async {
        let saved = client.export(request.expect("a request")).await;
        saved.expect("it is taken");
        order.borrow_mut().push("saved");
    };
    let page = async {
        // The span is shown before it is saved.
        support::arrived(&lab.store, 1).await;
        assert_eq!(lab.get("/traces").await.0, 200);
        order.borrow_mut().push("page");
        answered.send(()).expect("the disk waits");
    };
    tokio::join!(export, page);
    disk.join().expect("no panic");
    assert_eq!(*order.borrow(), ["page", "saved"]);
}

#[test]
fn a_span_that_is_not_kept_is_known_by_its_flaw() {
    let mut body = json_body();
    let spans = &mut body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    spans[0]["spanId"] = json!("0b0b");
    let flaw = Unfit { span: Some("from json".to_owned()), flaw: Flaw::SpanId };
    let error = otlp::from_json(body.to_string().as_bytes()).expect_err("nothing is left");
    assert!(matches!(&error, otlp::Error::Unfit(unfit) if *unfit == flaw), "{error}");

    let spans = &mut body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let mut sound = spans[0].clone();
    sound["spanId"] = json!("0b".repeat(8));
    spans.as_array_mut().expect("spans").push(sound);
    let batch = otlp::from_json(body.to_string().as_bytes()).expect("one is left");
    let rejected = Rejected { spans: 1, first: flaw };
    assert_eq!((batch.spans.len(), batch.rejected), (1, Some(rejected)));
}

#[test]
fn kinds_and_statuses_have_the_names_of_otlp() {
    for kind in (0..6).map(|number| proto::span::SpanKind::try_from(number).expect("a kind")) {
        let name = format!("SPAN_KIND_{}", SpanKind::from(kind));
        assert_eq!(name, kind.as_str_name());
    }
    for code in (0..3).map(|number| proto::status::StatusCode::try_from(number).expect("a code")) {
        let name = format!("STATUS_CODE_{}", Status::from(code));
        assert_eq!(name, code.as_str_name());
    }
}
