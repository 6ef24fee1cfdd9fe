//! Why a trace is broken, or says less than it could: rules that each know one thing that goes wrong.
//!
//! A rule reports only faults that the spans, or the headers on the wire, prove; anything that may be right is left alone.
//! It reports data, an [`Evidence`], which [`crate::report`] turns into sentences.
//!
//! The rules are sorted by what they look at: `header` at the `traceparent` of each request, `shape` at how spans hang
//! together, `roots` at the beginnings of traces, `lifetimes` at how long spans are open, `spans` at one span and its resource, `names` at the names of all spans, `secrets` at attribute values.

mod evidence;
mod header;
mod inspected;
mod lifetimes;
mod names;
mod roots;
mod secrets;
mod shape;
mod spans;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::exchange::Exchange;
use crate::headers::Pasted;
use crate::span::{Span, SpanId, TraceId, shortened};
use crate::tree::{LONGEST, Tree};

pub use evidence::{Abandoned, Around, Certainty, Evidence, Library, NamedSpan, Seen, WrongKind};
pub use header::{answered_by, of_header};
pub use inspected::{Failure, Inspected, Outcome};
pub use roots::{is_request, parts_of_requests, unrequested};
pub use secrets::{Secret, is_secret, is_secret_name};

/// A rule, named after the fault that it finds. Causes come before their consequences, and findings are reported in this
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    NothingArrived,
    BrokenHeader,
    ForeignFormat,
    Unsampled,
    FallenApart,
    RootWithin,
    ClientRoot,
    SeveralRoots,
    MissingSpans,
    Orphan,
    NotEnded,
    WrongParent,
    HeldOpen,
    LongLived,
    WrongKind,
    StatusNotSet,
    HungUp,
    ClockSkew,
    NoServiceName,
    MixedVersions,
    HighCardinality,
    TinySpans,
    Secret,
}

impl Rule {
    /// Every rule, in order.
    pub const ALL: [Rule; 23] = [
        Rule::NothingArrived,
        Rule::BrokenHeader,
        Rule::ForeignFormat,
        Rule::Unsampled,
        Rule::FallenApart,
        Rule::RootWithin,
        Rule::ClientRoot,
        Rule::SeveralRoots,
        Rule::MissingSpans,
        Rule::Orphan,
        Rule::NotEnded,
        Rule::WrongParent,
        Rule::HeldOpen,
        Rule::LongLived,
        Rule::WrongKind,
        Rule::StatusNotSet,
        Rule::HungUp,
        Rule::ClockSkew,
        Rule::NoServiceName,
        Rule::MixedVersions,
        Rule::HighCardinality,
        Rule::TinySpans,
        Rule::Secret,
    ];

    /// The name of the rule in addresses and files, and the fragment of its section in the how-to guide.
    pub fn name(self) -> &'static str {
        match self {
            Rule::NothingArrived => "nothing-arrived",
            Rule::BrokenHeader => "broken-header",
            Rule::ForeignFormat => "foreign-format",
            Rule::Unsampled => "unsampled",
            Rule::FallenApart => "fallen-apart",
            Rule::RootWithin => "root-within",
            Rule::ClientRoot => "client-root",
            Rule::SeveralRoots => "several-roots",
            Rule::MissingSpans => "missing-spans",
            Rule::Orphan => "orphan",
            Rule::NotEnded => "not-ended",
            Rule::WrongParent => "wrong-parent",
            Rule::HeldOpen => "held-open",
            Rule::LongLived => "long-lived",
            Rule::WrongKind => "wrong-kind",
            Rule::StatusNotSet => "status-not-set",
            Rule::HungUp => "hung-up",
            Rule::ClockSkew => "clock-skew",
            Rule::NoServiceName => "no-service-name",
            Rule::MixedVersions => "mixed-versions",
            Rule::HighCardinality => "high-cardinality",
            Rule::TinySpans => "tiny-spans",
            Rule::Secret => "secret",
        }
    }
}

/// A span among the spans of several traces.
pub type Place = (TraceId, SpanId);

/// One thing that a rule has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule of the evidence.
    pub rule: Rule,
    /// The proof.
    pub evidence: Evidence,
    /// The spans concerned: those of the evidence first.
    pub spans: Vec<Place>,
    /// The traces concerned; a trace without any span that has arrived can be among them.
    pub traces: BTreeSet<TraceId>,
    /// For how many more spans the same is true. These are among `spans`.
    pub same: usize,
    /// How many more findings of the rule there were, past the first ten. Their spans and traces are added to this one.
    pub more: usize,
}

