//! Why a trace is broken, or says less than it could: rules that each know one thing that goes wrong.
//!
//! A rule speaks only where the spans, or the headers on the wire, show it. What could as well be right is left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Proto;

use crate::exchange::{Exchange, values};
use crate::span::{Span, SpanId, SpanKind, TraceId, any_text, attribute, shortened};
use crate::summary::{Summary, breaks};
use crate::traceparent::Traceparent;
use crate::tree::{Row, Tree, label, plain, took};

/// What can be found, the causes before what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    NothingArrived,
    BrokenHeader,
    Unsampled,
    FallenApart,
    SeveralRoots,
    MissingSpans,
    Orphan,
    WrongParent,
    WrongKind,
    StatusNotSet,
    ClockSkew,
    MixedVersions,
    HighCardinality,
    Secret,
}

impl Rule {
    pub const ALL: [Rule; 14] = [
        Rule::NothingArrived,
        Rule::BrokenHeader,
        Rule::Unsampled,
        Rule::FallenApart,
        Rule::SeveralRoots,
        Rule::MissingSpans,
        Rule::Orphan,
        Rule::WrongParent,
        Rule::WrongKind,
        Rule::StatusNotSet,
        Rule::ClockSkew,
        Rule::MixedVersions,
        Rule::HighCardinality,
        Rule::Secret,
    ];

    /// Its name in addresses and files: also the fragment of its section in the how-to guide.
    pub fn name(self) -> &'static str {
        match self {
            Rule::NothingArrived => "nothing-arrived",
            Rule::BrokenHeader => "broken-header",
            Rule::Unsampled => "unsampled",
            Rule::FallenApart => "fallen-apart",
            Rule::SeveralRoots => "several-roots",
            Rule::MissingSpans => "missing-spans",
            Rule::Orphan => "orphan",
            Rule::WrongParent => "wrong-parent",
            Rule::WrongKind => "wrong-kind",
            Rule::StatusNotSet => "status-not-set",
            Rule::ClockSkew => "clock-skew",
            Rule::MixedVersions => "mixed-versions",
            Rule::HighCardinality => "high-cardinality",
            Rule::Secret => "secret",
        }
    }

    /// What it finds, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Rule::NothingArrived => "Nothing arrived",
            Rule::BrokenHeader => "A broken header",
            Rule::Unsampled => "Not sampled",
            Rule::FallenApart => "One request, several traces",
            Rule::SeveralRoots => "Several roots",
            Rule::MissingSpans => "Spans are missing",
            Rule::Orphan => "An orphan",
            Rule::WrongParent => "The wrong parent",
            Rule::WrongKind => "The wrong span kind",
            Rule::StatusNotSet => "A failure without an error status",
            Rule::ClockSkew => "Clocks differ",
            Rule::MixedVersions => "Two versions of one library",
            Rule::HighCardinality => "A name that never repeats",
            Rule::Secret => "A secret in a span",
        }
    }

    /// What to do about it, in order.
    pub fn cure(self) -> &'static [&'static str] {
        match self {
            Rule::NothingArrived => &[
                "Wait for the next export: five seconds, unless OTEL_BSP_SCHEDULE_DELAY says otherwise.",
                "Stop the service so that it flushes: it must call `shutdown` on its provider at Ctrl-C and SIGTERM. Then read its log, which must let `opentelemetry` through: the SDK says there what it could not send.",
                "Compare the exporter's address with those that the lab prints: gRPC and HTTP have ports of their own, and over HTTP the path is /v1/traces, which OTEL_EXPORTER_OTLP_ENDPOINT gets by itself, and `with_endpoint` does not.",
                "Look for what switches spans off: a sampler in the code, OTEL_TRACES_SAMPLER, RUST_LOG where spans come from `tracing`, a `traceparent` whose flags end in an even digit; in other SDKs also OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER.",
                "See that the program sets a tracer provider, and keeps it until it ends.",
                "Send the span of the guide by hand: when it arrives, look in the service, and otherwise at the address and the network.",
            ],
            Rule::BrokenHeader => &[
                "Let a proxy pass `traceparent` on as it came, and a service send one that its propagator has written: once, and never by hand.",
            ],
            Rule::Unsampled => &[
                "Find where the flags first end in an even digit: between two services, repair what changes them; in the service that begins the trace, change its sampler, in its code or by OTEL_TRACES_SAMPLER.",
            ],
            Rule::FallenApart => &[
                "In the caller, inject the current context into the headers of this call; in the called service, extract it and make it the parent before the span starts; and set a propagator in both.",
            ],
            Rule::SeveralRoots => &[
                "Start the later spans below the context that was extracted: pass the whole context on, not the trace id alone.",
            ],
            Rule::MissingSpans => &[
                "See that every service exports to the same place, and calls `shutdown` on its provider before it ends; then look in its log for spans that were dropped.",
            ],
            Rule::Orphan => &[
                "Where the caller is yours, let it export its spans here, and sample them; where it is a stranger, nothing is wrong.",
            ],
            Rule::WrongParent => &[
                "Inject from the context of the CLIENT span, while it is current; and hold no context guard across an await: wrap the future with `with_context`.",
            ],
            Rule::WrongKind => &[
                "Set the kind where the span is started, with `with_kind`, or as the field `otel.kind` of `tracing`: SERVER for a request that is answered, CLIENT for one that is sent.",
            ],
            Rule::StatusNotSet => &[
                "Set the status to error, with `set_status`, or as the field `otel.status_code` of `tracing`: on a SERVER span for 500 and above, on a CLIENT span for 400 and above.",
            ],
            Rule::ClockSkew => &[
                "Synchronise the clocks of the hosts (NTP), and do not read times across services until then: durations are right, positions are not.",
            ],
            Rule::MixedVersions => &[
                "Bring all crates that use it to one version: `cargo tree -d` shows the copies and who asked for them.",
            ],
            Rule::HighCardinality => &[
                "Name the span after the route or the operation, such as `GET /users/{id}`, and keep the value in an attribute.",
            ],
            Rule::Secret => &[
                "Do not record it, with `skip` or `skip_all` of `#[instrument]` where that did, or redact it before export; and change the secret: it has been stored.",
            ],
        }
    }
}

