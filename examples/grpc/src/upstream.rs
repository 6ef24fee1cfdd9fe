//! llm-service, as the services that call it see it.

use std::time::Duration;

use production::error::ApiError;
use production::settings;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::client::Traced;
use crate::generated::Prompt;
use crate::generated::llm_client::LlmClient;

/// llm-service, the model to ask there, and how long an answer may take.
#[derive(Clone)]
pub struct Upstream {
    pub llm: LlmClient<Traced>,
    model: String,
    pub deadline: Duration,
}

impl Upstream {
    /// Reads `LLM_SERVICE_URL`, `LLM_SERVICE_TIMEOUT_MS` and `LLM_MODEL`.
    ///
    /// # Errors
    /// Fails if one of them can't be used.
    pub fn from_env() -> anyhow::Result<Upstream> {
        let url = settings::server_url("LLM_SERVICE_URL", "http://127.0.0.1:5002")?;
        let endpoint = Endpoint::from_shared(url.to_string())?;
        let deadline = Duration::from_secs(9);
        Ok(Upstream {
            llm: LlmClient::new(Traced::new(&endpoint)),
            model: settings::read("LLM_MODEL", "")?,
            deadline: settings::deadline("LLM_SERVICE_TIMEOUT_MS", deadline)?,
        })
    }

    /// Makes a request that must be answered before the deadline.
    pub fn request(&self, prompt: String) -> Request<Prompt> {
        let model = self.model.clone();
        let mut request = Request::new(Prompt { model, prompt });
        request.set_timeout(self.deadline);
        request
    }
}

/// Returns the answer over HTTP to a request whose call over gRPC failed.
pub fn api_error(status: Status) -> ApiError {
    match status.code() {
        Code::DeadlineExceeded => ApiError::CallTimedOut,
        _ => ApiError::CallFailed,
    }
}
