//! The exercises of the appendix: each solution does on the real services what its page says, applies to the services that
//! it changes, and the test of the last one is red where something is broken.

mod mutants;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::gates::TREE;
use crate::guides::example::{binaries, in_order, shapes};
use crate::reference::{anchored, code, table};
use axum::routing::post;
use axum::{Json, Router};
use course::hops::HOPS;
use lab::case::Case;
use lab::diagnose::{Rule, diagnose};
use lab::list::List;
use lab::report::{self, Links};
use lab::request;
use lab::span::{SpanKind, target};
use lab::traceparent::Traceparent;
use lab::tree::Tree;
use lab::wire::Fault;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use support::recording::{check, check_named, figures, folder, recorded};
use support::root;
use support::{
    Setup, Stopped, System, WHOLE, arrived, client, hung, json_of, serve, shape, span,
    within_reason,
};
use tokio::sync::Barrier;

/// Services of the exercises instead of those that they change.
async fn with<const N: usize>(services: [(&'static str, &str); N]) -> Setup {
    binaries().await;
    services
        .into_iter()
        .fold(Setup::default(), |setup, (service, command)| setup.run_by(service, command))
}

/// A request to the gateway; each service takes what it needs of the body.
fn question(system: &System, user_id: &str, query: &str) -> RequestBuilder {
    let url = format!("http://{}/api/query", system.gateway.address);
    client().post(url).json(&json!({ "user_id": user_id, "query": query }))
}

/// A request to the LLM service.
fn prompt(system: &System, prompt: &str) -> RequestBuilder {
    let url = format!("http://{}/generate", system.llm.address);
    client().post(url).json(&json!({ "prompt": prompt }))
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.expect("an answer").status().as_u16()
}

fn trees(stopped: &Stopped) -> Vec<Tree> {
    in_order(stopped.trees())
}

/// The first four spans of a whole trace: those before user-service calls the model.
fn start_of_whole() -> String {
    WHOLE.split_inclusive('\n').take(4).collect()
}

#[test]
fn every_solution_applies_to_the_files_of_the_services() {
    for (service, solution, recorded) in [
        ("llm_service", "limiting_llm_service", recorded!("exercises/limit.diff")),
        ("user_service", "titling_user_service", recorded!("exercises/at-once.diff")),
        ("user_service", "caching_user_service", recorded!("exercises/cache.diff")),
        ("api_gateway", "plan_api_gateway", recorded!("exercises/plan-gateway.diff")),
        ("llm_service", "plan_llm_service", recorded!("exercises/plan-llm.diff")),
    ] {
        let [file, solution] = [service, solution].map(|name| format!("src/{name}.rs"));
        solves(&file, &solution, recorded);
    }
    solves("tests/one_trace.rs", "tests/one_trace.rs", recorded!("exercises/mutants.diff"));
}

fn solves(file: &str, solution: &str, recorded: &str) {
    let before = TREE.read(&format!("examples/production/{file}"));
    let after = TREE.read(&format!("examples/exercises/{solution}"));
    check_changes(file, [&before, &after], recorded);
}

/// Compares the changes of a file with those that a page shows, and applies the latter to the file.
pub fn check_changes(file: &str, [before, after]: [&str; 2], recorded: &str) {
    let project = tempfile::tempdir().expect("a folder");
    let copy = project.path().join(file);
    fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
    fs::write(&copy, before).expect("written");
    fs::write(project.path().join("solution.rs"), after).expect("written");
    let flags = ["diff", "--no-index", "--no-color", "--no-ext-diff", "--unified=2"];
    let printed = git(project.path(), &[&flags[..], &[file, "solution.rs"]].concat());
    let (_, hunks) = printed.split_once("@@").expect("the solution changes something");
    check_named(recorded, &format!("--- {file}\n+++ {file}\n@@{hunks}"));

    let recorded = folder().join(recorded);
    git(project.path(), &["apply", "-p0", recorded.to_str().expect("text")]);
    assert_eq!(fs::read_to_string(&copy).expect("text"), after, "{}", recorded.display());
}

/// Runs git without the user's settings.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // A folder that holds this one may be a repository.
        .env("GIT_CEILING_DIRECTORIES", folder)
        .output()
        .expect("git runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(problem.is_empty(), "git {arguments:?}: {problem}");
    String::from_utf8(output.stdout).expect("text")
}

// 1. The LLM service.

/// The trace that llm-service records a request in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trace {
    Joined,
    Own,
    Unrecorded,
}

impl Trace {
    fn words(self) -> &'static str {
        match self {
            Trace::Joined => "the caller's trace",
            Trace::Own => "a new trace",
            Trace::Unrecorded => "no span",
        }
    }
}

use Trace::{Joined, Own, Unrecorded};