/// A span among those of several traces.
pub type Place = (TraceId, SpanId);

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    /// What happened, in one sentence.
    pub cause: String,
    /// The spans concerned.
    pub spans: Vec<Place>,
    /// The traces concerned: also one of which no span has arrived.
    pub traces: BTreeSet<TraceId>,
}

impl Finding {
    fn new(rule: Rule, cause: String, spans: Vec<Place>) -> Self {
        Finding {
            rule,
            cause,
            traces: spans.iter().map(|(trace, _)| *trace).collect(),
            spans,
        }
    }
}

/// Everything that the rules find in these traces, and in what a proxy has seen of their requests.
pub fn diagnose(trees: &[Tree], wire: &[Exchange]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut unsampled = BTreeSet::new();
    for exchange in wire {
        let finding = on_the_wire(exchange, trees);
        // Who obeys the flag passes it on: the first hop is told.
        findings.extend(finding.filter(|finding| {
            finding.rule != Rule::Unsampled || finding.traces.iter().all(|it| unsampled.insert(*it))
        }));
    }
    findings.extend(fallen_apart(trees));
    let mut versions = Versions::default();
    let mut spans = Grouped::default();
    let mut sources = HashSet::new();
    for tree in trees {
        findings.extend(structure(tree));
        for row in &tree.rows {
            let proto = row.span.proto();
            // What spans share is looked at once.
            let new = sources.insert(Arc::as_ptr(&row.span.source));
            for (rule, attribute, cause) in of_span(tree, row, &proto, new) {
                let subject = format!("{} {attribute}", row.span.service());
                spans.add(rule, subject, cause, place(&row.span));
            }
            if new {
                versions.add(&row.span);
            }
        }
    }
    findings.extend(spans.findings());
    findings.extend(versions.findings());
    if trees.is_empty() && findings.is_empty() {
        let cause = match wire.is_empty() {
            true => "No span has arrived.".to_owned(),
            false => "Requests went over the wire, and no span of them has arrived.".to_owned(),
        };
        findings.push(Finding::new(Rule::NothingArrived, cause, Vec::new()));
    }
    // A header explains what follows from it.
    let explained = findings.iter().filter(|it| it.rule == Rule::BrokenHeader);
    let explained: BTreeSet<Place> = explained.flat_map(|it| it.spans.clone()).collect();
    findings.retain(|finding| {
        let follows = matches!(finding.rule, Rule::FallenApart | Rule::Orphan);
        !follows || !finding.spans.iter().all(|span| explained.contains(span))
    });
    findings.sort_by_key(|finding| finding.rule);
    told(findings)
}

