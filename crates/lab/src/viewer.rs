//! The trace list and the waterfall, as HTML that needs no JavaScript. The book's pictures come from here too.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};

use crate::span::{Span, TraceId, any_text};
use crate::store::{Store, Usage};
use crate::tree::{Row, Tree, milliseconds};

/// The style of the waterfall, shared with the book.
const WATERFALL_CSS: &str = include_str!("waterfall.css");
/// The style of the viewer's own pages.
const VIEWER_CSS: &str = include_str!("viewer.css");

/// How many looks a service can have before they repeat. The label tells services apart in any case.
const LOOKS: usize = 6;

/// How many traces the list shows; the others are found by their id.
const LISTED: usize = 200;

/// `/traces`, `/traces/{id}` and the style sheet.
pub fn routes(store: Store) -> Router {
    let style = || async {
        (
            [(CONTENT_TYPE, "text/css")],
            [WATERFALL_CSS, VIEWER_CSS].concat(),
        )
    };
    Router::new()
        .route("/traces", get(list))
        .route("/traces/{id}", get(trace))
        .route("/traces/style.css", get(style))
        .with_state(store)
}

async fn list(State(store): State<Store>) -> Html<String> {
    let traces = store.traces();
    let newest = traces.iter().take(LISTED);
    let trees: Vec<Tree> = newest.filter_map(|spans| Tree::new(spans)).collect();
    page("Traces", list_page(&trees, store.usage()))
}

/// The page of one trace; with `.txt` behind the id, its tree as text.
async fn trace(State(store): State<Store>, Path(name): Path<String>) -> Response {
    let id = name.strip_suffix(".txt").unwrap_or(&name);
    match TraceId::parse(id)
        .and_then(|id| store.trace(id))
        .and_then(|spans| Tree::new(&spans))
    {
        Some(tree) if name.ends_with(".txt") => tree.to_text().into_response(),
        Some(tree) => page(&format!("Trace {}", tree.trace_id), trace_page(&tree)).into_response(),
        None => {
            let body = html! {
                h1 { "No such trace" }
                p { "No span with this trace id has arrived, or it had to make room. " a href="/traces" { "All traces" } }
            };
            (StatusCode::NOT_FOUND, page("No such trace", body)).into_response()
        }
    }
}

fn page(title: &str, body: Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · One Trace" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/traces/style.css";
            }
            body {
                header { nav { a href="/" { "Book" } " " a href="/traces" { "Traces" } } }
                main { (body) }
            }
        }
    };
    Html(page.into_string())
}

