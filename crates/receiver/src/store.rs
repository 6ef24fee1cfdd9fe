//! Keeps the newest traces in memory, within a limit on spans and one on bytes. Drops the oldest trace first.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::intake::{Intake, Timeouts};
use crate::recorder::Recorder;
use traces::shared::{self, Added};
use traces::span::{Source, Span, SpanId, TraceId};
use traces::tree::Tree;

/// The limits of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of spans.
    pub spans: usize,
    /// The largest amount of memory in bytes: of the spans, of their sources, and of the tables that find them.
    pub bytes: usize,
}

/// The memory of a trace in the store's tables, in bytes: its entry in a hash table that is half full and doubles when it is full, its
/// id in a queue, its start in a tree that is half full, and its list of spans.
const TRACE_OVERHEAD: usize = 5 * size_of::<(TraceId, Trace)>() / 2 + 2 * size_of::<Begun>() + 96;

/// The memory of a trace that another one links to, in bytes: an entry in each of two tables, and a table of its own.
const LINK_OVERHEAD: usize = 400;

/// The memory of a source in its table and for the allocations of its texts, in bytes.
const SOURCE_OVERHEAD: usize = 256;

/// The number of traces that made room whose ids are remembered.
const REMEMBERED: usize = 1000;

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
    by_start: BTreeSet<Begun>,
    limits: Limits,
    spans: usize,
    bytes: usize,
    evicted: usize,
    evicted_spans: usize,
    /// The ids of the last traces that made room.
    evicted_ids: VecDeque<TraceId>,
    /// Whether the warning was printed that a trace is larger than the store.
    has_warned: bool,
    repeated: usize,
    refused: Option<Refused>,
}

/// The start of a trace, as its tree has it, and its number: that of the traces which arrived before it.
type Begun = (u64, usize);

#[derive(Default)]
struct Trace {
    spans: shared::Trace,
    begun: Begun,
    /// The traces that its spans link to.
    links: BTreeSet<TraceId>,
    bytes: usize,
}

/// Interns sources: keeps one allocation for equal sources. The key is the encoded form.
#[derive(Default)]
struct Sources {
    known: HashMap<Vec<u8>, Known>,
    bytes: usize,
}

struct Known {
    source: Arc<Source>,
    /// The number of spans that have it.
    spans: usize,
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
    /// The limits that the contents are within.
    pub limits: Limits,
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

    /// Makes the receivers of this handle and its later clones wait as long as `timeouts` say.
    pub fn received_within(self, timeouts: Timeouts) -> Self {
        Store { intake: Arc::new(Intake::with(timeouts)), ..self }
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
        // Lock before the store has a span: a client that sends it again must not be answered before it is written.
        let writer = self.recorder.as_ref().map(|recorder| recorder.lock());
        let mut new = Vec::new();
        let mut inner = self.lock();
        // Neighbouring spans usually have the same source. This is the last one, as received and interned, and how many spans with it
        // were added.
        let mut last: Option<(Arc<Source>, Arc<Source>, usize)> = None;
        for mut span in spans {
            let (_, interned, added) = match last.take_if(|(it, ..)| Arc::ptr_eq(it, &span.source))
            {
                Some(same) => last.insert(same),
                None => {
                    if let Some((_, interned, added)) = last.take() {
                        inner.sources.hold(&interned, added);
                    }
                    let interned = inner.sources.intern(&span.source);
                    last.insert((Arc::clone(&span.source), interned, 0))
                }
            };
            span.source = Arc::clone(interned);
            if let Some(span) = inner.add(span) {
                *added += 1;
                if writer.is_some() {
                    new.push(span);
                }
            }
        }
        if let Some((_, interned, added)) = last {
            inner.sources.hold(&interned, added);
        }
        let too_large = inner.evict();
        drop(inner);
        // The pages need not wait for the disk.
        self.changed.send_modify(|version| *version += 1);
        if let Some((id, spans)) = too_large {
            eprintln!(
                "Warning: trace {id} is larger than the lab's memory for traces, so its {spans} spans were dropped: \
                 raise --max-spans or --max-bytes"
            );
        }
        if let Some(writer) = writer {
            writer.record(new.iter().map(AsRef::as_ref));
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
        numbers.filter_map(move |number| store.lock().numbered(number))
    }

    /// Returns the spans of every trace that starts no later than `latest`, in nanoseconds since 1970, one trace at a time and the
    /// first to start first. Doesn't hold the store or its spans in the meantime, so it may meet a trace twice that grows then.
    pub fn by_start(&self, latest: u64) -> ByStart {
        let until = Bound::Included((latest, usize::MAX));
        ByStart { store: self.clone(), from: Bound::Unbounded, until }
    }

    /// Returns the first `limit` names of services, in alphabetical order.
    pub fn services(&self, limit: usize) -> BTreeSet<String> {
        let inner = self.lock();
        let sources: Vec<Arc<Source>> =
            inner.sources.known.values().map(|known| Arc::clone(&known.source)).collect();
        drop(inner);
        let mut services = BTreeSet::new();
        for service in sources.iter().map(|source| source.service()) {
            if !services.contains(service) {
                services.insert(service.to_owned());
            }
            if services.len() > limit {
                services.pop_last();
            }
        }
        services
    }

    /// Returns the tree of every trace, the newest first.
    pub fn trees(&self) -> Vec<Tree> {
        let traces = self.traces();
        traces.iter().filter_map(|spans| Tree::new(spans)).collect()
    }

    /// Returns the ids of the traces, the newest trace first.
    pub fn ids(&self) -> Vec<TraceId> {
        self.lock().order.iter().rev().copied().collect()
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
            bytes: inner.held(),
            evicted: inner.evicted,
            evicted_spans: inner.evicted_spans,
            limits: inner.limits,
            repeated: inner.repeated,
        }
    }

