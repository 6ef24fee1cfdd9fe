//! Measures how long the operations of services take, over all traces.

use std::collections::BTreeMap;

use crate::compare::pattern;
use crate::span::{Span, SpanKind, shortened};
use crate::store::Store;
use crate::tree::LONGEST;

/// The largest number of operations that are measured. Others are left out.
pub const OPERATIONS_LIMIT: usize = 5_000;

/// The operations by service and name.
#[derive(Debug, Default)]
pub struct Operations {
    pub found: BTreeMap<(String, String), Operation>,
    /// Whether [`OPERATIONS_LIMIT`] left operations out.
    pub is_cut: bool,
}

/// The spans of one operation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// In nanoseconds, the shortest first.
    durations: Vec<u64>,
    /// The number of spans with an error.
    pub errors: usize,
}

impl Operation {
    /// Returns the number of spans.
    pub fn spans(&self) -> usize {
        self.durations.len()
    }

    /// Returns the shortest duration that at least `percent` of 100 spans don't exceed; 0 without a span.
    pub fn percentile(&self, percent: usize) -> u64 {
        let rank = (self.durations.len() * percent).div_ceil(100);
        self.durations.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Whether a span stands for a whole operation of its service: it answers a request, takes a message, or begins a trace.
fn is_operation(span: &Span) -> bool {
    let is_entry = matches!(span.kind(), SpanKind::Server | SpanKind::Consumer);
    (is_entry || span.parent.is_none()) && span.start() > 0 && span.has_ended()
}

impl Operations {
    /// Measures the operations in the traces of the store.
    pub fn new(store: &Store) -> Self {
        let mut operations = Operations::default();
        for spans in store.walk() {
            spans.iter().filter(|span| is_operation(span)).for_each(|span| operations.add(span));
        }
        operations.found.values_mut().for_each(|operation| operation.durations.sort_unstable());
        operations
    }

    fn add(&mut self, span: &Span) {
        let key = (span.service().to_owned(), pattern(&shortened(span.name(), LONGEST)));
        if self.found.len() >= OPERATIONS_LIMIT && !self.found.contains_key(&key) {
            self.is_cut = true;
            return;
        }
        let operation = self.found.entry(key).or_default();
        operation.durations.push(span.duration());
        operation.errors += usize::from(span.is_error());
    }
}
