//! The header `traceparent`: its value as a type, a parser that says which byte is wrong, and a writer.
//!
//! The rules are those of [Trace Context Level 2](https://www.w3.org/TR/trace-context-2/#traceparent-header), section 3.2.
//! This module needs no feature of the crate and no OpenTelemetry.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The length of version 00 in bytes, and the least length of any later version.
pub(crate) const LENGTH: usize = 55;

/// Bit 0 of the flags: the caller may have recorded its span (TC Sampled Flag).
const SAMPLED: u8 = 1;

/// Bit 1 of the flags: the caller made the trace id at random (TC Random Trace ID Flag).
const RANDOM: u8 = 1 << 1;

/// The id of a trace: 16 bytes, shown as 32 lower-case hexadecimal digits. A valid id isn't all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span: 8 bytes, shown as 16 lower-case hexadecimal digits. A valid id isn't all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Reads exactly 32 hexadecimal digits, in either case; `None` for anything else.
    pub fn parse(hex: &str) -> Option<Self> {
        let number = number(hex, 32)?;
        Some(TraceId(number.to_be_bytes()))
    }
}

impl SpanId {
    /// Reads exactly 16 hexadecimal digits, in either case; `None` for anything else.
    pub fn parse(hex: &str) -> Option<Self> {
        let number = u64::try_from(number(hex, 16)?).ok()?;
        Some(SpanId(number.to_be_bytes()))
    }
}

fn number(hex: &str, length: usize) -> Option<u128> {
    let valid = hex.len() == length && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(hex, 16).ok().filter(|_| valid)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ids in JSON and other formats: text of hexadecimal digits.
#[cfg(feature = "serde")]
mod text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{SpanId, TraceId};

    impl Serialize for TraceId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl Serialize for SpanId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for TraceId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let hex = String::deserialize(deserializer)?;
            let id = TraceId::parse(&hex);
            id.ok_or_else(|| D::Error::custom(format!("{hex:?} is not 32 hexadecimal digits")))
        }
    }

    impl<'de> Deserialize<'de> for SpanId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let hex = String::deserialize(deserializer)?;
            let id = SpanId::parse(&hex);
            id.ok_or_else(|| D::Error::custom(format!("{hex:?} is not 16 hexadecimal digits")))
        }
    }
}

/// The content of a valid `traceparent`.
///
/// ```
/// use w3c_trace_context::Traceparent;
///
/// let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let traceparent: Traceparent = value.parse()?;
/// assert!(traceparent.sampled && !traceparent.random);
/// assert_eq!(traceparent.to_string(), value);
///
/// let invalid = Traceparent::parse("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01").unwrap_err();
/// assert_eq!(invalid.to_string(), "byte 4: 'B' is in upper case, in the trace id");
/// # Ok::<(), w3c_trace_context::traceparent::InvalidTraceparent>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    /// The trace that the request belongs to.
    pub trace_id: TraceId,
    /// The span that sent the request. The standard also calls it the parent id.
    pub parent_id: SpanId,
    /// Whether the caller may have recorded its span (TC Sampled Flag).
    pub sampled: bool,
    /// Whether the caller made the trace id at random (TC Random Trace ID Flag).
    pub random: bool,
}

impl Traceparent {
    /// Reads the value of a header, without white space around it. Of a version after 00 it reads the fields that
    /// version 00 has; flags that level 2 doesn't define are ignored (TC Versioning of traceparent, Other Flags).
    ///
    /// # Errors
    /// The first byte that is wrong, and why.
    pub fn parse(value: &str) -> Result<Self, InvalidTraceparent> {
        Traceparent::read(value).map_err(|flaw| flaw.explain(value))
    }

    /// Does the same as [`Traceparent::parse`] without looking for the byte, for the propagators, which need no explanation.
    pub(crate) fn read(value: &str) -> Result<Self, Flaw> {
        let [version] = bytes(value, Field::Version)?;
        if version == 0xff {
            return Err(Flaw::Version);
        }
        dash(value, Field::Version)?;
        let trace_id = not_zero(value, Field::TraceId)?;
        dash(value, Field::TraceId)?;
        let parent_id = not_zero(value, Field::ParentId)?;
        dash(value, Field::ParentId)?;
        let [flags] = bytes(value, Field::Flags)?;
        match (version, value.as_bytes().get(LENGTH)) {
            // What follows in a later version begins with a dash and isn't read.
            (_, None) | (1.., Some(b'-')) => Ok(Traceparent {
                trace_id: TraceId(trace_id),
                parent_id: SpanId(parent_id),
                sampled: flags & SAMPLED != 0,
                random: flags & RANDOM != 0,
            }),
            _ => Err(Flaw::Length),
        }
    }
}

impl FromStr for Traceparent {
    type Err = InvalidTraceparent;

    fn from_str(value: &str) -> Result<Self, InvalidTraceparent> {
        Traceparent::parse(value)
    }
}

/// The value of version 00, the highest that this crate knows (TC Versioning of traceparent).
impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = (u8::from(self.sampled) * SAMPLED) | (u8::from(self.random) * RANDOM);
        let mut value = [b'-'; LENGTH];
        put_hex(&mut value, Field::Version, &[0]);
        put_hex(&mut value, Field::TraceId, &self.trace_id.0);
        put_hex(&mut value, Field::ParentId, &self.parent_id.0);
        put_hex(&mut value, Field::Flags, &[flags]);
        f.pad(std::str::from_utf8(&value).map_err(|_| fmt::Error)?)
    }
}

/// A field of a `traceparent`, in the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Bytes 0 and 1.
    Version,
    /// Bytes 3 to 34.
    TraceId,
    /// Bytes 36 to 51.
    ParentId,
    /// Bytes 53 and 54.
    Flags,
}

