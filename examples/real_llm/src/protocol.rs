//! OpenAI's form of a streamed chat: server-sent events, each with a chunk as JSON.

use axum::body::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use production::error::CallError;
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sse_stream::SseByteStream;

use crate::error::ModelError;

/// The longest answer we read, in bytes. A piece of a word takes about 250.
const LIMIT: usize = 16 * 1024 * 1024;

/// The fields of a chunk that we use.
#[derive(Deserialize)]
pub struct Chunk {
    /// The id of the answer, the same in each of its chunks.
    #[serde(default, deserialize_with = "if_well_formed")]
    pub id: Option<String>,
    /// The model that answers. Its name may be longer than the one we asked for.
    #[serde(default, deserialize_with = "if_well_formed")]
    pub model: Option<String>,
    /// Usage of the whole call, which comes with the last chunk.
    #[serde(default, deserialize_with = "if_well_formed")]
    pub usage: Option<Usage>,
    /// One choice, as we ask for one answer, or none in the chunk with the usage.
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

/// The number of tokens that the call used.
#[derive(Clone, Copy, Deserialize)]
pub struct Usage {
    /// Tokens in the prompt.
    pub prompt_tokens: i64,
    /// Tokens in the answer.
    pub completion_tokens: i64,
}

/// For a field that only the span needs: if it has another shape, the answer must go
/// on without it.
fn if_well_formed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

impl Chunk {
    /// A piece of the answer. With most servers the first chunk has none.
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
            .ok_or(CallError::AnswerTooLong)?;
        Ok(bytes)
    })
}

/// The code in an error if it is a word. Any other text could hold anything.
fn code(error: &Value) -> String {
    let is_word = |code: &&str| {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        (1..=40).contains(&code.len()) && code.bytes().all(letter)
    };
    let codes = [&error["code"], &error["type"]];
    let mut texts = codes.into_iter().filter_map(Value::as_str);
    texts.find(is_word).unwrap_or("model_error").to_owned()
}
