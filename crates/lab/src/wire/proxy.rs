//! The proxy of one hop. It reads the heads of requests and applies the fault that is set. It forwards bodies and answers
//! unchanged, and also everything on a connection that isn't HTTP/1.1.

use std::io;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::timeout;
use traces::exchange::Exchange;

use super::fault::Action;
use super::framing::{
    BodyLength, ClientEvent, HEAD_LIMIT, Head, READ_SIZE, Requests, Upstream, final_status,
};
use super::{Fault, Hop, Opaque, Wire, now};

/// Headers with credentials, whose values aren't recorded.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

const SERVER_ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// How long the service may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The state that the two directions of a connection share.
type SharedAnswers = Arc<StdMutex<AnswerState>>;

#[derive(Default)]
struct AnswerState {
    /// The number of the exchange whose answer is awaited.
    awaited: Option<usize>,
    /// Whether the service has switched to another protocol (RFC 9110, 15.2.2). The following bytes aren't HTTP.
    switched: bool,
}

/// Serves a hop until the listener is dropped.
pub async fn serve(wire: Wire, hop: Hop, mut listener: TcpListener, target: Arc<str>) {
    loop {
        // axum's `accept` retries after an error of a single connection.
        let (client, _) = Listener::accept(&mut listener).await;
        let (wire, hop, target) = (wire.clone(), hop.clone(), Arc::clone(&target));
        // An error closes both ends of this connection, like an error without a proxy.
        tokio::spawn(async move { drop(connection(wire, hop, client, &target).await) });
    }
}

