//! The wire: with no fault it changes nothing; with each fault, what the page of the fault lab says happens to the real
//! services. `SNAPSHOTS=overwrite cargo test --test book lab::wire` rewrites the page's figures.

use std::net::SocketAddr;

use crate::support;
use crate::support::in_process::{self, Lab};
use crate::support::recording::{Compared, check_named};
use crate::support::{FREE, Setup, WHOLE, client, shape};
use clap::ValueEnum as _;
use course::experiment::Experiment;
use course::hops::HOPS;
use lab::case::Case;
use lab::list::List;
use lab::report::Links;
use lab::request;
use lab::span::SpanKind;
use lab::tree::Tree;
use lab::viewer;
use lab::wire::{Fault, Hop, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One request of the fault lab, to services that are then stopped: so all their spans are there.
async fn experiment(hop: Hop, fault: Option<Fault>) -> Case {
    let setup = Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000);
    let system = setup.wired().start().await;
    let gateway = system.wire.address(HOPS[0]).expect("a proxy");
    let sent = Experiment { hop, fault }.send(gateway, &system.wire, &system.store);
    let id = sent.await.expect("it is sent");
    let stopped = system.stop().await;
    let list = List::new(stopped.store.clone());
    let case = request::case(&list, &stopped.wire, id).expect("a case");
    // Nothing of the request has been left out.
    assert_eq!(case.trees.len(), stopped.trees().len());
    assert_eq!(case.wire.len(), stopped.wire.exchanges().len());
    case
}

/// The tree of a request when nothing is wrong with its headers: that of the services, below the client.
fn whole() -> String {
    let services = WHOLE.lines().map(|line| format!("  {line}\n"));
    "POST /api/query CLIENT fault-lab http 200\n".to_owned() + &services.collect::<String>()
}

/// The lines of [`whole`] at which each hop's SERVER span stands, and how deep.
const SERVERS: [(usize, usize); 3] = [(1, 1), (3, 3), (6, 5)];

/// [`whole`] before a hop and behind it, each as a tree of its own.
fn halves(hop: Hop) -> [String; 2] {
    let index = HOPS.iter().position(|it| *it == hop).expect("a hop");
    let (line, depth) = SERVERS[index];
    let whole = whole();
    let lines: Vec<&str> = whole.lines().collect();
    let before = lines[..line].join("\n") + "\n";
    let behind: String = lines[line..].iter().map(|it| format!("{}\n", &it[2 * depth..])).collect();
    [before, behind]
}

