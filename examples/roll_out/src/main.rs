//! user-service at three stages of the roll-out.

use anyhow::bail;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::global;
use production::error::Failure;
use production::{server, settings, telemetry, user_service};
use reqwest::{Client, Url};
use roll_out::{b3, forward};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    Ok(match std::env::args().nth(1).as_deref() {
        Some("untraced") => untraced(|_| HeaderMap::new()).await,
        Some("forwarding") => untraced(forward::context_headers).await,
        Some("translating") => translating().await,
        _ => bail_usage(),
    }?)
}

fn bail_usage() -> anyhow::Result<()> {
    bail!("say which stage: untraced, forwarding or translating")
}

/// The service with spans, among services that know only B3.
async fn translating() -> anyhow::Result<()> {
    let telemetry = telemetry::init("user-service");
    global::set_text_map_propagator(b3::both());
    let service = user_service::from_env()?;
    let served = server::serve(service.name, service.routes, service.address).await;
    telemetry.shutdown();
    served
}

/// Chooses the headers of a call from those of the request.
type Choose = fn(&HeaderMap) -> HeaderMap;

/// The next service, and the choice of the headers that it gets.
#[derive(Clone)]
struct Next {
    client: Client,
    url: Url,
    choose: Choose,
}

async fn untraced(choose: Choose) -> anyhow::Result<()> {
    let mut url = settings::server_url("LLM_SERVICE_URL", "http://127.0.0.1:5002")?;
    url.set_path("/generate");
    let client = Client::new();
    let routes = Router::new()
        .route("/process", post(process))
        .with_state(Next {
            client,
            url,
            choose,
        });
    let address = settings::read("USER_SERVICE_ADDR", "127.0.0.1:5001")?;
    server::listen("user-service", routes, address).await
}

async fn process(
    State(next): State<Next>,
    headers: HeaderMap,
    Json(query): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let prompt = json!({ "user_id": query["user_id"], "prompt": query["query"] });
    let call = next.client.post(next.url).headers((next.choose)(&headers));
    let answer = async { call.json(&prompt).send().await?.json().await };
    answer
        .await
        .map(Json)
        .map_err(|_: reqwest::Error| StatusCode::BAD_GATEWAY)
}
