//! Measures how fast the lab receives spans and how much memory it uses, compared with other receivers, and what as many log records
//! and `--forward` cost it.
//!
//! Run it with `cargo bench --bench ingest`, or with `cargo bench --bench ingest -- PROGRAM…` to compare other builds of the lab. The
//! sender and the receiver share the machine's cores, so the processor time per span says more than the rate. The receivers take turns,
//! so that a machine that slows down affects all of them.
//! tests/sdks/install.sh installs the other receivers: rotel, which discards the decoded spans, and trace-view, which keeps
//! spans in SQLite. Without them, the benchmark measures only the lab.

use std::fmt;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lab::proto::collector::ExportTraceServiceRequest;
use lab::proto::common::any_value::Value;
use lab::proto::common::{AnyValue, InstrumentationScope, KeyValue};
use lab::proto::logs::{LogRecord, ResourceLogs, ScopeLogs};
use lab::proto::logs_collector::ExportLogsServiceRequest;
use lab::proto::resource::Resource;
use lab::proto::trace::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const ROUNDS: usize = 3;
const MEASURED: Duration = Duration::from_secs(4);

/// The number of spans in a request, and the number of spans in each of its traces.
const SPANS: usize = 98;
const SPANS_OF_TRACE: usize = 7;

/// The number of spans in the long run: ten times the limit of the lab.
const LONG_RUN: usize = 2_000_000;

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Protobuf,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Cargo adds the argument `--bench`.
    let programs = std::env::args_os().skip(1).filter(|argument| argument != "--bench");
    let peers = peers(programs.map(PathBuf::from).collect())?;
    println!("| receiver | from start to the first span taken, ms | MiB after it |\n|---|---|---|");
    for peer in &peers {
        let mut starts: Vec<(f64, f64)> = Vec::new();
        for _ in 0..5 {
            let running = peer.start().await?;
            starts.push((running.started.as_secs_f64() * 1000.0, running.memory()));
        }
        let (time, memory) =
            (median(starts.iter().map(|it| it.0)), median(starts.iter().map(|it| it.1)));
        println!("| {} | {time:.0} | {memory:.0} |", peer.name);
    }

    println!(
        "\n| receiver | encoding | clients | spans/s | processor time for a span, us | MiB at the end |\n|---|---|---|---|---|---|"
    );
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        for clients in [1, 8] {
            let mut results: Vec<Vec<Measured>> = peers.iter().map(|_| Vec::new()).collect();
            for _ in 0..ROUNDS {
                for (peer, results) in peers.iter().zip(&mut results) {
                    let running = peer.start().await?;
                    let until = Until::Time(MEASURED);
                    results.push(load(&running, encoding, clients, Signals::Spans, until).await?);
                }
            }
            for (peer, results) in peers.iter().zip(&results) {
                println!("| {} | {encoding} | {clients} | {} |", peer.name, columns(results));
            }
        }
    }

    let forwarding = forwarding(&peers[0].program).await?;
    let cases = [
        ("spans", &peers[0], Signals::Spans),
        ("as many log records besides", &peers[0], Signals::SpansAndLogs),
        ("spans, and forwards them", &forwarding, Signals::Spans),
    ];
    println!(
        "\n| the lab receives | encoding | spans/s | processor time for a span, us | MiB at the end |\n|---|---|---|---|---|"
    );
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let mut results = cases.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for ((_, peer, signals), results) in cases.iter().zip(&mut results) {
                let running = peer.start().await?;
                results.push(load(&running, encoding, 8, *signals, Until::Time(MEASURED)).await?);
            }
        }
        for ((name, ..), results) in cases.iter().zip(&results) {
            println!("| {name} | {encoding} | {} |", columns(results));
        }
    }

    println!(
        "\n{LONG_RUN} spans to the lab, which keeps 200000:\n\n| spans so far | MiB |\n|---|---|"
    );
    let running = peers[0].start().await?;
    for part in 1..=5 {
        let measured =
            load(&running, Encoding::Protobuf, 8, Signals::Spans, Until::Spans(LONG_RUN / 5))
                .await?;
        println!("| {} | {:.0} |", part * LONG_RUN / 5, measured.memory);
    }
    Ok(())
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Encoding::Json { "JSON" } else { "protobuf" })
    }
}

