//! A lab with `--forward` sends on what it receives, also when the other receiver was down, refuses or hangs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse as _;
use futures_util::stream;
use lab::proto::trace::Span;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use support::in_process::{
    JSON, PROTOBUF, attribute, log_table, logs_in_protobuf, protobuf, span, table, trace_path,
};
use support::process::{Lab, command, containing, fails, kill};
use support::{client, free_port, has, hung, lacks, serve, until, within_reason};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;

/// A lab that forwards to this base URL.
async fn forwarding(to: impl std::fmt::Display) -> Lab {
    Lab::view(&format!("--forward http://{to}")).await
}

/// Posts a body to a lab, which must accept it.
async fn post(lab: &Lab, path: &str, media_type: &str, encoding: &str, body: impl Into<Vec<u8>>) {
    let request = client().post(format!("http://{}{path}", lab.otlp()));
    let request = request.header("content-type", media_type).header("content-encoding", encoding);
    let answer = within_reason(request.body(body.into()).send()).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path} {media_type}");
}

/// Sends one span of a trace to a lab.
async fn send(lab: &Lab, trace: u8) {
    post(lab, "/v1/traces", PROTOBUF, "", protobuf(vec![span(trace, 1, 0, "sent")])).await;
}

/// Waits until the list of traces says this about the forwarded requests.
async fn says(lab: &Lab, counts: &str) {
    until(async || containing(counts, lab.get("/traces").await)).await;
}

fn message<M: Message + Default>(body: Vec<u8>) -> M {
    M::decode(&body[..]).expect("a message")
}

/// A request that a [`Target`] has received.
#[derive(Clone)]
struct Received {
    at: Instant,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A receiver that answers as a test wants it to.
struct Target {
    address: SocketAddr,
    received: Arc<watch::Sender<Vec<Received>>>,
    /// Whether it answers yet.
    answers: watch::Sender<bool>,
}

impl Target {
    /// A receiver that answers its first requests with these statuses and all others with 200.
    async fn start(first: &'static [u16]) -> Target {
        let received = Arc::new(watch::Sender::<Vec<Received>>::default());
        let (answers, is_open) = watch::channel(true);
        let list = Arc::clone(&received);
        let answer = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let (path, mut number) = (uri.path().to_owned(), 0);
            list.send_modify(|list| {
                number = list.len();
                list.push(Received { at: Instant::now(), path, headers, body });
            });
            is_open.clone().wait_for(|is_open| *is_open).await.expect("the test runs");
            let status = first.get(number).map_or(200, |status| *status);
            (StatusCode::from_u16(status).expect("a status"), [(RETRY_AFTER, "1")]).into_response()
        };
        let address = serve(Router::new().fallback(answer)).await;
        Target { address, received, answers }
    }

