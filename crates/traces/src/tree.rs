//! A trace as a tree: who called whom, and when. The terminal, the pages and the book's pictures all show this.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use unicode_width::UnicodeWidthStr as _;

use crate::conventions;
use crate::report;
use crate::span::{Span, SpanId, SpanKind, TraceId, attribute, shared_id, shortened, target};

/// Deeper spans are drawn at this level: nobody can read further, and a chain of a million must not fill the memory.
const MAX_DEPTH: usize = 100;

/// The most characters of a name or a remark in a list. The page of the span shows all of it.
pub const LONGEST: usize = 200;

/// One span at its place in the tree.
#[derive(Debug, Clone)]
pub struct Row {
    pub span: Arc<Span>,
    /// For each level from the root down to this span: whether it is the last child there. Empty for a top row, and
    /// no longer than a hundred levels.
    pub last: Vec<bool>,
    /// The row of the parent; `None` for a top row.
    pub parent: Option<usize>,
    /// The number of levels above: 0 for a top row.
    pub depth: usize,
    /// How many rows, right behind this one, are below it.
    pub below: usize,
    /// Whether the span names a parent that never arrived.
    pub orphan: bool,
    /// Whether the span is below itself: its parent is here, and is it or below it.
    pub ring: bool,
    /// The difference between the clock of the span's service and that of its parent's service, where the times prove one.
    pub skew: Option<Skew>,
    /// How long after the end of its parent the span starts, in nanoseconds: the parent didn't wait for it.
    pub late: Option<u64>,
}

/// The clock of a span's service differs from that of its parent's service by at least this, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skew {
    /// The span starts before its parent.
    Behind(u64),
    /// The span starts after the end of the call that it has answered.
    Ahead(u64),
}

impl Skew {
    /// The difference in nanoseconds.
    pub fn nanoseconds(self) -> u64 {
        match self {
            Skew::Behind(by) | Skew::Ahead(by) => by,
        }
    }
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
    /// Builds the tree of one trace; `None` without spans.
    pub fn new(spans: &[Arc<Span>]) -> Option<Tree> {
        let trace_id = spans.first()?.trace_id;
        let (start, duration) = period(spans);
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
        walk(tops, &mut children, &mut rows, &ids);
        // Spans that are each other's parents hang from no top: show them rather than lose them.
        let mut rings: Vec<SpanId> = children.keys().copied().collect();
        rings.sort_unstable();
        for id in rings {
            let ring = children.remove(&id).unwrap_or_default();
            walk(ring, &mut children, &mut rows, &ids);
        }
        Some(Tree { trace_id, rows, start, duration })
    }

    /// The names of the services, in the order in which they first appear.
    pub fn services(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.rows.iter().map(|row| row.span.service()).filter(|name| seen.insert(*name)).collect()
    }

