//! What the lab takes in, what it refuses, and what it shows of it: over HTTP, as an exporter and a browser would.

mod support;

use std::io::Write as _;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use lab::store::{Limits, Store, Usage};
use lab::{guard, jaeger, receiver, viewer};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use support::{client, serve};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A store, behind the receiver and the pages on one free port.
struct Lab {
    store: Store,
    address: SocketAddr,
}

impl Lab {
    async fn start() -> Lab {
        Lab::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Lab {
        let store = Store::new(limits);
        let routes = receiver::routes(store.clone());
        let routes = routes
            .merge(viewer::routes(store.clone()))
            .merge(jaeger::routes(store.clone()));
        Lab {
            address: serve(routes).await,
            store,
        }
    }

    /// Sends an export request; returns the status and the body.
    async fn export(&self, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> (u16, Vec<u8>) {
        let mut request = client()
            .post(format!("http://{}/v1/traces", self.address))
            .body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        (
            response.status().as_u16(),
            response.bytes().await.expect("a body").to_vec(),
        )
    }

    /// Sends an OTLP request to `path` from a page at `origin`; returns the status and the origin that may read it.
    async fn page_sends(&self, method: Method, path: &str, origin: &str) -> (u16, Option<String>) {
        let url = format!("http://{}{path}", self.address);
        let request = client().request(method, url).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let answer = request
            .header("content-type", JSON)
            .body("{}")
            .send()
            .await
            .expect("an answer");
        let allowed = answer.headers().get("access-control-allow-origin");
        let allowed = allowed.map(|origin| origin.to_str().expect("text").to_owned());
        (answer.status().as_u16(), allowed)
    }

    async fn export_spans(&self, spans: Vec<Span>) {
        let (status, _) = self
            .export(&[("content-type", PROTOBUF)], protobuf(spans))
            .await;
        assert_eq!(status, 200);
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = client()
            .get(format!("http://{}{path}", self.address))
            .send()
            .await
            .expect("an answer");
        (
            response.status().as_u16(),
            response.text().await.expect("text"),
        )
    }

    async fn get_json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).expect("JSON")
    }

    fn spans(&self) -> usize {
        self.store.usage().spans
    }
}

/// A span of trace number `trace`; `parent` 0 makes it a root.
fn span(trace: u8, id: u64, parent: u64, name: &str) -> Span {
    let parent = if parent == 0 {
        Vec::new()
    } else {
        parent.to_be_bytes().to_vec()
    };
    Span {
        trace_id: vec![trace; 16],
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: name.to_owned(),
        start_time_unix_nano: 1_000_000 * id,
        end_time_unix_nano: 1_000_000 * id + 500_000,
        ..Span::default()
    }
}

fn protobuf(spans: Vec<Span>) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("packed");
    encoder.finish().expect("packed")
}

fn trace_path(trace: u8) -> String {
    format!("/traces/{}", format!("{trace:02x}").repeat(16))
}

/// As a Python exporter in the field sends it: enums by name, `null` for no parent, numbers as numbers.
fn json_body() -> Value {
    let span = json!({
        "traceId": "0a".repeat(16), "spanId": "0b".repeat(8), "parentSpanId": null, "name": "from json",
        "kind": "SPAN_KIND_SERVER", "startTimeUnixNano": "1000000", "endTimeUnixNano": 3_500_000,
        "status": { "code": "STATUS_CODE_ERROR", "message": "no" },
        "attributes": [
            { "key": "http.response.status_code", "value": { "intValue": "500" } },
            { "key": "odd", "value": { "futureValue": 1 } },
        ],
        "fieldOfTheFuture": { "a": [1] },
    });
    let resource =
        json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "python" } }] });
    json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span] }] }] })
}

#[tokio::test]
async fn protobuf_and_gzip_are_read_and_answered_in_kind() {
    let lab = Lab::start().await;
    let body = protobuf(vec![span(1, 1, 0, "plain")]);
    assert_eq!(
        lab.export(&[("content-type", PROTOBUF)], body).await,
        (200, Vec::new())
    );
    let body = gzip(&protobuf(vec![span(1, 2, 1, "packed")]));
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    assert_eq!(lab.export(&headers, body).await, (200, Vec::new()));
    let (_, tree) = lab.get(&format!("{}.txt", trace_path(1))).await;
    assert!(
        tree.contains("plain") && tree.contains("└─ packed"),
        "{tree}"
    );
}

