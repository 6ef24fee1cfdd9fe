//! Sends requests without TLS: to the lab, to Jaeger's query API, and to the services that `expect` and `probe` ask.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::HOST;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The status and the body of an answer.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// A URL of a server to send requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `HOST:PORT`.
    pub authority: String,
    pub path: PathAndQuery,
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
        let parts = text.parse::<Uri>().map_err(|_| invalid())?.into_parts();
        match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTP => {}
            Some(scheme) if scheme == Scheme::HTTPS => {
                return Err(NotAUrl::Https(text.to_owned()));
            }
            _ => return Err(invalid()),
        }
        let has_user = |it: &Authority| it.as_str().contains('@');
        let authority = parts.authority.filter(|it| !has_user(it)).ok_or_else(invalid)?;
        let port = authority.port_u16().unwrap_or(80);
        Ok(Url {
            authority: format!("{}:{port}", authority.host()),
            path: parts.path_and_query.unwrap_or(PathAndQuery::from_static("/")),
        })
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
    let request = request.map_err(io::Error::other)?;
    whole(open(authority, request, false), within).await
}

/// Waits for the whole of an answer.
///
/// # Errors
/// It doesn't come within the time.
pub async fn whole(
    answer: impl Future<Output = io::Result<Response<Incoming>>>,
    within: Duration,
) -> io::Result<Answer> {
    let exchange = async {
        let answer = answer.await?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    timeout(within, exchange).await?
}

/// Sends one request on a new connection to `HOST:PORT`. Returns the answer when its headers are there. `title_case` capitalizes
/// the names of the request's headers.
///
/// # Errors
/// Nothing answers there, or what answers isn't HTTP.
pub async fn open(
    authority: &str,
    mut request: Request<Body>,
    title_case: bool,
) -> io::Result<Response<Incoming>> {
    if !request.headers().contains_key(HOST) {
        let host = authority.strip_suffix(":80").unwrap_or(authority);
        let host = HeaderValue::from_str(host).map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
    }
    let stream = TokioIo::new(TcpStream::connect(authority).await?);
    let mut builder = hyper::client::conn::http1::Builder::new();
    let handshake = builder.title_case_headers(title_case).handshake(stream).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    // It ends with the answer's body. If it fails, so does the request or the body.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Sends one request over HTTP/2 on a new connection to `HOST:PORT`. Returns the answer when its headers are there.
///
/// # Errors
/// Nothing answers there, or what answers doesn't speak HTTP/2 without an upgrade.
pub async fn open_http2(
    authority: &str,
    mut request: Request<Body>,
) -> io::Result<Response<Incoming>> {
    let mut uri = Uri::builder().scheme(Scheme::HTTP).authority(authority);
    if let Some(path) = request.uri().path_and_query() {
        uri = uri.path_and_query(path.clone());
    }
    *request.uri_mut() = uri.build().map_err(io::Error::other)?;
    let stream = TokioIo::new(TcpStream::connect(authority).await?);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    // As above.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}