async fn connection(wire: Wire, hop: Hop, client: TcpStream, target: &str) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (requests, to_client) = client.into_split();
    let to_client = Arc::new(Mutex::new(to_client));
    let answer_state = SharedAnswers::default();
    let mut forward = Forwarder {
        requests: Requests::new(requests),
        upstream: Upstream::none(),
        unreachable: None,
        to_client: Arc::clone(&to_client),
        answers: Arc::clone(&answer_state),
        hop,
        wire: wire.clone(),
    };
    let upstream = match connect(target).await {
        Ok(upstream) => upstream,
        Err(error) => {
            forward.unreachable = Some(format!("{target}: {error}"));
            return forward.run().await.map(drop);
        }
    };
    let (answers, to_upstream) = upstream.into_split();
    forward.upstream = Upstream::new(to_upstream);
    let mut forward = std::pin::pin!(forward.run());
    let mut back = std::pin::pin!(pass_back(answers, &to_client, &answer_state, &wire));
    tokio::select! {
        // The service has closed. Read the rest of the client's request, or the client may lose the answer.
        outcome = &mut back => {
            outcome?;
            forward.await.map(drop)
        }
        end = &mut forward => match end? {
            End::Cut => Ok(()),
            // An answer may still arrive.
            End::Closed => back.await,
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
    /// A fault has cut the connection. No more bytes may pass.
    Cut,
    /// The client or the service has closed its side. The client may still be waiting for an answer.
    Closed,
}

/// The direction from the client to the service.
struct Forwarder {
    requests: Requests<OwnedReadHalf>,
    upstream: Upstream,
    /// The reason why there is no connection to the service.
    unreachable: Option<String>,
    to_client: Arc<Mutex<OwnedWriteHalf>>,
    answers: SharedAnswers,
    hop: Hop,
    wire: Wire,
}

impl Forwarder {
    async fn run(mut self) -> io::Result<End> {
        // Whether the last request may switch the connection to HTTP/2.
        let mut offers_http2 = false;
        loop {
            let answers = Arc::clone(&self.answers);
            let has_switched = || answers.lock().is_ok_and(|answers| answers.switched);
            match self.requests.next(has_switched).await? {
                ClientEvent::Request(head) => {
                    offers_http2 = head.offers_http2;
                    if let Some(end) = self.pass_request(head).await? {
                        return Ok(end);
                    }
                }
                ClientEvent::Switched => {
                    return self.pass_unread(offers_http2.then_some(Opaque::Http2)).await;
                }
                ClientEvent::Opaque(protocol) => return self.pass_unread(Some(protocol)).await,
                ClientEvent::End => break,
            }
        }
        self.upstream.finish().await;
        Ok(End::Closed)
    }

    /// Forwards all following bytes until the client closes the connection or [`Fault::Cut`] is set. Counts the connection when
    /// its protocol is known.
    async fn pass_unread(&mut self, protocol: Option<Opaque>) -> io::Result<End> {
        let is_cut = self.wire.active_fault(&self.hop.name) == Some(Fault::Cut);
        if is_cut || self.unreachable.is_some() {
            return Ok(End::Cut);
        }
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

    /// Forwards one request or answers it, depending on the fault of the hop. Returns `Some` when it was the last
    /// request that can be forwarded.
    async fn pass_request(&mut self, head: Head) -> io::Result<Option<End>> {
        let Head { bytes, body, expects_continue, is_head, .. } = head;
        let fault = self.wire.active_fault(&self.hop.name);
        let action = fault.map_or(Action::Forward, |fault| fault.action());
        let changed = fault.map(|fault| fault.apply(&bytes));
        let delivered = changed.as_deref().unwrap_or(&bytes);
        let is_forwarded = action == Action::Forward && self.unreachable.is_none();
        let number = self.wire.record(Exchange {
            hop: self.hop.name.to_string(),
            to: self.hop.to.to_string(),
            start: now(),
            end: None,
            sent: text(&bytes),
            delivered: is_forwarded.then(|| text(delivered)),
            status: None,
            fault: fault.map(|fault| fault.name()),
        });
        match (action, &self.unreachable) {
            (Action::Cut, _) => Ok(Some(End::Cut)),
            (Action::ServerError, _) => {
                self.answer(number, 500, SERVER_ERROR, body, expects_continue).await?;
                // A client that got no `100 Continue` doesn't send the body.
                Ok(expects_continue.then_some(End::Cut))
            }
            (Action::Forward, Some(reason)) => {
                let answer = bad_gateway(&self.hop.name, reason, is_head);
                self.answer(number, 502, &answer, body, expects_continue).await?;
                // The client connects again for its next request, and so does the proxy.
                Ok(Some(End::Cut))
            }
            (Action::Forward, None) => {
                if let Some(fault) = fault {
                    tokio::time::sleep(fault.latency()).await;
                }
                if let Ok(mut answers) = self.answers.lock() {
                    answers.awaited = Some(number);
                }
                self.upstream.write(delivered).await;
                self.requests.body(body, &mut self.upstream).await?;
                Ok((!self.upstream.is_open()).then_some(End::Closed))
            }
        }
    }

    /// Sends an answer of the proxy itself, after the body of the request.
    async fn answer(
        &mut self,
        number: usize,
        status: u16,
        answer: &[u8],
        body: BodyLength,
        expects_continue: bool,
    ) -> io::Result<()> {
        if !expects_continue {
            self.requests.body(body, &mut Upstream::none()).await?;
        }
        self.wire.record_answer(number, Some(status));
        self.to_client.lock().await.write_all(answer).await
    }
}

/// The answer of the proxy `hop` whose service can't be reached for `reason`.
fn bad_gateway(hop: &str, reason: &str, is_head: bool) -> Vec<u8> {
    let line = format!("the lab's proxy {hop} can't reach {reason}\n");
    let head = format!(
        "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        line.len()
    );
    let body = if is_head { "" } else { &line };
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Converts a head to text, each byte to one character (ISO 8859-1), and removes the values of [`CREDENTIALS`].
fn text(head: &[u8]) -> String {
    let lines = head.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let line: String = line.iter().copied().map(char::from).collect();
        match line.split_once(':') {
            Some((name, _)) if CREDENTIALS.iter().any(|it| name.eq_ignore_ascii_case(it)) => {
                format!("{name}: (not kept)\r\n")
            }
            _ => line,
        }
    });
    lines.collect()
}

/// Forwards the answers to the client and records the status of each. A client sends its next request only after the answer
/// to the last one, so the first bytes after a request are a status line.
async fn pass_back(
    mut answers: OwnedReadHalf,
    to_client: &Mutex<OwnedWriteHalf>,
    answer_state: &SharedAnswers,
    wire: &Wire,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    let mut start = Vec::new();
    loop {
        let length = answers.read(&mut buffer).await?;
        if length == 0 {
            return to_client.lock().await.shutdown().await;
        }
        if let Ok(mut state) = answer_state.lock()
            && let Some(number) = state.awaited
        {
            start.extend(&buffer[..length.min(HEAD_LIMIT)]);
            if let Some(status) = final_status(&start) {
                wire.record_answer(number, status);
                state.awaited = None;
                // Set this before the client gets the answer, because its next bytes may not be HTTP.
                state.switched = status == Some(101);
                start.clear();
            }
        }
        to_client.lock().await.write_all(&buffer[..length]).await?;
    }
}
