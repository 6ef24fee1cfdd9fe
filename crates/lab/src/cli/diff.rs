//! The command `diff`: the two traces that it compares, the forms of its report, and its exit status.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{LabAddress, Outcome, file};
use crate::brief::{self, Compared, Pages, UNTRUSTED, above, fact};
use crate::case::Case;
use crate::client::{self, Lab};
use crate::compare::{Change, Comparison, Records, Row, Sides, Unsure, compare, linked, records};
use crate::log::LogRecord;
use crate::output::{print, print_json};
use crate::span::SpanId;
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
    /// Prints the same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Prints JSON of at most 200,000 bytes, for coding agents: what is left out is counted.
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
        let both = Sides { a: self.side(&self.a).await?, b: self.side(&self.b).await? };
        let trees = both.as_ref().map(|side| &side.tree);
        let linked = both.as_ref().map(|side| &side.linked);
        let comparison = compare(trees.a, trees.b);
        let of_linked = compare(linked.a, linked.b);
        let records = records(&comparison, trees, both.as_ref().map(|side| &side.logs[..]));
        let duration = comparison.duration;
        let slower = self
            .slower_than
            .filter(|percent| duration.b as f64 > duration.a as f64 * (1.0 + percent / 100.0));
        let pages = both.as_ref().map(|side| side.pages);
        let format = if self.json { Format::Json } else { self.format };
        match format {
            _ if self.brief => {
                let of_linked = (&of_linked, linked);
                let brief = brief::Diff::new(
                    (&comparison, trees),
                    of_linked,
                    &records,
                    slower.is_some(),
                    pages,
                );
                print_json(&serde_json::to_string(&brief)?)?;
            }
            Format::Json => {
                let linked = Linked::new(&of_linked, linked);
                let of_trace = (&comparison, trees);
                let report = Report::new(of_trace, linked, &records, slower.is_some(), pages);
                print_json(&serde_json::to_string_pretty(&report)?)?;
            }
            Format::Text => {
                let mut text = heading("A", &both.a) + &heading("B", &both.b) + "\n";
                text.push_str(&terminal::diff(&comparison, &records));
                if let Some(percent) = slower {
                    text.push_str(&format!(
                        "{}, more than the {percent} % that --slower-than allows\n",
                        how_slow(duration)
                    ));
                }
                text.push_str(&terminal::linked_diff(&of_linked));
                print(&text)?;
            }
        }
        match comparison.differs() || of_linked.differs() || slower.is_some() {
            true => Ok(Outcome::Found),
            false => Ok(Outcome::Fine),
        }
    }

    /// Finds one of the traces.
    async fn side<'a>(&'a self, name: &'a str) -> anyhow::Result<Side<'a>> {
        let file = match name.rsplit_once('#') {
            _ if file::is_file(name) => Some((name, None)),
            Some((file, id)) if file::is_file(file) => Some((file, Some(id))),
            _ => None,
        };
        let missing = || client::Error::NoSuchTrace(name.to_owned());
        let (id, trees, logs) = match file {
            Some((file, id)) => {
                let (id, case) = file::trace(file, id)?;
                (id, case.trees, case.logs)
            }
            None => {
                file::ensure_id(name)?;
                let lab = Lab::at(&self.lab.site);
                let (id, mut case) = lab.case(Some(name)).await?.with_context(missing)?;
                let logs = std::mem::take(&mut case.logs);
                let linked = lab.document(id, "linked.json").await?;
                // The lab may have headers of a trace without any span.
                let linked = linked.map(|json| Case::read(&json)).transpose().unwrap_or_default();
                (id, linked.unwrap_or(case).trees, logs)
            }
        };
        let (tree, others): (Vec<Tree>, Vec<Tree>) =
            trees.into_iter().partition(|tree| tree.trace_id == id);
        let tree = tree.into_iter().next().with_context(missing)?;
        let linked = linked(&tree, &others);
        let pages = file.map_or(Pages::of(&self.lab.site), |_| Pages::NONE);
        Ok(Side { file: file.map(|(file, _)| file), pages, tree, linked, logs })
    }
}

/// One of the traces that are compared.
struct Side<'a> {
    /// The file that it comes from.
    file: Option<&'a str>,
    pages: Pages<'a>,
    tree: Tree,
    /// The parts of other traces that are linked to it.
    linked: Tree,
    /// The log records of the file, or of the trace.
    logs: Vec<Arc<LogRecord>>,
}

/// Names a trace and counts what is in it.
fn heading(name: &str, side: &Side<'_>) -> String {
    let Side { file, tree, .. } = side;
    let file = file.map_or(String::new(), |file| format!("{}, ", visible(file)));
    format!("{name}  {file}trace {}: {}\n", tree.trace_id, caption(tree))
}

/// How much longer B takes than A.
fn how_slow(duration: Sides<u64>) -> String {
    let more = duration.difference() as f64 / duration.a as f64 * 100.0;
    match duration.a {
        0 => "B takes time and A none".to_owned(),
        _ => format!("B takes {more:.1} % longer than A"),
    }
}

/// How many spans above a difference are named.
const ABOVE: usize = 20;

/// The report as JSON. The page `reference/lab.md` documents it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    untrusted: &'static str,
    a: Compared,
    b: Compared,
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
    /// The spans of other traces that are linked to the two.
    linked: Linked<'a>,
    records: Vec<brief::Records>,
}

#[derive(Serialize)]
struct Linked<'a> {
    /// How many are linked.
    counts: Sides<usize>,
    /// How many of these, and of the spans below them, only one side has.
    alone: Sides<usize>,
    changed: usize,
    differences: Vec<Difference<'a>>,
}

impl<'a> Linked<'a> {
    fn new(comparison: &'a Comparison, trees: Sides<&Tree>) -> Self {
        Linked {
            counts: comparison.pieces,
            alone: comparison.alone(),
            changed: comparison.changed(),
            differences: differences(comparison, trees),
        }
    }
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
        let (fact, values) = fact(change);
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

fn differences<'a>(comparison: &'a Comparison, trees: Sides<&Tree>) -> Vec<Difference<'a>> {
    let ids =
        |tree: &Tree, spans: &[usize]| spans.iter().map(|row| tree.rows[*row].span.id).collect();
    let differing = comparison.rows.iter().filter(|row| row.differs());
    differing
        .map(|row| Difference {
            service: &row.service,
            name: &row.name,
            kind: row.kind.as_str(),
            below: above(comparison, row, ABOVE),
            counts: row.counts(),
            changes: row.changes.iter().map(Changed::new).collect(),
            span_ids: Sides { a: ids(trees.a, &row.spans.a), b: ids(trees.b, &row.spans.b) },
        })
        .collect()
}

impl<'a> Report<'a> {
    fn new(
        (comparison, trees): (&'a Comparison, Sides<&Tree>),
        linked: Linked<'a>,
        records: &[Records],
        slower: bool,
        pages: Sides<Pages>,
    ) -> Self {
        let Comparison { rows, exact, unsure, .. } = comparison;
        let [a, b] = Compared::both(comparison, trees, pages);
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
            untrusted: UNTRUSTED,
            a,
            b,
            differs: comparison.differs() || !linked.differences.is_empty(),
            slower,
            alone: comparison.alone(),
            changed: comparison.changed(),
            exact: *exact,
            differences: differences(comparison, trees),
            linked,
            records: brief::Records::of(comparison, records).collect(),
            time: Time { services: services.collect(), unsure },
        }
    }
}
