//! Reads an OTLP export request, in protobuf or in JSON, into spans.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::Value;

use crate::span::Span;

/// Reads the protobuf form.
///
/// # Errors
/// In one sentence, why the bytes cannot be read.
pub fn from_protobuf(body: &[u8]) -> Result<Vec<Span>, String> {
    let request = ExportTraceServiceRequest::decode(body)
        .map_err(|error| format!("not an OTLP trace request in protobuf: {error}"))?;
    spans(request)
}

/// Reads the JSON form, and two habits of exporters in the field that its specification does not allow:
/// enums by name instead of by number, and `null` for a field that has no value.
///
/// # Errors
/// In one sentence, why the text cannot be read.
pub fn from_json(body: &[u8]) -> Result<Vec<Span>, String> {
    let wrong = |error| format!("not an OTLP trace request in JSON: {error}");
    let mut json: Value = serde_json::from_slice(body).map_err(wrong)?;
    normalise(&mut json);
    spans(serde_json::from_value(json).map_err(wrong)?)
}

/// Every span of the request, or none: a request with one bad span is refused whole.
///
/// # Errors
/// In one sentence, what is wrong with a span.
pub fn spans(request: ExportTraceServiceRequest) -> Result<Vec<Span>, String> {
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = Arc::new(resource_spans.resource.unwrap_or_default());
        for scope_spans in resource_spans.scope_spans {
            let scope: Arc<str> = scope_spans.scope.unwrap_or_default().name.into();
            for span in scope_spans.spans {
                spans.push(Span::new(span, Arc::clone(&resource), Arc::clone(&scope))?);
            }
        }
    }
    Ok(spans)
}

fn normalise(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
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