impl Field {
    /// Its bytes, in a value of any version.
    pub const fn range(self) -> Range<usize> {
        match self {
            Field::Version => 0..2,
            Field::TraceId => 3..35,
            Field::ParentId => 36..52,
            Field::Flags => 53..LENGTH,
        }
    }
}

/// The name in a sentence: `the trace id`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Version => "the version",
            Field::TraceId => "the trace id",
            Field::ParentId => "the parent id",
            Field::Flags => "the flags",
        })
    }
}

/// Why a value isn't a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InvalidTraceparent {
    /// The first byte that is wrong, counted from 0; the length of the value where it ends too early.
    pub byte: usize,
    /// The reason why it is wrong.
    pub reason: Reason,
}

/// A reason why a byte of a `traceparent` is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A hexadecimal digit in upper case.
    UpperCase(char, Field),
    /// A character that isn't a hexadecimal digit.
    NotADigit(char, Field),
    /// The value ends within a field.
    EndsWithin(Field),
    /// The value ends after a field that isn't the last.
    EndsAfter(Field),
    /// An id of zeros.
    AllZero(Field),
    /// Version ff.
    ForbiddenVersion,
    /// A character other than a dash after a field.
    NoDash(char, Field),
    /// More bytes than the version has.
    TooLong,
}

impl fmt::Display for InvalidTraceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.byte, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::UpperCase(found, field) => write!(f, "{found:?} is in upper case, in {field}"),
            Reason::NotADigit(found, field) => {
                write!(f, "{found:?} is not a hexadecimal digit, in {field}")
            }
            Reason::EndsWithin(field) => write!(f, "the value ends here, within {field}"),
            Reason::EndsAfter(field) => write!(f, "the value ends here, after {field}"),
            Reason::AllZero(field) => write!(f, "{field} is all zero"),
            Reason::ForbiddenVersion => f.write_str("version ff is not allowed"),
            Reason::NoDash(found, field) => {
                write!(f, "{found:?} stands where \"-\" must, after {field}")
            }
            Reason::TooLong => write!(f, "there is more after {}", Field::Flags),
        }
    }
}

impl std::error::Error for InvalidTraceparent {}

/// The first flaw of a value, before anybody has looked for its byte.
pub(crate) enum Flaw {
    /// A field is too short or has something other than digits in it.
    Digits(Field),
    /// An id is all zero.
    Zero(Field),
    /// The version is ff.
    Version,
    /// A field is not followed by a dash.
    Dash(Field),
    /// The value is longer than its version.
    Length,
}

impl Flaw {
    fn explain(self, value: &str) -> InvalidTraceparent {
        // All bytes before the one that is wrong have been read, so they are ASCII.
        let character = |byte: usize| value.get(byte..)?.chars().next();
        let (byte, reason) = match self {
            Flaw::Digits(field) => {
                let Range { start, end } = field.range();
                let is_digit = |byte: usize| {
                    let digit = value.as_bytes().get(byte);
                    digit.is_some_and(|digit| DIGITS[usize::from(*digit)] != NOT_A_DIGIT)
                };
                let byte = (start..end).find(|byte| !is_digit(*byte)).unwrap_or(start);
                let reason = match character(byte) {
                    Some(found @ 'A'..='F') => Reason::UpperCase(found, field),
                    Some(found) => Reason::NotADigit(found, field),
                    None => Reason::EndsWithin(field),
                };
                (byte, reason)
            }
            Flaw::Zero(field) => (field.range().start, Reason::AllZero(field)),
            Flaw::Version => (Field::Version.range().start, Reason::ForbiddenVersion),
            Flaw::Dash(field) => {
                let byte = field.range().end;
                let found = character(byte).map(|found| Reason::NoDash(found, field));
                (byte, found.unwrap_or(Reason::EndsAfter(field)))
            }
            Flaw::Length => (LENGTH, Reason::TooLong),
        };
        InvalidTraceparent { byte, reason }
    }
}

/// The values of the lower-case hexadecimal digits by their ASCII code; `NOT_A_DIGIT` for all other bytes.
static DIGITS: [u8; 256] = {
    let mut digits = [NOT_A_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[HEX[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

const NOT_A_DIGIT: u8 = 0xff;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The bytes that the digits of a field stand for. Looks at every digit, which is faster than to stop at the first wrong
/// one.
fn bytes<const N: usize>(value: &str, field: Field) -> Result<[u8; N], Flaw> {
    let digits = value.as_bytes().get(field.range());
    let digits = digits.ok_or(Flaw::Digits(field))?;
    let (mut bytes, mut seen) = ([0; N], 0);
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks().0) {
        let [high, low] = pair.map(|digit: u8| DIGITS[usize::from(digit)]);
        *byte = high << 4 | low;
        seen |= high | low;
    }
    match seen {
        0..16 => Ok(bytes),
        _ => Err(Flaw::Digits(field)),
    }
}

/// The id of a field.
fn not_zero<const N: usize>(value: &str, field: Field) -> Result<[u8; N], Flaw> {
    let id = bytes(value, field)?;
    match id == [0; N] {
        true => Err(Flaw::Zero(field)),
        false => Ok(id),
    }
}

/// Whether there is a dash after a field.
fn dash(value: &str, field: Field) -> Result<(), Flaw> {
    match value.as_bytes().get(field.range().end) {
        Some(b'-') => Ok(()),
        _ => Err(Flaw::Dash(field)),
    }
}

/// Writes bytes as the digits of a field.
fn put_hex(value: &mut [u8; LENGTH], field: Field, bytes: &[u8]) {
    for (pair, byte) in value[field.range()].chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 0xf)];
    }
}
