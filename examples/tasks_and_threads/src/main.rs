//! One import whose work moves to tasks, threads and a stream. `kept` passes the
//! context along, `lost` doesn't.

mod blocking;
mod channel;
mod parallel;
mod spawn;
mod streaming;

use anyhow::bail;
use production::error::Failure;
use production::spans::{EventType, trace};
use production::telemetry;
use streaming::Lines;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let keep = keep()?;
    let telemetry = telemetry::init("importer");
    let imported = trace("import", EventType::Chain, import(keep)).await;
    let result = match imported {
        Ok(lines) => {
            streaming::read(lines).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    telemetry.shutdown();
    Ok(result?)
}

fn keep() -> anyhow::Result<bool> {
    match std::env::args().nth(1).as_deref() {
        Some("kept") => Ok(true),
        Some("lost") => Ok(false),
        _ => bail!("say what becomes of the context: `kept` or `lost`"),
    }
}

async fn import(keep: bool) -> anyhow::Result<Lines> {
    if keep {
        spawn::kept().await?;
        channel::kept().await?;
        blocking::kept().await?;
        parallel::kept().await?;
        Ok(streaming::kept())
    } else {
        spawn::lost().await?;
        channel::lost().await?;
        blocking::lost().await?;
        parallel::lost().await?;
        Ok(streaming::lost())
    }
}
