//! One received span, with the resource and the library that made it.

use std::fmt;
use std::sync::Arc;

use crate::otlp::Part;
use crate::proto::common::any_value::Value;
use crate::proto::common::{AnyValue, InstrumentationScope, KeyValue};
use crate::proto::resource::Resource;
use crate::proto::trace::Span as Proto;
use crate::proto::trace::span::{Link, SpanKind as ProtoKind};
use crate::proto::trace::status::StatusCode;
use prost::{DecodeError, Message as _};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

pub use crate::traceparent::{SpanId, TraceId};

/// Reads a trace id as people and tools write it: in either case, without its leading zeros, with dashes like a UUID, or
/// after `0x`.
pub fn trace_id(text: &str) -> Option<TraceId> {
    TraceId::parse(&padded::<32>(text)?)
}

/// Reads a span id in the same forms as [`trace_id`].
pub fn span_id(text: &str) -> Option<SpanId> {
    SpanId::parse(&padded::<16>(text)?)
}

fn padded<const DIGITS: usize>(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text).replace('-', "");
    (!digits.is_empty()).then(|| format!("{digits:0>DIGITS$}"))
}

/// The side of a call that a span describes, or its place in a queue, as
/// [OpenTelemetry](https://opentelemetry.io/docs/specs/otel/trace/api/#spankind) defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SpanKind {
    /// The sender gave no kind, or one that this version of OTLP doesn't have.
    Unspecified,
    /// Work within a service.
    Internal,
    /// Answers a request.
    Server,
    /// Sends a request.
    Client,
    /// Puts a message into a queue.
    Producer,
    /// Takes a message from a queue.
    Consumer,
}

impl SpanKind {
    /// The name in OTLP, without its prefix `SPAN_KIND_`: `SERVER`, `CLIENT` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            SpanKind::Unspecified => "UNSPECIFIED",
            SpanKind::Internal => "INTERNAL",
            SpanKind::Server => "SERVER",
            SpanKind::Client => "CLIENT",
            SpanKind::Producer => "PRODUCER",
            SpanKind::Consumer => "CONSUMER",
        }
    }
}

impl From<ProtoKind> for SpanKind {
    fn from(kind: ProtoKind) -> Self {
        match kind {
            ProtoKind::Unspecified => SpanKind::Unspecified,
            ProtoKind::Internal => SpanKind::Internal,
            ProtoKind::Server => SpanKind::Server,
            ProtoKind::Client => SpanKind::Client,
            ProtoKind::Producer => SpanKind::Producer,
            ProtoKind::Consumer => SpanKind::Consumer,
        }
    }
}

impl fmt::Display for SpanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How an operation ended, as
/// [OpenTelemetry](https://opentelemetry.io/docs/specs/otel/trace/api/#set-status) defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Nobody set a status: no error is known.
    Unset,
    /// Somebody decided that the operation succeeded.
    Ok,
    /// The operation failed.
    Error,
}

impl Status {
    /// The name in OTLP, without its prefix `STATUS_CODE_`: `UNSET`, `OK` or `ERROR`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Unset => "UNSET",
            Status::Ok => "OK",
            Status::Error => "ERROR",
        }
    }
}

