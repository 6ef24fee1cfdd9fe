//! The request that the probe sends again and again, each time with other headers.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::http::{self, Answer, Url};

/// A request that can be sent again and again.
#[derive(Debug, Clone)]
pub struct Template {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Template {
    /// Sends the request with these headers added and reads the whole answer.
    ///
    /// # Errors
    /// Fails when no answer has come within `patience`.
    pub async fn send(
        &self,
        headers: impl IntoIterator<Item = (String, String)>,
        title_case: bool,
        patience: Duration,
    ) -> io::Result<Answer> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.url.path.clone());
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
            let value = HeaderValue::from_str(&value).map_err(io::Error::other)?;
            request.headers_mut().append(name, value);
        }
        http::whole(http::open(&self.url.authority, request, title_case), patience).await
    }
}
