//! The wire: a proxy in front of each service, which records the headers of every request and breaks them on demand.
//! Without a fault, it forwards every byte unchanged. It reads HTTP/1.1 and passes HTTP/2 and TLS on without reading them.

mod connections;
mod fault;
mod framing;
mod proxy;
mod record;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use traces::exchange::Exchange;
use traces::traceparent::{SpanId, TraceId, Traceparent};

pub use connections::ProxyLimits;
pub use fault::{Fault, LATENCY, UnknownFault};
pub use record::{EXCHANGES, HEAD_BYTES, HEAD_LINES, NOT_HTTP, RECORD_BYTES};

use connections::{Connections, Counts};
use record::Record;

/// The connection from one or more callers to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    pub name: Arc<str>,
    /// The called service, which the proxy is in front of. Should be its `service.name`.
    pub to: Arc<str>,
}

impl Hop {
    /// Creates the hop to the service `name`, with the same name.
    pub fn named_after(name: &str) -> Self {
        let name: Arc<str> = name.into();
        Hop { to: Arc::clone(&name), name }
    }
}

/// A protocol that a proxy passes on without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Opaque {
    /// HTTP/2 without TLS, such as gRPC (RFC 9113, 3.3).
    #[serde(rename = "HTTP/2")]
    Http2,
    #[serde(rename = "TLS")]
    Tls,
}

impl Display for Opaque {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Opaque::Http2 => "HTTP/2",
            Opaque::Tls => "TLS",
        })
    }
}

/// The state of a hop, as in `/wire.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct HopState {
    pub hop: String,
    /// The address of its proxy.
    pub address: String,
    /// The host and port that the proxy forwards to.
    pub target: String,
    /// The name of the fault that is set.
    pub fault: Option<String>,
    /// How many connections the proxy has passed on without reading them, by protocol.
    pub unread: BTreeMap<Opaque, usize>,
    /// How many of its requests are no longer recorded, because newer ones needed the room.
    pub dropped_requests: usize,
    /// How many connections were refused, because there were as many as it takes and all were in use.
    pub refused_connections: usize,
    /// How many connections that waited for a request were closed for new ones.
    pub replaced_connections: usize,
    /// How many connections were closed because they waited too long for a request.
    pub idle_connections: usize,
}

impl HopState {
    /// Describes in one sentence what the proxy passes on without reading it. Returns `None` when it has read everything.
    pub fn note(&self) -> Option<String> {
        let protocols: Vec<String> = self.unread.keys().map(Opaque::to_string).collect();
        (!protocols.is_empty()).then(|| note(&self.hop, &protocols.join(" and ")))
    }
}

fn note(hop: &str, protocols: &str) -> String {
    format!(
        "{hop} passes {protocols} on unread: these requests aren't listed, and of the faults only {} works on them",
        Fault::Cut.name()
    )
}

/// The name of a hop is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown hop {name:?}: use one of {}", known.join(", "))]
pub struct UnknownHop {
    pub name: String,
    pub known: Vec<String>,
}

/// The error message of a lab without proxies.
pub const NO_PROXIES: &str =
    "this lab has no proxies to break requests with: start it with `lab wire NAME=LISTEN,TARGET`";

/// The state that all proxies share: the faults that are set and the recorded exchanges.
#[derive(Clone, Default)]
pub struct Wire {
    inner: Arc<Mutex<Inner>>,
    /// Held during an experiment, so that only one runs at a time.
    experiment_lock: Arc<AsyncMutex<()>>,
    limits: ProxyLimits,
}

type Faults = BTreeMap<Arc<str>, Fault>;

#[derive(Default)]
struct Inner {
    /// The hops in order, each with its proxy once it listens.
    hops: Vec<(Hop, Option<Proxy>)>,
    faults: Faults,
    /// Replaces `faults` during an experiment.
    experiment: Option<Faults>,
    record: Record,
    /// Counts the changes of everything above.
    version: watch::Sender<u64>,
}

struct Proxy {
    address: SocketAddr,
    target: Arc<str>,
    unread: BTreeMap<Opaque, usize>,
    dropped_requests: usize,
    connections: Arc<Connections>,
}