    /// Returns whether a trace was in the store and made room. Remembers the last thousand.
    pub fn was_evicted(&self, id: TraceId) -> bool {
        self.lock().evicted_ids.contains(&id)
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

/// The traces of a store by their start: see [`Store::by_start`].
pub struct ByStart {
    store: Store,
    from: Bound<Begun>,
    until: Bound<Begun>,
}

impl Iterator for ByStart {
    type Item = Vec<Arc<Span>>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.store.lock();
        let begun = *inner.by_start.range((self.from, self.until)).next()?;
        self.from = Bound::Excluded(begun);
        inner.numbered(begun.1)
    }
}

impl DoubleEndedIterator for ByStart {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.nth_back(0)
    }

    fn nth_back(&mut self, skip: usize) -> Option<Self::Item> {
        let inner = self.store.lock();
        let begun = *inner.by_start.range((self.from, self.until)).nth_back(skip)?;
        self.until = Bound::Excluded(begun);
        inner.numbered(begun.1)
    }
}

impl Sources {
    /// Returns the allocation that equals `source`, which becomes it when there is none yet.
    fn intern(&mut self, source: &Arc<Source>) -> Arc<Source> {
        let known = self.known.get(&source.encoded());
        Arc::clone(known.map_or(source, |known| &known.source))
    }

    /// Counts further spans that have a source.
    fn hold(&mut self, source: &Arc<Source>, spans: usize) {
        if spans == 0 {
            return;
        }
        let known = self.known.entry(source.encoded()).or_insert_with(|| {
            self.bytes += source.size() + SOURCE_OVERHEAD;
            Known { source: Arc::clone(source), spans: 0 }
        });
        known.spans += spans;
    }

    /// Removes a source when no span has it any more.
    fn release(&mut self, source: &Source, spans: usize) {
        if let Entry::Occupied(mut known) = self.known.entry(source.encoded()) {
            known.get_mut().spans = known.get().spans.saturating_sub(spans);
            if known.get().spans == 0 {
                known.remove();
                self.bytes -= source.size() + SOURCE_OVERHEAD;
            }
        }
    }
}

impl Inner {
    /// Adds a span unless its trace already has it. Returns the added span.
    fn add(&mut self, span: Span) -> Option<Arc<Span>> {
        let trace = self.traces.entry(span.trace_id).or_insert_with(|| {
            let begun = (0, self.evicted + self.order.len());
            self.order.push_back(span.trace_id);
            self.by_start.insert(begun);
            self.bytes += TRACE_OVERHEAD;
            Trace { begun, bytes: TRACE_OVERHEAD, ..Trace::default() }
        });
        let span = Arc::new(span);
        let replaced = match trace.spans.add(Arc::clone(&span)) {
            Added::New => 0,
            Added::Instead(span) => {
                self.sources.release(&span.source, 1);
                span.size()
            }
            Added::Repeated => {
                self.repeated += 1;
                return None;
            }
        };
        let mut bytes = span.size();
        for (to, _) in &span.links {
            if trace.links.insert(*to) {
                bytes += LINK_OVERHEAD;
                self.links.entry(*to).or_default().insert(span.trace_id);
            }
        }
        let start = span.start();
        if start > 0 && (trace.begun.0 == 0 || start < trace.begun.0) {
            self.by_start.remove(&trace.begun);
            trace.begun.0 = start;
            self.by_start.insert(trace.begun);
        }
        trace.bytes = trace.bytes + bytes - replaced;
        self.bytes = self.bytes + bytes - replaced;
        self.spans += usize::from(replaced == 0);
        Some(span)
    }

    /// The spans of the trace with this number. The oldest trace has the number of those that were dropped before it.
    fn numbered(&self, number: usize) -> Option<Vec<Arc<Span>>> {
        let id = self.order.get(number.checked_sub(self.evicted)?)?;
        self.traces.get(id).map(|trace| trace.spans.spans())
    }

    /// The memory that is taken, in bytes.
    fn held(&self) -> usize {
        self.bytes + self.sources.bytes
    }

    /// Drops the oldest traces until the others are within the limits. Returns the first trace ever that was too large on its own,
    /// and the number of its spans.
    fn evict(&mut self) -> Option<(TraceId, usize)> {
        let mut too_large = None;
        while self.spans > self.limits.spans || self.held() > self.limits.bytes {
            let Some(id) = self.order.pop_front() else { break };
            let Some(trace) = self.traces.remove(&id) else { continue };
            let spans = trace.spans.len();
            if self.traces.is_empty() && !self.has_warned {
                self.has_warned = true;
                too_large = Some((id, spans));
            }
            self.by_start.remove(&trace.begun);
            self.spans -= spans;
            self.bytes -= trace.bytes;
            self.evicted += 1;
            self.evicted_spans += spans;
            self.evicted_ids.push_back(id);
            self.evicted_ids.drain(..self.evicted_ids.len().saturating_sub(REMEMBERED));
            for to in trace.links {
                if let Entry::Occupied(mut from) = self.links.entry(to) {
                    from.get_mut().remove(&id);
                    if from.get().is_empty() {
                        from.remove();
                    }
                }
            }
            let mut sources: Vec<&Arc<Source>> =
                trace.spans.received().iter().map(|span| &span.source).collect();
            sources.sort_unstable_by_key(|source| Arc::as_ptr(source));
            for same in sources.chunk_by(|left, right| Arc::ptr_eq(left, right)) {
                self.sources.release(same[0], same.len());
            }
        }
        too_large
    }
}
