//! The proxy of one hop. It reads the heads of requests and applies the fault that is set; bodies and answers pass as they
//! come.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex};

use axum::serve::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use traces::exchange::Exchange;

use super::fault::Answer;
use super::framing::{HEAD_LIMIT, Head, Next, PART, Requests, Upstream, final_status};
use super::{Hop, Wire, now};

/// Headers whose values aren't kept: they are credentials.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

const SERVER_ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// What the two directions of a connection share.
type Awaited = Arc<StdMutex<Answers>>;

#[derive(Default)]
struct Answers {
    /// The number of the exchange whose answer is awaited.
    awaited: Option<usize>,
    /// The service has switched to another protocol (RFC 9110, 15.2.2): what follows is not HTTP.
    switched: bool,
}

/// Serves a hop until the listener is dropped.
pub async fn serve(wire: Wire, hop: Hop, mut listener: TcpListener, target: SocketAddr) {
    loop {
        // This retries after an error of a single connection.
        let (client, _) = Listener::accept(&mut listener).await;
        let wire = wire.clone();
        // An error closes both ends of this connection, as it would without the proxy.
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
    let awaited = Awaited::default();
    let there = There {
        requests: Requests::new(requests),
        upstream: Upstream::new(to_upstream),
        to_client: Arc::clone(&to_client),
        awaited: Arc::clone(&awaited),
        hop,
        wire: wire.clone(),
    };
    let mut there = std::pin::pin!(there.pass_on());
    let mut back = std::pin::pin!(pass_back(answers, &to_client, &awaited, &wire));
    tokio::select! {
        // The service has closed. What the client is still sending must be read, or it may lose the answer.
        outcome = &mut back => {
            outcome?;
            there.await.map(drop)
        }
        end = &mut there => match end? {
            End::Cut => Ok(()),
            // An answer may still come.
            End::Closed => back.await,
        },
    }
}

/// How the requests of a connection ended.
enum End {
    /// By a fault: nothing more may pass.
    Cut,
    /// By the client, which may still be waiting for an answer, or because the service has closed.
    Closed,
}

/// The direction from the client to the service.
struct There {
    requests: Requests<OwnedReadHalf>,
    upstream: Upstream,
    to_client: Arc<Mutex<OwnedWriteHalf>>,
    awaited: Awaited,
    hop: Hop,
    wire: Wire,
}

impl There {
    async fn pass_on(mut self) -> io::Result<End> {
        loop {
            let awaited = Arc::clone(&self.awaited);
            let has_switched = || awaited.lock().is_ok_and(|answers| answers.switched);
            match self.requests.next(has_switched).await? {
                Next::Request(head) => {
                    if let Some(end) = self.pass_request(head).await? {
                        return Ok(end);
                    }
                }
                Next::Switched => {
                    self.requests.rest(&mut self.upstream).await?;
                    break;
                }
                Next::End => break,
            }
        }
        self.upstream.finish().await;
        Ok(End::Closed)
    }

    /// Passes one request on, or answers it, as the fault of the hop says. Returns the end of the connection if that is
    /// what comes of it.
    async fn pass_request(&mut self, head: Head) -> io::Result<Option<End>> {
        let Head {
            bytes,
            body,
            expects_continue,
        } = head;
        let fault = self.wire.active(self.hop);
        let answer = fault.map_or(Answer::PassOn, |fault| fault.answer());
        let changed = fault.map(|fault| fault.apply(&bytes));
        let delivered = changed.as_deref().unwrap_or(&bytes);
        let number = self.wire.record(Exchange {
            hop: self.hop.name.to_owned(),
            to: self.hop.to.to_owned(),
            start: now(),
            end: None,
            sent: text(&bytes),
            delivered: (answer == Answer::PassOn).then(|| text(delivered)),
            status: None,
            fault: fault.map(|fault| fault.name()),
        });
        match answer {
            Answer::Cut => return Ok(Some(End::Cut)),
            Answer::ServerError => {
                if !expects_continue {
                    self.requests.body(body, &mut Upstream::none()).await?;
                }
                self.wire.answered(number, Some(500));
                let mut to_client = self.to_client.lock().await;
                to_client.write_all(SERVER_ERROR).await?;
                if expects_continue {
                    // The client wasn't asked for the body, so it doesn't send one.
                    to_client.shutdown().await?;
                    return Ok(Some(End::Cut));
                }
            }
            Answer::PassOn => {
                if let Some(fault) = fault {
                    tokio::time::sleep(fault.latency()).await;
                }
                if let Ok(mut answers) = self.awaited.lock() {
                    answers.awaited = Some(number);
                }
                self.upstream.write(delivered).await;
                self.requests.body(body, &mut self.upstream).await?;
            }
        }
        Ok((!self.upstream.is_open()).then_some(End::Closed))
    }
}

/// The head with each byte as one character and without the values of credentials.
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

/// Passes the answers back and records the status of each. A client sends its next request once it has the answer to the
/// last one, so what comes first after a request is a status line.
async fn pass_back(
    mut answers: OwnedReadHalf,
    to_client: &Mutex<OwnedWriteHalf>,
    awaited: &Awaited,
    wire: &Wire,
) -> io::Result<()> {
    let mut buffer = vec![0; PART];
    let mut begun = Vec::new();
    loop {
        let length = answers.read(&mut buffer).await?;
        if length == 0 {
            return to_client.lock().await.shutdown().await;
        }
        if let Ok(mut answers) = awaited.lock()
            && let Some(number) = answers.awaited
        {
            begun.extend(&buffer[..length.min(HEAD_LIMIT)]);
            if let Some(status) = final_status(&begun) {
                wire.answered(number, status);
                answers.awaited = None;
                // This must be set before the client gets the answer.
                answers.switched = status == Some(101);
                begun.clear();
            }
        }
        to_client.lock().await.write_all(&buffer[..length]).await?;
    }
}
