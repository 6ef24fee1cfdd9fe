//! One of the three services: its name is the argument.

use production::error::Failure;
use production::service::Service;
use production::{server, service, telemetry};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let name = service::chosen()?;
    let telemetry = telemetry::init(name);
    let service = Service::named(name)?;
    let served = server::serve(name, service.routes, service.address).await;
    telemetry.shutdown();
    Ok(served?)
}
