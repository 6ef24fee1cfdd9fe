//! A program for cron: renders pages with a script and ends. Its arguments are the
//! numbers of the pages.

use std::env;
use std::path::Path;

use anyhow::Context as _;
use production::error::Failure;
use production::telemetry;
use streams_jobs_processes::child;
use tokio::process::Command;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("nightly-report");
    let rendered = child::called("nightly_report", render()).await;
    // The spans of a run of seconds are still queued.
    telemetry.shutdown();
    Ok(rendered?)
}

async fn render() -> anyhow::Result<()> {
    let program = env::current_exe().context("this program cannot be found")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("render.sh");
    let mut command = Command::new("sh");
    command
        .arg(script)
        .arg(program.with_file_name("render_page"))
        .args(env::args_os().skip(1));
    child::run("sh", command).await
}
