//! Formats the differences between two traces: both trees in one, where the time went, and log records.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::styled;
use crate::compare::{Change, Comparison, Records, Row, Sides, Unsure};
use crate::tree::{self, plain, took, visible};
use crate::waterfall::count;

/// The most rows that are shown in full. In larger trees, spans that are the same in both are counted.
const ROWS_IN_FULL: usize = 40;

/// The most services, and the most spans of each, in the list of times.
const SERVICES: usize = 5;
const SPANS: usize = 3;

/// The most lines of log records.
const RECORDS: usize = 20;

/// Deeper rows get their depth as a number instead of branches.
const MAX_DEPTH: usize = 12;

/// Formats the differences, for people.
pub fn diff(comparison: &Comparison, records: &[Records]) -> String {
    let mut text = String::new();
    let same_time = comparison.rows.iter().all(|row| row.waited.a == row.waited.b);
    if !comparison.differs() {
        let spans = count(comparison.sizes.a, "span");
        if same_time && records.is_empty() {
            let duration = took(comparison.duration.a);
            return format!("No difference: {spans}, {duration} on the critical path\n");
        }
        let _ = writeln!(text, "Structure: no difference in {spans}");
    } else {
        text.push_str(&tree(comparison));
        let _ = writeln!(text, "\nStructure: {}", counts(comparison));
    }
    if !comparison.exact {
        text.push_str(
            "Too many siblings differ to try all pairs: fewer differences may be possible\n",
        );
    }
    text.push_str(&times(comparison));
    text.push_str(&of_records(comparison, records));
    text
}

/// Lists the log records that one of the traces has more often. Nothing without any.
fn of_records(comparison: &Comparison, records: &[Records]) -> String {
    if records.is_empty() {
        return String::new();
    }
    let only =
        |more: fn(Sides<usize>) -> usize| records.iter().map(|it| more(it.counts)).sum::<usize>();
    let alone =
        Sides { a: only(|it| it.a.saturating_sub(it.b)), b: only(|it| it.b.saturating_sub(it.a)) };
    let mut text = format!("Logs: {}\n", only_in(alone, "record").join(", "));
    for Records { row, service, severity, body, exception, counts } in
        &records[..records.len().min(RECORDS)]
    {
        let mark = if counts.a > counts.b { '-' } else { '+' };
        let service = plain(service);
        let place = match row {
            Some(row) => format!("{} of {service}", plain(&comparison.rows[*row].name)),
            None => format!("{service}, without a span"),
        };
        let mut line = format!("{mark} {severity:5}  {place}  {}", visible(body));
        for note in exception.iter().map(|it| visible(it)).chain(times_seen(*counts)) {
            let _ = write!(line, "  {note}");
        }
        let _ = writeln!(text, "{}", styled(style(mark), line.trim_end()));
    }
    if let more @ 1.. = records.len().saturating_sub(RECORDS) {
        let _ = writeln!(text, "… {more} more: lab diff --json has all of them");
    }
    text
}

/// Counts what only one of the traces has.
fn only_in(alone: Sides<usize>, what: &str) -> Vec<String> {
    let sides = [(alone.a, "A"), (alone.b, "B")].into_iter().filter(|(number, _)| *number > 0);
    sides.map(|(number, side)| format!("{} only in {side}", count(number, what))).collect()
}

/// Says how many there are at one place, unless one of the traces has a single one.
fn times_seen(counts: Sides<usize>) -> Option<String> {
    match (counts.a, counts.b) {
        (0 | 1, 0 | 1) => None,
        (0, count) | (count, 0) => Some(format!("x{count}")),
        (a, b) if a == b => Some(format!("x{a}")),
        (a, b) => Some(format!("x{a} -> x{b}")),
    }
}

/// Formats the differences between the parts of other traces that are linked to the two, for people. Nothing without any.
pub fn linked_diff(comparison: &Comparison) -> String {
    let Sides { a, b } = comparison.pieces;
    if a + b == 0 {
        return String::new();
    }
    let both =
        format!("Linked from other traces: {} in A, {} in B", count(a, "span"), count(b, "span"));
    match comparison.differs() {
        false => format!("\n{both}, no difference in them and below them\n"),
        true => format!("\n{both}\n\n{}\nStructure: {}\n", tree(comparison), counts(comparison)),
    }
}

