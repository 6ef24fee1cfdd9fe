//! Counts the calls between the services of all traces, a trace at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::analysis::{Calls, calls, outgoing};
use crate::store::Store;
use crate::tree::Tree;

/// The largest number of callers with a called service that are counted. Calls between others are left out.
pub const PAIRS_LIMIT: usize = 10_000;

/// The calls between services.
#[derive(Debug, Default)]
pub struct ServiceMap {
    /// The number of traces.
    pub traces: usize,
    /// The calls by caller and called service.
    pub calls: BTreeMap<(String, String), Calls>,
    /// The calls that no span of another service answers, by caller and destination, at most as many.
    pub outgoing: BTreeMap<(String, String), Calls>,
    /// The services in which traces begin, at most as many.
    pub entries: BTreeSet<String>,
    /// Whether [`PAIRS_LIMIT`] left calls out.
    pub is_cut: bool,
}

impl ServiceMap {
    /// Counts the calls in the traces of the store that pass `filter`.
    pub fn new(store: &Store, filter: impl Fn(&Tree) -> bool) -> Self {
        let mut map = ServiceMap::default();
        let trees = store.walk().filter_map(|spans| Tree::new(&spans));
        trees.filter(filter).for_each(|tree| map.add(&tree));
        map
    }

    fn add(&mut self, tree: &Tree) {
        self.traces += 1;
        let between = calls([tree]).into_iter();
        let between = between.map(|((from, to), calls)| ((from.to_owned(), to.to_owned()), calls));
        self.is_cut |= add_up(&mut self.calls, between);
        let outgoing = outgoing(tree).into_iter();
        let outgoing = outgoing.map(|((from, to), calls)| ((from.to_owned(), to), calls));
        self.is_cut |= add_up(&mut self.outgoing, outgoing);
        if let Some(top) = tree.tops().next().filter(|_| self.entries.len() < PAIRS_LIMIT) {
            self.entries.insert(top.span.service().to_owned());
        }
    }
}

/// Adds calls to a sum. Returns whether [`PAIRS_LIMIT`] left some out.
fn add_up(
    sum: &mut BTreeMap<(String, String), Calls>,
    more: impl Iterator<Item = ((String, String), Calls)>,
) -> bool {
    let mut is_cut = false;
    for (pair, Calls { count, errors }) in more {
        if sum.len() >= PAIRS_LIMIT && !sum.contains_key(&pair) {
            is_cut = true;
            continue;
        }
        let calls = sum.entry(pair).or_default();
        calls.count += count;
        calls.errors += errors;
    }
    is_cut
}
