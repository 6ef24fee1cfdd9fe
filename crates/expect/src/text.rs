//! A report as text.

use std::fmt;

use traces::diagnose::{Certainty, Finding, Rule};
use traces::expect::compare::Counts;
use traces::expect::{Actual, Generalised, Node, Verdict};
use traces::report;
use traces::summary::Summary;
use traces::tree::{plain, visible};
use traces::waterfall::count;

use crate::run::{Cause, Report};

/// The most other traces that are named.
const OTHERS: usize = 5;

/// The problem of a request that had to be alone.
pub const NOT_ALONE: &str = "other traces arrived too";

/// A report, headed by the name of its file.
pub struct Text<'a> {
    pub report: &'a Report,
    /// The file, and the request in it.
    pub name: &'a str,
    /// Problems besides the trace, such as the status of the answer.
    pub problems: &'a [String],
}

impl Text<'_> {
    /// Sums up all problems in a few words. Empty where everything is as expected.
    pub fn summary(&self) -> String {
        let Report { verdict, shown, waited, .. } = self.report;
        let of_trace = match verdict {
            Verdict::Matches => None,
            Verdict::Unsettled => {
                let seconds = waited.as_secs();
                Some(format!("as expected, but spans still arrived after {seconds} s"))
            }
            Verdict::Differs | Verdict::TimedOut => Some(differences(shown.counts)),
        };
        let problems = self.problems.iter().cloned().chain(of_trace);
        problems.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { sent, actual, shown, causes, others, .. } = self.report;
        let (name, trace) = (self.name, sent.trace_id);
        let summary = match self.summary() {
            fine if fine.is_empty() => format!("{} as expected", count(actual.len(), "span")),
            wrong => wrong,
        };
        writeln!(f, "{name}: {summary}, in trace {trace}")?;
        if !causes.is_empty() {
            write!(f, "\n{}\n", shown.text)?;
        }
        for (index, cause) in causes.iter().enumerate() {
            f.write_str(if index > 0 { "\n" } else { "" })?;
            cause.fmt(f)?;
        }
        Others(others).fmt(f)
    }
}

/// Writes a finding of the diagnosis in one line.
pub fn finding(finding: &Finding) -> String {
    let title = finding.rule.title().to_lowercase();
    visible(&format!("{title}: {}", report::cause(finding)))
}

/// Warns about faults of a trace that a file is written from, a line each.
pub fn warnings(report: &Report) -> Vec<String> {
    let counts = |it: &&Finding| {
        it.rule != Rule::NothingArrived && it.evidence.certainty() != Certainty::WorthALook
    };
    let found: Vec<&Finding> = report.findings.iter().filter(counts).collect();
    let Actual { nodes, tops, linked, .. } = &report.counted;
    let never = tops.iter().chain(linked).filter_map(|top| {
        let Node { span, detached, .. } = &nodes[*top];
        let place = (span.trace_id, span.id);
        let is_named = found.iter().any(|finding| finding.spans.contains(&place));
        let detached = (*detached).filter(|_| !is_named)?;
        let (name, service) = (plain(span.name()), plain(span.service()));
        Some(format!("`{name}` of {service} will never match: {detached}"))
    });
    let found = found
        .iter()
        .map(|it| format!("the diagnosis finds a fault in this trace: {}", finding(it)));
    found.chain(never).collect()
}

/// The differences in numbers, such as `1 missing, 2 surplus`.
pub fn differences(counts: Counts) -> String {
    let Counts { missing, surplus, changed } = counts;
    let numbers = [(missing, "missing"), (surplus, "surplus"), (changed, "different")];
    let numbers = numbers.iter().filter(|(number, _)| *number > 0);
    let numbers: Vec<String> = numbers.map(|(number, what)| format!("{number} {what}")).collect();
    numbers.join(", ")
}

impl fmt::Display for Cause {
    /// Writes a paragraph: the cause, and below it what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::NotTaken { service, trace } => writeln!(
                f,
                "Cause: nothing has the trace id that was sent: {} began trace {trace}.\n  \
                 Send the request with the header `traceparent`, and extract it in {0}.",
                plain(service)
            ),
            Cause::Finding(finding) => {
                let certainty = finding.evidence.certainty();
                writeln!(f, "Cause ({certainty}): {}", self::finding(finding))?;
                finding.advice().iter().try_for_each(|step| writeln!(f, "  {step}"))
            }
            Cause::Unknown { inspected, is_missing } => {
                f.write_str("The diagnosis found no cause: propagation is intact")?;
                match (inspected.failed(), is_missing) {
                    (Some(failed), _) => writeln!(f, ", and {}", visible(&failed)),
                    (None, false) => writeln!(f, "; the difference is in what the services did."),
                    (None, true) => writeln!(
                        f,
                        "; the difference is in what the services did, or in spans that were not exported in time."
                    ),
                }
            }
        }
    }
}

/// The traces that arrived besides, in one line; nothing where there are none.
pub struct Others<'a>(pub &'a [Summary]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Others(others) = *self;
        if others.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        let named = others.iter().take(OTHERS).map(|it| {
            format!("{} ({})", plain(&it.name), plain(it.services.first().map_or("", |it| it)))
        });
        let named: Vec<String> = named.collect();
        let more = match others.len().saturating_sub(OTHERS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(
            f,
            "Not compared: {}: {}{more}",
            count(others.len(), "other trace"),
            named.join(", ")
        )
    }
}

/// Says what was replaced by patterns; nothing where nothing was.
pub fn generalised(generalised: &Generalised) -> Option<String> {
    let replaced =
        generalised.iter().map(|(text, glob)| format!("  {} -> {glob}\n", visible(text)));
    let replaced: String = replaced.collect();
    (!replaced.is_empty()).then(|| format!("Replaced what changes with every run:\n{replaced}"))
}
