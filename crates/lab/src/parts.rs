//! The parts of one trace as JSON: its critical path, one span, and its headers on the wire.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::analysis::{self, critical_path};
use crate::brief::{Pages, UNTRUSTED};
use crate::case::Case;
use crate::proto::common::KeyValue;
use crate::report;
use crate::span::{SpanId, TraceId, json, target};
use crate::tree::Tree;
use traces::code::Location;
use traces::exchange::Exchange;
use traces::log::LogRecord;
use traces::moments::{Moment, Moments};

/// The document of `lab trace --json=critical-path`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CriticalPath<'a> {
    untrusted: &'static str,
    page: Option<String>,
    trace_id: TraceId,
    /// The length of the path in nanoseconds.
    duration_nano: u64,
    segments: Vec<Segment<'a>>,
}

/// A time that the request waited for a span.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment<'a> {
    span_id: SpanId,
    service: &'a str,
    name: &'a str,
    kind: &'static str,
    /// The start of the segment, which may be later than that of the span.
    start_time_unix_nano: String,
    duration_nano: u64,
}

impl<'a> CriticalPath<'a> {
    pub fn new(tree: &'a Tree, pages: Pages) -> Self {
        let path = critical_path(tree);
        let segments = path.iter().map(|segment| {
            let span = &tree.rows[segment.row].span;
            Segment {
                span_id: span.id,
                service: span.service(),
                name: span.name(),
                kind: span.kind().as_str(),
                start_time_unix_nano: segment.start.to_string(),
                duration_nano: segment.end - segment.start,
            }
        });
        CriticalPath {
            untrusted: UNTRUSTED,
            page: pages.trace(tree.trace_id),
            trace_id: tree.trace_id,
            duration_nano: path.iter().map(|segment| segment.end - segment.start).sum(),
            segments: segments.collect(),
        }
    }
}

/// The document of `lab trace --json=wire`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wire<'a> {
    untrusted: &'static str,
    page: Option<String>,
    trace_id: TraceId,
    /// The requests that the proxies have seen, in the order of time.
    requests: &'a [Exchange],
}

impl<'a> Wire<'a> {
    pub fn new(case: &'a Case, id: TraceId, pages: Pages) -> Self {
        let page = pages.trace(id);
        Wire { untrusted: UNTRUSTED, page, trace_id: id, requests: &case.wire }
    }
}

/// The document of `lab trace --json=logs`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    untrusted: &'static str,
    page: Option<String>,
    trace_id: TraceId,
    /// The records of the trace, in the order of time.
    records: Vec<Record>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `None` for a record that belongs to no span.
    span_id: Option<SpanId>,
    service: String,
    pub severity: &'static str,
    severity_text: String,
    time_unix_nano: String,
    event_name: String,
    pub body: Value,
    pub attributes: Map<String, Value>,
}

impl Record {
    fn new(record: &LogRecord) -> Self {
        let proto = record.proto();
        Record {
            span_id: record.span_id,
            service: record.service().to_owned(),
            severity: record.severity().as_str(),
            severity_text: record.severity_text(),
            time_unix_nano: record.time().to_string(),
            body: json(proto.body.as_ref().and_then(|body| body.value.as_ref())),
            attributes: attributes(&proto.attributes),
            event_name: proto.event_name,
        }
    }
}

impl Logs {
    pub fn new(case: &Case, id: TraceId, pages: Pages) -> Self {
        let records = case.logs.iter().filter(|record| record.trace_id == id);
        Logs {
            untrusted: UNTRUSTED,
            page: pages.trace(id),
            trace_id: id,
            records: records.map(|record| Record::new(record)).collect(),
        }
    }
}

