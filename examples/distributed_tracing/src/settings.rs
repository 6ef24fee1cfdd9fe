//! Reads settings from the environment, and says which variable is wrong when one
//! is.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;

/// The value of the environment variable `name`, or `default` where it is unset or
/// empty.
///
/// # Errors
/// When the value does not parse as a `T`; the message names the variable.
pub fn read<T>(name: &str, default: impl Display) -> anyhow::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let value = optional(name).unwrap_or_else(|| default.to_string());
    value
        .parse()
        .with_context(|| format!("{name}={value:?} cannot be used"))
}

/// The value of `name`, or nothing where it is unset or empty.
pub fn optional(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The deadline set by `name` in whole milliseconds, or `default`.
///
/// # Errors
/// When the value is not a whole number above zero.
pub fn deadline(name: &str, default: Duration) -> anyhow::Result<Duration> {
    let milliseconds: u64 = read(name, default.as_millis())?;
    anyhow::ensure!(milliseconds > 0, "{name}=0 leaves no time to answer");
    Ok(Duration::from_millis(milliseconds))
}