/// The part of the tree before the hop, with the result of a failure there.
fn failed(hop: Hop, call: &str) -> String {
    let [before, _] = halves(hop);
    let last = before.lines().count() - 1;
    let lines = before.lines().enumerate().map(|(index, line)| match index == last {
        true => line.replace("http 200", call),
        // The caller's own client gets the error too.
        false if line.ends_with("http 200") => line.replace("http 200", "http 502 error 502"),
        false => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_there_is_one_trace_and_the_headers_arrive_as_they_were_sent() {
    let case = experiment(HOPS[0], None).await;
    assert_eq!(case.trees.iter().map(shape).collect::<Vec<_>>(), [whole()]);
    assert!(case.trees[0].is_whole());
    let hops: Vec<&str> = case.wire.iter().map(|it| it.hop.as_str()).collect();
    assert_eq!(hops, HOPS.map(|hop| hop.name));
    for exchange in &case.wire {
        assert_eq!(exchange.delivered.as_ref(), Some(&exchange.sent));
        assert_eq!(exchange.status, Some(200));
    }
    assert_eq!(case.findings(), []);
}

inventory::submit! {
    Compared(|| {
        let faults = Fault::value_variants().iter();
        faults.map(|fault| format!("faults/{}.html", fault.name())).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_on_every_hop_does_what_the_page_says() {
    let pairs = Fault::value_variants().iter().map(|fault| (*fault, HOPS));
    for (fault, hops) in pairs {
        let mut page = String::new();
        for hop in hops {
            let case = experiment(hop, Some(fault)).await;
            let what = format!("{} on {}", fault.name(), hop.name);
            traces_are_as_said(&case, hop, fault, &what);
            headers_are_as_said(&case, hop, fault, &what);
            let links = Links { book: "../", span: &|_| None };
            let figure = Experiment { hop, fault: Some(fault) }.figure(&case, &links);
            page.push_str(&format!(
                "<section class=\"fault\" id=\"{0}-{1}\"><h4>{0} on {1}</h4>{2}</section>\n",
                fault.name(),
                hop.name,
                figure.into_string()
            ));
        }
        check_named(&format!("faults/{}.html", fault.name()), &page);
    }
}

fn traces_are_as_said(case: &Case, hop: Hop, fault: Fault, what: &str) {
    let shapes: Vec<String> = case.trees.iter().map(shape).collect();
    let [before, behind] = halves(hop);
    let status = case.wire[0].status;
    let first = hop == HOPS[0];
    match fault {
        Fault::DropTraceparent | Fault::TruncateTraceparent | Fault::UpperCaseValue => {
            assert_eq!(shapes, [before, behind], "{what}");
            assert!(case.trees.iter().all(Tree::is_whole), "{what}");
            assert_eq!(status, Some(200), "{what}");
        }
        Fault::ForgeTraceparent => {
            assert_eq!(shapes, [before, behind], "{what}");
            assert!(case.trees[1].rows[0].orphan, "{what}");
            assert_eq!(status, Some(200), "{what}");
        }
        Fault::ClearSampled => {
            assert_eq!(shapes, [before], "{what}");
            assert_eq!(status, Some(200), "{what}");
        }
        Fault::UpperCaseName
        | Fault::DuplicateTraceparent
        | Fault::DropTracestate
        | Fault::DropBaggage => {
            assert_eq!(shapes, [whole()], "{what}");
            assert_eq!(status, Some(200), "{what}");
        }
        Fault::AddLatency => {
            assert_eq!(shapes, [whole()], "{what}");
            let rows = &case.trees[0].rows;
            let server = rows
                .iter()
                .find(|row| row.span.kind() == SpanKind::Server && row.span.service() == hop.to);
            let server = &server.expect("the span").span;
            let client = rows.iter().find(|row| Some(row.span.id) == server.parent);
            let gap = server.start() - client.expect("its parent").span.start();
            assert!(u128::from(gap) >= lab::wire::LATENCY.as_nanos(), "{what}: {gap}");
        }
        Fault::Cut => {
            let error = if first { "error connection" } else { "error unreachable" };
            assert_eq!(shapes, [failed(hop, error)], "{what}");
            assert_eq!(status, (!first).then_some(502), "{what}");
        }
        Fault::Answer500 => {
            assert_eq!(shapes, [failed(hop, "http 500 error 500")], "{what}");
            assert_eq!(status, Some(if first { 500 } else { 502 }), "{what}");
        }
    }
}

fn headers_are_as_said(case: &Case, hop: Hop, fault: Fault, what: &str) {
    let at = case.wire.iter().find(|it| it.hop == hop.name).expect("an exchange");
    assert_eq!(at.fault, Some(fault.name()), "{what}");
    let sent: Vec<&str> = at.sent.split("\r\n").collect();
    let Some(delivered) = &at.delivered else {
        assert!(matches!(fault, Fault::Cut | Fault::Answer500), "{what}");
        return;
    };
    let delivered: Vec<&str> = delivered.split("\r\n").collect();
    let line = |lines: &[&str], name: &str| {
        let prefix = format!("{name}: ");
        let found = lines.iter().find(|it| it.starts_with(&prefix));
        found.unwrap_or_else(|| panic!("{what}: no {name} in {lines:?}")).to_string()
    };
    let traceparent = line(&sent, "traceparent");
    let value = traceparent.strip_prefix("traceparent: ").expect("a value");
    let without = |name: &str| -> Vec<&str> {
        let prefix = format!("{name}:");
        sent.iter().copied().filter(|it| !it.starts_with(&prefix)).collect()
    };
    let with = |changed: String| -> Vec<String> {
        let lines = sent
            .iter()
            .map(|it| if *it == traceparent { changed.clone() } else { (*it).to_owned() });
        lines.collect()
    };
    match fault {
        Fault::DropTraceparent => assert_eq!(delivered, without("traceparent"), "{what}"),
        Fault::DropTracestate => assert_eq!(delivered, without("tracestate"), "{what}"),
        Fault::DropBaggage => assert_eq!(delivered, without("baggage"), "{what}"),
        Fault::TruncateTraceparent => {
            assert_eq!(delivered, with(format!("traceparent: {}", &value[..30])), "{what}")
        }
        Fault::UpperCaseValue => {
            assert_eq!(delivered, with(format!("traceparent: {}", value.to_uppercase())), "{what}")
        }
        Fault::UpperCaseName => {
            assert_eq!(delivered, with(format!("TRACEPARENT: {value}")), "{what}")
        }
        Fault::DuplicateTraceparent => {
            let twice = with(format!("{traceparent}\r\n{traceparent}")).join("\r\n");
            assert_eq!(delivered.join("\r\n"), twice, "{what}");
        }
        Fault::ClearSampled => {
            let cleared = format!("{}00", traceparent.strip_suffix("01").expect("sampled"));
            assert_eq!(delivered, with(cleared), "{what}");
        }
        Fault::ForgeTraceparent => {
            let forged = line(&delivered, "traceparent");
            assert_ne!(forged, traceparent, "{what}");
            assert_eq!(delivered, with(forged), "{what}");
        }
        Fault::AddLatency => assert_eq!(delivered, sent, "{what}"),
        Fault::Cut | Fault::Answer500 => panic!("{what}: something arrived"),
    }
    // On the other hops nothing was changed.
    for other in case.wire.iter().filter(|it| it.hop != hop.name) {
        assert_eq!((&other.fault, other.delivered.as_ref()), (&None, Some(&other.sent)), "{what}");
    }
}

/// A server for one connection: it reads `expected` bytes, sends `answer` and returns the bytes.
async fn echo(
    expected: usize,
    answer: &'static [u8],
) -> (SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let got = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut got = vec![0; expected];
        stream.read_exact(&mut got).await.expect("all of it");
        stream.write_all(answer).await.expect("it is read");
        stream.shutdown().await.expect("it is open");
        stream.read_to_end(&mut got).await.expect("the rest");
        got
    });
    (address, got)
}

async fn proxied(target: SocketAddr) -> (Wire, SocketAddr) {
    let wire = Wire::default();
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = wire.serve(HOPS[1], listener, target).expect("an address");
    (wire, address)
}

#[tokio::test]
async fn every_byte_passes_as_it_came() {
    let head = "POST /a?b=%20 HTTP/1.1\r\nHost: x\r\nX-Odd:no blank\r\nx-ODD:   three\t\r\nX-Latin: caf\u{e9}\r\n";
    let requests: [(&str, usize, String); 4] = [
        ("no body", 1, format!("{head}\r\n")),
        ("a body", 1, format!("{head}Content-Length: 5\r\n\r\nhello")),
        (
            "chunks",
            2,
            format!(
                "{head}transfer-ENCODING: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n{head}\r\n"
            ),
        ),
        ("two at once", 2, format!("{head}content-length: 2\r\n\r\nhi{head}\r\n")),
    ];
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 418 Teapot\r\nX-Odd:1\r\nx-odd: 2\r\n\r\nbody";
    for (what, requests_in, request) in requests {
        // A character a byte: not all of it is UTF-8.
        let request: Vec<u8> = request.chars().map(|it| it as u8).collect();
        let (target, got) = echo(request.len(), answer).await;
        let (wire, address) = proxied(target).await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // In two parts, so that no part is whole.
        let (first, second) = request.split_at(request.len() / 2);
        stream.write_all(first).await.expect("it is read");
        stream.write_all(second).await.expect("it is read");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.expect("an answer");
        assert_eq!(back, answer, "{what}");
        drop(stream);
        assert_eq!(got.await.expect("bytes"), request, "{what}");
        let seen = wire.exchanges();
        assert_eq!(seen.last().expect("one").status, Some(418), "{what}");
        assert_eq!(seen.len(), requests_in, "{what}");
        let sent: Vec<u8> = seen[0].sent.chars().map(|it| it as u8).collect();
        assert!(request.starts_with(&sent), "{what}");
    }
}

/// A client that has said all may still wait for the answer; and a connection that is closed is closed on both sides.
#[tokio::test]
async fn a_client_that_closes_its_half_is_answered_and_nothing_stays_open() {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let target = listener.local_addr().expect("an address");
    let (_, address) = proxied(target).await;
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is read");
    client.shutdown().await.expect("it is open");
    let (mut service, _) = listener.accept().await.expect("a connection");
    let mut got = Vec::new();
    // The end comes through as well.
    service.read_to_end(&mut got).await.expect("bytes");
    assert_eq!(got, b"GET / HTTP/1.1\r\n\r\n");
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    service.write_all(answer).await.expect("it is read");
    drop(service);
    let mut back = Vec::new();
    client.read_to_end(&mut back).await.expect("bytes");
    assert_eq!(back, answer);

    // A client that goes away.
    let client = TcpStream::connect(address).await.expect("a connection");
    let (mut service, _) = listener.accept().await.expect("a connection");
    drop(client);
    assert_eq!(support::within_reason(service.read(&mut [0])).await.expect("an end"), 0);
    drop(service);
}

/// A service may refuse a body before it has read it.
#[tokio::test]
async fn an_early_answer_reaches_the_client() {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let target = listener.local_addr().expect("an address");
    let (_, address) = proxied(target).await;
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
    let mut back = Vec::new();
    client.read_to_end(&mut back).await.expect("bytes");
    assert_eq!(back, b"HTTP/1.1 413 No\r\n\r\n");
    service.await.expect("it ends");
}

#[tokio::test]
async fn what_is_no_http_any_more_passes_too() {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let target = listener.local_addr().expect("an address");
    let (wire, address) = proxied(target).await;
    let request = b"GET / HTTP/1.1\r\nUpgrade: raw\r\n\r\n";
    let mut client = TcpStream::connect(address).await.expect("a connection");
    let (mut service, _) = {
        client.write_all(request).await.expect("it is read");
        listener.accept().await.expect("a connection")
    };
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
    got.clear();
    service.read_to_end(&mut got).await.expect("bytes");
    assert_eq!(got, b"\0\x01 not HTTP");
    let statuses: Vec<_> = wire.exchanges().iter().map(|it| it.status).collect();
    assert_eq!(statuses, [Some(204), Some(101)]);
}

#[tokio::test]
async fn what_is_no_http_ends_its_connection_alone() {
    let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1_000_000));
    let chunk = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n";
    let many = "GET / HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(1000);
    let bad = [
        "\0\0\0\0\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: minus\r\n\r\n",
        chunk,
        &long,
        &many,
    ];
    let (lab, system) = (Lab::start().await, Setup::default().wired().start().await);
    let address = system.wire.address(HOPS[0]).expect("a proxy");
    for bytes in bad {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // It may be closed before it has read all of it.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back).await;
        assert_eq!(back, b"", "{:?}", &bytes[..20]);
    }
    assert_eq!(system.ask("user_1").await.status(), 200);
    drop(lab);
    system.stop().await;
}

#[tokio::test]
async fn what_opens_doors_is_not_kept() {
    let request = b"GET / HTTP/1.1\r\nAUTHORIZATION: Bearer abc\r\ncookie: id=abc\r\n\r\n";
    let (target, got) = echo(request.len(), b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let (wire, address) = proxied(target).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request).await.expect("it is read");
    stream.read_to_end(&mut Vec::new()).await.expect("an answer");
    drop(stream);
    assert_eq!(got.await.expect("bytes"), request);
    assert!(!format!("{:?}", wire.exchanges()).contains("abc"));
}

#[tokio::test]
async fn only_so_many_requests_are_kept() {
    let request = b"GET / HTTP/1.1\r\n\r\n".repeat(lab::wire::EXCHANGES + 5);
    let (target, got) = echo(request.len(), b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let (wire, address) = proxied(target).await;
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(&request).await.expect("it is read");
    stream.read_to_end(&mut Vec::new()).await.expect("an answer");
    drop(stream);
    assert_eq!(got.await.expect("bytes").len(), request.len());
    assert_eq!(wire.exchanges().len(), lab::wire::EXCHANGES);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_the_terminal_set_faults_and_no_other_site_does() {
    let lab = Lab::start().await;
    let url = |path: &str| format!("http://{}{path}", lab.address);
    let set = async |path: &str, headers: &[(&str, &str)], body: &'static str| {
        let mut request = client().post(url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let json = ("content-type", in_process::JSON);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let drop = r#"{"fault":"drop-traceparent"}"#;
    // Without services there is nothing to break.
    assert_eq!(set("/wire/gateway-user", &[json], drop).await.0, 409);
    assert_eq!(set("/wire/try", &[json], r#"{"hop":"gateway-user"}"#).await.0, 409);
    assert!(lab.get("/wire").await.1.contains("runs no services"));

    let system = Setup::default().start().await;
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    lab.wire.serve(HOPS[1], listener, system.user.address).expect("an address");
    let (status, hops) = set("/wire/gateway-user", &[json], drop).await;
    assert_eq!(status, 200);
    assert!(hops.contains(r#""fault":"drop-traceparent""#), "{hops}");
    assert_eq!(lab.wire.fault(HOPS[1]), Some(Fault::DropTraceparent));
    assert!(lab.get("/wire").await.1.contains("Broken: drop-traceparent"));

    let (status, problem) = set("/wire/gateway-user", &[json], r#"{"fault":"burn"}"#).await;
    assert_eq!(status, 404);
    assert!(problem.contains("unknown fault \"burn\""), "{problem}");
    assert_eq!(set("/wire/nowhere", &[json], drop).await.0, 404);
    for foreign in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        for path in ["/wire/gateway-user", "/wire/try"] {
            let (status, _) = set(path, &[form, foreign], "fault=").await;
            assert_eq!(status, 403, "{foreign:?} {path}");
        }
    }
    assert_eq!(lab.wire.fault(HOPS[1]), Some(Fault::DropTraceparent));
    let origin = format!("http://{}", lab.address);
    let ours = [form, ("origin", &*origin), ("sec-fetch-site", "same-origin")];
    // The form leads back to the page.
    assert_eq!(set("/wire/gateway-user", &ours, "fault=").await.0, 200);
    assert_eq!(lab.wire.fault(HOPS[1]), None);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_over_the_wire_stands_beside_the_span_that_sent_it() {
    let system = Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000);
    let system = system.wired().start().await;
    let gateway = system.wire.address(HOPS[0]).expect("a proxy");
    let fault = Some(Fault::ClearSampled);
    let sent = Experiment { hop: HOPS[0], fault }.send(gateway, &system.wire, &system.store);
    let unseen = sent.await.expect("it is sent");
    let sent = Experiment { hop: HOPS[1], fault: None }.send(gateway, &system.wire, &system.store);
    let whole = sent.await.expect("it is sent");
    let stopped = system.stop().await;
    let address = support::serve(viewer::routes(stopped.store.clone(), stopped.wire.clone())).await;
    let get = async |path: String| {
        let answer = client().get(format!("http://{address}{path}")).send().await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let tree = stopped.tree(&whole.to_string());
    for (row, hop) in [(2, "gateway-user"), (3, "gateway-user"), (5, "user-llm")] {
        let span = tree.rows[row].span.id;
        let (_, detail) = get(format!("/traces/{whole}/spans/{span}")).await;
        assert!(detail.contains(&format!("<th scope=\"row\">{hop}</th>")), "{row}: {detail}");
        assert!(detail.contains("All that was sent"), "{detail}");
    }
    let (_, detail) = get(format!("/traces/{whole}/spans/{}", tree.rows[4].span.id)).await;
    assert!(!detail.contains("On the wire"), "{detail}");
    let (_, page) = get(format!("/traces/{whole}")).await;
    assert!(page.contains("What went over the wire") && page.contains("On the wire: 3 requests"));
    assert!(page.contains("Diagnosis: the trace is in order."));
    // Only the client has a span of the other one.
    let (_, page) = get(format!("/traces/{unseen}")).await;
    assert!(page.contains("Diagnosis: 1 finding. Not sampled"), "{page}");
    let (status, _) = get("/traces/4bf92f3577b34da6a3ce929d0e0e4736.case.json".to_owned()).await;
    assert_eq!(status, 404);
}

/// A header can be known although no span of its trace has arrived.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_without_a_span_is_diagnosed_by_its_header() {
    let system = Setup::default().wired().start().await;
    let address = system.wire.address(HOPS[2]).expect("a proxy");
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = client().post(format!("http://{address}/generate"));
    let request = request.header("traceparent", format!("00-{id}-00f067aa0ba902b7-00"));
    let request = request.json(&serde_json::json!({ "prompt": "?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let stopped = system.stop().await;
    let address = support::serve(viewer::routes(stopped.store, stopped.wire)).await;
    let answer = client().get(format!("http://{address}/traces/{id}")).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 404);
    let page = answer.text().await.expect("text");
    assert!(page.contains("the caller sent flags without the sampled bit"), "{page}");
}
