//! The spans with an error, equal ones together, with the exceptions that they recorded.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use super::{NAME, Pages, STACKTRACE, TEXT, cut};
use crate::compare::pattern;
use crate::diagnose::Outcome;
use crate::proto::trace as proto;
use crate::span::{SpanId, TraceId, attribute};
use crate::tree::{Row, Tree};
use traces::code::Location;
use traces::log::LogRecord;
use traces::moments::{self, Moment, Moments};

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
    fn new(recorded: &moments::Exception) -> Self {
        let moments::Exception { r#type, message, stacktrace } = recorded;
        Exception {
            r#type: cut(r#type, NAME),
            message: cut(message, TEXT),
            stacktrace: stacktrace.as_ref().map(|text| cut(text, STACKTRACE)),
        }
    }
}

/// The rows with the same failure. The first is the deepest.
pub struct Alike<'a> {
    pub tree: &'a Tree,
    pub row: &'a Row,
    count: usize,
    /// The exceptions of the first, from its events and from its log records.
    exceptions: Vec<moments::Exception>,
}

/// Groups the spans with an error by service, name, type of the error and message. Requests that failed come before those that
/// recovered, and of each request the deepest span, because the failure began there.
pub fn alike<'a>(trees: &'a [Tree], logs: &[Arc<LogRecord>]) -> Vec<Alike<'a>> {
    let mut failed = Vec::new();
    for tree in trees {
        let rows = tree.rows.iter().enumerate();
        let errors: Vec<_> = rows.filter(|(_, row)| row.span.is_error()).collect();
        if !errors.is_empty() {
            let (outcome, moments) = (Outcome::of(tree), Rc::new(Moments::new(tree, logs)));
            let of_tree = errors.into_iter();
            failed.extend(of_tree.map(|(at, row)| (outcome, tree, row, at, Rc::clone(&moments))));
        }
    }
    failed.sort_by_key(|(outcome, _, row, ..)| {
        (Reverse(*outcome), Reverse(row.depth), row.span.start())
    });
    let mut groups: Vec<Alike> = Vec::new();
    let mut places = HashMap::new();
    for (_, tree, row, at, moments) in failed {
        let span = &row.span;
        let proto = span.proto();
        let message = proto.status.as_ref().map(|status| cut(&status.message, TEXT));
        let error_type = attribute(&proto, "error.type");
        let key = (span.service(), pattern(span.name()), error_type, message);
        let place = *places.entry(key).or_insert_with(|| {
            let exceptions = moments.rows[at].iter().filter_map(Moment::exception).collect();
            groups.push(Alike { tree, row, count: 0, exceptions });
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

impl Failure {
    pub fn new(alike: &Alike, pages: Pages) -> Self {
        let span = &alike.row.span;
        let proto = span.proto();
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
            exceptions: alike.exceptions.iter().take(EXCEPTIONS).map(Exception::new).collect(),
            exceptions_left_out: alike.exceptions.len().saturating_sub(EXCEPTIONS),
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
