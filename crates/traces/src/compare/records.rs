//! Compares the log records of two traces: which of them are at the same place of only one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::name::pattern;
use super::{Comparison, Sides};
use crate::log::{LogRecord, Severity};
use crate::moments::{Exception, Moment, Moments};
use crate::span::shortened;
use crate::tree::Tree;

/// The largest number of characters of a body that are compared.
const BODY: usize = 500;

/// Equal log records that one of the traces has more often than the other, at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// The row of the comparison with their spans; `None` for records without a span.
    pub row: Option<usize>,
    pub service: String,
    pub severity: Severity,
    /// The beginning of their body, or else the name of their event, with `*` for values.
    pub body: String,
    /// The type of the exception that they describe.
    pub exception: Option<String>,
    pub counts: Sides<usize>,
}

/// The facts that equal records share: the most severe come first, and then the rows in their order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    severity: Reverse<Severity>,
    row: usize,
    service: String,
    body: String,
    exception: Option<String>,
}

/// The row of records without a span, behind all others.
const NO_ROW: usize = usize::MAX;

impl Key {
    fn new(record: &LogRecord, row: usize) -> Self {
        let body = match record.body() {
            body if body.is_empty() => record.event_name(),
            body => body,
        };
        Key {
            severity: Reverse(record.severity()),
            row,
            service: record.service().to_owned(),
            body: pattern(&shortened(&body, BODY)),
            exception: Exception::of_log(record).map(|exception| exception.r#type),
        }
    }
}

/// Compares the log records of two traces by place, service, severity, body and type of exception. Their order doesn't count.
pub fn records(
    comparison: &Comparison,
    trees: Sides<&Tree>,
    logs: Sides<&[Arc<LogRecord>]>,
) -> Vec<Records> {
    let mut counts: BTreeMap<Key, Sides<usize>> = BTreeMap::new();
    let places = |pick: fn(&Sides<Vec<usize>>) -> &Vec<usize>| {
        let rows = comparison.rows.iter().enumerate();
        rows.flat_map(|(index, row)| pick(&row.spans).iter().map(move |row| (*row, index)))
            .collect::<HashMap<usize, usize>>()
    };
    let mut add = |key: Key, count: fn(&mut Sides<usize>) -> &mut usize| {
        *count(counts.entry(key).or_default()) += 1;
    };
    each(trees.a, logs.a, &places(|spans| &spans.a), |key| add(key, |counts| &mut counts.a));
    each(trees.b, logs.b, &places(|spans| &spans.b), |key| add(key, |counts| &mut counts.b));
    let differing = counts.into_iter().filter(|(_, counts)| counts.a != counts.b);
    differing
        .map(|(Key { severity, row, service, body, exception }, counts)| Records {
            row: Some(row).filter(|row| *row != NO_ROW),
            service,
            severity: severity.0,
            body,
            exception,
            counts,
        })
        .collect()
}

/// Passes on the key of each record of a trace. `places` has the row of the comparison for each row of the tree.
fn each(
    tree: &Tree,
    logs: &[Arc<LogRecord>],
    places: &HashMap<usize, usize>,
    mut add: impl FnMut(Key),
) {
    let moments = Moments::new(tree, logs);
    for (row, moments) in moments.rows.iter().enumerate() {
        let place = places.get(&row).copied().unwrap_or(NO_ROW);
        for moment in moments {
            if let Moment::Log(record) = moment {
                add(Key::new(record, place));
            }
        }
    }
    for record in &moments.without_span {
        add(Key::new(record, NO_ROW));
    }
}
