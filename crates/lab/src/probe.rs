//! Probes an unmodified service: sends it requests with the trace headers of many callers, plays the services that it calls, and
//! looks at the headers that reach them and at the spans that arrive.
//!
//! Data flows one way: [`cases`] says what is sent and expected; [`request`] sends it; [`neighbor`] records the calls; [`judge`]
//! compares. The findings are data. [`crate::cli`] turns them into sentences.

pub mod cases;
pub mod judge;
pub mod neighbor;
pub mod request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http;
use crate::listen;
use crate::receivers::Receivers;
use crate::span::shortened;
use crate::store::{Limits, Refused, Store};
use crate::tree::visible;
use cases::{Case, Ids};
use judge::{Finding, Judge, Judged, Observed, Verdict};
use neighbor::{Answer, Calls, Neighbor, Route, Shared};
use request::Template;

/// A service to probe, and the way to do it.
pub struct Plan {
    pub request: Template,
    pub cases: Vec<Case>,
    /// The services that are called. Empty for a leaf.
    pub neighbors: Vec<Neighbor>,
    pub answers: Vec<Answer>,
    /// Calls on these routes belong to no request, such as health checks.
    pub ignored: Vec<Route>,
    /// The addresses that receive spans over HTTP and gRPC, or `None` to look at the calls alone.
    pub receivers: Option<[SocketAddr; 2]>,
    /// Whether the service starts a trace for each request on purpose.
    pub edge: bool,
    /// The names of the cases that may fail.
    pub allowed: Vec<String>,
    /// How long a call or a span may take to come after the last one.
    pub settle: Duration,
    /// How long an answer may take, and all spans together.
    pub timeout: Duration,
}

/// The reasons why a service can't be probed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Listen(#[from] listen::Error),
    #[error("no service answers at {address}: start it, or name another address")]
    NoService {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the service answers {status} to the first request ({body}): give it a request that it accepts (--body, --header), and its \
         neighbors what it expects of them (--answer)"
    )]
    Refused { status: StatusCode, body: String },
    #[error(
        "the service answers {status} when the first request, which it answered {first}, is repeated without trace headers: give it a \
         request that it accepts again and again"
    )]
    NotRepeatable { first: u16, status: StatusCode },
    #[error(
        "the service never called {addresses}: point it there, or say --leaf if it calls no other service"
    )]
    NeverCalled { addresses: String },
    #[error(
        "the service calls {neighbor} over gRPC, and the probe can't answer that itself: name the real service behind it \
         (--neighbor {neighbor},http://HOST:PORT)"
    )]
    Grpc { neighbor: String },
    #[error(
        "no span has arrived: let the service export to {endpoint} (OTEL_EXPORTER_OTLP_ENDPOINT), or look at the calls alone with \
         --no-spans"
    )]
    NoSpan { endpoint: String },
    #[error("the probe kept none of the spans that arrived: {}", .0.reason)]
    Rejected(Refused),
    #[error("{} of {of} cases can't be judged, because neither a call nor a span shows what the service did: {}", unseen.len(), unseen.join(", "))]
    Unseen { unseen: Vec<String>, of: usize },
}

/// A probe that listens.
pub struct Probe {
    plan: Plan,
    ids: Vec<Ids>,
    shared: Arc<Shared>,
    store: Store,
    /// The addresses of the neighbors, with the ports that the system chose for port 0.
    pub neighbors: Vec<SocketAddr>,
    /// The same for the receivers.
    pub receivers: Option<[SocketAddr; 2]>,
    /// The servers. They stop when this is dropped.
    _servers: JoinSet<()>,
}

/// The results of all cases.
pub struct Report {
    pub judged: Vec<Judged>,
    /// The reason why the report isn't complete.
    pub incomplete: Option<Error>,
    /// The requests with spans that the receivers refused.
    pub refused: Option<Refused>,
}

/// A deviation that all cases with a valid `traceparent` show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    NeverContinues,
    NeverSends,
}

impl Report {
    /// Whether a case failed.
    pub fn is_broken(&self) -> bool {
        self.judged.iter().any(|it| it.verdict == Verdict::Broken)
    }