/// The most findings of one rule: a trace of ten thousand orphans is told in a few sentences.
const MOST: usize = 10;

/// The first of each rule; the spans of the others are added to the last that is told.
fn told(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    let mut more = 0;
    for finding in findings {
        let same = told.iter().rev().take_while(|it| it.rule == finding.rule);
        if same.count() < MOST {
            more = 0;
            told.push(finding);
        } else if let Some(last) = told.last_mut() {
            let so_far = format!(" {more} more like this.");
            more += 1;
            let cause = last.cause.strip_suffix(&so_far).unwrap_or(&last.cause);
            last.cause = format!("{cause} {more} more like this.");
            last.spans.extend(finding.spans);
            last.traces.extend(finding.traces);
        }
    }
    told
}

/// What is wrong with a `traceparent` that stands alone: `Ok` where nothing is.
///
/// # Errors
/// The finding.
pub fn of_header(value: &str) -> Result<Traceparent, Finding> {
    let cause = match Traceparent::parse(value.trim()) {
        Ok(read) if read.sampled => return Ok(read),
        Ok(_) => {
            let cause = "Byte 54: the flags end in an even digit, so the caller has recorded nothing and asks for the same.";
            return Err(Finding::new(Rule::Unsampled, cause.to_owned(), Vec::new()));
        }
        Err(broken) => {
            format!("By the standard, whoever gets this begins a trace of its own: {broken}.")
        }
    };
    Err(Finding::new(Rule::BrokenHeader, cause, Vec::new()))
}

/// What is wrong with so many `traceparent` headers of one request.
pub fn of_headers(count: usize) -> Finding {
    let cause = format!(
        "There are {count} `traceparent` headers where one is allowed, and which one counts depends on the propagator."
    );
    Finding::new(Rule::BrokenHeader, cause, Vec::new())
}

fn place(span: &Span) -> Place {
    (span.trace_id, span.id)
}

/// A span in a sentence.
fn words(span: &Span) -> String {
    // Code stands between backticks.
    let name = plain(span.name()).replace('`', "'");
    format!("`{name}` ({}, {})", span.kind(), plain(span.service()))
}

// The headers.

fn on_the_wire(exchange: &Exchange, trees: &[Tree]) -> Option<Finding> {
    let Exchange { hop, to, .. } = exchange;
    let delivered = exchange.delivered.as_deref()?;
    let arrived = values(delivered, "traceparent");
    let from = exchange.sent_by();
    let (rule, cause) = match (&arrived[..], from) {
        ([], None) => return None,
        ([], Some(_)) => (
            Rule::BrokenHeader,
            format!(
                "On {hop}, the `traceparent` that was sent did not arrive: something between drops it."
            ),
        ),
        ([value], _) => match Traceparent::parse(value) {
            Err(broken) => (
                Rule::BrokenHeader,
                format!("On {hop}, {to} got a `traceparent` that is not valid: {broken}."),
            ),
            Ok(read)
                if from.is_some_and(|from| {
                    (from.trace_id, from.parent_id) != (read.trace_id, read.parent_id)
                }) =>
            {
                let part = match from.is_some_and(|from| from.trace_id == read.trace_id) {
                    true => "its parent id (from byte 36)",
                    false => "its trace id (from byte 3)",
                };
                (
                    Rule::BrokenHeader,
                    format!(
                        "On {hop}, another `traceparent` arrived than was sent: {part} is not the same."
                    ),
                )
            }
            // Some samplers do not ask.
            Ok(read) if !read.sampled && answered_by(exchange, trees).is_some() => return None,
            Ok(read) if !read.sampled => {
                let whose = match from.is_some_and(|from| from.sampled) {
                    true => format!("On {hop}, the sampled flag was cleared on the way"),
                    false => format!("On {hop}, the caller sent flags without the sampled bit"),
                };
                (
                    Rule::Unsampled,
                    format!(
                        "{whose} (byte 54 of the `traceparent`), so {to} is asked to record nothing, and to pass that on."
                    ),
                )
            }
            Ok(_) => return None,
        },
        (several, _) => (
            Rule::BrokenHeader,
            format!(
                "On {hop}, {to} got {} `traceparent` headers where one is allowed, and which one counts depends on the propagator.",
                several.len()
            ),
        ),
    };
    let caller = from.map(|from| (from.trace_id, from.parent_id));
    let called = answered_by(exchange, trees);
    let spans: Vec<_> = caller.into_iter().chain(called).collect();
    let mut finding = Finding::new(rule, cause, spans);
    if let Some(received) = exchange.received() {
        finding.traces.insert(received.trace_id);
    }
    Some(finding)
}

