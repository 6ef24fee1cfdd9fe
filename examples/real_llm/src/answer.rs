//! An answer that is still being given.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::Response;

use crate::error::ModelError;
use crate::protocol::{Chunk, chunks};
use crate::span::ChatSpan;

/// What the model has yet to say. The span of the call lives in it, and ends when it
/// is dropped: at the end, and also when nobody listens any more.
pub struct Answer {
    chunks: BoxStream<'static, Result<Chunk, ModelError>>,
    span: ChatSpan,
}

impl Answer {
    /// `span` has begun with the request.
    pub fn new(response: Response, span: ChatSpan) -> Self {
        let chunks = chunks(response).boxed();
        Answer { chunks, span }
    }

    /// The next piece of text; `None` when the model has said all.
    ///
    /// # Errors
    /// When the rest will not come. What came before is as it was.
    pub async fn next(&mut self) -> Result<Option<String>, ModelError> {
        while let Some(chunk) = self.chunks.next().await {
            let chunk = chunk.inspect_err(|error| self.span.fail(error))?;
            self.span.hear(&chunk);
            if let Some(text) = chunk.text() {
                return Ok(Some(text.to_owned()));
            }
        }
        Ok(None)
    }
}
