//! The command `trace`: which trace of a lab or a file it shows, and in which form.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::{LabAddress, document, file};
use crate::brief::{self, Pages};
use crate::case::Case;
use crate::client::{self, Lab};
use crate::output::{print, print_json};
use crate::parts::{CriticalPath, Logs, Span, Wire};
use crate::request;
use crate::span::{TraceId, span_id};
use crate::terminal;
use crate::tree::Tree;

/// The arguments of the command.
#[derive(Args)]
pub struct Trace {
    /// The trace id or its first digits, or a file; the newest trace when it is left out.
    trace: Option<String>,
    /// The trace id in the file, or its first digits; the trace that starts last when it is left out.
    id: Option<String>,
    #[command(flatten)]
    lab: LabAddress,
    /// Shows all of one span, by its id or the first digits.
    #[arg(long, value_name = "SPAN", conflicts_with = "brief")]
    span: Option<String>,
    /// Prints JSON: the whole trace as OTLP, which `--open` and other tools read, or one part of it.
    #[arg(long, value_enum, value_name = "PART", num_args = 0..=1, require_equals = true, default_missing_value = "otlp")]
    json: Option<Part>,
    /// Writes the trace's whole request as one HTML file, which a browser shows without a lab and `--open` reads. Values that look
    /// like secrets are redacted. `-` writes to standard output.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "brief", "span"])]
    html: Option<PathBuf>,
    /// Prints JSON of at most 200,000 bytes, for coding agents: failures first, equal spans folded, and what is left out counted.
    #[arg(long, conflicts_with = "json")]
    brief: bool,
}

/// The part of a trace that is printed as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// All spans, as OTLP.
    Otlp,
    /// The spans that the request waited for, moment by moment.
    CriticalPath,
    /// The log records.
    Logs,
    /// The requests on the wire, with their headers.
    Wire,
}

impl Trace {
    /// Prints the trace.
    ///
    /// # Errors
    /// Fails when no lab answers, it doesn't have the trace or the span, or a file can't be read.
    pub async fn run(self) -> anyhow::Result<()> {
        if self.json.is_some()
            && let Some(part) = [&self.trace, &self.id].into_iter().flatten().find(|it| is_part(it))
        {
            bail!("the part follows an equals sign: write --json={part}");
        }
        if let Some(name) = self.trace.as_deref().filter(|name| file::is_file(name)) {
            let (id, case) = file::trace(name, self.id.as_deref())?;
            return match self.json {
                Some(Part::Otlp) if self.span.is_none() => file::print_otlp(case, id),
                _ => self.show(request::part(case, id), id, Pages::NONE),
            };
        }
        if let (Some(name), Some(_)) = (&self.trace, &self.id) {
            bail!("{name} is not a file");
        }
        let id = self.trace.as_deref();
        id.map(file::ensure_id).transpose()?;
        let lab = Lab::at(&self.lab.site);
        if self.json == Some(Part::Otlp) && self.span.is_none() {
            return print_json(std::str::from_utf8(&lab.trace(id).await?)?);
        }
        let case = lab.case(id).await?;
        match (case, id) {
            (Some((id, case)), _) => self.show(case, id, Pages::of(&self.lab.site)),
            (None, Some(id)) => Err(client::Error::NoSuchTrace(id.to_owned()).into()),
            (None, None) => Err(lab.no_trace().await.into()),
        }
    }

    fn show(&self, case: Case, id: TraceId, pages: Pages) -> anyhow::Result<()> {
        if let Some(path) = &self.html {
            return document::write(path, case, id, None);
        }
        let tree = case.trees.iter().find(|tree| tree.trace_id == id);
        let nothing =
            || format!("no span of trace {id} has arrived: `lab diagnose {id}` says more");
        let tree = || tree.with_context(nothing);
        if let Some(typed) = &self.span {
            let tree = tree()?;
            let span = Span::new(tree, row(tree, typed)?, &case.logs, pages);
            return match self.json {
                None => print(&terminal::span(&span)),
                Some(Part::Otlp) => print_json(&serde_json::to_string_pretty(&span)?),
                Some(_) => bail!("--span has one form of JSON: write --json without a part"),
            };
        }
        if self.brief {
            let brief = brief::Trace::new(&case, id, pages).with_context(nothing)?;
            return print_json(&serde_json::to_string(&brief)?);
        }
        match self.json {
            Some(Part::CriticalPath) => {
                print_json(&serde_json::to_string_pretty(&CriticalPath::new(tree()?, pages))?)
            }
            Some(Part::Logs) => {
                print_json(&serde_json::to_string_pretty(&Logs::new(&case, id, pages))?)
            }
            Some(Part::Wire) => {
                print_json(&serde_json::to_string_pretty(&Wire::new(&case, id, pages))?)
            }
            None | Some(Part::Otlp) => {
                print(&terminal::trace(&case, id, columns()).with_context(nothing)?)
            }
        }
    }
}

/// Whether an argument is a part of a trace and not a file.
fn is_part(argument: &str) -> bool {
    Part::from_str(argument, false).is_ok() && !file::is_file(argument)
}

/// Returns the row of the only span with this id, or whose id begins so.
fn row(tree: &Tree, typed: &str) -> anyhow::Result<usize> {
    let whole = span_id(typed).and_then(|id| tree.rows.iter().position(|row| row.span.id == id));
    if let Some(row) = whole {
        return Ok(row);
    }
    let (id, start) = (tree.trace_id, typed.trim().to_lowercase());
    let starts = |row: &usize| tree.rows[*row].span.id.to_string().starts_with(&start);
    match (0..tree.rows.len()).filter(starts).collect::<Vec<_>>()[..] {
        [only] => Ok(only),
        [] => bail!("trace {id} has no span {typed}: `--brief` and `--json` list its spans"),
        [..] => bail!("several spans of trace {id} begin with {typed}: write more of the id"),
    }
}

/// Returns the width to print at: the shell's setting, or else the terminal's width. `None` where the output goes to a file or a
/// program, which reads lines of any length.
fn columns() -> Option<usize> {
    let shell = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    shell.or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()))
}
