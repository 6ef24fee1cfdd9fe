//! The rules of the header `traceparent`: alone, on the wire, and as an attribute of the span that it brought about.

use std::collections::{BTreeSet, HashMap};

use super::{Evidence, Finding, NamedSpan, Place, Seen, place};
use crate::exchange::{Exchange, values};
use crate::headers::{Contradiction, Foreign, Format, Pasted, Placeholder, joined};
use crate::span::{Span, SpanKind, TraceId, shortened};
use crate::traceparent::{Field, InvalidTraceparent, Traceparent};
use crate::tree::{LONGEST, Tree};

/// Looks for a fault in a `traceparent` that stands alone: it isn't valid, or not sampled.
pub fn of_header(value: &str) -> Option<Finding> {
    Some(Finding::new(of_value(value.trim(), Seen::Alone)?, Vec::new()))
}

fn of_value(value: &str, seen: Seen) -> Option<Evidence> {
    match Traceparent::parse(value) {
        Ok(read) if read.sampled => None,
        Ok(_) => Some(Evidence::HeaderUnsampled { seen, format: None }),
        Err(invalid) => Some(unreadable(value, seen, invalid)),
    }
}

/// Looks for faults in the headers of a request that somebody pasted.
pub(super) fn pasted(headers: &Pasted, seen: Seen) -> Vec<Finding> {
    let Pasted { traceparent, foreign, .. } = headers;
    let mut found = Vec::new();
    match &traceparent[..] {
        [] => {
            let first = foreign.iter().find_map(|it| Some((it.format, it.trace_id?)));
            found.extend(first.map(|(format, trace_id)| Evidence::ForeignFormat {
                seen: seen.clone(),
                format,
                trace_id,
            }));
            let unsampled = foreign.iter().find(|it| it.sampled == Some(false));
            found.extend(
                unsampled.map(|it| Evidence::HeaderUnsampled { seen, format: Some(it.format) }),
            );
        }
        [value] => {
            let own = Traceparent::parse(value).ok();
            let contradiction = own.and_then(|own| contradiction(&own, foreign, seen.clone()));
            // Headers that contradict each other about sampling don't ask for either.
            let is_sampling = matches!(
                contradiction,
                Some(Evidence::HeadersContradict {
                    contradiction: Contradiction::Sampling { .. },
                    ..
                })
            );
            found.extend(of_value(value, seen).filter(|_| !is_sampling));
            found.extend(contradiction);
        }
        several => found.push(repeated(several, seen)),
    }
    found.into_iter().map(|evidence| Finding::new(evidence, Vec::new())).collect()
}

/// The evidence for a value that isn't a valid `traceparent`.
fn unreadable(value: &str, seen: Seen, invalid: InvalidTraceparent) -> Evidence {
    let text = || shortened(value.trim(), LONGEST);
    match (joined(value), Placeholder::of(value)) {
        (Some(count), _) => Evidence::HeadersJoined { seen, count },
        (_, Some(placeholder)) => Evidence::HeaderPlaceholder { seen, placeholder, text: text() },
        _ => Evidence::HeaderInvalid { seen, invalid },
    }
}

fn repeated(values: &[impl AsRef<str>], seen: Seen) -> Evidence {
    let valid = values.iter().filter_map(|it| Traceparent::parse(it.as_ref()).ok());
    let traces: BTreeSet<TraceId> = valid.map(|it| it.trace_id).collect();
    Evidence::HeaderRepeated { seen, count: values.len(), traces: traces.len() }
}

/// Looks for a header of another format that contradicts the `traceparent` of the same request. Which trace it is matters more than
/// whether to sample it.
fn contradiction(own: &Traceparent, foreign: &[Foreign], seen: Seen) -> Option<Evidence> {
    let found = foreign.iter().filter_map(|it| Some((it.contradicts(own)?, it.format)));
    let (contradiction, format) =
        found.min_by_key(|(it, _)| matches!(it, Contradiction::Sampling { .. }))?;
    Some(Evidence::HeadersContradict { seen, format, contradiction })
}

/// The headers of other formats in a head.
fn foreign(head: &str) -> Vec<Foreign> {
    let read = |format: Format| {
        let mut foreign = Foreign::new(format);
        for name in format.names() {
            values(head, name).into_iter().for_each(|value| foreign.add(name, value));
        }
        foreign
    };
    Format::ALL.map(read).into_iter().filter(Foreign::matters).collect()
}

/// Looks for a fault in the header of a request that was passed on.
pub(super) fn on_the_wire(exchange: &Exchange, trees: &[Tree]) -> Option<Finding> {
    let head = exchange.delivered.as_deref()?;
    let arrived = values(head, "traceparent");
    let sent = exchange.sent_by();
    let (hop, to) = (exchange.hop.clone(), exchange.to.clone());
    let seen = || Seen::OnHop { hop: exchange.hop.clone(), to: exchange.to.clone() };
    let evidence = match (&arrived[..], sent) {
        // The called service may have used the other format.
        ([], None) => {
            let mut named =
                foreign(head).into_iter().filter_map(|it| Some((it.format, it.trace_id?)));
            let (format, trace_id) = named.next()?;
            if trees.iter().any(|tree| tree.trace_id == trace_id) {
                return None;
            }
            Evidence::ForeignFormat { seen: seen(), format, trace_id }
        }
        ([], Some(_)) => Evidence::HeaderDropped { hop },
        ([value], _) => match Traceparent::parse(value) {
            Err(invalid) => unreadable(value, seen(), invalid),
            Ok(read) => match sent.and_then(|sent| difference(&sent, &read)) {
                Some(field) => Evidence::HeaderReplaced { hop, field },
                None => match contradiction(&read, &foreign(head), seen()) {
                    Some(contradiction) => contradiction,
                    // Some samplers ignore the flag.
                    None if read.sampled || answered_by(exchange, trees).is_some() => return None,
                    None => {
                        let cleared = sent.is_some_and(|sent| sent.sampled);
                        Evidence::FlagNotSet { hop, to, cleared }
                    }
                },
            },
        },
        (several, _) => repeated(several, seen()),
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
    // A request may have hundreds of headers of that name. The first that leads to a span decides.
    let mut parents = HashMap::new();
    for (index, value) in values(delivered, "traceparent").into_iter().enumerate() {
        if let Ok(received) = Traceparent::parse(value) {
            parents.entry((received.trace_id, received.parent_id)).or_insert(index);
        }
    }
    if !parents.is_empty() {
        let servers = rows().filter(|row| row.span.kind() == SpanKind::Server);
        let children = servers.filter_map(|row| {
            let index = parents.get(&(row.span.trace_id, row.span.parent?))?;
            Some((*index, row))
        });
        if let Some((_, row)) = children.min_by_key(|(index, _)| *index) {
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
        several => Some(repeated(several, seen())),
    }
}
