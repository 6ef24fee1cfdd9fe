//! The public items of the modules that carry the context, with their docs, as they stand in the code; and a run of those
//! that no service needs, but a reader will.

use opentelemetry::global;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};
use production::incoming::with_distributed_trace_context;
use production::spans::{EventType, trace};
use production::telemetry;

use super::anchored;
use crate::gates::TREE;
use support::includes::{Include, includes};
use support::recording::check;

/// In the order of the page.
const MODULES: [&str; 5] = [
    "production/src/incoming",
    "production/src/outgoing",
    "production/src/spans",
    "distributed_tracing/src/event_type",
    "production/src/telemetry",
];

#[test]
fn the_reference_has_every_public_item_with_the_words_of_the_code() {
    const RECORDING: &str = "src/recordings/reference/api.md";
    let page = "src/reference/api.md";
    let shown = includes(page, &TREE.read(page));
    let mut recorded = String::new();
    for module in MODULES {
        let source = TREE.read(&format!("examples/{module}.rs"));
        let items = items(&source);
        assert!(!items.is_empty(), "{module} has no public item");
        for Item { name, text } in items {
            let include = Include { file: RECORDING.to_owned(), part: name.clone() };
            assert!(shown.contains(&include), "{module}::{name} is not on the page");
            recorded += &anchored(&name, &text);
        }
    }
    check!("reference/api.md", &recorded);
}

/// The only test of this program that sets the globals: no other makes spans here.
#[tokio::test]
async fn work_in_a_callers_context_joins_the_callers_trace() {
    let exporter = InMemorySpanExporter::default();
    // A sampler of its own: the one that OTEL_TRACES_SAMPLER names must not decide a test.
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_simple_exporter(exporter.clone())
        .build();
    global::set_tracer_provider(provider);
    telemetry::set_propagator();

    let mut headers = axum::http::HeaderMap::new();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", traceparent.parse().expect("a value"));
    let work = trace("a job from a queue", EventType::Chain, async { Ok::<_, String>(42) });
    assert_eq!(with_distributed_trace_context(&headers, work).await, Ok(42));

    let spans = exporter.get_finished_spans().expect("spans");
    let ids = spans.iter().map(|it| (it.span_context.trace_id(), it.parent_span_id));
    let ids = Vec::from_iter(ids.map(|(trace, parent)| format!("00-{trace}-{parent}-01")));
    assert_eq!(ids, [traceparent]);
}

/// A public item such as `Upstream::post`: its signature and its docs in the form of a page.
struct Item {
    name: String,
    text: String,
}

/// Reads what rustfmt has written: an item of a module begins its line, one of an `impl` is four columns in.
fn items(text: &str) -> Vec<Item> {
    let (mut items, mut docs, mut of) = (Vec::new(), String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("impl ").and_then(|it| it.strip_suffix(" {")) {
            of = format!("{name}::");
        } else if line == "}" {
            of.clear();
        }
        let code = line.trim_start();
        if let Some(doc) = code.strip_prefix("///") {
            docs += doc.strip_prefix(' ').unwrap_or(doc);
            docs.push('\n');
            continue;
        }
        if code.starts_with("#[") {
            continue;
        }
        let docs = std::mem::take(&mut docs);
        if code.starts_with("pub ") && !["pub mod", "pub use"].contains(&&code[..7]) {
            let mut signature = line.to_owned();
            // An enum is shown with its variants, a function without its body, a struct without its fields.
            while !signature.ends_with(['{', ';', '}'])
                || signature.contains("pub enum") && !signature.ends_with("\n}")
            {
                signature = signature + "\n" + lines.next().expect("the item ends");
            }
            let name = format!("{of}{}", name(code));
            items.push(Item { name, text: shown(&signature, &docs) });
        }
    }
    items
}

/// The word behind `fn`, `struct`, `enum` or `const`.
fn name(code: &str) -> &str {
    let words = code.split_whitespace();
    let name = words.skip_while(|word| !["fn", "struct", "enum", "const"].contains(word)).nth(1);
    let name = name.expect("a name");
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().expect("a name")
}

/// A signature without the indentation of an `impl` and without the brace that opens what is not shown, and its docs.
fn shown(signature: &str, docs: &str) -> String {
    let indent = signature.len() - signature.trim_start().len();
    let lines = signature.lines().map(|line| line.get(indent..).unwrap_or_default());
    let text = Vec::from_iter(lines).join("\n");
    let text = text.strip_suffix('{').unwrap_or(&text).trim_end();
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let docs = docs.replace("[`", "`").replace("`]", "`").replace("# Errors\n", "**Errors.** ");
    format!("<pre><code class=\"language-rust\">{text}</code></pre>\n\n{}\n", docs.trim())
}
