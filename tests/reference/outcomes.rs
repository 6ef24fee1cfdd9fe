//! The reference of outcomes: the answer and the spans for each way in which a request can end, from runs of the services.

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use lab::span::{Span, SpanKind, any_text};
use lab::tree::Tree;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use regex::Regex;
use reqwest::RequestBuilder;
use serde_json::json;

use super::{anchored, code, table};
use crate::support::recording::check;
use crate::support::{Setup, System, client, hung, refused, serve};

/// One way in which a request can end.
struct Outcome {
    what: &'static str,
    status: u16,
    body: String,
    trees: Vec<Tree>,
}

impl Outcome {
    async fn of(
        what: &'static str,
        setup: Setup,
        request: impl Fn(&System) -> RequestBuilder,
    ) -> Outcome {
        let system = setup.start().await;
        let answer = request(&system).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.text().await.expect("text");
        let trees = system.stop().await.trees();
        Outcome { what, status, body, trees }
    }

    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.trees.iter().flat_map(|tree| tree.rows.iter().map(|row| &*row.span))
    }
}

fn ask(system: &System, user: &str) -> RequestBuilder {
    client()
        .post(format!("http://{}/api/query", system.gateway.address))
        .json(&json!({ "user_id": user, "query": "?" }))
}

fn raw(system: &System, content_type: &str, body: String) -> RequestBuilder {
    let request = client().post(format!("http://{}/api/query", system.gateway.address));
    request.header("content-type", content_type).body(body)
}

