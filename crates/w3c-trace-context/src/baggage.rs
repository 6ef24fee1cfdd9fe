//! The propagator of `baggage`: a list of `KEY=VALUE;PROPERTY;…`, values percent-encoded.

use std::borrow::Cow;
use std::sync::LazyLock;

use opentelemetry::baggage::{Baggage, BaggageExt as _, BaggageMetadata};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::{Context, StringValue};

use crate::trim;

const BAGGAGE: &str = "baggage";
static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [BAGGAGE.into()]);

/// The most bytes of a header that is sent: the minimum that the standard asks for (B Limits). The other limit is 64 entries,
/// which OpenTelemetry's `Baggage` enforces.
const MAX_BYTES: usize = 8192;

/// The bytes that are reserved for each entry before a header is written.
const USUAL_LENGTH: usize = 32;

/// Reads and writes `baggage`. It replaces the propagator of the same name in `opentelemetry_sdk`.
///
/// An entry that isn't valid is ignored, and so is one that no longer fits: the header that passes the baggage on has at
/// most 64 entries and 8192 bytes. Of two entries with one key, the last counts. The properties of an entry are kept as they
/// came.
#[derive(Debug, Clone, Default)]
pub struct BaggagePropagator {
    _private: (),
}

impl BaggagePropagator {
    /// The propagator has no settings.
    pub fn new() -> Self {
        BaggagePropagator::default()
    }
}

impl TextMapPropagator for BaggagePropagator {
    /// Writes no header if the baggage is empty. An application can set any text as properties: those that can't be written
    /// as the standard asks are left out.
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let mut header = String::with_capacity(cx.baggage().len() * USUAL_LENGTH);
        for (key, (value, properties)) in cx.baggage() {
            let before = header.len();
            if before > 0 {
                header.push(',');
            }
            header.push_str(key.as_str());
            header.push('=');
            push_encoded(&mut header, value.as_str(), is_plain);
            push_properties(&mut header, properties.as_str());
            if header.len() > MAX_BYTES {
                header.truncate(before);
            }
        }
        if !header.is_empty() {
            injector.set(BAGGAGE, header);
        }
    }

    /// The entries that came; `cx` itself where none is valid.
    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let headers = extractor.get_all(BAGGAGE).unwrap_or_default();
        let mut baggage = Baggage::new();
        // The length of the header that passes the entries on, with a comma after each.
        let mut bytes = 0;
        for entry in headers.iter().flat_map(|header| header.split(',')) {
            let Some((key, value, properties)) = parse(entry) else {
                continue;
            };
            let length = sent_length(key, &value, properties);
            let length_of = |(value, properties): &(StringValue, BaggageMetadata)| {
                sent_length(key, value.as_str(), properties.as_str())
            };
            if bytes + length > MAX_BYTES + 1 {
                let replaced = baggage.get_with_metadata(key).map_or(0, length_of);
                if bytes - replaced + length > MAX_BYTES + 1 {
                    continue;
                }
            }
            // `Baggage` refuses keys that aren't tokens, and the 65th entry.
            let entries = baggage.len();
            match baggage.insert_with_metadata(key.to_owned(), value.into_owned(), properties) {
                Some(replaced) => bytes = bytes - length_of(&replaced) + length,
                None if baggage.len() > entries => bytes += length,
                None => {}
            }
        }
        match baggage.is_empty() {
            true => cx.clone(),
            false => cx.with_baggage(baggage),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&*FIELDS)
    }
}

/// The key, the decoded value and the properties of an entry; `None` if one of them isn't valid (B Definition). `Baggage`
/// checks the key later.
fn parse(entry: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (pair, properties) = match entry.split_once(';') {
        Some((_, properties)) if !properties.split(';').all(is_property) => return None,
        Some((pair, properties)) => (pair, trim(properties)),
        None => (entry, ""),
    };
    let (key, value) = pair.split_once('=')?;
    let value = trim(value);
    value.bytes().all(is_octet).then(|| (trim(key), decode(value), properties))
}

/// Whether text is one property: a key, or a key and a value (B property).
fn is_property(text: &str) -> bool {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    is_token(trim(key)) && trim(value).bytes().all(is_octet)
}

/// Whether text is a key (RFC 7230, 3.2.6).
fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// A character of a value: printable, and neither a space nor one of `",;\` (B Definition).
fn is_octet(byte: u8) -> bool {
    OCTETS[usize::from(byte)]
}

/// A look-up in a table is faster than comparisons.
static OCTETS: [bool; 256] = {
    let mut octets = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        octets[byte as usize] = !matches!(byte, b'"' | b',' | b';' | b'\\');
        byte += 1;
    }
    octets
};

/// Whether a byte stands for itself in a value. A percent sign doesn't, because it begins a sequence (B value).
fn is_plain(byte: u8) -> bool {
    is_octet(byte) && byte != b'%'
}

/// The length of an entry in the header that is sent, with a comma behind it.
fn sent_length(key: &str, value: &str, properties: &str) -> usize {
    let properties = if properties.is_empty() { 0 } else { 1 + properties.len() };
    key.len() + 1 + encoded_length(value) + properties + 1
}

fn encoded_length(value: &str) -> usize {
    value.bytes().fold(0, |length, byte| length + if is_plain(byte) { 1 } else { 3 })
}

/// Writes properties. Those that came in a header are valid, and are written as they came.
fn push_properties(header: &mut String, properties: &str) {
    let properties = trim(properties);
    if properties.is_empty() {
        return;
    }
    if properties.split(';').all(is_property) {
        header.push(';');
        header.push_str(properties);
        return;
    }
    for property in properties.split(';') {
        let (key, value) = match property.split_once('=') {
            Some((key, value)) => (trim(key), Some(trim(value))),
            None => (trim(property), None),
        };
        if is_token(key) {
            header.push(';');
            header.push_str(key);
            if let Some(value) = value {
                header.push('=');
                // A percent sign in a property is passed on as it came.
                push_encoded(header, value, is_octet);
            }
        }
    }
}

fn push_encoded(text: &mut String, value: &str, is_plain: fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if is_plain(byte) {
            text.push(byte.into());
        } else {
            text.push('%');
            text.push(DIGITS[usize::from(byte >> 4)].into());
            text.push(DIGITS[usize::from(byte & 0xf)].into());
        }
    }
}

/// The text that a value stands for. A percent sign without two digits behind it is one; bytes that are not UTF-8
/// become U+FFFD (B value).
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return value.into();
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        match others {
            [high, low, others @ ..] if *first == b'%' => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = others;
                }
                _ => bytes.push(b'%'),
            },
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        .into()
}

/// The value of a hexadecimal digit in either case.
fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
