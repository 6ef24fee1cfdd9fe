//! A `traceparent`, byte by byte: what it says, or which byte is wrong.
//!
//! The rules are those of [Trace Context](https://www.w3.org/TR/trace-context-2/#traceparent-header), 3.2.

use std::fmt;

use crate::span::{SpanId, TraceId};

/// What a valid `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    pub trace_id: TraceId,
    /// The span that sent it.
    pub parent: SpanId,
    /// Whether the caller has recorded its span.
    pub sampled: bool,
}

/// Why a `traceparent` is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The first byte that is wrong, from 0; the length of the value where it ends too early.
    pub byte: usize,
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.byte, self.reason)
    }
}

/// The bytes of version 00: `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

/// The parts: their names, where they begin, and where they end.
const PARTS: [(&str, usize, usize); 4] = [
    ("the version", 0, 2),
    ("the trace id", 3, 35),
    ("the parent id", 36, 52),
    ("the flags", 53, 55),
];

/// Reads the value of a `traceparent` header, a character a byte.
///
/// # Errors
/// The first byte that is wrong, and why.
pub fn traceparent(value: &str) -> Result<Traceparent, Broken> {
    let characters: Vec<char> = value.chars().collect();
    let wrong = |byte, reason: String| Err(Broken { byte, reason });
    for (name, from, to) in PARTS {
        for byte in from..to {
            match characters.get(byte) {
                Some('0'..='9' | 'a'..='f') => {}
                Some(other @ 'A'..='F') => {
                    return wrong(byte, format!("{other:?} is in upper case, in {name}"));
                }
                Some(other) => {
                    return wrong(
                        byte,
                        format!("{other:?} is no hexadecimal digit, in {name}"),
                    );
                }
                None => return wrong(byte, format!("the value ends here, within {name}")),
            }
        }
        let digits = &characters[from..to];
        if name != "the flags" && name != "the version" && digits.iter().all(|it| *it == '0') {
            return wrong(from, format!("{name} is all zero"));
        }
        if name == "the version" && digits == ['f', 'f'] {
            return wrong(from, "version ff is not allowed".to_owned());
        }
        match (characters.get(to), to < LENGTH) {
            (Some('-'), true) | (None, false) => {}
            (Some('-'), false) if characters[..2] != ['0', '0'] => {}
            (Some(other), true) => {
                return wrong(
                    to,
                    format!("{other:?} stands where \"-\" must, behind {name}"),
                );
            }
            (Some(_), false) => {
                return wrong(to, format!("there is more behind {name}"));
            }
            (None, true) => return wrong(to, format!("the value ends here, behind {name}")),
        }
    }
    // All of it is ASCII by now.
    let (trace_id, parent) = (TraceId::parse(&value[3..35]), SpanId::parse(&value[36..52]));
    let flags = u8::from_str_radix(&value[53..55], 16);
    match (trace_id, parent, flags) {
        (Some(trace_id), Some(parent), Ok(flags)) => Ok(Traceparent {
            trace_id,
            parent,
            sampled: flags & 1 == 1,
        }),
        _ => wrong(0, "it cannot be read".to_owned()),
    }
}
