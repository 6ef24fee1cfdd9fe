//! Attacks the lab with hostile input and measures the memory at its peak, the longest wait for a page during the attack, and the
//! acknowledged spans, and the spans of answered requests, that were lost.
//!
//! Run it with `cargo bench --bench siege`. Each attack meets a new lab on loopback and is bounded. The exit status is 1 when
//! an aim is missed. `cargo bench --bench siege -- WORD…` runs only the attacks whose name contains one of these words.

use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use lab::proto::collector::ExportTraceServiceRequest;
use lab::proto::trace::{ResourceSpans, ScopeSpans, Span};
use lab::receiver::BODY_LIMIT;
use prost::Message as _;
use support::process::Lab;
use support::{FREE, Setup, WHOLE, client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The memory that an attack may cost beyond the store.
const MEMORY_AIM: f64 = 64.0;
/// The longest wait for a page beside an attack.
const PAGE_AIM: Duration = Duration::from_secs(1);
/// How long an attack that sends until it is stopped goes on.
const DURATION: Duration = Duration::from_secs(5);

type Attacked = Pin<Box<dyn Future<Output = usize> + Send>>;

/// An attack, which returns the number of its inputs.
struct Attack {
    name: &'static str,
    /// The number of spans that the store holds before the attack, each in its own trace.
    filled: u64,
    /// Whether the attack itself fills the store, so that its memory isn't beyond it.
    fills: bool,
    run: fn(Target) -> Attacked,
}

const fn attack(name: &'static str, run: fn(Target) -> Attacked) -> Attack {
    Attack { name, filled: 1, fills: false, run }
}

const ATTACKS: &[Attack] = &[
    attack("JSON of empty spans, packed", |on| {
        Box::pin(flood(on, JSON, packed(json("[{\"scopeSpans\":[{\"spans\":[", "{}"))))
    }),
    attack("JSON of empty resources, packed", |on| {
        Box::pin(flood(on, JSON, packed(json("[", "{}"))))
    }),
    attack("JSON of empty attributes, packed", |on| {
        let head = "[{\"scopeSpans\":[{\"spans\":[{\"attributes\":[";
        Box::pin(flood(on, JSON, packed(json(head, "{}"))))
    }),
    attack("JSON of empty values, packed", |on| {
        let head = "[{\"resource\":{\"attributes\":[{\"key\":\"a\",\"value\":{\"arrayValue\":{\"values\":[";
        Box::pin(flood(on, JSON, packed(json(head, "{}"))))
    }),
    attack("JSON 100,000 levels deep, packed", |on| {
        let head = format!("{{\"resourceSpans\":{}", "[".repeat(100_000));
        Box::pin(flood(on, JSON, packed(head.into())))
    }),
    attack("protobuf of empty spans, packed", |on| {
        Box::pin(flood(on, PROTOBUF, packed(protobuf(BODY_LIMIT, &[0x12, 0], &[0x12, 0x0a]))))
    }),
    attack("protobuf of empty resources, packed", |on| {
        Box::pin(flood(on, PROTOBUF, packed(protobuf(BODY_LIMIT, &[0x0a, 0], &[]))))
    }),
    attack("protobuf of empty attributes, packed", |on| {
        let body = protobuf(BODY_LIMIT, &[0x4a, 0], &[0x12, 0x12, 0x0a]);
        Box::pin(flood(on, PROTOBUF, packed(body)))
    }),
    attack("60 gRPC messages of empty spans, packed", |on| Box::pin(grpc(on))),
    Attack {
        filled: 200_000,
        ..attack("4 times all traces by Jaeger's API", |on| {
            Box::pin(get(on, 4, "/api/traces?limit=200000"))
        })
    },
    Attack {
        filled: 200_000,
        ..attack("8 times the list of traces", |on| {
            Box::pin(get(on, 8, "/traces?skip=18446744073709551615&q=x"))
        })
    },
    Attack {
        filled: 200_000,
        ..attack("the list of traces with filters", |on| {
            Box::pin(async move {
                let filters = ["text=nowhere", "name=nowhere", "status=pieces", "min=1h"];
                for filter in filters {
                    get(on.clone(), 2, &format!("/traces?{filter}")).await;
                }
                2 * filters.len()
            })
        })
    },
    Attack {
        fills: true,
        ..attack("a trace of 50,000 services, looked at", |on| Box::pin(many_services(on)))
    },
    attack("1,100 requests with 390 KB of headers by a proxy", |on| Box::pin(large_heads(on))),
    attack("half a head on 300 connections, at each port", |on| {
        Box::pin(hold(on, b"POST /v1/traces HTTP/1.1\r\nhost: 127.0.0.1\r\nx: "))
    }),
    attack("300 silent connections, at each port", |on| Box::pin(hold(on, b""))),
    attack("random bytes, at each port", |on| Box::pin(noise(on))),
    attack("requests with random bodies", |on| Box::pin(random_bodies(on))),
];

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|it| name.contains(it));
    let mut missed = 0;
    println!(
        "| attack | inputs | MiB before | MiB at the peak | longest wait for a page, ms |\n|---|---|---|---|---|"
    );
    for attack in ATTACKS.iter().filter(|attack| is_chosen(attack.name)) {
        missed += usize::from(!besiege(attack).await);
    }
    println!("\n| stopped while clients send | acknowledged | lost |\n|---|---|---|");
    for (name, http, grpc) in [("HTTP", 8, 0), ("gRPC", 0, 8), ("HTTP and gRPC", 8, 8)] {
        if is_chosen(name) {
            missed += stop_while_sending(name, http, grpc).await;
        }
    }
    if is_chosen("services") {
        missed += stop_services_while_asking().await;
    }
    println!(
        "\n{missed} aims missed: {MEMORY_AIM} MiB beyond the store, a page within {PAGE_AIM:?}, nothing lost"
    );
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The addresses of a lab that runs, with a proxy before a server that answers everything.
#[derive(Clone)]
struct Target {
    site: String,
    otlp: String,
    grpc: String,
    proxy: String,
}

