//! The exercises of the appendix: each solution does on the real services what its page says, applies to the project that
//! the tutorial leaves, and the test of the last one is red where something is broken.

mod mutants;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::guides::example::{binaries, in_order, shapes};
use crate::support::recording::{check, check_named, figures, folder, recorded};
use crate::support::root;
use crate::support::{
    Setup, Stopped, System, WHOLE, arrived, client, hung, json_of, serve, shape, span,
};
use axum::routing::post;
use axum::{Json, Router};
use course::hops::HOPS;
use lab::case::Case;
use lab::diagnose::{Rule, diagnose};
use lab::list::List;
use lab::report::{self, Links};
use lab::request;
use lab::span::{SpanKind, target};
use lab::tree::Tree;
use lab::wire::Fault;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::sync::Barrier;

/// Exports nothing before the flush at the end.
fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

/// The same, with a service of the exercises instead of one of the tutorial.
async fn with(service: &'static str, command: &str) -> Setup {
    binaries().await;
    setup().run_by(service, command)
}

/// A request to the gateway; each service takes what it needs of the body.
fn question(system: &System, user_id: &str, query: &str) -> RequestBuilder {
    client()
        .post(format!("http://{}/api/query", system.gateway.address))
        .json(&json!({ "user_id": user_id, "query": query }))
}

async fn status(request: RequestBuilder) -> u16 {
    let answer = request.send().await.expect("an answer");
    answer.status().as_u16()
}

fn trees(stopped: &Stopped) -> Vec<Tree> {
    in_order(stopped.trees())
}

/// Compares what the solution changes in a file of the tutorial with what the page shows, and sees that it applies to it.
fn changes(file: &str, solution: &str, recorded: &str) {
    let read = |path: &str| {
        let path = root().join("examples").join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let before = read(&format!("distributed_tracing/{file}"));
    let after = read(&format!("exercises/{solution}"));
    // In the reader's project the services stand beside the test.
    let after = after.replace("\"../../distributed_tracing/", "\"../");
    let project = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = project.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    };
    write(file, &before);
    write("solution.rs", &after);
    let flags = ["--no-index", "--no-color", "--no-ext-diff", "--unified=2"];
    let arguments = [&["diff"], &flags[..], &[file, "solution.rs"]].concat();
    let printed = git(project.path(), &arguments);
    let hunks = printed.find("@@").map(|at| &printed[at..]);
    let hunks = hunks.expect("the solution changes something");
    check_named(recorded, &format!("--- {file}\n+++ {file}\n{hunks}"));

    let recorded = folder().join(recorded);
    let recorded = recorded.to_str().expect("text");
    git(project.path(), &["apply", "-p0", recorded]);
    let applied = fs::read_to_string(project.path().join(file)).expect("text");
    assert_eq!(applied, after, "{recorded}");
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

/// A part of a recording that a page can include by its name.
fn anchored(name: &str, text: &str) -> String {
    format!("<!-- ANCHOR: {name} -->\n{text}<!-- ANCHOR_END: {name} -->\n")
}

/// A table of Markdown, of which the first line is the head.
fn table<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines: Vec<String> =
        rows.into_iter().map(|cells| format!("| {} |\n", cells.join(" | "))).collect();
    lines.insert(1, "|---".repeat(N) + "|\n");
    lines.concat()
}

// 1. The LLM service.

#[derive(Clone, Copy, PartialEq)]
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

