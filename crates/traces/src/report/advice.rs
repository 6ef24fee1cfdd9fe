//! The advice for each rule: its heading, and the steps that repair the fault.

use crate::diagnose::{Evidence, Finding, Rule};
use crate::headers::{Contradiction, Format, Placeholder};
use crate::traceparent::{Field, Reason};

impl Finding {
    /// The steps that repair the fault: those for its evidence, or else those of its rule.
    pub fn advice(&self) -> &'static [&'static str] {
        match &self.evidence {
            Evidence::HeaderInvalid { invalid, .. } => of_invalid(invalid.reason),
            Evidence::HeaderPlaceholder { placeholder, .. } => match placeholder {
                Placeholder::Variable => &[
                    "Let the shell or the template replace the variable before it sends the header: in a shell, use double quotes and set the variable.",
                ],
                Placeholder::Empty | Placeholder::Null => &[
                    "If this is from a log, the request came without the header. If the caller sent it, let the propagator write the header: without a span, it sends none.",
                ],
            },
            Evidence::HeaderDropped { .. } => &[
                "Let what is between the two pass `traceparent` and `tracestate` on as they came: a gateway may pass known headers alone.",
            ],
            Evidence::HeaderReplaced { field: Field::TraceId, .. } => &[
                "Find what is between the two and begins a trace of its own: it must go on with the one that arrives.",
            ],
            Evidence::HeaderReplaced { .. } => &[
                "If what is between the two has spans of its own, export them here too. Otherwise let it pass the header on as it came.",
            ],
            Evidence::HeaderRepeated { .. } => &[
                "Look for a client that is instrumented twice, and for code that adds the header where it must replace the one that is there.",
            ],
            Evidence::HeadersContradict {
                contradiction: Contradiction::Sampling { .. }, ..
            } => &[
                "Look for a proxy or a library that decides about sampling again and changes one of the two headers. Let one tracer write both with a composite propagator, and decide once, where the trace begins.",
            ],
            Evidence::HeadersContradict { .. } => &[
                "Look for a second tracer in the caller, or a proxy that begins a trace of its own. Switch it off, or let one tracer write both headers with a composite propagator.",
            ],
            Evidence::HeadersJoined { .. } => &[
                "Find who adds the second `traceparent`: a proxy that starts a span must replace the header, and a client that is instrumented twice must inject once.",
            ],
            Evidence::ForeignFormat { format, .. } => of_format(*format),
            Evidence::SharedId { .. } => &[
                "Let the SDK make the ids, at random and in each process: copies of a process that forked after its generator was seeded make the same ones.",
            ],
            Evidence::NotEnded { zipkin: true, .. } => &[
                "If it is a message or an event, it has one moment, and nothing is wrong. Clients of version 1 leave the duration to the other side of the call, or to the annotations `cr` and `ss`: look whether that side has reported. Otherwise look for a span that is flushed and never finished.",
            ],
            _ => self.rule.cure(),
        }
    }
}

/// Returns what to do about a value that isn't valid.
fn of_invalid(reason: Reason) -> &'static [&'static str] {
    match reason {
        Reason::EndsWithin(_) | Reason::EndsAfter(_) => &[
            "Find what cuts the value off, such as a field or a log with a limit: it must pass on all 55 bytes.",
        ],
        Reason::UpperCase(..) => &[
            "Find what changes the value to upper case: it must pass the value on as the propagator wrote it.",
        ],
        Reason::AllZero(_) => &[
            "In the caller, set a tracer provider and start a span before the call: these zeros are the ids of a context without a span.",
        ],
        Reason::TooLong => &[
            "Find what adds to the value: version 00 ends with the flags, and more belongs in `tracestate`.",
        ],
        Reason::NotADigit(..) | Reason::NoDash(..) | Reason::ForbiddenVersion => &[
            "Let the propagator write the value, never code of your own, and let whatever passes it on leave it as it came.",
        ],
    }
}

