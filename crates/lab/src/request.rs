//! Finds everything that belongs to one request: its traces, of which a broken request has several, and its headers on the
//! wire.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::case::Case;
use crate::diagnose::{self, NamedSpan, answered_by, is_request, parts_of_requests};
use crate::list::List;
use crate::span::{Span, TraceId};
use crate::store::Store;
use crate::summary::{self, Break, Summary};
use crate::tree::{Tree, period};
use crate::wire::Wire;
use traces::exchange::Exchange;

/// The largest number of other traces to search.
const NEARBY_LIMIT: usize = 1000;

/// A request and its traces.
pub struct TracedRequest {
    /// The traces and the exchanges on the wire.
    pub case: Case,
    /// The calls at which the request seems to have split, each with the traces of the caller and of the called service. May
    /// include breaks of other requests at the same time.
    pub breaks: Vec<(Break, [TraceId; 2])>,
}

/// Returns the traces that overlap with a period, in nanoseconds since 1970, the last to start first. Other traces can't be
/// parts of a request in that period.
fn near(store: &Store, start: u64, end: u64) -> Vec<Tree> {
    let near = store.by_start(end).rev().filter(|spans| {
        let (begun, duration) = period(spans);
        start <= begun.saturating_add(duration)
    });
    near.take(NEARBY_LIMIT).filter_map(|spans| Tree::new(&spans)).collect()
}

/// Returns the earliest request of each of these services that has answered any.
fn first_requests(store: &Store, mut services: HashSet<&str>) -> Vec<NamedSpan> {
    let mut found = Vec::new();
    for spans in store.by_start(u64::MAX) {
        if services.is_empty() {
            break;
        }
        let mut requests: Vec<_> = spans.iter().filter(|span| is_request(span)).collect();
        requests.sort_by_key(|span| (span.start(), span.id));
        let first = requests.into_iter().filter(|span| services.remove(span.service()));
        found.extend(first.map(|span| NamedSpan::new(span)));
    }
    found
}

/// Returns the case of the request that a trace belongs to, as [`find`] does.
pub fn case(list: &List, wire: &Wire, id: TraceId) -> Option<Case> {
    find(list, wire, id).map(|request| request.case)
}

/// Finds the request that a trace belongs to. Returns `None` when no span, no log record and no header has the
/// trace's id.
pub fn find(list: &List, wire: &Wire, id: TraceId) -> Option<TracedRequest> {
    let exchanges = wire.recorded();
    let has_id = |exchange: &&Arc<Exchange>| {
        let both = [exchange.sent_by(), exchange.received()];
        both.into_iter().flatten().any(|it| it.trace_id == id)
    };
    let spans = list.store.trace(id);
    let time = spans
        .as_deref()
        .and_then(Tree::new)
        .map(|tree| (tree.start, tree.start.saturating_add(tree.duration)));
    let logs = list.store.logs(id);
    let of_logs = logs.first().zip(logs.last()).map(|(first, last)| (first.time(), last.time()));
    let of_wire = exchanges.iter().find(has_id).map(|it| (it.start, it.end.unwrap_or(it.start)));
    let (start, end) = time.or(of_wire).or(of_logs)?;

    let near = near(&list.store, start, end);
    let summaries: Vec<_> = near.iter().map(|tree| Arc::new(Summary::new(tree))).collect();
    let breaks = summary::breaks(&summaries).into_iter().map(|it| {
        let traces = [it.traces.0, it.traces.1].map(|index| near[index].trace_id);
        (it, traces)
    });
    let breaks: Vec<_> = breaks.collect();
    let exchanges =
        exchanges.into_iter().filter(|it| it.start <= end && start <= it.end.unwrap_or(it.start));
    let exchanges: Vec<Arc<Exchange>> = exchanges.collect();
    // The span that answered a request may be in any trace of that period, and so may the request of a root that isn't one.
    let services = diagnose::unrequested(&near).map(Span::service).collect();
    let mut elsewhere = first_requests(&list.store, services);
    let exchanges: Vec<&Exchange> = exchanges.iter().map(Arc::as_ref).collect();
    let Joined { ids, wire } = joined(id, &breaks, &near, &elsewhere, &exchanges);
    let trees = ids.iter().filter_map(|id| tree(&list.store, *id));
    let mut logs: Vec<_> = ids.iter().flat_map(|id| list.store.logs(*id)).collect();
    logs.sort_by_key(|record| record.time());
    let case = Case { logs, ..Case::new(trees.collect(), wire) };
    let services: HashSet<&str> =
        diagnose::unrequested(&case.trees).map(|root| root.service()).collect();
    elsewhere.retain(|request| services.contains(&*request.service));
    Some(TracedRequest { case: Case { elsewhere, ..case }, breaks })
}

/// Returns the part of a case that belongs to the same request as a trace.
pub fn part(case: Case, id: TraceId) -> Case {
    let summaries = case.trees.iter().map(|tree| Arc::new(Summary::new(tree)));
    let breaks = summary::breaks(&summaries.collect::<Vec<_>>()).into_iter().map(|it| {
        let traces = [it.traces.0, it.traces.1].map(|index| case.trees[index].trace_id);
        (it, traces)
    });
    let breaks: Vec<_> = breaks.collect();
    let exchanges: Vec<&Exchange> = case.wire.iter().collect();
    let Joined { ids, wire } = joined(id, &breaks, &case.trees, &case.elsewhere, &exchanges);
    let trees = case.trees.into_iter().filter(|tree| ids.contains(&tree.trace_id));
    let logs = case.logs.into_iter().filter(|record| ids.contains(&record.trace_id));
    Case { trees: trees.collect(), wire, logs: logs.collect(), ..case }
}

/// The traces of a request, and its requests on the wire.
struct Joined {
    ids: BTreeSet<TraceId>,
    wire: Vec<Exchange>,
}

/// Finds what belongs to the request of a trace: traces between which there is a break, which are parts of one request by their
/// times, or which a request on the wire connects.
fn joined(
    id: TraceId,
    breaks: &[(Break, [TraceId; 2])],
    trees: &[Tree],
    elsewhere: &[NamedSpan],
    exchanges: &[&Exchange],
) -> Joined {
    let mut ids = BTreeSet::from([id]);
    let parts = breaks.iter().map(|(_, traces)| BTreeSet::from(*traces));
    let mut together: Vec<BTreeSet<TraceId>> = parts.collect();
    together.extend(parts_of_requests(trees, elsewhere).into_iter().map(BTreeSet::from));
    let linked: Vec<BTreeSet<TraceId>> = exchanges
        .iter()
        .map(|exchange| {
            let ends = [exchange.sent_by(), exchange.received()];
            let ends = ends.into_iter().flatten().map(|it| it.trace_id);
            ends.chain(answered_by(exchange, trees).map(|(trace, _)| trace)).collect()
        })
        .collect();
    together.extend(linked.iter().cloned());
    // Add traces that are linked to a part until nothing changes.
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
    let wire = exchanges.iter().zip(&linked).filter(|(_, set)| !set.is_disjoint(&ids));
    let wire = wire.map(|(exchange, _)| Exchange::clone(exchange)).collect();
    Joined { ids, wire }
}

fn tree(store: &Store, id: TraceId) -> Option<Tree> {
    Tree::new(&store.trace(id)?)
}
