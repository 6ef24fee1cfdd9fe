//! Counts the calls between the services of all traces, a trace at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::analysis::{Calls, calls};
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
        for ((caller, called), Calls { count, errors }) in calls([tree]) {
            let pair = (caller.to_owned(), called.to_owned());
            if self.calls.len() >= PAIRS_LIMIT && !self.calls.contains_key(&pair) {
                self.is_cut = true;
                continue;
            }
            let calls = self.calls.entry(pair).or_default();
            calls.count += count;
            calls.errors += errors;
        }
        if let Some(top) = tree.tops().next().filter(|_| self.entries.len() < PAIRS_LIMIT) {
            self.entries.insert(top.span.service().to_owned());
        }
    }
}
