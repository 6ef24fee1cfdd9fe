//! A program that is run, as both sides see it: a CLIENT span around it, and an
//! INTERNAL span inside it.

use std::process::ExitStatus;

use anyhow::{Context as _, ensure};
use opentelemetry::trace::{
    FutureExt as _, SpanKind, SpanRef, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_semantic_conventions::attribute::{
    PROCESS_EXECUTABLE_NAME, PROCESS_EXIT_CODE, PROCESS_PID,
};
use production::telemetry::{record_error, tracer};
use tokio::process::Command;

use crate::environment;

/// Runs `command` to its end. The span has the program's name and none of its
/// arguments, which may hold secrets.
///
/// # Errors
/// Fails if the program can't be started or doesn't exit with 0.
pub async fn run(name: &'static str, mut command: Command) -> anyhow::Result<()> {
    let tracer = tracer();
    let span = tracer
        .span_builder(name)
        .with_kind(SpanKind::Client)
        .with_attributes([KeyValue::new(PROCESS_EXECUTABLE_NAME, name)])
        .start(&tracer);
    let cx = Context::current_with_span(span);
    let ended = wait(&mut command).with_context(cx.clone()).await;
    let span = cx.span();
    match &ended {
        Ok(status) => record_exit(&span, status.code()),
        Err(_) => record_error(&span, "not_started", String::new()),
    }
    span.end();
    let status = ended.context("the program cannot be run")?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}

/// Runs in the context of the CLIENT span: that span is what the variables carry.
async fn wait(command: &mut Command) -> std::io::Result<ExitStatus> {
    environment::inject(command);
    let mut child = command.kill_on_drop(true).spawn()?;
    if let Some(id) = child.id() {
        let pid = KeyValue::new(PROCESS_PID, i64::from(id));
        Context::map_current(|cx| cx.span().set_attribute(pid));
    }
    child.wait().await
}

/// Runs the work of this program, whose executable is `name`, inside a span that
/// joins the trace of the process that started it.
///
/// # Errors
/// Whatever `work` returns.
pub async fn called(
    name: &'static str,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let parent = environment::extract();
    let tracer = tracer();
    let span = tracer
        .span_builder(name)
        .with_attributes([
            KeyValue::new(PROCESS_EXECUTABLE_NAME, name),
            KeyValue::new(PROCESS_PID, i64::from(std::process::id())),
        ])
        .start_with_context(&tracer, &parent);
    let cx = parent.with_span(span);
    let result = work.with_context(cx.clone()).await;
    // `main` turns an error into 1.
    record_exit(&cx.span(), Some(i32::from(result.is_err())));
    cx.span().end();
    result
}

/// Records how a program ended. It has no exit code if a signal ended it.
fn record_exit(span: &SpanRef<'_>, code: Option<i32>) {
    if let Some(code) = code {
        span.set_attribute(KeyValue::new(PROCESS_EXIT_CODE, i64::from(code)));
    }
    match code {
        Some(0) => {}
        Some(code) => record_error(span, code.to_string(), String::new()),
        None => record_error(span, "signal", String::new()),
    }
}
