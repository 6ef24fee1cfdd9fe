//! From a log line, a log record and a metric one gets to the trace, and back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use lab::case::Case;
use lab::moments::Moments;
use lab::terminal;
use lab::tree::Tree;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use regex::Regex;
use reqwest::Method;

use super::example::binaries;
use support::recording::{check, check_as, figures, overwrite, recorded, redact};
use support::{Setup, WHOLE, client, serve, shape};

type Records = Arc<Mutex<Vec<(String, LogRecord)>>>;

/// The address of a backend for logs, and the records that it gets, each with its scope.
async fn backend() -> (SocketAddr, Records) {
    let records = Records::default();
    let seen = Arc::clone(&records);
    let take = async move |body: Bytes| {
        let request = ExportLogsServiceRequest::decode(body).expect("log records");
        for logs in request.resource_logs.into_iter().flat_map(|it| it.scope_logs) {
            let scope = logs.scope.unwrap_or_default().name;
            let records = logs.log_records.into_iter().map(|it| (scope.clone(), it));
            seen.lock().expect("a lock").extend(records);
        }
    };
    (serve(Router::new().route("/v1/logs", post(take))).await, records)
}

async fn setup() -> Setup {
    binaries().await;
    Setup::default().run_by("user-service", "observed_user_service")
}

/// The same, with the log records of user-service going to a backend at `address`.
async fn exporting_logs(address: SocketAddr) -> Setup {
    let endpoint = format!("http://{address}/v1/logs");
    setup().await.with("user-service", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", endpoint)
}

fn ids(tree: &Tree) -> BTreeSet<String> {
    tree.rows.iter().map(|row| row.span.id.to_string()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_line_to_its_trace_and_back() {
    let stopped = setup().await.answers("user_1", 200).await;
    let tree = stopped.only_tree();
    assert_eq!(shape(&tree), WHOLE);

    // From a line of user-service, which is JSON ...
    let lines = stopped.log.find("user-service", "answered");
    let json = lines[0].split_once(" | ").expect("a line").1;
    let line: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let id = tree.trace_id.to_string();
    assert_eq!(line["trace_id"], id);
    assert!(ids(&tree).contains(line["span_id"].as_str().expect("an id")));
    assert_eq!(line["status"], 200, "a number stays one");
    // ... and back to the lines of all services.
    let mut lines = stopped.log.lines();
    lines.retain(|line| line.contains(&id));
    lines.sort_unstable();
    let services: Vec<_> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(services, ["api-gateway", "llm-service", "user-service"]);
    // A line that belongs to no request has no id.
    let stopping = stopped.log.find("user-service", "stopping").remove(0);
    assert!(!stopping.contains("trace_id"), "{stopping}");

    check!("logs-and-metrics/whole.html", &figures(&[tree]));
    check!("logs-and-metrics/line.txt", &format!("{json}\n"));
    check!("logs-and-metrics/lines.txt", &(lines.join("\n") + "\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_log_record_of_a_request_has_its_ids() {
    let (address, records) = backend().await;
    let tree = exporting_logs(address).await.answers("user_1", 200).await.only_tree();
    let records = records.lock().expect("a lock");
    let (of_request, others): (Vec<_>, Vec<_>) =
        records.iter().partition(|(_, record)| !record.trace_id.is_empty());
    assert_eq!((of_request.len(), others.len()), (1, 1), "answered, and stopping: {records:?}");
    for (scope, record) in of_request {
        let of_trace = (hex(&record.trace_id), &*record.severity_text, record.severity_number);
        assert_eq!(of_trace, (tree.trace_id.to_string(), "INFO", 9));
        assert!(ids(&tree).contains(&hex(&record.span_id)));
        assert!(!scope.starts_with("opentelemetry"), "{scope}");
    }
}

/// The lab gets spans and log records at one address.
#[tokio::test(flavor = "multi_thread")]
async fn the_lab_shows_the_records_below_their_spans() {
    let stopped = setup().await.answers("user_1", 200).await;
    let tree = stopped.only_tree();
    let logs = stopped.store.logs(tree.trace_id);
    assert_eq!((logs.len(), stopped.store.usage().logs_without_trace), (1, 1), "{logs:?}");
    let moments = Moments::new(&tree, &logs);
    assert!(moments.without_span.is_empty(), "{moments:?}");
    let id = tree.trace_id;
    let case = Case { logs, ..Case::new(vec![tree], Vec::new()) };
    let text = terminal::trace(&case, id, Some(100)).expect("the trace");
    let text = anstream::adapter::strip_str(&text).to_string();
    // The time of a record ends in one column, so it begins in another if it has more digits.
    let indent = Regex::new(r" +\+ ").expect("a pattern");
    let normal = |text: &str| indent.replace_all(&redact(text), " + ").into_owned();
    check_as(recorded!("logs-and-metrics/trace.txt"), &text, normal).unwrap();
}

/// A backend that refuses: what OpenTelemetry says about it is printed, and not exported.
#[tokio::test(flavor = "multi_thread")]
async fn the_exporter_does_not_export_its_own_lines() {
    let (address, records) = backend().await;
    let nowhere = format!("http://{address}/nowhere");
    let setup = exporting_logs(address).await;
    let setup = setup.with("user-service", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", nowhere);
    let stopped = setup.answers("user_1", 200).await;
    assert!(!stopped.log.find("user-service", "ExportError").is_empty());
    let records = records.lock().expect("a lock");
    assert_eq!(records.len(), 2, "answered, and stopping: {records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_all_requests_and_name_a_trace_that_was_recorded() {
    let system = setup().await.start().await;
    // The last ones are not sampled: as examples they would lead nowhere.
    for caller in [
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-11111111111111111111111111111111-2222222222222222-00",
    ] {
        for _ in 0..10 {
            system.ask_with(&[("traceparent", caller)]).await;
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
    let traces = system.stop().await.trees();
    let traces: BTreeSet<String> = traces.iter().map(|tree| tree.trace_id.to_string()).collect();
    let count = text.lines().find(|it| it.contains("_count{") && it.contains("\"200\""));
    assert!(count.expect("a count").ends_with(" 20"), "{text}");
    assert!(text.contains("http_request_method=\"_OTHER\"") && !text.contains("ODD"), "{text}");

    let pattern = Regex::new("# \\{trace_id=\"([0-9a-f]{32})\"\\}").expect("a pattern");
    let examples: BTreeSet<_> = pattern.captures_iter(&text).map(|it| it[1].to_owned()).collect();
    assert!(!examples.is_empty(), "{text}");
    assert!(examples.is_subset(&traces), "{examples:?} of {traces:?}");
    let example = text.lines().find(|it| it.contains("# {")).expect("an example");
    // Which bucket it is, and how many are in it, differs from run to run.
    assert!(Regex::new(r#"le="[\d.]+""#).expect("a pattern").is_match(example));
    if overwrite() {
        check!("logs-and-metrics/example.txt", &format!("{example}\n"));
    }
}
