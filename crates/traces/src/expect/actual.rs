//! The spans that have arrived for a request, as a tree that can be compared with a file.

use std::collections::HashMap;
use std::sync::Arc;

use super::glob::Glob;
use crate::conventions;
use crate::diagnose::{Finding, Rule, diagnose};
use crate::exchange::Exchange;
use crate::span::{Span, SpanId, SpanKind, TraceId, attribute};
use crate::traceparent::Traceparent;
use crate::tree::{Note, Row, Tree};

/// The spans of a request and their places.
#[derive(Debug, Default)]
pub struct Actual {
    /// Each span behind the one that it is below.
    pub nodes: Vec<Node>,
    /// The spans on top, in the order of their start.
    pub tops: Vec<usize>,
    /// The spans of other traces that are linked to the trace, but to none of its spans that have arrived.
    pub linked: Vec<usize>,
}

/// One span, as far as a file can say something about it.
#[derive(Debug)]
pub struct Node {
    pub span: Arc<Span>,
    pub status: Option<String>,
    /// The type of the error, where the span is one: empty where it has none.
    pub error: Option<String>,
    /// The values of the attributes that the file names, in that order.
    pub attributes: Vec<Option<String>>,
    /// Why the span is on top although it shouldn't be.
    pub detached: Option<Detached>,
    pub children: Vec<usize>,
    /// The spans of other traces that are linked to this one.
    pub linked: Vec<usize>,
    /// The number of spans here and below, with those that are linked.
    pub size: usize,
}

/// Why a span is on top of the trace without being called by the sender of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Detached {
    /// The parent, or the span that it is linked to, hasn't arrived.
    ParentMissing(SpanId),
    /// The span has no parent, although it has the trace id that was sent.
    NoParent,
    /// The span is in another trace.
    OtherTrace(TraceId),
}

/// The spans that have arrived for a request.
#[derive(Debug, Default, Clone)]
pub struct Arrived {
    /// The trace that was chosen for the request.
    pub trace: Vec<Arc<Span>>,
    /// Other traces: those with a span that is linked to the chosen one, and those that fell off it.
    pub joined: Vec<Vec<Arc<Span>>>,
}

impl Arrived {
    /// The number of spans that count: those of the trace, and those that are linked to it with what is below them.
    pub fn counted(&self, sent: &Traceparent) -> usize {
        let linked = self.joined.iter().filter_map(|spans| Tree::new(spans));
        self.trace.len()
            + linked
                .map(|tree| {
                    linked_parts(&tree, sent.trace_id)
                        .map(|(top, _)| tree.rows[top].below + 1)
                        .sum::<usize>()
                })
                .sum::<usize>()
    }

    /// The traces as trees, in which the span that was sent as the parent isn't missing.
    pub fn trees(&self, sent: &Traceparent) -> Vec<Tree> {
        let trace = without_parent(&self.trace, sent);
        let all = [trace].into_iter().chain(self.joined.iter().cloned());
        all.filter_map(|spans| Tree::new(&spans)).collect()
    }

    /// Diagnoses the traces and the requests on the wire that belong to them. A sender may send a request several times, so the spans below the parent that was sent don't count
    /// as several roots.
    pub fn findings(&self, sent: &Traceparent, wire: &[Exchange]) -> Vec<Finding> {
        let is_sent = |id: SpanId| {
            let mut spans = self.trace.iter();
            spans.any(|span| span.id == id && span.parent == Some(sent.parent_id))
        };
        let mut findings = diagnose(&self.trees(sent), wire);
        findings.retain(|finding| {
            finding.rule != Rule::SeveralRoots
                || finding.spans.iter().any(|(trace, id)| *trace != sent.trace_id || !is_sent(*id))
        });
        findings
    }
}

/// The spans, of which those below the parent that was sent become roots.
fn without_parent(spans: &[Arc<Span>], sent: &Traceparent) -> Vec<Arc<Span>> {
    let spans = spans.iter().map(|span| match span.parent {
        Some(parent) if parent == sent.parent_id && span.trace_id == sent.trace_id => {
            let mut root = Span::clone(span);
            root.parent = None;
            Arc::new(root)
        }
        _ => Arc::clone(span),
    });
    spans.collect()
}

/// The rows of a tree that are linked to a trace, without those below them, and the spans that they are linked to.
pub(crate) fn linked_parts(tree: &Tree, to: TraceId) -> impl Iterator<Item = (usize, SpanId)> {
    let mut behind = 0;
    let is_other = tree.trace_id != to;
    tree.rows.iter().enumerate().filter_map(move |(index, row)| {
        if !is_other || index < behind {
            return None;
        }
        let (_, target) = row.span.links.iter().find(|(trace, _)| *trace == to)?;
        behind = index + row.below + 1;
        Some((index, *target))
    })
}

