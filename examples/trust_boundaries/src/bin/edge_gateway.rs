//! api-gateway at the edge of a system: the service of the tutorial, with `edge`
//! around its routes.

use std::time::Duration;

use production::error::Failure;
use production::outgoing::Upstream;
use production::{api_gateway, server, settings, telemetry};
use trust_boundaries::edge::{edge, set_propagator};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("edge-gateway");
    set_propagator();
    let address = settings::read("EDGE_GATEWAY_ADDR", "127.0.0.1:5000")?;
    let user_service =
        Upstream::from_env("USER_SERVICE", "http://127.0.0.1:5001", DEADLINE)?;
    let routes = edge(api_gateway::routes(user_service), DEADLINE);
    let served = server::listen("edge-gateway", routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}
