//! The propagator of `baggage`: a list of `KEY=VALUE;PROPERTY;…`, values percent-encoded.

use std::borrow::Cow;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt as _};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};

use crate::OWS;

const BAGGAGE: &str = "baggage";
static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [BAGGAGE.into()]);

/// The standard's minimum, which is also the maximum here (B Limits).
const MAX_ENTRIES: usize = 64;
/// In bytes, of all entries as they stand in the header, with the commas between them.
const MAX_BYTES: usize = 8192;

/// Reads and writes `baggage`. It replaces the propagator of the same name in `opentelemetry_sdk`.
///
/// An entry that is not valid is left out, and so is one that no longer fits into 64 entries and 8192 bytes. Of two
/// entries with one key, the last counts. The properties of an entry are kept as they came.
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
    /// Writes no header if the baggage is empty.
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let mut header = String::new();
        for (key, (value, properties)) in cx.baggage() {
            let before = header.len();
            if before > 0 {
                header.push(',');
            }
            header.push_str(key.as_str());
            header.push('=');
            push_encoded(&mut header, value.as_str(), is_plain);
            if !properties.as_str().is_empty() {
                header.push(';');
                push_encoded(&mut header, properties.as_str(), is_plain_in_properties);
            }
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
        let (mut entries, mut bytes) = (0, 0);
        for entry in headers.iter().flat_map(|header| header.split(',')) {
            let Some((key, value, properties)) = parse(entry) else {
                continue;
            };
            entries += 1;
            bytes += entry.len() + 1;
            if entries > MAX_ENTRIES || bytes > MAX_BYTES + 1 {
                break;
            }
            baggage.insert_with_metadata(key.to_owned(), value.into_owned(), properties);
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

/// The key, the decoded value and the properties of an entry; `None` if one of them isn't valid (B Definition). The key is
/// checked later: `Baggage` takes only tokens.
fn parse(entry: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (entry, properties) = entry.split_once(';').unwrap_or((entry, ""));
    let (key, value) = entry.split_once('=')?;
    let (key, value) = (key.trim_matches(OWS), value.trim_matches(OWS));
    let properties = properties.trim_matches(OWS);
    let valid = value.bytes().all(is_octet)
        && properties.bytes().all(|byte| is_octet(byte) || b"; \t".contains(&byte));
    valid.then(|| (key, decode(value), properties))
}

/// A character of a value: printable, and neither space nor one of `",;\` (B Definition).
fn is_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

/// Whether a byte stands for itself in a value. A percent sign doesn't, because it begins a sequence (B value).
fn is_plain(byte: u8) -> bool {
    is_octet(byte) && byte != b'%'
}

/// Properties are passed on as they came: a percent sign in them is one of theirs.
fn is_plain_in_properties(byte: u8) -> bool {
    is_octet(byte) || b"; \t".contains(&byte)
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
