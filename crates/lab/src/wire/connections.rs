//! The connections of one proxy: how many there may be, how long they may wait, and how they end when the lab stops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// The limits of each proxy.
#[derive(Debug, Clone, Copy)]
pub struct ProxyLimits {
    /// The largest number of connections. At the limit, a new one takes the place of the one that has waited longest for a request.
    /// If none has waited for `grace`, one that passes unread and has been `quiet` makes room; else the new one is answered 429.
    pub connections: usize,
    /// How long a connection may wait for a request before a new one can take its place.
    pub grace: Duration,
    /// How long no byte must have passed on a connection that passes unread before a new one can take its place.
    pub quiet: Duration,
    /// How long the head of a request may take from its first byte. The client is then answered 408.
    pub head: Duration,
    /// How long a connection may wait for its first or its next request. It is then closed.
    pub idle: Duration,
    /// How long a client may send bytes that nobody reads, or send none, after its service has closed the connection.
    pub linger: Duration,
    /// How long a service may send nothing to a client that has closed its sending side.
    pub half_closed: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        ProxyLimits {
            connections: 250,
            grace: Duration::from_millis(100),
            // Most programs that keep a connection of HTTP/2 or a WebSocket open send something more often.
            quiet: Duration::from_secs(60),
            head: Duration::from_secs(30),
            // Most clients close idle connections within 90 s. Closing later spares them a failed request.
            idle: Duration::from_secs(120),
            linger: Duration::from_secs(30),
            half_closed: Duration::from_secs(300),
        }
    }
}

/// The effects of a proxy's limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// The connections that were answered 429.
    pub refused: usize,
    /// The waiting connections that were closed for new ones.
    pub replaced: usize,
    /// The connections that waited too long for a request.
    pub idle: usize,
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has waited for a request since then.
    Waiting(Instant),
    /// A request is being forwarded, or its answer is awaited.
    Busy,
    /// Everything passes unread.
    Unread,
}

/// The open connections of a proxy.
pub struct Connections {
    limit: usize,
    grace: Duration,
    quiet: Duration,
    open: Mutex<Open>,
    status: watch::Sender<Status>,
}

#[derive(Default)]
struct Open {
    next: u64,
    slots: BTreeMap<u64, Place>,
    counts: Counts,
}

struct Place {
    phase: Phase,
    activity: Activity,
    /// Says that the connection must close.
    close: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Status {
    is_stopping: bool,
    busy: usize,
}

impl Connections {
    pub fn new(limits: ProxyLimits) -> Arc<Self> {
        let ProxyLimits { connections: limit, grace, quiet, .. } = limits;
        let (open, status) = (Mutex::default(), watch::Sender::default());
        Arc::new(Connections { limit, grace, quiet, open, status })
    }

