//! The spans with an error, equal ones together, with the exceptions that they recorded.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::{NAME, Pages, STACKTRACE, TEXT, cut};
use crate::compare::pattern;
use crate::proto::common::KeyValue;
use crate::proto::trace as proto;
use crate::span::{Span, SpanId, TraceId, any_text, attribute};
use crate::tree::{Row, Tree};
use traces::code::Location;
use traces::log::LogRecord;

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
    /// Reads the attributes of an event or of a log record.
    fn new(attributes: &[KeyValue]) -> Self {
        let text = |key: &str| {
            let attribute = attributes.iter().find(|attribute| attribute.key == key);
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

/// Returns the status code of an answer over HTTP, under its present or its older name.
pub fn http_status(span: &proto::Span) -> Option<String> {
    let keys = ["http.response.status_code", "http.status_code"];
    keys.iter().find_map(|key| attribute(span, key)).map(|it| cut(&it, NAME))
}

/// The log records by span, for the exceptions that came as log records.
pub struct Recorded<'a>(HashMap<SpanId, Vec<&'a LogRecord>>);

impl<'a> Recorded<'a> {
    pub fn new(records: &'a [Arc<LogRecord>]) -> Self {
        let mut by_span: HashMap<SpanId, Vec<&LogRecord>> = HashMap::new();
        for record in records {
            if let Some(span) = record.span_id {
                by_span.entry(span).or_default().push(record);
            }
        }
        Recorded(by_span)
    }

    /// The attributes of the log records with an exception that belong to a span.
    fn exceptions(&self, span: &Span) -> Vec<Vec<KeyValue>> {
        let records = self.0.get(&span.id).into_iter().flatten();
        let own = records.filter(|record| record.trace_id == span.trace_id);
        let attributes = own.map(|record| record.proto().attributes);
        let has_exception = |attributes: &Vec<KeyValue>| {
            attributes.iter().any(|attribute| attribute.key == "exception.type")
        };
        attributes.filter(has_exception).collect()
    }
}

impl Failure {
    pub fn new(alike: &Alike, recorded: &Recorded, pages: Pages) -> Self {
        let span = &alike.row.span;
        let proto = span.proto();
        let events = proto.events.iter().filter(|event| event.name == "exception");
        let logged = recorded.exceptions(span);
        let exceptions = events.map(|event| &event.attributes).chain(&logged);
        let count = exceptions.clone().count();
        Failure {
            page: pages.span((span.trace_id, span.id)),
            trace_id: span.trace_id,
            span_id: span.id,
            service: cut(span.service(), NAME),
            name: cut(span.name(), NAME),
            kind: span.kind().as_str(),
            error_type: attribute(&proto, "error.type").map(|it| cut(&it, NAME)),
            http_status: http_status(&proto),
            message: cut(&span.status_message(), TEXT),
            code: Location::read(&proto.attributes).map(Code::new),
            spans: alike.count,
            exceptions: exceptions.take(EXCEPTIONS).map(|it| Exception::new(it)).collect(),
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