/// The SERVER span of the request, as far as that can be known: the one that the header leads to, or else the only one
/// of the service that is a top and began meanwhile.
pub fn answered_by(exchange: &Exchange, trees: &[Tree]) -> Option<Place> {
    let rows = || trees.iter().flat_map(|tree| &tree.rows);
    let delivered = exchange.delivered.as_deref().unwrap_or_default();
    for value in values(delivered, "traceparent") {
        let Ok(received) = Traceparent::parse(value) else {
            continue;
        };
        let led = rows().find(|row| {
            let span = &row.span;
            span.trace_id == received.trace_id
                && span.parent == Some(received.parent_id)
                && span.kind() == SpanKind::Server
        });
        if let Some(row) = led {
            return Some(place(&row.span));
        }
    }
    if exchange.received().is_some() {
        return None;
    }
    let meanwhile = exchange.start..=exchange.end.unwrap_or(exchange.start);
    let mut tops = rows().filter(|row| {
        let span = &row.span;
        row.parent.is_none()
            && span.kind() == SpanKind::Server
            && span.service() == exchange.to
            && meanwhile.contains(&span.start())
    });
    match (tops.next(), tops.next()) {
        (Some(only), None) => Some(place(&only.span)),
        _ => None,
    }
}

// The shape.

fn fallen_apart(trees: &[Tree]) -> Vec<Finding> {
    let summaries: Vec<Arc<Summary>> = trees.iter().map(|it| Arc::new(Summary::new(it))).collect();
    let found = breaks(&summaries).into_iter().map(|it| {
        let (from, to) = it.traces;
        let cause = format!(
            "`{}` of {} was answered by {} in another trace: the context of the call did not get there, or was not used.",
            plain(&it.name).replace('`', "'"),
            plain(&it.caller),
            plain(&it.called)
        );
        let spans = vec![
            (trees[from].trace_id, it.spans.0),
            (trees[to].trace_id, it.spans.1),
        ];
        Finding::new(Rule::FallenApart, cause, spans)
    });
    found.collect()
}

/// How many calls without an answer are looked at: of more, nobody can say which belongs to which.
const CALLS: usize = 100;

