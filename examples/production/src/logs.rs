//! Log lines that carry the trace id of the request they belong to.

use std::fmt;
use std::io::IsTerminal as _;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tracing::{Event, Subscriber};
// ANCHOR: import
use tracing_subscriber::EnvFilter;
// ANCHOR_END: import
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// The filter unless `RUST_LOG` sets another: OpenTelemetry's own lines are logged
/// only when something is wrong.
const DEFAULT_FILTER: &str = "info,opentelemetry=warn";

// ANCHOR: filter
/// Always a part of the filter: the exporter's other lines would show its URL, which
/// may hold a password, and warnings about a malformed `baggage` all that is in it.
pub const SECRETS: &str = "opentelemetry-otlp=warn,hyper_util=warn,\
    opentelemetry_sdk[{baggage_header}]=off";

/// The filter in `RUST_LOG`, or `default`, without lines that hold secrets.
pub fn filter(default: &str) -> EnvFilter {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(default));
    EnvFilter::new(format!("{filter},{SECRETS}"))
}
// ANCHOR_END: filter

/// Writes log lines to standard error. If the process has a subscriber already, that
/// one stays.
pub fn init() {
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter(DEFAULT_FILTER))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Otherwise a line that can't be written panics, and a request fails.
        .log_internal_errors(false)
        .event_format(WithTraceId)
        .try_init();
    if let Err(error) = started {
        tracing::warn!(%error, "log lines keep the format that they had");
    }
}

/// `TIME LEVEL [trace_id=… span_id=…] message fields`: the ids come from the current
/// OpenTelemetry context.
struct WithTraceId;

impl<S, N> FormatEvent<S, N> for WithTraceId
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {:>5} ", event.metadata().level())?;
        Context::map_current(|cx| match cx.span().span_context() {
            span if span.is_valid() => {
                write!(
                    writer,
                    "trace_id={} span_id={} ",
                    span.trace_id(),
                    span.span_id()
                )
            }
            _ => Ok(()),
        })?;
        ctx.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