impl From<StatusCode> for Status {
    fn from(code: StatusCode) -> Self {
        match code {
            StatusCode::Unset => Status::Unset,
            StatusCode::Ok => Status::Ok,
            StatusCode::Error => Status::Error,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The maker of a span or a log record: the resource (the service) and the instrumentation scope (the library). Many share it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Source {
    pub resource: Resource,
    /// The URL of the schema that the resource follows; empty where none was sent.
    pub resource_schema: Box<str>,
    pub scope: InstrumentationScope,
    /// The same for the scope and its spans.
    pub scope_schema: Box<str>,
}

impl Source {
    /// Equal sources have equal bytes.
    pub fn encoded(&self) -> Vec<u8> {
        let mut bytes = self.resource.encode_length_delimited_to_vec();
        bytes.extend(self.scope.encode_length_delimited_to_vec());
        bytes.extend_from_slice(self.resource_schema.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.scope_schema.as_bytes());
        bytes
    }

    /// `service.name` of the resource, or the beginning of a name longer than [`NAME_LIMIT`].
    pub fn service(&self) -> &str {
        match find(&self.resource.attributes, "service.name") {
            Some(Value::StringValue(name)) if !name.is_empty() => beginning(name),
            _ => "unknown_service",
        }
    }

    /// The memory that it takes, in bytes.
    pub fn size(&self) -> usize {
        let attributes = self.resource.attributes.iter().chain(&self.scope.attributes);
        let values = attributes.map(|it| 1 + it.value.as_ref().map_or(0, items)).sum::<usize>();
        // Once as it is, and once encoded: the store's key.
        size_of::<Source>() + size_of::<KeyValue>() * values + 2 * self.encoded().len()
    }

    /// Whether the source can be kept.
    ///
    /// # Errors
    /// An attribute that is too long or nested too deep.
    pub fn check(&self) -> Result<(), Flaw> {
        if self.resource_schema.len().max(self.scope_schema.len()) > TEXT_LIMIT {
            return Err(Flaw::TextTooLong);
        }
        let attributes = self.resource.attributes.iter().chain(&self.scope.attributes);
        check_attributes(attributes, &mut VALUES_LIMIT.clone())
    }
}

/// A span whose ids have been checked. The fields that lists and trees need are at hand; the rest stays encoded as it came,
/// which takes less memory.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace_id: TraceId,
    pub id: SpanId,
    /// `None` for a root.
    pub parent: Option<SpanId>,
    pub source: Arc<Source>,
    /// The traces and spans that its valid links lead to.
    pub links: Box<[(TraceId, SpanId)]>,
    /// Whether it came in Zipkin's form, in which a sound span may have no end.
    pub from_zipkin: bool,
    name: Box<str>,
    start: u64,
    end: u64,
    kind: SpanKind,
    status: Status,
    encoded: Box<[u8]>,
}

impl Span {
    /// Reads one span in protobuf.
    ///
    /// # Errors
    /// The bytes aren't a span; an id doesn't have the length that
    /// [OTLP](https://opentelemetry.io/docs/specs/otlp/) says, or is all zero; a text is too long; or a value is nested too
    /// deep.
    pub fn decode(encoded: &[u8], source: Arc<Source>) -> Result<Self, Refused> {
        if !crate::otlp::has_few_values(Part::Span, encoded) {
            return Err(Unfit { span: None, flaw: Flaw::TooManyValues }.into());
        }
        let proto = Proto::decode(encoded)?;
        Ok(Span::checked(proto, encoded.into(), source)?)
    }

    /// Takes a span that was read in another form than protobuf.
    ///
    /// # Errors
    /// The same as for [`Span::decode`], for a span that could be read.
    pub fn new(proto: Proto, source: Arc<Source>) -> Result<Self, Unfit> {
        let encoded = proto.encode_to_vec().into_boxed_slice();
        Span::checked(proto, encoded, source)
    }

    fn checked(proto: Proto, encoded: Box<[u8]>, source: Arc<Source>) -> Result<Self, Unfit> {
        let unfit = |flaw| Unfit { span: Some(shortened(&proto.name, 100)), flaw };
        let trace_id = bytes(&proto.trace_id).ok_or_else(|| unfit(Flaw::TraceId))?;
        let id = bytes(&proto.span_id).ok_or_else(|| unfit(Flaw::SpanId))?;
        let parent = match &proto.parent_span_id[..] {
            [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
            parent => Some(bytes(parent).ok_or_else(|| unfit(Flaw::ParentSpanId))?),
        };
        check(&proto).map_err(unfit)?;
        Ok(Span {
            trace_id: TraceId(trace_id),
            id: SpanId(id),
            parent: parent.map(SpanId),
            source,
            links: proto.links.iter().filter_map(target).collect(),
            from_zipkin: false,
            start: proto.start_time_unix_nano,
            end: proto.end_time_unix_nano,
            kind: proto.kind().into(),
            status: proto.status.as_ref().map_or(Status::Unset, |status| status.code().into()),
            name: proto.name.into_boxed_str(),
            encoded,
        })
    }

    /// The span with other contents and another source: the same ids, links and times, and what `proto` says otherwise.
    pub fn with(&self, proto: Proto, source: Arc<Source>) -> Self {
        let encoded = proto.encode_to_vec().into_boxed_slice();
        Span { source, name: proto.name.into_boxed_str(), encoded, ..self.clone() }
    }

    /// All that arrived of the span.
    pub fn proto(&self) -> Proto {
        // It has been read before.
        Proto::decode(&self.encoded[..]).unwrap_or_default()
    }

    /// Whether one of these texts is somewhere in the span. Much faster than [`Span::proto`], for spans that are looked at only for
    /// some attributes.
    pub(crate) fn mentions(&self, texts: &[&str]) -> bool {
        (0..self.encoded.len())
            .any(|at| texts.iter().any(|text| self.encoded[at..].starts_with(text.as_bytes())))
    }

    /// The memory that the span takes, in bytes, without its source: what the store counts.
    pub fn size(&self) -> usize {
        /// The entries of the store's tables, and what the allocator adds.
        const OVERHEAD: usize = 96;
        size_of::<Span>()
            + self.name.len()
            + self.encoded.len()
            + size_of_val(&*self.links)
            + OVERHEAD
    }

    /// The name as it came; it may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `service.name` of the resource.
    pub fn service(&self) -> &str {
        self.source.service()
    }

    /// The kind that the sender gave.
    pub fn kind(&self) -> SpanKind {
        self.kind
    }

    /// Whether the status is [`Status::Error`].
    pub fn is_error(&self) -> bool {
        self.status == Status::Error
    }

    /// How the operation ended; `Unset` where the span came without a status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The description that came with the status; often empty.
    pub fn status_message(&self) -> String {
        self.proto().status.unwrap_or_default().message
    }

    /// The attribute `key`, as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.proto(), key)
    }

    /// The id that the span came with, where other spans of its trace have it too: see [`crate::shared`].
    pub fn shared_id(&self) -> Option<SpanId> {
        shared_id(self.id, &self.proto())
    }

    /// The links that don't lead to the span itself.
    pub fn links_to_others(&self) -> impl Iterator<Item = (TraceId, SpanId)> {
        let links = self.links.iter().copied();
        links.filter(|link| !self.is_itself(*link))
    }

    /// Whether a link of the span leads to itself.
    pub fn is_itself(&self, (trace, id): (TraceId, SpanId)) -> bool {
        trace == self.trace_id && id == self.shared_id().unwrap_or(self.id)
    }

    /// Nanoseconds since 1970; zero where the span came without a time.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether the span came with an end. One that hasn't ended yet is sent by a few tools, and some files are cut off.
    pub fn has_ended(&self) -> bool {
        self.start == 0 || self.end != 0
    }

    /// Nanoseconds since 1970; never before the start, and zero where the span came without one. The start of a span that
    /// hasn't ended.
    pub fn end(&self) -> u64 {
        match self.start {
            0 => 0,
            start => self.end.max(start),
        }
    }

    /// In nanoseconds; zero where the clock went backwards.
    pub fn duration(&self) -> u64 {
        self.end() - self.start
    }

    /// Whether the span ends before it starts, because its clock was set back.
    pub fn ends_before_it_starts(&self) -> bool {
        self.has_ended() && self.end < self.start
    }
}

/// The longest text of a span, in bytes: a name, a message, a key or a value. A span that has a longer one is refused.
pub const TEXT_LIMIT: usize = 1024 * 1024;

/// The largest part of a name, in bytes, that lists, maps and findings copy. Many spans share one service or one parent, so copies
/// of a long name would take much more memory than the spans.
pub const NAME_LIMIT: usize = 1024;

/// How deep lists and maps may be nested in a value. JSON, which sessions are saved in, can say no more than this.
pub const DEPTH_LIMIT: usize = 32;

/// The most values of a span, or of a resource: its attributes, events and links, theirs, and the items of lists and maps. A small
/// message can have millions that are empty, and each takes memory when it is read.
pub const VALUES_LIMIT: usize = 50_000;

/// Why [`Span::decode`] didn't take a span, or [`LogRecord::decode`](crate::log::LogRecord::decode) a log record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes aren't that, so nothing of the request around them can be kept.
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
    /// It can't be kept. Its neighbours can.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// A span or a log record that can be read and can't be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The first hundred characters of its name; `None` for a log record, and where the resource or scope that it shares has the
    /// flaw.
    pub span: Option<String>,
    pub flaw: Flaw,
}

impl std::error::Error for Unfit {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.span {
            Some(name) => write!(f, "span {name:?}: {}", self.flaw),
            None => write!(f, "{}", self.flaw),
        }
    }
}

