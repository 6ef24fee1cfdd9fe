//! Finds where the time of a trace goes: its critical path, the time of each service, and who called whom.

use std::collections::BTreeMap;

use crate::conventions;
use crate::span::SpanKind;
use crate::tree::Tree;

/// A piece of the critical path: from `start` to `end`, in nanoseconds since 1970, the request waited for this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub row: usize,
    pub start: u64,
    pub end: u64,
}

/// The critical path: what the request waited for at each moment, in order of time. Shorten a span anywhere else, and
/// the request takes as long as before. Of a trace in several pieces, that of the longest.
///
/// From the end of a span backwards: the child that ended last was waited for, before it the one that ended last
/// before that one started, and the span itself in between.
pub fn critical_path(tree: &Tree) -> Vec<Segment> {
    let children = children(tree);
    let tops = (0..tree.rows.len()).filter(|row| tree.rows[*row].parent.is_none());
    let Some(longest) = tops.max_by_key(|row| tree.rows[*row].span.duration()) else {
        return Vec::new();
    };
    let span = &tree.rows[longest].span;
    let mut path = Vec::new();
    let mut pending = vec![(longest, span.start(), span.end())];
    while let Some((row, start, end)) = pending.pop() {
        let mut until = end;
        let mut add = |start, end| {
            if start < end {
                path.push(Segment { row, start, end });
            }
        };
        // A child that outlives its parent was not waited for to its end.
        let clipped = children[row].iter().map(|child| {
            let span = &tree.rows[*child].span;
            (span.end().min(end), span.start().max(start), *child)
        });
        let mut last_first: Vec<_> = clipped.filter(|(end, start, _)| start < end).collect();
        last_first.sort_unstable();
        for (end, start, child) in last_first.into_iter().rev() {
            if end <= until {
                add(end, until);
                pending.push((child, start, end));
                until = start;
            }
        }
        add(start, until);
    }
    path.sort_by_key(|segment| segment.start);
    path
}

/// The rows right below each row.
fn children(tree: &Tree) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); tree.rows.len()];
    for (index, row) in tree.rows.iter().enumerate() {
        if let Some(parent) = row.parent {
            children[parent].push(index);
        }
    }
    children
}

/// The part of one service in a trace. Times are in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// The number of its spans.
    pub spans: usize,
    /// The number of its spans that are in error.
    pub errors: usize,
    /// In its spans and in none below them; spans side by side count each.
    pub own_time: u64,
    /// The part of the critical path that lies in its spans.
    pub critical_time: u64,
}

/// The share of each service, those that the request waited for longest first.
pub fn shares<'a>(tree: &'a Tree, path: &[Segment]) -> Vec<(&'a str, Share)> {
    let mut shares: BTreeMap<&str, Share> = BTreeMap::new();
    for (row, below) in tree.rows.iter().zip(children(tree)) {
        let share = shares.entry(row.span.service()).or_default();
        share.spans += 1;
        share.errors += usize::from(row.span.is_error());
        let spans = below.iter().map(|child| &tree.rows[*child].span);
        let covered = spans.map(|span| (span.start(), span.end()));
        let own_time = uncovered(row.span.start(), row.span.end(), covered.collect());
        share.own_time = share.own_time.saturating_add(own_time);
    }
    for segment in path {
        let share = shares.entry(tree.rows[segment.row].span.service());
        share.or_default().critical_time += segment.end - segment.start;
    }
    let mut shares: Vec<_> = shares.into_iter().collect();
    shares.sort_by_key(|(_, share)| std::cmp::Reverse((share.critical_time, share.own_time)));
    shares
}

/// How much of `start` to `end` is in none of the intervals.
fn uncovered(start: u64, end: u64, mut intervals: Vec<(u64, u64)>) -> u64 {
    intervals.sort_unstable();
    let (mut free, mut from) = (0, start);
    for (begin, finish) in intervals {
        free += begin.min(end).saturating_sub(from);
        from = from.max(finish);
    }
    free + end.saturating_sub(from)
}

/// The calls of one service to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    pub count: usize,
    pub errors: usize,
}

/// Counts who called whom in these traces, by caller and called service. A span whose parent belongs to another service is
/// one call.
pub fn calls<'a>(trees: impl IntoIterator<Item = &'a Tree>) -> BTreeMap<(&'a str, &'a str), Calls> {
    let mut calls: BTreeMap<(&str, &str), Calls> = BTreeMap::new();
    for tree in trees {
        for row in &tree.rows {
            let Some(parent) = row.parent else { continue };
            let parent = &tree.rows[parent].span;
            let (caller, called) = (parent.service(), row.span.service());
            if caller != called {
                let calls = calls.entry((caller, called)).or_default();
                calls.count += 1;
                // A refusal (4xx) is an error to the caller alone.
                let failed =
                    row.span.is_error() || (parent.kind() == SpanKind::Client && parent.is_error());
                calls.errors += usize::from(failed);
            }
        }
    }
    calls
}

/// Counts the calls in a trace that no span of another service answers, by caller and destination: a database, or a service that
/// sends no spans. Calls without the name of a destination are left out. A call within another one, such as an HTTP request of a
/// model's client, counts as one with it.
pub fn outgoing(tree: &Tree) -> BTreeMap<(&str, String), Calls> {
    let rows = &tree.rows;
    let is_call =
        |row: usize| matches!(rows[row].span.kind(), SpanKind::Client | SpanKind::Producer);
    let same_service =
        |row: usize, other: usize| rows[row].span.service() == rows[other].span.service();
    let mut answered = vec![false; rows.len()];
    // Each row comes behind its parent.
    for index in (0..rows.len()).rev() {
        if let Some(parent) = rows[index].parent {
            answered[parent] |= !same_service(index, parent) || is_call(index) && answered[index];
        }
    }
    let mut counted = vec![false; rows.len()];
    let mut calls: BTreeMap<(&str, String), Calls> = BTreeMap::new();
    for index in (0..rows.len()).filter(|row| is_call(*row) && !answered[*row]) {
        let span = &rows[index].span;
        counted[index] =
            rows[index].parent.is_some_and(|it| counted[it] && same_service(index, it));
        if counted[index] {
            continue;
        }
        if let Some(destination) = conventions::destination(&span.proto()) {
            counted[index] = true;
            let calls = calls.entry((span.service(), destination)).or_default();
            calls.count += 1;
            calls.errors += usize::from(span.is_error());
        }
    }
    calls
}