/// A server of OpenAI's protocol that answers, unless it is given another key.
async fn with_model(key: &str) -> Setup {
    let complete = async |headers: HeaderMap| match headers["authorization"].as_bytes() {
        b"Bearer right" => Ok(Json(json!({
            "model": "MODEL-2026",
            "choices": [{ "message": { "content": "A path." }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 9, "completion_tokens": 3 },
        }))),
        _ => Err(StatusCode::UNAUTHORIZED),
    };
    let model = serve(Router::new().route("/v1/chat/completions", post(complete))).await;
    at_model(model).with("llm-service", "LLM_API_KEY", key)
}

fn at_model(address: impl std::fmt::Display) -> Setup {
    Setup::default().with("llm-service", "LLM_BASE_URL", format!("http://{address}/v1")).with(
        "llm-service",
        "LLM_MODEL",
        "MODEL",
    )
}

async fn outcomes() -> Vec<Outcome> {
    let (nobody, _taken) = refused();
    let (silent, _) = hung().await;
    let at = |address| {
        Setup::default().with("user-service", "LLM_SERVICE_URL", format!("http://{address}"))
    };
    let capture = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    let valid = |system: &System| ask(system, "user_1");
    let long = || json!({ "user_id": "user_1", "query": "x".repeat(65 * 1024) }).to_string();
    let json = "application/json";
    vec![
        Outcome::of("valid", Setup::default(), valid).await,
        Outcome::of("valid, remote model", with_model("right").await, valid).await,
        Outcome::of(
            "valid, prompts recorded",
            with_model("right").await.with("llm-service", capture, true),
            valid,
        )
        .await,
        Outcome::of("unknown user", Setup::default(), |it| ask(it, "nobody")).await,
        Outcome::of("body isn't JSON", Setup::default(), |it| raw(it, json, "{".to_owned())).await,
        Outcome::of("field is missing", Setup::default(), |it| raw(it, json, "{}".to_owned()))
            .await,
        Outcome::of("other content type", Setup::default(), |it| {
            raw(it, "text/plain", "{}".to_owned())
        })
        .await,
        Outcome::of("body over 64 KiB", Setup::default(), |it| raw(it, json, long())).await,
        Outcome::of("unknown path", Setup::default(), |it| {
            client().get(format!("http://{}/orders/7", it.gateway.address))
        })
        .await,
        Outcome::of("other method", Setup::default(), |it| {
            client().get(format!("http://{}/api/query", it.gateway.address))
        })
        .await,
        Outcome::of("llm-service is down", at(nobody), valid).await,
        Outcome::of(
            "llm-service is slow",
            at(silent).with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100),
            valid,
        )
        .await,
        Outcome::of("model refuses the key", with_model("wrong").await, valid).await,
        Outcome::of(
            "model is slow",
            at_model(silent).with("llm-service", "LLM_TIMEOUT_MS", 100),
            valid,
        )
        .await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_and_every_attribute_is_in_the_reference() {
    let outcomes = outcomes().await;
    check!("reference/errors.md", &answers(&outcomes));
    check!("reference/spans.md", &(resource(&outcomes) + &spans(&outcomes)),);
}

/// The answers, with the `error.type` of each span in error, the deepest first.
fn answers(outcomes: &[Outcome]) -> String {
    let rows = outcomes.iter().map(|outcome| {
        let failed = outcome.spans().filter(|span| span.is_error());
        let mut failed: Vec<String> = failed
            .map(|span| {
                let kind = span.attribute("error.type").unwrap_or_default();
                format!("{} {} {}", code(span.name()), span.kind(), code(&kind))
            })
            .collect();
        failed.reverse();
        let failed = if failed.is_empty() { "none".to_owned() } else { failed.join("<br>") };
        let body = if outcome.body.is_empty() { "empty".to_owned() } else { code(&outcome.body) };
        vec![outcome.what.to_owned(), outcome.status.to_string(), body, failed]
    });
    table(&["Request", "Status", "Body", "Spans in error, with `error.type`"], rows)
}

/// The resource of a span, which all spans of a process share.
fn resource(outcomes: &[Outcome]) -> String {
    let span = outcomes[0].spans().next().expect("a span");
    // The SDK gives them in any order.
    let mut attributes = span.source.resource.attributes.clone();
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    let rows =
        attributes.iter().map(|it| vec![code(&it.key), kind(it).to_owned(), code(&value(it))]);
    anchored("resource", &table(&["Attribute", "Type", "For example"], rows))
}

/// For each span of the system its attributes, in the order in which they come.
fn spans(outcomes: &[Outcome]) -> String {
    let mut names: Vec<(String, SpanKind, String)> = Vec::new();
    for span in outcomes.iter().flat_map(Outcome::spans) {
        let name = (span.name().to_owned(), span.kind(), span.service().to_owned());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let tables = names.iter().map(|name| {
        let heading = format!("### {} {}, {}\n\n", code(&name.0), name.1, name.2);
        heading + &attributes(outcomes, name) + "\n"
    });
    anchored("spans", &tables.collect::<String>())
}

fn attributes(outcomes: &[Outcome], name: &(String, SpanKind, String)) -> String {
    let is =
        |span: &&Span| (span.name(), span.kind(), span.service()) == (&*name.0, name.1, &*name.2);
    // The first span of that name of each outcome that has one.
    let held: Vec<(&str, &Span)> = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome.what, outcome.spans().find(is)?)))
        .collect();
    let mut first: Vec<KeyValue> = Vec::new();
    for attribute in held.iter().flat_map(|(_, span)| span.proto().attributes) {
        if first.iter().all(|known| known.key != attribute.key) {
            first.push(attribute);
        }
    }
    let rows = first.iter().map(|it| {
        let (key, when) = (code(&it.key), when(&held, &it.key));
        vec![key, kind(it).to_owned(), code(&value(it)), when]
    });
    table(&["Attribute", "Type", "For example", "When"], rows)
}

/// On which of these spans the attribute is.
fn when(held: &[(&str, &Span)], key: &str) -> String {
    let has = |span: &Span| span.attribute(key).is_some();
    if held.iter().all(|(_, span)| has(span)) {
        return "always".to_owned();
    }
    if held.iter().all(|(_, span)| has(span) == span.is_error()) {
        return "in error".to_owned();
    }
    if held.iter().all(|(_, span)| has(span) != span.is_error()) {
        return "not in error".to_owned();
    }
    let with = held.iter().filter(|(_, span)| has(span));
    with.map(|(what, _)| *what).collect::<Vec<_>>().join("; ")
}

fn kind(attribute: &KeyValue) -> &'static str {
    match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(_)) => "string",
        Some(Value::BoolValue(_)) => "boolean",
        Some(Value::IntValue(_)) => "int",
        Some(Value::DoubleValue(_)) => "double",
        Some(Value::ArrayValue(_)) => "string[]",
        other => panic!("{}: {other:?}", attribute.key),
    }
}

/// The value as text. The ports of the tests are replaced because they vary.
fn value(attribute: &KeyValue) -> String {
    let text = any_text(&attribute.value);
    if attribute.key == "server.port" {
        return "PORT".to_owned();
    }
    let port = Regex::new(r"127\.0\.0\.1:\d+").expect("a pattern");
    port.replace_all(&text, "127.0.0.1:PORT").into_owned()
}
