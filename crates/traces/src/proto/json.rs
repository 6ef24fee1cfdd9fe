//! The JSON form of fields that serde would write in another way.
//!
//! Follows <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.

use serde::Deserialize;

use super::common::any_value::Value;
use super::common::{AnyValue, ArrayValue, KeyValueList};

/// Writes ids as hexadecimal digits.
pub(super) mod hex {
    use std::fmt;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Digits(bytes))
    }

    struct Digits<'a>(&'a [u8]);

    impl fmt::Display for Digits<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let pairs = digits.as_bytes().chunks(2);
        let bytes = pairs.map(|pair| match pair {
            [high, low] => Some((digit(high)? << 4) | digit(low)?),
            _ => None,
        });
        bytes.collect::<Option<_>>().ok_or_else(|| D::Error::custom("not hexadecimal digits"))
    }
}

/// Writes integers of 64 bits as text, because readers of JSON round large numbers. Reads both.
pub(super) mod number {
    use std::fmt::{self, Display};
    use std::marker::PhantomData;
    use std::str::FromStr;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        number: &impl Display,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<u64> + TryFrom<i64> + FromStr,
    {
        deserializer.deserialize_any(Number(PhantomData))
    }

    struct Number<T>(PhantomData<T>);

    impl<T: TryFrom<u64> + TryFrom<i64> + FromStr> Visitor<'_> for Number<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer of 64 bits, as a number or as text")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            T::try_from(number).map_err(|_| E::custom(format_args!("{number} is out of range")))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            T::try_from(number).map_err(|_| E::custom(format_args!("{number} is out of range")))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(|_| E::custom(format_args!("{text:?} is not such an integer")))
        }
    }
}

/// Writes bytes in base64.
pub(super) mod base64 {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

pub(super) fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// The fields of an [`AnyValue`], at most one of which has a value. serde's own reader of such an enum would ignore a value that
/// it can't read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Int>,
    double_value: Option<f64>,
    array_value: Option<ArrayValue>,
    kvlist_value: Option<KeyValueList>,
    bytes_value: Option<Bytes>,
}

#[derive(Deserialize)]
struct Int(#[serde(deserialize_with = "number::deserialize")] i64);

#[derive(Deserialize)]
struct Bytes(#[serde(deserialize_with = "base64::deserialize")] Vec<u8>);

impl From<Fields> for AnyValue {
    fn from(fields: Fields) -> Self {
        let text = fields.string_value.map(Value::StringValue);
        let value = text
            .or(fields.bool_value.map(Value::BoolValue))
            .or(fields.int_value.map(|Int(number)| Value::IntValue(number)))
            .or(fields.double_value.map(Value::DoubleValue))
            .or(fields.array_value.map(Value::ArrayValue))
            .or(fields.kvlist_value.map(Value::KvlistValue))
            .or(fields.bytes_value.map(|Bytes(bytes)| Value::BytesValue(bytes)));
        AnyValue { value }
    }
}
