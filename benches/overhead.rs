//! Measures what tracing costs: the three services under load, with tracing off, at several shares of requests, and with other
//! ways to make spans, in one run.
//!
//! `cargo bench --bench overhead`; with `COSTS=write` the tables of the guides are written too. Load generator, services and receiver share the machine's cores, so read the
//! ratios and not the rates. Modes take turns, round by round, so that a machine that slows down slows all of them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use course::services::{self, CHAIN, Plan, Service};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep_until, timeout_at};

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);
const SPANS_PER_REQUEST: u64 = 7;

/// One row: how the services are run.
struct Mode {
    name: &'static str,
    environment: &'static [(&'static str, &'static str)],
    /// The binary that is all three services, by its argument; nothing for those of the tutorial.
    binary: Option<&'static str>,
    /// The table of a guide that it stands in, beside the untraced run.
    guide: Option<&'static str>,
}

const fn ratio(
    name: &'static str,
    environment: &'static [(&'static str, &'static str)],
    guide: Option<&'static str>,
) -> Mode {
    Mode { name, environment, binary: None, guide }
}

const fn variant(name: &'static str, binary: &'static str) -> Mode {
    Mode { name, environment: &[], binary: Some(binary), guide: Some("with-tracing") }
}

const SAMPLER: (&str, &str) = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";

