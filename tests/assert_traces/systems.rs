//! `lab expect` with systems that are built in other ways: in Python behind a proxy in Go, with `tracing`, and with a queue.

use course::services::Service;
use support::{free_port, has, is_missing, plan, root};
use tokio::process::Command;

use crate::guides::brokers::Broker;
use crate::guides::component::Component;
use crate::guides::example::binaries;
use crate::guides::polyglot::Flask;
use crate::sdks;

use super::command::{Expecting, query};

const DELAY: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "200");

#[tokio::test(flavor = "multi_thread")]
async fn flask_behind_caddy() {
    let Some(folder) = sdks::installed() else { return };
    let expecting = Expecting::new(
        "\
caddy                         SERVER    caddy         200
└─ POST /process              SERVER    user-service  200
   ├─ validate_user           INTERNAL  user-service
   └─ POST                    CLIENT    user-service  200
      └─ POST /generate       SERVER    llm-service   200
         └─ chat offline      INTERNAL  llm-service
",
    );
    let system = expecting.setup().start().await;
    let flask = Flask::start(expecting.otlp, system.llm.address, &[DELAY]).await;
    let Some(flask) = flask else { return };
    let (port, data) = (free_port(), tempfile::tempdir().expect("a folder"));
    let mut caddy = Command::new(folder.join("bin/caddy"));
    caddy
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(root().join("tests/assert_traces/Caddyfile"))
        .env("CADDY_PORT", port.to_string())
        .env("UPSTREAM", flask.address.to_string())
        .env("XDG_DATA_HOME", data.path())
        .env("OTEL_SERVICE_NAME", "caddy")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", expecting.otlp))
        .env(DELAY.0, DELAY.1);
    let _caddy = Component::start(caddy, "serving initial configuration").await;
    let request = format!("POST http://127.0.0.1:{port}/process");
    let body = r#"{"user_id":"user_1","query":"What is a trace?"}"#;
    let request = ["--request", &request, "--body", body];
    expecting.assert_ends(&expecting.run(&request).await, 0);

    // Caddy's span, but not those behind it.
    let first = expecting.text().lines().next().expect("a line").to_owned();
    expecting.rewrite(&first);
    let surplus = expecting.run(&request).await;
    expecting.assert_ends(&surplus, 1);
    has(&surplus.printed, ["5 surplus", "+ └─ POST /process"]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_with_tracing() {
    binaries().await;
    let expecting = Expecting::new(super::services::QUERY);
    let mut setup = expecting.setup();
    for service in ["api-gateway", "user-service", "llm-service"] {
        setup = setup.run_by(service, &format!("instrumented_services {service}"));
    }
    let system = setup.start().await;
    let query = query(system.gateway.address);
    let query: Vec<&str> = query.iter().map(String::as_str).collect();
    expecting.assert_ends(&expecting.run(&query).await, 0);
    expecting.rewrite(&expecting.text().replace("validate_user", "check_user"));
    let differs = expecting.run(&query).await;
    expecting.assert_ends(&differs, 1);
    has(&differs.printed, ["- ", "check_user", "+ ", "validate_user"]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_in_between() {
    a_queue_in_between(Broker::nats().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_in_between() {
    a_queue_in_between(Broker::rabbitmq().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_in_between() {
    a_queue_in_between(Broker::kafka().await).await;
}

/// One message continues the trace of its sender; a batch begins a trace that is linked.
async fn a_queue_in_between(broker: Option<Broker>) {
    let Some(broker) = broker else { return };
    if is_missing("curl", "install the package `curl`") {
        return;
    }
    let binaries = binaries().await;
    let expecting = Expecting::new(
        "\
POST /api/query                    SERVER    api-gateway   202
└─ send queries                    PRODUCER  api-gateway
   ├─ process queries              CONSUMER  queue-worker
   │  └─ POST /process             CLIENT    queue-worker  200
   │     └─ POST /process          SERVER    user-service  200
   │        └─ ...
      or
   └─ links
      └─ process queries           CONSUMER  queue-worker
         └─ POST /process          CLIENT    queue-worker  200  x2
            └─ POST /process       SERVER    user-service  200
               └─ ...
",
    );
    let setup = expecting.setup().run_by("api-gateway", "queueing_gateway");
    let system = setup.with("api-gateway", "QUEUE_URL", &broker.url).start().await;
    let query = query(system.gateway.address);
    let query: Vec<&str> = query.iter().map(String::as_str).collect();
    // Nobody takes the message yet.
    let lost = expecting.run(&query).await;
    expecting.assert_ends(&lost, 1);
    has(&lost.printed, ["process queries"]);
    let url = format!("http://{}/api/query", system.gateway.address);
    let curl = format!("curl -sSf --noproxy '*' {url} -o /dev/null --json '{}'", query[3]);
    let two = format!("{curl} -H \"traceparent: $TRACEPARENT\"; {curl}");
    let batch = [("BATCH_SIZE", "2"), ("BATCH_WAIT_MS", "30000")];
    for (settings, arguments) in [(&[][..], query), (&batch[..], vec!["--", "sh", "-c", &two])] {
        let plan = plan(&binaries, "queue-worker", expecting.otlp)
            .calling("user-service", system.user.address)
            .with("QUEUE_URL", &broker.url)
            .with(DELAY.0, DELAY.1);
        let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
        let worker = Service::start(plan, system.log.sink()).await.expect("the worker starts");
        expecting.assert_ends(&expecting.run(&arguments).await, 0);
        worker.stop().await;
    }
    system.stop().await;
}
