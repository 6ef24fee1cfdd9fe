//! The pages under attack: requests of other sites, over each protocol, and contents that make large pages.

use std::fmt::Write as _;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use futures_util::future::{Either, select};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::render::{RENDERERS, Renderers, UNREAD_LIMIT, in_turn};
use lab::store::{Limits, Store};
use lab::wire::{Hop, Wire};
use lab::{listen, server, viewer};
use support::in_process::{JSON, Lab, spans, trace_path};
use support::process::{Lab as Process, command};
use support::{FREE, client, has, lacks, until, within_reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Paths of the site, and one that it does not have.
const PATHS: [&str; 13] = [
    "/traces",
    "/traces.json",
    "/traces.case.json",
    "/traces/01010101010101010101010101010101",
    "/traces/01010101010101010101010101010101.json",
    "/traces/map",
    "/traces/events",
    "/traces/viewer.js",
    "/wire",
    "/wire.json",
    "/api/services",
    "/api/traces?limit=200000",
    "/nowhere",
];

/// Headers that a browser sends: whose page sends the request, and for what.
type Headers<'a> = &'a [(&'a str, &'a str)];

/// A request of a page of another site, or of another program on this machine.
const FOREIGN: [Headers; 6] = [
    &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
    &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
    &[
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "iframe"),
    ],
    &[("origin", "https://evil.example")],
    &[("origin", "http://evil.example")],
    &[("origin", "null")],
];

/// Programs send none of these headers. The second is from the site's own pages, the third from a reader who types an address, and
/// the last from one who follows a link.
const OURS: [Headers; 4] = [
    &[],
    &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
    &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
    &[
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ],
];

/// Sends a request over HTTP/1.1, or over HTTP/2 without TLS, to a server that the request calls `host`. Returns the status and
/// the headers of the answer.
async fn send(
    address: SocketAddr,
    http2: bool,
    host: &str,
    request: axum::http::request::Builder,
    body: &'static str,
) -> (u16, HeaderMap) {
    let mut request = request.body(Body::from(body)).expect("a request");
    let stream = TokioIo::new(TcpStream::connect(address).await.expect("a connection"));
    let answer = if http2 {
        let path = request.uri().clone();
        *request.uri_mut() = format!("http://{host}{path}").parse().expect("a URI");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        within_reason(sender.send_request(request)).await
    } else {
        request.headers_mut().insert("host", host.parse().expect("a value"));
        let handshake = hyper::client::conn::http1::handshake(stream);
        let (mut sender, connection) = handshake.await.expect("HTTP/1.1");
        tokio::spawn(connection);
        within_reason(sender.send_request(request)).await
    };
    let answer = answer.expect("an answer");
    (answer.status().as_u16(), answer.headers().clone())
}

/// A request with these headers.
fn request(method: &str, path: &str, headers: Headers) -> axum::http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

#[tokio::test]
async fn a_page_of_another_site_reads_and_changes_nothing_over_any_protocol() {
    let wire = Wire::default();
    wire.announce([Hop::named_after("a")]);
    let lab = Lab::around(Store::new(Limits::default()), wire).await;
    lab.store.add(spans("1 a 1 SERVER 0..9 GET /"));
    let address = lab.address;
    let host = address.to_string();
    for http2 in [false, true] {
        let status = async |request| send(address, http2, &host, request, "").await.0;
        for path in PATHS {
            for headers in FOREIGN {
                let refused = status(request("GET", path, headers)).await;
                assert_eq!(refused, 403, "{path} {headers:?} {http2}");
            }
            for headers in OURS {
                let expected = if path == "/nowhere" { 404 } else { 200 };
                let answered = status(request("GET", path, headers)).await;
                assert_eq!(answered, expected, "{path} {headers:?} {http2}");
            }
        }
        let form = ("content-type", "application/x-www-form-urlencoded");
        let post = async |headers: Headers<'_>| {
            let request = request("POST", "/wire/a", &[headers, &[form]].concat());
            send(address, http2, &host, request, "fault=cut").await.0
        };
        for headers in FOREIGN.into_iter().chain([OURS[2], OURS[3]]) {
            assert_eq!(post(headers).await, 403, "{headers:?} {http2}");
        }
        assert_eq!(lab.wire.fault("a"), None);
        let origin = format!("http://{host}");
        // The hop has no proxy.
        let own = [("origin", &*origin), ("sec-fetch-site", "same-origin")];
        assert_eq!(post(&own).await, 409, "{http2}");
        let import =
            request("POST", "/traces/import", &[("content-type", JSON), ("origin", "null")]);
        assert_eq!(send(address, http2, &host, import, "{}").await.0, 403, "{http2}");
    }
}

