//! Compares a request of the file with the spans that have arrived and shows where they differ.

use std::fmt;

use serde::Serialize;

use super::actual::{Actual, Detached};
use super::align::{Aligner, Difference, Found, Line, Matched, Mode};
use super::edges::{self, EdgesCompared, Seen};
use super::file::{Body, Children, Edge, Expected, Request, Times};
use super::glob::Glob;
use super::write::{Branch, Generalised, Lines, Writer, merge};
use crate::tree::plain;

/// The marks of a difference, in front of its line.
const SAME: &str = "  ";
const MISSING: &str = "- ";
const SURPLUS: &str = "+ ";

/// The levels of surplus spans that a difference shows.
const SURPLUS_LEVELS: usize = 60;

/// Whether later spans could still make the request as the file says, whatever arrives: `false` where a span is there that
/// can't be right.
pub fn may_match(request: &Request, actual: &Actual, keys: &[String]) -> bool {
    match &request.body {
        Body::Tree(tree) => Aligner::new(tree, actual, keys, Mode::Ever).cost(tree) == 0,
        Body::Edges(edges) => edges::compare(edges, actual, Mode::Ever) == EdgesCompared::default(),
    }
}

/// Whether the spans are as the file says.
pub fn matches(request: &Request, actual: &Actual, keys: &[String]) -> bool {
    match &request.body {
        Body::Tree(tree) => Aligner::new(tree, actual, keys, Mode::Now).cost(tree) == 0,
        Body::Edges(edges) => edges::compare(edges, actual, Mode::Now) == EdgesCompared::default(),
    }
}

/// The body of a request that the spans match: the one that is there, changed where it differs.
pub fn updated(request: &Request, actual: &Actual, keys: &[String]) -> (Body, Generalised) {
    match &request.body {
        Body::Tree(tree) => {
            let (tree, generalised) = merge(tree, actual, keys);
            (Body::Tree(tree), generalised)
        }
        Body::Edges(old) => {
            let EdgesCompared { missing, surplus } = edges::compare(old, actual, Mode::Now);
            let kept = old.iter().filter(|edge| !missing.contains(edge)).cloned();
            let mut edges: Vec<_> = kept.collect();
            let mut writer = Writer { actual, keys, generalised: Generalised::new() };
            edges.extend(writer.edges(surplus));
            (Body::Edges(edges), writer.generalised)
        }
    }
}

/// The body of a new request: the tree of the spans, or the edges between their services.
pub fn written(actual: &Actual, keys: &[String], edges: bool) -> (Body, Generalised) {
    let mut writer = Writer { actual, keys, generalised: Generalised::new() };
    let body = match edges {
        true => Body::Edges(writer.edges(edges::seen(actual))),
        false => Body::Tree(writer.tree()),
    };
    (body, writer.generalised)
}

/// The number of spans, or edges, that are missing, surplus and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    pub missing: usize,
    pub surplus: usize,
    pub changed: usize,
}

/// The differences as text: the lines of the file, in which `-` marks what is missing and `+` what is there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub text: String,
    pub counts: Counts,
}

/// Shows the differences between a request of the file and the spans.
pub fn shown(request: &Request, actual: &Actual, keys: &[String]) -> Shown {
    match &request.body {
        Body::Tree(tree) => {
            let mut aligner = Aligner::new(tree, actual, keys, Mode::Now);
            let matched = aligner.matched(tree);
            let writer = Writer { actual, keys, generalised: Generalised::new() };
            let mut show =
                Show { writer, aligner, lines: Lines::default(), counts: Counts::default() };
            show.matched(&matched, &mut Branch::default());
            Shown { text: show.lines.to_string(), counts: show.counts }
        }
        Body::Edges(expected) => {
            let EdgesCompared { missing, surplus } = edges::compare(expected, actual, Mode::Now);
            let counts = Counts { missing: missing.len(), surplus: surplus.len(), changed: 0 };
            let mut text = format!("{SAME}edges\n");
            for edge in expected {
                let mark = if missing.contains(&edge) { MISSING } else { SAME };
                text.push_str(&format!("{mark}{edge}\n"));
            }
            for edge in surplus {
                text.push_str(&format!("{SURPLUS}{edge}\n"));
            }
            Shown { text, counts }
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { from, to, link, detached } = self;
        let from = from.as_deref().map(Glob::literal);
        Edge::new(from, Glob::literal(to), *link).fmt(f)?;
        match detached {
            Some((name, detached)) => write!(f, "  # {}: {detached}", plain(name)),
            None => Ok(()),
        }
    }
}

struct Show<'a> {
    writer: Writer<'a>,
    aligner: Aligner<'a>,
    lines: Lines,
    counts: Counts,
}

