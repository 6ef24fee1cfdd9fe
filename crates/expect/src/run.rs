//! Watches one request: sends it, waits for its spans and compares them with the file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use traces::case::Case;
use traces::diagnose::{Certainty, Finding, Inspected, answered_by};
use traces::exchange::Exchange;
use traces::expect::compare::{self, Shown};
use traces::expect::{Actual, Arrived, Body, Decision, Item, Request, Verdict, Waiting, Watch};
use traces::log::LogRecord;
use traces::span::{Span, SpanId, TraceId};
use traces::summary::{self, Summary};
use traces::traceparent::Traceparent;
use traces::tree::Tree;

/// A place that spans come from.
pub trait Source {
    /// Why it can't say what has arrived.
    type Error: Send;

    /// Everything that belongs to a trace: its spans, and the traces with a span that is linked to it.
    fn arrived(
        &mut self,
        trace: TraceId,
    ) -> impl Future<Output = Result<Arrived, Self::Error>> + Send;

    /// Returns when something may have changed since the last call of [`Source::arrived`].
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// The other traces that began to arrive since the source was made.
    fn others(
        &mut self,
        trace: TraceId,
    ) -> impl Future<Output = Result<Vec<Vec<Arc<Span>>>, Self::Error>> + Send;

    /// The requests on the wire that may belong to a trace. None, unless the source has proxies that see them.
    fn exchanges(
        &mut self,
        _trace: TraceId,
    ) -> impl Future<Output = Result<Vec<Exchange>, Self::Error>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// The log records of a trace. None, unless the source receives log records.
    fn logs(
        &mut self,
        _trace: TraceId,
    ) -> impl Future<Output = Result<Vec<Arc<LogRecord>>, Self::Error>> + Send {
        std::future::ready(Ok(Vec::new()))
    }
}

/// Creates the `traceparent` of a new trace, sampled.
pub fn new_traceparent() -> Traceparent {
    Traceparent {
        trace_id: TraceId(fastrand::u128(1..).to_be_bytes()),
        parent_id: SpanId(fastrand::u64(1..).to_be_bytes()),
        sampled: true,
        random: false,
    }
}

/// The result of a request.
#[derive(Debug)]
pub struct Report {
    pub sent: Traceparent,
    pub verdict: Verdict,
    /// How long the wait took from the start of the request on.
    pub waited: Duration,
    /// The spans that were compared, at their places: those that count, and for a trace that differs, those that fell off it.
    pub actual: Actual,
    /// The spans that count.
    pub counted: Actual,
    /// The attributes that they have.
    pub keys: Vec<String>,
    pub shown: Shown,
    /// Why they differ; empty for a request that matches.
    pub causes: Vec<Cause>,
    /// The findings of the diagnosis, also for a request that matches. Those that are certain or likely come first.
    pub findings: Vec<Finding>,
    /// The traces that arrived besides.
    pub others: Vec<Summary>,
    /// Everything that was seen of the request: its traces, with those that fell off it, their log records, and its requests on the wire.
    pub case: Case,
}

/// Why a trace differs from its file.
#[derive(Debug, Clone)]
pub enum Cause {
    /// Nothing has the trace id that was sent: this service began another trace.
    NotTaken { service: String, trace: TraceId },
    /// A rule of the diagnosis says so.
    Finding(Box<Finding>),
    /// No rule says why.
    Unknown {
        /// Counts the things that the rules looked at and says whether the request itself failed.
        inspected: Box<Inspected>,
        /// Whether the file has spans that haven't arrived.
        is_missing: bool,
    },
}

/// Sends a request and watches it until its trace is as the file says, or can't be. `keys` are attributes to look at besides
/// those that the file names.
///
/// # Errors
/// The request failed, or the source can't say what has arrived.
pub async fn run<S: Source, E: From<S::Error>>(
    source: &mut S,
    request: &Request,
    keys: &[String],
    sent: Traceparent,
    waiting: Waiting,
    send: impl Future<Output = Result<(), E>>,
) -> Result<Report, E> {
    let start = Instant::now();
    let mut watch = Watch::new(request, sent, waiting);
    let mut ended = None;
    let mut send = std::pin::pin!(send);
    let (verdict, arrived) = loop {
        let arrived = source.arrived(sent.trace_id).await?;
        let until = match watch.look(start.elapsed(), ended, &arrived) {
            Decision::Done(verdict) => break (verdict, arrived),
            Decision::WaitUntil(until) => until,
        };
        tokio::select! {
            sent = &mut send, if ended.is_none() => {
                sent?;
                ended = Some(start.elapsed());
            }
            () = source.changed() => {}
            () = tokio::time::sleep_until((start + until).into()) => {}
        }
    };
    let waited = start.elapsed();
    let others = source.others(sent.trace_id).await?;
    let wire = source.exchanges(sent.trace_id).await?;
    let mut report = report(request, keys, sent, verdict, waited, Seen { arrived, others, wire });
    let traces: Vec<TraceId> = report.case.trees.iter().map(|tree| tree.trace_id).collect();
    for trace in traces {
        report.case.logs.extend(source.logs(trace).await?);
    }
    report.case.logs.sort_by_key(|record| record.time());
    Ok(report)
}

/// Everything that was seen of a request.
struct Seen {
    arrived: Arrived,
    /// The other traces.
    others: Vec<Vec<Arc<Span>>>,
    wire: Vec<Exchange>,
}