/// Returns what to set when a caller sends another format.
fn of_format(format: Format) -> &'static [&'static str] {
    match format {
        Format::B3 => &[
            "In the caller, set OTEL_PROPAGATORS=tracecontext,baggage,b3 (in Rust, a composite propagator in the code), so that it sends `traceparent` too.",
            "Where you can't change the caller, such as a proxy or an older Zipkin client, set the same in the called service, which then reads both.",
        ],
        Format::B3Multi => &[
            "In the caller, set OTEL_PROPAGATORS=tracecontext,baggage,b3multi (in Rust, a composite propagator in the code), so that it sends `traceparent` too.",
            "Where you can't change the caller, such as a proxy or an older Zipkin client, set the same in the called service, which then reads both.",
        ],
        Format::Jaeger => &[
            "In the caller, replace the Jaeger client with OpenTelemetry, or set OTEL_PROPAGATORS=tracecontext,baggage,jaeger where it has that already.",
            "Where you can't change the caller, set the same in the called service (in Rust, a composite propagator in the code), which then reads both.",
        ],
        Format::Datadog => &[
            "In the caller, set DD_TRACE_PROPAGATION_STYLE=tracecontext,datadog, so that it sends `traceparent` too.",
        ],
        Format::XRay => &[
            "A load balancer or gateway of AWS adds this header to each request: see whether the caller behind it sends a `traceparent` at all.",
            "Where the caller traces with X-Ray, set OTEL_PROPAGATORS=tracecontext,baggage,xray in it (in Rust, a composite propagator in the code).",
        ],
        Format::GoogleCloud => &[
            "A load balancer of Google Cloud adds this header to each request: see whether the caller behind it sends a `traceparent` at all.",
            "Where the caller traces with this format, let it use the propagator of W3C Trace Context too.",
        ],
    }
}

