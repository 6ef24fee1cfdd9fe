//! `check STEP` passes what the tutorial leaves, and says what is missing where something else was left.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::support;
use crate::support::{Setup, Stopped, System, client};
use course::check::{Step, Verdict, look_at, project, verdict};
use lab::diagnose::{Evidence, NamedSpan, WrongKind};
use lab::receiver;
use lab::span::{SpanId, SpanKind};
use lab::tree::Tree;
use serde_json::json;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The verdict on all traces of `stopped`.
fn check(step: Step, stopped: &Stopped) -> Verdict {
    verdict(step, &stopped.trees(), "127.0.0.1:4318".parse().expect("an address"))
}

/// What is missing must be told in these words.
fn missing(step: Step, stopped: &Stopped, expected: &str) {
    let problem = check(step, stopped).to_string();
    assert!(
        !problem.starts_with("passed") && problem.contains(expected),
        "{step:?}: {expected:?} is not in: {problem}"
    );
}

fn passes(step: Step, stopped: &Stopped) {
    let verdict = check(step, stopped);
    assert!(matches!(verdict, Verdict::Passed(_)), "{step:?}: {verdict}");
}

/// POSTs to a service as the caller that the tutorial's reader plays, or without a `traceparent`.
async fn call(address: SocketAddr, path: &str, traceparent: Option<&str>) {
    call_as("user_1", address, path, traceparent).await;
}

