//! The command `diff`: the two traces that it compares, the forms of its report, and its exit status.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{LabAddress, Outcome, file};
use crate::client::{self, Lab};
use crate::compare::{Change, Comparison, Row, Sides, Unsure, compare};
use crate::output::{print, print_json};
use crate::span::{SpanId, TraceId};
use crate::terminal;
use crate::tree::{Tree, visible};
use crate::waterfall::caption;

/// The arguments of the command.
#[derive(Args)]
pub struct Diff {
    /// The trace to compare with: its id or the first digits in a running lab, or a file, or one trace of a file as FILE#ID.
    a: String,
    /// The trace that may differ.
    b: String,
    /// Ends with the exit status 1 also when B takes longer than A by more than this, such as 20%.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    slower_than: Option<f64>,
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
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    let number = number.ok().filter(|it| it.is_finite() && *it >= 0.0);
    number.ok_or_else(|| "write a percentage, such as 20%".to_owned())
}

impl Diff {
    /// Prints the differences. The outcome is [`Outcome::Found`] when the structures differ, or B is slower than allowed.
    ///
    /// # Errors
    /// Fails when a file can't be read, no lab answers, or one of the traces isn't there.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let (from_a, a) = self.tree(&self.a).await?;
        let (from_b, b) = self.tree(&self.b).await?;
        let trees = Sides { a: &a, b: &b };
        let comparison = compare(&a, &b);
        let duration = comparison.duration;
        let slower = self
            .slower_than
            .filter(|percent| duration.b as f64 > duration.a as f64 * (1.0 + percent / 100.0));
        match self.format {
            Format::Json => {
                let report = Report::new(&comparison, trees, slower.is_some());
                print_json(&serde_json::to_string_pretty(&report)?)?;
            }
            Format::Text => {
                let mut text = heading("A", from_a, &a) + &heading("B", from_b, &b) + "\n";
                text.push_str(&terminal::diff(&comparison));
                if let Some(percent) = slower {
                    text.push_str(&format!("B takes longer than A by more than {percent} %\n"));
                }
                print(&text)?;
            }
        }
        match comparison.differs() || slower.is_some() {
            true => Ok(Outcome::Found),
            false => Ok(Outcome::Fine),
        }
    }

    /// Finds one of the traces. Returns also the file that it comes from.
    async fn tree<'a>(&self, name: &'a str) -> anyhow::Result<(Option<&'a str>, Tree)> {
        let file = match name.rsplit_once('#') {
            _ if file::is_file(name) => Some((name, None)),
            Some((file, id)) if file::is_file(file) => Some((file, Some(id))),
            _ => None,
        };
        let found = match file {
            Some((file, id)) => Some(file::trace(file, id)?),
            None => {
                file::ensure_id(name)?;
                Lab::at(&self.lab.site).case(Some(name)).await?
            }
        };
        let missing = || client::Error::NoSuchTrace(name.to_owned());
        let (id, case) = found.with_context(missing)?;
        let tree = case.trees.into_iter().find(|tree| tree.trace_id == id);
        Ok((file.map(|(file, _)| file), tree.with_context(missing)?))
    }
}

/// Names a trace and counts what is in it.
fn heading(side: &str, file: Option<&str>, tree: &Tree) -> String {
    let file = file.map_or(String::new(), |file| format!("{}, ", visible(file)));
    format!("{side}  {file}trace {}: {}\n", tree.trace_id, caption(tree))
}

/// How many spans above a difference are named.
const ABOVE: usize = 20;

/// The report as JSON. The page `reference/lab.md` documents it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    a: Trace,
    b: Trace,
    /// Whether the structures differ.
    differs: bool,
    /// Whether B is slower than `--slower-than` allows.
    slower: bool,
    /// How many spans only one of the traces has.
    alone: Sides<usize>,
    changed: usize,
    exact: bool,
    differences: Vec<Difference<'a>>,
    /// The time on the critical path.
    time: Time<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    trace_id: TraceId,
    spans: usize,
    pieces: usize,
    duration_nano: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference<'a> {
    service: &'a str,
    name: &'a str,
    kind: &'static str,
    /// The names of the nearest spans above, the lowest last.
    below: Vec<&'a str>,
    counts: Sides<usize>,
    changes: Vec<Changed<'a>>,
    span_ids: Sides<Vec<SpanId>>,
}

#[derive(Serialize)]
struct Changed<'a> {
    fact: &'static str,
    #[serde(flatten)]
    values: Sides<Option<&'a str>>,
}

impl<'a> Changed<'a> {
    fn new(change: &'a Change) -> Self {
        let (fact, values) = match change {
            Change::Kind(kinds) => ("kind", kinds.map(|kind| Some(kind.as_str()))),
            Change::Status(status) => ("status", status.map(|status| Some(status.as_str()))),
            Change::HttpStatus(status) => ("httpStatus", status.as_ref().map(Option::as_deref)),
            Change::ErrorType(types) => ("errorType", types.as_ref().map(Option::as_deref)),
        };
        Changed { fact, values }
    }
}

#[derive(Serialize)]
struct Time<'a> {
    services: Vec<ServiceTime<'a>>,
    unsure: &'a [Unsure],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceTime<'a> {
    service: &'a str,
    nanoseconds: Sides<u64>,
    difference_nano: i64,
    spans: Vec<SpanTime<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanTime<'a> {
    name: &'a str,
    kind: &'static str,
    answered_by: Option<&'a str>,
    nanoseconds: Sides<u64>,
    difference_nano: i64,
}

impl<'a> Report<'a> {
    fn new(comparison: &'a Comparison, trees: Sides<&Tree>, slower: bool) -> Self {
        let trace = |tree: &Tree, pieces: usize, duration_nano: u64| Trace {
            trace_id: tree.trace_id,
            spans: tree.rows.len(),
            pieces,
            duration_nano,
        };
        let Comparison { rows, pieces, duration, exact, unsure, .. } = comparison;
        let above = |row: &Row| {
            let parent = |row: &usize| rows[*row].parent;
            let mut above: Vec<&str> = std::iter::successors(row.parent, parent)
                .take(ABOVE)
                .map(|row| rows[row].name.as_str())
                .collect();
            above.reverse();
            above
        };
        let ids = |tree: &Tree, spans: &[usize]| {
            spans.iter().map(|row| tree.rows[*row].span.id).collect()
        };
        let differences = rows.iter().filter(|row| row.differs()).map(|row| Difference {
            service: &row.service,
            name: &row.name,
            kind: row.kind.as_str(),
            below: above(row),
            counts: row.counts(),
            changes: row.changes.iter().map(Changed::new).collect(),
            span_ids: Sides { a: ids(trees.a, &row.spans.a), b: ids(trees.b, &row.spans.b) },
        });
        let span = |index: &usize| {
            let Row { name, kind, waited, .. } = &rows[*index];
            SpanTime {
                name,
                kind: kind.as_str(),
                answered_by: comparison.answered_by(*index),
                nanoseconds: *waited,
                difference_nano: waited.difference(),
            }
        };
        let services =
            comparison.services().into_iter().map(|(service, waited, rows)| ServiceTime {
                service,
                nanoseconds: waited,
                difference_nano: waited.difference(),
                spans: rows.iter().map(span).collect(),
            });
        Report {
            a: trace(trees.a, pieces.a, duration.a),
            b: trace(trees.b, pieces.b, duration.b),
            differs: comparison.differs(),
            slower,
            alone: comparison.alone(),
            changed: comparison.changed(),
            exact: *exact,
            differences: differences.collect(),
            time: Time { services: services.collect(), unsure },
        }
    }
}
