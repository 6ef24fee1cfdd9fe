//! One span in detail: beside the waterfall on the page of its trace, and alone for the script.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use maud::{Markup, html};

use crate::diagnose::Place;
use crate::editor::Editor;
use crate::list::List;
use crate::log::LogRecord;
use crate::proto::common::KeyValue;
use crate::proto::common::any_value::Value;
use crate::proto::trace::Span as Proto;
use crate::report;
use crate::span::{
    Span, SpanId, SpanKind, Status, TraceId, any_text, shortened, span_id, target, trace_id,
};
use crate::traceparent::Traceparent;
use crate::tree::{LONGEST, Row, Tree, label, took};
use crate::viewer::document::Anchors;
use crate::viewer::{self, ViewerState, model_call, moment, timeline};
use crate::waterfall::{count, row_id};
use traces::code::Location;
use traces::exchange::Exchange;

/// Serves one span in detail as HTML, for the script to show next to the grid.
pub async fn fragment(
    State(site): State<ViewerState>,
    Path((id, span)): Path<(String, String)>,
    editor: Option<Extension<Option<Editor>>>,
) -> Response {
    let ViewerState { list, wire, .. } = site;
    let spans = trace_id(&id).and_then(|id| list.store.trace(id));
    let tree = spans.and_then(|spans| Tree::new(&spans));
    let found = tree.as_ref().and_then(|tree| {
        let id = span_id(&span)?;
        Some((tree, tree.rows.iter().find(|row| row.span.id == id)?))
    });
    match found {
        Some((tree, row)) => {
            let (page, editor) = (Page::Lab(&list), known(&editor));
            let logs = list.store.logs(tree.trace_id);
            let records = timeline::of_span(&logs, (tree.trace_id, row.span.id));
            let around = Around { tree, page, wire: &wire.recorded(), records: &records, editor };
            Html(detail(row, &around).into_string()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The page that a span is shown on. It decides where the links lead.
#[derive(Clone, Copy)]
pub enum Page<'a> {
    /// A page of the lab.
    Lab(&'a List),
    /// A file with the whole request.
    File(&'a Anchors),
}

impl Page<'_> {
    /// Returns the address of a span's detail, or `None` if there is none here.
    pub fn span(self, place: Place) -> Option<String> {
        match self {
            Page::Lab(_) => Some(viewer::span_address(place)),
            Page::File(anchors) => anchors.span(place),
        }
    }

    /// Returns the spans that link to a trace, or to one span of it.
    fn linked_to(self, trace: TraceId, span: Option<SpanId>) -> Vec<Arc<Span>> {
        match self {
            Page::Lab(list) => list.store.linked_to(trace, span),
            Page::File(anchors) => anchors.linked_to(trace, span),
        }
    }
}

/// Returns the editor of the lab, if it has one.
pub fn known(editor: &Option<Extension<Option<Editor>>>) -> Option<&Editor> {
    editor.as_ref().and_then(|Extension(editor)| editor.as_ref())
}

/// The surroundings of a span that its detail shows.
pub struct Around<'a> {
    pub tree: &'a Tree,
    pub page: Page<'a>,
    pub wire: &'a [Arc<Exchange>],
    /// The log records of the span, in order of time.
    pub records: &'a [&'a LogRecord],
    /// Links to source files, if the lab was given an editor.
    pub editor: Option<&'a Editor>,
}

/// Renders everything that the lab received about one span.
pub fn detail(row: &Row, around: &Around) -> Markup {
    let Around { tree, page, wire, editor, .. } = *around;
    let span = &row.span;
    let proto = span.proto();
    let scope = &span.source.scope;
    let below = tree.rows.iter().filter(|it| it.span.parent == Some(span.id)).count();
    let status = match span.status() {
        Status::Unset => "Unset",
        Status::Ok => "Ok",
        Status::Error => "Error",
    };
    let is_here = |end: Option<Traceparent>, id: Option<SpanId>| {
        end.is_some_and(|end| end.trace_id == span.trace_id && Some(end.parent_id) == id)
    };
    let wire = wire.iter().filter(|it| {
        let received = span.kind() == SpanKind::Server && is_here(it.received(), span.parent);
        received || is_here(it.sent_by(), Some(span.id))
    });
    let wire: Vec<Exchange> = wire.map(|it| Exchange::clone(it)).collect();
    html! {
        @match page {
            Page::Lab(_) => a.close href={ "/traces/" (tree.trace_id) "#s" (span.id) } aria-keyshortcuts="Escape" { "Close" },
            Page::File(_) => a.close href={ "#" (row_id((span.trace_id, span.id))) } { "Close" },
        }
        h2 dir="auto" { (label(span.name())) }
        (timeline::exception(&proto, around.records))
        @if let (Page::Lab(_), 1..) = (page, row.below) {
            p { a href={ "/traces/" (tree.trace_id) "?focus=" (span.id) } { "Only this and what is below it" } }
        }
        dl {
            dt { "span id" }
            dd { code { (span.id) } @if let Page::Lab(_) = page { " " a href={ "?span=" (span.id) } { "link to this span" } } }
            @if let Some(parent) = span.parent {
                dt { "parent" }
                dd { @if row.orphan { code { (parent) } " " span.broken { "not here" } } @else { (link_to(page.span((span.trace_id, parent)), &html! { code { (parent) } })) } }
            }
            dt { "service" } dd { (value(span.service())) }
            dt { "kind" } dd { (span.kind()) }
            dt { "status" }
            dd.error[span.is_error()] { (status) @if let Some(message) = proto.status.as_ref().map(|it| &it.message).filter(|it| !it.is_empty()) { ": " (value(message)) } }
            dt { "started" }
            dd { (moment(span.start())) @if span.start() > 0 { ", " (took(span.start().saturating_sub(tree.start))) " into the trace" } }
            dt { "duration" } dd { (took(span.duration())) ", with " (below) " right below" }
            dt { "library" } dd { (value(&scope.name)) " " (scope.version) }
            (code(&proto.attributes, editor))
            @if !proto.trace_state.is_empty() { dt { "tracestate" } dd { (value(&proto.trace_state)) } }
            @for note in row.notes() { dt { "remark" } dd { (note) } }
        }
        (model_call::section(&proto, around.records))
        (report::wire(&wire, true))
        (attributes("Attributes", &proto.attributes, proto.dropped_attributes_count))
        (timeline::of_one(&proto, span, around.records))
        (links(&proto, page))
        (linked_from(tree, Some(span.id), page))
        (attributes("Scope", &scope.attributes, scope.dropped_attributes_count))
        (attributes("Resource", &span.source.resource.attributes, span.source.resource.dropped_attributes_count))
    }
}

/// Renders the place in the source code that an item comes from, as a link if the file is here.
fn code(attributes: &[KeyValue], editor: Option<&Editor>) -> Markup {
    let location = Location::read(attributes);
    html! {
        @if let Some(location) = location {
            dt { "code" }
            dd {
                @match editor.and_then(|editor| editor.link(&location)) {
                    Some(link) => a href=(link) { code { bdi { (location) } } },
                    None => code { bdi { (location) } },
                }
                @if let Some(function) = &location.function { " in " code { bdi { (function) } } }
            }
        }
    }
}

fn attributes(title: &str, attributes: &[KeyValue], dropped: u32) -> Markup {
    html! {
        @if !attributes.is_empty() || dropped > 0 {
            h3 { (title) }
            (pairs(attributes))
            (missing(dropped, "attribute"))
        }
    }
}

pub fn pairs(attributes: &[KeyValue]) -> Markup {
    html! {
        dl {
            @for attribute in attributes {
                dt dir="auto" { (shortened(&attribute.key, LONGEST)) }
                dd { (value(&any_text(&attribute.value))) (kind_of(attribute)) }
            }
        }
    }
}

/// Renders the number of items that the sender reported as dropped.
pub fn missing(dropped: u32, noun: &str) -> Markup {
    html! { @if dropped > 0 { p.broken { (count(dropped as usize, noun)) " more, dropped by the sender" } } }
}

/// Renders the type of a value unless it is a string.
fn kind_of(attribute: &KeyValue) -> Markup {
    let kind = match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(_)) => "",
        Some(Value::BoolValue(_)) => "bool",
        Some(Value::IntValue(_)) => "int",
        Some(Value::DoubleValue(_)) => "double",
        Some(Value::ArrayValue(_)) => "array",
        Some(Value::KvlistValue(_)) => "map",
        Some(Value::BytesValue(_)) | Some(Value::StringValueStrindex(_)) => "bytes",
        None => "empty",
    };
    html! { @if !kind.is_empty() { " " small { (kind) } } }
}

