//! llm-service that answers while the model still speaks: as server-sent events.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream::{self, Stream};
use production::error::{ApiError, Failure};
use production::{server, settings, telemetry};
use real_llm::answer::Answer;
use real_llm::model::Model;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Generate {
    prompt: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("llm-service");
    let address = settings::read("LLM_SERVICE_ADDR", "127.0.0.1:5002")?;
    let routes = Router::new()
        .route("/generate", post(generate))
        .with_state(Arc::new(Model::from_env()?));
    let served = server::serve("llm-service", routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}

/// A status while nothing is sent yet; an event once something is.
async fn generate(
    State(model): State<Arc<Model>>,
    body: Result<Json<Generate>, JsonRejection>,
) -> Response {
    match body {
        Err(rejection) => ApiError::from(rejection).into_response(),
        Ok(Json(request)) => match model.ask(&request.prompt).await {
            Err(error) => error.into_response(),
            Ok(answer) => Sse::new(events(answer)).into_response(),
        },
    }
}

/// `data: {"text": …}` for each piece, and at last an event that says whether that
/// was all.
fn events(answer: Answer) -> impl Stream<Item = Result<Event, axum::Error>> {
    stream::unfold(Some(answer), async |answer| {
        let mut answer = answer?;
        let (event, rest) = match answer.next().await {
            Ok(Some(text)) => (
                Event::default().json_data(json!({ "text": text })),
                Some(answer),
            ),
            // Browsers do not see an event without data.
            Ok(None) => (Ok(Event::default().event("end").data("{}")), None),
            Err(_) => {
                let why = json!({ "error": "The answer is not complete" });
                (Event::default().event("error").json_data(why), None)
            }
        };
        Some((event, rest))
    })
}
