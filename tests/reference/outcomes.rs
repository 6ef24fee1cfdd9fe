//! The reference of outcomes: the answer and the spans for each way in which a request can end, from runs of the services.

use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use lab::proto::common::KeyValue;
use lab::proto::common::any_value::Value;
use lab::span::{Span, SpanKind, any_text};
use lab::tree::Tree;
use regex::Regex;
use serde_json::json;

use super::{anchored, code, table};
use support::recording::check;
use support::{Setup, client, hung, refused, serve};

/// A request to the gateway: method, path, content type, and body.
type Request = (Method, &'static str, &'static str, String);

/// One way in which a request can end.
struct Outcome {
    what: &'static str,
    status: u16,
    body: String,
    trees: Vec<Tree>,
}

impl Outcome {
    async fn of(what: &'static str, setup: Setup, request: Request) -> Outcome {
        let system = setup.start().await;
        let (method, path, content_type, body) = request;
        let url = format!("http://{}{path}", system.gateway.address);
        let request = client().request(method.clone(), url);
        let request = match method {
            Method::POST => request.header("content-type", content_type).body(body),
            _ => request,
        };
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.text().await.expect("text");
        Outcome { what, status, body, trees: system.stop().await.trees() }
    }

    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.trees.iter().flat_map(|tree| tree.rows.iter().map(|row| &*row.span))
    }
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
    Setup::default().with_model(model, "MODEL").with("llm-service", "LLM_API_KEY", key)
}

async fn outcomes() -> Vec<Outcome> {
    let (nobody, _taken) = refused();
    let (silent, _) = hung().await;
    let long = serve(Router::new().fallback(async || " ".repeat(3 << 20))).await;
    let own = Setup::default;
    let calling = |address| Setup::default().with_llm_service_at(address);
    let capture = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    let recorded = with_model("right").await.with("llm-service", capture, true);
    let slow_llm = calling(silent).with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    let slow_model =
        Setup::default().with_model(silent, "MODEL").with("llm-service", "LLM_TIMEOUT_MS", 100);
    let send = |content_type, body: &str| -> Request {
        (Method::POST, "/api/query", content_type, body.to_owned())
    };
    let ask = |user: &str, query: &str| {
        send("application/json", &json!({ "user_id": user, "query": query }).to_string())
    };
    let get = |path| (Method::GET, path, "", String::new());
    let valid = || ask("user_1", "?");
    let mut outcomes = Vec::new();
    for (what, setup, request) in [
        ("valid", own(), valid()),
        ("valid, remote model", with_model("right").await, valid()),
        ("valid, prompts recorded", recorded, valid()),
        ("unknown user", own(), ask("nobody", "?")),
        ("body isn't JSON", own(), send("application/json", "{")),
        ("field is missing", own(), send("application/json", "{}")),
        ("other content type", own(), send("text/plain", "{}")),
        ("body over 64 KiB", own(), ask("user_1", &"x".repeat(65 * 1024))),
        ("unknown path", own(), get("/orders/7")),
        ("other method", own(), get("/api/query")),
        ("llm-service is down", calling(nobody), valid()),
        ("llm-service is slow", slow_llm, valid()),
        ("llm-service answers too much", calling(long), valid()),
        ("model refuses the key", with_model("wrong").await, valid()),
        ("model is slow", slow_model, valid()),
    ] {
        outcomes.push(Outcome::of(what, setup, request).await);
    }
    outcomes
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
        let failed = outcome.spans().filter(|span| span.is_error()).map(|span| {
            let kind = span.attribute("error.type").unwrap_or_default();
            format!("{} {} {}", code(span.name()), span.kind(), code(&kind))
        });
        let mut failed = Vec::from_iter(failed);
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
    let rows = attributes.iter().map(|it| cells(it).to_vec());
    anchored("resource", &table(&["Attribute", "Type", "For example"], rows))
}

/// For each span of the system its attributes, in the order in which they come.
fn spans(outcomes: &[Outcome]) -> String {
    let mut names: Vec<Name> = Vec::new();
    for span in outcomes.iter().flat_map(Outcome::spans) {
        if !names.contains(&name(span)) {
            names.push(name(span));
        }
    }
    let tables = names.into_iter().map(|name| {
        let table = attributes(outcomes, name);
        format!("### {} {}, {}\n\n{table}\n", code(name.0), name.1, name.2)
    });
    anchored("spans", &tables.collect::<String>())
}

/// Name, kind and service of a span.
type Name<'a> = (&'a str, SpanKind, &'a str);

fn name(span: &Span) -> Name<'_> {
    (span.name(), span.kind(), span.service())
}

fn attributes(outcomes: &[Outcome], of: Name) -> String {
    // The first span of that name of each outcome that has one.
    let held = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome.what, outcome.spans().find(|span| name(span) == of)?)));
    let held: Vec<(&str, &Span)> = held.collect();
    let mut first: Vec<KeyValue> = Vec::new();
    for attribute in held.iter().flat_map(|(_, span)| span.proto().attributes) {
        if first.iter().all(|known| known.key != attribute.key) {
            first.push(attribute);
        }
    }
    let rows = first.iter().map(|it| [&cells(it)[..], &[when(&held, &it.key)]].concat());
    table(&["Attribute", "Type", "For example", "When"], rows)
}

/// On which of these spans the attribute is.
fn when(held: &[(&str, &Span)], key: &str) -> String {
    let has = |span: &Span| span.attribute(key).is_some();
    let all = |rule: fn(bool, bool) -> bool| {
        held.iter().all(|(_, span)| rule(has(span), span.is_error()))
    };
    if all(|has, _| has) {
        "always".to_owned()
    } else if all(|has, error| has == error) {
        "in error".to_owned()
    } else if all(|has, error| has != error) {
        "not in error".to_owned()
    } else {
        let with = held.iter().filter(|(_, span)| has(span));
        Vec::from_iter(with.map(|(what, _)| *what)).join("; ")
    }
}

/// Key, type and value of an attribute.
fn cells(attribute: &KeyValue) -> [String; 3] {
    let kind = match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(_)) => "string",
        Some(Value::BoolValue(_)) => "boolean",
        Some(Value::IntValue(_)) => "int",
        Some(Value::DoubleValue(_)) => "double",
        Some(Value::ArrayValue(_)) => "string[]",
        other => panic!("{}: {other:?}", attribute.key),
    };
    // The ports of the tests vary.
    let port = Regex::new(r"127\.0\.0\.1:\d+").expect("a pattern");
    let text = any_text(&attribute.value);
    let text = match &*attribute.key {
        "server.port" => "PORT".into(),
        _ => port.replace_all(&text, "127.0.0.1:PORT"),
    };
    [code(&attribute.key), kind.to_owned(), code(&text)]
}
