//! Two Collectors each see a part of one trace. A span weighs something on the wire, the sizing follows from that, and the files of
//! the tiers fit together.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use chrono::Utc;
use clap::Parser as _;
use course::services::CHAIN;
use flate2::read::GzDecoder;
use lab::otlp;
use lab::proto::trace as proto;
use lab::store::Store;
use lab::tree::Tree;
use more_than_one_machine::Load;
use regex::Regex;
use serde_yaml_ng::Value;
use tempfile::TempDir;

use super::collector::{Collector, collector, parse, text, texts, yaml};
use super::component::Component;
use super::example::{Example, compare, free_address, send};
use super::kafka::{self, Kafka};
use support::recording::{check, check_named, folder, recorded};
use support::{Setup, in_process, serve, until};

/// user-service exports to a Collector of its own, because a load balancer knows connections and no traces.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_collectors_each_sees_a_part_that_says_nothing() {
    let [(first, others), (second, user_service)] =
        [support::receiver().await, support::receiver().await];
    let endpoint = format!("http://{user_service}");
    let setup = Setup::default().with_backend(others);
    let setup = setup.with("user-service", "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    setup.answers("user_1", 200).await;
    let expected = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
POST /generate SERVER llm-service http 200
  chat offline INTERNAL llm-service
";
    compare(&first, recorded!("more-than-one-machine/first.html"), expected).await;
    let expected = "\
POST /process SERVER user-service http 200
  validate_user INTERNAL user-service
  POST /generate CLIENT user-service http 200
";
    compare(&second, recorded!("more-than-one-machine/second.html"), expected).await;
}

/// Agent, Kafka and samplers with the files of the guide, in which only addresses are changed.
struct Tiers {
    kafka: Kafka,
    agent: SocketAddr,
    backend: SocketAddr,
    store: Store,
    _agent: Component,
    _folder: TempDir,
}

impl Tiers {
    /// Starts all but the samplers. Returns `None` where one of them isn't installed.
    async fn start() -> Option<(Tiers, Component)> {
        let folder = TempDir::new().expect("a folder");
        let kafka = Kafka::new(folder.path(), 6)?;
        let agent = free_address();
        let moved = [("0.0.0.0:4318", agent), (KAFKA, kafka.address)];
        let collector = Collector::with(&path("collector-agent-kafka"), &moved, &[])?;
        let broker = Component::start(kafka.command(), kafka::READY).await;
        let (store, backend) = support::receiver().await;
        let _agent = collector.start().await;
        Some((Tiers { kafka, agent, backend, store, _agent, _folder: folder }, broker))
    }

    async fn sampler(&self) -> Component {
        let moved = [(KAFKA, self.kafka.address)];
        let backend = format!("http://{}", self.backend);
        let variables = [("BACKEND_ENDPOINT", &*backend)];
        let collector = Collector::with(&path("collector-sampler-kafka"), &moved, &variables);
        collector.expect("it is installed").start().await
    }

    /// Sends traces of four spans, as four services do: each sends one span of every trace. All are kept, because each has an error.
    async fn send(&self, traces: Range<u32>) {
        for service in 1..=4 {
            let spans = traces.clone().map(|trace| proto::Span {
                trace_id: [[0xAB; 4], [0xCD; 4], [0xEF; 4], trace.to_be_bytes()].concat(),
                status: Some(proto::Status { code: 2, ..proto::Status::default() }),
                ..in_process::span(0, service, service - 1, "work")
            });
            send(self.agent, spans.collect()).await;
        }
    }

    /// Waits until these traces are whole.
    async fn whole(&self, traces: Range<u32>) {
        until(async || {
            let whole = self.count_whole(traces.clone());
            if whole == traces.len() { Ok(()) } else { Err(format!("{whole} of {traces:?}")) }
        })
        .await;
    }

    fn count_whole(&self, traces: Range<u32>) -> usize {
        let number = |tree: &Tree| u32::from_str_radix(&tree.trace_id.to_string()[24..], 16);
        let of = |tree: &Tree| traces.contains(&number(tree).expect("a number"));
        let trees = self.store.trees();
        trees.iter().filter(|tree| of(tree) && tree.rows.len() == 4).count()
    }

