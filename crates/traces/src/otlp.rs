//! Reads OTLP export requests, in protobuf or in JSON, into spans; and writes spans as OTLP JSON.

use std::fmt;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::span::{Flaw, Refused, Source, Span, Unfit};

/// The most spans of one request: as many as the store keeps by default.
pub const SPANS_LIMIT: usize = 200_000;

/// The most bytes of sources in one request. A resource counts with each of its scopes, as it is kept with each.
const SOURCES_LIMIT: usize = 64 * 1024 * 1024;

/// Why nothing of a request, or of a line of a file, was taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not an OTLP trace request in protobuf: {0}")]
    Protobuf(#[from] DecodeError),
    #[error("not an OTLP trace request in JSON: {0}")]
    Json(serde_json::Error),
    /// A line of a file isn't JSON at all.
    #[error("not JSON: {0}")]
    NotJson(serde_json::Error),
    #[error("more than {SPANS_LIMIT} spans in one request")]
    TooManySpans,
    #[error("the resources of the request, counted with each of their scopes, are too large")]
    SourcesTooLarge,
    /// Spans can't be kept: every span of a request, or some of a line, which gives the reason for the first.
    #[error(transparent)]
    Unfit(Unfit),
}

/// The spans of one request.
#[derive(Debug, Default)]
pub struct Batch {
    pub spans: Vec<Span>,
    /// The spans that can't be kept, where there are any.
    pub rejected: Option<Rejected>,
    sources: usize,
}

/// Spans of a request that can't be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// How many there are.
    pub spans: usize,
    /// The first of them, and why.
    pub first: Unfit,
}

impl Batch {
    fn push(&mut self, span: Result<Span, Unfit>) -> Result<(), Error> {
        match span {
            Ok(span) => self.spans.push(span),
            Err(first) => {
                let none = Rejected { spans: 0, first };
                self.rejected.get_or_insert(none).spans += 1;
            }
        }
        let rejected = self.rejected.as_ref().map_or(0, |it| it.spans);
        match self.spans.len() + rejected > SPANS_LIMIT {
            true => Err(Error::TooManySpans),
            false => Ok(()),
        }
    }

    /// Makes the source that the spans of one scope share. With a flaw it can't be kept, and neither can its spans.
    fn source(
        &mut self,
        resource: &Resource,
        scope: InstrumentationScope,
    ) -> Result<Result<Arc<Source>, Flaw>, Error> {
        let source = Source { resource: resource.clone(), scope };
        self.sources += source.size();
        if self.sources > SOURCES_LIMIT {
            return Err(Error::SourcesTooLarge);
        }
        Ok(source.check().map(|()| Arc::new(source)))
    }

    /// A request of which nothing can be taken is refused; of any other, what can be taken is.
    fn finished(self) -> Result<Self, Error> {
        match self.rejected {
            Some(rejected) if self.spans.is_empty() => Err(Error::Unfit(rejected.first)),
            rejected => Ok(Batch { rejected, ..self }),
        }
    }
}

/// The reason not to keep a span whose source has a flaw.
fn unfit(flaw: &Flaw) -> Unfit {
    Unfit { span: None, flaw: flaw.clone() }
}

/// Reads the protobuf form: `ExportTraceServiceRequest`, field by field and never as a whole, so that a small body
/// that unpacks to many empty spans meets the limit before it fills the memory.
///
/// # Errors
/// The bytes can't be read, there is too much in them, or none of their spans can be kept.
pub fn from_protobuf(body: Bytes) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    let request = fields(body)?;
    for resource_spans in request.of(1) {
        let resource_spans = fields(resource_spans)?;
        let resource = resource_spans.message::<Resource>(1)?;
        for scope_spans in resource_spans.of(2) {
            let scope_spans = fields(scope_spans)?;
            let source = batch.source(&resource, scope_spans.message(1)?)?;
            for span in scope_spans.of(2) {
                batch.push(match &source {
                    Ok(source) => match Span::decode(&span, Arc::clone(source)) {
                        Ok(span) => Ok(span),
                        Err(Refused::Unfit(unfit)) => Err(unfit),
                        Err(Refused::Unreadable(error)) => return Err(error.into()),
                    },
                    Err(flaw) => Err(unfit(flaw)),
                })?;
            }
        }
    }
    batch.finished()
}

/// The fields of a message that are messages themselves, which on the wire are fields of bytes. Where each is, not what
/// is in it: eight bytes for a field of two.
struct Fields {
    message: Bytes,
    places: Vec<(u32, u32)>,
}

fn fields(message: Bytes) -> Result<Fields, DecodeError> {
    let mut rest = message.clone();
    let mut places = Vec::new();
    let mut read = || -> Result<(), DecodeError> {
        while rest.has_remaining() {
            let (tag, wire_type) = decode_key(&mut rest)?;
            if wire_type == WireType::LengthDelimited && tag <= 2 {
                let offset = message.len() - rest.len();
                places.push((tag, u32::try_from(offset).unwrap_or(u32::MAX)));
            }
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        }
        Ok(())
    };
    read()?;
    Ok(Fields { message, places })
}

impl Fields {
    /// The bytes of each field with this tag.
    fn of(&self, tag: u32) -> impl Iterator<Item = Bytes> {
        let places = self.places.iter().filter(move |(own, _)| *own == tag);
        places.map(|(_, offset)| {
            let mut field = self.message.slice(*offset as usize..);
            // It has been skipped once, so it is as long as it says.
            let length = decode_varint(&mut field).unwrap_or_default();
            field.split_to(field.len().min(usize::try_from(length).unwrap_or(usize::MAX)))
        })
    }

