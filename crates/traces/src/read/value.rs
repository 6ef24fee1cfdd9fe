//! Converts values that the forms of traces have in common: ids, times, numbers and attributes.

use crate::proto::common::any_value::Value;
use crate::proto::common::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use crate::proto::logs::{ResourceLogs, SeverityNumber};
use crate::proto::trace::span::SpanKind;
use crate::proto::trace::status::StatusCode;
use crate::proto::trace::{ResourceSpans, Status};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::json::Json;
use crate::span::shortened;

/// A value that can't be read. It is left out, and everything around it is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}the {what} {name:?} is left out: {value} is {flaw}", span.as_ref().map_or(String::new(), |span| format!("span {span:?}: ")))]
pub struct LeftOut {
    /// The first hundred characters of the span's name; `None` for an attribute of a resource or scope.
    pub span: Option<String>,
    /// `attribute` or `field`.
    pub what: &'static str,
    /// The attribute's key or the field's name, cut like the span's name.
    pub name: String,
    /// The first hundred characters of the value.
    pub value: String,
    pub flaw: Flaw,
}

/// Why a value can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("not an integer of 64 bits")]
    Integer,
    #[error("not a number")]
    Number,
    #[error("neither true nor false")]
    Bool,
    #[error("not base64")]
    Base64,
    #[error("not a time")]
    Time,
}

/// Collects the values that can't be read, for the span or resource that is being read.
#[derive(Debug, Default)]
pub struct Losses {
    pub span: Option<String>,
    /// The place of the span's name in the text.
    span_offset: Option<usize>,
    /// The address of the document's text, and its length.
    text: (usize, usize),
    /// The number of all of them.
    pub count: usize,
    /// The first hundred, each with the place of the value or of its span's name in the text, as far as that is known.
    pub first: Vec<(Option<usize>, LeftOut)>,
}

impl Losses {
    /// The largest number of values to describe.
    const DESCRIBED: usize = 100;

    /// Collects from a document with this text.
    pub fn of(text: &str) -> Self {
        Losses { text: (text.as_ptr() as usize, text.len()), ..Losses::default() }
    }

    /// Returns the place of a part of the text; `None` for any other text.
    fn offset(&self, part: &str) -> Option<usize> {
        let (start, length) = self.text;
        (part.as_ptr() as usize).checked_sub(start).filter(|offset| *offset < length)
    }

    /// Names the span whose values are read from here on.
    pub fn enter(&mut self, span: &str) {
        self.span_offset = self.offset(span);
        self.span = Some(shortened(span, 100));
    }

    /// Says that the values of a resource or scope are read from here on.
    pub fn leave(&mut self) {
        self.span = None;
        self.span_offset = None;
    }

    fn add(&mut self, what: &'static str, name: &str, value: &Json, flaw: Flaw) {
        self.count += 1;
        if self.first.len() < Self::DESCRIBED {
            let offset = self.offset(name).or_else(|| self.offset(value.text()));
            let offset = offset.or(self.span_offset);
            let (name, value) = (shortened(name, 100), shortened(&value.to_string(), 100));
            let span = self.span.clone();
            self.first.push((offset, LeftOut { span, what, name, value, flaw }));
        }
    }

    /// Takes a field's value. If it can't be read, notes that and returns the default.
    pub fn field<T: Default>(&mut self, name: &str, value: &Json, read: Result<T, Flaw>) -> T {
        read.unwrap_or_else(|flaw| {
            self.add("field", name, value, flaw);
            T::default()
        })
    }

    /// Takes an attribute. If its value can't be read, notes that and leaves the attribute out.
    pub fn attribute(
        &mut self,
        key: &str,
        value: &Json,
        read: Result<Option<Value>, Flaw>,
    ) -> Option<KeyValue> {
        match read {
            Ok(value) => Some(attribute(key, value)),
            Err(flaw) => {
                self.add("attribute", key, value, flaw);
                None
            }
        }
    }
}

/// An attribute, or one without a value.
pub fn attribute(key: &str, value: Option<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
}

