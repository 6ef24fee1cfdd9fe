//! The hops between the book's services and the outcome of each fault on them.

use lab::wire::{self, Fault, LATENCY};

/// The connection from a caller to one of the book's services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub name: &'static str,
    /// The caller.
    pub from: &'static str,
    /// The called service.
    pub to: &'static str,
}

impl From<Hop> for wire::Hop {
    fn from(hop: Hop) -> Self {
        wire::Hop { name: hop.name.into(), to: hop.to.into() }
    }
}

/// The hops of a request, in the order in which it passes them.
pub const HOPS: [Hop; 3] = [
    Hop { name: "client-gateway", from: "fault-lab", to: "api-gateway" },
    Hop { name: "gateway-user", from: "api-gateway", to: "user-service" },
    Hop { name: "user-llm", from: "user-service", to: "llm-service" },
];

/// Returns the hop to one of the book's services.
pub fn to(service: &str) -> Option<Hop> {
    HOPS.into_iter().find(|hop| hop.to == service)
}

/// Describes in one sentence what the book's services do with a request that meets `fault` on `hop`.
pub fn outcome(fault: Fault, hop: Hop) -> String {
    let Hop { from, to, .. } = hop;
    match fault {
        Fault::DropTraceparent => format!(
            "{to} finds no traceparent and begins a trace of its own; {from} gets its answer and notices nothing."
        ),
        Fault::ForgeTraceparent => format!(
            "{to} believes the forged header: its SERVER span is an orphan in another trace, and all that follows joins it there."
        ),
        Fault::TruncateTraceparent => format!(
            "A traceparent of 30 bytes is not valid, so {to} treats it as none and begins a trace of its own."
        ),
        Fault::UpperCaseValue => format!(
            "The digits must be in lower case, so {to} rejects the header and begins a trace of its own."
        ),
        Fault::UpperCaseName => format!(
            "Names of headers are the same in any case: {to} finds TRACEPARENT as well, and the trace stays whole."
        ),
        Fault::DuplicateTraceparent => format!(
            "The SDK of {to} takes the first of the two, so the trace stays whole; a strict propagator takes neither."
        ),
        Fault::ClearSampled => format!(
            "{to} and the services after it follow the flag and record nothing: one trace is left, which ends at the call of {from}."
        ),
        Fault::DropTracestate => format!(
            "The trace stays whole: tracestate is for vendors, and what they had to say is lost from {to} on."
        ),
        Fault::DropBaggage => format!(
            "The trace stays whole: baggage travels beside it, and from {to} on nobody can read it."
        ),
        Fault::AddLatency => format!(
            "One trace, and a gap in it: the CLIENT span of {from} begins more than {} ms before the SERVER span of {to}.",
            LATENCY.as_millis()
        ),
        Fault::Cut => format!(
            "{from} gets no answer: its CLIENT span is an error without a status, and {to} has no span, as it was never asked."
        ),
        Fault::Answer500 => format!(
            "{from} gets a 500 that {to} never sent: an error on the CLIENT span, and nothing below it."
        ),
    }
}
