//! Streams, sockets, jobs and child processes: each piece of work has a span that ends with it, whatever becomes of the client,
//! the timer or the process.

use std::net::SocketAddr;

use course::services::Service;
use futures_util::{SinkExt as _, StreamExt as _};
use lab::span::{Span, SpanKind};
use lab::tree::Tree;
use lab::wire::Wire;
use support::process::kill;
use support::recording::recorded;
use support::{
    Log, Setup, Stopped, arrived, client, has, has_attributes, hung, plan, query, receiver, span,
    within_reason,
};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::example::{Example, binaries};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A running report-service, and what it has exported and logged.
struct Reports {
    service: Service,
    stopped: Stopped,
}

impl Reports {
    async fn start(settings: &[(&str, u32)]) -> Reports {
        let (store, backend) = receiver().await;
        let plan = plan(&binaries().await, "report-service", backend);
        let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
        let log = Log::default();
        let service = Service::start(plan, log.sink()).await.expect("the service starts");
        Reports { service, stopped: Stopped { store, wire: Wire::default(), log } }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.service.address)
    }

    async fn logs(&self, text: &str) {
        self.stopped.log.wait_for("report-service", text).await;
    }

    /// Schedules a report with this number of pages.
    async fn schedule(&self, pages: u32) {
        let request = client().post(self.url(&format!("/reports/{pages}")));
        let answer = within_reason(request.send()).await.expect("an answer");
        assert_eq!(answer.status(), 202);
    }

    async fn stop(self) -> Stopped {
        self.service.stop().await;
        self.stopped
    }
}

/// The first span of a tree.
fn first(tree: &Tree) -> &Span {
    &tree.rows[0].span
}

/// Fails unless the only link of a tree's first span leads to the first span of another.
fn is_linked(tree: &Tree, to: &Tree) {
    assert_eq!(*first(tree).links, [(to.trace_id, first(to).id)]);
}

const PROGRESS: &str = "\
GET /progress SERVER report-service http 200
  report progress INTERNAL report-service
