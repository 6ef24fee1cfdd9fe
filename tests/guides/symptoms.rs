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
use crate::support::recording::{check, check_named, figures, overwrite, recorded};

const GUIDE: &str = "symptoms";

/// Submits the recordings of a symptom by their endings, and evaluates to its name.
macro_rules! compared {
    ($name:literal, $($ending:literal),+) => {{
        $(let _ = recorded!(concat!("symptoms/", $name, $ending));)+
        $name
    }};
}

/// Runs both ways, compares what arrived with what must, and with the figures of the page.
struct Symptom<'a> {
    name: &'a str,
    broken: &'a str,
    found: &'a [Rule],
    repaired: &'a str,
}

async fn run(name: &str, way: &str) -> Ran {
    // One command stands on the page for all of them.
    let command = "cargo run --bin symptoms -- NAME WAY";
    assert!(page(GUIDE).contains(command));
    let command = command.replace("NAME", name).replace("WAY", way);
    Example::new(&command).run().await
}

impl Symptom<'_> {
    async fn shows(&self) {
        let (broken, repaired) =
            (run(self.name, "broken").await, run(self.name, "repaired").await.well());
        assert_eq!(broken.shapes(), self.broken, "{} broken", self.name);
        figure(self.name, "broken", broken.trees(), self.found);
        assert_eq!(repaired.shapes(), self.repaired, "{} repaired", self.name);
        figure(self.name, "repaired", repaired.trees(), &[]);
    }
}

fn figure(name: &str, way: &str, trees: Vec<Tree>, found: &[Rule]) {
    let case = Case::new(trees, Vec::new());
    let mut rules: Vec<Rule> = case.findings().iter().map(|finding| finding.rule).collect();
    rules.dedup();
    assert_eq!(rules, found, "{name} {way}");
    let links = Links { book: "../", span: &|_| None };
    let figure = match found {
        // "In order" is what the rules say where only a person can know better.
        [] => figures(&case.trees),
        _ => report::case(&case, &links).into_string() + "\n",
    };
    check_named(&format!("symptoms/{name}-{way}.html"), &figure);
}

