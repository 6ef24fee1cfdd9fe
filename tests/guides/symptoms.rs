//! Each symptom is there when it is seeded, and gone when it is repaired.
//!
//! Its figure begins with what the lab's rules say about it.

use lab::case::Case;
use lab::diagnose::Rule;
use lab::otlp;
use lab::report::{self, Links};
use lab::span::SpanKind;
use lab::tree::Tree;
use regex::Regex;

use super::example::{Example, Ran, page};
use support::has_attributes;
use support::recording::{check, check_named, figures, overwrite, recorded};

/// Submits both figures of a symptom, and evaluates to its name.
macro_rules! symptom {
    ($name:literal) => {{
        let _ = recorded!(concat!("symptoms/", $name, "-broken.html"));
        let _ = recorded!(concat!("symptoms/", $name, "-repaired.html"));
        $name
    }};
}

async fn run(name: &str, way: &str) -> Ran {
    // One command stands on the page for all of them.
    let command = "cargo run --bin symptoms -- NAME WAY";
    assert!(page("symptoms").contains(command));
    let command = command.replace("NAME", name).replace("WAY", way);
    Example::new(&command).run().await
}

/// Runs a symptom both ways. Compares what arrives with these shapes and with the figures of the page; the lab's rules find
/// this in the broken one and nothing in the repaired one.
async fn shows(name: &str, broken: &str, found: &[Rule], repaired: &str) {
    let ran = run(name, "broken").await;
    assert_eq!(ran.shapes(), broken, "{name} broken");
    figure(name, "broken", ran.trees(), found);
    let ran = run(name, "repaired").await.well();
    assert_eq!(ran.shapes(), repaired, "{name} repaired");
    figure(name, "repaired", ran.trees(), &[]);
}

fn figure(name: &str, way: &str, trees: Vec<Tree>, found: &[Rule]) {
    let case = Case::new(trees, Vec::new());
    let mut rules: Vec<Rule> = case.findings().iter().map(|finding| finding.rule).collect();
    rules.dedup();
    assert_eq!(rules, found, "{name} {way}");
    let links = Links { book: Some("../"), span: &|_| None };
    let figure = match found {
        // Without a finding the report would say that no rule found a fault, although these traces are wrong.
        [] => figures(&case.trees),
        _ => report::case(&case, &links).into_string() + "\n",
    };
    check_named(&format!("symptoms/{name}-{way}.html"), &figure);
}

