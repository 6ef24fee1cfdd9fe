//! A queue between two services: three brokers behind one interface, and the spans
//! around a message.

pub mod headers;
pub mod kafka;
pub mod nats;
pub mod query;
pub mod queue;
pub mod rabbitmq;
pub mod spans;
pub mod work;
