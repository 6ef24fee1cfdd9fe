//! Reads OTLP export requests, in protobuf or in JSON, into spans; and writes spans as OTLP JSON.

mod json;

use std::sync::Arc;

use crate::proto::collector::ExportTraceServiceRequest;
use crate::proto::common::AnyValue;
use crate::proto::common::any_value::Value as Any;
use crate::proto::resource::Resource;
use crate::proto::trace::{ResourceSpans, ScopeSpans};
use prost::bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

use crate::read::LeftOut;
use crate::read::json::without_halves;
use crate::span::{Flaw, Refused, Source, Span, Unfit, VALUES_LIMIT};

/// The most spans of one request: as many as the store keeps by default.
pub const SPANS_LIMIT: usize = 200_000;

/// The most bytes of sources in one request. A resource counts with each of its scopes, as it is kept with each.
const SOURCES_LIMIT: usize = 16 * 1024 * 1024;

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
    let request = Fields::of(&body)?;
    for resource_spans in request.all(1) {
        let resource_spans = Fields::of(resource_spans)?;
        let resource = resource_spans.message::<Resource>(1, Part::Resource)?;
        let resource_schema = resource_spans.text(3);
        for scope_spans in resource_spans.all(2) {
            let scope_spans = Fields::of(scope_spans)?;
            let scope = scope_spans.message(1, Part::Scope)?;
            let few_values = resource.is_some() && scope.is_some();
            let source = batch.source(Source {
                resource: resource.clone().unwrap_or_default(),
                resource_schema: resource_schema.clone(),
                scope: scope.unwrap_or_default(),
                scope_schema: scope_spans.text(3),
            })?;
            let source = source.and_then(|source| match few_values {
                true => Ok(source),
                false => Err(Flaw::TooManyValues),
            });
            for span in scope_spans.all(2) {
                batch.push(match &source {
                    Ok(source) => match Span::decode(span, Arc::clone(source)) {
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

/// A message that consists of fields. They are found again for each question, because a list of them could take many times the
/// memory of the message.
struct Fields<'a>(Unread<'a>);

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Result<Self, DecodeError> {
        Unread(message).try_for_each(|field| field.map(drop))?;
        Ok(Fields(Unread(message)))
    }

    /// The contents of each field with this tag that is a message or a text.
    fn all(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.0.filter_map(Result::ok);
        fields.filter(move |(own, _)| *own == tag).filter_map(|(_, contents)| contents)
    }

    /// The message with this tag, which may be spread over several fields. `None` if it has too many values.
    fn message<M: Message + Default>(
        &self,
        tag: u32,
        part: Part,
    ) -> Result<Option<M>, DecodeError> {
        let mut message = M::default();
        let mut left = VALUES_LIMIT;
        for field in self.all(tag) {
            if !part.fits(field, &mut left, LEVELS) {
                return Ok(None);
            }
            message.merge(field)?;
        }
        Ok(Some(message))
    }

    /// The text with this tag, the last where there are several; empty without one.
    fn text(&self, tag: u32) -> Box<str> {
        let last = self.all(tag).last().unwrap_or_default();
        String::from_utf8_lossy(last).into()
    }
}

/// The fields of a message, one after the other: the tag, and the contents if it is a field of bytes, as messages and texts are.
#[derive(Clone, Copy)]
struct Unread<'a>(&'a [u8]);

impl<'a> Iterator for Unread<'a> {
    type Item = Result<(u32, Option<&'a [u8]>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Unread(rest) = self;
        (!rest.is_empty()).then(|| {
            let (tag, wire_type) = decode_key(rest)?;
            let mut field = *rest;
            skip_field(wire_type, tag, rest, DecodeContext::default())?;
            field = &field[..field.len() - rest.len()];
            Ok((
                tag,
                match wire_type {
                    WireType::LengthDelimited => {
                        decode_varint(&mut field)?;
                        Some(field)
                    }
                    _ => None,
                },
            ))
        })
    }
}

/// How deep messages are nested in what prost decodes.
const LEVELS: usize = 100;

/// Whether a message of protobuf has no more than [`VALUES_LIMIT`] values. Looks at it without decoding it.
pub(crate) fn has_few_values(part: Part, message: &[u8]) -> bool {
    // The shortest value takes two bytes.
    message.len() / 2 <= VALUES_LIMIT || part.fits(message, &mut VALUES_LIMIT.clone(), LEVELS)
}

/// A message within a span, a resource or a scope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Span,
    Resource,
    Scope,
    Event,
    Link,
    Attribute,
    Value,
    List,
    Map,
    Entity,
    Text,
}

impl Part {
    /// Returns the kind of a field of the message, and whether it counts as a value.
    fn field(self, tag: u32) -> Option<(Part, bool)> {
        use Part::{Attribute, Entity, Event, Link, List, Map, Resource, Scope, Span, Text, Value};
        Some(match (self, tag) {
            (Span, 9) | (Event | Scope, 3) | (Link, 4) | (Resource | Map, 1) => (Attribute, true),
            (Span, 11) => (Event, true),
            (Span, 13) => (Link, true),
            (Resource, 3) => (Entity, true),
            (Entity, 3 | 4) => (Text, true),
            (List, 1) => (Value, true),
            (Attribute, 2) => (Value, false),
            (Value, 5) => (List, false),
            (Value, 6) => (Map, false),
            _ => return None,
        })
    }

    /// Whether the message has no more than `left` values, from which it subtracts them. Ignores what can't be read: nothing of
    /// it is kept.
    fn fits(self, message: &[u8], left: &mut usize, levels: usize) -> bool {
        for (tag, contents) in Unread(message).map_while(Result::ok) {
            let Some((contents, (part, counts))) = contents.zip(self.field(tag)) else { continue };
            let Some(rest) = left.checked_sub(usize::from(counts)) else { return false };
            *left = rest;
            if levels > 0 && !part.fits(contents, left, levels - 1) {
                return false;
            }
        }
        true
    }
}

/// Reads the JSON form, span by span, also where it is spelled in a way that the specification doesn't allow, as
/// [`read`](crate::read::read) does. A value that can't be read is left out of its span.
///
/// # Errors
/// The text can't be read, there is too much in it, or none of its spans can be kept.
pub fn from_json(body: &[u8]) -> Result<Batch, Error> {
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
