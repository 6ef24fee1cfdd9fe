//! The faults that a proxy can produce.

use std::time::Duration;

use clap::ValueEnum;

use traces::traceparent::Field;

use super::random_traceparent;

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

/// There is no fault of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault {name:?}: there are {}", names())]
pub struct UnknownFault {
    pub name: String,
}

fn names() -> String {
    let names = Fault::value_variants().iter().map(|fault| fault.name());
    names.collect::<Vec<_>>().join(", ")
}

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The request goes on, perhaps with another head.
    PassOn,
    /// The connection ends.
    Cut,
    /// The proxy answers 500 itself; the service gets nothing.
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
    /// With the names that there are.
    pub fn named(name: &str) -> Result<Fault, UnknownFault> {
        Fault::from_str(name, false).map_err(|_| UnknownFault {
            name: name.to_owned(),
        })
    }

    /// What the proxy does with a request.
    pub fn answer(self) -> Answer {
        match self {
            Fault::Cut => Answer::Cut,
            Fault::Answer500 => Answer::ServerError,
            _ => Answer::PassOn,
        }
    }

    /// How long the proxy holds a request back.
    pub fn latency(self) -> Duration {
        match self {
            Fault::AddLatency => LATENCY,
            _ => Duration::ZERO,
        }
    }

    /// The head of a request as the proxy passes it on. What the fault doesn't change stays as it came, byte by byte.
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
            // The empty line after the headers.
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
