//! Lists and filters the traces of the store.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::log::LogRecord;
use crate::span::{Span, any_text};
use crate::store::{Store, Usage};
use crate::summary::Summary;
use crate::tree::{Tree, period};
use crate::wire::now;

/// The traces of the store as a list. Summaries are made when they are read, because those of all traces don't fit in memory.
#[derive(Clone)]
pub struct List {
    pub store: Store,
}

/// A part of the list.
pub struct Page {
    pub summaries: Vec<Arc<Summary>>,
    /// The number of traces that pass the filter, as far as they were counted.
    pub found: usize,
    /// Whether there may be more, because counting took too long.
    pub is_cut: bool,
}

/// The number of spans to look at for the count alone, once a page is full.
const COUNTED: usize = 20_000;

impl List {
    pub fn new(store: Store) -> Self {
        List { store }
    }

    /// Returns the traces that pass the filter. The trace that started last comes first.
    pub fn find(&self, filter: Filter) -> impl Iterator<Item = Summary> + Send + use<> {
        let traces = self.traces(&filter);
        let store = self.store.clone();
        let found = traces.filter(move |spans| filter.passes(spans, &store));
        found.filter_map(|spans| Some(Summary::new(&Tree::new(&spans)?)))
    }

    /// Returns at most `length` traces that pass the filter, after the first `skip`, in the same order.
    pub fn page(&self, filter: &Filter, skip: usize, length: usize) -> Page {
        let summary = |spans: Vec<_>| Some(Arc::new(Summary::new(&Tree::new(&spans)?)));
        if filter.is_empty() {
            // Skips traces without reading them.
            let traces = self.store.by_start(u64::MAX).rev();
            let summaries = traces.skip(skip).take(length).filter_map(summary).collect();
            return Page { summaries, found: self.store.usage().traces, is_cut: false };
        }
        let mut traces = self.traces(filter);
        let mut page = Page { summaries: Vec::new(), found: 0, is_cut: false };
        let mut left = COUNTED;
        while left > 0 {
            let Some(spans) = traces.next() else { return page };
            let is_full = page.summaries.len() == length;
            if is_full {
                left = left.saturating_sub(spans.len());
            }
            if filter.passes(&spans, &self.store) {
                page.found += 1;
                if page.found > skip && !is_full {
                    page.summaries.extend(summary(spans));
                }
            }
        }
        page.is_cut = traces.next().is_some();
        page
    }

    /// Returns the traces that started since the time of a filter, the last first.
    fn traces(&self, filter: &Filter) -> impl Iterator<Item = Vec<Arc<Span>>> + Send + use<> {
        let since = filter.since.unwrap_or_default();
        let latest_first = self.store.by_start(u64::MAX).rev();
        latest_first.take_while(move |spans| since <= period(spans).0)
    }

    pub fn usage(&self) -> Usage {
        self.store.usage()
    }
}

/// The fields of a filter as text: from a form, the URL of the list, or flags. An empty field lets every trace pass.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default)]
pub struct Fields {
    /// Only traces with a span of this service.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub service: String,
    /// Only traces with a span whose name contains this, in any case.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Only traces with an `error`, without one (`ok`), or not in one piece (`pieces`).
    #[arg(long, value_parser = checked(StatusFilter::parse), default_value = "", hide_default_value = true)]
    pub status: String,
    /// Only traces that took at least this long, such as 5ms or 1.5s.
    #[arg(long, value_name = "DURATION", value_parser = checked(duration), default_value = "", hide_default_value = true)]
    pub min: String,
    /// Only traces that took at most this long.
    #[arg(long, value_name = "DURATION", value_parser = checked(duration), default_value = "", hide_default_value = true)]
    pub max: String,
    /// Only traces whose id, or any name, value or message of a span or a log record, contains this, in any case.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub text: String,
    /// Only traces that started since then: a time before now, such as 30s, or a time such as 2026-11-29T16:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = checked(since), default_value = "", hide_default_value = true)]
    pub since: String,
    /// The number of traces that had arrived when the reader set the mark; those after them are new.
    #[arg(skip)]
    pub mark: Option<usize>,
    /// The number of matching traces to skip, because a page shows a limited number.
    #[arg(skip)]
    pub skip: usize,
}

