//! Log lines.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// The filter unless `RUST_LOG` sets another.
const FILTER: &str = "info,opentelemetry=warn";

/// Writes log lines to standard error.
pub fn init() {
    let filter = EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new(FILTER)))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        // Otherwise a line that can't be written panics.
        .log_internal_errors(false)
        .with_target(false)
        .init();
}
