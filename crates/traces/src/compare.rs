//! Compares two traces: which spans and log records only one of them has, in what the others differ, and where the time went.
//!
//! Spans are paired by service and name, below spans that are paired, so that as few as possible are left alone. Names that differ
//! only in an id or a number are the same. The children of a span are a set: their order changes from request to request.

mod name;
mod pairing;
mod records;
mod structure;
mod transport;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;

use self::pairing::{Pairing, Share};
use self::structure::{Facts, NO_PATH, Shared, Side};
use crate::analysis::critical_path;
use crate::expect::actual::linked_parts;
use crate::span::{SpanKind, Status};
use crate::tree::Tree;

pub use self::name::pattern;
pub use self::records::{Records, records};

/// A value for each of the two traces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Sides<T> {
    pub a: T,
    pub b: T,
}

impl<T> Sides<T> {
    pub fn map<U>(self, mut with: impl FnMut(T) -> U) -> Sides<U> {
        Sides { a: with(self.a), b: with(self.b) }
    }

    pub fn as_ref(&self) -> Sides<&T> {
        Sides { a: &self.a, b: &self.b }
    }
}

impl Sides<u64> {
    /// How much more it is in B.
    pub fn difference(self) -> i64 {
        let difference = self.b.abs_diff(self.a);
        let difference = i64::try_from(difference).unwrap_or(i64::MAX);
        if self.b < self.a { -difference } else { difference }
    }
}

/// A fact in which paired spans differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Kind(Sides<SpanKind>),
    Status(Sides<Status>),
    /// The status of the HTTP response, where a span has one.
    HttpStatus(Sides<Option<String>>),
    /// The attribute `error.type`, where it isn't the HTTP status again.
    ErrorType(Sides<Option<String>>),
}

/// The spans at one place of both traces: several where a span repeats.
#[derive(Debug, Clone)]
pub struct Row {
    pub service: String,
    /// The name of the spans, with `*` for values in which their names differ.
    pub name: String,
    /// The kind in A, or in B if A doesn't have the spans.
    pub kind: SpanKind,
    /// The places of the spans in the rows of each tree.
    pub spans: Sides<Vec<usize>>,
    pub changes: Vec<Change>,
    /// The row above; `None` for a top row.
    pub parent: Option<usize>,
    /// The number of levels above.
    pub depth: usize,
    /// How many rows, right behind this one, are below it.
    pub below: usize,
    /// The part of the critical path that lies in the spans, in nanoseconds.
    pub waited: Sides<u64>,
}

impl Row {
    /// How many spans are in each trace.
    pub fn counts(&self) -> Sides<usize> {
        self.spans.as_ref().map(Vec::len)
    }

    /// Whether the spans differ, apart from the time they took.
    pub fn differs(&self) -> bool {
        let Sides { a, b } = self.counts();
        a != b || !self.changes.is_empty()
    }
}

/// Two clocks that differ in one of the traces, so nobody can say how the time is divided between the services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unsure {
    /// The services, in the order of the alphabet.
    pub services: [String; 2],
    /// The clocks differ by at least this, in nanoseconds.
    pub nanoseconds: u64,
}

/// The differences between two traces.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Both trees in one, depth first.
    pub rows: Vec<Row>,
    /// Whether no other pairs leave fewer spans alone. Not proven for traces with thousands of siblings that all differ below.
    pub exact: bool,
    /// The number of spans.
    pub sizes: Sides<usize>,
    /// How many pieces the traces are in. The time is that of the longest.
    pub pieces: Sides<usize>,
    /// The length of the critical path, in nanoseconds: the sum of [`Row::waited`].
    pub duration: Sides<u64>,
    pub unsure: Vec<Unsure>,
}

impl Comparison {
    /// How many spans only one of the traces has.
    pub fn alone(&self) -> Sides<usize> {
        let counts = || self.rows.iter().map(Row::counts);
        Sides {
            a: counts().map(|it| it.a.saturating_sub(it.b)).sum(),
            b: counts().map(|it| it.b.saturating_sub(it.a)).sum(),
        }
    }

    /// How many spans of B differ from their pair in A.
    pub fn changed(&self) -> usize {
        let rows = self.rows.iter().filter(|row| !row.changes.is_empty());
        rows.map(|row| row.spans.b.len()).sum()
    }

