//! Keeps the newest traces in memory, within two limits: spans and bytes. The oldest trace goes first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use crate::session::Recorder;
use crate::span::{Source, Span, SpanId, TraceId};
use crate::tree::Tree;

/// What the store holds at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The number of spans.
    pub spans: usize,
    /// Memory that the spans take, by [`Span::size`], and once in each trace their sources.
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
    recorder: Option<Arc<Recorder>>,
}

#[derive(Default)]
struct Inner {
    traces: HashMap<TraceId, Trace>,
    sources: Sources,
    /// By the arrival of each trace's first span.
    order: VecDeque<TraceId>,
    limits: Limits,
    spans: usize,
    bytes: usize,
    evicted: usize,
    evicted_spans: usize,
}

#[derive(Default)]
struct Trace {
    spans: Vec<Arc<Span>>,
    seen: HashSet<SpanId>,
    /// By address: equal ones are the same.
    sources: HashMap<usize, Arc<Source>>,
    bytes: usize,
}

/// Equal sources are kept once, however many requests bring them: by their encoded form.
#[derive(Default)]
struct Sources {
    known: HashMap<Vec<u8>, Weak<Source>>,
    /// When to look for entries that no span uses any more.
    look_at: usize,
}

/// How full the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub traces: usize,
    pub spans: usize,
    /// Memory, as [`Limits`] counts it.
    pub bytes: usize,
    /// Traces that had to make room, and their spans.
    pub evicted: usize,
    pub evicted_spans: usize,
}

impl Store {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Store {
            inner: Arc::new(Mutex::new(Inner {
                limits,
                ..Inner::default()
            })),
            changed: Arc::new(watch::Sender::new(0)),
            recorder: None,
        }
    }

    /// This handle and its later clones also write what is added through them to `recorder`.
    pub fn recorded_by(self, recorder: Recorder) -> Self {
        let recorder = Some(Arc::new(recorder));
        Store { recorder, ..self }
    }

    /// Whether adding writes to a file.
    pub fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// Adds spans to their traces. A span that is there already is left as it is.
    pub fn add(&self, spans: Vec<Span>) {
        if let Some(recorder) = &self.recorder {
            recorder.record(&spans);
        }
        let mut inner = self.lock();
        // Neighbours are of one source.
        let mut last: Option<(Arc<Source>, Arc<Source>)> = None;
        for mut span in spans {
            let (_, kept) = match last.take_if(|(came, _)| Arc::ptr_eq(came, &span.source)) {
                Some(same) => last.insert(same),
                None => {
                    let kept = inner.sources.kept(&span.source);
                    last.insert((Arc::clone(&span.source), kept))
                }
            };
            span.source = Arc::clone(kept);
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

    /// The tree of every trace, the newest first.
    pub fn trees(&self) -> Vec<Tree> {
        let traces = self.traces();
        traces.iter().filter_map(|spans| Tree::new(spans)).collect()
    }

    /// The id of every trace and the number of its spans, the newest first.
    pub fn sizes(&self) -> Vec<(TraceId, usize)> {
        let inner = self.lock();
        let newest_first = inner.order.iter().rev();
        newest_first
            .filter_map(|id| Some((*id, inner.traces.get(id)?.spans.len())))
            .collect()
    }

    /// The spans that are linked to a trace, or to one span of it.
    pub fn linked_to(&self, trace: TraceId, span: Option<SpanId>) -> Vec<Arc<Span>> {
        let inner = self.lock();
        let spans = inner.traces.values().flat_map(|trace| &trace.spans);
        let linked =
            |(to, id): &(TraceId, SpanId)| *to == trace && span.is_none_or(|span| span == *id);
        let found = spans.filter(|span| span.links.iter().any(linked));
        let mut found: Vec<_> = found.cloned().collect();
        found.sort_by_key(|span| (span.start(), span.id));
        found
    }

    /// The number of spans of one trace.
    pub fn spans_of(&self, id: TraceId) -> usize {
        self.lock()
            .traces
            .get(&id)
            .map_or(0, |trace| trace.spans.len())
    }

    /// How full it is now.
    pub fn usage(&self) -> Usage {
        let inner = self.lock();
        Usage {
            traces: inner.traces.len(),
            spans: inner.spans,
            bytes: inner.bytes,
            evicted: inner.evicted,
            evicted_spans: inner.evicted_spans,
        }
    }

    /// How often spans were added.
    pub fn version(&self) -> u64 {
        *self.changed.borrow()
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

impl Sources {
    fn kept(&mut self, source: &Arc<Source>) -> Arc<Source> {
        let key = source.encoded();
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.look_at {
            self.known.retain(|_, source| source.strong_count() > 0);
            self.look_at = 2 * self.known.len() + 64;
        }
        self.known.insert(key, Arc::downgrade(source));
        Arc::clone(source)
    }
}

impl Sources {
    /// Where nobody uses it any more, its key goes too. One that a page is just showing goes at the next look.
    fn forget(&mut self, source: Arc<Source>) {
        if Arc::strong_count(&source) == 1 {
            self.known.remove(&source.encoded());
        }
    }
}

impl Inner {
    fn add(&mut self, span: Span) {
        let trace = self.traces.entry(span.trace_id).or_insert_with(|| {
            self.order.push_back(span.trace_id);
            Trace::default()
        });
        if trace.seen.insert(span.id) {
            let mut bytes = span.size();
            // Traces share sources too: so this is the safe side.
            let address = Arc::as_ptr(&span.source) as usize;
            if let Entry::Vacant(new) = trace.sources.entry(address) {
                bytes += span.source.size();
                new.insert(Arc::clone(&span.source));
            }
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
            self.evicted_spans += trace.spans.len();
            drop(trace.spans);
            for source in trace.sources.into_values() {
                self.sources.forget(source);
            }
        }
    }
}
