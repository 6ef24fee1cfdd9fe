//! Reads OTLP export requests, in protobuf or in JSON, into spans or log records; and writes these as OTLP JSON.

mod item;
mod json;
mod protobuf;

use std::fmt;
use std::sync::Arc;

use crate::proto::collector::ExportTraceServiceRequest;
use crate::proto::common::any_value::Value as Any;
use crate::proto::common::{AnyValue, InstrumentationScope, KeyValue};
use crate::proto::logs::{ResourceLogs, ScopeLogs};
use crate::proto::logs_collector::ExportLogsServiceRequest;
use crate::proto::resource::Resource;
use crate::proto::trace::{ResourceSpans, ScopeSpans};
use prost::DecodeError;
use prost::bytes::Bytes;

use crate::log::LogRecord;
use crate::read::LeftOut;
use crate::read::json::without_halves;
use crate::span::{Flaw, Source, Span, Unfit};

use item::Item;

pub(crate) use protobuf::{Part, has_few_values, has_field};

/// The most spans or log records of one request: as many spans as the store keeps by default.
pub const SPANS_LIMIT: usize = 200_000;

/// The most bytes of sources in one request. A resource counts with each of its scopes, as it is kept with each.
pub(crate) const SOURCES_LIMIT: usize = 16 * 1024 * 1024;

/// Why nothing of a request, or of a line of a file, was taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not an OTLP request in protobuf: {0}")]
    Protobuf(#[from] DecodeError),
    #[error("not an OTLP request in JSON: {0}")]
    Json(serde_json::Error),
    #[error("not an OTLP request in JSON: it isn't UTF-8")]
    NotUtf8,
    /// A line of a file isn't JSON at all.
    #[error("not JSON: {}", without_line(.0))]
    NotJson(serde_json::Error),
    /// Too many documents of a file break off, so the lab no longer looks where one ends.
    #[error(
        "too many documents break off before this line, so from here on only those that end in their line are read"
    )]
    GivenUp,
    /// A message of a file can't be unpacked, for this reason.
    #[error("{0}")]
    Frame(String),
    /// The number of spans of a file whose ids can't be read.
    #[error(
        "the ids of {0} of the spans are neither hexadecimal nor base64: they have other ids here"
    )]
    RenamedIds(usize),
    /// One value can't be read.
    #[error(transparent)]
    LeftOut(LeftOut),
    /// Some spans of a document can't be kept.
    #[error("{}", rejected(.0))]
    Rejected(Rejected),
    #[error("more than {SPANS_LIMIT} {0} in one request")]
    TooMany(Signal),
    #[error("the resources of the request, counted with each of their scopes, are too large")]
    SourcesTooLarge,
    /// No item of a request can be kept: the reason for the first.
    #[error(transparent)]
    Unfit(Unfit),
}

/// A kind of data that OTLP has a request for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Logs,
}

/// Names the items of the signal.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Traces => "spans",
            Signal::Logs => "log records",
        })
    }
}

/// The items of one request, which has one signal: its spans or its log records.
#[derive(Debug)]
pub struct Batch<T = Span> {
    pub items: Vec<T>,
    /// The parts that can't be kept; `None` if there are none.
    pub rejected: Option<Rejected>,
    /// The number of log records that belong to no trace. They are not among the items.
    pub without_trace: usize,
    sources: usize,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch { items: Vec::new(), rejected: None, without_trace: 0, sources: 0 }
    }
}

/// The parts of a request that can't be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The number of spans or log records; 0 where only values are left out of those that are kept.
    pub items: usize,
    /// The first of them, and why.
    pub first: Reason,
}

/// The first part of a request that can't be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error(transparent)]
    Span(#[from] Unfit),
    #[error(transparent)]
    Value(LeftOut),
}

/// The message of an error with the column alone: its line is counted from the beginning of the document.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => format!("{reason}, in column {}", error.column()),
        None => text,
    }
}

fn rejected(Rejected { items, first }: &Rejected) -> String {
    match items {
        0 | 1 => first.to_string(),
        _ => format!("{first} ({} further parts of it can't be kept either)", items - 1),
    }
}

