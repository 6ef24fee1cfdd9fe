//! llm-service: answers prompts over gRPC, in one message or word by word.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{
    self, BoxStream, Stream, StreamExt as _, TryStreamExt as _,
};
use production::error::CallError;
use production::model::Model;
use production::settings;
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use crate::generated::llm_server::Llm;
use crate::generated::{Answer, Prompt, Word};

/// The methods in `proto/llm.proto`.
pub const METHODS: [&str; 2] =
    ["one_trace.Llm/Generate", "one_trace.Llm/GenerateStream"];

/// The pause between two words, unless `LLM_WORD_PAUSE_MS` says otherwise.
const PAUSE: Duration = Duration::from_millis(5);

/// A model that answers over gRPC.
pub struct LlmService {
    model: Arc<Model>,
    name: String,
    pause: Duration,
}

impl LlmService {
    /// Reads the settings of the model, as llm-service does.
    ///
    /// # Errors
    /// Fails if one of them can't be used.
    pub fn from_env() -> anyhow::Result<LlmService> {
        Ok(LlmService {
            model: Arc::new(Model::from_env()?),
            name: settings::read("LLM_MODEL", "offline")?,
            pause: settings::deadline("LLM_WORD_PAUSE_MS", PAUSE)?,
        })
    }

    /// Returns the prompt if this service has the model that it's for.
    fn prompt(&self, request: Request<Prompt>) -> Result<String, Status> {
        let Prompt { model, prompt } = request.into_inner();
        match model.is_empty() || model == self.name {
            true => Ok(prompt),
            false => Err(Status::not_found("no such model")),
        }
    }
}

#[tonic::async_trait]
impl Llm for LlmService {
    async fn generate(
        &self,
        request: Request<Prompt>,
    ) -> Result<Response<Answer>, Status> {
        let prompt = self.prompt(request)?;
        let response = self.model.chat(&prompt).await.map_err(status)?;
        Ok(Response::new(Answer { response }))
    }

    type GenerateStreamStream = BoxStream<'static, Result<Word, Status>>;

    async fn generate_stream(
        &self,
        request: Request<Prompt>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let prompt = self.prompt(request)?;
        let (model, pause) = (Arc::clone(&self.model), self.pause);
        let answer = async move { model.chat(&prompt).await.map_err(status) };
        let words = stream::once(answer).map_ok(words).try_flatten();
        let words = words.enumerate().then(move |(index, word)| async move {
            if index > 0 {
                sleep(pause).await;
            }
            word
        });
        Ok(Response::new(words.boxed()))
    }
}

fn words(answer: String) -> impl Stream<Item = Result<Word, Status>> {
    let words = answer.split_inclusive(' ').map(|word| {
        Ok(Word {
            text: word.to_owned(),
        })
    });
    stream::iter(words.collect::<Vec<_>>())
}

/// Says why the model gave no answer, without the cause.
fn status(error: CallError) -> Status {
    match error {
        CallError::Timeout => Status::deadline_exceeded("the model is too slow"),
        CallError::Unreachable | CallError::Status(_) => {
            Status::unavailable("the model can't be asked")
        }
        CallError::InvalidAnswer | CallError::AnswerTooLong => {
            Status::internal("the model's answer can't be used")
        }
    }
}
