//! Queues the requests that the receivers have taken, for tasks that send them on to another receiver. The queue has a limit, so neither
//! a sender nor the lab's memory depends on that receiver.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::{Semaphore, watch};
use traces::otlp::Signal;

use crate::intake::{Encoding, Packing};
use crate::store::Store;

/// The most bytes of requests that wait to be sent on, or are being sent.
pub const QUEUE_LIMIT: usize = 16 * 1024 * 1024;

/// The bytes that a request takes besides its body: its place in the queue and an allocation.
const OVERHEAD: usize = 2 * size_of::<Request>() + 64;

/// The path of metrics over HTTP. The lab doesn't keep them, so they have no [`Signal`].
pub(crate) const METRICS: &str = "/v1/metrics";

/// The path of a signal over HTTP.
pub(crate) fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/v1/traces",
        Signal::Logs => "/v1/logs",
    }
}

/// A request of OTLP over HTTP, with its body as it arrived. A message that arrived over gRPC has the same form.
#[derive(Debug)]
pub struct Request {
    /// The path below the base URL of a receiver, such as `/v1/traces`.
    pub path: &'static str,
    pub content_type: &'static str,
    pub content_encoding: Option<&'static str>,
    pub body: Bytes,
}

/// The answer that ended a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The request was accepted without this number of its items.
    Sent { rejected: u64 },
    /// The request was refused with this status and won't be sent again.
    Refused { status: u16 },
}

/// The requests of a queue in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The requests that wait to be sent or are being sent.
    pub waiting: usize,
    pub sent: usize,
    /// The spans, log records and metrics that the other receiver rejected out of requests that it accepted.
    pub rejected_items: u64,
    /// The requests that came when there was no room for them.
    pub dropped: usize,
    pub refused: usize,
    /// The status of the first refused request.
    pub first_refusal: Option<u16>,
}

/// The queue.
pub struct Queue {
    /// The name of the other receiver, for messages: its URL without a path.
    pub name: String,
    state: Mutex<State>,
    /// Has a permit for each request that no task has taken.
    ready: Semaphore,
    /// The version of the store, on which the pages wait.
    version: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    bytes: usize,
    counts: Counts,
}

impl Queue {
    /// Creates an empty queue. The pages of `store` show its counts.
    pub fn new(name: String, store: &Store) -> Self {
        let version = store.versions();
        Queue { name, state: Mutex::default(), ready: Semaphore::new(0), version }
    }

    /// Adds a request, or drops and counts it if it doesn't fit. Prints a warning for the first one dropped.
    pub(crate) fn push(
        &self,
        path: &'static str,
        encoding: Encoding,
        packing: Option<Packing>,
        body: &[u8],
    ) {
        let size = body.len() + OVERHEAD;
        if !self.reserve(size) {
            return;
        }
        let request = Request {
            path,
            content_type: encoding.media_type(),
            content_encoding: packing.map(Packing::name),
            // Without the unused capacity of the buffer that the body was received into.
            body: Bytes::copy_from_slice(body),
        };
        self.lock().requests.push_back(request);
        self.ready.add_permits(1);
    }

    fn reserve(&self, size: usize) -> bool {
        let mut state = self.lock();
        if state.bytes + size <= QUEUE_LIMIT {
            state.bytes += size;
            state.counts.waiting += 1;
            return true;
        }
        state.counts.dropped += 1;
        let is_first = state.counts.dropped == 1;
        drop(state);
        if is_first {
            eprintln!(
                "Warning: the queue for {} is full ({QUEUE_LIMIT} bytes), so some requests are not forwarded: the page /traces \
                 counts them",
                self.name
            );
        }
        false
    }

    /// Waits for the next request. Returns `None` once the queue is closed and empty.
    pub async fn next(&self) -> Option<Request> {
        // A closed semaphore lets everybody pass, so what is left is taken without a permit.
        if let Ok(permit) = self.ready.acquire().await {
            permit.forget();
        }
        self.lock().requests.pop_front()
    }

    /// Counts the outcome of a request, which then no longer takes room. Returns the counts.
    pub fn finish(&self, request: &Request, outcome: Outcome) -> Counts {
        let mut state = self.lock();
        let State { bytes, counts, .. } = &mut *state;
        *bytes -= request.body.len() + OVERHEAD;
        counts.waiting -= 1;
        match outcome {
            Outcome::Sent { rejected } => {
                counts.sent += 1;
                counts.rejected_items = counts.rejected_items.saturating_add(rejected);
            }
            Outcome::Refused { status } => {
                counts.refused += 1;
                counts.first_refusal.get_or_insert(status);
            }
        }
        let counts = *counts;
        drop(state);
        self.version.send_modify(|version| *version += 1);
        counts
    }

    /// Makes [`Queue::next`] wait no longer.
    pub fn close(&self) {
        self.ready.close();
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
