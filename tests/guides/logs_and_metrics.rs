//! From a log line, a log record and a metric one gets to the trace, and back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use lab::span::TraceId;
use lab::tree::Tree;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use regex::Regex;
use reqwest::Method;
use serde_json::json;

use super::example::binaries;
use crate::support::recording::{check, figures};
use crate::support::{Setup, WHOLE, client, serve, shape};

type Records = Arc<Mutex<Vec<(String, LogRecord)>>>;

/// A backend for logs: where it listens, and the records that came, each with the scope that it is of.
async fn backend() -> (SocketAddr, Records) {
    let records = Records::default();
    let seen = Arc::clone(&records);
    let take = async move |body: Bytes| {
        let request = ExportLogsServiceRequest::decode(body).expect("log records");
        let scopes = request.resource_logs.into_iter().flat_map(|it| it.scope_logs);
        for logs in scopes {
            let scope = logs.scope.map(|it| it.name).unwrap_or_default();
            let records = logs.log_records.into_iter().map(|it| (scope.clone(), it));
            seen.lock().expect("a lock").extend(records);
        }
    };
    let address = serve(Router::new().route("/v1/logs", post(take))).await;
    (address, records)
}

async fn setup() -> Setup {
    binaries().await;
    Setup::default()
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .run_by("user-service", "observed_user_service")
}

fn ids(tree: &Tree) -> BTreeSet<String> {
    tree.rows.iter().map(|row| row.span.id.to_string()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_line_to_its_trace_and_back() {
    let system = setup().await.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    assert_eq!(shape(&tree), WHOLE);

    // From a line of user-service, which is JSON ...
    let lines = stopped.log.find("user-service", "answered");
    let json = lines[0].split_once(" | ").expect("a line").1;
    let line: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let id = line["trace_id"].as_str().expect("an id");
    assert_eq!(TraceId::parse(id), Some(tree.trace_id));
    assert!(ids(&tree).contains(line["span_id"].as_str().expect("an id")));
    assert_eq!(line["status"], 200, "a number stays one");
    // ... and back to the lines of all services, in the order in which they answered.
    let of_trace: Vec<String> = stopped.log.lines();
    let of_trace = of_trace.iter().filter(|line| line.contains(id));
    let services: Vec<&str> =
        of_trace.clone().map(|line| line.split(' ').next().expect("a name")).collect();
    assert_eq!(services.len(), 3);
    assert_eq!(
        BTreeSet::from_iter(services),
        BTreeSet::from(["api-gateway", "llm-service", "user-service"])
    );
    // What is not of a request has no id.
    let listening = stopped.log.find("user-service", "listening").remove(0);
    assert!(!listening.contains("trace_id"), "{listening}");

    check!("logs-and-metrics/whole.html", &figures(&[tree]));
    check!("logs-and-metrics/line.txt", &format!("{json}\n"));
    let mut lines: Vec<&str> = of_trace.map(String::as_str).collect();
    lines.sort_unstable();
    check!("logs-and-metrics/lines.txt", &(lines.join("\n") + "\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_log_record_of_a_request_has_its_ids() {
    let (address, records) = backend().await;
    let endpoint = format!("http://{address}/v1/logs");
    let setup = setup().await;
    let setup = setup.with("user-service", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", endpoint);
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    let records = records.lock().expect("a lock");
    let (of_request, others): (Vec<_>, Vec<_>) =
        records.iter().partition(|(_, record)| !record.trace_id.is_empty());
    assert_eq!((of_request.len(), others.len()), (1, 1), "answered, and listening: {records:?}");
    for (scope, record) in of_request {
        assert_eq!(hex(&record.trace_id), tree.trace_id.to_string());
        assert!(ids(&tree).contains(&hex(&record.span_id)));
        assert_eq!((record.severity_text.as_str(), record.severity_number), ("INFO", 9));
        assert!(!scope.starts_with("opentelemetry"), "{scope}");
    }
}

/// A backend that refuses: what OpenTelemetry says about it is printed, and not exported.
#[tokio::test(flavor = "multi_thread")]
async fn the_exporter_does_not_export_its_own_lines() {
    let (address, records) = backend().await;
    let setup = setup().await.with(
        "user-service",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        format!("http://{address}/v1/logs"),
    );
    let nowhere = format!("http://{address}/nowhere");
    let setup = setup.with("user-service", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", nowhere);
    let system = setup.start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    assert!(!stopped.log.find("user-service", "ExportError").is_empty());
    let records = records.lock().expect("a lock");
    assert_eq!(records.len(), 2, "listening, and answered: {records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_all_requests_and_name_a_trace_that_was_recorded() {
    let system = setup().await.start().await;
    // The last ones are not sampled: as examples they would lead nowhere.
    let callers = [
        "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "11111111111111111111111111111111-2222222222222222-00",
    ];
    for caller in callers {
        for _ in 0..10 {
            let request = client().post(format!("http://{}/api/query", system.gateway.address));
            let request = request.header("traceparent", format!("00-{caller}")).json(&json!({
                "user_id": "user_1",
                "query": "What is a trace?",
            }));
            assert_eq!(request.send().await.expect("an answer").status(), 200);
        }
    }
    // Another method is another status, and no new value of a label.
    let process = format!("http://{}/process", system.user.address);
    let odd = Method::from_bytes(b"ODD").expect("a method");
    assert_eq!(client().request(odd, process).send().await.expect("an answer").status(), 405);
    let url = format!("http://{}/metrics", system.user.address);
    let answer = client().get(url).send().await.expect("an answer");
    let form = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(form.starts_with("application/openmetrics-text"), "{form}");
    let text = answer.text().await.expect("text");
    let stopped = system.stop().await;
    let trees = stopped.trees();
    let count = text.lines().find(|it| it.contains("_count{") && it.contains("\"200\""));
    assert!(count.expect("a count").ends_with(" 20"), "{text}");
    assert!(text.contains("http_request_method=\"_OTHER\"") && !text.contains("ODD"), "{text}");

    let pattern = Regex::new("# \\{trace_id=\"([0-9a-f]{32})\"\\}").expect("a pattern");
    let examples: Vec<_> = pattern.captures_iter(&text).map(|it| it[1].to_owned()).collect();
    assert!(!examples.is_empty(), "{text}");
    for example in examples {
        let id = TraceId::parse(&example).expect("an id");
        assert!(trees.iter().any(|tree| tree.trace_id == id), "{example} leads nowhere");
    }
    let example = text.lines().find(|it| it.contains("# {"));
    let shown = Regex::new(r#"le="[\d.]+""#).expect("a pattern");
    // Which bucket it is, and how many are in it, differs from run to run.
    let example = example.expect("an example");
    assert!(shown.is_match(example));
    if crate::support::recording::overwrite() {
        check!("logs-and-metrics/example.txt", &format!("{example}\n"));
    }
}
