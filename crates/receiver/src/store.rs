//! Keeps the newest traces and their log records in memory, within limits on spans, on records and on bytes. Drops the oldest
//! trace first.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::forward::Queue;
use crate::intake::{Intake, Timeouts};
use crate::recorder::Recorder;
use traces::log::{LogRecord, Logs};
use traces::shared::{self, Added};
use traces::span::{Source, Span, SpanId, TraceId};
use traces::tree::Tree;

/// The limits of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of spans. The largest number of log records is [`LOGS_PER_SPAN`] times as much.
    pub spans: usize,
    /// The largest amount of memory in bytes: of the spans and log records, of their sources, and of the tables that find them.
    pub bytes: usize,
}

/// The most log records that are kept for each span that may be kept.
pub const LOGS_PER_SPAN: usize = 5;

/// The most log records of one trace. A loop that logs must not push out the traces of others. They also take at most a quarter
/// of the memory.
pub const LOGS_OF_TRACE: usize = 20_000;

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
    forward: Option<Arc<Queue>>,
    intake: Arc<Intake>,
}

#[derive(Default)]
struct Inner {
    traces: HashMap<TraceId, Trace>,
    /// The ids of the traces that link to a trace, by its id.
    links: HashMap<TraceId, HashSet<TraceId>>,
    sources: Sources,
    /// The ids of the traces, in the order in which their first spans or log records arrived.
    order: VecDeque<TraceId>,
    by_start: BTreeSet<Begun>,
    /// The number of ids that have left `order`.
    left: usize,
    limits: Limits,
    spans: usize,
    logs: usize,
    logs_without_trace: usize,
    logs_dropped: usize,
    /// The number of traces that have log records and no span.
    without_span: usize,
    bytes: usize,
    evicted: usize,
    evicted_spans: usize,
    /// The ids of the last traces with spans that made room.
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
    logs: Logs,
    log_bytes: usize,
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
    /// The number of spans and log records that have it.
    users: usize,
}

