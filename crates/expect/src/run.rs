//! Watches one request: sends it, waits for its spans and compares them with the file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use traces::diagnose::{Certainty, Finding, Inspected};
use traces::expect::compare::{self, Shown};
use traces::expect::{Actual, Arrived, Body, Decision, Item, Request, Verdict, Waiting, Watch};
use traces::span::{Span, SpanId, TraceId};
use traces::summary::{self, Summary};
use traces::traceparent::Traceparent;
use traces::tree::Tree;

/// A place that spans come from.
pub trait Source {
    /// Why it can't say what has arrived.
    type Error;

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
    /// The spans that were compared, at their places.
    pub actual: Actual,
    /// The attributes that they have.
    pub keys: Vec<String>,
    pub shown: Shown,
    /// Why they differ; empty for a request that matches.
    pub causes: Vec<Cause>,
    /// The traces that arrived besides.
    pub others: Vec<Summary>,
}

/// Why a trace differs from its file.
#[derive(Debug, Clone)]
pub enum Cause {
    /// Nothing has the trace id that was sent: this service began another trace.
    NotTaken { service: String, trace: TraceId },
    /// A rule of the diagnosis says so.
    Finding(Box<Finding>),
    /// No rule says why. What the rules have looked at includes whether the request itself failed.
    Unknown(Box<Inspected>),
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
    Ok(report(request, keys, sent, verdict, waited, arrived, others))
}

/// Says what is different, and why.
fn report(
    request: &Request,
    more_keys: &[String],
    sent: Traceparent,
    verdict: Verdict,
    waited: Duration,
    mut arrived: Arrived,
    others: Vec<Vec<Arc<Span>>>,
) -> Report {
    let mut keys = request.attributes();
    keys.extend(more_keys.iter().filter(|key| !request.attributes().contains(key)).cloned());
    let matches = matches!(verdict, Verdict::Matches | Verdict::Unsettled);
    let mut apart = Vec::new();
    if !matches {
        apart = fallen_off(request, &arrived, &sent, &others);
        arrived.joined.extend(apart.iter().map(|index| others[*index].clone()));
    }
    let actual = Actual::new(&arrived, &sent, &keys, !matches);
    let shown = compare::shown(request, &actual, &keys);
    let causes = match matches {
        true => Vec::new(),
        false => causes(&arrived, &sent),
    };
    let others = others.iter().enumerate().filter(|(index, _)| !apart.contains(index));
    let others = others.filter_map(|(_, spans)| Tree::new(spans));
    let others = others.map(|tree| Summary::new(&tree)).collect();
    Report { sent, verdict, waited, actual, keys, shown, causes, others }
}

/// Why the traces of a request differ from its file: the findings that are certain or likely come first.
fn causes(arrived: &Arrived, sent: &Traceparent) -> Vec<Cause> {
    const MOST: usize = 3;
    let trees = arrived.trees(sent);
    let not_taken = trees.first().filter(|_| arrived.trace.is_empty()).map(|tree| {
        let service = tree.tops().next().map_or("", |row| row.span.service()).to_owned();
        Cause::NotTaken { service, trace: tree.trace_id }
    });
    let mut findings = arrived.findings(sent);
    findings.sort_by_key(|finding| finding.evidence.certainty() == Certainty::WorthALook);
    let findings = findings.into_iter().take(MOST);
    let mut causes: Vec<Cause> = not_taken.into_iter().collect();
    causes.extend(findings.map(|finding| Cause::Finding(Box::new(finding))));
    if causes.is_empty() {
        causes.push(Cause::Unknown(Box::new(Inspected::new(&trees, &[], &[]))));
    }
    causes
}

/// The places of the other traces that fell off the request: a call of its trace looks like the other end of theirs. Where nothing
/// has arrived of the trace itself, a trace that begins like the file is the request.
fn fallen_off(
    request: &Request,
    arrived: &Arrived,
    sent: &Traceparent,
    others: &[Vec<Arc<Span>>],
) -> Vec<usize> {
    let own: Vec<Tree> = arrived.trees(sent);
    let trees: Vec<Option<Tree>> = others.iter().map(|spans| Tree::new(spans)).collect();
    let begins_like = |tree: &Tree| {
        let Body::Tree(expected) = &request.body else { return false };
        let items = expected.alternatives.iter().flat_map(|it| it.groups.iter().flatten());
        let spans = items.filter_map(|item| match item {
            Item::Span(span) => Some(span),
            Item::Any => None,
        });
        let mut tops = spans;
        tops.any(|top| {
            tree.tops().any(|row| {
                top.name.matches(row.span.name()) && top.service.matches(row.span.service())
            })
        })
    };
    let mut joined = vec![false; others.len()];
    if own.is_empty() {
        for (index, tree) in trees.iter().enumerate() {
            joined[index] = tree.as_ref().is_some_and(begins_like);
        }
    }
    // The summaries of all, the request's own first.
    let mut summaries: Vec<Arc<Summary>> =
        own.iter().map(|tree| Arc::new(Summary::new(tree))).collect();
    let mut places = vec![None; summaries.len()];
    for (index, tree) in trees.iter().enumerate() {
        if let Some(tree) = tree {
            summaries.push(Arc::new(Summary::new(tree)));
            places.push(Some(index));
        }
    }
    let breaks = summary::breaks(&summaries);
    loop {
        let before = joined.clone();
        let is_joined = |at: usize, joined: &[bool]| places[at].is_none_or(|index| joined[index]);
        for it in &breaks {
            let (a, b) = it.traces;
            if is_joined(a, &joined) || is_joined(b, &joined) {
                for at in [a, b] {
                    if let Some(index) = places[at] {
                        joined[index] = true;
                    }
                }
            }
        }
        if joined == before {
            break;
        }
    }
    (0..joined.len()).filter(|index| joined[*index]).collect()
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