fn list_page(trees: &[Tree], usage: Usage) -> Markup {
    html! {
        h1 { "Traces" }
        @if trees.is_empty() {
            p { "No trace yet. Send a request to a service that exports here, then reload this page." }
        } @else {
            div.wide {
                table.traces {
                    caption {
                        (count(usage.traces, "trace")) ", " (count(usage.spans, "span")) ", newest first"
                        @if usage.traces > LISTED { "; the newest " (LISTED) " are shown" }
                        @if usage.evicted > 0 { "; " (count(usage.evicted, "older trace")) " made room" }
                    }
                    thead {
                        tr {
                            th scope="col" { "Trace" }
                            th scope="col" { "Services" }
                            th.number scope="col" { "Spans" }
                            th.number scope="col" { "Duration" }
                            th scope="col" { "Remarks" }
                        }
                    }
                    tbody {
                        @for tree in trees {
                            tr {
                                th scope="row" {
                                    a href={ "/traces/" (tree.trace_id) } { (top_name(tree)) }
                                    code.id { (tree.trace_id) }
                                }
                                td { (tree.services().join(", ")) }
                                td.number { (tree.rows.len()) }
                                td.number { (milliseconds(tree.duration)) }
                                td {
                                    @if tree.has_error() { span.error { "error" } " " }
                                    @if !tree.is_whole() { span.broken { "not in one piece" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn trace_page(tree: &Tree) -> Markup {
    html! {
        h1 { (top_name(tree)) }
        p { "Trace " code { (tree.trace_id) } }
        (waterfall(tree, &caption(tree)))
        h2 { "Spans" }
        @for row in &tree.rows { (details(row)) }
    }
}

fn top_name(tree: &Tree) -> &str {
    tree.tops().next().map_or("", |row| row.span.name())
}

/// One sentence that says what the waterfall shows.
pub fn caption(tree: &Tree) -> String {
    let tops = tree.tops().count();
    let mut caption = format!(
        "{} from {} in {}",
        count(tree.rows.len(), "span"),
        count(tree.services().len(), "service"),
        milliseconds(tree.duration),
    );
    if tops > 1 {
        caption.push_str(&format!(", in {tops} pieces"));
    }
    caption
}

/// The trace as one table: a row a span, indented by depth, with a bar for its place in time. On a phone the style
/// sheet lays a row out on three lines, so the roles are named: a browser may take it for a table no more.
pub fn waterfall(tree: &Tree, caption: &str) -> Markup {
    html! {
        div.wide tabindex="0" role="group" aria-label="Waterfall" {
            table.waterfall role="table" {
                caption { (caption) }
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { "Span" }
                        th scope="col" role="columnheader" { "Kind" }
                        th scope="col" role="columnheader" { "Service" }
                        th scope="col" role="columnheader" { "Remarks" }
                        th.number scope="col" role="columnheader" { "Duration" }
                        th.time scope="col" role="columnheader" { "Time" }
                    }
                }
                tbody role="rowgroup" {
                    @for row in &tree.rows {
                        tr.error[row.span.is_error()] role="row" {
                            th scope="row" role="rowheader" { span.branch aria-hidden="true" { (row.branch()) } (row.span.name()) }
                            td.kind role="cell" { (row.span.kind()) }
                            td.service role="cell" { span class={ "swatch look" (look(row.span.service())) } aria-hidden="true" {} (row.span.service()) }
                            td.remarks role="cell" { (row.notes().join(", ")) }
                            td.number role="cell" { (milliseconds(row.span.duration())) }
                            td.time role="cell" { (bar(tree, &row.span, look(row.span.service()))) }
                        }
                    }
                }
            }
        }
    }
}

/// The look of a service, the same in every trace.
fn look(service: &str) -> usize {
    let hash = service.bytes().fold(0u32, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add(byte.into())
    });
    hash as usize % LOOKS
}

/// Where the span lies within the trace, in percent; too short a span is drawn as a hairline by the style sheet.
fn bar(tree: &Tree, span: &Span, look: usize) -> Markup {
    let percent = |nanoseconds: u64| 100.0 * nanoseconds as f64 / tree.duration.max(1) as f64;
    let left = percent(span.start() - tree.start);
    let width = percent(span.duration());
    html! { div class={ "bar look" (look) } style=(format!("margin-left:{left:.2}%;width:{width:.2}%")) {} }
}

fn details(row: &Row) -> Markup {
    let span = &row.span;
    html! {
        details id={ "span-" (span.id) } {
            summary { (span.name()) " · " (span.service()) " · " (span.kind()) }
            dl {
                dt { "span id" } dd { code { (span.id) } }
                @if let Some(parent) = span.parent { dt { "parent span id" } dd { code { (parent) } } }
                dt { "status" } dd { (format!("{:?}", span.status())) " " (span.status_message()) }
                dt { "library" } dd { (span.scope) }
                @for attribute in span.proto.attributes.iter().chain(&span.resource.attributes) {
                    dt { (attribute.key) } dd { (any_text(&attribute.value)) }
                }
                @for event in &span.proto.events { dt { "event" } dd { (event.name) } }
            }
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The waterfall as a picture of its own, for places that show images and no HTML, such as a README.
pub fn svg(tree: &Tree, width: usize) -> String {
    let height = 96 + 29 * tree.rows.len();
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
            foreignObject width="100%" height="100%" {
                div.picture xmlns="http://www.w3.org/1999/xhtml" {
                    style { (maud::PreEscaped(WATERFALL_CSS)) }
                    (waterfall(tree, &caption(tree)))
                }
            }
        }
    }
    .into_string()
}