impl<T: Item> Batch<T> {
    fn push(&mut self, item: Result<Option<T>, Unfit>) -> Result<(), Error> {
        match item {
            Ok(Some(item)) => self.items.push(item),
            Ok(None) => self.without_trace += 1,
            Err(first) => {
                let none = Rejected { items: 0, first: first.into() };
                self.rejected.get_or_insert(none).items += 1;
            }
        }
        let rejected = self.rejected.as_ref().map_or(0, |it| it.items);
        match self.items.len() + self.without_trace + rejected > SPANS_LIMIT {
            true => Err(Error::TooMany(T::SIGNAL)),
            false => Ok(()),
        }
    }

    /// Counts a source among those of the request.
    fn count(&mut self, source: &Source) -> Result<(), Error> {
        self.sources += source.size();
        match self.sources > SOURCES_LIMIT {
            true => Err(Error::SourcesTooLarge),
            false => Ok(()),
        }
    }

    /// Makes the source that the spans of one scope share. With a flaw it can't be kept, and neither can its spans.
    fn source(&mut self, source: Source) -> Result<Result<Arc<Source>, Flaw>, Error> {
        self.count(&source)?;
        Ok(source.check().map(|()| Arc::new(source)))
    }

    /// Adds the items of one scope, which `new` makes. The resource stands with its schema.
    fn extend<P>(
        &mut self,
        (resource, resource_schema): &(Resource, Box<str>),
        scope: Option<InstrumentationScope>,
        schema_url: String,
        items: Vec<P>,
        new: impl Fn(P, Arc<Source>) -> Result<Option<T>, Unfit>,
    ) -> Result<(), Error> {
        let source = self.source(Source {
            resource: resource.clone(),
            resource_schema: resource_schema.clone(),
            scope: scope.unwrap_or_default(),
            scope_schema: schema_url.into_boxed_str(),
        })?;
        for item in items {
            self.push(match &source {
                Ok(source) => new(item, Arc::clone(source)),
                Err(flaw) => Err(unfit(flaw)),
            })?;
        }
        Ok(())
    }

    /// A request of which nothing can be taken is refused; of any other, what can be taken is.
    fn finished(self) -> Result<Self, Error> {
        match self.rejected {
            Some(Rejected { first: Reason::Span(first), .. })
                if self.items.is_empty() && self.without_trace == 0 =>
            {
                Err(Error::Unfit(first))
            }
            rejected => Ok(Batch { rejected, ..self }),
        }
    }
}

/// The reason not to keep a span whose source has a flaw.
fn unfit(flaw: &Flaw) -> Unfit {
    Unfit { span: None, flaw: flaw.clone() }
}

/// Reads a request of traces in protobuf.
///
/// # Errors
/// The bytes can't be read, there is too much in them, or none of their spans can be kept.
pub fn from_protobuf(body: Bytes) -> Result<Batch, Error> {
    protobuf::request(&body)
}

/// Does the same for a request of logs.
///
/// # Errors
/// The same as for [`from_protobuf`].
pub fn logs_from_protobuf(body: Bytes) -> Result<Batch<LogRecord>, Error> {
    protobuf::request(&body)
}

/// Reads the JSON form, span by span, also where it is spelled in a way that the specification doesn't allow, as
/// [`read`](crate::read::read) does. A value that can't be read is left out of its span.
///
/// # Errors
/// The text can't be read, there is too much in it, or none of its spans can be kept.
pub fn from_json(body: &[u8]) -> Result<Batch, Error> {
    json(body)
}

/// Does the same for a request of logs.
///
/// # Errors
/// The same as for [`from_json`].
pub fn logs_from_json(body: &[u8]) -> Result<Batch<LogRecord>, Error> {
    json(body)
}

fn json<T: Item>(body: &[u8]) -> Result<Batch<T>, Error> {
    let text = std::str::from_utf8(body).map_err(|_| Error::NotUtf8)?;
    let read = json::request(text);
    let repaired = || without_halves(text);
    match &read {
        Err(Error::Json(_)) => repaired().map_or(read, |text| json::request(&text)),
        _ => read,
    }
}

