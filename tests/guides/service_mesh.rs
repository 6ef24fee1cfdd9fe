//! Each sidecar is a span below its caller; it passes on what it is sent, and cannot know which request caused which.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::http::HeaderMap;
use course::services::CHAIN;
use lab::diagnose::{Rule, diagnose};
use lab::span::{Span, SpanKind};
use lab::store::Store;
use lab::tree::Tree;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;

use super::collector::{parse, source, yaml};
use super::component::{Component, installed};
use super::example::{
    all_run_by, arrived, ask, binaries, compare, flags, free_address, header, local, neighbor, sent,
};
use support::recording::recorded;
use support::{Setup, System, client, free_port, hung, root, serve, span, within_reason};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The secret in the query must not get onto a span.
const PATH: &str = "/api/query?key=key-48151";

/// A span is sent as soon as it has ended, and not in fives or every five seconds.
const SEND_AT_ONCE: &str = "layered_runtime: { layers: [{ name: test, \
     static_layer: { tracing.opentelemetry.min_flush_spans: 1 } }] }";

/// An Envoy beside a service.
pub struct Sidecar {
    envoy: Component,
    inbound: SocketAddr,
    /// Requests to this address go to the next service.
    pub outbound: SocketAddr,
    _configuration: tempfile::TempDir,
}

impl Sidecar {
    /// Starts an Envoy that passes requests on to `next`. Returns `None` where Envoy is not installed.
    pub async fn before(next: SocketAddr) -> Option<Sidecar> {
        let ground = Ground::new(&[]).await?;
        Some(ground.sidecar("api-gateway", free_port(), next).await)
    }
}

/// Envoy, its configuration, and the receiver of the spans, which all sidecars share.
struct Ground {
    envoy: PathBuf,
    store: Store,
    backend: SocketAddr,
    template: String,
}

impl Ground {
    /// Replaces lines of the configuration by others. Returns `None` where Envoy is not installed.
    async fn new(changes: &[(&str, &str)]) -> Option<Ground> {
        let envoy = installed("envoy")?.join("bin/envoy");
        let (store, backend) = support::receiver().await;
        let mut template = source("examples/service_mesh/envoy.yaml");
        for (line, other) in changes {
            assert!(template.contains(line), "{line}");
            template = template.replace(line, other);
        }
        Some(Ground { envoy, store, backend, template })
    }

    /// Starts the sidecar of `service`, which listens on `own`; the next one is at `next`.
    async fn sidecar(&self, service: &str, own: u16, next: SocketAddr) -> Sidecar {
        let [inbound, outbound] = [free_port(), free_port()];
        let ports = [
            ("SERVICE_PORT", own),
            ("INBOUND_PORT", inbound),
            ("OUTBOUND_PORT", outbound),
            ("NEXT_PORT", next.port()),
            ("OTLP_PORT", self.backend.port()),
        ];
        let named = self.template.replace("${SERVICE}", service);
        let filled = ports.into_iter().fold(named, |text, (name, port)| {
            text.replace(&format!("${{{name}}}"), &port.to_string())
        });
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("envoy.yaml");
        fs::write(&file, filled).expect("a file");
        let mut command = Command::new(&self.envoy);
        command.arg("--config-path").arg(file).args(["--config-yaml", SEND_AT_ONCE]);
        command.args(["--concurrency", "1", "--disable-hot-restart"]);
        Sidecar {
            envoy: Component::start(command, "starting main dispatch loop").await,
            inbound: local(inbound),
            outbound: local(outbound),
            _configuration: folder,
        }
    }

