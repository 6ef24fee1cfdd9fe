//! The header `traceparent`: `VERSION-TRACE_ID-PARENT_ID-FLAGS`, in lower-case hexadecimal digits.

use opentelemetry::trace::{SpanId, TraceFlags, TraceId};

use crate::OWS;

/// The length of version 00, and the least of any later one.
const LENGTH: usize = 55;

/// The flags that level 2 defines: sampled (bit 0) and random (bit 1). Others are neither used nor passed on
/// (TC Other Flags).
const KNOWN_FLAGS: u8 = 0b11;

/// Set where the caller made the trace id at random (TC Random Trace ID Flag).
pub const RANDOM: TraceFlags = TraceFlags::new(0b10);

/// The caller's span; nothing where the value is not valid (TC traceparent Header Field Values, Versioning of traceparent).
pub fn parse(value: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let value = value.trim_matches(OWS).as_bytes();
    let (fields, rest) = value.split_at_checked(LENGTH)?;
    if [fields[2], fields[35], fields[52]] != [b'-'; 3] {
        return None;
    }
    let version = hex(&fields[0..2])?;
    match (version, rest) {
        // Version ff is forbidden.
        (0xff, _) => return None,
        (_, []) => {}
        // What follows in a later version begins with a dash, and is not read.
        (1.., [b'-', ..]) => {}
        _ => return None,
    }
    let trace_id = hex(&fields[3..35])?;
    let parent_id = hex(&fields[36..52])?;
    let flags = hex(&fields[53..55])?;
    if trace_id == 0 || parent_id == 0 {
        return None;
    }
    let (parent_id, flags) = (u64::try_from(parent_id).ok()?, u8::try_from(flags).ok()?);
    let flags = TraceFlags::new(flags & KNOWN_FLAGS);
    Some((trace_id.into(), parent_id.into(), flags))
}

/// The number that up to 32 lower-case hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u128> {
    let mut number = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    Some(number)
}

/// The value of version 00, the highest that this crate knows (TC Versioning of traceparent).
pub fn format(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> String {
    let mut value = String::with_capacity(LENGTH);
    value.push_str("00-");
    push_hex(&mut value, &trace_id.to_bytes());
    value.push('-');
    push_hex(&mut value, &span_id.to_bytes());
    value.push('-');
    push_hex(&mut value, &[flags.to_u8() & KNOWN_FLAGS]);
    value
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 0xf)].into());
    }
}
