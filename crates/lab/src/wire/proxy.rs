//! The proxy of one hop. It reads the heads of requests and applies the fault that is set. It forwards bodies and answers
//! unchanged.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex};

use axum::serve::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use traces::exchange::Exchange;

use super::fault::Action;
use super::framing::{ClientEvent, HEAD_LIMIT, Head, READ_SIZE, Requests, Upstream, final_status};
use super::{Hop, Wire, now};

/// Headers with credentials, whose values aren't recorded.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

const SERVER_ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

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
pub async fn serve(wire: Wire, hop: Hop, mut listener: TcpListener, target: SocketAddr) {
    loop {
        // axum's `accept` retries after an error of a single connection.
        let (client, _) = Listener::accept(&mut listener).await;
        let wire = wire.clone();
        // An error closes both ends of this connection, like an error without a proxy.
        tokio::spawn(async move { drop(connection(wire, hop, client, target).await) });
    }
}

async fn connection(wire: Wire, hop: Hop, client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let upstream = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (requests, to_client) = client.into_split();
    let (answers, to_upstream) = upstream.into_split();
    let to_client = Arc::new(Mutex::new(to_client));
    let answer_state = SharedAnswers::default();
    let forward = Forwarder {
        requests: Requests::new(requests),
        upstream: Upstream::new(to_upstream),
        to_client: Arc::clone(&to_client),
        answers: Arc::clone(&answer_state),
        hop,
        wire: wire.clone(),
    };
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
    to_client: Arc<Mutex<OwnedWriteHalf>>,
    answers: SharedAnswers,
    hop: Hop,
    wire: Wire,
}

impl Forwarder {
    async fn run(mut self) -> io::Result<End> {
        loop {
            let answers = Arc::clone(&self.answers);
            let has_switched = || answers.lock().is_ok_and(|answers| answers.switched);
            match self.requests.next(has_switched).await? {
                ClientEvent::Request(head) => {
                    if let Some(end) = self.pass_request(head).await? {
                        return Ok(end);
                    }
                }
                ClientEvent::Switched => {
                    self.requests.rest(&mut self.upstream).await?;
                    break;
                }
                ClientEvent::End => break,
            }
        }
        self.upstream.finish().await;
        Ok(End::Closed)
    }

    /// Forwards one request or answers it, depending on the fault of the hop. Returns `Some` when it was the last
    /// request that can be forwarded.
    async fn pass_request(&mut self, head: Head) -> io::Result<Option<End>> {
        let Head { bytes, body, expects_continue } = head;
        let fault = self.wire.active_fault(self.hop);
        let action = fault.map_or(Action::Forward, |fault| fault.action());
        let changed = fault.map(|fault| fault.apply(&bytes));
        let delivered = changed.as_deref().unwrap_or(&bytes);
        let number = self.wire.record(Exchange {
            hop: self.hop.name.to_owned(),
            to: self.hop.to.to_owned(),
            start: now(),
            end: None,
            sent: text(&bytes),
            delivered: (action == Action::Forward).then(|| text(delivered)),
            status: None,
            fault: fault.map(|fault| fault.name()),
        });
        match action {
            Action::Cut => return Ok(Some(End::Cut)),
            Action::ServerError => {
                if !expects_continue {
                    self.requests.body(body, &mut Upstream::none()).await?;
                }
                self.wire.record_answer(number, Some(500));
                let mut to_client = self.to_client.lock().await;
                to_client.write_all(SERVER_ERROR).await?;
                if expects_continue {
                    // The client got no `100 Continue`, so it doesn't send the body.
                    to_client.shutdown().await?;
                    return Ok(Some(End::Cut));
                }
            }
            Action::Forward => {
                if let Some(fault) = fault {
                    tokio::time::sleep(fault.latency()).await;
                }
                if let Ok(mut answers) = self.answers.lock() {
                    answers.awaited = Some(number);
                }
                self.upstream.write(delivered).await;
                self.requests.body(body, &mut self.upstream).await?;
            }
        }
        Ok((!self.upstream.is_open()).then_some(End::Closed))
    }
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