/// Creates a parser for clap that returns the text unchanged when `parse` accepts it.
fn checked<T>(
    parse: fn(&str) -> Result<T, InvalidFilter>,
) -> impl Fn(&str) -> Result<String, InvalidFilter> + Clone {
    move |text| match text {
        "" => Ok(String::new()),
        text => parse(text).map(|_| text.to_owned()),
    }
}

impl Fields {
    /// Returns whether every trace passes the filter.
    pub fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_empty())
    }

    /// Returns the fields with their names in the URL of the list.
    pub fn pairs(&self) -> [(&'static str, &str); 7] {
        [
            ("service", &self.service),
            ("name", &self.name),
            ("status", &self.status),
            ("min", &self.min),
            ("max", &self.max),
            ("text", &self.text),
            ("since", &self.since),
        ]
    }

    /// Returns the fields as the query of a URL.
    pub fn query(&self) -> String {
        // Pairs of strings can always be encoded.
        serde_urlencoded::to_string(self.pairs()).unwrap_or_default()
    }
}

/// The reasons why a field of a filter is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    #[error("status {0:?}: use error, ok or pieces")]
    Status(String),
    #[error("{0:?} is not a duration: write 5ms, 1.5s or 300us")]
    Duration(String),
    #[error(
        "{0:?} is neither a time before now nor a point in time: write 30s or 2026-11-29T16:00:00Z"
    )]
    Since(String),
}

/// A condition on the errors or the pieces of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatusFilter {
    Error,
    Ok,
    Pieces,
}

impl StatusFilter {
    fn parse(text: &str) -> Result<Self, InvalidFilter> {
        match text {
            "error" => Ok(StatusFilter::Error),
            "ok" => Ok(StatusFilter::Ok),
            "pieces" => Ok(StatusFilter::Pieces),
            other => Err(InvalidFilter::Status(other.to_owned())),
        }
    }
}

/// A filter on traces, parsed from [`Fields`].
#[derive(Debug, Clone, Default)]
pub struct Filter {
    service: String,
    /// A part of a span's name, in lower case like `text`.
    name: String,
    status: Option<StatusFilter>,
    min: Option<Duration>,
    max: Option<Duration>,
    text: String,
    /// Nanoseconds since 1970.
    since: Option<u64>,
}

impl TryFrom<&Fields> for Filter {
    type Error = InvalidFilter;

    fn try_from(fields: &Fields) -> Result<Self, InvalidFilter> {
        fn given<T>(
            text: &str,
            parse: fn(&str) -> Result<T, InvalidFilter>,
        ) -> Result<Option<T>, InvalidFilter> {
            match text {
                "" => Ok(None),
                text => parse(text).map(Some),
            }
        }
        Ok(Filter {
            service: fields.service.clone(),
            name: fields.name.to_lowercase(),
            status: given(&fields.status, StatusFilter::parse)?,
            min: given(&fields.min, duration)?,
            max: given(&fields.max, duration)?,
            text: fields.text.trim().to_lowercase(),
            since: given(&fields.since, since)?,
        })
    }
}

impl Filter {
    /// Returns whether every trace passes.
    fn is_empty(&self) -> bool {
        let Filter { service, name, status, min, max, text, since } = self;
        let is_any = status.is_none() && min.is_none() && max.is_none() && since.is_none();
        is_any && service.is_empty() && name.is_empty() && text.is_empty()
    }

