//! Proxies in front of a reader's own services: what passes, what each fault does there, and what they say about the rest.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use clap::ValueEnum as _;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use lab::case::Case;
use lab::report;
use lab::store::{Limits, Store};
use lab::wire::{Fault, Hop, LATENCY, Opaque, Wire};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use support::in_process::{Lab as LabInProcess, protobuf, span};
use support::process::{Lab, command, fails, run};
use support::{FREE, client, has, lacks, refused, serve, until, within_reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Endpoint;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A lab as a process with these proxies, written as `NAME=TARGET`. Each listens on a free port.
pub async fn wire<const N: usize>(proxies: [(&str, String); N]) -> Lab {
    let proxies = proxies.map(|(name, target)| format!(" {name}={FREE},{target}"));
    Lab::ready(command("lab", &format!("wire{}", proxies.concat())).await).await
}

/// Reads in what the lab has printed where a proxy listens.
pub fn proxy(lab: &Lab, name: &str) -> String {
    let mut lines = lab.printed.lines().filter_map(|line| line.strip_prefix("Proxy    http://"));
    let line = lines.find_map(|line| line.strip_suffix(&format!(" ({name})")));
    let line = line.unwrap_or_else(|| panic!("no proxy {name}: {}", lab.printed));
    line.split_once(" -> ").expect("a target").0.to_owned()
}

/// A proxy in this process before `target`.
async fn proxied(wire: &Wire, name: &str, target: &str) -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    wire.serve(Hop::named_after(name), listener, target).expect("an address")
}

/// Sends the only bytes of a new connection and returns all that comes back.
async fn exchange(address: &str, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(bytes.as_ref()).await.expect("it is read");
    // A fault may have closed it already.
    let _ = stream.shutdown().await;
    let mut back = Vec::new();
    within_reason(stream.read_to_end(&mut back)).await.expect("bytes");
    String::from_utf8(back).expect("text")
}

/// Reads from a connection up to and including `end`.
pub async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = within_reason(stream.read_u8()).await;
        text.push(char::from(byte.unwrap_or_else(|error| panic!("{error}, after {text:?}"))));
    }
    text
}

/// A service that answers each request with the head that it got.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A connection without a request fails alone.
            tokio::spawn(async move {
                let head = read_to(&mut stream, "\r\n\r\n").await;
                let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{head}");
                stream.write_all(answer.as_bytes()).await.expect("it is read");
            });
        }
    });
    address
}

/// A body without a length, which is sent in two chunks.
fn chunked(body: Bytes) -> impl hyper::body::Body<Data = Bytes, Error = std::io::Error> {
    let half = body.len() / 2;
    let chunks = [body.slice(..half), body.slice(half..)];
    StreamBody::new(stream::iter(chunks.map(|chunk| Ok(Frame::data(chunk)))))
}

