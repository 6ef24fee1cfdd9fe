//! The list of traces: a summary of each, filters, and which of them look like one request fallen apart.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::span::{Span, TraceId, any_text, attribute, target};
use crate::store::{Store, Usage};
use crate::tree::{Row, Tree};

/// How many loose ends of a trace are looked at: of more, nobody can say which belongs to which.
const ENDS: usize = 100;

/// The summaries of the store's traces. A summary is made anew only when its trace has changed.
#[derive(Clone)]
pub struct List {
    pub store: Store,
    known: Arc<Mutex<HashMap<TraceId, Arc<Summary>>>>,
}

/// What the list shows of a trace.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub trace_id: String,
    /// Of the first top span.
    pub name: String,
    /// In the order in which they first appear.
    pub services: Vec<String>,
    pub spans: usize,
    pub errors: usize,
    /// The number of spans whose parent is not here: one in a whole trace.
    pub pieces: usize,
    /// Whether the trace is one piece that begins with a root.
    pub whole: bool,
    /// Nanoseconds since 1970.
    pub start_time_unix_nano: u64,
    pub duration_nano: u64,
    #[serde(skip)]
    names: BTreeSet<String>,
    /// Client spans that nobody has answered in this trace.
    #[serde(skip)]
    unanswered: Vec<Call>,
    /// Server spans that nobody has called in this trace.
    #[serde(skip)]
    uncalled: Vec<Call>,
}

impl List {
    pub fn new(store: Store) -> Self {
        List {
            store,
            known: Arc::default(),
        }
    }

    /// Every trace, the last to arrive first.
    pub fn summaries(&self) -> Vec<Arc<Summary>> {
        let sizes = self.store.sizes();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = HashMap::with_capacity(sizes.len());
        let summaries = sizes.into_iter().filter_map(|(id, spans)| {
            let same = known.remove(&id).filter(|known| known.spans == spans);
            let summary = same.or_else(|| {
                let tree = Tree::new(&self.store.trace(id)?)?;
                Some(Arc::new(Summary::new(&tree)))
            })?;
            kept.insert(id, Arc::clone(&summary));
            Some(summary)
        });
        let summaries = summaries.collect();
        *known = kept;
        summaries
    }

    /// The traces that pass the filter, those that started last first.
    pub fn find(&self, filter: &Filter) -> Vec<Arc<Summary>> {
        let mut found = self.summaries();
        found.retain(|summary| filter.passes(summary, &self.store));
        found.sort_by_key(|summary| Reverse(summary.start_time_unix_nano));
        found
    }

    pub fn usage(&self) -> Usage {
        self.store.usage()
    }
}

impl Summary {
    pub fn new(tree: &Tree) -> Self {
        let mut answered = vec![false; tree.rows.len()];
        for row in &tree.rows {
            if let Some(parent) = row.parent {
                answered[parent] |= tree.rows[parent].span.service() != row.span.service();
            }
        }
        let rows = tree.rows.iter().zip(answered);
        let unanswered = rows.filter(|(row, answered)| row.span.kind() == "CLIENT" && !answered);
        let uncalled = tree.tops().filter(|row| row.span.kind() == "SERVER");
        Summary {
            trace_id: tree.trace_id.to_string(),
            name: tree.name().to_owned(),
            services: tree.services().into_iter().map(str::to_owned).collect(),
            spans: tree.rows.len(),
            errors: tree.rows.iter().filter(|row| row.span.is_error()).count(),
            pieces: tree.tops().count(),
            whole: tree.is_whole(),
            start_time_unix_nano: tree.start,
            duration_nano: tree.duration,
            names: tree
                .rows
                .iter()
                .map(|row| row.span.name().to_owned())
                .collect(),
            unanswered: unanswered
                .map(|(row, _)| Call::new(row))
                .take(ENDS)
                .collect(),
            uncalled: uncalled.map(Call::new).take(ENDS).collect(),
        }
    }
}

