//! Attempts are spans, the caller's time is kept on every hop, and an open circuit calls nobody.

use std::future::pending;
use std::net::SocketAddr;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::routing::{get, post};
use lab::span::SpanKind;
use reqwest::Response;
use serde_json::json;
use timeouts_and_retries::budget::keep_budget;
use tokio::sync::mpsc::unbounded_channel;

use super::example::{binaries, sent};
use support::recording::recorded;
use support::{Setup, Stopped, client, has_attributes, hung, refused, serve, span, within_reason};

const HEADER: &str = "x-envoy-expected-rq-timeout-ms";

async fn setup() -> Setup {
    binaries().await;
    Setup::default().run_by("user-service", "retrying_user_service")
}

/// Calls user-service, perhaps as a caller that waits for a number of milliseconds.
async fn ask(user_service: SocketAddr, wait: Option<u64>) -> Response {
    let body = json!({ "user_id": "user_1", "query": "What is a trace?" });
    let request = client().post(format!("http://{user_service}/process")).json(&body);
    let request = wait.into_iter().fold(request, |request, wait| request.header(HEADER, wait));
    within_reason(request.send()).await.expect("an answer")
}

/// Starts the services, which call `llm_service`, and asks user-service once.
async fn ask_with(llm_service: SocketAddr, wait: Option<u64>, status: u16) -> Stopped {
    let system = setup().await.with_llm_service_at(llm_service).start().await;
    assert_eq!(ask(system.user.address, wait).await.status(), status);
    system.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_twice_and_then_works_is_one_trace_without_an_error_at_its_top() {
    let setup = setup().await.run_by("llm-service", "flaky_llm_service");
    let stopped = setup.with("llm-service", "LLM_FAILURES", 2).answers("user_1", 200).await;
    let tree = stopped.only_tree();
    let clients = tree.rows.iter().filter(|row| row.span.kind() == SpanKind::Client);
    let counts =
        clients.map(|row| row.span.attribute("http.request.resend_count").unwrap_or_default());
    assert_eq!(counts.collect::<Vec<_>>(), ["", "", "1", "2"], "the first is the gateway's");
    let expected = "\
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
";
    stopped.compare(recorded!("timeouts-and-retries/works-at-last.html"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_ends_when_the_caller_stops_waiting() {
    let stopped = ask_with(hung().await.0, Some(150), 504).await;
    let expected = "\
POST /process SERVER user-service http 504 error 504
  POST /generate with retries INTERNAL user-service error timeout
    POST /generate CLIENT user-service error timeout
";
    stopped.compare(recorded!("timeouts-and-retries/no-time-left.html"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_calls_nobody() {
    let setup = setup().await.run_by("llm-service", "flaky_llm_service");
    let system = setup.with("llm-service", "LLM_FAILURES", 1000).start().await;
    for _ in 0..2 {
        assert_eq!(ask(system.user.address, None).await.status(), 502);
    }
    let attempt = "    \
    POST /generate CLIENT user-service http 503 error 503
      POST /generate SERVER llm-service http 503 error 503
";
    let request =
        "POST /process SERVER user-service http 502 error 502\n  POST /generate with retries";
    let expected = format!(
        "{request} INTERNAL user-service error 503\n{attempt}{attempt}{attempt}\n\
         {request} INTERNAL user-service error circuit_open\n"
    );
    let figure = recorded!("timeouts-and-retries/circuit-open.html");
    system.stop().await.compare(figure, &expected);
}

/// Each attempt sends the next service a deadline that is shorter than the caller's, and shorter each time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_the_time_is_passed_on() {
    let (sender, mut calls) = unbounded_channel();
    let refuse = async move |headers: HeaderMap| {
        let left: u64 = headers[HEADER].to_str().expect("text").parse().expect("a number");
        sender.send(left).expect("somebody listens");
        StatusCode::SERVICE_UNAVAILABLE
    };
    let next = serve(Router::new().route("/generate", post(refuse))).await;
    ask_with(next, Some(5_000), 502).await;
    let left = Vec::from_iter(std::iter::from_fn(|| calls.try_recv().ok()));
    assert_eq!(left.len(), 3);
    assert!(left[0] <= 5_000 && left.is_sorted_by(|a, b| a > b), "{left:?}");
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
    let tree = ask_with(next, None, 502).await.only_tree();
    let clients = tree.rows.iter().filter(|row| row.span.kind() == SpanKind::Client).count();
    assert_eq!(clients, 1);
}

/// An error of reqwest prints the whole URL, and a URL may hold a key.
#[tokio::test(flavor = "multi_thread")]
async fn no_message_names_an_address() {
    let (nobody, _kept) = refused();
    let llm_service = format!("{nobody}/key-48151");
    let system = setup().await.with_llm_service_at(llm_service).start().await;
    let answer = ask(system.user.address, None).await;
    assert_eq!(answer.status(), 502);
    let body = answer.text().await.expect("a body");
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    has_attributes(span(&tree, "POST /generate", SpanKind::Client), "error.type=unreachable");
    for text in [body, sent(&tree), stopped.log.lines().join("\n")] {
        assert!(!text.contains("key-48151"), "{text}");
    }
}