    /// Runs Kafka's program for groups of readers. Returns its output, or the output as an error if it failed.
    async fn groups(&self, arguments: &str) -> Result<String, String> {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let arguments = format!("--group samplers {arguments}");
        let output = self.kafka.tool(class, &arguments).output().await.expect("it runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() && !text.contains("Error") { Ok(text) } else { Err(text) }
    }

    /// Waits until the samplers have read everything, and Kafka knows it.
    async fn read(&self) {
        until(async || {
            let text = self.groups("--describe").await?;
            let lags = text.lines().filter(|line| line.contains("otlp_spans"));
            let lags = Vec::from_iter(lags.map(|line| line.split_whitespace().nth(5)));
            let done = !lags.is_empty() && lags.iter().all(|lag| matches!(lag, Some("0" | "-")));
            if done { Ok(()) } else { Err(text) }
        })
        .await;
    }
}

/// The address of Kafka in the files.
const KAFKA: &str = "kafka.observability.svc:9092";

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_killed_sampler_held_is_lost_until_it_is_read_again() {
    let Some((tiers, broker)) = Tiers::start().await else { return };
    let (first, second) = tokio::join!(tiers.sampler(), tiers.sampler());
    tiers.send(0..100).await;
    tiers.whole(0..100).await;

    broker.kill().await;
    tiers.send(100..200).await;
    let _broker = Component::start(tiers.kafka.command(), kafka::READY).await;
    tiers.whole(100..200).await;

    let before = Utc::now().format("%Y-%m-%dT%H:%M:%S%.3f");
    tiers.send(200..300).await;
    tiers.read().await;
    first.kill().await;
    // These are decided after what came before them.
    tiers.send(300..400).await;
    tiers.whole(300..400).await;
    let left = tiers.count_whole(200..300);
    assert!((1..100).contains(&left), "each sampler had a share, but {left} of 100 are left");

    second.stop("-TERM").await;
    let reset = format!("--topic otlp_spans --reset-offsets --to-datetime {before} --execute");
    until(async || tiers.groups(&reset).await).await;
    let _third = tiers.sampler().await;
    tiers.whole(200..300).await;
    assert_eq!(tiers.count_whole(0..400), 400);
}

/// The spans of 512 requests and the bytes of the bodies that bring them, by service. The batches are full, as under load.
async fn weights(compression: &str) -> BTreeMap<String, [usize; 2]> {
    let weights = Arc::new(Mutex::new(BTreeMap::<String, [usize; 2]>::new()));
    let shared = Arc::clone(&weights);
    let weigh = async move |headers: HeaderMap, body: Bytes| {
        let mut plain = body.to_vec();
        if headers.contains_key("content-encoding") {
            plain.clear();
            GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
        }
        let batch = otlp::from_protobuf(plain.into()).expect("OTLP");
        let mut weights = shared.lock().expect("unpoisoned");
        let [spans, bytes] = weights.entry(batch.items[0].service().to_owned()).or_default();
        *spans += batch.items.len();
        *bytes += body.len();
    };
    let backend = serve(Router::new().route("/v1/traces", post(weigh))).await;
    let setup = Setup::default().with_backend(backend);
    let system = setup.with("all", "OTEL_EXPORTER_OTLP_COMPRESSION", compression).start().await;
    for _ in 0..512 {
        assert_eq!(system.ask("user_1").await.status(), 200);
    }
    system.stop().await;
    let weights = weights.lock().expect("unpoisoned");
    weights.clone()
}

/// Ids are random, and compress differently each time.
const TOLERANCE: f64 = 0.05;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * b
}

