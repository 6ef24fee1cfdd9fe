//! One case for a diagnosis: the traces of a request, and what went over the wire. As a file it is OTLP JSON, with the rest
//! in fields that other readers ignore.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnose::{self, Finding, Inspected, NamedSpan};
use crate::exchange::Exchange;
use crate::headers::{self, Pasted};
use crate::log::{LogRecord, Logs};
use crate::otlp;
use crate::read::{self, Contents, Others, Problem, Unreadable};
use crate::shared::Trace;
use crate::span::TraceId;
use crate::tree::Tree;

/// The name of the field that a request of logs has.
const LOGS: &str = "resourceLogs";

/// The names of the fields that other readers ignore.
const WIRE: &str = "wire";
const ELSEWHERE: &str = "requestsElsewhere";
const ZIPKIN: &str = "fromZipkin";

/// Traces, and the requests on the wire that belong to them.
#[derive(Debug, Default)]
pub struct Case {
    /// The earliest first.
    pub trees: Vec<Tree>,
    /// In the order of time.
    pub wire: Vec<Exchange>,
    /// The log records of the traces, and of traces without a span, likewise.
    pub logs: Vec<Arc<LogRecord>>,
    /// A request of each service that has answered some in traces that aren't here, as far as a rule has to know.
    pub elsewhere: Vec<NamedSpan>,
    /// The number of parts of a file that could not be read.
    pub unread: usize,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// The parts of a file that aren't spans of their own.
    pub others: Others,
    /// The headers of a text without traces.
    pub headers: Vec<Pasted>,
    /// Whether that text is JSON of a form that the lab doesn't know.
    pub unknown_json: bool,
}

impl From<Contents> for Case {
    fn from(contents: Contents) -> Self {
        let Contents { spans, logs, wire, elsewhere, unread, problems, others, .. } = contents;
        let mut traces: BTreeMap<_, Trace> = BTreeMap::new();
        for span in spans {
            traces.entry(span.trace_id).or_default().add(Arc::new(span));
        }
        let trees = traces.into_values().filter_map(|trace| Tree::new(&trace.spans()));
        let mut once = Logs::default();
        for record in logs {
            once.add(Arc::new(record));
        }
        let logs = once.iter().cloned().collect();
        Case { logs, elsewhere, unread, problems, others, ..Case::new(trees.collect(), wire) }
    }
}

impl Case {
    pub fn new(mut trees: Vec<Tree>, mut wire: Vec<Exchange>) -> Self {
        trees.sort_by_key(|tree| (tree.start, tree.trace_id));
        wire.sort_by_key(|exchange| exchange.start);
        Case { trees, wire, ..Case::default() }
    }

    /// Reads the traces of a file, in any form that [`read::read`] knows, or else the headers that [`headers::find`] finds in the
    /// text.
    ///
    /// # Errors
    /// The bytes are neither, or nothing of them can be read.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let unreadable = match read::read(bytes) {
            Ok(contents) => return Ok(Case::from(contents)),
            Err(unreadable) => unreadable,
        };
        let text = read::unpack(bytes).ok();
        let text = text.as_deref().and_then(read::text);
        let text = text.filter(|text| unreadable.may_be_headers(text));
        let headers = text.as_deref().map(headers::find).unwrap_or_default();
        if headers.is_empty() {
            // Source code may have an object in a line, or a brace that looks like the beginning of one.
            let is_json = |text: &str| {
                let is_document = text.trim_start().starts_with(['{', '[']);
                is_document && matches!(unreadable, Unreadable::UnknownJson(_))
            };
            let is_code = text.is_some_and(|text| !is_json(&text) && headers::is_made(&text));
            return Err(if is_code { Unreadable::SourceCode } else { unreadable });
        }
        let unknown_json = matches!(unreadable, Unreadable::UnknownJson(_));
        Ok(Case { headers, unknown_json, ..Case::default() })
    }

    /// Runs the rules over the case.
    pub fn findings(&self) -> Vec<Finding> {
        if !self.headers.is_empty() {
            return diagnose::of_headers(&self.headers);
        }
        diagnose::diagnose_part(&self.trees, &self.wire, &self.elsewhere)
    }

    /// Counts what [`Case::findings`] looks at.
    pub fn inspected(&self) -> Inspected {
        Inspected::new(&self.trees, &self.wire, &self.headers)
    }

    /// The case as one document of OTLP JSON.
    ///
    /// # Errors
    /// When a span cannot be written as JSON.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let spans = self.trees.iter().flat_map(|tree| &tree.rows);
        let request = otlp::to_request(spans.map(|row| row.span.as_ref()));
        let mut json = serde_json::to_value(request)?;
        if !self.logs.is_empty() {
            let request = otlp::logs_to_request(self.logs.iter().map(Arc::as_ref));
            json[LOGS] = serde_json::to_value(request.resource_logs)?;
        }
        if !self.wire.is_empty() {
            json[WIRE] = serde_json::to_value(&self.wire)?;
        }
        if !self.elsewhere.is_empty() {
            json[ELSEWHERE] = serde_json::to_value(&self.elsewhere)?;
        }
        let from_zipkin = |tree: &&Tree| tree.rows.iter().any(|row| row.span.from_zipkin);
        let zipkin: Vec<TraceId> =
            self.trees.iter().filter(from_zipkin).map(|tree| tree.trace_id).collect();
        if !zipkin.is_empty() {
            json[ZIPKIN] = serde_json::to_value(zipkin)?;
        }
        serde_json::to_vec(&json)
    }
}
