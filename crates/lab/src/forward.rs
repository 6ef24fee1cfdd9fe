//! Forwards the requests that the receivers have taken to another receiver of OTLP over HTTP, such as a Collector or a vendor.
//!
//! Follows <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>: sends a request again after 429, 502, 503, 504 and failed
//! connections.

use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use prost::Message as _;
use reqwest::{Client, Response, Url, redirect};
use serde_json::Value;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::proto::collector::ExportTraceServiceResponse;
use crate::queue::{Counts, Outcome, Queue, Request};
use crate::server::Addresses;
use crate::span::shortened;
use crate::store::Store;
use crate::waterfall::count;

/// The variable with the headers of each request, as `NAME=VALUE,NAME=VALUE` with URL-encoded values. A flag would show its secrets
/// in the list of processes.
pub const HEADERS: &str = "LAB_FORWARD_HEADERS";

/// The number of requests that are sent at the same time.
const SENDERS: usize = 8;

/// How long an answer may take, as for the exporters of SDKs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The first wait before a request is sent again. Each further one is twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The longest wait that a `Retry-After` can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// How long a request is sent again although it is answered each time. The receiver may be unable to take this one.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the requests in the queue may take when the lab stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of an answer that are read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// The reasons why nothing can be forwarded. They don't repeat the URL, which may have a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the URL of --forward can't be used: write the base URL of a receiver of OTLP over HTTP, such as http://localhost:4318"
    )]
    Url,
    #[error("the URL of --forward ends with {0}: leave that out, as the lab appends it")]
    NotTheBase(&'static str),
    #[error(
        "the URL of --forward has a user, a query or a fragment: put a key into {HEADERS} instead"
    )]
    Extra,
    #[error(
        "{HEADERS} can't be read at its entry {0}: write NAME=VALUE,NAME=VALUE with URL-encoded values"
    )]
    Header(usize),
    #[error("--forward leads back to this lab, which listens on {0}: name another receiver")]
    Loop(SocketAddr),
    #[error("cannot prepare the client of --forward")]
    Client(#[source] reqwest::Error),
}

/// Tasks that send the requests of a queue on. They end when this is dropped.
pub struct Forwarder {
    queue: Arc<Queue>,
    senders: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

impl Forwarder {
    /// Starts to forward to the receiver with this base URL, with the headers of [`HEADERS`]. `own` are the addresses of this
    /// lab, and the pages of `store` show what becomes of the requests.
    ///
    /// # Errors
    /// The URL or the headers can't be used, or the URL leads to one of `own`.
    pub async fn start(
        url: &str,
        headers: Option<&str>,
        own: Addresses,
        store: &Store,
    ) -> Result<Self, Error> {
        let url = base(url)?;
        let to: Vec<SocketAddr> = match (url.host_str(), url.port_or_known_default()) {
            // A host that can't be found now may be found later.
            (Some(host), Some(port)) => lookup_host(format!("{host}:{port}"))
                .await
                .map(Iterator::collect)
                .unwrap_or_default(),
            _ => return Err(Error::Url),
        };
        let own = [own.otlp, own.grpc, own.site];
        if let Some(own) = own.into_iter().find(|own| to.iter().any(|to| is_same(*own, *to))) {
            return Err(Error::Loop(own));
        }
        let mut client = Client::builder()
            .user_agent(concat!("one-trace-lab/", env!("CARGO_PKG_VERSION")))
            .default_headers(read_headers(headers.unwrap_or_default())?)
            .redirect(redirect::Policy::none())
            .timeout(ANSWER_TIMEOUT);
        if to.iter().any(|to| to.ip().is_loopback()) {
            client = client.no_proxy();
        }
        if url.scheme() == "http" {
            // Without this, the client needs the certificates of the system, which an image of a container may lack.
            client = client.tls_certs_only([]);
        }
        let client = client.build().map_err(Error::Client)?;
        let queue = Arc::new(Queue::new(url.origin().ascii_serialization(), store));
        let (stopping, stopped) = watch::channel(false);
        let sender = Arc::new(Sender {
            base: url.as_str().trim_end_matches('/').to_owned(),
            client,
            queue: Arc::clone(&queue),
            has_warned: AtomicBool::new(false),
            stopped,
        });
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            senders.spawn(Arc::clone(&sender).run());
        }
        Ok(Forwarder { queue, senders, stopping })
    }

    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Sends what is in the queue, each request once and for at most five seconds. Then prints what wasn't forwarded, if anything.
    pub async fn finish(mut self) {
        self.stopping.send_replace(true);
        self.queue.close();
        let ended = async { while self.senders.join_next().await.is_some() {} };
        // What isn't sent by then is counted below.
        let _ = timeout(DRAIN_TIMEOUT, ended).await;
        let counts = self.queue.counts();
        if counts != (Counts { sent: counts.sent, ..Counts::default() }) {
            let counts = in_words(counts, "not sent before the lab stopped");
            eprintln!("Warning: forwarded to {}: {counts}", self.queue.name);
        }
    }
}

