//! One hop: HTTP/1.1 as bytes. Only the heads of requests are read; bodies and answers are passed on as they come.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use traces::exchange::Exchange;

use super::fault::Answer;
use super::{Hop, Wire, now};

/// The most bytes of a request line and its headers: more than the services take, whose limit is hyper's.
const HEAD_LIMIT: usize = 512 * 1024;

/// Room for a read, in bytes.
const PART: usize = 16 * 1024;

/// The most headers.
const HEADERS_LIMIT: usize = 200;

/// Headers whose values are not kept: they open doors.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

const SERVER_ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// What the two directions of a connection tell each other.
type Awaited = Arc<std::sync::Mutex<Answers>>;

#[derive(Default)]
struct Answers {
    /// The number of the exchange whose answer is awaited.
    awaited: Option<usize>,
    /// The service has switched to another protocol (RFC 9110, 15.2.2): what follows is not HTTP.
    switched: bool,
}

pub async fn serve(wire: Wire, hop: Hop, mut listener: TcpListener, target: SocketAddr) {
    loop {
        // It goes on after an error of one connection.
        let (client, _) = Listener::accept(&mut listener).await;
        let wire = wire.clone();
        // An error is of this connection alone: both of its ends are closed, as they would be without us.
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
    let there = Requests {
        from: requests,
        buffer: Vec::with_capacity(PART),
        to_upstream: Some(to_upstream),
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
            // It may be answered yet.
            End::Closed => back.await,
        },
    }
}

/// How the requests of a connection ended.
enum End {
    /// By a fault: nothing more may pass.
    Cut,
    /// By the client, who may still be waiting for an answer; or the service has closed.
    Closed,
}

struct Requests {
    from: OwnedReadHalf,
    /// What was read and not passed on yet.
    buffer: Vec<u8>,
    /// Nothing once the service does not read any more.
    to_upstream: Option<OwnedWriteHalf>,
    to_client: Arc<Mutex<OwnedWriteHalf>>,
    awaited: Awaited,
    hop: Hop,
    wire: Wire,
}

/// How long a body is (RFC 9112, 6.3).
enum Body {
    Bytes(u64),
    Chunked,
}

impl Requests {
    async fn pass_on(mut self) -> io::Result<End> {
        while let Some(Head {
            length,
            body,
            expects,
        }) = self.head().await?
        {
            let head: Vec<u8> = self.buffer.drain(..length).collect();
            let fault = self.wire.active(self.hop);
            let answer = fault.map_or(Answer::PassOn, |fault| fault.answer());
            let changed = fault.map_or_else(|| head.clone(), |fault| fault.apply(&head));
            let number = self.wire.record(Exchange {
                hop: self.hop.name.to_owned(),
                to: self.hop.to.to_owned(),
                start: now(),
                end: None,
                sent: text(&head),
                delivered: (answer == Answer::PassOn).then(|| text(&changed)),
                status: None,
                fault: fault.map(|fault| fault.name()),
            });
            match answer {
                Answer::Cut => return Ok(End::Cut),
                Answer::ServerError => {
                    if !expects {
                        self.body(body, false).await?;
                    }
                    self.wire.answered(number, Some(500));
                    let mut to_client = self.to_client.lock().await;
                    to_client.write_all(SERVER_ERROR).await?;
                    if expects {
                        // Its body was not asked for: it does not come.
                        to_client.shutdown().await?;
                        return Ok(End::Cut);
                    }
                }
                Answer::PassOn => {
                    if let Some(fault) = fault {
                        tokio::time::sleep(fault.latency()).await;
                    }
                    if let Ok(mut answers) = self.awaited.lock() {
                        answers.awaited = Some(number);
                    }
                    self.write(&changed).await;
                    self.body(body, true).await?;
                }
            }
            if self.to_upstream.is_none() {
                return Ok(End::Closed);
            }
        }
        if let Some(to_upstream) = &mut self.to_upstream {
            // An error means that the service has closed too.
            let _ = to_upstream.shutdown().await;
        }
        Ok(End::Closed)
    }

    /// Passes bytes on, as long as the service reads them: an error there is no reason not to pass its answer back.
    async fn write(&mut self, bytes: &[u8]) {
        if let Some(to_upstream) = &mut self.to_upstream
            && to_upstream.write_all(bytes).await.is_err()
        {
            self.to_upstream = None;
        }
    }