    /// Whether a trace passes. Its log records are in `store`.
    fn passes(&self, spans: &[Arc<Span>], store: &Store) -> bool {
        let has_error = || spans.iter().any(|span| span.is_error());
        let is_long = |duration| {
            self.min.is_none_or(|min| min <= duration) && self.max.is_none_or(|max| duration <= max)
        };
        let has_name = |span: &Arc<Span>| span.name().to_lowercase().contains(&self.name);
        (self.service.is_empty() || spans.iter().any(|span| span.service() == self.service))
            && ((self.min.is_none() && self.max.is_none())
                || is_long(Duration::from_nanos(period(spans).1)))
            && (self.name.is_empty() || spans.iter().any(has_name))
            && self.status.is_none_or(|status| match status {
                StatusFilter::Error => has_error(),
                StatusFilter::Ok => !has_error(),
                StatusFilter::Pieces => Tree::new(spans).is_some_and(|tree| !tree.is_whole()),
            })
            && (self.text.is_empty() || self.has_text(spans, store))
    }

    fn has_text(&self, spans: &[Arc<Span>], store: &Store) -> bool {
        // An id may have been copied with the dashes of a UUID.
        let id = self.text.replace('-', "");
        let trace = spans.first().map(|span| span.trace_id);
        (!id.is_empty() && trace.is_some_and(|trace| trace.to_string().contains(&id)))
            || spans.iter().any(|span| contains(span, &self.text))
            || trace.is_some_and(|trace| {
                store.logs(trace).iter().any(|record| record_contains(record, &self.text))
            })
    }
}

/// Returns whether any text of the span contains `text`, which must be in lower case.
fn contains(span: &Span, text: &str) -> bool {
    let has = |it: &str| it.to_lowercase().contains(text);
    let proto = span.proto();
    let events = &proto.events;
    let message = proto.status.as_ref().map_or("", |status| &status.message);
    let of_events = events.iter().flat_map(|event| &event.attributes);
    let of_links = proto.links.iter().flat_map(|link| &link.attributes);
    let of_source = &span.source.resource.attributes;
    let attributes = proto.attributes.iter().chain(of_events).chain(of_links);
    has(span.name())
        || has(&span.id.to_string())
        || has(message)
        || has(&span.source.scope.name)
        || events.iter().any(|event| has(&event.name))
        || attributes
            .chain(of_source)
            .any(|attribute| has(&attribute.key) || has(&any_text(&attribute.value)))
}

/// Does the same for a log record.
fn record_contains(record: &LogRecord, text: &str) -> bool {
    let has = |it: &str| it.to_lowercase().contains(text);
    let proto = record.proto();
    let attributes = proto.attributes.iter().chain(&record.source.resource.attributes);
    has(&any_text(&proto.body)) || has(&proto.event_name) || { attributes }
        .any(|it| has(&it.key) || has(&any_text(&it.value)))
}

/// Parses a time before now, such as `30s`, or a point in time as RFC 3339 has it. Returns nanoseconds since 1970.
///
/// # Errors
/// [`InvalidFilter::Since`].
fn since(text: &str) -> Result<u64, InvalidFilter> {
    let invalid = || InvalidFilter::Since(text.trim().to_owned());
    if let Ok(before) = duration(text) {
        let before = u64::try_from(before.as_nanos()).map_err(|_| invalid())?;
        return Ok(now().saturating_sub(before));
    }
    let moment: jiff::Timestamp = text.trim().parse().map_err(|_| invalid())?;
    Ok(u64::try_from(moment.as_nanosecond()).unwrap_or_default())
}

/// Parses a duration with a unit, as Jaeger's pages and Go write it: `1.5s`, `20ms`, `300us`, `7ns`, `2m`. A number without
/// a unit is in milliseconds.
///
/// # Errors
/// [`InvalidFilter::Duration`].
pub fn duration(text: &str) -> Result<Duration, InvalidFilter> {
    let text = text.trim();
    let number = text.trim_end_matches(|character: char| character.is_alphabetic());
    let seconds = match &text[number.len()..] {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let number: f64 = number.trim().parse().unwrap_or(f64::NAN);
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| InvalidFilter::Duration(text.to_owned()))
}
