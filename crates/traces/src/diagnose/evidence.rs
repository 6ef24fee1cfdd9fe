//! The evidence of the rules: one variant for each way in which a rule finds a fault, with the data of it.

use serde::{Deserialize, Serialize};

use crate::diagnose::{Rule, Secret};
use crate::headers::{Contradiction, Format, Placeholder};
use crate::span::{Span, SpanId, SpanKind, TraceId, beginning};
use crate::traceparent::{Field, InvalidTraceparent};
use crate::tree::Skew;

/// The proof of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// There are no spans at all.
    NothingArrived {
        /// The number of requests that went over the wire.
        requests: usize,
    },
    /// The caller sent a valid `traceparent`, and the service got none.
    HeaderDropped {
        /// The name of the hop, such as `gateway-user`.
        hop: String,
    },
    /// A `traceparent` isn't valid.
    HeaderInvalid { seen: Seen, invalid: InvalidTraceparent },
    /// Another `traceparent` arrived than was sent.
    HeaderReplaced {
        hop: String,
        /// The first field that differs: the trace id or the parent id.
        field: Field,
    },
    /// Another text stands in place of a `traceparent`.
    HeaderPlaceholder { seen: Seen, placeholder: Placeholder, text: String },
    /// One request has several `traceparent` headers.
    HeaderRepeated {
        seen: Seen,
        count: usize,
        /// How many traces the valid ones name.
        traces: usize,
    },
    /// The `traceparent` of a request and its header in another format contradict each other.
    HeadersContradict { seen: Seen, format: Format, contradiction: Contradiction },
    /// The values of several headers stand in one `traceparent`, with commas between them.
    HeadersJoined { seen: Seen, count: usize },
    /// A request has no `traceparent` and a header of another format.
    ForeignFormat {
        seen: Seen,
        format: Format,
        /// The trace that the header names.
        trace_id: TraceId,
    },
    /// A header that was given by itself says that the request isn't sampled.
    HeaderUnsampled {
        seen: Seen,
        /// The format of the header; `None` for a `traceparent`.
        format: Option<Format>,
    },
    /// A `traceparent` without the sampled flag has arrived.
    FlagNotSet {
        hop: String,
        /// The service that got it.
        to: String,
        /// Whether the flag was set when the header was sent.
        cleared: bool,
    },
    /// A call was answered in another trace.
    FallenApart {
        /// The name of the CLIENT span.
        call: String,
        /// The service that made the call.
        caller: String,
        /// The service that answered it.
        called: String,
    },
    /// A trace begins within a request of another trace, and not with a request of its own.
    RootWithin { span: NamedSpan, around: Around },
    /// A trace begins with a call, of a service that also answers requests.
    ClientRoot {
        span: NamedSpan,
        /// A request that the service has answered.
        request: NamedSpan,
    },
    /// Several spans of one trace have no parent.
    SeveralRoots { count: usize, first: NamedSpan },
    /// Several spans without a parent came with one id.
    SharedId { id: SpanId, count: usize, first: NamedSpan },
    /// The parent of a span, of the same process, isn't here.
    ParentNotHere {
        span: NamedSpan,
        parent: SpanId,
        /// Whether the sender said that the parent is of the same process. Otherwise the kind of the span suggests it.
        known: bool,
    },
    /// A span happened within a call, and the spans of the service between the two aren't here.
    ServiceBetweenNotHere { span: NamedSpan, call: NamedSpan },
    /// The parent of a span, of another process, isn't here.
    CallerNotHere {
        span: NamedSpan,
        parent: SpanId,
        /// Whether the trace has pieces that begin in other services, which may have made the call.
        has_others: bool,
    },
    /// A span came without an end.
    NotEnded {
        span: NamedSpan,
        /// Whether it came in Zipkin's form, where a span may have no duration for other reasons.
        zipkin: bool,
    },
    /// A span is its own ancestor.
    OwnAncestor { span: NamedSpan },
    /// A request hangs beside the CLIENT span that made it.
    BesideItsCall {
        span: NamedSpan,
        call: NamedSpan,
        /// The parent of both.
        parent: NamedSpan,
    },
    /// The span of a request ended with a task, long after the answer.
    HeldOpen {
        span: NamedSpan,
        task: NamedSpan,
        /// For how much longer than the call the request's span was open, in nanoseconds.
        after: u64,
    },
    /// Requests follow each other below an INTERNAL span of their own service.
    RequestsBelow { span: NamedSpan, count: usize },
    /// An INTERNAL span ought to have another kind.
    WrongKind { span: NamedSpan, why: WrongKind },
    /// The HTTP status of a span is a failure, and its own status isn't error.
    StatusNotSet { span: NamedSpan, status: u16 },
    /// A call failed without an answer, and the span of the request that it made says nothing of that.
    CallerHungUp { span: NamedSpan, call: NamedSpan, request: Abandoned },
    /// Spans of a service start before the calls that they answered, or after these have ended.
    ClockSkew {
        caller: String,
        called: String,
        /// The largest difference.
        by: Skew,
    },
    /// A service has no name.
    NoServiceName { span: NamedSpan },
    /// One process has several versions of a library.
    MixedVersions { service: String, library: Library, versions: Vec<String> },
    /// The name of a span has a value in it.
    ValueInName {
        span: NamedSpan,
        value: String,
        /// How many other values stand in the same place of other names.
        others: usize,
    },
    /// A span has many INTERNAL spans right below it that are very short.
    TinySpans {
        parent: NamedSpan,
        count: usize,
        /// The median of their durations, in nanoseconds.
        median: u64,
    },
    /// An attribute of a span, of its events or of its resource holds a secret.
    Secret { span: NamedSpan, attribute: String, secret: Secret },
}

