//! Joins what happened within the spans of a trace: their events and their log records, in the order of time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::log::{LogRecord, Severity};
use crate::proto::common::KeyValue;
use crate::proto::trace::span::Event;
use crate::span::{SpanId, any_text, shared_id};
use crate::tree::Tree;

/// Something that happened within a span.
#[derive(Debug, Clone)]
pub enum Moment {
    /// The span came with it.
    Event(Event),
    /// It came by itself.
    Log(Arc<LogRecord>),
}

/// An exception, as the [conventions](https://opentelemetry.io/docs/specs/semconv/exceptions/) describe it for events and for log
/// records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exception {
    pub r#type: String,
    pub message: String,
    pub stacktrace: Option<String>,
}

impl Exception {
    /// Reads the attributes of an event or a log record. Returns `None` if they don't describe an exception.
    fn read(name: &str, attributes: &[KeyValue]) -> Option<Self> {
        let text = |key: &str| {
            let attribute = attributes.iter().find(|attribute| attribute.key == key);
            attribute.map(|attribute| any_text(&attribute.value))
        };
        let (of_type, message) = (text("exception.type"), text("exception.message"));
        let is_exception = name == "exception" || of_type.is_some() || message.is_some();
        is_exception.then(|| Exception {
            r#type: of_type.unwrap_or_default(),
            message: message.unwrap_or_default(),
            stacktrace: text("exception.stacktrace"),
        })
    }

    /// The exception that a log record describes.
    pub fn of_log(record: &LogRecord) -> Option<Self> {
        let proto = record.proto();
        Exception::read(&proto.event_name, &proto.attributes)
    }
}

impl Moment {
    /// Nanoseconds since 1970; zero where it came without a time.
    pub fn time(&self) -> u64 {
        match self {
            Moment::Event(event) => event.time_unix_nano,
            Moment::Log(record) => record.time(),
        }
    }

    /// How serious it is; `None` for an event, which has no severity.
    pub fn severity(&self) -> Option<Severity> {
        match self {
            Moment::Event(_) => None,
            Moment::Log(record) => Some(record.severity()),
        }
    }

    /// The exception that it describes: an event `exception`, or a log record with the same attributes, which is all that a sender
    /// with `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN=logs` records.
    pub fn exception(&self) -> Option<Exception> {
        match self {
            Moment::Event(event) if event.name == "exception" => {
                Exception::read(&event.name, &event.attributes)
            }
            Moment::Event(_) => None,
            Moment::Log(record) => Exception::of_log(record),
        }
    }
}

/// The moments of a trace.
#[derive(Debug, Default)]
pub struct Moments {
    /// Those of each row of the tree, in the order of time.
    pub rows: Vec<Vec<Moment>>,
    /// The log records of the trace that name no span, or one that never came, likewise.
    pub without_span: Vec<Arc<LogRecord>>,
}

impl Moments {
    /// Gives each log record to its span. Where two sides of a call came with one id, it belongs to that of its service.
    pub fn new(tree: &Tree, logs: &[Arc<LogRecord>]) -> Self {
        let mut moments = Moments::default();
        let mut rows: HashMap<SpanId, Vec<usize>> = HashMap::with_capacity(tree.rows.len());
        for (index, row) in tree.rows.iter().enumerate() {
            let proto = row.span.proto();
            let came_with = shared_id(row.span.id, &proto).unwrap_or(row.span.id);
            rows.entry(came_with).or_default().push(index);
            moments.rows.push(proto.events.into_iter().map(Moment::Event).collect());
        }
        for record in logs.iter().filter(|record| record.trace_id == tree.trace_id) {
            let sides = record.span_id.and_then(|id| rows.get(&id)).map_or(&[][..], Vec::as_slice);
            let own = |row: &&usize| tree.rows[**row].span.service() == record.service();
            match sides.iter().find(own).or(sides.first()) {
                Some(row) => moments.rows[*row].push(Moment::Log(Arc::clone(record))),
                None => moments.without_span.push(Arc::clone(record)),
            }
        }
        moments.rows.iter_mut().for_each(|row| row.sort_by_key(Moment::time));
        moments
    }
}
