//! compose.yaml and the Kubernetes manifests say what the services need: these tests start the services as processes with the
//! environment that the files give them, and their trace is whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use axum::Router;
use axum::http::StatusCode;
use course::services::{CHAIN, Plan, Service};
use lab::span::{Span, any_text};
use lab::store::{Limits, Store};
use lab::{jaeger, receiver};
use production::server::SHUTDOWN_DEADLINE;
use production::telemetry::FLUSH_TIMEOUT;
use serde_yaml_ng::Value;

use super::brokers::Broker;
use super::collector::{collector, entries, parse, source, text, texts, yaml};
use super::component::{installed, output_of};
use super::example::{ask, binaries, compare, local, shapes};
use super::message_queues::QUEUED;
use support::recording::{check, recorded};
use support::{Log, WHOLE, free_port, hung, refused, root, serve, shape, skipped, within_reason};

const FOLDER: &str = "examples/compose_and_kubernetes";
const COMPOSE: &str = "examples/compose_and_kubernetes/compose.yaml";

/// The address of the Collector in the network of compose.yaml.
const COLLECTOR: &str = "collector:4318";

/// The services that `--profile queue` adds.
const QUEUE: [&str; 2] = ["queueing-gateway", "queue-worker"];

/// A service and its variables.
type Environment = (&'static str, Vec<(String, String)>);

// ---- what the files say

/// The services of compose.yaml.
fn compose() -> Value {
    let mut file = yaml(COMPOSE);
    file.apply_merge().expect("what is merged is a mapping");
    file["services"].clone()
}

/// Reads the variables that compose.yaml sets for these services.
fn environments(names: &[&'static str]) -> Vec<Environment> {
    let services = compose();
    let of = |name: &&'static str| {
        let variables = entries(&services[*name]["environment"]);
        (*name, variables.map(|(key, value)| (key.to_owned(), text(value).to_owned())).collect())
    };
    names.iter().map(of).collect()
}

/// The same with one more variable for each service.
fn with(mut environments: Vec<Environment>, key: &str, value: &str) -> Vec<Environment> {
    for (_, variables) in &mut environments {
        variables.push((key.to_owned(), value.to_owned()));
    }
    environments
}

/// The objects that `kubectl apply -k` sends; `None` where kubectl is missing.
fn production() -> Option<Vec<Value>> {
    let (rendered, _) = rendered()?;
    Some(rendered.split("\n---\n").map(parse).collect())
}

/// The overlay as kubectl renders it, and the folder of kubectl.
fn rendered() -> Option<(String, PathBuf)> {
    let tools = installed("deployment")?.join("bin");
    let overlay = format!("{FOLDER}/kubernetes/production");
    Some((output_of(Command::new(tools.join("kubectl")).args(["kustomize", &overlay])), tools))
}

/// The only object of that kind and name.
fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The template of a service's pods, and the only container in it.
fn pod<'a>(objects: &'a [Value], name: &str) -> (&'a Value, &'a Value) {
    let template = &object(objects, "Deployment", name)["spec"]["template"];
    (template, &template["spec"]["containers"][0])
}

/// The environment that Kubernetes computes: the variables of `envFrom`, then those of `env` in their order, where `$(NAME)` is an
/// earlier variable. The fields of the pod that no manifest knows are made up.
fn pod_environment(objects: &[Value], name: &'static str) -> Environment {
    let deployment = object(objects, "Deployment", name);
    let (template, container) = pod(objects, name);
    let label = "app.kubernetes.io/version";
    let fields = BTreeMap::from([
        ("metadata.name".to_owned(), format!("{name}-0")),
        ("metadata.namespace".into(), text(&deployment["metadata"]["namespace"]).into()),
        ("metadata.uid".into(), format!("uid-of-{name}-0")),
        ("spec.nodeName".into(), "node-1".into()),
        (
            format!("metadata.labels['{label}']"),
            text(&template["metadata"]["labels"][label]).into(),
        ),
    ]);
    let mut variables: Vec<(String, String)> = Vec::new();
    for source in container["envFrom"].as_sequence().expect("a list") {
        let map = object(objects, "ConfigMap", text(&source["configMapRef"]["name"]));
        variables.extend(entries(&map["data"]).map(|(k, v)| (k.to_owned(), text(v).to_owned())));
    }
    for variable in container["env"].as_sequence().expect("a list") {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some(path) => &fields[path],
            None => text(&variable["value"]),
        };
        let known = variables.iter();
        let value = known
            .fold(value.to_owned(), |value, (key, it)| value.replace(&format!("$({key})"), it));
        variables.push((text(&variable["name"]).to_owned(), value));
    }
    (name, variables)
}

