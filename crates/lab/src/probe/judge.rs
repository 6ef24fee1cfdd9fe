//! Compares what a service did in one case with what the case expects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::HeaderMap;

use super::cases::{Case, Expected, Ids, Level, Rule, Spec};
use super::neighbor::Call;
use crate::span::{Span, SpanId, SpanKind, TraceId};
use crate::store::Store;
use crate::traceparent::{InvalidTraceparent, Traceparent};
use traces::headers::{Format, Valid};

/// The result of one case, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Sound,
    /// The service made a choice that the rules leave to it.
    Noted,
    /// Nothing shows what the service did.
    Unseen,
    /// The service breaks a rule.
    Broken,
}

/// A deviation from what is usual. [`Finding::level`] says how bad it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The service didn't answer at all, for this reason.
    NoAnswer(String),
    /// The service answered another status than to the first request.
    OtherStatus { first: u16, status: u16 },
    /// No `traceparent` went out.
    NoTraceparent,
    /// No `traceparent` went out for a request without a valid one.
    NotStarted,
    /// Several `traceparent` headers went out.
    SeveralTraceparents(usize),
    /// The header that went out isn't valid.
    Invalid { value: String, reason: InvalidTraceparent },
    /// The header that went out has a version after 00.
    LaterVersion(u8),
    /// The trace wasn't continued.
    NotContinued,
    /// The trace was continued, although its header is invalid.
    Believed,
    /// The trace of one of two headers was continued.
    OneOfTwo,
    /// The trace was continued, although the service is at the edge.
    ContinuedAtEdge,
    /// The calls of one request are in this number of traces.
    SeveralTraces(usize),
    /// The parent that went out is the caller's.
    CallersParent,
    /// Two calls have the same parent.
    SameParent,
    /// No span with the id of the parent has arrived.
    NoSpan,
    /// The service has CLIENT spans in the trace, and the parent is a span of this kind.
    NotTheClient(SpanKind),
    /// The service has no CLIENT spans in the trace. The parent is a span of this kind.
    NoClient(SpanKind),
    /// Flags went out that no version defines.
    ReservedFlags(u8),
    /// The sampled flag was changed to this.
    Sampled(bool),
    /// The random flag was changed to this.
    Random(bool),
    /// Only these of the members of the `tracestate` went out.
    MembersLost { kept: usize, of: usize },
    /// The value of a member was changed.
    MemberChanged(String),
    /// The members went out in another order.
    Reordered,
    /// A key went out twice.
    KeyTwice(String),
    /// The `tracestate` went out, although it came without a valid `traceparent`.
    StateBelieved,
    /// Only these of the entries of the baggage went out.
    EntriesLost { kept: usize, of: usize },
    /// The value of an entry was changed.
    EntryChanged { key: String, came: String, sent: String },
    /// The service called less often than for the first request.
    FewerCalls { calls: usize, first: usize },
    /// Spans of the trace have arrived, and none has the caller's span as its parent.
    NotEntered,
    /// Spans were recorded, although the caller isn't sampled.
    Recorded,
    /// The service reads this format or doesn't.
    Reads(Format, bool),
}

impl Finding {
    /// How binding the broken rule is. `case` is the level of the case itself.
    pub fn level(&self, case: Level) -> Level {
        match self {
            Finding::NotContinued | Finding::Believed | Finding::OneOfTwo => case,
            Finding::NotStarted
            | Finding::SameParent
            | Finding::NoClient(_)
            | Finding::Sampled(_)
            | Finding::Random(_)
            | Finding::MembersLost { .. }
            | Finding::MemberChanged(_)
            | Finding::EntriesLost { .. }
            | Finding::FewerCalls { .. }
            | Finding::NotEntered
            | Finding::Recorded
            | Finding::Reads(..) => Level::Should,
            _ => Level::Must,
        }
    }