/// Says what became of the requests. `waiting` describes those that weren't sent yet.
pub fn in_words(counts: Counts, waiting: &str) -> String {
    let Counts { sent, rejected_items, dropped, refused, first_refusal, .. } = counts;
    let mut words = count(sent, "request");
    let parts = [
        (counts.waiting, waiting.to_owned()),
        (dropped, "dropped, as the queue was full".to_owned()),
        (refused, format!("refused, the first with {}", first_refusal.unwrap_or_default())),
    ];
    for (number, what) in parts.into_iter().filter(|(number, _)| *number > 0) {
        words += &format!("; {number} {what}");
    }
    if rejected_items > 0 {
        words += &format!("; {rejected_items} of their spans, records or metrics rejected");
    }
    words
}

/// Reads the base URL of a receiver.
fn base(url: &str) -> Result<Url, Error> {
    let url = Url::parse(url).map_err(|_| Error::Url)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::Url);
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.query().is_some() || url.fragment().is_some() {
        return Err(Error::Extra);
    }
    let path = url.path().trim_end_matches('/');
    match ["/v1/traces", "/v1/logs", "/v1/metrics"].into_iter().find(|end| path.ends_with(end)) {
        Some(end) => Err(Error::NotTheBase(end)),
        None => Ok(url),
    }
}