    /// Takes a new connection. When there are too many, closes the one that has waited longest for a request, or that has been quiet
    /// for longest and passes unread. Returns `None` when there is no such connection. The second value is whether the counts have
    /// changed.
    pub fn open(self: &Arc<Self>) -> (Option<Slot>, bool) {
        let mut open = self.lock();
        let is_full = open.slots.len() >= self.limit;
        if is_full {
            let waiting = open.slots.iter().filter_map(|(id, place)| match place.phase {
                Phase::Waiting(since) if since.elapsed() >= self.grace => Some((since, *id)),
                _ => None,
            });
            let quiet = open.slots.iter().filter_map(|(id, place)| match place.phase {
                Phase::Unread => Some((place.activity.last(), *id)),
                Phase::Waiting(_) | Phase::Busy => None,
            });
            let quiet = quiet.min().filter(|(last, _)| last.elapsed() >= self.quiet);
            let Some((_, longest)) = waiting.min().or(quiet) else {
                open.counts.refused += 1;
                return (None, true);
            };
            if let Some(place) = open.slots.remove(&longest) {
                place.close.notify_one();
            }
            open.counts.replaced += 1;
        }
        let (id, close, activity) = (open.next, Arc::new(Notify::new()), Activity::new());
        open.next += 1;
        let (phase, others) = (Phase::Waiting(Instant::now()), (activity.clone(), close.clone()));
        open.slots.insert(id, Place { phase, activity: others.0, close: others.1 });
        drop(open);
        (Some(Slot { connections: Arc::clone(self), id, activity, close }), is_full)
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Takes no new connection and closes those that wait for a request, now and later.
    pub fn stop(&self) {
        self.status.send_modify(|status| status.is_stopping = true);
        for place in self.lock().slots.values() {
            if matches!(place.phase, Phase::Waiting(_)) {
                place.close.notify_one();
            }
        }
    }

    /// Waits for the call of [`Connections::stop`].
    pub async fn stopped(&self) {
        self.wait_for(|status| status.is_stopping).await;
    }

    /// Waits until no request is in flight.
    pub async fn finished(&self) {
        self.wait_for(|status| status.busy == 0).await;
    }

    /// Returns the number of connections with a request in flight.
    pub fn busy(&self) -> usize {
        self.status.borrow().busy
    }

    async fn wait_for(&self, is_reached: impl Fn(&Status) -> bool) {
        // The sender lives as long as this, so the wait can't fail.
        let _ = self.status.subscribe().wait_for(is_reached).await;
    }

    /// Counts a connection that was in the phase `before` and is in the phase `after` now.
    fn count(&self, before: Option<Phase>, after: Option<Phase>) {
        let [before, after] = [before, after].map(|phase| phase == Some(Phase::Busy));
        if before != after {
            self.status.send_modify(|status| match after {
                true => status.busy += 1,
                false => status.busy -= 1,
            });
        }
    }

    /// Locks the state. Ignores poisoning: no change can be interrupted halfway by a panic.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection among those of its proxy.
pub struct Slot {
    connections: Arc<Connections>,
    id: u64,
    activity: Activity,
    close: Arc<Notify>,
}

impl Slot {
    /// Sets the phase of the connection.
    pub fn set(&self, phase: Phase) {
        let mut open = self.connections.lock();
        if let Some(Place { phase: current, close, .. }) = open.slots.get_mut(&self.id) {
            let before = std::mem::replace(current, phase);
            self.connections.count(Some(before), Some(phase));
            if matches!(phase, Phase::Waiting(_)) && self.connections.status.borrow().is_stopping {
                close.notify_one();
            }
        }
    }

    /// Returns when the last bytes passed on the connection.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Waits until the connection must close.
    pub async fn closed(&self) {
        self.close.notified().await;
    }

    /// Counts the connection as one that waited too long for a request.
    pub fn count_idle(&self) {
        self.connections.lock().counts.idle += 1;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        let phase = open.slots.remove(&self.id).map(|place| place.phase);
        self.connections.count(phase, None);
    }
}

/// When the last bytes passed on a connection.
#[derive(Clone)]
pub struct Activity(Arc<Passed>);

struct Passed {
    last: Mutex<Instant>,
    /// Whether the service has stopped reading.
    drops: AtomicBool,
}

impl Activity {
    pub fn new() -> Self {
        let last = Mutex::new(Instant::now());
        Activity(Arc::new(Passed { last, drops: AtomicBool::new(false) }))
    }

    /// Records that bytes have passed.
    pub fn touch(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when bytes passed, or when the connection was opened.
    fn last(&self) -> Instant {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the service has stopped reading.
    pub fn drops(&self) {
        self.0.drops.store(true, Ordering::Relaxed);
    }

    /// Waits until no byte has passed for `limit`.
    pub async fn quiet(&self, limit: Duration) {
        loop {
            let until = self.last() + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Waits until no byte has passed for `limit`, or until bytes were only dropped for as long.
    pub async fn lingered(&self, limit: Duration) {
        let dropped = async {
            tokio::time::sleep(limit).await;
            while !self.0.drops.load(Ordering::Relaxed) {
                tokio::time::sleep(limit).await;
            }
        };
        tokio::select! {
            () = self.quiet(limit) => {}
            () = dropped => {}
        }
    }
}