/// When broken, the process sends nothing and logs `why`, as the recording shows; when repaired, one span arrives.
async fn says_why(recording: &str, why: &str) {
    let name = recording.trim_start_matches("symptoms/").trim_end_matches(".txt");
    let broken = run(name, "broken").await;
    assert_eq!(broken.shapes(), "", "{name} broken");
    let log = broken.stderr();
    let line = log.lines().find(|line| line.contains(why));
    let line = line.unwrap_or_else(|| panic!("{name} does not say {why}: {log}"));
    let port = Regex::new(r"127\.0\.0\.1:\d+").expect("a pattern");
    check_named(recording, &(port.replace_all(line, "127.0.0.1:<port>") + "\n"));
    let repaired = run(name, "repaired").await.well();
    assert_eq!(repaired.shapes(), "pay INTERNAL shop\n", "{name} repaired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_across_an_await_makes_parents_of_strangers() {
    let broken = "\
first order INTERNAL shop
  second order INTERNAL shop
    pay INTERNAL shop
  pay INTERNAL shop
";
    let repaired = "\
first order INTERNAL shop
  pay INTERNAL shop

second order INTERNAL shop
  pay INTERNAL shop
";
    shows(symptom!("guard-across-await"), broken, &[], repaired).await;
}

const APART: &str = "\
order INTERNAL shop
  POST /reserve CLIENT shop http 200

POST /reserve SERVER stock
";

const TOGETHER: &str = "\
order INTERNAL shop
  POST /reserve CLIENT shop http 200
    POST /reserve SERVER stock
";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_propagator_nothing_is_passed_on() {
    // Here stock runs the code of the tutorial, which records the status.
    let [apart, together] =
        [APART, TOGETHER].map(|it| it.replace("SERVER stock", "SERVER stock http 200"));
    shows(symptom!("no-propagator"), &apart, &[Rule::FallenApart], &together).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_has_begun_takes_no_parent() {
    shows(symptom!("set-parent-too-late"), APART, &[Rule::FallenApart], TOGETHER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_behind_reload_is_not_found() {
    shows(symptom!("layer-behind-reload"), APART, &[Rule::FallenApart], TOGETHER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_written_too_early_name_the_wrong_parent() {
    let broken = "\
order INTERNAL shop
  POST /reserve CLIENT shop
  POST /reserve SERVER stock http 200
";
    let repaired = broken.replace("  POST /reserve SERVER", "    POST /reserve SERVER");
    shows(symptom!("wrong-parent"), broken, &[Rule::WrongParent], &repaired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_of_log_lines_takes_spans_away() {
    let repaired = "order INTERNAL shop\n  pay INTERNAL shop\n";
    shows(symptom!("log-filter"), "pay INTERNAL shop\n", &[], repaired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_targets_without_the_middlewares_takes_the_server_span_away() {
    let broken = "\
order INTERNAL shop
  POST /reserve CLIENT shop http 200

reserve INTERNAL stock
";
    let repaired = TOGETHER.to_owned() + "      reserve INTERNAL stock\n";
    shows(symptom!("filtered-server"), broken, &[Rule::RootWithin], &repaired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_code_alone_is_no_error() {
    let broken = "POST /fail CLIENT shop http 500\n  POST /fail SERVER stock http 500 error 500\n";
    let repaired = broken.replace("shop http 500", "shop http 500 error 500");
    shows(symptom!("status-not-set"), broken, &[Rule::StatusNotSet], &repaired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_a_name_never_repeats() {
    let ids = [" 48151", " 48152", " 48153", " 48154"];
    let [broken, repaired] = [ids, [""; 4]].map(|ids| {
        let orders = ids.map(|id| format!("  pack order{id} INTERNAL shop\n"));
        "pack INTERNAL shop\n".to_owned() + &orders.concat()
    });
    shows(symptom!("high-cardinality"), &broken, &[Rule::HighCardinality], &repaired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_becomes_an_attribute() {
    let both = "log in INTERNAL shop\n  pay INTERNAL shop\n";
    shows(symptom!("secret-recorded"), both, &[Rule::Secret], both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_number_becomes_a_text() {
    let mut lines = String::new();
    for (way, kind) in [("broken", "stringValue"), ("repaired", "intValue")] {
        let tree = run("number-as-text", way).await.well().trees().pop().expect("a trace");
        let request = otlp::to_request(tree.rows.iter().map(|row| &*row.span));
        let sent = serde_json::to_value(request).expect("JSON");
        let attributes = &sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"];
        let mut items = attributes.as_array().expect("a list").iter();
        let items = items.find(|it| it["key"] == "items").expect("items");
        assert!(items["value"].get(kind).is_some(), "{way}: {items}");
        lines.push_str(&format!("{way:9} {items}\n"));
    }
    check!("symptoms/number-as-text.txt", &lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn baggage_is_on_no_span_that_nobody_copies_it_to() {
    for (way, tenant) in [("broken", "tenant=(none)"), ("repaired", "tenant=acme")] {
        let tree = run("baggage-not-copied", way).await.well().trees().pop().expect("a trace");
        has_attributes(support::span(&tree, "pay", SpanKind::Internal), tenant);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_the_ids_that_its_format_writes() {
    let mut lines = String::new();
    for (way, has) in [("broken", false), ("repaired", true)] {
        let ran = run("line-without-ids", way).await.well();
        let trace = ran.trees().pop().expect("a trace").trace_id.to_string();
        let log = ran.stderr();
        let line = log.lines().find(|line| line.contains("paid")).expect("a line");
        assert_eq!(line.contains(&trace), has, "{way}: {line}");
        lines.push_str(&format!("{way:9} {line}\n"));
    }
    check!("symptoms/line-without-ids.txt", &lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_takes_its_last_spans_along() {
    let broken = run("no-flush", "broken").await.well();
    assert_eq!((broken.shapes().as_str(), broken.stderr().as_str()), ("", ""));
    let repaired = run("no-flush", "repaired").await.well();
    assert_eq!(repaired.shapes(), "pay INTERNAL shop\n");
    let _ = recorded!("symptoms/no-flush-repaired.html");
    figure("no-flush", "repaired", repaired.trees(), &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_an_endpoint_in_the_code_is_taken_as_it_is() {
    says_why(recorded!("symptoms/wrong-path.txt"), "404").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn https_needs_a_feature() {
    says_why(recorded!("symptoms/missing-tls.txt"), "enable one of the `tls-ring`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_client_finds_no_runtime_on_the_thread_of_batches() {
    says_why(recorded!("symptoms/async-client.txt"), "there is no reactor running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_on_the_only_thread_waits_for_itself() {
    says_why(recorded!("symptoms/grpc-shutdown.txt"), "timing out").await;
}

/// How many spans the exporter makes of itself differs from run to run, so the recording is compared by what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_is_traced_traces_itself() {
    let own = "order INTERNAL shop\n  pay INTERNAL shop\n";
    let repaired = run("exporter-traces-itself", "repaired").await.well();
    assert_eq!(repaired.shapes(), own);
    let shapes = run("exporter-traces-itself", "broken").await.well().shapes();
    assert!(shapes.starts_with(own), "{shapes}");
    let foreign = shapes.lines().filter(|line| line.contains("Framed")).count();
    assert!(foreign > 2, "{shapes}");
    if overwrite() {
        let lines: Vec<&str> = shapes.lines().take(12).collect();
        check!("symptoms/exporter-traces-itself.txt", &format!("{}\n…\n", lines.join("\n")));
    }
}