/// The current contents of the store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The number of traces that have a span.
    pub traces: usize,
    pub spans: usize,
    /// The number of log records that belong to a trace.
    pub logs: usize,
    /// The number of log records that have arrived and belong to no trace. They aren't kept.
    pub logs_without_trace: usize,
    /// The number of log records that weren't kept because their trace had too many.
    pub logs_dropped: usize,
    /// The memory in bytes, counted as in [`Limits::bytes`].
    pub bytes: usize,
    /// The number of traces that were dropped to make room, and of their spans.
    pub evicted: usize,
    pub evicted_spans: usize,
    /// The limits that the contents are within.
    pub limits: Limits,
    /// The number of spans and log records that were dropped because the store had them, such as when an exporter tries again.
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
            forward: None,
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

    /// Makes this handle and its later clones also write the spans and log records that are added through
    /// them to `recorder`.
    pub fn recorded_by(self, recorder: Recorder) -> Self {
        let recorder = Some(Arc::new(recorder));
        Store { recorder, ..self }
    }

    /// Makes the receivers of this handle and its later clones also add the requests that they take to `queue`.
    pub fn forwarded_by(self, queue: Arc<Queue>) -> Self {
        let forward = Some(queue);
        Store { forward, ..self }
    }

    /// Returns the queue of the requests that are sent on.
    pub fn forward(&self) -> Option<&Queue> {
        self.forward.as_deref()
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
        inner.add_all(spans, writer.is_some().then_some(&mut new), Inner::add);
        let too_large = inner.evict();
        drop(inner);
        self.has_changed(too_large);
        if let Some(writer) = writer {
            writer.record(new.iter().map(AsRef::as_ref));
        }
    }

    /// Adds log records to their traces, also before a span of the trace is there. Otherwise does the same as [`Store::add`].
    pub fn add_logs(&self, records: Vec<LogRecord>) {
        if records.is_empty() {
            return;
        }
        let writer = self.recorder.as_ref().map(|recorder| recorder.lock());
        let mut new = Vec::new();
        let mut inner = self.lock();
        inner.add_all(records, writer.is_some().then_some(&mut new), Inner::add_log);
        let too_large = inner.evict();
        drop(inner);
        self.has_changed(too_large);
        if let Some(writer) = writer {
            writer.record_logs(new.iter().map(AsRef::as_ref));
        }
    }

    /// Counts log records that belong to no trace.
    pub fn count_without_trace(&self, records: usize) {
        if records > 0 {
            self.lock().logs_without_trace += records;
        }
    }

    /// Wakes the pages, which need not wait for the disk, and warns of a trace that was too large.
    fn has_changed(&self, too_large: Option<(TraceId, usize)>) {
        self.changed.send_modify(|version| *version += 1);
        if let Some((id, spans)) = too_large {
            eprintln!(
                "Warning: trace {id} is larger than the lab's memory for traces, so its {spans} spans were dropped: \
                 raise --max-spans or --max-bytes"
            );
        }
    }

    /// Returns the log records of one trace in the order of time, also of a trace without a span.
    pub fn logs(&self, id: TraceId) -> Vec<Arc<LogRecord>> {
        let inner = self.lock();
        inner.traces.get(&id).map(|trace| trace.logs.iter().cloned().collect()).unwrap_or_default()
    }

    /// Returns the spans of one trace in the order of their arrival, or `None` when the store has no span of the trace. Each has
    /// an id of its own, as [`shared::separate`] makes it.
    pub fn trace(&self, id: TraceId) -> Option<Vec<Arc<Span>>> {
        self.lock().traces.get(&id).and_then(Trace::spans)
    }

    /// Returns the spans of every trace, the newest trace first.
    pub fn traces(&self) -> Vec<Vec<Arc<Span>>> {
        let inner = self.lock();
        let newest_first = inner.order.iter().rev();
        newest_first.filter_map(|id| inner.traces.get(id)?.spans()).collect()
    }

    /// Returns the spans of every trace that the store has now, one trace at a time and the oldest first. Doesn't hold the store
    /// or its spans in the meantime, so a trace that is dropped before its turn is left out.
    pub fn walk(&self) -> impl DoubleEndedIterator<Item = Vec<Arc<Span>>> + Send + use<> + 'static {
        self.walk_through(Trace::spans)
    }

    /// Does the same for the log records of the traces.
    pub fn walk_logs(
        &self,
    ) -> impl DoubleEndedIterator<Item = Vec<Arc<LogRecord>>> + Send + use<> + 'static {
        self.walk_through(|trace| Some(trace.logs.iter().cloned().collect()))
    }

    fn walk_through<T: 'static>(
        &self,
        pick: fn(&Trace) -> Option<T>,
    ) -> impl DoubleEndedIterator<Item = T> + Send + use<T> + 'static {
        let inner = self.lock();
        let numbers = inner.left..inner.left + inner.order.len();
        drop(inner);
        let store = self.clone();
        numbers.filter_map(move |number| {
            let inner = store.lock();
            inner.numbered(number).and_then(pick)
        })
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

    /// Returns the ids of the traces with a span, the newest trace first.
    pub fn ids(&self) -> Vec<TraceId> {
        let inner = self.lock();
        let newest_first = inner.order.iter().rev();
        let has_spans = |id: &&TraceId| inner.traces.get(id).is_some_and(|it| !it.spans.is_empty());
        newest_first.filter(has_spans).copied().collect()
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

    /// Returns how often the spans and the log records of one trace have changed.
    pub fn changes_of(&self, id: TraceId) -> usize {
        self.lock().traces.get(&id).map_or(0, |trace| trace.spans.changes() + trace.logs.len())
    }

    /// Returns the current contents of the store in numbers.
    pub fn usage(&self) -> Usage {
        let inner = self.lock();
        Usage {
            traces: inner.traces.len() - inner.without_span,
            spans: inner.spans,
            logs: inner.logs,
            logs_without_trace: inner.logs_without_trace,
            logs_dropped: inner.logs_dropped,
            bytes: inner.held(),
            evicted: inner.evicted,
            evicted_spans: inner.evicted_spans,
            limits: inner.limits,
            repeated: inner.repeated,
        }
    }

    /// Removes everything that has arrived, as if the store were new. What is being added at the same time stays.
    pub fn clear(&self) {
        let mut inner = self.lock();
        let Inner { limits, has_warned, left, ref order, .. } = *inner;
        let left = left + order.len();
        let old =
            std::mem::replace(&mut *inner, Inner { limits, has_warned, left, ..Inner::default() });
        drop(inner);
        self.changed.send_modify(|version| *version += 1);
        // Freeing the spans takes long, and nobody has to wait for it with the lock.
        drop(old);
    }

    /// Returns the number of traces that have ever arrived.
    pub fn arrived(&self) -> usize {
        let inner = self.lock();
        inner.left + inner.order.len()
    }

    /// Returns how many traces had arrived before this one, or `None` when the store doesn't have it.
    pub fn arrived_before(&self, id: TraceId) -> Option<usize> {
        self.lock().traces.get(&id).map(|trace| trace.begun.1)
    }

    /// Returns whether spans of a trace were in the store and made room. Remembers the last thousand.
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

    /// The sender of the version.
    pub(crate) fn versions(&self) -> Arc<watch::Sender<u64>> {
        Arc::clone(&self.changed)
    }

    /// Returns the version of the store: the number of times that spans or log records were added, or requests forwarded.
    pub fn version(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Returns a receiver of the version, which changes whenever spans or log records are added, or a request is forwarded.
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
        inner.numbered(begun.1)?.spans()
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
        inner.numbered(begun.1)?.spans()
    }
}

