//! A client for a running lab: gets its traces and breaks hops.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use crate::case::Case;
use crate::diagnose::Outcome;
use crate::held::{RECEIVERS, Receivers};
use crate::http::{self, Answer};
use crate::list::Fields;
use crate::read::Unreadable;
use crate::span::{TraceId, trace_id};
use crate::summary::Summary;
use crate::wire::{Fault, HopState};

/// How long a lab may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The reasons why a request to a lab fails.
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
    #[error("no trace has arrived yet")]
    NoTrace,
    /// Traces have arrived and none is left, for this reason.
    #[error("{0}")]
    Dropped(String),
    #[error("the lab has no trace {0}: `lab traces` lists its traces")]
    NoSuchTrace(String),
    #[error("no trace id begins with {0:?}: `lab traces` lists the traces")]
    NoPrefix(String),
    #[error("{count} traces begin with {start:?}: write more of the id")]
    Ambiguous { start: String, count: usize },
    /// The lab refused the request, for this reason.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Case(#[from] Unreadable),
}

/// Finds the trace ids that start with `typed`, with or without their leading zeros. An id that was typed completely is the only
/// one. `typed` may be in upper case and have the dashes of a UUID.
pub fn starting_with(typed: &str, ids: impl Iterator<Item = TraceId>) -> Vec<TraceId> {
    let start = typed.trim().replace('-', "").to_lowercase();
    let starts = |id: &TraceId| {
        let id = id.to_string();
        id.starts_with(&start) || id.trim_start_matches('0').starts_with(&start)
    };
    let found: Vec<TraceId> = ids.filter(starts).collect();
    match trace_id(&start).filter(|whole| found.contains(whole)) {
        Some(whole) => vec![whole],
        None => found,
    }
}

/// A running lab.
pub struct Lab {
    site: String,
}

impl Lab {
    /// Creates a client for the lab whose pages are at `site`, written as `HOST:PORT`.
    pub fn at(site: &str) -> Self {
        let site = site.to_owned();
        Lab { site }
    }

    /// Returns the traces that pass the filter, the newest first.
    ///
    /// # Errors
    /// Fails when no lab answers.
    pub async fn traces(&self, filter: &Fields) -> Result<Vec<Summary>, Error> {
        let answer = self.get(&format!("/traces.json?{}", filter.query())).await?;
        self.read(answer)
    }

    /// Returns the spans of one trace as OTLP JSON. Without `id`, this is the newest trace; else the only trace whose id starts
    /// with `id`.
    ///
    /// # Errors
    /// Fails when no lab answers, or when not exactly one trace matches.
    pub async fn trace(&self, id: Option<&str>) -> Result<Bytes, Error> {
        let id = match self.id(id).await? {
            Some(id) => id,
            None => return Err(self.no_trace().await),
        };
        let json = self.document(id, "json").await?;
        json.ok_or_else(|| Error::NoSuchTrace(id.to_string()))
    }

    /// Finds a trace like [`Lab::trace`]. Returns its id and the case of its request, or `None` when the lab has neither spans
    /// nor headers of it.
    ///
    /// # Errors
    /// Fails when no lab answers, or when not exactly one trace id starts with `id`.
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

    /// Returns the id of the newest trace with an error, or `None` if no trace has one. Traces whose request was answered well come
    /// last, and those of refused requests before them.
    ///
    /// # Errors
    /// Fails when no lab answers.
    pub async fn newest_failed(&self) -> Result<Option<TraceId>, Error> {
        let failed = Fields { status: "error".to_owned(), ..Fields::default() };
        let traces = self.traces(&failed).await?;
        let outcome = |summary: &&Summary| {
            let status = summary.http_status.as_deref().and_then(|status| status.parse().ok());
            match status {
                Some(400..500) => Outcome::Refused,
                Some(100..400) => Outcome::Recovered,
                Some(0..100 | 500..=u16::MAX) | None => Outcome::Failed,
            }
        };
        // The newest stand first, and of several equal ones this returns the last.
        Ok(traces.iter().rev().max_by_key(outcome).map(|summary| summary.trace_id))
    }

    /// Returns all traces and all requests on the wire as one case.
    ///
    /// # Errors
    /// Fails when no lab answers.
    pub async fn whole_case(&self) -> Result<Case, Error> {
        let answer = self.get("/traces.case.json").await?;
        match answer.status {
            status if status.is_success() => Ok(Case::read(&answer.body)?),
            status => Err(self.not_the_lab(status)),
        }
    }

    /// Returns the error for a lab without a trace, which says whether any has arrived.
    pub async fn no_trace(&self) -> Error {
        match self.get("/traces/dropped.txt").await {
            Ok(answer) if answer.status.is_success() && !answer.body.is_empty() => {
                Error::Dropped(String::from_utf8_lossy(&answer.body).into_owned())
            }
            _ => Error::NoTrace,
        }
    }

