//! Names without the values in them: `GET /users/17` and `GET /users/18` name the same operation.

use crate::values::{Value, values};

/// Stands for a value in a name.
const VALUE: &str = "*";

/// Replaces the values in a name with `*`.
pub fn pattern(name: &str) -> String {
    let (mut pattern, mut at) = (String::with_capacity(name.len()), 0);
    for Value { start, text, .. } in values(name) {
        pattern.push_str(&name[at..start]);
        pattern.push_str(VALUE);
        at = start + text.len();
    }
    pattern + &name[at..]
}