/// Says what is different, and why.
fn report(
    request: &Request,
    more_keys: &[String],
    sent: Traceparent,
    verdict: Verdict,
    waited: Duration,
    seen: Seen,
) -> Report {
    let mut keys = request.attributes();
    keys.extend(more_keys.iter().filter(|key| !request.attributes().contains(key)).cloned());
    let matches = matches!(verdict, Verdict::Matches | Verdict::Unsettled);
    let (apart, wire) = fallen_off(request, &sent, &seen);
    let Seen { arrived, others, .. } = seen;
    let mut whole = arrived.clone();
    whole.joined.extend(apart.iter().map(|index| others[*index].clone()));
    let mut findings = whole.findings(&sent, &wire);
    findings.sort_by_key(|finding| finding.evidence.certainty() == Certainty::WorthALook);
    let counted = || Actual::new(&arrived, &sent, &keys, false);
    let actual = if matches { counted() } else { Actual::new(&whole, &sent, &keys, true) };
    let shown = compare::shown(request, &actual, &keys);
    let causes = match matches {
        true => Vec::new(),
        false => causes(&whole, &sent, &findings, shown.counts.missing > 0),
    };
    let others = others.iter().enumerate();
    let others = others.filter(|(index, _)| matches || !apart.contains(index));
    let others = others.filter_map(|(_, spans)| Tree::new(spans));
    let others = others.map(|tree| Summary::new(&tree)).collect();
    let counted = counted();
    let case = Case::new(whole.trees(&sent), wire);
    Report { sent, verdict, waited, actual, counted, keys, shown, causes, findings, others, case }
}

/// Why the traces of a request differ from its file.
fn causes(
    arrived: &Arrived,
    sent: &Traceparent,
    findings: &[Finding],
    is_missing: bool,
) -> Vec<Cause> {
    const MOST: usize = 3;
    let trees = arrived.trees(sent);
    let not_taken = trees.first().filter(|_| arrived.trace.is_empty()).map(|tree| {
        let service = tree.tops().next().map_or("", |row| row.span.service()).to_owned();
        Cause::NotTaken { service, trace: tree.trace_id }
    });
    // A header that got lost on the way explains why nobody took it.
    let is_explained = findings.iter().any(|finding| finding.traces.contains(&sent.trace_id));
    let mut causes: Vec<Cause> = not_taken.filter(|_| !is_explained).into_iter().collect();
    causes.extend(findings.iter().take(MOST).map(|it| Cause::Finding(Box::new(it.clone()))));
    if causes.is_empty() {
        let inspected = Box::new(Inspected::new(&trees, &[], &[]));
        causes.push(Cause::Unknown { inspected, is_missing });
    }
    causes
}

/// The places of the other traces that fell off the request: a call of its trace looks like the other end of theirs, or a request
/// on the wire belongs to both. Where nothing has arrived of the trace itself, a trace that begins like the file is the request.
/// Returns also the requests on the wire that belong to any of these traces.
fn fallen_off(request: &Request, sent: &Traceparent, seen: &Seen) -> (Vec<usize>, Vec<Exchange>) {
    let Seen { arrived, others, wire } = seen;
    let mut trees: Vec<Tree> = arrived.trees(sent);
    let mut ids: BTreeSet<TraceId> = trees.iter().map(|tree| tree.trace_id).collect();
    let is_empty = ids.is_empty();
    ids.insert(sent.trace_id);
    for tree in others.iter().filter_map(|spans| Tree::new(spans)) {
        if is_empty && begins_like(request, &tree) {
            ids.insert(tree.trace_id);
        }
        trees.push(tree);
    }
    let summaries: Vec<Arc<Summary>> =
        trees.iter().map(|tree| Arc::new(Summary::new(tree))).collect();
    let breaks = summary::breaks(&summaries).into_iter();
    let breaks = breaks.map(|it| [it.traces.0, it.traces.1].map(|at| trees[at].trace_id));
    let of_wire = wire.iter().map(|exchange| {
        let ends = [exchange.sent_by(), exchange.received()].into_iter().flatten();
        let answered = answered_by(exchange, &trees).map(|(trace, _)| trace);
        ends.map(|it| it.trace_id).chain(answered).collect()
    });
    let of_wire: Vec<BTreeSet<TraceId>> = of_wire.collect();
    let together: Vec<BTreeSet<TraceId>> =
        breaks.map(BTreeSet::from).chain(of_wire.iter().cloned()).collect();
    loop {
        let before = ids.len();
        for set in together.iter().filter(|set| !set.is_disjoint(&ids)).collect::<Vec<_>>() {
            ids.extend(set);
        }
        if ids.len() == before {
            break;
        }
    }
    let wire = wire.iter().zip(of_wire).filter(|(_, set)| !set.is_disjoint(&ids));
    let is_apart =
        |spans: &[Arc<Span>]| spans.first().is_some_and(|span| ids.contains(&span.trace_id));
    let apart = (0..others.len()).filter(|index| is_apart(&others[*index])).collect();
    (apart, wire.map(|(exchange, _)| exchange.clone()).collect())
}

/// Whether a trace begins with a span that is on top of the file.
fn begins_like(request: &Request, tree: &Tree) -> bool {
    let Body::Tree(expected) = &request.body else { return false };
    let mut items = expected.alternatives.iter().flat_map(|it| it.groups.iter().flatten());
    items.any(|item| match item {
        Item::Span(top) => tree.tops().any(|row| {
            top.name.matches(row.span.name()) && top.service.matches(row.span.service())
        }),
        Item::Any(_) => false,
    })
}

impl Report {
    /// Whether the request is as the file says.
    pub fn matches(&self) -> bool {
        self.verdict == Verdict::Matches
    }

    /// The traces that were compared, for pages and files.
    pub fn is_empty(&self) -> bool {
        self.actual.is_empty()
    }
}