    /// The spans that no other span of the trace is the parent of: one in a whole trace.
    pub fn tops(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.parent.is_none())
    }

    /// Whether the trace is in one piece: a single top, which is a root.
    pub fn is_whole(&self) -> bool {
        let mut tops = self.tops();
        matches!((tops.next(), tops.next()), (Some(top), None) if top.span.parent.is_none())
    }

    /// The place of one of the tree's own rows.
    pub(crate) fn index_of(&self, row: &Row) -> Option<usize> {
        self.rows.iter().position(|it| std::ptr::eq(it, row))
    }

    /// The part of the trace that begins with a row: its span and all below it, on their own scale of time.
    pub fn part(&self, top: usize) -> Tree {
        let levels = self.rows[top].depth;
        let rows = self.rows[top..=top + self.rows[top].below].iter();
        let rows: Vec<Row> = rows
            .map(|row| Row {
                last: row.last.iter().skip(levels).copied().collect(),
                parent: row.parent.and_then(|parent| parent.checked_sub(top)),
                depth: row.depth - levels,
                ..row.clone()
            })
            .collect();
        let starts = rows.iter().map(|row| row.span.start());
        let start = starts.filter(|start| *start > 0).min().unwrap_or_default();
        let end = rows.iter().map(|row| row.span.end()).max();
        Tree {
            trace_id: self.trace_id,
            rows,
            start,
            duration: end.unwrap_or_default().saturating_sub(start),
        }
    }

    /// The name of the first top span.
    pub fn name(&self) -> &str {
        self.tops().next().map_or("", |row| row.span.name())
    }

    /// The tree as text, a line a span: name, kind, service, duration, and what went wrong.
    pub fn to_text(&self) -> String {
        let labels: Vec<String> = self
            .rows
            .iter()
            .map(|row| format!("{}{}", row.branch(), plain(row.span.name())))
            .collect();
        let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
        let label_width = width(&mut labels.iter().map(|label| columns(label)));
        let service_width =
            width(&mut self.rows.iter().map(|row| columns(&plain(row.span.service()))));

        let mut text = String::new();
        for (row, label) in self.rows.iter().zip(&labels) {
            let span = &row.span;
            let line = format!(
                "{}  {:8}  {}  {:>9}  {}",
                padded(label, label_width),
                span.kind(),
                padded(&plain(span.service()), service_width),
                took(span.duration()),
                visible(&report::notes(&row.notes())),
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// Returns the start and the duration of these spans as a [`Tree`] has them.
pub fn period(spans: &[Arc<Span>]) -> (u64, u64) {
    // A span without a time must not make the trace half a century long.
    let starts = spans.iter().map(|span| span.start());
    let start = starts.filter(|start| *start > 0).min().unwrap_or_default();
    let end = spans.iter().map(|span| span.end()).max().unwrap_or_default();
    (start, end.saturating_sub(start))
}

fn walk(
    tops: Vec<Arc<Span>>,
    children: &mut HashMap<SpanId, Vec<Arc<Span>>>,
    rows: &mut Vec<Row>,
    ids: &HashSet<SpanId>,
) {
    // A stack of our own: a trace may be deeper than the thread's.
    let top = |span| (span, Vec::new(), None);
    let mut pending: Vec<(Arc<Span>, Vec<bool>, Option<usize>)> =
        tops.into_iter().rev().map(top).collect();
    let first = rows.len();
    while let Some((span, last, parent)) = pending.pop() {
        let below = children.remove(&span.id).unwrap_or_default();
        let (index, count) = (rows.len(), below.len());
        for (position, child) in below.into_iter().enumerate().rev() {
            let mut last = last.clone();
            if last.len() < MAX_DEPTH {
                last.push(position + 1 == count);
            }
            pending.push((child, last, Some(index)));
        }
        let above: Option<&Row> = parent.map(|parent| &rows[parent]);
        let depth = above.map_or(0, |above| above.depth + 1);
        let top = parent.is_none();
        rows.push(Row {
            orphan: top && span.parent.is_some_and(|parent| !ids.contains(&parent)),
            ring: top && span.parent.is_some_and(|parent| ids.contains(&parent)),
            skew: above.and_then(|above| skew(&above.span, &span)),
            late: above.and_then(|above| late(&above.span, &span)),
            below: 0,
            span,
            last,
            parent,
            depth,
        });
    }
    for index in (first..rows.len()).rev() {
        let below = rows[index].below + 1;
        if let Some(parent) = rows[index].parent {
            rows[parent].below += below;
        }
    }
}

/// How long the second moment is after the first.
fn after(first: u64, second: u64) -> Option<u64> {
    second.checked_sub(first).filter(|it| *it > 0)
}

/// The difference of two clocks. Within one service there is one clock.
fn skew(above: &Span, span: &Span) -> Option<Skew> {
    if above.service() == span.service() || above.start() == 0 || span.start() == 0 {
        return None;
    }
    let behind = after(span.start(), above.start()).map(Skew::Behind);
    let ahead = || {
        after(above.end(), span.start()).filter(|_| was_answered_by(above, span)).map(Skew::Ahead)
    };
    // What is rounded away is no difference to speak of; and some SDKs start their spans at whole milliseconds.
    behind.or_else(ahead).filter(|skew| skew.nanoseconds() >= 10_000)
}

/// Whether the caller got its answer from this span: so the span can't have started after the call.
fn was_answered_by(call: &Span, server: &Span) -> bool {
    let kinds = (call.kind(), server.kind()) == (SpanKind::Client, SpanKind::Server);
    if !kinds || call.is_error() || !call.has_ended() || server.duration() > call.duration() {
        return false;
    }
    let (call, server) = (call.proto(), server.proto());
    let status = conventions::status(&call);
    match status {
        Some(status) => conventions::status(&server).is_none_or(|answered| answered == status),
        None => conventions::rpc_status(&call).is_some_and(|status| status == "OK"),
    }
}

fn late(above: &Span, span: &Span) -> Option<u64> {
    let timed = above.start() > 0 && span.start() > 0 && above.has_ended();
    let late = after(above.end(), span.start()).filter(|late| timed && *late >= 1_000_000)?;
    // The clock is wrong, not the order.
    (!matches!(skew(above, span), Some(Skew::Ahead(_)))).then_some(late)
}

impl Row {
    /// `├─ ` and `└─ ` with the lines of the levels above.
    pub fn branch(&self) -> String {
        let Some((own, above)) = self.last.split_last() else {
            return String::new();
        };
        let mut branch: String =
            above.iter().map(|last| if *last { "   " } else { "│  " }).collect();
        branch.push_str(if *own { "└─ " } else { "├─ " });
        branch
    }

    /// The things that a reader should notice about the span.
    pub fn notes(&self) -> Vec<Note> {
        let span = &self.span;
        let proto = span.proto();
        let status = conventions::status(&proto);
        let mut notes = Vec::new();
        // Instrumentations name a call by its method, which says nothing of the called service.
        if span.kind() == SpanKind::Client && !span.name().contains('/') {
            let host = conventions::method(&proto).and_then(|_| conventions::host(&proto));
            notes.extend(host.map(Note::To));
        }
        notes.extend(status.iter().cloned().map(Note::HttpStatus));
        let error_type = attribute(&proto, "error.type").filter(|_| span.is_error());
        let rpc_status =
            conventions::rpc_status(&proto).filter(|it| Some(it) != error_type.as_ref());
        notes.extend(rpc_status.map(Note::RpcStatus));
        if span.is_error() {
            let message = proto.status.as_ref().map(|status| status.message.clone());
            notes.push(Note::Error {
                error_type: error_type.filter(|it| Some(it) != status.as_ref()),
                message: message.unwrap_or_default(),
            });
        }
        let targets = proto.links.iter().filter_map(target).take(LINKS);
        notes.extend(targets.map(|to| match span.is_itself(to) {
            true => Note::LinkedToItself,
            false => Note::LinkedTo(to.0),
        }));
        if proto.links.len() > LINKS {
            notes.push(Note::Links(proto.links.len()));
        }
        notes.extend(span.parent.filter(|_| self.orphan).map(Note::Orphan));
        notes.extend(self.ring.then_some(Note::Ring));
        notes.extend(self.late.map(Note::Late));
        notes.extend(self.skew.map(Note::Skew));
        notes.extend(shared_id(span.id, &proto).map(Note::SharedId));
        if span.start() == 0 {
            notes.push(Note::WithoutTime);
        } else if !span.has_ended() {
            notes.push(Note::NotEnded);
        } else if span.ends_before_it_starts() {
            notes.push(Note::EndsBeforeItStarts);
        }
        notes
    }
}

/// How many links of a span are named; past that they are counted.
const LINKS: usize = 3;

/// One thing that a reader should notice about a span. [`crate::report`] has the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The host that the span calls, where its name doesn't say what it calls.
    To(String),
    /// The status of the HTTP response.
    HttpStatus(String),
    /// The status of a remote procedure call, where it isn't `error.type` as well.
    RpcStatus(String),
    /// The status of the span is error.
    Error {
        /// The attribute `error.type`, where it isn't the HTTP status again.
        error_type: Option<String>,
        /// The description of the status; often empty.
        message: String,
    },
    /// The span is linked to another trace.
    LinkedTo(TraceId),
    /// A link of the span leads to the span itself.
    LinkedToItself,
    /// The number of all links, where it is more than notes name.
    Links(usize),
    /// The parent, which hasn't arrived.
    Orphan(SpanId),
    /// The parent is the span itself or below it.
    Ring,
    /// The span starts after the end of its parent, by this many nanoseconds.
    Late(u64),
    /// The clock of the span's service differs from that of its parent's.
    Skew(Skew),
    /// The span came with this id, which another span of the trace has too.
    SharedId(SpanId),
    /// The span came without a time.
    WithoutTime,
    /// The span came without an end.
    NotEnded,
    /// The span ends before it starts.
    EndsBeforeItStarts,
}

/// A name in a list: the beginning of a long one, and words where there is none.
pub fn label(name: &str) -> String {
    match name.trim() {
        "" => "(no name)".to_owned(),
        _ => shortened(name, LONGEST),
    }
}

/// A name as a line of a terminal can show it: what would move the cursor or change colours is made visible.
pub fn plain(name: &str) -> String {
    visible(&label(name))
}

/// A text without characters that would move the cursor, change colours or turn what follows around.
pub fn visible(text: &str) -> String {
    let visible = |character: char| match character {
        control if control.is_control() => control.escape_default().to_string(),
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            character.escape_default().to_string()
        }
        _ => character.to_string(),
    };
    text.chars().map(visible).collect()
}

/// Counts the columns that a text takes in a terminal. Some characters, such as those of Chinese and emoji, take two.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Adds blanks to a text until it takes `width` columns.
pub fn padded(text: &str, width: usize) -> String {
    text.to_owned() + &" ".repeat(width.saturating_sub(columns(text)))
}

/// A duration for people, with two decimals: in microseconds below ten of them, in seconds from one on, in minutes
/// from one on.
pub fn took(nanoseconds: u64) -> String {
    let number = nanoseconds as f64;
    match nanoseconds {
        1..10_000 => format!("{:.2} µs", number / 1e3),
        0..1_000_000_000 => format!("{:.2} ms", number / 1e6),
        1_000_000_000..60_000_000_000 => format!("{:.2} s", number / 1e9),
        _ => {
            let seconds = nanoseconds / 1_000_000_000;
            format!("{} min {:02} s", seconds / 60, seconds % 60)
        }
    }
}
