//! Keeps the newest traces in memory, within a limit on spans and one on bytes. Drops the oldest trace first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use crate::intake::Intake;
use crate::recorder::Recorder;
use traces::shared::{self, Added};
use traces::span::{Source, Span, SpanId, TraceId};
use traces::tree::Tree;

/// The limits of the store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of spans.
    pub spans: usize,
    /// The largest amount of memory in bytes: [`Span::size`] of the spans, and their sources, counted once for each trace.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { spans: 200_000, bytes: 256 * 1024 * 1024 }
    }
}

/// The traces, shared by the receivers, which write, and the pages, which read. Clones share one store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<watch::Sender<u64>>,
    recorder: Option<Arc<Recorder>>,
    intake: Arc<Intake>,
}

#[derive(Default)]
struct Inner {
    traces: HashMap<TraceId, Trace>,
    /// The ids of the traces that link to a trace, by its id.
    links: HashMap<TraceId, HashSet<TraceId>>,
    sources: Sources,
    /// The ids of the traces, in the order in which their first spans arrived.
    order: VecDeque<TraceId>,
    limits: Limits,
    spans: usize,
    bytes: usize,
    evicted: usize,
    evicted_spans: usize,
    repeated: usize,
    refused: Option<Refused>,
}

#[derive(Default)]
struct Trace {
    spans: shared::Trace,
    /// The sources by the address of their allocation. [`Sources`] keeps equal sources in one allocation.
    sources: HashMap<usize, Arc<Source>>,
    /// The traces that its spans link to.
    links: HashSet<TraceId>,
    bytes: usize,
}

/// Interns sources: keeps one allocation for equal sources. The key is the encoded form.
#[derive(Default)]
struct Sources {
    known: HashMap<Vec<u8>, Weak<Source>>,
    /// The number of keys at which to remove those that no span uses.
    sweep_at: usize,
}

/// The current contents of the store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub traces: usize,
    pub spans: usize,
    /// The memory in bytes, counted as in [`Limits::bytes`].
    pub bytes: usize,
    /// The number of traces that were dropped to make room, and of their spans.
    pub evicted: usize,
    pub evicted_spans: usize,
    /// The number of spans that were dropped because the store had them, such as when an exporter tries again.
    pub repeated: usize,
}

/// The requests with spans that the receivers refused, as a whole or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub requests: usize,
    /// The reason for the first.
    pub reason: String,
}

impl Store {
    /// Creates an empty store.
    pub fn new(limits: Limits) -> Self {
        Store {
            inner: Arc::new(Mutex::new(Inner { limits, ..Inner::default() })),
            changed: Arc::new(watch::Sender::new(0)),
            recorder: None,
            intake: Arc::default(),
        }
    }

    /// The limits of what the receivers of this store take in at the same time.
    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Makes this handle and its later clones also write the spans that are added through them to `recorder`.
    pub fn recorded_by(self, recorder: Recorder) -> Self {
        let recorder = Some(Arc::new(recorder));
        Store { recorder, ..self }
    }

    /// Returns whether adding spans writes to a file.
    pub fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// Adds spans to their traces. Drops and counts spans that the store already has. With a recorder, writes the others to its file
    /// before returning.
    pub fn add(&self, spans: Vec<Span>) {
        let mut new = Vec::new();
        let mut inner = self.lock();
        // Neighbouring spans usually have the same source. This is the last one: (received, interned).
        let mut last: Option<(Arc<Source>, Arc<Source>)> = None;
        for mut span in spans {
            let (_, interned) = match last.take_if(|(it, _)| Arc::ptr_eq(it, &span.source)) {
                Some(same) => last.insert(same),
                None => {
                    let interned = inner.sources.intern(&span.source);
                    last.insert((Arc::clone(&span.source), interned))
                }
            };
            span.source = Arc::clone(interned);
            let added = inner.add(span);
            if self.recorder.is_some() {
                new.extend(added);
            }
        }
        inner.evict();
        drop(inner);
        // The pages need not wait for the disk.
        self.changed.send_modify(|version| *version += 1);
        if let Some(recorder) = &self.recorder {
            recorder.record(new.iter().map(AsRef::as_ref));
        }
    }

    /// Returns the spans of one trace in the order of their arrival, or `None` when the store doesn't have the trace. Each has an
    /// id of its own, as [`shared::separate`] makes it.
    pub fn trace(&self, id: TraceId) -> Option<Vec<Arc<Span>>> {
        self.lock().traces.get(&id).map(|trace| trace.spans.spans())
    }

    /// Returns the spans of every trace, the newest trace first.
    pub fn traces(&self) -> Vec<Vec<Arc<Span>>> {
        let inner = self.lock();
        let newest_first = inner.order.iter().rev();
        newest_first
            .filter_map(|id| inner.traces.get(id))
            .map(|trace| trace.spans.spans())
            .collect()
    }

