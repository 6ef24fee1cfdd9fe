//! The rules of spans that are open for too long, or that are too many and too short.

use super::{Evidence, Finding, NamedSpan, Place, place};
use crate::conventions;
use crate::span::{Span, SpanKind};
use crate::tree::{Row, Tree};

/// So many short spans below one parent are a loop, not steps of its work.
const MANY: usize = 100;

/// The longest median of short spans, in nanoseconds. A span costs about a microsecond, and its place in a backend more.
const TINY: u64 = 100_000;

/// The fewest requests, one after the other, that can't be parts of one request.
const REQUESTS: usize = 3;

/// How much later than its answer a span must end, in nanoseconds: the client's and the server's own work explain less.
const HELD: u64 = 10_000_000;

/// How close together the ends of a task and of the span that it held are, in nanoseconds.
const TOGETHER: u64 = 1_000_000;

/// Looks at each row with the rows right below it.
pub(super) fn lifetimes(tree: &Tree) -> Vec<Finding> {
    let mut children: Vec<Vec<&Row>> = vec![Vec::new(); tree.rows.len()];
    for row in &tree.rows {
        if let Some(parent) = row.parent {
            children[parent].push(row);
        }
    }
    let rows = tree.rows.iter().zip(children);
    rows.flat_map(|(row, children)| {
        let found = [
            held_open(tree, row, &children),
            long_lived(row, &children),
            tiny_spans(row, &children),
        ];
        found.into_iter().flatten()
    })
    .collect()
}

/// The children that are of the row's own service.
fn own<'a>(row: &Row, children: &[&'a Row]) -> impl Iterator<Item = &'a Row> {
    let own = |child: &&Row| child.span.service() == row.span.service();
    children.iter().copied().filter(own)
}

/// A request whose span ends when its task does, long after the answer. Durations tell, whatever the clocks say.
fn held_open(tree: &Tree, row: &Row, children: &[&Row]) -> Option<Finding> {
    let server = &row.span;
    let call = &tree.rows[row.parent?].span;
    let kinds = (call.kind(), server.kind()) == (SpanKind::Client, SpanKind::Server);
    let both_ended = call.has_ended() && server.has_ended() && !call.is_error();
    if !kinds || !both_ended || call.service() == server.service() {
        return None;
    }
    let after = server.duration().checked_sub(call.duration()).filter(|it| *it > HELD)?;
    conventions::status(&call.proto())?;
    // It was there before the answer, and the request's span ended with it.
    let task = own(row, children).map(|child| &child.span).find(|task| {
        task.kind() == SpanKind::Internal
            && task.start().saturating_sub(server.start()) < call.duration()
            && server.end().abs_diff(task.end()) < TOGETHER
    })?;
    let evidence =
        Evidence::HeldOpen { span: NamedSpan::new(server), task: NamedSpan::new(task), after };
    Some(Finding::new(evidence, vec![place(server), place(task)]))
}

/// Requests, one after the other, below a span of their own service that isn't a request: that of a connection, or of a
/// loop that takes them.
fn long_lived(row: &Row, children: &[&Row]) -> Option<Finding> {
    if row.span.kind() != SpanKind::Internal {
        return None;
    }
    let requests = own(row, children).map(|child| &child.span);
    let requests: Vec<_> = requests.filter(|it| it.kind() == SpanKind::Server).collect();
    let in_turn = requests.windows(2).all(|pair| pair[0].end() <= pair[1].start());
    if requests.len() < REQUESTS || !in_turn {
        return None;
    }
    let evidence =
        Evidence::RequestsBelow { span: NamedSpan::new(&row.span), count: requests.len() };
    let spans = std::iter::once(&row.span).chain(requests);
    Some(Finding::new(evidence, spans.map(|span| place(span)).collect()))
}

fn tiny_spans(row: &Row, children: &[&Row]) -> Option<Finding> {
    let leaves = own(row, children).filter(|child| {
        child.below == 0 && child.span.kind() == SpanKind::Internal && child.span.has_ended()
    });
    let leaves: Vec<&Span> = leaves.map(|child| &*child.span).collect();
    if leaves.len() <= MANY {
        return None;
    }
    let mut durations: Vec<u64> = leaves.iter().map(|span| span.duration()).collect();
    // A clock of whole milliseconds says nothing about less.
    if leaves.iter().all(|span| span.start().is_multiple_of(1_000_000)) {
        return None;
    }
    durations.sort_unstable();
    let median = durations[durations.len() / 2];
    if median >= TINY {
        return None;
    }
    let evidence =
        Evidence::TinySpans { parent: NamedSpan::new(&row.span), count: leaves.len(), median };
    let spans = std::iter::once(place(&row.span)).chain(leaves.into_iter().map(place));
    Some(Finding::new(evidence, spans.collect::<Vec<Place>>()))
}
