//! user-service that calls llm-service over gRPC. It doesn't check the user, to keep
//! the example short.

use grpc::upstream::Upstream;
use grpc::user_service::routes;
use production::error::Failure;
use production::{server, settings, telemetry};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("user-service");
    let address = settings::read("USER_SERVICE_ADDR", "127.0.0.1:5001")?;
    let routes = routes(Upstream::from_env()?);
    let served = server::serve("user-service", routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}
