//! Calls another service.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CallError;
use crate::server::HEAD_DEADLINE;
use crate::settings;
// <added>
use crate::{outgoing, spans};
// </added>

/// The longest answer that a service reads, in bytes.
const ANSWER_LIMIT: usize = 2 * 1024 * 1024;

/// A service that this one calls: where it is, and how long it may take to answer.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    base: Url,
}

impl Upstream {
    /// Reads `{name}_URL` and `{name}_TIMEOUT_MS`. The arguments are the defaults.
    ///
    /// # Errors
    /// Fails if one of the two variables can't be used.
    pub fn from_env(
        name: &str,
        url: &str,
        deadline: Duration,
    ) -> anyhow::Result<Self> {
        let base = settings::server_url(&format!("{name}_URL"), url)?;
        let deadline = settings::deadline(&format!("{name}_TIMEOUT_MS"), deadline)?;
        let client = Client::builder()
            .timeout(deadline)
            // Sooner than the other side closes the connection.
            .pool_idle_timeout(HEAD_DEADLINE / 2)
            .redirect(Policy::none());
        Ok(Upstream {
            client: client.build()?,
            base,
        })
    }

    /// POSTs `body` as JSON to `path` and reads the JSON answer.
    ///
    /// # Errors
    /// Fails if the deadline passes, the service can't be reached, or its answer is
    /// anything but 2xx and JSON, or is too long.
    pub async fn post<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, CallError> {
        let url = self.url(path);
        let call = self.send(&url, body);
        // <added>
        let call = spans::in_span(outgoing::client_span(path, &url), call);
        // </added>
        call.await
    }

    async fn send<Answer: DeserializeOwned>(
        &self,
        url: &Url,
        body: &impl Serialize,
    ) -> Result<Answer, CallError> {
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::ACCEPT, json);
        // <added>
        outgoing::inject_context_into_carrier(&mut headers);
        // </added>
        let request = self.client.post(url.clone()).headers(headers).json(body);
        let response = request.send().await?;
        let status = response.status();
        // <added>
        outgoing::record_status(status);
        // </added>
        match status.is_success() {
            true => read_json(response).await,
            false => Err(CallError::Status(status)),
        }
    }

    /// `path` below the base URL, which may have a path of its own.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(None);
        url
    }
}

/// Reads the JSON of an answer.
///
/// # Errors
/// Fails if the rest of it doesn't come, is too long, or isn't an `Answer`.
pub async fn read_json<Answer: DeserializeOwned>(
    mut response: Response,
) -> Result<Answer, CallError> {
    let mut json = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if json.len() + piece.len() > ANSWER_LIMIT {
            return Err(CallError::AnswerTooLong);
        }
        json.extend_from_slice(&piece);
    }
    serde_json::from_slice(&json).map_err(|_| CallError::InvalidAnswer)
}