// ---- the services, started as the files say

/// The running services, the receiver's address and store, and the log.
struct Running {
    services: Vec<Service>,
    backend: SocketAddr,
    store: Store,
    log: Log,
}

impl Running {
    /// Starts the three services as compose.yaml says.
    async fn compose() -> Running {
        Running::start(&environments(&CHAIN), COLLECTOR, &[]).await
    }

    /// Starts services, each before its caller, with their variables and no other. Replaces only the addresses that the files' own
    /// network would translate: `0.0.0.0:PORT`, the services, the collector, and the hosts in `others`.
    async fn start(
        environments: &[Environment],
        collector: &str,
        others: &[(&str, SocketAddr)],
    ) -> Running {
        let (store, log) = (Store::new(Limits::default()), Log::default());
        let routes = receiver::routes(store.clone()).merge(jaeger::routes(store.clone()));
        let backend = serve(routes).await;
        let mut hosts = BTreeMap::from([(collector.to_owned(), backend)]);
        hosts.extend(others.iter().map(|(host, address)| ((*host).to_owned(), *address)));
        let mut running = Running { services: Vec::new(), backend, store, log };
        for (name, variables) in environments {
            let here = local(free_port());
            let plan = Plan::bare(&binaries().await, name);
            // As in the image.
            let mut plan = plan.run_by(&name.replace('-', "_"));
            for (key, value) in variables {
                let there = |host| hosts.get(host).unwrap_or_else(|| panic!("{key}: no {host}"));
                let value = match value.split_once("://") {
                    Some((scheme, host)) => format!("{scheme}://{}", there(host)),
                    None if value.starts_with("0.0.0.0:") => here.to_string(),
                    None => value.clone(),
                };
                plan = plan.with(key, value);
            }
            let service = Service::start(plan, running.log.sink()).await.expect("it starts");
            assert_eq!(service.address, here, "{name} does not listen where its file says");
            let port = variables.iter().find_map(|(_, value)| value.strip_prefix("0.0.0.0:"));
            hosts.insert(format!("{name}:{}", port.expect("it listens on all addresses")), here);
            running.services.push(service);
        }
        running
    }

    /// The address of the service that was started last.
    fn gateway(&self) -> SocketAddr {
        self.services.last().expect("a service").address
    }

    /// Stops the services, callers first. Returns the store of their spans.
    async fn stop(self) -> Store {
        for service in self.services.into_iter().rev() {
            service.stop().await;
        }
        self.store
    }
}

/// The resource attributes of a span, without those of the SDK.
fn resource(span: &Span) -> BTreeMap<String, String> {
    let attributes = span.source.resource.attributes.iter();
    let own = attributes.filter(|it| !it.key.starts_with("telemetry."));
    own.map(|it| (it.key.clone(), any_text(&it.value))).collect()
}