    /// Whether the traces differ in more than their times.
    pub fn differs(&self) -> bool {
        self.rows.iter().any(Row::differs)
    }

    /// The other service that answers the calls of a row.
    pub fn answered_by(&self, row: usize) -> Option<&str> {
        let Row { service, below, kind, .. } = &self.rows[row];
        if !matches!(kind, SpanKind::Client | SpanKind::Producer) {
            return None;
        }
        let mut below = self.rows[row + 1..].iter().take(*below);
        let answers = below.find(|it| it.parent == Some(row) && it.service != *service)?;
        Some(&answers.service)
    }

    /// The time that the request waited for each service, with the rows that it lies in, the largest difference first.
    pub fn services(&self) -> Vec<(&str, Sides<u64>, Vec<usize>)> {
        let mut services: BTreeMap<&str, (Sides<u64>, Vec<usize>)> = BTreeMap::new();
        for (index, row) in
            self.rows.iter().enumerate().filter(|(_, row)| row.waited.a + row.waited.b > 0)
        {
            let (waited, rows) = services.entry(&row.service).or_default();
            waited.a += row.waited.a;
            waited.b += row.waited.b;
            rows.push(index);
        }
        let size = |waited: Sides<u64>| std::cmp::Reverse(waited.difference().unsigned_abs());
        let mut services: Vec<_> =
            services.into_iter().map(|(name, (waited, rows))| (name, waited, rows)).collect();
        for (_, _, rows) in &mut services {
            rows.sort_by_key(|row| size(self.rows[*row].waited));
        }
        services.sort_by_key(|(_, waited, _)| size(*waited));
        services
    }
}

/// Compares two traces. A is the one to compare with, B the one that may have changed.
pub fn compare(a: &Tree, b: &Tree) -> Comparison {
    let trees = Sides { a, b };
    let (shared, sides) = structure::read(trees);
    let waited = trees.map(waited);
    let pieces = trees.map(|tree| tree.tops().count());
    let mut merged = Merged {
        pairing: Pairing::new(&shared),
        shared: &shared,
        sides: &sides,
        waited,
        rows: Vec::new(),
    };
    merged.walk();
    let exact = merged.pairing.is_exact();
    let Merged { rows, waited, .. } = merged;
    Comparison {
        rows,
        exact,
        sizes: trees.map(|tree| tree.rows.len()),
        pieces,
        duration: waited.map(|waited| waited.iter().sum()),
        unsure: unsure(trees),
    }
}

/// The parts of other traces that are linked to a trace, each with all that is below it: the tops of one tree, which is empty
/// where there are none.
pub fn linked<'a>(to: &Tree, others: impl IntoIterator<Item = &'a Tree>) -> Tree {
    let mut spans = Vec::new();
    for tree in others {
        for (top, _) in linked_parts(tree, to.trace_id) {
            let part = &tree.rows[top..=top + tree.rows[top].below];
            spans.extend(part.iter().map(|row| Arc::clone(&row.span)));
        }
    }
    let empty = Tree { trace_id: to.trace_id, rows: Vec::new(), start: 0, duration: 0 };
    Tree::new(&spans).unwrap_or(empty)
}

/// The part of the critical path that lies in each row.
fn waited(tree: &Tree) -> Vec<u64> {
    let mut waited = vec![0; tree.rows.len()];
    for segment in critical_path(tree) {
        waited[segment.row] += segment.end - segment.start;
    }
    waited
}

/// The clocks that differ in either trace.
fn unsure(trees: Sides<&Tree>) -> Vec<Unsure> {
    let mut unsure: BTreeMap<[&str; 2], u64> = BTreeMap::new();
    for tree in [trees.a, trees.b] {
        for row in &tree.rows {
            let (Some(skew), Some(parent)) = (row.skew, row.parent) else { continue };
            let mut services = [tree.rows[parent].span.service(), row.span.service()];
            services.sort_unstable();
            let known = unsure.entry(services).or_default();
            *known = skew.nanoseconds().max(*known);
        }
    }
    let unsure = unsure.into_iter();
    unsure
        .map(|(services, nanoseconds)| Unsure {
            services: services.map(str::to_owned),
            nanoseconds,
        })
        .collect()
}

/// Both trees, while they are merged into one.
struct Merged<'a> {
    pairing: Pairing<'a>,
    shared: &'a Shared,
    sides: &'a Sides<Side<'a>>,
    waited: Sides<Vec<u64>>,
    rows: Vec<Row>,
}

