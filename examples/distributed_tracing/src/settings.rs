//! Reads settings from the environment. Errors name the variable that is wrong.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::Url;

/// The value of `name` without the whitespace around it, such as the line break at
/// the end of a file, or `default` if nothing is left.
///
/// # Errors
/// Fails if the value isn't a `T`. The message leaves the value out, because it may
/// hold a password.
pub fn read<T>(name: &str, default: impl Display) -> anyhow::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let value = env::var_os(name).unwrap_or_default();
    let parsed = match value.to_str().map(str::trim) {
        None => bail!("{name} cannot be used: it isn't UTF-8"),
        Some("") => default.to_string().parse(),
        Some(value) => value.parse(),
    };
    parsed.with_context(|| format!("{name} cannot be used"))
}

/// The deadline in `name`, in whole milliseconds, or `default`.
///
/// # Errors
/// Fails if the value isn't a whole number above zero.
pub fn deadline(name: &str, default: Duration) -> anyhow::Result<Duration> {
    let milliseconds: u64 = read(name, default.as_millis())?;
    ensure!(milliseconds > 0, "{name}=0 leaves no time to answer");
    Ok(Duration::from_millis(milliseconds))
}

/// The URL of a server in `name`, or `default`.
///
/// # Errors
/// Fails if it isn't an HTTP URL, or if it holds a password, which would end up on
/// spans and in logs.
pub fn server_url(name: &str, default: &str) -> anyhow::Result<Url> {
    let url: Url = read(name, default)?;
    let http = matches!(url.scheme(), "http" | "https");
    ensure!(http, "{name} must start with http:// or https://");
    let open = url.username().is_empty() && url.password().is_none();
    ensure!(open, "{name} must not hold a password");
    Ok(url)
}
