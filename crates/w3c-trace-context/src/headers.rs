//! An `http::HeaderMap` as the carrier of a context.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Replaces a value that isn't text. No header of the standards may contain it, so the header is present but not valid.
const NOT_TEXT: &str = "\0";

/// Reads the headers of a received request, every value of a repeated header included.
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
        let values = self.0.get_all(key).iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or(NOT_TEXT)).collect();
        (!values.is_empty()).then_some(values)
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
