//! The command `diagnose`: what it looks at, the formats of its report, and its exit status.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{LabAddress, Outcome, file};
use crate::brief::{Chosen, Diagnosis, Pages, UNTRUSTED, certainty};
use crate::case::Case;
use crate::client::{self, Lab};
use crate::diagnose::{self, Certainty, Failure, Finding, Inspected, Rule};
use crate::output::{print, print_json};
use crate::report;
use crate::request;
use crate::span::{SpanId, TraceId};
use crate::tree::{Tree, visible};
use traces::code::Location;

/// The arguments of the command.
#[derive(Args)]
pub struct Diagnose {
    /// The trace id or its first digits, or a file, all of whose traces are looked at. The newest trace when it is left out.
    trace: Option<String>,
    /// The trace id in the file, or its first digits.
    id: Option<String>,
    /// Looks at every trace of the running lab or of the file.
    #[arg(long, conflicts_with = "id")]
    all: bool,
    /// Ends with the exit status 1 only for findings of these rules, separated by commas. Without it, every finding that is
    /// certain or likely counts.
    #[arg(long, value_name = "RULE", value_delimiter = ',', value_parser = rules())]
    fail_on: Vec<Rule>,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Prints the same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Prints JSON of at most 200,000 bytes, for coding agents: where the request failed, what is found, and the addresses of the
    /// pages. Looks at the newest trace with an error, of the lab or of the file, when neither a trace nor --all is given.
    #[arg(long, conflicts_with_all = ["format", "json"])]
    brief: bool,
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
struct Subject<'a> {
    case: Case,
    /// The trace that the report is about; `None` for all of them.
    trace: Option<TraceId>,
    chosen: Chosen,
    pages: Pages<'a>,
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
        let Subject { case, trace, chosen, pages, book, missing } = self.read().await?;
        file::warn(case.unread, &case.problems, case.others);
        if case.unknown_json {
            eprintln!("Note: {}", report::UNKNOWN_JSON);
        }
        let findings = case.findings();
        let format = if self.json { Format::Json } else { self.format };
        match format {
            _ if self.brief => {
                let brief = Diagnosis::new(&case, trace, chosen, pages);
                print_json(&serde_json::to_string(&brief)?)?;
            }
            Format::Json => self.print(&case, &findings, trace, pages)?,
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

    fn print(
        &self,
        case: &Case,
        findings: &[Finding],
        trace: Option<TraceId>,
        pages: Pages,
    ) -> anyhow::Result<()> {
        let inspected = case.inspected();
        let report = Report {
            untrusted: UNTRUSTED,
            page: trace.map_or(pages.list(), |id| pages.trace(id)),
            inspected: Counts::new(&inspected),
            failure: inspected.failure.as_ref().map(Failed::new),
            findings: findings.iter().map(|it| Found::new(it, self.counts(it))).collect(),
        };
        print_json(&serde_json::to_string_pretty(&report)?)
    }

    async fn read(&self) -> anyhow::Result<Subject<'_>> {
        let name = self.trace.as_deref();
        if let Some(file) = name.filter(|name| file::is_file(name)) {
            let case = Case::read(&file::bytes(file)?).with_context(|| file.to_owned())?;
            let (trace, chosen) = match &self.id {
                Some(typed) => (Some(file::id_of(&case, file, typed)?), Chosen::Named),
                None if self.brief && !self.all => (newest_failed(&case), Chosen::NewestFailed),
                None => (None, Chosen::Named),
            };
            let (case, chosen) = match trace {
                Some(id) => (request::part(case, id), chosen),
                None => (case, Chosen::Named),
            };
            // No lab is needed for a file, so name the pages without an address.
            let (pages, book) = (Pages::NONE, "the book's page ".to_owned());
            return Ok(Subject { case, trace, chosen, pages, book, missing: None });
        }
        if let (Some(name), Some(_)) = (name, &self.id) {
            bail!("{name} is not a file");
        }
        name.map(file::ensure_id).transpose()?;
        let lab = Lab::at(&self.lab.site);
        let book = format!("http://{}/", self.lab.site);
        let pages = Pages::of(&self.lab.site);
        if self.all {
            if name.is_some() {
                bail!("--all looks at every trace of the lab: leave out the id");
            }
            let (case, chosen) = (lab.whole_case().await?, Chosen::All);
            return Ok(Subject { case, trace: None, chosen, pages, book, missing: None });
        }
        let (id, chosen) = match name {
            Some(name) => (Some(name.to_owned()), Chosen::Named),
            None if self.brief => match lab.newest_failed().await? {
                Some(id) => (Some(id.to_string()), Chosen::NewestFailed),
                None => (None, Chosen::Newest),
            },
            None => (None, Chosen::Newest),
        };
        let found = lab.case(id.as_deref()).await?;
        let missing = id.filter(|_| found.is_none());
        let (trace, case) = found.map(|(id, case)| (Some(id), case)).unwrap_or_default();
        Ok(Subject { case, trace, chosen, pages, book, missing })
    }
}

/// Returns the trace with an error that starts last, of those whose request ended worst.
fn newest_failed(case: &Case) -> Option<TraceId> {
    let has_error = |tree: &&Tree| tree.rows.iter().any(|row| row.span.is_error());
    // Of several equal ones, this is the last.
    let worst = case.trees.iter().filter(has_error).max_by_key(|tree| diagnose::Outcome::of(tree));
    worst.map(|tree| tree.trace_id)
}

/// The report as JSON. The page `reference/lab.md` documents it.
#[derive(Serialize)]
struct Report<'a> {
    untrusted: &'static str,
    page: Option<String>,
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
            certainty: certainty(finding.evidence.certainty()),
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
