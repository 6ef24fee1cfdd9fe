//! Each sidecar is a span below its caller; it passes on what it is sent, and cannot know which request caused which.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::http::{HeaderMap, HeaderName};
use lab::diagnose::{Rule, diagnose};
use lab::receiver;
use lab::span::{Span, SpanKind};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use reqwest::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_yaml_ng::Value;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;

use super::component::{Component, installed};
use super::example::{arrived, binaries, local, neighbor, sent, shapes};
use crate::support::recording::{check_named, figures, recorded};
use crate::support::{Setup, System, client, free_port, hung, serve, span, within_reason};

const SERVICES: [&str; 3] = ["api-gateway", "user-service", "llm-service"];
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A span is sent as soon as it has ended, and not in fives or every five seconds.
const SEND_AT_ONCE: &str = "layered_runtime: { layers: [{ name: test, \
     static_layer: { tracing.opentelemetry.min_flush_spans: 1 } }] }";

fn example(file: &str) -> String {
    let path = crate::support::root().join("examples/service_mesh").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An Envoy beside a service.
struct Sidecar {
    envoy: Component,
    inbound: SocketAddr,
    outbound: SocketAddr,
    _configuration: tempfile::TempDir,
}

/// Where Envoy is, and the spans of all sidecars and services go.
struct Ground {
    envoy: PathBuf,
    store: Store,
    backend: SocketAddr,
    template: String,
}

impl Ground {
    /// Nothing where Envoy is not installed.
    async fn new() -> Option<Ground> {
        let envoy = installed("envoy")?.join("bin/envoy");
        let store = Store::new(Limits::default());
        let backend = serve(receiver::routes(store.clone())).await;
        Some(Ground { envoy, store, backend, template: example("envoy.yaml") })
    }

    /// The same with another line in the template.
    fn but(mut self, line: &str, other: &str) -> Ground {
        assert!(self.template.contains(line), "{line}");
        self.template = self.template.replace(line, other);
        self
    }

    /// Starts the sidecar of `service`, which listens on `own`; the next one is at `next`.
    async fn sidecar(&self, service: &str, own: u16, next: SocketAddr) -> Sidecar {
        let [inbound, outbound] = [free_port(), free_port()];
        let values = [
            ("SERVICE", service.to_owned()),
            ("SERVICE_PORT", own.to_string()),
            ("INBOUND_PORT", inbound.to_string()),
            ("OUTBOUND_PORT", outbound.to_string()),
            ("NEXT_PORT", next.port().to_string()),
            ("OTLP_PORT", self.backend.port().to_string()),
        ];
        let filled = values.into_iter().fold(self.template.clone(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), &value)
        });
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("envoy.yaml");
        fs::write(&file, filled).expect("a file");
        let mut command = Command::new(&self.envoy);
        command.arg("--config-path").arg(file).args(["--config-yaml", SEND_AT_ONCE]).args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
        ]);
        Sidecar {
            envoy: Component::start(command, "starting main dispatch loop").await,
            inbound: local(inbound),
            outbound: local(outbound),
            _configuration: folder,
        }
    }

    /// Starts a sidecar for each service, and the services, each of which knows its own sidecar alone.
    async fn mesh(self, setup: Setup) -> Mesh {
        binaries().await;
        let ports = SERVICES.map(|_| free_port());
        let nobody = local(free_port());
        let llm = self.sidecar(SERVICES[2], ports[2], nobody).await;
        let user = self.sidecar(SERVICES[1], ports[1], llm.inbound).await;
        let gateway = self.sidecar(SERVICES[0], ports[0], user.inbound).await;
        let url = |sidecar: &Sidecar| format!("http://{}", sidecar.outbound);
        let setup = setup
            .with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
            .with("api-gateway", "API_GATEWAY_ADDR", local(ports[0]))
            .with("user-service", "USER_SERVICE_ADDR", local(ports[1]))
            .with("llm-service", "LLM_SERVICE_ADDR", local(ports[2]))
            .with("api-gateway", "USER_SERVICE_URL", url(&gateway))
            .with("user-service", "LLM_SERVICE_URL", url(&user))
            .with_backend(self.backend);
        Mesh { system: setup.start().await, sidecars: [gateway, user, llm], store: self.store }
    }
}

