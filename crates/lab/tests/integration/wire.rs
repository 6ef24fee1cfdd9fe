//! The proxies: without a fault they change no byte, whatever passes; and only the lab's own pages set faults.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::bound_refusals;
use crate::proxies::{self, read_to};
use axum::Router;
use lab::case::Case;
use lab::report;
use lab::store::{Limits, Store};
use lab::wire::{
    EXCHANGES, Fault, HEAD_BYTES, HEAD_LINES, Hop, NOT_HTTP, ProxyLimits, RECORD_BYTES, Wire,
};
use support::in_process::{JSON, Lab};
use support::{FREE, client, has, lacks, process, serve, until, within_reason};
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

/// All text up to the end of a stream.
async fn text(stream: &mut TcpStream) -> String {
    String::from_utf8(within_reason(rest(stream)).await).expect("text")
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
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
    let mut stream = connect(address).await;
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
        // The only answer is that of the first request.
        assert_eq!((seen.len(), seen[0].status), (count, Some(418)), "{request}");
        assert!(seen[1..].iter().all(|it| it.status.is_none()), "{request}");
        assert!(request.starts_with(&seen[0].sent), "{request}");
    }
}

/// A client that has said all may still wait for the answer; and a connection that is closed is closed on both sides.
#[tokio::test]
async fn a_client_that_closes_its_half_is_answered_and_nothing_stays_open() {
    let (address, listener) = before_listener(&Wire::default()).await;
    let mut client = connect(address).await;
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
    let client = connect(address).await;
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
    let mut client = connect(address).await;
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
    let mut client = connect(address).await;
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

/// A valid request, and behind it bytes that aren't HTTP: the service answers both.
#[tokio::test]
async fn an_answer_before_malformed_bytes_arrives_and_so_does_that_to_them() {
    let target = serve(Router::new().fallback(async || "fine")).await;
    for pause in [false, true] {
        let wire = Wire::default();
        let mut client = connect(proxied(&wire, target).await).await;
        client.write_all(b"GET /first HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it is read");
        let mut first = String::new();
        if pause {
            first = read_to(&mut client, "fine").await;
        }
        client.write_all(b"\0\x01 secret\r\n\r\n").await.expect("it is read");
        let answers = first + &text(&mut client).await;
        has(&answers, ["HTTP/1.1 200 OK\r\n", "fine", "HTTP/1.1 400 Bad Request\r\n"]);
        let seen: Vec<_> = wire.exchanges().into_iter().map(|it| (it.sent, it.status)).collect();
        let first = "GET /first HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
        // Such bytes may be a part of a body.
        let second = format!("{NOT_HTTP}\r\n\r\n");
        assert_eq!(seen, [(first, Some(200)), (second, Some(400))]);
    }
}

/// The service decides what it accepts, and its refusal is recorded.
#[tokio::test]
async fn a_malformed_request_gets_the_answer_of_the_service() {
    let many = "GET /many HTTP/1.1\r\nhost: x\r\n".to_owned() + &"a: b\r\n".repeat(10_000);
    let long = format!("GET /long HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(1_000_000));
    let cases = [
        ("GET /a b HTTP/1.1\r\nhost: x\r\n\r\n", Some(400)),
        ("GET /name HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n", Some(400)),
        ("GET /fold HTTP/1.1\r\nhost: x\r\nauthorization: Basic\r\n secret\r\n\r\n", Some(400)),
        ("POST /minus HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", Some(400)),
        (
            "POST /two HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            Some(400),
        ),
        ("POST /encoding HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", Some(400)),
        (&format!("{many}\r\n"), Some(431)),
        (&long, Some(431)),
    ];
    let target = serve(Router::new().fallback(async || "fine")).await;
    for (request, status) in cases {
        let wire = Wire::default();
        let mut client = connect(proxied(&wire, target).await).await;
        // The service may close before it has read all of it.
        let _ = client.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = within_reason(client.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        let line = &request[..request.len().min(40)];
        has(&answer, [&format!("HTTP/1.1 {} ", status.expect("a status"))]);
        let seen = wire.exchanges();
        assert_eq!((seen.len(), seen[0].status), (1, status), "{line}");
        let first = request.lines().next().expect("a line");
        assert_eq!(seen[0].sent.lines().next(), Some(first));
        lacks(&seen[0].sent, ["secret"]);
        assert!(seen[0].sent.len() <= HEAD_BYTES + 100, "{}", seen[0].sent.len());
        assert!(seen[0].sent.lines().count() <= HEAD_LINES + 2);
    }
}

/// A head is parsed when it can be whole, and not after each byte.
#[tokio::test]
async fn a_head_that_comes_byte_by_byte_passes() {
    let wire = Wire::default();
    let request = format!("\r\n\nGET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(9_000));
    let (address, listener) = before_listener(&wire).await;
    let mut client = connect(address).await;
    let (mut service, _) = listener.accept().await.expect("a connection");
    client.set_nodelay(true).expect("an option");
    for byte in request.bytes() {
        client.write_all(&[byte]).await.expect("it is read");
        tokio::task::yield_now().await;
    }
    let mut got = vec![0; request.len()];
    service.read_exact(&mut got).await.expect("bytes");
    assert!(got == request.as_bytes(), "the request has changed");
    assert_eq!(wire.exchanges()[0].sent, request.trim_start());
}

/// How an answer ends depends on more than its headers. Each line is an answer, and `|` ends those that are whole without the end of
/// the connection. The status behind it must be that of the next request.
#[tokio::test]
async fn pipelined_requests_get_their_own_status() {
    let end = "HTTP/1.1 299 Next\r\ncontent-length: 0\r\n\r\n";
    let cases: &[(&str, &str, u16)] = &[
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/", 200),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab", 200),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: gzip, Chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nA: b\r\n\r\n",
            200,
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
            404,
        ),
        ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200),
        ("CONNECT", "HTTP/1.1 407 No\r\ncontent-length: 1\r\n\r\nx", 407),
    ];
    for (method, answer, status) in cases {
        let first = format!("{method} x:1 HTTP/1.1\r\nhost: x\r\n\r\n");
        let requests = format!("{first}GET http://y/2 HTTP/1.1\r\nhost: y\r\n\r\n");
        let seen = answered(requests.as_bytes(), format!("{answer}{end}").as_bytes()).await;
        assert_eq!(seen, [Some(*status), Some(299)], "{answer}");
    }
    // Only the end of the connection ends these, so nothing behind them is an answer.
    let unknown: &[(&str, Option<u16>)] = &[
        ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Some(200)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", Some(200)),
        ("HTTP/1.1 200 OK\r\ncontent-length: +0\r\n\r\n", Some(200)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz", Some(200)),
        ("HTTP/1.1 101 Yes\r\n\r\n", Some(101)),
        ("\x1b[2Jnonsense\r\n\r\n", None),
        ("HTTP/1.1 xyz\r\n\r\n", None),
    ];
    for (answer, status) in unknown {
        let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2);
        let seen = answered(requests.as_bytes(), format!("{answer}{end}").as_bytes()).await;
        assert_eq!(seen, [*status, None], "{answer}");
    }
}

/// Sends these requests to a service that has read all of them before it answers with these bytes. Returns the recorded statuses.
async fn answered(requests: &[u8], answers: &[u8]) -> Vec<Option<u16>> {
    let wire = Wire::default();
    let (address, listener) = before_listener(&wire).await;
    let mut client = connect(address).await;
    client.write_all(requests).await.expect("it is read");
    let (mut service, _) = listener.accept().await.expect("a connection");
    let mut got = vec![0; requests.len()];
    service.read_exact(&mut got).await.expect("all of it");
    service.write_all(answers).await.expect("it is read");
    drop(service);
    assert_eq!(rest(&mut client).await, answers);
    wire.exchanges().iter().map(|it| it.status).collect()
}

/// Without a fault, a proxy changes nothing, whatever both sides send and however it is split.
#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_in_random_parts_pass_both_ways() {
    const PARTS: [&str; 24] = [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "HEAD / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 7\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nupgrade: x\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Yes\r\n\r\n",
        "HTTP/1.1 204 No\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "3;a=b\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\na: b\r\n\r\n",
        "FFFFFFFFFFFFFFFF\r\n",
        "\r\n",
        "\n",
        "\u{16}\u{3}",
        "P",
        "\0\u{1}\u{7f}",
        "a: b\r\n",
    ];
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut stream = || -> Vec<Vec<u8>> {
            let mut bytes = Vec::new();
            for _ in 0..random.usize(0..8) {
                match random.u8(0..6) {
                    0 => bytes.extend((0..random.usize(0..50)).map(|_| random.u8(..))),
                    _ => bytes.extend(PARTS[random.usize(..PARTS.len())].bytes()),
                }
            }
            if !bytes.is_empty() && random.u8(0..4) == 0 {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let mut parts = Vec::new();
            while !bytes.is_empty() {
                let rest = bytes.split_off(random.usize(1..=bytes.len()));
                parts.push(std::mem::replace(&mut bytes, rest));
            }
            parts
        };
        let (sent, answered) = (stream(), stream());
        let (address, listener) = before_listener(&Wire::default()).await;
        let client = connect(address).await;
        let (service, _) = listener.accept().await.expect("a connection");
        let ((at_client, at_service), what) =
            (within_reason(both_ways(client, service, &sent, &answered)).await, (&sent, &answered));
        assert!(at_service == sent.concat(), "seed {seed}: {what:?}, and {at_service:?} arrived");
        assert!(at_client == answered.concat(), "seed {seed}: {what:?}, and {at_client:?} came");
    }
}