/// Values of `traceparent`, each of another trace; what llm-service makes of them, what the standard says, and why.
const HEADERS: [(&[&str], Trace, Trace, &str); 8] = [
    (
        &["00-4bf92f3577b34da6a3ce929d0e0e4701-00f067aa0ba902b7-ff"],
        Trace::Joined,
        Trace::Joined,
        "the lowest bit says *sampled*; the others are not for us",
    ),
    (
        &["00-4bf92f3577b34da6a3ce929d0e0e4702-00f067aa0ba902b7-02"],
        Trace::Unrecorded,
        Trace::Unrecorded,
        "valid, and its lowest bit is 0: the trace goes on, and is not recorded",
    ),
    (
        &["01-4bf92f3577b34da6a3ce929d0e0e4703-00f067aa0ba902b7-01-more"],
        Trace::Joined,
        Trace::Joined,
        "a later version may have more fields; we read those that we know",
    ),
    (
        &["00-4bf92f3577b34da6a3ce929d0e0e4704-00f067aa0ba902b7-01-more"],
        Trace::Own,
        Trace::Own,
        "version `00` may not",
    ),
    (
        &["ff-4bf92f3577b34da6a3ce929d0e0e4705-00f067aa0ba902b7-01"],
        Trace::Own,
        Trace::Own,
        "`ff` is no version",
    ),
    (
        &["00-4bf92f3577b34da6a3ce929d0e0e4706-0000000000000000-01"],
        Trace::Own,
        Trace::Own,
        "zeros are no id; half a header is none",
    ),
    (
        &["00-4bf92f3577b34da6a3ce929d0e0e4707-0f067aa0ba902b7-01"],
        Trace::Joined,
        Trace::Own,
        "15 digits: the SDK reads a number, the standard counts",
    ),
    (
        &[
            "00-4bf92f3577b34da6a3ce929d0e0e4708-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4709-b7ad6b7169203331-01",
        ],
        Trace::Joined,
        Trace::Own,
        "the SDK takes the first; by the standard, two are none",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_service_joins_the_trace_of_these_headers_and_not_of_those() {
    let system = setup().start().await;
    for (values, ..) in HEADERS {
        let url = format!("http://{}/generate", system.llm.address);
        let request = client().post(url).json(&json!({ "prompt": "?" }));
        let request =
            values.iter().fold(request, |request, value| request.header("traceparent", *value));
        assert_eq!(status(request).await, 200, "{values:?}");
    }
    let traces = trees(&system.stop().await);
    let mut traces = traces.iter().map(|tree| tree.trace_id.to_string());
    let mut rows = vec![["No.", "Value", "Joins", "By the standard", "Why"].map(str::to_owned)];
    for (number, (values, joins, standard, why)) in (1..).zip(HEADERS) {
        let id = values[0].split('-').nth(1).expect("an id").to_owned();
        let seen = match joins {
            Trace::Unrecorded => Trace::Unrecorded,
            _ if traces.next() == Some(id) => Trace::Joined,
            _ => Trace::Own,
        };
        assert!(seen == joins && strict(values) == standard, "{values:?}");
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        let [joins, standard] = [joins, standard].map(|it| it.words().to_owned());
        let standard = if standard == joins { "the same" } else { &standard };
        rows.push([
            number.to_string(),
            values.join("<br>"),
            joins,
            standard.to_owned(),
            why.to_owned(),
        ]);
    }
    assert_eq!(traces.next(), None);
    let question = rows.iter().map(|[number, values, ..]| [number.clone(), values.clone()]);
    let answer = rows.iter().map(|[number, _, rest @ ..]| {
        let [joins, standard, why] = rest;
        [number, joins, standard, why].map(String::clone)
    });
    let tables = anchored("question", &table(question)) + &anchored("answer", &table(answer));
    check!("exercises/headers.md", &tables);
}

fn strict(values: &[&str]) -> Trace {
    let [value] = values else {
        return Trace::Own;
    };
    match lab::traceparent::Traceparent::parse(value) {
        Ok(caller) if caller.sampled => Trace::Joined,
        Ok(_) => Trace::Unrecorded,
        Err(_) => Trace::Own,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_too_long_is_refused_and_is_no_error_of_the_service() {
    changes(
        "src/bin/llm_service.rs",
        "src/bin/limiting_llm_service.rs",
        recorded!("exercises/limit.diff"),
    );
    let system = with("llm-service", "limiting_llm_service").await;
    let system = system.start().await;
    let llm = format!("http://{}/generate", system.llm.address);
    // A character of two bytes counts as one.
    for (prompt, expected) in [("é".repeat(2_000), 200), ("é".repeat(2_001), 422)] {
        let answer = client().post(&llm).json(&json!({ "prompt": prompt }));
        let (status, body) = json_of(answer.send().await.expect("an answer")).await;
        assert_eq!(status, expected);
        if status == 422 {
            let reason = body["error"].as_str().expect("a reason");
            assert!(reason.contains("2001 characters are more than 2000"), "{reason}");
        }
    }
    let request = question(&system, "user_1", &"x".repeat(2_001));
    assert_eq!(status(request).await, 502);
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
    changes(
        "src/bin/user_service.rs",
        "src/bin/titling_user_service.rs",
        recorded!("exercises/at-once.diff"),
    );
    let system = with("user-service", "titling_user_service").await;
    let system = system.start().await;
    assert_eq!(status(question(&system, "user_1", "?")).await, 200);
    let stopped = system.stop().await;
    let call = "        POST /generate CLIENT user-service http 200
          POST /generate SERVER llm-service http 200
            chat offline INTERNAL llm-service
";
    let start = WHOLE.split_inclusive('\n').take(4).collect::<String>();
    let answer = format!("      answer INTERNAL user-service\n{call}");
    let title = format!("      title INTERNAL user-service\n{call}");
    assert_eq!(shape(&stopped.only_tree()), start + &answer + &title);
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
    let system = with("user-service", "titling_user_service")
        .await
        .with("user-service", "LLM_SERVICE_URL", format!("http://{model}"))
        .start()
        .await;
    let answer = question(&system, "user_1", "?").send().await;
    let (status, body) = json_of(answer.expect("an answer")).await;
    system.stop().await;
    assert_eq!(status, 200);
    assert_eq!(body["response"], "A title of three words for: ?\n\n?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_answer_calls_nobody_and_links_to_the_trace_that_asked() {
    changes(
        "src/bin/user_service.rs",
        "src/bin/caching_user_service.rs",
        recorded!("exercises/cache.diff"),
    );
    let system = with("user-service", "caching_user_service").await;
    let system = system.start().await;
    for (user_id, expected) in [("user_1", 200), ("user_2", 200), ("stranger", 403)] {
        let request = question(&system, user_id, "What is a trace?");
        assert_eq!(status(request).await, expected);
    }
    let trees = trees(&system.stop().await);
    let [asked, cached, refused] = &trees[..] else {
        panic!("{}", shapes(&trees));
    };
    assert_eq!(shape(asked), WHOLE);
    let called_nobody = WHOLE.split_inclusive('\n').take(4).collect::<String>();
    assert_eq!(shape(cached), called_nobody);
    let hit = |tree| {
        let span = span(tree, "POST /process", SpanKind::Server);
        span.attribute("honeyhive_metadata.cache.hit")
    };
    assert_eq!(hit(asked).as_deref(), Some("false"));
    assert_eq!(hit(cached).as_deref(), Some("true"));
    // Who may ask is never looked up.
    assert_eq!(hit(refused), None);
    let asker = span(asked, "POST /process", SpanKind::Server);
    let links = span(cached, "POST /process", SpanKind::Server).proto().links;
    let targets: Vec<_> = links.iter().map(target).collect();
    assert_eq!(targets, [Some((asked.trace_id, asker.id))]);
    check!("exercises/cache.html", &figures(&trees[..2]));
}

// 3. The API gateway.

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_gets_to_the_last_service_and_a_client_cannot_forge_it() {
    changes(
        "src/bin/api_gateway.rs",
        "src/bin/plan_api_gateway.rs",
        recorded!("exercises/plan-gateway.diff"),
    );
    changes(
        "src/bin/llm_service.rs",
        "src/bin/plan_llm_service.rs",
        recorded!("exercises/plan-llm.diff"),
    );
    let system = with("api-gateway", "plan_api_gateway")
        .await
        .run_by("llm-service", "plan_llm_service")
        .wired()
        .start()
        .await;
    let users = ["user_1", "user_2_pro"];
    for user_id in users {
        let request = question(&system, user_id, "?").header("baggage", "plan=pro,more=1");
        assert_eq!(status(request).await, 200);
    }
    let stopped = system.stop().await;
    let mut lines = String::new();
    for (tree, user_id) in trees(&stopped).iter().zip(users) {
        assert_eq!(shape(tree), WHOLE);
        let plan =
            span(tree, "POST /generate", SpanKind::Server).attribute("honeyhive_metadata.plan");
        let plan = plan.expect("a plan");
        lines.push_str(&format!("{user_id:10}  honeyhive_metadata.plan = {plan}\n"));
    }
    assert_eq!(
        lines,
        "user_1      honeyhive_metadata.plan = free\nuser_2_pro  honeyhive_metadata.plan = pro\n"
    );
    // What the client had sent goes no further, and no user is named.
    let sent: Vec<String> = stopped
        .wire
        .exchanges()
        .iter()
        .flat_map(|it| it.sent.lines().map(str::to_owned))
        .filter(|line| line.starts_with("baggage"))
        .collect();
    let [free, pro] = ["baggage: plan=free", "baggage: plan=pro"];
    assert_eq!(sent, [free, free, pro, pro]);
}

// 4. Run it, break it, read the trace.

/// The trace of a request whose client hung up before there was an answer.
async fn hung_up(setup: Setup) -> Stopped {
    let (silent, called) = hung().await;
    let setup = setup.with("user-service", "LLM_SERVICE_URL", format!("http://{silent}"));
    let system = setup.with("all", "OTEL_BSP_SCHEDULE_DELAY", 20).start().await;
    tokio::select! {
        answer = system.ask("user_1") => panic!("{answer:?}"),
        () = called.notified() => {}
    }
    // A service that is stopped at this moment may end before the spans of that request do.
    arrived(&system.store, 5).await;
    system.stop().await
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
    let abandoned = |tree: &Tree| -> Vec<String> {
        let spans = tree.rows.iter().map(|row| &row.span);
        let marked = spans.filter(|span| span.attribute("request.abandoned").is_some());
        marked.map(|span| format!("{} {}", span.name(), span.kind())).collect()
    };
    let before = hung_up(setup()).await;
    let tree = before.only_tree();
    assert_eq!(shape(&tree), nobody_answered);
    assert_eq!(abandoned(&tree), [""; 0]);
    // The rules cannot know.
    assert_eq!(diagnose(&[tree], &[]), []);
    check!("exercises/hung-up.html", &figures(&before.trees()));

    let noticing = with("api-gateway", "watching_services api-gateway").await;
    let noticing = noticing.run_by("user-service", "watching_services user-service");
    let tree = hung_up(noticing).await.only_tree();
    assert_eq!(shape(&tree), nobody_answered);
    assert_eq!(abandoned(&tree), ["POST /api/query SERVER", "POST /process SERVER"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_answered_has_not_hung_up() {
    let noticing = with("api-gateway", "watching_services api-gateway").await;
    let noticing = noticing.run_by("user-service", "watching_services user-service");
    let system = noticing.start().await;
    assert_eq!(status(question(&system, "user_1", "?")).await, 200);
    let tree = system.stop().await.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    let marked = tree.rows.iter().find(|row| row.span.attribute("request.abandoned").is_some());
    assert!(marked.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_faults_leave_two_traces_that_are_in_order_and_the_wire_knows_both() {
    let system = setup().wired().start().await;
    let page = page();
    for (hop, fault) in [(HOPS[1], Fault::ClearSampled), (HOPS[2], Fault::DropTraceparent)] {
        let command = format!("cargo run -- break {} {}\n", hop.name, fault.name());
        assert!(page.contains(&command), "the page does not say: {command}");
        system.wire.set(hop, Some(fault));
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
        assert_eq!(rules(&case), [Rule::BrokenHeader, Rule::Unsampled]);
        assert_eq!(case.trees.len(), 2);
    }
    let case = Case::new(trees, stopped.wire.exchanges());
    check!("exercises/two-faults.html", &told(&case));
}

fn rules(case: &Case) -> Vec<Rule> {
    case.findings().iter().map(|finding| finding.rule).collect()
}

/// The findings of a case and its waterfalls.
fn told(case: &Case) -> String {
    let links = Links { book: "../", span: &|_| None };
    report::case(case, &links).into_string() + "\n"
}

/// Four cases of the rules' own page, without what the rules say.
#[test]
fn of_the_four_traces_one_is_in_order() {
    let mut answers = String::new();
    for (riddle, case, expected, figure) in [
        ("a", "wrong-parent-near", &[][..], recorded!("exercises/riddle-a.html")),
        ("b", "missing-spans", &[Rule::MissingSpans], recorded!("exercises/riddle-b.html")),
        ("c", "wrong-parent", &[Rule::WrongParent], recorded!("exercises/riddle-c.html")),
        ("d", "several-roots", &[Rule::SeveralRoots], recorded!("exercises/riddle-d.html")),
    ] {
        let file = folder().join(format!("diagnose/{case}.json"));
        let case = Case::read(&fs::read(file).expect("a recording")).expect("a case");
        assert_eq!(rules(&case), expected, "{riddle}");
        check_named(figure, &figures(&case.trees));
        let text = report::text(&case.findings(), "");
        let cause = text.lines().next().expect("a sentence");
        answers.push_str(&format!("- **{}.** {cause}\n", riddle.to_uppercase()));
    }
    check!("exercises/riddles.md", &answers);
}

// The page.

fn page() -> String {
    let path = root().join("src/appendix/exercises.md");
    fs::read_to_string(path).expect("the page")
}

#[test]
fn every_exercise_says_when_it_is_solved_and_folds_hint_and_solution() {
    let page = page();
    let exercises: Vec<&str> = page.split("\n### ").skip(1).collect();
    assert_eq!(exercises.len(), 9);
    for exercise in exercises {
        let title = exercise.lines().next().unwrap_or_default();
        let (open, folded) = exercise.split_once("<details>").expect("something folded");
        assert!(open.contains("**Solved when** "), "{title}");
        let last = folded.split("<details>").last().expect("one");
        let solution = ["<summary>Solution</summary>", "<summary>Answer</summary>"];
        assert!(solution.iter().any(|it| last.contains(it)), "{title}");
        assert!(!open.contains(".diff}}"), "{title}: the solution is open");
    }
}