async fn call_as(user_id: &str, address: SocketAddr, path: &str, traceparent: Option<&str>) {
    let mut request = client().post(format!("http://{address}{path}")).json(&json!({
        "user_id": user_id, "query": "What is a trace?", "prompt": "What is a trace?",
    }));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    request.send().await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_steps_leave_passes() {
    let system = System::start().await;
    call(system.llm.address, "/generate", Some(TRACEPARENT)).await;
    call(system.user.address, "/process", Some(TRACEPARENT)).await;
    call(system.gateway.address, "/api/query", None).await;
    let stopped = system.stop().await;
    for step in [Step::SetUp, Step::LlmService, Step::UserService, Step::ApiGateway] {
        passes(step, &stopped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_arrived_the_service_to_look_at_is_named() {
    let stopped = System::start().await.stop().await;
    missing(Step::LlmService, &stopped, "no `POST /generate` (SERVER, llm-service) has arrived");
    missing(Step::UserService, &stopped, "Does user-service run");
    missing(Step::ApiGateway, &stopped, "Does api-gateway run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_after_a_failure_passes() {
    let (nobody, _kept) = support::refused();
    let unreachable =
        Setup::default().with("user-service", "LLM_SERVICE_URL", format!("http://{nobody}"));
    let system = unreachable.start().await;
    call(system.user.address, "/process", Some(TRACEPARENT)).await;
    let failed = system.stop().await;
    missing(Step::UserService, &failed, "was answered 502. Does the service that it calls run?");

    // The same trace id, and the same lab.
    let backend = support::serve(receiver::routes(failed.store.clone())).await;
    let system = Setup::default().with_backend(backend).start().await;
    call_as("stranger", system.user.address, "/process", Some(TRACEPARENT)).await;
    system.stop().await;
    missing(Step::UserService, &failed, "was answered 403. Look at the body and the user id.");

    let system = Setup::default().with_backend(backend).start().await;
    call(system.user.address, "/process", Some(TRACEPARENT)).await;
    system.stop().await;
    passes(Step::UserService, &failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spans_of_an_earlier_request_are_not_taken_for_those_that_are_missing() {
    let system = System::start().await;
    call(system.user.address, "/process", Some(TRACEPARENT)).await;
    let stopped = system.stop().await;

    let backend = support::serve(receiver::routes(stopped.store.clone())).await;
    let (nobody, _kept) = support::refused();
    let elsewhere = Setup::default().with_backend(backend);
    let elsewhere =
        elsewhere.with("user-service", "OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{nobody}"));
    let system = elsewhere.start().await;
    system.ask("user_1").await;
    system.stop().await;
    missing(
        Step::ApiGateway,
        &stopped,
        "none has arrived. Does user-service run, with its spans going here?",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_too_few_or_too_many_is_named() {
    let system = System::start().await;
    call(system.llm.address, "/generate", None).await;
    call(system.gateway.address, "/api/query", Some(TRACEPARENT)).await;
    let stopped = system.stop().await;
    missing(Step::ApiGateway, &stopped, "without a `traceparent`");

    let system = System::start().await;
    call(system.llm.address, "/generate", None).await;
    missing(Step::LlmService, &system.stop().await, "with its `traceparent`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_in_pieces_names_the_trace_that_has_the_rest() {
    let system = Setup::default().without_traceparent().start().await;
    system.ask("user_1").await;
    let stopped = system.stop().await;
    let trees = stopped.trees();
    let has_rest = |tree: &&Tree| tree.services() == ["user-service"];
    let rest = trees.iter().find(has_rest).expect("user-service has a trace of its own");
    missing(Step::ApiGateway, &stopped, &format!("in another trace, {}", rest.trace_id));
    missing(Step::ApiGateway, &stopped, "below `POST /process` (CLIENT, api-gateway)");
    missing(
        Step::ApiGateway,
        &stopped,
        "\nwhy: `POST /process` of api-gateway was answered by user-service in another trace: the context of the call did \
         not get there, or was not used. Look at `inject_context_into_carrier(&mut headers);` in src/outgoing.rs",
    );
}

/// The lines that a reader is sent to are there.
#[test]
fn the_lines_to_look_at_are_those_of_the_tutorial() {
    let folder = support::root().join("examples/distributed_tracing/src");
    let named = |kind| NamedSpan {
        name: "POST /process".to_owned(),
        kind,
        service: "user-service".to_owned(),
    };
    let (server, internal) = (named(SpanKind::Server), named(SpanKind::Internal));
    let evidence = [
        Evidence::HeaderDropped { hop: "user-llm".to_owned() },
        Evidence::OwnAncestor { span: server.clone() },
        Evidence::SeveralRoots { count: 2, first: server.clone() },
        Evidence::ParentNotHere { span: server.clone(), parent: SpanId([1; 8]) },
        Evidence::StatusNotSet { span: server, status: 502 },
        Evidence::StatusNotSet { span: named(SpanKind::Client), status: 403 },
        Evidence::WrongKind { span: internal.clone(), why: WrongKind::HasRoute },
        Evidence::WrongKind { span: internal, why: WrongKind::HasUrl },
    ];
    let found: BTreeSet<_> = evidence.iter().filter_map(look_at).collect();
    assert_eq!(found.len(), evidence.len());
    for (line, file) in found {
        let source = fs::read_to_string(folder.join(file)).expect("a file of the tutorial");
        let found = source.lines().filter(|it| it.trim() == line).count();
        assert_eq!(found, 1, "{line} in {file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_request_must_be_whole_after_the_three_that_were_not() {
    let System { gateway, user, llm, store, wire, log } = Setup::default().start().await;
    let (address, ask) = (gateway.address, async |user_id: &str| {
        let query = json!({ "user_id": user_id, "query": "What is a trace?" });
        let request = client().post(format!("http://{}/api/query", gateway.address)).json(&query);
        request.send().await.expect("an answer").status().as_u16()
    });
    assert_eq!(ask("user_1").await, 200, "{address}");
    assert_eq!(ask("stranger").await, 403);
    llm.stop().await;
    assert_eq!(ask("user_1").await, 502);
    gateway.stop().await;
    user.stop().await;
    let stopped = Stopped { store, wire, log };
    missing(Step::BreakIt, &stopped, "the newest request is not whole");
    missing(Step::BreakIt, &stopped, "was answered 502");
    missing(Step::BreakIt, &stopped, "no request has fallen apart");
    missing(Step::BreakIt, &stopped, "send another one");
    let Verdict::NotYet { missing, why } = check(Step::BreakIt, &stopped) else {
        panic!("two things are missing")
    };
    assert_eq!((missing.len(), why.len()), (2, 0), "{missing:?} {why:?}");
}

/// A project as the reader's, small enough to compile at once: it "sends" the headers that it returns.
fn write_project(folder: &Path, inject: &str, assertion: &str) {
    fs::create_dir_all(folder.join("src")).expect("a folder");
    fs::create_dir_all(folder.join("tests")).expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    write("Cargo.toml", "[package]\nname = \"reader\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    write("src/lib.rs", "pub mod outgoing;\n");
    let outgoing = format!(
        "pub fn send() -> usize {{\n    let mut headers = Vec::new();\n    {inject}\n    headers.len()\n}}\n\
         pub fn inject_context_into_carrier(headers: &mut Vec<u8>) {{\n    headers.push(0);\n}}\n"
    );
    write("src/outgoing.rs", &outgoing.replace("Vec::new()", "Vec::<u8>::new()"));
    let test = format!(
        "#[test]\nfn one_trace() {{\n    let sent = reader::outgoing::send();\n    {assertion}\n}}\n"
    );
    write("tests/one_trace.rs", &test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_must_fail_without_the_line_that_injects() {
    let folder = tempfile::tempdir().expect("a folder");
    let inject = "inject_context_into_carrier(&mut headers);";
    for (inject, assertion, expected) in [
        (inject, "assert_eq!(sent, 1);", "passed: "),
        (inject, "assert!(sent < 9);", "not yet: the test passes without the line"),
        (inject, "assert_eq!(sent, 2);", "not yet: the test fails"),
        ("", "assert_eq!(sent, 0);", "has no line `inject_context_into_carrier(&mut headers);`"),
    ] {
        write_project(folder.path(), inject, assertion);
        // Twice: what the broken copy left behind must not be taken for the project.
        for _ in 0..2 {
            let said = match project(folder.path()).await {
                Ok(verdict) => verdict.to_string(),
                Err(problem) => format!("{problem:#}"),
            };
            assert!(said.contains(expected), "{inject:?} {assertion}: {said}");
        }
    }
    let nowhere = project(&folder.path().join("nowhere")).await.expect_err("there is no project");
    assert!(format!("{nowhere:#}").contains("--project names the folder"), "{nowhere:#}");
}
