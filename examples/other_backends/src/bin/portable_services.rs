//! One of the three services of the tutorial, with the telemetry of this crate.

use other_backends::telemetry;
use production::error::Failure;
use production::service::Service;
use production::{server, service};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let name = service::chosen()?;
    let telemetry = telemetry::init(name);
    let service = Service::named(name)?;
    let served = server::serve(name, service.routes, service.address).await;
    telemetry.shutdown();
    Ok(served?)
}