    /// Finds what all cases with a valid `traceparent` show.
    pub fn pattern(&self) -> Option<Pattern> {
        let all_have = |finding: Finding| {
            let mut valid = self.judged.iter().filter(|it| it.case.flags().is_some()).peekable();
            valid.peek().is_some()
                && valid.all(|it| it.found.iter().any(|found| found.finding == finding))
        };
        let patterns = [
            (Finding::NotContinued, Pattern::NeverContinues),
            (Finding::NoTraceparent, Pattern::NeverSends),
        ];
        patterns.into_iter().find(|(finding, _)| all_have(finding.clone())).map(|it| it.1)
    }
}

impl Probe {
    /// Listens at all addresses.
    ///
    /// # Errors
    /// [`Error::Listen`] when one is taken.
    pub async fn bind(plan: Plan) -> Result<Self, Error> {
        let mut servers = JoinSet::new();
        let store = Store::new(Limits::default());
        let receivers = match plan.receivers {
            Some([otlp, grpc]) => {
                let receivers = Receivers::bind(otlp, grpc).await?;
                let (otlp, grpc) = receivers.addresses();
                let served = receivers.serve(store.clone(), CONNECTIONS, std::future::pending());
                servers.spawn(async move {
                    // It only fails where a listener does: then no span arrives, which is reported.
                    let _ = served.await;
                });
                Some([otlp, grpc])
            }
            None => None,
        };
        let ids: Vec<Ids> = plan.cases.iter().map(|_| Ids::random()).collect();
        let shared = Arc::new(Shared {
            calls: Calls::new(ids.clone()),
            answers: plan.answers.clone(),
            ignored: plan.ignored.clone(),
        });
        let mut neighbors = Vec::new();
        for neighbor in &plan.neighbors {
            let listener = listen::bind("--neighbor", neighbor.address).await?;
            neighbors.push(listen::address(&listener)?);
            neighbor::serve(&mut servers, listener, neighbor.clone(), Arc::clone(&shared));
        }
        Ok(Probe { plan, ids, shared, store, neighbors, receivers, _servers: servers })
    }

    /// Sends the requests one after the other and judges them.
    ///
    /// # Errors
    /// Fails when the service isn't there, refuses the first request, or never calls a neighbor.
    pub async fn run(self) -> Result<Report, Error> {
        let (first, first_status) = self.send_first().await?;
        let first_calls = self.count_calls().await?;
        let mut sent = vec![first];
        let mut expected_calls = first_calls;
        for index in 1..self.plan.cases.len() {
            let (exchange, _) = self.send(index).await;
            if exchange.answer != Ok(first_status) {
                self.repeat_first(first_status).await?;
            } else {
                let calls = self.wait_for_calls(index, expected_calls).await;
                // A service that calls less often from here on, such as one with a cache, isn't waited for again.
                expected_calls = expected_calls.min(calls);
            }
            sent.push(exchange);
        }
        if self.receivers.is_some() {
            self.wait_for_spans(&sent).await;
        }
        let spans = self.receivers.map(|_| &self.store).filter(|store| store.usage().spans > 0);
        let Plan { edge, ref allowed, .. } = self.plan;
        let judge = Judge { first_status, first_calls, spans, edge, allowed };
        let judged: Vec<Judged> = self.observed(&sent).iter().map(|it| judge.judge(it)).collect();
        let incomplete = self.incomplete(&judged);
        Ok(Report { judged, incomplete, refused: self.store.refused() })
    }

    /// Sends the first request. Returns the status of the answer as well.
    async fn send_first(&self) -> Result<(Exchange, u16), Error> {
        let (exchange, answer) = self.send(0).await;
        let address = || self.plan.request.url.authority.clone();
        let http::Answer { status, body } =
            answer.map_err(|source| Error::NoService { address: address(), source })?;
        if status.is_client_error() || status.is_server_error() {
            if let Some(neighbor) = self.shared.calls.unanswered() {
                return Err(Error::Grpc { neighbor });
            }
            let body = shortened(&visible(&String::from_utf8_lossy(&body)), BODY_SHOWN);
            return Err(Error::Refused { status, body });
        }
        Ok((exchange, status.as_u16()))
    }

