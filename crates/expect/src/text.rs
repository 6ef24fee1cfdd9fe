//! A report as text.

use std::fmt;

use traces::expect::compare::Counts;
use traces::expect::{Generalised, Verdict};
use traces::report;
use traces::summary::Summary;
use traces::tree::{plain, visible};
use traces::waterfall::count;

use crate::run::{Cause, Report};

/// The most other traces that are named.
const OTHERS: usize = 5;

/// A report, headed by the name of its file.
pub struct Text<'a> {
    pub report: &'a Report,
    /// The file, and the request in it.
    pub name: &'a str,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { sent, verdict, actual, shown, causes, others, waited, .. } = self.report;
        let name = self.name;
        let trace = sent.trace_id;
        match verdict {
            Verdict::Matches => {
                writeln!(
                    f,
                    "{name}: {} as expected, in trace {trace}",
                    count(actual.len(), "span")
                )?;
            }
            Verdict::Unsettled => {
                let seconds = waited.as_secs();
                writeln!(
                    f,
                    "{name}: as expected, but spans still arrived after {seconds} s: trace {trace}"
                )?;
            }
            Verdict::Differs | Verdict::TimedOut => {
                writeln!(f, "{name}: {}, in trace {trace}\n", differences(shown.counts))?;
                writeln!(f, "{}", shown.text)?;
                for (index, cause) in causes.iter().enumerate() {
                    f.write_str(if index > 0 { "\n" } else { "" })?;
                    cause.fmt(f)?;
                }
            }
        }
        Others(others).fmt(f)
    }
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
                let title = finding.rule.title().to_lowercase();
                writeln!(f, "Cause ({certainty}): {title}: {}", visible(&report::cause(finding)))?;
                finding.advice().iter().try_for_each(|step| writeln!(f, "  {step}"))
            }
            Cause::Unknown(inspected) => writeln!(f, "{}", visible(&inspected.to_string())),
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