/// Runs an attack against a new lab and prints its row. Returns whether the aims were met.
async fn besiege(attack: &Attack) -> bool {
    let behind = Router::new().fallback(any(async |_: Request| "ok"));
    let behind = support::serve(behind).await;
    let lab = start(&["--wire", &format!("shop={FREE},{behind}")]).await;
    let target = Target {
        site: lab.site().to_owned(),
        otlp: lab.otlp().to_owned(),
        grpc: lab.address("gRPC").trim_start_matches("http://").to_owned(),
        proxy: lab
            .address("Proxy")
            .split(" -> ")
            .next()
            .expect("its address")
            .trim_start_matches("http://")
            .to_owned(),
    };
    fill(&target, attack.filled).await;
    let id = lab.id();
    // The peak is that of the attack alone (proc(5), `clear_refs`).
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").expect("Linux");
    let before = memory(&id, "VmRSS:");
    let (stop, stopped) = watch::channel(());
    let pages = tokio::spawn(longest_wait(target.site.clone(), stopped));
    let inputs = (attack.run)(target).await;
    drop(stop);
    let longest = pages.await.expect("it looks at pages");
    let peak = memory(&id, "VmHWM:");
    println!("| {} | {inputs} | {before:.0} | {peak:.0} | {} |", attack.name, longest.as_millis());
    (attack.fills || peak - before <= MEMORY_AIM) && longest <= PAGE_AIM
}

async fn start(arguments: &[&str]) -> Lab {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("view").args(["--site", FREE, "--otlp", FREE, "--grpc", FREE]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Lab::ready(command).await
}

/// A figure of /proc/PID/status in MiB.
fn memory(id: &str, label: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(label)).expect("a figure");
    let number = line.split_whitespace().next().and_then(|it| it.parse::<f64>().ok());
    number.expect("a number") / 1024.0
}

/// Asks for the list of traces again and again, each time on a new connection. Returns the longest time until an answer came.
async fn longest_wait(site: String, mut stopped: watch::Receiver<()>) -> Duration {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
    let client = client.expect("a client");
    let (mut longest, mut since) = (Duration::ZERO, Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    loop {
        let ask = client.get(format!("http://{site}/traces")).send();
        let is_answered = tokio::select! {
            answer = ask => answer.is_ok_and(|it| it.status() == 200),
            _ = stopped.changed() => return longest.max(since.elapsed()),
        };
        if is_answered {
            longest = longest.max(since.elapsed());
        }
        tokio::select! {
            _ = pace.tick() => {}
            _ = stopped.changed() => return longest,
        }
        if is_answered {
            since = Instant::now();
        }
    }
}

fn packed(body: Vec<u8>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&body).expect("memory");
    encoder.finish().expect("memory")
}

