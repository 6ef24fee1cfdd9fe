//! The list of traces.

use serde::Serialize;

use super::{NAME, Pages, UNTRUSTED, cut, keep};
use crate::span::TraceId;
use crate::summary::Summary;

/// The largest number of services that are named for a trace.
const SERVICES: usize = 5;

/// The document of `lab traces --brief`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    untrusted: &'static str,
    page: Option<String>,
    /// The number of traces that pass the filter.
    found: usize,
    left_out: usize,
    traces: Vec<Listed>,
}

/// A trace in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    page: Option<String>,
    trace_id: TraceId,
    name: String,
    http_status: Option<String>,
    services: Vec<String>,
    services_left_out: usize,
    spans: usize,
    errors: usize,
    pieces: usize,
    whole: bool,
    start_time_unix_nano: String,
    duration_nano: u64,
}

impl Listed {
    fn new(summary: &Summary, pages: Pages) -> Self {
        let services = summary.services.iter();
        Listed {
            page: pages.trace(summary.trace_id),
            trace_id: summary.trace_id,
            name: cut(&summary.name, NAME),
            http_status: summary.http_status.clone(),
            services: services.take(SERVICES).map(|service| cut(service, NAME)).collect(),
            services_left_out: summary.services.len().saturating_sub(SERVICES),
            spans: summary.spans,
            errors: summary.errors,
            pieces: summary.pieces,
            whole: summary.whole,
            start_time_unix_nano: summary.start_time_unix_nano.to_string(),
            duration_nano: summary.duration_nano,
        }
    }
}

impl List {
    /// Lists the first `limit` traces.
    pub fn new(traces: &[Summary], limit: usize, pages: Pages) -> Self {
        let listed = traces.iter().map(|summary| Listed::new(summary, pages));
        let (kept, left_out) = keep(listed, limit, 150_000);
        List {
            untrusted: UNTRUSTED,
            page: pages.list(),
            found: traces.len(),
            left_out,
            traces: kept,
        }
    }
}
