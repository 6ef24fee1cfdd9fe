//! Everything that belongs to one request: its traces, however many it fell into, and its headers on the wire.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::case::Case;
use crate::diagnose::answered_by;
use crate::list::List;
use crate::span::TraceId;
use crate::store::Store;
use crate::summary::{Summary, breaks};
use crate::tree::Tree;
use crate::wire::Wire;
use traces::exchange::Exchange;

/// How many other traces are looked at.
const NEAR: usize = 1000;

/// The summaries of a trace and of those that overlap with it in time: others cannot be parts of its request.
pub fn near(list: &List, start: u64, end: u64) -> Vec<Arc<Summary>> {
    let near = list.summaries().into_iter().filter(|it| {
        it.start_time_unix_nano <= end
            && start <= it.start_time_unix_nano.saturating_add(it.duration_nano)
    });
    near.take(NEAR).collect()
}

/// The request that a trace is of; nothing where neither a span nor a header has its id.
pub fn case(list: &List, wire: &Wire, id: TraceId) -> Option<Case> {
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
    let parts = breaks(&near).into_iter().map(|it| {
        let both = [it.traces.0, it.traces.1].map(|index| near[index].trace_id);
        BTreeSet::from(both)
    });
    let mut together: Vec<BTreeSet<TraceId>> = parts.collect();
    let exchanges = exchanges
        .into_iter()
        .filter(|it| it.start <= end && start <= it.end.unwrap_or(it.start));
    let exchanges: Vec<Exchange> = exchanges.collect();
    // To find out who answered a request takes the trees of all traces of that time.
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
    // What is linked to a part belongs to it too.
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
    Some(Case::new(trees.collect(), wire))
}

fn tree(store: &Store, id: TraceId) -> Option<Tree> {
    Tree::new(&store.trace(id)?)
}
