//! The system as the tutorial leaves it: what a client sees, and what the trace shows. The project it starts from is written by
//! `start`.

use std::fs;
use std::path::Path;

use axum::Router;
use axum::http::StatusCode;
use course::start::{starter, write};
use lab::span::SpanKind;
use serde_json::json;
use support::{
    Setup, WHOLE, client, has, has_attributes, hung, json_of, query, refused, root, serve, shape,
    span, within_reason,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_request_is_one_trace() {
    let ((status, _), stopped) = Setup::default().tutorial().ask("user_1").await;
    assert_eq!(status, 200);
    let tree = stopped.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    for (name, kind, attributes) in [
        (
            "POST /api/query",
            SpanKind::Server,
            "http.request.method=POST http.route=/api/query url.path=/api/query url.scheme=http",
        ),
        ("POST /process", SpanKind::Client, "http.request.method=POST server.address=127.0.0.1"),
        ("validate_user", SpanKind::Internal, "honeyhive_event_type=tool user.archived=false"),
        ("chat offline", SpanKind::Internal, "honeyhive_event_type=model"),
    ] {
        has_attributes(span(&tree, name, kind), attributes);
    }
    let call = span(&tree, "POST /process", SpanKind::Client);
    let port = call.attribute("server.port").expect("server.port");
    assert_eq!(call.attribute("url.full"), Some(format!("http://127.0.0.1:{port}/process")));
    let id = tree.trace_id.to_string();
    for service in tree.services() {
        assert_eq!(stopped.log.find(service, &format!("trace_id={id}")).len(), 1, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_an_answer_and_an_error_on_the_trace() {
    let (nobody, _kept) = refused();
    let (silent, _) = hung().await;
    let down = Setup::default().with_llm_service_at(nobody);
    let slow = Setup::default().with_llm_service_at(silent);
    let slow = slow.with("user-service", "LLM_SERVICE_TIMEOUT_MS", 100);
    let above = |status: u16, error: &str| {
        let server = if status == 403 { String::new() } else { format!(" error {status}") };
        format!(
            "POST /api/query SERVER api-gateway http {status}{server}\n  \
             POST /process CLIENT api-gateway http {status} error {status}\n    \
             POST /process SERVER user-service http {status}{server}\n      \
             validate_user INTERNAL user-service{error}\n"
        )
    };
    let call = |error| format!("      POST /generate CLIENT user-service error {error}\n");
    for (setup, user, status, text, expected) in [
        (Setup::default(), "stranger", 403, "Invalid user", above(403, " error invalid_user")),
        (
            down,
            "user_1",
            502,
            "A service behind this one failed",
            above(502, "") + &call("unreachable"),
        ),
        (
            slow,
            "user_1",
            504,
            "A service behind this one did not answer in time",
            above(504, "") + &call("timeout"),
        ),
    ] {
        let (answered, stopped) = setup.tutorial().ask(user).await;
        assert_eq!(answered, (status, json!({ "error": text })));
        assert_eq!(stopped.shapes(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_in_json_and_has_a_server_span() {
    let large = json!({ "user_id": "user_1", "query": "x".repeat(65 * 1024) }).to_string();
    let cases = [("{", 400), (&*large, 413), ("{}", 422)];
    let system = Setup::default().tutorial().start().await;
    for (body, expected) in cases {
        let url = format!("http://{}/api/query", system.gateway.address);
        let request = client().post(url).header("content-type", "application/json");
        let answered = request.body(body.to_owned()).send().await.expect("an answer");
        let (status, answer) = json_of(answered).await;
        assert_eq!((status, answer["error"].is_string()), (expected, true), "{answer}");
    }
    let expected =
        cases.map(|(_, status)| format!("POST /api/query SERVER api-gateway http {status}\n"));
    assert_eq!(system.stop().await.shapes(), expected.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_backend_costs_spans_and_nothing_else() {
    let (nobody, _kept) = refused();
    let (silent, connected) = hung().await;
    let broken = Router::new().fallback(async || StatusCode::INTERNAL_SERVER_ERROR);
    for backend in [nobody, silent, serve(broken).await] {
        let setup = Setup::default().tutorial().with_backend(backend);
        let setup = setup.with("all", "OTEL_BSP_SCHEDULE_DELAY", 1);
        let system = setup.with("all", "OTEL_EXPORTER_OTLP_TIMEOUT", 200).start().await;
        for _ in 0..2 {
            assert_eq!(system.ask("user_1").await.status(), 200);
            if backend == silent {
                within_reason(connected.notified()).await;
            }
        }
        let log = system.stop().await.log;
        for service in ["api-gateway", "user-service", "llm-service"] {
            let warned = log.find(service, "Error");
            assert!(!warned.is_empty(), "{service} says nothing:\n{}", log.lines().join("\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_lets_a_request_finish_and_loses_no_span() {
    let mut system = Setup::default().tutorial().start().await;
    // This user takes a second.
    let request = tokio::spawn(query(system.gateway.address, "user_old_1", &[]).send());
    system.log.wait_for("user-service", "checking the user").await;
    for service in [&mut system.gateway, &mut system.user, &mut system.llm] {
        service.terminate();
    }
    let answered = within_reason(request).await.expect("no panic").expect("an answer");
    // llm-service had nothing to do and may be gone.
    let status = answered.status().as_u16();
    assert!([200, 502].contains(&status), "{status}");
    let tree = system.stop().await.only_tree();
    has_attributes(span(&tree, "validate_user", SpanKind::Internal), "user.archived=true");
    has_attributes(
        span(&tree, "POST /api/query", SpanKind::Server),
        &format!("http.response.status_code={status}"),
    );
}

/// The starter has none of the tracing, and all of the rest.
#[test]
fn the_starter_is_the_example_without_its_tracing() {
    let files = starter(&root()).expect("the example");
    for (path, text) in &files {
        assert!(!text.contains("added>"), "{path:?}");
        let traces = text.contains("opentelemetry") || text.contains("telemetry::");
        let listed = path.ends_with("Cargo.toml") || path.ends_with("logs.rs");
        assert!(listed || !traces, "{path:?}:\n{text}");
    }
    for module in ["incoming", "outgoing", "spans", "telemetry"] {
        assert!(!files.contains_key(Path::new(&format!("src/{module}.rs"))), "{module}");
    }
    for module in ["client", "llm_service", "main", "bin/llm_service"] {
        assert!(files.contains_key(Path::new(&format!("src/{module}.rs"))), "{module}");
    }
}

#[test]
fn start_writes_into_an_empty_folder_beside_the_clone_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = folder.path().join("project");
    let count = write(&root(), &project).expect("written");
    assert_eq!(count, starter(&root()).expect("the example").len() + 1);
    assert!(project.join("Cargo.lock").is_file());
    let again = write(&root(), &project).expect_err("it isn't empty");
    has(&again.to_string(), ["isn't empty"]);
    let inside = root().join("target/tmp/in-the-clone");
    let problem = write(&root(), &inside).expect_err("it is in the clone");
    has(&problem.to_string(), ["is in the clone"]);
    assert!(!fs::exists(inside).expect("it can be looked at"));
}
