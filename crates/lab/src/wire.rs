//! The wire: a proxy in front of each service, which records the headers of every request and breaks them on demand.
//! Without a fault, it forwards every byte unchanged.

mod fault;
mod framing;
mod proxy;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use traces::exchange::Exchange;
use traces::traceparent::{SpanId, TraceId, Traceparent};

pub use fault::{Fault, LATENCY, UnknownFault};

/// The connection from a caller to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    pub name: &'static str,
    /// The caller.
    pub from: &'static str,
    /// The called service, which the proxy is in front of.
    pub to: &'static str,
}

/// The state of a hop, as in `/wire.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct HopState {
    pub hop: String,
    /// The address of its proxy.
    pub address: String,
    /// The name of the fault that is set.
    pub fault: Option<String>,
}

/// The name of a hop is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown hop {name:?}: use one of {}", known.join(", "))]
pub struct UnknownHop {
    pub name: String,
    pub known: Vec<&'static str>,
}

/// The error message of a lab without proxies.
pub const NO_PROXIES: &str = "this lab runs no services to break: in a clone of the book, `cargo run` without `view` starts three";

/// The largest number of recorded exchanges. When it is reached, the oldest is dropped.
pub const EXCHANGES: usize = 1000;

/// The state that all proxies share: the faults that are set and the recorded exchanges.
#[derive(Clone, Default)]
pub struct Wire {
    inner: Arc<Mutex<Inner>>,
    /// Held during an experiment, so that only one runs at a time.
    experiment_lock: Arc<AsyncMutex<()>>,
}

type Faults = BTreeMap<&'static str, Fault>;

#[derive(Default)]
struct Inner {
    /// The hops in order, each with the address of its proxy once it listens.
    hops: Vec<(Hop, Option<SocketAddr>)>,
    faults: Faults,
    /// Replaces `faults` during an experiment.
    experiment: Option<Faults>,
    exchanges: VecDeque<Exchange>,
    /// The number of exchanges that were dropped.
    dropped: usize,
}

impl Wire {
    /// Creates a wire for `hops`, which are shown in this order. [`Wire::serve`] starts their proxies.
    pub fn new(hops: impl IntoIterator<Item = Hop>) -> Self {
        let wire = Wire::default();
        wire.lock().hops = hops.into_iter().map(|hop| (hop, None)).collect();
        wire
    }

    /// Starts the proxy of `hop`, which forwards every connection of `listener` to `target`. Returns the listener's address.
    ///
    /// # Errors
    /// Fails when the listener's address can't be read.
    pub fn serve(
        &self,
        hop: Hop,
        listener: TcpListener,
        target: SocketAddr,
    ) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let mut inner = self.lock();
        match inner.hops.iter_mut().find(|(known, _)| *known == hop) {
            Some((_, listening_at)) => *listening_at = Some(address),
            None => inner.hops.push((hop, Some(address))),
        }
        drop(inner);
        tokio::spawn(proxy::serve(self.clone(), hop, listener, target));
        Ok(address)
    }

    /// Returns the address of a hop's proxy, or `None` when it has none.
    pub fn address(&self, hop: Hop) -> Option<SocketAddr> {
        let inner = self.lock();
        inner.hops.iter().find(|(known, _)| *known == hop)?.1
    }

    /// Finds a hop that has a proxy by its name.
    ///
    /// # Errors
    /// Fails when no such hop has this name. The error lists the known names.
    pub fn hop(&self, name: &str) -> Result<Hop, UnknownHop> {
        let inner = self.lock();
        let served = || inner.hops.iter().filter(|(_, address)| address.is_some());
        let found = served().find(|(hop, _)| hop.name == name);
        found.map(|(hop, _)| *hop).ok_or_else(|| UnknownHop {
            name: name.to_owned(),
            known: served().map(|(hop, _)| hop.name).collect(),
        })
    }

    /// Returns the states of the hops that have a proxy, in order.
    pub fn states(&self) -> Vec<HopState> {
        let inner = self.lock();
        let served = inner.hops.iter().filter_map(|(hop, address)| {
            Some(HopState {
                hop: hop.name.to_owned(),
                address: (*address)?.to_string(),
                fault: inner.faults.get(hop.name).map(|fault| fault.name()),
            })
        });
        served.collect()
    }

    /// Sets the fault of a hop, or restores the hop with `None`. Doesn't affect requests in flight.
    pub fn set(&self, hop: Hop, fault: Option<Fault>) {
        let mut inner = self.lock();
        match fault {
            Some(fault) => inner.faults.insert(hop.name, fault),
            None => inner.faults.remove(hop.name),
        };
    }

    /// Applies only this fault until the returned guard is dropped. The faults that are set apply again after that. Waits for
    /// the end of other experiments first.
    pub async fn begin_experiment(&self, hop: Hop, fault: Option<Fault>) -> ExperimentGuard {
        let lock = Arc::clone(&self.experiment_lock).lock_owned().await;
        let faults = fault.map(|fault| (hop.name, fault)).into_iter().collect();
        self.lock().experiment = Some(faults);
        ExperimentGuard { wire: self.clone(), _lock: lock }
    }

    /// Returns the fault that is set on a hop.
    pub fn fault(&self, hop: Hop) -> Option<Fault> {
        self.lock().faults.get(hop.name).copied()
    }

    /// Returns the fault that applies to a request now: that of the experiment, or else the one that is set.
    fn active_fault(&self, hop: Hop) -> Option<Fault> {
        let inner = self.lock();
        let faults = inner.experiment.as_ref().unwrap_or(&inner.faults);
        faults.get(hop.name).copied()
    }

    /// Returns the recorded exchanges, the oldest first.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.iter().cloned().collect()
    }

    /// Records an exchange and returns its number.
    fn record(&self, exchange: Exchange) -> usize {
        let mut inner = self.lock();
        if inner.exchanges.len() == EXCHANGES {
            inner.exchanges.pop_front();
            inner.dropped += 1;
        }
        inner.exchanges.push_back(exchange);
        inner.dropped + inner.exchanges.len() - 1
    }

    /// Records the status of the answer to exchange `number` and the current time as its end.
    fn record_answer(&self, number: usize, status: Option<u16>) {
        let mut inner = self.lock();
        let index = number.checked_sub(inner.dropped);
        if let Some(exchange) = index.and_then(|index| inner.exchanges.get_mut(index)) {
            exchange.end = Some(now());
            exchange.status = status;
        }
    }

    /// Locks the state. Ignores poisoning: no change of the state can be interrupted halfway by a panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An experiment, which ends when this is dropped. See [`Wire::begin_experiment`].
pub struct ExperimentGuard {
    wire: Wire,
    _lock: OwnedMutexGuard<()>,
}

impl Drop for ExperimentGuard {
    fn drop(&mut self) {
        self.wire.lock().experiment = None;
    }
}

/// Creates a sampled `traceparent` with random ids.
pub fn random_traceparent() -> Traceparent {
    Traceparent {
        trace_id: TraceId(fastrand::u128(1..).to_be_bytes()),
        parent_id: SpanId(fastrand::u64(1..).to_be_bytes()),
        sampled: true,
        random: false,
    }
}

/// Returns the current time in nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