/// The first is what the others are compared with.
const MODES: [Mode; 7] = [
    ratio("no tracing", &[("OTEL_SDK_DISABLED", "true")], None),
    ratio("none, a ratio of 0", &[SAMPLER, (RATIO, "0.0")], Some("sampling")),
    ratio("1 %", &[SAMPLER, (RATIO, "0.01")], Some("sampling")),
    ratio("10 %", &[SAMPLER, (RATIO, "0.1")], Some("sampling")),
    ratio("all", &[], Some("sampling")),
    variant("`tracing` and a bridge", "instrumented_services"),
    variant("ready-made layers", "ready_made_services"),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let binaries = services::build(&course::root::find()?, &[], true).await?;
    build_variants().await?;
    let mut results: [Vec<Measured>; MODES.len()] = Default::default();
    let mut half = None;
    for round in 1..=ROUNDS {
        for (mode, row) in MODES.iter().enumerate() {
            let measured = measure(&binaries, row, half).await?;
            // Half of what the first untraced run could do, for every later run.
            half = half.or(Some(measured.saturated.rate / 2.0));
            eprintln!("round {round}, {}: {:.0} requests/s", row.name, measured.saturated.rate);
            results[mode].push(measured);
        }
    }
    report(&results, half.unwrap_or_default());
    if std::env::var("COSTS").is_ok_and(|mode| mode == "write") {
        for guide in ["sampling", "with-tracing"] {
            let path = course::root::find()?.join(format!("src/recordings/{guide}/cost.md"));
            std::fs::write(&path, costs(&results, guide))
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Compiles the services of the other modes.
async fn build_variants() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = tokio::process::Command::new(cargo);
    build.args(["build", "--release", "--quiet", "--bins"]);
    build.current_dir(course::root::find()?);
    let status = lab::process::spawn(build)?.wait().await?;
    ensure!(status.success(), "the services do not compile: see above");
    Ok(())
}

/// The outcome of one mode in one round.
struct Measured {
    saturated: Load,
    half: Load,
    arrived: u64,
    lost: u64,
    lost_at_half: u64,
    /// The bytes of OTLP for each request, unpacked.
    bytes: f64,
}

/// The result of a load: answers per second, and latencies in microseconds, sorted.
struct Load {
    rate: f64,
    latencies: Vec<u64>,
    /// Processor time of the three services for one request, in microseconds; not a number where /proc does not tell.
    cpu: f64,
}

impl Load {
    fn percentile(&self, percent: usize) -> f64 {
        let index =
            (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).copied().unwrap_or_default() as f64 / 1000.0
    }
}

async fn measure(binaries: &Path, mode: &Mode, half: Option<f64>) -> anyhow::Result<Measured> {
    let saturated = run(binaries, mode, None).await?;
    let rate = half.unwrap_or(saturated.load.rate / 2.0);
    let half = run(binaries, mode, Some(rate)).await?;
    Ok(Measured {
        arrived: saturated.arrived + half.arrived,
        lost: saturated.lost + half.lost,
        lost_at_half: half.lost,
        bytes: half.bytes,
        saturated: saturated.load,
        half: half.load,
    })
}

/// The outcome of one load: what arrived, and how many spans did not.
struct Run {
    load: Load,
    arrived: u64,
    lost: u64,
    bytes: f64,
}

/// The counts of the receiver.
#[derive(Default)]
struct Arrived {
    spans: AtomicU64,
    bytes: AtomicU64,
}

/// Starts the system, loads it, stops it.
async fn run(binaries: &Path, mode: &Mode, rate: Option<f64>) -> anyhow::Result<Run> {
    let arrived = Arc::<Arrived>::default();
    let otlp = receiver(Arc::clone(&arrived)).await?;
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut chain: Vec<Service> = Vec::new();
    for name in CHAIN {
        let mut plan =
            Plan::new(binaries, name, "127.0.0.1:0".parse()?, otlp).with("RUST_LOG", "warn");
        let environment = mode.environment.iter();
        plan = environment.fold(plan, |plan, (key, value)| plan.with(key, value));
        let binary = mode.binary.unwrap_or("production_services");
        plan = plan.run_by(&format!("{binary} {name}"));
        if let Some(next) = chain.first() {
            plan = plan.calling(next.name, next.address);
        }
        let lines = Arc::clone(&log);
        let sink = move |_: &'static str, line: &str| {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        };
        chain.insert(0, Service::start(plan, sink).await?);
    }
    let gateway = chain.first().context("there is a gateway")?.address;
    let (mut load, answered) = load(gateway, rate).await?;
    // The kernel counts in ticks of 10 ms (`man 5 proc`, USER_HZ).
    let ticks: Option<u64> = chain.iter().map(|service| ticks(service.id()?)).sum();
    load.cpu = ticks.map_or(f64::NAN, |ticks| ticks as f64 * 10_000.0 / answered as f64);
    for service in chain {
        service.stop().await;
    }
    let lines = log.lock().unwrap_or_else(PoisonError::into_inner);
    let lost: u64 = lines
        .iter()
        .filter_map(|line| line.split_once(" lost=")?.1.split(' ').next()?.parse::<u64>().ok())
        .sum();
    let bytes = arrived.bytes.load(Relaxed) as f64 / answered as f64;
    let arrived = arrived.spans.load(Relaxed);
    // Only the services of the tutorial count what they lose.
    let all = mode.environment.is_empty() && mode.binary.is_none();
    let expected = answered * SPANS_PER_REQUEST;
    ensure!(
        !all || arrived + lost == expected,
        "{arrived} spans arrived and {lost} were lost of {expected}"
    );
    Ok(Run { load, arrived, lost, bytes })
}

/// Loads the gateway: as fast as it answers, or at `rate` requests a second, each latency counted from the moment
/// at which the request was due. Also returns how many requests were answered in all.
async fn load(gateway: SocketAddr, rate: Option<f64>) -> anyhow::Result<(Load, u64)> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let interval = rate.map(|rate| Duration::from_secs_f64(CONNECTIONS as f64 / rate));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        tasks.spawn(async move {
            let mut connection = Connection::open(gateway).await?;
            let (mut latencies, mut answered) = (Vec::new(), 0);
            // Connections take turns within an interval.
            let offset = interval.unwrap_or_default().mul_f64(number as f64 / CONNECTIONS as f64);
            let mut due = begin - WARM_UP + offset;
            while Instant::now() < end {
                // A request that is due while the one before it is unanswered waits, and its wait counts. One that the
                // timer sends late does not: that is the load generator's own delay.
                let mut counted_from = Instant::now();
                if let Some(interval) = interval {
                    if due > counted_from {
                        sleep_until(due.into()).await;
                        counted_from = Instant::now();
                    } else {
                        counted_from = due;
                    }
                    due += interval;
                }
                connection.ask().await?;
                answered += 1;
                if counted_from >= begin {
                    latencies.push(counted_from.elapsed().as_micros() as u64);
                }
            }
            anyhow::Ok((latencies, answered))
        });
    }
    let (mut latencies, mut answered) = (Vec::new(), 0);
    while let Some(task) = tasks.join_next().await {
        let (some, count) = task??;
        latencies.extend(some);
        answered += count;
    }
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / MEASURED.as_secs_f64();
    Ok((Load { rate, latencies, cpu: f64::NAN }, answered))
}

/// User and system time of a process, in ticks.
fn ticks(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold anything: count the fields behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// A connection that sends the same request again and again: a client that costs next to nothing.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(gateway: SocketAddr) -> anyhow::Result<Self> {
        let body = r#"{"user_id": "user_1", "query": "What is a trace?"}"#;
        let request = format!(
            "POST /api/query HTTP/1.1\r\nHost: {gateway}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, request: request.into_bytes(), buffer: vec![0; 4096] })
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request).await?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
        let mut length = 0;
        loop {
            let read = timeout_at(deadline, self.stream.read(&mut self.buffer[length..])).await??;
            ensure!(read > 0, "the gateway closed the connection");
            length += read;
            // The answer is one small JSON object: it ends the response.
            if self.buffer[..length].ends_with(b"}") {
                ensure!(
                    self.buffer.starts_with(b"HTTP/1.1 200"),
                    "{}",
                    String::from_utf8_lossy(&self.buffer[..length])
                );
                return Ok(());
            }
        }
    }
}

