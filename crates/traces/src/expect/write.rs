//! Writes a file: prints its parts, makes the lines of spans that have arrived, and changes only the lines that differ.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};

use super::actual::{Actual, Node};
use super::align::{Aligner, Difference, Line, Matched};
use super::edges::Seen;
use super::file::{
    Alternative, Body, Children, Comments, Edge, Expected, File, Item, Outcome, Times,
};
use super::general::generalised;
use super::glob::Glob;
use crate::tree::{columns, padded};

/// The deepest level that is written; below it stands `...`.
const DEEPEST: usize = 60;

/// The texts that were replaced by a pattern, with the pattern.
pub type Generalised = BTreeMap<String, Glob>;

/// The lines of a tree before their columns are aligned.
#[derive(Default)]
pub(super) struct Lines(Vec<Columns>);

struct Columns {
    /// The mark of a difference, before the line.
    mark: &'static str,
    /// The branch and the name, or a whole line.
    label: String,
    /// Kind, service and items; nothing for a line without columns.
    rest: Option<(String, String, String)>,
    comment: String,
}

impl Lines {
    pub fn bare(&mut self, mark: &'static str, text: String) {
        self.0.push(Columns { mark, label: text, rest: None, comment: String::new() });
    }

    pub fn span(&mut self, mark: &'static str, branch: &str, span: &Expected, comment: &str) {
        self.0.push(Columns {
            mark,
            label: format!("{branch}{}", span.name),
            rest: Some((
                span.kind.map_or("", |kind| kind.as_str()).to_owned(),
                span.service.to_string(),
                span.items().join("  "),
            )),
            comment: comment.to_owned(),
        });
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: &dyn Fn(&Columns) -> Option<usize>| {
            self.0.iter().filter_map(column).max().unwrap_or_default()
        };
        let labels = width(&|it| it.rest.as_ref().map(|_| columns(&it.label)));
        let kinds = width(&|it| it.rest.as_ref().map(|(kind, ..)| kind.len()));
        let services = width(&|it| it.rest.as_ref().map(|(_, service, _)| columns(service)));
        for Columns { mark, label, rest, comment } in &self.0 {
            let mut line = format!("{mark}{label}");
            if let Some((kind, service, items)) = rest {
                line = format!("{mark}{}", padded(label, labels));
                if kinds > 0 {
                    let _ = write!(line, "  {}", padded(kind, kinds));
                }
                let _ = write!(line, "  {}  {items}", padded(service, services));
            }
            if !comment.is_empty() {
                line.truncate(line.trim_end().len());
                let _ = write!(line, "  # {comment}");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, request) in self.requests.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            comments(f, &request.comments)?;
            if let Some(name) = &request.name {
                writeln!(f, "[{name}]")?;
            }
            match &request.body {
                Body::Tree(tree) => write!(f, "{tree}")?,
                Body::Edges(edges) => {
                    writeln!(f, "edges")?;
                    for edge in edges {
                        comments(f, &edge.comments.above)?;
                        writeln!(f, "{}", edge.comments.behind(edge.to_string()))?;
                    }
                }
            }
        }
        comments(f, &self.comments)
    }
}

fn comments(f: &mut fmt::Formatter<'_>, comments: &[String]) -> fmt::Result {
    comments.iter().try_for_each(|comment| writeln!(f, "{}", format!("# {comment}").trim_end()))
}

impl fmt::Display for Children {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Lines::default();
        print(self, &mut Branch::default(), &mut lines);
        write!(f, "{lines}")
    }
}

/// The lines that lead to a span from those above it.
#[derive(Default)]
pub(super) struct Branch {
    /// For each level above: whether another line follows there.
    open: Vec<bool>,
}

impl Branch {
    /// Returns the lines that lead to the next line of this level. `last` says whether no other follows.
    pub fn before(&self, top: bool, last: bool) -> String {
        let Some((_, above)) = self.open.split_first() else { return String::new() };
        if top {
            return String::new();
        }
        let mut before: String =
            above.iter().map(|open| if *open { "│  " } else { "   " }).collect();
        before.push_str(if last { "└─ " } else { "├─ " });
        before
    }

    pub fn enter<R>(&mut self, last: bool, inside: impl FnOnce(&mut Branch) -> R) -> R {
        self.open.push(!last);
        let result = inside(self);
        self.open.pop();
        result
    }

    pub fn depth(&self) -> usize {
        self.open.len()
    }

    pub fn is_top(&self) -> bool {
        self.open.is_empty()
    }
}

