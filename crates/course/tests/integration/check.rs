//! `check STEP` passes the traces that the tutorial leaves. For any others it names what is missing.

use course::check::{Step, Verdict, look_at, verdict};
use lab::diagnose::{Evidence, NamedSpan, WrongKind};
use lab::span::{SpanId, SpanKind};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use std::collections::BTreeSet;
use support::in_process::spans;
use support::{Setup, ask, has, refused, shapes};

/// The spans of a request as rows of a table, by services that answer with `status`. `tens` are the tens of its ids and times,
/// so the larger is the later.
fn request(trace: u8, tens: u8, status: u16) -> Vec<String> {
    let answered = &*format!("http.response.status_code={status}");
    let failed = &*format!("{answered} error= error.type={status}");
    // The attributes of the spans that there are.
    let attributes: &[&str] = match status {
        403 => &[answered, failed, answered, "error= error.type=invalid_user"],
        502 => &[failed, failed, failed, "", "error= error.type=unreachable"],
        _ => &[answered, answered, answered, "", answered, answered, ""],
    };
    let spans = format!(
        "{trace} api-gateway  {tens}1         SERVER   {tens}1..{tens}9 POST /api/query
         {trace} api-gateway  {tens}2<{tens}1 CLIENT   {tens}2..{tens}8 POST /process
         {trace} user-service {tens}3<{tens}2 SERVER   {tens}3..{tens}7 POST /process
         {trace} user-service {tens}4<{tens}3 INTERNAL {tens}3..{tens}4 validate_user
         {trace} user-service {tens}5<{tens}3 CLIENT   {tens}4..{tens}6 POST /generate
         {trace} llm-service  {tens}6<{tens}5 SERVER   {tens}5..{tens}6 POST /generate
         {trace} llm-service  {tens}7<{tens}6 INTERNAL {tens}5..{tens}6 chat offline"
    );
    spans.lines().zip(attributes).map(|(span, attributes)| format!("{span} {attributes}")).collect()
}

/// The rows of one service.
fn of(service: &str, rows: &[String]) -> Vec<String> {
    rows.iter().filter(|row| row.contains(service)).cloned().collect()
}

fn trees(rows: &[String]) -> Vec<Tree> {
    let store = Store::new(Limits::default());
    store.add(spans(&rows.join("\n")));
    store.trees()
}

/// The verdict on these traces.
fn check(step: Step, trees: &[Tree]) -> Verdict {
    verdict(step, trees)
}

/// The verdict on all traces of these rows.
fn check_rows(step: Step, rows: &[String]) -> Verdict {
    check(step, &trees(rows))
}

#[track_caller]
fn passes(verdict: &Verdict) {
    assert!(matches!(verdict, Verdict::Passed(_)), "{verdict}");
}

/// Fails unless the verdict says with these parts what is missing.
#[track_caller]
fn misses<const N: usize>(verdict: &Verdict, parts: [&str; N]) {
    assert!(matches!(verdict, Verdict::NotYet { .. }), "{verdict}");
    has(&verdict.to_string(), parts);
}

/// The services themselves leave what the checks look for.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_steps_leave_passes() {
    let system = Setup::default().tutorial().start().await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (address, path, headers) in [
        (system.llm.address, "/generate", &[("traceparent", traceparent)][..]),
        (system.user.address, "/process", &[("traceparent", traceparent)]),
        (system.gateway.address, "/api/query", &[]),
    ] {
        assert_eq!(ask(address, path, headers).await, 200, "{path}");
    }
    let trees = system.stop().await.trees();
    for step in [Step::LlmService, Step::UserService, Step::ApiGateway] {
        passes(&check(step, &trees));
    }
}

/// The other tests check requests that are written as tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_table_has_the_shape_that_the_services_leave() {
    let (nobody, _kept) = refused();
    let unreachable = Setup::default().with_llm_service_at(nobody);
    for (setup, user, status) in [
        (Setup::default(), "user_1", 200),
        (Setup::default(), "stranger", 403),
        (unreachable, "user_1", 502),
    ] {
        let left = setup.tutorial().answers(user, status).await.shapes();
        assert_eq!(shapes(&trees(&request(1, 1, status))), left, "{status}");
    }
}

#[test]
fn where_nothing_arrived_the_service_to_look_at_is_named() {
    let none = "no `POST /generate` (SERVER, llm-service) has arrived";
    misses(&check(Step::LlmService, &[]), [none]);
    misses(&check(Step::UserService, &[]), ["Does user-service run"]);
    misses(&check(Step::ApiGateway, &[]), ["Does api-gateway run"]);
}

