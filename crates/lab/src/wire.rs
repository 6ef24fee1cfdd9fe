//! The wire: a proxy in front of each service, which records the headers of every request byte by byte, and breaks them
//! when it is told to. With no fault set it passes every byte on as it came.

mod fault;
mod proxy;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};
use traces::exchange::Exchange;
use traces::traceparent::{SpanId, TraceId, Traceparent};

pub use fault::{Fault, LATENCY};

/// A way of a request from one service to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    pub name: &'static str,
    /// Who calls.
    pub from: &'static str,
    /// The service that is called, which the proxy stands before.
    pub to: &'static str,
}

/// The hops of a request, the first one first.
pub const HOPS: [Hop; 3] = [
    Hop {
        name: "client-gateway",
        from: "fault-lab",
        to: "api-gateway",
    },
    Hop {
        name: "gateway-user",
        from: "api-gateway",
        to: "user-service",
    },
    Hop {
        name: "user-llm",
        from: "user-service",
        to: "llm-service",
    },
];

impl Hop {
    /// The hop of that name.
    ///
    /// # Errors
    /// In one sentence, which names there are.
    pub fn named(name: &str) -> Result<Hop, String> {
        let found = HOPS.into_iter().find(|hop| hop.name == name);
        let names = HOPS.map(|hop| hop.name).join(", ");
        found.ok_or_else(|| format!("there is no hop {name:?}: there are {names}"))
    }

    /// The hop to a service.
    pub fn to(service: &str) -> Option<Hop> {
        HOPS.into_iter().find(|hop| hop.to == service)
    }
}

/// The most exchanges that are kept; past it the oldest goes.
pub const EXCHANGES: usize = 1000;

/// What all proxies share: the faults that are set, and what they have seen.
#[derive(Clone, Default)]
pub struct Wire {
    inner: Arc<Mutex<Inner>>,
    /// Experiments go one after the other.
    turns: Arc<Turns<()>>,
}

type Faults = BTreeMap<&'static str, Fault>;

#[derive(Default)]
struct Inner {
    /// Where the proxies listen.
    served: BTreeMap<&'static str, SocketAddr>,
    faults: Faults,
    /// In their place, while there is an experiment.
    experiment: Option<Faults>,
    exchanges: VecDeque<Exchange>,
    /// How many were there before the first one that is kept.
    forgotten: usize,
}

impl Wire {
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
        self.lock().served.insert(hop.name, address);
        tokio::spawn(proxy::serve(self.clone(), hop, listener, target));
        Ok(address)
    }

    /// Where the proxy of a hop listens; nothing where there is none.
    pub fn address(&self, hop: Hop) -> Option<SocketAddr> {
        self.lock().served.get(hop.name).copied()
    }

    /// Sets the fault of a hop, in the place of the one that was set; `None` restores it. Requests that are on their way
    /// are left alone.
    pub fn set(&self, hop: Hop, fault: Option<Fault>) {
        let mut inner = self.lock();
        match fault {
            Some(fault) => inner.faults.insert(hop.name, fault),
            None => inner.faults.remove(hop.name),
        };
    }

    /// Has this fault and no other, until what is returned is dropped: then those that are set count again. Others who ask
    /// for the same wait until then.
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

    /// What a request of a hop meets now.
    fn active(&self, hop: Hop) -> Option<Fault> {
        let inner = self.lock();
        let faults = inner.experiment.as_ref().unwrap_or(&inner.faults);
        faults.get(hop.name).copied()
    }

    /// What has gone over the wire, the first one first.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.iter().cloned().collect()
    }

    /// Keeps an exchange; returns its number.
    fn record(&self, exchange: Exchange) -> usize {
        let mut inner = self.lock();
        if inner.exchanges.len() == EXCHANGES {
            inner.exchanges.pop_front();
            inner.forgotten += 1;
        }
        inner.exchanges.push_back(exchange);
        inner.forgotten + inner.exchanges.len() - 1
    }

    /// The answer to exchange number `number` has begun.
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

/// See [`Wire::only`].
pub struct Only {
    wire: Wire,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Only {
    fn drop(&mut self) {
        self.wire.lock().experiment = None;
    }
}

/// Eight bytes that are not all zero.
fn random() -> [u8; 8] {
    (RandomState::new().build_hasher().finish() | 1).to_be_bytes()
}

/// A valid and sampled `traceparent` that nobody has sent before.
pub fn random_traceparent() -> Traceparent {
    let [high, low] = [random(), random()].map(|half| u128::from(u64::from_be_bytes(half)));
    Traceparent {
        trace_id: TraceId((high << 64 | low).to_be_bytes()),
        parent_id: SpanId(random()),
        sampled: true,
        random: false,
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