/// The three services and their sidecars.
struct Mesh {
    system: System,
    sidecars: [Sidecar; 3],
    store: Store,
}

async fn ask(address: SocketAddr, headers: HeaderMap) -> Response {
    // What is secret in a query must not get onto a span.
    let url = format!("http://{address}/api/query?key=key-48151");
    let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
    let request = client().post(url).headers(headers).json(&query);
    request.send().await.expect("an answer")
}

impl Mesh {
    /// Sends one request, as a stranger, through the sidecar of the gateway; stops the services, waits for so many spans,
    /// and returns the traces.
    async fn traces(self, spans: usize) -> Vec<Tree> {
        let answer = ask(self.sidecars[0].inbound, HeaderMap::new()).await;
        assert_eq!(answer.status(), 200);
        self.system.stop().await;
        arrived(&self.store, spans).await
    }
}

fn compare(name: &str, trees: &[Tree], expected: &str) {
    // A proxy gives no type of its error.
    assert_eq!(shapes(trees).replace("error \n", "error\n"), expected);
    check_named(name, &figures(trees));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sidecar_is_a_span_between_a_caller_and_its_service() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let trees = ground.mesh(Setup::default()).await.traces(12).await;
    assert_eq!(diagnose(&trees, &[]), []);
    let ids = trees[0].rows.iter().map(|row| &row.span);
    let ids: Vec<_> = ids.filter_map(|it| it.attribute("guid:x-request-id")).collect();
    // The gateway's, then one for each hop: no service has passed it on.
    assert!(ids[0] != ids[1] && ids[1] == ids[2], "{ids:?}");
    assert!(ids[2] != ids[3] && ids[3] == ids[4], "{ids:?}");
    assert!(!sent(&trees[0]).contains("key-48151"));
    compare(
        recorded!("service-mesh/whole.html"),
        &trees,
        "\
POST SERVER api-gateway-proxy
  POST /api/query SERVER api-gateway http 200
    POST /process CLIENT api-gateway http 200
      POST CLIENT api-gateway-proxy
        POST SERVER user-service-proxy
          POST /process SERVER user-service http 200
            validate_user INTERNAL user-service
            POST /generate CLIENT user-service http 200
              POST CLIENT user-service-proxy
                POST SERVER llm-service-proxy
                  POST /generate SERVER llm-service http 200
                    chat offline INTERNAL llm-service
",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_alone_gives_as_many_traces_as_there_are_hops() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let setup = SERVICES
        .into_iter()
        .fold(Setup::default(), |setup, it| setup.run_by(it, &format!("untraced_services {it}")));
    let trees = ground.mesh(setup).await.traces(5).await;
    compare(
        recorded!("service-mesh/nothing-forwarded.html"),
        &trees,
        "\
POST SERVER api-gateway-proxy

POST CLIENT api-gateway-proxy
  POST SERVER user-service-proxy

POST CLIENT user-service-proxy
  POST SERVER llm-service-proxy
",
    );
}

/// With `OTEL_SDK_DISABLED` the services make no span, and pass on what they were sent.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_only_forward_the_headers_get_one_trace_of_proxies() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let setup = Setup::default().with("all", "OTEL_SDK_DISABLED", true);
    let trees = ground.mesh(setup).await.traces(5).await;
    compare(
        recorded!("service-mesh/headers-forwarded.html"),
        &trees,
        "\
POST SERVER api-gateway-proxy
  POST CLIENT api-gateway-proxy
    POST SERVER user-service-proxy
      POST CLIENT user-service-proxy
        POST SERVER llm-service-proxy
",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_the_mesh_is_a_second_child_of_the_same_span() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let setup = Setup::default().run_by("llm-service", "flaky_llm_service").with(
        "llm-service",
        "LLM_FAILURES",
        1,
    );
    let trees = ground.mesh(setup).await.traces(14).await;
    compare(
        recorded!("service-mesh/retried.html"),
        &trees,
        "\
POST SERVER api-gateway-proxy
  POST /api/query SERVER api-gateway http 200
    POST /process CLIENT api-gateway http 200
      POST CLIENT api-gateway-proxy
        POST SERVER user-service-proxy
          POST /process SERVER user-service http 200
            validate_user INTERNAL user-service
            POST /generate CLIENT user-service http 200
              POST CLIENT user-service-proxy
                POST SERVER llm-service-proxy error
                  POST /generate SERVER llm-service http 503 error 503
                POST SERVER llm-service-proxy
                  POST /generate SERVER llm-service http 200
                    chat offline INTERNAL llm-service
",
    );
}