impl Inner {
    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Returns the fault that applies to a request now: that of the experiment, or else the one that is set.
    fn active_fault(&self, hop: &str) -> Option<Fault> {
        let faults = self.experiment.as_ref().unwrap_or(&self.faults);
        faults.get(hop).copied()
    }
}

impl Wire {
    /// Creates a wire for `hops`, which are shown in this order. [`Wire::serve`] starts their proxies.
    pub fn new(hops: impl IntoIterator<Item = impl Into<Hop>>) -> Self {
        let wire = Wire::default();
        wire.announce(hops);
        wire
    }

    /// Creates a wire whose proxies have these limits.
    pub fn with_limits(limits: ProxyLimits) -> Self {
        Wire { limits, ..Wire::default() }
    }

    /// Adds hops whose proxies [`Wire::serve`] starts later. They are shown in this order, after those that are known.
    pub fn announce(&self, hops: impl IntoIterator<Item = impl Into<Hop>>) {
        self.lock().hops.extend(hops.into_iter().map(|hop| (hop.into(), None)));
    }

    /// Starts the proxy of `hop`, which forwards every connection of `listener` to `target`, a host and a port. The host's name
    /// is looked up for each connection. Returns the listener's address.
    ///
    /// # Errors
    /// Fails when the listener's address can't be read.
    pub fn serve(
        &self,
        hop: impl Into<Hop>,
        listener: TcpListener,
        target: impl Display,
    ) -> std::io::Result<SocketAddr> {
        let (hop, address) = (hop.into(), listener.local_addr()?);
        let target: Arc<str> = target.to_string().into();
        let connections = Connections::new(self.limits);
        let proxy = Proxy {
            address,
            target: Arc::clone(&target),
            unread: BTreeMap::new(),
            dropped_requests: 0,
            connections: Arc::clone(&connections),
        };
        let mut inner = self.lock();
        match inner.hops.iter_mut().find(|(known, _)| known.name == hop.name) {
            Some((_, served)) => *served = Some(proxy),
            None => inner.hops.push((hop.clone(), Some(proxy))),
        }
        inner.changed();
        drop(inner);
        tokio::spawn(proxy::serve(self.clone(), hop, listener, target, connections));
        Ok(address)
    }

    /// Returns the address of a hop's proxy, or `None` when it has none.
    pub fn address(&self, hop: &str) -> Option<SocketAddr> {
        let inner = self.lock();
        let (_, proxy) = inner.hops.iter().find(|(known, _)| *known.name == *hop)?;
        proxy.as_ref().map(|proxy| proxy.address)
    }

    /// Checks that a hop of this name has a proxy.
    ///
    /// # Errors
    /// Fails when no such hop has this name. The error lists the known names.
    pub fn check(&self, name: &str) -> Result<(), UnknownHop> {
        if self.address(name).is_some() {
            return Ok(());
        }
        let known = self.states().into_iter().map(|state| state.hop).collect();
        Err(UnknownHop { name: name.to_owned(), known })
    }

    /// Returns the states of the hops that have a proxy, in order.
    pub fn states(&self) -> Vec<HopState> {
        let inner = self.lock();
        let served = inner.hops.iter().filter_map(|(hop, proxy)| {
            let proxy = proxy.as_ref()?;
            let Counts { refused, replaced, idle } = proxy.connections.counts();
            Some(HopState {
                hop: hop.name.to_string(),
                address: proxy.address.to_string(),
                target: proxy.target.to_string(),
                fault: inner.faults.get(&hop.name).map(|fault| fault.name()),
                unread: proxy.unread.clone(),
                dropped_requests: proxy.dropped_requests,
                refused_connections: refused,
                replaced_connections: replaced,
                idle_connections: idle,
            })
        });
        served.collect()
    }

    /// Sets the fault of a hop, or restores the hop with `None`. Doesn't affect requests in flight. [`Fault::Cut`] also closes
    /// the connections that are passed on unread.
    pub fn set(&self, hop: &str, fault: Option<Fault>) {
        let mut inner = self.lock();
        match fault {
            Some(fault) => inner.faults.insert(hop.into(), fault),
            None => inner.faults.remove(hop),
        };
        inner.changed();
    }

