//! Runs the services against heads that stop, answers without an end, long values, odd settings and planted secrets. Each test
//! starts real processes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::guides::example::binaries;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use futures_util::stream::{self, StreamExt as _};
use lab::span::SpanKind;
use serde_json::{Value, json};
use support::{
    Setup, Stopped, System, client, json_of, lacks, query, refused, serve, span, within_reason,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

/// Returns the services as the tutorial leaves them, and those that are prepared for production.
fn both() -> [Setup; 2] {
    [Setup::default().tutorial(), Setup::default()]
}

/// Sends `text` to the gateway over a connection of its own.
async fn say(system: &System, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(system.gateway.address).await.expect("it listens");
    stream.write_all(text.as_bytes()).await.expect("sent");
    stream
}

/// Reads until the other side closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    within_reason(stream.read_to_string(&mut text)).await.expect("text");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_sends_no_head_or_no_next_request_is_closed() {
    for setup in both() {
        let system = setup.with("all", "HEAD_TIMEOUT_MS", 100).start().await;
        let half = say(&system, "POST /api/query HTTP/1.1\r\nHost: gateway").await;
        let silent = say(&system, "").await;
        let idle = say(&system, "GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n").await;
        assert_eq!([rest(half).await, rest(silent).await], ["", ""]);
        assert!(rest(idle).await.starts_with("HTTP/1.1 200"));
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_head_does_not_make_the_stop_fail() {
    for setup in both() {
        // Longer than the services take to get the signal, and shorter than what a stop may take.
        let system = setup.with("all", "HEAD_TIMEOUT_MS", 2_000).start().await;
        let half = say(&system, "POST /api/query HTTP/1.1\r\nHost: gateway").await;
        // Connections are accepted in order: after this answer, the half-sent head has been too.
        system.ask_with(&[]).await;
        let log = system.stop().await.log;
        drop(half);
        assert_eq!(log.find("api-gateway", "unanswered"), Vec::<String>::new());
    }
}

/// A server that answers with this status and 32 MB of JSON.
async fn talkative(status: StatusCode) -> std::net::SocketAddr {
    let answer = async move || {
        let blanks = stream::repeat(Bytes::from_static(&[b' '; 1024])).take(32 * 1024);
        let text = json!({ "response": "", "choices": [{ "message": { "content": "" } }] });
        let end = stream::iter([Bytes::from(text.to_string())]);
        let pieces = blanks.chain(end).map(Ok::<_, std::convert::Infallible>);
        (status, Body::from_stream(pieces))
    };
    serve(Router::new().fallback(answer)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_long_is_not_read() {
    let (long, refusal) =
        (talkative(StatusCode::OK).await, talkative(StatusCode::INTERNAL_SERVER_ERROR).await);
    let url = |address| format!("http://{address}");
    let mut cases = vec![(Setup::default().with_model(long, "m"), "chat m", "answer_too_long")];
    for (address, error) in [(long, "answer_too_long"), (refusal, "500")] {
        for setup in both() {
            let setup = setup.with("api-gateway", "USER_SERVICE_URL", url(address));
            cases.push((setup, "POST /process", error));
        }
        for setup in both() {
            cases.push((setup.with_llm_service_at(address), "POST /generate", error));
        }
    }
    for (setup, call, error) in cases {
        let (answered, stopped) = setup.ask("user_1").await;
        let failed = json!({ "error": "A service behind this one failed" });
        assert_eq!(answered, (502, failed), "{call} {error}");
        let tree = stopped.only_tree();
        let call = span(&tree, call, SpanKind::Client);
        assert_eq!(call.attribute("error.type").as_deref(), Some(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_accepts_the_services_behind_accept_too() {
    for setup in both() {
        let system = setup.start().await;
        for (length, expected) in [(65_535, 200), (65_536, 200), (65_537, 413)] {
            let empty = json!({ "user_id": "user_1", "query": "" }).to_string();
            let query = "x".repeat(length - empty.len());
            let body = json!({ "user_id": "user_1", "query": query }).to_string();
            assert_eq!(body.len(), length);
            let url = format!("http://{}/api/query", system.gateway.address);
            let request = client().post(url).header("content-type", "application/json");
            let answer = within_reason(request.body(body).send()).await.expect("an answer");
            assert_eq!(answer.status(), expected, "{length} bytes");
        }
        system.stop().await;
    }
}

/// Without the cut, the batch has more than the 16 MiB that the receiver reads.
#[tokio::test(flavor = "multi_thread")]
async fn long_paths_lose_no_span() {
    let system = System::start().await;
    let path = "a".repeat(60_000);
    let url = format!("http://{}/{path}", system.gateway.address);
    let requests = (0..300).map(|_| {
        let answer = client().get(&url).send();
        async { within_reason(answer).await.expect("an answer").status().as_u16() }
    });
    let statuses = requests.collect::<JoinSet<u16>>().join_all().await;
    assert_eq!(statuses, [404; 300]);
    system.ask_with(&[]).await;
    let stopped = system.stop().await;
    assert_eq!(stopped.store.usage().spans, 307);
    let odd = stopped.trees().into_iter().find(|tree| tree.rows.len() == 1).expect("a tree");
    let path = span(&odd, "GET", SpanKind::Server).attribute("url.path").expect("a path");
    assert_eq!(path, format!("/{}", "a".repeat(1_023)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_and_its_users_say_is_cut_on_the_span() {
    let long = "ä".repeat(10_000);
    let answer = json!({
        "model": long,
        "choices": [{ "message": { "content": long }, "finish_reason": long }],
    });
    let model = serve(Router::new().fallback(async move || Json(answer))).await;
    let capture = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    let setup = Setup::default().with_model(model, "m").with("llm-service", capture, true);
    let system = setup.start().await;
    let prompt = json!({ "prompt": "ä".repeat(10_000) });
    let url = format!("http://{}/generate", system.llm.address);
    let (status, body) =
        json_of(client().post(url).json(&prompt).send().await.expect("an answer")).await;
    assert_eq!((status, body), (200, json!({ "response": "ä".repeat(10_000) })));
    let tree = system.stop().await.only_tree();
    let chat = span(&tree, "chat m", SpanKind::Client);
    for (key, limit) in [
        ("gen_ai.response.model", 1_024),
        ("gen_ai.response.finish_reasons", 1_024),
        ("gen_ai.input.messages", 4_096),
        ("gen_ai.output.messages", 4_096),
    ] {
        let value = chat.attribute(key).expect(key);
        assert_eq!(value.matches('ä').count(), limit, "{key}");
        if key.ends_with("messages") {
            serde_json::from_str::<Value>(&value).expect("whole JSON");
        }
    }
}

/// A part of a secret, which no line may hold.
const PLANTED: &str = "planted-48151";

/// A file that a setting is read from often ends with a line break: `kubectl create secret --from-file` keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn whitespace_around_a_setting_is_ignored() {
    let complete = async |headers: HeaderMap, Json(body): Json<Value>| {
        assert_eq!(headers["authorization"], format!("Bearer {PLANTED}"));
        assert_eq!(body["model"], "m");
        Json(json!({ "choices": [{ "message": { "content": "yes" } }] }))
    };
    let model = serve(Router::new().fallback(complete)).await;
    let setup = Setup::default()
        .with_model(model, "m\n")
        .with("llm-service", "LLM_API_KEY", format!(" {PLANTED}\r\n"))
        .with("llm-service", "LLM_TIMEOUT_MS", "60000\n");
    let (answered, _) = setup.ask("user_1").await;
    assert_eq!(answered, (200, json!({ "response": "yes" })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_cannot_be_a_header_or_text_is_named_and_not_shown() {
    let inside = format!("{PLANTED}\nkey");
    let not_text = [PLANTED.as_bytes(), b"\xff"].concat();
    let password = format!("http://u:{PLANTED}@localhost/v1");
    for command in ["production_services llm-service", "streaming_llm_service"] {
        for (key, value) in [
            ("LLM_API_KEY", OsStr::new(&inside)),
            ("LLM_API_KEY", OsStr::from_bytes(&not_text)),
            ("LLM_BASE_URL", OsStr::from_bytes(&not_text)),
            ("LLM_BASE_URL", OsStr::new(&password)),
        ] {
            let mut words = command.split(' ');
            let program = binaries().await.join(words.next().expect("a name"));
            let output = Command::new(program)
                .args(words)
                .env_clear()
                .env("LLM_SERVICE_ADDR", support::FREE)
                .env("LLM_BASE_URL", "http://localhost/v1")
                .env("LLM_MODEL", "m")
                .env(key, value)
                .kill_on_drop(true)
                .output();
            let output = within_reason(output).await.expect("it runs");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command} {key}: {stderr}");
            assert!(stderr.starts_with(&format!("Error: {key} ")), "{command} {key}: {stderr}");
            lacks(&stderr, [PLANTED]);
        }
    }
}

/// Asks with a malformed `baggage`. Every line is written, and none may hold a secret.
async fn tells_nothing(setup: Setup, endpoint: String) -> Stopped {
    let (nobody, _kept) = refused();
    let system = setup
        .with("llm-service", "LLM_BASE_URL", format!("http://{nobody}/v1"))
        .with("llm-service", "LLM_MODEL", "m")
        .with("llm-service", "LLM_API_KEY", PLANTED)
        .with("all", "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .with(
            "all",
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization=Bearer {PLANTED},{PLANTED}"),
        )
        .with("all", "OTEL_EXPORTER_OTLP_TIMEOUT", 200)
        .with("all", "RUST_LOG", "trace,opentelemetry-otlp=trace")
        .start()
        .await;
    let baggage = format!("{PLANTED},a={PLANTED}=%ff;{PLANTED}");
    let request = query(system.gateway.address, "user_1", &[("baggage", &baggage)]);
    within_reason(request.send()).await.expect("an answer");
    let stopped = system.stop().await;
    for line in stopped.log.lines() {
        assert!(!line.contains(PLANTED), "{line}");
    }
    stopped
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_line_at_any_level() {
    let with = |command: &'static str| move || Setup::default().run_by("user-service", command);
    let setups: [&dyn Fn() -> Setup; 6] = [
        &|| Setup::default().tutorial(),
        &Setup::default,
        &with("instrumented_services user-service"),
        &with("observed_user_service"),
        &with("portable_services user-service"),
        &with("tenant_services user-service"),
    ];
    binaries().await;
    // It repeats what it was sent, as some do in a refusal.
    let echo = async |headers: HeaderMap| (StatusCode::UNAUTHORIZED, format!("{headers:?}"));
    let echo = serve(Router::new().fallback(echo)).await;
    let (nobody, _kept) = refused();
    for setup in setups {
        for address in [echo, nobody] {
            let endpoint = format!("http://u:{PLANTED}@{address}");
            let stopped = tells_nothing(setup(), endpoint).await;
            assert!(!stopped.log.find("api-gateway", "TRACE").is_empty(), "lines are written");
        }
        tells_nothing(setup(), format!("http://u:{PLANTED}@[x")).await;
    }
}
