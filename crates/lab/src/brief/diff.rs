//! The differences between two traces.

use serde::Serialize;

use super::{NAME, Pages, TEXT, UNTRUSTED, cut, keep};
use crate::compare::{self, Change, Comparison, Row, Sides};
use crate::span::{SpanId, TraceId};
use crate::tree::Tree;

/// The largest number of spans above a difference that are named.
const ABOVE: usize = 5;

/// The document of `lab diff --brief`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    untrusted: &'static str,
    a: Trace,
    b: Trace,
    differs: bool,
    /// Whether B is slower than `--slower-than` allows.
    slower: bool,
    /// How many spans only one of the traces has.
    alone: Sides<usize>,
    changed: usize,
    exact: bool,
    left_out: LeftOut,
    differences: Vec<Difference>,
    /// The differences of the spans that are linked to the two.
    linked_differences: Vec<Difference>,
    /// The log records that only one of the traces has, or has more often, the most severe first.
    records: Vec<Records>,
    /// The time of each service on the critical path, the largest difference first.
    services: Vec<Service>,
    /// The clocks of some services differ, so it is unsure how the time is divided between them.
    clocks_differ: bool,
}

/// How much the lists of the document leave out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeftOut {
    differences: usize,
    linked_differences: usize,
    records: usize,
    services: usize,
}

/// One of the two traces. `lab diff --json` has it too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    page: Option<String>,
    trace_id: TraceId,
    spans: usize,
    pieces: usize,
    duration_nano: u64,
}

impl Trace {
    /// Describes both traces of a comparison.
    pub fn both(comparison: &Comparison, trees: Sides<&Tree>, pages: Sides<Pages>) -> [Self; 2] {
        let Comparison { pieces, duration, .. } = comparison;
        let trace = |tree: &Tree, pages: Pages, pieces: usize, duration_nano: u64| Trace {
            page: pages.trace(tree.trace_id),
            trace_id: tree.trace_id,
            spans: tree.rows.len(),
            pieces,
            duration_nano,
        };
        [
            trace(trees.a, pages.a, pieces.a, duration.a),
            trace(trees.b, pages.b, pieces.b, duration.b),
        ]
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    service: String,
    name: String,
    kind: &'static str,
    /// The names of the nearest spans above, the lowest last.
    below: Vec<String>,
    counts: Sides<usize>,
    changes: Vec<Changed>,
    /// The first span on each side.
    span_ids: Sides<Option<SpanId>>,
}

#[derive(Debug, Serialize)]
struct Changed {
    fact: &'static str,
    #[serde(flatten)]
    values: Sides<Option<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    service: String,
    nanoseconds: Sides<u64>,
    difference_nano: i64,
}

/// Equal log records that one of the traces has more often. `lab diff --json` has them too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Records {
    service: String,
    /// The name of their span, or `None` if they have none.
    span: Option<String>,
    /// The names of the nearest spans above, the lowest last.
    below: Vec<String>,
    severity: &'static str,
    body: String,
    exception_type: Option<String>,
    counts: Sides<usize>,
}

impl Records {
    /// Describes the records of a comparison.
    pub fn of(comparison: &Comparison, records: &[compare::Records]) -> impl Iterator<Item = Self> {
        records.iter().map(move |records| {
            let compare::Records { row, service, severity, body, exception, counts } = records;
            let row = row.map(|row| &comparison.rows[row]);
            let above = row.map(|row| above(comparison, row, ABOVE)).unwrap_or_default();
            Records {
                service: cut(service, NAME),
                span: row.map(|row| cut(&row.name, NAME)),
                below: above.into_iter().map(|it| cut(it, NAME)).collect(),
                severity: severity.as_str(),
                body: cut(body, TEXT),
                exception_type: exception.as_deref().map(|it| cut(it, NAME)),
                counts: *counts,
            }
        })
    }
}

/// Returns the name of a changed fact in JSON, and its values.
pub fn fact(change: &Change) -> (&'static str, Sides<Option<&str>>) {
    match change {
        Change::Kind(kinds) => ("kind", kinds.map(|kind| Some(kind.as_str()))),
        Change::Status(status) => ("status", status.map(|status| Some(status.as_str()))),
        Change::HttpStatus(status) => ("httpStatus", status.as_ref().map(Option::as_deref)),
        Change::ErrorType(types) => ("errorType", types.as_ref().map(Option::as_deref)),
    }
}

/// Returns the names of the spans above a row, at most `most` and the lowest last.
pub fn above<'a>(comparison: &'a Comparison, row: &Row, most: usize) -> Vec<&'a str> {
    let rows = &comparison.rows;
    let parents = std::iter::successors(row.parent, |row| rows[*row].parent);
    let mut above: Vec<&str> = parents.take(most).map(|row| rows[row].name.as_str()).collect();
    above.reverse();
    above
}

fn differences(comparison: &Comparison, trees: Sides<&Tree>) -> Vec<Difference> {
    let changed = |change: &Change| {
        let (fact, values) = fact(change);
        Changed { fact, values: values.map(|value| value.map(|value| cut(value, TEXT))) }
    };
    let id = |tree: &Tree, spans: &[usize]| spans.first().map(|row| tree.rows[*row].span.id);
    let differing = comparison.rows.iter().filter(|row| row.differs());
    differing
        .map(|row| Difference {
            service: cut(&row.service, NAME),
            name: cut(&row.name, NAME),
            kind: row.kind.as_str(),
            below: above(comparison, row, ABOVE).into_iter().map(|it| cut(it, NAME)).collect(),
            counts: row.counts(),
            changes: row.changes.iter().map(changed).collect(),
            span_ids: Sides { a: id(trees.a, &row.spans.a), b: id(trees.b, &row.spans.b) },
        })
        .collect()
}

impl Diff {
    /// Describes two comparisons: of the traces, and of the spans that are linked to them.
    pub fn new(
        (comparison, trees): (&Comparison, Sides<&Tree>),
        (linked, linked_trees): (&Comparison, Sides<&Tree>),
        records: &[compare::Records],
        slower: bool,
        pages: Sides<Pages>,
    ) -> Self {
        let Comparison { exact, unsure, .. } = comparison;
        let [a, b] = Trace::both(comparison, trees, pages);
        let (own, more_differences) = keep(differences(comparison, trees), 50, 80_000);
        let (of_linked, more_linked) = keep(differences(linked, linked_trees), 20, 40_000);
        let (records, more_records) = keep(Records::of(comparison, records), 30, 25_000);
        let services = comparison.services().into_iter().map(|(service, nanoseconds, _)| Service {
            service: cut(service, NAME),
            nanoseconds,
            difference_nano: nanoseconds.difference(),
        });
        let (services, more_services) = keep(services, 30, 40_000);
        Diff {
            untrusted: UNTRUSTED,
            a,
            b,
            differs: comparison.differs() || linked.differs(),
            slower,
            alone: comparison.alone(),
            changed: comparison.changed(),
            exact: *exact,
            left_out: LeftOut {
                differences: more_differences,
                linked_differences: more_linked,
                records: more_records,
                services: more_services,
            },
            differences: own,
            linked_differences: of_linked,
            records,
            services,
            clocks_differ: !unsure.is_empty(),
        }
    }
}
