//! The spans with an error, equal ones together, with the exceptions that they recorded.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::{NAME, Pages, STACKTRACE, TEXT, cut};
use crate::compare::pattern;
use crate::proto::trace::span::Event;
use crate::span::{SpanId, TraceId, any_text, attribute};
use crate::tree::{Row, Tree};
use traces::code::Location;

/// The largest number of exceptions of a span.
const EXCEPTIONS: usize = 3;

/// Spans that failed in the same way, described by the first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    page: Option<String>,
    trace_id: TraceId,
    span_id: SpanId,
    service: String,
    name: String,
    kind: &'static str,
    error_type: Option<String>,
    http_status: Option<String>,
    message: String,
    /// The place in the code that made the span.
    code: Option<Code>,
    /// The number of spans that failed in this way.
    spans: usize,
    exceptions: Vec<Exception>,
    exceptions_left_out: usize,
}

#[derive(Debug, Serialize)]
struct Code {
    file: String,
    line: Option<u32>,
    function: Option<String>,
}

impl Code {
    fn new(Location { file, line, function }: Location) -> Self {
        let function = function.map(|function| cut(&function, NAME));
        Code { file: cut(&file, NAME), line, function }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Exception {
    r#type: String,
    message: String,
    stacktrace: Option<String>,
}

impl Exception {
    fn new(event: &Event) -> Self {
        let text = |key: &str| {
            let attribute = event.attributes.iter().find(|attribute| attribute.key == key);
            attribute.map(|attribute| any_text(&attribute.value))
        };
        Exception {
            r#type: cut(&text("exception.type").unwrap_or_default(), NAME),
            message: cut(&text("exception.message").unwrap_or_default(), TEXT),
            stacktrace: text("exception.stacktrace").map(|text| cut(&text, STACKTRACE)),
        }
    }
}

/// The rows with the same failure. The first is the deepest.
pub struct Alike<'a> {
    pub tree: &'a Tree,
    pub row: &'a Row,
    count: usize,
}

/// Groups the spans with an error by service, name, type of the error and message. The deepest comes first, because the failure began
/// there.
pub fn alike(trees: &[Tree]) -> Vec<Alike<'_>> {
    let rows = trees.iter().flat_map(|tree| tree.rows.iter().map(move |row| (tree, row)));
    let mut failed: Vec<_> = rows.filter(|(_, row)| row.span.is_error()).collect();
    failed.sort_by_key(|(_, row)| (Reverse(row.depth), row.span.start()));
    let mut groups: Vec<Alike> = Vec::new();
    let mut places = HashMap::new();
    for (tree, row) in failed {
        let span = &row.span;
        let proto = span.proto();
        let message = proto.status.as_ref().map(|status| cut(&status.message, TEXT));
        let error_type = attribute(&proto, "error.type");
        let key = (span.service(), pattern(span.name()), error_type, message);
        let place = *places.entry(key).or_insert_with(|| {
            groups.push(Alike { tree, row, count: 0 });
            groups.len() - 1
        });
        groups[place].count += 1;
    }
    groups
}

impl Failure {
    pub fn new(alike: &Alike, pages: Pages) -> Self {
        let span = &alike.row.span;
        let proto = span.proto();
        let events = proto.events.iter().filter(|event| event.name == "exception");
        let count = events.clone().count();
        let status = ["http.response.status_code", "http.status_code"];
        Failure {
            page: pages.span((span.trace_id, span.id)),
            trace_id: span.trace_id,
            span_id: span.id,
            service: cut(span.service(), NAME),
            name: cut(span.name(), NAME),
            kind: span.kind().as_str(),
            error_type: attribute(&proto, "error.type").map(|it| cut(&it, NAME)),
            http_status: status
                .iter()
                .find_map(|key| attribute(&proto, key))
                .map(|it| cut(&it, NAME)),
            message: cut(&span.status_message(), TEXT),
            code: Location::read(&proto.attributes).map(Code::new),
            spans: alike.count,
            exceptions: events.take(EXCEPTIONS).map(Exception::new).collect(),
            exceptions_left_out: count.saturating_sub(EXCEPTIONS),
        }
    }
}

/// One span above a failure.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    span_id: SpanId,
    service: String,
    name: String,
}

/// The largest number of spans above a failure.
const ABOVE: usize = 20;

/// Returns the spans from the top of the trace down to a row, at most [`ABOVE`] and the nearest of more.
pub fn way(tree: &Tree, row: &Row) -> Vec<Step> {
    let parent = |row: &&Row| row.parent.map(|parent| &tree.rows[parent]);
    let mut way: Vec<Step> = std::iter::successors(Some(row), parent)
        .take(ABOVE)
        .map(|row| Step {
            span_id: row.span.id,
            service: cut(row.span.service(), NAME),
            name: cut(row.span.name(), NAME),
        })
        .collect();
    way.reverse();
    way
}