/// An attribute with a text.
pub fn text_attribute(key: &str, text: &str) -> KeyValue {
    attribute(key, Some(Value::StringValue(text.to_owned())))
}

/// Reads an id of `N` bytes: hexadecimal digits in any case, also with `0x` in front or without leading zeros, or base64, as
/// protobuf's own JSON has it; for a span also a number, as Go's has it. Returns no bytes for an absent id, and the id's own bytes, too few or too many, for a wrong one.
pub fn id<const N: usize>(value: &Json) -> Vec<u8> {
    if let Json::Int(number) = value
        && N == 8
    {
        return number.to_be_bytes().to_vec();
    }
    let text = value.text().trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex && digits.len() <= 2 * N && !digits.is_empty() {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => byte - b'0',
            _ => byte.to_ascii_lowercase() - b'a' + 10,
        };
        let mut id = vec![0; N];
        for (index, byte) in digits.bytes().rev().enumerate() {
            id[N - 1 - index / 2] |= digit(byte) << (4 * (index % 2));
        }
        return id;
    }
    base64(text).unwrap_or_else(|| text.as_bytes().to_vec())
}

/// Gives ids of another length than OTLP has, such as `span-1` in an example, ids made from their text, so that what belongs
/// together stays together. Returns the number of spans with such ids.
pub fn rename_ids(
    resource_spans: &mut [ResourceSpans],
    resource_logs: &mut [ResourceLogs],
) -> usize {
    fn rename<const N: usize>(id: &mut Vec<u8>) -> bool {
        if id.is_empty() || id.len() == N {
            return false;
        }
        // FNV-1a, so that each version of the lab gives the same ids.
        let hash = id.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = fastrand::Rng::with_seed(hash);
        *id = [random.u64(1..), random.u64(..)].map(u64::to_be_bytes).concat()[..N].to_vec();
        true
    }
    let scopes = resource_logs.iter_mut().flat_map(|it| &mut it.scope_logs);
    for record in scopes.flat_map(|it| &mut it.log_records) {
        rename::<16>(&mut record.trace_id);
        rename::<8>(&mut record.span_id);
    }
    let scopes = resource_spans.iter_mut().flat_map(|it| &mut it.scope_spans);
    let spans = scopes.flat_map(|it| &mut it.spans);
    let renamed = spans.filter_map(|span| {
        for link in &mut span.links {
            rename::<16>(&mut link.trace_id);
            rename::<8>(&mut link.span_id);
        }
        let renamed = rename::<16>(&mut span.trace_id)
            | rename::<8>(&mut span.span_id)
            | rename::<8>(&mut span.parent_span_id);
        renamed.then_some(())
    });
    renamed.count()
}

/// Reads the id of a parent. Returns no bytes for a root, whose parent id is absent or all zero.
pub fn parent_id(value: &Json) -> Vec<u8> {
    let id = id::<8>(value);
    match id.iter().all(|byte| *byte == 0) {
        true => Vec::new(),
        false => id,
    }
}

/// Decodes base64 in its usual alphabet or in that of URLs, with or without padding.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}

/// Reads an integer: a number, also one such as `1e3`, or its text. `Null` is 0.
pub fn int(value: &Json) -> Result<i64, Flaw> {
    // 2^63, the first number past the integers of 64 bits.
    const END: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Json::Null => Ok(0),
        Json::Int(number) => Ok(*number),
        Json::Float(number) if number.fract() == 0.0 && (-END..END).contains(number) => {
            Ok(*number as i64)
        }
        Json::Text(text) => text.trim().parse().map_err(|_| Flaw::Integer),
        _ => Err(Flaw::Integer),
    }
}