/// The tutorial sends the same `traceparent` each time.
#[test]
fn the_newest_request_decides() {
    // Of a request to user-service alone.
    let sent = |tens, status| {
        let rows = request(1, tens, status);
        [of("user-service", &rows), of("llm-service", &rows)].concat()
    };
    let mut rows = sent(1, 502);
    let failed = "was answered 502. Does the service that it calls run?";
    misses(&check_rows(Step::UserService, &rows), [failed]);
    rows.extend(sent(2, 403));
    let refused = "was answered 403. Look at the body and the user id.";
    misses(&check_rows(Step::UserService, &rows), [refused]);
    rows.extend(sent(3, 200));
    passes(&check_rows(Step::UserService, &rows));
    rows.extend(sent(4, 403));
    misses(&check_rows(Step::UserService, &rows), [refused]);
}

#[test]
fn the_spans_of_an_earlier_request_are_not_taken_for_those_that_are_missing() {
    let (earlier, request) = (request(2, 1, 200), request(1, 2, 200));
    let rows = [
        of("user-service", &earlier),
        of("llm-service", &earlier),
        of("api-gateway", &request),
        of("llm-service", &request),
    ]
    .concat();
    let expected = "none has arrived. Look whether user-service runs";
    misses(&check_rows(Step::ApiGateway, &rows), [expected]);
}

#[test]
fn a_header_too_few_or_too_many_is_named() {
    let rows = request(1, 1, 200);
    let below_a_caller = of("api-gateway", &rows).join("\n").replace("11  ", "11<99");
    misses(&check_rows(Step::ApiGateway, &[below_a_caller]), ["without a `traceparent`"]);
    let without_a_caller = of("llm-service", &rows).join("\n").replace("<15", "");
    misses(&check_rows(Step::LlmService, &[without_a_caller]), ["with its `traceparent`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_in_pieces_names_the_trace_that_has_the_rest() {
    let system = Setup::default().tutorial().without_traceparent().start().await;
    system.ask("user_1").await;
    let trees = system.stop().await.trees();
    let has_rest = |tree: &&Tree| tree.services() == ["user-service"];
    let rest = trees.iter().find(has_rest).expect("user-service has a trace of its own");
    let expected = [
        &*format!("in another trace, {}", rest.trace_id),
        "below `POST /process` (CLIENT, api-gateway)",
        "\nwhy: `POST /process` of api-gateway was answered by user-service in another trace: the context of the call did \
         not get there, or was not used. Look at `outgoing::inject_context_into_carrier(&mut headers);` in src/client.rs",
    ];
    misses(&check(Step::ApiGateway, &trees), expected);
    misses(&check(Step::BreakIt, &trees), expected);
}

/// The tutorial has the lines that a reader is sent to.
#[test]
fn the_lines_to_look_at_are_those_of_the_tutorial() {
    let [name, service] = ["POST /process", "user-service"].map(str::to_owned);
    let named = |kind| NamedSpan { name: name.clone(), kind, service: service.clone() };
    let (server, internal) = (named(SpanKind::Server), named(SpanKind::Internal));
    let evidence = [
        Evidence::HeaderDropped { hop: "user-llm".to_owned() },
        Evidence::OwnAncestor { span: server.clone() },
        Evidence::SeveralRoots { count: 2, first: server.clone() },
        Evidence::ParentNotHere { span: server.clone(), parent: SpanId([1; 8]), known: true },
        Evidence::StatusNotSet { span: server, status: 502 },
        Evidence::StatusNotSet { span: named(SpanKind::Client), status: 403 },
        Evidence::WrongKind { span: internal.clone(), why: WrongKind::HasRoute },
        Evidence::WrongKind { span: internal, why: WrongKind::HasUrl },
    ];
    let found: BTreeSet<_> = evidence.iter().filter_map(look_at).collect();
    assert_eq!(found.len(), evidence.len());
    let pages = course::book::pages(&support::root()).expect("the book");
    let tutorial = pages.iter().filter(|page| page.path.starts_with("src/tutorial"));
    // A listing is below the path of its file.
    let listings: Vec<&str> = tutorial.flat_map(|page| page.expanded.split("\n*src/")).collect();
    for (line, file) in found {
        let of_file = listings.iter().filter_map(|it| it.strip_prefix(file)?.strip_prefix('*'));
        let mut lines = of_file.flat_map(|it| it.split("```").nth(1).unwrap_or_default().lines());
        let is_shown = lines.any(|it| it.trim_start_matches(['+', '-', ' ']) == line);
        assert!(is_shown, "{line} in {file}");
    }
}

#[test]
fn the_last_request_must_be_whole_after_those_that_were_not() {
    let slow = "validate_user user.archived=true";
    let slow = request(1, 1, 200).iter().map(|row| row.replace("validate_user", slow)).collect();
    let failed = request(3, 3, 502);
    let verdict = check_rows(Step::BreakIt, &[slow, failed].concat());
    let Verdict::NotYet { missing, why } = &verdict else { panic!("two things are missing") };
    assert_eq!((missing.len(), why.len()), (2, 0), "{missing:?} {why:?}");
    let parts = [
        "the newest request is not whole",
        "was answered 502",
        "no request has fallen apart",
        "send another one",
    ];
    misses(&verdict, parts);
}