    /// The broken rule, where it is another than that of the case.
    pub fn rule(&self) -> Option<Rule> {
        let tc = |section| Some(Rule::new(Spec::TraceContext, section));
        let otel = |section| Some(Rule::new(Spec::OpenTelemetry, section));
        match self {
            Finding::NoTraceparent | Finding::NotStarted => tc("Mutating the traceparent Field"),
            Finding::SeveralTraceparents(_) | Finding::Invalid { .. } => {
                tc("traceparent Header Field Values")
            }
            Finding::LaterVersion(_) => tc("Versioning of traceparent"),
            Finding::CallersParent => tc("A traceparent is Received"),
            Finding::NoSpan | Finding::NotTheClient(_) | Finding::NoClient(_) => {
                otel("Trace API, SpanKind")
            }
            Finding::ReservedFlags(_) => tc("Other Flags"),
            Finding::Sampled(_) => tc("Sampled flag"),
            Finding::Random(_) => Some(Rule::new(Spec::TraceContext2, "Random Trace ID Flag")),
            Finding::MembersLost { .. }
            | Finding::MemberChanged(_)
            | Finding::Reordered
            | Finding::KeyTwice(_) => tc("Mutating the tracestate Field"),
            Finding::StateBelieved => tc("Tracestate Header"),
            Finding::EntriesLost { .. } => Some(Rule::new(Spec::Baggage, "Limits")),
            Finding::EntryChanged { .. } => Some(Rule::new(Spec::Baggage, "value")),
            Finding::SeveralTraces(_) => otel("Context"),
            Finding::SameParent => {
                Some(Rule::new(Spec::Suite, "test_multiple_requests_with_valid_traceparent"))
            }
            Finding::NotEntered => otel("Propagators API"),
            Finding::Recorded => otel("Trace SDK, Sampling"),
            _ => None,
        }
    }
}

/// A finding, and the call that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The neighbor, method and path; `None` for the whole request.
    pub call: Option<String>,
    pub finding: Finding,
    /// [`Verdict::Broken`], or [`Verdict::Noted`] for a choice and in a case that may fail.
    pub verdict: Verdict,
}

/// The trace id that went out, compared with the one that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutTrace {
    Callers,
    /// The trace of the second header.
    Second,
    New,
}

/// The parent id that went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutParent {
    Callers,
    /// A CLIENT span that has arrived.
    Client,
    /// Any other id.
    New,
}

/// The context that left the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// A valid `traceparent`.
    Traceparent { version: u8, trace: OutTrace, parent: OutParent, flags: u8 },
    /// Anything else: the values of all `traceparent` headers.
    Other(Vec<String>),
    /// No call, and a span of the service in this trace.
    Span { trace: OutTrace, below_caller: bool },
}

/// The result of a case.
#[derive(Debug, Clone)]
pub struct Judged {
    pub case: Case,
    pub verdict: Verdict,
    pub out: Vec<Out>,
    pub found: Vec<Found>,
}

/// The events of a case.
pub struct Observed {
    pub case: Case,
    pub ids: Ids,
    /// The status of the answer, or the reason why there is none.
    pub answer: Result<u16, String>,
    /// When the request was sent and its answer had come, in nanoseconds since 1970.
    pub window: (u64, u64),
    pub calls: Vec<Call>,
}

/// Compares cases with the first request and the rules.
pub struct Judge<'a> {
    /// The status of the answer to the first request.
    pub first_status: u16,
    /// The number of calls after the first request.
    pub first_calls: usize,
    /// The spans; `None` where they aren't looked at.
    pub spans: Option<&'a Store>,
    pub edge: bool,
    /// The names of the cases that may fail.
    pub allowed: &'a [String],
}

impl Observed {
    /// Whether spans are still missing: the parents of the calls, and the span that answered the request.
    pub fn misses_spans(&self, store: &Store, edge: bool) -> bool {
        let has = |trace: TraceId, is_wanted: &dyn Fn(&Span) -> bool| {
            store.trace(trace).is_some_and(|spans| spans.iter().any(|span| is_wanted(span)))
        };
        let mut calls = self.calls.iter().filter_map(|call| only(&call.headers));
        let misses_parent = calls.any(|sent| {
            let is_own = sent.sampled && sent.parent_id != self.ids.parent;
            is_own && !has(sent.trace_id, &|span| is(span, sent.parent_id))
        });
        let sampled = self.case.flags().is_some_and(|flags| flags & SAMPLED != 0);
        let is_entered = || has(self.ids.trace, &|span| span.parent == Some(self.ids.parent));
        misses_parent || sampled && self.answer.is_ok() && !edge && !is_entered()
    }
}

