//! Events and log records: in order of time in the detail of a span, and log records also in a section of the trace's page.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maud::{Markup, html};

use crate::diagnose::Place;
use crate::log::{LogRecord, Severity};
use crate::proto::trace::Span as Proto;
use crate::proto::trace::span::Event;
use crate::span::{Span, SpanId, shortened};
use crate::tree::{LONGEST, Tree, label, took, visible};
use crate::viewer::moment;
use crate::viewer::span::{Page, missing, pairs, value};
use crate::waterfall::count;

/// The most log records that a list shows.
const LIMIT: usize = 200;

/// The name of an event that is an exception, and the attributes that describe one.
const EXCEPTION: &str = "exception";
const EXCEPTION_TYPE: &str = "exception.type";
const EXCEPTION_MESSAGE: &str = "exception.message";

/// Returns the log records of one span, in order of time.
pub fn of_span(records: &[Arc<LogRecord>], (trace, span): Place) -> Vec<&LogRecord> {
    let is_its = |record: &&LogRecord| record.trace_id == trace && record.span_id == Some(span);
    records.iter().map(Arc::as_ref).filter(is_its).collect()
}

/// Keeps the most severe records of a long list, in the order in which they were.
fn limited<'a>(records: impl Iterator<Item = &'a LogRecord>) -> Vec<&'a LogRecord> {
    let mut numbered: Vec<(usize, &LogRecord)> = records.enumerate().collect();
    numbered.sort_by_key(|(index, record)| (Reverse(record.severity()), *index));
    numbered.truncate(LIMIT);
    numbered.sort_by_key(|(index, _)| *index);
    numbered.into_iter().map(|(_, record)| record).collect()
}

/// Says that a list is limited.
fn not_shown(all: usize) -> Markup {
    html! {
        @if all > LIMIT {
            p.facts { "The " (LIMIT) " most severe of " (count(all, "log record")) " are shown. The trace as OTLP JSON has all of them." }
        }
    }
}

/// Renders the exception that a span's service sent as a log record. Empty if the span has an exception among its events.
pub fn exception(proto: &Proto, records: &[&LogRecord]) -> Markup {
    let is_event = proto.events.iter().any(|event| event.name == EXCEPTION);
    let found = records.iter().filter(|_| !is_event).find_map(|record| exception_of(record));
    html! { @if let Some(text) = found { div.error { "Exception, in a log record: " (value(&text)) } } }
}