fn structure(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let roots: Vec<&Row> = tree
        .tops()
        .filter(|row| row.span.parent.is_none())
        .collect();
    if roots.len() > 1 {
        let cause = format!(
            "{} spans of one trace have no parent, the first {}: the trace id was passed on to them, and the parent was not.",
            roots.len(),
            words(&roots[0].span)
        );
        let spans = roots.iter().map(|row| place(&row.span)).collect();
        findings.push(Finding::new(Rule::SeveralRoots, cause, spans));
    }
    // Of the calls that nothing hangs below, as many as a person could tell apart.
    let calls = tree
        .rows
        .iter()
        .filter(|row| row.span.kind() == SpanKind::Client && row.below == 0);
    let calls: Vec<&Row> = calls.take(CALLS).collect();
    // Children of one missing parent are one finding, in the order of their first.
    let mut orphans: Vec<Vec<&Row>> = Vec::new();
    let mut known = HashMap::new();
    for row in tree.tops().filter(|row| row.orphan) {
        let siblings = (row.span.parent, row.span.service());
        let index = *known.entry(siblings).or_insert(orphans.len());
        match orphans.get_mut(index) {
            Some(rows) => rows.push(row),
            None => orphans.push(vec![row]),
        }
    }
    for rows in orphans {
        let mut finding = orphan(&calls, rows[0]);
        let more = rows[1..].iter().map(|row| place(&row.span));
        finding.spans.extend(more);
        if rows.len() > 1 {
            let cause = &finding.cause;
            finding.cause = format!("{cause} The same of {} more.", rows.len() - 1);
        }
        findings.push(finding);
    }
    for row in tree.tops().filter(|row| row.ring) {
        let cause = format!("{} is its own ancestor.", words(&row.span));
        findings.push(Finding::new(
            Rule::WrongParent,
            cause,
            vec![place(&row.span)],
        ));
    }
    findings.extend(
        tree.rows
            .iter()
            .filter_map(|row| beside_its_client(tree, &calls, row)),
    );
    findings.extend(skewed(tree));
    findings
}

/// A span whose parent is not here: of another process, or of its own.
fn orphan(calls: &[&Row], row: &Row) -> Finding {
    let (span, parent) = (&row.span, row.span.parent.map(|it| it.to_string()));
    let (words, parent) = (words(span), parent.unwrap_or_default());
    // OTLP's flags say whether the parent is of another process, where the sender knows.
    let flags = span.proto().flags;
    let remote = match flags & 0x100 {
        0 => matches!(span.kind(), SpanKind::Server | SpanKind::Consumer),
        _ => flags & 0x200 != 0,
    };
    if !remote {
        let cause = format!(
            "The parent {parent} of {words} has not arrived. It is of the same process: it has not ended, or was not sent."
        );
        return Finding::new(Rule::MissingSpans, cause, vec![place(span)]);
    }
    // A call that was answered by nobody here, while this happened: who was called is missing as a whole.
    let around = calls.iter().find(|call| {
        let client = &call.span;
        let other = |key: &str| key.starts_with("db.") || key.starts_with("messaging.");
        client.service() != span.service()
            && !client.proto().attributes.iter().any(|it| other(&it.key))
            && (client.start()..=client.end()).contains(&span.start())
    });
    match around {
        Some(call) => {
            let cause = format!(
                "{words} happened within {}, and what called it is not here: the header got through the service between them, and its spans did not.",
                self::words(&call.span)
            );
            Finding::new(
                Rule::MissingSpans,
                cause,
                vec![place(&call.span), place(span)],
            )
        }
        None => {
            let cause = format!(
                "{words} names a parent that is not here, {parent}: the span of its caller went elsewhere, or was not recorded."
            );
            Finding::new(Rule::Orphan, cause, vec![place(span)])
        }
    }
}

/// A request that hangs beside the CLIENT span that made it: the context around that span was injected, and not its own.
fn beside_its_client(tree: &Tree, calls: &[&Row], row: &Row) -> Option<Finding> {
    let server = &row.span;
    let above = &tree.rows[row.parent?].span;
    let remote = server.kind() == SpanKind::Server && above.service() != server.service();
    if !remote || matches!(above.kind(), SpanKind::Client | SpanKind::Producer) {
        return None;
    }
    let mut made = calls.iter().filter(|call| {
        let client = &call.span;
        client.parent == Some(above.id)
            && client.service() == above.service()
            && client.start() <= server.start()
            && server.end() <= client.end()
    });
    let (client, None) = (&made.next()?.span, made.next()) else {
        return None;
    };
    let cause = format!(
        "{} was called by {}, and its parent is {}: the context around the call was injected, and not that of the call.",
        words(server),
        words(client),
        words(above)
    );
    Some(Finding::new(
        Rule::WrongParent,
        cause,
        vec![place(client), place(server)],
    ))
}