    /// The message with this tag, which may be spread over several fields.
    fn message<M: Message + Default>(&self, tag: u32) -> Result<M, DecodeError> {
        let mut message = M::default();
        for field in self.of(tag) {
            message.merge(field)?;
        }
        Ok(message)
    }
}

/// Reads the JSON form, and two habits of exporters in the field that its specification does not allow:
/// enums by name instead of by number, and `null` for a field that has no value.
///
/// # Errors
/// The text can't be read, there is too much in it, or none of its spans can be kept.
pub fn from_json(body: &[u8]) -> Result<Batch, Error> {
    let request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(_) => {
            let mut json: Value = serde_json::from_slice(body).map_err(Error::Json)?;
            normalise(&mut json);
            serde_json::from_value(json).map_err(Error::Json)?
        }
    };
    from_request(request)
}

/// The content of a file, from [`from_json_lines`].
#[derive(Debug, Default)]
pub struct Lines {
    pub spans: Vec<Span>,
    /// The number of documents and lines of which something could not be read.
    pub unread: usize,
    /// The first hundred of them.
    pub problems: Vec<Problem>,
}

/// A part of a file that could not be read.
#[derive(Debug)]
pub struct Problem {
    /// The line in which the document begins, counted from 1.
    pub line: usize,
    pub error: Error,
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.error)
    }
}

/// Reads several requests in JSON one after the other, as a saved session has them: a line each, or laid out for
/// people. What cannot be read does not cost the rest.
pub fn from_json_lines(text: &[u8]) -> Lines {
    /// A text that breaks off in the middle of a document so often is none of documents.
    const UNFINISHED: usize = 1000;
    let mut lines = Lines::default();
    let (mut start, mut line, mut unfinished) = (0, 1, 0);
    while let Some(blank) = text[start..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        line += newlines(&text[start..start + blank]);
        start += blank;
        let rest = &text[start..];
        let mut documents = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        let (length, problem) = match documents.next() {
            Some(Err(error)) => {
                unfinished += usize::from(error.is_eof());
                let end = rest.iter().position(|byte| *byte == b'\n');
                (end.unwrap_or(rest.len()), Some(Error::NotJson(error)))
            }
            _ => {
                let length = documents.byte_offset();
                let problem = match from_json(&rest[..length]) {
                    Ok(batch) => {
                        lines.spans.extend(batch.spans);
                        batch.rejected.map(|rejected| Error::Unfit(rejected.first))
                    }
                    Err(error) => Some(error),
                };
                (length, problem)
            }
        };
        if let Some(error) = problem {
            lines.unread += 1;
            if lines.problems.len() < 100 {
                lines.problems.push(Problem { line, error });
            }
        }
        if unfinished > UNFINISHED {
            break;
        }
        line += newlines(&rest[..length]);
        start += length;
    }
    lines
}

fn newlines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Takes a request that was read elsewhere.
///
/// # Errors
/// There is too much in the request, or none of its spans can be kept.
pub fn from_request(request: ExportTraceServiceRequest) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    for ResourceSpans { resource, scope_spans, .. } in request.resource_spans {
        let resource = resource.unwrap_or_default();
        for ScopeSpans { scope, spans, .. } in scope_spans {
            let source = batch.source(&resource, scope.unwrap_or_default())?;
            for span in spans {
                batch.push(match &source {
                    Ok(source) => Span::new(span, Arc::clone(source)),
                    Err(flaw) => Err(unfit(flaw)),
                })?;
            }
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
            let Source { resource, scope } = span.source.as_ref();
            resource_spans.push(ResourceSpans {
                resource: Some(resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope.clone()),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            });
            last = Some(&span.source);
        }
        if let Some(scope_spans) = resource_spans.last_mut().map(|it| &mut it.scope_spans[0]) {
            let mut proto = span.proto();
            let events = proto.events.iter_mut().flat_map(|event| &mut event.attributes);
            let links = proto.links.iter_mut().flat_map(|link| &mut link.attributes);
            let attributes = proto.attributes.iter_mut().chain(events).chain(links);
            attributes.filter_map(|it| it.value.as_mut()).for_each(as_json_can);
            scope_spans.spans.push(proto);
        }
    }
    ExportTraceServiceRequest { resource_spans }
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

fn normalise(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            // The form that JSON of protobuf has for these.
            if let Some(text) = fields.get("doubleValue").and_then(Value::as_str).map(str::to_owned)
            {
                match text.parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                    Some(number) => fields.insert("doubleValue".to_owned(), number.into()),
                    None => fields.insert("stringValue".to_owned(), text.into()),
                };
            }
            if fields.contains_key("stringValue") {
                fields.remove("doubleValue");
            }
            for (key, value) in fields {
                if let Some(number) = enum_number(key, value) {
                    *value = number.into();
                }
                normalise(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

/// The number of an enum that came by its name: only spans have a `kind`, only statuses a `code`.
fn enum_number(key: &str, value: &Value) -> Option<i32> {
    let name = value.as_str()?;
    match key {
        "kind" => SpanKind::from_str_name(name).map(i32::from),
        "code" => StatusCode::from_str_name(name).map(i32::from),
        _ => None,
    }
}
