//! The faults that a proxy can cause.

use std::time::Duration;

use clap::ValueEnum;

use traces::traceparent::Field;

use super::random_traceparent;

/// The time by which [`Fault::AddLatency`] delays a request.
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

/// The name of a fault is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown fault {name:?}: use one of {}", names())]
pub struct UnknownFault {
    pub name: String,
}

fn names() -> String {
    let names = Fault::value_variants().iter().map(|fault| fault.name());
    names.collect::<Vec<_>>().join(", ")
}

/// The action of a proxy on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Forward the request, perhaps with a changed head.
    Forward,
    /// Close the connection.
    Cut,
    /// Answer 500 without forwarding the request.
    ServerError,
}

impl Fault {
    /// Returns the name of the fault in commands and URLs.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |it| it.get_name().to_owned())
    }

    /// Describes the fault in a few words.
    pub fn description(self) -> String {
        let value = self.to_possible_value();
        let help = value.and_then(|it| it.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    /// Finds a fault by its name.
    ///
    /// # Errors
    /// Fails when the name is unknown. The message lists the known names.
    pub fn named(name: &str) -> Result<Fault, UnknownFault> {
        Fault::from_str(name, false).map_err(|_| UnknownFault { name: name.to_owned() })
    }

    /// Returns the name of the header that a request must have for the fault to change it. `None` for a fault that changes every
    /// request.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Fault::DropTraceparent
            | Fault::TruncateTraceparent
            | Fault::UpperCaseValue
            | Fault::UpperCaseName
            | Fault::DuplicateTraceparent
            | Fault::ClearSampled => Some("traceparent"),
            Fault::DropTracestate => Some("tracestate"),
            Fault::DropBaggage => Some("baggage"),
            Fault::ForgeTraceparent | Fault::AddLatency | Fault::Cut | Fault::Answer500 => None,
        }
    }

    /// Returns the action of the proxy on a request.
    pub fn action(self) -> Action {
        match self {
            Fault::Cut => Action::Cut,
            Fault::Answer500 => Action::ServerError,
            _ => Action::Forward,
        }
    }

    /// Returns the time by which the proxy delays a request.
    pub fn latency(self) -> Duration {
        match self {
            Fault::AddLatency => LATENCY,
            _ => Duration::ZERO,
        }
    }

    /// Applies the fault to the head of a request. Returns the head to forward, in which all other bytes are unchanged.
    pub fn apply(self, head: &[u8]) -> Vec<u8> {
        let mut changed = Vec::with_capacity(head.len() + 80);
        let mut forged = false;
        for (index, line) in head.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
            let (text, newline) = line.split_at(end.map_or(0, |end| end + 1));
            let colon = text.iter().position(|byte| *byte == b':').filter(|_| index > 0);
            let name = colon.map_or(&b""[..], |colon| &text[..colon]);
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
            let is_traceparent = is("traceparent");
            // An empty line ends the headers.
            if text.is_empty() && self == Fault::ForgeTraceparent && !forged {
                changed.extend(format!("traceparent: {}\r\n", random_traceparent()).bytes());
            }
            let value = |new: &dyn Fn(&[u8]) -> Vec<u8>| {
                let colon = colon.unwrap_or_default();
                let blanks = text[colon + 1..].iter().take_while(|byte| **byte == b' ').count();
                let (before, value) = text.split_at(colon + 1 + blanks);
                [before, &new(value)].concat()
            };
            let line = match self {
                Fault::DropTraceparent if is_traceparent => continue,
                Fault::DropTracestate if is("tracestate") => continue,
                Fault::DropBaggage if is("baggage") => continue,
                Fault::ForgeTraceparent if is_traceparent => {
                    forged = true;
                    value(&|_| random_traceparent().to_string().into_bytes())
                }
                Fault::TruncateTraceparent if is_traceparent => {
                    value(&|value| value.iter().take(30).copied().collect())
                }
                Fault::UpperCaseValue if is_traceparent => {
                    value(&|value| value.to_ascii_uppercase())
                }
                Fault::UpperCaseName if is_traceparent => {
                    [&name.to_ascii_uppercase(), &text[name.len()..]].concat()
                }
                Fault::DuplicateTraceparent if is_traceparent => [text, newline, text].concat(),
                Fault::ClearSampled if is_traceparent => value(&|value| unsampled(value)),
                _ => text.to_vec(),
            };
            changed.extend(line);
            changed.extend(newline);
        }
        changed
    }
}

/// Clears the sampled flag in the value of a `traceparent`: the lowest bit of the flags.
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
