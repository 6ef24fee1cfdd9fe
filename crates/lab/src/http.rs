//! Sends requests over HTTP/1.1, without TLS: to the lab, to Jaeger's query API, and to the service of `expect --request`.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::HOST;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The status and the body of an answer.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// A URL of a server to send requests to.
#[derive(Debug, Clone)]
pub struct Url {
    /// `HOST:PORT`.
    pub authority: String,
    pub path: String,
}

/// A text that isn't the URL of such a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAUrl {
    #[error("{0} needs TLS, and the lab speaks http only")]
    Https(String),
    #[error("{0:?} is not a URL: write one such as http://localhost:8080/path")]
    Invalid(String),
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// It isn't one, or not of http.
    pub fn parse(text: &str) -> Result<Self, NotAUrl> {
        let invalid = || NotAUrl::Invalid(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(NotAUrl::Https(text.to_owned())),
            _ => return Err(invalid()),
        }
        let authority = uri.authority().map(Authority::as_str).filter(|it| !it.contains('@'));
        let authority = authority.ok_or_else(invalid)?;
        let port = uri.port_u16().map_or(":80", |_| "");
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        Ok(Url { authority: format!("{authority}{port}"), path: path.to_owned() })
    }
}

/// Sends one request on a new connection to `HOST:PORT`, and reads the whole answer.
///
/// # Errors
/// Nothing answers there within the time, or what answers isn't HTTP.
pub async fn send(
    authority: &str,
    request: Result<Request<Body>, axum::http::Error>,
    within: Duration,
) -> io::Result<Answer> {
    let exchange = async {
        let mut request = request.map_err(io::Error::other)?;
        let host = HeaderValue::from_str(authority).map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
        let stream = TokioIo::new(TcpStream::connect(authority).await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
        let connection = async {
            // The connection ends when the answer has been read. If it fails, the request below fails too and reports the
            // error.
            let _ = connection.await;
            std::future::pending().await
        };
        let answer = async {
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(io::Error::other)?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        tokio::select! {
            answer = answer => answer,
            never = connection => never,
        }
    };
    match timeout(within, exchange).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(io::Error::from(elapsed)),
    }
}
