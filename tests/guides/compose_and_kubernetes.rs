//! What compose.yaml and the Kubernetes manifests say is what the services need: they are started as processes with
//! the environment that the files give them, and their trace is whole.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use course::services::{Plan, Service};
use lab::span::Span;
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::wire::Wire;
use lab::{jaeger, receiver};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use regex::Regex;
use serde_yaml_ng::Value;

use super::brokers::Broker;
use super::collector::{collector, texts, yaml};
use super::component::installed;
use super::example::binaries;
use super::message_queues::QUEUED;
use crate::support::recording::{check, figures};
use crate::support::{
    Log, System, WHOLE, client, free_port, hung, refused, serve, shape, skipped, within_reason,
};

const FOLDER: &str = "examples/compose_and_kubernetes";
const COMPOSE: &str = "examples/compose_and_kubernetes/compose.yaml";
const PRODUCTION: &str = "examples/compose_and_kubernetes/kubernetes/production";

/// The leaf first: each is told where the one before it is.
const CHAIN: [&str; 3] = ["llm-service", "user-service", "api-gateway"];

/// Those that there are with `--profile queue`.
const QUEUE: [&str; 2] = ["queueing-gateway", "queue-worker"];

/// The variables of each service.
type Environments = BTreeMap<&'static str, Vec<(String, String)>>;

// ---- what the files say

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value:?}"))
}

fn compose() -> Value {
    let mut file = yaml(COMPOSE);
    file.apply_merge().expect("what is merged is a mapping");
    file["services"].clone()
}

fn compose_environments() -> Environments {
    environments_of(&CHAIN)
}

/// What compose.yaml says of these services.
fn environments_of(names: &[&'static str]) -> Environments {
    let services = compose();
    let of = |name: &'static str| {
        let variables = services[name]["environment"].as_mapping();
        let variables = variables.unwrap_or_else(|| panic!("{name} has no environment"));
        let pairs =
            variables.iter().map(|(key, value)| (text(key).to_owned(), text(value).to_owned()));
        (name, pairs.collect())
    };
    names.iter().map(|name| of(name)).collect()
}

/// What `kubectl apply -k` would send; nothing where kubectl is missing.
fn production() -> Option<Vec<Value>> {
    let (rendered, _) = rendered()?;
    let objects = rendered.split("\n---\n").map(serde_yaml_ng::from_str);
    Some(objects.map(|it| it.expect("YAML")).collect())
}

/// The overlay as kubectl renders it, and the folder of kubectl.
fn rendered() -> Option<(String, PathBuf)> {
    let tools = installed("deployment")?.join("bin");
    let mut kubectl = Command::new(tools.join("kubectl"));
    let rendered = succeeds(kubectl.args(["kustomize", PRODUCTION]));
    Some((rendered, tools))
}

/// What it prints.
fn succeeds(command: &mut Command) -> String {
    let output = command.current_dir(crate::support::root()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}{errors}");
    printed
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

/// As Kubernetes computes it: what `envFrom` brings, then `env` in its order, where `$(NAME)` is a variable before it.
fn pod_environment(objects: &[Value], name: &'static str) -> Vec<(String, String)> {
    let deployment = object(objects, "Deployment", name);
    let (_, container) = pod(objects, name);
    let mut variables: Vec<(String, String)> = Vec::new();
    for source in container["envFrom"].as_sequence().expect("a list") {
        let map = object(objects, "ConfigMap", text(&source["configMapRef"]["name"]));
        let data = map["data"].as_mapping().expect("data");
        variables.extend(data.iter().map(|(k, v)| (text(k).into(), text(v).into())));
    }
    for variable in container["env"].as_sequence().expect("a list") {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some(path) => field(deployment, path),
            None => text(&variable["value"]).to_owned(),
        };
        let value = variables
            .iter()
            .fold(value, |value, (key, known)| value.replace(&format!("$({key})"), known));
        variables.push((text(&variable["name"]).to_owned(), value));
    }
    variables
}