const SAMPLED: u8 = 1;
const RANDOM: u8 = 1 << 1;

/// Whether a span has this id, or came with it.
fn is(span: &Span, id: SpanId) -> bool {
    span.id == id || span.shared_id() == Some(id)
}

/// The only `traceparent`, where it is valid.
fn only(headers: &HeaderMap) -> Option<Traceparent> {
    match &values(headers, "traceparent")[..] {
        [value] => Traceparent::parse(value).ok(),
        _ => None,
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned()).collect()
}

impl Judge<'_> {
    /// Judges one case.
    pub fn judge(&self, observed: &Observed) -> Judged {
        let Observed { case, answer, calls, .. } = observed;
        let mut found = Vec::new();
        let mut out = Vec::new();
        let mut add = |call: Option<&Call>, finding| {
            let several = self.first_calls > 1 || calls.len() > 1;
            let call = call.filter(|_| several);
            let name = |call: &Call| format!("{} {} {}", call.neighbor, call.method, call.path);
            found.push(Found { call: call.map(name), finding, verdict: Verdict::Noted });
        };
        match answer {
            Err(reason) => add(None, Finding::NoAnswer(reason.clone())),
            Ok(status) if *status != self.first_status => {
                add(None, Finding::OtherStatus { first: self.first_status, status: *status });
            }
            Ok(_) => {}
        }
        for call in calls {
            let (sent, findings) = self.call(observed, call);
            out.push(sent);
            findings.into_iter().for_each(|finding| add(Some(call), finding));
        }
        let mut seen = !calls.is_empty();
        if seen {
            if calls.len() < self.first_calls {
                let (calls, first) = (calls.len(), self.first_calls);
                add(None, Finding::FewerCalls { calls, first });
            }
            let sent = || calls.iter().filter_map(|call| only(&call.headers));
            let traces: BTreeSet<TraceId> = sent().map(|it| it.trace_id).collect();
            let parents: BTreeSet<SpanId> = sent().map(|it| it.parent_id).collect();
            if parents.len() < sent().count() {
                add(None, Finding::SameParent);
            }
            if traces.len() > 1 && self.expected(case) != Expected::Continue {
                add(None, Finding::SeveralTraces(traces.len()));
            }
        }
        let (span, findings) = self.entry(observed);
        if calls.is_empty() {
            seen = span.is_some() || self.is_silent(case);
            out.extend(span);
        }
        findings.into_iter().for_each(|finding| add(None, finding));
        let allowed = self.allowed.iter().any(|name| *name == case.name);
        for it in &mut found {
            it.verdict = match it.finding.level(case.level) {
                Level::Must if !allowed => Verdict::Broken,
                _ => Verdict::Noted,
            };
        }
        let worst = found.iter().map(|it| it.verdict).max().unwrap_or(Verdict::Sound);
        let verdict = if seen { worst } else { worst.max(Verdict::Unseen) };
        found.dedup();
        Judged { case: case.clone(), verdict, out, found }
    }

    /// Whether no span of a leaf has to show what it did: a sampler may drop all of them.
    fn is_silent(&self, case: &Case) -> bool {
        let sampled = case.flags().is_none_or(|flags| flags & SAMPLED != 0);
        self.spans.is_some() && (self.expected(case) != Expected::Continue || !sampled)
    }

    fn expected(&self, case: &Case) -> Expected {
        match case.expected {
            Expected::Continue if self.edge => Expected::Restart,
            expected => expected,
        }
    }

    /// Judges the headers of one call.
    fn call(&self, observed: &Observed, call: &Call) -> (Out, Vec<Finding>) {
        let Observed { case, ids, .. } = observed;
        let mut found = Vec::new();
        let values = values(&call.headers, "traceparent");
        let (value, sent) = match &values[..] {
            [] => {
                let missing = match self.expected(case) {
                    Expected::Continue => Finding::NoTraceparent,
                    Expected::Restart | Expected::Choice(_) => Finding::NotStarted,
                };
                return (Out::Other(values), vec![missing]);
            }
            [value] => match Traceparent::parse(value) {
                Ok(sent) => (value, sent),
                Err(reason) => {
                    let finding = Finding::Invalid { value: value.clone(), reason };
                    return (Out::Other(values), vec![finding]);
                }
            },
            several => {
                let finding = Finding::SeveralTraceparents(several.len());
                return (Out::Other(values), vec![finding]);
            }
        };
        let Valid { version, flags } = Valid::read(value).unwrap_or(Valid { version: 0, flags: 0 });
        if version != 0 {
            found.push(Finding::LaterVersion(version));
        }
        let trace = self.trace(observed, sent.trace_id);
        found.extend(self.continued(case, trace));
        if flags & !(SAMPLED | RANDOM) != 0 {
            found.push(Finding::ReservedFlags(flags));
        }
        if let Some(came) = case.flags().filter(|_| trace == OutTrace::Callers) {
            if (came ^ flags) & SAMPLED != 0 {
                found.push(Finding::Sampled(sent.sampled));
            }
            if (came ^ flags) & RANDOM != 0 {
                found.push(Finding::Random(sent.random));
            }
        }
        let mut parent = OutParent::New;
        if sent.parent_id == ids.parent {
            parent = OutParent::Callers;
            found.push(Finding::CallersParent);
        } else if let Some(store) = self.spans.filter(|_| sent.sampled) {
            match parent_kind(store, &sent) {
                Some(Parent { kind: SpanKind::Client | SpanKind::Producer, .. }) => {
                    parent = OutParent::Client;
                }
                Some(Parent { kind, has_client: true }) => {
                    found.push(Finding::NotTheClient(kind));
                }
                Some(Parent { kind, has_client: false }) => found.push(Finding::NoClient(kind)),
                None => found.push(Finding::NoSpan),
            }
        }
        found.extend(self.state(observed, call, trace));
        if trace == OutTrace::Callers {
            found.extend(baggage(observed, call));
        }
        (Out::Traceparent { version, trace, parent, flags }, found)
    }

    fn trace(&self, observed: &Observed, sent: TraceId) -> OutTrace {
        let Ids { trace, other, .. } = observed.ids;
        match sent {
            _ if sent == trace => OutTrace::Callers,
            _ if sent == other => OutTrace::Second,
            _ => OutTrace::New,
        }
    }

    fn continued(&self, case: &Case, trace: OutTrace) -> Option<Finding> {
        let is_new = trace == OutTrace::New;
        match self.expected(case) {
            Expected::Continue => (trace != OutTrace::Callers).then_some(Finding::NotContinued),
            Expected::Restart if is_new => None,
            Expected::Restart if case.expected == Expected::Continue => {
                Some(Finding::ContinuedAtEdge)
            }
            Expected::Restart if case.values("traceparent").count() > 1 => Some(Finding::OneOfTwo),
            Expected::Restart => Some(Finding::Believed),
            Expected::Choice(format) => Some(Finding::Reads(format, !is_new)),
        }
    }

    /// Compares the members of the `tracestate`.
    fn state(&self, observed: &Observed, call: &Call, trace: OutTrace) -> Vec<Finding> {
        let came = sent_values(observed, "tracestate");
        let came = pairs(&came);
        let sent = values(&call.headers, "tracestate");
        let sent = pairs(&sent);
        if observed.case.expected == Expected::Restart {
            let believed = came.iter().any(|member| sent.contains(member));
            return Vec::from_iter(believed.then_some(Finding::StateBelieved));
        }
        if trace != OutTrace::Callers {
            return Vec::new();
        }
        let mut found = Vec::new();
        let places: Vec<usize> =
            came.iter().filter_map(|member| sent.iter().position(|it| it == member)).collect();
        if places.len() < came.len() {
            found.push(Finding::MembersLost { kept: places.len(), of: came.len() });
        }
        if !places.is_sorted() {
            found.push(Finding::Reordered);
        }
        let twice =
            |list: &[(&str, &str)], key: &str| list.iter().filter(|it| it.0 == key).count() > 1;
        for (key, value) in &came {
            if twice(&came, key) {
                continue;
            }
            if twice(&sent, key) {
                found.push(Finding::KeyTwice((*key).to_owned()));
            } else if sent.iter().any(|it| it.0 == *key && it.1 != *value) {
                found.push(Finding::MemberChanged((*key).to_owned()));
            }
        }
        found
    }

    /// Looks at the span that answered the request. It alone shows what a service did that has called nobody.
    fn entry(&self, observed: &Observed) -> (Option<Out>, Vec<Finding>) {
        let Observed { case, ids, window, calls, .. } = observed;
        let Some(store) = self.spans else { return (None, Vec::new()) };
        let mut found = Vec::new();
        let known = [(ids.trace, OutTrace::Callers), (ids.other, OutTrace::Second)];
        let spans = known.iter().find_map(|(id, trace)| Some((store.trace(*id)?, *trace)));
        let Some((spans, trace)) = spans else {
            let is_leaf = calls.is_empty();
            // The clock of the service is ours, or close to it. Where it isn't, the case stays unseen.
            let started = |spans: &Vec<Arc<Span>>| {
                let start = spans.iter().map(|span| span.start()).min();
                start.is_some_and(|start| (window.0..=window.1).contains(&start))
            };
            if !is_leaf || !store.traces().iter().any(started) {
                return (None, found);
            }
            found.extend(self.continued(case, OutTrace::New));
            return (Some(Out::Span { trace: OutTrace::New, below_caller: false }), found);
        };
        let below_caller = spans.iter().any(|span| span.parent == Some(ids.parent));
        let sampled = case.flags().is_some_and(|flags| flags & SAMPLED != 0);
        let continues = self.expected(case) == Expected::Continue;
        if continues && sampled && !below_caller {
            found.push(Finding::NotEntered);
        }
        if continues && !sampled {
            found.push(Finding::Recorded);
        }
        if calls.is_empty() {
            found.extend(self.continued(case, trace));
        }
        (Some(Out::Span { trace, below_caller }), found)
    }
}