    /// Sends the request without trace headers, after a case was answered in another way. If this is answered in another way too,
    /// the headers aren't the cause.
    async fn repeat_first(&self, first: u16) -> Result<(), Error> {
        self.shared.calls.begin(usize::MAX);
        let answer = self.plan.request.send([], false, self.plan.timeout).await;
        match answer {
            Ok(answer) if answer.status.as_u16() != first => {
                Err(Error::NotRepeatable { first, status: answer.status })
            }
            Ok(_) => Ok(()),
            Err(source) => {
                Err(Error::NoService { address: self.plan.request.url.authority.clone(), source })
            }
        }
    }

    /// Sends the request of a case.
    async fn send(&self, index: usize) -> (Exchange, std::io::Result<http::Answer>) {
        self.shared.calls.begin(index);
        let case = &self.plan.cases[index];
        let ids = self.ids[index];
        let headers = case.headers.iter().map(|(name, value)| (name.to_string(), ids.value(value)));
        let start = now();
        let answer = self.plan.request.send(headers, case.title_case, self.plan.timeout).await;
        let status = match &answer {
            Ok(answer) => Ok(answer.status.as_u16()),
            Err(error) => Err(error.to_string()),
        };
        (Exchange { answer: status, window: (start, now()) }, answer)
    }

    /// Counts the calls of the first request: all that come until none has come for a while.
    async fn count_calls(&self) -> Result<usize, Error> {
        if self.neighbors.is_empty() {
            return Ok(0);
        }
        let mut changes = self.shared.calls.changes();
        let quiet = async { while timeout(self.plan.settle, changes.changed()).await.is_ok() {} };
        // A neighbor that is called all the time is never quiet.
        let _ = timeout(self.plan.timeout, quiet).await;
        match self.shared.calls.of(0).len() {
            0 => {
                let addresses: Vec<String> =
                    self.neighbors.iter().map(ToString::to_string).collect();
                Err(Error::NeverCalled { addresses: addresses.join(", ") })
            }
            calls => Ok(calls),
        }
    }

    /// Waits for this number of calls. Returns how many have come.
    async fn wait_for_calls(&self, case: usize, expected: usize) -> usize {
        let mut changes = self.shared.calls.changes();
        let enough = changes.wait_for(|list| list.of(case).count() >= expected);
        // If time runs out, the report says how many have come.
        let _ = timeout(self.plan.settle, enough).await;
        self.shared.calls.of(case).len()
    }

    /// Waits until the spans have arrived that answered the requests and made the calls, or none has come for a while. A leaf may
    /// start a trace where it should continue one, and no call would name that: there, waits until none comes.
    async fn wait_for_spans(&self, sent: &[Exchange]) {
        let mut changes = self.store.changes();
        let deadline = Instant::now() + self.plan.timeout;
        loop {
            let observed = self.observed(sent);
            let missing = observed.iter().any(|it| it.misses_spans(&self.store, self.plan.edge));
            let has_calls = observed.iter().any(|it| !it.calls.is_empty());
            if !missing && has_calls {
                return;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            let patience = self.plan.settle.min(rest);
            if !matches!(timeout(patience, changes.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn observed(&self, sent: &[Exchange]) -> Vec<Observed> {
        let cases = self.plan.cases.iter().zip(&self.ids).zip(sent).enumerate();
        cases
            .map(|(index, ((case, ids), exchange))| Observed {
                case: case.clone(),
                ids: *ids,
                answer: exchange.answer.clone(),
                window: exchange.window,
                calls: self.shared.calls.of(index),
            })
            .collect()
    }

    fn incomplete(&self, judged: &[Judged]) -> Option<Error> {
        if let Some([otlp, _]) = self.receivers.filter(|_| self.store.usage().spans == 0) {
            return Some(match self.store.refused() {
                Some(refused) => Error::Rejected(refused),
                None => Error::NoSpan { endpoint: format!("http://{otlp}") },
            });
        }
        let unseen = judged.iter().filter(|it| it.verdict == Verdict::Unseen);
        let unseen: Vec<String> = unseen.map(|it| it.case.name.to_string()).collect();
        (!unseen.is_empty()).then_some(Error::Unseen { unseen, of: judged.len() })
    }
}

/// How a request went.
struct Exchange {
    /// The status of the answer, or the reason why there is none.
    answer: Result<u16, String>,
    /// When the request was sent and its answer had come, in nanoseconds since 1970.
    window: (u64, u64),
}

/// The characters of a refusal that are shown.
const BODY_SHOWN: usize = 200;

fn now() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The largest number of connections at each receiver.
const CONNECTIONS: usize = 250;
