//! One trace: what failed, where the time went, what the diagnosis finds, and its folded tree.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::diagnosis::Found;
use super::failures::{Failure, alike};
use super::fold::{Group, fold};
use super::logs::Logs;
use super::{NAME, Pages, UNTRUSTED, cut, keep};
use crate::analysis::{Segment, critical_path, shares};
use crate::case::Case;
use crate::compare::pattern;
use crate::span::{SpanId, SpanKind, TraceId};
use crate::tree::Tree;
use traces::model_call::{self, Usage};

/// The document of `lab trace --brief`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    untrusted: &'static str,
    page: Option<String>,
    trace_id: TraceId,
    name: String,
    /// A text, because many readers of JSON round integers past 2^53.
    start_time_unix_nano: String,
    duration_nano: u64,
    spans: usize,
    errors: usize,
    pieces: usize,
    whole: bool,
    /// The other traces that look like parts of the same request.
    other_traces: Vec<TraceId>,
    left_out: LeftOut,
    failures: Vec<Failure>,
    findings: Vec<Found>,
    critical_path: Vec<Step>,
    services: Vec<Share>,
    /// The calls of language models.
    tokens: Vec<Tokens>,
    logs: Logs,
    tree: Vec<Group>,
}

/// How much the lists of the document leave out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeftOut {
    other_traces: usize,
    failures: usize,
    findings: usize,
    critical_path: usize,
    services: usize,
    tokens: usize,
    /// The number of spans that are in no group of the tree.
    spans: usize,
}

/// The spans of one service, name and kind on the critical path.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    span_id: SpanId,
    service: String,
    name: String,
    kind: &'static str,
    /// The number of spans.
    spans: usize,
    critical_nano: u64,
}

/// The calls of one model.
#[derive(Debug, Serialize)]
struct Tokens {
    model: String,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Share {
    service: String,
    spans: usize,
    errors: usize,
    own_nano: u64,
    critical_nano: u64,
}

impl Trace {
    /// Returns `None` when the case has no span of the trace.
    pub fn new(case: &Case, id: TraceId, pages: Pages) -> Option<Self> {
        let tree = case.trees.iter().find(|tree| tree.trace_id == id)?;
        let path = critical_path(tree);
        let others = case.trees.iter().map(|tree| tree.trace_id).filter(|other| *other != id);
        let (other_traces, more_traces) = keep(others, 20, 2_000);
        let alike = alike(std::slice::from_ref(tree), &case.logs);
        let failures = alike.iter().map(|alike| Failure::new(alike, pages));
        let (failures, more_failures) = keep(failures, 20, 65_000);
        let findings = case.findings();
        let found = findings.iter().map(|finding| Found::new(finding, pages));
        let (findings, more_findings) = keep(found, 20, 35_000);
        let (critical_path, more_steps) = keep(steps(tree, &path), 30, 20_000);
        let shares = shares(tree, &path).into_iter().map(|(service, share)| Share {
            service: cut(service, NAME),
            spans: share.spans,
            errors: share.errors,
            own_nano: share.own_time,
            critical_nano: share.critical_time,
        });
        let (services, more_services) = keep(shares, 50, 10_000);
        let usage = model_call::usage(tree).into_iter();
        let tokens = usage.map(|(model, usage)| Tokens { model: cut(&model, NAME), usage });
        let (tokens, more_tokens) = keep(tokens, 20, 5_000);
        let folded = fold(tree, &path);
        Some(Trace {
            untrusted: UNTRUSTED,
            page: pages.trace(id),
            trace_id: id,
            name: cut(tree.name(), NAME),
            start_time_unix_nano: tree.start.to_string(),
            duration_nano: tree.duration,
            spans: tree.rows.len(),
            errors: tree.rows.iter().filter(|row| row.span.is_error()).count(),
            pieces: tree.tops().count(),
            whole: tree.is_whole(),
            other_traces,
            left_out: LeftOut {
                other_traces: more_traces,
                failures: more_failures,
                findings: more_findings,
                critical_path: more_steps,
                services: more_services,
                tokens: more_tokens,
                spans: folded.hidden,
            },
            failures,
            findings,
            critical_path,
            services,
            tokens,
            logs: Logs::new(
                case.logs.iter().filter(|record| record.trace_id == id),
                Some(id),
                pages,
            ),
            tree: folded.groups,
        })
    }
}

/// Adds up the critical path by service, name and kind, the longest first.
fn steps(tree: &Tree, path: &[Segment]) -> Vec<Step> {
    let mut steps: HashMap<(&str, String, SpanKind), Vec<&Segment>> = HashMap::new();
    for segment in path {
        let span = &tree.rows[segment.row].span;
        let key = (span.service(), pattern(span.name()), span.kind());
        steps.entry(key).or_default().push(segment);
    }
    let step = |((service, name, kind), segments): ((&str, String, SpanKind), Vec<&Segment>)| {
        let mut rows: Vec<usize> = segments.iter().map(|segment| segment.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let first = &tree.rows[rows[0]].span;
        Step {
            span_id: first.id,
            service: cut(service, NAME),
            name: cut(if rows.len() == 1 { first.name() } else { &name }, NAME),
            kind: kind.as_str(),
            spans: rows.len(),
            critical_nano: segments.iter().map(|segment| segment.end - segment.start).sum(),
        }
    };
    let mut steps: Vec<Step> = steps.into_iter().map(step).collect();
    steps.sort_by_key(|step| (Reverse(step.critical_nano), step.span_id));
    steps
}
