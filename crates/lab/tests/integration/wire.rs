//! The proxies: without a fault they change no byte, whatever passes; and only the lab's own pages set faults.

use std::net::SocketAddr;

use axum::Router;
use lab::wire::{EXCHANGES, Fault, Hop, Wire};
use support::in_process::{JSON, Lab};
use support::{FREE, client, has, lacks, serve, within_reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The hop of a wire without the book's services.
const HOP: &str = "a-b";

/// A proxy before `target`.
async fn proxied(wire: &Wire, target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let hop = Hop { name: HOP.into(), to: "b".into() };
    wire.serve(hop, listener, target).expect("an address")
}

/// A proxy before the listener that is returned.
async fn before_listener(wire: &Wire) -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    (proxied(wire, listener.local_addr().expect("an address")).await, listener)
}

/// The bytes up to the end of a stream.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("bytes");
    rest
}

/// Sends a request in two parts, so that no part is whole, to a server that answers when it has read all of it. Both must
/// arrive as they were sent.
async fn passes(wire: &Wire, request: &[u8], answer: &'static [u8]) {
    let (address, listener) = before_listener(wire).await;
    let mut got = vec![0; request.len()];
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_exact(&mut got).await.expect("all of it");
        stream.write_all(answer).await.expect("it is read");
        stream.shutdown().await.expect("it is open");
        stream.read_to_end(&mut got).await.expect("the rest");
        got
    });
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let (first, second) = request.split_at(request.len() / 2);
    stream.write_all(first).await.expect("it is read");
    stream.write_all(second).await.expect("it is read");
    assert_eq!(rest(&mut stream).await, answer);
    drop(stream);
    assert!(server.await.expect("bytes") == request, "the request has changed");
}

#[tokio::test]
async fn every_byte_passes_as_it_came() {
    let head = "POST /a?b=%20 HTTP/1.1\r\nHost: x\r\nX-Odd:no blank\r\nx-ODD:   three\t\r\nX-Latin: caf\u{e9}\r\n";
    let chunks = "transfer-ENCODING: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n";
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 418 Teapot\r\nX-Odd:1\r\nx-odd: 2\r\n\r\nbody";
    for (count, request) in [
        (1, format!("{head}\r\n")),
        (1, format!("{head}Content-Length: 5\r\n\r\nhello")),
        (2, format!("{head}{chunks}{head}\r\n")),
        // Two requests in one write.
        (2, format!("{head}content-length: 2\r\n\r\nhi{head}\r\n")),
    ] {
        let wire = Wire::default();
        // A character a byte: not all of it is UTF-8.
        let bytes: Vec<u8> = request.chars().map(|it| it as u8).collect();
        passes(&wire, &bytes, answer).await;
        let seen = wire.exchanges();
        assert_eq!((seen.len(), seen[count - 1].status), (count, Some(418)), "{request}");
        assert!(request.starts_with(&seen[0].sent), "{request}");
    }
}

/// A client that has said all may still wait for the answer; and a connection that is closed is closed on both sides.
#[tokio::test]
async fn a_client_that_closes_its_half_is_answered_and_nothing_stays_open() {
    let (address, listener) = before_listener(&Wire::default()).await;
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
    client.shutdown().await.expect("it is open");
    let (mut service, _) = listener.accept().await.expect("a connection");
    // The end comes through as well.
    assert_eq!(rest(&mut service).await, b"GET / HTTP/1.1\r\n\r\n");
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    service.write_all(answer).await.expect("it is read");
    drop(service);
    assert_eq!(rest(&mut client).await, answer);

    // A client that goes away.
    let client = TcpStream::connect(address).await.expect("a connection");
    let (mut service, _) = listener.accept().await.expect("a connection");
    drop(client);
    assert_eq!(within_reason(service.read(&mut [0])).await.expect("an end"), 0);
}

/// A service may refuse a body before it has read it.
#[tokio::test]
async fn an_early_answer_reaches_the_client() {
    let (address, listener) = before_listener(&Wire::default()).await;
    let service = tokio::spawn(async move {
        let (mut service, _) = listener.accept().await.expect("a connection");
        service.read_exact(&mut [0; 100]).await.expect("bytes");
        service.write_all(b"HTTP/1.1 413 No\r\n\r\n").await.expect("it is read");
        // With unread bytes, this is a reset.
        drop(service);
    });
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let head = "POST / HTTP/1.1\r\ncontent-length: 4000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("it is read");
    client.write_all(&[b'x'; 4_000_000]).await.expect("all of it is read");
    client.shutdown().await.expect("it is open");
    assert_eq!(rest(&mut client).await, b"HTTP/1.1 413 No\r\n\r\n");
    service.await.expect("it ends");
}

