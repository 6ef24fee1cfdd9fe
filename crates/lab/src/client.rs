//! Asks a running lab: for its traces, and to break a hop.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::case::{self, Case};
use crate::list::Fields;
use crate::span::TraceId;
use crate::summary::Summary;
use crate::wire::{Fault, HopState};

/// How long a lab may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a running lab gave no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no lab answers at {site}: start it with `lab view`, or name its address with --site")]
    NoAnswer {
        site: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "what answers at {site} is not the lab ({status}): name the address of its pages with --site"
    )]
    NotTheLab { site: String, status: StatusCode },
    #[error("the lab's answer can't be read: is it of another version?")]
    OtherVersion(#[from] serde_json::Error),
    #[error("there is no trace yet")]
    NoTrace,
    #[error("there is no trace {0}: `lab traces` lists those there are")]
    NoSuchTrace(String),
    #[error("no trace begins with {0:?}: `lab traces` lists those there are")]
    NoPrefix(String),
    #[error("{count} traces begin with {start:?}: write more of the id")]
    Ambiguous { start: String, count: usize },
    /// The lab says itself why it refuses.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Case(#[from] case::Error),
}

/// A running lab.
pub struct Lab {
    site: String,
}

/// An answer of a lab: its status and its body.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Lab {
    /// The lab whose pages are at `site`, as `HOST:PORT`.
    pub fn at(site: &str) -> Self {
        let site = site.to_owned();
        Lab { site }
    }

    /// The traces that pass the filter, the newest first.
    ///
    /// # Errors
    /// When no lab answers.
    pub async fn traces(&self, filter: &Fields) -> Result<Vec<Summary>, Error> {
        let answer = self
            .get(&format!("/traces.json?{}", filter.query()))
            .await?;
        self.read(answer)
    }

    /// The spans of one trace as OTLP JSON: of the newest trace, or of the only one whose id starts with `id`.
    ///
    /// # Errors
    /// When no lab answers, or there is no such trace, or more than one.
    pub async fn trace(&self, id: Option<&str>) -> Result<Bytes, Error> {
        let id = self.id(id).await?.ok_or(Error::NoTrace)?;
        let json = self.document(id, "json").await?;
        json.ok_or_else(|| Error::NoSuchTrace(id.to_string()))
    }

    /// The case of the request that such a trace belongs to, and the trace's id. `None` when the lab has nothing of it.
    ///
    /// # Errors
    /// When no lab answers, or no trace id starts with `id`, or more than one does.
    pub async fn case(&self, id: Option<&str>) -> Result<Option<(TraceId, Case)>, Error> {
        let Some(id) = self.id(id).await? else {
            return Ok(None);
        };
        let Some(json) = self.document(id, "case.json").await? else {
            return Ok(None);
        };
        let case = Case::read(&json)?;
        Ok(Some((id, case)))
    }

    /// The whole id of the trace that starts with `id`, or of the newest. `None` when there is no trace at all.
    async fn id(&self, id: Option<&str>) -> Result<Option<TraceId>, Error> {
        if let Some(id) = id.and_then(TraceId::parse) {
            return Ok(Some(id));
        }
        let traces = self.traces(&Fields::default()).await?;
        let ids = traces.iter().map(|it| it.trace_id);
        let Some(start) = id.map(|id| id.trim().to_lowercase()) else {
            return Ok(ids.into_iter().next());
        };
        let found: Vec<_> = ids
            .filter(|it| it.to_string().starts_with(&start))
            .collect();
        match found[..] {
            [only] => Ok(Some(only)),
            [] => Err(Error::NoPrefix(start)),
            _ => Err(Error::Ambiguous {
                start,
                count: found.len(),
            }),
        }
    }

    /// One form of a trace, such as `json`. `None` when there is no such trace.
    async fn document(&self, id: TraceId, form: &str) -> Result<Option<Bytes>, Error> {
        let answer = self.get(&format!("/traces/{id}.{form}")).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(answer.body)),
            status => Err(self.not_the_lab(status)),
        }
    }

    /// The hops, where their proxies listen, and the faults that are set.
    ///
    /// # Errors
    /// When no lab answers.
    pub async fn hops(&self) -> Result<Vec<HopState>, Error> {
        let answer = self.get("/wire.json").await?;
        self.read(answer)
    }

    /// Sets the fault of a hop, or restores it. Returns all hops as they are then.
    ///
    /// # Errors
    /// When no lab answers, or it has no proxies, or no such hop.
    pub async fn set(&self, hop: &str, fault: Option<Fault>) -> Result<Vec<HopState>, Error> {
        let setting = serde_json::json!({ "fault": fault.map(Fault::name) });
        let request = Request::post(format!("/wire/{hop}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(setting.to_string()));
        let answer = self.send(request, PATIENCE).await?;
        if !answer.status.is_success() {
            let problem = String::from_utf8_lossy(&answer.body);
            return Err(Error::Refused(problem.trim_end().to_owned()));
        }
        self.read(answer)
    }

    /// Asks for `path`, which may have a query.
    ///
    /// # Errors
    /// When no lab answers within 30 seconds.
    pub async fn get(&self, path: &str) -> Result<Answer, Error> {
        let request = Request::builder().method(Method::GET).uri(path);
        self.send(request.body(Body::empty()), PATIENCE).await
    }

    /// What an answer says, which must be a success.
    ///
    /// # Errors
    /// When it is no success, or says something else.
    pub fn read<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, Error> {
        match answer.status.is_success() {
            true => Ok(serde_json::from_slice(&answer.body)?),
            false => Err(self.not_the_lab(answer.status)),
        }
    }

    /// The error for an answer that no lab gives.
    pub fn not_the_lab(&self, status: StatusCode) -> Error {
        let site = self.site.clone();
        Error::NotTheLab { site, status }
    }

    /// Sends one request on a connection of its own.
    async fn send(
        &self,
        request: Result<Request<Body>, axum::http::Error>,
        patience: Duration,
    ) -> Result<Answer, Error> {
        let exchange = async {
            let mut request = request.map_err(std::io::Error::other)?;
            let host = self.site.parse().map_err(std::io::Error::other)?;
            request.headers_mut().insert(HOST, host);
            let stream = TokioIo::new(TcpStream::connect(&self.site).await?);
            let other = std::io::Error::other;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
                .await
                .map_err(other)?;
            let connection = async {
                // It ends when the answer is read; an error also ends the request, which reports it.
                let _ = connection.await;
                std::future::pending().await
            };
            let answer = async {
                let answer = sender.send_request(request).await.map_err(other)?;
                let status = answer.status();
                let body = answer.into_body().collect().await.map_err(other)?;
                Ok(Answer {
                    status,
                    body: body.to_bytes(),
                })
            };
            tokio::select! {
                answer = answer => answer,
                never = connection => never,
            }
        };
        let answer = match timeout(patience, exchange).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(std::io::Error::from(elapsed)),
        };
        answer.map_err(|source| Error::NoAnswer {
            site: self.site.clone(),
            source,
        })
    }
}
