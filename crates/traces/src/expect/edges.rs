//! The short form of a file: which services call which.

use std::collections::BTreeSet;

use super::actual::{Actual, Detached, Node};
use super::align::Mode;
use super::file::Edge;

/// An edge that has been seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// `None` where the request enters.
    pub from: Option<String>,
    pub to: String,
    pub link: bool,
    /// The name of the span that it begins at and why it hangs from nothing, where it should hang from another.
    pub detached: Option<(String, Detached)>,
}

impl Edge {
    /// Whether the edge stands for one that was seen.
    pub fn matches(&self, seen: &Seen) -> bool {
        let from = match (&self.from, &seen.from) {
            (None, None) => true,
            (Some(pattern), Some(from)) => pattern.matches(from),
            _ => false,
        };
        from && self.link == seen.link && seen.detached.is_none() && self.to.matches(&seen.to)
    }
}

/// The edges between the services of the spans.
pub fn seen(actual: &Actual) -> BTreeSet<Seen> {
    let mut seen = BTreeSet::new();
    let service = |node: usize| actual.nodes[node].service().to_owned();
    let mut entered = |nodes: &[usize], link: bool| {
        for node in nodes {
            let Node { span, detached, .. } = &actual.nodes[*node];
            let detached = detached.map(|detached| (span.name().to_owned(), detached));
            let edge = Seen { from: None, to: service(*node), link, detached };
            // One such span of a service is enough to show.
            let is_known =
                |it: &Seen| it.detached.is_some() && (&it.to, it.link) == (&edge.to, edge.link);
            if edge.detached.is_none() || !seen.iter().any(is_known) {
                seen.insert(edge);
            }
        }
    };
    entered(&actual.tops, false);
    entered(&actual.linked, true);
    for (index, node) in actual.nodes.iter().enumerate() {
        let below = node.children.iter().map(|child| (*child, false));
        let linked = node.linked.iter().map(|child| (*child, true));
        for (child, link) in below.chain(linked) {
            let (from, to) = (service(index), service(child));
            if link || from != to {
                seen.insert(Seen { from: Some(from), to, link, detached: None });
            }
        }
    }
    seen
}

/// The edges that were expected and not seen, and those that were seen and not expected.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EdgesCompared<'a> {
    pub missing: Vec<&'a Edge>,
    pub surplus: Vec<Seen>,
}

/// Compares what was expected with what was seen.
pub fn compare<'a>(edges: &'a [Edge], actual: &Actual, mode: Mode) -> EdgesCompared<'a> {
    let seen = seen(actual);
    let is_missing = |edge: &&Edge| !edge.optional && !seen.iter().any(|it| edge.matches(it));
    let missing = match mode {
        Mode::Now => edges.iter().filter(is_missing).collect(),
        Mode::Ever => Vec::new(),
    };
    let is_surplus = |seen: &&Seen| !edges.iter().any(|edge| edge.matches(seen));
    EdgesCompared { missing, surplus: seen.iter().filter(is_surplus).cloned().collect() }
}