/// The span that a call was made under.
struct Parent {
    kind: SpanKind,
    /// Whether its service has CLIENT spans in the same trace.
    has_client: bool,
}

fn parent_kind(store: &Store, sent: &Traceparent) -> Option<Parent> {
    let spans = store.trace(sent.trace_id)?;
    let parent = spans.iter().find(|span| is(span, sent.parent_id))?;
    let is_client =
        |span: &Arc<Span>| span.kind() == SpanKind::Client && span.service() == parent.service();
    Some(Parent { kind: parent.kind(), has_client: spans.iter().any(is_client) })
}

/// The values of the headers that were sent with this name.
fn sent_values(observed: &Observed, name: &str) -> Vec<String> {
    observed.case.values(name).map(|value| observed.ids.value(value)).collect()
}

/// The members of a list in several headers, as `KEY=VALUE`.
fn pairs(values: &[String]) -> Vec<(&str, &str)> {
    let members = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    members.filter_map(|member| member.split_once('=')).collect()
}

/// Compares the entries of the baggage. They have no order.
fn baggage(observed: &Observed, call: &Call) -> Vec<Finding> {
    let read = |values: &[String]| -> BTreeMap<String, String> {
        let entries = pairs(values).into_iter();
        entries
            .map(|(key, value)| {
                let value = value.split(';').next().unwrap_or_default();
                (key.trim().to_owned(), decoded(value.trim()))
            })
            .collect()
    };
    let came = read(&sent_values(observed, "baggage"));
    let sent = read(&values(&call.headers, "baggage"));
    let mut found = Vec::new();
    let kept = came.keys().filter(|key| sent.contains_key(*key)).count();
    if kept < came.len() {
        found.push(Finding::EntriesLost { kept, of: came.len() });
    }
    for (key, came) in came {
        if let Some(sent) = sent.get(&key).filter(|sent| **sent != came) {
            found.push(Finding::EntryChanged { key, came, sent: sent.clone() });
        }
    }
    found
}

/// Decodes the percent-encoded bytes of a value.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        let digits = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
