//! A service that answers questions with the tools of an MCP server.

use std::sync::Arc;

use agents_and_tools::agent::Agent;
use agents_and_tools::client::Tools;
use agents_and_tools::model::Model;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Json, Router};
use production::error::{ApiError, Failure};
use production::{server, settings, telemetry};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Ask {
    question: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("agent-service");
    let address = settings::read("AGENT_SERVICE_ADDR", "127.0.0.1:5010")?;
    let (tools, connection) = Tools::connect().await?;
    let offered = tools.list().await?;
    let model = Model::from_env();
    let agent = Agent {
        model,
        tools,
        offered,
    };
    let routes = Router::new()
        .route("/ask", post(ask))
        .with_state(Arc::new(agent));
    let served = server::serve("agent-service", routes, address).await;
    connection.cancel().await?;
    telemetry.shutdown();
    Ok(served?)
}

async fn ask(
    State(agent): State<Arc<Agent>>,
    body: Result<Json<Ask>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(ask) = body?;
    let answer = agent.answer(ask.question).await?;
    Ok(Json(json!({ "answer": answer })))
}
