//! A service in Python is a part of our trace, and ours are a part of its own; what each passes on is not the same.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::{HeaderMap, HeaderName};
use axum::routing::post;
use axum::{Json, Router};
use course::services::{Plan, Service};
use lab::diagnose::{Rule, diagnose};
use lab::receiver;
use lab::store::{Limits, Store};
use lab::tree::Tree;
use serde_json::{Value, json};
use tokio::process::Command;

use super::component::{Component, installed};
use super::example::{arrived, binaries, local, neighbor, shapes};
use crate::python_original;
use crate::support::recording::{check, check_named, figures, recorded};
use crate::support::{FREE, Setup, client, free_port, hung, serve, within_reason};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The settings of every service, in whatever language it is.
const SETTINGS: [(&str, &str); 3] = [
    ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
    // Only what has a shutdown that flushes arrives.
    ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
];

/// The service of the guide.
struct Flask {
    process: Component,
    address: SocketAddr,
}

impl Flask {
    /// Nothing where Flask is not installed.
    async fn start(
        backend: SocketAddr,
        llm_service: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Option<Flask> {
        let python = installed("polyglot")?.join("bin/python");
        let address = local(free_port());
        let mut command = Command::new(python);
        command
            .arg(crate::support::root().join("examples/polyglot/user_service.py"))
            .env_clear()
            .env("PYTHONUNBUFFERED", "1")
            .env("USER_SERVICE_ADDR", address.to_string())
            .env("LLM_SERVICE_URL", format!("http://{llm_service}"))
            .env("OTEL_SERVICE_NAME", "user-service")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{backend}"))
            .env("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
            .envs(settings.iter().copied());
        Some(Flask { process: Component::start(command, LISTENING).await, address })
    }

    /// Asks it to stop, as Kubernetes does.
    async fn terminate(&self) {
        let id = self.process.id().expect("it runs").to_string();
        let killed = Command::new("kill").arg(id).status().await;
        assert!(killed.expect("kill runs").success());
    }
}

/// The Rust services around a service that is not theirs.
fn around(backend: SocketAddr, flask: SocketAddr, llm_service: SocketAddr) -> Setup {
    let setup = Setup::default()
        .with_backend(backend)
        .with("llm-service", "LLM_SERVICE_ADDR", llm_service)
        .with("api-gateway", "USER_SERVICE_URL", format!("http://{flask}"));
    SETTINGS.iter().fold(setup, |setup, (key, value)| setup.with("all", key, value))
}

async fn backend() -> (Store, SocketAddr) {
    let store = Store::new(Limits::default());
    let routes = receiver::routes(store.clone());
    (store, serve(routes).await)
}

fn compare(name: &str, trees: &[Tree], expected: &str) {
    assert_eq!(shapes(trees), expected);
    check_named(name, &figures(trees));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telemetry_setting_that_python_cannot_use_stops_no_service() {
    let (_, backend) = backend().await;
    let (llm_service, mut requests) = neighbor().await;
    let settings = [("OTEL_BSP_MAX_QUEUE_SIZE", "-1")];
    let Some(flask) = Flask::start(backend, llm_service, &settings).await else {
        return;
    };
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let request = client()
        .post(format!("http://{}/process", flask.address))
        .header("traceparent", &traceparent)
        .json(&json!({ "user_id": "user_1", "query": "What is a trace?" }));
    let answer = within_reason(request.send()).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    // Without spans of its own it passes the caller's on.
    let sent = requests.recv().await.expect("a call");
    assert_eq!(sent["traceparent"], traceparent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_is_a_hop_as_any_other() {
    let (store, backend) = backend().await;
    let llm_service = local(free_port());
    let Some(flask) = Flask::start(backend, llm_service, &SETTINGS).await else {
        return;
    };
    let system = around(backend, flask.address, llm_service).start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    system.stop().await;
    flask.terminate().await;
    let trees = arrived(&store, 7).await;
    assert_eq!(diagnose(&trees, &[]), []);
    for row in &trees[0].rows {
        let resource = format!("{:?}", row.span.source.resource);
        assert!(resource.contains("deployment.environment.name"), "{resource}");
    }
    compare(
        recorded!("polyglot/whole.html"),
        &trees,
        "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
    POST /process SERVER user-service http 200
      validate_user INTERNAL user-service
      POST CLIENT user-service http 200
        POST /generate SERVER llm-service http 200
          chat offline INTERNAL llm-service
",
    );
}

/// Its spans are lost with it, those of `validate_user` too, which had ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_that_dies_in_mid_request_leaves_a_hole() {
    let (store, backend) = backend().await;
    let llm_service = local(free_port());
    let Some(flask) = Flask::start(backend, llm_service, &SETTINGS).await else {
        return;
    };
    let (model, asked) = hung().await;
    let setup = around(backend, flask.address, llm_service)
        .with("llm-service", "LLM_BASE_URL", format!("http://{model}"))
        .with("llm-service", "LLM_MODEL", "slow");
    let system = setup.start().await;
    let (answer, ()) = tokio::join!(system.ask("user_1"), async {
        within_reason(asked.notified()).await;
        flask.process.kill().await;
    });
    assert_eq!(answer.status(), 502);
    system.stop().await;
    let trees = arrived(&store, 4).await;
    let rules: Vec<Rule> = diagnose(&trees, &[]).iter().map(|it| it.rule).collect();
    assert_eq!(rules, [Rule::MissingSpans]);
    compare(
        recorded!("polyglot/died.html"),
        &trees,
        "\
POST /api/query SERVER api-gateway http 502 error 502
  POST /process CLIENT api-gateway error unreachable
POST /generate SERVER llm-service
  chat slow CLIENT llm-service
",
    );
}

const SENT: [(&str, &str); 3] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"),
    ("tracestate", "a=1"),
    ("baggage", "city=K%C3%B6ln,level=2;p=1,sum=1+1=2"),
];

async fn ask(user_service: SocketAddr, headers: &[(&'static str, &str)]) -> u16 {
    let headers = headers.iter().map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, value.parse().expect("a value"))
    });
    let request = client()
        .post(format!("http://{user_service}/process"))
        .headers(headers.collect())
        .json(&json!({ "user_id": "user_1", "query": "What is a trace?" }));
    request.send().await.expect("an answer").status().as_u16()
}

/// Of the headers of a trace, what does not change from run to run. Baggage has no order.
fn told(headers: &HeaderMap) -> String {
    let value = |name: &str| {
        let value = headers.get(name).map(|it| it.to_str().expect("text"));
        value.unwrap_or_default().to_owned()
    };
    let mut baggage: Vec<_> = value("baggage").split(',').map(str::to_owned).collect();
    baggage.sort();
    let traceparent = value("traceparent");
    let flags = traceparent.rsplit('-').next().expect("a part");
    let (state, baggage) = (value("tracestate"), baggage.join(","));
    format!("flags {flags}  {state:3}  {baggage}")
}

/// One of the Rust services, in the place of Python's.
async fn rust(
    command: &str,
    backend: SocketAddr,
    llm_service: SocketAddr,
    settings: &[(&str, &str)],
) -> Service {
    let free = FREE.parse().expect("an address");
    let plan = Plan::new(&binaries().await, "user-service", free, backend)
        .run_by(command)
        .calling("llm-service", llm_service);
    let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
    Service::start(plan, |_, _| {}).await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_passes_on() {
    let (_store, backend) = backend().await;
    let (llm_service, mut requests) = neighbor().await;
    let Some(python) = Flask::start(backend, llm_service, &SETTINGS).await else {
        return;
    };
    let sdk = rust("user_service", backend, llm_service, &SETTINGS).await;
    let strict = rust("tenant_services user-service", backend, llm_service, &SETTINGS).await;
    let sent =
        SENT.map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value")));
    let mut table = format!("sent by the caller       {}\n", told(&HeaderMap::from_iter(sent)));
    for (name, address) in [
        ("Python, SDK", python.address),
        ("Rust, SDK", sdk.address),
        ("Rust, w3c-trace-context", strict.address),
    ] {
        assert_eq!(ask(address, &SENT).await, 200);
        let headers = within_reason(requests.recv()).await.expect("a request");
        let traceparent = headers["traceparent"].to_str().expect("text");
        assert_eq!(traceparent.split('-').nth(1), Some(TRACE), "{name}");
        table.push_str(&format!("{name:23}  {}\n", told(&headers)));
    }
    sdk.stop().await;
    strict.stop().await;
    check!("polyglot/passed-on.txt", &table);
}

/// What two user-services, of Python and of Rust, send on with these settings: without headers from a caller, and with.
async fn sent_on(settings: &[(&str, &str)]) -> Option<[String; 4]> {
    let (_store, backend) = backend().await;
    let (llm_service, mut requests) = neighbor().await;
    let python = Flask::start(backend, llm_service, settings).await?;
    let rust = rust("user_service", backend, llm_service, settings).await;
    let mut sent = Vec::new();
    for address in [python.address, rust.address] {
        for headers in [&SENT[..0], &SENT[..]] {
            assert_eq!(ask(address, headers).await, 200);
            let headers = within_reason(requests.recv()).await.expect("a request");
            let value = headers.get("traceparent").map(|it| it.to_str().expect("text"));
            sent.push(value.unwrap_or_default().to_owned());
        }
    }
    rust.stop().await;
    Some(sent.try_into().expect("four"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_the_sampler_mean_the_same() {
    for (share, begun) in [("0", false), ("1", true)] {
        let settings = [
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", share),
        ];
        let Some(sent) = sent_on(&settings).await else {
            return;
        };
        let sampled = sent.map(|it| {
            let flags = it.rsplit('-').next().expect("a part");
            u8::from_str_radix(flags, 16).expect("a number") & 1 == 1
        });
        assert_eq!(sampled, [begun, true, begun, true], "{share}");
    }
}

/// As they came: no span is made that could be the parent.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_sdk_passes_the_headers_on() {
    let settings = [("OTEL_SDK_DISABLED", "true")];
    let Some([none, python, also_none, rust]) = sent_on(&settings).await else {
        return;
    };
    assert_eq!((&*none, &*also_none), ("", ""));
    let [(_, came), ..] = SENT;
    let ids = came.trim_end_matches("03");
    assert!(python.starts_with(ids), "{python}");
    assert!(rust.starts_with(ids), "{rust}");
}

/// What HoneyHive answers when a service starts.
async fn session() -> Json<Value> {
    let id = "00000000-0000-4000-8000-000000000000";
    Json(json!({
        "session_id": id, "event_id": id, "org_id": id, "workspace_id": id, "project_id": id,
    }))
}

/// What a service of Flask's prints when it listens; its port follows.
const LISTENING: &str = "Running on http://127.0.0.1:";

/// The gateway of the original, which calls the user-service that listens on `port`.
async fn original_gateway(folder: PathBuf, port: u16, backend: SocketAddr) -> (Component, u16) {
    let mut command = Command::new(folder.join("bin/python"));
    command
        .arg(crate::support::root().join("tests/python_original/run_service.py"))
        .arg(folder.join("distributed_tracing/api_gateway.py"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PORTS", format!("5001={port}"))
        .env("HH_API_KEY", "none")
        .env("HH_API_URL", format!("http://{backend}"))
        .env("OTEL_SERVICE_NAME", "api-gateway")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let gateway = Component::start(command, LISTENING).await;
    let lines = gateway.lines();
    let port = lines.iter().find_map(|line| line.split_once(LISTENING));
    let port = port.expect("a line").1.trim().parse();
    (gateway, port.expect("a port"))
}

#[tokio::test(flavor = "multi_thread")]
async fn our_services_join_the_trace_of_the_original_and_keep_its_flags_and_baggage() {
    let Some(folder) = python_original::installed() else {
        return;
    };
    binaries().await;
    let store = Store::new(Limits::default());
    let received = receiver::routes(store.clone());
    let backend = Router::new()
        .route("/session/start", post(session))
        .nest("/opentelemetry", received.clone())
        .merge(received);
    let backend = serve(backend).await;
    let system = Setup::default()
        .with_backend(backend)
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .run_by("user-service", "tenant_services user-service")
        .run_by("llm-service", "tenant_services llm-service")
        .wired()
        .start()
        .await;
    let hop = crate::support::hop("gateway-user");
    let user_service = system.wire.address(hop).expect("an address");
    let (_gateway, port) = original_gateway(folder, user_service.port(), backend).await;
    let request = client()
        .post(format!("http://127.0.0.1:{port}/api/query"))
        .json(&json!({ "user_id": "user_1", "query": "What is a trace?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let exchanges = system.wire.exchanges();
    system.stop().await;

    let mut table = String::new();
    for exchange in &exchanges {
        let headers = exchange.sent.lines().skip(1).filter_map(|line| line.split_once(": "));
        let value = |name: &str| {
            let mut headers = headers.clone();
            let found = headers.find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value).unwrap_or_default()
        };
        let flags = value("traceparent").rsplit('-').next().unwrap_or_default();
        let entries = value("baggage").split(',').filter_map(|it| it.split_once('='));
        let mut names: Vec<&str> = entries.map(|(name, _)| name).collect();
        names.sort_unstable();
        let (hop, names) = (&exchange.hop, names.join(","));
        table.push_str(&format!("{hop:12}  flags {flags}  baggage: {names}\n"));
    }
    check!("polyglot/honeyhive.txt", &table);
    let trees = arrived(&store, 6).await;
    assert_eq!(diagnose(&trees, &[]), []);
    compare(
        recorded!("polyglot/honeyhive.html"),
        &trees,
        "\
__main__.handle_query INTERNAL api-gateway
  POST /process SERVER user-service http 200
    validate_user INTERNAL user-service
    POST /generate CLIENT user-service http 200
      POST /generate SERVER llm-service http 200
        chat offline INTERNAL llm-service
",
    );
}