/// The span of another trace that was open around a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Around {
    /// The only request that its service answered at that time.
    Request(NamedSpan),
    /// The only call at that time that nobody has answered. The service of the root has no span of a request.
    Call(NamedSpan),
}

/// The end of a request whose caller hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// It ended without an answer.
    Dropped,
    /// It went on for this many nanoseconds longer than the call.
    WentOn(u64),
}

/// The place where a `traceparent` was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The header, or its request, was given by itself.
    Alone,
    /// It is one of several in a text.
    InText {
        /// The line of the request's first header, counted from 1.
        line: usize,
        /// The first value of the `traceparent`; empty without one.
        value: String,
    },
    /// It arrived at the service `to`.
    OnHop { hop: String, to: String },
    /// An instrumentation recorded it on the span of the request that brought it.
    OnSpan(NamedSpan),
}

/// Why an INTERNAL span ought to have another kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrongKind {
    /// Another service called it: it must be SERVER or CONSUMER.
    CalledBy(NamedSpan),
    /// It has an HTTP route, so it answers a request: it must be SERVER.
    HasRoute,
    /// It has a whole URL, and is a part of the work of its service, or another service answered it: it must be CLIENT.
    HasUrl,
}

impl WrongKind {
    /// The kind that the span ought to have. Of the two that a called span can have, it is SERVER.
    pub fn expected(&self) -> SpanKind {
        match self {
            WrongKind::CalledBy(_) | WrongKind::HasRoute => SpanKind::Server,
            WrongKind::HasUrl => SpanKind::Client,
        }
    }
}

/// A library that one process has several versions of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    /// An instrumentation scope, by its name.
    Scope(String),
    /// The OpenTelemetry SDK for a language.
    Sdk(String),
}

/// A span as a sentence names it. The names are as they came: show them by [`crate::tree::plain`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedSpan {
    pub name: String,
    pub kind: SpanKind,
    pub service: String,
}

impl NamedSpan {
    pub fn new(span: &Span) -> Self {
        NamedSpan {
            name: beginning(span.name()).to_owned(),
            kind: span.kind(),
            service: span.service().to_owned(),
        }
    }
}

/// How sure a finding is, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// The data proves it: nothing but a fault looks like this.
    Certain,
    /// Almost always a fault; a sound system can look like this in rare cases.
    Likely,
    /// A fault or a choice: somebody who knows the system must decide.
    WorthALook,
}