/// A difference of clocks that some SDKs' coarse clocks cannot explain, in nanoseconds.
const SKEW: u64 = 2_000_000;

fn skewed(tree: &Tree) -> Vec<Finding> {
    let mut pairs: BTreeMap<(&str, &str), (u64, Vec<Place>)> = BTreeMap::new();
    for row in &tree.rows {
        let (Some(skew), Some(parent)) = (row.skew.filter(|it| *it >= SKEW), row.parent) else {
            continue;
        };
        let parent = tree.rows[parent].span.service();
        let (most, spans) = pairs.entry((parent, row.span.service())).or_default();
        *most = skew.max(*most);
        spans.push(place(&row.span));
    }
    let found = pairs.into_iter().map(|((caller, called), (skew, spans))| {
        let cause = format!(
            "{} starts up to {} before {}, which called it: the clocks of their hosts differ by at least that.",
            label(called),
            took(skew),
            label(caller)
        );
        Finding::new(Rule::ClockSkew, cause, spans)
    });
    found.collect()
}

// Single spans.

/// What was found of several spans of a service, or of one attribute of it, told once.
#[derive(Default)]
struct Grouped(BTreeMap<(Rule, String), (String, Vec<Place>)>);

impl Grouped {
    fn add(&mut self, rule: Rule, subject: String, cause: String, span: Place) {
        let first = || (cause, Vec::new());
        let (_, spans) = self.0.entry((rule, subject)).or_insert_with(first);
        if spans.last() != Some(&span) {
            spans.push(span);
        }
    }

    fn findings(self) -> impl Iterator<Item = Finding> {
        self.0.into_iter().map(|((rule, _), (mut cause, spans))| {
            if spans.len() > 1 {
                cause = format!("{} The same of {} more.", cause, spans.len() - 1);
            }
            Finding::new(rule, cause, spans)
        })
    }
}

/// Of one span, and of its resource where that is `new`: the rule, the attribute that it is about where there are several,
/// and the cause.
fn of_span(tree: &Tree, row: &Row, proto: &Proto, new: bool) -> Vec<(Rule, String, String)> {
    let span = &row.span;
    let mut found = Vec::new();
    let any = |keys: [&str; 2]| keys.into_iter().find_map(|key| attribute(proto, key));
    let status: Option<u16> = any(["http.response.status_code", "http.status_code"])
        .and_then(|status| status.parse().ok());
    let failed = status.filter(|status| match span.kind() {
        SpanKind::Server => *status >= 500,
        SpanKind::Client => *status >= 400,
        _ => false,
    });
    if let Some(status) = failed.filter(|_| !span.is_error()) {
        let cause = format!(
            "{} has the HTTP status {status}, and its own status is not error.",
            words(span)
        );
        found.push((Rule::StatusNotSet, String::new(), cause));
    }
    let method = any(["http.request.method", "http.method"]).is_some();
    if span.kind() == SpanKind::Internal {
        let above = row.parent.map(|parent| &tree.rows[parent].span);
        let caller = above.filter(|above| {
            above.service() != span.service()
                && matches!(above.kind(), SpanKind::Client | SpanKind::Producer)
        });
        if let Some(caller) = caller {
            let cause = format!(
                "{} was called by {}: it must be SERVER or CONSUMER.",
                words(span),
                words(caller)
            );
            found.push((Rule::WrongKind, String::new(), cause));
        } else if method && attribute(proto, "http.route").is_some() {
            // Below a span of its own service it is a part of answering.
            if above.is_none_or(|above| above.service() != span.service()) {
                let cause = format!(
                    "{} has an HTTP route, so it answers a request: it must be SERVER.",
                    words(span)
                );
                found.push((Rule::WrongKind, String::new(), cause));
            }
        } else if method && any(["url.full", "http.url"]).is_some() {
            let cause = format!(
                "{} has a whole URL, so it sends a request: it must be CLIENT.",
                words(span)
            );
            found.push((Rule::WrongKind, String::new(), cause));
        }
    }
    let path = any(["url.path", "http.target"]);
    let has_route = attribute(proto, "http.route").is_some_and(|it| span.name().contains(&it));
    if let Some(part) = never_repeats(span.name(), path.as_deref().filter(|_| !has_route)) {
        let cause = format!(
            "The name of {} has a value in it, `{}`, so each value makes another name.",
            words(span),
            shortened(part, 60)
        );
        found.push((Rule::HighCardinality, String::new(), cause));
    }
    let own = proto.attributes.iter();
    let events = proto.events.iter().flat_map(|event| &event.attributes);
    let resource = span.source.resource.attributes.iter().filter(|_| new);
    for KeyValue { key, value, .. } in own.chain(events).chain(resource) {
        let text = any_text(value);
        let plain = matches!(
            value.as_ref().and_then(|any| any.value.as_ref()),
            Some(Value::StringValue(_) | Value::ArrayValue(_) | Value::BytesValue(_))
        );
        if plain && let Some(what) = secret(key, &text) {
            let cause = format!(
                "The attribute `{}` of {} holds {what}.",
                shortened(key, 100),
                words(span)
            );
            found.push((Rule::Secret, key.clone(), cause));
        }
        if key == "http.request.header.traceparent" && span.kind() == SpanKind::Server {
            found.extend(recorded_header(span, &text));
        }
    }
    found
}

