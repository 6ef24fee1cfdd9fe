//! A service in Python is a part of our trace, and our services are a part of its traces. They don't pass on the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use course::services::Service;
use lab::diagnose::{Rule, diagnose};
use lab::receiver;
use lab::store::{Limits, Store};
use tokio::process::Command;

use super::component::{Component, installed, output_of};
use super::example::{ask, binaries, compare, flags, free_address, header, local, neighbor};
use crate::probe::Around;
use crate::python_original;
use support::recording::{check, recorded};
use support::{Setup, free_port, has, hung, plan, root, serve, within_reason};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Settings of a service, in whatever language it is.
type Settings<'a> = &'a [(&'a str, &'a str)];

/// The settings of all services in a system. Only spans that a service flushes when it stops arrive.
const SETTINGS: [(&str, &str); 3] = [
    ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
    ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
];

/// Flask prints this when it listens. The port follows.
const LISTENING: &str = "Running on http://127.0.0.1:";

/// The service of the guide.
pub struct Flask {
    process: Component,
    pub address: SocketAddr,
}

impl Flask {
    /// `None` where Flask is not installed.
    pub async fn start(
        backend: SocketAddr,
        llm: SocketAddr,
        settings: Settings<'_>,
    ) -> Option<Flask> {
        let python = installed("polyglot")?.join("bin/python");
        let address = local(free_port());
        let mut command = Command::new(python);
        command
            .arg(root().join("examples/polyglot/user_service.py"))
            .env_clear()
            .env("PYTHONUNBUFFERED", "1")
            .env("USER_SERVICE_ADDR", address.to_string())
            .env("LLM_SERVICE_URL", format!("http://{llm}"))
            .env("OTEL_SERVICE_NAME", "user-service")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{backend}"))
            .env("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
            .envs(settings.iter().copied());
        Some(Flask { process: Component::start(command, LISTENING).await, address })
    }
}

/// Flask between a receiver and the address of an llm-service, and the plan of the Rust services around it.
async fn with_flask() -> Option<(Flask, Store, Setup)> {
    let (store, backend) = support::receiver().await;
    let llm = free_address();
    let flask = Flask::start(backend, llm, &SETTINGS).await?;
    let setup = Setup::default()
        .with_backend(backend)
        .with("llm-service", "LLM_SERVICE_ADDR", llm)
        .with("api-gateway", "USER_SERVICE_URL", format!("http://{}", flask.address));
    let setup = SETTINGS.iter().fold(setup, |setup, (key, value)| setup.with("all", key, value));
    Some((flask, store, setup))
}

/// Starts user-service in Python, in Rust, and in Rust with the strict propagators. Asks each and returns the headers that it sends on.
async fn sent_on(settings: Settings<'_>, headers: Settings<'_>) -> Option<Vec<HeaderMap>> {
    let (_store, backend) = support::receiver().await;
    let (llm_service, mut requests) = neighbor().await;
    let python = Flask::start(backend, llm_service, settings).await?;
    let mut rust = Vec::new();
    for command in ["production_services user-service", "tenant_services user-service"] {
        let plan = plan(&binaries().await, "user-service", backend)
            .run_by(command)
            .calling("llm-service", llm_service);
        let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
        rust.push(Service::start(plan, |_, _| {}).await.expect("it starts"));
    }
    let mut sent = Vec::new();
    for address in [python.address, rust[0].address, rust[1].address] {
        assert_eq!(ask(address, "/process", headers).await, 200);
        sent.push(within_reason(requests.recv()).await.expect("a call"));
    }
    Some(sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telemetry_setting_that_python_cannot_use_stops_no_service() {
    let settings = [("OTEL_BSP_MAX_QUEUE_SIZE", "-1")];
    let Some(sent) = sent_on(&settings, &SENT).await else { return };
    // Without spans of its own, Python passes on the caller's.
    assert_eq!(sent[0]["traceparent"], SENT[0].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_is_a_hop_as_any_other() {
    let Some((flask, store, setup)) = with_flask().await else { return };
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    system.stop().await;
    // Kubernetes stops a process with SIGTERM too.
    let id = flask.process.id().expect("it runs").to_string();
    output_of(std::process::Command::new("kill").arg(id));
    let expected = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
    POST /process SERVER user-service http 200
      validate_user INTERNAL user-service
      POST CLIENT user-service http 200
        POST /generate SERVER llm-service http 200
          chat offline INTERNAL llm-service
";
    let trees = compare(&store, recorded!("polyglot/whole.html"), expected).await;
    assert_eq!(diagnose(&trees, &[]), []);
    for row in &trees[0].rows {
        let resource = format!("{:?}", row.span.source.resource);
        assert!(resource.contains("deployment.environment.name"), "{resource}");
    }
}

/// Its spans are lost, including that of `validate_user`, which had ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_that_dies_in_mid_request_leaves_a_hole() {
    let Some((flask, store, setup)) = with_flask().await else { return };
    let (model, asked) = hung().await;
    let system = setup.with_model(model, "slow").start().await;
    let (answer, ()) = tokio::join!(system.ask("user_1"), async {
        within_reason(asked.notified()).await;
        flask.process.kill().await;
    });
    assert_eq!(answer.status(), 502);
    system.stop().await;
    let expected = "\
POST /api/query SERVER api-gateway http 502 error 502
  POST /process CLIENT api-gateway error unreachable
POST /generate SERVER llm-service
  chat slow CLIENT llm-service
";
    let trees = compare(&store, recorded!("polyglot/died.html"), expected).await;
    let rules = diagnose(&trees, &[]).into_iter().map(|it| it.rule);
    assert_eq!(rules.collect::<Vec<_>>(), [Rule::MissingSpans]);
}

const SENT: [(&str, &str); 3] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"),
    ("tracestate", "a=1"),
    ("baggage", "city=K%C3%B6ln,level=2;p=1,sum=1+1=2"),
];

/// The values that don't change from run to run, of the three headers of [`SENT`]. Baggage has no order.
fn row([traceparent, state, baggage]: [&str; 3]) -> String {
    let mut baggage: Vec<&str> = baggage.split(',').collect();
    baggage.sort_unstable();
    format!("flags {}  {state:3}  {}\n", flags(traceparent), baggage.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_passes_on() {
    let Some(sent) = sent_on(&SETTINGS, &SENT).await else { return };
    let mut table = format!("sent by the caller       {}", row(SENT.map(|(_, value)| value)));
    for (name, headers) in ["Python, SDK", "Rust, SDK", "Rust, w3c-trace-context"].iter().zip(&sent)
    {
        let values = SENT.map(|(name, _)| header(headers, name));
        assert_eq!(values[0].split('-').nth(1), Some(TRACE), "{name}");
        table += &format!("{name:23}  {}", row(values));
    }
    check!("polyglot/passed-on.txt", &table);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_the_sampler_mean_the_same() {
    for (share, headers, sampled) in
        [("0", &[][..], 0), ("0", &SENT, 1), ("1", &[], 1), ("1", &SENT, 1)]
    {
        let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        let settings = [sampler, ("OTEL_TRACES_SAMPLER_ARG", share)];
        let Some(sent) = sent_on(&settings, headers).await else { return };
        let flags = sent.iter().map(|headers| flags(header(headers, "traceparent")));
        let bits = flags.map(|it| u8::from_str_radix(it, 16).expect("a number") & 1);
        assert_eq!(bits.collect::<Vec<_>>(), [sampled; 3], "{share} {headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_finds_the_service_in_python_sound() {
    let around = Around::free();
    let settings = [("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let flask = Flask::start(around.otlp, around.neighbor, &settings).await;
    let Some(flask) = flask else { return };
    let body = r#"{"user_id":"user_1","query":"?"}"#;
    let url = format!("http://{}/process", flask.address);
    let probed = around.probe(&url, &["--body", body, "--settle", "2s"]).await;
    assert_eq!(probed.status, Some(0), "{}", probed.printed);
    has(&probed.printed, ["00-T-C-01"]);
}

/// A service that makes no span leaves the parent as it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_sdk_passes_the_headers_on() {
    for (headers, ids) in [(&[][..], ""), (&SENT, SENT[0].1.trim_end_matches("-03"))] {
        let Some(sent) = sent_on(&[("OTEL_SDK_DISABLED", "true")], headers).await else { return };
        // The strict services have telemetry of their own.
        let parents = sent[..2].iter().map(|headers| header(headers, "traceparent"));
        let parents = parents.map(|it| it.rsplit_once('-').map_or(it, |(ids, _flags)| ids));
        assert_eq!(parents.collect::<Vec<_>>(), [ids; 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_services_join_the_trace_of_the_original_and_keep_its_flags_and_baggage() {
    let Some(folder) = python_original::installed() else { return };
    binaries().await;
    let store = Store::new(Limits::default());
    let received = receiver::routes(store.clone());
    // HoneyHive's answer when a service starts.
    let session = async || {
        let id = "00000000-0000-4000-8000-000000000000";
        let names = ["session_id", "event_id", "org_id", "workspace_id", "project_id"];
        Json(BTreeMap::from(names.map(|name| (name, id))))
    };
    let backend = Router::new()
        .route("/session/start", post(session))
        .nest("/opentelemetry", received.clone())
        .merge(received);
    let backend = serve(backend).await;
    let setup = Setup::default()
        .with_backend(backend)
        .run_by("user-service", "tenant_services user-service")
        .run_by("llm-service", "tenant_services llm-service");
    let system = setup.wired().start().await;
    let user_service = system.wire.address("gateway-user").expect("an address");
    let mut command = Command::new(folder.join("bin/python"));
    command
        .arg(root().join("tests/python_original/run_service.py"))
        .arg(folder.join("distributed_tracing/api_gateway.py"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PORTS", format!("5001={}", user_service.port()))
        .env("HH_API_KEY", "none")
        .env("HH_API_URL", format!("http://{backend}"))
        .env("OTEL_SERVICE_NAME", "api-gateway")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let gateway = Component::start(command, LISTENING).await;
    let lines = gateway.lines();
    let port = lines.iter().find_map(|line| line.split_once(LISTENING)).expect("a line").1;
    let port = port.trim().parse().expect("a port");
    assert_eq!(ask(local(port), "/api/query", &[]).await, 200);
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
        let entries = value("baggage").split(',').filter_map(|it| it.split_once('='));
        let mut names: Vec<&str> = entries.map(|(name, _)| name).collect();
        names.sort_unstable();
        let (hop, flags, names) = (&exchange.hop, flags(value("traceparent")), names.join(","));
        table += &format!("{hop:12}  flags {flags}  baggage: {names}\n");
    }
    check!("polyglot/honeyhive.txt", &table);
    let expected = "\
__main__.handle_query INTERNAL api-gateway
  POST /process SERVER user-service http 200
    validate_user INTERNAL user-service
    POST /generate CLIENT user-service http 200
      POST /generate SERVER llm-service http 200
        chat offline INTERNAL llm-service
";
    let trees = compare(&store, recorded!("polyglot/honeyhive.html"), expected).await;
    assert_eq!(diagnose(&trees, &[]), []);
}
