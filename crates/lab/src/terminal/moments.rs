//! Formats what happened within spans: a line for each event and each log record.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Effects, Style};

use super::{error_style, styled};
use crate::log::{LogRecord, Severity};
use crate::moments::Moment;
use crate::span::{TraceId, any_text, shortened};
use crate::tree::{self, plain, took, visible};
use crate::waterfall::count;

/// The most lines below one span.
const LINES: usize = 10;

/// The most lines of a trace.
const LINES_OF_TRACE: usize = 200;

/// The longest text of a line before it is cut to the terminal's width, in characters.
const TEXT: usize = 500;

/// Counts the lines of a trace, so that they end in time.
pub struct Lines {
    /// The width that lines are cut to, if any.
    columns: Option<usize>,
    left: usize,
}

impl Lines {
    pub fn new(columns: Option<usize>) -> Self {
        Lines { columns, left: LINES_OF_TRACE }
    }

    /// Adds the moments of a span that starts at `start`, each behind `indent` blanks.
    pub fn add(&mut self, text: &mut String, moments: &[Moment], start: u64, indent: usize) {
        let shown = moments.len().min(LINES).min(self.left);
        self.left -= shown;
        for moment in &moments[..shown] {
            let kind = match moment {
                Moment::Event(_) => "event".to_owned(),
                Moment::Log(record) => severity(record),
            };
            self.line(
                text,
                indent,
                (moment.time(), start),
                &kind,
                style(moment),
                &description(moment),
            );
        }
        if shown < moments.len() {
            let blanks = " ".repeat(indent);
            let more = moments.len() - shown;
            let _ = writeln!(text, "{blanks}… {more} more: lab trace --json has all of them");
        }
    }

    /// Adds the log records that belong to no span here.
    pub fn without_span(
        &mut self,
        text: &mut String,
        records: &[impl AsRef<LogRecord>],
        start: u64,
    ) {
        let shown = records.len().min(LINES_OF_TRACE);
        for record in records[..shown].iter().map(AsRef::as_ref) {
            let moment = Moment::Log(record.clone().into());
            let of = match record.span_id {
                Some(id) => format!("its span {id} never came"),
                None => "of no span".to_owned(),
            };
            let description =
                format!("{}: {} ({of})", plain(record.service()), description(&moment));
            let kind = severity(record);
            self.line(text, 0, (moment.time(), start), &kind, style(&moment), &description);
        }
        if shown < records.len() {
            let _ = writeln!(text, "… {} more", records.len() - shown);
        }
    }

    fn line(
        &self,
        text: &mut String,
        indent: usize,
        (time, start): (u64, u64),
        kind: &str,
        style: Style,
        description: &str,
    ) {
        let offset = match time {
            0 => String::new(),
            _ if time < start => format!("-{}", took(start - time)),
            _ => format!("+{}", took(time - start)),
        };
        let before = format!("{}{offset:>10}  ", " ".repeat(indent));
        let kind = tree::padded(kind, 5);
        let used = tree::columns(&before) + tree::columns(&kind) + 2;
        let description = match self.columns {
            Some(columns) => cut(description, columns.saturating_sub(used).max(20)),
            None => description.to_owned(),
        };
        let dimmed = Style::new().effects(Effects::DIMMED);
        let _ =
            writeln!(text, "{}{}  {description}", styled(dimmed, &before), styled(style, &kind));
    }
}

/// Says of a trace without a span here which log records it has.
pub fn without_spans(
    id: TraceId,
    records: &[impl AsRef<LogRecord>],
    columns: Option<usize>,
) -> String {
    let start = records.iter().map(|it| it.as_ref().time()).find(|time| *time > 0);
    let records_came = count(records.len(), "log record");
    let mut text = format!("Trace {id}: no span has arrived, only {records_came}\n\n");
    Lines::new(columns).without_span(&mut text, records, start.unwrap_or_default());
    text
}

fn severity(record: &LogRecord) -> String {
    match visible(&shortened(&record.severity_text(), 12)) {
        text if text.is_empty() => "log".to_owned(),
        text => text,
    }
}

fn style(moment: &Moment) -> Style {
    match moment.severity() {
        Some(Severity::Error | Severity::Fatal) => error_style(),
        Some(Severity::Warn) => AnsiColor::Yellow.on_default(),
        _ if moment.exception().is_some() => error_style(),
        _ => Style::new(),
    }
}

/// The text of a moment: its exception, the body of a record or the name of an event, and attributes.
fn description(moment: &Moment) -> String {
    let (name, attributes) = match moment {
        Moment::Event(event) => (event.name.clone(), event.attributes.clone()),
        Moment::Log(record) => {
            let proto = record.proto();
            let name = match any_text(&proto.body) {
                body if body.is_empty() => proto.event_name,
                body => body,
            };
            (name, proto.attributes)
        }
    };
    let mut parts = vec![shortened(&name, TEXT)];
    if let Some(exception) = moment.exception() {
        let both = [exception.r#type, exception.message];
        let both: Vec<String> = both.into_iter().filter(|it| !it.is_empty()).collect();
        parts.push(shortened(&both.join(": "), TEXT));
    }
    let others = attributes.iter().filter(|it| !it.key.starts_with("exception."));
    parts.extend(others.take(LINES).map(|attribute| {
        let value = any_text(&attribute.value);
        format!("{}={}", shortened(&attribute.key, 100), shortened(&value, 100))
    }));
    parts.retain(|part| !part.is_empty());
    visible(&parts.join("  "))
}

/// Cuts a text to at most `width` columns.
fn cut(text: &str, width: usize) -> String {
    if tree::columns(text) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut columns = 1;
    for character in text.chars() {
        columns += tree::columns(character.encode_utf8(&mut [0; 4]));
        if columns > width {
            break;
        }
        cut.push(character);
    }
    cut + "…"
}