/// The header that an instrumentation has recorded on the span of the request that brought it: a list of texts.
fn recorded_header(span: &Span, text: &str) -> Option<(Rule, String, String)> {
    let values: Vec<String> = serde_json::from_str(text).unwrap_or(vec![text.to_owned()]);
    let reason = match &values[..] {
        [value] => Traceparent::parse(value).err()?.to_string(),
        several => format!("{} headers where one is allowed", several.len()),
    };
    let cause = format!(
        "{} came with a `traceparent` that is not valid: {reason}.",
        words(span)
    );
    Some((Rule::BrokenHeader, String::new(), cause))
}

/// The part of a name that is a value: an id, a number in a raw path, an address, a query.
fn never_repeats<'a>(name: &'a str, path: Option<&str>) -> Option<&'a str> {
    let raw = path.is_some_and(|path| name.split(' ').any(|word| word == path));
    let words = name.split([' ', '/', '?', '&', '=', ':', ',', '(', ')', '\'', '"']);
    let mut parts = words.filter(|part| !part.is_empty());
    parts.find(|part| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        let hex = part
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let number = part.bytes().filter(u8::is_ascii_digit).count();
        let mail = part
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
        (digits && (raw || part.len() >= 5)) || (hex && part.len() >= 16 && number >= 4) || mail
    })
}

/// What a value is, where it must not be seen. Never the value itself.
fn secret(key: &str, value: &str) -> Option<&'static str> {
    // A secret is short: what is long is looked at from its beginning.
    let value = beginning(value);
    let masked = ["redact", "filtered", "masked", "***", "xxxx", "[hidden"];
    let lower = value.to_lowercase();
    if value.trim().is_empty() || masked.iter().any(|mask| lower.contains(mask)) {
        return None;
    }
    let of_value = [
        (
            value.contains("-----BEGIN ") && value.contains("PRIVATE KEY"),
            "a private key",
        ),
        (token_behind(value, "Bearer ", 12), "a bearer token"),
        (
            token_behind(value, "eyJ", 30) && value.matches('.').count() >= 2,
            "a token (JWT)",
        ),
        (token_behind(value, "sk-", 20), "an API key"),
        (
            token_behind(value, "ghp_", 20) || token_behind(value, "github_pat_", 20),
            "a token of GitHub",
        ),
        (token_behind(value, "AKIA", 16), "an access key of AWS"),
        (token_behind(value, "xoxb-", 20), "a token of Slack"),
        (password_in_url(value), "a URL with a password"),
        (secret_in_query(value), "a URL with a secret in its query"),
    ];
    if let Some((_, what)) = of_value.into_iter().find(|(found, _)| *found) {
        return Some(what);
    }
    let key = key.to_lowercase();
    let mut words = key.rsplit(['.', '_', '-', '/']);
    let (last, before) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let is_secret = matches!(
        last,
        "password"
            | "passwd"
            | "pwd"
            | "secret"
            | "apikey"
            | "authorization"
            | "cookie"
            | "credentials"
    ) || matches!(
        (before, last),
        ("api" | "private" | "access" | "secret", "key")
            | ("access" | "auth" | "refresh" | "id" | "bearer", "token")
    );
    // What is a word of its own, and not the secret: `user.password` = `set`.
    (is_secret && value.len() >= 6).then_some("a secret, by its name")
}