/// The document of `lab trace --span --json`: everything that arrived of one span.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    untrusted: &'static str,
    pub page: Option<String>,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    /// The spans right below it.
    pub child_span_ids: Vec<SpanId>,
    pub service: String,
    pub name: String,
    pub kind: &'static str,
    pub status: &'static str,
    pub message: String,
    pub start_time_unix_nano: String,
    pub duration_nano: u64,
    /// The part of the critical path that lies in it.
    pub critical_nano: u64,
    /// The remarks of the waterfall.
    pub remarks: String,
    /// The place in the code that made it.
    pub code: Option<Location>,
    pub attributes: Map<String, Value>,
    pub events: Vec<Event>,
    /// Its log records, in the order of time.
    pub logs: Vec<Record>,
    pub links: Vec<Link>,
    pub dropped: Dropped,
    pub trace_state: String,
    pub scope: Scope,
    pub resource: Map<String, Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub name: String,
    pub time_unix_nano: String,
    pub attributes: Map<String, Value>,
}

/// A link with valid ids.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub page: Option<String>,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub attributes: Map<String, Value>,
}

/// The numbers of things that the sender dropped.
#[derive(Debug, Serialize)]
pub struct Dropped {
    pub attributes: u32,
    pub events: u32,
    pub links: u32,
}

#[derive(Debug, Serialize)]
pub struct Scope {
    pub name: String,
    pub version: String,
    pub attributes: Map<String, Value>,
}

fn attributes(attributes: &[KeyValue]) -> Map<String, Value> {
    let value = |attribute: &KeyValue| {
        json(attribute.value.as_ref().and_then(|value| value.value.as_ref()))
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

impl Span {
    /// Describes the span in row `at` of a tree, with those of `logs` that belong to it.
    pub fn new(tree: &Tree, at: usize, logs: &[Arc<LogRecord>], pages: Pages) -> Self {
        let row = &tree.rows[at];
        let span = &row.span;
        let proto = span.proto();
        let own = |segment: &&analysis::Segment| tree.rows[segment.row].span.id == span.id;
        let path = critical_path(tree);
        let children = tree.rows.iter().filter(|it| it.span.parent == Some(span.id));
        let events = proto.events.iter().map(|event| Event {
            name: event.name.clone(),
            time_unix_nano: event.time_unix_nano.to_string(),
            attributes: attributes(&event.attributes),
        });
        let moments = Moments::new(tree, logs);
        let logs = moments.rows[at].iter().filter_map(|moment| match moment {
            Moment::Log(record) => Some(Record::new(record)),
            Moment::Event(_) => None,
        });
        let links = proto.links.iter().filter_map(|link| {
            let place = target(link)?;
            let attributes = attributes(&link.attributes);
            Some(Link { page: pages.span(place), trace_id: place.0, span_id: place.1, attributes })
        });
        let (scope, resource) = (&span.source.scope, &span.source.resource);
        Span {
            untrusted: UNTRUSTED,
            page: pages.span((span.trace_id, span.id)),
            trace_id: span.trace_id,
            span_id: span.id,
            parent_span_id: span.parent,
            child_span_ids: children.map(|row| row.span.id).collect(),
            service: span.service().to_owned(),
            name: span.name().to_owned(),
            kind: span.kind().as_str(),
            status: span.status().as_str(),
            message: span.status_message(),
            start_time_unix_nano: span.start().to_string(),
            duration_nano: span.duration(),
            critical_nano: path.iter().filter(own).map(|it| it.end - it.start).sum(),
            remarks: report::notes(&row.notes()),
            code: Location::read(&proto.attributes),
            attributes: attributes(&proto.attributes),
            events: events.collect(),
            logs: logs.collect(),
            links: links.collect(),
            dropped: Dropped {
                attributes: proto.dropped_attributes_count,
                events: proto.dropped_events_count,
                links: proto.dropped_links_count,
            },
            trace_state: proto.trace_state.clone(),
            scope: Scope {
                name: scope.name.clone(),
                version: scope.version.clone(),
                attributes: attributes(&scope.attributes),
            },
            resource: attributes(&resource.attributes),
        }
    }
}
