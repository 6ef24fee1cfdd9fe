//! Reads OTLP export requests, in protobuf or in JSON, into spans; and writes spans as OTLP JSON.

use std::sync::Arc;

use crate::proto::collector::ExportTraceServiceRequest;
use crate::proto::common::AnyValue;
use crate::proto::common::any_value::Value as Any;
use crate::proto::resource::Resource;
use crate::proto::trace::{ResourceSpans, ScopeSpans};
use prost::bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

use crate::read::{self, LeftOut};
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
    #[error("not an OTLP trace request in JSON: it isn't UTF-8")]
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
    #[error("more than {SPANS_LIMIT} spans in one request")]
    TooManySpans,
    #[error("the resources of the request, counted with each of their scopes, are too large")]
    SourcesTooLarge,
    /// No span of a request can be kept: the reason for the first.
    #[error(transparent)]
    Unfit(Unfit),
}

/// The spans of one request.
#[derive(Debug, Default)]
pub struct Batch {
    pub spans: Vec<Span>,
    /// The parts that can't be kept; `None` if there are none.
    pub rejected: Option<Rejected>,
    sources: usize,
}

/// The parts of a request that can't be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The number of spans; 0 where only values are left out of spans that are kept.
    pub spans: usize,
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

fn rejected(Rejected { spans, first }: &Rejected) -> String {
    match spans {
        0 | 1 => first.to_string(),
        _ => format!("{first} ({} further spans of it can't be kept either)", spans - 1),
    }
}

impl Batch {
    fn push(&mut self, span: Result<Span, Unfit>) -> Result<(), Error> {
        match span {
            Ok(span) => self.spans.push(span),
            Err(first) => {
                let none = Rejected { spans: 0, first: first.into() };
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
    fn source(&mut self, source: Source) -> Result<Result<Arc<Source>, Flaw>, Error> {
        self.sources += source.size();
        if self.sources > SOURCES_LIMIT {
            return Err(Error::SourcesTooLarge);
        }
        Ok(source.check().map(|()| Arc::new(source)))
    }

    /// A request of which nothing can be taken is refused; of any other, what can be taken is.
    fn finished(self) -> Result<Self, Error> {
        match self.rejected {
            Some(Rejected { first: Reason::Span(first), .. }) if self.spans.is_empty() => {
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
        let resource_schema = resource_spans.text(3);
        for scope_spans in resource_spans.of(2) {
            let scope_spans = fields(scope_spans)?;
            let source = batch.source(Source {
                resource: resource.clone(),
                resource_schema: resource_schema.clone(),
                scope: scope_spans.message(1)?,
                scope_schema: scope_spans.text(3),
            })?;
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

/// The fields of a message that are messages themselves or texts, which on the wire are fields of bytes. Where each is, not what
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
            if wire_type == WireType::LengthDelimited && tag <= 3 {
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

    /// The text with this tag, the last where there are several; empty without one.
    fn text(&self, tag: u32) -> Box<str> {
        let last = self.of(tag).last().unwrap_or_default();
        String::from_utf8_lossy(&last).into()
    }
}

/// Reads the JSON form, also where it is spelled in a way that the specification doesn't allow, as
/// [`read`](crate::read::read) does. A value that can't be read is left out of its span.
///
/// # Errors
/// The text can't be read, there is too much in it, or none of its spans can be kept.
pub fn from_json(body: &[u8]) -> Result<Batch, Error> {
    let strict = match serde_json::from_slice(body) {
        Ok(request) => return from_request(request),
        Err(error) => error,
    };
    let text = std::str::from_utf8(body).map_err(|_| Error::NotUtf8)?;
    match read::request(text).map_err(Error::Json)? {
        Some((request, left_out)) => {
            let mut batch = from_request(request)?;
            if let Some(first) = left_out.into_iter().next() {
                let none = Rejected { spans: 0, first: Reason::Value(first) };
                batch.rejected.get_or_insert(none);
            }
            Ok(batch)
        }
        None => Err(Error::Json(strict)),
    }
}

/// Takes a request that was read elsewhere.
///
/// # Errors
/// There is too much in the request, or none of its spans can be kept.
pub fn from_request(request: ExportTraceServiceRequest) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    for ResourceSpans { resource, scope_spans, schema_url } in request.resource_spans {
        let resource = resource.unwrap_or_default();
        let resource_schema = schema_url.into_boxed_str();
        for ScopeSpans { scope, spans, schema_url } in scope_spans {
            let source = batch.source(Source {
                resource: resource.clone(),
                resource_schema: resource_schema.clone(),
                scope: scope.unwrap_or_default(),
                scope_schema: schema_url.into_boxed_str(),
            })?;
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