impl Evidence {
    /// How sure the evidence is.
    pub fn certainty(&self) -> Certainty {
        match self {
            Evidence::HeaderDropped { .. }
            | Evidence::HeaderInvalid { .. }
            | Evidence::HeaderReplaced { field: Field::TraceId, .. }
            | Evidence::HeaderRepeated { .. }
            | Evidence::HeadersJoined { .. }
            | Evidence::HeaderPlaceholder { seen: Seen::OnHop { .. } | Seen::OnSpan(_), .. }
            | Evidence::OwnAncestor { .. }
            | Evidence::StatusNotSet { status: 500.., .. }
            | Evidence::ClockSkew { .. }
            | Evidence::MixedVersions { library: Library::Sdk(_), .. } => Certainty::Certain,
            // A load balancer adds these two to every request, whether its caller traces or not.
            Evidence::ForeignFormat { format: Format::XRay | Format::GoogleCloud, .. } => {
                Certainty::WorthALook
            }
            Evidence::NothingArrived { .. }
            | Evidence::ForeignFormat { .. }
            // A log may write a missing header in this way.
            | Evidence::HeaderPlaceholder { .. }
            | Evidence::HeadersContradict { .. }
            // A proxy with spans of its own replaces the parent id.
            | Evidence::HeaderReplaced { .. }
            | Evidence::FallenApart { .. }
            | Evidence::SeveralRoots { .. }
            | Evidence::SharedId { .. }
            | Evidence::ParentNotHere { .. }
            | Evidence::ServiceBetweenNotHere { .. }
            | Evidence::CallerNotHere { has_others: true, .. }
            | Evidence::BesideItsCall { .. }
            | Evidence::WrongKind { .. }
            | Evidence::CallerHungUp { request: Abandoned::Dropped, .. }
            // A caller may expect a 404.
            | Evidence::StatusNotSet { .. }
            | Evidence::Secret { .. } => Certainty::Likely,
            Evidence::HeaderUnsampled { .. }
            | Evidence::FlagNotSet { .. }
            // The caller may export its spans elsewhere.
            | Evidence::CallerNotHere { .. }
            // A timer's work may fall into any request.
            | Evidence::RootWithin { .. }
            // So may that of a job, which begins with a call.
            | Evidence::ClientRoot { .. }
            | Evidence::CallerHungUp { .. }
            // A stream of an answer looks like a task, and a batch like a connection.
            | Evidence::HeldOpen { .. }
            | Evidence::RequestsBelow { .. }
            | Evidence::TinySpans { .. }
            | Evidence::NotEnded { .. }
            | Evidence::NoServiceName { .. }
            // Libraries of some languages may be there twice without harm.
            | Evidence::MixedVersions { .. }
            | Evidence::ValueInName { .. } => Certainty::WorthALook,
        }
    }

    /// The rule that looks for this.
    pub fn rule(&self) -> Rule {
        match self {
            Evidence::NothingArrived { .. } => Rule::NothingArrived,
            Evidence::HeaderDropped { .. }
            | Evidence::HeaderInvalid { .. }
            | Evidence::HeaderReplaced { .. }
            | Evidence::HeaderRepeated { .. }
            | Evidence::HeaderPlaceholder { .. }
            | Evidence::HeadersContradict { .. }
            | Evidence::HeadersJoined { .. } => Rule::BrokenHeader,
            Evidence::ForeignFormat { .. } => Rule::ForeignFormat,
            Evidence::HeaderUnsampled { .. } | Evidence::FlagNotSet { .. } => Rule::Unsampled,
            Evidence::FallenApart { .. } => Rule::FallenApart,
            Evidence::RootWithin { .. } => Rule::RootWithin,
            Evidence::ClientRoot { .. } => Rule::ClientRoot,
            Evidence::SeveralRoots { .. } | Evidence::SharedId { .. } => Rule::SeveralRoots,
            Evidence::ParentNotHere { .. } | Evidence::ServiceBetweenNotHere { .. } => {
                Rule::MissingSpans
            }
            Evidence::CallerNotHere { .. } => Rule::Orphan,
            Evidence::NotEnded { .. } => Rule::NotEnded,
            Evidence::OwnAncestor { .. } | Evidence::BesideItsCall { .. } => Rule::WrongParent,
            Evidence::HeldOpen { .. } => Rule::HeldOpen,
            Evidence::RequestsBelow { .. } => Rule::LongLived,
            Evidence::WrongKind { .. } => Rule::WrongKind,
            Evidence::StatusNotSet { .. } => Rule::StatusNotSet,
            Evidence::CallerHungUp { .. } => Rule::HungUp,
            Evidence::ClockSkew { .. } => Rule::ClockSkew,
            Evidence::NoServiceName { .. } => Rule::NoServiceName,
            Evidence::MixedVersions { .. } => Rule::MixedVersions,
            Evidence::ValueInName { .. } => Rule::HighCardinality,
            Evidence::TinySpans { .. } => Rule::TinySpans,
            Evidence::Secret { .. } => Rule::Secret,
        }
    }
}
