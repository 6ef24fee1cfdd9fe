//! Finds the places of the spans in a file such that the fewest differ. The search is exact: equal spans are counted instead of
//! compared one by one, and a flow of least cost gives them to the lines.

use std::collections::HashMap;

use super::actual::{Actual, Detached, Node, fits};
use super::file::{Alternative, Children, Comments, Expected, Item, Outcome, Times};
use super::flow::{Demand, Supply, assign};

/// The cost of one span that is missing or too much.
const SPAN: u64 = 2;

/// The cost of a span that stands for another: as much as one that is missing and one that is too much. So it pays only where there
/// are equal spans below.
const OTHER_SPAN: u64 = 2 * SPAN;

/// The most that the small differences of one span cost together: less than another span.
const CHANGES: u64 = OTHER_SPAN - 1;

/// A span may begin this long before the end of one that it follows, because clocks tick, in nanoseconds.
const TOLERANCE: u64 = 1_000_000;

/// Which differences count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of them.
    Now,
    /// Only those that remain whatever else arrives: spans may be missing.
    Ever,
}

/// One way in which a span differs from its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Name,
    Service,
    Kind,
    Status,
    Error,
    /// The attribute with this key.
    Attribute(String),
    /// The span takes as long as its limit, or longer.
    TooSlow,
    Detached(Detached),
}

/// The spans that stand for the lines below one line.
#[derive(Debug)]
pub struct Matched<'a> {
    /// Which of the alternatives it is.
    pub alternative: usize,
    /// The lines, group by group.
    pub groups: Vec<Vec<Line<'a>>>,
    /// Whether the groups overlap.
    pub out_of_order: bool,
    /// The spans that no line takes, and those that are linked.
    pub surplus: Vec<usize>,
    pub links: Option<Box<Matched<'a>>>,
    pub surplus_links: Vec<usize>,
}

/// The spans that stand for one line.
#[derive(Debug)]
pub enum Line<'a> {
    Span {
        expected: &'a Expected,
        found: Vec<Found<'a>>,
        missing: usize,
    },
    /// `...`
    Any(&'a Comments),
}

/// A span that stands for a line.
#[derive(Debug)]
pub struct Found<'a> {
    pub node: usize,
    pub differences: Vec<Difference>,
    pub below: Matched<'a>,
}

/// Compares spans with a file.
pub struct Aligner<'a> {
    actual: &'a Actual,
    keys: &'a [String],
    mode: Mode,
    /// The class of each node: nodes of one class are equal as far as a file can tell, and so are the spans below them.
    classes: Vec<usize>,
    /// The costs by line (its address) and class.
    known: HashMap<(usize, usize), u64>,
}

/// The facts about one span that a file can tell.
type Key<'a> = (
    (&'a str, &'a str, crate::span::SpanKind, Option<&'a str>, Option<&'a str>),
    (&'a [Option<String>], usize, Option<Detached>, usize),
    (Vec<usize>, Vec<usize>),
);

impl<'a> Aligner<'a> {
    /// `keys` are the attributes that the nodes have.
    pub fn new(tree: &'a Children, actual: &'a Actual, keys: &'a [String], mode: Mode) -> Self {
        let mut limits: Vec<u64> = Vec::new();
        tree.each(&mut |span| limits.extend(span.limit));
        let classes = classes(actual, &limits, tree.has_order());
        Aligner { actual, keys, mode, classes, known: HashMap::new() }
    }

    /// Returns the cost of all differences: 0 where the spans are as the file says.
    pub fn cost(&mut self, tree: &'a Children) -> u64 {
        self.below(tree, &self.actual.tops, &self.actual.linked)
    }