/// The version of the crate that the images hold.
fn version() -> String {
    let manifest = source("examples/distributed_tracing/Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    version.expect("a version").trim_matches('"').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_environment_of_the_compose_file_a_request_is_one_trace() {
    let running = Running::compose().await;
    assert_eq!(ask(running.gateway(), "/api/query", &[]).await, 200);
    let store = running.stop().await;
    let trees = compare(&store, recorded!("compose-and-kubernetes/compose.html"), WHOLE).await;
    for row in &trees[0].rows {
        let resource = resource(&row.span);
        let keys = ["service.namespace", "service.version", "deployment.environment.name"];
        assert_eq!(keys.map(|key| &*resource[key]), ["one-trace", &version(), "compose"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_profile_of_the_queue_a_query_is_one_trace_over_it() {
    let Some(broker) = Broker::nats().await else { return };
    assert!(texts(&compose()["nats"]["command"]).contains(&"--jetstream"));
    let nats = broker.url.trim_start_matches("nats://").parse().expect("an address");
    let names = ["llm-service", "user-service", "queue-worker", "queueing-gateway"];
    let running = Running::start(&environments(&names), COLLECTOR, &[("nats:4222", nats)]).await;
    assert_eq!(ask(running.gateway(), "/api/query", &[]).await, 202);
    running.log.wait_for("queue-worker", "verdict=Done").await;
    assert_eq!(shapes(&running.stop().await.trees()), QUEUED);
}

/// None and all of 200 have a chance below one in a billion each.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_environment_of_the_overlay_a_tenth_is_recorded_and_says_from_which_pod() {
    let Some(objects) = production() else { return };
    let environments = CHAIN.map(|name| pod_environment(&objects, name));
    let running = Running::start(&environments, "collector.observability.svc:4318", &[]).await;
    for _ in 0..200 {
        assert_eq!(ask(running.gateway(), "/api/query", &[]).await, 200);
    }
    let trees = running.stop().await.trees();
    assert!((1..100).contains(&trees.len()), "{} of 200", trees.len());
    for tree in &trees {
        assert_eq!(shape(tree), WHOLE);
    }
    let of = |name: &str| {
        let row = trees[0].rows.iter().find(|row| row.span.service() == name).expect("a span");
        resource(&row.span)
    };
    let pods = CHAIN.map(|name| of(name)["k8s.pod.name"].clone());
    assert_eq!(pods, CHAIN.map(|name| format!("{name}-0")));
    let user = of("user-service");
    assert_eq!(user["service.version"], version());
    let lines: String = user.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    check!("compose-and-kubernetes/pod.txt", &lines);
}

/// A service is killed when its grace period is too short, and when its container takes too much memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_loses_its_spans_and_the_caller_says_so() {
    let (slow, called) = hung().await;
    // The services send nothing before the end.
    let environments = environments(&["user-service", "api-gateway"]);
    let environments = with(environments, "OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let others = [("llm-service:5002", slow)];
    let mut running = Running::start(&environments, COLLECTOR, &others).await;
    let gateway = running.gateway();
    let (status, ()) = tokio::join!(ask(gateway, "/api/query", &[]), async {
        within_reason(called.notified()).await;
        // This sends SIGKILL to user-service.
        drop(running.services.remove(0));
    });
    assert_eq!(status, 502);
    let store = running.stop().await;
    let expected = "\
POST /api/query SERVER api-gateway http 502 error 502
  POST /process CLIENT api-gateway error unreachable
";
    compare(&store, recorded!("compose-and-kubernetes/killed.html"), expected).await;
}

// ---- the rules that the page states

/// In this time, requests in flight finish and the last spans are sent.
fn needed_to_stop() -> u64 {
    (SHUTDOWN_DEADLINE + FLUSH_TIMEOUT).as_secs()
}

#[test]
fn in_compose_every_container_is_confined_and_has_time_to_stop() {
    for (name, service) in entries(&compose()) {
        let confined = ["read_only", "cap_drop", "security_opt"].map(|key| service[key].clone());
        let expected = "[true, [ALL], ['no-new-privileges:true']]";
        assert_eq!(Value::from(confined.to_vec()), parse(expected), "{name}");
        assert!(service["mem_limit"].is_string(), "{name}");
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to others: {port}");
        }
        if !CHAIN.contains(&name) && !QUEUE.contains(&name) {
            let image = text(&service["image"]);
            assert!(!image.ends_with("latest") && image.contains(':'), "{image} may change");
            continue;
        }
        let grace = text(&service["stop_grace_period"]).trim_end_matches('s');
        assert!(grace.parse::<u64>().expect("seconds") > needed_to_stop(), "{name}");
        assert_eq!(text(&service["build"]["args"]["SERVICE"]), name.replace('-', "_"));
        let probed = texts(&service["healthcheck"]["test"])[2].replace("127.0.0.1", "0.0.0.0");
        let mut variables = entries(&service["environment"]);
        let listens = variables.any(|(_, value)| *value == *probed);
        assert!(listens, "{name} is asked where it does not listen");
    }
}

#[test]
fn nobody_waits_for_the_queue_but_who_asks_for_it() {
    for (name, service) in entries(&compose()) {
        let mut needs = entries(&service["depends_on"]);
        let asks = texts(&service["profiles"]) == ["queue"];
        assert_eq!(asks, QUEUE.contains(&name) || name == "nats");
        assert!(asks || needs.all(|(it, _)| it != "nats"), "{name:?}");
    }
}

/// The services send to the address of the Collector, and the Collector sends to the address of Jaeger.
#[test]
fn the_collector_of_the_compose_file_is_where_the_services_look_for_it() {
    let file = collector("examples/compose_and_kubernetes/collector.yaml");
    let listens = &file["receivers"]["otlp"]["protocols"]["http"]["endpoint"];
    let sends = &file["exporters"]["otlp_http"]["endpoint"];
    assert_eq!([text(listens), text(sends)], ["0.0.0.0:4318", "http://jaeger:4318"]);
    let services = compose();
    assert!(services["jaeger"].is_mapping());
    let container = &services["collector"];
    let [volume] = texts(&container["volumes"])[..] else { panic!("one file") };
    let (host, path) = volume.trim_end_matches(":ro").split_once(':').expect("two paths");
    assert!(root().join(FOLDER).join(host).is_file());
    assert_eq!(texts(&container["command"]), [format!("--config={path}")]);
    let validated = source("examples/validate.sh");
    assert!(validated.contains(text(&container["image"])), "another version is validated");
    let limit = text(&container["mem_limit"]).trim_end_matches('m').parse().expect("megabytes");
    assert!(file["processors"]["memory_limiter"]["limit_mib"].as_u64().expect("a limit") < limit);
}

#[test]
fn in_kubernetes_every_container_is_confined_probed_and_has_time_to_stop() {
    let Some(objects) = production() else { return };
    for name in CHAIN {
        let (template, container) = pod(&objects, name);
        let spec = &template["spec"];
        let port = &container["ports"][0]["containerPort"];
        // Callers reach NAME:PORT through a Service.
        let service = &object(&objects, "Service", name)["spec"];
        let budget = &object(&objects, "PodDisruptionBudget", name)["spec"]["selector"];
        let number = port.as_u64().expect("a port");
        let selector = format!("{{ app.kubernetes.io/name: {name} }}");
        let service_port = format!("[{{ name: http, port: {number}, targetPort: http }}]");
        let probe = "{ path: /health, port: http }";
        for (value, expected) in [
            (&spec["automountServiceAccountToken"], "false"),
            (
                &spec["securityContext"],
                "{ runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }",
            ),
            (
                &container["securityContext"],
                "{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true,
                   capabilities: { drop: [ALL] } }",
            ),
            (&container["startupProbe"]["httpGet"], probe),
            (&container["readinessProbe"]["httpGet"], probe),
            (&container["livenessProbe"]["httpGet"], probe),
            (&container["ports"][0]["name"], "http"),
            (&service["ports"], &service_port),
            (&service["selector"], &selector),
            (&budget["matchLabels"], &selector),
            (&template["metadata"]["labels"]["app.kubernetes.io/name"], name),
        ] {
            assert_eq!(*value, parse(expected), "{name}");
        }
        let resources = &container["resources"];
        let [cpu, memory] = [&resources["requests"]["cpu"], &resources["limits"]["memory"]];
        assert!(cpu.is_string() && memory.is_string(), "{name}");
        let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
        let grace = spec["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert!(grace > sleep.expect("seconds") + needed_to_stop(), "{name}");
        let listens = format!("0.0.0.0:{number}");
        let (_, environment) = pod_environment(&objects, name);
        assert!(environment.iter().any(|(_, value)| *value == listens), "{name}");
        let (_, tag) = text(&container["image"]).rsplit_once(':').expect("a tag");
        assert_eq!(tag, version(), "{name}");
    }
}

#[test]
fn the_image_is_built_by_the_oldest_rust_we_name_and_does_not_run_as_root() {
    let dockerfile = source("examples/compose_and_kubernetes/Dockerfile");
    let rust = concat!("FROM rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    assert!(dockerfile.contains(rust), "not {rust}");
    // `runAsNonRoot` wants a number.
    let user = dockerfile.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    let (user, _) = user.and_then(|it| it.split_once(':')).expect("USER NUMBER:NUMBER");
    assert!(user.parse::<u32>().expect("a number") > 0);
    // Behind a shell, SIGTERM is lost.
    assert!(dockerfile.contains("\nENTRYPOINT [\"/service\"]\n"));
    for name in CHAIN.iter().chain(&QUEUE) {
        let binary = format!(" {} ", name.replace('-', "_"));
        assert!(dockerfile.contains(&binary), "{binary} is not in the image");
    }
}

#[test]
fn the_tools_of_compose_and_kubernetes_and_the_linters_accept_the_files() {
    let Some((rendered, tools)) = rendered() else { return };
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), rendered).expect("it is written");
    let tool = |name: &str| Command::new(tools.join(name));
    output_of(tool("kubernetes-validate").arg("--strict").arg(file.path()));
    output_of(tool("hadolint").arg(format!("{FOLDER}/Dockerfile")));
    let scripts =
        ["compose_and_kubernetes/verify.sh", "compose_and_kubernetes/one_trace.sh", "validate.sh"];
    let scripts = scripts.map(|script| format!("examples/{script}"));
    output_of(tool("shellcheck").arg("--severity=warning").args(scripts));
}

#[test]
fn compose_accepts_its_file() {
    let commands = [("docker", &["compose"][..]), ("docker-compose", &[])];
    let runs = |(program, arguments): &(&str, &[&str])| {
        let output = Command::new(program).args(*arguments).arg("version").output();
        output.is_ok_and(|it| it.status.success())
    };
    let Some((program, arguments)) = commands.into_iter().find(runs) else {
        return skipped("compose", "install Docker with compose, or the package `docker-compose`");
    };
    let check = ["--file", COMPOSE, "config", "--quiet"];
    output_of(Command::new(program).args(arguments).args(check));
}

/// The workflow reads the spans from Jaeger. Here the script reads them from the lab, which answers as Jaeger does.
#[tokio::test(flavor = "multi_thread")]
async fn the_script_finds_the_one_trace_and_fails_on_a_torn_one() {
    let whole = with(environments(&CHAIN), "OTEL_BSP_SCHEDULE_DELAY", "50");
    let mut torn = whole.clone();
    let [_, (_, user_service), _] = &mut torn[..] else { panic!("three services") };
    user_service.push(("OTEL_TRACES_SAMPLER".into(), "always_off".into()));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", binaries().await.display());
    for (environments, timeout, code, reports) in
        [(whole, "120s", 0, ": 7 spans as expected"), (torn, "2s", 1, ": 5 missing")]
    {
        let running = Running::start(&environments, COLLECTOR, &[]).await;
        let mut bash = tokio::process::Command::new("bash");
        bash.arg(root().join(FOLDER).join("one_trace.sh"))
            .env("PATH", &path)
            .env("API_GATEWAY_URL", format!("http://{}", running.gateway()))
            .env("JAEGER_URL", format!("http://{}", running.backend))
            .env("SETTLE", "1s")
            .env("TIMEOUT", timeout);
        let output = bash.output().await.expect("bash runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(printed.contains(reports), "{printed}");
        running.stop().await;
    }
}

/// The health check of compose.yaml meets a healthy service, one that says that it isn't, none, and one that doesn't answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_of_the_image_says_whether_a_service_is_healthy() {
    let running = Running::compose().await;
    let (gone, _taken) = refused();
    let (silent, _) = hung().await;
    let unhealthy = serve(Router::new().fallback(async || StatusCode::SERVICE_UNAVAILABLE)).await;
    let probe = binaries().await.join("health_probe");
    let bad = [unhealthy, gone, silent].map(|address| (address, false));
    for (address, healthy) in [(running.gateway(), true)].into_iter().chain(bad) {
        let mut probe = tokio::process::Command::new(&probe);
        let output = within_reason(probe.arg(address.to_string()).output()).await;
        let output = output.expect("it runs");
        assert_eq!(output.status.success(), healthy, "{output:?}");
    }
    running.stop().await;
}