/// Another site can point its name at this machine. Then the browser takes the lab for that site.
#[tokio::test]
async fn a_name_that_points_here_reads_nothing_over_any_protocol() {
    let listener = listen::bind("--site", FREE.parse().expect("an address")).await.expect("free");
    let address = listener.local_addr().expect("an address");
    let pages = server::pages(Store::new(Limits::default()), Wire::default());
    let hosts = listen::AllowedHosts::Addresses;
    tokio::spawn(listen::serve(listener, 100, hosts, pages, std::future::pending()));
    let port = address.port();
    for http2 in [false, true] {
        for (host, expected) in [
            (format!("127.0.0.1:{port}"), 200),
            (format!("localhost:{port}"), 200),
            (format!("evil.example:{port}"), 421),
            (format!("localhost.evil.example:{port}"), 421),
        ] {
            let request = request("GET", "/traces.json", &[]);
            let (status, _) = send(address, http2, &host, request, "").await;
            assert_eq!(status, expected, "{host} {http2}");
        }
    }
    // HTTP/2 can have both.
    for (header, authority) in [("evil.example", "localhost"), ("localhost", "evil.example")] {
        let both = request("GET", "/traces.json", &[("host", header)]);
        assert_eq!(send(address, true, authority, both, "").await.0, 421, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_the_browser_to_be_careful() {
    let lab = Process::view("").await;
    let site = lab.site();
    let refused = client().get(format!("http://{site}/traces")).header("origin", "null");
    let answers = PATHS.into_iter().chain(["/"]);
    let answers = answers.map(|path| client().get(format!("http://{site}{path}")));
    for request in answers.chain([refused]) {
        let answer = request.send().await.expect("an answer");
        let text =
            |name: &str| answer.headers().get(name).map_or("", |it| it.to_str().expect("text"));
        let url = answer.url();
        assert_eq!(text("x-content-type-options"), "nosniff", "{url}");
        // With `no-referrer`, browsers would send `Origin: null` with our own forms.
        assert_eq!(text("referrer-policy"), "same-origin", "{url}");
        has(text("content-security-policy"), ["default-src 'none'", "frame-ancestors 'none'"]);
    }
}

/// The largest amount of memory that a process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak(id: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a size");
    1024 * line.trim_end_matches("kB").trim().parse::<usize>().expect("a number")
}

/// One request may ask for all that a lab has.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_the_whole_store_takes_little_memory() {
    const TRACES: usize = 20_000;
    let lab = Process::view("").await;
    let (value, name) = ("x".repeat(2000), "y".repeat(2000));
    for batch in 0..20 {
        let rows = (0..TRACES / 20).fold(String::new(), |mut rows, row| {
            let id = 1 + batch * TRACES / 20 + row;
            let trace = format!("{{\"traceId\": \"{id:032x}\"}}");
            let _ = writeln!(rows, "1 shop 1 SERVER {id}..{id} {name} value={value} {trace}");
            rows
        });
        let request = client().post(format!("http://{}/v1/traces", lab.otlp()));
        let body = support::in_process::table(&rows).to_string();
        let answer = request.header("content-type", JSON).body(body).send().await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    let before = peak(&lab.id());
    for (path, least) in [
        ("/api/traces?limit=200000", TRACES * value.len()),
        ("/traces.case.json", TRACES * value.len()),
        ("/traces", 200 * 200),
        ("/traces.json", TRACES * name.len()),
        ("/traces?text=nowhere", 0),
        ("/api/services", 0),
        ("/api/dependencies", 0),
        ("/traces/map", 0),
    ] {
        let url = format!("http://{}{path}", lab.site());
        let mut answer = client().get(url).send().await.expect("an answer");
        let mut length = 0;
        while let Some(chunk) = within_reason(answer.chunk()).await.expect("a chunk") {
            length += chunk.len();
        }
        assert!(length > least, "{path}: {length} bytes");
        let more = peak(&lab.id()) - before;
        assert!(more < 32 << 20, "{path}: {more} bytes of memory");
    }
}

/// A file that is larger than the lab may keep.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_takes_little_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let value = "x".repeat(20_000);
    let row = |id: usize| format!("1 shop {id} SERVER 0..9 GET / value={value}");
    let mut lines = String::new();
    for id in 1..=2400 {
        let trace = format!("{{\"traceId\": \"{id:032x}\"}}");
        let _ = writeln!(lines, "{}", support::in_process::table(&format!("{} {trace}", row(id))));
    }
    let file = folder.path().join("large.jsonl");
    std::fs::write(&file, &lines).expect("written");
    let empty = Process::view("").await;
    let arguments = format!("--open {} --max-bytes 4000000", file.display());
    let lab = Process::view(&arguments).await;
    has(&lab.printed, ["2400 spans"]);
    has(&lab.get("/traces").await, ["older traces"]);
    let more = peak(&lab.id()) - peak(&empty.id());
    assert!(more < lines.len(), "{more} bytes of memory for {} bytes", lines.len());
}

/// Opening a pipe waits for the program at its other end, and reading it for what that program writes.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_lab_that_waits_for_a_file_can_be_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    for (flag, signal) in [("--open", "-INT"), ("--save", "-TERM"), ("--open", "-HUP")] {
        let mut lab =
            Process::spawn(command("lab", &format!("view {flag} {}", pipe.display())).await);
        // Two are of the signals. The lab listens at the other three before it opens files.
        until(async || match descriptors(&lab.id()) {
            sockets if sockets >= 5 => Ok(()),
            sockets => Err(sockets),
        })
        .await;
        assert_eq!(lab.signal(signal).await, Some(0), "{flag} {signal}");
    }
    let mut lab = Process::spawn(command("lab", &format!("view --open {}", pipe.display())).await);
    // This waits until the lab has opened it too.
    let path = pipe.clone();
    let open = tokio::task::spawn_blocking(move || std::fs::File::create(path));
    let mut writer = within_reason(open).await.expect("no panic").expect("a pipe");
    let span = support::in_process::table("1 shop 1 SERVER 0..9 GET /");
    std::io::Write::write_all(&mut writer, format!("{span}\n").as_bytes()).expect("written");
    assert_eq!(lab.signal("-INT").await, Some(0));
}

