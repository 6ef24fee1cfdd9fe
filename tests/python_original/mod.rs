//! The 200 that lied: runs the Python tutorial that this book descends from as it is published. The introduction shows the
//! traces of one request to it and names the cause.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::assert_traces::command::{Expecting, expect};
use crate::guides::component::Component;
use crate::probe::Around;
use axum::routing::post;
use axum::{Json, Router};
use lab::diagnose::diagnose;
use lab::receiver;
use lab::report;
use lab::span::SpanKind;
use lab::store::{Limits, Store};
use lab::tree::{Row, Tree};
use lab::wire::Wire;
use support::in_process::Lab;
use support::recording::{check, figures};
use support::{arrived, client, has, refused, root, serve, skipped, within_reason};

use regex::Regex;
use serde_json::{Value, json};
use tokio::process::Command;
use traces::model_call::messages::{Conversation, Part};
use traces::model_call::{ModelCall, usage};

/// The file, the name and the port of each service of the tutorial, in the order in which they must be started.
const SERVICES: [(&str, &str, u16); 3] = [
    ("llm_service.py", "llm-service", 5002),
    ("user_service.py", "user-service", 5001),
    ("api_gateway.py", "api-gateway", 5000),
];

/// A service prints this when it listens. Its port follows.
const LISTENING: &str = "Running on http://127.0.0.1:";

/// The number of spans of one request: one span of the gateway, two of each other service.
const SPANS: usize = 5;

/// The folder that install.sh fills; `None` where it has not run since its versions changed.
pub fn installed() -> Option<PathBuf> {
    let folder = root().join("target/python-original");
    let pinned = std::fs::read_to_string(root().join("tests/python_original/requirements.txt"));
    let installed = std::fs::read_to_string(folder.join("installed")).unwrap_or_default();
    if installed == pinned.unwrap_or_default() {
        return Some(folder);
    }
    skipped("the Python original", "run `bash tests/python_original/install.sh`");
    None
}

/// The services of the tutorial and the spans that they have exported.
struct Original {
    folder: PathBuf,
    /// The port that the tutorial prints for each service, and the free port in its place.
    ports: Vec<(u16, u16)>,
    store: Store,
    services: Vec<Component>,
}

impl Original {
    async fn start(folder: PathBuf, settings: &[(&str, &str)]) -> Original {
        let store = Store::new(Limits::default());
        let backend = Router::new()
            .route("/session/start", post(session))
            .route("/v1/chat/completions", post(completion))
            .nest("/opentelemetry", receiver::routes(store.clone()));
        let backend = serve(backend).await;
        let mut original = Original { folder, ports: Vec::new(), store, services: Vec::new() };
        for (file, name, port) in SERVICES {
            let ports = original.ports.iter().map(|(page, free)| format!("{page}={free} "));
            let mut service = Command::new(original.folder.join("bin/python"));
            service
                .arg(root().join("tests/python_original/run_service.py"))
                .arg(original.folder.join("distributed_tracing").join(file))
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("PORTS", ports.collect::<String>())
                .env("HH_API_KEY", "none")
                .env("HH_API_URL", format!("http://{backend}"))
                .env("OPENAI_API_KEY", "none")
                .env("OPENAI_BASE_URL", format!("http://{backend}/v1"))
                // In the tutorial, all three services have the same name.
                .env("OTEL_SERVICE_NAME", name)
                .env("OTEL_BSP_SCHEDULE_DELAY", "100")
                .envs(settings.iter().copied());
            let service = Component::start(service, LISTENING).await;
            let lines = service.lines();
            let free = lines.iter().find_map(|line| line.split_once(LISTENING)).expect("a line").1;
            original.ports.push((port, free.trim().parse().expect("a port")));
            original.services.push(service);
        }
        original
    }

    /// Sends the request of the tutorial. Returns its trees, the earliest first.
    async fn ask(&self) -> Vec<Tree> {
        let (status, _) = self.send(&query("user_1")).await;
        assert_eq!(status, 200);
        self.trees(SPANS).await
    }

