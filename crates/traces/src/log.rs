//! One received log record, and the log records of a trace.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prost::Message as _;

use crate::otlp::Part;
use crate::proto::common::any_value::Value;
use crate::proto::logs::LogRecord as Proto;
use crate::span::{
    Flaw, Refused, Source, SpanId, TEXT_LIMIT, TraceId, Unfit, VALUES_LIMIT, any_text, bytes,
    check_attributes, check_value, find, text,
};

/// How serious a log record is: the ranges of
/// [OpenTelemetry](https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber)'s severity numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The sender gave no number, or one that OpenTelemetry doesn't have.
    Unspecified,
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Severity {
    /// Returns the range that a severity number is in.
    pub fn of(number: i32) -> Self {
        match number {
            1..=4 => Severity::Trace,
            5..=8 => Severity::Debug,
            9..=12 => Severity::Info,
            13..=16 => Severity::Warn,
            17..=20 => Severity::Error,
            21..=24 => Severity::Fatal,
            _ => Severity::Unspecified,
        }
    }

    /// The short name in OpenTelemetry, such as `INFO`; empty for [`Severity::Unspecified`].
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Unspecified => "",
            Severity::Trace => "TRACE",
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Warn => "WARN",
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A log record that belongs to a trace. The fields that lists need are at hand; the rest stays encoded as it came.
#[derive(Debug, Clone)]
pub struct LogRecord {
    pub trace_id: TraceId,
    /// `None` where the record belongs to the trace and to none of its spans.
    pub span_id: Option<SpanId>,
    pub source: Arc<Source>,
    severity: Severity,
    time: u64,
    encoded: Box<[u8]>,
}

/// The tag of the trace id in protobuf.
const TRACE_ID: u32 = 9;

impl LogRecord {
    /// Reads one log record in protobuf. Returns `None` for one without a valid trace id, which
    /// [OTLP](https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/logs/v1/logs.proto)
    /// calls a record that is not associated with a trace. An invalid span id counts as absent, likewise.
    ///
    /// # Errors
    /// The bytes aren't a log record, a text is too long, or a value is nested too deep.
    pub fn decode(encoded: &[u8], source: Arc<Source>) -> Result<Option<Self>, Refused> {
        if !crate::otlp::has_field(encoded, TRACE_ID) {
            return Ok(None);
        }
        if !crate::otlp::has_few_values(Part::Log, encoded) {
            return Err(unfit(Flaw::TooManyValues).into());
        }
        let proto = Proto::decode(encoded)?;
        Ok(LogRecord::checked(&proto, encoded.into(), source)?)
    }

    /// Takes a log record that was read in another form than protobuf. Returns `None` for one without a valid trace id.
    ///
    /// # Errors
    /// The same as for [`LogRecord::decode`], for a record that could be read.
    pub fn new(proto: Proto, source: Arc<Source>) -> Result<Option<Self>, Unfit> {
        let encoded = proto.encode_to_vec().into_boxed_slice();
        LogRecord::checked(&proto, encoded, source)
    }

    fn checked(
        proto: &Proto,
        encoded: Box<[u8]>,
        source: Arc<Source>,
    ) -> Result<Option<Self>, Unfit> {
        let Some(trace_id) = bytes(&proto.trace_id).map(TraceId) else { return Ok(None) };
        check(proto).map_err(unfit)?;
        Ok(Some(LogRecord {
            trace_id,
            span_id: bytes(&proto.span_id).map(SpanId),
            source,
            severity: Severity::of(proto.severity_number),
            time: match proto.time_unix_nano {
                0 => proto.observed_time_unix_nano,
                time => time,
            },
            encoded,
        }))
    }

    /// All that arrived of the record.
    pub fn proto(&self) -> Proto {
        // It has been read before.
        Proto::decode(&self.encoded[..]).unwrap_or_default()
    }

    /// The same record with other texts. `proto` is what [`LogRecord::proto`] returned, changed.
    pub(crate) fn with(&self, proto: &Proto, source: Arc<Source>) -> Self {
        LogRecord { source, encoded: proto.encode_to_vec().into(), ..self.clone() }
    }

    /// The memory that the record takes, in bytes, without its source: what the store counts.
    pub fn size(&self) -> usize {
        /// The entry of the store's table, and what the allocator adds.
        const OVERHEAD: usize = 112;
        size_of::<LogRecord>() + self.encoded.len() + OVERHEAD
    }

    /// `service.name` of the resource.
    pub fn service(&self) -> &str {
        self.source.service()
    }

    /// Nanoseconds since 1970 when it happened, or else when it was observed; zero where it came without a time.
    pub fn time(&self) -> u64 {
        self.time
    }

    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The severity in the sender's own words, or else the name of [`LogRecord::severity`]; empty where the record has neither.
    pub fn severity_text(&self) -> String {
        match self.proto().severity_text {
            text if text.is_empty() => self.severity.as_str().to_owned(),
            text => text,
        }
    }

    /// The body as a person reads it: a list or a map as JSON. Empty where the record has none.
    pub fn body(&self) -> String {
        any_text(&self.proto().body)
    }

    /// The name of the event that the record is; empty for a record that is none.
    pub fn event_name(&self) -> String {
        self.proto().event_name
    }

    /// The attribute `key`, as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.proto(), key)
    }

    /// Whether the other one is the same record, such as one that an exporter has sent again.
    fn is(&self, other: &LogRecord) -> bool {
        self.encoded == other.encoded
            && (Arc::ptr_eq(&self.source, &other.source) || self.source == other.source)
    }
}

fn attribute(proto: &Proto, key: &str) -> Option<String> {
    find(&proto.attributes, key).map(text)
}

fn unfit(flaw: Flaw) -> Unfit {
    Unfit { span: None, flaw }
}

fn check(proto: &Proto) -> Result<(), Flaw> {
    let body = match proto.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text.len(),
        _ => 0,
    };
    if body.max(proto.severity_text.len()).max(proto.event_name.len()) > TEXT_LIMIT {
        return Err(Flaw::TextTooLong);
    }
    let mut left = VALUES_LIMIT;
    check_value("body", proto.body.as_ref(), &mut left)?;
    check_attributes(proto.attributes.iter(), &mut left)
}

/// The log records of one trace in order of time, each once.
#[derive(Debug, Default)]
pub struct Logs {
    /// The key is the time and, for equal times, the order of arrival.
    records: BTreeMap<(u64, usize), Arc<LogRecord>>,
}

/// The number of records with the same time that a new one is compared with. Real senders have fewer, and comparing takes time.
const COMPARED: usize = 8;

impl Logs {
    /// The memory of the table of the first record, in bytes. Later ones are counted with [`LogRecord::size`].
    pub const OVERHEAD: usize = 320;

    /// Adds a record. Returns whether it wasn't there before.
    pub fn add(&mut self, record: Arc<LogRecord>) -> bool {
        let time = record.time;
        let mut same_time = self.records.range((time, 0)..=(time, usize::MAX));
        if same_time.by_ref().take(COMPARED).any(|(_, known)| known.is(&record)) {
            return false;
        }
        self.records.insert((time, self.records.len()), record);
        true
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records in order of time.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<LogRecord>> {
        self.records.values()
    }
}