/// A body as large as the lab takes, of `head` and many `item`s; its brackets are closed.
fn json(head: &str, item: &str) -> Vec<u8> {
    let head = format!("{{\"resourceSpans\":{head}");
    let closing = head.chars().rev().filter_map(|it| match it {
        '[' => Some(']'),
        '{' => Some('}'),
        _ => None,
    });
    let closing: String = closing.collect();
    let count = (BODY_LIMIT - head.len() - closing.len()) / (item.len() + 1);
    let mut items = format!("{item},").repeat(count);
    items.pop();
    format!("{head}{items}{closing}").into_bytes()
}

/// A message of about `size` bytes, of many `item`s, within fields with these tags, the innermost first.
fn protobuf(size: usize, item: &[u8], tags: &[u8]) -> Vec<u8> {
    let items = item.repeat((size - 64) / item.len());
    tags.iter().fold(items, |inner, tag| {
        let mut outer = vec![*tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    })
}

/// Sends a packed body on four connections in parallel until the time is up.
async fn flood(on: Target, media_type: &'static str, body: Vec<u8>) -> usize {
    let until = Instant::now() + DURATION;
    let senders = (0..4).map(async |_| {
        let mut sent = 0;
        while Instant::now() < until {
            let request = client().post(format!("http://{}/v1/traces", on.otlp));
            let request = request.header("content-type", media_type);
            let request = request.header("content-encoding", "gzip").body(body.clone());
            request.send().await.expect("an answer");
            sent += 1;
        }
        sent
    });
    join_all(senders).await.into_iter().sum()
}

/// Sends 60 messages in parallel on one connection.
async fn grpc(on: Target) -> usize {
    let message = packed(protobuf(4 * 1024 * 1024, &[0x12, 0], &[0x12, 0x0a]));
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    let frame = [&[1][..], &length, &message].concat();
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let stream = TcpStream::connect(&on.grpc).await.expect("a connection");
    let stream = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(executor, stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let calls = (0..60).map(|_| {
        let body = http_body_util::Full::new(axum::body::Bytes::from(frame.clone()));
        let request = Request::post(format!("http://{}{path}", on.grpc))
            .header("content-type", "application/grpc")
            .header("grpc-encoding", "gzip")
            .header("te", "trailers")
            .body(body);
        let mut sender = sender.clone();
        async move {
            let answer = sender.send_request(request.expect("a request")).await;
            http_body_util::BodyExt::collect(answer.expect("an answer").into_body()).await
        }
    });
    join_all(calls).await.len()
}

/// Asks for a page `times` times in parallel and reads it whole.
async fn get(on: Target, times: usize, path: &str) -> usize {
    let asked = (0..times).map(async |_| {
        let answer = client().get(format!("http://{}{path}", on.site)).send().await;
        answer.expect("an answer").bytes().await.expect("a body").len()
    });
    join_all(asked).await.len()
}

async fn many_services(on: Target) -> usize {
    let of_service = |index: u64| {
        let name = lab::proto::common::AnyValue {
            value: Some(lab::proto::common::any_value::Value::StringValue(format!("s{index}"))),
        };
        let name = lab::proto::common::KeyValue {
            key: "service.name".to_owned(),
            value: Some(name),
            ..Default::default()
        };
        let resource =
            lab::proto::resource::Resource { attributes: vec![name], ..Default::default() };
        ResourceSpans { resource: Some(resource), ..in_trace(1, index + 2, 1) }
    };
    let request =
        ExportTraceServiceRequest { resource_spans: (0..50_000).map(of_service).collect() };
    export(&on, &request).await;
    let path = format!("/traces/{:032x}", 1);
    let pages = [path.clone(), format!("{path}.json"), "/traces".to_owned(), "/map".to_owned()];
    for page in &pages {
        get(on.clone(), 2, page).await;
    }
    1 + 2 * pages.len()
}

/// Sends requests with large headers, each with a `traceparent`, by the proxy.
async fn large_heads(on: Target) -> usize {
    const REQUESTS: usize = 1_100;
    let mut stream = TcpStream::connect(&on.proxy).await.expect("a connection");
    let value = vec![0xe9; 390_000];
    let mut buffer = vec![0; 65_536];
    for index in 0..REQUESTS {
        let head = format!(
            "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\ntraceparent: 00-{:032x}-{:016x}-01\r\nx: ",
            index + 1,
            1
        );
        let request = [head.as_bytes(), &value, b"\r\n\r\n"].concat();
        let answered = async {
            stream.write_all(&request).await?;
            stream.read(&mut buffer).await
        };
        // A proxy or server may refuse so large a head and close.
        if !answered.await.is_ok_and(|length| length > 0) {
            stream = TcpStream::connect(&on.proxy).await.expect("a connection");
        }
    }
    get(on, 4, "/wire").await;
    REQUESTS
}

fn ports(on: &Target) -> [&String; 4] {
    [&on.site, &on.otlp, &on.grpc, &on.proxy]
}

/// Opens connections, sends the same bytes on each and holds them open.
async fn hold(on: Target, bytes: &[u8]) -> usize {
    let mut held = Vec::new();
    for port in ports(&on) {
        for _ in 0..300 {
            let mut stream = TcpStream::connect(port).await.expect("a connection");
            // A lab that has enough connections may close this one.
            let _ = stream.write_all(bytes).await;
            held.push(stream);
        }
    }
    tokio::time::sleep(DURATION).await;
    held.len()
}

async fn noise(on: Target) -> usize {
    let mut random = fastrand::Rng::with_seed(1);
    let mut sent = 0;
    for port in ports(&on).into_iter().cycle().take(4_000) {
        let mut bytes: Vec<u8> = (0..random.usize(1..2_000)).map(|_| random.u8(..)).collect();
        let starts: [&[u8]; 3] =
            [b"", b"POST /v1/traces HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
        bytes.splice(0..0, random.choice(starts).unwrap_or_default().iter().copied());
        let mut stream = TcpStream::connect(port).await.expect("a connection");
        let _ = stream.write_all(&bytes).await;
        sent += 1;
    }
    sent
}

async fn random_bodies(on: Target) -> usize {
    let valid = ExportTraceServiceRequest { resource_spans: vec![in_trace(1, 2, 3)] };
    let of_type =
        [(PROTOBUF, valid.encode_to_vec()), (JSON, serde_json::to_vec(&valid).expect("JSON"))];
    let mut random = fastrand::Rng::with_seed(2);
    let mut sent = 0;
    for (media_type, valid) in of_type.iter().cycle().take(20_000) {
        let mut body = valid.clone();
        for _ in 0..random.usize(1..6) {
            let index = random.usize(..body.len());
            match random.u8(..3) {
                0 => body[index] = random.u8(..),
                1 => body.truncate(index.max(1)),
                _ => body.extend_from_within(index..),
            }
        }
        let request = client().post(format!("http://{}/v1/traces", on.otlp));
        let answer = request.header("content-type", *media_type).body(body).send().await;
        assert!(answer.expect("an answer").status() != 500);
        sent += 1;
    }
    sent
}

fn in_trace(trace: u64, span: u64, parent: u64) -> ResourceSpans {
    let span = Span {
        trace_id: u128::from(trace).to_be_bytes().to_vec(),
        span_id: span.to_be_bytes().to_vec(),
        parent_span_id: parent.to_be_bytes().to_vec(),
        name: "GET /".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_767_225_600_000_000_000,
        end_time_unix_nano: 1_767_225_600_100_000_000,
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    ResourceSpans { scope_spans, ..Default::default() }
}

async fn export(on: &Target, request: &ExportTraceServiceRequest) {
    let body = request.encode_to_vec();
    let to = client().post(format!("http://{}/v1/traces", on.otlp));
    let answer = to.header("content-type", PROTOBUF).body(body).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}

/// Fills the store with traces of one span.
async fn fill(on: &Target, traces: u64) {
    for first in (1..=traces).step_by(10_000) {
        let of_trace = |trace| in_trace(trace, 1, 0);
        let resource_spans = (first..=traces.min(first + 9_999)).map(of_trace).collect();
        export(on, &ExportTraceServiceRequest { resource_spans }).await;
    }
}

/// Stops the lab while clients send, ten times. Prints how many spans were acknowledged and how many of them its file lacks;
/// returns the latter.
async fn stop_while_sending(name: &str, http: usize, grpc: usize) -> usize {
    let (mut acknowledged, mut lost) = (0, 0);
    for _ in 0..10 {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("session.jsonl").display().to_string();
        let mut lab = start(&["--save", &file]).await;
        let (count, mut counted) = watch::channel(0);
        let mut senders = JoinSet::new();
        for sender in 0..http + grpc {
            let otlp = lab.otlp().to_owned();
            let address = lab.address("gRPC").trim_start_matches("http://").to_owned();
            let (count, is_http) = (count.clone(), sender < http);
            senders.spawn(async move {
                let mut client = Client::connect(is_http, &otlp, &address).await;
                let mut taken = Vec::new();
                loop {
                    let id = (sender as u64 + 1) * 1_000_000 + taken.len() as u64;
                    if !client.send(in_trace(id, 1, 0)).await {
                        return taken;
                    }
                    taken.push(id);
                    count.send_modify(|it| *it += 1);
                }
            });
        }
        counted.wait_for(|it| *it >= 1_000).await.expect("spans are taken");
        assert_eq!(lab.signal("-TERM").await, Some(0));
        let taken: Vec<u64> = senders.join_all().await.into_iter().flatten().collect();
        let saved = std::fs::read_to_string(&file).expect("a file");
        acknowledged += taken.len();
        lost += taken.iter().filter(|id| !saved.contains(&format!("{id:032x}"))).count();
    }
    println!("| {name} | {acknowledged} | {lost} |");
    lost
}

/// Stops the services of the course while clients ask them, callers first and the lab last, three times. Prints how many requests
/// were answered and how many of their spans the lab's file lacks; returns the latter.
async fn stop_services_while_asking() -> usize {
    let (mut answered, mut lost) = (0, 0);
    for _ in 0..3 {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("session.jsonl").display().to_string();
        let mut lab = start(&["--save", &file]).await;
        let backend = lab.otlp().parse().expect("an address");
        let system = Setup::default().with("all", "RUST_LOG", "warn").with_backend(backend).start();
        let system = system.await;
        let gateway = system.gateway.address;
        let (count, mut counted) = watch::channel(0);
        let mut senders = JoinSet::new();
        for sender in 1..=8 {
            let count = count.clone();
            senders.spawn(async move {
                let mut traces = Vec::new();
                loop {
                    let trace = format!("{:032x}", sender * 1_000_000 + traces.len());
                    let parent = format!("00-{trace}-{:016x}-01", 1);
                    let asked = support::query(gateway, "user_1", &[("traceparent", &parent)]);
                    match asked.send().await {
                        Ok(answer) if answer.status() == 200 => traces.push(trace),
                        // It has stopped.
                        _ => return traces,
                    }
                    count.send_modify(|it| *it += 1);
                }
            });
        }
        counted.wait_for(|it| *it >= 500).await.expect("requests are answered");
        system.stop().await;
        assert_eq!(lab.signal("-TERM").await, Some(0));
        let traces: Vec<String> = senders.join_all().await.into_iter().flatten().collect();
        let saved = std::fs::read_to_string(&file).expect("a file");
        answered += traces.len();
        let spans = WHOLE.lines().count();
        let saved = |trace: &String| saved.matches(&format!("\"traceId\":\"{trace}\"")).count();
        lost += traces.iter().map(|trace| spans.saturating_sub(saved(trace))).sum::<usize>();
    }
    println!("| services, {answered} requests | {} | {lost} |", answered * WHOLE.lines().count());
    lost
}

/// A client that sends spans over HTTP or over gRPC.
enum Client {
    Http(String),
    Grpc(TraceServiceClient<Channel>),
}

use opentelemetry_proto::tonic::collector::trace::v1 as collector;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tonic::transport::Channel;

impl Client {
    async fn connect(is_http: bool, otlp: &str, grpc: &str) -> Client {
        match is_http {
            true => Client::Http(format!("http://{otlp}/v1/traces")),
            false => {
                let connected = TraceServiceClient::connect(format!("http://{grpc}")).await;
                Client::Grpc(connected.expect("a connection"))
            }
        }
    }

    /// Returns whether the spans were acknowledged.
    async fn send(&mut self, spans: ResourceSpans) -> bool {
        let body = ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec();
        match self {
            Client::Http(url) => {
                let request = client().post(&*url).header("content-type", PROTOBUF).body(body);
                request.send().await.is_ok_and(|answer| answer.status() == 200)
            }
            Client::Grpc(client) => {
                let request = collector::ExportTraceServiceRequest::decode(&*body);
                client.export(request.expect("the same message")).await.is_ok()
            }
        }
    }
}