    /// Applies only this fault until the returned guard is dropped. The faults that are set apply again after that. Waits for
    /// the end of other experiments first.
    pub async fn begin_experiment(&self, hop: &str, fault: Option<Fault>) -> ExperimentGuard {
        let lock = Arc::clone(&self.experiment_lock).lock_owned().await;
        let faults = fault.map(|fault| (hop.into(), fault)).into_iter().collect();
        let mut inner = self.lock();
        inner.experiment = Some(faults);
        inner.changed();
        drop(inner);
        ExperimentGuard { wire: self.clone(), _lock: lock }
    }

    /// Returns the fault that is set on a hop.
    pub fn fault(&self, hop: &str) -> Option<Fault> {
        self.lock().faults.get(hop).copied()
    }

    fn active_fault(&self, hop: &str) -> Option<Fault> {
        self.lock().active_fault(hop)
    }

    /// Waits until [`Fault::Cut`] applies to a hop.
    async fn is_cut(&self, hop: &str) {
        let mut changes = self.changes();
        // The sender lives as long as this wire, so there is always a next change.
        while self.active_fault(hop) != Some(Fault::Cut) && changes.changed().await.is_ok() {}
    }

    /// Returns the recorded exchanges, the oldest first.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.recorded().iter().map(|it| Exchange::clone(it)).collect()
    }

    /// Returns the same without copying them.
    pub fn recorded(&self) -> Vec<Arc<Exchange>> {
        self.lock().record.all().cloned().collect()
    }

    /// Returns the last `limit` exchanges with their numbers, the newest first.
    pub fn latest(&self, limit: usize) -> Vec<(usize, Arc<Exchange>)> {
        let inner = self.lock();
        inner.record.latest().take(limit).map(|(number, it)| (number, Arc::clone(it))).collect()
    }

    /// Takes no new connections and closes those that wait for a request. The requests in flight go on.
    pub fn stop(&self) {
        self.connections().iter().for_each(|it| it.stop());
    }

    /// Waits until no request is in flight.
    pub async fn finished(&self) {
        for connections in self.connections() {
            connections.finished().await;
        }
    }

    /// Returns the number of connections with a request in flight.
    pub fn busy(&self) -> usize {
        self.connections().iter().map(|it| it.busy()).sum()
    }

    fn connections(&self) -> Vec<Arc<Connections>> {
        let inner = self.lock();
        let proxies = inner.hops.iter().filter_map(|(_, proxy)| proxy.as_ref());
        proxies.map(|proxy| Arc::clone(&proxy.connections)).collect()
    }

    /// Returns a receiver that is notified of every change, and whose value counts the changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.lock().version.subscribe()
    }

    /// Records an exchange and returns its number.
    fn record(&self, exchange: Exchange) -> usize {
        let mut inner = self.lock();
        let (number, dropped) = inner.record.add(exchange);
        for exchange in dropped {
            let mut hops = inner.hops.iter_mut().filter(|(hop, _)| *hop.name == *exchange.hop);
            if let Some((_, Some(proxy))) = hops.next() {
                proxy.dropped_requests += 1;
            }
        }
        inner.changed();
        number
    }

    /// Records the status of the answer to exchange `number` and the current time as its end.
    fn record_answer(&self, number: usize, status: Option<u16>) {
        let mut inner = self.lock();
        if let Some(exchange) = inner.record.get_mut(number) {
            exchange.end = Some(now());
            exchange.status = status;
            inner.changed();
        }
    }

    /// Counts a connection that is passed on unread. Prints a note about the first one of a hop and a protocol.
    fn count_unread(&self, hop: &str, protocol: Opaque) {
        let mut inner = self.lock();
        let mut proxies = inner.hops.iter_mut();
        let proxy = proxies.find_map(|(known, it)| it.as_mut().filter(|_| *known.name == *hop));
        let count = proxy.map(|proxy| proxy.unread.entry(protocol).or_default());
        let is_first = count.is_some_and(|count| {
            *count += 1;
            *count == 1
        });
        inner.changed();
        drop(inner);
        if is_first {
            eprintln!("Note: {}", note(hop, &protocol.to_string()));
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
        let mut inner = self.wire.lock();
        inner.experiment = None;
        inner.changed();
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