/// Counts the spans that differ.
fn counts(comparison: &Comparison) -> String {
    let changed = comparison.changed();
    let mut counts = only_in(comparison.alone(), "span");
    if changed > 0 {
        counts.push(format!("{} changed", count(changed, "span")));
    }
    counts.join(", ")
}

/// One line of the tree.
struct Line {
    mark: char,
    label: String,
    kind: &'static str,
    service: String,
    notes: String,
}

/// Both trees in one, behind `-` for spans that only A has, `+` for those that only B has, and `~` for those that changed.
fn tree(comparison: &Comparison) -> String {
    let lines = lines(&comparison.rows);
    let width = |text: fn(&Line) -> &str| {
        lines.iter().map(|line| tree::columns(text(line))).max().unwrap_or_default()
    };
    let (labels, services) = (width(|line| &line.label), width(|line| &line.service));
    let mut text = String::new();
    for Line { mark, label, kind, service, notes } in &lines {
        let line = format!(
            "{mark} {}  {kind:8}  {}  {notes}",
            tree::padded(label, labels),
            tree::padded(service, services)
        );
        let _ = writeln!(text, "{}", styled(style(*mark), line.trim_end()));
    }
    text
}

fn style(mark: char) -> Style {
    match mark {
        '-' => AnsiColor::Red.on_default(),
        '+' => AnsiColor::Green.on_default(),
        '~' => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

fn lines(rows: &[Row]) -> Vec<Line> {
    // Whether a row or one below it differs.
    let mut differs: Vec<bool> = rows.iter().map(Row::differs).collect();
    for index in (0..rows.len()).rev() {
        if let Some(parent) = rows[index].parent.filter(|_| differs[index]) {
            differs[parent] = true;
        }
    }
    let in_full = rows.len() <= ROWS_IN_FULL;
    let mut lines = Vec::with_capacity(rows.len().min(1000));
    // Rows that are to come: the first and the last of several that are counted together, and the branches above.
    let mut pending: Vec<(usize, usize, Vec<bool>)> = Vec::new();
    let children = |from: usize, to: usize| {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let mut child = from;
        let mut counted = false;
        while child < to {
            let next = child + rows[child].below + 1;
            let together = !in_full && !differs[child];
            match runs.last_mut().filter(|_| together && counted) {
                Some((_, end)) => *end = next,
                None => runs.push((child, next)),
            }
            counted = together;
            child = next;
        }
        runs
    };
    let push =
        |pending: &mut Vec<(usize, usize, Vec<bool>)>, from, to, above: &[bool], top: bool| {
            let runs = children(from, to);
            // The last of A is the last of its tree, although some that only B has may follow.
            let is_new = |(start, _): &(usize, usize)| rows[*start].spans.a.is_empty();
            let last_of_a = runs.iter().rposition(|run| !is_new(run));
            let is_gone = |start: usize| rows[start].spans.b.is_empty();
            let count = runs.len();
            for (position, (start, end)) in runs.into_iter().enumerate().rev() {
                let mut last = above.to_vec();
                if !top && last.len() <= MAX_DEPTH {
                    let ends_a = Some(position) == last_of_a && is_gone(start);
                    last.push(position + 1 == count || ends_a);
                }
                pending.push((start, end, last));
            }
        };
    push(&mut pending, 0, rows.len(), &[], true);
    while let Some((index, end, last)) = pending.pop() {
        let row = &rows[index];
        let counted = !in_full && !differs[index] && end - index > 1;
        if counted {
            let spans = rows[index..end].iter().map(|row| row.spans.a.len()).sum();
            lines.push(Line {
                mark: ' ',
                label: format!("{}({} the same)", branch(row.depth, &last), count(spans, "span")),
                kind: "",
                service: String::new(),
                notes: String::new(),
            });
            continue;
        }
        lines.push(line(row, &last));
        push(&mut pending, index + 1, index + 1 + row.below, &last, false);
    }
    lines
}

fn line(row: &Row, last: &[bool]) -> Line {
    let Sides { a, b } = row.counts();
    let mark = match a.cmp(&b) {
        std::cmp::Ordering::Greater => '-',
        std::cmp::Ordering::Less => '+',
        std::cmp::Ordering::Equal if row.changes.is_empty() => ' ',
        std::cmp::Ordering::Equal => '~',
    };
    let mut notes: Vec<String> = times_seen(row.counts()).into_iter().collect();
    notes.extend(row.changes.iter().map(change));
    Line {
        mark,
        label: branch(row.depth, last) + &plain(&row.name),
        kind: row.kind.as_str(),
        service: plain(&row.service),
        notes: visible(&notes.join(", ")),
    }
}

fn branch(depth: usize, last: &[bool]) -> String {
    if depth > MAX_DEPTH {
        return format!("{}{depth}: ", "   ".repeat(MAX_DEPTH));
    }
    let Some((own, above)) = last.split_last() else { return String::new() };
    let lines: String = above.iter().map(|last| if *last { "   " } else { "│  " }).collect();
    lines + if *own { "└─ " } else { "├─ " }
}

/// Describes how a span changed.
fn change(change: &Change) -> String {
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    match change {
        Change::Kind(Sides { a, b }) => format!("kind {a} -> {b}"),
        Change::Status(Sides { a, b }) => format!("status {a} -> {b}"),
        Change::HttpStatus(Sides { a, b }) => format!("http {} -> {}", or_none(a), or_none(b)),
        Change::ErrorType(Sides { a, b }) => format!("error {} -> {}", or_none(a), or_none(b)),
    }
}

/// Says where the time went.
fn times(comparison: &Comparison) -> String {
    let Sides { a, b } = comparison.duration;
    // Below a hundredth, nobody asks.
    let least = (a.max(b) / 100).max(1);
    let is_large = |waited: Sides<u64>| waited.a.abs_diff(waited.b) >= least;
    let total = comparison.duration.difference();
    let pieces = comparison.pieces.a.max(comparison.pieces.b);
    let of = if pieces > 1 { " in the longest piece of each" } else { "" };
    let mut text = format!("Time: {} -> {}{of}, {}", took(a), took(b), signed(total));

    let services = comparison.services();
    let large = services.iter().filter(|(_, waited, _)| is_large(*waited)).take(SERVICES);
    let mut elsewhere = total;
    let mut lines = String::new();
    for (service, waited, rows) in large {
        elsewhere -= waited.difference();
        let _ = writeln!(
            lines,
            "  {:>12}  {}  {} -> {}",
            signed(waited.difference()),
            plain(service),
            took(waited.a),
            took(waited.b)
        );
        let rows = rows.iter().filter(|row| is_large(comparison.rows[**row].waited));
        for index in rows.take(SPANS) {
            let Row { name, kind, waited, .. } = &comparison.rows[*index];
            let answered = comparison.answered_by(*index);
            let on_the_way = answered.map_or(String::new(), |service| {
                format!(", apart from what {} does", plain(service))
            });
            let _ = writeln!(
                lines,
                "  {:>12}    {:>12}  {} {kind}{on_the_way}",
                "",
                signed(waited.difference()),
                plain(name)
            );
        }
    }
    match lines.is_empty() {
        true => text.push_str(", nowhere a difference of 1 % or more\n"),
        false => {
            text.push_str(", on the critical path:\n");
            text.push_str(&lines);
            if elsewhere != 0 {
                let _ = writeln!(text, "  {:>12}  elsewhere", signed(elsewhere));
            }
        }
    }
    for Unsure { services: [one, other], nanoseconds } in &comparison.unsure {
        if *nanoseconds >= least {
            let _ = writeln!(
                text,
                "Unsure: the clocks of {} and {} differ by at least {}, so the times between the two may be off by as much",
                plain(one),
                plain(other),
                took(*nanoseconds)
            );
        }
    }
    text
}

/// A difference of times, with its sign.
fn signed(nanoseconds: i64) -> String {
    let sign = match nanoseconds {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", took(nanoseconds.unsigned_abs()))
}
