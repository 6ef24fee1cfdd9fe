//! Finds the ends of heads and bodies in a stream of HTTP/1.1 messages (RFC 9112). Recognises HTTP/2 and TLS by their first bytes.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;

use super::Opaque;
use super::connections::Activity;

/// The largest head of a request or an answer that a proxy reads, in bytes. The limit of the services, which is hyper's, is lower.
pub const HEAD_LIMIT: usize = 512 * 1024;

/// The size of a read, in bytes.
pub const READ_SIZE: usize = 16 * 1024;

/// The number of headers that most messages don't exceed.
const USUAL_HEADERS: usize = 100;

/// The largest number of headers of a request or an answer that a proxy reads.
const HEADERS_LIMIT: usize = 16 * 1024;

/// A head up to this size is parsed after each read, in bytes. See [`Held::is_due`].
const SMALL_HEAD: usize = 4 * 1024;

/// The first bytes of a client that speaks HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first bytes of a client that speaks TLS: the type of a handshake record and the major version (RFC 8446, 5.1).
const TLS_HANDSHAKE: &[u8] = &[22, 3];

/// The bytes that are held until they are a whole head.
#[derive(Default)]
pub struct Held {
    bytes: Vec<u8>,
    /// How many of them were there at the last parse.
    parsed: usize,
}

impl Held {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Returns whether parsing can tell something new. A head that arrives byte by byte isn't parsed after each byte, because that
    /// takes quadratic time.
    fn is_due(&self) -> bool {
        let length = self.bytes.len();
        let new = self.parsed.saturating_sub(2)..;
        let has_end = || {
            let mut lines = self.bytes.get(new).unwrap_or_default().split(|byte| *byte == b'\n');
            // What stands before the first line break is the end of a line, and what stands behind the last has no end yet.
            lines.next();
            lines.next_back();
            lines.any(|line| matches!(line, b"" | b"\r"))
        };
        length > 0
            && (length <= SMALL_HEAD
                || length > HEAD_LIMIT
                || length >= self.parsed + self.parsed / 4
                || has_end())
    }

    /// Removes the first bytes and returns them.
    fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.bytes[..length].to_vec();
        self.remove(length);
        taken
    }

    /// Removes the first bytes.
    fn remove(&mut self, length: usize) {
        self.bytes.drain(..length);
        self.parsed = 0;
        // A large head must not leave its memory behind.
        if self.bytes.is_empty() && self.bytes.capacity() > 2 * READ_SIZE {
            self.bytes = Vec::new();
        }
    }
}

/// The outcome of parsing a head.
enum Parsed<T> {
    Complete(T),
    /// More bytes are needed.
    Partial,
    Invalid,
}

/// Calls `parse` with space for the usual number of headers, and again with space for [`HEADERS_LIMIT`] if that is too little.
fn with_headers<'b, T>(
    mut parse: impl FnMut(&mut [httparse::Header<'b>]) -> Result<Option<T>, httparse::Error>,
) -> Parsed<T> {
    let mut outcome = parse(&mut [httparse::EMPTY_HEADER; USUAL_HEADERS]);
    if matches!(outcome, Err(httparse::Error::TooManyHeaders)) {
        outcome = parse(&mut vec![httparse::EMPTY_HEADER; HEADERS_LIMIT]);
    }
    match outcome {
        Ok(Some(head)) => Parsed::Complete(head),
        Ok(None) => Parsed::Partial,
        Err(_) => Parsed::Invalid,
    }
}

/// The length of a body (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The number of bytes that are left.
    Length(u64),
    Chunked(Chunked),
    /// The end can't be known: all that follows may belong to the body.
    Rest,
}

/// A place in a chunked body (RFC 9112, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunked {
    /// In the size of a chunk, of which `digits` were read.
    Size {
        digits: u8,
        size: u64,
    },
    /// Behind the size, up to the end of the line.
    Extension {
        size: u64,
    },
    /// Before the line feed after the size.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// Before the line break after a chunk.
    DataEnd,
    /// Before its line feed.
    DataLineFeed,
    /// In a line after the last chunk. An empty line ends the body.
    Trailer {
        is_empty: bool,
    },
}

impl Chunked {
    const START: Self = Chunked::Size { digits: 0, size: 0 };
}

/// How far a body is after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    More,
    /// It has ended.
    Done,
    /// It isn't what its head says.
    Invalid,
}