    /// Sends a request. Returns the gateway's answer.
    async fn send(&self, query: &Value) -> (u16, String) {
        let (_, gateway) = self.ports[2];
        let request = client().post(format!("http://127.0.0.1:{gateway}/api/query"));
        let answer = request.json(query).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// Waits for this number of spans. Returns their trees, the earliest first.
    async fn trees(&self, spans: usize) -> Vec<Tree> {
        arrived(&self.store, spans).await;
        let mut trees = self.store.trees();
        trees.sort_by_key(|tree| tree.start);
        trees
    }

    /// Runs the tutorial's own test. Returns its output.
    async fn test(&self) -> String {
        let script = self.folder.join("distributed_tracing/test_distributed_trace.sh");
        let script = std::fs::read_to_string(script).expect("the tutorial's test");
        let script = self.ports.iter().fold(script, |script, (page, free)| {
            script.replace(&format!("localhost:{page}"), &format!("127.0.0.1:{free}"))
        });
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).env("NO_PROXY", "*").env("no_proxy", "*").kill_on_drop(true);
        let output = within_reason(bash.output()).await;
        String::from_utf8(output.expect("bash runs").stdout).expect("text")
    }
}

fn query(user: &str) -> Value {
    json!({ "user_id": user, "query": "What is a trace?" })
}

/// Answers as HoneyHive does when a service starts.
async fn session() -> Json<Value> {
    let id = "00000000-0000-4000-8000-000000000000";
    Json(
        json!({ "session_id": id, "event_id": id, "org_id": id, "workspace_id": id, "project_id": id }),
    )
}