/// The medians of the rate, the processor time and the memory, as columns.
fn columns(results: &[Measured]) -> String {
    let of = |pick: fn(&Measured) -> f64| median(results.iter().map(pick));
    format!("{:.0} | {:.2} | {:.0}", of(|it| it.rate), of(|it| it.cpu), of(|it| it.memory))
}

/// Makes the arguments of a receiver from its port, two other ports, and a folder of its own.
type Arguments = Box<dyn Fn(u16, [u16; 2], &str) -> Vec<String>>;

/// A receiver, and how to start it.
struct Peer {
    name: String,
    program: PathBuf,
    arguments: Arguments,
}

/// Returns the lab, with more arguments.
fn lab(name: String, program: PathBuf, more: Vec<String>) -> Peer {
    let arguments = move |port, [site, grpc]: [u16; 2], _: &str| {
        let at = |port| format!("127.0.0.1:{port}");
        let own = ["view", "--otlp", &at(port), "--site", &at(site), "--grpc", &at(grpc)];
        own.map(str::to_owned).into_iter().chain(more.iter().cloned()).collect()
    };
    Peer { name, program, arguments: Box::new(arguments) }
}

/// Returns the lab that forwards to a receiver in this process, which discards everything.
async fn forwarding(program: &Path) -> anyhow::Result<Peer> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let discard = axum::Router::new().fallback(|_: axum::body::Bytes| async {});
    tokio::spawn(async move { axum::serve(listener, discard).await });
    Ok(lab("lab".to_owned(), program.to_owned(), vec!["--forward".to_owned(), url]))
}

/// Returns these builds of the lab. Without any, returns the lab, followed by the other receivers that are installed.
fn peers(programs: Vec<PathBuf>) -> anyhow::Result<Vec<Peer>> {
    let builds = programs.into_iter().map(|it| lab(it.display().to_string(), it, Vec::new()));
    let mut peers: Vec<Peer> = builds.collect();
    if !peers.is_empty() {
        return Ok(peers);
    }
    peers.push(lab("lab".to_owned(), env!("CARGO_BIN_EXE_lab").into(), Vec::new()));
    // This program is in `target/release/deps`.
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).context("no target folder")?;
    let sdks = target.join("sdks");
    let rotel = std::fs::read_dir(sdks.join("lib")).into_iter().flatten().flatten();
    let rotel = rotel
        .map(|python| python.path().join("site-packages/rotel/rotel-agent"))
        .find(|path| path.exists());
    peers.extend(rotel.map(|program| Peer {
        name: "rotel, discards".to_owned(),
        program,
        arguments: Box::new(|port, [grpc, _], _| {
            let at = |port| format!("127.0.0.1:{port}");
            [
                "start",
                "--otlp-http-endpoint",
                &at(port),
                "--otlp-grpc-endpoint",
                &at(grpc),
                "--exporter",
                "blackhole",
            ]
            .map(str::to_owned)
            .to_vec()
        }),
    }));
    let trace_view = Some(sdks.join("bin/tv")).filter(|path| path.exists());
    peers.extend(trace_view.map(|program| Peer {
        name: "trace-view, SQLite".to_owned(),
        program,
        arguments: Box::new(|port, _, folder| {
            ["--port", &port.to_string(), "--db", &format!("{folder}/traces.db"), "serve"]
                .map(str::to_owned)
                .to_vec()
        }),
    }));
    Ok(peers)
}

/// A running receiver, which is killed when dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    started: Duration,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts the receiver and waits until it has accepted the first request.
    async fn start(&self) -> anyhow::Result<Running> {
        let folder = tempfile::tempdir()?;
        let [port, first, second] = free_ports()?;
        let path = folder.path().to_str().context("a folder with a readable name")?;
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command
            .args((self.arguments)(port, [first, second], path))
            .current_dir(folder.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = lab::process::spawn(command)
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut body = Body::new(address, Encoding::Protobuf, 0, "/v1/traces", &message())?;
        loop {
            ensure!(
                began.elapsed() < Duration::from_secs(30),
                "{} doesn't accept spans",
                self.name
            );
            let Ok(mut stream) = TcpStream::connect(address).await else {
                tokio::task::yield_now().await;
                continue;
            };
            if send(&mut stream, body.next(), &mut Vec::new()).await.is_ok() {
                break;
            }
        }
        Ok(Running { child, address, started: began.elapsed(), _folder: folder })
    }
}

