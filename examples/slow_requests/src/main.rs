//! Services with slow requests: `shop` asks `prices`, and that asks `supplier`. Each
//! of the other modules is one reason, as it was and as it is repaired.

mod critical_path;
mod empty_pool;
mod in_turn;
mod many_calls;
mod prices;
mod retry_storm;
mod shop;
mod supplier;

use anyhow::bail;
use production::error::Failure;
use production::{server, settings, telemetry};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (name, variable, port) = chosen()?;
    let telemetry = telemetry::init(name);
    let address = settings::read(variable, format!("127.0.0.1:{port}"))?;
    let routes = match name {
        "shop" => shop::routes()?,
        "prices" => prices::routes()?,
        _ => supplier::routes(),
    };
    let served = server::serve(name, routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}

/// The service that the first argument names, its variable and its port.
fn chosen() -> anyhow::Result<(&'static str, &'static str, u16)> {
    match std::env::args().nth(1).as_deref() {
        Some("shop") => Ok(("shop", "SHOP_ADDR", 7010)),
        Some("prices") => Ok(("prices", "PRICES_ADDR", 7011)),
        Some("supplier") => Ok(("supplier", "SUPPLIER_ADDR", 7012)),
        _ => bail!("say which service: shop, prices or supplier"),
    }
}
