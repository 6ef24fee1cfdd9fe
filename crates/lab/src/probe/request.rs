//! Sends one request over HTTP/1.1, with any headers.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::HOST;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that speaks HTTP without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(Authority);

/// The reasons why a URL can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    #[error("{0:?} is not a URL: write http://HOST:PORT/PATH")]
    NotAUrl(String),
    #[error(
        "{0} is https, which the lab doesn't speak: name the address of the service behind TLS"
    )]
    Https(String),
}

impl Host {
    /// Reads a URL. Returns the server and the path.
    ///
    /// # Errors
    /// The text isn't a URL, or one of https.
    pub fn read(text: &str) -> Result<(Host, PathAndQuery), InvalidUrl> {
        let not_a_url = || InvalidUrl::NotAUrl(text.to_owned());
        let parts = text.parse::<Uri>().map_err(|_| not_a_url())?.into_parts();
        match (parts.scheme, parts.authority, parts.path_and_query) {
            (Some(scheme), ..) if scheme == Scheme::HTTPS => {
                Err(InvalidUrl::Https(text.to_owned()))
            }
            (Some(scheme), Some(authority), path) if scheme == Scheme::HTTP => {
                Ok((Host(authority), path.unwrap_or(PathAndQuery::from_static("/"))))
            }
            _ => Err(not_a_url()),
        }
    }

    /// The host and port to connect to.
    pub fn address(&self) -> String {
        format!("{}:{}", self.0.host(), self.0.port_u16().unwrap_or(80))
    }

    /// Sends a request on a new connection. Returns the answer when its headers are there.
    ///
    /// # Errors
    /// Fails when the server isn't there or doesn't speak HTTP.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        title_case: bool,
    ) -> io::Result<Response<Incoming>> {
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(self.0.as_str()).map_err(io::Error::other)?;
            request.headers_mut().insert(HOST, host);
        }
        let stream = TokioIo::new(TcpStream::connect(self.address()).await?);
        let mut builder = hyper::client::conn::http1::Builder::new();
        let handshake = builder.title_case_headers(title_case).handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(io::Error::other)?;
        // It ends with the answer's body. If it fails, so does the request or the body.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(io::Error::other)
    }
}

/// A request that can be sent again and again.
#[derive(Debug, Clone)]
pub struct Template {
    pub method: Method,
    pub host: Host,
    pub path: PathAndQuery,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// A status and the body of an answer.
pub type Answer = (StatusCode, Bytes);

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
        *request.uri_mut() = Uri::from(self.path.clone());
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
            let value = HeaderValue::from_str(&value).map_err(io::Error::other)?;
            request.headers_mut().append(name, value);
        }
        let exchange = async {
            let answer = self.host.send(request, title_case).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        timeout(patience, exchange).await?
    }
}
