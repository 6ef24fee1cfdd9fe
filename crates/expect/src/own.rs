//! The spans that arrive at a receiver of this process.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use traces::expect::Arrived;
use traces::log::LogRecord;
use traces::span::{Span, TraceId};
use traces_receiver::store::Store;

use crate::run::Source;

/// The traces in a store, as a source for one request.
pub struct Own {
    store: Store,
    changes: watch::Receiver<u64>,
    /// The traces that were there before.
    known: HashSet<TraceId>,
}

impl Own {
    pub fn new(store: Store) -> Self {
        let changes = store.changes();
        let known = store.ids().into_iter().collect();
        Own { store, changes, known }
    }
}

/// Returns what belongs to a trace in a store.
pub fn arrived(store: &Store, trace: TraceId) -> Arrived {
    let linked = store.linked_to(trace, None);
    let linked: BTreeSet<TraceId> = linked.iter().map(|span| span.trace_id).collect();
    let joined = linked.into_iter().filter(|id| *id != trace);
    Arrived {
        trace: store.trace(trace).unwrap_or_default(),
        joined: joined.filter_map(|id| store.trace(id)).collect(),
    }
}

impl Source for Own {
    type Error = Infallible;

    async fn arrived(&mut self, trace: TraceId) -> Result<Arrived, Infallible> {
        self.changes.mark_unchanged();
        Ok(arrived(&self.store, trace))
    }

    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The store is gone, so nothing changes any more.
            std::future::pending::<()>().await;
        }
    }

    async fn logs(&mut self, trace: TraceId) -> Result<Vec<Arc<LogRecord>>, Infallible> {
        Ok(self.store.logs(trace))
    }

    async fn others(&mut self, trace: TraceId) -> Result<Vec<Vec<Arc<Span>>>, Infallible> {
        let own = arrived(&self.store, trace);
        let linked: HashSet<TraceId> =
            own.joined.iter().filter_map(|spans| Some(spans.first()?.trace_id)).collect();
        let is_other =
            |id: &TraceId| *id != trace && !linked.contains(id) && !self.known.contains(id);
        let ids = self.store.ids().into_iter().filter(is_other);
        Ok(ids.filter_map(|id| self.store.trace(id)).collect())
    }
}