/// Sends parts from both ends, which then close. Returns what arrives at the client and at the service.
async fn both_ways(
    client: TcpStream,
    service: TcpStream,
    sent: &[Vec<u8>],
    answered: &[Vec<u8>],
) -> (Vec<u8>, Vec<u8>) {
    let end = async |mut stream: TcpStream, parts: &[Vec<u8>]| {
        stream.set_nodelay(true).expect("an option");
        let (mut from, mut to) = stream.split();
        let write = async {
            for part in parts {
                to.write_all(part).await.expect("it is read");
                tokio::task::yield_now().await;
            }
            to.shutdown().await.expect("it is open");
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(from.read_to_end(&mut got), write);
        read.expect("bytes");
        got
    };
    tokio::join!(end(client, sent), end(service, answered))
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
    assert_eq!(wire.states()[0].dropped_requests, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_bytes_of_requests_are_kept() {
    let lab = Lab::start().await;
    // In memory, such a character takes two bytes.
    let value = [0xe9; 15_000];
    let request = [b"GET / HTTP/1.1\r\nx: ", &value[..], b"\r\n\r\n"].concat();
    passes(&lab.wire, &request.repeat(300), b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let kept = lab.wire.exchanges();
    let bytes: usize = kept.iter().map(|it| it.sent.len() * 2).sum();
    assert!((RECORD_BYTES / 2..RECORD_BYTES).contains(&bytes), "{bytes} B");
    let dropped = 300 - kept.len();
    assert_eq!(lab.wire.states()[0].dropped_requests, dropped);
    has(
        &lab.page("/wire").await,
        [&format!(
            "The last 50 of 300 requests, the newest first. The lab has dropped {dropped} older requests: it keeps the last 1000, \
            with at most 8 MiB of headers"
        )],
    );
    has(&lab.page("/wire.json").await, [&format!("\"dropped_requests\":{dropped},")]);
}

/// The header of a trace is recorded, wherever it stands.
#[tokio::test]
async fn a_header_behind_a_large_one_is_kept() {
    let wire = Wire::default();
    let [large, trace] =
        [format!("x: {}\r\n", "y".repeat(HEAD_BYTES)), "traceparent: 00\r\n".to_owned()];
    let request = format!("GET / HTTP/1.1\r\n{large}cookie: {large}{trace}\r\n");
    passes(&wire, request.as_bytes(), b"HTTP/1.1 204 No\r\n\r\n").await;
    let kept = format!(
        "GET / HTTP/1.1\r\ncookie: (not kept)\r\n{trace}({} more bytes are not kept)\r\n\r\n",
        large.len()
    );
    assert_eq!(wire.exchanges()[0].sent, kept);
}

/// The record keeps only the headers of a large head that fit, and the connection keeps nothing of it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn large_headers_leave_no_memory_behind() {
    const REQUESTS: usize = 200;
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let target = listener.local_addr().expect("an address");
    let lab = proxies::wire([("shop", target.to_string())]).await;
    let address = proxies::proxy(&lab, "shop").parse().expect("an address");
    let head = [b"GET / HTTP/1.1\r\nx: ", &[0xe9; 390_000][..], b"\r\n\r\n"].concat();
    let length = head.len() * REQUESTS;
    let service = async move {
        let (mut service, _) = listener.accept().await.expect("a connection");
        let mut service = (&mut service).take(length as u64);
        tokio::io::copy(&mut service, &mut tokio::io::sink()).await.expect("bytes")
    };
    let client = async {
        let mut client = connect(address).await;
        for _ in 0..REQUESTS {
            client.write_all(&head).await.expect("it is read");
        }
        client
    };
    let (passed, _client) = tokio::join!(service, client);
    assert_eq!(passed, length as u64);
    has(&lab.get("/wire").await, ["The last 50 of 200 requests"]);
    let status = format!("/proc/{}/status", lab.child.id().expect("it runs"));
    let status = std::fs::read_to_string(status).expect("a status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 150_000, "{peak} kB");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_one_with_a_request_is_not() {
    let limits = ProxyLimits { idle: Duration::from_secs(1), ..ProxyLimits::default() };
    let wire = Wire::with_limits(limits);
    let (address, listener) = before_listener(&wire).await;
    // Waits for longer than the limit: a connection that was opened now has reached its own.
    let wait = async || {
        assert_eq!(within_reason(rest(&mut connect(address).await)).await, b"");
        let (mut idle, _) = listener.accept().await.expect("a connection");
        assert_eq!(within_reason(rest(&mut idle)).await, b"");
    };
    let mut client = connect(address).await;
    let (mut service, _) = listener.accept().await.expect("a connection");
    let head = "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n";
    // A slow body and a slow answer.
    client.write_all(head.as_bytes()).await.expect("it is read");
    assert_eq!(read_to(&mut service, "\r\n\r\n").await, head);
    wait().await;
    client.write_all(b"hi").await.expect("it is read");
    read_to(&mut service, "hi").await;
    for part in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", "ok"] {
        wait().await;
        service.write_all(part.as_bytes()).await.expect("it is read");
        read_to(&mut client, part).await;
    }
    assert_eq!(within_reason(rest(&mut client)).await, b"");
    assert_eq!(wire.states()[0].idle_connections, 4);
}

#[tokio::test]
async fn half_a_head_is_answered_408() {
    let limits = ProxyLimits { head: Duration::from_millis(50), ..ProxyLimits::default() };
    let wire = Wire::with_limits(limits);
    let (address, listener) = before_listener(&wire).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nx: ").await.expect("it is read");
    let line = "the lab's proxy a-b got no whole head of a request within 0 s\n";
    has(&text(&mut client).await, ["HTTP/1.1 408 Request Timeout\r\n", line]);
    let (mut service, _) = listener.accept().await.expect("a connection");
    assert_eq!(within_reason(rest(&mut service)).await, b"");
    let seen = wire.exchanges();
    assert_eq!((seen[0].status, &*seen[0].sent), (Some(408), "GET / HTTP/1.1\r\nx: "));
    assert_eq!(seen[0].delivered, None);
}

/// A client that has closed its side, and a service that has closed while the client still sends.
#[tokio::test]
async fn a_connection_with_one_end_does_not_stay_open() {
    let [linger, half_closed] = [Duration::from_millis(50); 2];
    let limits = ProxyLimits { linger, half_closed, ..ProxyLimits::default() };
    let (address, listener) = before_listener(&Wire::with_limits(limits)).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
    client.shutdown().await.expect("it is open");
    let (mut service, _) = listener.accept().await.expect("a connection");
    // It never answers.
    assert_eq!(within_reason(rest(&mut client)).await, b"");
    assert_eq!(within_reason(rest(&mut service)).await, b"GET / HTTP/1.1\r\n\r\n");

    let mut client = connect(address).await;
    let (service, _) = listener.accept().await.expect("a connection");
    drop(service);
    let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n";
    // The limit may be reached before.
    let _ = client.write_all(head).await;
    let sends = async { while client.write_all(&[0; 10_000]).await.is_ok() {} };
    within_reason(sends).await;
}

#[tokio::test]
async fn a_connection_that_waits_makes_room_and_one_with_a_request_does_not() {
    let limits = ProxyLimits { connections: 2, grace: Duration::ZERO, ..ProxyLimits::default() };
    let lab = Lab::around(Store::new(Limits::default()), Wire::with_limits(limits)).await;
    let (address, listener) = before_listener(&lab.wire).await;
    let mut open = Vec::new();
    for _ in 0..60 {
        let client = connect(address).await;
        let (service, _) = listener.accept().await.expect("a connection");
        open.push((client, service));
    }
    for (client, service) in &mut open[..58] {
        assert_eq!(within_reason(rest(client)).await, b"");
        assert_eq!(within_reason(rest(service)).await, b"");
    }
    // The last two have a request in flight, so neither makes room.
    for (client, service) in &mut open[58..] {
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
        read_to(service, "\r\n\r\n").await;
    }
    let mut refused = connect(address).await;
    refused.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
    let line = "the lab's proxy a-b has as many connections as it takes: close some, or raise --max-connections\n";
    has(&text(&mut refused).await, ["HTTP/1.1 429 Too Many Requests\r\n", line]);
    bound_refusals(address).await;
    for (client, service) in &mut open[58..] {
        let answer = "HTTP/1.1 204 No\r\n\r\n";
        service.write_all(answer.as_bytes()).await.expect("it is read");
        read_to(client, answer).await;
    }
    has(
        &lab.page("/wire").await,
        [
            "a-b refused 302 connections with the status 429",
            "a-b closed 58 connections that waited for a request or were quiet",
        ],
    );
    let json = lab.page("/wire.json").await;
    has(&json, ["\"refused_connections\":302,\"replaced_connections\":58,\"idle_connections\":0"]);
    // One of the two waits now.
    let _client = connect(address).await;
    listener.accept().await.expect("a connection");
}

/// Nobody reads whether a request is in flight on it, so only silence counts.
#[tokio::test]
async fn a_connection_that_passes_unread_makes_room_once_it_is_quiet() {
    for (quiet, status) in [(Duration::ZERO, "200"), (Duration::from_secs(3600), "429")] {
        let limits = ProxyLimits { connections: 2, quiet, ..ProxyLimits::default() };
        let wire = Wire::with_limits(limits);
        let (address, listener) = before_listener(&wire).await;
        let mut open = Vec::new();
        for preface in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\0\0"] {
            let mut client = connect(address).await;
            client.write_all(preface.as_bytes()).await.expect("it is read");
            let (mut service, _) = listener.accept().await.expect("a connection");
            read_to(&mut service, preface).await;
            open.push((client, service));
        }
        // Bytes of the first pass after those of the second.
        open[0].1.write_all(b"settings").await.expect("it is read");
        read_to(&mut open[0].0, "settings").await;
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
        if status == "200" {
            assert_eq!(within_reason(rest(&mut open[1].0)).await, b"", "the quiet one is closed");
            let (mut service, _) = listener.accept().await.expect("a connection");
            service.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("it is read");
        }
        read_to(&mut client, &format!("HTTP/1.1 {status} ")).await;
        open[0].0.write_all(b"more").await.expect("it is read");
        read_to(&mut open[0].1, "more").await;
    }
}

/// Its request may be on the way.
#[tokio::test]
async fn a_connection_that_has_just_been_opened_does_not_make_room() {
    let grace = Duration::from_secs(3600);
    let limits = ProxyLimits { connections: 1, grace, ..ProxyLimits::default() };
    let wire = Wire::with_limits(limits);
    let target = serve(Router::new().fallback(async || "fine")).await;
    let address = proxied(&wire, target).await;
    let [mut first, mut second] = [connect(address).await, connect(address).await];
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    second.write_all(request).await.expect("it is read");
    has(&text(&mut second).await, ["HTTP/1.1 429 "]);
    first.write_all(request).await.expect("it is read");
    has(&text(&mut first).await, ["HTTP/1.1 200 "]);
}

/// A body without a length is whole when the connection ends, and not when it breaks.
#[tokio::test]
async fn a_broken_answer_is_not_a_whole_one() {
    let (address, listener) = before_listener(&Wire::default()).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
    let (mut service, _) = listener.accept().await.expect("a connection");
    read_to(&mut service, "\r\n\r\n").await;
    service.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").await.expect("it is read");
    read_to(&mut client, "part").await;
    service.set_zero_linger().expect("an option");
    drop(service);
    let end = within_reason(client.read(&mut [0])).await;
    assert_eq!(end.expect_err("a broken connection").kind(), ErrorKind::ConnectionReset);

    // A client that breaks off is gone for the service too.
    let client = connect(address).await;
    let (mut service, _) = listener.accept().await.expect("a connection");
    client.set_zero_linger().expect("an option");
    drop(client);
    within_reason(service.read(&mut [0])).await.expect("an end");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it_from_the_service() {
    let wire = Wire::default();
    let (address, listener) = before_listener(&wire).await;
    let mut client = connect(address).await;
    let (mut service, _) = listener.accept().await.expect("a connection");
    let head = "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let steps = [(true, head), (false, "HTTP/1.1 100 Continue\r\n\r\n"), (true, "hi")];
    let answer = (false, "HTTP/1.1 201 Yes\r\ncontent-length: 0\r\n\r\n");
    for (is_request, bytes) in steps.into_iter().chain([answer]) {
        let [from, to] = match is_request {
            true => [&mut client, &mut service],
            false => [&mut service, &mut client],
        };
        from.write_all(bytes.as_bytes()).await.expect("it is read");
        assert_eq!(read_to(to, bytes).await, bytes);
    }
    assert_eq!(wire.exchanges()[0].status, Some(201));
}

/// A tunnel, a protocol whose service speaks first, and a client that doesn't wait for the switch of protocols.
#[tokio::test]
async fn what_is_not_http_passes_in_any_order() {
    let wire = Wire::default();
    let (address, listener) = before_listener(&wire).await;
    let connect_to = "CONNECT shop:443 HTTP/1.1\r\nhost: shop:443\r\n\r\n";
    let upgrade = "GET /up HTTP/1.1\r\nupgrade: x\r\n\r\n";
    let cases: [&[(bool, &str)]; 3] = [
        &[
            (true, connect_to),
            (false, "HTTP/1.1 200 Yes\r\ncontent-length: 5\r\n\r\n"),
            (true, "GET /"),
            (false, "HTTP/1.1 500 "),
            (true, "\0"),
        ],
        &[
            (false, "220 mail"),
            (false, "\r\n"),
            (true, "E"),
            (true, "HLO\r\n"),
            (false, "250 \r\n"),
        ],
        &[(true, upgrade), (false, "HTTP/1.1 101 Yes\r\n\r\n"), (true, "early"), (false, "late")],
    ];
    for steps in cases {
        let mut client = connect(address).await;
        let (mut service, _) = listener.accept().await.expect("a connection");
        for (is_request, bytes) in steps {
            let [from, to] = match is_request {
                true => [&mut client, &mut service],
                false => [&mut service, &mut client],
            };
            from.write_all(bytes.as_bytes()).await.expect("it is read");
            assert_eq!(read_to(to, bytes).await, *bytes);
        }
    }
    let mut client = connect(address).await;
    let (mut service, _) = listener.accept().await.expect("a connection");
    client.write_all(format!("{upgrade}ear").as_bytes()).await.expect("it is read");
    read_to(&mut service, "\r\n\r\n").await;
    service.write_all(b"HTTP/1.1 101 Yes\r\n\r\n").await.expect("it is read");
    assert_eq!(read_to(&mut service, "ear").await, "ear");
    let seen = wire.exchanges();
    let seen: Vec<_> =
        seen.iter().map(|it| (it.sent.lines().next().expect("a line"), it.status)).collect();
    let [tunnel, up] = ["CONNECT shop:443 HTTP/1.1", "GET /up HTTP/1.1"];
    assert_eq!(seen, [(tunnel, Some(200)), (up, Some(101)), (up, Some(101))]);
}

/// The answer of a fault doesn't overtake those before it.
#[tokio::test]
async fn answers_of_the_proxy_keep_their_place() {
    let wire = Wire::default();
    let (address, listener) = before_listener(&wire).await;
    let mut client = connect(address).await;
    let (mut service, _) = listener.accept().await.expect("a connection");
    client.write_all(b"GET /1 HTTP/1.1\r\n\r\n").await.expect("it is read");
    read_to(&mut service, "\r\n\r\n").await;
    wire.set(HOP, Some(Fault::Answer500));
    client.write_all(b"GET /2 HTTP/1.1\r\n\r\n").await.expect("it is read");
    let mut changes = wire.changes();
    let are_seen = changes.wait_for(|_| wire.exchanges().len() == 2);
    drop(within_reason(are_seen).await.expect("a change"));
    service
        .write_all(b"HTTP/1.1 201 Yes\r\ncontent-length: 2\r\n\r\nhi")
        .await
        .expect("it is read");
    assert_eq!(read_to(&mut client, "hi").await, "HTTP/1.1 201 Yes\r\ncontent-length: 2\r\n\r\nhi");
    read_to(&mut client, "content-length: 0\r\n\r\n").await;
    let statuses: Vec<_> = wire.exchanges().iter().map(|it| it.status).collect();
    assert_eq!(statuses, [Some(201), Some(500)]);
}

/// A client can put escape sequences for a terminal into its headers.
#[tokio::test(flavor = "multi_thread")]
async fn control_characters_are_shown_as_text() {
    let lab = Lab::start().await;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    // A request is malformed with such a character in its target. Only what had come until then is recorded.
    for (target, value) in [("", "\u{1b}[2J\u{7}"), ("", "\u{9b}2J\u{ad}"), ("\u{9b}2J", "")] {
        let request = format!(
            "GET /{target}?<b> HTTP/1.1\r\ntraceparent: 00-{id}-00f067aa0ba902b7-01\r\nx: {value}\r\n\r\n"
        );
        // A character a byte.
        let request: Vec<u8> = request.chars().map(|it| it as u8).collect();
        passes(&lab.wire, &request, b"HTTP/1.1 204 No\r\n\r\n").await;
    }
    let (_, trace) = lab.get(format!("/traces/{id}")).await;
    let wire = lab.page("/wire").await;
    let text = report::wire_text(&Case::new(Vec::new(), lab.wire.exchanges()));
    has(&trace, ["What went over the wire"]);
    for shown in [&wire, &text] {
        has(shown, ["x: \\u{1b}[2J\\u{7}", "x: \\u{9b}2J"]);
    }
    for shown in [&trace, &wire, &text] {
        let control = shown.chars().find(|it| it.is_control() && *it != '\n');
        assert_eq!(control, None, "{shown:?}");
    }
    has(&wire, ["GET /\\u{9b}2J?&lt;b&gt;"]);
}

/// At the stop, a request in flight gets its answer, and a connection that waits is closed. The lab doesn't wait for an answer that
/// never comes.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_finish_but_not_for_ever() {
    for is_answered in [true, false] {
        let listener = TcpListener::bind(FREE).await.expect("a free port");
        let target = listener.local_addr().expect("an address");
        let mut lab = proxies::wire([("shop", target.to_string())]).await;
        let address = proxies::proxy(&lab, "shop").parse().expect("an address");
        let mut idle = connect(address).await;
        let (_idle_service, _) = listener.accept().await.expect("a connection");
        let mut client = connect(address).await;
        let (mut service, _) = listener.accept().await.expect("a connection");
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
        read_to(&mut service, "\r\n\r\n").await;
        process::kill("-TERM", &lab.child.id().expect("it runs").to_string());
        assert_eq!(within_reason(rest(&mut idle)).await, b"");
        // The listener and the idle connections close in any order.
        until(async || match TcpStream::connect(address).await {
            Ok(_) => Err("somebody listens"),
            Err(_) => Ok(()),
        })
        .await;
        if is_answered {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
            service.write_all(answer.as_bytes()).await.expect("it is read");
            assert_eq!(text(&mut client).await, answer);
        }
        let status = within_reason(lab.child.wait()).await.expect("it ends");
        assert_eq!(status.code(), Some(0));
        let warning =
            "Warning: 1 request of the proxies had no whole answer when the lab stopped\n";
        assert_eq!(lab.errors().await, if is_answered { "" } else { warning });
    }
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