    /// Returns the spans of every trace that the store has now, one trace at a time and the oldest first. Doesn't hold the store
    /// or its spans in the meantime, so a trace that is dropped before its turn is left out.
    pub fn walk(&self) -> impl DoubleEndedIterator<Item = Vec<Arc<Span>>> + Send + use<> + 'static {
        let inner = self.lock();
        let numbers = inner.evicted..inner.evicted + inner.order.len();
        drop(inner);
        let store = self.clone();
        numbers.filter_map(move |number| {
            let inner = store.lock();
            // The oldest trace has the number of those that were dropped before it.
            let id = inner.order.get(number.checked_sub(inner.evicted)?)?;
            inner.traces.get(id).map(|trace| trace.spans.spans())
        })
    }

    /// Returns the tree of every trace, the newest first.
    pub fn trees(&self) -> Vec<Tree> {
        let traces = self.traces();
        traces.iter().filter_map(|spans| Tree::new(spans)).collect()
    }

    /// Returns the id of every trace and how often its spans have changed, the newest trace first.
    pub fn changes_of_traces(&self) -> Vec<(TraceId, usize)> {
        let inner = self.lock();
        let newest_first = inner.order.iter().rev();
        newest_first.filter_map(|id| Some((*id, inner.traces.get(id)?.spans.changes()))).collect()
    }

    /// Returns the spans with a link to a trace, or to one span of it, in the order of their start.
    pub fn linked_to(&self, trace: TraceId, span: Option<SpanId>) -> Vec<Arc<Span>> {
        let inner = self.lock();
        let from = inner.links.get(&trace).into_iter().flatten();
        let traces = from.filter_map(|id| inner.traces.get(id));
        let spans = traces.flat_map(|trace| trace.spans.received());
        let linked =
            |(to, id): &(TraceId, SpanId)| *to == trace && span.is_none_or(|span| span == *id);
        let found = spans.filter(|span| span.links.iter().any(linked));
        let mut found: Vec<_> = found.cloned().collect();
        found.sort_by_key(|span| (span.start(), span.id));
        found
    }

    /// Returns how often the spans of one trace have changed.
    pub fn changes_of(&self, id: TraceId) -> usize {
        self.lock().traces.get(&id).map_or(0, |trace| trace.spans.changes())
    }

    /// Returns the current contents of the store in numbers.
    pub fn usage(&self) -> Usage {
        let inner = self.lock();
        Usage {
            traces: inner.traces.len(),
            spans: inner.spans,
            bytes: inner.bytes,
            evicted: inner.evicted,
            evicted_spans: inner.evicted_spans,
            repeated: inner.repeated,
        }
    }

    /// Counts a request with spans that can't be kept.
    pub fn refuse(&self, reason: impl Display) {
        let mut inner = self.lock();
        let none = || Refused { requests: 0, reason: reason.to_string() };
        inner.refused.get_or_insert_with(none).requests += 1;
    }

    /// Returns the requests with spans that weren't kept, or `None` if there were none.
    pub fn refused(&self) -> Option<Refused> {
        self.lock().refused.clone()
    }

    /// Returns the version of the store: the number of times that spans were added.
    pub fn version(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Returns a receiver of the version, which changes whenever spans are added.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Locks the store. Ignores poisoning: a panic with the lock held leaves at worst a count that is too small.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    /// Returns the allocation that equals `source`, which becomes it when there is none yet.
    fn intern(&mut self, source: &Arc<Source>) -> Arc<Source> {
        let key = source.encoded();
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, source| source.strong_count() > 0);
            self.sweep_at = 2 * self.known.len() + 64;
        }
        self.known.insert(key, Arc::downgrade(source));
        Arc::clone(source)
    }

    /// Removes a source unless something else uses it, such as a page that is being rendered. [`Sources::intern`] removes that
    /// source later.
    fn forget(&mut self, source: Arc<Source>) {
        if Arc::strong_count(&source) == 1 {
            self.known.remove(&source.encoded());
        }
    }
}

impl Inner {
    /// Adds a span unless its trace already has it. Returns the added span.
    fn add(&mut self, span: Span) -> Option<Arc<Span>> {
        let trace = self.traces.entry(span.trace_id).or_insert_with(|| {
            self.order.push_back(span.trace_id);
            Trace::default()
        });
        let span = Arc::new(span);
        let replaced = match trace.spans.add(Arc::clone(&span)) {
            Added::New => 0,
            Added::Instead(span) => span.size(),
            Added::Repeated => {
                self.repeated += 1;
                return None;
            }
        };
        for (to, _) in &span.links {
            if trace.links.insert(*to) {
                self.links.entry(*to).or_default().insert(span.trace_id);
            }
        }
        let mut bytes = span.size();
        // Traces share sources, so this count is too high rather than too low.
        let address = Arc::as_ptr(&span.source) as usize;
        if let Entry::Vacant(new) = trace.sources.entry(address) {
            bytes += span.source.size();
            new.insert(Arc::clone(&span.source));
        }
        trace.bytes = trace.bytes + bytes - replaced;
        self.bytes = self.bytes + bytes - replaced;
        self.spans += usize::from(replaced == 0);
        Some(span)
    }

    fn evict(&mut self) {
        while self.spans > self.limits.spans || self.bytes > self.limits.bytes {
            let Some(id) = self.order.pop_front() else { return };
            let Some(trace) = self.traces.remove(&id) else { continue };
            self.spans -= trace.spans.len();
            self.bytes -= trace.bytes;
            self.evicted += 1;
            self.evicted_spans += trace.spans.len();
            for to in trace.links {
                if let Entry::Occupied(mut from) = self.links.entry(to) {
                    from.get_mut().remove(&id);
                    if from.get().is_empty() {
                        from.remove();
                    }
                }
            }
            drop(trace.spans);
            for source in trace.sources.into_values() {
                self.sources.forget(source);
            }
        }
    }
}
