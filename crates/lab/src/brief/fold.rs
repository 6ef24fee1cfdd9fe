//! The tree of a trace with equal siblings folded into one, so that a trace of any size fits.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use serde::Serialize;

use super::failures::http_status;
use super::{NAME, cut, size};
use crate::analysis::Segment;
use crate::compare::pattern;
use crate::span::{SpanId, SpanKind, Status};
use crate::tree::Tree;

/// The largest number of groups.
const GROUPS: usize = 250;

/// The largest size of all groups in bytes of JSON.
const BYTES: usize = 38_000;

/// Siblings with the same service, name, kind and status. The parents of those below them are folded too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    depth: usize,
    /// The first of them to start.
    span_id: SpanId,
    service: String,
    name: String,
    kind: &'static str,
    status: &'static str,
    /// The status code over HTTP of the first of them.
    http_status: Option<String>,
    spans: usize,
    duration_nano: Durations,
    /// The part of the critical path that lies in them.
    critical_nano: u64,
    /// The number of spans below them that have no group here.
    hidden: usize,
}

#[derive(Debug, Serialize)]
struct Durations {
    min: u64,
    max: u64,
    total: u64,
}

/// A folded tree, depth first.
pub struct Folded {
    pub groups: Vec<Group>,
    /// The number of spans without a group.
    pub hidden: usize,
}

/// The rows of a group that is about to be added.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Whether one of the spans or one below them has an error.
    failed: bool,
    is_critical: bool,
    depth: Reverse<usize>,
    /// The first of them.
    rows: Reverse<Vec<usize>>,
    /// The place of the group above.
    above: Option<usize>,
}

/// Facts about each row.
struct Facts<'a> {
    tree: &'a Tree,
    below: Vec<Vec<usize>>,
    failed: Vec<bool>,
    critical: Vec<u64>,
}

impl<'a> Facts<'a> {
    fn new(tree: &'a Tree, path: &[Segment]) -> Self {
        let rows = tree.rows.len();
        let (mut below, mut failed) = (vec![Vec::new(); rows], vec![false; rows]);
        let mut critical = vec![0; rows];
        for segment in path {
            critical[segment.row] += segment.end - segment.start;
        }
        // A row stands behind its parent.
        for (index, row) in tree.rows.iter().enumerate().rev() {
            failed[index] |= row.span.is_error();
            if let Some(parent) = row.parent {
                failed[parent] |= failed[index];
                below[parent].push(index);
            }
        }
        Facts { tree, below, failed, critical }
    }

    /// Groups rows that are right below one group.
    fn groups(&self, rows: impl Iterator<Item = usize>, above: Option<usize>) -> Vec<Candidate> {
        let mut groups: HashMap<(&str, String, SpanKind, Status), Vec<usize>> = HashMap::new();
        for row in rows {
            let span = &self.tree.rows[row].span;
            let key = (span.service(), pattern(span.name()), span.kind(), span.status());
            groups.entry(key).or_default().push(row);
        }
        let candidate = |mut rows: Vec<usize>| {
            rows.sort_unstable();
            Candidate {
                failed: rows.iter().any(|row| self.failed[*row]),
                is_critical: rows.iter().any(|row| self.critical[*row] > 0),
                depth: Reverse(self.tree.rows[rows[0]].depth),
                rows: Reverse(rows),
                above,
            }
        };
        groups.into_values().map(candidate).collect()
    }

    fn group(&self, rows: &[usize]) -> Group {
        let spans = || rows.iter().map(|row| &self.tree.rows[*row].span);
        let first = &self.tree.rows[rows[0]];
        let durations = || spans().map(|span| span.duration());
        let name = match spans().all(|span| span.name() == first.span.name()) {
            true => first.span.name().to_owned(),
            false => pattern(first.span.name()),
        };
        Group {
            depth: first.depth,
            span_id: first.span.id,
            service: cut(first.span.service(), NAME),
            name: cut(&name, NAME),
            kind: first.span.kind().as_str(),
            status: first.span.status().as_str(),
            http_status: http_status(&first.span.proto()),
            spans: rows.len(),
            duration_nano: Durations {
                min: durations().min().unwrap_or_default(),
                max: durations().max().unwrap_or_default(),
                total: durations().fold(0, u64::saturating_add),
            },
            critical_nano: rows.iter().map(|row| self.critical[*row]).sum(),
            hidden: rows.iter().map(|row| self.tree.rows[*row].below).sum(),
        }
    }
}

/// Folds a tree. If not all groups fit, those with an error in or below them are kept first, then those on the critical path, then
/// those near the top.
pub fn fold(tree: &Tree, path: &[Segment]) -> Folded {
    let facts = Facts::new(tree, path);
    let tops = (0..tree.rows.len()).filter(|row| tree.rows[*row].parent.is_none());
    let mut candidates = BinaryHeap::from(facts.groups(tops, None));
    let mut kept: Vec<(Group, Candidate)> = Vec::new();
    let mut left = BYTES;
    while kept.len() < GROUPS
        && let Some(candidate) = candidates.pop()
    {
        let group = facts.group(&candidate.rows.0);
        let Some(rest) = left.checked_sub(size(&group)) else { continue };
        left = rest;
        let below = candidate.rows.0.iter().flat_map(|row| &facts.below[*row]).copied();
        candidates.extend(facts.groups(below, Some(kept.len())));
        kept.push((group, candidate));
    }
    // A group stands behind the one above it, so each has all its own when it is added to the one above.
    for index in (0..kept.len()).rev() {
        let (group, candidate) = &kept[index];
        let spans = group.spans;
        let mut above = candidate.above;
        while let Some(at) = above {
            kept[at].0.hidden -= spans;
            above = kept[at].1.above;
        }
    }
    let shown: usize = kept.iter().map(|(group, _)| group.spans).sum();
    let mut order: Vec<Vec<usize>> = vec![Vec::new(); kept.len()];
    let mut tops = Vec::new();
    for (index, (_, candidate)) in kept.iter().enumerate() {
        match candidate.above {
            Some(above) => order[above].push(index),
            None => tops.push(index),
        }
    }
    let first = |index: &usize| kept[*index].1.rows.0[0];
    let mut pending = tops;
    pending.sort_by_key(|index| Reverse(first(index)));
    let mut sorted = Vec::with_capacity(kept.len());
    while let Some(index) = pending.pop() {
        sorted.push(index);
        let mut below = std::mem::take(&mut order[index]);
        below.sort_by_key(|index| Reverse(first(index)));
        pending.extend(below);
    }
    let mut groups: Vec<Option<Group>> = kept.into_iter().map(|(group, _)| Some(group)).collect();
    let groups = sorted.into_iter().filter_map(|index| groups[index].take()).collect();
    Folded { groups, hidden: tree.rows.len() - shown }
}
