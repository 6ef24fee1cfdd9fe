//! Formats traces for a terminal: the list of traces, the waterfall of one, and the differences between two.

mod diff;
mod moments;
mod span;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Effects, Style};

use crate::analysis::critical_path;
use crate::case::Case;
use crate::moments::Moments;
use crate::report;
use crate::span::{Span, TraceId};
use crate::summary::Summary;
use crate::tree::{self, Row, Tree, plain, took, visible};
use crate::waterfall::{caption, count, look};
use crate::wire::HopState;
use traces::code::Location;
use traces::model_call::usage;

use moments::Lines;

pub use diff::{diff, linked_diff};
pub use span::span;

/// The smallest and the largest width of a bar, in columns.
const BAR_WIDTH: (usize, usize) = (12, 60);

/// The width of the output that goes to no terminal, in columns.
const COLUMNS: usize = 100;

/// The largest width of a place in the code, in columns.
const PLACE_WIDTH: usize = 36;

/// Formats the list, one trace per line: first digits of the id, start, name, services, spans, duration, remarks.
pub fn list(traces: &[Summary]) -> String {
    /// The largest width of a name and of the services, in columns.
    const COLUMN_LIMIT: usize = 40;
    let rows: Vec<[String; 4]> = traces
        .iter()
        .map(|trace| {
            let services: Vec<String> = trace.services.iter().map(|it| plain(it)).collect();
            [
                plain(&trace.name),
                services.join(", "),
                count(trace.spans, "span"),
                took(trace.duration_nano),
            ]
        })
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| tree::columns(&row[column]));
        widths.max().unwrap_or_default().min(COLUMN_LIMIT)
    };
    let [names, services, spans, durations] = [0, 1, 2, 3].map(width);
    let dimmed = Style::new().effects(Effects::DIMMED);
    let mut text = String::new();
    for (trace, row) in traces.iter().zip(&rows) {
        let mut remarks = Vec::new();
        let failed = trace.http_status.as_deref().filter(|it| it.starts_with(['4', '5']));
        remarks.extend(failed.map(|status| styled(error_style(), &visible(status))));
        if trace.errors > 0 {
            remarks.push(styled(error_style(), &count(trace.errors, "error")));
        }
        if !trace.whole {
            let broken = AnsiColor::Yellow.on_default();
            remarks.push(styled(broken, "not in one piece"));
        }
        let start = jiff::Timestamp::from_nanosecond(trace.start_time_unix_nano.into());
        let line = format!(
            "{}  {}  {}  {}  {:>spans$}  {:>durations$}  {}",
            styled(dimmed, &trace.trace_id.to_string()[..8]),
            start.map_or_else(|_| String::new(), |start| format!("{start:.0}")),
            fit(&row[0], names),
            fit(&row[1], services),
            row[2],
            row[3],
            remarks.join(", "),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Formats the hops, one per line.
pub fn hops(hops: &[HopState]) -> String {
    let broken = AnsiColor::Yellow.on_default();
    let way = |it: &HopState| format!("{} -> {}", it.address, it.target);
    let names = hops.iter().map(|it| it.hop.len()).max().unwrap_or_default();
    let ways = hops.iter().map(|it| way(it).len()).max().unwrap_or_default();
    let lines = hops.iter().map(|it| {
        let fault = it.fault.as_ref().map_or("no fault".to_owned(), |fault| styled(broken, fault));
        format!("{:names$}  {:ways$}  {fault}\n", it.hop, way(it))
    });
    lines.collect()
}

/// Formats one trace as a tree with bars (`█` is the critical path, `░` the rest of a span) and the headers on the wire.
/// Events and log records stand below their span. `columns` is the terminal's width; without one, bars have the width of a listing in
/// the book, and the lines of events and log records aren't cut. Returns `None` when the case has neither a span nor a log record of
/// the trace.
pub fn trace(case: &Case, id: TraceId, columns: Option<usize>) -> Option<String> {
    let Some(tree) = case.trees.iter().find(|tree| tree.trace_id == id) else {
        let records: Vec<_> = case.logs.iter().filter(|it| it.trace_id == id).collect();
        let text = moments::without_spans(id, &records, columns);
        return (!records.is_empty()).then_some(text);
    };
    let moments = Moments::new(tree, &case.logs);
    let mut lines = Lines::new(columns);
    let columns = columns.unwrap_or(COLUMNS);

    let labels: Vec<String> =
        tree.rows.iter().map(|row| branch(row) + &plain(row.span.name())).collect();
    let widest = |widths: &mut dyn Iterator<Item = usize>, limit: usize| {
        widths.max().unwrap_or_default().min(limit)
    };
    let label_width = widest(&mut labels.iter().map(|it| tree::columns(it)), columns / 2);
    let services: Vec<String> = tree.rows.iter().map(|row| plain(row.span.service())).collect();
    let service_width = widest(&mut services.iter().map(|it| tree::columns(it)), 30);
    let places: Vec<String> = tree.rows.iter().map(|row| place(&row.span)).collect();
    let place_width = widest(&mut places.iter().map(|it| tree::columns(it)), PLACE_WIDTH);
    // The width of name, service and duration, each followed by two blanks, and of the place in the code.
    let used_width = label_width + service_width + 12 + 6 + place_width;
    let bar_width = columns.saturating_sub(used_width + 20).clamp(BAR_WIDTH.0, BAR_WIDTH.1);

    let path = critical_path(tree);
    let mut critical = vec![Vec::new(); tree.rows.len()];
    for segment in &path {
        critical[segment.row].push((segment.start, segment.end));
    }
    let dimmed = Style::new().effects(Effects::DIMMED);
    let mut text = format!("Trace {}: {}\n\n", tree.trace_id, caption(tree));
    for (index, row) in tree.rows.iter().enumerate() {
        let span = &row.span;
        let cells = |times: &[(u64, u64)]| cells(tree, times, bar_width);
        let (in_span, on_path) = (cells(&[(span.start(), span.end())]), cells(&critical[index]));
        let bar: String = in_span
            .into_iter()
            .zip(on_path)
            .map(|(in_span, on_path)| {
                if on_path {
                    '█'
                } else if in_span {
                    '░'
                } else {
                    ' '
                }
            })
            .collect();
        let notes = report::notes(&row.notes());
        let bar = if notes.is_empty() && places[index].is_empty() { bar.trim_end() } else { &bar };
        let place = fit_end(&places[index], place_width);
        let place = if notes.is_empty() { place.trim_end() } else { &place };
        let style = if span.is_error() { error_style() } else { Style::new() };
        let line = format!(
            "{}  {}  {:>12}  {}{}{}  {}",
            styled(style, &fit(&labels[index], label_width)),
            styled(service_style(span.service()), &fit(&services[index], service_width)),
            took(span.duration()),
            styled(service_style(span.service()), bar),
            if place_width > 0 { "  " } else { "" },
            styled(dimmed, place),
            styled(style, &visible(&notes)),
        );
        let _ = writeln!(text, "{}", line.trim_end());
        let indent = tree::columns(&branch(row)) + 2;
        lines.add(&mut text, &moments.rows[index], span.start(), indent);
    }
    if !moments.without_span.is_empty() {
        text.push_str("\nLog records without a span here:\n");
        lines.without_span(&mut text, &moments.without_span, tree.start);
    }
    text.push_str("\n█ critical path: what the request waited for   ░ the rest of a span\n");
    if let Some(usage) = report::usage(&usage(tree)) {
        let _ = writeln!(text, "\n{}", visible(&usage).replace('`', ""));
    }
    if !case.wire.is_empty() {
        let _ = write!(text, "\nOn the wire:\n{}", report::wire_text(case));
    }
    Some(text)
}

/// Returns the place in the code that a span comes from, as `FILE:LINE`; empty where it came without one.
fn place(span: &Span) -> String {
    let location = Location::read(&span.proto().attributes);
    location.map_or_else(String::new, |it| visible(&it.to_string()))
}

/// Draws the branch that leads to the row. Deep rows get their depth as a number instead.
fn branch(row: &Row) -> String {
    match row.depth {
        0..=12 => row.branch(),
        depth => format!("{}{depth}: ", " ".repeat(36)),
    }
}

/// Returns for each of the `width` cells whether one of the periods (start and end in nanoseconds) touches it.
fn cells(tree: &Tree, times: &[(u64, u64)], width: usize) -> Vec<bool> {
    let mut cells = vec![false; width];
    let cell = |time: u64| {
        let offset = u128::from(time.saturating_sub(tree.start)) * width as u128;
        usize::try_from(offset / u128::from(tree.duration.max(1))).unwrap_or(width)
    };
    for (start, end) in times {
        let first = cell(*start).min(width - 1);
        let last = cell(end.saturating_sub(1)).clamp(first, width - 1);
        cells[first..=last].fill(true);
    }
    cells
}

/// Cuts or pads a text to exactly `width` columns.
fn fit(text: &str, width: usize) -> String {
    let mut text = text.to_owned();
    if tree::columns(&text) > width {
        while tree::columns(&text) >= width && text.pop().is_some() {}
        text.push('…');
    }
    tree::padded(&text, width)
}

/// Does the same but keeps the end of a text that is too long.
fn fit_end(text: &str, width: usize) -> String {
    let mut rest = text.chars();
    if tree::columns(text) <= width {
        return tree::padded(text, width);
    }
    while tree::columns(rest.as_str()) >= width && rest.next().is_some() {}
    tree::padded(&format!("…{}", rest.as_str()), width)
}

fn styled(style: Style, text: &str) -> String {
    match text.is_empty() || style.is_plain() {
        true => text.to_owned(),
        false => format!("{style}{text}{style:#}"),
    }
}

fn error_style() -> Style {
    AnsiColor::Red.on_default().effects(Effects::BOLD)
}

/// Returns the style of a service, which is the same in every trace.
fn service_style(service: &str) -> Style {
    let colours = [
        AnsiColor::White,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Yellow,
        AnsiColor::Cyan,
        AnsiColor::Blue,
    ];
    colours[look(service) % colours.len()].on_default()
}
