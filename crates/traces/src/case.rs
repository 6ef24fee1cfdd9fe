//! One case for a diagnosis: the traces of a request, and what went over the wire. As a file it is OTLP JSON, with the wire
//! in a field that other readers ignore.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::diagnose::{self, Finding, Inspected};
use crate::exchange::Exchange;
use crate::headers::{self, Pasted};
use crate::otlp;
use crate::span::Span;
use crate::tree::Tree;

/// The name of the field with the wire.
const WIRE: &str = "wire";

/// Traces, and the requests on the wire that belong to them.
#[derive(Debug, Default)]
pub struct Case {
    /// The earliest first.
    pub trees: Vec<Tree>,
    /// In the order of time.
    pub wire: Vec<Exchange>,
    /// The parts of a file that could not be read.
    pub problems: Vec<otlp::Problem>,
    /// The headers of a text without traces.
    pub headers: Vec<Pasted>,
}

/// Why there is nothing to look at in a text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no trace in it: it must be OTLP JSON, or a `traceparent`")]
    NoTrace,
    /// Nothing of it could be read: the first problem.
    #[error(transparent)]
    Unreadable(otlp::Problem),
}

impl Case {
    pub fn new(mut trees: Vec<Tree>, mut wire: Vec<Exchange>) -> Self {
        trees.sort_by_key(|tree| (tree.start, tree.trace_id));
        wire.sort_by_key(|exchange| exchange.start);
        Case { trees, wire, ..Case::default() }
    }

    /// Reads OTLP JSON, one document or one per line, or else the headers that [`headers::find`] finds in the text.
    ///
    /// # Errors
    /// The text is neither, or nothing of its JSON can be read.
    pub fn read(text: &[u8]) -> Result<Self, Error> {
        if !text.trim_ascii_start().starts_with(b"{") && !text.trim_ascii_start().starts_with(b"[")
        {
            return Case::of_headers(&String::from_utf8_lossy(text));
        }
        let otlp::Lines { spans, problems, .. } = otlp::from_json_lines(text);
        let mut traces: BTreeMap<_, Vec<Arc<Span>>> = BTreeMap::new();
        // One that was exported twice is one.
        let mut seen = HashSet::new();
        for span in spans {
            if seen.insert((span.trace_id, span.id)) {
                let spans = traces.entry(span.trace_id).or_default();
                spans.push(Arc::new(span));
            }
        }
        let wire = wire(text);
        let mut problems = problems;
        // A log line in JSON, for example.
        if traces.is_empty()
            && wire.is_empty()
            && let Ok(case) = Case::of_headers(&String::from_utf8_lossy(text))
        {
            return Ok(case);
        }
        if traces.is_empty() && wire.is_empty() && !problems.is_empty() {
            return Err(Error::Unreadable(problems.swap_remove(0)));
        }
        let trees = traces.values().filter_map(|spans| Tree::new(spans));
        Ok(Case { problems, ..Case::new(trees.collect(), wire) })
    }

    fn of_headers(text: &str) -> Result<Self, Error> {
        let headers = headers::find(text);
        match headers.is_empty() {
            true => Err(Error::NoTrace),
            false => Ok(Case { headers, ..Case::default() }),
        }
    }

    /// Runs the rules over the case.
    pub fn findings(&self) -> Vec<Finding> {
        match self.headers.is_empty() {
            true => diagnose::diagnose(&self.trees, &self.wire),
            false => diagnose::of_headers(&self.headers),
        }
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
        if !self.wire.is_empty() {
            json[WIRE] = serde_json::to_value(&self.wire)?;
        }
        serde_json::to_vec(&json)
    }
}

/// The exchanges of all documents; what is not one is left out, as an unknown field is.
fn wire(text: &[u8]) -> Vec<Exchange> {
    let documents = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let mut wire = Vec::new();
    for mut document in documents.map_while(Result::ok) {
        let exchanges = document.get_mut(WIRE).map(Value::take);
        wire.extend(
            exchanges
                .and_then(|it| serde_json::from_value::<Vec<Exchange>>(it).ok())
                .into_iter()
                .flatten(),
        );
    }
    wire
}