impl Sources {
    /// Returns the allocation that equals `source`, which becomes it when there is none yet.
    fn intern(&mut self, source: &Arc<Source>) -> Arc<Source> {
        let known = self.known.get(&source.encoded());
        Arc::clone(known.map_or(source, |known| &known.source))
    }

    /// Counts further spans or log records that have a source.
    fn hold(&mut self, source: &Arc<Source>, users: usize) {
        if users == 0 {
            return;
        }
        let known = self.known.entry(source.encoded()).or_insert_with(|| {
            self.bytes += source.size() + SOURCE_OVERHEAD;
            Known { source: Arc::clone(source), users: 0 }
        });
        known.users += users;
    }

    /// Removes a source when nothing has it any more.
    fn release(&mut self, source: &Source, users: usize) {
        if let Entry::Occupied(mut known) = self.known.entry(source.encoded()) {
            known.get_mut().users = known.get().users.saturating_sub(users);
            if known.get().users == 0 {
                known.remove();
                self.bytes -= source.size() + SOURCE_OVERHEAD;
            }
        }
    }
}

impl Trace {
    fn spans(&self) -> Option<Vec<Arc<Span>>> {
        (!self.spans.is_empty()).then(|| self.spans.spans())
    }
}

/// A span or a log record, which has a source.
trait Sourced {
    fn source(&mut self) -> &mut Arc<Source>;
}

impl Sourced for Span {
    fn source(&mut self) -> &mut Arc<Source> {
        &mut self.source
    }
}

impl Sourced for LogRecord {
    fn source(&mut self) -> &mut Arc<Source> {
        &mut self.source
    }
}

impl Inner {
    /// Adds items by `add`, each with the allocation of its source that the store has. Puts those that were added into `new`.
    fn add_all<T: Sourced>(
        &mut self,
        items: Vec<T>,
        mut new: Option<&mut Vec<Arc<T>>>,
        add: fn(&mut Self, T) -> Option<Arc<T>>,
    ) {
        // Neighbours usually have the same source. This is the last one, as received and interned, and how many items with it were
        // added.
        let mut last: Option<(Arc<Source>, Arc<Source>, usize)> = None;
        for mut item in items {
            let source = item.source();
            let (_, interned, added) = match last.take_if(|(it, ..)| Arc::ptr_eq(it, source)) {
                Some(same) => last.insert(same),
                None => {
                    if let Some((_, interned, added)) = last.take() {
                        self.sources.hold(&interned, added);
                    }
                    let interned = self.sources.intern(source);
                    last.insert((Arc::clone(source), interned, 0))
                }
            };
            *source = Arc::clone(interned);
            if let Some(item) = add(self, item) {
                *added += 1;
                if let Some(new) = &mut new {
                    new.push(item);
                }
            }
        }
        if let Some((_, interned, added)) = last {
            self.sources.hold(&interned, added);
        }
    }