    /// Waits until this number of requests have come.
    async fn received(&self, number: usize) -> Vec<Received> {
        let mut received = self.received.subscribe();
        let enough = received.wait_for(|it| it.len() >= number);
        within_reason(enough).await.expect("it runs").clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_lab_gets_the_same_spans_and_log_records_over_every_protocol() {
    let behind = Lab::view("").await;
    let lab = forwarding(behind.otlp()).await;
    has(&lab.printed, [&format!("Forward  http://{}\n", behind.otlp())]);

    let packed = zstd::encode_all(&protobuf(vec![span(1, 1, 0, "protobuf")])[..], 1);
    post(&lab, "/v1/traces", PROTOBUF, "zstd", packed.expect("packed")).await;
    let json = table("2 shop 1 SERVER 0..9 json paid=yes; 2 shop 2<1 CLIENT 1..2 error=no");
    post(&lab, "/v1/traces", JSON, "", json.to_string()).await;
    post(&lab, "/v1/logs", PROTOBUF, "", logs_in_protobuf("1 shop 1 9 1 in protobuf")).await;
    post(&lab, "/v1/logs", JSON, "", log_table("2 shop 2 17 1 in json").to_string()).await;
    let grpc = lab.address("gRPC").to_owned();
    let traces = TraceServiceClient::connect(grpc.clone()).await.expect("a connection");
    let spans: ExportTraceServiceRequest = message(protobuf(vec![span(3, 1, 0, "grpc")]));
    let mut traces = traces.send_compressed(CompressionEncoding::Gzip);
    traces.export(spans).await.expect("it is accepted");
    let mut logs = LogsServiceClient::connect(grpc).await.expect("a connection");
    let records: ExportLogsServiceRequest = message(logs_in_protobuf("3 shop 1 9 1 over gRPC"));
    logs.export(records).await.expect("it is accepted");

    says(&lab, "6 requests.").await;
    for trace in [1, 2, 3] {
        let path = trace_path(trace) + ".json";
        let sent = lab.get(&path).await;
        has(&sent, ["resourceSpans", "resourceLogs"]);
        assert_eq!(behind.get(&path).await, sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_records_without_a_trace_go_on_as_they_came() {
    let target = Target::start(&[]).await;
    let lab = forwarding(format!("{}/base/", target.address)).await;
    // No gzip: what the lab doesn't keep, it doesn't unpack.
    post(&lab, "/v1/metrics", JSON, "gzip", "{}").await;
    let request = ExportMetricsServiceRequest { resource_metrics: vec![Default::default(); 2] };
    let grpc = MetricsServiceClient::connect(lab.address("gRPC").to_owned()).await;
    grpc.expect("a connection").export(request.clone()).await.expect("it is accepted");
    let records = logs_in_protobuf("0 shop 0 9 1 without a trace");
    post(&lab, "/v1/logs", PROTOBUF, "", records.clone()).await;

    let received = target.received(3).await;
    let mut received: Vec<_> = received
        .iter()
        .map(|Received { path, headers, body, .. }| {
            let text = |name: &str| headers.get(name).map_or("", |it| it.to_str().expect("text"));
            (&**path, text("content-type"), text("content-encoding"), body.to_vec())
        })
        .collect();
    received.sort_unstable();
    let expected = [
        ("/base/v1/logs", PROTOBUF, "", records),
        ("/base/v1/metrics", JSON, "gzip", b"{}".to_vec()),
        ("/base/v1/metrics", PROTOBUF, "", request.encode_to_vec()),
    ];
    assert_eq!(received, expected);
    assert_eq!(
        client()
            .post(format!("http://{}/v1/metrics", lab.otlp()))
            .send()
            .await
            .expect("an answer")
            .status(),
        415
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_this_lab_refuses_is_not_forwarded_and_partial_success_is_counted() {
    let behind = Lab::view("").await;
    let mut lab = forwarding(behind.otlp()).await;
    let refused = client().post(format!("http://{}/v1/traces", lab.otlp()));
    let refused = refused.header("content-type", JSON).body("{").send().await;
    assert_eq!(refused.expect("an answer").status(), 400);
    let bad = Span { trace_id: vec![1; 15], ..span(1, 2, 0, "bad") };
    post(&lab, "/v1/traces", PROTOBUF, "", protobuf(vec![span(1, 1, 0, "good"), bad])).await;
    let json = table(r#"2 a 1 SERVER 0..1 good; 2 a 2 SERVER 0..1 bad {"spanId": "0b"}"#);
    post(&lab, "/v1/traces", JSON, "", json.to_string()).await;
    says(&lab, "2 requests; 2 of their spans, records or metrics rejected.").await;
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let reason = "rejected 1 item of a request: \"span \\\"bad\\\": the ";
    assert_eq!(lab.errors().await.matches(reason).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_down_gets_what_came_before() {
    let later = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut lab = forwarding(later).await;
    send(&lab, 1).await;
    send(&lab, 2).await;
    let mut errors = BufReader::new(lab.child.stderr.as_mut().expect("an error output"));
    let mut warning = String::new();
    within_reason(errors.read_line(&mut warning)).await.expect("text");
    has(&warning, [&format!("Warning: http://{later} can't be reached (Connection refused")]);
    says(&lab, "0 requests; 2 waiting.").await;
    let page = lab.get("/traces").await;
    let (_, events) = page.split_once("data-live=\"").expect("a live page");
    let events = events.split('"').next().expect("an address").replace("&amp;", "&");
    let mut events =
        client().get(format!("http://{}{events}", lab.site())).send().await.expect("events");
    let behind = Lab::view(&format!("--otlp {later}")).await;
    says(&lab, "2 requests.").await;
    // The page changes although no span comes.
    let event = within_reason(events.chunk()).await.expect("an event").expect("an event");
    assert_eq!(event, "data: new\n\n");
    has(&behind.get("/traces").await, ["2 traces, 2 spans"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_receiver_is_asked_again_when_it_says() {
    let target = Target::start(&[429, 502, 503, 504]).await;
    let lab = forwarding(target.address).await;
    for trace in 1..=4 {
        send(&lab, trace).await;
    }
    says(&lab, "4 requests.").await;
    let received = target.received(8).await;
    for first in &received[..4] {
        let again = received[4..].iter().find(|again| again.body == first.body);
        let waited = again.expect("it is sent again").at - first.at;
        assert!(waited >= Duration::from_secs(1), "Retry-After is 1, and it came after {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_said_with_its_status_and_without_the_key() {
    let target = Target::start(&[401, 500]).await;
    let mut command = command("lab", &format!("view --forward http://{}", target.address)).await;
    command.env("LAB_FORWARD_HEADERS", "x-team = shop, authorization=Bearer%20s3cret%2C%20a=b");
    let mut lab = Lab::ready(command).await;
    for (trace, counts) in [
        (1, "0 requests; 1 refused, the first with 401."),
        (2, "0 requests; 2 refused, the first with 401."),
        (3, "1 request; 2 refused, the first with 401."),
    ] {
        send(&lab, trace).await;
        says(&lab, counts).await;
    }
    let received = target.received(3).await;
    assert_eq!(received.len(), 3, "what is refused isn't sent again");
    assert_eq!(received[0].headers["authorization"], "Bearer s3cret, a=b");
    assert_eq!(received[0].headers["x-team"], "shop");
    assert_eq!(received[0].headers[CONTENT_TYPE], PROTOBUF);
    let page = lab.get("/traces").await;
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let errors = lab.errors().await;
    let refusals = errors.matches("refused a request of /v1/traces with 401: are the headers");
    assert_eq!(refusals.count(), 1, "{errors}");
    has(&errors, ["1 request; 2 refused, the first with 401\n"]);
    for text in [page, lab.printed.clone(), errors] {
        lacks(&text, ["s3cret"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_delays_no_answer_and_what_has_no_room_is_counted() {
    let (address, connected) = hung().await;
    let mut lab = forwarding(address).await;
    let megabyte = |id| attribute(&format!("key {id}"), &"x".repeat(1024 * 1024));
    for trace in 1..=5 {
        let large = Span { attributes: (1..=5).map(megabyte).collect(), ..span(trace, 1, 0, "x") };
        // The answer comes although that receiver answers none.
        post(&lab, "/v1/traces", PROTOBUF, "", protobuf(vec![large])).await;
    }
    within_reason(connected.notified()).await;
    says(&lab, "0 requests; 3 waiting; 2 dropped, as the queue was full.").await;
    assert_eq!(lab.signal("-TERM").await, Some(0));
    let errors = lab.errors().await;
    let end = "0 requests; 3 not sent before the lab stopped; 2 dropped, as the queue was full\n";
    has(&errors, [end]);
    assert_eq!(errors.matches("is full (16777216 bytes)").count(), 1, "{errors}");
}

/// An answer that would fill the memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_not_read_to_its_end() {
    let chunks = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&chunks);
    let answer = async move || {
        let chunk = move || {
            sent.fetch_add(1, Relaxed);
            Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 10_000]))
        };
        Body::from_stream(stream::iter(std::iter::repeat_with(chunk).take(10_000)))
    };
    let lab = forwarding(serve(Router::new().fallback(answer)).await).await;
    send(&lab, 1).await;
    says(&lab, "1 request.").await;
    // The others are in the buffers between the two.
    let chunks = chunks.load(Relaxed);
    assert!(chunks < 5_000, "{chunks} of 10000 chunks were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_before_the_lab_stops() {
    let target = Target::start(&[]).await;
    target.answers.send_replace(false);
    let mut lab = forwarding(target.address).await;
    for trace in 1..=20 {
        send(&lab, trace).await;
    }
    // No more are sent at the same time.
    target.received(8).await;
    kill("-TERM", &lab.id());
    until(async || match TcpStream::connect(lab.otlp()).await {
        Ok(_) => Err("it still listens"),
        Err(_) => Ok(()),
    })
    .await;
    target.answers.send_replace(true);
    assert_eq!(lab.signal("-CONT").await, Some(0));
    assert_eq!(target.received(20).await.len(), 20);
    assert_eq!(lab.errors().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_leads_back_or_holds_a_secret_is_refused_in_a_line() {
    let port = free_port();
    for (flag, listens, host) in [
        ("--otlp", "127.0.0.1", "localhost"),
        ("--grpc", "0.0.0.0", "127.0.0.2"),
        ("--site", "127.0.0.1", "0.0.0.0"),
    ] {
        let loops = format!("view {flag} {listens}:{port} --forward http://{host}:{port}");
        fails("lab", &loops, ["--forward leads back to this lab", &format!("{listens}:{port}")])
            .await;
    }
    for (url, reason) in [
        ("http://me:s3cret@localhost:1", "put a key into LAB_FORWARD_HEADERS"),
        ("https://localhost:1/?key=s3cret", "put a key into LAB_FORWARD_HEADERS"),
        ("s3cret", "write the base URL"),
        ("ftp://s3cret:1", "write the base URL"),
        ("http://localhost:1/v1/traces", "ends with /v1/traces: leave that out"),
    ] {
        let output = command("lab", &format!("view --forward {url}")).await.output().await;
        let errors = String::from_utf8(output.expect("it runs").stderr).expect("text");
        has(&errors, [reason]);
        lacks(&errors, ["s3cret"]);
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let mut wrong = command("lab", "view --forward http://localhost:1").await;
    wrong.env("LAB_FORWARD_HEADERS", "a=b,s3cret");
    let output = wrong.output().await.expect("it runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2));
    has(&errors, ["LAB_FORWARD_HEADERS can't be read at its entry 2"]);
    lacks(&errors, ["s3cret"]);
}
