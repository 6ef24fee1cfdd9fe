//! Reads settings from the environment. Errors name the variable that is wrong.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Url;

/// The value of the environment variable `name`, or `default` if it is unset or
/// empty.
///
/// # Errors
/// When the value does not parse as a `T`; the message names the variable.
pub fn read<T>(name: &str, default: impl Display) -> anyhow::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let value = optional(name).unwrap_or_else(|| default.to_string());
    // The message leaves the value out: it may hold a password.
    value
        .parse()
        .with_context(|| format!("{name} cannot be used"))
}

/// The value of `name`, or `None` if it is unset or empty.
pub fn optional(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
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

/// The deadline set by `name` in whole milliseconds, or `default`.
///
/// # Errors
/// When the value is not a whole number above zero.
pub fn deadline(name: &str, default: Duration) -> anyhow::Result<Duration> {
    let milliseconds: u64 = read(name, default.as_millis())?;
    ensure!(milliseconds > 0, "{name}=0 leaves no time to answer");
    Ok(Duration::from_millis(milliseconds))
}

/// The URL of a server in `name`, or `default`.
///
/// # Errors
/// When it isn't an HTTP URL, or holds a password, which would end up on every span.
pub fn server_url(name: &str, default: &str) -> anyhow::Result<Url> {
    let url: Url = read(name, default)?;
    let http = matches!(url.scheme(), "http" | "https");
    ensure!(http, "{name} must start with http:// or https://");
    let open = url.username().is_empty() && url.password().is_none();
    ensure!(open, "{name} must not hold a password");
    Ok(url)
}