#[tokio::test]
async fn json_is_read_with_string_enums_and_null_parents() {
    let lab = Lab::start().await;
    let headers = [("content-type", "application/json; charset=utf-8")];
    let answer = lab.export(&headers, json_body().to_string()).await;
    assert_eq!(
        answer,
        (200, b"{}".to_vec()),
        "{}",
        String::from_utf8_lossy(&answer.1)
    );
    let (_, tree) = lab.get(&format!("{}.txt", trace_path(0x0a))).await;
    assert_eq!(
        tree,
        "from json  SERVER    python    2.50 ms  500, error: no\n"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason_and_the_store_is_untouched() {
    let lab = Lab::start().await;
    let mut short_id = span(1, 2, 0, "short id");
    short_id.trace_id.pop();
    let mut zero_id = span(1, 2, 0, "zero id");
    zero_id.span_id = vec![0; 8];
    let one_bad = |bad| protobuf(vec![span(1, 1, 0, "good"), bad]);
    let valid = protobuf(vec![span(1, 1, 0, "good")]);
    let bomb = gzip(&vec![0; receiver::UNPACKED_LIMIT + 1]);
    // What it is, the headers, the body, and the status and reason expected.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, u16, &'a str);
    let cases: [Case; 10] = [
        ("no type", &[], valid.clone(), 415, "Content-Type must be"),
        (
            "a form",
            &[("content-type", "text/plain")],
            valid.clone(),
            415,
            "Content-Type must be",
        ),
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
            "short id",
            &[("content-type", PROTOBUF)],
            one_bad(short_id),
            400,
            "the trace id must be 16 bytes",
        ),
        (
            "zero id",
            &[("content-type", PROTOBUF)],
            one_bad(zero_id),
            400,
            "the span id must be 8 bytes",
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
            "use gzip, zstd or none",
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
    let (status, _) = lab
        .export(
            &[("content-type", PROTOBUF)],
            vec![0; receiver::BODY_LIMIT + 1],
        )
        .await;
    assert_eq!(status, 413);
    assert_eq!(
        lab.store.usage(),
        Usage {
            traces: 0,
            spans: 0,
            evicted: 0
        }
    );
}

#[tokio::test]
async fn a_span_that_comes_twice_is_kept_once() {
    let lab = Lab::start().await;
    lab.export_spans(vec![span(1, 1, 0, "first"), span(1, 1, 0, "again")])
        .await;
    lab.export_spans(vec![span(1, 1, 0, "and again")]).await;
    assert_eq!(lab.spans(), 1);
}

#[tokio::test]
async fn the_oldest_trace_makes_room_by_spans_and_by_bytes() {
    let by_spans = Lab::with(Limits {
        spans: 3,
        ..Limits::default()
    })
    .await;
    let size = span(1, 1, 0, "x").encoded_len();
    let by_bytes = Lab::with(Limits {
        bytes: 3 * size,
        ..Limits::default()
    })
    .await;
    for lab in [by_spans, by_bytes] {
        for trace in [1, 2, 3] {
            lab.export_spans(vec![span(trace, 1, 0, "x")]).await;
        }
        // A late span of the oldest trace joins it, and so makes it too much.
        lab.export_spans(vec![span(1, 2, 0, "x")]).await;
        assert_eq!(
            lab.store.usage(),
            Usage {
                traces: 2,
                spans: 2,
                evicted: 1
            }
        );
        assert_eq!(lab.get(&trace_path(1)).await.0, 404);
        assert_eq!(lab.get(&trace_path(3)).await.0, 200);
        assert!(
            lab.get("/traces")
                .await
                .1
                .contains("1 older trace made room")
        );
    }
}

#[tokio::test]
async fn a_resource_counts_as_bytes_too() {
    let lab = Lab::with(Limits {
        bytes: 10_000,
        ..Limits::default()
    })
    .await;
    let mut body = json_body();
    let attribute = json!({ "key": "fat", "value": { "stringValue": "x".repeat(20_000) } });
    body["resourceSpans"][0]["resource"]["attributes"] = json!([attribute]);
    assert_eq!(
        lab.export(&[("content-type", JSON)], body.to_string())
            .await
            .0,
        200
    );
    assert_eq!(
        lab.store.usage(),
        Usage {
            traces: 0,
            spans: 0,
            evicted: 1
        }
    );
}

#[tokio::test]
async fn a_trace_larger_than_the_store_does_not_fill_it() {
    let lab = Lab::with(Limits {
        spans: 10,
        ..Limits::default()
    })
    .await;
    lab.export_spans((1..=11).map(|id| span(1, id, 0, "x")).collect())
        .await;
    assert_eq!(
        lab.store.usage(),
        Usage {
            traces: 0,
            spans: 0,
            evicted: 1
        }
    );
}

#[tokio::test]
async fn every_span_is_shown_also_where_the_parents_make_no_tree() {
    let lab = Lab::start().await;
    // A root with a child; an orphan; two that are each other's parents; one that is its own.
    let spans = [(1, 0), (2, 1), (3, 99), (4, 5), (5, 4), (6, 6)];
    lab.export_spans(
        spans
            .map(|(id, parent)| span(1, id, parent, &format!("s{id}")))
            .to_vec(),
    )
    .await;
    let (_, tree) = lab.get(&format!("{}.txt", trace_path(1))).await;
    for (id, _) in spans {
        assert_eq!(tree.matches(&format!("s{id} ")).count(), 1, "{tree}");
    }
    assert!(
        tree.contains("orphan: parent 0000000000000063 is not here"),
        "{tree}"
    );
    assert!(lab.get("/traces").await.1.contains("not in one piece"));
}

#[tokio::test]
async fn a_chain_of_ten_thousand_spans_is_shown() {
    let lab = Lab::start().await;
    lab.export_spans((1..=10_000).map(|id| span(1, id, id - 1, "link")).collect())
        .await;
    let (status, tree) = lab.get(&format!("{}.txt", trace_path(1))).await;
    assert_eq!((status, tree.lines().count()), (200, 10_000));
}

#[tokio::test]
async fn a_span_cannot_write_html() {
    let lab = Lab::start().await;
    lab.export_spans(vec![span(1, 1, 0, "<script>alert(1)</script>")])
        .await;
    for path in ["/traces".to_owned(), trace_path(1)] {
        let (_, page) = lab.get(&path).await;
        assert!(
            page.contains("&lt;script&gt;") && !page.contains("<script>"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn jaegers_query_api_finds_traces() {
    let lab = Lab::start().await;
    lab.export(&[("content-type", JSON)], json_body().to_string())
        .await;
    lab.export_spans(vec![span(1, 1, 0, "root"), span(1, 2, 1, "child")])
        .await;

    assert_eq!(
        lab.get_json("/api/services").await["data"],
        json!(["python", "unknown_service"])
    );
    let operations = lab
        .get_json("/api/services/unknown_service/operations")
        .await;
    assert_eq!(operations["data"], json!(["child", "root"]));
    assert_eq!(lab.get_json("/api/traces").await["total"], 2);
    assert_eq!(lab.get_json("/api/traces?limit=1").await["total"], 1);
    assert_eq!(lab.get_json("/api/traces?service=python").await["total"], 1);
    assert_eq!(
        lab.get_json("/api/traces?operation=nothing").await["total"],
        0
    );

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

#[tokio::test(flavor = "multi_thread")]
async fn zstd_is_unpacked_and_what_is_not_zstd_is_refused() {
    let lab = Lab::start().await;
    let headers = [("content-type", PROTOBUF), ("content-encoding", "zstd")];
    let pack = |body: &[u8]| zstd::encode_all(body, 1).expect("packed");
    let body = protobuf(vec![span(1, 1, 0, "a")]);
    assert_eq!(lab.export(&headers, pack(&body)).await.0, 200);
    assert_eq!(lab.spans(), 1);
    assert_eq!(lab.export(&headers, body).await.0, 400);

    let bomb = pack(&vec![0; receiver::UNPACKED_LIMIT + 1]);
    assert!(bomb.len() < receiver::BODY_LIMIT);
    assert_eq!(lab.export(&headers, bomb).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_metrics_are_taken_and_not_kept() {
    let lab = Lab::start().await;
    for path in ["/v1/logs", "/v1/metrics"] {
        for (content_type, status) in [(PROTOBUF, 200), (JSON, 200), ("text/plain", 415)] {
            let request = client().post(format!("http://{}{path}", lab.address));
            let answer = request
                .header("content-type", content_type)
                .body("{}")
                .send()
                .await;
            assert_eq!(
                answer.expect("an answer").status(),
                status,
                "{path} {content_type}"
            );
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
    let address = serve(guard::only_here(viewer::routes(store))).await;
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
        let request = client()
            .get(format!("http://{address}/traces"))
            .header("host", &host);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
        if status == 421 {
            assert!(answer.text().await.expect("text").contains(&host), "{host}");
        }
    }
}

/// A client of the gRPC receiver, which is behind the guard as in the lab.
async fn grpc(store: &Store) -> Channel {
    let address = serve(guard::only_here(lab::grpc::routes(store.clone()))).await;
    let endpoint = Endpoint::try_from(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_takes_spans_and_refuses_what_is_wrong_with_a_reason() {
    let store = Store::new(Limits::default());
    let channel = grpc(&store).await;
    let request =
        |span| ExportTraceServiceRequest::decode(&protobuf(vec![span])[..]).expect("a request");
    for (id, encoding) in [
        (1, None),
        (2, Some(CompressionEncoding::Gzip)),
        (3, Some(CompressionEncoding::Zstd)),
    ] {
        let mut client = TraceServiceClient::new(channel.clone());
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        client
            .export(request(span(1, id, 0, "a")))
            .await
            .expect("it is taken");
        assert_eq!(store.usage().spans, usize::try_from(id).expect("a number"));
    }
    let mut bad = span(1, 4, 0, "bad");
    bad.trace_id = vec![1; 15];
    let refused = TraceServiceClient::new(channel).export(request(bad)).await;
    let status = refused.expect_err("it is refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("the trace id must be 16 bytes"),
        "{status}"
    );
    assert_eq!(store.usage().spans, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_takes_logs_and_metrics_and_does_not_keep_them() {
    let store = Store::new(Limits::default());
    let channel = grpc(&store).await;
    let mut logs = LogsServiceClient::new(channel.clone());
    logs.export(ExportLogsServiceRequest::default())
        .await
        .expect("logs are taken");
    let mut metrics = MetricsServiceClient::new(channel);
    metrics
        .export(ExportMetricsServiceRequest::default())
        .await
        .expect("metrics are taken");
    assert_eq!(store.usage().spans, 0);
}