/// One line of a tree of the file.
enum Printed<'a> {
    Item(&'a Item),
    Word(&'static str),
    Links(&'a Children),
}

fn print(tree: &Children, branch: &mut Branch, lines: &mut Lines) {
    let mut printed = Vec::new();
    for (index, Alternative { groups, links }) in tree.alternatives.iter().enumerate() {
        printed.extend((index > 0).then_some(Printed::Word("or")));
        for (index, group) in groups.iter().enumerate() {
            printed.extend((index > 0).then_some(Printed::Word("then")));
            printed.extend(group.iter().map(Printed::Item));
        }
        printed.extend(links.as_deref().map(Printed::Links));
    }
    let count = printed.len();
    for (index, line) in printed.into_iter().enumerate() {
        let last = index + 1 == count;
        let before = branch.before(branch.is_top(), last);
        match line {
            Printed::Word(word) => lines.bare("", format!("{before}{word}")),
            Printed::Item(Item::Any(comments)) => {
                above(comments, &before, lines);
                lines.bare("", comments.behind(format!("{before}...")));
            }
            Printed::Item(Item::Span(span)) => {
                above(&span.comments, &before, lines);
                lines.span("", &before, span, span.comments.behind.as_deref().unwrap_or_default());
                branch.enter(last, |branch| print(&span.children, branch, lines));
            }
            Printed::Links(links) => {
                lines.bare("", format!("{before}links"));
                branch.enter(last, |branch| print(links, branch, lines));
            }
        }
    }
}

/// Prints the comments above a line, indented as the line is.
fn above(comments: &Comments, before: &str, lines: &mut Lines) {
    let blanks = " ".repeat(columns(before));
    for comment in &comments.above {
        lines.bare("", format!("{blanks}# {comment}"));
    }
}

impl Comments {
    /// A line with its comment behind it.
    fn behind(&self, line: String) -> String {
        match self.behind.as_deref() {
            None | Some("") => line,
            Some(comment) => format!("{line}  # {comment}"),
        }
    }
}

/// Makes the lines of spans.
pub struct Writer<'a> {
    pub actual: &'a Actual,
    /// The attributes that the nodes have.
    pub keys: &'a [String],
    /// The texts that were replaced by patterns.
    pub generalised: Generalised,
}

impl Writer<'_> {
    /// The lines of all spans. Spans that are equal, with all below them, become one line.
    pub fn tree(&mut self) -> Children {
        self.children(&self.actual.tops, &self.actual.linked, 0)
    }

    fn children(&mut self, nodes: &[usize], linked: &[usize], depth: usize) -> Children {
        let links = (!linked.is_empty()).then(|| self.children(linked, &[], depth));
        Children::of(self.items(nodes, depth), links)
    }

    /// The lines of these spans and all below them.
    pub fn items(&mut self, nodes: &[usize], depth: usize) -> Vec<Item> {
        if depth > DEEPEST && !nodes.is_empty() {
            return vec![Item::Any(Comments::default())];
        }
        let mut items: Vec<Box<Expected>> = Vec::new();
        // Many children are usually many equal ones.
        let mut known: HashMap<String, usize> = HashMap::new();
        for node in nodes {
            let span = self.span(*node, depth);
            let key = Children::of(vec![Item::Span(span.clone())], None).to_string();
            match known.get(&key) {
                Some(at) => {
                    let Times { min, .. } = items[*at].times;
                    items[*at].times = Times { min: min + 1, max: Some(min + 1) };
                }
                None => {
                    known.insert(key, items.len());
                    items.push(span);
                }
            }
        }
        items.into_iter().map(Item::Span).collect()
    }

    fn span(&mut self, node: usize, depth: usize) -> Box<Expected> {
        let Node { children, linked, .. } = &self.actual.nodes[node];
        let mut span = self.line(node);
        span.children = self.children(children, linked, depth + 1);
        span
    }

    /// The line of one span, without those below it.
    pub fn line(&mut self, node: usize) -> Box<Expected> {
        let Node { status, error, attributes, .. } = &self.actual.nodes[node];
        let node = &self.actual.nodes[node];
        let error = error.as_deref();
        let outcome = match error {
            None => Outcome::NoError,
            Some("") => Outcome::Error(None),
            Some(kind) => Outcome::Error(Some(self.glob(kind))),
        };
        let values = self.keys.iter().zip(attributes);
        let values: Vec<(String, Glob)> = values
            .filter_map(|(key, value)| Some((key.clone(), self.glob(value.as_deref()?))))
            .collect();
        let (name, service) = (self.glob(node.name()), self.glob(node.service()));
        Box::new(Expected {
            status: status.as_deref().map(Glob::literal),
            outcome,
            attributes: values,
            ..Expected::new(name, Some(node.kind()), service)
        })
    }

    fn glob(&mut self, text: &str) -> Glob {
        match generalised(text) {
            Some(glob) => {
                self.generalised.insert(text.to_owned(), glob.clone());
                glob
            }
            None => Glob::literal(text),
        }
    }

    /// The edges between the services.
    pub fn edges(&mut self, seen: impl IntoIterator<Item = Seen>) -> Vec<Edge> {
        let edges = seen.into_iter().map(|Seen { from, to, link, .. }| {
            Edge::new(from.map(|from| self.glob(&from)), self.glob(&to), link)
        });
        let mut edges: Vec<Edge> = edges.collect();
        edges.dedup();
        edges
    }

    /// The lines of the file, changed where spans differ from them: what a person has written stays where it is right.
    pub fn merged(&mut self, tree: &Children, matched: &Matched, depth: usize) -> Children {
        let mut merged = tree.clone();
        let alternative = &mut merged.alternatives[matched.alternative];
        alternative.groups = Vec::new();
        for lines in &matched.groups {
            let mut items = Vec::new();
            for line in lines {
                match line {
                    Line::Any(comments) => items.push(Item::Any((*comments).clone())),
                    Line::Span { expected, found, .. } => {
                        items.extend(self.merged_line(expected, found, depth));
                    }
                }
            }
            alternative.groups.push(items);
        }
        alternative.groups.retain(|group| !group.is_empty());
        if matched.out_of_order {
            alternative.groups = vec![alternative.groups.concat()];
        }
        let mut last = alternative.groups.pop().unwrap_or_default();
        last.extend(self.items(&matched.surplus, depth));
        alternative.groups.push(last);
        let links = match (&tree.alternatives[matched.alternative].links, &matched.links) {
            (Some(links), Some(matched)) => Some(self.merged(links, matched, depth)),
            _ if matched.surplus_links.is_empty() => None,
            _ => Some(self.children(&matched.surplus_links, &[], depth)),
        };
        alternative.links = links.filter(|links| !links.is_empty()).map(Box::new);
        if alternative.groups.iter().all(Vec::is_empty) && alternative.links.is_none() {
            return Children::default();
        }
        merged
    }

    fn merged_line(
        &mut self,
        expected: &Expected,
        found: &[super::align::Found],
        depth: usize,
    ) -> Vec<Item> {
        if found.is_empty() {
            let kept = expected.times.min == 0;
            return kept.then(|| Item::Span(Box::new(expected.clone()))).into_iter().collect();
        }
        let mut spans: Vec<Box<Expected>> = Vec::new();
        let mut counts = Vec::new();
        for it in found {
            let mut span = match it.differences.is_empty() {
                true => Box::new(Expected { children: Children::default(), ..expected.clone() }),
                false => self.changed_line(expected, it),
            };
            span.children = self.merged(&expected.children, &it.below, depth + 1);
            match spans.iter().position(|known| *known == span) {
                Some(at) => counts[at] += 1,
                None => {
                    spans.push(span);
                    counts.push(1);
                }
            }
        }
        let only = spans.len() == 1;
        for (span, count) in spans.iter_mut().zip(counts) {
            if !only || !expected.times.allow(count) {
                span.times = Times { min: count, max: Some(count) };
            }
        }
        spans.into_iter().map(Item::Span).collect()
    }

    /// The line of a span that differs: what is right in the old line stays.
    fn changed_line(&mut self, expected: &Expected, found: &super::align::Found) -> Box<Expected> {
        let new = self.line(found.node);
        let mut span = Box::new(Expected { children: Children::default(), ..expected.clone() });
        for difference in &found.differences {
            match difference {
                Difference::Name => span.name = new.name.clone(),
                Difference::Service => span.service = new.service.clone(),
                Difference::Kind => span.kind = new.kind,
                Difference::Status => span.status = new.status.clone(),
                Difference::Error => span.outcome = new.outcome.clone(),
                Difference::Attribute(key) => {
                    let value = new.attributes.iter().find(|(it, _)| it == key);
                    span.attributes.retain(|(it, _)| it != key);
                    span.attributes.extend(value.cloned());
                }
                Difference::TooSlow => span.limit = None,
                Difference::Detached(_) => {}
            }
        }
        span
    }
}

/// Changes a tree so that the spans are as it says.
pub fn merge<'a>(
    tree: &'a Children,
    actual: &'a Actual,
    keys: &'a [String],
) -> (Children, Generalised) {
    let mut aligner = Aligner::new(tree, actual, keys, super::align::Mode::Now);
    let matched = aligner.matched(tree);
    let mut writer = Writer { actual, keys, generalised: Generalised::new() };
    (writer.merged(tree, &matched, 0), writer.generalised)
}
