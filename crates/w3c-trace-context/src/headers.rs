//! An `http::HeaderMap` as the carrier of a context.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};

use crate::{traceparent, trim};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Stands for a value that isn't text. No header of the standards may contain it, so the header is present but invalid.
const NOT_TEXT: &str = "\0";

/// Reads the headers of a received request, including every value of a repeated header.
#[derive(Debug)]
pub struct HeaderExtractor<'a>(pub &'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let mut texts = Vec::new();
        for value in self.0.get_all(key) {
            match value.to_str() {
                Ok(text) => texts.push(text),
                Err(_) => texts.extend(readable(key, value.as_bytes())),
            }
        }
        (!texts.is_empty()).then_some(texts)
    }
}

/// Returns the readable parts of a value that isn't ASCII text throughout.
#[cold]
fn readable<'a>(key: &str, value: &'a [u8]) -> Vec<&'a str> {
    let text = str::from_utf8(value).ok();
    match key {
        // Only the entry that isn't text is invalid.
        "baggage" => {
            let entries = value.split(|byte| *byte == b',');
            entries.map(|entry| str::from_utf8(entry).unwrap_or(NOT_TEXT)).collect()
        }
        // The end of a later version may be anything (TC Versioning of traceparent).
        "traceparent" => {
            let beginning = value.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            let after_flags = trim(beginning).as_bytes().get(traceparent::LENGTH);
            vec![text.or_else(|| after_flags.map(|_| beginning)).unwrap_or(NOT_TEXT)]
        }
        _ => vec![text.unwrap_or(NOT_TEXT)],
    }
}

/// Writes the headers of a request to send. A header that is there already is replaced; with a new `traceparent`, the
/// `tracestate` of another one goes.
#[derive(Debug)]
pub struct HeaderInjector<'a>(pub &'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    /// Does nothing where `key` or `value` cannot stand in a header.
    fn set(&mut self, key: &str, value: String) {
        let name = match key {
            "traceparent" => {
                self.0.remove(TRACESTATE);
                Ok(TRACEPARENT)
            }
            "tracestate" => Ok(TRACESTATE),
            "baggage" => Ok(BAGGAGE),
            _ => HeaderName::from_bytes(key.as_bytes()),
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }

    fn reserve(&mut self, additional: usize) {
        self.0.reserve(additional);
    }
}
