//! Times in nanoseconds as text in JSON, as OTLP has them, because many readers of JSON round integers past 2^53. Reads numbers too,
//! which older files have.

use serde::{Deserialize, Deserializer, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(u64),
}

impl Written {
    fn read<E: serde::de::Error>(self) -> Result<u64, E> {
        match self {
            Written::Text(text) => text.parse().map_err(E::custom),
            Written::Number(number) => Ok(number),
        }
    }
}

pub fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(number)
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Written::deserialize(from)?.read()
}

/// The same for a time that may be unknown.
pub mod optional {
    use super::{Deserialize as _, Deserializer, Serializer, Written};

    pub fn serialize<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => to.collect_str(number),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Option::<Written>::deserialize(from)?.map(Written::read).transpose()
    }
}
