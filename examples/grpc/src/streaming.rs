//! Passes the words of a stream on over HTTP as they come.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use futures_util::stream::try_unfold;
use production::error::ApiError;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::upstream::{Upstream, api_error};
use crate::user_service::Process;

pub async fn process_stream(
    State(mut upstream): State<Upstream>,
    body: Result<Json<Process>, JsonRejection>,
) -> Result<Body, ApiError> {
    let Json(Process { query }) = body?;
    let end = Instant::now() + upstream.deadline;
    let request = upstream.request(query);
    let answer = upstream.llm.generate_stream(request).await;
    let words = answer.map_err(api_error)?.into_inner();
    let text = try_unfold(words, move |mut words| async move {
        let word = timeout_at(end, words.message()).await;
        let late = |_| Status::deadline_exceeded("the answer takes too long");
        let word = word.map_err(late)??;
        Ok::<_, Status>(word.map(|word| (word.text, words)))
    });
    Ok(Body::from_stream(text))
}