/// The type and the message of a record's exception.
fn exception_of(record: &LogRecord) -> Option<String> {
    let parts =
        [EXCEPTION_TYPE, EXCEPTION_MESSAGE].into_iter().filter_map(|key| record.attribute(key));
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

enum Moment<'a> {
    Event(&'a Event),
    Record(&'a LogRecord),
}

impl Moment<'_> {
    fn time(&self) -> u64 {
        match self {
            Moment::Event(event) => event.time_unix_nano,
            Moment::Record(record) => record.time(),
        }
    }
}

/// Renders the events and the log records of a span in order of time.
pub fn of_one(proto: &Proto, span: &Span, records: &[&LogRecord]) -> Markup {
    let shown = limited(records.iter().copied());
    let events = proto.events.iter().map(Moment::Event);
    let mut moments: Vec<Moment> = events.chain(shown.into_iter().map(Moment::Record)).collect();
    if !records.is_empty() {
        moments.sort_by_key(Moment::time);
    }
    let title = match (proto.events.is_empty() && proto.dropped_events_count == 0, records) {
        (true, []) => return html! {},
        (true, _) => "Log records",
        (false, []) => "Events",
        (false, _) => "Events and log records",
    };
    html! {
        h3 { (title) }
        @for moment in &moments {
            @match moment {
                Moment::Event(event) => {
                    p.event { b dir="auto" { (shortened(&event.name, LONGEST)) } " " (since_start(event.time_unix_nano, span)) }
                    (pairs(&event.attributes))
                    (missing(event.dropped_attributes_count, "attribute"))
                },
                Moment::Record(record) => (whole(record, span)),
            }
        }
        (missing(proto.dropped_events_count, "event"))
        (not_shown(records.len()))
    }
}

/// Renders everything that arrived of a log record.
fn whole(record: &LogRecord, span: &Span) -> Markup {
    let (proto, body) = (record.proto(), record.body());
    html! {
        div.event.log {
            (severity(record)) " "
            @if !proto.event_name.is_empty() { b dir="auto" { (shortened(&proto.event_name, LONGEST)) } " " }
            @if !body.is_empty() { (value(&body)) " " }
            small { (since_start(record.time(), span)) }
        }
        (pairs(&proto.attributes))
        (missing(proto.dropped_attributes_count, "attribute"))
    }
}

/// Renders the severity as a word, which has a colour where it is a warning or worse.
fn severity(record: &LogRecord) -> Markup {
    let class = match record.severity() {
        Severity::Error | Severity::Fatal => "error",
        Severity::Warn => "broken",
        _ => "severity",
    };
    let (word, own) = (record.severity().as_str(), record.severity_text());
    html! {
        b class=(class) { (if word.is_empty() { "LOG" } else { word }) }
        @if !own.is_empty() && !own.eq_ignore_ascii_case(word) { " " small { bdi { (shortened(&own, 20)) } } }
    }
}

/// Says how long after the start of a span something happened.
fn since_start(time: u64, span: &Span) -> String {
    let from_start = took(time.abs_diff(span.start()));
    match time {
        0 => "without a time".to_owned(),
        _ if span.start() == 0 => String::new(),
        time if time < span.start() => format!("{from_start} before the start"),
        _ => format!("{from_start} after the start"),
    }
}

/// Renders the log records of a trace, or of the part of it that a page shows.
pub fn of_trace(records: &[Arc<LogRecord>], whole: &Tree, shown: &Tree, page: Page) -> Markup {
    // Only the records of the spans that are shown.
    let part = (shown.rows.len() < whole.rows.len())
        .then(|| shown.rows.iter().map(|row| row.span.id).collect::<HashSet<SpanId>>());
    let is_shown = |record: &&LogRecord| {
        let is_part = |part: &HashSet<SpanId>| record.span_id.is_some_and(|id| part.contains(&id));
        record.trace_id == whole.trace_id && part.as_ref().is_none_or(is_part)
    };
    let records: Vec<&LogRecord> = records.iter().map(Arc::as_ref).filter(is_shown).collect();
    let names = whole.rows.iter().map(|row| (row.span.id, row.span.name())).collect();
    let around = Listed { names, start: whole.start, page: Some(page) };
    // A file may have several traces.
    let id = match page {
        Page::Lab(_) => "logs".to_owned(),
        Page::File(_) => format!("logs-{}", whole.trace_id),
    };
    html! {
        @if !records.is_empty() {
            section.logs aria-labelledby=(id) {
                h2 id=(id) { (count(records.len(), "log record")) }
                (not_shown(records.len()))
                ol { @for record in limited(records.iter().copied()) { (line(record, &around)) } }
            }
        }
    }
}

/// Renders the log records of a trace without a span.
pub fn alone(records: &[&LogRecord]) -> Markup {
    let around = Listed { names: HashMap::new(), start: 0, page: None };
    html! {
        section.logs {
            (not_shown(records.len()))
            ol { @for record in limited(records.iter().copied()) { (line(record, &around)) } }
        }
    }
}

/// The surroundings of a list of log records.
struct Listed<'a> {
    /// The names of the spans of the trace.
    names: HashMap<SpanId, &'a str>,
    /// The start of the trace in nanoseconds since 1970, or 0 if no span of it arrived.
    start: u64,
    /// `None` if no span arrived.
    page: Option<Page<'a>>,
}

fn line(record: &LogRecord, around: &Listed) -> Markup {
    let body = record.body();
    let text = match body.is_empty() {
        true => exception_of(record).unwrap_or_else(|| record.event_name()),
        false => body,
    };
    let into = record.time().checked_sub(around.start).filter(|_| around.start > 0);
    html! {
        li {
            span.when { @match into { Some(into) => (took(into)), None => (moment(record.time())) } }
            " " (severity(record)) " "
            @if !text.is_empty() { span dir="auto" { (visible(&label(&text))) } " " }
            small { bdi { (label(record.service())) } ": " (span_of(record, around)) }
        }
    }
}

/// Renders a link to the span of a record, or says that there is none.
fn span_of(record: &LogRecord, around: &Listed) -> Markup {
    let Some(id) = record.span_id else { return html! { "no span" } };
    html! {
        @match (around.names.get(&id), around.page) {
            (Some(name), Some(page)) => @match page.span((record.trace_id, id)) {
                Some(address) => a href=(address) { (label(name)) },
                None => bdi { (label(name)) },
            },
            (_, None) => { "span " code { (id) } },
            _ => span.broken { "its span " code { (id) } " never came" },
        }
    }
}
