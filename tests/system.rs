//! The three services, as processes over HTTP: what a client sees, and what the trace shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::support;
use crate::support::{
    Setup, System, WHOLE, client, hung, json_of, refused, serve, shape, span, until, within_reason,
};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use lab::span::SpanKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_request_gives_one_trace_through_three_services() {
    let system = System::start().await;
    let (status, body) = json_of(system.ask("user_1").await).await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!({ "response": "This is the offline model. You asked: What is a trace?" })
    );

    let tree = system.stop().await.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    assert!(tree.is_whole());

    let server = span(&tree, "POST /api/query", SpanKind::Server);
    assert_eq!(server.attribute("http.request.method").as_deref(), Some("POST"));
    assert_eq!(server.attribute("http.route").as_deref(), Some("/api/query"));
    assert_eq!(server.attribute("url.path").as_deref(), Some("/api/query"));
    assert_eq!(server.attribute("url.scheme").as_deref(), Some("http"));
    let call = span(&tree, "POST /process", SpanKind::Client);
    assert_eq!(call.attribute("server.address").as_deref(), Some("127.0.0.1"));
    assert!(call.attribute("url.full").expect("url.full").ends_with("/process"));
    assert!(call.attribute("server.port").is_some());
    let check = span(&tree, "validate_user", SpanKind::Internal);
    assert_eq!(check.attribute("honeyhive_event_type").as_deref(), Some("tool"));
    assert_eq!(check.attribute("honeyhive_metadata.user.valid").as_deref(), Some("true"));
    let chat = span(&tree, "chat offline", SpanKind::Internal);
    assert_eq!(chat.attribute("honeyhive_event_type").as_deref(), Some("model"));
    assert_eq!(chat.attribute("gen_ai.operation.name").as_deref(), Some("chat"));
    assert_eq!(chat.attribute("gen_ai.request.model").as_deref(), Some("offline"));
    assert_eq!(chat.attribute("gen_ai.usage.input_tokens").as_deref(), Some("4"));
    assert_eq!(chat.attribute("gen_ai.usage.output_tokens").as_deref(), Some("11"));
    assert_eq!(chat.attribute("gen_ai.response.finish_reasons").as_deref(), Some("[\"stop\"]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_has_an_instance_of_its_own_and_all_have_one_namespace() {
    let system = System::start().await;
    system.ask("user_1").await;
    let tree = system.stop().await.only_tree();
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
    let setup = Setup::default().with("api-gateway", "OTEL_SERVICE_NAME", "front-door").with(
        "llm-service",
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=oracle,deployment.environment.name=test",
    );
    let system = setup.start().await;
    system.ask("user_1").await;
    assert_eq!(
        system.stop().await.only_tree().services(),
        ["front-door", "user-service", "oracle"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_says_that_it_is_healthy_and_does_not_trace_it() {
    let system = System::start().await;
    for service in [&system.gateway, &system.user, &system.llm] {
        let response = client()
            .get(format!("http://{}/health", service.address))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200, "{}", service.name);
    }
    assert_eq!(system.stop().await.trees().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_refused_and_the_refusal_is_on_the_trace() {
    let system = System::start().await;
    let (status, body) = json_of(system.ask("stranger").await).await;
    assert_eq!((status, body), (403, json!({ "error": "Invalid user" })));

    let tree = system.stop().await.only_tree();
    assert_eq!(
        shape(&tree),
        "\
POST /api/query SERVER api-gateway http 403
  POST /process CLIENT api-gateway http 403 error 403
    POST /process SERVER user-service http 403
      validate_user INTERNAL user-service error user_service::InvalidUser
"
    );
    assert_eq!(span(&tree, "validate_user", SpanKind::Internal).status_message(), "Invalid user");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_llm_service_is_a_502_and_every_span_above_is_an_error() {
    let (refused, _kept) = refused();
    let setup =
        Setup::default().with("user-service", "LLM_SERVICE_URL", format!("http://{refused}"));
    let system = setup.start().await;
    let (status, body) = json_of(system.ask("user_1").await).await;
    assert_eq!((status, body), (502, json!({ "error": "A service behind this one failed" })));

    let tree = system.stop().await.only_tree();
    assert_eq!(
        shape(&tree),
        "\
POST /api/query SERVER api-gateway http 502 error 502
  POST /process CLIENT api-gateway http 502 error 502
    POST /process SERVER user-service http 502 error 502
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service error unreachable
"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_model_is_a_504_and_every_span_above_is_an_error() {
    let (model, _) = hung().await;
    let setup = Setup::default()
        .with("llm-service", "LLM_BASE_URL", format!("http://{model}/v1"))
        .with("llm-service", "LLM_MODEL", "slow")
        .with("llm-service", "LLM_TIMEOUT_MS", 100);
    let system = setup.start().await;
    let (status, body) = json_of(system.ask("user_1").await).await;
    assert_eq!(
        (status, body),
        (504, json!({ "error": "A service behind this one did not answer in time" }))
    );

    let tree = system.stop().await.only_tree();
    assert_eq!(
        shape(&tree),
        "\
POST /api/query SERVER api-gateway http 504 error 504
  POST /process CLIENT api-gateway http 504 error 504
    POST /process SERVER user-service http 504 error 504
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service http 504 error 504
        POST /generate SERVER llm-service http 504 error 504
          chat slow CLIENT llm-service error timeout
"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_llm_service_is_a_504_at_the_deadline_of_its_caller() {
    let (llm_service, _) = hung().await;
    let setup = Setup::default()
        .with("user-service", "LLM_SERVICE_URL", format!("http://{llm_service}"))
        .with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    let system = setup.start().await;
    let (status, _) = json_of(system.ask("user_1").await).await;
    assert_eq!(status, 504);

    let tree = system.stop().await.only_tree();
    assert_eq!(
        shape(&tree),
        "\
POST /api/query SERVER api-gateway http 504 error 504
  POST /process CLIENT api-gateway http 504 error 504
    POST /process SERVER user-service http 504 error 504
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service error timeout
"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_in_json_and_has_a_server_span() {
    let valid = json!({ "user_id": "user_1", "query": "?" }).to_string();
    let large = json!({ "user_id": "user_1", "query": "x".repeat(65 * 1024) }).to_string();
    let cases = [
        ("malformed JSON", "application/json", "{".to_owned(), 400),
        ("a field is missing", "application/json", "{}".to_owned(), 422),
        ("not JSON", "text/plain", valid, 415),
        ("too large", "application/json", large, 413),
    ];
    let system = System::start().await;
    for (what, content_type, body, expected) in cases {
        let url = format!("http://{}/api/query", system.gateway.address);
        let request = client().post(url).header("content-type", content_type).body(body);
        let (status, body) = json_of(request.send().await.expect("an answer")).await;
        assert_eq!(status, expected, "{what}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{what}: {body}");
    }
    let mut shapes: Vec<String> = system.stop().await.trees().iter().map(shape).collect();
    shapes.sort();
    let expected = [400, 413, 415, 422]
        .map(|status| format!("POST /api/query SERVER api-gateway http {status}\n"));
    assert_eq!(shapes, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_or_method_does_not_become_a_span_name() {
    let system = System::start().await;
    let base = format!("http://{}", system.gateway.address);
    client().get(format!("{base}/users/8f3b")).send().await.expect("an answer");
    let odd = reqwest::Method::from_bytes(b"BREW").expect("a method");
    client().request(odd, format!("{base}/api/query")).send().await.expect("an answer");
    let mut shapes: Vec<String> = system.stop().await.trees().iter().map(shape).collect();
    shapes.sort();
    assert_eq!(
        shapes,
        ["GET SERVER api-gateway http 404\n", "HTTP /api/query SERVER api-gateway http 405\n"]
    );
}

/// Asks, waits until an export has `met` the backend, and asks again: the answers must be those of a healthy backend.
/// The loss must be counted: of each request 2, 3 and 2 spans.
async fn a_bad_backend_changes_nothing(backend: SocketAddr, met: impl AsyncFn(&System)) {
    let setup = Setup::default()
        .with_backend(backend)
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 1)
        .with("all", "OTEL_EXPORTER_OTLP_TIMEOUT", 200);
    let system = setup.start().await;
    let answer = json!({ "response": "This is the offline model. You asked: What is a trace?" });
    assert_eq!(json_of(system.ask("user_1").await).await, (200, answer.clone()));
    met(&system).await;
    assert_eq!(json_of(system.ask("user_1").await).await, (200, answer));

    let stopped = system.stop().await;
    for (service, lost) in [("api-gateway", 4), ("user-service", 6), ("llm-service", 4)] {
        let report = format!(
            "spans were lost: the trace backend did not take them lost={lost} ended={lost}"
        );
        let found = stopped.log.find(service, &report);
        assert_eq!(
            found.len(),
            1,
            "{service} must report {lost} lost spans:\n{}",
            stopped.log.lines().join("\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_connections_costs_spans_and_nothing_else() {
    let (address, _kept) = refused();
    let met = async |system: &System| {
        system.log.wait_for("api-gateway", "the export of a batch failed").await
    };
    a_bad_backend_changes_nothing(address, met).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_costs_spans_and_nothing_else() {
    let (address, connected) = hung().await;
    let met = async |_: &System| within_reason(connected.notified()).await;
    a_bad_backend_changes_nothing(address, met).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_answers_500_costs_spans_and_nothing_else() {
    let asked = Arc::new(Notify::new());
    let fail = async |State(asked): State<Arc<Notify>>| {
        asked.notify_one();
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let address = serve(Router::new().fallback(fail).with_state(Arc::clone(&asked))).await;
    let met = async |_: &System| within_reason(asked.notified()).await;
    a_bad_backend_changes_nothing(address, met).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_backend_loses_nothing() {
    let system = System::start().await;
    system.ask("user_1").await;
    let stopped = system.stop().await;
    assert_eq!(stopped.store.usage().spans, 7);
    let lost: Vec<String> =
        stopped.log.lines().into_iter().filter(|line| line.contains("lost")).collect();
    assert_eq!(lost, Vec::<String>::new());
}

/// A model that holds every request until it is told to answer.
#[derive(Clone, Default)]
struct HeldModel {
    asked: Arc<Notify>,
    answer: Arc<Notify>,
}

impl HeldModel {
    async fn serve(&self) -> SocketAddr {
        let complete = async |State(model): State<HeldModel>| {
            model.asked.notify_one();
            model.answer.notified().await;
            Json(json!({ "model": "held", "choices": [{ "message": { "content": "at last" } }] }))
        };
        serve(Router::new().route("/v1/chat/completions", post(complete)).with_state(self.clone()))
            .await
    }
}

/// Whoever has read "listening" may stop the service: the signal must find it ready, or its last spans are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_listens_can_be_stopped() {
    for _ in 0..10 {
        let stopped = System::start().await.stop().await;
        // The gateway was the last to start, and is the first to be stopped.
        assert_eq!(stopped.log.find("api-gateway", "stopping").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_in_flight_finish_and_flushes_every_span() {
    let model = HeldModel::default();
    let base = format!("http://{}/v1", model.serve().await);
    // A delay so long that only the flush at the end can have exported the spans.
    let setup = Setup::default()
        .with("llm-service", "LLM_BASE_URL", base)
        .with("llm-service", "LLM_MODEL", "held")
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000);
    let mut system = setup.start().await;

    let query = json!({ "user_id": "user_1", "query": "?" });
    let url = format!("http://{}/api/query", system.gateway.address);
    let request = tokio::spawn(client().post(url).json(&query).send());
    within_reason(model.asked.notified()).await;
    for service in [&mut system.gateway, &mut system.user, &mut system.llm] {
        service.terminate();
    }
    // The gateway has taken the signal once it refuses new connections; the request is still in flight then.
    until(async || match TcpStream::connect(system.gateway.address).await {
        Ok(_) => Err("it still accepts connections"),
        Err(_) => Ok(()),
    })
    .await;
    assert_eq!(system.store.usage().spans, 0);
    model.answer.notify_one();

    let (status, body) = json_of(request.await.expect("no panic").expect("an answer")).await;
    assert_eq!((status, body), (200, json!({ "response": "at last" })));
    let tree = system.stop().await.only_tree();
    assert_eq!(shape(&tree), WHOLE.replace("chat offline INTERNAL", "chat held CLIENT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_hold_up_the_stop() {
    let model = HeldModel::default();
    let setup = Setup::default()
        .with("llm-service", "LLM_BASE_URL", format!("http://{}/v1", model.serve().await))
        .with("llm-service", "LLM_MODEL", "held")
        .with("all", "SHUTDOWN_TIMEOUT_MS", 100);
    let system = setup.start().await;
    let query = json!({ "user_id": "user_1", "query": "?" });
    let url = format!("http://{}/api/query", system.gateway.address);
    let request = tokio::spawn(client().post(url).json(&query).send());
    within_reason(model.asked.notified()).await;
    let log = system.stop().await.log;
    let gave_up = "api-gateway stopped with requests unanswered after 100ms";
    assert_eq!(log.find("api-gateway", gave_up).len(), 1, "{}", log.lines().join("\n"));
    assert!(request.await.expect("no panic").is_err(), "nobody was left to answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_answered_at_the_deadline() {
    let system = Setup::default().with("api-gateway", "BODY_TIMEOUT_MS", 100).start().await;
    let mut stream = TcpStream::connect(system.gateway.address).await.expect("the gateway listens");
    let request = "POST /api/query HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
                   Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let tree = system.stop().await.only_tree();
    assert_eq!(shape(&tree), "POST /api/query SERVER api-gateway http 400\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_at_once_give_two_hundred_traces_and_none_is_mixed() {
    let system = Arc::new(System::start().await);
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..200 {
        let system = Arc::clone(&system);
        requests.spawn(async move { json_of(system.ask(&format!("user_{number}")).await).await.0 });
    }
    assert_eq!(requests.join_all().await, [200; 200]);

    let system = Arc::into_inner(system).expect("all requests are done");
    let trees = system.stop().await.trees();
    assert_eq!(trees.len(), 200);
    for tree in &trees {
        assert_eq!(shape(tree), WHOLE);
    }
}

/// Stands at the end of the chain and keeps the headers that reach it.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<HeaderMap>>>);

impl Capture {
    async fn serve(&self) -> SocketAddr {
        let generate = async |State(capture): State<Capture>, headers: HeaderMap| {
            capture.0.lock().expect("not poisoned").push(headers);
            Json(json!({ "response": "captured" }))
        };
        serve(Router::new().route("/generate", post(generate)).with_state(self.clone())).await
    }

    fn header(&self, name: &str) -> String {
        let captured = self.0.lock().expect("not poisoned");
        let value = captured.first().and_then(|headers| headers.get(name)).expect(name);
        value.to_str().expect("text").to_owned()
    }
}

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";

/// Sends a request over a bare socket, so that the headers go out letter by letter as they stand here.
async fn raw_request(gateway: SocketAddr, headers: &str) -> String {
    let body = r#"{"user_id": "user_1", "query": "?"}"#;
    let length = body.len();
    let request = format!(
        "POST /api/query HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(gateway).await.expect("the gateway listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_and_baggage_of_a_foreign_caller_are_continued() {
    let capture = Capture::default();
    let end = capture.serve().await;
    let system = Setup::default()
        .with("user-service", "LLM_SERVICE_URL", format!("http://{end}"))
        .start()
        .await;
    // As a Python service with honeyhive's SDK sends them: any case, unknown flags, baggage of its own.
    let headers = format!(
        "TraceParent: 00-{TRACE_ID}-{PARENT_ID}-03\r\n\
         Baggage: session_id=5a1f,honeyhive_tracer_id=t%201,project=demo,source=python"
    );
    let answer = raw_request(system.gateway.address, &headers).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let tree = system.stop().await.only_tree();
    assert_eq!(tree.trace_id.to_string(), TRACE_ID);
    let server = span(&tree, "POST /api/query", SpanKind::Server);
    assert_eq!(server.parent.map(|id| id.to_string()).as_deref(), Some(PARENT_ID));
    let call = span(&tree, "POST /generate", SpanKind::Client);
    assert_eq!(capture.header("traceparent"), format!("00-{TRACE_ID}-{}-01", call.id));
    let mut baggage: Vec<String> =
        capture.header("baggage").split(',').map(str::to_owned).collect();
    baggage.sort();
    assert_eq!(
        baggage,
        ["honeyhive_tracer_id=t%201", "project=demo", "session_id=5a1f", "source=python"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsampled_caller_is_followed_and_nothing_is_recorded() {
    let capture = Capture::default();
    let end = capture.serve().await;
    let system = Setup::default()
        .with("user-service", "LLM_SERVICE_URL", format!("http://{end}"))
        .start()
        .await;
    raw_request(system.gateway.address, &format!("traceparent: 00-{TRACE_ID}-{PARENT_ID}-00"))
        .await;
    let sent = capture.header("traceparent");
    assert!(sent.starts_with(&format!("00-{TRACE_ID}-")) && sent.ends_with("-00"), "{sent}");
    assert_eq!(system.stop().await.trees().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_traceparent_starts_a_new_trace() {
    let system = System::start().await;
    raw_request(system.gateway.address, &format!("traceparent: 00-{TRACE_ID}-xyz-01")).await;
    let tree = system.stop().await.only_tree();
    assert_ne!(tree.trace_id.to_string(), TRACE_ID);
    assert_eq!(shape(&tree), WHOLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_sdk_records_nothing_and_still_passes_the_context_on() {
    let capture = Capture::default();
    let end = capture.serve().await;
    let system = Setup::default()
        .with("user-service", "LLM_SERVICE_URL", format!("http://{end}"))
        .with("all", "OTEL_SDK_DISABLED", "true")
        .start()
        .await;
    let traceparent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    raw_request(system.gateway.address, &format!("traceparent: {traceparent}")).await;
    assert_eq!(capture.header("traceparent"), traceparent);
    assert_eq!(system.stop().await.trees().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_carry_the_trace_id() {
    let system = System::start().await;
    system.ask("user_1").await;
    let stopped = system.stop().await;
    let trace_id = stopped.only_tree().trace_id;
    for service in ["api-gateway", "user-service", "llm-service"] {
        let lines = stopped.log.find(service, &format!(" trace_id={trace_id} "));
        assert_eq!(lines.len(), 1, "{service}:\n{}", stopped.log.lines().join("\n"));
    }
}

const KEY: &str = "sk-do-not-tell";

/// An OpenAI-compatible server that wants the key, and answers with token counts.
async fn openai() -> SocketAddr {
    let complete = async |headers: HeaderMap, Json(body): Json<Value>| {
        assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
        assert!(!headers.contains_key("traceparent") && !headers.contains_key("baggage"));
        Json(json!({
            "model": format!("{}-0125", body["model"].as_str().expect("a model")),
            "choices": [{ "message": { "role": "assistant", "content": "A path." }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12 },
        }))
    };
    serve(Router::new().route("/v1/chat/completions", post(complete))).await
}

async fn with_openai(setup: Setup) -> (String, support::Stopped) {
    let base = format!("http://{}/v1/", openai().await);
    let setup = setup
        .with("llm-service", "LLM_BASE_URL", base)
        .with("llm-service", "LLM_MODEL", "gpt-test")
        .with("llm-service", "LLM_API_KEY", KEY)
        .with("all", "RUST_LOG", "debug");
    let system = setup.start().await;
    let (status, body) = json_of(system.ask("user_1").await).await;
    assert_eq!((status, body), (200, json!({ "response": "A path." })));
    let stopped = system.stop().await;
    (format!("{:?}", stopped.only_tree()), stopped)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_openai_compatible_server_answers_and_nothing_secret_is_recorded() {
    let (recorded, stopped) = with_openai(Setup::default()).await;
    let tree = stopped.only_tree();
    let chat = span(&tree, "chat gpt-test", SpanKind::Client);
    assert_eq!(chat.attribute("gen_ai.provider.name").as_deref(), Some("openai"));
    assert_eq!(chat.attribute("gen_ai.response.model").as_deref(), Some("gpt-test-0125"));
    assert_eq!(chat.attribute("gen_ai.usage.input_tokens").as_deref(), Some("9"));
    assert_eq!(chat.attribute("gen_ai.usage.output_tokens").as_deref(), Some("3"));
    assert_eq!(chat.attribute("server.address").as_deref(), Some("127.0.0.1"));
    let logged = stopped.log.lines().join("\n");
    for secret in [KEY, "What is a trace?", "A path."] {
        assert!(!recorded.contains(secret), "{secret} is on a span");
        assert!(!logged.contains(secret), "{secret} is in a log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_model_is_a_502_and_says_nothing_about_the_user() {
    let forbidden = serve(Router::new().fallback(async || StatusCode::FORBIDDEN)).await;
    let setup = Setup::default()
        .with("llm-service", "LLM_BASE_URL", format!("http://{forbidden}/v1"))
        .with("llm-service", "LLM_MODEL", "closed");
    let system = setup.start().await;
    let (status, body) = json_of(system.ask("user_1").await).await;
    assert_eq!((status, body), (502, json!({ "error": "A service behind this one failed" })));
    let tree = system.stop().await.only_tree();
    assert!(
        shape(&tree).ends_with("chat closed CLIENT llm-service error 403\n"),
        "{}",
        shape(&tree)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_span_needs_of_a_models_answer_may_be_missing_or_odd() {
    let said = json!({ "content": "yes" });
    for answer in [
        json!({ "model": "m", "choices": [{ "message": said }], "usage": null }),
        json!({ "choices": [{ "message": said, "finish_reason": 0 }] }),
        json!({ "model": ["m"], "choices": [{ "message": said }], "usage": { "total_tokens": 3 } }),
        json!({ "choices": [{ "message": said }], "usage": { "prompt_tokens": 1.5 } }),
    ] {
        let context = answer.to_string();
        let model = serve(Router::new().fallback(async move || Json(answer))).await;
        let system = Setup::default()
            .with("llm-service", "LLM_BASE_URL", format!("http://{model}"))
            .with("llm-service", "LLM_MODEL", "m")
            .start()
            .await;
        assert_eq!(
            json_of(system.ask("user_1").await).await,
            (200, json!({ "response": "yes" })),
            "{context}"
        );
        let tree = system.stop().await.only_tree();
        let tokens = span(&tree, "chat m", SpanKind::Client).attribute("gen_ai.usage.input_tokens");
        assert_eq!(tokens, None, "{context}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_are_recorded_where_that_was_asked_for() {
    let variable = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    let (_, stopped) = with_openai(Setup::default().with("llm-service", variable, "true")).await;
    let tree = stopped.only_tree();
    let chat = span(&tree, "chat gpt-test", SpanKind::Client);
    let message = |role: &str, text: &str| {
        json!([{ "role": role, "parts": [{ "type": "text", "content": text }] }]).to_string()
    };
    assert_eq!(chat.attribute("gen_ai.input.messages"), Some(message("user", "What is a trace?")));
    assert_eq!(chat.attribute("gen_ai.output.messages"), Some(message("assistant", "A path.")));
}

/// Other SDKs take words such as `span_only` here.
#[tokio::test(flavor = "multi_thread")]
async fn a_telemetry_setting_that_is_not_known_records_nothing_and_stops_nothing() {
    let variable = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    let setup = Setup::default().with("llm-service", variable, "span_only");
    let (recorded, stopped) = with_openai(setup).await;
    assert!(!recorded.contains("What is a trace?"), "{recorded}");
    let said = stopped.log.find("llm-service", variable);
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_cannot_be_used_is_one_line_that_names_it() {
    let holder = tokio::net::TcpListener::bind(support::FREE).await.expect("a free port");
    let taken = holder.local_addr().expect("an address").to_string();
    let cases = [
        ("user_service", "LLM_SERVICE_URL", "not a url", "LLM_SERVICE_URL cannot be used: "),
        (
            "user_service",
            "LLM_SERVICE_URL",
            "ftp://x",
            "LLM_SERVICE_URL must start with http:// or https://",
        ),
        (
            "user_service",
            "LLM_SERVICE_URL",
            "http://u:p@x",
            "LLM_SERVICE_URL must not hold a password",
        ),
        (
            "user_service",
            "LLM_SERVICE_TIMEOUT_MS",
            "soon",
            "LLM_SERVICE_TIMEOUT_MS cannot be used: ",
        ),
        ("user_service", "LLM_SERVICE_TIMEOUT_MS", "0", "LLM_SERVICE_TIMEOUT_MS=0 leaves no time"),
        (
            "llm_service",
            "LLM_BASE_URL",
            "localhost:8000/v1",
            "LLM_BASE_URL must start with http:// or https://",
        ),
        ("llm_service", "LLM_BASE_URL", "http://localhost", "LLM_BASE_URL needs LLM_MODEL too"),
        ("api_gateway", "API_GATEWAY_ADDR", "nowhere", "API_GATEWAY_ADDR cannot be used: "),
        ("api_gateway", "API_GATEWAY_ADDR", &taken, "api-gateway cannot listen on"),
    ];
    for (program, key, value, expected) in cases {
        let mut command = tokio::process::Command::new(support::binaries().await.join(program));
        // Nothing but the wrong setting: what is set where the test runs must not mend it.
        let output = command.env_clear().env(key, value).kill_on_drop(true).output();
        let output = within_reason(output).await.expect("the service runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{key}={value}: {stderr}");
        assert!(!stderr.contains("u:p"), "a password is shown: {stderr}");
        assert!(
            stderr.starts_with("Error: ") && stderr.contains(expected),
            "{key}={value}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{key}={value}: {stderr}");
    }
}
