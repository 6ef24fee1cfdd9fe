//! Everything that belongs to one request: its traces, however many there are, and its headers on the wire.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::case::Case;
use crate::diagnose::answered_by;
use crate::list::List;
use crate::span::TraceId;
use crate::store::Store;
use crate::summary::{self, Break, Summary};
use crate::tree::Tree;
use crate::wire::Wire;
use traces::exchange::Exchange;

/// The most other traces to look at.
const NEAR: usize = 1000;

/// A request, as far as the lab knows it.
pub struct Request {
    /// Its traces and its exchanges on the wire.
    pub case: Case,
    /// Where it seems to have fallen apart: the call, and the traces of the caller and of the called service. Breaks of
    /// other requests at the same time may be among them.
    pub breaks: Vec<(Break, [TraceId; 2])>,
}

/// The summaries of the traces that overlap with this time: others can't be parts of the request.
fn near(list: &List, start: u64, end: u64) -> Vec<Arc<Summary>> {
    let near = list.summaries().into_iter().filter(|it| {
        it.start_time_unix_nano <= end
            && start <= it.start_time_unix_nano.saturating_add(it.duration_nano)
    });
    near.take(NEAR).collect()
}

/// The case of the request that a trace belongs to: see [`find`].
pub fn case(list: &List, wire: &Wire, id: TraceId) -> Option<Case> {
    find(list, wire, id).map(|request| request.case)
}

/// The request that a trace belongs to. `None` when neither a span nor a header has its id.
pub fn find(list: &List, wire: &Wire, id: TraceId) -> Option<Request> {
    let exchanges = wire.exchanges();
    let named = |exchange: &&Exchange| {
        let both = [exchange.sent_by(), exchange.received()];
        both.into_iter().flatten().any(|it| it.trace_id == id)
    };
    let mut ids = BTreeSet::from([id]);
    let spans = list.store.trace(id);
    let time = spans
        .as_deref()
        .and_then(Tree::new)
        .map(|tree| (tree.start, tree.start.saturating_add(tree.duration)));
    let of_wire = exchanges
        .iter()
        .find(named)
        .map(|it| (it.start, it.end.unwrap_or(it.start)));
    let (start, end) = time.or(of_wire)?;

    let near = near(list, start, end);
    let breaks = summary::breaks(&near).into_iter().map(|it| {
        let traces = [it.traces.0, it.traces.1].map(|index| near[index].trace_id);
        (it, traces)
    });
    let breaks: Vec<_> = breaks.collect();
    let parts = breaks.iter().map(|(_, traces)| BTreeSet::from(*traces));
    let mut together: Vec<BTreeSet<TraceId>> = parts.collect();
    let exchanges = exchanges
        .into_iter()
        .filter(|it| it.start <= end && start <= it.end.unwrap_or(it.start));
    let exchanges: Vec<Exchange> = exchanges.collect();
    // The span that answered a request may be in any trace of that time.
    let trees: Vec<Tree> = match exchanges.is_empty() {
        true => Vec::new(),
        false => near
            .iter()
            .filter_map(|it| tree(&list.store, it.trace_id))
            .collect(),
    };
    let linked: Vec<BTreeSet<TraceId>> = exchanges
        .iter()
        .map(|exchange| {
            let ends = [exchange.sent_by(), exchange.received()];
            let ends = ends.into_iter().flatten().map(|it| it.trace_id);
            ends.chain(answered_by(exchange, &trees).map(|(trace, _)| trace))
                .collect()
        })
        .collect();
    together.extend(linked.iter().cloned());
    // A trace that is linked to a part is a part too.
    loop {
        let before = ids.len();
        for set in &together {
            if !set.is_disjoint(&ids) {
                ids.extend(set);
            }
        }
        if ids.len() == before {
            break;
        }
    }
    let wire = exchanges
        .into_iter()
        .zip(&linked)
        .filter(|(_, set)| !set.is_disjoint(&ids));
    let wire: Vec<_> = wire.map(|(exchange, _)| exchange).collect();
    let trees = ids.iter().filter_map(|id| tree(&list.store, *id));
    Some(Request {
        case: Case::new(trees.collect(), wire),
        breaks,
    })
}

fn tree(store: &Store, id: TraceId) -> Option<Tree> {
    Tree::new(&store.trace(id)?)
}
