//! The rules of how spans hang together: within a trace, and across the traces of one request.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Abandoned, Evidence, Finding, NamedSpan, Place, place};
use crate::conventions;
use crate::span::{Span, SpanId, SpanKind, any_text};
use crate::summary::{Call, Summary, breaks};
use crate::tree::{Row, Skew, Tree};

/// How many calls without an answer are looked at: past that, nobody can say which answer belongs to which call.
const CALLS: usize = 100;

/// The smallest difference of clocks that is reported, in nanoseconds: the coarse clocks of some SDKs can't explain it.
const SKEW: u64 = 2_000_000;

/// Calls that were answered in another trace.
pub(super) fn fallen_apart(trees: &[Tree]) -> impl Iterator<Item = Finding> {
    let summaries: Vec<Arc<Summary>> = trees.iter().map(|it| Arc::new(Summary::new(it))).collect();
    breaks(&summaries).into_iter().map(|it| {
        let (from, to) = it.traces;
        let spans = vec![(trees[from].trace_id, it.spans.0), (trees[to].trace_id, it.spans.1)];
        let evidence =
            Evidence::FallenApart { call: it.name, caller: it.caller, called: it.called };
        Finding::new(evidence, spans)
    })
}

/// Looks for faults in the shape of one trace.
pub(super) fn structure(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (of_ids, roots) = several_roots(tree);
    findings.extend(of_ids);
    findings.extend(roots);
    let calls =
        tree.rows.iter().filter(|row| row.span.kind() == SpanKind::Client && row.below == 0);
    let calls = calls.map(|row| (row, Call::new(&row.span)));
    let calls = calls.filter(|(_, call)| !call.is_database_or_queue);
    let calls: Vec<(&Row, Call)> = calls.take(CALLS).collect();
    let services: HashSet<&str> = tree.tops().map(|top| top.span.service()).collect();
    for (parent, siblings) in orphans(tree) {
        let has_others = services.iter().any(|it| *it != siblings[0].span.service());
        let mut finding = orphan(&calls, siblings[0], parent, has_others);
        finding.same = siblings.len() - 1;
        let others = siblings[1..].iter().map(|row| place(&row.span));
        finding.spans.extend(others);
        findings.push(finding);
    }
    for row in tree.tops().filter(|row| row.ring) {
        let span = NamedSpan::new(&row.span);
        let evidence = Evidence::OwnAncestor { span };
        findings.push(Finding::new(evidence, vec![place(&row.span)]));
    }
    let rows = tree.rows.iter();
    findings.extend(rows.filter_map(|row| beside_its_call(tree, &calls, row)));
    findings.extend(tree.rows.iter().filter_map(|row| hung_up(tree, row)));
    findings.extend(skewed(tree));
    findings
}

/// A request whose caller gave up: its call failed without an answer. Durations tell who ended first, whatever the clocks say.
fn hung_up(tree: &Tree, row: &Row) -> Option<Finding> {
    let server = &row.span;
    let call = &tree.rows[row.parent?].span;
    let kinds = (call.kind(), server.kind()) == (SpanKind::Client, SpanKind::Server);
    let failed = call.is_error() && call.has_ended() && call.service() != server.service();
    if !kinds || !failed || server.is_error() || !server.has_ended() {
        return None;
    }
    if conventions::status(&call.proto()).is_some() {
        return None;
    }
    let proto = server.proto();
    let is_http = conventions::method(&proto).is_some();
    let request = match server.duration().checked_sub(call.duration()) {
        _ if is_http && conventions::status(&proto).is_none() => Abandoned::Dropped,
        Some(longer) if longer > 0 => Abandoned::WentOn(longer),
        _ => return None,
    };
    let evidence = Evidence::CallerHungUp {
        span: NamedSpan::new(server),
        call: NamedSpan::new(call),
        request,
    };
    Some(Finding::new(evidence, vec![place(call), place(server)]))
}

/// Returns a finding for each id that several roots came with, and one for the other roots.
fn several_roots(tree: &Tree) -> (Vec<Finding>, Option<Finding>) {
    // One that is linked to another span of its own trace says what it follows from.
    let follows = |row: &&Row| row.span.links_to_others().any(|(trace, _)| trace == tree.trace_id);
    let roots = tree.tops().filter(|row| row.span.parent.is_none() && !follows(row));
    let mut by_id: BTreeMap<SpanId, Vec<&Row>> = BTreeMap::new();
    for row in roots {
        by_id.entry(row.span.shared_id().unwrap_or(row.span.id)).or_default().push(row);
    }
    let places = |rows: &[&Row]| rows.iter().map(|row| place(&row.span)).collect::<Vec<_>>();
    let shared = by_id.iter().filter(|(_, rows)| rows.len() > 1).map(|(id, rows)| {
        let first = NamedSpan::new(&rows[0].span);
        Finding::new(Evidence::SharedId { id: *id, count: rows.len(), first }, places(rows))
    });
    let shared = shared.collect();
    // Spans with one id are one cause, and so one root.
    let mut roots: Vec<&Row> = by_id.into_values().map(|rows| rows[0]).collect();
    roots.sort_by_key(|row| (row.span.start(), row.span.id));
    let [first, _, ..] = roots[..] else {
        return (shared, None);
    };
    let first = NamedSpan::new(&first.span);
    let evidence = Evidence::SeveralRoots { count: roots.len(), first };
    (shared, Some(Finding::new(evidence, places(&roots))))
}

