//! OpenAI's form of a streamed chat: server-sent events, each with a chunk as JSON.

use axum::body::Bytes;
use distributed_tracing::error::CallError;
use futures_util::stream::{self, Stream, StreamExt as _};
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;
use sse_stream::SseByteStream;

use crate::error::ModelError;

/// The most bytes of an answer that are read. A piece of a word takes about 250.
const LIMIT: usize = 16 * 1024 * 1024;

/// A chunk, as far as we use it.
#[derive(Deserialize)]
pub struct Chunk {
    /// That of the answer, the same in each of its chunks.
    pub id: Option<String>,
    /// The model that answers, which may have a longer name than we asked for.
    pub model: Option<String>,
    /// Of the whole call. As we ask for it, it comes with the last chunk.
    pub usage: Option<Usage>,
    /// One, as we ask for one answer; none in a chunk that has the usage.
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

/// What the call took, in tokens.
#[derive(Clone, Copy, Deserialize)]
pub struct Usage {
    /// Of what was sent.
    pub prompt_tokens: i64,
    /// Of the answer.
    pub completion_tokens: i64,
}

impl Chunk {
    /// A piece of the answer. Most servers begin with a chunk that has none.
    pub fn text(&self) -> Option<&str> {
        let text = self.choices.first()?.delta.content.as_deref();
        text.filter(|text| !text.is_empty())
    }

    /// Why the model has stopped, once it has.
    pub fn finish_reason(&self) -> Option<&str> {
        self.choices.first()?.finish_reason.as_deref()
    }
}

/// The chunks of an answer, up to its end or to the first error.
pub fn chunks(answer: Response) -> impl Stream<Item = Result<Chunk, ModelError>> {
    let events = SseByteStream::new(limited(answer).boxed());
    stream::try_unfold((events, false), async |(mut events, mut finished)| {
        while let Some(event) = events.next().await {
            let Some(data) = event?.data else { continue };
            if data == "[DONE]" {
                return Ok(None);
            }
            let chunk: Chunk =
                serde_json::from_str(&data).map_err(|_| CallError::InvalidAnswer)?;
            if let Some(error) = &chunk.error {
                return Err(ModelError::Reported(code(error)));
            }
            finished |= chunk.finish_reason().is_some();
            return Ok(Some((chunk, (events, finished))));
        }
        // Some servers leave out `[DONE]`.
        if finished {
            Ok(None)
        } else {
            Err(ModelError::CutOff)
        }
    })
}

/// The body, up to [`LIMIT`].
fn limited(answer: Response) -> impl Stream<Item = Result<Bytes, ModelError>> {
    let mut left = LIMIT;
    answer.bytes_stream().map(move |bytes| {
        let bytes = bytes.map_err(|error| match error.is_timeout() {
            true => CallError::Timeout.into(),
            false => ModelError::CutOff,
        })?;
        left = left
            .checked_sub(bytes.len())
            .ok_or(CallError::InvalidAnswer)?;
        Ok(bytes)
    })
}

/// The code in an error, where it is a word. Anything else is a stranger's text.
fn code(error: &Value) -> String {
    let is_word = |code: &&str| {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        (1..=40).contains(&code.len()) && code.bytes().all(letter)
    };
    let codes = [&error["code"], &error["type"]];
    let mut texts = codes.into_iter().filter_map(Value::as_str);
    texts.find(is_word).unwrap_or("model_error").to_owned()
}
