//! The rules of the header `traceparent`: alone, on the wire, and as an attribute of the span that it brought about.

use super::{Evidence, Finding, NamedSpan, Place, Seen, place};
use crate::exchange::{Exchange, values};
use crate::headers::{Format, Pasted, joined};
use crate::span::{Span, SpanKind};
use crate::traceparent::{Field, InvalidTraceparent, Traceparent};
use crate::tree::Tree;

/// Looks for a fault in a `traceparent` that stands alone: it isn't valid, or not sampled.
pub fn of_header(value: &str) -> Option<Finding> {
    let value = value.trim();
    let evidence = match Traceparent::parse(value) {
        Ok(read) if read.sampled => return None,
        Ok(_) => Evidence::HeaderUnsampled,
        Err(invalid) => unreadable(value, Seen::Alone, invalid),
    };
    Some(Finding::new(evidence, Vec::new()))
}

/// Looks for a fault in the headers of a request that somebody pasted.
pub(super) fn pasted(headers: &Pasted) -> Option<Finding> {
    let seen = Seen::Alone;
    let evidence = match headers {
        Pasted::Traceparent(values) => match &values[..] {
            [value] => return of_header(value),
            several => Evidence::HeaderRepeated { seen, count: several.len() },
        },
        Pasted::Foreign(format, trace_id) => {
            Evidence::ForeignFormat { seen, format: *format, trace_id: *trace_id }
        }
    };
    Some(Finding::new(evidence, Vec::new()))
}

/// The evidence for a value that isn't a valid `traceparent`.
fn unreadable(value: &str, seen: Seen, invalid: InvalidTraceparent) -> Evidence {
    match joined(value) {
        Some(count) => Evidence::HeadersJoined { seen, count },
        None => Evidence::HeaderInvalid { seen, invalid },
    }
}

/// Looks for a header of another format, which the called service didn't use.
fn foreign(head: &str, seen: Seen, trees: &[Tree]) -> Option<Evidence> {
    let mut found = Format::ALL.into_iter().filter_map(|format| {
        let values = values(head, format.header());
        Some((format, values.into_iter().find_map(|value| format.trace_id(value))?))
    });
    let (format, trace_id) = found.next()?;
    let is_used = trees.iter().any(|tree| tree.trace_id == trace_id);
    (!is_used).then_some(Evidence::ForeignFormat { seen, format, trace_id })
}

/// Looks for a fault in the header of a request that was passed on.
pub(super) fn on_the_wire(exchange: &Exchange, trees: &[Tree]) -> Option<Finding> {
    let head = exchange.delivered.as_deref()?;
    let arrived = values(head, "traceparent");
    let sent = exchange.sent_by();
    let (hop, to) = (exchange.hop.clone(), exchange.to.clone());
    let evidence = match (&arrived[..], sent) {
        ([], None) => foreign(head, Seen::OnHop { hop, to }, trees)?,
        ([], Some(_)) => Evidence::HeaderDropped { hop },
        ([value], _) => match Traceparent::parse(value) {
            Err(invalid) => unreadable(value, Seen::OnHop { hop, to }, invalid),
            Ok(read) => match sent.and_then(|sent| difference(&sent, &read)) {
                Some(field) => Evidence::HeaderReplaced { hop, field },
                // Some samplers ignore the flag.
                None if read.sampled || answered_by(exchange, trees).is_some() => return None,
                None => {
                    Evidence::FlagNotSet { hop, to, cleared: sent.is_some_and(|sent| sent.sampled) }
                }
            },
        },
        (several, _) => {
            Evidence::HeaderRepeated { count: several.len(), seen: Seen::OnHop { hop, to } }
        }
    };
    let caller = sent.map(|sent| (sent.trace_id, sent.parent_id));
    let called = answered_by(exchange, trees);
    let mut finding = Finding::new(evidence, caller.into_iter().chain(called).collect());
    if let Some(received) = exchange.received() {
        finding.traces.insert(received.trace_id);
    }
    Some(finding)
}

/// The first field in which the ids of two headers differ.
fn difference(sent: &Traceparent, arrived: &Traceparent) -> Option<Field> {
    if sent.trace_id != arrived.trace_id {
        return Some(Field::TraceId);
    }
    (sent.parent_id != arrived.parent_id).then_some(Field::ParentId)
}

/// The SERVER span of a request, where it can be known: the one that the header leads to, or else the only top span of the
/// service that began during the request.
pub fn answered_by(exchange: &Exchange, trees: &[Tree]) -> Option<Place> {
    let rows = || trees.iter().flat_map(|tree| &tree.rows);
    let delivered = exchange.delivered.as_deref().unwrap_or_default();
    for value in values(delivered, "traceparent") {
        let Ok(received) = Traceparent::parse(value) else {
            continue;
        };
        let child = rows().find(|row| {
            let span = &row.span;
            span.trace_id == received.trace_id
                && span.parent == Some(received.parent_id)
                && span.kind() == SpanKind::Server
        });
        if let Some(row) = child {
            return Some(place(&row.span));
        }
    }
    if exchange.received().is_some() {
        return None;
    }
    let during = exchange.start..=exchange.end.unwrap_or(exchange.start);
    let mut tops = rows().filter(|row| {
        let span = &row.span;
        row.parent.is_none()
            && span.kind() == SpanKind::Server
            && span.service() == exchange.to
            && during.contains(&span.start())
    });
    match (tops.next(), tops.next()) {
        (Some(only), None) => Some(place(&only.span)),
        _ => None,
    }
}

/// Looks for a fault in the header that an instrumentation has recorded on a SERVER span. `text` is the attribute's value, a
/// JSON list of texts.
pub(super) fn recorded(span: &Span, text: &str) -> Option<Evidence> {
    let values: Vec<String> = serde_json::from_str(text).unwrap_or(vec![text.to_owned()]);
    let seen = || Seen::OnSpan(NamedSpan::new(span));
    match &values[..] {
        [value] => Some(unreadable(value, seen(), Traceparent::parse(value).err()?)),
        several => Some(Evidence::HeaderRepeated { count: several.len(), seen: seen() }),
    }
}