fn numbers(text: &str) -> Vec<f64> {
    let number = Regex::new(r"\d+").expect("a pattern");
    number.find_iter(text).map(|it| it.as_str().parse().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_weight_of_a_span_is_what_the_sizing_begins_with() {
    let (plain, gzip) = (weights("none").await, weights("gzip").await);
    let services = CHAIN.into_iter().rev();
    let mut rows: Vec<(&str, [usize; 3])> = services
        .map(|service| (service, [plain[service][0], plain[service][1], gzip[service][1]]))
        .collect();
    let total = [0, 1, 2].map(|at| rows.iter().map(|(_, weights)| weights[at]).sum());
    rows.push(("all three", total));
    let mut table =
        "| exported by | spans | bytes a span | with gzip |\n|---|--:|--:|--:|\n".to_owned();
    for (service, [spans, bytes, compressed]) in rows {
        table += &format!("| {service} | {spans} | {} | {} |\n", bytes / spans, compressed / spans);
    }
    let [count, bytes, compressed] = total;
    assert_eq!(count, 512 * 7);
    let load = Load::parse_from(["sizing", "--spans-per-second=1"]);
    assert!(close((bytes / count) as f64, load.bytes_per_span), "{table}");
    assert!(close((compressed / count) as f64, load.compressed_bytes_per_span), "{table}");
    assert_eq!(load.spans_per_trace, 7.0);

    let recorded = fs::read_to_string(folder().join("more-than-one-machine/bytes.md"));
    let (recorded, now) = (numbers(&recorded.unwrap_or_default()), numbers(&table));
    let same = recorded.len() == now.len() && recorded.iter().zip(&now).all(|(a, b)| close(*b, *a));
    if !same {
        check!("more-than-one-machine/bytes.md", &table);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_the_sizing_says() {
    for (spans, name) in [
        ("10000", recorded!("more-than-one-machine/ten-thousand.txt")),
        ("10000000", recorded!("more-than-one-machine/ten-million.txt")),
    ] {
        let command = format!("cargo run --bin sizing -- --spans-per-second {spans}");
        let ran = Example::on("more-than-one-machine", &command).run().await.well();
        check_named(name, &ran.stdout());
    }
    let help = Example::new("cargo run --bin sizing -- --help").run().await;
    let help = help.well().stdout();
    let options = help.lines().filter(|line| line.trim_start().starts_with("--"));
    let options: String = options.map(|line| format!("{}\n", line.trim())).collect();
    check!("more-than-one-machine/options.txt", &options);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_none_is_refused_in_one_line() {
    let ran = Example::new("cargo run --bin sizing -- --spans-per-second 0").run().await;
    assert_eq!(ran.output.status.code(), Some(2));
    assert_eq!(ran.stderr().trim(), "error: spans-per-second must be a number above zero");
}

fn path(name: &str) -> String {
    format!("examples/more_than_one_machine/{name}.yaml")
}

fn scaling(name: &str) -> Value {
    collector(&path(name))
}

/// Agents send to where samplers listen, and all spans of a trace get to one sampler.
#[test]
fn agents_send_by_trace_id_to_where_samplers_listen() {
    let (agent, sampler) = (scaling("collector-agent"), scaling("collector-sampler"));
    let balancer = &agent["exporters"]["loadbalancing"];
    assert_eq!(balancer["routing_key"], "traceID");
    let port = text(&balancer["resolver"]["dns"]["port"]);
    let listens = &sampler["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"];
    assert_eq!(text(listens), format!("0.0.0.0:{port}"));
    assert!(balancer["protocol"]["otlp"].is_mapping(), "gRPC, as the sampler expects");

    let (agent, sampler) = (scaling("collector-agent-kafka"), scaling("collector-sampler-kafka"));
    let (exporter, receiver) = (&agent["exporters"]["kafka"], &sampler["receivers"]["kafka"]);
    assert_eq!(exporter["partition_traces_by_id"], true);
    assert_eq!(exporter["brokers"], receiver["brokers"]);
    // Topic and encoding are the defaults of both.
    assert!(exporter["traces"].is_null() && receiver["traces"].is_null());
    // Samplers of one group divide the traces among them.
    assert_ne!(receiver["group_id"], Value::Null);
}

#[test]
fn both_samplers_decide_alike_and_hold_what_the_sizing_says() {
    let samplers = [scaling("collector-sampler"), scaling("collector-sampler-kafka")];
    assert_eq!(samplers[0]["processors"], samplers[1]["processors"]);
    for (sampler, receiver) in samplers.iter().zip(["otlp", "kafka"]) {
        let traces = &sampler["service"]["pipelines"]["traces"];
        let expected = [&[receiver][..], &["memory_limiter", "tail_sampling", "batch"]];
        assert_eq!(["receivers", "processors"].map(|it| texts(&traces[it])), expected);
    }
    let sampling = &samplers[0]["processors"]["tail_sampling"];
    let one = collector("examples/sampling/collector.yaml");
    let one = &one["processors"]["tail_sampling"];
    for same in ["policies", "decision_wait"] {
        assert_eq!(sampling[same], one[same], "the guide about sampling says otherwise");
    }
    let load = Load::parse_from(["sizing", "--spans-per-second=10000000"]);
    let held = load.size().expect("a size").traces_held;
    assert!(sampling["num_traces"].as_u64().expect("a number") >= held, "{held}");
    assert_eq!(numbers(text(&sampling["decision_wait"])), [load.decision_wait_seconds]);
    let rest = sampling["policies"].as_sequence().expect("policies").last();
    let percent = rest.expect("one")["probabilistic"]["sampling_percentage"].as_f64();
    assert!(percent.expect("a number") / 100.0 <= load.kept_share);
}

/// Each says in its own words how long it keeps a trace, and both listen where a Collector sends.
#[test]
fn both_backends_keep_traces_for_as_long_as_the_sizing_counts() {
    let jaeger = collector("examples/more_than_one_machine/jaeger-cassandra.yaml");
    let tempo = yaml("examples/more_than_one_machine/tempo.yaml");
    let storage = &jaeger["extensions"]["jaeger_storage"]["backends"]["traces"]["cassandra"];
    let load = Load::parse_from(["sizing", "--spans-per-second=1"]);
    let kept = format!("{}h", load.retention_days * 24.0);
    for (value, expected) in [
        (&jaeger["exporters"]["jaeger_storage_exporter"]["trace_storage"], "traces"),
        (&jaeger["extensions"]["jaeger_query"]["storage"]["traces"], "traces"),
        (&storage["schema"]["trace_ttl"], &kept),
        (&tempo["compactor"]["compaction"]["block_retention"], &kept),
        (&storage["schema"]["replication_factor"], &load.copies.to_string()),
        (&jaeger["receivers"]["otlp"]["protocols"]["http"]["endpoint"], "0.0.0.0:4318"),
        (
            &tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"],
            "0.0.0.0:4318",
        ),
    ] {
        assert_eq!(*value, parse(expected));
    }
}