/// Answers as a model does.
async fn completion() -> Json<Value> {
    let message =
        json!({ "role": "assistant", "content": "A trace is all spans with one trace id." });
    Json(json!({
        "id": "1", "object": "chat.completion", "created": 0, "model": "gpt-3.5-turbo",
        "choices": [{ "index": 0, "finish_reason": "stop", "message": message }],
        "usage": { "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14 },
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_answered_200_passes_its_test_and_leaves_three_traces() {
    let Some(folder) = installed() else { return };
    let original = Original::start(folder, &[]).await;
    let trees = original.ask().await;
    assert_eq!(trees.len(), 3);
    let mut rows = trees.iter().flat_map(|tree| &tree.rows);
    assert!(rows.all(|row| row.span.kind() == SpanKind::Internal));
    check!("three-traces.html", &figures(&trees));
    assert_eq!(diagnose(&trees, &[]), []);
    let output = original.test().await;
    assert!(output.contains("All tests passed!"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cause_is_the_capital_letter() {
    let Some(folder) = installed() else { return };
    let trees = Original::start(folder, &[("LOWER_CASE", "1")]).await.ask().await;
    assert_eq!(trees.len(), 1, "{:?}", trees.iter().map(Tree::to_text).collect::<Vec<_>>());
    assert!(trees[0].is_whole());
    assert_eq!(diagnose(&trees, &[]), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_sees_that_the_trace_was_not_taken() {
    let Some(folder) = installed() else { return };
    let expecting = Expecting::new(
        "\
*  INTERNAL  api-gateway
  *  INTERNAL  user-service
    *  INTERNAL  user-service
      *  INTERNAL  llm-service
        ...
",
    );
    let original = Original::start(folder, &[]).await;
    let lab = Lab::around(original.store.clone(), Wire::default()).await;
    let request = format!("POST http://127.0.0.1:{}/api/query", original.ports[2].1);
    let (url, body) = (format!("http://{}", lab.address), query("user_1").to_string());
    let arguments = ["--jaeger", &url, "--request", &request, "--body", &body, "--status", "200"];
    let ended = expect(&expecting.file, &arguments).await;
    expecting.assert_ends(&ended, 1);
    let cause = "nothing has the trace id that was sent: api-gateway began trace";
    has(&ended.printed, [cause, "extract it in api-gateway", "2 other traces"]);
}

/// HoneyHive's decorator and OpenInference's instrumentation of OpenAI's client each record the call, one below the other.
#[tokio::test(flavor = "multi_thread")]
async fn its_model_call_is_a_conversation_and_its_tokens_count_once() {
    let Some(folder) = installed() else { return };
    let trees = Original::start(folder, &[("LOWER_CASE", "1")]).await.ask().await;
    let tree = &trees[0];
    let found = report::usage(&usage(tree));
    assert_eq!(found.as_deref(), Some("Model calls: `gpt-3.5-turbo` 1 call, 5 tokens in, 9 out."));
    let said = |row: &Row| {
        let proto = row.span.proto();
        let call = ModelCall::read(&proto)?;
        let messages = Conversation::read(&call, &proto, []).messages.into_iter();
        Some(messages.map(|it| (it.role, it.parts)).collect::<Vec<_>>())
    };
    let text =
        |role: &str, text: &str| (role.to_owned(), vec![Part::Text { text: text.to_owned() }]);
    let by_name =
        |name: &str| tree.rows.iter().find(|row| row.span.name().ends_with(name)).expect(name);
    let (client, function) = (said(by_name("ChatCompletion")), said(by_name("generate_response")));
    let answer = "A trace is all spans with one trace id.";
    assert_eq!(
        client.expect("a call"),
        [text("user", "What is a trace?"), text("assistant", answer)]
    );
    let inputs =
        [text("user_id", "user_1"), text("prompt", "What is a trace?"), text("result", answer)];
    assert_eq!(function.expect("a call"), inputs);
}

/// The page *From Python to Rust* shows the answers and traces of requests that fail.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_are_answered_200_or_with_a_traceback() {
    let Some(folder) = installed() else { return };
    let (nobody, _taken) = refused();
    let model = format!("http://{nobody}/v1");
    let settings = [("OPENAI_BASE_URL", &*model), ("OPENAI_MAX_RETRIES", "0")];
    let mut original = Original::start(folder, &settings).await;
    let mut table =
        "| Request | Status | Body | Traces | Spans in error |\n|---|---|---|---|---|\n".to_owned();
    let mut arrived = 0;
    // The model is down from the start, and llm-service before the last request.
    for (what, query, spans) in [
        ("unknown user", query("nobody"), 3),
        ("field is missing", json!({}), 2),
        ("model is down", query("user_1"), 6),
        ("llm-service is down", query("user_1"), 3),
    ] {
        if what == "llm-service is down" {
            original.services.remove(0).kill().await;
        }
        let before = original.store.trees().len();
        let (status, body) = original.send(&query).await;
        arrived += spans;
        let trees = original.trees(arrived).await.split_off(before);
        let rows = trees.iter().flat_map(|tree| &tree.rows).filter(|row| row.span.is_error());
        let failed: Vec<String> = rows.map(|row| format!("`{}`", row.span.name())).collect();
        let failed = if failed.is_empty() { "none".to_owned() } else { failed.join("<br>") };
        let (body, count) = (cell(&body), trees.len());
        table += &format!("| {what} | {status} | {body} | {count} | {failed} |\n");
    }
    check!("python-original.md", &table);
}

/// The body of an answer as the text of a table's cell.
fn cell(body: &str) -> String {
    if body.contains("Traceback") {
        return "a page with the traceback".to_owned();
    }
    let body: Value = serde_json::from_str(body).expect("JSON");
    let port = Regex::new(r"port=\d+").expect("a pattern");
    let body = port.replace_all(&body.to_string(), "port=PORT").into_owned();
    let start: String = body.chars().take(120).collect();
    let rest = if start.len() < body.len() { "…" } else { "" };
    format!("`{start}{rest}`")
}

/// Starts user-service alone, which calls `neighbor`. Returns its address.
pub async fn user_service(folder: &Path, neighbor: SocketAddr) -> (Component, String) {
    let backend = serve(Router::new().route("/session/start", post(session))).await;
    let mut service = Command::new(folder.join("bin/python"));
    service
        .arg(root().join("tests/python_original/run_service.py"))
        .arg(folder.join("distributed_tracing/user_service.py"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PORTS", format!("5002={}", neighbor.port()))
        .env("HH_API_KEY", "none")
        .env("HH_API_URL", format!("http://{backend}"))
        .env("OTEL_SERVICE_NAME", "user-service");
    let service = Component::start(service, LISTENING).await;
    let lines = service.lines();
    let port = lines.iter().find_map(|line| line.split_once(LISTENING)).expect("a line").1;
    (service, format!("127.0.0.1:{}", port.trim()))
}

/// The probe needs one service, and names the cause.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_says_that_no_trace_is_continued_and_why() {
    let Some(folder) = installed() else { return };
    let around = Around::free();
    let (_service, address) = user_service(&folder, around.neighbor).await;
    let body = query("user_1").to_string();
    // It exports to HoneyHive's path only.
    let answer = r#"/generate={"response":""}"#;
    let flags = ["--body", &body, "--answer", answer, "--no-spans", "--settle", "2s"];
    let probed = around.probe(&format!("http://{address}/process"), &flags).await;
    assert_eq!(probed.status, Some(1), "{}", probed.printed);
    let causes =
        ["The service continues no trace", "dict(request.headers) has the key `Traceparent`"];
    has(&probed.printed, causes);
    check!("reference/probe-python.txt", &probed.printed);
}