/// Renders text from a span: with its own writing direction and its line breaks, and in a box when it is long.
pub fn value(text: &str) -> Markup {
    // Show control characters as numbers.
    let control = |it: char| it.is_control() && it != '\n' && it != '\t';
    let shown: String = match text.contains(control) {
        true => text
            .chars()
            .map(|it| if control(it) { it.escape_unicode().to_string() } else { it.into() })
            .collect(),
        false => text.to_owned(),
    };
    let (long, huge) = (shown.len() > 1000 || shown.contains('\n'), shown.len() > HUGE);
    let boxed = |label: String, text: &str| html! { pre dir="auto" tabindex="0" role="group" aria-label=(label) { (text) } };
    html! {
        @if huge {
            (boxed("Beginning of the value".to_owned(), &shortened(&shown, HUGE / 10)))
            // A browser doesn't lay out the contents of a closed `details`.
            details { summary { "All " (text.len()) " bytes" } (boxed("Value".to_owned(), &shown)) }
        } @else if long {
            (boxed(format!("Value of {} bytes", text.len()), &shown))
        } @else { bdi { (shown) } }
    }
}

/// The size in bytes above which only the beginning of a value is shown at first. A browser takes seconds to lay out a megabyte.
const HUGE: usize = 20_000;

fn links(proto: &Proto, page: Page) -> Markup {
    html! {
        @if !proto.links.is_empty() || proto.dropped_links_count > 0 {
            h3 { "Links" }
            @for link in &proto.links {
                @match target(link) {
                    Some((trace, span)) => p.event {
                        "to " (link_to(page.span((trace, span)), &html! { "span " code { (span) } " of trace " code { (trace) } }))
                    },
                    None => p.event.broken { "to an id that is not valid" },
                }
                (pairs(&link.attributes))
                (missing(link.dropped_attributes_count, "attribute"))
            }
            (missing(proto.dropped_links_count, "link"))
        }
    }
}

/// Renders a text as a link, or as it is without an address.
fn link_to(address: Option<String>, text: &Markup) -> Markup {
    html! { @match address { Some(address) => a href=(address) { (text) }, None => (text) } }
}

/// Renders the spans that link to this trace or to one span of it.
pub fn linked_from(tree: &Tree, span: Option<SpanId>, page: Page) -> Markup {
    let from = page.linked_to(tree.trace_id, span);
    html! {
        @for from in from.iter().take(20) {
            p.notice {
                "Linked from "
                (link_to(page.span((from.trace_id, from.id)), &html! { bdi { (label(from.name())) } }))
                " of " bdi { (label(from.service())) }
                @if from.trace_id != tree.trace_id { ", trace " code { (from.trace_id) } }
            }
        }
        @if from.len() > 20 { p.notice { (from.len()) " spans in all are linked to it." } }
    }
}