/// What to show of the list. Fields that are empty let everything pass.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default)]
pub struct Filter {
    /// Only traces with a span of this service.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub service: String,
    /// Only traces with a span whose name contains this, in any case.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Only traces with an `error`, without one (`ok`), or not in one piece (`pieces`).
    #[arg(long, value_parser = is_status, default_value = "", hide_default_value = true)]
    pub status: String,
    /// Only traces that took at least this long, such as 5ms or 1.5s.
    #[arg(long, value_name = "DURATION", value_parser = is_duration, default_value = "", hide_default_value = true)]
    pub min: String,
    /// Only traces that took at most this long.
    #[arg(long, value_name = "DURATION", value_parser = is_duration, default_value = "", hide_default_value = true)]
    pub max: String,
    /// Only traces whose id, or any name, value or message of a span, contains this, in any case.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub text: String,
    /// How many of the traces that pass to leave out first: the page shows so many at once.
    #[arg(skip)]
    pub skip: usize,
}

fn is_status(text: &str) -> Result<String, String> {
    match text {
        "" | "error" | "ok" | "pieces" => Ok(text.to_owned()),
        other => Err(format!("status {other:?}: use error, ok or pieces")),
    }
}

fn is_duration(text: &str) -> Result<String, String> {
    match text {
        "" => Ok(String::new()),
        text => duration(text).map(|_| text.to_owned()),
    }
}

impl Filter {
    /// Whether every field can be understood.
    ///
    /// # Errors
    /// In one sentence, which value is not one.
    pub fn check(&self) -> Result<(), String> {
        is_duration(&self.min)?;
        is_duration(&self.max)?;
        is_status(&self.status).map(drop)
    }

    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        self.pairs().iter().all(|(_, value)| value.is_empty())
    }

    /// The fields as they stand in the address of the list.
    pub fn pairs(&self) -> [(&'static str, &str); 6] {
        [
            ("service", &self.service),
            ("name", &self.name),
            ("status", &self.status),
            ("min", &self.min),
            ("max", &self.max),
            ("text", &self.text),
        ]
    }

    fn passes(&self, summary: &Summary, store: &Store) -> bool {
        let nanoseconds = |text: &str| duration(text).ok().map(|it| it.as_nanos());
        let took = u128::from(summary.duration_nano);
        let name = self.name.to_lowercase();
        let service = self.service.is_empty() || summary.services.contains(&self.service);
        let status = match self.status.as_str() {
            "error" => summary.errors > 0,
            "ok" => summary.errors == 0,
            "pieces" => !summary.whole,
            _ => true,
        };
        service
            && status
            && nanoseconds(&self.min).is_none_or(|min| min <= took)
            && nanoseconds(&self.max).is_none_or(|max| took <= max)
            && summary
                .names
                .iter()
                .any(|it| it.to_lowercase().contains(&name))
            && self.has_text(summary, store)
    }

    fn has_text(&self, summary: &Summary, store: &Store) -> bool {
        let text = self.text.trim().to_lowercase();
        if text.is_empty() || summary.trace_id.contains(&text) {
            return true;
        }
        let spans = TraceId::parse(&summary.trace_id).and_then(|id| store.trace(id));
        spans.is_some_and(|spans| spans.iter().any(|span| contains(span, &text)))
    }
}

/// Whether any text of the span contains `text`, which is in lower case.
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

/// A duration with its unit, as Jaeger's pages and Go write it: `1.5s`, `20ms`, `300us`, `7ns`, `2m`. Without a unit,
/// milliseconds.
///
/// # Errors
/// In one sentence, what is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
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
        .map_err(|_| format!("{text:?} is not a duration: write 5ms, 1.5s or 300us"))
}

/// One end of a call between services.
#[derive(Debug, Clone)]
struct Call {
    service: String,
    name: String,
    start: u64,
    end: u64,
    method: Option<String>,
    path: Option<String>,
    status: Option<String>,
    /// The traces that the span is linked to: they are apart on purpose.
    links: Vec<TraceId>,
}