/// Reads headers as OpenTelemetry's specification writes them in `OTEL_EXPORTER_OTLP_HEADERS`.
fn read_headers(text: &str) -> Result<HeaderMap, Error> {
    let header = |entry: &str| {
        let (name, value) = entry.split_once('=')?;
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let mut value = HeaderValue::from_bytes(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
    };
    let entries = text.split(',').enumerate().filter(|(_, entry)| !entry.trim().is_empty());
    entries.map(|(index, entry)| header(entry).ok_or(Error::Header(index + 1))).collect()
}

/// Whether a connection to `to` reaches a listener on `own`.
fn is_same(own: SocketAddr, to: SocketAddr) -> bool {
    let ip = match to.ip().to_canonical() {
        ip if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    // Only an address of this machine can be bound.
    let is_here = || UdpSocket::bind((ip, 0)).is_ok();
    own.port() == to.port() && (own.ip() == ip || own.ip().is_unspecified() && is_here())
}

/// The state that all tasks share.
struct Sender {
    base: String,
    client: Client,
    queue: Arc<Queue>,
    /// Whether the warning was printed that a request has to be sent again.
    has_warned: AtomicBool,
    stopped: watch::Receiver<bool>,
}

/// The result of sending a request once.
enum Attempt {
    Ended(Outcome),
    Again { status: Option<StatusCode>, after: Option<Duration> },
}

impl Sender {
    async fn run(self: Arc<Self>) {
        while let Some(request) = self.queue.next().await {
            let Some(outcome) = self.deliver(&request).await else { continue };
            let counts = self.queue.finish(&request, outcome);
            if let Outcome::Refused { status } = outcome
                && counts.refused == 1
            {
                let name = &self.queue.name;
                let hint = match status {
                    401 | 403 => format!(": are the headers in {HEADERS} right?"),
                    404 => ": is its base URL right?".to_owned(),
                    _ => String::new(),
                };
                eprintln!(
                    "Warning: {name} refused a request of {} with {status}{hint}",
                    request.path
                );
            }
        }
    }

    /// Sends a request until that ends it. Returns `None` if the lab stops before.
    async fn deliver(&self, request: &Request) -> Option<Outcome> {
        let first = Instant::now();
        let mut wait = FIRST_WAIT;
        let mut stopped = self.stopped.clone();
        loop {
            // Before the attempt, so that each request has one while the lab stops.
            let is_last = *self.stopped.borrow();
            let (status, after) = match self.attempt(request).await {
                Attempt::Ended(outcome) => return Some(outcome),
                Attempt::Again { status, after } => (status, after),
            };
            if is_last {
                return None;
            }
            if let Some(status) = status.filter(|_| first.elapsed() > PATIENCE) {
                return Some(Outcome::Refused { status: status.as_u16() });
            }
            // Not all at the same time.
            let wait_now = after.unwrap_or_else(|| wait.mul_f64(0.5 + fastrand::f64() / 2.0));
            tokio::select! {
                () = sleep(wait_now) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            wait = LONGEST_WAIT.min(wait * 2);
        }
    }

    async fn attempt(&self, request: &Request) -> Attempt {
        let mut post = self.client.post(format!("{}{}", self.base, request.path));
        post = post.header(CONTENT_TYPE, request.content_type).body(request.body.clone());
        if let Some(encoding) = request.content_encoding {
            post = post.header(CONTENT_ENCODING, encoding);
        }
        let name = &self.queue.name;
        let warn = |what: &str| {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                eprintln!(
                    "Warning: {name} {what}: the lab sends requests again until they are accepted"
                );
            }
        };
        let answer = match post.send().await {
            Ok(answer) => answer,
            Err(error) => {
                warn(&format!("can't be reached ({})", root(&error)));
                return Attempt::Again { status: None, after: None };
            }
        };
        let status = answer.status();
        match status.as_u16() {
            200..=299 => {
                let rejected = rejected(answer).await;
                if let Some((items, reason)) = &rejected
                    && *items > 0
                    && self.queue.counts().rejected_items == 0
                {
                    let items = usize::try_from(*items).unwrap_or(usize::MAX);
                    eprintln!(
                        "Warning: {name} rejected {} of a request: {reason:?}",
                        count(items, "item")
                    );
                }
                Attempt::Ended(Outcome::Sent { rejected: rejected.map_or(0, |(items, _)| items) })
            }
            429 | 502..=504 => {
                warn(&format!("answers {}", status.as_u16()));
                Attempt::Again { status: Some(status), after: asked(answer.headers()) }
            }
            status => Attempt::Ended(Outcome::Refused { status }),
        }
    }
}

/// Returns the wait that `Retry-After` asks for in seconds.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_ASKED))
}

/// The deepest reason for an error. The others have the URL.
fn root(error: &reqwest::Error) -> String {
    let mut reason = error.source();
    while let Some(deeper) = reason.and_then(std::error::Error::source) {
        reason = Some(deeper);
    }
    reason.map_or_else(|| "no answer came".to_owned(), ToString::to_string)
}

/// Reads the number of rejected items and the reason from an answer, if it has them. The answers for all signals have the same
/// fields.
async fn rejected(mut answer: Response) -> Option<(u64, String)> {
    let media_type = answer.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let is_json = media_type.is_some_and(|it| it.starts_with("application/json"));
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_LIMIT {
            return None;
        }
    }
    let (items, reason) = if is_json {
        let answer: Value = serde_json::from_slice(&body).ok()?;
        let partial = answer.get("partialSuccess")?;
        let names = ["rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"];
        let items = names.iter().find_map(|name| partial.get(name))?;
        // OTLP JSON writes a number of 64 bits as a text.
        let items = items.as_u64().or_else(|| items.as_str()?.parse().ok())?;
        (items, partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default().to_owned())
    } else {
        let partial = ExportTraceServiceResponse::decode(&body[..]).ok()?.partial_success?;
        (u64::try_from(partial.rejected_spans).ok()?, partial.error_message)
    };
    Some((items, shortened(&reason, 200)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_can_ask_for_a_wait_of_five_minutes_at_most() {
        for (value, expected) in
            [("7", Some(7)), ("99999", Some(300)), ("Mon, 30 Nov 2026 00:00:00 GMT", None)]
        {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            assert_eq!(asked(&headers).map(|it| it.as_secs()), expected, "{value}");
        }
    }
}
