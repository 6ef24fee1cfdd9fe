//! Counts what the rules look at, because a report without findings would say nothing otherwise.

use std::collections::BTreeSet;

use super::NamedSpan;
use crate::code::Location;
use crate::conventions;
use crate::exchange::Exchange;
use crate::headers::{Pasted, Valid};
use crate::span::attribute;
use crate::tree::Tree;

/// The contents of a case that the rules look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspected {
    pub traces: usize,
    pub spans: usize,
    pub services: usize,
    /// The number of requests on the wire.
    pub requests: usize,
    /// The valid headers `traceparent` of a text without traces.
    pub headers: Vec<Valid>,
    /// The failure of the request itself, which no rule looks for.
    pub failure: Option<Failure>,
}

/// The failure that the spans with an error tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The deepest span with an error, where the failure began. Of several at the same depth, it is the first to start. Requests
    /// that failed as a whole come before those that recovered.
    pub span: NamedSpan,
    /// Its attribute `error.type`, or else its HTTP status.
    pub error_type: Option<String>,
    /// The description of its status; often empty.
    pub message: String,
    /// The place in the code that made the span.
    pub code: Option<Location>,
    /// The number of spans with an error, in the traces that have the same outcome as that of `span`.
    pub spans: usize,
    /// The number of traces with a span with an error.
    pub traces: usize,
    /// The outcome of the request that `span` belongs to.
    pub outcome: Outcome,
    /// The number of traces with this outcome.
    pub alike: usize,
}

/// How a request with failed spans ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Something failed below, and the request was answered.
    Recovered,
    /// A top span answered with a status from 400 to 499.
    Refused,
    /// A top span has an error, or answered with a status of 500 or above.
    Failed,
}

impl Outcome {
    /// The worst outcome of the trace's top spans.
    pub fn of(tree: &Tree) -> Self {
        let tops = tree.rows.iter().filter(|row| row.parent.is_none());
        let outcomes = tops.map(|top| {
            let status = conventions::status(&top.span.proto());
            match status.and_then(|status| status.parse().ok()) {
                _ if top.span.is_error() => Outcome::Failed,
                Some(500..=u16::MAX) => Outcome::Failed,
                Some(400..500) => Outcome::Refused,
                _ => Outcome::Recovered,
            }
        });
        outcomes.max().unwrap_or(Outcome::Recovered)
    }
}

impl Inspected {
    pub fn new(trees: &[Tree], wire: &[Exchange], headers: &[Pasted]) -> Self {
        let services: BTreeSet<&str> = trees.iter().flat_map(Tree::services).collect();
        let values = headers.iter().flat_map(|it| &it.traceparent);
        Inspected {
            traces: trees.len(),
            spans: trees.iter().map(|tree| tree.rows.len()).sum(),
            services: services.len(),
            requests: wire.len(),
            headers: values.filter_map(|value| Valid::read(value)).collect(),
            failure: Failure::find(trees),
        }
    }
}

impl Failure {
    fn find(trees: &[Tree]) -> Option<Self> {
        let failed = |tree: &&Tree| tree.rows.iter().any(|row| row.span.is_error());
        let failed: Vec<(Outcome, &Tree)> =
            trees.iter().filter(failed).map(|tree| (Outcome::of(tree), tree)).collect();
        let outcome = failed.iter().map(|(outcome, _)| *outcome).max()?;
        let worst = failed.iter().filter(|(it, _)| *it == outcome);
        let rows = worst.clone().flat_map(|(_, tree)| &tree.rows);
        let errors = rows.filter(|row| row.span.is_error());
        let deepest =
            errors.clone().min_by_key(|row| (std::cmp::Reverse(row.depth), row.span.start()))?;
        let proto = deepest.span.proto();
        Some(Failure {
            span: NamedSpan::new(&deepest.span),
            error_type: attribute(&proto, "error.type").or_else(|| conventions::status(&proto)),
            message: deepest.span.status_message(),
            code: Location::read(&proto.attributes),
            spans: errors.count(),
            traces: failed.len(),
            outcome,
            alike: worst.count(),
        })
    }
}
