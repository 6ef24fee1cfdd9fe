//! Serves the page at another origin than the gateway's.

use browsers::page::routes;
use production::error::Failure;
use production::{server, settings};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let address = settings::read("WEB_PAGE_ADDR", "127.0.0.1:8080")?;
    let gateway: String =
        settings::read("API_GATEWAY_URL", "http://127.0.0.1:5000")?;
    let bundle: String = settings::read("WEB_SDK_BUNDLE", "sdk.bundle.js")?;
    let routes = routes(&gateway, bundle.into());
    Ok(server::listen("web-page", routes, address).await?)
}