";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_a_span_that_ends_with_its_last_event() {
    let reports = Reports::start(&[("STEP_PAUSE_MS", 20)]).await;
    let answer = within_reason(client().get(reports.url("/progress")).send()).await;
    let events = within_reason(answer.expect("an answer").text()).await.expect("text");
    assert_eq!(events, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    let figure = recorded!("streams-jobs-processes/stream.html");
    let trees = reports.stop().await.compare(figure, PROGRESS);
    let stream = span(&trees[0], "report progress", SpanKind::Internal);
    has_attributes(stream, "one_trace.end=complete one_trace.events=3");
    assert!(stream.end() > first(&trees[0]).end(), "the SERVER span ends with the head");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_that_its_client_left() {
    let reports = Reports::start(&[("STEP_PAUSE_MS", 3_600_000)]).await;
    let answer = within_reason(client().get(reports.url("/progress")).send()).await;
    let mut answer = answer.expect("an answer");
    let event = within_reason(answer.chunk()).await.expect("an event");
    assert_eq!(event.as_deref(), Some(&b"data: 1\n\n"[..]));
    drop(answer);
    let stopped = reports.stop().await;
    assert_eq!(stopped.shapes(), PROGRESS);
    let tree = stopped.only_tree();
    let stream = span(&tree, "report progress", SpanKind::Internal);
    has_attributes(stream, "one_trace.end=client_left one_trace.events=1");
}

/// Without the guide's layer: each service drops its work, and no span says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_spans_of_all_services() {
    let (llm_service, connected) = hung().await;
    let system = Setup::default().with_llm_service_at(llm_service).start().await;
    let asked = tokio::spawn(query(system.gateway.address, "user_1", &[]).send());
    within_reason(connected.notified()).await;
    asked.abort();
    let expected = "\
POST /api/query SERVER api-gateway
  POST /process CLIENT api-gateway
    POST /process SERVER user-service
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service
";
    system.stop().await.compare(recorded!("streams-jobs-processes/hang-up.html"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marked_request_says_that_its_client_left() {
    let reports = Reports::start(&[]).await;
    let asked = tokio::spawn(client().get(reports.url("/slow")).send());
    reports.logs("working").await;
    asked.abort();
    let stopped = reports.stop().await;
    assert_eq!(stopped.shapes(), "GET /slow SERVER report-service\n");
    has_attributes(first(&stopped.only_tree()), "one_trace.end=client_left");
}

/// An answered request isn't marked, and neither is the upgrade of a socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_socket_has_a_span_with_a_link_to_the_upgrade() {
    let reports = Reports::start(&[]).await;
    let messages = [r#"{ "question": "What is a trace?" }"#, "What?"];
    let answers = converse(reports.service.address, &messages).await;
    assert_eq!(answers[0], r#"{"answer":"What is a trace?"}"#);
    has(&answers[1], ["error"]);
    let expected = "\
GET /chat SERVER report-service http 101

answer question SERVER report-service
  look up INTERNAL report-service

answer question SERVER report-service error invalid_message
";
    let figure = recorded!("streams-jobs-processes/socket.html");
    let trees = reports.stop().await.compare(figure, expected);
    has_attributes(first(&trees[0]), "one_trace.end=(none)");
    is_linked(&trees[1], &trees[0]);
    is_linked(&trees[2], &trees[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_joins_the_trace_of_the_client_that_sends_its_context() {
    let reports = Reports::start(&[]).await;
    let message = format!(r#"{{ "question": "?", "context": {{ "traceparent": "{PARENT}" }} }}"#);
    converse(reports.service.address, &[&message]).await;
    let stopped = reports.stop().await;
    let tree = stopped.tree("0af7651916cd43dd8448eb211c80319c");
    assert_eq!(parent(&tree), "b7ad6b7169203331");
    let trees = stopped.trees();
    let upgrade = trees.iter().find(|tree| first(tree).name() == "GET /chat");
    is_linked(&tree, upgrade.expect("the upgrade"));
}

/// The id of the parent of a tree's first span.
fn parent(tree: &Tree) -> String {
    first(tree).parent.map(|id| id.to_string()).unwrap_or_default()
}

/// Sends messages and returns the answer to each.
async fn converse(address: SocketAddr, messages: &[&str]) -> Vec<String> {
    let connected = within_reason(connect_async(format!("ws://{address}/chat"))).await;
    let (mut socket, _) = connected.expect("a socket");
    let mut answers = Vec::new();
    for message in messages {
        socket.send(Message::text(*message)).await.expect("it is open");
        let answer = within_reason(socket.next()).await.expect("an answer").expect("a message");
        answers.push(answer.into_text().expect("text").to_string());
    }
    socket.close(None).await.expect("it closes");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_of_a_job_is_a_trace_with_a_link_to_its_request() {
    let reports = Reports::start(&[("JOBS_EVERY_MS", 5)]).await;
    reports.schedule(2).await;
    reports.logs("job ended succeeded=true").await;
    reports.schedule(0).await;
    reports.logs("job ended succeeded=false").await;
    let expected = "\
POST /reports/{pages} SERVER report-service http 202

write report INTERNAL report-service
  write page INTERNAL report-service
  write page INTERNAL report-service

POST /reports/{pages} SERVER report-service http 202

write report INTERNAL report-service error no_pages
";
    let figure = recorded!("streams-jobs-processes/jobs.html");
    let trees = reports.stop().await.compare(figure, expected);
    is_linked(&trees[1], &trees[0]);
    is_linked(&trees[3], &trees[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_runs_the_jobs_that_are_left() {
    let reports = Reports::start(&[("JOBS_EVERY_MS", 500)]).await;
    reports.schedule(1).await;
    let stopped = reports.stop().await;
    has(&stopped.shapes(), ["write report INTERNAL", "write page INTERNAL"]);
}

/// The head has been answered, so its span has arrived; that of the stream is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_is_open_is_lost_with_its_process() {
    let settings = [("STEP_PAUSE_MS", 3_600_000), ("OTEL_BSP_SCHEDULE_DELAY", 5)];
    let reports = Reports::start(&settings).await;
    let answer = within_reason(client().get(reports.url("/progress")).send()).await;
    let mut answer = answer.expect("an answer");
    within_reason(answer.chunk()).await.expect("an event");
    arrived(&reports.stopped.store, 1).await;
    let id = reports.service.id().expect("it runs").to_string();
    assert!(kill("-KILL", &id));
    let expected = "GET /progress SERVER report-service http 200\n";
    let figure = recorded!("streams-jobs-processes/killed.html");
    reports.stop().await.compare(figure, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_a_script_joins_the_trace() {
    let command = "cargo run --bin nightly_report -- 1 2";
    let ran = Example::on("streams-jobs-processes", command).run().await.well();
    assert_eq!(ran.stdout(), "page 1\npage 2\n");
    let expected = "\
nightly_report INTERNAL nightly-report
  sh CLIENT nightly-report
    render_page INTERNAL render-page
    render_page INTERNAL render-page
";
    assert_eq!(ran.shapes(), expected);
    ran.figure(recorded!("streams-jobs-processes/processes.html"));
    for row in &ran.trees()[0].rows {
        has_attributes(&row.span, "process.exit.code=0");
        assert!(row.span.attribute("process.pid").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_fails_is_an_error_of_each_process_above() {
    let ran = Example::new("cargo run --bin nightly_report -- 1 0").run().await;
    assert_eq!(ran.output.status.code(), Some(1));
    let expected = "\
nightly_report INTERNAL nightly-report error 1
  sh CLIENT nightly-report error 1
    render_page INTERNAL render-page
    render_page INTERNAL render-page error 1
";
    assert_eq!(ran.shapes(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_joins_the_trace_of_its_environment() {
    let example = Example::new("cargo run --bin render_page -- 1");
    let ran = example.with("TRACEPARENT", PARENT).run().await.well();
    let tree = &ran.trees()[0];
    assert_eq!(tree.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(parent(tree), "b7ad6b7169203331");
}