/// One line of the difference, with what is below it.
enum Entry<'a, 'b> {
    Word(&'static str),
    Any,
    /// The spans that stand for a line of the file, or one of them, and what to say about their number.
    Found(&'a Expected, &'b Found<'a>, String),
    Missing(&'a Expected, usize),
    Surplus(usize, usize),
    Links(&'b Matched<'a>),
    SurplusLinks(&'b [usize]),
}

impl<'a> Show<'a> {
    fn matched(&mut self, matched: &Matched<'a>, branch: &mut Branch) {
        let mut entries = Vec::new();
        for (index, lines) in matched.groups.iter().enumerate() {
            if index > 0 {
                entries.push(Entry::Word(match matched.out_of_order {
                    true => "then  # these begin before those above have ended",
                    false => "then",
                }));
            }
            for line in lines {
                match line {
                    Line::Any(_) => entries.push(Entry::Any),
                    Line::Span { expected, found, missing } => {
                        self.add_found(expected, found, &mut entries);
                        if *missing > 0 {
                            entries.push(Entry::Missing(expected, *missing));
                        }
                    }
                }
            }
        }
        self.counts.changed += usize::from(matched.out_of_order);
        entries.extend(self.surplus(&matched.surplus));
        entries.extend(matched.links.as_deref().map(Entry::Links));
        if !matched.surplus_links.is_empty() {
            entries.push(Entry::SurplusLinks(&matched.surplus_links));
        }
        self.entries(entries, branch);
    }

    /// Shows what is below one line. The last of the spans that are missing is the last line of the file, although spans that the
    /// file doesn't have may follow.
    fn entries(&mut self, entries: Vec<Entry<'a, '_>>, branch: &mut Branch) {
        let is_surplus =
            |entry: &Entry| matches!(entry, Entry::Surplus(..) | Entry::SurplusLinks(_));
        let in_file = entries.iter().rposition(|entry| !is_surplus(entry));
        let count = entries.len();
        for (index, entry) in entries.into_iter().enumerate() {
            let is_missing = matches!(entry, Entry::Missing(..));
            let last = index + 1 == count || is_missing && Some(index) == in_file;
            self.entry(entry, last, branch);
        }
    }

    /// Adds the spans of one line; equal ones, with nothing different below them, become one entry.
    fn add_found<'b>(
        &self,
        expected: &'a Expected,
        found: &'b [Found<'a>],
        entries: &mut Vec<Entry<'a, 'b>>,
    ) {
        let number = |count: usize| match (expected.times, found.len()) {
            (Times::OPTIONAL, 1) => String::new(),
            (times, all) if count == all && times == exactly(all) => String::new(),
            (_, all) if count == all => format!("{count} found"),
            (_, all) => format!("{count} of {all} found"),
        };
        let mut equal = 0;
        let mut first = None;
        for it in found {
            match it.is_right() {
                true => {
                    equal += 1;
                    first.get_or_insert(it);
                }
                false => entries.push(Entry::Found(expected, it, number(1))),
            }
        }
        if let Some(first) = first {
            entries.push(Entry::Found(expected, first, number(equal)));
        }
    }

    /// The spans that no line takes; those that are equal, with all below them, become one entry.
    fn surplus<'b>(&self, nodes: &[usize]) -> Vec<Entry<'a, 'b>> {
        let mut counts: Vec<(usize, usize)> = Vec::new();
        for node in nodes {
            let class = self.aligner.class(*node);
            match counts.iter_mut().find(|(known, _)| self.aligner.class(*known) == class) {
                Some((_, count)) => *count += 1,
                None => counts.push((*node, 1)),
            }
        }
        counts.into_iter().map(|(node, count)| Entry::Surplus(node, count)).collect()
    }

    fn entry(&mut self, entry: Entry<'a, '_>, last: bool, branch: &mut Branch) {
        let before = branch.before(branch.is_top(), last);
        match entry {
            Entry::Word(word) => self.lines.bare(SAME, format!("{before}{word}")),
            Entry::Any => self.lines.bare(SAME, format!("{before}...")),
            Entry::Found(expected, found, number) => {
                let comment = self.comment(found.node, &found.differences);
                if found.differences.is_empty() {
                    self.lines.span(SAME, &before, expected, &number);
                } else {
                    self.counts.changed += 1;
                    let once = Expected { times: Times::ONCE, ..expected.clone() };
                    self.lines.span(MISSING, &before, &once, "");
                    let mut actual = self.writer.line(found.node);
                    let is_named = |key: &str| expected.attributes.iter().any(|(it, _)| it == key);
                    actual.attributes.retain(|(key, _)| is_named(key));
                    self.lines.span(SURPLUS, &before, &actual, &comment);
                }
                branch.enter(last, |branch| self.matched(&found.below, branch));
            }
            Entry::Missing(expected, count) => {
                self.missing(expected, count, last, branch);
            }
            Entry::Surplus(node, count) => self.surplus_node(node, count, last, branch),
            Entry::Links(matched) => {
                self.lines.bare(SAME, format!("{before}links"));
                branch.enter(last, |branch| self.matched(matched, branch));
            }
            Entry::SurplusLinks(nodes) => {
                self.lines.bare(SURPLUS, format!("{before}links"));
                branch.enter(last, |branch| {
                    let entries = self.surplus(nodes);
                    self.entries(entries, branch);
                });
            }
        }
    }

    fn missing(&mut self, expected: &Expected, count: usize, last: bool, branch: &mut Branch) {
        self.counts.missing += count;
        let before = branch.before(branch.is_top(), last);
        let line = Expected { times: exactly(count), ..expected.clone() };
        self.lines.span(MISSING, &before, &line, "");
        branch.enter(last, |branch| self.missing_below(&expected.children, branch));
    }

    /// Shows the first of several alternatives.
    fn missing_below(&mut self, tree: &Children, branch: &mut Branch) {
        let Some(alternative) = tree.alternatives.first() else { return };
        let spans = alternative.groups.iter().flatten().filter_map(|item| match item {
            super::file::Item::Span(span) if span.times.min > 0 => Some(span),
            _ => None,
        });
        let spans: Vec<_> = spans.collect();
        let count = spans.len() + usize::from(alternative.links.is_some());
        for (index, span) in spans.into_iter().enumerate() {
            self.missing(span, span.times.min, index + 1 == count, branch);
        }
        if let Some(links) = &alternative.links {
            let before = branch.before(branch.is_top(), true);
            self.lines.bare(MISSING, format!("{before}links"));
            branch.enter(true, |branch| self.missing_below(links, branch));
        }
    }

    fn surplus_node(&mut self, node: usize, count: usize, last: bool, branch: &mut Branch) {
        self.counts.surplus += count;
        let before = branch.before(branch.is_top(), last);
        let mut line = self.writer.line(node);
        line.attributes.clear();
        line.times = exactly(count);
        let detached = self.writer.actual.nodes[node].detached;
        let comment = detached.map_or(String::new(), |it| it.to_string());
        self.lines.span(SURPLUS, &before, &line, &comment);
        branch.enter(last, |branch| {
            if branch.depth() > SURPLUS_LEVELS {
                return;
            }
            let actual = self.writer.actual;
            let mut below = self.surplus(&actual.nodes[node].children);
            let linked = &actual.nodes[node].linked;
            if !linked.is_empty() {
                below.push(Entry::SurplusLinks(linked));
            }
            self.entries(below, branch);
        });
    }

    fn comment(&self, node: usize, differences: &[Difference]) -> String {
        let node = &self.writer.actual.nodes[node];
        let said = differences.iter().filter_map(|difference| match difference {
            Difference::TooSlow => {
                Some(format!("took {}", crate::tree::took(node.span.duration())))
            }
            Difference::Detached(detached) => Some(detached.to_string()),
            Difference::Attribute(key) => {
                let has = node.span.attribute(key).is_some();
                (!has).then(|| format!("without {key}"))
            }
            _ => None,
        });
        said.collect::<Vec<_>>().join(", ")
    }
}

fn exactly(count: usize) -> Times {
    Times { min: count, max: Some(count) }
}

impl Found<'_> {
    /// Whether nothing differs here and below.
    fn is_right(&self) -> bool {
        self.differences.is_empty() && self.below.is_right()
    }
}

impl Matched<'_> {
    fn is_right(&self) -> bool {
        let line_is_right = |line: &Line| match line {
            Line::Any(_) => true,
            Line::Span { found, missing, .. } => *missing == 0 && found.iter().all(Found::is_right),
        };
        !self.out_of_order
            && self.surplus.is_empty()
            && self.surplus_links.is_empty()
            && self.groups.iter().flatten().all(line_is_right)
            && self.links.as_ref().is_none_or(|links| links.is_right())
    }
}

impl fmt::Display for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detached::ParentMissing(parent) => write!(f, "its parent {parent} has not arrived"),
            Detached::NoParent => f.write_str("without the parent that was sent"),
            Detached::OtherTrace(trace) => write!(f, "in another trace, {trace}"),
        }
    }
}
