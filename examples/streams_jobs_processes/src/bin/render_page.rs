//! Renders one page: a child of a script.

use anyhow::{Context as _, ensure};
use production::error::Failure;
use production::telemetry;
use streams_jobs_processes::child;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("render-page");
    let rendered = child::called("render_page", render()).await;
    telemetry.shutdown();
    Ok(rendered?)
}

async fn render() -> anyhow::Result<()> {
    let page = std::env::args().nth(1).context("say which page")?;
    let page: u32 = page.parse().context("a page is a number")?;
    ensure!(page > 0, "pages start at 1");
    println!("page {page}");
    Ok(())
}
