//! The wire: a proxy in front of each service. It records the headers of every request byte by byte and breaks them on
//! demand. Without a fault it passes every byte on as it came.

mod fault;
mod framing;
mod proxy;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};
use traces::exchange::Exchange;
use traces::traceparent::{SpanId, TraceId, Traceparent};

pub use fault::{Fault, LATENCY, UnknownFault};

/// The way of a request from a caller to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    pub name: &'static str,
    /// The caller.
    pub from: &'static str,
    /// The service that is called. The proxy stands in front of it.
    pub to: &'static str,
}

/// A hop and its state, as `/wire.json` has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct HopState {
    pub hop: String,
    /// Where its proxy listens.
    pub address: String,
    /// The name of the fault that is set.
    pub fault: Option<String>,
}

/// No proxy has a hop of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no hop {name:?}: there are {}", known.join(", "))]
pub struct UnknownHop {
    pub name: String,
    pub known: Vec<&'static str>,
}

/// The message of a lab that has no proxies.
pub const NO_PROXIES: &str = "this lab runs no services: start it with `cargo run`, without `view`";

/// The number of exchanges to keep. Past it, the oldest is dropped.
pub const EXCHANGES: usize = 1000;

/// What all proxies share: the faults that are set and the exchanges that they have recorded.
#[derive(Clone, Default)]
pub struct Wire {
    inner: Arc<Mutex<Inner>>,
    /// Experiments go one after the other.
    turns: Arc<Turns<()>>,
}

type Faults = BTreeMap<&'static str, Fault>;

#[derive(Default)]
struct Inner {
    /// The hops in order; an address once its proxy listens.
    hops: Vec<(Hop, Option<SocketAddr>)>,
    faults: Faults,
    /// Replaces `faults` during an experiment.
    experiment: Option<Faults>,
    exchanges: VecDeque<Exchange>,
    /// How many were dropped before the first one that is kept.
    forgotten: usize,
}

impl Wire {
    /// A wire that will serve `hops`, which are shown in this order.
    pub fn new(hops: impl IntoIterator<Item = Hop>) -> Self {
        let wire = Wire::default();
        wire.lock().hops = hops.into_iter().map(|hop| (hop, None)).collect();
        wire
    }

    /// Serves `hop` on `listener` from now on: every connection goes on to `target`.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve(
        &self,
        hop: Hop,
        listener: TcpListener,
        target: SocketAddr,
    ) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let mut inner = self.lock();
        match inner.hops.iter_mut().find(|(known, _)| *known == hop) {
            Some((_, listens)) => *listens = Some(address),
            None => inner.hops.push((hop, Some(address))),
        }
        drop(inner);
        tokio::spawn(proxy::serve(self.clone(), hop, listener, target));
        Ok(address)
    }

    /// Where the proxy of a hop listens. `None` when it has none.
    pub fn address(&self, hop: Hop) -> Option<SocketAddr> {
        let inner = self.lock();
        inner.hops.iter().find(|(known, _)| *known == hop)?.1
    }

    /// The hop of that name, which has a proxy.
    ///
    /// # Errors
    /// With the names that there are.
    pub fn hop(&self, name: &str) -> Result<Hop, UnknownHop> {
        let inner = self.lock();
        let served = || inner.hops.iter().filter(|(_, address)| address.is_some());
        let found = served().find(|(hop, _)| hop.name == name);
        found.map(|(hop, _)| *hop).ok_or_else(|| UnknownHop {
            name: name.to_owned(),
            known: served().map(|(hop, _)| hop.name).collect(),
        })
    }

    /// The hops that have a proxy, in order.
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

    /// Sets the fault of a hop, or restores it with `None`. Requests that are under way are left alone.
    pub fn set(&self, hop: Hop, fault: Option<Fault>) {
        let mut inner = self.lock();
        match fault {
            Some(fault) => inner.faults.insert(hop.name, fault),
            None => inner.faults.remove(hop.name),
        };
    }

    /// Applies this fault and no other until the returned guard is dropped; then the faults that are set count again.
    /// Other callers wait until then.
    pub async fn only(&self, hop: Hop, fault: Option<Fault>) -> Only {
        let turn = Arc::clone(&self.turns).lock_owned().await;
        let faults = fault.map(|fault| (hop.name, fault)).into_iter().collect();
        self.lock().experiment = Some(faults);
        Only {
            wire: self.clone(),
            _turn: turn,
        }
    }

    /// The fault that is set on a hop.
    pub fn fault(&self, hop: Hop) -> Option<Fault> {
        self.lock().faults.get(hop.name).copied()
    }

    /// The fault that a request of the hop meets now.
    fn active(&self, hop: Hop) -> Option<Fault> {
        let inner = self.lock();
        let faults = inner.experiment.as_ref().unwrap_or(&inner.faults);
        faults.get(hop.name).copied()
    }

    /// The recorded exchanges, the oldest first.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.iter().cloned().collect()
    }

    /// Keeps an exchange and returns its number.
    fn record(&self, exchange: Exchange) -> usize {
        let mut inner = self.lock();
        if inner.exchanges.len() == EXCHANGES {
            inner.exchanges.pop_front();
            inner.forgotten += 1;
        }
        inner.exchanges.push_back(exchange);
        inner.forgotten + inner.exchanges.len() - 1
    }

    /// Records that the answer to exchange `number` has begun.
    fn answered(&self, number: usize, status: Option<u16>) {
        let mut inner = self.lock();
        let index = number.checked_sub(inner.forgotten);
        if let Some(exchange) = index.and_then(|index| inner.exchanges.get_mut(index)) {
            exchange.end = Some(now());
            exchange.status = status;
        }
    }

    /// A thread that panicked here left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends [`Wire::only`] when dropped.
pub struct Only {
    wire: Wire,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Only {
    fn drop(&mut self) {
        self.wire.lock().experiment = None;
    }
}

/// A valid and sampled `traceparent` that nobody has sent before.
pub fn random_traceparent() -> Traceparent {
    Traceparent {
        trace_id: TraceId(fastrand::u128(1..).to_be_bytes()),
        parent_id: SpanId(fastrand::u64(1..).to_be_bytes()),
        sampled: true,
        random: false,
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
