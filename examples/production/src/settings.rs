//! The tutorial's settings, and two more ways to read one.

pub use distributed_tracing::settings::*;

/// The value of `name`, or `None` if it is unset or empty.
pub fn optional(name: &str) -> Option<String> {
    read(name, "")
        .ok()
        .filter(|value: &String| !value.is_empty())
}

/// Whether `name` is `true`, in any case. A value that is neither `true` nor `false`
/// counts as `false`, and is logged.
pub fn flag(name: &str) -> bool {
    let value = optional(name).unwrap_or_default().to_ascii_lowercase();
    if !["", "true", "false"].contains(&&*value) {
        tracing::warn!("{name} is neither true nor false: it counts as false");
    }
    value == "true"
}