    /// Completes the id of a trace that starts with `id`, with or without its leading zeros. Without `id`, returns that of the
    /// newest trace, or `None` when the lab has no traces.
    async fn id(&self, id: Option<&str>) -> Result<Option<TraceId>, Error> {
        let start = id.map(|id| id.trim().replace('-', "").to_lowercase());
        if let Some(id) = start.as_deref().and_then(TraceId::parse) {
            return Ok(Some(id));
        }
        let traces = self.traces(&Fields::default()).await?;
        let mut ids = traces.iter().map(|it| it.trace_id);
        let Some(start) = start else {
            return Ok(ids.next());
        };
        let found = starting_with(&start, ids);
        match found[..] {
            [only] => Ok(Some(only)),
            [] => Err(Error::NoPrefix(start)),
            _ => Err(Error::Ambiguous { start, count: found.len() }),
        }
    }

    /// Gets a trace in one form, such as `json`. Returns `None` when the lab doesn't have the trace.
    ///
    /// # Errors
    /// Fails when no lab answers.
    pub async fn document(&self, id: TraceId, form: &str) -> Result<Option<Bytes>, Error> {
        let answer = self.get(&format!("/traces/{id}.{form}")).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(answer.body)),
            status => Err(self.not_the_lab(status)),
        }
    }

    /// Returns the hops with the addresses of their proxies and the faults that are set.
    ///
    /// # Errors
    /// Fails when no lab answers.
    pub async fn hops(&self) -> Result<Vec<HopState>, Error> {
        let answer = self.get("/wire.json").await?;
        self.read(answer)
    }

    /// Sets the fault of a hop, or restores the hop with `None`. Returns the new states of all hops.
    ///
    /// # Errors
    /// Fails when no lab answers, it has no proxies, or it doesn't have the hop.
    pub async fn set(&self, hop: &str, fault: Option<Fault>) -> Result<Vec<HopState>, Error> {
        let setting = serde_json::json!({ "fault": fault.map(Fault::name) });
        let request = Request::post(format!("/wire/{hop}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(setting.to_string()));
        let answer = self.send(request).await?;
        if !answer.status.is_success() {
            let problem = String::from_utf8_lossy(&answer.body);
            return Err(Error::Refused(problem.trim_end().to_owned()));
        }
        self.read(answer)
    }

    /// Removes all traces.
    ///
    /// # Errors
    /// Fails when no lab answers.
    pub async fn clear(&self) -> Result<(), Error> {
        let answer = self.send(Request::post("/traces/clear").body(Body::empty())).await?;
        // Like a form, it is sent on to the list.
        match answer.status {
            StatusCode::SEE_OTHER => Ok(()),
            status => Err(self.not_the_lab(status)),
        }
    }

    /// Adds the spans of a document, in any form that [`crate::read`] knows.
    ///
    /// # Errors
    /// Fails when no lab answers, or it can't read the document.
    pub async fn import(&self, document: String) -> Result<(), Error> {
        let request = Request::post("/traces/import").header(CONTENT_TYPE, "application/json");
        let answer = self.send(request.body(Body::from(document))).await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(self.not_the_lab(answer.status)),
        }
    }

    /// Returns the addresses of the lab's receivers, as they can be reached from here.
    ///
    /// # Errors
    /// Fails when no lab answers.
    pub async fn receivers(&self) -> Result<Receivers, Error> {
        let answer = self.get(RECEIVERS).await?;
        let Receivers { otlp, grpc } = self.read(answer)?;
        // A receiver that listens at all addresses is where the pages are.
        let host = self.site.rsplit_once(':').map_or("localhost", |(host, _)| host);
        let reached = |address: String| match address.parse::<SocketAddr>() {
            Ok(any) if any.ip().is_unspecified() => format!("{host}:{}", any.port()),
            _ => address,
        };
        Ok(Receivers { otlp: reached(otlp), grpc: reached(grpc) })
    }

    /// Sends a GET request for `path`, which may include a query.
    ///
    /// # Errors
    /// Fails when no lab answers within 30 seconds.
    pub async fn get(&self, path: &str) -> Result<Answer, Error> {
        let request = Request::builder().method(Method::GET).uri(path);
        self.send(request.body(Body::empty())).await
    }

    /// Parses the JSON body of an answer.
    ///
    /// # Errors
    /// Fails when the status isn't 2xx or the body isn't a `T`.
    pub fn read<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, Error> {
        match answer.status {
            status if status.is_success() => Ok(serde_json::from_slice(&answer.body)?),
            // The body of a full lab's answer says what to do.
            StatusCode::TOO_MANY_REQUESTS => {
                let reason = String::from_utf8_lossy(&answer.body);
                Err(Error::Refused(reason.trim_end().to_owned()))
            }
            status => Err(self.not_the_lab(status)),
        }
    }

    /// Returns the error for an answer with a status that a lab doesn't give.
    pub fn not_the_lab(&self, status: StatusCode) -> Error {
        let site = self.site.clone();
        Error::NotTheLab { site, status }
    }

    /// Sends one request on a new connection.
    async fn send(
        &self,
        request: Result<Request<Body>, axum::http::Error>,
    ) -> Result<Answer, Error> {
        let answer = http::send(&self.site, request, TIMEOUT).await;
        answer.map_err(|source| Error::NoAnswer { site: self.site.clone(), source })
    }
}