/// Why a request has failed, as Envoy says it.
fn reason(span: &Span) -> String {
    span.attribute("response_flags").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_down_is_a_503_and_its_callers_proxy_says_why() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let Mesh { system, sidecars: [gateway, _user, llm], store } =
        ground.mesh(Setup::default()).await;
    llm.envoy.kill().await;
    let answer = ask(gateway.inbound, HeaderMap::new()).await;
    assert_eq!(answer.status(), 502);
    system.stop().await;
    let trees = arrived(&store, 9).await;
    let call = span(&trees[0], "POST /generate", SpanKind::Client);
    assert_eq!(call.attribute("error.type").as_deref(), Some("503"));
    // It has tried three times, and has a span for all of them.
    let last = &trees[0].rows[8].span;
    assert_eq!(last.service(), "user-service-proxy");
    assert_eq!(reason(last), "URX,UF");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_a_503_and_its_own_proxy_says_why() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let nobody = local(free_port());
    let sidecar = ground.sidecar("llm-service", nobody.port(), nobody).await;
    let answer = ask(sidecar.inbound, HeaderMap::new()).await;
    assert_eq!(answer.status(), 503);
    let trees = arrived(&ground.store, 1).await;
    assert_eq!(reason(&trees[0].rows[0].span), "UF");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_error_of_the_calling_side_alone() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let empty = serve(Router::new()).await;
    let sidecar = ground.sidecar("llm-service", empty.port(), empty).await;
    for way in [sidecar.inbound, sidecar.outbound] {
        assert_eq!(ask(way, HeaderMap::new()).await.status(), 404);
    }
    for tree in arrived(&ground.store, 2).await {
        let proxy = &tree.rows[0].span;
        assert_eq!(proxy.is_error(), proxy.kind() == SpanKind::Client);
        assert_eq!(proxy.attribute("http.status_code").as_deref(), Some("404"));
        assert_eq!(proxy.attribute("http.response.status_code"), None);
    }
}

/// The proxy's own span is lost, and those below it are orphans.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_dies_in_mid_request_leaves_a_hole() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let (model, asked) = hung().await;
    let setup = Setup::default()
        .with("llm-service", "LLM_BASE_URL", format!("http://{model}"))
        .with("llm-service", "LLM_MODEL", "slow");
    let Mesh { system, sidecars: [gateway, _user, llm], store } = ground.mesh(setup).await;
    let request = tokio::spawn(ask(gateway.inbound, HeaderMap::new()));
    within_reason(asked.notified()).await;
    llm.envoy.kill().await;
    assert_eq!(request.await.expect("an answer").status(), 502);
    system.stop().await;
    let trees = arrived(&store, 11).await;
    let rules: Vec<Rule> = diagnose(&trees, &[]).iter().map(|it| it.rule).collect();
    assert_eq!(rules, [Rule::MissingSpans]);
    assert_eq!(reason(&trees[0].rows[8].span), "UC");
    compare(
        recorded!("service-mesh/died.html"),
        &trees,
        "\
POST SERVER api-gateway-proxy error
  POST /api/query SERVER api-gateway http 502 error 502
    POST /process CLIENT api-gateway http 502 error 502
      POST CLIENT api-gateway-proxy error
        POST SERVER user-service-proxy error
          POST /process SERVER user-service http 502 error 502
            validate_user INTERNAL user-service
            POST /generate CLIENT user-service http 503 error 503
              POST CLIENT user-service-proxy error
POST /generate SERVER llm-service
  chat slow CLIENT llm-service
",
    );
}

