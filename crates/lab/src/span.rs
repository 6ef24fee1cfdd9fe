//! One received span, with the resource that sent it.

use std::fmt;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span as Proto;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

/// 16 bytes, not all zero; shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, not all zero; shown as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Reads 32 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        let digits = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(hex, 16).ok().filter(|_| digits)?;
        Some(TraceId(number.to_be_bytes()))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span whose ids have been checked. `proto` is what arrived, unchanged.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace_id: TraceId,
    pub id: SpanId,
    /// `None` for a root.
    pub parent: Option<SpanId>,
    pub resource: Arc<Resource>,
    /// The instrumentation scope's name: the library that made the span.
    pub scope: Arc<str>,
    pub proto: Proto,
}

impl Span {
    /// Checks the ids of a received span.
    ///
    /// # Errors
    /// In one sentence, which id is not as long as [OTLP](https://opentelemetry.io/docs/specs/otlp/) says, or all zero.
    pub fn new(proto: Proto, resource: Arc<Resource>, scope: Arc<str>) -> Result<Self, String> {
        let wrong = |which: &str, length: usize| {
            format!(
                "span {:?}: the {which} must be {length} bytes and not all zero",
                proto.name
            )
        };
        let trace_id = bytes(&proto.trace_id).ok_or_else(|| wrong("trace id", 16))?;
        let id = bytes(&proto.span_id).ok_or_else(|| wrong("span id", 8))?;
        let parent = match &proto.parent_span_id[..] {
            [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
            parent => Some(bytes(parent).ok_or_else(|| wrong("parent span id", 8))?),
        };
        Ok(Span {
            trace_id: TraceId(trace_id),
            id: SpanId(id),
            parent: parent.map(SpanId),
            resource,
            scope,
            proto,
        })
    }

    pub fn name(&self) -> &str {
        &self.proto.name
    }

    /// `service.name` of the resource.
    pub fn service(&self) -> &str {
        match find(&self.resource.attributes, "service.name") {
            Some(Value::StringValue(name)) => name,
            _ => "unknown_service",
        }
    }

    /// `SERVER`, `CLIENT`, `INTERNAL`, `PRODUCER`, `CONSUMER` or `UNSPECIFIED`.
    pub fn kind(&self) -> &'static str {
        self.proto
            .kind()
            .as_str_name()
            .trim_start_matches("SPAN_KIND_")
    }

    /// Whether the span came with a kind of its own.
    pub fn has_kind(&self) -> bool {
        self.proto.kind() != SpanKind::Unspecified
    }

    pub fn is_error(&self) -> bool {
        self.status() == StatusCode::Error
    }

    pub fn status(&self) -> StatusCode {
        self.proto
            .status
            .as_ref()
            .map_or(StatusCode::Unset, |status| status.code())
    }

    /// The description that came with the status; often empty.
    pub fn status_message(&self) -> &str {
        self.proto
            .status
            .as_ref()
            .map_or("", |status| &status.message)
    }

    /// The attribute `key`, as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        find(&self.proto.attributes, key).map(text)
    }

    /// The traces that the span is linked to: valid ids alone.
    pub fn links(&self) -> impl Iterator<Item = TraceId> {
        let links = self.proto.links.iter();
        links.filter_map(|link| bytes(&link.trace_id).map(TraceId))
    }

    /// Nanoseconds since 1970.
    pub fn start(&self) -> u64 {
        self.proto.start_time_unix_nano
    }

    /// In nanoseconds; zero where the clock went backwards.
    pub fn duration(&self) -> u64 {
        self.proto.end_time_unix_nano.saturating_sub(self.start())
    }
}

fn bytes<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.as_ref()?.value.as_ref()
}

/// An attribute's value as a person reads it.
pub fn any_text(value: &Option<AnyValue>) -> String {
    value
        .as_ref()
        .and_then(|any| any.value.as_ref())
        .map(text)
        .unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BytesValue(bytes) => format!("{} bytes", bytes.len()),
        Value::StringValueStrindex(index) => format!("string #{index}"),
        Value::ArrayValue(array) => {
            let items: Vec<_> = array
                .values
                .iter()
                .map(|item| any_text(&Some(item.clone())))
                .collect();
            format!("[{}]", items.join(", "))
        }
        Value::KvlistValue(list) => {
            let items: Vec<_> = list
                .values
                .iter()
                .map(|item| format!("{}: {}", item.key, any_text(&item.value)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}
