//! HTTP/1.1 requests in a stream of bytes: where each head and each body ends, and the status of an answer (RFC 9112).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;

/// The most bytes of a request line with its headers. The services take less: hyper's limit applies there.
pub const HEAD_LIMIT: usize = 512 * 1024;

/// The size of a read, in bytes.
pub const PART: usize = 16 * 1024;

/// The most headers of a request or an answer.
const HEADERS_LIMIT: usize = 200;

/// The requests that a client sends on one connection.
pub struct Requests<R> {
    from: R,
    /// What was read and not passed on yet.
    buffer: Vec<u8>,
}

/// What comes next on a connection.
pub enum Next {
    Request(Head),
    /// The peers have switched to another protocol: the rest isn't HTTP.
    Switched,
    /// The client has closed.
    End,
}

/// The head of a request.
pub struct Head {
    /// As it came, with the empty line at its end.
    pub bytes: Vec<u8>,
    pub body: Body,
    /// Whether the client waits to be asked for the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
}

/// How long a body is (RFC 9112, 6.3).
#[derive(Clone, Copy)]
pub enum Body {
    Bytes(u64),
    Chunked,
}

/// Where requests are passed on to. Once the service stops reading, or when there is none, bytes are dropped: an error there
/// must not keep its answer from the client.
pub struct Upstream(Option<OwnedWriteHalf>);

impl Upstream {
    pub fn new(to: OwnedWriteHalf) -> Self {
        Upstream(Some(to))
    }

    /// Drops every byte.
    pub fn none() -> Self {
        Upstream(None)
    }

    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        if let Some(to) = &mut self.0
            && to.write_all(bytes).await.is_err()
        {
            self.0 = None;
        }
    }

    /// Says that no more requests follow.
    pub async fn finish(&mut self) {
        if let Some(to) = &mut self.0 {
            // An error means that the service has closed too.
            let _ = to.shutdown().await;
        }
    }
}

impl<R: AsyncRead + Unpin> Requests<R> {
    pub fn new(from: R) -> Self {
        let buffer = Vec::with_capacity(PART);
        Requests { from, buffer }
    }

    /// Reads until the head of the next request is there, or until the connection `has_switched` to another protocol.
    ///
    /// # Errors
    /// When the bytes aren't an HTTP/1.1 request, or the connection breaks.
    pub async fn next(&mut self, has_switched: impl Fn() -> bool) -> io::Result<Next> {
        loop {
            if has_switched() {
                return Ok(Next::Switched);
            }
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(&self.buffer) {
                Ok(httparse::Status::Complete(length)) => {
                    let (body, expects_continue) = what_follows(&request)?;
                    let bytes = self.buffer.drain(..length).collect();
                    return Ok(Next::Request(Head {
                        bytes,
                        body,
                        expects_continue,
                    }));
                }
                Ok(httparse::Status::Partial) if self.buffer.len() <= HEAD_LIMIT => {}
                Ok(httparse::Status::Partial) => return Err(invalid("the head is too long")),
                Err(error) => return Err(invalid(&error.to_string())),
            }
            if !self.read().await? {
                return match self.buffer.is_empty() {
                    true => Ok(Next::End),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Passes on everything that still comes, whatever it is.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn rest(&mut self, to: &mut Upstream) -> io::Result<()> {
        loop {
            self.bytes(self.buffer.len() as u64, to).await?;
            if !self.read().await? {
                return Ok(());
            }
        }
    }

    /// Passes a body on.
    ///
    /// # Errors
    /// When the body is malformed, or the connection breaks.
    pub async fn body(&mut self, body: Body, to: &mut Upstream) -> io::Result<()> {
        match body {
            Body::Bytes(length) => self.bytes(length, to).await,
            Body::Chunked => loop {
                let (line, size) = self.chunk().await?;
                self.bytes(line, to).await?;
                if size == 0 {
                    return self.trailers(to).await;
                }
                // The chunk and the end of its line.
                let end = size.checked_add(2);
                let end = end.ok_or_else(|| invalid("a chunk is too long"))?;
                self.bytes(end, to).await?;
            },
        }
    }

    /// The length of the line that starts a chunk, and the size of the chunk, both in bytes.
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

    /// Passes on the lines after the last chunk, up to an empty one.
    async fn trailers(&mut self, to: &mut Upstream) -> io::Result<()> {
        loop {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    let empty = end <= 1;
                    self.bytes(end as u64 + 1, to).await?;
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

    /// Passes on so many bytes.
    async fn bytes(&mut self, mut length: u64, to: &mut Upstream) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            let length_here = usize::try_from(length).unwrap_or(usize::MAX);
            let part = self.buffer.len().min(length_here);
            to.write(&self.buffer[..part]).await;
            self.buffer.drain(..part);
            length -= part as u64;
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.read().await? {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads into the buffer. `false` when the client has closed.
    async fn read(&mut self) -> io::Result<bool> {
        self.buffer.reserve(PART);
        Ok(self.from.read_buf(&mut self.buffer).await? > 0)
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

/// The body that follows a head, and whether the client waits to be asked for it.
fn what_follows(request: &httparse::Request) -> io::Result<(Body, bool)> {
    let find = |name: &str| {
        let mut headers = request.headers.iter().rev();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value)
    };
    let body = match (find("transfer-encoding"), find("content-length")) {
        (Some(encoding), _) if encoding.to_ascii_lowercase().ends_with(b"chunked") => Body::Chunked,
        (Some(_), _) => return Err(invalid("the body has no end")),
        (None, Some(length)) => {
            let length = std::str::from_utf8(length).ok();
            let length = length.and_then(|it| it.trim().parse().ok());
            Body::Bytes(length.ok_or_else(|| invalid("the content has no length"))?)
        }
        (None, None) => Body::Bytes(0),
    };
    Ok((body, find("expect").is_some()))
}

/// The status in the first bytes of an answer, after those of 1xx that only announce it. `None` until it is there,
/// `Some(None)` when this is no answer.
pub fn final_status(begun: &[u8]) -> Option<Option<u16>> {
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
