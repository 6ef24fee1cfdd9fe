//! The 200 that lied: the Python tutorial that this book descends from, run as it is published. The introduction shows
//! the traces of one request to it, and says what the cause is.

use std::path::PathBuf;
use std::process::Stdio;

use crate::support;
use crate::support::recording::{check, figures};
use crate::support::{arrived, client, skipped, within_reason};
use axum::routing::post;
use axum::{Json, Router};
use lab::diagnose::{Rule, diagnose};
use lab::process;
use lab::receiver;
use lab::span::SpanKind;
use lab::store::{Limits, Store};
use lab::tree::Tree;
use regex::Regex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// The files of the tutorial, the name of each service, and its port, in the order in which they must be started.
const SERVICES: [(&str, &str, u16); 3] = [
    ("llm_service.py", "llm-service", 5002),
    ("user_service.py", "user-service", 5001),
    ("api_gateway.py", "api-gateway", 5000),
];

/// The spans of one request: one of the gateway, two each of the others.
const SPANS: usize = 5;

/// Where install.sh has put it; `None` where it has not been run since its versions changed.
pub fn installed() -> Option<PathBuf> {
    let folder = support::root().join("target/python-original");
    let pinned =
        std::fs::read_to_string(support::root().join("tests/python_original/requirements.txt"));
    let installed = std::fs::read_to_string(folder.join("installed")).unwrap_or_default();
    if installed != pinned.unwrap_or_default() {
        skipped("the Python original", "run `bash tests/python_original/install.sh`");
        return None;
    }
    Some(folder)
}

/// The services of the tutorial, and what they have exported.
struct Original {
    folder: PathBuf,
    /// The printed ports, and the free ones in their place.
    ports: Vec<(u16, u16)>,
    store: Store,
    services: Vec<Child>,
}

impl Original {
    async fn start(folder: PathBuf, settings: &[(&str, &str)]) -> Original {
        let store = Store::new(Limits::default());
        let backend = support::serve(
            Router::new()
                .route("/session/start", post(session))
                .route("/v1/chat/completions", post(completion))
                .nest("/opentelemetry", receiver::routes(store.clone())),
        )
        .await;
        let mut ports: Vec<(u16, u16)> = Vec::new();
        let mut services = Vec::new();
        for (file, name, port) in SERVICES {
            let map: Vec<String> =
                ports.iter().map(|(page, free)| format!("{page}={free}")).collect();
            let runner = support::root().join("tests/python_original/run_service.py");
            let mut service = Command::new(folder.join("bin/python"));
            service
                .arg(runner)
                .arg(folder.join("distributed_tracing").join(file))
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("PORTS", map.join(" "))
                .env("HH_API_KEY", "none")
                .env("HH_API_URL", format!("http://{backend}"))
                .env("OPENAI_API_KEY", "none")
                .env("OPENAI_BASE_URL", format!("http://{backend}/v1"))
                // Not in the tutorial, where all three have the same name.
                .env("OTEL_SERVICE_NAME", name)
                .env("OTEL_BSP_SCHEDULE_DELAY", "100")
                .envs(settings.iter().copied())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let mut child = process::spawn(service).expect("Python runs");
            let mut log = BufReader::new(child.stderr.take().expect("an output")).lines();
            let mut said = String::new();
            let free = loop {
                let Some(line) = within_reason(log.next_line()).await.expect("text") else {
                    panic!("{name} ended: {said}");
                };
                if let Some((_, free)) = line.split_once("Running on http://127.0.0.1:") {
                    break free.trim().parse().expect("a port");
                }
                said.push_str(&(line + "\n"));
            };
            ports.push((port, free));
            tokio::spawn(async move {
                while let Ok(Some(line)) = log.next_line().await {
                    // libtest shows this when the test fails.
                    println!("{name} | {line}");
                }
            });
            services.push(child);
        }
        Original { folder, ports, store, services }
    }

    /// One request as the tutorial's; waits for its spans, and returns its trees, the earliest first.
    async fn ask(&self) -> Vec<Tree> {
        let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
        let (status, _) = self.send(&query).await;
        assert_eq!(status, 200);
        self.trees(SPANS).await
    }

    /// What a client of the gateway is answered.
    async fn send(&self, query: &Value) -> (u16, String) {
        let (_, gateway) = self.ports[2];
        let request = client().post(format!("http://127.0.0.1:{gateway}/api/query"));
        let answer = request.json(query).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// Waits for so many spans, and returns their trees, the earliest first.
    async fn trees(&self, spans: usize) -> Vec<Tree> {
        arrived(&self.store, spans).await;
        let mut trees = self.store.trees();
        trees.sort_by_key(|tree| tree.start);
        trees
    }

    /// What the tutorial's own test says.
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

/// What HoneyHive answers when a service starts.
async fn session() -> Json<Value> {
    let id = "00000000-0000-4000-8000-000000000000";
    Json(json!({
        "session_id": id, "event_id": id, "org_id": id, "workspace_id": id, "project_id": id,
    }))
}

/// What a model answers.
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
    let rules: Vec<Rule> = diagnose(&trees, &[]).iter().map(|it| it.rule).collect();
    assert_eq!(rules, []);
    let said = original.test().await;
    assert!(said.contains("All tests passed!"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cause_is_the_capital_letter() {
    let Some(folder) = installed() else { return };
    let trees = Original::start(folder, &[("LOWER_CASE", "1")]).await.ask().await;
    assert_eq!(trees.len(), 1, "{:?}", trees.iter().map(Tree::to_text).collect::<Vec<_>>());
    assert!(trees[0].is_whole());
    assert_eq!(diagnose(&trees, &[]), []);
}

/// The page *From Python to Rust* shows what the original makes of a request that fails.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_are_answered_200_or_with_a_traceback() {
    let Some(folder) = installed() else { return };
    let (nobody, _taken) = support::refused();
    let model = format!("http://{nobody}/v1");
    let query = |user: &str| json!({ "user_id": user, "query": "What is a trace?" });
    let mut table =
        "| Request | Status | Body | Traces | Spans in error |\n|---|---|---|---|---|\n".to_owned();
    // A model that nobody is, from the start; llm-service is killed before the last.
    let settings = [("OPENAI_BASE_URL", &*model), ("OPENAI_MAX_RETRIES", "0")];
    let mut original = Original::start(folder, &settings).await;
    let cases = [
        ("unknown user", query("nobody"), 3),
        ("field is missing", json!({}), 2),
        ("model is down", query("user_1"), 6),
        ("llm-service is down", query("user_1"), 3),
    ];
    let mut arrived = 0;
    for (what, query, spans) in cases {
        if what == "llm-service is down" {
            original.services[0].kill().await.expect("it was running");
        }
        let before = original.store.trees().len();
        let (status, body) = original.send(&query).await;
        arrived += spans;
        let trees = original.trees(arrived).await.split_off(before);
        let rows = trees.iter().flat_map(|tree| &tree.rows);
        let failed: Vec<String> = rows
            .filter(|row| row.span.is_error())
            .map(|row| format!("`{}`", row.span.name()))
            .collect();
        let failed = match failed.is_empty() {
            true => "none".to_owned(),
            false => failed.join("<br>"),
        };
        let (body, count) = (told(&body), trees.len());
        table += &format!("| {what} | {status} | {body} | {count} | {failed} |\n");
    }
    check!("python-original.md", &table);
}

/// The body of an answer, for a cell of a table.
fn told(body: &str) -> String {
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
