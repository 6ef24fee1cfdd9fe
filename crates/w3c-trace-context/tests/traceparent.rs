//! Tests the value of `traceparent`: every written value can be read again, and the error for an invalid value names its
//! first wrong byte.

use proptest::prelude::*;
use w3c_trace_context::Traceparent;
use w3c_trace_context::traceparent::{Field, InvalidTraceparent, Reason, SpanId, TraceId};

const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

proptest! {
    #[test]
    fn what_is_written_is_read(trace_id in 1u128.., parent_id in 1u64.., sampled: bool, random: bool) {
        let written = Traceparent {
            trace_id: TraceId(trace_id.to_be_bytes()),
            parent_id: SpanId(parent_id.to_be_bytes()),
            sampled,
            random,
        };
        prop_assert_eq!(written.to_string().parse(), Ok(written));
    }

    #[test]
    fn no_text_makes_the_parser_panic(value: String) {
        let _ = Traceparent::parse(&value);
    }
}

#[test]
fn the_first_wrong_byte_is_named() {
    for byte in 0..VALID.len() {
        // Two bytes as one character, another wrong byte after it, and the value cut off here.
        let wrong = [
            format!("{}ßX", &VALID[..byte]),
            format!("{}X{}", &VALID[..byte], &VALID[byte + 1..]),
            VALID[..byte].to_owned(),
        ];
        let bytes = wrong.each_ref().map(|value| Traceparent::parse(value).expect_err(value).byte);
        assert_eq!(bytes, [byte; 3], "{wrong:?}");
    }
}

#[test]
fn a_reason_says_what_is_wrong_with_the_byte() {
    let reason = |value: &str| Traceparent::parse(value).map_err(|invalid| invalid.reason);
    for (value, expected) in [
        (VALID.to_uppercase(), Reason::UpperCase('B', Field::TraceId)),
        (VALID.replace("4bf9", "4bg9"), Reason::NotADigit('g', Field::TraceId)),
        (VALID[..30].to_owned(), Reason::EndsWithin(Field::TraceId)),
        (VALID[..35].to_owned(), Reason::EndsAfter(Field::TraceId)),
        (VALID.replace("00f067aa0ba902b7", &"0".repeat(16)), Reason::AllZero(Field::ParentId)),
        (VALID.replace("00-4", "ff-4"), Reason::ForbiddenVersion),
        (VALID.replace("-00f0", "_00f0"), Reason::NoDash('_', Field::TraceId)),
        (format!("{VALID}-more"), Reason::TooLong),
    ] {
        assert_eq!(reason(&value), Err(expected), "{value}");
    }
    // A later version may have more fields.
    assert!(reason(&(VALID.replace("00-4", "01-4") + "-more")).is_ok());
    let invalid = InvalidTraceparent { byte: 35, reason: Reason::NoDash('_', Field::TraceId) };
    assert_eq!(invalid.to_string(), r#"byte 35: '_' stands where "-" must, after the trace id"#);
}
