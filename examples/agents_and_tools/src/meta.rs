//! Trace context in `_meta`, a part of each message of MCP, whatever carries it.

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use serde_json::{Map, Value};

/// The longest `traceparent` or `tracestate` that we read, in bytes.
const TRACE_LIMIT: usize = 512;

/// The longest `baggage` that we read, in bytes.
const BAGGAGE_LIMIT: usize = 8192;

/// Writes the current context into `meta`: `traceparent`, `tracestate` and
/// `baggage`.
pub fn inject(meta: &mut Map<String, Value>) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), &mut Outgoing(meta));
    });
}

/// Returns the context that the sender put into `meta`.
pub fn extract(meta: &Map<String, Value>) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &Incoming(meta))
    })
}

struct Outgoing<'a>(&'a mut Map<String, Value>);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), Value::String(value));
    }
}

struct Incoming<'a>(&'a Map<String, Value>);

impl Extractor for Incoming<'_> {
    /// Ignores a value that isn't text or is too long. A server limits the size of
    /// headers, but `_meta` may be as long as a body.
    fn get(&self, key: &str) -> Option<&str> {
        let limit = match key {
            "baggage" => BAGGAGE_LIMIT,
            _ => TRACE_LIMIT,
        };
        let value = self.0.get(key)?.as_str()?;
        (value.len() <= limit).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}
