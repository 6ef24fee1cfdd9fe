//! A channel: each message carries its context, as a request carries its headers.

use std::convert::Infallible;

use opentelemetry::Context;
use opentelemetry::trace::FutureExt as _;
use production::spans::{EventType, trace};
use tokio::sync::mpsc;

/// A piece of work and the context it belongs to.
pub struct Job {
    pub page: u32,
    pub cx: Context,
}

/// Runs as long as the service and works for many requests, so it has no context of
/// its own.
pub async fn worker(mut jobs: mpsc::Receiver<Job>) {
    while let Some(Job { page, cx }) = jobs.recv().await {
        parse(page).with_context(cx).await;
    }
}

/// Sends page 1 to be parsed.
///
/// # Errors
/// When the worker has ended.
pub async fn send(jobs: &mpsc::Sender<Job>) -> anyhow::Result<()> {
    let cx = Context::current();
    Ok(jobs.send(Job { page: 1, cx }).await?)
}

pub async fn kept() -> anyhow::Result<()> {
    let (sender, jobs) = mpsc::channel(16);
    let worker = tokio::spawn(worker(jobs));
    send(&sender).await?;
    drop(sender);
    Ok(worker.await?)
}

/// Wrong: the message doesn't carry the context of its request.
pub async fn lost() -> anyhow::Result<()> {
    let (sender, mut jobs) = mpsc::channel(16);
    let worker = tokio::spawn(async move {
        while let Some(page) = jobs.recv().await {
            parse(page).await;
        }
    });
    sender.send(1).await?;
    drop(sender);
    Ok(worker.await?)
}

async fn parse(_page: u32) {
    let work = async { Ok::<(), Infallible>(()) };
    let Ok(()) = trace("parse", EventType::Tool, work).await;
}
