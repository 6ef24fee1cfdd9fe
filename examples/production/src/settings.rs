//! The tutorial's settings, and more ways to read one.

use anyhow::Context as _;
use axum::http::HeaderValue;
pub use distributed_tracing::settings::*;

/// The value of `name`, or `None` if it is unset or empty.
pub fn optional(name: &str) -> Option<String> {
    read(name, "")
        .ok()
        .filter(|value: &String| !value.is_empty())
}

/// The header value `Bearer KEY` with the key in `name`, or `None` if there is none.
///
/// # Errors
/// Fails if the key can't be a part of a header. The message leaves the key out.
pub fn bearer(name: &str) -> anyhow::Result<Option<HeaderValue>> {
    let key: String = read(name, "")?;
    if key.is_empty() {
        return Ok(None);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {key}"))
        .with_context(|| format!("{name} cannot be used"))?;
    value.set_sensitive(true);
    Ok(Some(value))
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