    /// Returns a trace, which is made if the store doesn't have it.
    fn trace(&mut self, id: TraceId) -> &mut Trace {
        self.traces.entry(id).or_insert_with(|| {
            let begun = (0, self.left + self.order.len());
            self.order.push_back(id);
            self.bytes += TRACE_OVERHEAD;
            self.without_span += 1;
            Trace { begun, bytes: TRACE_OVERHEAD, ..Trace::default() }
        })
    }

    /// Adds a log record unless its trace already has it, or too many. Returns the added record.
    fn add_log(&mut self, record: LogRecord) -> Option<Arc<LogRecord>> {
        let most = self.limits.bytes / 4;
        let trace = self.trace(record.trace_id);
        let first = if trace.logs.is_empty() { Logs::OVERHEAD } else { 0 };
        let bytes = record.size() + first;
        if trace.logs.len() >= LOGS_OF_TRACE || trace.log_bytes + bytes > most {
            self.logs_dropped += 1;
            return None;
        }
        let record = Arc::new(record);
        if !trace.logs.add(Arc::clone(&record)) {
            self.repeated += 1;
            return None;
        }
        trace.log_bytes += bytes;
        trace.bytes += bytes;
        self.bytes += bytes;
        self.logs += 1;
        Some(record)
    }

    /// Adds a span unless its trace already has it. Returns the added span.
    fn add(&mut self, span: Span) -> Option<Arc<Span>> {
        self.trace(span.trace_id);
        let trace = self.traces.get_mut(&span.trace_id)?;
        if trace.spans.is_empty() {
            self.by_start.insert(trace.begun);
            self.without_span -= 1;
        }
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

    /// The trace with this number. The oldest trace has the number of those that were dropped before it.
    fn numbered(&self, number: usize) -> Option<&Trace> {
        let id = self.order.get(number.checked_sub(self.left)?)?;
        self.traces.get(id)
    }

    /// The memory that is taken, in bytes.
    fn held(&self) -> usize {
        self.bytes + self.sources.bytes
    }

    /// Drops the oldest traces until the others are within the limits. Returns the first trace ever that was too large on its own,
    /// and the number of its spans.
    fn evict(&mut self) -> Option<(TraceId, usize)> {
        let mut too_large = None;
        let most_logs = self.limits.spans.saturating_mul(LOGS_PER_SPAN);
        while self.spans > self.limits.spans
            || self.logs > most_logs
            || self.held() > self.limits.bytes
        {
            let Some(id) = self.order.pop_front() else { break };
            self.left += 1;
            let Some(trace) = self.traces.remove(&id) else { continue };
            let spans = trace.spans.len();
            self.by_start.remove(&trace.begun);
            self.spans -= spans;
            self.logs -= trace.logs.len();
            self.bytes -= trace.bytes;
            if spans == 0 {
                self.without_span -= 1;
            } else {
                if self.traces.is_empty() && !self.has_warned {
                    self.has_warned = true;
                    too_large = Some((id, spans));
                }
                self.evicted += 1;
                self.evicted_spans += spans;
                self.evicted_ids.push_back(id);
                self.evicted_ids.drain(..self.evicted_ids.len().saturating_sub(REMEMBERED));
            }
            for to in trace.links {
                if let Entry::Occupied(mut from) = self.links.entry(to) {
                    from.get_mut().remove(&id);
                    if from.get().is_empty() {
                        from.remove();
                    }
                }
            }
            let of_spans = trace.spans.received().iter().map(|span| &span.source);
            let of_logs = trace.logs.iter().map(|record| &record.source);
            let mut sources: Vec<&Arc<Source>> = of_spans.chain(of_logs).collect();
            sources.sort_unstable_by_key(|source| Arc::as_ptr(source));
            for same in sources.chunk_by(|left, right| Arc::ptr_eq(left, right)) {
                self.sources.release(same[0], same.len());
            }
        }
        too_large
    }
}
