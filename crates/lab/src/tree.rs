//! A trace as a tree: who called whom, and when. The terminal, the pages and the book's pictures all show this.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::span::{Span, SpanId, TraceId};
use crate::store::Store;

/// Deeper spans are drawn at this level: nobody can read further, and a chain of a million must not fill the memory.
const MAX_DEPTH: usize = 100;

/// One span at its place in the tree.
#[derive(Debug, Clone)]
pub struct Row {
    pub span: Arc<Span>,
    /// For each level from the root down to this span: whether it is the last child there. Empty for a top row.
    pub last: Vec<bool>,
    /// Whether the span names a parent that never arrived.
    pub orphan: bool,
}

/// A trace, depth first; siblings by start time.
#[derive(Debug, Clone)]
pub struct Tree {
    pub trace_id: TraceId,
    pub rows: Vec<Row>,
    /// Nanoseconds since 1970 of the earliest span.
    pub start: u64,
    /// Nanoseconds from the earliest start to the latest end.
    pub duration: u64,
}

impl Tree {
    /// Every trace of `store`, the newest first.
    pub fn all(store: &Store) -> Vec<Tree> {
        let traces = store.traces();
        traces.iter().filter_map(|spans| Tree::new(spans)).collect()
    }

    /// Builds the tree of one trace; nothing where there are no spans.
    pub fn new(spans: &[Arc<Span>]) -> Option<Tree> {
        let trace_id = spans.first()?.trace_id;
        let start = spans.iter().map(|span| span.start()).min()?;
        let end = spans
            .iter()
            .map(|span| span.start() + span.duration())
            .max()?;

        let mut sorted = spans.to_vec();
        sorted.sort_by_key(|span| (span.start(), span.id));
        let ids: HashSet<SpanId> = sorted.iter().map(|span| span.id).collect();
        let mut children: HashMap<SpanId, Vec<Arc<Span>>> = HashMap::new();
        let mut tops = Vec::new();
        for span in sorted {
            match span.parent {
                Some(parent) if ids.contains(&parent) => {
                    children.entry(parent).or_default().push(span)
                }
                _ => tops.push(span),
            }
        }

        let mut rows = Vec::with_capacity(spans.len());
        walk(tops, &mut children, &mut rows);
        // Spans that are each other's parents hang from no top: show them rather than lose them.
        while let Some(id) = children.keys().min().copied() {
            let ring = children.remove(&id).unwrap_or_default();
            walk(ring, &mut children, &mut rows);
        }
        Some(Tree {
            trace_id,
            rows,
            start,
            duration: end - start,
        })
    }

    /// The names of the services, in the order in which they first appear.
    pub fn services(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.rows
            .iter()
            .map(|row| row.span.service())
            .filter(|name| seen.insert(*name))
            .collect()
    }

    /// The spans that no other span of the trace is the parent of: one in a whole trace.
    pub fn tops(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.last.is_empty())
    }

    /// Whether the trace is in one piece: a single top, whose parent is not missing.
    pub fn is_whole(&self) -> bool {
        let mut tops = self.tops();
        matches!((tops.next(), tops.next()), (Some(top), None) if !top.orphan)
    }

    pub fn has_error(&self) -> bool {
        self.rows.iter().any(|row| row.span.is_error())
    }

    /// The tree as text, a line a span: name, kind, service, duration, and what went wrong.
    pub fn to_text(&self) -> String {
        let labels: Vec<String> = self
            .rows
            .iter()
            .map(|row| format!("{}{}", row.branch(), row.span.name()))
            .collect();
        let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
        let label_width = width(&mut labels.iter().map(|label| label.chars().count()));
        let service_width = width(
            &mut self
                .rows
                .iter()
                .map(|row| row.span.service().chars().count()),
        );

        let mut text = String::new();
        for (row, label) in self.rows.iter().zip(&labels) {
            let span = &row.span;
            let line = format!(
                "{label:label_width$}  {:8}  {:service_width$}  {:>9}  {}",
                span.kind(),
                span.service(),
                milliseconds(span.duration()),
                row.notes().join(", "),
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

fn walk(tops: Vec<Arc<Span>>, children: &mut HashMap<SpanId, Vec<Arc<Span>>>, rows: &mut Vec<Row>) {
    // A stack of our own: a trace may be deeper than the thread's.
    let mut pending: Vec<(Arc<Span>, Vec<bool>)> = tops
        .into_iter()
        .rev()
        .map(|span| (span, Vec::new()))
        .collect();
    while let Some((span, last)) = pending.pop() {
        let below = children.remove(&span.id).unwrap_or_default();
        let count = below.len();
        for (index, child) in below.into_iter().enumerate().rev() {
            let mut last = last.clone();
            if last.len() < MAX_DEPTH {
                last.push(index + 1 == count);
            }
            pending.push((child, last));
        }
        let orphan = last.is_empty() && span.parent.is_some();
        rows.push(Row { span, last, orphan });
    }
}

impl Row {
    /// `├─ ` and `└─ ` with the lines of the levels above.
    pub fn branch(&self) -> String {
        let Some((own, above)) = self.last.split_last() else {
            return String::new();
        };
        let mut branch: String = above
            .iter()
            .map(|last| if *last { "   " } else { "│  " })
            .collect();
        branch.push_str(if *own { "└─ " } else { "├─ " });
        branch
    }

    /// What a reader should notice: the HTTP status, an error, a parent that never arrived.
    pub fn notes(&self) -> Vec<String> {
        let span = &self.span;
        let status_code = span.attribute("http.response.status_code");
        let mut notes: Vec<String> = status_code.iter().cloned().collect();
        if span.is_error() {
            let mut note = "error".to_owned();
            if let Some(error_type) = span
                .attribute("error.type")
                .filter(|it| Some(it) != status_code.as_ref())
            {
                note = format!("{note} {error_type}");
            }
            if !span.status_message().is_empty() {
                note = format!("{note}: {}", span.status_message());
            }
            notes.push(note);
        }
        for link in span.links() {
            notes.push(format!("linked to trace {link}"));
        }
        if let Some(parent) = span.parent.filter(|_| self.orphan) {
            notes.push(format!("orphan: parent {parent} is not here"));
        }
        notes
    }
}

/// Nanoseconds as milliseconds with two decimals.
pub fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.2} ms", nanoseconds as f64 / 1e6)
}