/// Returns three ports that are currently free.
fn free_ports() -> anyhow::Result<[u16; 3]> {
    let listen = || StdListener::bind("127.0.0.1:0");
    // Hold all ports until all are known. Otherwise two could be the same.
    let listeners = [listen()?, listen()?, listen()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

impl Running {
    /// Returns the resident memory in MiB, or NaN on systems without /proc.
    fn memory(&self) -> f64 {
        let status = self
            .child
            .id()
            .and_then(|id| std::fs::read_to_string(format!("/proc/{id}/status")).ok());
        let line = status
            .as_deref()
            .and_then(|status| status.lines().find_map(|line| line.strip_prefix("VmRSS:")));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
    }

    /// Returns the processor time so far in microseconds, or NaN on systems without /proc.
    fn processor_time(&self) -> f64 {
        let ticks = self.child.id().and_then(|id| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // The program's name is in parentheses and may contain blanks, so count the fields after it.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        });
        // The kernel counts in ticks of 10 ms (`man 5 proc`, USER_HZ).
        ticks.map_or(f64::NAN, |ticks| ticks as f64 * 10_000.0)
    }
}

struct Measured {
    /// The spans per second.
    rate: f64,
    /// The receiver's processor time per span, in microseconds.
    cpu: f64,
    /// The receiver's memory at the end, in MiB.
    memory: f64,
}

/// The signals that a client sends. With logs, each request of spans is followed by one with as many log records.
#[derive(Clone, Copy, PartialEq)]
enum Signals {
    Spans,
    SpansAndLogs,
}

#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Spans(usize),
}

/// Sends requests from `clients` clients in parallel. Each client sends one request at a time.
async fn load(
    running: &Running,
    encoding: Encoding,
    clients: usize,
    signals: Signals,
    until: Until,
) -> anyhow::Result<Measured> {
    let (before, began) = (running.processor_time(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let address = running.address;
        tasks.spawn(async move {
            let client = unique();
            let mut body = Body::new(address, encoding, client, "/v1/traces", &message())?;
            let mut logs = Body::new(address, encoding, client, "/v1/logs", &log_message())?;
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut sent, mut buffer) = (0, Vec::new());
            loop {
                let more = match until {
                    Until::Time(time) => began.elapsed() < time,
                    Until::Spans(spans) => sent < spans / clients,
                };
                if !more {
                    return anyhow::Ok(sent);
                }
                send(&mut stream, body.next(), &mut buffer).await?;
                if signals == Signals::SpansAndLogs {
                    send(&mut stream, logs.next(), &mut buffer).await?;
                }
                sent += SPANS;
            }
        });
    }
    let mut sent = 0;
    while let Some(task) = tasks.join_next().await {
        sent += task??;
    }
    Ok(Measured {
        rate: sent as f64 / began.elapsed().as_secs_f64(),
        cpu: (running.processor_time() - before) / sent as f64,
        memory: running.memory(),
    })
}

/// Sends a request and reads the whole answer.
async fn send(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the receiver closed the connection");
        let text = String::from_utf8_lossy(buffer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{text}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if length.map_or(body.ends_with("0\r\n\r\n"), |length| body.len() >= length) {
            return Ok(());
        }
    }
}

/// Returns a number that no other client of this run has.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A request whose trace ids are replaced before each use. Encoding it only once keeps the sender cheap.
struct Body {
    request: Vec<u8>,
    /// The offset of each trace id and the index of its trace.
    ids: Vec<(usize, u64)>,
    encoding: Encoding,
    client: u64,
    count: u64,
}

/// The placeholder for a trace id in the encoded request.
const PLACEHOLDER: [u8; 16] = *b"\xA1\xB2\xC3\xD4\xE5\xF6\xA7\xB8\xC9\xDA\xEB\xFC\xAD\xBE\xCF\xD1";

impl Body {
    fn new(
        address: SocketAddr,
        encoding: Encoding,
        client: u64,
        path: &str,
        message: &(impl Message + Serialize),
    ) -> anyhow::Result<Self> {
        let (media_type, body, placeholder) = match encoding {
            Encoding::Protobuf => {
                ("application/x-protobuf", message.encode_to_vec(), PLACEHOLDER.to_vec())
            }
            Encoding::Json => ("application/json", serde_json::to_vec(message)?, hex(&PLACEHOLDER)),
        };
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        let places = request
            .windows(placeholder.len())
            .enumerate()
            .filter(|(_, window)| *window == placeholder);
        let ids: Vec<(usize, u64)> = places
            .map(|(offset, _)| offset)
            .zip(0..)
            .map(|(offset, index)| (offset, index / SPANS_OF_TRACE as u64))
            .collect();
        ensure!(ids.len() == SPANS, "{} trace ids in the request", ids.len());
        Ok(Body { request, ids, encoding, client, count: 0 })
    }

    fn next(&mut self) -> &[u8] {
        self.count += 1;
        for (offset, trace) in &self.ids {
            let number = self.count * (SPANS / SPANS_OF_TRACE) as u64 + trace;
            let id = [(self.client + 1).to_be_bytes(), number.to_be_bytes()].concat();
            let id = if self.encoding == Encoding::Json { hex(&id) } else { id };
            self.request[*offset..offset + id.len()].copy_from_slice(&id);
        }
        &self.request
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Creates spans like those of a service with HTTP instrumentation: eight attributes, about 400 bytes each in protobuf.
fn message() -> ExportTraceServiceRequest {
    let text = |key: &str, value: &str| attribute(key, Value::StringValue(value.to_owned()));
    let resource = Resource {
        attributes: vec![
            text("service.name", "api-gateway"),
            text("service.namespace", "bench"),
            text("service.instance.id", "627cc493-f310-47de-96bd-71410b7dec09"),
            text("telemetry.sdk.language", "rust"),
        ],
        ..Resource::default()
    };
    let spans = (0..SPANS).map(|index| {
        let position = (index % SPANS_OF_TRACE) as u64;
        let parent = position.to_be_bytes().to_vec();
        Span {
            trace_id: PLACEHOLDER.to_vec(),
            span_id: (position + 1).to_be_bytes().to_vec(),
            parent_span_id: if position == 0 { Vec::new() } else { parent },
            name: "POST /api/query".to_owned(),
            kind: 2,
            start_time_unix_nano: 1_767_225_600_000_000_000 + position * 1_000_000,
            end_time_unix_nano: 1_767_225_600_100_000_000 - position * 1_000_000,
            attributes: vec![
                text("http.request.method", "POST"),
                text("http.route", "/api/query"),
                text("url.path", "/api/query"),
                text("url.scheme", "http"),
                text("server.address", "127.0.0.1"),
                attribute("server.port", Value::IntValue(5000)),
                attribute("http.response.status_code", Value::IntValue(200)),
                text("user_agent.original", "curl/8.5.0"),
            ],
            ..Span::default()
        }
    });
    let scope_spans = vec![ScopeSpans {
        scope: Some(InstrumentationScope {
            name: "bench".to_owned(),
            ..InstrumentationScope::default()
        }),
        spans: spans.collect(),
        ..ScopeSpans::default()
    }];
    let resource_spans =
        vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

/// Creates a log record like those of a service's log lines for each span of [`message`].
fn log_message() -> ExportLogsServiceRequest {
    let text = |text: &str| Value::StringValue(text.to_owned());
    let ResourceSpans { resource, .. } = message().resource_spans.remove(0);
    let log_records = (0..SPANS).map(|index| {
        let position = (index % SPANS_OF_TRACE) as u64;
        let time = 1_767_225_600_000_000_000 + position * 1_000_000;
        LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: time,
            severity_number: 9,
            severity_text: "INFO".to_owned(),
            body: Some(AnyValue { value: Some(text("answered a request")) }),
            attributes: vec![
                attribute("code.file.path", text("src/api_gateway.rs")),
                attribute("code.line.number", Value::IntValue(42)),
                attribute("http.request.method", text("POST")),
                attribute("http.response.status_code", Value::IntValue(200)),
            ],
            flags: 1,
            trace_id: PLACEHOLDER.to_vec(),
            span_id: (position + 1).to_be_bytes().to_vec(),
            ..LogRecord::default()
        }
    });
    let scope_logs = vec![ScopeLogs { log_records: log_records.collect(), ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