impl Rule {
    /// The heading of its findings, and of its section in the guide.
    pub fn title(self) -> &'static str {
        match self {
            Rule::NothingArrived => "Nothing arrived",
            Rule::BrokenHeader => "A broken header",
            Rule::ForeignFormat => "Headers in another format",
            Rule::Unsampled => "Not sampled",
            Rule::FallenApart => "One request, several traces",
            Rule::RootWithin => "A root in the middle of a request",
            Rule::ClientRoot => "A trace that begins with a call",
            Rule::SeveralRoots => "Several roots",
            Rule::MissingSpans => "Spans are missing",
            Rule::Orphan => "An orphan",
            Rule::NotEnded => "A span without an end",
            Rule::WrongParent => "The wrong parent",
            Rule::HeldOpen => "A span held open by a task",
            Rule::LongLived => "Requests below one long span",
            Rule::WrongKind => "The wrong span kind",
            Rule::StatusNotSet => "A failure without an error status",
            Rule::HungUp => "A caller that hung up",
            Rule::ClockSkew => "Clocks differ",
            Rule::NoServiceName => "A service without a name",
            Rule::MixedVersions => "Two versions of one library",
            Rule::HighCardinality => "A name that never repeats",
            Rule::TinySpans => "Too many tiny spans",
            Rule::Secret => "A secret in a span",
        }
    }

    /// The steps that repair the fault: one sentence, or several in order.
    pub fn cure(self) -> &'static [&'static str] {
        match self {
            Rule::NothingArrived => &[
                "Wait for the next export: five seconds, unless OTEL_BSP_SCHEDULE_DELAY says otherwise.",
                "Stop the service so that it flushes: it must call `shutdown` on its provider at Ctrl-C and SIGTERM. Then read its log, which must let `opentelemetry` through: the SDK says there what it could not send.",
                "Compare the exporter's address with those that the lab prints: gRPC and HTTP have ports of their own, and over HTTP the path is /v1/traces, which OTEL_EXPORTER_OTLP_ENDPOINT gets by itself, and `with_endpoint` does not.",
                "Look for what switches spans off: a sampler in the code, OTEL_TRACES_SAMPLER, RUST_LOG where spans come from `tracing`, a `traceparent` whose sampled flag isn't set; in other SDKs also OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER.",
                "Make sure that the program sets a tracer provider and keeps it until the program ends.",
                "Send the span of the guide by hand: when it arrives, look in the service, and otherwise at the address and the network.",
            ],
            Rule::BrokenHeader => &[
                "Let a proxy pass `traceparent` on as it came, and a service send one that its propagator has written: once, and never by hand.",
            ],
            Rule::ForeignFormat => &[
                "Let the caller send `traceparent` too, or let the called service read both formats: set a composite propagator in its code.",
            ],
            Rule::Unsampled => &[
                "Find the first hop whose sampled flag isn't set. If it was set before, repair what clears it. Otherwise change the sampler of the service that begins the trace, in its code or by OTEL_TRACES_SAMPLER.",
            ],
            Rule::FallenApart => &[
                "In the caller, inject the current context into the headers of this call; in the called service, extract it and make it the parent before the span starts; and set a propagator in both.",
            ],
            Rule::RootWithin => &[
                "If it is a part of the request, pass the context to its task or thread, with `with_current_context`; or export the span of the request, if a filter or a sampler leaves it out. If it is work of its own, nothing is wrong.",
            ],
            Rule::ClientRoot => &[
                "If the call is a part of a request, pass the request's context to where the call is made. If the service calls on its own, such as from a timer, start an INTERNAL span around that work.",
            ],
            Rule::SeveralRoots => &[
                "Start the later spans below the context that was extracted: pass the whole context on, not the trace id alone.",
            ],
            Rule::MissingSpans => &[
                "See that every service exports to the same place, and calls `shutdown` on its provider before it ends; then look in its log for spans that were dropped.",
            ],
            Rule::Orphan => &[
                "If the caller is one of your services, export its spans here and sample them. If it belongs to somebody else, or is a command that sends no spans, such as `lab expect` or `curl`, nothing is wrong.",
            ],
            Rule::NotEnded => &[
                "If the request was still running, look at the trace again later. Otherwise look for a span that is never ended, or a process that was killed before it could send it.",
            ],
            Rule::WrongParent => &[
                "Inject from the context of the CLIENT span, while it is current; and hold no context guard across an await: wrap the future with `with_context`.",
            ],
            Rule::HeldOpen => &[
                "If the answer was a stream, nothing is wrong. Otherwise spawn the task with `with_current_context`, not with `.in_current_span()`: a `tracing` span ends only when nothing holds it.",
            ],
            Rule::LongLived => &[
                "Start each request without a parent, or with the parent from its headers, and link it to the connection's span if you need to find that.",
            ],
            Rule::WrongKind => &[
                "Set the kind where the span is started, with `with_kind`, or as the field `otel.kind` of `tracing`: SERVER for a request that is answered, CLIENT for one that is sent.",
            ],
            Rule::StatusNotSet => &[
                "Set the status to error, with `set_status`, or as the field `otel.status_code` of `tracing`: on a SERVER span for 500 and above, on a CLIENT span for 400 and above.",
            ],
            Rule::HungUp => &[
                "Record it: set the status of the SERVER span to error, with an `error.type`, when its work is dropped or its answer can't be sent. And give the called service less time than its caller waits.",
            ],
            Rule::ClockSkew => &[
                "Synchronise the clocks of the hosts (NTP). Until then, trust the durations, but not the positions of one service's spans against another's.",
            ],
            Rule::NoServiceName => &[
                "Set `service.name` in the resource, with `with_service_name` or OTEL_SERVICE_NAME.",
            ],
            Rule::MixedVersions => &[
                "Bring all crates that use it to one version: `cargo tree -d` shows the copies and who asked for them.",
            ],
            Rule::HighCardinality => &[
                "Name the span after the route or the operation, such as `GET /users/{id}`, and keep the value in an attribute.",
            ],
            Rule::TinySpans => &[
                "Record one span for the loop, with the count and the total time as attributes, or a histogram.",
            ],
            Rule::Secret => &[
                "Do not record it, with `skip` or `skip_all` of `#[instrument]` where that did, or redact it before export; and change the secret: it has been stored.",
            ],
        }
    }
}
