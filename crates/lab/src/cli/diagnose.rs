//! The command `diagnose`: what it looks at, the formats of its report, and its exit status.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{LabAddress, Outcome, file};
use crate::case::Case;
use crate::client::{self, Lab};
use crate::diagnose::{Certainty, Failure, Finding, Inspected, Rule};
use crate::output::{print, print_json};
use crate::report;
use crate::span::{SpanId, TraceId};
use crate::tree::visible;
use traces::code::Location;

/// The arguments of the command.
#[derive(Args)]
pub struct Diagnose {
    /// The trace id or its first digits, or a file, all of whose traces are looked at. The newest trace when it is left out.
    trace: Option<String>,
    /// Looks at every trace of the running lab.
    #[arg(long)]
    all: bool,
    /// Ends with the exit status 1 only for findings of these rules, separated by commas. Without it, every finding that is
    /// certain or likely counts.
    #[arg(long, value_name = "RULE", value_delimiter = ',', value_parser = rules())]
    fail_on: Vec<Rule>,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    lab: LabAddress,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One object, for programs.
    Json,
    /// An annotation for each finding, in a workflow of GitHub Actions.
    Github,
}

fn rules() -> impl TypedValueParser<Value = Rule> {
    let names = PossibleValuesParser::new(Rule::ALL.map(Rule::name));
    names.try_map(|name| {
        Rule::ALL.into_iter().find(|rule| rule.name() == name).ok_or("there is no such rule")
    })
}

/// The case that a report is about.
struct Subject {
    case: Case,
    /// The address of the book's pages.
    book: String,
    /// The id of a trace that the lab doesn't have.
    missing: Option<String>,
}

impl Diagnose {
    /// Prints the report. The outcome is [`Outcome::Found`] when a finding counts.
    ///
    /// # Errors
    /// Fails when the file can't be read, no lab answers, or it doesn't have the trace.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let Subject { case, book, missing } = self.read().await?;
        file::warn(case.unread, &case.problems, case.others);
        if case.unknown_json {
            eprintln!("Note: {}", report::UNKNOWN_JSON);
        }
        let findings = case.findings();
        match self.format {
            Format::Json => {
                let findings = findings.iter().map(|it| Found::new(it, self.counts(it)));
                let inspected = case.inspected();
                let report = Report {
                    inspected: Counts::new(&inspected),
                    failure: inspected.failure.as_ref().map(Failed::new),
                    findings: findings.collect(),
                };
                print_json(&serde_json::to_string_pretty(&report)?)?;
            }
            Format::Github if !findings.is_empty() => {
                let failure = case.inspected().failure();
                let failure = failure.map(|it| {
                    format!("::notice title=The request failed::{}\n", escaped(&visible(&it)))
                });
                let annotations = findings.iter().map(|it| annotation(it, self.counts(it), &book));
                print(&failure.into_iter().chain(annotations).collect::<String>())?;
            }
            Format::Text | Format::Github => print(&report::text(&case, &book))?,
        }
        if let Some(id) = missing {
            bail!(client::Error::NoSuchTrace(id));
        }
        match findings.iter().any(|finding| self.counts(finding)) {
            true => Ok(Outcome::Found),
            false => Ok(Outcome::Fine),
        }
    }

    /// Returns whether the exit status is 1 because of this finding.
    fn counts(&self, finding: &Finding) -> bool {
        match self.fail_on.is_empty() {
            true => finding.evidence.certainty() != Certainty::WorthALook,
            false => self.fail_on.contains(&finding.rule),
        }
    }

    async fn read(&self) -> anyhow::Result<Subject> {
        let name = self.trace.as_deref();
        if let Some(file) = name.filter(|name| file::is_file(name)) {
            let case = Case::read(&file::bytes(file)?).with_context(|| file.to_owned())?;
            // No lab is needed for a file, so name the pages without an address.
            return Ok(Subject { case, book: "the book's page ".to_owned(), missing: None });
        }
        name.map(file::ensure_id).transpose()?;
        let lab = Lab::at(&self.lab.site);
        let book = format!("http://{}/", self.lab.site);
        if self.all {
            return match name {
                Some(_) => bail!("--all looks at every trace of the lab: leave out the id"),
                None => Ok(Subject { case: lab.whole_case().await?, book, missing: None }),
            };
        }
        let case = lab.case(name).await?.map(|(_, case)| case);
        let missing = name.filter(|_| case.is_none()).map(str::to_owned);
        Ok(Subject { case: case.unwrap_or_default(), book, missing })
    }
}

/// The report as JSON. The page `reference/lab.md` documents it.
#[derive(Serialize)]
struct Report<'a> {
    inspected: Counts,
    failure: Option<Failed<'a>>,
    findings: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Counts {
    traces: usize,
    spans: usize,
    services: usize,
    requests: usize,
    headers: usize,
}

impl Counts {
    fn new(inspected: &Inspected) -> Self {
        let Inspected { traces, spans, services, requests, ref headers, .. } = *inspected;
        Counts { traces, spans, services, requests, headers: headers.len() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    name: &'a str,
    kind: &'static str,
    service: &'a str,
    error_type: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a Location>,
}

impl<'a> Failed<'a> {
    fn new(failure: &'a Failure) -> Self {
        let Failure { span, error_type, message, code, .. } = failure;
        Failed {
            name: &span.name,
            kind: span.kind.as_str(),
            service: &span.service,
            error_type: error_type.as_deref(),
            message,
            code: code.as_ref(),
        }
    }
}

#[derive(Serialize)]
struct Found<'a> {
    rule: &'static str,
    title: &'static str,
    certainty: &'static str,
    /// Whether the exit status is 1 because of it.
    fails: bool,
    sentence: String,
    advice: &'static [&'static str],
    spans: Vec<SpanOfTrace>,
    traces: &'a BTreeSet<TraceId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanOfTrace {
    trace_id: TraceId,
    span_id: SpanId,
}

impl<'a> Found<'a> {
    fn new(finding: &'a Finding, fails: bool) -> Self {
        let spans = finding.spans.iter();
        Found {
            rule: finding.rule.name(),
            title: finding.rule.title(),
            certainty: name(finding.evidence.certainty()),
            fails,
            sentence: report::cause(finding),
            advice: finding.advice(),
            spans: spans
                .map(|(trace_id, span_id)| SpanOfTrace { trace_id: *trace_id, span_id: *span_id })
                .collect(),
            traces: &finding.traces,
        }
    }
}

fn name(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Certain => "certain",
        Certainty::Likely => "likely",
        Certainty::WorthALook => "worth-a-look",
    }
}

/// Writes a finding as a [workflow command](https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands)
/// of GitHub Actions, which becomes an annotation: an error if the exit status is 1 because of it.
fn annotation(finding: &Finding, fails: bool, book: &str) -> String {
    let command = match finding.evidence.certainty() {
        _ if fails => "error",
        Certainty::Certain | Certainty::Likely => "warning",
        Certainty::WorthALook => "notice",
    };
    let title = escaped(finding.rule.title()).replace(':', "%3A").replace(',', "%2C");
    let mut message = visible(&report::cause(finding));
    for step in finding.advice() {
        message.push('\n');
        message.push_str(step);
    }
    for trace in finding.traces.iter().take(TRACES_NAMED) {
        message.push_str(&format!("\nTrace {trace}"));
    }
    message.push_str(&format!("\nMore: {book}{}#{}", report::GUIDE, finding.rule.name()));
    format!("::{command} title={title}::{}\n", escaped(&message))
}

/// The number of traces that an annotation names.
const TRACES_NAMED: usize = 5;

/// Escapes the data of a workflow command.
pub(super) fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
