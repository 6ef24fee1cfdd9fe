//! Summaries of traces for lists, and traces that look like one request fallen apart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::conventions;
use crate::span::{Span, SpanId, SpanKind, TraceId, shortened, target};
use crate::tree::Tree;

/// How many loose ends of a trace are looked at: of more, nobody can say which belongs to which.
const ENDS: usize = 100;

/// The most characters of a status code. Real ones have three.
const STATUS_LIMIT: usize = 20;

/// The facts about a trace that a list shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub trace_id: TraceId,
    /// The name of the first top span.
    pub name: String,
    /// The status code over HTTP of that span. Lists of older labs don't have it.
    #[serde(default)]
    pub http_status: Option<String>,
    /// In the order in which they first appear.
    pub services: Vec<String>,
    pub spans: usize,
    pub errors: usize,
    /// The number of spans whose parent is not here: one in a whole trace.
    pub pieces: usize,
    /// Whether the trace is one piece that begins with a root.
    pub whole: bool,
    /// Nanoseconds since 1970. As text in JSON, like in OTLP, because many readers of JSON round integers past 2^53.
    #[serde(with = "crate::nanoseconds")]
    pub start_time_unix_nano: u64,
    pub duration_nano: u64,
    /// Client spans that nobody has answered in this trace.
    #[serde(skip)]
    unanswered: Box<[Call]>,
    /// Server spans that nobody has called in this trace.
    #[serde(skip)]
    uncalled: Box<[Call]>,
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
        let unanswered =
            rows.filter(|(row, answered)| row.span.kind() == SpanKind::Client && !answered);
        let status = tree.tops().next().and_then(|row| conventions::status(&row.span.proto()));
        let uncalled = tree.tops().filter(|row| row.span.kind() == SpanKind::Server);
        Summary {
            trace_id: tree.trace_id,
            name: tree.name().to_owned(),
            http_status: status.map(|it| shortened(&it, STATUS_LIMIT)),
            services: tree.services().into_iter().map(str::to_owned).collect(),
            spans: tree.rows.len(),
            errors: tree.rows.iter().filter(|row| row.span.is_error()).count(),
            pieces: tree.tops().count(),
            whole: tree.is_whole(),
            start_time_unix_nano: tree.start,
            duration_nano: tree.duration,
            unanswered: unanswered
                .map(|(row, _)| Call::new(&row.span))
                .filter(|call| !call.is_database_or_queue)
                .take(ENDS)
                .collect(),
            uncalled: uncalled.map(|row| Call::new(&row.span)).take(ENDS).collect(),
        }
    }
}

/// One end of a call between services.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    span: SpanId,
    service: String,
    name: String,
    start: u64,
    end: u64,
    method: Option<String>,
    path: Option<String>,
    status: Option<String>,
    rpc: Option<String>,
    /// A call of a database or a broker isn't answered by a service.
    pub is_database_or_queue: bool,
    /// The traces that the span is linked to: they are apart on purpose.
    links: Vec<TraceId>,
}

impl Call {
    pub fn new(span: &Span) -> Self {
        let proto = span.proto();
        let links = proto.links.iter().filter_map(target).map(|(trace, _)| trace);
        Call {
            span: span.id,
            service: span.service().to_owned(),
            name: span.name().to_owned(),
            start: span.start(),
            end: span.end(),
            method: conventions::method(&proto),
            path: conventions::path(&proto),
            status: conventions::status(&proto),
            rpc: conventions::rpc(&proto),
            is_database_or_queue: conventions::is_database_or_queue(&proto),
            links: links.collect(),
        }
    }

    /// Whether `server` looks like the other end of this call: of another service, within its time, and with the same
    /// method, path and status, as far as both say.
    fn may_have_reached(&self, server: &Call) -> bool {
        /// A server may end its span when the client has its answer already.
        const LATE: u64 = 5_000_000;
        self.service != server.service
            && (self.start..=self.end).contains(&server.start)
            && server.end <= self.end.saturating_add(LATE)
            && self.is_like(server)
    }

    /// Whether both say that they are ends of the same call: by their names, or by the method and path of the request or
    /// the remote procedure; and whether nothing that both say differs.
    pub fn is_like(&self, server: &Call) -> bool {
        let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        let method_and_path = self.method.is_some() && self.path.is_some();
        let alike = method_and_path && self.method == server.method && self.path == server.path;
        let same_rpc = self.rpc.is_some() && self.rpc == server.rpc;
        (alike || same_rpc || self.name == server.name)
            && agree(&self.method, &server.method)
            && agree(&self.path, &server.path)
            && agree(&self.rpc, &server.rpc)
            && agree(&self.status, &server.status)
    }
}

/// A request that fell apart: a call in one trace, and what looks like its other end in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    pub caller: String,
    pub called: String,
    /// The name of the client span.
    pub name: String,
    /// The traces of the caller and of the called, by their place in the list.
    pub traces: (usize, usize),
    /// The client span and the server span.
    pub spans: (SpanId, SpanId),
}

/// The breaks between these traces. A call that could have reached several servers, or a server that several calls
/// could have reached, says nothing: it is left out.
pub fn breaks(summaries: &[Arc<Summary>]) -> Vec<Break> {
    let ends = |pick: fn(&Summary) -> &[Call]| -> Vec<(usize, &Call)> {
        let of = |(index, summary)| pick(summary).iter().map(move |call| (index, call));
        let summaries = summaries.iter().map(Arc::as_ref).enumerate();
        summaries.flat_map(of).collect()
    };
    let (clients, servers) = (ends(|it| &it.unanswered), ends(|it| &it.uncalled));
    let reached = |client: &(usize, &Call), server: &(usize, &Call)| {
        let linked = |links: &[TraceId], other: usize| links.contains(&summaries[other].trace_id);
        client.0 != server.0
            && client.1.may_have_reached(server.1)
            && !linked(&server.1.links, client.0)
            && !linked(&client.1.links, server.0)
    };
    // Only what began within the time of a call can be its other end.
    let mut by_start: Vec<usize> = (0..servers.len()).collect();
    by_start.sort_by_key(|server| servers[*server].1.start);
    let began_before =
        |time: u64| by_start.partition_point(|server| servers[*server].1.start < time);
    let mut callers = vec![0; servers.len()];
    let mut called = Vec::with_capacity(clients.len());
    for client in &clients {
        let (from, to) =
            (began_before(client.1.start), began_before(client.1.end.saturating_add(1)));
        let within = by_start.get(from..to).unwrap_or_default().iter().copied();
        let reached: Vec<usize> =
            within.filter(|server| reached(client, &servers[*server])).collect();
        for server in &reached {
            callers[*server] += 1;
        }
        called.push(match reached[..] {
            [only] => Some(only),
            _ => None,
        });
    }
    let found = clients.iter().zip(called).filter_map(|(client, server)| {
        let index = server.filter(|server| callers[*server] == 1)?;
        let server = &servers[index];
        Some(Break {
            caller: client.1.service.clone(),
            called: server.1.service.clone(),
            name: client.1.name.clone(),
            traces: (client.0, server.0),
            spans: (client.1.span, server.1.span),
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
        group.iter_mut().filter(|it| **it == from).for_each(|it| *it = to);
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
