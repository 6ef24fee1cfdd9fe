//! The requests that the proxies have seen, within limits.

use std::collections::VecDeque;
use std::sync::Arc;

use traces::exchange::Exchange;

/// The largest number of recorded requests. When it is reached, the oldest is dropped.
pub const EXCHANGES: usize = 1000;

/// The largest size of all recorded requests, in bytes. When it is reached, the oldest are dropped.
pub const RECORD_BYTES: usize = 8 * 1024 * 1024;

/// How much of the head of a request is recorded, in bytes.
pub const HEAD_BYTES: usize = 16 * 1024;

/// How many lines of the head of a request are recorded.
pub const HEAD_LINES: usize = 256;

/// Headers with credentials, whose values aren't recorded.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// Recorded in place of bytes that don't begin with a request line. They may be a part of a body, and bodies aren't recorded.
pub const NOT_HTTP: &str = "(not HTTP)";

/// The recorded requests, the oldest first.
#[derive(Default)]
pub struct Record {
    exchanges: VecDeque<Arc<Exchange>>,
    /// The size of the exchanges.
    bytes: usize,
    /// The number of exchanges that were dropped.
    dropped: usize,
}

impl Record {
    /// Adds an exchange. Returns its number and the exchanges that were dropped for it.
    pub fn add(&mut self, exchange: Exchange) -> (usize, Vec<Arc<Exchange>>) {
        self.bytes += size(&exchange);
        self.exchanges.push_back(Arc::new(exchange));
        let mut dropped = Vec::new();
        while (self.exchanges.len() > EXCHANGES || self.bytes > RECORD_BYTES)
            && let Some(oldest) = self.exchanges.pop_front()
        {
            self.bytes -= size(&oldest);
            dropped.push(oldest);
        }
        self.dropped += dropped.len();
        (self.dropped + self.exchanges.len() - 1, dropped)
    }

    /// Returns the exchange of this number, unless it was dropped.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Exchange> {
        let exchange = self.exchanges.get_mut(number.checked_sub(self.dropped)?)?;
        // A page that is just being rendered keeps the exchange as it was.
        Some(Arc::make_mut(exchange))
    }

    /// Returns the exchanges, the oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Exchange>> {
        self.exchanges.iter()
    }

    /// Returns the exchanges with their numbers, the newest first.
    pub fn latest(&self) -> impl Iterator<Item = (usize, &Arc<Exchange>)> {
        let numbered = self.exchanges.iter().enumerate().rev();
        numbered.map(|(index, exchange)| (self.dropped + index, exchange))
    }
}

/// Returns the size of an exchange in memory, in bytes.
fn size(exchange: &Exchange) -> usize {
    let texts = [Some(&exchange.hop), Some(&exchange.to), Some(&exchange.sent)];
    let others = [exchange.delivered.as_ref(), exchange.fault.as_ref()];
    let texts = texts.into_iter().chain(others).flatten();
    size_of::<Exchange>() + texts.map(String::len).sum::<usize>()
}

/// Converts a head to text, each byte to one character (ISO 8859-1). Removes the values of [`CREDENTIALS`], and the lines behind the
/// first [`HEAD_LINES`] and those that don't fit into [`HEAD_BYTES`].
pub fn head(head: &[u8]) -> String {
    let mut text = String::new();
    let mut keep = |bytes: &[u8]| text.extend(bytes.iter().copied().map(char::from));
    let (mut left, mut dropped) = (HEAD_BYTES, 0);
    let mut is_credential = false;
    let mut end = &b""[..];
    for (index, line) in head.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if index > 0 && matches!(line, b"\n" | b"\r\n") {
            end = line;
            break;
        }
        // A line that begins with a blank continues the last one (RFC 9112, 5.2).
        let is_continued = index > 0 && matches!(line.first(), Some(b' ' | b'\t'));
        if is_continued && is_credential {
            continue;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii();
        let mut credentials = CREDENTIALS.iter().filter(|_| index > 0 && name.len() < line.len());
        is_credential = credentials.any(|it| name.eq_ignore_ascii_case(it.as_bytes()));
        let without_value = is_credential.then(|| [name, b": (not kept)\r\n"].concat());
        let line = without_value.as_deref().unwrap_or(line);
        if index < HEAD_LINES && line.len() <= left {
            left -= line.len();
            keep(line);
        } else if index == 0 {
            // Of the request line, the beginning says most.
            dropped += line.len() - left;
            keep(&line[..left]);
            keep(b"\r\n");
            left = 0;
        } else {
            dropped += line.len();
        }
    }
    if dropped > 0 {
        keep(format!("({dropped} more bytes are not kept)\r\n").as_bytes());
    }
    keep(end);
    text
}

/// Converts the bytes of a malformed request to text, up to the first empty line. Returns [`NOT_HTTP`] when they don't begin with a
/// request line.
pub fn malformed(bytes: &[u8]) -> String {
    let mut length = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        length += line.len();
        if matches!(line, b"\n" | b"\r\n") {
            break;
        }
    }
    let bytes = &bytes[..length];
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let is_method = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_uppercase);
    let has_version = words.next().is_some_and(is_method)
        && words.next_back().is_some_and(|version| version.starts_with(b"HTTP/"));
    match has_version {
        true => head(bytes),
        false => format!("{NOT_HTTP}\r\n\r\n"),
    }
}