/// Serves `POST /` and counts the connections.
async fn counted(routes: Router) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let listener = listener.tap_io(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_with_keep_alive_and_chunked_bodies_are_watched() {
    let users = Router::new().route("/users", post(async |body: Bytes| Body::new(chunked(body))));
    let (users, _) = counted(users).await;
    let next: Arc<OnceLock<String>> = Arc::default();
    let url = Arc::clone(&next);
    let call = async move |headers: HeaderMap, body: Bytes| {
        let url = format!("http://{}/users", url.get().expect("a proxy"));
        let request = client().post(url).header("traceparent", &headers["traceparent"]);
        let answer = request.body(reqwest::Body::wrap(chunked(body))).send().await;
        let answer = answer.expect("an answer").bytes().await.expect("a body");
        Body::new(chunked(answer))
    };
    let (gateway, connections) = counted(Router::new().route("/checkout", post(call))).await;
    let by_name = format!("localhost:{}", users.port());
    let lab = wire([("gateway", gateway.to_string()), ("users", by_name)]).await;
    next.set(proxy(&lab, "users")).expect("it is set once");

    // Two requests on one connection, each with a body in chunks.
    let address = proxy(&lab, "gateway");
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let request = format!(
        "POST /checkout HTTP/1.1\r\nhost: {address}\r\ntraceparent: {TRACEPARENT}\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    );
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).await.expect("it is read");
        let answer = read_to(&mut stream, "0\r\n\r\n").await;
        has(&answer, ["HTTP/1.1 200 OK", "transfer-encoding: chunked", "hello", " world"]);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);

    let page = lab.get("/wire").await;
    for (line, proxy, count) in [("POST /checkout", "gateway", 2), ("POST /users", "users", 2)] {
        let row = format!("<code>{line}</code></th><td>{proxy}</td>");
        assert_eq!(page.matches(&row).count(), count, "{row} is not in {page}");
    }
    let link = format!("<a href=\"/traces/{TRACE}\"><code>4bf92f35</code></a>");
    assert_eq!(page.matches(&link).count(), 4, "{page}");
    has(&page, ["4 requests, the newest first", "traceparent: 00-4bf92f35", "<time datetime="]);
    let list = lab.ask("break list").await;
    has(&list, [&format!("users    {} -> localhost:{}", proxy(&lab, "users"), users.port())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_seen_once_at_the_service() {
    let lab = wire([("users", mirror().await.to_string())]).await;
    let address = proxy(&lab, "users");
    let [trace, state, baggage] =
        [&format!("traceparent: {TRACEPARENT}\r\n"), "tracestate: a=1\r\n", "baggage: b=2\r\n"];
    let request = format!("GET /users HTTP/1.1\r\nhost: x\r\n{trace}{state}{baggage}\r\n");
    let upper = TRACEPARENT.to_uppercase();
    for fault in Fault::value_variants() {
        let set = lab.ask(&format!("break users {}", fault.name())).await;
        has(&set, [&fault.name()]);
        let start = Instant::now();
        let answer = exchange(&address, &request).await;
        let arrived = answer.split_once("\r\n\r\n").map_or("", |(_, head)| head);
        let expected = match fault {
            Fault::DropTraceparent => request.replace(trace, ""),
            Fault::TruncateTraceparent => request.replace(TRACEPARENT, &TRACEPARENT[..30]),
            Fault::UpperCaseValue => request.replace(TRACEPARENT, &upper),
            Fault::UpperCaseName => request.replace("traceparent", "TRACEPARENT"),
            Fault::DuplicateTraceparent => request.replace(trace, &trace.repeat(2)),
            Fault::ClearSampled => request.replace("b7-01", "b7-00"),
            Fault::DropTracestate => request.replace(state, ""),
            Fault::DropBaggage => request.replace(baggage, ""),
            Fault::ForgeTraceparent => {
                lacks(arrived, [TRACE]);
                has(arrived, ["traceparent: 00-"]);
                continue;
            }
            Fault::AddLatency => {
                assert!(start.elapsed() >= LATENCY, "{:?}", start.elapsed());
                request.clone()
            }
            Fault::Cut => {
                assert_eq!(answer, "");
                continue;
            }
            Fault::Answer500 => {
                assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
                continue;
            }
        };
        assert_eq!(arrived, expected, "{fault:?}");
        assert_ne!(arrived == request, *fault != Fault::AddLatency, "{fault:?}");
    }
    let page = lab.get("/wire").await;
    for fault in Fault::value_variants() {
        has(&page, [&format!("<span class=\"broken\">{}</span>", fault.name())]);
    }
    has(&page, ["<del><code>baggage: b=2</code></del>", "Headers: nothing arrived"]);
    has(&lab.ask("break restore").await, ["no fault"]);
    has(&exchange(&address, &request).await, [&request]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_passes_unread_and_the_lab_says_so() {
    let store = Store::new(Limits::default());
    let target = serve(lab::grpc::routes(store.clone())).await;
    let mut lab = wire([("receiver", target.to_string())]).await;
    let url = format!("http://{}", proxy(&lab, "receiver"));
    let export = async |id: u64| {
        let request = protobuf(vec![span(1, id, 0, "over gRPC")]);
        let request = ExportTraceServiceRequest::decode(&*request).expect("a request");
        let channel = Endpoint::from_shared(url.clone())?.connect().await?;
        let sent = TraceServiceClient::new(channel).export(request).await;
        anyhow::Ok(sent.map(drop)?)
    };
    for id in [1, 2] {
        export(id).await.expect("it is taken");
    }
    assert_eq!(store.usage().spans, 2);
    let note = "receiver passes HTTP/2 on unread: these requests aren't listed, and of the faults only cut works on them";
    has(&lab.get("/wire").await, [note, "HTTP/2: 2 connections", "None yet."]);
    has(&lab.get("/wire.json").await, [r#""unread":{"HTTP/2":2}"#]);

    // A fault of a header changes nothing, and the command says so.
    let set = run("lab", &format!("break receiver drop-traceparent --site {}", lab.site())).await;
    assert_eq!(String::from_utf8_lossy(&set.stderr), format!("Note: {note}\n"));
    export(3).await.expect("it is taken");

    // A connection that is open is cut as well.
    let mut open = TcpStream::connect(proxy(&lab, "receiver")).await.expect("a connection");
    open.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it is read");
    // The settings of the server.
    within_reason(open.read_u8()).await.expect("a byte");
    lab.ask("break receiver cut").await;
    within_reason(open.read_to_end(&mut Vec::new())).await.expect("an end");
    export(4).await.expect_err("a cut connection");
    lab.ask("break restore").await;
    export(5).await.expect("it is taken");
    assert_eq!(store.usage().spans, 4);

    // Said once in the terminal.
    assert_eq!(lab.signal("-TERM").await, Some(0));
    assert_eq!(lab.errors().await, format!("Note: {note}\n"));
}

#[tokio::test]
async fn tls_and_an_upgrade_to_http2_pass_unread() {
    let wire = Wire::default();
    let service = TcpListener::bind(FREE).await.expect("a free port");
    let target = service.local_addr().expect("an address").to_string();
    let address = proxied(&wire, "shop", &target).await;
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
    let upgrade = "GET /stock HTTP/1.1\r\nconnection: upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: \r\n\r\n";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    let mut client = TcpStream::connect(address).await.expect("a connection");
    // The first byte alone doesn't tell.
    client.write_all(&hello[..1]).await.expect("it is read");
    let (mut server, _) = service.accept().await.expect("a connection");
    client.write_all(&hello[1..]).await.expect("it is read");
    client.shutdown().await.expect("it is open");
    let mut got = Vec::new();
    within_reason(server.read_to_end(&mut got)).await.expect("bytes");
    assert_eq!(got, hello);

    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(upgrade.as_bytes()).await.expect("it is read");
    let (mut server, _) = service.accept().await.expect("a connection");
    assert_eq!(read_to(&mut server, "\r\n\r\n").await, upgrade);
    server.write_all(b"HTTP/1.1 101 Switching\r\n\r\n").await.expect("it is read");
    read_to(&mut client, "\r\n\r\n").await;
    client.write_all(preface.as_bytes()).await.expect("it is read");
    client.shutdown().await.expect("it is open");
    let mut got = String::new();
    within_reason(server.read_to_string(&mut got)).await.expect("text");
    assert_eq!(got, preface);

    let unread = BTreeMap::from([(Opaque::Http2, 1), (Opaque::Tls, 1)]);
    assert_eq!(wire.states()[0].unread, unread);
    let statuses: Vec<_> = wire.exchanges().iter().map(|it| it.status).collect();
    assert_eq!(statuses, [Some(101)]);
}

/// The service is down at first, and then it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_answered_for_and_found_again() {
    let (address, socket) = refused();
    let wire = Wire::default();
    let proxy = proxied(&wire, "users", &format!("localhost:{}", address.port())).await.to_string();
    let post = "POST /users HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";
    let answer = exchange(&proxy, post).await;
    let line = format!("the lab's proxy users can't reach localhost:{}: ", address.port());
    has(&answer, ["HTTP/1.1 502 Bad Gateway\r\n", "content-type: text/plain", &line]);
    let head = exchange(&proxy, "HEAD /users HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.ends_with("\r\n\r\n"), "{head}");
    // Another protocol has no answer that we know.
    assert_eq!(exchange(&proxy, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");

    let listener = socket.listen(8).expect("it listens");
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(async || "up")).await });
    let answer = client().get(format!("http://{proxy}/users")).send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("text"), "up");

    let seen = wire.exchanges();
    let seen: Vec<_> = seen.iter().map(|it| (it.status, it.delivered.is_some())).collect();
    assert_eq!(seen, [(Some(502), false), (Some(502), false), (Some(200), true)]);
    let lab = LabInProcess::around(Store::new(Limits::default()), wire).await;
    has(&lab.page("/wire").await, ["<span class=\"error\">502</span>", "Headers: nothing arrived"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_work_is_refused_in_a_line() {
    let taken = TcpListener::bind(FREE).await.expect("a free port");
    let taken = taken.local_addr().expect("an address");
    let free = support::free_port();
    let other = support::free_port();
    for (proxies, reason) in [
        (
            format!("a={FREE},localhost:1 a={FREE},localhost:2"),
            "two proxies are named a".to_owned(),
        ),
        (
            format!("a={FREE},localhost:1 b={taken},localhost:2"),
            format!(
                "the proxy b cannot listen on {taken} (choose another address): Address already in use"
            ),
        ),
        (
            format!("a=127.0.0.1:{free},localhost:{free}"),
            format!("the proxy a would forward to itself: localhost:{free} is where it listens"),
        ),
        (
            format!("a=0.0.0.0:{free},127.0.0.1:{free}"),
            "the proxy a would forward to itself".to_owned(),
        ),
        (
            format!("a=127.0.0.1:{free},127.0.0.1:{other} b=127.0.0.1:{other},localhost:{free}"),
            "the proxies b, a would forward to each other in a circle".to_owned(),
        ),
    ] {
        within_reason(fails("lab", &format!("wire {proxies}"), [&reason])).await;
    }
    let options = format!("view --wire a={FREE},localhost:1 --wire a={FREE},localhost:2");
    within_reason(fails("lab", &options, ["two proxies are named a"])).await;

    for (proxy, reason) in [
        ("gateway", "write NAME=LISTEN,TARGET"),
        ("gateway=127.0.0.1:8080", "write NAME=LISTEN,TARGET"),
        ("a/b=127.0.0.1:0,localhost:1", "\"a/b\" can't be a name"),
        ("=127.0.0.1:0,localhost:1", "\"\" can't be a name"),
        ("..=127.0.0.1:0,localhost:1", "\"..\" can't be a name"),
        ("list=127.0.0.1:0,localhost:1", "`lab break` has another use for it"),
        ("a=localhost:8080,localhost:1", "\"localhost:8080\" isn't an address to listen at"),
        ("a=127.0.0.1:0,localhost", "\"localhost\" isn't a service"),
        ("a=127.0.0.1:0,localhost:0", "\"localhost:0\" isn't a service"),
        ("a=127.0.0.1:0,http://localhost:1", "\"http://localhost:1\" isn't a service"),
        ("a=127.0.0.1:0,::1:80", "\"::1:80\" isn't a service"),
    ] {
        let output = within_reason(run("lab", &format!("wire {proxy}"))).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{proxy}: {stderr}");
        has(stderr.lines().next().expect("a line"), [reason]);
    }
    let without = run("lab", "wire").await;
    assert_eq!(without.status.code(), Some(2), "{without:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn view_takes_proxies_too_and_every_form_of_a_target() {
    let arguments = format!("--wire six={FREE},[::1]:9090 --wire name={FREE},shop.internal:80");
    let lab = Lab::view(&arguments).await;
    has(&lab.printed, [" -> [::1]:9090 (six)\n", " -> shop.internal:80 (name)\n"]);
    has(&lab.ask("break six cut").await, ["cut", "no fault"]);
    lab.refuses("break seven cut", "unknown hop \"seven\": use one of six, name").await;
}

/// The proxies of a reader are named after their services, so a sentence names each once.
#[tokio::test(flavor = "multi_thread")]
async fn a_finding_names_the_service_once() {
    let lab = LabInProcess::start().await;
    let address = proxied(&lab.wire, "users", &mirror().await.to_string()).await.to_string();
    let line = format!("traceparent: {TRACEPARENT}\r\n");
    exchange(&address, format!("GET / HTTP/1.1\r\n{line}{line}\r\n")).await;
    lab.export_spans(vec![span(1, 1, 0, "users")]).await;
    let (_, case) = lab.get("/traces.case.json").await;
    let case = Case::read(case.as_bytes()).expect("a case");
    has(&report::text(&case, ""), ["(certain): users got 2 `traceparent` headers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_hears_of_every_change() {
    let lab = LabInProcess::start().await;
    let address = proxied(&lab.wire, "users", &mirror().await.to_string()).await.to_string();
    let page = lab.page("/wire").await;
    let (_, events) = page.split_once("data-live=\"").expect("a live page");
    let events = events.split('"').next().expect("an address");
    let url = format!("http://{}{events}", lab.address);
    let mut stream = client().get(&url).send().await.expect("an answer");
    exchange(&address, "GET / HTTP/1.1\r\n\r\n").await;
    let event = within_reason(stream.chunk()).await.expect("bytes").expect("an event");
    assert_eq!(event, "data: new\n\n");
    // A page that is older than the request hears of it immediately.
    let mut stream = client().get(&url).send().await.expect("an answer");
    let event = within_reason(stream.chunk()).await.expect("bytes").expect("an event");
    assert_eq!(event, "data: new\n\n");
    until(async || {
        let page = lab.page("/wire").await;
        page.contains("1 request, the newest first").then_some(()).ok_or(page)
    })
    .await;
}