impl Actual {
    /// Arranges what has arrived. `attributes` are the keys that the file names. With `fallen_off`, the joined traces that aren't
    /// linked count too, as spans on top.
    pub fn new(
        arrived: &Arrived,
        sent: &Traceparent,
        attributes: &[String],
        fallen_off: bool,
    ) -> Self {
        let mut actual = Actual::default();
        let mut places = HashMap::new();
        if let Some(tree) = Tree::new(&arrived.trace) {
            actual.add(&tree, 0..tree.rows.len(), attributes, Some(&mut places));
            actual.tops = top_rows(&tree);
            for top in &actual.tops {
                let node = &mut actual.nodes[*top];
                node.detached = match node.span.parent {
                    Some(parent) if parent == sent.parent_id => None,
                    Some(parent) => Some(Detached::ParentMissing(parent)),
                    None => Some(Detached::NoParent),
                };
            }
        }
        for spans in &arrived.joined {
            let Some(tree) = Tree::new(spans) else { continue };
            let parts: Vec<_> = linked_parts(&tree, sent.trace_id).collect();
            for (top, target) in &parts {
                let node =
                    actual.add(&tree, *top..top + tree.rows[*top].below + 1, attributes, None);
                match places.get(target) {
                    Some(place) => actual.nodes[*place].linked.push(node),
                    None => {
                        let missing = Some(*target).filter(|it| *it != sent.parent_id);
                        actual.nodes[node].detached = missing.map(Detached::ParentMissing);
                        actual.linked.push(node);
                    }
                }
            }
            if parts.is_empty() && fallen_off {
                let first = actual.add(&tree, 0..tree.rows.len(), attributes, None);
                for top in top_rows(&tree) {
                    actual.tops.push(first + top);
                    actual.nodes[first + top].detached = Some(Detached::OtherTrace(tree.trace_id));
                }
            }
        }
        for index in (0..actual.nodes.len()).rev() {
            let Node { children, linked, .. } = &actual.nodes[index];
            let below = children.iter().chain(linked).map(|it| actual.nodes[*it].size);
            actual.nodes[index].size = 1 + below.sum::<usize>();
        }
        actual
    }

    /// Adds some rows of a tree, of which the first is on top of the others or they are all. Returns the place of the first.
    fn add(
        &mut self,
        tree: &Tree,
        rows: std::ops::Range<usize>,
        attributes: &[String],
        mut places: Option<&mut HashMap<SpanId, usize>>,
    ) -> usize {
        let (first, offset) = (self.nodes.len(), rows.start);
        for row in &tree.rows[rows.clone()] {
            let place = self.nodes.len();
            if let Some(places) = &mut places {
                places.insert(row.span.id, place);
            }
            let parent = row.parent.and_then(|parent| parent.checked_sub(offset));
            if let Some(parent) = parent.filter(|_| place > first) {
                self.nodes[first + parent].children.push(place);
            }
            self.nodes.push(Node::new(row, attributes));
        }
        first
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of spans.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Without the spans on top that hang from nothing: what is above them may still arrive.
    pub fn attached(mut self) -> Self {
        let nodes = &self.nodes;
        self.tops.retain(|top| nodes[*top].detached.is_none());
        self.linked.retain(|top| nodes[*top].detached.is_none());
        self
    }
}

fn top_rows(tree: &Tree) -> Vec<usize> {
    let rows = tree.rows.iter().enumerate();
    rows.filter(|(_, row)| row.parent.is_none()).map(|(index, _)| index).collect()
}

impl Node {
    fn new(row: &Row, attributes: &[String]) -> Self {
        let span = Arc::clone(&row.span);
        let proto = span.proto();
        let status = conventions::status(&proto);
        let error = row.notes().into_iter().find_map(|note| match note {
            Note::Error { error_type, .. } => Some(error_type.unwrap_or_default()),
            _ => None,
        });
        Node {
            status,
            error,
            attributes: attributes.iter().map(|key| attribute(&proto, key)).collect(),
            detached: None,
            children: Vec::new(),
            linked: Vec::new(),
            size: 1,
            span,
        }
    }

    pub fn name(&self) -> &str {
        self.span.name()
    }

    pub fn kind(&self) -> SpanKind {
        self.span.kind()
    }

    pub fn service(&self) -> &str {
        self.span.service()
    }
}

/// Whether a pattern, if there is one, fits a value, if there is one. Without a pattern, everything does.
pub(super) fn fits(pattern: Option<&Glob>, value: Option<&str>) -> bool {
    pattern.is_none_or(|pattern| value.is_some_and(|value| pattern.matches(value)))
}