/// Reads an integer without a sign, like [`int`].
pub fn unsigned(value: &Json) -> Result<u64, Flaw> {
    match value {
        Json::Big(number) => Ok(*number),
        // The two halves of a number, as JavaScript's `Long` has it.
        Json::Object(_) if value.has("low") && value.has("high") => {
            let half = |name: &str| Ok((int(value.get(name))? & 0xffff_ffff) as u64);
            Ok(half("high")? << 32 | half("low")?)
        }
        Json::Text(text) => match text.trim() {
            "" => Ok(0),
            digits => digits.parse().map_err(|_| Flaw::Integer),
        },
        _ => u64::try_from(int(value)?).map_err(|_| Flaw::Integer),
    }
}

/// Reads an integer of 32 bits without a sign, such as a count of what was dropped.
pub fn count(value: &Json) -> Result<u32, Flaw> {
    u32::try_from(unsigned(value)?).map_err(|_| Flaw::Integer)
}

/// Reads a number, or one of the texts that protobuf's JSON has for numbers that JSON lacks, such as `NaN`.
pub fn double(value: &Json) -> Result<f64, Flaw> {
    match value {
        Json::Null => Ok(0.0),
        Json::Int(number) => Ok(*number as f64),
        Json::Big(number) => Ok(*number as f64),
        Json::Float(number) => Ok(*number),
        Json::Text(text) => text.trim().parse().map_err(|_| Flaw::Number),
        _ => Err(Flaw::Number),
    }
}

/// Reads `true` or `false`, also as text.
pub fn boolean(value: &Json) -> Result<bool, Flaw> {
    match value {
        Json::Null => Ok(false),
        Json::Bool(value) => Ok(*value),
        Json::Text(text) => text.trim().to_ascii_lowercase().parse().map_err(|_| Flaw::Bool),
        _ => Err(Flaw::Bool),
    }
}

/// Reads microseconds, with fractions or without, as nanoseconds.
pub fn microseconds(value: &Json) -> Result<u64, Flaw> {
    match value {
        Json::Float(_) => {
            let nanoseconds = double(value)? * 1e3;
            // The cast ends at the largest number.
            if nanoseconds >= 0.0 { Ok(nanoseconds as u64) } else { Err(Flaw::Time) }
        }
        _ => Ok(unsigned(value).map_err(|_| Flaw::Time)?.saturating_mul(1000)),
    }
}

/// Reads a time of [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339#section-5.6) in nanoseconds since 1970. Earlier times, such
/// as Go's zero `0001-01-01T00:00:00Z`, and `null` are 0.
pub fn timestamp(value: &Json) -> Result<u64, Flaw> {
    match value {
        Json::Null => return Ok(0),
        // Seconds and nanoseconds, as JavaScript's SDK has them.
        Json::Array(parts) if parts.len() == 2 => {
            let (seconds, rest) = (unsigned(&parts[0])?, unsigned(&parts[1])?);
            return Ok(seconds.saturating_mul(1_000_000_000).saturating_add(rest));
        }
        _ => {}
    }
    nanoseconds(value.text().trim()).ok_or(Flaw::Time)
}

fn nanoseconds(text: &str) -> Option<u64> {
    let (date_and_time, rest) = text.split_at_checked(19)?;
    let [year, month, day, hour, minute, second] = numbers(date_and_time, "0000-00-00T00:00:00")?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // The second 60 is a leap second.
    let in_range = (1..=12).contains(&month)
        && (1..=last).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let (fraction, zone) = match rest.strip_prefix(['.', ',']) {
        Some(rest) => {
            let end = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, zone) = rest.split_at(end);
            let nine = digits.chars().chain("000000000".chars()).take(9);
            (nine.collect::<String>().parse().ok().filter(|_| end > 0)?, zone)
        }
        None => (0, rest),
    };
    let offset = match zone {
        "" | "Z" | "z" => 0,
        _ => {
            let (sign, digits) = zone.split_at_checked(1)?;
            let [hours, minutes] = numbers(digits, "00:00")
                .or_else(|| numbers(digits, "0000").map(|[both]| [both / 100, both % 100]))
                .or_else(|| numbers(digits, "00").map(|[hours]| [hours, 0]))?;
            let minutes = Some(60 * hours + minutes).filter(|_| hours < 24 && minutes < 60)?;
            match sign {
                "+" => minutes,
                "-" => -minutes,
                _ => return None,
            }
        }
    };
    // Days from 1970, counted in years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days - 719_468;
    let seconds = (days * 24 + hour) * 3600 + (minute - offset) * 60 + second;
    let nanoseconds = match u64::try_from(seconds) {
        Ok(seconds @ 1..) => seconds.saturating_mul(1_000_000_000).saturating_add(fraction),
        _ => 0,
    };
    in_range.then_some(nanoseconds)
}

