//! Starts Phoenix and reads back the spans that it was sent.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use lab::proto::collector::ExportTraceServiceRequest;
use serde_json::{Value, json};
use tokio::process::Command;

use super::component::{Component, installed};
use support::{client, free_port, until};

/// Starts it as its own program does, but without garbage collection, which takes a third of the start.
const SERVE: &str =
    "import gc, sys; gc.disable(); from phoenix.server.main import main; sys.exit(main())";

/// Starts it at `address`, without its assistant; `None` where it is not installed.
pub async fn start(address: SocketAddr, folder: &Path) -> Option<Component> {
    let mut command = Command::new(installed("phoenix")?.join("bin/python"));
    command
        .args(["-c", SERVE, "serve"])
        .env("PHOENIX_WORKING_DIR", folder)
        .env("PHOENIX_HOST", address.ip().to_string())
        .env("PHOENIX_PORT", address.port().to_string())
        .env("PHOENIX_GRPC_PORT", free_port().to_string())
        .env("PHOENIX_TELEMETRY_ENABLED", "false")
        .env("PHOENIX_ALLOW_EXTERNAL_RESOURCES", "false")
        .env("PHOENIX_DISABLE_AGENT_ASSISTANT", "true")
        .env("PHOENIX_ENABLE_MCP_SERVER", "false");
    Some(Component::start(command, "Uvicorn running on").await)
}

/// The spans of a project, when there are that many. Phoenix stores them after it has answered.
pub async fn spans(address: SocketAddr, project: &str, count: usize) -> ExportTraceServiceRequest {
    let url = format!("http://{address}/v1/projects/{project}/spans/otlpv1?limit=1000");
    until(async || {
        let answer = client().get(&url).send().await.expect("an answer");
        let answer: Value = answer.json().await.unwrap_or_default();
        match answer["data"].as_array() {
            Some(spans) if spans.len() >= count => Ok(request(spans)),
            _ => Err(answer),
        }
    })
    .await
}

/// The spans as OTLP's JSON has them, without resource and scope.
fn request(spans: &[Value]) -> ExportTraceServiceRequest {
    let spans = spans.iter().map(|span| {
        let fields = span.as_object().expect("a span").keys().map(|it| &**it);
        assert_eq!(fields.collect::<BTreeSet<_>>(), FIELDS.split(' ').collect());
        // Phoenix says so of every span, whatever it was sent as.
        assert_eq!((&span["links"], &span["kind"]), (&Value::Null, &json!("SPAN_KIND_INTERNAL")));
        let mut span = otlp(span);
        span["kind"] = json!(1);
        span
    });
    let spans: Vec<Value> = spans.collect();
    let request = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
    serde_json::from_value(request).expect("OTLP")
}

/// Everything that Phoenix says of a span. If it says more one day, the guide has to say so.
const FIELDS: &str = "attributes dropped_attributes_count dropped_events_count dropped_links_count \
    end_time_unix_nano events flags kind links name parent_span_id span_id start_time_unix_nano \
    status trace_id trace_state";

/// The same JSON with the names of OTLP, and without what is null: of a value, Phoenix lists every type.
fn otlp(json: &Value) -> Value {
    match json {
        Value::Object(fields) => {
            let set = fields.iter().filter(|(_, value)| !value.is_null());
            set.map(|(name, value)| (camel_case(name), otlp(value))).collect()
        }
        Value::Array(values) => values.iter().map(otlp).collect(),
        other => other.clone(),
    }
}

/// `span_id` as `spanId`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}