/// When broken, the process sends nothing and logs `why`; when repaired, one span arrives.
async fn says_why(name: &str, why: &str) {
    let broken = run(name, "broken").await;
    assert_eq!(broken.shapes(), "", "{name} broken");
    let log = broken.stderr();
    let line = log.lines().find(|line| line.contains(why));
    let line = line.unwrap_or_else(|| panic!("{name} does not say {why}: {log}"));
    let port = Regex::new(r"127\.0\.0\.1:\d+").expect("a pattern");
    let line = port.replace_all(line, "127.0.0.1:<port>");
    check_named(&format!("symptoms/{name}.txt"), &format!("{line}\n"));
    let repaired = run(name, "repaired").await.well();
    assert_eq!(repaired.shapes(), "pay INTERNAL shop\n", "{name} repaired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_across_an_await_makes_parents_of_strangers() {
    let symptom = Symptom {
        name: compared!("guard-across-await", "-broken.html", "-repaired.html"),
        broken: "\
first order INTERNAL shop
  second order INTERNAL shop
    pay INTERNAL shop
  pay INTERNAL shop
",
        found: &[],
        repaired: "\
first order INTERNAL shop
  pay INTERNAL shop

second order INTERNAL shop
  pay INTERNAL shop
",
    };
    symptom.shows().await;
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
    let symptom = Symptom {
        name: compared!("no-propagator", "-broken.html", "-repaired.html"),
        broken: &apart,
        found: &[Rule::FallenApart],
        repaired: &together,
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_has_begun_takes_no_parent() {
    let symptom = Symptom {
        name: compared!("set-parent-too-late", "-broken.html", "-repaired.html"),
        broken: APART,
        found: &[Rule::FallenApart],
        repaired: TOGETHER,
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_behind_reload_is_not_found() {
    let symptom = Symptom {
        name: compared!("layer-behind-reload", "-broken.html", "-repaired.html"),
        broken: APART,
        found: &[Rule::FallenApart],
        repaired: TOGETHER,
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_written_too_early_name_the_wrong_parent() {
    let symptom = Symptom {
        name: compared!("wrong-parent", "-broken.html", "-repaired.html"),
        broken: "\
order INTERNAL shop
  POST /reserve CLIENT shop
  POST /reserve SERVER stock http 200
",
        found: &[Rule::WrongParent],
        repaired: "\
order INTERNAL shop
  POST /reserve CLIENT shop
    POST /reserve SERVER stock http 200
",
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_of_log_lines_takes_spans_away() {
    let symptom = Symptom {
        name: compared!("log-filter", "-broken.html", "-repaired.html"),
        broken: "pay INTERNAL shop\n",
        found: &[],
        repaired: "\
order INTERNAL shop
  pay INTERNAL shop
",
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_code_alone_is_no_error() {
    let symptom = Symptom {
        name: compared!("status-not-set", "-broken.html", "-repaired.html"),
        broken: "\
POST /fail CLIENT shop http 500
  POST /fail SERVER stock http 500 error 500
",
        found: &[Rule::StatusNotSet],
        repaired: "\
POST /fail CLIENT shop http 500 error 500
  POST /fail SERVER stock http 500 error 500
",
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_a_name_never_repeats() {
    let symptom = Symptom {
        name: compared!("high-cardinality", "-broken.html", "-repaired.html"),
        broken: "\
pack INTERNAL shop
  pack order 48151 INTERNAL shop
  pack order 48152 INTERNAL shop
  pack order 48153 INTERNAL shop
  pack order 48154 INTERNAL shop
",
        found: &[Rule::HighCardinality],
        repaired: "\
pack INTERNAL shop
  pack order INTERNAL shop
  pack order INTERNAL shop
  pack order INTERNAL shop
  pack order INTERNAL shop
",
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_becomes_an_attribute() {
    let symptom = Symptom {
        name: compared!("secret-recorded", "-broken.html", "-repaired.html"),
        broken: "\
log in INTERNAL shop
  pay INTERNAL shop
",
        found: &[Rule::Secret],
        repaired: "\
log in INTERNAL shop
  pay INTERNAL shop
",
    };
    symptom.shows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_number_becomes_a_text() {
    let mut lines = String::new();
    for (way, kind) in [("broken", "stringValue"), ("repaired", "intValue")] {
        let ran = run("number-as-text", way).await.well();
        let tree = ran.trees().pop().expect("a trace");
        let spans: Vec<_> = tree.rows.iter().map(|row| &*row.span).collect();
        let sent = serde_json::to_value(otlp::to_request(spans)).expect("JSON");
        let attributes = &sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"];
        let items = attributes.as_array().expect("a list").iter();
        let items = items.clone().find(|it| it["key"] == "items").expect("items");
        assert!(items["value"].get(kind).is_some(), "{way}: {items}");
        lines.push_str(&format!("{way:9} {items}\n"));
    }
    check!("symptoms/number-as-text.txt", &lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn baggage_is_on_no_span_that_nobody_copies_it_to() {
    for (way, tenant) in [("broken", None), ("repaired", Some("acme"))] {
        let ran = run("baggage-not-copied", way).await.well();
        let tree = ran.trees().pop().expect("a trace");
        let span = crate::support::span(&tree, "pay", SpanKind::Internal);
        assert_eq!(span.attribute("tenant").as_deref(), tenant, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_the_ids_that_its_format_writes() {
    let mut lines = String::new();
    for (way, has) in [("broken", false), ("repaired", true)] {
        let ran = run("line-without-ids", way).await.well();
        let trace = ran.trees().pop().expect("a trace").trace_id.to_string();
        let log = ran.stderr();
        let line = log.lines().find(|line| line.contains("paid"));
        let line = line.expect("a line");
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
    figure(compared!("no-flush", "-repaired.html"), "repaired", repaired.trees(), &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_an_endpoint_in_the_code_is_taken_as_it_is() {
    says_why(compared!("wrong-path", ".txt"), "404").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn https_needs_a_feature() {
    says_why(compared!("missing-tls", ".txt"), "enable one of the `tls-ring`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_client_finds_no_runtime_on_the_thread_of_batches() {
    says_why(compared!("async-client", ".txt"), "there is no reactor running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_on_the_only_thread_waits_for_itself() {
    says_why(compared!("grpc-shutdown", ".txt"), "timing out").await;
}

/// How many spans the exporter makes of itself differs from run to run, so the recording is compared by what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_is_traced_traces_itself() {
    let own = "order INTERNAL shop\n  pay INTERNAL shop\n";
    let repaired = run("exporter-traces-itself", "repaired").await.well();
    assert_eq!(repaired.shapes(), own);
    let broken = run("exporter-traces-itself", "broken").await.well();
    let shapes = broken.shapes();
    assert!(shapes.starts_with(own), "{shapes}");
    let foreign = shapes.lines().filter(|line| line.contains("Framed")).count();
    assert!(foreign > 2, "{shapes}");
    if overwrite() {
        let lines: Vec<&str> = shapes.lines().take(12).collect();
        check!("symptoms/exporter-traces-itself.txt", &format!("{}\n…\n", lines.join("\n")));
    }
}
