//! Log lines.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// The filter unless `RUST_LOG` sets another.
const FILTER: &str = "info,opentelemetry=warn";

/// Always a part of the filter: the exporter's other lines would show its URL, which
/// may hold a password.
const SECRETS: &str = "opentelemetry-otlp=warn,hyper_util=warn";

/// Writes log lines to standard error.
pub fn init() {
    let filter = EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{filter},{SECRETS}")))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        // Otherwise a line that can't be written panics.
        .log_internal_errors(false)
        .with_target(false)
        .init();
}