impl Finding {
    fn new(evidence: Evidence, spans: Vec<Place>) -> Self {
        Finding {
            rule: evidence.rule(),
            evidence,
            traces: spans.iter().map(|(trace, _)| *trace).collect(),
            spans,
            same: 0,
            more: 0,
        }
    }
}

/// Looks for faults in headers that stand alone. The findings are sorted and limited like those of [`diagnose`].
pub fn of_headers(headers: &[Pasted]) -> Vec<Finding> {
    let seen = |it: &Pasted| match headers {
        [_] => Seen::Alone,
        _ => {
            let value = it.traceparent.first().map(|value| shortened(value, LONGEST));
            Seen::InText { line: it.line, value: value.unwrap_or_default() }
        }
    };
    let mut findings: Vec<Finding> =
        headers.iter().flat_map(|it| header::pasted(it, seen(it))).collect();
    findings.sort_by_key(|finding| finding.rule);
    limited(findings)
}

/// Runs every rule over these traces, and over what a proxy has seen of their requests. The findings are sorted by rule,
/// at most ten for each.
pub fn diagnose(trees: &[Tree], wire: &[Exchange]) -> Vec<Finding> {
    diagnose_part(trees, wire, &[])
}

/// Does the same for a part of all traces. `elsewhere` has a request of each service that has answered some in the other traces.
pub fn diagnose_part(trees: &[Tree], wire: &[Exchange], elsewhere: &[NamedSpan]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut unsampled = BTreeSet::new();
    for exchange in wire {
        let finding = header::on_the_wire(exchange, trees);
        // Services pass the flag on: the finding is about the first hop that has it.
        findings.extend(finding.filter(|finding| {
            finding.rule != Rule::Unsampled || finding.traces.iter().all(|it| unsampled.insert(*it))
        }));
    }
    findings.extend(shape::fallen_apart(trees));
    findings.extend(roots::misplaced(trees, elsewhere));
    let mut versions = spans::Versions::default();
    let mut names = names::Names::default();
    let mut grouped = spans::Grouped::default();
    let (mut addresses, mut sources) = (HashSet::new(), HashSet::new());
    for tree in trees {
        findings.extend(shape::structure(tree));
        findings.extend(lifetimes::lifetimes(tree));
        for row in &tree.rows {
            let proto = row.span.proto();
            // A resource that many spans share is looked at with the first of them. A file may repeat it with each span.
            let source = &row.span.source;
            let is_new = addresses.insert(Arc::as_ptr(source)) && sources.insert(source.encoded());
            for evidence in spans::of_span(tree, row, &proto, is_new) {
                grouped.add(row.span.service(), evidence, place(&row.span));
            }
            names.add(&row.span, &proto);
            if is_new {
                versions.add(&row.span);
            }
        }
    }
    findings.extend(grouped.findings());
    findings.extend(names.findings());
    findings.extend(versions.findings());
    if trees.is_empty() && findings.is_empty() {
        let requests = wire.len();
        findings.push(Finding::new(Evidence::NothingArrived { requests }, Vec::new()));
    }
    // A header explains what follows from it.
    let explained = findings.iter().filter(|it| it.rule == Rule::BrokenHeader);
    let explained: BTreeSet<Place> = explained.flat_map(|it| it.spans.clone()).collect();
    findings.retain(|finding| {
        let follows = matches!(finding.rule, Rule::FallenApart | Rule::Orphan);
        !follows || !finding.spans.iter().all(|span| explained.contains(span))
    });
    findings.sort_by_key(|finding| finding.rule);
    limited(findings)
}

/// The most findings of one rule, so that nobody has to read about ten thousand orphans one by one.
const MOST: usize = 10;

/// Keeps the first findings of each rule. The last one that is kept counts the others.
fn limited(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let of_rule = kept.iter().rev().take_while(|it| it.rule == finding.rule);
        let full = of_rule.count() >= MOST;
        match kept.last_mut() {
            Some(last) if full => {
                last.more += 1;
                last.spans.extend(finding.spans);
                last.traces.extend(finding.traces);
            }
            _ => kept.push(finding),
        }
    }
    kept
}

fn place(span: &Span) -> Place {
    (span.trace_id, span.id)
}