/// Spans that become one row.
struct Item {
    spans: Sides<Vec<usize>>,
    what: What,
    /// The path of the spans that are looked through, between this item and the row that the level is below.
    path: usize,
}

enum What {
    /// Spans that are paired or left alone, and their classes.
    Classes(Sides<Option<usize>>),
    /// Spans that are looked through, and the path from what is below them.
    Passed(usize),
}

/// The items of a level that are below others of the same level, by the path that leads there.
type Level = HashMap<usize, Vec<Item>>;

impl Merged<'_> {
    /// Makes the rows, depth first.
    fn walk(&mut self) {
        let tops = self.sides.as_ref().map(Side::top);
        let classes = Sides { a: self.sides.a.classes[tops.a], b: self.sides.b.classes[tops.b] };
        let top = Sides { a: vec![tops.a], b: vec![tops.b] };
        // A stack of our own: a trace may be deeper than the thread's.
        let mut levels = vec![self.level(&top, classes.map(Some))];
        let mut pending: Vec<(Item, usize, Option<usize>)> = Vec::new();
        let start = |levels: &mut Vec<Level>, level: usize, path, parent, pending: &mut Vec<_>| {
            let items = levels[level].remove(&path).unwrap_or_default();
            pending.extend(items.into_iter().rev().map(|item| (item, level, parent)));
        };
        start(&mut levels, 0, NO_PATH, None, &mut pending);
        while let Some((item, level, parent)) = pending.pop() {
            let index = self.rows.len();
            let row = self.row(&item, parent);
            self.rows.push(row);
            match item.what {
                What::Passed(path) => start(&mut levels, level, path, Some(index), &mut pending),
                What::Classes(classes) => {
                    levels.push(self.level(&item.spans, classes));
                    let level = levels.len() - 1;
                    start(&mut levels, level, NO_PATH, Some(index), &mut pending);
                }
            }
        }
        for index in (0..self.rows.len()).rev() {
            let below = self.rows[index].below + 1;
            if let Some(parent) = self.rows[index].parent {
                self.rows[parent].below += below;
            }
        }
    }

    /// Everything right below these spans, which have these classes.
    fn level(&mut self, spans: &Sides<Vec<usize>>, classes: Sides<Option<usize>>) -> Level {
        let shares = self.pairing.shares(classes);
        let dealt_a =
            deal(&self.sides.a, &spans.a, shares.iter().map(|it| (it.classes.a, it.counts.a)));
        let dealt_b =
            deal(&self.sides.b, &spans.b, shares.iter().map(|it| (it.classes.b, it.counts.b)));
        let mut items = Vec::new();
        for ((Share { classes, .. }, a), b) in shares.into_iter().zip(dealt_a).zip(dealt_b) {
            let path = |class: Option<usize>| {
                class.map_or(NO_PATH, |class| self.shared.classes.things[class].path)
            };
            // Below both a span that is gone and one that is new, it is shown below the new one.
            let path = match classes.map(path) {
                Sides { a, b: NO_PATH } => a,
                Sides { b, .. } => b,
            };
            items.push(Item { spans: Sides { a, b }, what: What::Classes(classes), path });
        }
        let passed = |side: &Side<'_>, above: &[usize]| {
            let mut passed: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for (row, path) in above.iter().flat_map(|above| &side.passed[*above]) {
                passed.entry(*path).or_default().push(*row);
            }
            let item = |(below, rows): (usize, Vec<usize>)| (side.paths[rows[0]], below, rows);
            passed.into_iter().map(item).collect::<Vec<_>>()
        };
        for (path, below, rows) in passed(&self.sides.a, &spans.a) {
            let spans = Sides { a: rows, b: Vec::new() };
            items.push(Item { spans, what: What::Passed(below), path });
        }
        for (path, below, rows) in passed(&self.sides.b, &spans.b) {
            let spans = Sides { a: Vec::new(), b: rows };
            items.push(Item { spans, what: What::Passed(below), path });
        }
        let mut level = Level::new();
        for item in in_order(items) {
            level.entry(item.path).or_default().push(item);
        }
        level
    }

    fn row(&self, item: &Item, parent: Option<usize>) -> Row {
        let span = |side: &Side<'_>, row: usize| std::sync::Arc::clone(&side.tree.rows[row].span);
        let spans_of = |side: &'_ Side<'_>, rows: &[usize]| {
            rows.iter().map(|row| span(side, *row)).collect::<Vec<_>>()
        };
        let (a, b) =
            (spans_of(&self.sides.a, &item.spans.a), spans_of(&self.sides.b, &item.spans.b));
        let mut all = a.iter().chain(&b);
        let first = all.next();
        let same_name = first.filter(|first| all.all(|span| span.name() == first.name()));
        let key = match (item.spans.a.first(), item.spans.b.first()) {
            (Some(row), _) => self.sides.a.keys[*row],
            (None, Some(row)) => self.sides.b.keys[*row],
            (None, None) => 0,
        };
        let (service, pattern) = &self.shared.keys.things[key];
        let changes = match &item.what {
            What::Classes(Sides { a: Some(a), b: Some(b) }) => {
                let facts = |class: usize| {
                    &self.shared.facts.things[self.shared.classes.things[class].facts]
                };
                changes(facts(*a), facts(*b))
            }
            _ => Vec::new(),
        };
        let waited = |waited: &[u64], rows: &[usize]| rows.iter().map(|row| waited[*row]).sum();
        Row {
            service: service.clone(),
            name: same_name.map_or(pattern.clone(), |span| span.name().to_owned()),
            kind: first.map_or(SpanKind::Unspecified, |span| span.kind()),
            changes,
            depth: parent.map_or(0, |parent| self.rows[parent].depth + 1),
            parent,
            below: 0,
            waited: Sides {
                a: waited(&self.waited.a, &item.spans.a),
                b: waited(&self.waited.b, &item.spans.b),
            },
            spans: item.spans.clone(),
        }
    }
}

