//! One call's answer to "what broke": the failure, where it is, and what the rules find.

use serde::Serialize;

use super::failures::{Failure, Step, alike, way};
use super::logs::Logs;
use super::{Pages, TEXT, UNTRUSTED, cut, keep};
use crate::case::Case;
use crate::diagnose::{Certainty, Finding};
use crate::report;
use crate::span::{SpanId, TraceId};

/// The document of `lab diagnose --brief`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    untrusted: &'static str,
    page: Option<String>,
    chosen: Chosen,
    /// `null` for headers without a trace, and for all traces.
    trace_id: Option<TraceId>,
    traces: usize,
    spans: usize,
    /// The number of requests on the wire.
    requests: usize,
    /// The deepest span with an error, where the failure began.
    failure: Option<Failure>,
    /// The spans from the top of the trace to the failure.
    r#where: Vec<Step>,
    other_failures: Vec<Failure>,
    findings: Vec<Found>,
    logs: Logs,
    left_out: LeftOut,
}

/// How the trace of a diagnosis was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chosen {
    /// The user has named it, or a file.
    Named,
    /// The newest trace with an error.
    NewestFailed,
    /// The newest trace: none has an error.
    Newest,
    /// All traces of the lab.
    All,
}

/// How much the lists of the document leave out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeftOut {
    other_failures: usize,
    findings: usize,
}

impl Diagnosis {
    pub fn new(case: &Case, trace: Option<TraceId>, chosen: Chosen, pages: Pages) -> Self {
        let inspected = case.inspected();
        let alike = alike(&case.trees, &case.logs);
        let mut failures = alike.iter().map(|alike| Failure::new(alike, pages));
        let failure = failures.next();
        let (other_failures, more_failures) = keep(failures, 10, 20_000);
        let findings = case.findings();
        let found = findings.iter().map(|finding| Found::new(finding, pages));
        let (findings, more_findings) = keep(found, 20, 40_000);
        Diagnosis {
            untrusted: UNTRUSTED,
            page: match trace {
                Some(id) => pages.trace(id),
                None => pages.list(),
            },
            chosen,
            trace_id: trace,
            traces: inspected.traces,
            spans: inspected.spans,
            requests: inspected.requests,
            failure,
            r#where: alike.first().map(|alike| way(alike.tree, alike.row)).unwrap_or_default(),
            other_failures,
            findings,
            logs: Logs::new(case.logs.iter(), trace, pages),
            left_out: LeftOut { other_failures: more_failures, findings: more_findings },
        }
    }
}

/// One finding of a rule.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    rule: &'static str,
    title: &'static str,
    certainty: &'static str,
    sentence: String,
    advice: &'static [&'static str],
    spans: Vec<Place>,
    spans_left_out: usize,
    traces: Vec<TraceId>,
    traces_left_out: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    page: Option<String>,
    trace_id: TraceId,
    span_id: SpanId,
}

/// The largest number of spans and of traces that a finding names.
const NAMED: usize = 5;

impl Found {
    pub fn new(finding: &Finding, pages: Pages) -> Self {
        let Finding { rule, spans, traces, .. } = finding;
        let place = |(trace_id, span_id): &(TraceId, SpanId)| Place {
            page: pages.span((*trace_id, *span_id)),
            trace_id: *trace_id,
            span_id: *span_id,
        };
        Found {
            rule: rule.name(),
            title: rule.title(),
            certainty: certainty(finding.evidence.certainty()),
            sentence: cut(&report::cause(finding), TEXT),
            advice: finding.advice(),
            spans: spans.iter().take(NAMED).map(place).collect(),
            spans_left_out: spans.len().saturating_sub(NAMED),
            traces: traces.iter().copied().take(NAMED).collect(),
            traces_left_out: traces.len().saturating_sub(NAMED),
        }
    }
}

/// Returns the name of a certainty in JSON.
pub fn certainty(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Certain => "certain",
        Certainty::Likely => "likely",
        Certainty::WorthALook => "worth-a-look",
    }
}
