//! The decoders of everything that the lab receives from outside, each as a function of any bytes. A fuzz target calls one, and the
//! tests of the lab call all of them with the committed corpus.

use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use lab::store::{Limits, Store};
use lab::wire::{Hop, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;
use traces::case::Case;
use traces::log::LogRecord;
use traces::{expect, headers, otlp, report};

/// The name of a target, which is also that of its folder in `corpus`, and what it calls.
pub type Decoder = (&'static str, fn(&[u8]));

/// The decoders of all targets.
pub const DECODERS: [Decoder; 7] = [
    ("expectation", expectation),
    ("file", file),
    ("http", http),
    ("otlp_json", otlp_json),
    ("otlp_protobuf", otlp_protobuf),
    ("pasted_headers", pasted_headers),
    ("query", query),
];

/// A body of `POST /v1/traces` or `/v1/logs`. Spans and log records that are read are written and read again.
pub fn otlp_json(bytes: &[u8]) {
    if let Ok(batch) = otlp::from_json(bytes) {
        again(batch);
    }
    if let Ok(batch) = otlp::logs_from_json(bytes) {
        logs_again(batch);
    }
}

/// The same in protobuf. What is read from gRPC takes the same way.
pub fn otlp_protobuf(bytes: &[u8]) {
    if let Ok(batch) = otlp::from_protobuf(bytes.to_vec().into()) {
        again(batch);
    }
    if let Ok(batch) = otlp::logs_from_protobuf(bytes.to_vec().into()) {
        logs_again(batch);
    }
}

fn again(batch: otlp::Batch) {
    let request = otlp::to_request(&batch.items);
    let read = otlp::from_request(request).expect("spans that were read can be read again");
    assert_eq!(read.items.len(), batch.items.len());
}

fn logs_again(batch: otlp::Batch<LogRecord>) {
    let request = otlp::logs_to_request(&batch.items);
    let read = otlp::logs_from_request(request).expect("records that were read can be read again");
    assert_eq!(read.items.len(), batch.items.len());
}

/// A file in any of the forms that are read, and the report on it.
pub fn file(bytes: &[u8]) {
    match Case::read(bytes) {
        Ok(case) => drop((report::text(&case, ""), report::failure(&case))),
        Err(error) => drop(report::problem(&error)),
    }
}

/// A text with the headers of a request, as somebody pastes it for a diagnosis.
pub fn pasted_headers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    headers::find(&text);
    for format in headers::Format::ALL {
        format.trace_id(&text);
        format.sampled(&text);
    }
    headers::id_alone(&text);
}

/// A file of expectations.
pub fn expectation(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = expect::parse(text);
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// A path with a query, and in further lines the body of a form: to the pages and to Jaeger's API.
pub fn query(bytes: &[u8]) {
    static ROUTES: LazyLock<axum::Router> = LazyLock::new(|| {
        let store = Store::new(Limits::default());
        let spans = otlp::from_json(include_bytes!("../corpus/otlp_json/spans.json"));
        store.add(spans.expect("a valid request").items);
        let pages = lab::viewer::routes(store.clone(), Wire::new([Hop::named_after("service")]));
        pages.merge(lab::jaeger::routes(store))
    });
    let text = String::from_utf8_lossy(bytes);
    let (uri, form) = match text.split_once('\n') {
        Some((uri, form)) => (uri, Some(form.to_owned())),
        None => (&*text, None),
    };
    let request = Request::builder().method(if form.is_some() { "POST" } else { "GET" }).uri(uri);
    let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let Ok(request) = request.body(form.map_or_else(Body::empty, Body::from)) else { return };
    RUNTIME.block_on(async {
        let response = ROUTES.clone().oneshot(request).await.expect("routes don't fail");
        assert_ne!(response.status(), 500, "{uri}");
        // A stream of events doesn't end.
        let media_type = response.headers().get(CONTENT_TYPE);
        if media_type.is_none_or(|it| it != "text/event-stream") {
            to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        }
    });
}

/// Separates what a client sends from what the service answers.
const ANSWER: &[u8] = b"\n--- answer ---\n";

/// How long an exchange may take before it counts as stuck. It takes less than a millisecond.
const STUCK: Duration = Duration::from_secs(20);

/// The bytes of both sides of a connection through a proxy. The connection ends when both sides have sent everything.
pub fn http(bytes: &[u8]) {
    static ANSWERS: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static PROXY: LazyLock<SocketAddr> = LazyLock::new(|| {
        RUNTIME.block_on(async {
            let service = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let target = service.local_addr().expect("an address");
            tokio::spawn(async move {
                while let Ok((mut connection, _)) = service.accept().await {
                    let answer = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    tokio::spawn(async move {
                        let _ = connection.write_all(&answer).await;
                        let _ = connection.shutdown().await;
                        let _ = connection.read_to_end(&mut Vec::new()).await;
                    });
                }
            });
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            Wire::default()
                .serve(Hop::named_after("service"), listener, target)
                .expect("an address")
        })
    });
    let split = bytes.windows(ANSWER.len()).position(|it| it == ANSWER);
    let (request, answer) = match split {
        Some(at) => (&bytes[..at], &bytes[at + ANSWER.len()..]),
        None => (bytes, &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..]),
    };
    *ANSWERS.lock().unwrap_or_else(PoisonError::into_inner) = answer.to_vec();
    let proxy = *PROXY;
    let exchange = async {
        let mut client = TcpStream::connect(proxy).await.expect("the proxy accepts");
        // The proxy may close the connection at any byte.
        let _ = client.write_all(request).await;
        let _ = client.shutdown().await;
        let mut received = Vec::new();
        let _ = client.read_to_end(&mut received).await;
        received
    };
    let exchange = RUNTIME.block_on(async { tokio::time::timeout(STUCK, exchange).await });
    exchange.expect("the connection ends");
}
