//! One of the three services of the tutorial, as it is without tracing: it makes no
//! span, and forwards no header.

use production::error::Failure;
use production::service::Service;
use production::{server, service};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let service = Service::named(service::chosen()?)?;
    // Nobody has called `telemetry::init`: what the library calls does nothing.
    Ok(server::serve(service.name, service.routes, service.address).await?)
}