/// A flaw of a span, a log record, a resource or a scope. An attribute is given by the first hundred characters of its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the trace id must be 16 bytes and not all zero")]
    TraceId,
    #[error("the span id must be 8 bytes and not all zero")]
    SpanId,
    #[error("the parent span id must be 8 bytes and not all zero")]
    ParentSpanId,
    #[error("a name or message is longer than {TEXT_LIMIT} bytes")]
    TextTooLong,
    #[error("the attribute {0:?} is longer than {TEXT_LIMIT} bytes")]
    AttributeTooLong(String),
    #[error("the attribute {0:?} is nested deeper than {DEPTH_LIMIT} levels")]
    AttributeTooDeep(String),
    #[error("it has more than {VALUES_LIMIT} attributes, events, links and items of lists")]
    TooManyValues,
}

fn check(proto: &Proto) -> Result<(), Flaw> {
    let message = proto.status.as_ref().map_or("", |status| &status.message);
    let own = [proto.name.as_str(), message, proto.trace_state.as_str()];
    let events = proto.events.iter().map(|event| event.name.as_str());
    if own.into_iter().chain(events).any(|text| text.len() > TEXT_LIMIT) {
        return Err(Flaw::TextTooLong);
    }
    let events = proto.events.iter().flat_map(|event| &event.attributes);
    let links = proto.links.iter().flat_map(|link| &link.attributes);
    let mut left = VALUES_LIMIT.saturating_sub(proto.events.len() + proto.links.len());
    check_attributes(proto.attributes.iter().chain(events).chain(links), &mut left)
}