#[tokio::test]
async fn what_is_no_http_any_more_passes_too() {
    let wire = Wire::default();
    let (address, listener) = before_listener(&wire).await;
    let request = b"GET / HTTP/1.1\r\nUpgrade: raw\r\n\r\n";
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(request).await.expect("it is read");
    let (mut service, _) = listener.accept().await.expect("a connection");
    let mut got = vec![0; request.len()];
    // A service that declines: the next request is one.
    service.read_exact(&mut got).await.expect("bytes");
    service.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.expect("it is read");
    client.read_exact(&mut [0; 19]).await.expect("bytes");
    client.write_all(request).await.expect("it is read");
    service.read_exact(&mut got).await.expect("bytes");
    service.write_all(b"HTTP/1.1 101 Yes\r\n\r\n").await.expect("it is read");
    client.read_exact(&mut [0; 20]).await.expect("bytes");
    client.write_all(b"\0\x01 not HTTP").await.expect("it is read");
    client.shutdown().await.expect("it is open");
    assert_eq!(rest(&mut service).await, b"\0\x01 not HTTP");
    let statuses: Vec<_> = wire.exchanges().iter().map(|it| it.status).collect();
    assert_eq!(statuses, [Some(204), Some(101)]);
}

#[tokio::test]
async fn what_is_no_http_ends_its_connection_alone() {
    let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1_000_000));
    let chunk = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n";
    let many = "GET / HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(1000);
    let minus = "POST / HTTP/1.1\r\ncontent-length: minus\r\n\r\n";
    let target = serve(Router::new().fallback(async || "fine")).await;
    let address = proxied(&Wire::default(), target).await;
    for bytes in ["\0\0\0\0\r\n\r\n", minus, chunk, &long, &many] {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // It may be closed before it has read all of it.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back).await;
        assert_eq!(back, b"", "{:?}", &bytes[..8]);
    }
    let answer = client().get(format!("http://{address}/")).send().await;
    assert_eq!(answer.expect("an answer").text().await.expect("text"), "fine");
}

#[tokio::test]
async fn what_opens_doors_is_not_kept() {
    let wire = Wire::default();
    let request = b"GET / HTTP/1.1\r\nAUTHORIZATION: Bearer abc\r\ncookie: id=abc\r\n\r\n";
    passes(&wire, request, b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(wire.exchanges().len(), 1);
    lacks(&format!("{:?}", wire.exchanges()), ["abc"]);
}

#[tokio::test]
async fn only_so_many_requests_are_kept() {
    let wire = Wire::default();
    let request = b"GET / HTTP/1.1\r\n\r\n".repeat(EXCHANGES + 5);
    passes(&wire, &request, b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(wire.exchanges().len(), EXCHANGES);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_the_terminal_set_faults_and_no_other_site_does() {
    let lab = Lab::start().await;
    let json = ("content-type", JSON);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let drop = r#"{"fault":"drop-traceparent"}"#;
    // Without services there is nothing to break.
    assert_eq!(lab.post("/wire/a-b", &[json], drop).await.0, 409);
    assert_eq!(lab.post("/wire/try", &[json], r#"{"hop":"a-b"}"#).await.0, 409);
    has(&lab.page("/wire").await, ["This lab has no proxies"]);

    proxied(&lab.wire, lab.address).await;
    let (status, hops) = lab.post("/wire/a-b", &[json], drop).await;
    assert_eq!((status, lab.wire.fault(HOP)), (200, Some(Fault::DropTraceparent)));
    has(&hops, [r#""fault":"drop-traceparent""#]);
    has(&lab.page("/wire").await, ["Broken: drop-traceparent"]);

    let (status, problem) = lab.post("/wire/a-b", &[json], r#"{"fault":"burn"}"#).await;
    assert_eq!(status, 404);
    has(&problem, ["unknown fault \"burn\""]);
    assert_eq!(lab.post("/wire/nowhere", &[json], drop).await.0, 404);
    for foreign in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        for path in ["/wire/a-b", "/wire/try"] {
            let (status, _) = lab.post(path, &[form, foreign], "fault=").await;
            assert_eq!(status, 403, "{foreign:?} {path}");
        }
    }
    assert_eq!(lab.wire.fault(HOP), Some(Fault::DropTraceparent));
    let origin = format!("http://{}", lab.address);
    let ours = [form, ("origin", &*origin), ("sec-fetch-site", "same-origin")];
    // The form leads back to the page.
    assert_eq!(lab.post("/wire/a-b", &ours, "fault=").await.0, 200);
    assert_eq!(lab.wire.fault(HOP), None);
}

/// A header can be known although no span of its trace has arrived.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_without_a_span_is_diagnosed_by_its_header() {
    let lab = Lab::start().await;
    let service = serve(Router::new().fallback(async || "fine")).await;
    let address = proxied(&lab.wire, service).await;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = client().get(format!("http://{address}/"));
    let request = request.header("traceparent", format!("00-{id}-00f067aa0ba902b7-00"));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let (status, page) = lab.get(format!("/traces/{id}")).await;
    assert_eq!(status, 404);
    has(&page, ["the caller sent flags without the sampled bit"]);
}
