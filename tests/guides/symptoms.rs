//! Each symptom is there when it is seeded, and gone when it is repaired.
//!
//! Its figure begins with what the lab's rules say about it.

use std::collections::{BTreeMap, BTreeSet};

use lab::case::Case;
use lab::diagnose::Rule;
use lab::otlp;
use lab::report::{self, Links};
use lab::span::SpanKind;
use lab::tree::Tree;
use regex::Regex;

use super::collector::source;
use super::example::{Example, Ran, page};
use support::has_attributes;
use support::includes::includes;
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
    // Its page shows the command for the broken one.
    let example = match way {
        "broken" => Example::on(&format!("symptoms/{name}"), &command(name, way)),
        _ => Example::new(&command(name, way)),
    };
    example.run().await
}

fn command(name: &str, way: &str) -> String {
    format!("cargo run --bin symptoms -- {name} {way}")
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
    let links = Links { book: Some("../../"), span: &|_| None };
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

/// Lists where the rows of the tables lead, relative to the page. Each has one link, besides those to the glossary.
fn rows() -> Vec<String> {
    let link = Regex::new(r"\]\(([^)]+)\)").expect("a pattern");
    let page = page("symptoms");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| You see"));
    let targets = rows.map(|row| {
        let links = link.captures_iter(row).map(|found| found[1].to_owned());
        let links: Vec<String> = links.filter(|it| !it.contains("glossary.md")).collect();
        let [target] = &links[..] else { panic!("{links:?} in {row}") };
        target.clone()
    });
    targets.collect()
}

/// The names of the pages of symptoms, with their sources.
fn pages() -> BTreeMap<String, String> {
    let folder = support::root().join("src/how-to/symptoms");
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file"));
    let names = files.map(|file| file.file_name().into_string().expect("text"));
    let names = names.map(|name| name.strip_suffix(".md").expect("a page").to_owned());
    names.map(|name| (name.clone(), page(&format!("symptoms/{name}")))).collect()
}

/// The rules that a page of a symptom shows: the figures of its broken program have their findings.
fn rules_of(name: &str, page: &str) -> Vec<Rule> {
    let shown = includes(&format!("src/how-to/symptoms/{name}.md"), page);
    let recordings = shown.iter().filter(|it| it.file.starts_with("src/recordings/"));
    let text: String = recordings.map(|it| source(&it.file)).collect();
    let found = |rule: &Rule| text.contains(&format!("diagnose.html#{}\"", rule.name()));
    Rule::ALL.into_iter().filter(found).collect()
}

#[test]
fn each_row_leads_to_a_place_of_its_own_and_each_page_has_a_row() {
    let rows = rows();
    let places: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(places.len(), rows.len(), "two rows lead to one place: {rows:#?}");
    for row in &rows {
        let (file, heading) = row.split_once('#').unwrap_or((row, ""));
        let target = source(&format!("src/how-to/{file}"));
        let id = |line: &str| match line.rsplit_once(" {#") {
            Some((_, id)) => id.trim_end_matches('}').to_owned(),
            None => line.trim_start_matches(['#', ' ']).replace(' ', "-").replace('\'', ""),
        };
        let ids = target.lines().filter(|line| line.starts_with("##")).map(id);
        let is_there = ids.map(|id| id.to_lowercase()).any(|id| id == heading);
        assert!(heading.is_empty() || is_there, "{row} leads to no heading");
    }
    let pages = pages();
    let alone: Vec<&String> =
        pages.keys().filter(|name| !places.contains(&*format!("symptoms/{name}.md"))).collect();
    assert_eq!(alone, [""; 0], "no row leads to these pages");
}

#[test]
fn every_rule_of_the_diagnosis_has_a_row() {
    let (rows, pages, guide) = (rows(), pages(), page("diagnose"));
    for rule in Rule::ALL {
        let has_row = rows.contains(&format!("diagnose.md#{}", rule.name()));
        let shows = |(name, page): &(&String, &String)| rules_of(name, page).contains(&rule);
        let shown: Vec<&String> = pages.iter().filter(shows).map(|(name, _)| name).collect();
        assert_ne!(has_row, !shown.is_empty(), "{rule:?}: its own row and {shown:?}");
        // The section of the rule leads to the code that causes the fault.
        let (_, section) = guide.split_once(&format!("{{#{}}}", rule.name())).expect("a section");
        let section = section.split("\n### ").next().unwrap_or_default();
        for name in shown {
            let link = format!("(symptoms/{name}.md)");
            assert!(section.contains(&link), "{rule:?} does not lead to {link}");
        }
    }
}

#[test]
fn a_page_of_a_symptom_has_its_parts_and_its_old_address_leads_to_it() {
    let settings = source("book.toml");
    for (name, page) in pages() {
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
        let parts = ["## Cause", "## Wrong and right", "## Prevention", "## Run it"];
        assert_eq!(headings, parts, "{name}");
        assert!(page.lines().any(|line| line == command(&name, "broken")), "{name}");
        let code = format!("examples/symptoms/src/{}.rs", name.replace('-', "_"));
        let shown = includes(&format!("src/how-to/symptoms/{name}.md"), &page);
        assert!(shown.iter().any(|it| it.file == code), "{name} doesn't show {code}");
        let redirect = format!("\"/how-to/symptoms.html#{name}\" = \"symptoms/{name}.html\"\n");
        assert!(settings.contains(&redirect), "book.toml lacks {redirect}");
    }
}
