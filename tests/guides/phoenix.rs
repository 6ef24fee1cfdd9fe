//! Phoenix: how it is started, and the spans that it gives back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use serde_json::Value;
use tokio::process::Command;

use super::component::{Component, installed};
use crate::support::{client, free_port, until};

/// As its own program does, but for a collector of garbage that is at work for a third of the start. It lives for seconds.
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
pub async fn spans(address: SocketAddr, project: &str, count: usize) -> Vec<Span> {
    let url = format!("http://{address}/v1/projects/{project}/spans/otlpv1?limit=1000");
    until(async || {
        let answer = client().get(&url).send().await.expect("an answer");
        let answer: Value = answer.json().await.unwrap_or_default();
        let spans = list(&answer["data"]);
        match spans.len() >= count {
            true => Ok(spans.iter().map(span_of).collect()),
            false => Err(answer),
        }
    })
    .await
}

/// All that it says of a span. Where that is more than it was, the guide has to say so.
fn span_of(json: &Value) -> Span {
    let known = [
        "attributes",
        "dropped_attributes_count",
        "dropped_events_count",
        "dropped_links_count",
        "end_time_unix_nano",
        "events",
        "flags",
        "kind",
        "links",
        "name",
        "parent_span_id",
        "span_id",
        "start_time_unix_nano",
        "status",
        "trace_id",
        "trace_state",
    ];
    let said: BTreeSet<&str> =
        json.as_object().expect("a span").keys().map(String::as_str).collect();
    assert_eq!(said, BTreeSet::from(known));
    assert!(json["links"].is_null(), "{json}");
    // Of every span, whatever it was sent as.
    assert_eq!(json["kind"], "SPAN_KIND_INTERNAL");
    Span {
        trace_id: id(&json["trace_id"]),
        span_id: id(&json["span_id"]),
        parent_span_id: id(&json["parent_span_id"]),
        trace_state: text(&json["trace_state"]),
        name: text(&json["name"]),
        kind: 1,
        start_time_unix_nano: json["start_time_unix_nano"].as_u64().expect("a time"),
        end_time_unix_nano: json["end_time_unix_nano"].as_u64().expect("a time"),
        attributes: attributes(&json["attributes"]),
        events: list(&json["events"]).iter().map(event_of).collect(),
        status: Some(Status {
            code: json["status"]["code"].as_i64().unwrap_or_default() as i32,
            message: text(&json["status"]["message"]),
        }),
        ..Span::default()
    }
}

fn event_of(json: &Value) -> Event {
    Event {
        time_unix_nano: json["time_unix_nano"].as_u64().expect("a time"),
        name: text(&json["name"]),
        attributes: attributes(&json["attributes"]),
        ..Event::default()
    }
}

fn list(json: &Value) -> Vec<Value> {
    json.as_array().cloned().unwrap_or_default()
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn id(json: &Value) -> Vec<u8> {
    let digits = text(json);
    let pairs = (0..digits.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

fn attributes(json: &Value) -> Vec<KeyValue> {
    let pairs = list(json).into_iter();
    pairs
        .map(|pair| KeyValue {
            key: text(&pair["key"]),
            value: Some(value_of(&pair["value"])),
            ..KeyValue::default()
        })
        .collect()
}

/// It names all types that a value can have, and all but one are null.
fn value_of(json: &Value) -> AnyValue {
    let texts = json["string_value"].as_str().map(|it| Any::StringValue(it.to_owned()));
    let truths = json["bool_value"].as_bool().map(Any::BoolValue);
    let numbers = json["int_value"].as_i64().map(Any::IntValue);
    let fractions = json["double_value"].as_f64().map(Any::DoubleValue);
    let lists = json["array_value"]["values"].as_array().map(|values| {
        let values = values.iter().map(value_of).collect();
        Any::ArrayValue(ArrayValue { values })
    });
    let value = texts.or(truths).or(numbers).or(fractions).or(lists);
    assert!(value.is_some(), "{json}");
    AnyValue { value }
}
