//! Writes the current context into the headers of a message and reads it back. Each
//! client library has its own type of headers, so each needs an adapter.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};

/// Writes the current context into the headers of a message.
pub fn inject(headers: &mut impl Injector) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), headers);
    });
}

/// Reads the context from the headers of a message. Returns an empty context if they
/// have none, or a malformed one.
pub fn extract(headers: &impl Extractor) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), headers)
    })
}

/// The headers of NATS, whose names and values are text.
pub struct NatsHeaders(pub HeaderMap);

impl Injector for NatsHeaders {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}

impl Extractor for NatsHeaders {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}

/// The headers of RabbitMQ, whose values have types. We write long strings.
pub struct AmqpHeaders(pub FieldTable);

impl Injector for AmqpHeaders {
    fn set(&mut self, key: &str, value: String) {
        let value = AMQPValue::LongString(value.into());
        self.0.insert(key.into(), value);
    }
}

impl Extractor for AmqpHeaders {
    fn get(&self, key: &str) -> Option<&str> {
        match self.0.inner().get(key)? {
            AMQPValue::LongString(value) => str::from_utf8(value.as_bytes()).ok(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.inner().keys().map(ShortString::as_str).collect()
    }
}

/// The headers of Kafka, whose values are bytes.
pub struct KafkaHeaders(pub BTreeMap<String, Vec<u8>>);

impl Injector for KafkaHeaders {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value.into_bytes());
    }
}

impl Extractor for KafkaHeaders {
    fn get(&self, key: &str) -> Option<&str> {
        str::from_utf8(self.0.get(key)?).ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}