/// Reads the numbers of a text that has the shape of another: a digit for each 0, and the same characters between them. `T` may
/// also be `t` or a space.
fn numbers<const N: usize>(text: &str, shape: &str) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut index = 0;
    if text.len() != shape.len() {
        return None;
    }
    for (byte, expected) in text.bytes().zip(shape.bytes()) {
        match expected {
            b'0' if byte.is_ascii_digit() => {
                let number = numbers.get_mut(index)?;
                *number = *number * 10 + i64::from(byte - b'0');
            }
            b'T' if matches!(byte, b'T' | b't' | b' ') => index += 1,
            _ if byte == expected && expected != b'0' => index += 1,
            _ => return None,
        }
    }
    Some(numbers)
}

/// Reads a kind: its number in OTLP, or its name in any of the spellings `SPAN_KIND_SERVER`, `SpanKind.SERVER` and `server`.
pub fn kind(value: &Json) -> SpanKind {
    let name = value.text().to_ascii_lowercase();
    match name.rsplit(['.', '_']).next().unwrap_or_default() {
        "internal" => SpanKind::Internal,
        "server" => SpanKind::Server,
        "client" => SpanKind::Client,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        _ => {
            let number = i32::try_from(int(value).unwrap_or_default());
            number.map_or(SpanKind::Unspecified, |it| {
                SpanKind::try_from(it).unwrap_or(SpanKind::Unspecified)
            })
        }
    }
}

/// Reads the severity of a log record: its number in OTLP, or its name, such as `SEVERITY_NUMBER_WARN2`.
pub fn severity(value: &Json) -> i32 {
    match SeverityNumber::from_str_name(value.text()) {
        Some(severity) => severity.into(),
        None => i32::try_from(int(value).unwrap_or_default()).unwrap_or_default(),
    }
}

/// Reads a status: its code as the number in OTLP, or as its name, such as `STATUS_CODE_ERROR`, `Error` or `ERROR`.
pub fn status(code: &Json, message: &str) -> Option<Status> {
    let name = code.text().to_ascii_lowercase();
    let code = match name.rsplit(['.', '_']).next().unwrap_or_default() {
        "ok" => StatusCode::Ok,
        "error" => StatusCode::Error,
        _ => match int(code) {
            Ok(1) => StatusCode::Ok,
            Ok(2) => StatusCode::Error,
            _ => StatusCode::Unset,
        },
    };
    match code == StatusCode::Unset && message.is_empty() {
        true => None,
        false => Some(Status { code: code.into(), message: message.to_owned() }),
    }
}

/// Takes a value as JSON itself has it: a text, a number, a list, a map.
pub fn plain(value: &Json) -> Option<Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(value) => Value::BoolValue(*value),
        Json::Int(value) => Value::IntValue(*value),
        // As text, none of its digits is lost.
        Json::Big(value) => Value::StringValue(value.to_string()),
        Json::Float(value) => Value::DoubleValue(*value),
        Json::Text(text) => Value::StringValue(text.to_string()),
        Json::Array(items) => {
            let values = items.iter().map(|item| AnyValue { value: plain(item) });
            Value::ArrayValue(ArrayValue { values: values.collect() })
        }
        Json::Object(_) => Value::KvlistValue(KeyValueList { values: plain_map(value) }),
    })
}

/// Takes a map of plain values as attributes.
pub fn plain_map(map: &Json) -> Vec<KeyValue> {
    map.fields().iter().map(|(key, value)| attribute(key, plain(value))).collect()
}