impl Call {
    fn new(row: &Row) -> Self {
        let (span, proto) = (&row.span, row.span.proto());
        let value = |keys: [&str; 2]| keys.into_iter().find_map(|key| attribute(&proto, key));
        // As a client has it, and as a server has it.
        let url = value(["url.full", "http.url"]);
        let path_of_url = url
            .and_then(|url| url.parse().ok())
            .map(|url: axum::http::Uri| url.path().to_owned());
        let links = proto
            .links
            .iter()
            .filter_map(target)
            .map(|(trace, _)| trace);
        Call {
            service: span.service().to_owned(),
            name: span.name().to_owned(),
            start: span.start(),
            end: span.end(),
            method: value(["http.request.method", "http.method"]),
            path: value(["url.path", "http.target"]).or(path_of_url),
            status: value(["http.response.status_code", "http.status_code"]),
            links: links.collect(),
        }
    }

    /// Whether `server` looks like the other end of this call: of another service, within its time, and with the same
    /// method, path and status, as far as both say.
    fn may_have_reached(&self, server: &Call) -> bool {
        /// A server may end its span when the client has its answer already.
        const LATE: u64 = 5_000_000;
        let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        let method_and_path = self.method.is_some() && self.path.is_some();
        let alike = method_and_path && self.method == server.method && self.path == server.path;
        self.service != server.service
            && (self.start..=self.end).contains(&server.start)
            && server.end <= self.end.saturating_add(LATE)
            && (alike || self.name == server.name)
            && agree(&self.method, &server.method)
            && agree(&self.path, &server.path)
            && agree(&self.status, &server.status)
    }
}

/// Where a request fell apart: a call in one trace, and what looks like its other end in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    pub caller: String,
    pub called: String,
    /// Of the client span.
    pub name: String,
    /// The traces of the caller and of the called, by their place in the list.
    pub traces: (usize, usize),
}

/// The breaks between these traces. A call that could have reached several servers, or a server that several calls
/// could have reached, says nothing: it is left out.
pub fn breaks(summaries: &[Arc<Summary>]) -> Vec<Break> {
    let ends = |pick: fn(&Summary) -> &Vec<Call>| -> Vec<(usize, &Call)> {
        let of = |(index, summary)| pick(summary).iter().map(move |call| (index, call));
        let summaries = summaries.iter().map(Arc::as_ref).enumerate();
        summaries.flat_map(of).collect()
    };
    let (clients, servers) = (ends(|it| &it.unanswered), ends(|it| &it.uncalled));
    let reached = |client: &(usize, &Call), server: &(usize, &Call)| {
        let linked = |links: &[TraceId], other: usize| {
            let other = TraceId::parse(&summaries[other].trace_id);
            links.iter().any(|link| Some(*link) == other)
        };
        client.0 != server.0
            && client.1.may_have_reached(server.1)
            && !linked(&server.1.links, client.0)
            && !linked(&client.1.links, server.0)
    };
    let only = |candidates: &mut dyn Iterator<Item = usize>| match (
        candidates.next(),
        candidates.next(),
    ) {
        (Some(only), None) => Some(only),
        _ => None,
    };
    let found = clients.iter().enumerate().filter_map(|(index, client)| {
        let mut to = (0..servers.len()).filter(|server| reached(client, &servers[*server]));
        let server = &servers[only(&mut to)?];
        let mut from = (0..clients.len()).filter(|client| reached(&clients[*client], server));
        (only(&mut from)? == index).then(|| Break {
            caller: client.1.service.clone(),
            called: server.1.service.clone(),
            name: client.1.name.clone(),
            traces: (client.0, server.0),
        })
    });
    found.collect()
}

/// The traces by their place in the list, those of one broken request together: where its newest would stand, and in
/// order of time.
pub fn grouped(summaries: &[Arc<Summary>], breaks: &[Break]) -> Vec<Vec<usize>> {
    let mut group: Vec<usize> = (0..summaries.len()).collect();
    for Break { traces: (a, b), .. } in breaks {
        let (from, to) = (group[*a].max(group[*b]), group[*a].min(group[*b]));
        group
            .iter_mut()
            .filter(|it| **it == from)
            .for_each(|it| *it = to);
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); summaries.len()];
    for (index, group) in group.into_iter().enumerate() {
        groups[group].push(index);
    }
    groups.retain(|group| !group.is_empty());
    for group in &mut groups {
        group.sort_by_key(|index| summaries[*index].start_time_unix_nano);
    }
    groups
}
