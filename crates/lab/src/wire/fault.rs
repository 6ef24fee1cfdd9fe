//! What can go wrong on a hop, on purpose.

use std::time::Duration;

use clap::ValueEnum;

use traces::traceparent::Field;

use super::{Hop, random_traceparent};

/// What [`Fault::AddLatency`] adds.
pub const LATENCY: Duration = Duration::from_millis(300);

/// One thing that a proxy does to every request of its hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// Drops the traceparent
    DropTraceparent,
    /// Replaces the traceparent by one of another trace
    ForgeTraceparent,
    /// Cuts the traceparent off after 30 bytes
    TruncateTraceparent,
    /// Writes the digits of the traceparent in upper case
    UpperCaseValue,
    /// Writes the name of the header as TRACEPARENT
    UpperCaseName,
    /// Sends the traceparent twice
    DuplicateTraceparent,
    /// Clears the sampled flag
    ClearSampled,
    /// Drops the tracestate
    DropTracestate,
    /// Drops the baggage
    DropBaggage,
    /// Holds the request back for 300 ms
    AddLatency,
    /// Cuts the connection
    Cut,
    /// Answers 500 itself
    #[value(name = "answer-500")]
    Answer500,
}

/// How a fault is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The request goes on, perhaps with another head.
    PassOn,
    /// The connection ends.
    Cut,
    /// The proxy answers 500, and the service never hears of it.
    ServerError,
}

impl Fault {
    /// The name in commands and addresses.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |it| it.get_name().to_owned())
    }

    /// What it does, in a few words.
    pub fn what(self) -> String {
        let value = self.to_possible_value();
        let help = value.and_then(|it| it.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    /// The fault of that name.
    ///
    /// # Errors
    /// In one sentence, which names there are.
    pub fn named(name: &str) -> Result<Fault, String> {
        Fault::from_str(name, false).map_err(|_| {
            let names: Vec<String> = Fault::value_variants().iter().map(|it| it.name()).collect();
            format!("there is no fault {name:?}: there are {}", names.join(", "))
        })
    }

    /// What becomes of a request.
    pub fn answer(self) -> Answer {
        match self {
            Fault::Cut => Answer::Cut,
            Fault::Answer500 => Answer::ServerError,
            _ => Answer::PassOn,
        }
    }

    /// How long a request is held back.
    pub fn latency(self) -> Duration {
        match self {
            Fault::AddLatency => LATENCY,
            _ => Duration::ZERO,
        }
    }

    /// The head of a request as it is passed on: all that the fault is not about stays as it came, byte by byte.
    pub fn apply(self, head: &[u8]) -> Vec<u8> {
        let mut changed = Vec::with_capacity(head.len() + 80);
        let mut forged = false;
        for (index, line) in head.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
            let (text, newline) = line.split_at(end.map_or(0, |end| end + 1));
            let colon = text
                .iter()
                .position(|byte| *byte == b':')
                .filter(|_| index > 0);
            let name = colon.map_or(&b""[..], |colon| &text[..colon]);
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
            let of_trace = is("traceparent");
            // The empty line behind the headers.
            if text.is_empty() && self == Fault::ForgeTraceparent && !forged {
                changed.extend(format!("traceparent: {}\r\n", random_traceparent()).bytes());
            }
            let value = |new: &dyn Fn(&[u8]) -> Vec<u8>| {
                let colon = colon.unwrap_or_default();
                let blanks = text[colon + 1..]
                    .iter()
                    .take_while(|byte| **byte == b' ')
                    .count();
                let (before, value) = text.split_at(colon + 1 + blanks);
                [before, &new(value)].concat()
            };
            let line = match self {
                Fault::DropTraceparent if of_trace => continue,
                Fault::DropTracestate if is("tracestate") => continue,
                Fault::DropBaggage if is("baggage") => continue,
                Fault::ForgeTraceparent if of_trace => {
                    forged = true;
                    value(&|_| random_traceparent().to_string().into_bytes())
                }
                Fault::TruncateTraceparent if of_trace => {
                    value(&|value| value.iter().take(30).copied().collect())
                }
                Fault::UpperCaseValue if of_trace => value(&|value| value.to_ascii_uppercase()),
                Fault::UpperCaseName if of_trace => {
                    [&name.to_ascii_uppercase(), &text[name.len()..]].concat()
                }
                Fault::DuplicateTraceparent if of_trace => [text, newline, text].concat(),
                Fault::ClearSampled if of_trace => value(&|value| unsampled(value)),
                _ => text.to_vec(),
            };
            changed.extend(line);
            changed.extend(newline);
        }
        changed
    }

    /// What happens to a request of which a hop has this fault: one sentence, for all services of the book.
    pub fn happens(self, hop: Hop) -> String {
        let Hop { from, to, .. } = hop;
        match self {
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
                "The digits must be in lower case: {to} does not accept the header, and begins a trace of its own."
            ),
            Fault::UpperCaseName => format!(
                "Names of headers are the same in any case: {to} finds TRACEPARENT as well, and the trace stays whole."
            ),
            Fault::DuplicateTraceparent => format!(
                "The SDK of {to} takes the first of the two, so the trace stays whole; a strict propagator takes neither."
            ),
            Fault::ClearSampled => format!(
                "{to} obeys the flag and records nothing, and so does whoever it calls: one trace is left, which ends at the call of {from}."
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
}

/// The flags without their lowest bit.
fn unsampled(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if let Some(digit) = value.get_mut(Field::Flags.range().end - 1)
        && let Some(number) = char::from(*digit).to_digit(16)
        && let Some(cleared) = char::from_digit(number & 14, 16)
    {
        *digit = cleared as u8;
    }
    value
}