/// While it waits for the file's beginning, and while it reads.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_reads_a_file_can_be_stopped() {
    support::process::handle_ignored_signals();
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    for (name, length) in [("diagnose", 0), ("diagnose", 5_000_000), ("trace", 0), ("traces", 10)] {
        let mut lab = Process::spawn(command("lab", &format!("{name} {}", pipe.display())).await);
        let path = pipe.clone();
        let writer = tokio::task::spawn_blocking(move || {
            // This waits until the lab opens it too.
            let mut writer = std::fs::File::create(path)?;
            std::io::Write::write_all(&mut writer, &vec![b'['; length])?;
            std::io::Result::Ok(writer)
        });
        let writer = within_reason(writer).await.expect("no panic").expect("it is read");
        // It ends by the signal, so it has no exit status of its own.
        assert_eq!(lab.signal("-INT").await, None, "{name} {length}");
        drop(writer);
    }
}

/// The number of sockets that a process has.
#[cfg(target_os = "linux")]
fn descriptors(id: &str) -> usize {
    let Ok(files) = std::fs::read_dir(format!("/proc/{id}/fd")) else { return 0 };
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// A file is imported while it arrives, so it takes little memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_imported_while_it_arrives() {
    let lab = Lab::start().await;
    let value = "x".repeat(40_000);
    let row = |id: usize| format!("1 shop {id} SERVER 0..9 GET / value={value}");
    let line = |id: usize| support::in_process::table(&row(id)).to_string() + "\n";
    let first: String = (1..=150).map(line).collect();
    let last: String = (151..=160).map(line).collect();
    let mut stream = TcpStream::connect(lab.address).await.expect("a connection");
    let head = format!(
        "POST /traces/import HTTP/1.1\r\nhost: {}\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        lab.address,
        first.len() + last.len()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(first.as_bytes()).await.expect("written");
    until(async || match lab.spans() {
        0 => Err("nothing has been imported"),
        _ => Ok(()),
    })
    .await;
    stream.write_all(last.as_bytes()).await.expect("written");
    let mut answer = String::new();
    within_reason(stream.read_to_string(&mut answer)).await.expect("text");
    has(&answer, ["200 OK", r#""spans":160"#]);
    assert_eq!(lab.spans(), 160);

    let too_large = format!(
        "POST /traces/import HTTP/1.1\r\nhost: {}\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        lab.address,
        viewer::IMPORT_LIMIT + 1
    );
    let mut stream = TcpStream::connect(lab.address).await.expect("a connection");
    stream.write_all(too_large.as_bytes()).await.expect("written");
    let mut answer = String::new();
    within_reason(stream.read_to_string(&mut answer)).await.expect("text");
    has(&answer, ["413", "a file has at most 268435456 bytes"]);
}

/// Clients that don't read their answers hold up nobody.
#[tokio::test]
async fn slow_readers_hold_up_nobody() {
    let lab = Lab::start().await;
    let value = "x".repeat(200_000);
    let row = |id: usize| format!("{id} a 1 SERVER 0..1 GET / value={value}");
    lab.store.add(spans(&(1..100).map(row).collect::<Vec<_>>().join("\n")));
    let mut unread = Vec::new();
    for _ in 0..3 * RENDERERS {
        for path in ["/api/traces?limit=100", "/traces.case.json"] {
            let url = format!("http://{}{path}", lab.address);
            unread.push(within_reason(client().get(url).send()).await.expect("an answer"));
        }
    }
    for path in ["/traces", "/traces/map", "/api/services", &trace_path(1)] {
        within_reason(lab.page(path)).await;
    }
    drop(unread);
}

/// Answers that nobody reads are held in memory, so their size is limited.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_is_not_given_while_nobody_reads_another() {
    // It doesn't fit into the buffers between the lab and its client.
    let large = Router::new().route("/", get(async || vec![b'x'; UNREAD_LIMIT]));
    let routes = large.layer(from_fn_with_state(Renderers::default(), in_turn));
    let url = format!("http://{}", support::serve(routes).await);
    let ask = async || within_reason(client().get(&url).send()).await.expect("an answer");
    let unread = ask().await;
    assert_eq!(unread.content_length(), Some(UNREAD_LIMIT as u64));
    assert_eq!(ask().await.status(), 503);
    let read = within_reason(unread.bytes()).await.expect("all of it");
    assert_eq!(read.len(), UNREAD_LIMIT);
    until(async || match ask().await.status() {
        status if status == 200 => Ok(()),
        status => Err(status),
    })
    .await;
}

/// This test has one thread for all requests, so a page that was rendered on it would be answered first.
#[tokio::test]
async fn a_heavy_page_does_not_hold_up_a_light_one() {
    let lab = Lab::start().await;
    let row = |id: usize| format!("1 s{id} {id}<{} SERVER 0..1 GET /", id / 2);
    lab.store.add(spans(&(1..=8000).map(row).collect::<Vec<_>>().join("\n")));
    let heavy = std::pin::pin!(lab.page(trace_path(1)));
    let light = std::pin::pin!(async {
        // The first may come before the heavy request.
        for _ in 0..20 {
            lab.page("/wire.json").await;
        }
    });
    match select(heavy, light).await {
        Either::Left(_) => panic!("the heavy page is answered first"),
        Either::Right(((), heavy)) => drop(heavy.await),
    }
}

#[tokio::test]
async fn a_trace_of_many_services_makes_small_pages_that_say_what_is_missing() {
    const SERVICES: usize = 6000;
    let lab = Lab::start().await;
    let row = |id: usize| {
        let parent = if id == 1 { String::new() } else { format!("<{}", id / 2) };
        format!("1 service-{id} {id}{parent} SERVER {id}..{} GET /", 2 * SERVICES)
    };
    lab.store.add(spans(&(1..=SERVICES).map(row).collect::<Vec<_>>().join("\n")));
    let list = lab.page("/traces").await;
    has(&list, ["and 5980 more"]);
    assert!(list.len() < 100_000, "{} bytes", list.len());
    let page = lab.page(trace_path(1)).await;
    has(
        &page,
        [
            "6000 spans from 6000 services",
            "the first 5000 rows are shown",
            "The first 200 of 6000 services are shown.",
            "the 500 most frequent of 5999 are shown",
        ],
    );
    assert!(page.len() < 10_000_000, "{} bytes", page.len());
    let map = lab.page("/traces/map").await;
    has(&map, ["the 500 most frequent of 5999 are shown"]);
    lacks(&map, ["<svg"]);
    assert!(map.len() < 200_000, "{} bytes", map.len());
}

/// Spans share their resource, and pages must not multiply it.
#[tokio::test]
async fn a_long_name_of_a_service_is_not_copied_for_each_trace() {
    const TRACES: usize = 200;
    let lab = Lab::start().await;
    let name = "x".repeat(500_000);
    let mut request = support::in_process::table(&format!("1 {name} 1 SERVER 0..1 GET /"));
    let scope = &mut request["resourceSpans"][0]["scopeSpans"][0];
    let span = scope["spans"][0].clone();
    scope["spans"] = (1..=TRACES)
        .map(|id| {
            let mut span = span.clone();
            span["traceId"] = format!("{id:032x}").into();
            span
        })
        .collect();
    assert_eq!(lab.export(JSON, "", request.to_string()).await.0, 200);
    let list = lab.page("/traces.json").await;
    assert!(list.len() < TRACES * 2000, "{} bytes", list.len());
    let page = lab.page("/traces").await;
    assert!(page.len() < TRACES * 5000, "{} bytes", page.len());
    let case = lab.page(format!("/traces/{:032x}", 1)).await;
    assert!(case.len() < 100_000, "{} bytes", case.len());
}

/// A lab that was installed alone has the same protection as the course.
#[tokio::test]
async fn a_page_that_is_missing_is_protected_too() {
    let pages = server::pages(Store::new(Limits::default()), Wire::default());
    let address = support::serve(server::protected(viewer::without_book(pages))).await;
    for headers in FOREIGN {
        let host = address.to_string();
        assert_eq!(send(address, false, &host, request("GET", "/", headers), "").await.0, 403);
    }
}

#[test]
fn the_lab_checks_for_overflow_in_release_builds_too() {
    let manifest = std::fs::read_to_string(support::root().join("Cargo.toml")).expect("a file");
    let (_, release) = manifest.split_once("[profile.release]\n").expect("a profile");
    has(release.split("\n[").next().expect("a section"), ["overflow-checks = true"]);
}