impl Body {
    /// Follows the body through some bytes. Returns how many of them belong to it.
    pub fn follow(&mut self, bytes: &[u8]) -> (usize, Progress) {
        let skip = |left: &mut u64, bytes: &[u8]| {
            let part = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= part as u64;
            part
        };
        match self {
            Body::Rest => (bytes.len(), Progress::More),
            Body::Length(left) => {
                let part = skip(left, bytes);
                (part, if *left == 0 { Progress::Done } else { Progress::More })
            }
            Body::Chunked(place) => {
                let mut at = 0;
                while let Some(byte) = bytes.get(at) {
                    if let Chunked::Data { left } = place {
                        at += skip(left, &bytes[at..]);
                        if *left == 0 {
                            *place = Chunked::DataEnd;
                        }
                        continue;
                    }
                    let Some(next) = place.after(*byte) else { return (at, Progress::Invalid) };
                    at += 1;
                    match next {
                        Some(next) => *place = next,
                        None => return (at, Progress::Done),
                    }
                }
                (at, Progress::More)
            }
        }
    }
}

impl Chunked {
    /// Returns the place after a byte, or `Some(None)` when it ends the body. Returns `None` when it can't stand here.
    fn after(self, byte: u8) -> Option<Option<Self>> {
        let next = match (self, byte) {
            (Chunked::Size { digits: 1.., size }, b'\r') => Chunked::SizeEnd { size },
            (Chunked::Size { digits: 1.., size }, b';' | b' ' | b'\t') => {
                Chunked::Extension { size }
            }
            (Chunked::Size { size, .. }, digit) => {
                let digit = char::from(digit).to_digit(16)?;
                let size = size.checked_mul(16)?.checked_add(digit.into())?;
                Chunked::Size { digits: 1, size }
            }
            (Chunked::Extension { size }, b'\r') => Chunked::SizeEnd { size },
            (Chunked::Extension { .. }, b'\n') => return None,
            (Chunked::Extension { size }, _) => Chunked::Extension { size },
            (Chunked::SizeEnd { size: 0 }, b'\n') => Chunked::Trailer { is_empty: true },
            (Chunked::SizeEnd { size }, b'\n') => Chunked::Data { left: size },
            (Chunked::DataEnd, b'\r') => Chunked::DataLineFeed,
            (Chunked::DataLineFeed, b'\n') => Chunked::START,
            (Chunked::Trailer { is_empty: true }, b'\n') => return Some(None),
            (Chunked::Trailer { is_empty }, b'\r') => Chunked::Trailer { is_empty },
            (Chunked::Trailer { .. }, byte) => Chunked::Trailer { is_empty: byte == b'\n' },
            _ => return None,
        };
        Some(Some(next))
    }
}

/// Reads the requests that a client sends on one connection.
pub struct Requests<R> {
    from: R,
    /// The bytes that were read but not yet forwarded.
    held: Held,
    /// Whether no request has been read yet.
    at_start: bool,
    activity: Activity,
}

/// The next event on the client's side of a connection.
pub enum ClientEvent {
    Request(Head),
    /// The held bytes aren't the head of an HTTP/1.1 request.
    Malformed,
    /// The connection begins with another protocol.
    Opaque(Opaque),
}

/// The head of a request.
pub struct Head {
    /// The unchanged bytes of the head, with the empty line at its end.
    pub bytes: Vec<u8>,
    pub body: Body,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
    pub method: Method,
    /// Whether the client offers to switch to another protocol (RFC 9110, 7.8).
    pub may_switch: bool,
    /// Whether the client offers to switch to HTTP/2 (RFC 7540, 3.2).
    pub offers_http2: bool,
}

/// The effect of a request's method on its answer (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The answer has no body, whatever its headers say.
    Head,
    /// After a status of 2xx, the connection is a tunnel.
    Connect,
    Other,
}

/// The connection to the service. Without one, or once the service stops reading, this drops all bytes: an error here must not
/// keep the service's answer from the client.
pub struct Upstream {
    to: Option<OwnedWriteHalf>,
    activity: Activity,
}

impl Upstream {
    pub fn new(to: Option<OwnedWriteHalf>, activity: Activity) -> Self {
        Upstream { to, activity }
    }

    pub fn is_open(&self) -> bool {
        self.to.is_some()
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        if let Some(to) = &mut self.to
            && to.write_all(bytes).await.is_err()
        {
            self.to = None;
            self.activity.drops();
        }
    }

    /// Closes the sending direction after the last request.
    pub async fn finish(&mut self) {
        if let Some(to) = &mut self.to {
            // An error means that the service has closed too.
            let _ = to.shutdown().await;
        }
    }
}