    /// Starts a sidecar for each service, and the services, which know only their own sidecars.
    async fn mesh(self, setup: Setup) -> Mesh {
        binaries().await;
        let [llm_port, user_port, gateway_port] = CHAIN.map(|_| free_port());
        let llm = self.sidecar("llm-service", llm_port, free_address()).await;
        let user = self.sidecar("user-service", user_port, llm.inbound).await;
        let gateway = self.sidecar("api-gateway", gateway_port, user.inbound).await;
        let url = |sidecar: &Sidecar| format!("http://{}", sidecar.outbound);
        let setup = setup
            .with("api-gateway", "API_GATEWAY_ADDR", local(gateway_port))
            .with("user-service", "USER_SERVICE_ADDR", local(user_port))
            .with("llm-service", "LLM_SERVICE_ADDR", local(llm_port))
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

/// Sends a request without a context through the mesh of these services. Compares the traces with a figure and returns them, or
/// `None` if Envoy isn't installed.
async fn request(setup: Setup, figure: &str, expected: &str) -> Option<Vec<Tree>> {
    let ground = Ground::new(&[]).await?;
    let mesh = ground.mesh(setup).await;
    assert_eq!(ask(mesh.sidecars[0].inbound, PATH, &[]).await, 200);
    mesh.system.stop().await;
    Some(compare(&mesh.store, figure, expected).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sidecar_is_a_span_between_a_caller_and_its_service() {
    let expected = "\
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
";
    let trees = request(Setup::default(), recorded!("service-mesh/whole.html"), expected).await;
    let Some(trees) = trees else { return };
    let [tree] = &trees[..] else { panic!("one trace, not {}", trees.len()) };
    assert_eq!(diagnose(&trees, &[]), []);
    let ids = tree.rows.iter().filter_map(|row| row.span.attribute("guid:x-request-id"));
    let ids: Vec<_> = ids.collect();
    // One before the gateway, then one for each hop: no service has passed it on.
    let same = [0, 1, 2, 3].map(|at| ids[at] == ids[at + 1]);
    assert_eq!(same, [false, true, false, true], "{ids:?}");
    assert!(!sent(tree).contains("key-48151"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_alone_gives_as_many_traces_as_there_are_hops() {
    let setup = all_run_by("untraced_services", Setup::default());
    let expected = "\
POST SERVER api-gateway-proxy

POST CLIENT api-gateway-proxy
  POST SERVER user-service-proxy

POST CLIENT user-service-proxy
  POST SERVER llm-service-proxy
";
    request(setup, recorded!("service-mesh/nothing-forwarded.html"), expected).await;
}

/// With `OTEL_SDK_DISABLED` the services make no span, and pass on what they were sent.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_only_forward_the_headers_get_one_trace_of_proxies() {
    let setup = Setup::default().with("all", "OTEL_SDK_DISABLED", true);
    let expected = "\
POST SERVER api-gateway-proxy
  POST CLIENT api-gateway-proxy
    POST SERVER user-service-proxy
      POST CLIENT user-service-proxy
        POST SERVER llm-service-proxy
";
    request(setup, recorded!("service-mesh/headers-forwarded.html"), expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_the_mesh_is_a_second_child_of_the_same_span() {
    let setup = Setup::default().run_by("llm-service", "flaky_llm_service");
    let setup = setup.with("llm-service", "LLM_FAILURES", 1);
    let expected = "\
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
";
    request(setup, recorded!("service-mesh/retried.html"), expected).await;
}

/// Envoy's reason for a failed request.
fn reason(span: &Span) -> String {
    span.attribute("response_flags").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_down_is_a_503_and_its_callers_proxy_says_why() {
    let Some(ground) = Ground::new(&[]).await else { return };
    let Mesh { system, sidecars: [gateway, _user, llm], store } =
        ground.mesh(Setup::default()).await;
    llm.envoy.kill().await;
    assert_eq!(ask(gateway.inbound, PATH, &[]).await, 502);
    system.stop().await;
    let trees = arrived(&store, 9).await;
    let call = span(&trees[0], "POST /generate", SpanKind::Client);
    assert_eq!(call.attribute("error.type").as_deref(), Some("503"));
    // Envoy has tried three times and made one span.
    let last = &trees[0].rows[8].span;
    assert_eq!((last.service(), &*reason(last)), ("user-service-proxy", "URX,UF"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_a_503_and_its_own_proxy_says_why() {
    let Some(ground) = Ground::new(&[]).await else { return };
    let sidecar = ground.sidecar("llm-service", free_port(), free_address()).await;
    assert_eq!(ask(sidecar.inbound, PATH, &[]).await, 503);
    let trees = arrived(&ground.store, 1).await;
    assert_eq!(reason(&trees[0].rows[0].span), "UF");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_error_of_the_calling_side_alone() {
    let Some(ground) = Ground::new(&[]).await else { return };
    let empty = serve(Router::new()).await;
    let sidecar = ground.sidecar("llm-service", empty.port(), empty).await;
    for way in [sidecar.inbound, sidecar.outbound] {
        assert_eq!(ask(way, PATH, &[]).await, 404);
    }
    for tree in arrived(&ground.store, 2).await {
        let proxy = &tree.rows[0].span;
        assert_eq!(proxy.is_error(), proxy.kind() == SpanKind::Client);
        let statuses = ["http.status_code", "http.response.status_code"];
        assert_eq!(statuses.map(|it| proxy.attribute(it)), [Some("404".into()), None]);
    }
}

/// The proxy's own span is lost, and the spans below it are orphans.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_dies_in_mid_request_leaves_a_hole() {
    let Some(ground) = Ground::new(&[]).await else { return };
    let (model, asked) = hung().await;
    let setup = Setup::default().with_model(model, "slow");
    let Mesh { system, sidecars: [gateway, _user, llm], store } = ground.mesh(setup).await;
    let (status, ()) = tokio::join!(ask(gateway.inbound, PATH, &[]), async {
        within_reason(asked.notified()).await;
        llm.envoy.kill().await;
    });
    assert_eq!(status, 502);
    system.stop().await;
    let expected = "\
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
";
    let trees = compare(&store, recorded!("service-mesh/died.html"), expected).await;
    let rules = diagnose(&trees, &[]).into_iter().map(|it| it.rule);
    assert_eq!(rules.collect::<Vec<_>>(), [Rule::MissingSpans]);
    assert_eq!(reason(&trees[0].rows[8].span), "UC");
}

/// The way from one service to the next: out through its own sidecar, in through the other's.
struct Hop {
    sidecars: [Sidecar; 2],
    requests: UnboundedReceiver<HeaderMap>,
}

impl Hop {
    async fn new(changes: &[(&str, &str)]) -> Option<Hop> {
        let ground = Ground::new(changes).await?;
        let (service, requests) = neighbor().await;
        let theirs = ground.sidecar("llm-service", service.port(), free_address()).await;
        let ours = ground.sidecar("user-service", free_port(), theirs.inbound).await;
        Some(Hop { sidecars: [ours, theirs], requests })
    }

    /// Sends `headers` and returns what arrives.
    async fn carry(&mut self, headers: &[(&str, &str)]) -> HeaderMap {
        assert_eq!(ask(self.sidecars[0].outbound, PATH, headers).await, 200);
        within_reason(self.requests.recv()).await.expect("a request")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_decides_what_is_recorded_and_a_proxy_only_when_it_is_the_first() {
    let none = [("numerator: 100", "numerator: 0")];
    let Some(mut hop) = Hop::new(&none).await else { return };
    for (sent, expected) in [("00", "00"), ("01", "01"), ("03", "01")] {
        let kept =
            [("tracestate", "acme=1"), ("baggage", "tenant=acme"), ("x-request-id", "of-my-own")];
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-{sent}");
        let headers = [&[("traceparent", &*traceparent)], &kept[..]].concat();
        let arrived = hop.carry(&headers).await;
        assert_eq!(kept.map(|(name, _)| (name, header(&arrived, name))), kept);
        let parent = header(&arrived, "traceparent");
        assert_eq!((parent.split('-').nth(1), flags(parent)), (Some(TRACE), expected), "{sent}");
    }
    assert_eq!(flags(header(&hop.carry(&[]).await, "traceparent")), "00");
}

/// The guide warns of this: the caller has recorded the request, and the flag is cleared.
#[tokio::test(flavor = "multi_thread")]
async fn by_default_each_sidecar_decides_anew() {
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    for (share, id, expected) in [("100", "of-my-own", "00"), ("0", "", "00"), ("100", "", "01")] {
        let share = format!("random_sampling: {{ value: {share} }}\n            operation:");
        let by_id =
            ("use_request_id_for_trace_sampling: false", "use_request_id_for_trace_sampling: true");
        let changes = [by_id, ("operation:", &*share)];
        let Some(mut hop) = Hop::new(&changes).await else { return };
        let arrived = hop.carry(&[("traceparent", &traceparent), ("x-request-id", id)]).await;
        assert_eq!(flags(header(&arrived, "traceparent")), expected, "{share} {id}");
    }
}

/// Without this setting, Envoy sends the timeout of its own route. It removes the header of a caller that it doesn't trust.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_a_caller_waits_gets_through() {
    const TIME: &str = "x-envoy-expected-rq-timeout-ms";
    let ignored = ("respect_expected_rq_timeout: true", "respect_expected_rq_timeout: false");
    let untrusted = ("address_prefix: 127.", "address_prefix: 10.");
    for (changes, expected) in
        [(&[][..], Some("777")), (&[ignored], Some("10000")), (&[ignored, untrusted], None)]
    {
        let Some(mut hop) = Hop::new(changes).await else { return };
        let arrived = hop.carry(&[(TIME, "777")]).await;
        let time = arrived.get(TIME).map(|it| it.to_str().expect("text"));
        assert_eq!(time, expected, "{changes:?}");
    }
}

/// The request that comes after it has one.
#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_leaves_no_trace() {
    let Some(ground) = Ground::new(&[]).await else { return };
    let mesh = ground.mesh(Setup::default()).await;
    let url = format!("http://{}/health", mesh.sidecars[0].inbound);
    assert_eq!(client().get(url).send().await.expect("an answer").status(), 200);
    assert_eq!(ask(mesh.sidecars[0].inbound, PATH, &[]).await, 200);
    mesh.system.stop().await;
    assert_eq!(arrived(&mesh.store, 12).await.len(), 1);
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
    let Some(folder) = installed("istio") else { return };
    let file = File::open(root().join("examples/service_mesh/istio-telemetry.yaml"));
    let mut python = Command::new(folder.join("bin/python"));
    python.args(["-c", KEPT]).stdin(file.expect("a file"));
    let output = within_reason(python.output()).await.expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every field is one of `MeshConfig` in istio/api, under the name that the API gives it.
#[test]
fn the_provider_that_istio_is_told_of_is_the_one_that_it_uses() {
    let provider = "
meshConfig:
  enableTracing: true
  extensionProviders:
    - name: collector
      opentelemetry:
        service: collector.observability.svc.cluster.local
        port: 4318
        http: { path: /v1/traces, timeout: 1s }";
    assert_eq!(yaml("examples/service_mesh/istio-mesh-config.yaml"), parse(provider));
    let telemetry = yaml("examples/service_mesh/istio-telemetry.yaml");
    assert_eq!(telemetry["spec"]["tracing"][0]["providers"], parse("[{ name: collector }]"));
}

/// Every field is one of the chart of Linkerd 2.19, and all of them are needed.
#[test]
fn the_collector_of_linkerd_is_in_the_namespace_of_its_account() {
    let values = "
proxy:
  tracing:
    enabled: true
    collector:
      endpoint: collector.observability:4317
      meshIdentity: { serviceAccountName: collector, namespace: observability }";
    assert_eq!(yaml("examples/service_mesh/linkerd-values.yaml"), parse(values));
}