    /// The spans at their places.
    pub fn matched(&mut self, tree: &'a Children) -> Matched<'a> {
        self.place(tree, &self.actual.tops, &self.actual.linked)
    }

    fn missing(&self, expected: &Expected) -> u64 {
        match self.mode {
            Mode::Now => SPAN * needed(expected),
            Mode::Ever => 0,
        }
    }

    fn surplus(&self, node: usize) -> u64 {
        SPAN * self.actual.nodes[node].size as u64
    }

    fn span(&mut self, expected: &'a Expected, node: usize) -> u64 {
        let key = (std::ptr::from_ref(expected) as usize, self.classes[node]);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let Node { children, linked, .. } = &self.actual.nodes[node];
        let differences = self.differences(expected, node);
        let other = differences.iter().filter(|it| is_other(it)).count() as u64;
        let changes = (differences.len() as u64 - other).min(CHANGES);
        let cost = OTHER_SPAN * other + changes + self.below(&expected.children, children, linked);
        self.known.insert(key, cost);
        cost
    }

    fn differences(&self, expected: &Expected, node: usize) -> Vec<Difference> {
        let node = &self.actual.nodes[node];
        let error = match (&expected.outcome, &node.error) {
            (Outcome::NoError, error) => error.is_none(),
            (Outcome::Error(kind), error) => {
                error.is_some() && fits(kind.as_ref(), error.as_deref())
            }
        };
        let mut differences = Vec::new();
        let mut check = |is_right: bool, difference: Difference| {
            differences.extend((!is_right).then_some(difference));
        };
        check(expected.name.matches(node.name()), Difference::Name);
        check(expected.service.matches(node.service()), Difference::Service);
        check(expected.kind.is_none_or(|kind| kind == node.kind()), Difference::Kind);
        check(fits(expected.status.as_ref(), node.status.as_deref()), Difference::Status);
        check(error, Difference::Error);
        for (key, pattern) in &expected.attributes {
            let at = self.keys.iter().position(|it| it == key);
            let value = at.and_then(|at| node.attributes[at].as_deref());
            check(fits(Some(pattern), value), Difference::Attribute(key.clone()));
        }
        check(expected.limit.is_none_or(|limit| node.span.duration() < limit), Difference::TooSlow);
        if let Some(detached) = node.detached {
            check(false, Difference::Detached(detached));
        }
        differences
    }

    fn below(&mut self, tree: &'a Children, nodes: &[usize], linked: &[usize]) -> u64 {
        let costs = tree.alternatives.iter().map(|it| self.alternative(it, nodes, linked));
        costs.min().unwrap_or_default()
    }

    fn alternative(
        &mut self,
        alternative: &'a Alternative,
        nodes: &[usize],
        linked: &[usize],
    ) -> u64 {
        let linked = match &alternative.links {
            Some(links) => self.below(links, linked, &[]),
            None if alternative.groups.iter().flatten().any(Item::is_any) => 0,
            None => linked.iter().map(|node| self.surplus(*node)).sum(),
        };
        linked + self.in_groups(&alternative.groups, nodes).0
    }

    /// The cost of the best way to cut the spans into groups, and the ends of the groups; without ends, the groups overlap.
    fn in_groups(&mut self, groups: &'a [Vec<Item>], nodes: &[usize]) -> (u64, Option<Vec<usize>>) {
        if let [only] = groups {
            return (self.group(only, nodes).0, Some(vec![nodes.len()]));
        }
        let cuts = self.cuts(nodes);
        // For each cut, the best cost of the groups so far and the ends of these groups.
        let mut best: Vec<Option<(u64, Vec<usize>)>> =
            cuts.iter().map(|cut| (*cut == 0).then(|| (0, Vec::new()))).collect();
        for group in groups {
            let mut next: Vec<Option<(u64, Vec<usize>)>> = vec![None; cuts.len()];
            for (from, before) in best.iter().enumerate() {
                let Some((cost, ends)) = before else { continue };
                for to in from..cuts.len() {
                    let cost = cost + self.group(group, &nodes[cuts[from]..cuts[to]]).0;
                    if next[to].as_ref().is_none_or(|(known, _)| cost < *known) {
                        let mut ends = ends.clone();
                        ends.push(cuts[to]);
                        next[to] = Some((cost, ends));
                    }
                }
            }
            best = next;
        }
        let in_order = best.pop().flatten();
        let items = groups.iter().flatten();
        let out_of_order = 1 + self.assign(&items.collect::<Vec<_>>(), nodes).0;
        match in_order {
            Some((cost, ends)) if cost <= out_of_order => (cost, Some(ends)),
            _ => (out_of_order, None),
        }
    }

    /// The places between spans, which are in the order of their start, where all before have ended when the next begins.
    fn cuts(&self, nodes: &[usize]) -> Vec<usize> {
        let mut end = 0;
        let mut cuts = vec![0];
        for (index, node) in nodes.iter().enumerate() {
            let span = &self.actual.nodes[*node].span;
            if index > 0 && end <= span.start().saturating_add(TOLERANCE) {
                cuts.push(index);
            }
            end = end.max(span.end());
        }
        if !nodes.is_empty() {
            cuts.push(nodes.len());
        }
        cuts
    }

    fn group(&mut self, items: &'a [Item], nodes: &[usize]) -> (u64, Vec<Vec<usize>>, Vec<usize>) {
        self.assign(&items.iter().collect::<Vec<_>>(), nodes)
    }

    /// Gives the spans to the lines. Returns the cost, the spans of each line, and those that no line takes.
    fn assign(
        &mut self,
        items: &[&'a Item],
        nodes: &[usize],
    ) -> (u64, Vec<Vec<usize>>, Vec<usize>) {
        let mut classes: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut positions: HashMap<usize, usize> = HashMap::new();
        for node in nodes {
            let class = self.classes[*node];
            let position = *positions.entry(class).or_insert(classes.len());
            if position == classes.len() {
                classes.push((class, Vec::new()));
            }
            classes[position].1.push(*node);
        }
        let supplies: Vec<Supply> = classes
            .iter()
            .map(|(_, nodes)| Supply { count: nodes.len(), surplus: self.surplus(nodes[0]) })
            .collect();
        let demands: Vec<Demand> = items
            .iter()
            .map(|item| match item {
                Item::Any(_) => Demand { min: 0, max: None, missing: 0 },
                Item::Span(span) => {
                    let Times { min, max } = span.times;
                    Demand { min, max, missing: self.missing(span) }
                }
            })
            .collect();
        let costs: Vec<Vec<u64>> = classes
            .iter()
            .map(|(_, nodes)| {
                let cost = |item: &&'a Item| match item {
                    Item::Any(_) => 0,
                    Item::Span(span) => self.span(span, nodes[0]),
                };
                items.iter().map(cost).collect()
            })
            .collect();
        let assignment = assign(&supplies, &demands, |class, item| costs[class][item]);
        let mut found = vec![Vec::new(); items.len()];
        let mut surplus = Vec::new();
        for ((_, nodes), given) in classes.into_iter().zip(&assignment.given) {
            let mut nodes = nodes.into_iter();
            for (item, count) in given.iter().enumerate() {
                found[item].extend(nodes.by_ref().take(*count));
            }
            surplus.extend(nodes);
        }
        found.iter_mut().for_each(|nodes| nodes.sort_unstable());
        surplus.sort_unstable();
        (assignment.cost, found, surplus)
    }

    fn place(&mut self, tree: &'a Children, nodes: &[usize], linked: &[usize]) -> Matched<'a> {
        let costs = tree.alternatives.iter().map(|it| self.alternative(it, nodes, linked));
        let best = costs.enumerate().min_by_key(|(index, cost)| (*cost, *index));
        let index = best.map_or(0, |(index, _)| index);
        let alternative = &tree.alternatives[index];
        let groups = &alternative.groups;
        let (_, ends) = self.in_groups(groups, nodes);
        let mut matched = Matched {
            alternative: index,
            groups: Vec::new(),
            out_of_order: ends.is_none(),
            surplus: Vec::new(),
            links: None,
            surplus_links: Vec::new(),
        };
        match ends {
            Some(ends) => {
                let mut start = 0;
                for (group, end) in groups.iter().zip(ends) {
                    let (_, found, surplus) = self.group(group, &nodes[start..end]);
                    matched.groups.push(self.lines(group.iter(), found));
                    matched.surplus.extend(surplus);
                    start = end;
                }
            }
            None => {
                let items: Vec<&Item> = groups.iter().flatten().collect();
                let (_, found, surplus) = self.assign(&items, nodes);
                let mut lines = self.lines(items.into_iter(), found).into_iter();
                matched.groups =
                    groups.iter().map(|it| lines.by_ref().take(it.len()).collect()).collect();
                matched.surplus = surplus;
            }
        }
        match &alternative.links {
            Some(links) => matched.links = Some(Box::new(self.place(links, linked, &[]))),
            None if groups.iter().flatten().any(Item::is_any) => {}
            None => matched.surplus_links = linked.to_vec(),
        }
        matched
    }

    fn lines(
        &mut self,
        items: impl Iterator<Item = &'a Item>,
        found: Vec<Vec<usize>>,
    ) -> Vec<Line<'a>> {
        let line = |(item, nodes): (&'a Item, Vec<usize>)| match item {
            Item::Any(comments) => Line::Any(comments),
            Item::Span(expected) => Line::Span {
                expected,
                missing: expected.times.min.saturating_sub(nodes.len()),
                found: nodes.into_iter().map(|node| self.found(expected, node)).collect(),
            },
        };
        items.zip(found).map(line).collect()
    }

    fn found(&mut self, expected: &'a Expected, node: usize) -> Found<'a> {
        let Node { children, linked, .. } = &self.actual.nodes[node];
        let differences = self.differences(expected, node);
        Found { node, differences, below: self.place(&expected.children, children, linked) }
    }

    /// The class of a node.
    pub fn class(&self, node: usize) -> usize {
        self.classes[node]
    }
}

/// Whether the span is another one, rather than the same with a difference.
fn is_other(difference: &Difference) -> bool {
    matches!(difference, Difference::Name | Difference::Service)
}

/// The least number of spans that a line stands for, with those below it.
fn needed(expected: &Expected) -> u64 {
    1 + needed_below(&expected.children)
}

fn needed_below(tree: &Children) -> u64 {
    let alternatives = tree.alternatives.iter().map(|alternative| {
        let items = alternative.groups.iter().flatten().map(|item| match item {
            Item::Any(_) => 0,
            Item::Span(span) => needed(span).saturating_mul(span.times.min as u64),
        });
        items.sum::<u64>() + alternative.links.as_ref().map_or(0, |links| needed_below(links))
    });
    alternatives.min().unwrap_or_default()
}

fn classes(actual: &Actual, limits: &[u64], ordered: bool) -> Vec<usize> {
    let mut known: HashMap<Key, usize> = HashMap::new();
    let mut classes = vec![0; actual.nodes.len()];
    for (index, node) in actual.nodes.iter().enumerate().rev() {
        let below = |nodes: &[usize]| {
            let mut below: Vec<usize> = nodes.iter().map(|node| classes[*node]).collect();
            below.sort_unstable();
            below
        };
        let exceeded = limits.iter().filter(|limit| node.span.duration() >= **limit).count();
        // Where the order matters, no two spans are equal.
        let own = if ordered { index + 1 } else { 0 };
        let key: Key = (
            (
                node.name(),
                node.service(),
                node.kind(),
                node.status.as_deref(),
                node.error.as_deref(),
            ),
            (&node.attributes, exceeded, node.detached, own),
            (below(&node.children), below(&node.linked)),
        );
        let next = known.len();
        classes[index] = *known.entry(key).or_insert(next);
    }
    classes
}
