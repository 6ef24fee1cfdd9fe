//! Counts the instructions that user-service executes for a request, by Valgrind, to show where the cost of tracing goes.
//!
//! `cargo bench --bench instructions` prints two tables; with `COSTS=write` they are written for the page "What tracing
//! costs". A count hardly depends on the machine's load, as times do; it says nothing of what a kernel does, or a cache.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::routing::post;
use course::services::{Plan, Service};
use tokio::net::TcpListener;

/// Requests of the two runs whose difference is looked at: so what starts and stops a process is left out.
const REQUESTS: [u32; 2] = [100, 400];

const FREE: &str = "127.0.0.1:0";

/// A function that only the exporting thread calls.
const EXPORT: &str = "BatchSpanProcessor::get_spans_and_export";

/// The rows: their names, the `traceparent` of each request, and whether the SDK is on.
const MODES: [(&str, Option<&str>, bool); 4] = [
    ("no tracing, and no `traceparent` comes", None, false),
    ("no tracing, a `traceparent` is passed on", Some("01"), false),
    ("not sampled: spans without a record", Some("00"), true),
    ("sampled", Some("01"), true),
];

/// Parts of a sampled request, and the function whose instructions they are, with all that it calls.
const PARTS: [(&str, &str); 7] = [
    (
        "extract the caller's context",
        "TextMapCompositePropagator as opentelemetry::propagation::text_map_propagator::TextMapPropagator>::extract_with_context",
    ),
    (
        "inject it into the next request",
        "TextMapCompositePropagator as opentelemetry::propagation::text_map_propagator::TextMapPropagator>::inject_context",
    ),
    (
        "start three spans",
        "BoxedTracer as opentelemetry::trace::tracer::Tracer>::build_with_context",
    ),
    ("end them", "SpanRef::end_with_timestamp"),
    (
        "of that, hand them to the queue",
        "BatchSpanProcessor as opentelemetry_sdk::trace::span_processor::SpanProcessor>::on_end",
    ),
    ("export thread: all of it", EXPORT),
    ("of that, turn them into protobuf", "OtlpHttpClient::build_trace_export_body"),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let root = course::root::find()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--quiet", "--package", "production"]);
    build.args(["--bins", "--target-dir", "target"]);
    // The functions are found by their symbols.
    build.args(["--config", "profile.release.package.production.strip=false"]);
    ensure!(build.current_dir(&root).status()?.success(), "the services do not compile: see above");

    let mut rows =
        "| A request to user-service | Threads that serve | Export thread |\n|---|---|---|\n"
            .to_owned();
    let mut sampled = Counts::default();
    for (name, flags, on) in MODES {
        let [few, many] = REQUESTS
            .map(async |requests| count(&root.join("target/release"), requests, flags, on).await);
        let counts = many.await?.since(&few.await?);
        let export = counts.of(EXPORT);
        rows.push_str(&format!(
            "| {name} | {} | {} |\n",
            thousands(counts.all - export),
            thousands(export)
        ));
        sampled = counts;
    }
    let mut parts = "| Of a sampled request | Instructions |\n|---|---|\n".to_owned();
    for (name, function) in PARTS {
        let count = sampled.of(function);
        ensure!(count > 0, "there is no {function} any more");
        parts.push_str(&format!("| {name} | {} |\n", thousands(count)));
    }
    println!("{rows}\n{parts}");
    if std::env::var("COSTS").is_ok_and(|mode| mode == "write") {
        let folder = root.join("src/recordings/what-tracing-costs");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("instructions.md"), rows)?;
        std::fs::write(folder.join("parts.md"), parts)?;
    }
    Ok(())
}

/// Instructions: of all threads, and of each function with all that it calls.
#[derive(Default)]
struct Counts {
    all: u64,
    functions: BTreeMap<String, u64>,
}

impl Counts {
    /// Returns the counts of one request. `few` and `self` are the runs with the numbers of [`REQUESTS`].
    fn since(self, few: &Counts) -> Counts {
        let requests = u64::from(REQUESTS[1] - REQUESTS[0]);
        let each = |many: u64, few: u64| many.saturating_sub(few) / requests;
        let functions = self.functions.into_iter().map(|(name, many)| {
            let before = few.functions.get(&name).copied().unwrap_or_default();
            (name, each(many, before))
        });
        Counts { all: each(self.all, few.all), functions: functions.collect() }
    }

    fn of(&self, function: &str) -> u64 {
        let found = self.functions.iter().find(|(name, _)| name.ends_with(function));
        found.map_or(0, |(_, count)| *count)
    }
}

/// In steps of a hundred: below that, runs differ.
fn thousands(count: u64) -> String {
    match (count + 50) / 100 * 100 {
        small @ 0..1000 => small.to_string(),
        large => format!("{},{:03}", large / 1000, large % 1000),
    }
}

/// Runs user-service under Valgrind and sends it requests one after the other.
async fn count(
    binaries: &Path,
    requests: u32,
    flags: Option<&str>,
    on: bool,
) -> anyhow::Result<Counts> {
    let free: SocketAddr = FREE.parse()?;
    let listener = TcpListener::bind(FREE).await?;
    let backend = listener.local_addr()?;
    let routes = Router::new().route("/v1/traces", post(async || ()));
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let quiet = |plan: Plan, on: bool| plan.with("RUST_LOG", "warn").with("OTEL_SDK_DISABLED", !on);
    let plan = Plan::new(binaries, "llm-service", free, backend);
    let plan = quiet(plan.run_by("production_services llm-service"), false);
    let llm = Service::start(plan, |_, _| ()).await?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let plan =
        Plan::new(binaries, "user-service", free, backend).calling("llm-service", llm.address);
    let plan = quiet(plan, on).with("TOKIO_WORKER_THREADS", 1).run_by(&format!(
        "/usr/bin/env valgrind --tool=callgrind --callgrind-out-file={} {} user-service",
        out.display(),
        binaries.join("production_services").display()
    ));
    let user = Service::start(plan, |_, _| ()).await.context("is Valgrind installed?")?;

    let client = reqwest::Client::builder().no_proxy().build()?;
    let body = r#"{"user_id": "user_1", "query": "What is a trace?"}"#;
    for number in 0..requests {
        let request = client.post(format!("http://{}/process", user.address));
        let request = request.header("content-type", "application/json").body(body);
        let request = match flags {
            Some(flags) => request.header(
                "traceparent",
                format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-{flags}", number + 1),
            ),
            None => request,
        };
        request.send().await?.error_for_status()?.bytes().await?;
    }
    user.stop().await;
    llm.stop().await;
    read(&out)
}

/// The counts in a file of Valgrind's, told by its own reader: `COUNT (SHARE)  FILE:FUNCTION [PROGRAM]`.
fn read(out: &Path) -> anyhow::Result<Counts> {
    let mut annotate = Command::new("callgrind_annotate");
    annotate.args(["--inclusive=yes", "--threshold=100"]).arg(out);
    let output = annotate.output().context("callgrind_annotate comes with Valgrind")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut counts = Counts::default();
    for line in text.lines() {
        let Some((count, rest)) = line.trim().split_once(" (") else {
            continue;
        };
        let Ok(count) = count.replace(',', "").parse::<u64>() else {
            continue;
        };
        let name = rest.split_once("  ").map_or("", |(_, name)| name);
        match name.split_once(" [") {
            Some((function, _)) => {
                *counts.functions.entry(function.to_owned()).or_default() += count
            }
            None if name.starts_with("PROGRAM TOTALS") => counts.all = count,
            None => {}
        }
    }
    ensure!(
        counts.all > 0,
        "callgrind_annotate told nothing: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(counts)
}
