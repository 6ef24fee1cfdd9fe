//! The three services, as processes over HTTP: what a client sees, and what the trace shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::guides::example::neighbor;
use crate::guides::example::sent;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use lab::span::SpanKind;
use reqwest::Response;
use serde_json::{Value, json};
use support::process::Lab;
use support::{
    FREE, Setup, Stopped, System, WHOLE, binaries, client, has, has_attributes, hung, json_of,
    query, refused, serve, shape, span, until, within_reason,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

fn answer(text: &str) -> (u16, Value) {
    (200, json!({ "response": text }))
}

const OFFLINE: &str = "This is the offline model. You asked: What is a trace?";

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_request_gives_one_trace_through_three_services() {
    let (answered, stopped) = Setup::default().ask("user_1").await;
    assert_eq!(answered, answer(OFFLINE));
    let tree = stopped.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    assert!(tree.is_whole());
    for (name, kind, attributes) in [
        (
            "POST /api/query",
            SpanKind::Server,
            "http.request.method=POST http.route=/api/query url.path=/api/query url.scheme=http",
        ),
        ("POST /process", SpanKind::Client, "server.address=127.0.0.1"),
        (
            "validate_user",
            SpanKind::Internal,
            "honeyhive_event_type=tool honeyhive_metadata.user.valid=true",
        ),
        (
            "chat offline",
            SpanKind::Internal,
            "honeyhive_event_type=model gen_ai.operation.name=chat gen_ai.request.model=offline \
             gen_ai.usage.input_tokens=4 gen_ai.usage.output_tokens=11 \
             gen_ai.response.finish_reasons=[\"stop\"]",
        ),
    ] {
        has_attributes(span(&tree, name, kind), attributes);
    }
    let call = span(&tree, "POST /process", SpanKind::Client);
    let port = call.attribute("server.port").expect("server.port");
    assert_eq!(call.attribute("url.full"), Some(format!("http://127.0.0.1:{port}/process")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_has_an_instance_of_its_own_and_all_have_one_namespace() {
    let tree = Setup::default().answers("user_1", 200).await.only_tree();
    let values = |key: &str| -> BTreeSet<String> {
        let resources = tree.rows.iter().map(|row| &row.span.source.resource.attributes);
        let found = resources.flatten().filter(|attribute| attribute.key == key);
        found.map(|attribute| lab::span::any_text(&attribute.value)).collect()
    };
    assert_eq!(values("service.namespace"), BTreeSet::from(["one-trace".to_owned()]));
    assert_eq!(values("service.name").len(), 3);
    assert_eq!(values("service.instance.id").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_variables_name_the_service() {
    let resource = "service.name=oracle,deployment.environment.name=test";
    let setup = Setup::default().with("api-gateway", "OTEL_SERVICE_NAME", "front-door").with(
        "llm-service",
        "OTEL_RESOURCE_ATTRIBUTES",
        resource,
    );
    let tree = setup.answers("user_1", 200).await.only_tree();
    assert_eq!(tree.services(), ["front-door", "user-service", "oracle"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_says_that_it_is_healthy_and_does_not_trace_it() {
    let system = System::start().await;
    for service in [&system.gateway, &system.user, &system.llm] {
        let health = client().get(format!("http://{}/health", service.address)).send().await;
        assert_eq!(health.expect("an answer").status(), 200, "{}", service.name);
    }
    assert_eq!(system.stop().await.trees().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_refused_and_the_refusal_is_on_the_trace() {
    let (answered, stopped) = Setup::default().ask("stranger").await;
    assert_eq!(answered, (403, json!({ "error": "Invalid user" })));
    let tree = stopped.only_tree();
    let expected = "\
POST /api/query SERVER api-gateway http 403
  POST /process CLIENT api-gateway http 403 error 403
    POST /process SERVER user-service http 403
      validate_user INTERNAL user-service error production::user_service::InvalidUser
";
    assert_eq!(shape(&tree), expected);
    assert_eq!(span(&tree, "validate_user", SpanKind::Internal).status_message(), "Invalid user");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_behind_a_service_is_an_answer_and_an_error_on_every_span_above() {
    let (nobody, _kept) = refused();
    let (silent, _) = hung().await;
    let forbids = serve(Router::new().fallback(async || StatusCode::FORBIDDEN)).await;
    let slow = Setup::default().with_llm_service_at(silent);
    let slow = slow.with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    let slow_model = Setup::default().with_model(silent, "m");
    let slow_model = slow_model.with("llm-service", "LLM_TIMEOUT_MS", 100);
    let failed = "A service behind this one failed";
    let late = "A service behind this one did not answer in time";
    // The last two are the `error.type` of the call of llm-service, and of its call of the model.
    for (setup, status, text, call, chat) in [
        (Setup::default().with_llm_service_at(nobody), 502, failed, "unreachable", None),
        (slow, 504, late, "timeout", None),
        (slow_model, 504, late, "504", Some("timeout")),
        (Setup::default().with_model(forbids, "m"), 502, failed, "502", Some("403")),
    ] {
        let mut expected = format!(
            "\
POST /api/query SERVER api-gateway http {status} error {status}
  POST /process CLIENT api-gateway http {status} error {status}
    POST /process SERVER user-service http {status} error {status}
      validate_user INTERNAL user-service
"
        );
        expected += &match chat {
            None => format!("      POST /generate CLIENT user-service error {call}\n"),
            Some(chat) => format!(
                "      \
      POST /generate CLIENT user-service http {status} error {call}
        POST /generate SERVER llm-service http {status} error {status}
          chat m CLIENT llm-service error {chat}
"
            ),
        };
        let (answered, stopped) = setup.ask("user_1").await;
        assert_eq!(answered, (status, json!({ "error": text })), "{call} {chat:?}");
        assert_eq!(stopped.shapes(), expected, "{call} {chat:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_in_json_and_has_a_server_span() {
    let valid = json!({ "user_id": "user_1", "query": "?" }).to_string();
    let large = json!({ "user_id": "user_1", "query": "x".repeat(65 * 1024) }).to_string();
    let cases = [
        ("malformed JSON", "application/json", "{", 400),
        ("too large", "application/json", &large, 413),
        ("not JSON", "text/plain", &valid, 415),
        ("a field is missing", "application/json", "{}", 422),
    ];
    let system = System::start().await;
    let url = format!("http://{}/api/query", system.gateway.address);
    for (what, content_type, body, expected) in cases {
        let request = client().post(&url).header("content-type", content_type);
        let answered = request.body(body.to_owned()).send().await.expect("an answer");
        let (status, body) = json_of(answered).await;
        assert_eq!(status, expected, "{what}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{what}: {body}");
    }
    let expected =
        cases.map(|(.., status)| format!("POST /api/query SERVER api-gateway http {status}\n"));
    assert_eq!(system.stop().await.shapes(), expected.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_or_method_does_not_become_a_span_name() {
    let system = System::start().await;
    let odd = reqwest::Method::from_bytes(b"BREW").expect("a method");
    for (method, path) in [(reqwest::Method::GET, "users/8f3b"), (odd, "api/query")] {
        let url = format!("http://{}/{path}", system.gateway.address);
        client().request(method, url).send().await.expect("an answer");
    }
    let expected = "\
GET SERVER api-gateway http 404

HTTP /api/query SERVER api-gateway http 405
";
    assert_eq!(system.stop().await.shapes(), expected);
}

/// Asks, waits for an export to reach the backend and asks again. The answers must be those of a healthy backend. The
/// services must count the loss: 2, 3 and 2 spans of each request.
async fn a_bad_backend_changes_nothing(backend: SocketAddr, reached: impl AsyncFn(&System)) {
    let setup = Setup::default()
        .with_backend(backend)
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 1)
        .with("all", "OTEL_EXPORTER_OTLP_TIMEOUT", 200);
    let system = setup.start().await;
    assert_eq!(json_of(system.ask("user_1").await).await, answer(OFFLINE));
    reached(&system).await;
    assert_eq!(json_of(system.ask("user_1").await).await, answer(OFFLINE));

    let log = system.stop().await.log;
    let report = "spans were lost: the trace backend did not take them";
    for (service, lost) in [("api-gateway", 4), ("user-service", 6), ("llm-service", 4)] {
        let found = log.find(service, &format!("{report} lost={lost} ended={lost}"));
        assert_eq!(found.len(), 1, "{service}, {lost} spans:\n{}", log.lines().join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_connections_costs_spans_and_nothing_else() {
    let (address, _kept) = refused();
    let reached = async |system: &System| {
        system.log.wait_for("api-gateway", "the export of a batch failed").await
    };
    a_bad_backend_changes_nothing(address, reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_costs_spans_and_nothing_else() {
    let (address, connected) = hung().await;
    let reached = async |_: &System| within_reason(connected.notified()).await;
    a_bad_backend_changes_nothing(address, reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_answers_500_costs_spans_and_nothing_else() {
    let asked = Arc::new(Notify::new());
    let fail = async |State(asked): State<Arc<Notify>>| {
        asked.notify_one();
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let address = serve(Router::new().fallback(fail).with_state(Arc::clone(&asked))).await;
    let reached = async |_: &System| within_reason(asked.notified()).await;
    a_bad_backend_changes_nothing(address, reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_backend_loses_nothing() {
    let stopped = Setup::default().answers("user_1", 200).await;
    assert_eq!(stopped.store.usage().spans, 7);
    let mut lost = stopped.log.lines();
    lost.retain(|line| line.contains("lost"));
    assert_eq!(lost, Vec::<String>::new());
}

/// A caller may stop the service as soon as it has read "listening". A signal that came too early would lose its last spans.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_listens_can_be_stopped() {
    for _ in 0..10 {
        let stopped = System::start().await.stop().await;
        // The gateway is the last to start and the first to be stopped.
        assert_eq!(stopped.log.find("api-gateway", "stopping").len(), 1);
    }
}

/// Starts the services with a model that answers when `answer` is notified. Sends a request and waits until it reaches the model.
async fn with_held_request(
    setup: Setup,
    answer: Arc<Notify>,
) -> (System, JoinHandle<reqwest::Result<Response>>) {
    let asked = Arc::new(Notify::new());
    let reached = Arc::clone(&asked);
    let complete = async move || {
        reached.notify_one();
        answer.notified().await;
        Json(json!({ "model": "held", "choices": [{ "message": { "content": "at last" } }] }))
    };
    let model = serve(Router::new().fallback(complete)).await;
    let system = setup.with_model(model, "held").start().await;
    let gateway = system.gateway.address;
    let request = tokio::spawn(query(gateway, "user_1", &[]).send());
    within_reason(asked.notified()).await;
    (system, request)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_in_flight_finish_and_flushes_every_span() {
    let release = Arc::new(Notify::new());
    let (mut system, request) = with_held_request(Setup::default(), Arc::clone(&release)).await;
    for service in [&mut system.gateway, &mut system.user, &mut system.llm] {
        service.terminate();
    }
    // The gateway has handled the signal once it refuses new connections; the request is still in flight then.
    until(async || match TcpStream::connect(system.gateway.address).await {
        Ok(_) => Err("it still accepts connections"),
        Err(_) => Ok(()),
    })
    .await;
    assert_eq!(system.store.usage().spans, 0);
    release.notify_one();

    let answered = within_reason(request).await.expect("no panic").expect("an answer");
    assert_eq!(json_of(answered).await, answer("at last"));
    let expected = WHOLE.replace("chat offline INTERNAL", "chat held CLIENT");
    assert_eq!(system.stop().await.shapes(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_hold_up_the_stop() {
    let setup = Setup::default().with("all", "SHUTDOWN_TIMEOUT_MS", 100);
    let (system, request) = with_held_request(setup, Arc::default()).await;
    let log = system.stop().await.log;
    let gave_up = "api-gateway stopped with requests unanswered after 100ms";
    assert_eq!(log.find("api-gateway", gave_up).len(), 1, "{}", log.lines().join("\n"));
    let answered = within_reason(request).await.expect("no panic");
    assert!(answered.is_err(), "nobody was left to answer");
}

/// Sends a request over a bare socket, with its headers exactly as they are written here.
async fn raw_request(gateway: SocketAddr, headers: &str, body: &str) -> String {
    let request = format!(
        "POST /api/query HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Content-Type: application/json\r\n{headers}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(gateway).await.expect("the gateway listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_answered_at_the_deadline() {
    let system = Setup::default().with("api-gateway", "BODY_TIMEOUT_MS", 100).start().await;
    let answer = raw_request(system.gateway.address, "Content-Length: 100", "{").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(system.stop().await.shapes(), "POST /api/query SERVER api-gateway http 400\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_at_once_give_two_hundred_traces_and_none_is_mixed() {
    let system = System::start().await;
    let requests = (0..200).map(|number| {
        let answer = query(system.gateway.address, &format!("user_{number}"), &[]).send();
        async { within_reason(answer).await.expect("an answer").status().as_u16() }
    });
    let requests: tokio::task::JoinSet<u16> = requests.collect();
    assert_eq!(requests.join_all().await, [200; 200]);
    assert_eq!(system.stop().await.shapes(), [WHOLE; 200].join("\n"));
}

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_and_baggage_of_a_foreign_caller_are_continued() {
    let (end, mut requests) = neighbor().await;
    let setup = Setup::default().with_llm_service_at(format!("{end}?key=secret"));
    let system = setup.start().await;
    // As a Python service with honeyhive's SDK sends them: any case, unknown flags, baggage of its own.
    let body = r#"{"user_id": "user_1", "query": "?"}"#;
    let headers = format!(
        "TraceParent: 00-{TRACE_ID}-{PARENT_ID}-03\r\nContent-Length: {}\r\n\
         Baggage: session_id=5a1f,honeyhive_tracer_id=t%201,project=demo,source=python",
        body.len()
    );
    let answer = raw_request(system.gateway.address, &headers, body).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let tree = system.stop().await.only_tree();
    assert_eq!(tree.trace_id.to_string(), TRACE_ID);
    let server = span(&tree, "POST /api/query", SpanKind::Server);
    assert_eq!(server.parent.map(|id| id.to_string()).as_deref(), Some(PARENT_ID));
    let call = span(&tree, "POST /generate", SpanKind::Client);
    // Without the query of the base URL.
    has_attributes(call, &format!("url.full=http://{end}/generate"));
    let sent = requests.try_recv().expect("a call");
    assert_eq!(sent["traceparent"], format!("00-{TRACE_ID}-{}-01", call.id));
    let mut baggage: Vec<&str> = sent["baggage"].to_str().expect("text").split(',').collect();
    baggage.sort();
    let expected = "honeyhive_tracer_id=t%201 project=demo session_id=5a1f source=python";
    assert_eq!(baggage.join(" "), expected);
}

/// Asks with this `traceparent`. No service may record anything; returns the `traceparent` that user-service passes on.
async fn passed_on(setup: Setup, traceparent: &str) -> String {
    let (end, mut requests) = neighbor().await;
    let system = setup.with_llm_service_at(end).start().await;
    system.ask_with(&[("traceparent", traceparent)]).await;
    assert_eq!(system.stop().await.trees().len(), 0);
    let sent = requests.try_recv().expect("a call");
    sent["traceparent"].to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsampled_caller_is_followed_and_nothing_is_recorded() {
    let sent = passed_on(Setup::default(), &format!("00-{TRACE_ID}-{PARENT_ID}-00")).await;
    assert!(sent.starts_with(&format!("00-{TRACE_ID}-")) && sent.ends_with("-00"), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_sdk_records_nothing_and_still_passes_the_context_on() {
    let traceparent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    let setup = Setup::default().with("all", "OTEL_SDK_DISABLED", "true");
    assert_eq!(passed_on(setup, &traceparent).await, traceparent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_traceparent_starts_a_new_trace() {
    let system = System::start().await;
    system.ask_with(&[("traceparent", &format!("00-{TRACE_ID}-xyz-01"))]).await;
    let tree = system.stop().await.only_tree();
    assert_ne!(tree.trace_id.to_string(), TRACE_ID);
    assert_eq!(shape(&tree), WHOLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_carry_the_trace_id() {
    let stopped = Setup::default().answers("user_1", 200).await;
    let id = format!(" trace_id={} ", stopped.only_tree().trace_id);
    for service in ["api-gateway", "user-service", "llm-service"] {
        let found = stopped.log.find(service, &id);
        assert_eq!(found.len(), 1, "{service}:\n{}", stopped.log.lines().join("\n"));
    }
}

const KEY: &str = "sk-do-not-tell";
const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";

/// Asks services with an OpenAI-compatible server that requires the key and counts tokens.
async fn ask_openai(setup: Setup) -> Stopped {
    let complete = async |headers: HeaderMap, Json(body): Json<Value>| {
        assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
        assert!(!headers.contains_key("traceparent") && !headers.contains_key("baggage"));
        Json(json!({
            "model": format!("{}-0125", body["model"].as_str().expect("a model")),
            "choices": [{ "message": { "role": "assistant", "content": "A path." }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12 },
        }))
    };
    let routes = Router::new().route("/v1/chat/completions", axum::routing::post(complete));
    let model = serve(routes).await;
    let setup = setup
        .with("llm-service", "LLM_BASE_URL", format!("http://{model}/v1/")) // ends with a slash
        .with("llm-service", "LLM_MODEL", "gpt-test")
        .with("llm-service", "LLM_API_KEY", KEY)
        .with("all", "RUST_LOG", "debug");
    let (answered, stopped) = setup.ask("user_1").await;
    assert_eq!(answered, answer("A path."));
    stopped
}

#[tokio::test(flavor = "multi_thread")]
async fn an_openai_compatible_server_answers_and_nothing_secret_is_recorded() {
    let stopped = ask_openai(Setup::default()).await;
    let tree = stopped.only_tree();
    let expected = "gen_ai.provider.name=openai gen_ai.response.model=gpt-test-0125 \
                    gen_ai.usage.input_tokens=9 gen_ai.usage.output_tokens=3 server.address=127.0.0.1";
    has_attributes(span(&tree, "chat gpt-test", SpanKind::Client), expected);
    let (recorded, logged) = (sent(&tree), stopped.log.lines().join("\n"));
    assert!(recorded.contains("gpt-test-0125"), "attributes are looked at: {recorded}");
    for secret in [KEY, "What is a trace?", "A path."] {
        assert!(!recorded.contains(secret), "{secret} is on a span");
        assert!(!logged.contains(secret), "{secret} is in a log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_span_needs_of_a_models_answer_may_be_missing_or_odd() {
    let said = json!({ "content": "yes" });
    for from_model in [
        json!({ "model": "m", "choices": [{ "message": said }], "usage": null }),
        json!({ "choices": [{ "message": said, "finish_reason": 0 }] }),
        json!({ "model": ["m"], "choices": [{ "message": said }], "usage": { "total_tokens": 3 } }),
        json!({ "choices": [{ "message": said }], "usage": { "prompt_tokens": 1.5 } }),
    ] {
        let context = from_model.to_string();
        let model = serve(Router::new().fallback(async move || Json(from_model))).await;
        let (answered, stopped) = Setup::default().with_model(model, "m").ask("user_1").await;
        assert_eq!(answered, answer("yes"), "{context}");
        let tree = stopped.only_tree();
        has_attributes(span(&tree, "chat m", SpanKind::Client), "gen_ai.usage.input_tokens=(none)");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_are_recorded_where_that_was_asked_for() {
    let stopped = ask_openai(Setup::default().with("llm-service", CAPTURE, "true")).await;
    let tree = stopped.only_tree();
    let chat = span(&tree, "chat gpt-test", SpanKind::Client);
    let message = |role: &str, text: &str| {
        json!([{ "role": role, "parts": [{ "type": "text", "content": text }] }]).to_string()
    };
    assert_eq!(chat.attribute("gen_ai.input.messages"), Some(message("user", "What is a trace?")));
    assert_eq!(chat.attribute("gen_ai.output.messages"), Some(message("assistant", "A path.")));
}

/// Other SDKs accept words such as `span_only` here.
#[tokio::test(flavor = "multi_thread")]
async fn a_telemetry_setting_that_is_not_known_records_nothing_and_stops_nothing() {
    let stopped = ask_openai(Setup::default().with("llm-service", CAPTURE, "span_only")).await;
    let recorded = sent(&stopped.only_tree());
    assert!(!recorded.contains("What is a trace?"), "{recorded}");
    let warnings = stopped.log.find("llm-service", CAPTURE);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_cannot_be_used_is_one_line_that_names_it() {
    let holder = tokio::net::TcpListener::bind(FREE).await.expect("a free port");
    let taken =
        format!("api-gateway API_GATEWAY_ADDR={}", holder.local_addr().expect("an address"));
    let cases = [
        ("user-service LLM_SERVICE_URL=not a url", "LLM_SERVICE_URL cannot be used: "),
        (
            "user-service LLM_SERVICE_URL=ftp://x",
            "LLM_SERVICE_URL must start with http:// or https://",
        ),
        ("user-service LLM_SERVICE_URL=http://u:p@x", "LLM_SERVICE_URL must not hold a password"),
        ("user-service LLM_SERVICE_TIMEOUT_MS=soon", "LLM_SERVICE_TIMEOUT_MS cannot be used: "),
        ("user-service LLM_SERVICE_TIMEOUT_MS=0", "LLM_SERVICE_TIMEOUT_MS=0 leaves no time"),
        (
            "llm-service LLM_BASE_URL=localhost:8000/v1",
            "LLM_BASE_URL must start with http:// or https://",
        ),
        ("llm-service LLM_BASE_URL=http://localhost", "LLM_BASE_URL needs LLM_MODEL too"),
        ("api-gateway API_GATEWAY_ADDR=nowhere", "API_GATEWAY_ADDR cannot be used: "),
        (&taken, "api-gateway cannot listen on"),
    ];
    for (case, expected) in cases {
        let (service, setting) = case.split_once(' ').expect("a service");
        let (key, value) = setting.split_once('=').expect("a value");
        let mut command =
            tokio::process::Command::new(binaries().await.join("production_services"));
        command.arg(service);
        // No setting but the wrong one, or a setting of this machine could correct it.
        let output = command.env_clear().env(key, value).kill_on_drop(true).output();
        let output = within_reason(output).await.expect("the service runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{case}: {stderr}");
        assert!(!stderr.contains("u:p"), "a password is shown: {stderr}");
        assert!(stderr.starts_with("Error: ") && stderr.contains(expected), "{case}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{case}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_test_passes_on_a_whole_trace_and_fails_on_a_broken_one() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let lab = Lab::view("").await;
    let backend = lab.otlp().parse().expect("an address");
    let script = support::root().join("examples/distributed_tracing/test_distributed_trace.sh");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", support::binaries().await.display());
    for (setup, timeout, code, expected) in [
        (Setup::default().tutorial(), "120s", 0, "all checks passed"),
        (
            Setup::default().tutorial().without_traceparent(),
            "2s",
            1,
            "FAILED  the request is one trace",
        ),
    ] {
        let setup = setup.with_backend(backend).with("all", "OTEL_BSP_SCHEDULE_DELAY", 50);
        let system = setup.start().await;
        let output = Command::new("bash")
            .arg(&script)
            .env("PATH", &path)
            .env("SETTLE", "1s")
            .env("TIMEOUT", timeout)
            .env("LAB_URL", format!("http://{}", lab.site()))
            .env("API_GATEWAY_URL", format!("http://{}", system.gateway.address))
            .env("USER_SERVICE_URL", format!("http://{}", system.user.address))
            .env("LLM_SERVICE_URL", format!("http://{}", system.llm.address))
            .output()
            .await
            .expect("bash runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        has(&printed, [expected]);
        assert_eq!(printed.matches("ok      http").count(), 3, "{printed}");
        system.stop().await;
    }
}
