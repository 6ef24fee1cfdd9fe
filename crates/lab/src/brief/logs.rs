//! The log records of a trace: counted by severity, and the most serious of them.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::Serialize;

use super::{NAME, Pages, TEXT, cut, keep};
use crate::span::{SpanId, TraceId};
use traces::log::{LogRecord, Severity};

/// The number of log records of each severity.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    count: usize,
    trace: usize,
    debug: usize,
    info: usize,
    warn: usize,
    error: usize,
    fatal: usize,
    /// Without a severity.
    unspecified: usize,
    /// Those from `WARN` on, the most serious first.
    records: Vec<Record>,
    /// The number of records that aren't listed.
    left_out: usize,
    /// The command that prints all of them.
    command: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    page: Option<String>,
    span_id: Option<SpanId>,
    service: String,
    severity: &'static str,
    time_unix_nano: String,
    body: String,
}

impl Record {
    fn new(record: &LogRecord, pages: Pages) -> Self {
        Record {
            page: match record.span_id {
                Some(span) => pages.span((record.trace_id, span)),
                None => pages.trace(record.trace_id),
            },
            span_id: record.span_id,
            service: cut(record.service(), NAME),
            severity: record.severity().as_str(),
            time_unix_nano: record.time().to_string(),
            body: cut(&record.body(), TEXT),
        }
    }
}

impl Logs {
    /// Describes records that are in the order of time.
    /// `trace` is the only trace that they belong to, if there is one.
    pub fn new<'a>(
        records: impl Iterator<Item = &'a Arc<LogRecord>>,
        trace: Option<TraceId>,
        pages: Pages,
    ) -> Self {
        let records: Vec<&Arc<LogRecord>> = records.collect();
        let count = |severity| records.iter().filter(|it| it.severity() == severity).count();
        let serious = records.iter().filter(|it| it.severity() >= Severity::Warn);
        let mut serious: Vec<_> = serious.collect();
        serious.sort_by_key(|record| Reverse(record.severity()));
        let (kept, _) = keep(serious.iter().map(|record| Record::new(record, pages)), 20, 12_000);
        let left_out = records.len() - kept.len();
        Logs {
            count: records.len(),
            trace: count(Severity::Trace),
            debug: count(Severity::Debug),
            info: count(Severity::Info),
            warn: count(Severity::Warn),
            error: count(Severity::Error),
            fatal: count(Severity::Fatal),
            unspecified: count(Severity::Unspecified),
            left_out,
            command: (left_out > 0).then(|| pages.command_of_logs(trace)),
            records: kept,
        }
    }
}