/// What the downward API says of a pod, made up but for what the manifest knows.
fn field(deployment: &Value, path: &str) -> String {
    let name = text(&deployment["metadata"]["name"]);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    match path {
        "metadata.name" => format!("{name}-0"),
        "metadata.namespace" => text(&deployment["metadata"]["namespace"]).to_owned(),
        "metadata.uid" => format!("uid-of-{name}-0"),
        "spec.nodeName" => "node-1".to_owned(),
        "metadata.labels['app.kubernetes.io/version']" => {
            text(&labels["app.kubernetes.io/version"]).to_owned()
        }
        other => panic!("the downward API has no {other}"),
    }
}

fn production_environments(objects: &[Value]) -> Environments {
    CHAIN.map(|name| (name, pod_environment(objects, name))).into()
}

// ---- the services, started as the files say

/// Starts `services`, the leaf first, with their variables and no other. Of the addresses in them only those that the
/// files' own network would translate are replaced: `0.0.0.0:PORT`, and hosts that `hosts` or a service is called by.
async fn start(
    services: &[&'static str],
    environments: &Environments,
    mut hosts: BTreeMap<String, SocketAddr>,
    log: &Log,
) -> Vec<Service> {
    let mut started = Vec::new();
    for &name in services {
        let here = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut plan = Plan::bare(&binaries().await, name);
        let mut called = None;
        for (key, value) in &environments[name] {
            let value = match value.split_once("://") {
                Some((scheme, host)) => {
                    let there = hosts.get(host);
                    let there = there.unwrap_or_else(|| panic!("{key}: nobody is at {host}"));
                    format!("{scheme}://{there}")
                }
                None => match value.strip_prefix("0.0.0.0:") {
                    Some(port) => {
                        called = Some(format!("{name}:{port}"));
                        here.to_string()
                    }
                    None => value.clone(),
                },
            };
            plan = plan.with(key, value);
        }
        let service = Service::start(plan, log.sink()).await.expect("it starts");
        assert_eq!(service.address, here, "{name} does not listen where its file says");
        hosts.insert(called.expect("a service listens on all addresses"), here);
        started.push(service);
    }
    started
}

/// All three, with a receiver where the files look for the Collector.
async fn system(environments: &Environments, collector: &str) -> System {
    let (store, log) = (Store::new(Limits::default()), Log::default());
    let backend = serve(receiver::routes(store.clone())).await;
    let hosts = [(collector.to_owned(), backend)].into();
    let services = start(&CHAIN, environments, hosts, &log).await;
    let [llm, user, gateway] = services.try_into().ok().expect("three");
    System { gateway, user, llm, store, wire: Wire::default(), log }
}

/// An attribute of who sent a span.
fn resource(span: &Span, key: &str) -> String {
    let mut attributes = span.source.resource.attributes.iter();
    let value = attributes.find(|it| it.key == key).and_then(|it| it.value.clone());
    match value.and_then(|it| it.value) {
        Some(Any::StringValue(text)) => text,
        other => panic!("{}: {key} is {other:?}", span.service()),
    }
}

/// All that `service` says of itself with its spans, but for the version of the SDK.
fn who(tree: &Tree, service: &str) -> String {
    let mut rows = tree.rows.iter();
    let row = rows.find(|row| row.span.service() == service).expect("a span");
    let attributes = row.span.source.resource.attributes.iter();
    let keys = attributes.map(|it| it.key.as_str()).filter(|key| !key.starts_with("telemetry."));
    let mut lines: Vec<String> =
        keys.map(|key| format!("{key}={}\n", resource(&row.span, key))).collect();
    lines.sort();
    lines.concat()
}

/// Of the crate that the images hold.
fn version() -> String {
    let manifest =
        fs::read_to_string(crate::support::root().join("examples/distributed_tracing/Cargo.toml"));
    let manifest = manifest.expect("a manifest");
    let version = Regex::new(r#"(?m)^version = "(.*)"$"#).expect("a pattern");
    version.captures(&manifest).expect("a version")[1].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_environment_of_the_compose_file_a_request_is_one_trace() {
    let system = system(&compose_environments(), "collector:4318").await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let tree = system.stop().await.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    for row in &tree.rows {
        assert_eq!(resource(&row.span, "service.namespace"), "one-trace");
        assert_eq!(resource(&row.span, "service.version"), version());
        assert_eq!(resource(&row.span, "deployment.environment.name"), "compose");
    }
    check!("compose-and-kubernetes/compose.html", &figures(&[tree]));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_profile_of_the_queue_a_query_is_one_trace_over_it() {
    let Some(broker) = Broker::nats().await else {
        return;
    };
    assert!(texts(&compose()["nats"]["command"]).contains(&"--jetstream"));
    let (store, log) = (Store::new(Limits::default()), Log::default());
    let backend = serve(receiver::routes(store.clone())).await;
    let nats = broker.url.trim_start_matches("nats://");
    let nats = nats.parse().expect("an address");
    let hosts = [("collector:4318", backend), ("nats:4222", nats)];
    let hosts = hosts.map(|(host, address)| (host.to_owned(), address)).into();
    let names = ["llm-service", "user-service", QUEUE[0], QUEUE[1]];
    let services = start(&names, &environments_of(&names), hosts, &log).await;
    let request = client()
        .post(format!("http://{}/api/query", services[2].address))
        .json(&serde_json::json!({ "user_id": "user_1", "query": "What is a trace?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 202);
    log.wait_for("queue-worker", "verdict=Done").await;
    for service in services.into_iter().rev() {
        service.stop().await;
    }
    let shapes: Vec<String> = store.trees().iter().map(shape).collect();
    assert_eq!(shapes, [QUEUED]);
}

/// None and all of 200 have a chance below one in a billion each.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_environment_of_the_overlay_a_tenth_is_recorded_and_says_from_which_pod() {
    let Some(objects) = production() else { return };
    let environments = production_environments(&objects);
    let system = system(&environments, "collector.observability.svc:4318").await;
    for _ in 0..200 {
        assert_eq!(system.ask("user_1").await.status(), 200);
    }
    let trees = system.stop().await.trees();
    assert!((1..100).contains(&trees.len()), "{} of 200", trees.len());
    for tree in &trees {
        assert_eq!(shape(tree), WHOLE);
    }
    let [gateway, user, llm] =
        ["api-gateway", "user-service", "llm-service"].map(|name| who(&trees[0], name));
    for (name, lines) in [("api-gateway", gateway), ("llm-service", llm)] {
        assert!(lines.contains(&format!("k8s.pod.name={name}-0\n")), "{lines}");
    }
    assert!(user.contains(&format!("service.version={}\n", version())), "{user}");
    check!("compose-and-kubernetes/pod.txt", &user);
}

/// A kill is what follows a grace period that is too short, and what a container that takes too much memory gets.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_loses_its_spans_and_the_caller_says_so() {
    let (store, log) = (Store::new(Limits::default()), Log::default());
    let backend = serve(receiver::routes(store.clone())).await;
    let (slow, called) = hung().await;
    let hosts = [("collector:4318", backend), ("llm-service:5002", slow)];
    let hosts = hosts.map(|(host, address)| (host.to_owned(), address)).into();
    let mut environments = compose_environments();
    for variables in environments.values_mut() {
        // Nothing is sent before the end.
        variables.push(("OTEL_BSP_SCHEDULE_DELAY".into(), "3600000".into()));
    }
    let services = start(&["user-service", "api-gateway"], &environments, hosts, &log).await;
    let [user, gateway] = services.try_into().ok().expect("two");
    let request = client()
        .post(format!("http://{}/api/query", gateway.address))
        .json(&serde_json::json!({ "user_id": "user_1", "query": "What is a trace?" }));
    let request = tokio::spawn(request.send());
    within_reason(called.notified()).await;
    // SIGKILL.
    drop(user);
    let answer = within_reason(request).await.expect("a task").expect("an answer");
    assert_eq!(answer.status(), 502);
    gateway.stop().await;
    let trees = store.trees();
    let expected = "\
POST /api/query SERVER api-gateway http 502 error 502
  POST /process CLIENT api-gateway error unreachable
";
    assert_eq!(trees.iter().map(shape).collect::<String>(), expected);
    check!("compose-and-kubernetes/killed.html", &figures(&trees));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_no_request() {
    let (away, _taken) = refused();
    let log = Log::default();
    let hosts = [("collector:4318".to_owned(), away)].into();
    let services = start(&CHAIN, &compose_environments(), hosts, &log).await;
    let gateway = services.last().expect("three").address;
    let request = client()
        .post(format!("http://{gateway}/api/query"))
        .json(&serde_json::json!({ "user_id": "user_1", "query": "What is a trace?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    for service in services.into_iter().rev() {
        service.stop().await;
    }
    for (service, lost) in [("api-gateway", 2), ("user-service", 3), ("llm-service", 2)] {
        let lines = log.find(
            service,
            &format!("spans were lost: the trace backend did not take them lost={lost}"),
        );
        assert_eq!(lines.len(), 1, "{:#?}", log.lines());
    }
}

// ---- the rules that the page states

/// A duration of the services' sources, in seconds.
fn seconds(file: &str, name: &str) -> u64 {
    let path = crate::support::root().join("examples/distributed_tracing/src").join(file);
    let source = fs::read_to_string(path).expect("a source");
    let pattern = format!(r"const {name}: Duration = Duration::from_secs\((\d+)\);");
    let found = Regex::new(&pattern).expect("a pattern");
    let found = found.captures(&source).unwrap_or_else(|| panic!("no {name} in {file}"));
    found[1].parse().expect("a number")
}

/// Requests in flight may finish, and the last spans be sent, before SIGKILL.
fn needed_to_stop() -> u64 {
    seconds("server.rs", "SHUTDOWN_DEADLINE") + seconds("telemetry.rs", "FLUSH_TIMEOUT")
}

#[test]
fn in_compose_every_container_is_confined_and_has_time_to_stop() {
    let services = compose();
    for (name, service) in services.as_mapping().expect("services") {
        let name = text(name);
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
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
        let address = texts(&service["healthcheck"]["test"])[2];
        let (_, port) = address.split_once(':').expect("a port");
        let environment = service["environment"].as_mapping().expect("variables");
        assert!(
            environment.iter().any(|(_, value)| text(value) == format!("0.0.0.0:{port}")),
            "{name} is asked where it does not listen"
        );
    }
}

#[test]
fn nobody_waits_for_the_queue_but_who_asks_for_it() {
    let services = compose();
    for (name, service) in services.as_mapping().expect("services") {
        let needs = service["depends_on"].as_mapping();
        let mut needs = needs.into_iter().flat_map(|it| it.keys()).map(text);
        let asks = texts(&service["profiles"]) == ["queue"];
        assert_eq!(asks, QUEUE.contains(&text(name)) || name == "nats");
        assert!(asks || needs.all(|it| it != "nats"), "{name:?}");
    }
}

/// The services send to it, and it sends to Jaeger, where they say.
#[test]
fn the_collector_of_the_compose_file_is_where_the_services_look_for_it() {
    let file = collector("examples/compose_and_kubernetes/collector.yaml");
    let listens = &file["receivers"]["otlp"]["protocols"]["http"]["endpoint"];
    assert_eq!(text(listens), "0.0.0.0:4318");
    assert_eq!(text(&file["exporters"]["otlphttp"]["endpoint"]), "http://jaeger:4318");
    let services = compose();
    assert!(services["jaeger"].is_mapping());
    let [volume] = texts(&services["collector"]["volumes"])[..] else { panic!("one file") };
    let (host, container) = volume.trim_end_matches(":ro").split_once(':').expect("two paths");
    assert!(crate::support::root().join(FOLDER).join(host).is_file());
    let command = texts(&services["collector"]["command"]);
    assert_eq!(command, [format!("--config={container}")]);
    let limit = text(&services["collector"]["mem_limit"]).trim_end_matches('m');
    let image = text(&services["collector"]["image"]);
    let validated = fs::read_to_string(crate::support::root().join("examples/validate.sh"));
    assert!(validated.expect("a script").contains(image), "another version is validated");
    let own = file["processors"]["memory_limiter"]["limit_mib"].as_u64();
    assert!(own.expect("a limit") < limit.parse().expect("megabytes"));
}

#[test]
fn in_kubernetes_every_container_is_confined_probed_and_has_time_to_stop() {
    let Some(objects) = production() else { return };
    for name in CHAIN {
        let (template, container) = pod(&objects, name);
        let spec = &template["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(spec["automountServiceAccountToken"], false);
        let confined = &container["securityContext"];
        assert_eq!(confined["allowPrivilegeEscalation"], false);
        assert_eq!(confined["readOnlyRootFilesystem"], true);
        assert_eq!(texts(&confined["capabilities"]["drop"]), ["ALL"]);
        assert!(container["resources"]["requests"]["cpu"].is_string());
        assert!(container["resources"]["limits"]["memory"].is_string());
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["path"], "/health", "{name} {probe}");
            assert_eq!(container[probe]["httpGet"]["port"], "http", "{name} {probe}");
        }
        let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
        let grace = spec["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert!(grace > sleep.expect("seconds") + needed_to_stop(), "{name}");

        // Who calls NAME:PORT reaches the port that the container listens on.
        let port = &container["ports"][0];
        assert_eq!(port["name"], "http");
        let number = port["containerPort"].as_u64().expect("a port");
        let environment = pod_environment(&objects, name);
        let listens = format!("0.0.0.0:{number}");
        assert!(environment.iter().any(|(_, value)| *value == listens), "{name}");
        let service = &object(&objects, "Service", name)["spec"];
        assert_eq!(service["ports"][0]["port"].as_u64(), Some(number));
        assert_eq!(service["ports"][0]["targetPort"], "http");
        let budget = &object(&objects, "PodDisruptionBudget", name)["spec"]["selector"];
        for selector in [&service["selector"], &budget["matchLabels"]] {
            for (label, value) in selector.as_mapping().expect("labels") {
                assert_eq!(template["metadata"]["labels"][label], *value, "{name}");
            }
        }
        let (_, tag) = text(&container["image"]).rsplit_once(':').expect("a tag");
        assert_eq!(tag, version(), "{name}");
    }
}

#[test]
fn the_image_is_built_by_the_oldest_rust_we_name_and_does_not_run_as_root() {
    let path = crate::support::root().join(FOLDER).join("Dockerfile");
    let dockerfile = fs::read_to_string(path).expect("a file");
    let manifest =
        fs::read_to_string(crate::support::root().join("Cargo.toml")).expect("a manifest");
    let rust = Regex::new(r#"rust-version = "(.*)""#).expect("a pattern");
    let rust = &rust.captures(&manifest).expect("a version")[1];
    assert!(dockerfile.contains(&format!("FROM rust:{rust}-")), "not {rust}");
    // `runAsNonRoot` wants a number.
    let user = dockerfile.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    let (user, _) = user.and_then(|it| it.split_once(':')).expect("USER NUMBER:NUMBER");
    assert!(user.parse::<u32>().expect("a number") > 0);
    assert!(
        dockerfile.contains("\nENTRYPOINT [\"/service\"]\n"),
        "behind a shell, SIGTERM is lost"
    );
    for name in CHAIN.iter().chain(&QUEUE) {
        let binary = format!(" {} ", name.replace('-', "_"));
        assert!(dockerfile.contains(&binary), "{binary} is not in the image");
    }
}

#[test]
fn the_tools_of_compose_and_kubernetes_and_the_linters_accept_the_files() {
    let Some((rendered, tools)) = rendered() else {
        return;
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), rendered).expect("it is written");
    succeeds(Command::new(tools.join("kubernetes-validate")).arg("--strict").arg(file.path()));
    succeeds(Command::new(tools.join("hadolint")).arg(format!("{FOLDER}/Dockerfile")));
    let mut shellcheck = Command::new(tools.join("shellcheck"));
    let scripts =
        ["compose_and_kubernetes/verify.sh", "compose_and_kubernetes/one_trace.sh", "validate.sh"];
    shellcheck.arg("--severity=warning");
    succeeds(shellcheck.args(scripts.map(|script| format!("examples/{script}"))));
}

#[test]
fn compose_accepts_its_file() {
    let runs = |command: &mut Command| command.output().is_ok_and(|it| it.status.success());
    let mut compose = match runs(Command::new("docker").args(["compose", "version"])) {
        true => {
            let mut plugin = Command::new("docker");
            plugin.arg("compose");
            plugin
        }
        false if runs(Command::new("docker-compose").arg("version")) => {
            Command::new("docker-compose")
        }
        false => {
            return skipped(
                "compose",
                "install Docker with compose, or the package `docker-compose`",
            );
        }
    };
    succeeds(compose.args(["--file", COMPOSE, "config", "--quiet"]));
}

/// What the workflow asks of Jaeger after a request, asked of the lab, which answers as Jaeger does.
#[tokio::test(flavor = "multi_thread")]
async fn the_script_finds_the_one_trace_and_fails_on_a_torn_one() {
    for program in ["curl", "jq"] {
        if crate::support::is_missing(program, &format!("install the package `{program}`")) {
            return;
        }
    }
    let whole = compose_environments();
    let mut torn = whole.clone();
    let user = torn.get_mut("user-service").expect("a service");
    user.push(("OTEL_TRACES_SAMPLER".into(), "always_off".into()));
    for (environments, patience, code, says) in
        [(whole, "120", 0, "one trace: {\"spans\":7"), (torn, "0", 1, "but got  {\"spans\"")]
    {
        let store = Store::new(Limits::default());
        let routes = receiver::routes(store.clone()).merge(jaeger::routes(store));
        let backend = serve(routes).await;
        let hosts = [("collector:4318".to_owned(), backend)].into();
        let log = Log::default();
        let mut environments = environments;
        for variables in environments.values_mut() {
            variables.push(("OTEL_BSP_SCHEDULE_DELAY".into(), "50".into()));
        }
        let services = start(&CHAIN, &environments, hosts, &log).await;
        let gateway = services.last().expect("three").address;
        let script = crate::support::root().join(FOLDER).join("one_trace.sh");
        let mut bash = tokio::process::Command::new("bash");
        bash.arg(script)
            .env("API_GATEWAY_URL", format!("http://{gateway}"))
            .env("JAEGER_URL", format!("http://{backend}"))
            .env("PATIENCE", patience);
        let output = bash.output().await.expect("bash runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(printed.contains(says), "{printed}");
        for service in services.into_iter().rev() {
            service.stop().await;
        }
    }
}

/// Healthy, gone, and not answering: as the health check of compose.yaml sees it.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_of_the_image_says_whether_a_service_is_healthy() {
    let system = system(&compose_environments(), "collector:4318").await;
    let (gone, _taken) = refused();
    let (silent, _) = hung().await;
    let probe = binaries().await.join("health_probe");
    for (address, healthy) in [(system.gateway.address, true), (gone, false), (silent, false)] {
        let mut probe = tokio::process::Command::new(&probe);
        let output = within_reason(probe.arg(address.to_string()).output()).await;
        let output = output.expect("it runs");
        assert_eq!(output.status.success(), healthy, "{output:?}");
    }
    system.stop().await;
}
