//! Keeps the newest traces in memory, within two limits: spans and bytes. The oldest trace goes first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use tokio::sync::watch;

use crate::span::{Span, SpanId, TraceId};

/// What the store holds at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub spans: usize,
    /// Encoded size of all spans, each with its resource.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            spans: 200_000,
            bytes: 256 * 1024 * 1024,
        }
    }
}

/// Shared by the receiver, which writes, and the pages, which read.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Inner {
    traces: HashMap<TraceId, Trace>,
    /// By the arrival of each trace's first span.
    order: VecDeque<TraceId>,
    limits: Limits,
    spans: usize,
    bytes: usize,
    evicted: usize,
}

#[derive(Default)]
struct Trace {
    spans: Vec<Arc<Span>>,
    seen: HashSet<SpanId>,
    bytes: usize,
}

/// How full the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub traces: usize,
    pub spans: usize,
    /// Traces that had to make room.
    pub evicted: usize,
}

impl Store {
    pub fn new(limits: Limits) -> Self {
        Store {
            inner: Arc::new(Mutex::new(Inner {
                limits,
                ..Inner::default()
            })),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Adds spans to their traces. A span that is there already is left as it is.
    pub fn add(&self, spans: Vec<Span>) {
        let mut inner = self.lock();
        for span in spans {
            inner.add(span);
        }
        inner.evict();
        drop(inner);
        self.changed.send_modify(|version| *version += 1);
    }

    /// The spans of one trace, in order of arrival.
    pub fn trace(&self, id: TraceId) -> Option<Vec<Arc<Span>>> {
        self.lock().traces.get(&id).map(|trace| trace.spans.clone())
    }

    /// Every trace, the newest first.
    pub fn traces(&self) -> Vec<Vec<Arc<Span>>> {
        let inner = self.lock();
        let newest_first = inner.order.iter().rev();
        newest_first
            .filter_map(|id| inner.traces.get(id))
            .map(|trace| trace.spans.clone())
            .collect()
    }

    pub fn usage(&self) -> Usage {
        let inner = self.lock();
        Usage {
            traces: inner.traces.len(),
            spans: inner.spans,
            evicted: inner.evicted,
        }
    }

    /// Changes whenever spans were added.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A thread that panicked here left nothing half done that a reader could see: counts at worst.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, span: Span) {
        let trace = self.traces.entry(span.trace_id).or_insert_with(|| {
            self.order.push_back(span.trace_id);
            Trace::default()
        });
        if trace.seen.insert(span.id) {
            // A resource that spans share is counted with each of them: the safe side.
            let bytes = span.proto.encoded_len() + span.resource.encoded_len() + span.scope.len();
            trace.bytes += bytes;
            self.bytes += bytes;
            self.spans += 1;
            trace.spans.push(Arc::new(span));
        }
    }

    fn evict(&mut self) {
        while self.spans > self.limits.spans || self.bytes > self.limits.bytes {
            let Some(trace) = self
                .order
                .pop_front()
                .and_then(|id| self.traces.remove(&id))
            else {
                return;
            };
            self.spans -= trace.spans.len();
            self.bytes -= trace.bytes;
            self.evicted += 1;
        }
    }
}