/// Deals the rows right below these to shares. Each of these rows gives a share this number of rows of this class.
fn deal(
    side: &Side<'_>,
    above: &[usize],
    shares: impl Iterator<Item = (Option<usize>, usize)>,
) -> Vec<Vec<usize>> {
    let mut dealt = Vec::new();
    // The shares that take a class, the first last.
    let mut takers: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
    for (share, (class, count)) in shares.enumerate() {
        dealt.push(Vec::new());
        if let Some(class) = class {
            takers.entry(class).or_default().insert(0, (share, count));
        }
    }
    for row in above {
        let mut left = takers.clone();
        for child in &side.children[*row] {
            let Some(takers) = left.get_mut(&side.classes[*child]) else { continue };
            if let Some((share, count)) = takers.last_mut() {
                dealt[*share].push(*child);
                *count -= 1;
                if *count == 0 {
                    takers.pop();
                }
            }
        }
    }
    dealt
}

/// Sorts the items of a level: in the order of A, with what only B has before what follows it there.
fn in_order(items: Vec<Item>) -> Vec<Item> {
    let first = |rows: &Vec<usize>| rows.iter().min().copied();
    let mut of_b: Vec<(usize, usize)> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((first(&item.spans.b)?, index)))
        .collect();
    of_b.sort_unstable();
    // The place of each: among those of A, then those that only B has before it, in their own order.
    let of_a = |item: &Item| first(&item.spans.a).map(|row| (row, usize::MAX));
    let mut places: Vec<(usize, usize)> =
        items.iter().map(|item| of_a(item).unwrap_or_default()).collect();
    let mut next = usize::MAX;
    for (row, index) in of_b.into_iter().rev() {
        match first(&items[index].spans.a) {
            Some(place) => next = place,
            None => places[index] = (next, row),
        }
    }
    let mut placed: Vec<((usize, usize), Item)> = places.into_iter().zip(items).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, item)| item).collect()
}

/// The facts in which two spans differ.
fn changes(a: &Facts, b: &Facts) -> Vec<Change> {
    let mut changes = Vec::new();
    if a.kind != b.kind {
        changes.push(Change::Kind(Sides { a: a.kind, b: b.kind }));
    }
    if a.status != b.status {
        changes.push(Change::Status(Sides { a: a.status, b: b.status }));
    }
    let both = |a: &Option<String>, b: &Option<String>| Sides { a: a.clone(), b: b.clone() };
    if a.http_status != b.http_status {
        changes.push(Change::HttpStatus(both(&a.http_status, &b.http_status)));
    }
    if a.error_type != b.error_type {
        changes.push(Change::ErrorType(both(&a.error_type, &b.error_type)));
    }
    changes
}
