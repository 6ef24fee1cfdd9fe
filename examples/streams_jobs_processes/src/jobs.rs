//! Jobs that requests schedule and a timer runs. Each run is a trace of its own.

use std::time::Duration;

use anyhow::ensure;
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt as _, Link, SpanContext, SpanKind, TraceContextExt as _, Tracer as _,
};
use production::telemetry::{record_error, tracer};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{MissedTickBehavior, interval};

/// A report to write later, and the span of the request that asked for it.
pub struct Job {
    pages: u32,
    scheduled_by: SpanContext,
}

/// Leaves a job for the timer. Returns whether there was room for it.
pub fn schedule(jobs: &Sender<Job>, pages: u32) -> bool {
    let scheduled_by = Context::current().span().span_context().clone();
    let job = Job {
        pages,
        scheduled_by,
    };
    jobs.try_send(job).is_ok()
}

/// Runs what is due, each time `every` has passed. Returns once nobody can schedule
/// more and all jobs have run.
pub async fn run_due(mut jobs: Receiver<Job>, every: Duration) {
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        loop {
            match jobs.try_recv() {
                Ok(job) => run(job).await,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// Starts a trace for this run, with a link to the request.
async fn run(job: Job) {
    let tracer = tracer();
    let span = tracer
        .span_builder("write report")
        .with_kind(SpanKind::Internal)
        .with_links(vec![Link::new(job.scheduled_by, Vec::new(), 0)])
        .start_with_context(&tracer, &Context::new());
    let cx = Context::new().with_span(span);
    let written = write(job.pages).with_context(cx.clone()).await;
    if let Err(error) = &written {
        record_error(&cx.span(), "no_pages", error.to_string());
    }
    cx.span().end();
    tracing::info!(succeeded = written.is_ok(), "job ended");
}

async fn write(pages: u32) -> anyhow::Result<()> {
    ensure!(pages > 0, "a report needs a page");
    for _page in 1..=pages {
        tracer().in_span("write page", |_cx| {
            // Work for the CPU goes here.
        });
    }
    Ok(())
}