/// The first 16 KiB of a text.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(16 * 1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether behind `mark` there are at least `length` characters that a token is made of, and not those of a word.
fn token_behind(value: &str, mark: &str, length: usize) -> bool {
    let is_token = |it: &char| it.is_ascii_alphanumeric() || "-_.~+/=".contains(*it);
    value.match_indices(mark).any(|(at, _)| {
        let begins = !value[..at].ends_with(|it: char| it.is_ascii_alphanumeric() || it == '-');
        begins && {
            let rest = value[at + mark.len()..].chars();
            let token: String = rest.take_while(is_token).take(100).collect();
            token.len() >= length && token.bytes().any(|it| it.is_ascii_digit())
        }
    })
}

fn password_in_url(value: &str) -> bool {
    value.match_indices("://").any(|(at, _)| {
        let authority = value[at + 3..].split(['/', '?', '#', ' ', '"']).next();
        let user = authority.and_then(|it| it.rsplit_once('@'));
        user.is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, it)| !it.is_empty()))
    })
}

fn secret_in_query(value: &str) -> bool {
    let names = [
        "password=",
        "access_token=",
        "api_key=",
        "apikey=",
        "token=",
        "secret=",
    ];
    let pairs = value.split(['?', '&']).skip(1);
    pairs.into_iter().any(|pair| {
        let pair = pair.to_lowercase();
        names
            .iter()
            .any(|name| pair.strip_prefix(name).is_some_and(|it| it.len() >= 6))
    })
}

// Libraries.

/// The versions of each library, by process.
#[derive(Default)]
struct Versions(BTreeMap<(String, String, String), ByVersion>);

type ByVersion = BTreeMap<String, Vec<Place>>;

impl Versions {
    fn add(&mut self, span: &Span) {
        let resource = &span.source.resource.attributes;
        let find = |key: &str| {
            let found = resource.iter().find(|attribute| attribute.key == key)?;
            Some(any_text(&found.value)).filter(|text| !text.is_empty())
        };
        // Of two processes of a service, one may be newer.
        let process = find("service.instance.id").or_else(|| {
            let host = find("host.name").or_else(|| find("host.id"))?;
            Some(format!("{host} {}", find("process.pid")?))
        });
        let Some(process) = process else { return };
        let service = span.service().to_owned();
        let sdk = find("telemetry.sdk.language").zip(find("telemetry.sdk.version"));
        let sdk = sdk
            .map(|(language, version)| (format!("the OpenTelemetry SDK for {language}"), version));
        let scope = &span.source.scope;
        let scope = (!scope.name.is_empty() && !scope.version.is_empty())
            .then(|| (format!("`{}`", label(&scope.name)), scope.version.clone()));
        for (library, version) in sdk.into_iter().chain(scope) {
            let versions = self
                .0
                .entry((service.clone(), process.clone(), library))
                .or_default();
            let spans = versions.entry(version).or_default();
            spans.push(place(span));
        }
    }

    fn findings(self) -> impl Iterator<Item = Finding> {
        let several = self
            .0
            .into_iter()
            .filter(|(_, versions)| versions.len() > 1);
        several.map(|((service, _, library), versions)| {
            let names: Vec<String> = versions.keys().map(|it| shortened(it, 40)).collect();
            let cause = format!(
                "One process of {} has {library} twice, as {}: copies of OpenTelemetry share no context and no propagator.",
                label(&service),
                names.join(" and ")
            );
            let first = versions.into_values().filter_map(|spans| spans.first().copied());
            Finding::new(Rule::MixedVersions, cause, first.collect())
        })
    }
}
