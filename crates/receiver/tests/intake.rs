//! The receivers limit the bodies that they take in at the same time and answer that there are too many.

use std::io::Write as _;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Channel};
use tokio::sync::mpsc;
use tower::ServiceExt as _;
use traces_receiver::intake::{RECEIVING_LIMIT, Timeouts};
use traces_receiver::store::{Limits, Store};
use traces_receiver::{grpc, http};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A request of gRPC with one message.
fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(compressed)];
    frame.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    frame.extend(message);
    frame
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(body).expect("memory");
    packed.finish().expect("memory")
}

async fn post(routes: Router, path: &str, media_type: &str, body: impl Into<Body>) -> Response {
    let request = Request::post(path).header("content-type", media_type);
    let request = request.header("grpc-encoding", "gzip").body(body.into());
    routes.oneshot(request.expect("a request")).await.expect("an answer")
}

/// The status and the message of gRPC, which are in the headers when nothing is returned.
fn refusal(headers: &HeaderMap) -> (&str, &str) {
    let text = |name| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    (text("grpc-status"), text("grpc-message"))
}

/// `RESOURCE_EXHAUSTED`.
const EXHAUSTED: &str = "8";

#[tokio::test]
async fn a_message_that_is_too_large_exhausts_the_resources_of_the_receiver() {
    let store = Store::new(Limits::default());
    let large = vec![0; grpc::MESSAGE_LIMIT + 1];
    for body in [framed(false, &large), framed(true, &gzip(&large))] {
        let answer = post(grpc::routes(store.clone()), EXPORT, "application/grpc", body).await;
        let (status, message) = refusal(answer.headers());
        assert_eq!(status, EXHAUSTED, "{message}");
        assert!(message.contains("bytes"), "{message}");
    }
    assert_eq!(store.refused().map(|it| it.requests), Some(2));
}

#[tokio::test]
async fn a_request_of_grpc_that_is_not_one_message_is_refused() {
    let store = Store::new(Limits::default());
    let message = framed(false, &[]);
    for (body, status, reason) in [
        (vec![], "3", "no%20message"),
        (vec![0, 0, 0], "3", "no%20message"),
        (message[..4].to_vec(), "3", "no%20message"),
        ([&message[..], &message].concat(), "3", "one%20message"),
        (vec![0, 0, 0, 0, 9, 1], "3", "one%20message"),
        (framed(false, &[0xff]), "3", "protobuf"),
        (framed(true, &[1, 2, 3]), "3", "gzip"),
    ] {
        let answer = post(grpc::routes(store.clone()), EXPORT, "application/grpc", body).await;
        let (answered, message) = refusal(answer.headers());
        assert_eq!(answered, status, "{message}");
        assert!(message.contains(reason), "{message}");
    }
    let answer = post(grpc::routes(store.clone()), EXPORT, "application/grpc", message).await;
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let answer = answer.into_body().collect().await.expect("an answer");
    assert_eq!(answer.trailers().map(|it| it["grpc-status"].as_bytes()), Some(&b"0"[..]));
    assert_eq!(answer.to_bytes(), [0; 5][..], "an empty message");
}

/// Everything runs on one thread here, so decoding on it would hold up the other answer.
#[tokio::test]
async fn a_large_message_holds_up_no_other_answer() {
    let store = Store::new(Limits::default());
    // A span of 4 MB that has nothing but empty attributes.
    let spans = [0x12, 0].repeat(2_000_000);
    let mut message = vec![];
    for tag in [2, 1] {
        let inner = if message.is_empty() { spans.clone() } else { message };
        message = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut message);
        message.extend(inner);
    }
    for body in [framed(true, &gzip(&message)), framed(false, &message)] {
        let order = std::cell::RefCell::new(Vec::new());
        let heavy = async {
            post(grpc::routes(store.clone()), EXPORT, "application/grpc", body).await;
            order.borrow_mut().push("heavy");
        };
        let light = async {
            let logs = http::routes(store.clone());
            let answer = post(logs, "/v1/logs", "application/json", "{}").await;
            assert_eq!(answer.status(), StatusCode::OK);
            order.borrow_mut().push("light");
        };
        tokio::join!(heavy, light);
        assert_eq!(*order.borrow(), ["light", "heavy"]);
    }
}

/// A body that is never finished, and of which this much is received.
async fn unfinished(store: &Store, length: usize) -> tokio::task::JoinHandle<Response> {
    let (sender, body) = Channel::<Bytes>::new(1);
    let (sent, mut received) = mpsc::channel(1);
    let routes = http::routes(store.clone());
    let request = tokio::spawn(async move {
        post(routes, "/v1/traces", "application/json", Body::new(body)).await
    });
    tokio::spawn(async move {
        let mut sender = sender;
        for chunk in [length, 0] {
            sender.send_data(vec![b' '; chunk].into()).await.expect("it is received");
        }
        // The channel has room for one, so here the first has been received.
        sent.send(()).await.expect("the test waits");
        std::future::pending::<()>().await;
    });
    received.recv().await;
    request
}

#[tokio::test]
async fn what_all_senders_send_at_once_is_limited_and_the_refusal_asks_to_try_again() {
    let store = Store::new(Limits::default());
    let mut senders = Vec::new();
    for _ in 0..RECEIVING_LIMIT / http::BODY_LIMIT {
        senders.push(unfinished(&store, http::BODY_LIMIT).await);
    }
    let send =
        async || post(http::routes(store.clone()), "/v1/traces", "application/json", "{}").await;
    let answer = send().await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
    let message = framed(false, &[]);
    let answer = post(grpc::routes(store.clone()), EXPORT, "application/grpc", message).await;
    // `UNAVAILABLE`, after which exporters try again.
    assert_eq!(refusal(answer.headers()).0, "14");

    let sender = senders.pop().expect("a sender");
    sender.abort();
    sender.await.expect_err("it is aborted");
    assert_eq!(send().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_refused_by_every_route() {
    let body = Duration::from_millis(50);
    let store = Store::new(Limits::default());
    let store = store.received_within(Timeouts { body, ..Timeouts::default() });
    // A body ends when its sender is gone.
    let mut senders = Vec::new();
    let mut endless = || {
        let (sender, body) = Channel::<Bytes>::new(1);
        senders.push(sender);
        Body::new(body)
    };
    for path in ["/v1/traces", "/v1/metrics"] {
        let answer = post(http::routes(store.clone()), path, "application/json", endless()).await;
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT, "{path}");
    }
    let answer = unfinished(&store, 10).await.await.expect("no panic");
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    let answer = post(grpc::routes(store), EXPORT, "application/grpc", endless()).await;
    assert_eq!(refusal(answer.headers()), ("14", "the%20body%20didn\'t%20arrive%20within%2050ms"));
}

#[test]
fn a_request_that_waits_too_long_to_be_decoded_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = Store::new(Limits::default());
        let turn = Duration::from_millis(50);
        let store = store.received_within(Timeouts { turn, ..Timeouts::default() });
        let send = |length: usize| {
            let routes = http::routes(store.clone());
            post(routes, "/v1/traces", "application/json", vec![b' '; length])
        };
        // The only thread that decodes is busy, so the large request keeps its turn.
        let (free, busy) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || busy.recv());
        let mut large = std::pin::pin!(send(http::BODY_LIMIT));
        let late = tokio::select! {
            biased;
            _ = &mut large => panic!("it is decoded"),
            late = send(http::BODY_LIMIT / 2) => late,
        };
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(free);
        assert_eq!(large.await.status(), StatusCode::BAD_REQUEST, "it isn't JSON");
    });
}