    /// Reads until the head of a request is there. `None` where the client has closed.
    async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if self.awaited.lock().is_ok_and(|answers| answers.switched) {
                self.everything().await?;
                return Ok(None);
            }
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(&self.buffer) {
                Ok(httparse::Status::Complete(length)) => {
                    return Head::new(length, &request).map(Some);
                }
                Ok(httparse::Status::Partial) if self.buffer.len() <= HEAD_LIMIT => {}
                Ok(httparse::Status::Partial) => return Err(invalid("the head is too long")),
                Err(error) => return Err(invalid(&error.to_string())),
            }
            self.buffer.reserve(PART);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Passes on what is no HTTP any more.
    async fn everything(&mut self) -> io::Result<()> {
        loop {
            let length = self.buffer.len() as u64;
            self.bytes(length, true).await?;
            self.buffer.reserve(PART);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Passes a body on, or only reads it.
    async fn body(&mut self, body: Body, on: bool) -> io::Result<()> {
        match body {
            Body::Bytes(length) => self.bytes(length, on).await,
            Body::Chunked => loop {
                let (line, size) = self.chunk().await?;
                self.bytes(line, on).await?;
                if size == 0 {
                    return self.trailers(on).await;
                }
                // And the end of its line.
                let end = size
                    .checked_add(2)
                    .ok_or_else(|| invalid("a chunk is too long"))?;
                self.bytes(end, on).await?;
            },
        }
    }

    /// The length of the line that begins a chunk, and the size of the chunk, in bytes.
    async fn chunk(&mut self) -> io::Result<(u64, u64)> {
        loop {
            match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete((line, size))) => return Ok((line as u64, size)),
                Ok(httparse::Status::Partial) if self.buffer.len() <= HEAD_LIMIT => {
                    self.more().await?
                }
                _ => return Err(invalid("a chunk has no size")),
            }
        }
    }

    /// The lines behind the last chunk, up to an empty one.
    async fn trailers(&mut self, on: bool) -> io::Result<()> {
        loop {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    let empty = end <= 1;
                    self.bytes(end as u64 + 1, on).await?;
                    if empty {
                        return Ok(());
                    }
                }
                None if self.buffer.len() > HEAD_LIMIT => {
                    return Err(invalid("a trailer is too long"));
                }
                None => self.more().await?,
            }
        }
    }

    async fn bytes(&mut self, mut length: u64, on: bool) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            let part = self
                .buffer
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            let bytes: Vec<u8> = self.buffer.drain(..part).collect();
            if on {
                self.write(&bytes).await;
            }
            length -= part as u64;
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        self.buffer.reserve(PART);
        match self.from.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

/// What the head of a request says of what follows.
struct Head {
    /// In bytes.
    length: usize,
    body: Body,
    /// Whether the client waits to be asked for the body (RFC 9110, 10.1.1).
    expects: bool,
}

impl Head {
    fn new(length: usize, request: &httparse::Request) -> io::Result<Head> {
        let find = |name: &str| {
            let mut headers = request.headers.iter().rev();
            let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| header.value)
        };
        let body = match (find("transfer-encoding"), find("content-length")) {
            (Some(encoding), _) if encoding.to_ascii_lowercase().ends_with(b"chunked") => {
                Body::Chunked
            }
            (Some(_), _) => return Err(invalid("the body has no end")),
            (None, Some(length)) => {
                let length = std::str::from_utf8(length).ok();
                let length = length.and_then(|it| it.trim().parse().ok());
                Body::Bytes(length.ok_or_else(|| invalid("the content has no length"))?)
            }
            (None, None) => Body::Bytes(0),
        };
        Ok(Head {
            length,
            body,
            expects: find("expect").is_some(),
        })
    }
}

/// A character a byte; what opens doors is left out.
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

/// Passes the answers back, and notes the status of each. A client sends its next request when it has the answer to the
/// last: so what comes first then is a status line.
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
                // Before the client hears of it.
                answers.switched = status == Some(101);
                begun.clear();
            }
        }
        to_client.lock().await.write_all(&buffer[..length]).await?;
    }
}

/// The status of an answer behind those of 1xx that only announce it; `None` until it is there, and `Some(None)` where
/// this is no answer.
fn final_status(begun: &[u8]) -> Option<Option<u16>> {
    let mut rest = begun;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(rest) {
            Ok(httparse::Status::Complete(length)) => match response.code {
                Some(100 | 102 | 103) => rest = &rest[length..],
                status => return Some(status),
            },
            Ok(httparse::Status::Partial) if begun.len() <= HEAD_LIMIT => return None,
            _ => return Some(None),
        }
    }
}