/// How the forwarding of a body has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    Done,
    /// The following bytes can't be understood.
    Unknown,
    /// The client has closed its side before the end.
    Closed,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    pub fn new(from: R, activity: Activity) -> Self {
        Requests { from, held: Held::default(), at_start: true, activity }
    }

    /// The bytes that were read but not yet forwarded.
    pub fn held(&self) -> &[u8] {
        &self.held.bytes
    }

    /// Removes the line breaks that stand before a request (RFC 9112, 2.2).
    pub fn take_blank(&mut self) -> Vec<u8> {
        let is_blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let blank = self.held.bytes.iter().take_while(is_blank).count();
        self.held.take(blank)
    }

    /// Reads the head of the next request in the held bytes. Returns `None` when more bytes are needed.
    pub fn next(&mut self) -> Option<ClientEvent> {
        if self.at_start {
            match self.opaque() {
                Recognised::Yes(protocol) => return Some(ClientEvent::Opaque(protocol)),
                Recognised::No => self.at_start = false,
                Recognised::NotYet => return None,
            }
        }
        if !self.held.is_due() {
            return None;
        }
        let bytes = &self.held.bytes;
        self.held.parsed = bytes.len();
        let parsed = with_headers(|headers| {
            let mut request = httparse::Request::new(headers);
            let httparse::Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
            let method = match request.method {
                Some("HEAD") => Method::Head,
                Some("CONNECT") => Method::Connect,
                _ => Method::Other,
            };
            let body = match method {
                Method::Connect => Body::Length(0),
                _ => body(request.headers).unwrap_or(Body::Length(0)),
            };
            let upgrade = header(request.headers, "upgrade");
            let may_switch = method == Method::Connect || upgrade.is_some();
            let mut offers = upgrade.unwrap_or_default().split(|byte| *byte == b',');
            let offers_http2 = offers.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"h2c"));
            let expects_continue = header(request.headers, "expect").is_some();
            let bytes = Vec::new();
            let head = Head { bytes, body, expects_continue, method, may_switch, offers_http2 };
            Ok(Some((head, length)))
        });
        match parsed {
            Parsed::Complete((head, length)) => {
                Some(ClientEvent::Request(Head { bytes: self.held.take(length), ..head }))
            }
            Parsed::Partial if bytes.len() <= HEAD_LIMIT => None,
            Parsed::Partial | Parsed::Invalid => Some(ClientEvent::Malformed),
        }
    }

    /// Looks for another protocol in the first bytes of the connection.
    fn opaque(&self) -> Recognised {
        let protocols = [(HTTP2_PREFACE, Opaque::Http2), (TLS_HANDSHAKE, Opaque::Tls)];
        for (start, protocol) in protocols {
            if self.held.bytes.starts_with(start) {
                return Recognised::Yes(protocol);
            }
            if start.starts_with(&self.held.bytes) {
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
        self.body(Body::Rest, to).await.map(drop)
    }

    /// Forwards a body.
    ///
    /// # Errors
    /// Fails when the connection breaks.
    pub async fn body(&mut self, mut body: Body, to: &mut Upstream) -> io::Result<BodyEnd> {
        loop {
            let (length, progress) = body.follow(&self.held.bytes);
            to.write(&self.held.bytes[..length]).await;
            self.held.remove(length);
            match progress {
                Progress::Done => return Ok(BodyEnd::Done),
                Progress::Invalid => return Ok(BodyEnd::Unknown),
                Progress::More if self.read().await? => {}
                Progress::More => return Ok(BodyEnd::Closed),
            }
        }
    }

    /// Reads more bytes. Returns `false` when the client has closed the connection. Loses no byte when it is cancelled.
    ///
    /// # Errors
    /// Fails when the connection breaks.
    pub async fn read(&mut self) -> io::Result<bool> {
        self.held.bytes.reserve(READ_SIZE);
        let length = self.from.read_buf(&mut self.held.bytes).await?;
        self.activity.touch();
        Ok(length > 0)
    }
}

/// Whether the first bytes of a connection are those of another protocol than HTTP/1.1.
enum Recognised {
    Yes(Opaque),
    No,
    /// More bytes are needed.
    NotYet,
}

/// Returns the body that the headers of a message announce, or `None` when they announce none.
fn body(headers: &[httparse::Header<'_>]) -> Option<Body> {
    if let Some(encoding) = header(headers, "transfer-encoding") {
        let last = encoding.rsplit(|byte| *byte == b',').next().unwrap_or_default();
        let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Some(if is_chunked { Body::Chunked(Chunked::START) } else { Body::Rest });
    }
    let lengths = headers.iter().filter(|it| it.name.eq_ignore_ascii_case("content-length"));
    let mut lengths = lengths.flat_map(|it| it.value.split(|byte| *byte == b',')).map(|length| {
        let length = length.trim_ascii();
        let is_number = length.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(length).ok().filter(|_| is_number);
        length.and_then(|it| it.parse().ok())
    });
    let first: Option<u64> = lengths.next()?;
    Some(match first {
        // Two lengths that differ are none.
        Some(length) if lengths.all(|other| other == first) => Body::Length(length),
        _ => Body::Rest,
    })
}

/// Returns the value of the last header of that name.
fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut headers = headers.iter().rev();
    let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
    found.map(|header| header.value)
}

/// A request whose answer is awaited.
#[derive(Debug, Clone, Copy)]
pub struct Awaited {
    /// The number of its exchange.
    pub number: usize,
    pub method: Method,
}

/// Follows the answers of a service on one connection to find the status of each request.
pub struct Answers {
    /// The requests without an answer, in the order in which they were sent.
    awaited: VecDeque<Awaited>,
    place: Place,
    /// Whether the service has switched to another protocol (RFC 9110, 15.2.2), or never spoke HTTP. The client's following bytes
    /// aren't HTTP.
    pub has_switched: bool,
    /// Whether a request was sent or an answer was read.
    has_begun: bool,
}

/// A place in the answers.
enum Place {
    Head(Held),
    Body(Body),
}

impl Default for Answers {
    fn default() -> Self {
        let (awaited, place) = (VecDeque::new(), Place::Head(Held::default()));
        Answers { awaited, place, has_switched: false, has_begun: false }
    }
}

impl Answers {
    /// Expects an answer to this request, after those that are awaited.
    pub fn expect(&mut self, request: Awaited) {
        self.has_begun = true;
        self.awaited.push_back(request);
    }

    /// Returns whether all requests have their whole answer.
    pub fn are_complete(&self) -> bool {
        let is_between = matches!(&self.place, Place::Head(held) if held.bytes.is_empty());
        self.awaited.is_empty() && is_between && !self.has_switched
    }

    /// Returns whether only the end of the connection ends the answer.
    pub fn end_by_closing(&self) -> bool {
        matches!(self.place, Place::Body(Body::Rest))
    }

    /// Follows the answers through some bytes. Calls `found` with the number of each request that is answered in them and the status
    /// of its answer, or `None` when the answer isn't HTTP.
    pub fn follow(&mut self, mut bytes: &[u8], mut found: impl FnMut(usize, Option<u16>)) {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Body(Body::Rest) => return,
                Place::Body(body) => {
                    let (length, progress) = body.follow(bytes);
                    bytes = &bytes[length..];
                    match progress {
                        Progress::More => {}
                        Progress::Done => self.place = Place::Head(Held::default()),
                        Progress::Invalid => self.place = Place::Body(Body::Rest),
                    }
                }
                Place::Head(held) => {
                    held.push(bytes);
                    let is_other = !b"HTTP/".starts_with(&held.bytes[..held.bytes.len().min(5)]);
                    if is_other && !self.has_begun {
                        self.has_switched = true;
                    }
                    if !held.is_due() {
                        return;
                    }
                    held.parsed = held.bytes.len();
                    let (status, body, length) = match answer(&held.bytes) {
                        Parsed::Complete(head) => head,
                        Parsed::Partial if held.bytes.len() <= HEAD_LIMIT => return,
                        Parsed::Partial | Parsed::Invalid => {
                            if let Some(request) = self.awaited.pop_front() {
                                found(request.number, None);
                            }
                            self.place = Place::Body(Body::Rest);
                            return;
                        }
                    };
                    // Only bytes of the last part can stand behind the head.
                    let behind = held.bytes.len() - length;
                    bytes = &bytes[bytes.len() - behind.min(bytes.len())..];
                    self.has_begun = true;
                    self.place = self.after_head(status, body, &mut found);
                }
            }
        }
    }

    /// Returns the place after the head of an answer.
    fn after_head(
        &mut self,
        status: u16,
        body: Option<Body>,
        found: &mut impl FnMut(usize, Option<u16>),
    ) -> Place {
        // These only announce the final status.
        if (100..200).contains(&status) && status != 101 {
            return Place::Head(Held::default());
        }
        let request = self.awaited.pop_front();
        if let Some(request) = request {
            found(request.number, Some(status));
        }
        match (request.map_or(Method::Other, |it| it.method), status) {
            (_, 101) | (Method::Connect, 200..300) => {
                self.has_switched = true;
                Place::Body(Body::Rest)
            }
            (Method::Head, _) | (_, 204 | 304) => Place::Head(Held::default()),
            // Without a length, the end of the connection ends the body.
            _ => match body.unwrap_or(Body::Rest) {
                Body::Length(0) => Place::Head(Held::default()),
                body => Place::Body(body),
            },
        }
    }
}

/// Parses the head of an answer. Returns its status, the body that its headers announce, and its length.
fn answer(bytes: &[u8]) -> Parsed<(u16, Option<Body>, usize)> {
    with_headers(|headers| {
        let mut response = httparse::Response::new(headers);
        let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
        Ok(Some((response.code.unwrap_or_default(), body(response.headers), length)))
    })
}
