//! Starts order-service.

use std::time::Duration;

use databases_and_caches::cache::Cache;
use databases_and_caches::database::Database;
use databases_and_caches::schema;
use databases_and_caches::shop::{NAME, Shop, routes};
use production::error::Failure;
use production::{server, settings, telemetry};
use url::Url;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init(NAME);
    let served = serve().await;
    telemetry.shutdown();
    Ok(served?)
}

async fn serve() -> anyhow::Result<()> {
    let url: Url = settings::read("DATABASE_URL", "sqlite:shop.db?mode=rwc")?;
    let size = settings::read("POOL_SIZE", 5)?;
    let patience = settings::deadline("POOL_TIMEOUT_MS", Duration::from_secs(2))?;
    let database = Database::connect(&url, size, patience).await?;
    schema::create(&database.pool).await?;
    let cache = match settings::optional("REDIS_URL") {
        Some(url) => Some(Cache::connect(&url.parse()?).await?),
        None => None,
    };
    let address = settings::read("ORDER_SERVICE_ADDR", "127.0.0.1:5000")?;
    server::serve(NAME, routes(Shop { database, cache }), address).await
}