/// Values of `traceparent`, the trace that llm-service joins, the one that it would join by the standard, and why. `T` stands
/// for a trace id, another in each line, and `P` for a parent id.
#[rustfmt::skip] // one row for each header
const HEADERS: [(&str, Trace, Trace, &str); 8] = [
    ("00-T-P-ff", Joined, Joined, "the lowest bit says *sampled*; the others are not for us"),
    ("00-T-P-02", Unrecorded, Unrecorded, "valid, and its lowest bit is 0: the trace goes on, and is not recorded"),
    ("01-T-P-01-more", Joined, Joined, "a later version may have more fields; we read those that we know"),
    ("00-T-P-01-more", Own, Own, "version `00` may not"),
    ("ff-T-P-01", Own, Own, "`ff` is no version"),
    ("00-T-0000000000000000-01", Own, Own, "an id can't be all zeros, and a header isn't read in part"),
    ("00-T-0f067aa0ba902b7-01", Joined, Own, "15 digits: the SDK reads a number, the standard counts"),
    ("00-T-P-01 00-4bf92f3577b34da6a3ce929d0e0e4709-b7ad6b7169203331-01", Joined, Own, "the SDK takes the first; by the standard, two are none"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_service_joins_the_trace_of_these_headers_and_not_of_those() {
    let id = |number| format!("4bf92f3577b34da6a3ce929d0e0e47{number:02}");
    let written = |number, value: &str| -> Vec<String> {
        let value = value.replace('T', &id(number)).replace('P', "00f067aa0ba902b7");
        value.split(' ').map(str::to_owned).collect()
    };
    let system = Setup::default().start().await;
    for (number, (values, ..)) in (1..).zip(HEADERS) {
        let values = written(number, values).into_iter();
        let request =
            values.fold(prompt(&system, "?"), |it, value| it.header("traceparent", value));
        assert_eq!(status(request).await, 200, "header {number}");
    }
    let traces = trees(&system.stop().await);
    let mut traces = traces.iter().map(|tree| tree.trace_id.to_string());
    let (mut question, mut answer) = (Vec::new(), Vec::new());
    for (number, (values, joins, standard, why)) in (1..).zip(HEADERS) {
        let seen = match joins {
            Unrecorded => Unrecorded,
            _ if traces.next() == Some(id(number)) => Joined,
            _ => Own,
        };
        let values = written(number, values);
        assert_eq!(seen, joins, "{values:?}");
        assert_eq!(strict(&values), standard, "{values:?}");
        let standard = if standard == joins { "the same" } else { standard.words() };
        let values = Vec::from_iter(values.iter().map(|value| code(value))).join("<br>");
        question.push(vec![number.to_string(), values]);
        answer
            .push([&number.to_string(), joins.words(), standard, why].map(str::to_owned).to_vec());
    }
    assert_eq!(traces.next(), None);
    let question = table(&["No.", "Value"], question);
    let answer = table(&["No.", "Joins", "By the standard", "Why"], answer);
    let tables = anchored("question", &question) + &anchored("answer", &answer);
    check!("exercises/headers.md", &tables);
}

/// Reads the values as the standard does.
fn strict(values: &[String]) -> Trace {
    match values {
        [value] => match Traceparent::parse(value) {
            Ok(caller) if caller.sampled => Joined,
            Ok(_) => Unrecorded,
            Err(_) => Own,
        },
        _ => Own,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_too_long_is_refused_and_is_no_error_of_the_service() {
    let system = with([("llm-service", "solution limiting_llm_service")]).await.start().await;
    // A character of two bytes counts as one.
    assert_eq!(status(prompt(&system, &"é".repeat(2_000))).await, 200);
    let refused = prompt(&system, &"é".repeat(2_001)).send().await.expect("an answer");
    let (refused, body) = json_of(refused).await;
    assert_eq!(refused, 422);
    let reason = body["error"].as_str().expect("a reason");
    assert!(reason.contains("2001 characters are more than 2000"), "{reason}");
    assert_eq!(status(question(&system, "user_1", &"x".repeat(2_001))).await, 502);
    let trees = trees(&system.stop().await);
    assert_eq!(
        shapes(&trees),
        "\
POST /generate SERVER llm-service http 200
  chat offline INTERNAL llm-service

POST /generate SERVER llm-service http 422

POST /api/query SERVER api-gateway http 502 error 502
  POST /process CLIENT api-gateway http 502 error 502
    POST /process SERVER user-service http 502 error 502
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service http 422 error 422
        POST /generate SERVER llm-service http 422
"
    );
    check!("exercises/limit.html", &figures(&trees[2..]));
}

// 2. The user service.

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_at_once_are_siblings_below_spans_of_their_own() {
    let system = with([("user-service", "solution titling_user_service")]).await.start().await;
    assert_eq!(status(question(&system, "user_1", "?")).await, 200);
    let stopped = system.stop().await;
    let call = "        POST /generate CLIENT user-service http 200
          POST /generate SERVER llm-service http 200
            chat offline INTERNAL llm-service
";
    let siblings = ["answer", "title"];
    let siblings = siblings.map(|name| format!("      {name} INTERNAL user-service\n{call}"));
    assert_eq!(shape(&stopped.only_tree()), start_of_whole() + &siblings.concat());
    check!("exercises/at-once.html", &figures(&trees(&stopped)));
}

/// Behind a model that answers nobody before it has been asked twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_call_does_not_wait_for_the_first() {
    let both = Arc::new(Barrier::new(2));
    let answer = async move |Json(asked): Json<Value>| {
        both.wait().await;
        Json(json!({ "response": asked["prompt"] }))
    };
    let model = serve(Router::new().route("/generate", post(answer))).await;
    let titling = with([("user-service", "solution titling_user_service")]).await;
    let system = titling.with_llm_service_at(model).start().await;
    let answer = question(&system, "user_1", "?").send().await;
    let answer = json_of(answer.expect("an answer")).await;
    system.stop().await;
    assert_eq!(answer, (200, json!({ "response": "A title of three words for: ?\n\n?" })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_answer_calls_nobody_and_links_to_the_trace_that_asked() {
    let system = with([("user-service", "solution caching_user_service")]).await.start().await;
    for (user_id, expected) in [("user_1", 200), ("user_2", 200), ("stranger", 403)] {
        let request = question(&system, user_id, "What is a trace?");
        assert_eq!(status(request).await, expected);
    }
    let trees = trees(&system.stop().await);
    let [asked, cached, refused] = &trees[..] else {
        panic!("{}", shapes(&trees));
    };
    assert_eq!([shape(asked), shape(cached)], [WHOLE, &start_of_whole()]);
    let [asker, taker, stranger] =
        [asked, cached, refused].map(|tree| span(tree, "POST /process", SpanKind::Server));
    let hits = [asker, taker, stranger].map(|it| it.attribute("honeyhive_metadata.cache.hit"));
    // The cache isn't asked for a request that is refused.
    assert_eq!(hits, [Some("false".into()), Some("true".into()), None]);
    let links = taker.proto().links;
    let targets = Vec::from_iter(links.iter().map(target));
    assert_eq!(targets, [Some((asked.trace_id, asker.id))]);
    check!("exercises/cache.html", &figures(&trees[..2]));
}

// 3. The API gateway.

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_gets_to_the_last_service_and_a_client_cannot_forge_it() {
    let services = [
        ("api-gateway", "solution plan_api_gateway"),
        ("llm-service", "solution plan_llm_service"),
    ];
    let system = with(services).await.wired().start().await;
    for user_id in ["user_1", "user_2_pro"] {
        let request = question(&system, user_id, "?").header("baggage", "plan=pro,more=1");
        assert_eq!(status(request).await, 200);
    }
    let stopped = system.stop().await;
    let trees = trees(&stopped);
    let plan = |tree| {
        let span = span(tree, "POST /generate", SpanKind::Server);
        (shape(tree), span.attribute("honeyhive_metadata.plan").unwrap_or_default())
    };
    let plans = Vec::from_iter(trees.iter().map(plan));
    assert_eq!(plans, ["free", "pro"].map(|plan| (WHOLE.to_owned(), plan.to_owned())));
    // What the client had sent goes no further, and no user is named.
    let exchanges = stopped.wire.exchanges();
    let sent = exchanges.iter().flat_map(|it| it.sent.lines());
    let sent = Vec::from_iter(sent.filter(|line| line.starts_with("baggage")));
    let [free, pro] = ["baggage: plan=free", "baggage: plan=pro"];
    assert_eq!(sent, [free, free, pro, pro]);
}

// 4. Run it, break it, read the trace.

/// The trace of a request whose client hung up before there was an answer.
async fn hung_up(setup: Setup) -> Stopped {
    let (silent, called) = hung().await;
    let setup = setup.with_llm_service_at(silent).with("all", "OTEL_BSP_SCHEDULE_DELAY", 20);
    let system = setup.start().await;
    tokio::select! {
        answer = system.ask("user_1") => panic!("{answer:?}"),
        () = within_reason(called.notified()) => {}
    }
    // A service that is stopped at this moment may end before the spans of that request do.
    arrived(&system.store, 5).await;
    system.stop().await
}

/// Services that mark the spans of a request whose client hung up.
async fn watching() -> Setup {
    let gateway = ("api-gateway", "watching_services api-gateway");
    with([gateway, ("user-service", "watching_services user-service")]).await
}

/// The marked spans.
fn abandoned(tree: &Tree) -> Vec<String> {
    let spans = tree.rows.iter().map(|row| &row.span);
    let marked = spans.filter(|span| span.attribute("request.abandoned").is_some());
    marked.map(|span| format!("{} {}", span.name(), span.kind())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_leaves_spans_without_a_status_until_the_services_notice() {
    let nobody_answered = "\
POST /api/query SERVER api-gateway
  POST /process CLIENT api-gateway
    POST /process SERVER user-service
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service
";
    let tree = hung_up(Setup::default()).await.only_tree();
    assert_eq!(shape(&tree), nobody_answered);
    assert_eq!(abandoned(&tree), [""; 0]);
    check!("exercises/hung-up.html", &figures(std::slice::from_ref(&tree)));
    // The rules cannot know.
    assert_eq!(diagnose(&[tree], &[]), []);

    let tree = hung_up(watching().await).await.only_tree();
    assert_eq!(shape(&tree), nobody_answered);
    assert_eq!(abandoned(&tree), ["POST /api/query SERVER", "POST /process SERVER"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_answered_has_not_hung_up() {
    let system = watching().await.start().await;
    assert_eq!(status(question(&system, "user_1", "?")).await, 200);
    let tree = system.stop().await.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    assert_eq!(abandoned(&tree), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_faults_leave_two_traces_that_are_in_order_and_the_wire_knows_both() {
    let system = Setup::default().wired().start().await;
    for (hop, fault) in [(HOPS[1], Fault::ClearSampled), (HOPS[2], Fault::DropTraceparent)] {
        let command = format!("cargo run -- break {} {}\n", hop.name, fault.name());
        assert!(page().contains(&command), "the page does not say: {command}");
        system.wire.set(hop.name, Some(fault));
    }
    assert_eq!(status(question(&system, "user_1", "?")).await, 200);
    let stopped = system.stop().await;
    let trees = trees(&stopped);
    assert_eq!(
        shapes(&trees),
        "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200

POST /generate SERVER llm-service http 200
  chat offline INTERNAL llm-service
"
    );
    assert!(trees.iter().all(Tree::is_whole));
    assert_eq!(diagnose(&trees, &[]), [], "the spans alone do not tell");
    // Whichever of the two is asked about.
    let list = List::new(stopped.store.clone());
    for tree in &trees {
        let case = request::case(&list, &stopped.wire, tree.trace_id).expect("a case");
        let found = (rules(&case), case.trees.len());
        assert_eq!(found, (vec![Rule::BrokenHeader, Rule::Unsampled], 2));
    }
    let case = Case::new(trees, stopped.wire.exchanges());
    let links = Links { book: Some("../"), span: &|_| None };
    check!("exercises/two-faults.html", &(report::case(&case, &links).into_string() + "\n"));
}

fn rules(case: &Case) -> Vec<Rule> {
    case.findings().iter().map(|finding| finding.rule).collect()
}

/// Four cases of the rules' own page, without what the rules say.
#[test]
fn of_the_four_traces_one_is_sound() {
    let mut answers = String::new();
    for (riddle, case, expected, figure) in [
        ("A", "wrong-parent-near", &[][..], recorded!("exercises/riddle-a.html")),
        ("B", "missing-spans", &[Rule::MissingSpans], recorded!("exercises/riddle-b.html")),
        ("C", "wrong-parent", &[Rule::WrongParent], recorded!("exercises/riddle-c.html")),
        ("D", "several-roots", &[Rule::SeveralRoots], recorded!("exercises/riddle-d.html")),
    ] {
        let file = folder().join(format!("diagnose/{case}.json"));
        let case = Case::read(&fs::read(file).expect("a recording")).expect("a case");
        assert_eq!(rules(&case), expected, "{riddle}");
        check_named(figure, &figures(&case.trees));
        let text = report::text(&case, "");
        let cause = text.lines().next().expect("a sentence");
        answers += &format!("- **{riddle}.** {cause}\n");
    }
    check!("exercises/riddles.md", &answers);
}

// The page.

fn page() -> String {
    fs::read_to_string(root().join("src/appendix/exercises.md")).expect("the page")
}

#[test]
fn every_exercise_says_when_it_is_solved_and_folds_hint_and_solution() {
    let page = page();
    let exercises = Vec::from_iter(page.split("\n### ").skip(1));
    assert_eq!(exercises.len(), 9);
    for exercise in exercises {
        let (open, folded) = exercise.split_once("<details>").expect("something folded");
        let last = folded.split("<details>").last().expect("one");
        let solution = ["<summary>Solution</summary>", "<summary>Answer</summary>"];
        let title = exercise.lines().next().unwrap_or_default();
        assert!(open.contains("**Solved when** "), "{title}");
        assert!(solution.iter().any(|it| last.contains(it)), "{title}: no solution is folded");
        assert!(!open.contains(".diff}}"), "{title}: a solution is open");
    }
}