/// `left` is the number of values that may follow.
pub(crate) fn check_attributes<'a>(
    attributes: impl Iterator<Item = &'a KeyValue>,
    left: &mut usize,
) -> Result<(), Flaw> {
    for attribute in attributes {
        *left = left.checked_sub(1).ok_or(Flaw::TooManyValues)?;
        if attribute.key.len() > TEXT_LIMIT {
            return Err(Flaw::AttributeTooLong(shortened(&attribute.key, 100)));
        }
        check_value(&attribute.key, attribute.value.as_ref(), left)?;
    }
    Ok(())
}

/// Checks the value of an attribute, or of a log record's body.
pub(crate) fn check_value(
    key: &str,
    value: Option<&AnyValue>,
    left: &mut usize,
) -> Result<(), Flaw> {
    let key = || shortened(key, 100);
    let Some(value) = value else { return Ok(()) };
    let length = match &value.value {
        Some(Value::StringValue(text)) => text.len(),
        Some(Value::BytesValue(bytes)) => bytes.len(),
        Some(Value::ArrayValue(_) | Value::KvlistValue(_)) => {
            if !fits(value, DEPTH_LIMIT) {
                return Err(Flaw::AttributeTooDeep(key()));
            }
            *left = left.checked_sub(items(value)).ok_or(Flaw::TooManyValues)?;
            value.encoded_len()
        }
        _ => 0,
    };
    match length > TEXT_LIMIT {
        true => Err(Flaw::AttributeTooLong(key())),
        false => Ok(()),
    }
}