/// The spans whose parent isn't here. Those of one service with the same parent are together, in the order of their
/// first.
fn orphans(tree: &Tree) -> Vec<(SpanId, Vec<&Row>)> {
    let mut orphans: Vec<(SpanId, Vec<&Row>)> = Vec::new();
    let mut known = HashMap::new();
    for row in tree.tops().filter(|row| row.orphan) {
        let Some(parent) = row.span.parent else {
            continue;
        };
        let siblings = (parent, row.span.service());
        let index = *known.entry(siblings).or_insert(orphans.len());
        match orphans.get_mut(index) {
            Some((_, rows)) => rows.push(row),
            None => orphans.push((parent, vec![row])),
        }
    }
    orphans
}

/// A span whose parent, of another process or of its own, isn't here.
fn orphan(calls: &[(&Row, Call)], row: &Row, parent: SpanId, has_others: bool) -> Finding {
    let span = &row.span;
    let named = NamedSpan::new(span);
    // OTLP's flags say whether the parent is of another process, where the sender knows. A span without a kind may be of
    // either end.
    let flags = span.proto().flags;
    let remote = match flags & 0x100 {
        0 => matches!(span.kind(), SpanKind::Server | SpanKind::Consumer | SpanKind::Unspecified),
        _ => flags & 0x200 != 0,
    };
    if !remote {
        let evidence = Evidence::ParentNotHere { span: named, parent, known: flags & 0x100 != 0 };
        return Finding::new(evidence, vec![place(span)]);
    }
    // A call that nobody here has answered, while this happened: the service that was called is missing as a whole.
    let around = calls.iter().map(|(row, _)| &row.span).find(|client| {
        client.service() != span.service()
            && (client.start()..=client.end()).contains(&span.start())
    });
    match around {
        Some(call) => {
            let evidence =
                Evidence::ServiceBetweenNotHere { span: named, call: NamedSpan::new(call) };
            Finding::new(evidence, vec![place(call), place(span)])
        }
        None => {
            let evidence = Evidence::CallerNotHere { span: named, parent, has_others };
            Finding::new(evidence, vec![place(span)])
        }
    }
}

/// A request that hangs beside the CLIENT span that made it: the context around that span was injected instead of its own.
fn beside_its_call(tree: &Tree, calls: &[(&Row, Call)], row: &Row) -> Option<Finding> {
    let server = &row.span;
    let above = &tree.rows[row.parent?].span;
    let remote = server.kind() == SpanKind::Server && above.service() != server.service();
    if !remote || matches!(above.kind(), SpanKind::Client | SpanKind::Producer) {
        return None;
    }
    let request = Call::new(server);
    let mut made = calls.iter().filter(|(row, call)| {
        let client = &row.span;
        client.parent == Some(above.id)
            && client.service() == above.service()
            && client.start() <= server.start()
            && server.end() <= client.end()
            && call.is_like(&request)
    });
    let (client, None) = (&made.next()?.0.span, made.next()) else {
        return None;
    };
    let evidence = Evidence::BesideItsCall {
        span: NamedSpan::new(server),
        call: NamedSpan::new(client),
        parent: NamedSpan::new(above),
    };
    Some(Finding::new(evidence, vec![place(client), place(server)]))
}

/// Pairs of services whose clocks differ.
fn skewed(tree: &Tree) -> impl Iterator<Item = Finding> {
    let mut pairs: BTreeMap<(&str, &str, bool), (Skew, Vec<Place>)> = BTreeMap::new();
    for row in &tree.rows {
        let skew = row.skew.filter(|it| it.nanoseconds() >= SKEW);
        let (Some(skew), Some(parent)) = (skew, row.parent) else {
            continue;
        };
        let parent = &tree.rows[parent].span;
        if on_one_host(parent, &row.span) {
            continue;
        }
        let ahead = matches!(skew, Skew::Ahead(_));
        let pair = (parent.service(), row.span.service(), ahead);
        let (most, spans) = pairs.entry(pair).or_insert((skew, Vec::new()));
        *most = skew.max(*most);
        spans.push(place(&row.span));
    }
    pairs.into_iter().map(|((caller, called, _), (by, spans))| {
        let (caller, called) = (caller.to_owned(), called.to_owned());
        Finding::new(Evidence::ClockSkew { caller, called, by }, spans)
    })
}

/// Whether both spans were made by one clock.
fn on_one_host(one: &Span, other: &Span) -> bool {
    let host = |span: &Span, key: &str| {
        let mut attributes = span.source.resource.attributes.iter();
        attributes.find(|it| it.key == key).map(|it| any_text(&it.value))
    };
    ["host.id", "host.name"].into_iter().any(|key| {
        let host = |span| host(span, key).filter(|host| !host.is_empty());
        host(one).is_some_and(|one| host(other) == Some(one))
    })
}
