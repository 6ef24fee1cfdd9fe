//! Replaces what is another value in every run: ids, numbers, hosts, ports and versions.

use super::glob::Glob;
use crate::values::{Form, Value, values};

/// The pattern that stands for a text with such values in it, or `None` where it has none.
pub fn generalised(text: &str) -> Option<Glob> {
    let changes = |value: &Value| !matches!(value.form, Form::ShortNumber | Form::Suffix);
    let (mut parts, mut at) = (Vec::new(), 0);
    for Value { start, text: value, .. } in values(text).into_iter().filter(changes) {
        parts.push(text[at..start].to_owned());
        at = start + value.len();
    }
    if parts.is_empty() {
        return None;
    }
    parts.push(text[at..].to_owned());
    Some(Glob::with_gaps(parts))
}
