//! The rules of how a trace begins: with a request, as a rule. One that begins with something else may be a part of another
//! trace, which lost its context.

use std::collections::HashMap;

use super::{Around, Evidence, Finding, NamedSpan, Rule, place};
use crate::conventions;
use crate::span::{Span, SpanKind, TraceId, any_text};
use crate::tree::Tree;

/// How many roots are looked at.
const ROOTS: usize = 1000;

/// Among more spans than this, nobody looks for the ones around a root: the rule stays silent.
const MOST: usize = 10_000;

/// The roots that aren't requests and aren't linked to anything.
pub fn unrequested<'a>(
    trees: impl IntoIterator<Item = &'a Tree>,
) -> impl Iterator<Item = &'a Span> {
    let roots = trees.into_iter().flat_map(Tree::tops).map(|row| &*row.span);
    roots.filter(|span| {
        let kind = matches!(span.kind(), SpanKind::Internal | SpanKind::Client);
        kind && span.parent.is_none() && span.links_to_others().next().is_none()
    })
}

/// Whether a span answers a request or takes a message.
pub fn is_request(span: &Span) -> bool {
    matches!(span.kind(), SpanKind::Server | SpanKind::Consumer)
}

/// The two traces of each root that ran within a request or a call of another trace, as the rule finds it among these trees.
pub fn parts_of_requests(trees: &[Tree], elsewhere: &[NamedSpan]) -> Vec<[TraceId; 2]> {
    let findings = misplaced(trees, elsewhere).into_iter();
    let found = findings.filter_map(|finding| match (finding.rule, &finding.spans[..]) {
        (Rule::RootWithin, [(root, _), (around, _)]) => Some([*root, *around]),
        _ => None,
    });
    found.collect()
}

/// Roots that aren't requests, and belong to a request or may do so. `elsewhere` has a request of each service that has answered
/// some in traces that aren't among the trees.
pub(super) fn misplaced(trees: &[Tree], elsewhere: &[NamedSpan]) -> Vec<Finding> {
    let mut requests: HashMap<&str, Vec<&Span>> = HashMap::new();
    let mut calls = Vec::new();
    for tree in trees {
        let mut answered = vec![false; tree.rows.len()];
        for row in &tree.rows {
            if let Some(parent) = row.parent {
                answered[parent] |= tree.rows[parent].span.service() != row.span.service();
            }
        }
        for (row, answered) in tree.rows.iter().zip(answered) {
            let span = &*row.span;
            match span.kind() {
                _ if is_request(span) => {
                    requests.entry(span.service()).or_default().push(span);
                }
                SpanKind::Client if !answered => {
                    // One that failed before it got an answer may have reached nobody.
                    let proto = span.proto();
                    let failed = span.is_error() && conventions::status(&proto).is_none();
                    if !failed && !conventions::is_database_or_queue(&proto) {
                        calls.push(span);
                    }
                }
                _ => {}
            }
        }
    }
    let elsewhere: HashMap<&str, &NamedSpan> =
        elsewhere.iter().map(|request| (&*request.service, request)).collect();
    let mut findings: Vec<Finding> = Vec::new();
    let mut by_service: HashMap<&str, usize> = HashMap::new();
    for root in unrequested(trees).take(ROOTS) {
        let own = requests.get(root.service()).map(Vec::as_slice).unwrap_or_default();
        let first = || own.first().map(|request| NamedSpan::new(request));
        let answered = elsewhere.get(root.service()).copied().cloned().or_else(first);
        let around = match answered {
            None => only(&calls, root).filter(|call| call.service() != root.service()),
            Some(_) => only(own, root).filter(|request| !are_apart(request, root)),
        };
        if let Some(around) = around {
            let spans = vec![place(root), place(around)];
            let around = NamedSpan::new(around);
            let around = match answered {
                None => Around::Call(around),
                Some(_) => Around::Request(around),
            };
            let span = NamedSpan::new(root);
            findings.push(Finding::new(Evidence::RootWithin { span, around }, spans));
        } else if let Some(request) = answered.filter(|_| is_call(root)) {
            // A pool opens and tests its connections on its own.
            match by_service.get(root.service()) {
                Some(index) => {
                    let finding = &mut findings[*index];
                    finding.same += 1;
                    finding.spans.push(place(root));
                    finding.traces.insert(root.trace_id);
                }
                None => {
                    by_service.insert(root.service(), findings.len());
                    let evidence = Evidence::ClientRoot { span: NamedSpan::new(root), request };
                    findings.push(Finding::new(evidence, vec![place(root)]));
                }
            }
        }
    }
    findings
}

/// The only one of these spans, of other traces, that was open as long as the root.
fn only<'a>(spans: &[&'a Span], root: &Span) -> Option<&'a Span> {
    if spans.len() > MOST {
        return None;
    }
    let mut around = spans.iter().filter(|span| {
        span.trace_id != root.trace_id && span.start() <= root.start() && root.end() <= span.end()
    });
    around.next().filter(|_| around.next().is_none()).copied()
}

fn is_call(root: &Span) -> bool {
    root.kind() == SpanKind::Client && !conventions::is_database_or_queue(&root.proto())
}

/// Whether both spans are of different processes of their service, as far as the resources say.
fn are_apart(one: &Span, other: &Span) -> bool {
    let process = |span: &Span| {
        let mut attributes = span.source.resource.attributes.iter();
        let id = attributes.find(|it| it.key == "service.instance.id");
        id.map(|it| any_text(&it.value))
    };
    process(one).zip(process(other)).is_some_and(|(one, other)| one != other)
}