/// The way from one service to the next: out through its own sidecar, in through the other's.
struct Hop {
    sidecars: [Sidecar; 2],
    requests: UnboundedReceiver<HeaderMap>,
}

impl Hop {
    async fn new(ground: &Ground) -> Hop {
        let (service, requests) = neighbor().await;
        let nobody = local(free_port());
        let theirs = ground.sidecar(SERVICES[2], service.port(), nobody).await;
        let ours = ground.sidecar(SERVICES[1], nobody.port(), theirs.inbound).await;
        Hop { sidecars: [ours, theirs], requests }
    }

    /// What arrives when these headers are sent.
    async fn carry<const N: usize>(&mut self, sent: [(&'static str, &str); N]) -> HeaderMap {
        let sent = sent
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value")));
        let answer = ask(self.sidecars[0].outbound, HeaderMap::from_iter(sent)).await;
        assert_eq!(answer.status(), 200);
        within_reason(self.requests.recv()).await.expect("a request")
    }
}

/// The flags of a `traceparent`.
fn flags(headers: &HeaderMap) -> &str {
    let value = headers["traceparent"].to_str().expect("text");
    value.rsplit('-').next().expect("a part")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_decides_what_is_recorded_and_a_proxy_only_when_it_is_the_first() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let mut hop = Hop::new(&ground.but("numerator: 100", "numerator: 0")).await;
    for (sent, expected) in [("00", "00"), ("01", "01"), ("03", "01")] {
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-{sent}");
        let arrived = hop
            .carry([
                ("traceparent", &traceparent),
                ("tracestate", "acme=1"),
                ("baggage", "tenant=acme"),
                ("x-request-id", "of-my-own"),
            ])
            .await;
        let value = arrived["traceparent"].to_str().expect("text");
        assert_eq!(value.split('-').nth(1), Some(TRACE));
        assert_eq!(flags(&arrived), expected, "after {sent}");
        assert_eq!(arrived["tracestate"], "acme=1");
        assert_eq!(arrived["baggage"], "tenant=acme");
        assert_eq!(arrived["x-request-id"], "of-my-own");
    }
    assert_eq!(flags(&hop.carry([]).await), "00");
}

/// What the guide warns of: the caller has recorded the request, and the flag is cleared.
#[tokio::test(flavor = "multi_thread")]
async fn by_default_each_sidecar_decides_anew() {
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    for (share, id, expected) in [("100", "of-my-own", "00"), ("0", "", "00"), ("100", "", "01")] {
        let Some(ground) = Ground::new().await else {
            return;
        };
        let line = "use_request_id_for_trace_sampling: ";
        let ground = ground.but(&format!("{line}false"), &format!("{line}true")).but(
            "operation:",
            &format!("random_sampling: {{ value: {share} }}\n            operation:"),
        );
        let mut hop = Hop::new(&ground).await;
        let sent = [("traceparent", &*traceparent), ("x-request-id", id)];
        let arrived = hop.carry(sent).await;
        assert_eq!(flags(&arrived), expected, "{share} {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_a_caller_waits_gets_through() {
    const TIME: &str = "x-envoy-expected-rq-timeout-ms";
    let Some(ground) = Ground::new().await else {
        return;
    };
    let mut hop = Hop::new(&ground).await;
    assert_eq!(hop.carry([(TIME, "777")]).await[TIME], "777");
    // By default Envoy writes the time of its own route, and takes off what a stranger says.
    let line = "respect_expected_rq_timeout: ";
    let ground = ground.but(&format!("{line}true"), &format!("{line}false"));
    let mut hop = Hop::new(&ground).await;
    assert_eq!(hop.carry([(TIME, "777")]).await[TIME], "10000");
    let ground = ground.but("address_prefix: 127.", "address_prefix: 10.");
    let mut hop = Hop::new(&ground).await;
    assert!(!hop.carry([(TIME, "777")]).await.contains_key(TIME));
}

/// The request that comes after it has one.
#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_leaves_no_trace() {
    let Some(ground) = Ground::new().await else {
        return;
    };
    let mesh = ground.mesh(Setup::default()).await;
    let url = format!("http://{}/health", mesh.sidecars[0].inbound);
    let answer = client().get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(mesh.traces(12).await.len(), 1);
}

/// A schema drops what it does not know, as Kubernetes does: so what is kept must be all of it.
const KEPT: &str = "\
import sys, yaml
from cloudcoil.models.istio.telemetry.v1 import Telemetry
sent = yaml.safe_load(sys.stdin)
kept = Telemetry.model_validate(sent).model_dump(mode='json', by_alias=True, exclude_unset=True)
sys.exit(0 if kept == sent else f'{sent} is not {kept}')
";

#[tokio::test(flavor = "multi_thread")]
async fn the_telemetry_of_istio_is_of_its_schema() {
    let Some(folder) = installed("istio") else {
        return;
    };
    let file = crate::support::root().join("examples/service_mesh/istio-telemetry.yaml");
    let mut python = Command::new(folder.join("bin/python"));
    python.args(["-c", KEPT]).stdin(File::open(file).expect("a file"));
    let output = within_reason(python.output()).await.expect("Python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Of `MeshConfig` in istio/api, what the guide sets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct IstiodValues {
    mesh_config: MeshConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MeshConfig {
    enable_tracing: bool,
    extension_providers: Vec<ExtensionProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtensionProvider {
    name: String,
    opentelemetry: OpenTelemetryProvider,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenTelemetryProvider {
    service: String,
    port: u16,
    http: HttpService,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpService {
    path: String,
    timeout: String,
}

#[test]
fn the_provider_that_istio_is_told_of_is_the_one_that_it_uses() {
    let values: IstiodValues = yaml("istio-mesh-config.yaml");
    assert!(values.mesh_config.enable_tracing);
    let [provider] = &values.mesh_config.extension_providers[..] else {
        panic!("one provider");
    };
    let OpenTelemetryProvider { service, port, http } = &provider.opentelemetry;
    assert!(service.ends_with(".svc.cluster.local"));
    assert_eq!((*port, &*http.path, &*http.timeout), (4318, "/v1/traces", "1s"));
    let telemetry: Value = yaml("istio-telemetry.yaml");
    let used = &telemetry["spec"]["tracing"][0]["providers"][0]["name"];
    assert_eq!(used.as_str(), Some(&*provider.name));
}

/// Of the values of Linkerd 2.19's chart, what the guide sets: all of it is needed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkerdValues {
    proxy: LinkerdProxy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkerdProxy {
    tracing: LinkerdTracing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkerdTracing {
    enabled: bool,
    collector: LinkerdCollector,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LinkerdCollector {
    endpoint: String,
    mesh_identity: MeshIdentity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MeshIdentity {
    service_account_name: String,
    namespace: String,
}

#[test]
fn the_collector_of_linkerd_is_in_the_namespace_of_its_account() {
    let values: LinkerdValues = yaml("linkerd-values.yaml");
    let LinkerdTracing { enabled, collector } = values.proxy.tracing;
    assert!(enabled);
    let MeshIdentity { service_account_name, namespace } = collector.mesh_identity;
    assert!(!service_account_name.is_empty());
    assert_eq!(collector.endpoint, format!("collector.{namespace}:4317"));
}

fn yaml<T: DeserializeOwned>(file: &str) -> T {
    serde_yaml_ng::from_str(&example(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
