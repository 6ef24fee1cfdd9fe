//! Attempts are spans, the caller's time is kept on every hop, and an open circuit calls nobody.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::routing::{get, post};
use lab::span::SpanKind;
use reqwest::Response;
use serde_json::json;
use timeouts_and_retries::budget::keep_budget;

use super::example::{binaries, in_order, sent, shapes};
use crate::support::recording::{check_named, figures, recorded};
use crate::support::{Setup, Stopped, client, hung, refused, serve, span, within_reason};

const HEADER: &str = "x-envoy-expected-rq-timeout-ms";

async fn setup() -> Setup {
    binaries().await;
    Setup::default()
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .run_by("user-service", "retrying_user_service")
}

/// Calls user-service as a caller that waits this number of milliseconds.
async fn ask(user_service: SocketAddr, wait: Option<u64>) -> Response {
    let url = format!("http://{user_service}/process");
    let body = json!({ "user_id": "user_1", "query": "What is a trace?" });
    let mut request = client().post(url).json(&body);
    if let Some(wait) = wait {
        request = request.header(HEADER, wait);
    }
    request.send().await.expect("an answer")
}

fn compare(name: &str, stopped: &Stopped, expected: &str) {
    let trees = in_order(stopped.trees());
    assert_eq!(shapes(&trees), expected);
    check_named(name, &figures(&trees));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_twice_and_then_works_is_one_trace_without_an_error_at_its_top() {
    let setup = setup().await.run_by("llm-service", "flaky_llm_service");
    let system = setup.with("llm-service", "LLM_FAILURES", 2).start().await;
    assert_eq!(system.ask("user_1").await.status(), 200);
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    let counts =
        tree.rows.iter().map(|row| &row.span).filter(|span| span.kind() == SpanKind::Client);
    let counts = counts.map(|span| span.attribute("http.request.resend_count").unwrap_or_default());
    assert_eq!(counts.collect::<Vec<_>>(), ["", "", "1", "2"], "the first is the gateway's");
    compare(
        recorded!("timeouts-and-retries/works-at-last.html"),
        &stopped,
        "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
    POST /process SERVER user-service http 200
      POST /generate with retries INTERNAL user-service
        POST /generate CLIENT user-service http 503 error 503
          POST /generate SERVER llm-service http 503 error 503
        POST /generate CLIENT user-service http 503 error 503
          POST /generate SERVER llm-service http 503 error 503
        POST /generate CLIENT user-service http 200
          POST /generate SERVER llm-service http 200
            chat offline INTERNAL llm-service
",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_ends_when_the_caller_stops_waiting() {
    let (silent, _) = hung().await;
    let setup = setup().await;
    let setup = setup.with("user-service", "LLM_SERVICE_URL", format!("http://{silent}"));
    let system = setup.start().await;
    assert_eq!(ask(system.user.address, Some(150)).await.status(), 504);
    let stopped = system.stop().await;
    compare(
        recorded!("timeouts-and-retries/no-time-left.html"),
        &stopped,
        "\
POST /process SERVER user-service http 504 error 504
  POST /generate with retries INTERNAL user-service error timeout
    POST /generate CLIENT user-service error timeout
",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_calls_nobody() {
    let setup = setup().await.run_by("llm-service", "flaky_llm_service");
    let system = setup.with("llm-service", "LLM_FAILURES", 1000).start().await;
    for _ in 0..2 {
        assert_eq!(ask(system.user.address, None).await.status(), 502);
    }
    let stopped = system.stop().await;
    compare(
        recorded!("timeouts-and-retries/circuit-open.html"),
        &stopped,
        "\
POST /process SERVER user-service http 502 error 502
  POST /generate with retries INTERNAL user-service error 503
    POST /generate CLIENT user-service http 503 error 503
      POST /generate SERVER llm-service http 503 error 503
    POST /generate CLIENT user-service http 503 error 503
      POST /generate SERVER llm-service http 503 error 503
    POST /generate CLIENT user-service http 503 error 503
      POST /generate SERVER llm-service http 503 error 503

POST /process SERVER user-service http 502 error 502
  POST /generate with retries INTERNAL user-service error circuit_open
",
    );
}

/// Each attempt sends the next service a deadline that is shorter than the caller's, and shorter each time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_the_time_is_passed_on() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let refuse = async move |headers: HeaderMap| {
        let value = headers[HEADER].to_str().expect("text").parse::<u64>();
        seen.lock().expect("a lock").push(value.expect("a number"));
        StatusCode::SERVICE_UNAVAILABLE
    };
    let next = serve(Router::new().route("/generate", post(refuse))).await;
    let setup = setup().await;
    let setup = setup.with("user-service", "LLM_SERVICE_URL", format!("http://{next}"));
    let system = setup.start().await;
    assert_eq!(ask(system.user.address, Some(5_000)).await.status(), 502);
    system.stop().await;
    let told = told.lock().expect("a lock");
    assert_eq!(told.len(), 3);
    assert!(told[0] <= 5_000 && told.is_sorted_by(|a, b| a > b), "{told:?}");
}

/// Work that calls nobody ends too, when its caller has gone.
#[tokio::test(flavor = "multi_thread")]
async fn work_without_an_end_has_one() {
    let routes = Router::new().route("/", get(pending::<&str>));
    let address = serve(routes.layer(from_fn(keep_budget))).await;
    let request = client().get(format!("http://{address}")).header(HEADER, 20);
    let answer = within_reason(request.send()).await.expect("an answer");
    assert_eq!(answer.status(), 504);
}

/// Another attempt wouldn't change a 403.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_asked_once() {
    let refuse = async || StatusCode::FORBIDDEN;
    let next = serve(Router::new().route("/generate", post(refuse))).await;
    let setup = setup().await;
    let setup = setup.with("user-service", "LLM_SERVICE_URL", format!("http://{next}"));
    let system = setup.start().await;
    assert_eq!(ask(system.user.address, None).await.status(), 502);
    let stopped = system.stop().await;
    let clients =
        stopped.only_tree().rows.iter().filter(|row| row.span.kind() == SpanKind::Client).count();
    assert_eq!(clients, 1);
}

/// An error of reqwest prints the whole URL, and a URL may hold a key.
#[tokio::test(flavor = "multi_thread")]
async fn no_message_names_an_address() {
    let (nobody, _kept) = refused();
    let setup = setup().await;
    let url = format!("http://{nobody}/key-48151");
    let system = setup.with("user-service", "LLM_SERVICE_URL", url).start().await;
    let answer = ask(system.user.address, None).await;
    assert_eq!(answer.status(), 502);
    let body = answer.text().await.expect("a body");
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    let failed = span(&tree, "POST /generate", SpanKind::Client);
    assert_eq!(failed.attribute("error.type").as_deref(), Some("unreachable"));
    for text in [body, sent(&tree), stopped.log.lines().join("\n")] {
        assert!(!text.contains("key-48151"), "{text}");
    }
}
