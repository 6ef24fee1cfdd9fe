//! The items that requests of OTLP are made of.

use std::sync::Arc;

use super::Signal;
use crate::log::LogRecord;
use crate::read::json::Json;
use crate::read::otlp;
use crate::read::value::Losses;
use crate::span::{Refused, Source, Span, Unfit, shortened};

/// The item of a signal. In a request, items stand in scopes and these in resources.
pub trait Item: Sized {
    const SIGNAL: Signal;

    /// The names of the lists of resources, of scopes, of scopes before version 1.0, and of items, as [`Json::get`] has them.
    const LISTS: [&str; 4];

    /// Reads an item in protobuf. Returns `None` for one that belongs to no trace.
    fn decode(encoded: &[u8], source: &Arc<Source>) -> Result<Option<Self>, Refused>;

    /// Does the same for one in JSON.
    fn read(json: &Json, losses: &mut Losses, source: &Arc<Source>) -> Result<Option<Self>, Unfit>;

    /// Returns the name of an item in JSON that can't be kept.
    fn name(json: &Json) -> Option<String>;

    fn set_source(&mut self, source: &Arc<Source>);
}

impl Item for Span {
    const SIGNAL: Signal = Signal::Traces;
    const LISTS: [&str; 4] =
        ["resourcespans", "scopespans", "instrumentationlibraryspans", "spans"];

    fn decode(encoded: &[u8], source: &Arc<Source>) -> Result<Option<Self>, Refused> {
        Span::decode(encoded, Arc::clone(source)).map(Some)
    }

    fn read(json: &Json, losses: &mut Losses, source: &Arc<Source>) -> Result<Option<Self>, Unfit> {
        let mut span = otlp::span(json, losses);
        exact_id(json.get("traceid"), &mut span.trace_id);
        exact_id(json.get("spanid"), &mut span.span_id);
        exact_id(json.get("parentspanid"), &mut span.parent_span_id);
        Span::new(span, Arc::clone(source)).map(Some)
    }

    fn name(json: &Json) -> Option<String> {
        Some(shortened(json.get("name").text(), 100))
    }

    fn set_source(&mut self, source: &Arc<Source>) {
        self.source = Arc::clone(source);
    }
}

impl Item for LogRecord {
    const SIGNAL: Signal = Signal::Logs;
    const LISTS: [&str; 4] =
        ["resourcelogs", "scopelogs", "instrumentationlibrarylogs", "logrecords"];

    fn decode(encoded: &[u8], source: &Arc<Source>) -> Result<Option<Self>, Refused> {
        LogRecord::decode(encoded, Arc::clone(source))
    }

    fn read(json: &Json, losses: &mut Losses, source: &Arc<Source>) -> Result<Option<Self>, Unfit> {
        let mut record = otlp::log_record(json, losses);
        exact_id(json.get("traceid"), &mut record.trace_id);
        exact_id(json.get("spanid"), &mut record.span_id);
        LogRecord::new(record, Arc::clone(source))
    }

    fn name(_: &Json) -> Option<String> {
        None
    }

    fn set_source(&mut self, source: &Arc<Source>) {
        self.source = Arc::clone(source);
    }
}

/// Undoes the padding of a short id. In a file it may have lost its leading zeros; in a request it is wrong.
fn exact_id(json: &Json, id: &mut Vec<u8>) {
    let digits = json.text();
    let is_short = digits.len().is_multiple_of(2) && digits.len() / 2 < id.len();
    if is_short && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        id.drain(..id.len() - digits.len() / 2);
    }
}
