//! Names without the values in them: `GET /users/17` and `GET /users/18` name the same operation.

use std::net::IpAddr;

use crate::diagnose::names::{SEPARATORS, has_form, is_mail};

/// Stands for a value in a name.
const VALUE: &str = "*";

/// Replaces the values in a name with `*`: numbers, UUIDs, long hexadecimal numbers, addresses, and those behind a prefix, as
/// in `order_10017`.
pub(super) fn pattern(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for part in name.split_inclusive(SEPARATORS) {
        let text = part.trim_end_matches(SEPARATORS);
        let prefix = value_at(text).map(|start| &text[..start]);
        pattern.push_str(prefix.unwrap_or(text));
        if prefix.is_some() {
            pattern.push_str(VALUE);
        }
        pattern.push_str(&part[text.len()..]);
    }
    pattern
}

/// Returns where the value in a part of a name begins.
fn value_at(text: &str) -> Option<usize> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let is_id = |text: &str| !text.is_empty() && has_form(text);
    if is_number(text) || is_id(text) || is_mail(text) || text.parse::<IpAddr>().is_ok() {
        return Some(0);
    }
    let mut behind = text.match_indices(['_', '-', '#']).map(|(at, _)| at + 1);
    // A short number may be a part of the name, as in `gpt-4`.
    behind.find(|at| is_id(&text[*at..]) || (text.len() - at >= 4 && is_number(&text[*at..])))
}
