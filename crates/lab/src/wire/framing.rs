//! Finds the ends of heads and bodies in a stream of HTTP/1.1 requests, and the status of an answer (RFC 9112). Recognises HTTP/2 and
//! TLS by their first bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;

use super::Opaque;

/// The largest head of a request or an answer, in bytes. The limit of the services, which is hyper's, is lower.
pub const HEAD_LIMIT: usize = 512 * 1024;

/// The size of a read, in bytes.
pub const READ_SIZE: usize = 16 * 1024;

/// The largest number of headers of a request or an answer.
const HEADERS_LIMIT: usize = 200;

/// The first bytes of a client that speaks HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first bytes of a client that speaks TLS: the type of a handshake record and the major version (RFC 8446, 5.1).
const TLS_HANDSHAKE: &[u8] = &[22, 3];

/// Reads the requests that a client sends on one connection.
pub struct Requests<R> {
    from: R,
    /// The bytes that were read but not yet forwarded.
    buffer: Vec<u8>,
    /// Whether no request has been read yet.
    at_start: bool,
}

/// The next event on the client's side of a connection.
pub enum ClientEvent {
    Request(Head),
    /// The peers have switched to another protocol. The following bytes aren't HTTP.
    Switched,
    /// The connection begins with another protocol.
    Opaque(Opaque),
    /// The client has closed the connection.
    End,
}

/// The head of a request.
pub struct Head {
    /// The unchanged bytes of the head, with the empty line at its end.
    pub bytes: Vec<u8>,
    pub body: BodyLength,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
    /// Whether the answer has no body, whatever its headers say (RFC 9110, 9.3.2).
    pub is_head: bool,
    /// Whether the client offers to switch to HTTP/2 (RFC 7540, 3.2).
    pub offers_http2: bool,
}

/// The length of a body (RFC 9112, 6.3).
#[derive(Clone, Copy)]
pub enum BodyLength {
    Bytes(u64),
    Chunked,
}

/// The connection to the service. Without one, or once the service stops reading, this drops all bytes: an error here must not
/// keep the service's answer from the client.
pub struct Upstream(Option<OwnedWriteHalf>);

impl Upstream {
    pub fn new(to: OwnedWriteHalf) -> Self {
        Upstream(Some(to))
    }

    /// Creates an upstream that drops every byte.
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

    /// Closes the sending direction after the last request.
    pub async fn finish(&mut self) {
        if let Some(to) = &mut self.0 {
            // An error means that the service has closed too.
            let _ = to.shutdown().await;
        }
    }
}

impl<R: AsyncRead + Unpin> Requests<R> {
    pub fn new(from: R) -> Self {
        let buffer = Vec::with_capacity(READ_SIZE);
        Requests { from, buffer, at_start: true }
    }