/// An OTLP request of which only the number of spans matters.
mod counted {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceSpans {
        #[prost(message, repeated, tag = "2")]
        pub scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeSpans {
        #[prost(bytes = "bytes", repeated, tag = "2")]
        pub spans: Vec<axum::body::Bytes>,
    }
}

/// Counts the spans it receives and keeps none, so that the receiver's own cost stays out of the picture.
async fn receiver(arrived: Arc<Arrived>) -> anyhow::Result<SocketAddr> {
    let count = async |State(arrived): State<Arc<Arrived>>, body: Bytes| {
        arrived.bytes.fetch_add(body.len() as u64, Relaxed);
        let request = counted::Request::decode(body).unwrap_or_default();
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        arrived.spans.fetch_add(scopes.map(|scope| scope.spans.len() as u64).sum(), Relaxed);
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Router::new()
        .route("/v1/traces", post(count))
        .layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, routes.with_state(arrived)).await });
    Ok(address)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The median of `value` over the rounds, as a ratio: of each round to the untraced run beside it.
fn of_untraced(own: &[Measured], off: &[Measured], value: impl Fn(&Measured) -> f64) -> f64 {
    let rounds = own.iter().zip(off);
    median(rounds.map(|(own, off)| value(own) / value(off)).collect())
}

/// The table of a guide: what is true of the machine alone is left out.
fn costs(results: &[Vec<Measured>; MODES.len()], guide: &str) -> String {
    let first = match guide {
        "sampling" => "Recorded",
        _ => "Spans by",
    };
    let mut table = format!(
        "| {first} | Processor time a request | Requests a second | Bytes of OTLP a request |\n|---|---|---|---|\n"
    );
    for (mode, measured) in MODES.iter().zip(results) {
        let name = match mode.guide {
            Some(it) if it == guide => mode.name,
            // All requests by the services of the tutorial: the row that the variants are read beside.
            Some("sampling") if mode.name == "all" => "OpenTelemetry's API",
            None => mode.name,
            _ => continue,
        };
        let cpu = of_untraced(measured, &results[0], |it| it.saturated.cpu);
        let rate = of_untraced(measured, &results[0], |it| it.saturated.rate);
        let bytes = median(measured.iter().map(|it| it.bytes).collect());
        table.push_str(&format!("| {name} | {cpu:.2} | {rate:.2} | {bytes:.0} |\n"));
    }
    table
}

/// Medians over the rounds; ratios are medians of each round's own ratio to the untraced run beside it.
fn report(results: &[Vec<Measured>; MODES.len()], half: f64) {
    println!(
        "\n{CONNECTIONS} connections; half of saturation: {half:.0} requests/s; medians of {ROUNDS} rounds\n"
    );
    println!(
        "| tracing | requests/s | of untraced | CPU us a request | of untraced | p50 ms | p99 ms | p50 ms at half \
         | p99 ms at half | of untraced | spans arrived | lost at half |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (Mode { name, .. }, measured) in MODES.iter().zip(results) {
        let of = |value: &dyn Fn(&Measured) -> f64| median(measured.iter().map(value).collect());
        let ratio = |value: &dyn Fn(&Measured) -> f64| of_untraced(measured, &results[0], value);
        let arrived: u64 = measured.iter().map(|round| round.arrived).sum();
        let lost: u64 = measured.iter().map(|round| round.lost).sum();
        let lost_at_half: u64 = measured.iter().map(|round| round.lost_at_half).sum();
        let share = match arrived + lost {
            0 => "-".to_owned(),
            all => format!("{:.2} %", 100.0 * arrived as f64 / all as f64),
        };
        println!(
            "| {name} | {:.0} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {share} | {lost_at_half} |",
            of(&|it| it.saturated.rate),
            ratio(&|it| it.saturated.rate),
            of(&|it| it.saturated.cpu),
            ratio(&|it| it.saturated.cpu),
            of(&|it| it.saturated.percentile(50)),
            of(&|it| it.saturated.percentile(99)),
            of(&|it| it.half.percentile(50)),
            of(&|it| it.half.percentile(99)),
            ratio(&|it| it.half.percentile(99)),
        );
    }
}
