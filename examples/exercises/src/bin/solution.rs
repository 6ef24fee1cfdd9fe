//! A service with the solution of an exercise: its name is the argument.

use exercises::{
    caching_user_service, limiting_llm_service, plan_api_gateway, plan_llm_service,
    titling_user_service,
};
use production::error::Failure;
use production::{server, telemetry};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let from_env = match &*std::env::args().nth(1).unwrap_or_default() {
        "caching_user_service" => caching_user_service::from_env,
        "limiting_llm_service" => limiting_llm_service::from_env,
        "plan_api_gateway" => plan_api_gateway::from_env,
        "plan_llm_service" => plan_llm_service::from_env,
        "titling_user_service" => titling_user_service::from_env,
        _ => return Err(anyhow::anyhow!("say which solution").into()),
    };
    let service = from_env()?;
    let telemetry = telemetry::init(service.name);
    let served = server::serve(service.name, service.routes, service.address).await;
    telemetry.shutdown();
    Ok(served?)
}
