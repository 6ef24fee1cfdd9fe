//! The proxy of one hop. It reads the heads of requests and applies the fault that is set. It forwards bodies and answers
//! unchanged, and also everything that isn't HTTP/1.1.

use std::io;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use traces::exchange::Exchange;

use super::connections::{Activity, Connections, Phase, ProxyLimits, Slot};
use super::fault::Action;
use super::framing::{
    Answers, Awaited, Body, BodyEnd, ClientEvent, Head, Method, READ_SIZE, Requests, Upstream,
};
use super::{Fault, Hop, Opaque, Wire, now, record};

const SERVER_ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// How long the service may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client past the limit of connections may take to read its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest number of clients past the limit that are answered at the same time. Further ones are closed.
const REFUSALS: usize = 100;

/// Serves a hop until the wire stops.
pub async fn serve(
    wire: Wire,
    hop: Hop,
    mut listener: TcpListener,
    target: Arc<str>,
    connections: Arc<Connections>,
) {
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    loop {
        // axum's `accept` retries after an error of a single connection.
        let (client, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = connections.stopped() => return,
        };
        let (slot, has_counted) = connections.open();
        if has_counted {
            wire.lock().changed();
        }
        match slot {
            Some(slot) => {
                let (wire, hop, target) = (wire.clone(), hop.clone(), Arc::clone(&target));
                // An error closes both ends of this connection, like an error without a proxy.
                tokio::spawn(
                    async move { drop(connection(wire, hop, client, &target, slot).await) },
                );
            }
            None => {
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    let refusal = timeout(REFUSAL_TIMEOUT, refuse(client, Arc::clone(&hop.name)));
                    tokio::spawn(async move {
                        drop(refusal.await);
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// Answers a client past the limit of connections.
async fn refuse(mut client: TcpStream, hop: Arc<str>) -> io::Result<()> {
    let line = format!(
        "the lab's proxy {hop} has as many connections as it takes: close some, or raise --max-connections\n"
    );
    // Read first, because a client expects an answer only after it has sent a request.
    if client.read(&mut [0; 1024]).await? > 0 {
        client.write_all(&own_answer("429 Too Many Requests", &line, Method::Other)).await?;
    }
    client.shutdown().await?;
    // Closing with unread data would reset the connection and discard our answer.
    tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop)
}

/// The connection to the client.
struct ToClient(Mutex<Option<OwnedWriteHalf>>);

impl ToClient {
    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match &mut *self.0.lock().await {
            Some(client) => client.write_all(bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Closes the sending direction.
    async fn finish(&self) -> io::Result<()> {
        match &mut *self.0.lock().await {
            Some(client) => client.shutdown().await,
            None => Ok(()),
        }
    }

    /// Breaks the connection off, which the client can tell from its regular end.
    async fn reset(&self) -> io::Result<()> {
        if let Some(client) = self.0.lock().await.take() {
            client.as_ref().set_zero_linger()?;
            // Dropping it would close it in the regular way.
            client.forget();
        }
        Ok(())
    }
}

/// The state that the two directions of a connection share.
struct State {
    inner: StdMutex<Inner>,
    /// Notified when the direction to the service must look at the state again.
    changed: Notify,
    slot: Slot,
}

struct Inner {
    answers: Answers,
    /// Whether a request is being forwarded.
    is_forwarding: bool,
    /// Whether bytes of an answer are on their way to the client.
    is_answering: bool,
    /// Whether everything passes unread.
    is_unread: bool,
    /// Whether the service has closed its side, so that all answers have come.
    has_ended: bool,
    /// Whether all requests so far have their whole answer, or will have none.
    is_answered: bool,
    phase: Phase,
}

impl State {
    fn new(slot: Slot) -> Arc<Self> {
        let inner = Inner {
            answers: Answers::default(),
            is_forwarding: false,
            is_answering: false,
            is_unread: false,
            has_ended: false,
            is_answered: true,
            phase: Phase::Waiting(Instant::now()),
        };
        Arc::new(State { inner: StdMutex::new(inner), changed: Notify::new(), slot })
    }

    /// Changes the state, and then what the connection is doing.
    fn update(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        let before = (inner.phase, inner.is_answered, inner.answers.has_switched);
        change(&mut inner);
        inner.is_answered =
            !inner.is_answering && (inner.has_ended || inner.answers.are_complete());
        let is_unread = inner.is_unread || inner.answers.has_switched;
        inner.phase = match (is_unread, inner.is_forwarding || !inner.is_answered, inner.phase) {
            (true, ..) => Phase::Unread,
            (false, true, _) => Phase::Busy,
            (false, false, Phase::Waiting(since)) => Phase::Waiting(since),
            (false, false, _) => Phase::Waiting(Instant::now()),
        };
        if before != (inner.phase, inner.is_answered, inner.answers.has_switched) {
            self.slot.set(inner.phase);
            self.changed.notify_one();
        }
    }

    fn has_switched(&self) -> bool {
        self.lock().answers.has_switched
    }

    /// Returns since when the connection has waited for a request.
    fn waiting_since(&self) -> Option<Instant> {
        match self.lock().phase {
            Phase::Waiting(since) => Some(since),
            Phase::Busy | Phase::Unread => None,
        }
    }

    /// Waits until all requests so far have their whole answer, or will have none.
    async fn answered(&self) {
        while !self.lock().is_answered {
            self.changed.notified().await;
        }
    }

    /// Locks the state. Ignores poisoning: no change can be interrupted halfway by a panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connection(
    wire: Wire,
    hop: Hop,
    client: TcpStream,
    target: &str,
    slot: Slot,
) -> io::Result<()> {
    let state = State::new(slot);
    tokio::select! {
        ended = pass(wire, hop, client, target, &state) => ended,
        () = state.slot.closed() => Ok(()),
    }
}

/// Passes the bytes of a connection on in both directions.
async fn pass(
    wire: Wire,
    hop: Hop,
    client: TcpStream,
    target: &str,
    state: &Arc<State>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let limits = wire.limits;
    let activity = state.slot.activity();
    let (requests, to_client) = client.into_split();
    let to_client = Arc::new(ToClient(Mutex::new(Some(to_client))));
    let (upstream, unreachable) = match connect(target).await {
        Ok(upstream) => (Some(upstream.into_split()), None),
        Err(error) => (None, Some(format!("{target}: {error}"))),
    };
    let (answers, to_upstream) = upstream.unzip();
    let forward = Forwarder {
        requests: Requests::new(requests, activity.clone()),
        upstream: Upstream::new(to_upstream, activity.clone()),
        unreachable,
        to_client: Arc::clone(&to_client),
        state: Arc::clone(state),
        hop,
        wire: wire.clone(),
        may_switch: false,
    };
    let mut forward = std::pin::pin!(forward.run());
    let Some(answers) = answers else { return forward.await.map(drop) };
    let back = pass_back(answers, &to_client, state, &activity, &wire);
    let mut back = std::pin::pin!(back);
    tokio::select! {
        // The service has closed. Read the rest of the client's request, or the client may lose the answer.
        outcome = &mut back => {
            outcome?;
            tokio::select! {
                end = forward => end.map(drop),
                () = activity.lingered(limits.linger) => Ok(()),
            }
        }
        end = &mut forward => match end? {
            End::Cut => Ok(()),
            // An answer may still arrive.
            End::Closed => tokio::select! {
                outcome = back => outcome,
                () = activity.quiet(limits.half_closed) => Ok(()),
            },
        },
    }
}

async fn connect(target: &str) -> io::Result<TcpStream> {
    let upstream = timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await.map_err(|_| {
        let reason = format!("it accepted no connection within {} s", CONNECT_TIMEOUT.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, reason)
    })??;
    upstream.set_nodelay(true)?;
    Ok(upstream)
}

/// The reason why the proxy stopped forwarding requests.
enum End {
    /// A fault or a limit has cut the connection. No more bytes may pass.
    Cut,
    /// The client or the service has closed its side. The client may still be waiting for an answer.
    Closed,
}

/// The next thing that happens on the client's side.
enum Next {
    Event(ClientEvent),
    /// The peers have switched to another protocol. The following bytes aren't HTTP.
    Switched,
    /// The client has closed its side.
    End,
    /// The connection has waited too long for a request.
    TooLate,
}

/// The direction from the client to the service.
struct Forwarder {
    requests: Requests<OwnedReadHalf>,
    upstream: Upstream,
    /// The reason why there is no connection to the service.
    unreachable: Option<String>,
    to_client: Arc<ToClient>,
    state: Arc<State>,
    hop: Hop,
    wire: Wire,
    /// Whether the last request may switch the connection to another protocol.
    may_switch: bool,
}

impl Forwarder {
    async fn run(mut self) -> io::Result<End> {
        // Whether the last request may switch the connection to HTTP/2.
        let mut offers_http2 = false;
        loop {
            match self.next().await? {
                Next::Event(ClientEvent::Request(head)) => {
                    offers_http2 = head.offers_http2;
                    self.may_switch = head.may_switch;
                    self.state.update(|state| state.is_forwarding = true);
                    let end = self.pass_request(head).await?;
                    self.state.update(|state| state.is_forwarding = false);
                    if let Some(end) = end {
                        return Ok(end);
                    }
                }
                Next::Switched => {
                    return self.pass_unread(offers_http2.then_some(Opaque::Http2)).await;
                }
                Next::Event(ClientEvent::Opaque(protocol)) => {
                    return self.pass_unread(Some(protocol)).await;
                }
                Next::Event(ClientEvent::Malformed) => return self.pass_malformed().await,
                Next::End if self.requests.held().is_empty() => break,
                Next::End => return self.pass_malformed().await,
                Next::TooLate => return self.end_waiting().await,
            }
        }
        self.upstream.finish().await;
        Ok(End::Closed)
    }

    async fn next(&mut self) -> io::Result<Next> {
        let ProxyLimits { head, idle, .. } = self.wire.limits;
        let mut first_byte = None;
        loop {
            if self.state.has_switched() {
                return Ok(Next::Switched);
            }
            let blank = self.requests.take_blank();
            self.upstream.write(&blank).await;
            if let Some(event) = self.requests.next() {
                return Ok(Next::Event(event));
            }
            let has_begun = !self.requests.held().is_empty();
            first_byte = first_byte.or(has_begun.then(Instant::now));
            let deadline = self.state.waiting_since().map(|since| match first_byte {
                Some(first) => since.max(first) + head,
                None => since + idle,
            });
            let too_late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                has_more = self.requests.read() => if !has_more? {
                    return Ok(Next::End);
                },
                () = self.state.changed.notified() => {}
                () = too_late => return Ok(Next::TooLate),
            }
        }
    }

    /// Forwards all following bytes until the client closes the connection or [`Fault::Cut`] is set. Counts the connection when
    /// its protocol is known.
    async fn pass_unread(&mut self, protocol: Option<Opaque>) -> io::Result<End> {
        let is_cut = self.wire.active_fault(&self.hop.name) == Some(Fault::Cut);
        if is_cut || self.unreachable.is_some() {
            return Ok(End::Cut);
        }
        self.state.update(|state| state.is_unread = true);
        if let Some(protocol) = protocol {
            self.wire.count_unread(&self.hop.name, protocol);
        }
        tokio::select! {
            end = self.requests.rest(&mut self.upstream) => end?,
            () = self.wire.is_cut(&self.hop.name) => return Ok(End::Cut),
        }
        self.upstream.finish().await;
        Ok(End::Closed)
    }

    /// Records the held bytes, which aren't a request, and forwards them and all that follow. The service may answer them.
    async fn pass_malformed(&mut self) -> io::Result<End> {
        // After the offer to switch, other bytes are those of the other protocol.
        if !self.may_switch {
            let fault = self.wire.active_fault(&self.hop.name).filter(|it| *it == Fault::Cut);
            let sent = record::malformed(self.requests.held());
            let is_forwarded = self.unreachable.is_none() && fault.is_none();
            let number = self.record(sent.clone(), is_forwarded.then_some(sent), fault);
            self.await_answer(number, Method::Other);
        }
        self.pass_unread(None).await
    }

    /// Ends a connection that has waited too long for a request.
    async fn end_waiting(&mut self) -> io::Result<End> {
        if self.requests.held().is_empty() {
            self.state.slot.count_idle();
            self.wire.lock().changed();
            return Ok(End::Cut);
        }
        let number = self.record(record::malformed(self.requests.held()), None, None);
        let limit = self.wire.limits.head.as_secs();
        let line = format!(
            "the lab's proxy {} got no whole head of a request within {limit} s\n",
            self.hop.name
        );
        let answer = own_answer("408 Request Timeout", &line, Method::Other);
        self.wire.record_answer(number, Some(408));
        self.to_client.write(&answer).await?;
        Ok(End::Cut)
    }

    /// Records a request and returns its number.
    fn record(&self, sent: String, delivered: Option<String>, fault: Option<Fault>) -> usize {
        self.wire.record(Exchange {
            hop: self.hop.name.to_string(),
            to: self.hop.to.to_string(),
            start: now(),
            end: None,
            sent,
            delivered,
            status: None,
            fault: fault.map(|fault| fault.name()),
        })
    }

    fn await_answer(&self, number: usize, method: Method) {
        self.state.update(|state| state.answers.expect(Awaited { number, method }));
    }

    /// Forwards one request or answers it, depending on the fault of the hop. Returns `Some` when it was the last
    /// request that can be forwarded.
    async fn pass_request(&mut self, head: Head) -> io::Result<Option<End>> {
        let fault = self.wire.active_fault(&self.hop.name);
        let action = fault.map_or(Action::Forward, |fault| fault.action());
        let changed = fault.map(|fault| fault.apply(&head.bytes));
        let delivered = changed.as_deref().unwrap_or(&head.bytes);
        let is_forwarded = action == Action::Forward && self.unreachable.is_none();
        let arrived = is_forwarded.then(|| record::head(delivered));
        let number = self.record(record::head(&head.bytes), arrived, fault);
        match (action, &self.unreachable) {
            (Action::Cut, _) => Ok(Some(End::Cut)),
            (Action::ServerError, _) => {
                let can_go_on = self.answer(number, 500, SERVER_ERROR, &head).await?;
                Ok((!can_go_on).then_some(End::Cut))
            }
            (Action::Forward, Some(reason)) => {
                let line = format!("the lab's proxy {} can't reach {reason}\n", self.hop.name);
                let answer = own_answer("502 Bad Gateway", &line, head.method);
                self.answer(number, 502, &answer, &head).await?;
                // The client connects again for its next request, and so does the proxy.
                Ok(Some(End::Cut))
            }
            (Action::Forward, None) => {
                if let Some(fault) = fault {
                    tokio::time::sleep(fault.latency()).await;
                }
                self.await_answer(number, head.method);
                self.upstream.write(delivered).await;
                let end = match head.body {
                    // The service knows what to do with it.
                    Body::Rest => BodyEnd::Unknown,
                    body => self.requests.body(body, &mut self.upstream).await?,
                };
                match end {
                    BodyEnd::Done => Ok((!self.upstream.is_open()).then_some(End::Closed)),
                    BodyEnd::Unknown => self.pass_unread(None).await.map(Some),
                    BodyEnd::Closed => {
                        self.upstream.finish().await;
                        Ok(Some(End::Closed))
                    }
                }
            }
        }
    }

    /// Sends an answer of the proxy itself, after the body of the request and the answers to those before it. Returns whether the
    /// next request can follow.
    async fn answer(
        &mut self,
        number: usize,
        status: u16,
        answer: &[u8],
        head: &Head,
    ) -> io::Result<bool> {
        let linger = self.wire.limits.linger;
        let mut can_go_on = false;
        // A client that got no `100 Continue` doesn't send the body.
        if !head.expects_continue {
            let mut nowhere = Upstream::new(None, Activity::new());
            let body = timeout(linger, self.requests.body(head.body, &mut nowhere));
            can_go_on = body.await.unwrap_or(Ok(BodyEnd::Unknown))? == BodyEnd::Done;
        }
        self.state.answered().await;
        self.wire.record_answer(number, Some(status));
        self.to_client.write(answer).await?;
        Ok(can_go_on)
    }
}

/// An answer of the proxy itself, after which it closes the connection.
fn own_answer(status: &str, line: &str, method: Method) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        line.len()
    );
    let body = if method == Method::Head { "" } else { line };
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Forwards the answers to the client and records the status of each.
async fn pass_back(
    mut answers: OwnedReadHalf,
    to_client: &ToClient,
    state: &State,
    activity: &Activity,
    wire: &Wire,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let length = match answers.read(&mut buffer).await {
            Ok(length) => length,
            Err(error) => {
                let was_cut_off = {
                    let state = state.lock();
                    state.answers.end_by_closing() && !state.is_forwarding
                };
                if was_cut_off {
                    // A regular end would say that the answer is whole.
                    to_client.reset().await?;
                    return Err(error);
                }
                0
            }
        };
        activity.touch();
        if length == 0 {
            let closed = to_client.finish().await;
            state.update(|state| state.has_ended = true);
            return closed;
        }
        let bytes = &buffer[..length];
        // Read them before the client gets them, because its next bytes may not be HTTP.
        state.update(|state| {
            state.is_answering = true;
            state.answers.follow(bytes, |number, status| wire.record_answer(number, status));
        });
        to_client.write(bytes).await?;
        activity.touch();
        state.update(|state| state.is_answering = false);
    }
}