    /// Reads the head of the next request. Returns early when the connection `has_switched` to another protocol.
    ///
    /// # Errors
    /// Fails when the bytes aren't an HTTP/1.1 request, or the connection breaks.
    pub async fn next(&mut self, has_switched: impl Fn() -> bool) -> io::Result<ClientEvent> {
        loop {
            if has_switched() {
                return Ok(ClientEvent::Switched);
            }
            if self.at_start {
                match self.opaque() {
                    Recognised::Yes(protocol) => return Ok(ClientEvent::Opaque(protocol)),
                    Recognised::No => self.at_start = false,
                    Recognised::NotYet => {
                        if !self.read().await? {
                            return self.end();
                        }
                        continue;
                    }
                }
            }
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(&self.buffer) {
                Ok(httparse::Status::Complete(length)) => {
                    let (body, expects_continue) = body_length(&request)?;
                    let is_head = request.method == Some("HEAD");
                    let upgrade = header(&request, "upgrade").unwrap_or_default();
                    let mut offers = upgrade.split(|byte| *byte == b',');
                    let offers_http2 =
                        offers.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"h2c"));
                    let bytes = self.buffer.drain(..length).collect();
                    let head = Head { bytes, body, expects_continue, is_head, offers_http2 };
                    return Ok(ClientEvent::Request(head));
                }
                Ok(httparse::Status::Partial) if self.buffer.len() <= HEAD_LIMIT => {}
                Ok(httparse::Status::Partial) => return Err(invalid("the head is too long")),
                Err(error) => return Err(invalid(&error.to_string())),
            }
            if !self.read().await? {
                return self.end();
            }
        }
    }

    /// Returns the event of a client that has closed the connection.
    fn end(&self) -> io::Result<ClientEvent> {
        match self.buffer.is_empty() {
            true => Ok(ClientEvent::End),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Looks for another protocol in the first bytes of the connection.
    fn opaque(&self) -> Recognised {
        let protocols = [(HTTP2_PREFACE, Opaque::Http2), (TLS_HANDSHAKE, Opaque::Tls)];
        for (start, protocol) in protocols {
            if self.buffer.starts_with(start) {
                return Recognised::Yes(protocol);
            }
            if start.starts_with(&self.buffer) {
                return Recognised::NotYet;
            }
        }
        Recognised::No
    }

    /// Forwards all following bytes until the client closes the connection.
    ///
    /// # Errors
    /// Fails when the connection breaks.
    pub async fn rest(&mut self, to: &mut Upstream) -> io::Result<()> {
        loop {
            self.bytes(self.buffer.len() as u64, to).await?;
            if !self.read().await? {
                return Ok(());
            }
        }
    }

    /// Forwards a body.
    ///
    /// # Errors
    /// Fails when the body is malformed or the connection breaks.
    pub async fn body(&mut self, body: BodyLength, to: &mut Upstream) -> io::Result<()> {
        match body {
            BodyLength::Bytes(length) => self.bytes(length, to).await,
            BodyLength::Chunked => loop {
                let (line, size) = self.chunk().await?;
                self.bytes(line, to).await?;
                if size == 0 {
                    return self.trailers(to).await;
                }
                // Add the line break after the chunk.
                let end = size.checked_add(2);
                let end = end.ok_or_else(|| invalid("a chunk is too long"))?;
                self.bytes(end, to).await?;
            },
        }
    }

    /// Reads the line that starts a chunk. Returns the length of this line and the size of the chunk, both in bytes.
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

    /// Forwards the lines after the last chunk up to an empty line.
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

    /// Forwards `length` bytes.
    async fn bytes(&mut self, mut length: u64, to: &mut Upstream) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            let limit = usize::try_from(length).unwrap_or(usize::MAX);
            let part = self.buffer.len().min(limit);
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

    /// Reads more bytes into the buffer. Returns `false` when the client has closed the connection.
    async fn read(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_SIZE);
        Ok(self.from.read_buf(&mut self.buffer).await? > 0)
    }
}

/// Whether the first bytes of a connection are those of another protocol than HTTP/1.1.
enum Recognised {
    Yes(Opaque),
    No,
    /// More bytes are needed.
    NotYet,
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

/// Returns the length of the body after a head, and whether the client waits for `100 Continue` before it sends the body.
fn body_length(request: &httparse::Request) -> io::Result<(BodyLength, bool)> {
    let find = |name| header(request, name);
    let body = match (find("transfer-encoding"), find("content-length")) {
        (Some(encoding), _) if encoding.to_ascii_lowercase().ends_with(b"chunked") => {
            BodyLength::Chunked
        }
        (Some(_), _) => return Err(invalid("the body has no end")),
        (None, Some(length)) => {
            let length = std::str::from_utf8(length).ok();
            let length = length.and_then(|it| it.trim().parse().ok());
            BodyLength::Bytes(length.ok_or_else(|| invalid("the content has no length"))?)
        }
        (None, None) => BodyLength::Bytes(0),
    };
    Ok((body, find("expect").is_some()))
}

/// Returns the value of the last header of that name.
fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a [u8]> {
    let mut headers = request.headers.iter().rev();
    let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
    found.map(|header| header.value)
}

/// Finds the final status in the first bytes of an answer, after statuses of 1xx that only announce it. Returns `None` when more
/// bytes are needed, and `Some(None)` when the bytes aren't an HTTP/1.1 answer.
pub fn final_status(start: &[u8]) -> Option<Option<u16>> {
    let mut rest = start;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(rest) {
            Ok(httparse::Status::Complete(length)) => match response.code {
                Some(100 | 102 | 103) => rest = &rest[length..],
                status => return Some(status),
            },
            Ok(httparse::Status::Partial) if start.len() <= HEAD_LIMIT => return None,
            _ => return Some(None),
        }
    }
}