/// Takes a request that was read elsewhere.
///
/// # Errors
/// There is too much in the request, or none of its spans can be kept.
pub fn from_request(request: ExportTraceServiceRequest) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    for ResourceSpans { resource, scope_spans, schema_url } in request.resource_spans {
        let resource = (resource.unwrap_or_default(), schema_url.into_boxed_str());
        for ScopeSpans { scope, spans, schema_url } in scope_spans {
            batch.extend(&resource, scope, schema_url, spans, |span, source| {
                Span::new(span, source).map(Some)
            })?;
        }
    }
    batch.finished()
}

/// Does the same for a request of logs.
///
/// # Errors
/// The same as for [`from_request`].
pub fn logs_from_request(request: ExportLogsServiceRequest) -> Result<Batch<LogRecord>, Error> {
    let mut batch = Batch::default();
    for ResourceLogs { resource, scope_logs, schema_url } in request.resource_logs {
        let resource = (resource.unwrap_or_default(), schema_url.into_boxed_str());
        for ScopeLogs { scope, log_records, schema_url } in scope_logs {
            batch.extend(&resource, scope, schema_url, log_records, LogRecord::new)?;
        }
    }
    batch.finished()
}

/// Spans as an export request, which OTLP JSON and the files of a session are made of. Neighbours of one source stand
/// together.
pub fn to_request<'a>(spans: impl IntoIterator<Item = &'a Span>) -> ExportTraceServiceRequest {
    let mut resource_spans: Vec<ResourceSpans> = Vec::new();
    let mut last: Option<&Arc<Source>> = None;
    for span in spans {
        if !last.is_some_and(|last| Arc::ptr_eq(last, &span.source)) {
            let source = span.source.as_ref();
            resource_spans.push(ResourceSpans {
                resource: Some(source.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(source.scope.clone()),
                    spans: Vec::new(),
                    schema_url: source.scope_schema.to_string(),
                }],
                schema_url: source.resource_schema.to_string(),
            });
            last = Some(&span.source);
        }
        if let Some(scope_spans) = resource_spans.last_mut().map(|it| &mut it.scope_spans[0]) {
            let mut proto = span.proto();
            let events = proto.events.iter_mut().flat_map(|event| &mut event.attributes);
            let links = proto.links.iter_mut().flat_map(|link| &mut link.attributes);
            all_as_json_can(proto.attributes.iter_mut().chain(events).chain(links));
            scope_spans.spans.push(proto);
        }
    }
    ExportTraceServiceRequest { resource_spans }
}

/// Does the same for log records.
pub fn logs_to_request<'a>(
    records: impl IntoIterator<Item = &'a LogRecord>,
) -> ExportLogsServiceRequest {
    let mut resource_logs: Vec<ResourceLogs> = Vec::new();
    let mut last: Option<&Arc<Source>> = None;
    for record in records {
        if !last.is_some_and(|last| Arc::ptr_eq(last, &record.source)) {
            let source = record.source.as_ref();
            resource_logs.push(ResourceLogs {
                resource: Some(source.resource.clone()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(source.scope.clone()),
                    log_records: Vec::new(),
                    schema_url: source.scope_schema.to_string(),
                }],
                schema_url: source.resource_schema.to_string(),
            });
            last = Some(&record.source);
        }
        if let Some(scope_logs) = resource_logs.last_mut().map(|it| &mut it.scope_logs[0]) {
            let mut proto = record.proto();
            proto.body.iter_mut().for_each(as_json_can);
            all_as_json_can(proto.attributes.iter_mut());
            scope_logs.log_records.push(proto);
        }
    }
    ExportLogsServiceRequest { resource_logs }
}

fn all_as_json_can<'a>(attributes: impl Iterator<Item = &'a mut KeyValue>) {
    attributes.filter_map(|it| it.value.as_mut()).for_each(as_json_can);
}

/// JSON has no number that is none, or infinite: it becomes a text, which is better than nothing.
fn as_json_can(value: &mut AnyValue) {
    match &mut value.value {
        Some(Any::DoubleValue(number)) if !number.is_finite() => {
            value.value = Some(Any::StringValue(number.to_string()));
        }
        Some(Any::ArrayValue(array)) => array.values.iter_mut().for_each(as_json_can),
        Some(Any::KvlistValue(list)) => {
            let values = list.values.iter_mut().filter_map(|pair| pair.value.as_mut());
            values.for_each(as_json_can);
        }
        _ => {}
    }
}