/// Whether the value is nested no deeper than `levels`.
fn fits(value: &AnyValue, levels: usize) -> bool {
    let fits = |value: &AnyValue| levels > 0 && fits(value, levels - 1);
    match &value.value {
        Some(Value::ArrayValue(array)) => array.values.iter().all(fits),
        Some(Value::KvlistValue(list)) => {
            let mut values = list.values.iter().filter_map(|pair| pair.value.as_ref());
            values.all(fits)
        }
        _ => true,
    }
}

/// The number of items in a value and in its items.
fn items(value: &AnyValue) -> usize {
    let more = |value: &AnyValue| 1 + items(value);
    match &value.value {
        Some(Value::ArrayValue(array)) => array.values.iter().map(more).sum(),
        Some(Value::KvlistValue(list)) => {
            list.values.iter().map(|pair| pair.value.as_ref().map_or(1, more)).sum()
        }
        _ => 0,
    }
}

/// The id that a span came with, where it isn't the one that it has now.
pub fn shared_id(id: SpanId, proto: &Proto) -> Option<SpanId> {
    bytes(&proto.span_id).map(SpanId).filter(|came_with| *came_with != id)
}

/// The attribute `key` of a span, as text.
pub fn attribute(proto: &Proto, key: &str) -> Option<String> {
    find(&proto.attributes, key).map(text)
}

/// The trace and the span that a link leads to; nothing where the ids are not valid.
pub fn target(link: &Link) -> Option<(TraceId, SpanId)> {
    Some((TraceId(bytes(&link.trace_id)?), SpanId(bytes(&link.span_id)?)))
}

/// The first characters of a text, and a sign where there are more.
pub fn shortened(text: &str, characters: usize) -> String {
    // Most texts are short, and a character has at least one byte.
    let is_long = text.len() > characters;
    match is_long.then(|| text.char_indices().nth(characters)).flatten() {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns a name, or the beginning of one longer than [`NAME_LIMIT`].
pub(crate) fn beginning(name: &str) -> &str {
    let end = (0..=NAME_LIMIT.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or_default()]
}

/// An id of `N` bytes that is valid.
pub(crate) fn bytes<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

pub(crate) fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.as_ref()?.value.as_ref()
}

/// An attribute's value as a person reads it: a list or a map as JSON, bytes in hexadecimal digits.
pub fn any_text(value: &Option<AnyValue>) -> String {
    let value = value.as_ref().and_then(|any| any.value.as_ref());
    value.map(text).unwrap_or_default()
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BytesValue(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        other => json(Some(other)).to_string(),
    }
}

/// The largest integer up to which a double has every integer. JavaScript and many other readers of JSON take numbers as doubles.
/// [RFC 8259, 6](https://www.rfc-editor.org/rfc/rfc8259#section-6)
pub const EXACT_INTEGER: u64 = (1 << 53) - 1;

/// The value as JSON. A number that JSON doesn't have, such as infinity, becomes a text, and so does an integer past
/// [`EXACT_INTEGER`], as in Jaeger's own answers.
pub fn json(value: Option<&Value>) -> Json {
    let of = |any: Option<&AnyValue>| json(any.and_then(|any| any.value.as_ref()));
    match value {
        None => Json::Null,
        Some(Value::BoolValue(flag)) => (*flag).into(),
        Some(Value::IntValue(number)) if number.unsigned_abs() <= EXACT_INTEGER => (*number).into(),
        Some(Value::DoubleValue(number)) if number.is_finite() => (*number).into(),
        Some(Value::ArrayValue(array)) => array.values.iter().map(|item| of(Some(item))).collect(),
        Some(Value::KvlistValue(list)) => {
            let pairs = list.values.iter();
            Json::Object(pairs.map(|pair| (pair.key.clone(), of(pair.value.as_ref()))).collect())
        }
        Some(Value::StringValueStrindex(index)) => format!("string #{index}").into(),
        Some(text) => self::text(text).into(),
    }
}
