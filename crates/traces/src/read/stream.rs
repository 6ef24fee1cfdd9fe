//! Reads a file of any size, a piece at a time, and hands on the spans and log records of each piece.

use std::cell::Cell;
use std::io::{self, Read};

use super::unpack::{self, Error as UnpackError, UNPACKED_LIMIT, document_limit};
use super::{Contents, LOOKS, PROTOBUF, Piece, Reader, SHORT, Unreadable, foreign, read_unpacked};
use crate::embedded;
use crate::otlp;

/// The number of bytes to read before the documents in them are looked for. A smaller file is read as a whole.
const PIECE: usize = 4 * 1024 * 1024;

/// The bytes of a file, and how many have been read of it.
struct Counted<'c, R> {
    from: R,
    count: &'c Cell<usize>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.count.set(self.count.get().saturating_add(read));
        Ok(read)
    }
}

/// The reasons why a file has nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// The decoders report what they can't unpack as errors of reading.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<UnpackError>() {
            Ok(error) => Error::Unreadable(error.into()),
            Err(error) => Error::Io(error),
        }
    }
}

/// Reads the spans and log records of a file like [`read`](super::read), and calls `sink` with them. Of a large file, calls it again and again, so
/// that no more than a piece of the file or one document of it is in memory. The returned contents have their number, and
/// of a large file neither exchanges nor requests elsewhere.
///
/// # Errors
/// The file can't be read, or there is nothing in it to show. After the first piece, what can't be read is one of the problems.
pub fn stream<'a>(from: impl Read + 'a, mut sink: impl FnMut(Piece)) -> Result<Contents, Error> {
    let count = Cell::new(0);
    let mut from = unpack::reader(Box::new(Counted { from, count: &count }))?;
    let mut bytes = Vec::new();
    let mut more = fill(&mut from, &mut bytes, PIECE)?;
    let is_utf8 = unpack::text(&bytes).is_some() && !unpack::is_utf16(&bytes);
    let is_known = is_utf8 || is_framed(&bytes);
    if more && !is_known && !unpack::is_utf16(&bytes) && !bytes.starts_with(&[PROTOBUF]) {
        return Err(Unreadable::Foreign { foreign: foreign::of_bytes(&bytes) }.into());
    }
    let is_page =
        is_utf8 && embedded::is_page(&String::from_utf8_lossy(&bytes[..bytes.len().min(100)]));
    if more && (!is_known || is_page) {
        // One message, a text that has to be converted, or a page with its data at the end.
        while more {
            let limit = document_limit(count.get());
            if bytes.len() > limit {
                return Err(Unreadable::from(UnpackError::DocumentTooLarge(limit)).into());
            }
            more = fill(&mut from, &mut bytes, PIECE)?;
        }
    }
    if !more {
        drop(from);
        let mut contents = read_unpacked(bytes.into(), count.get())?;
        let piece = Piece {
            spans: std::mem::take(&mut contents.spans),
            logs: std::mem::take(&mut contents.logs),
        };
        if !piece.is_empty() {
            sink(piece);
        }
        return Ok(contents);
    }
    let mut reader = Reader { looks_left: SHORT, ..Reader::default() };
    match is_utf8 {
        true => in_text(&mut from, &count, bytes, &mut reader, &mut sink),
        false => in_frames(&mut from, &count, bytes, &mut reader, &mut sink),
    }
    Ok(reader.finish()?)
}

/// Reads `count` more bytes. Returns whether there may be still more.
fn fill(from: &mut impl Read, bytes: &mut Vec<u8>, count: usize) -> io::Result<bool> {
    bytes.reserve_exact(count);
    let read = from.take(count as u64).read_to_end(bytes)?;
    Ok(read == count)
}

/// Does the same within a file of which a part has been read. An error is one of its problems, and the file ends there.
fn fill_further(
    from: &mut impl Read,
    bytes: &mut Vec<u8>,
    count: usize,
    reader: &mut Reader,
) -> bool {
    fill(from, bytes, count).unwrap_or_else(|error| {
        reader.problem(None, otlp::Error::Frame(error.to_string()));
        false
    })
}

/// Reads the documents of a text in UTF-8, whose first bytes are there.
fn in_text(
    from: &mut impl Read,
    count: &Cell<usize>,
    mut bytes: Vec<u8>,
    reader: &mut Reader,
    sink: &mut impl FnMut(Piece),
) {
    if bytes.starts_with(unpack::BYTE_ORDER_MARK) {
        bytes.drain(..unpack::BYTE_ORDER_MARK.len());
    }
    let is_prefixed = unpack::has_log_prefix(&String::from_utf8_lossy(&bytes));
    let (mut text, mut more, mut is_first) = (String::new(), true, true);
    loop {
        reader.packed = count.get();
        let limit = document_limit(reader.packed);
        let goes_on = more && text.len() + bytes.len() <= limit;
        if more && !goes_on {
            let error = UnpackError::DocumentTooLarge(limit).to_string();
            reader.problem(Some(reader.lines + 1), otlp::Error::Frame(error));
        }
        // A line that isn't whole may end within a character.
        let end = match goes_on {
            true => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
            false => bytes.len(),
        };
        let lines = String::from_utf8_lossy(&bytes[..end]);
        text.reserve_exact(lines.len());
        match is_prefixed {
            true => text.push_str(&unpack::stripped(&lines)),
            false => text.push_str(&lines),
        }
        reader.looks_left = reader.looks_left.saturating_add(LOOKS * end);
        bytes.drain(..end);
        if std::mem::take(&mut is_first) {
            reader.foreign = foreign::of_text(&text);
        }
        let read = reader.documents(&text, goes_on);
        text.drain(..read);
        reader.hand_on(sink);
        if !more {
            break;
        }
        // A quarter as much again, so that a document that is cut off isn't looked at too often.
        let held = text.len() + bytes.len();
        let left = limit.saturating_sub(held);
        let further = PIECE.max(held / 4).min(left + 1);
        more = fill_further(from, &mut bytes, further, reader);
    }
    if reader.form.is_some() {
        reader.foreign = None;
    }
}

/// Whether bytes begin with the length of a message of the Collector's file exporter and with the message.
fn is_framed(bytes: &[u8]) -> bool {
    let Some((length, message)) = bytes.split_first_chunk::<4>() else { return false };
    let fits = usize::try_from(u32::from_be_bytes(*length)).is_ok_and(|it| it <= UNPACKED_LIMIT);
    fits && (unpack::is_zstd(message) || matches!(message.first(), Some(&PROTOBUF | &b'{')))
}

/// Reads the messages of the Collector's file exporter.
fn in_frames(
    from: &mut impl Read,
    count: &Cell<usize>,
    mut bytes: Vec<u8>,
    reader: &mut Reader,
    sink: &mut impl FnMut(Piece),
) {
    let mut more = true;
    while !bytes.is_empty() {
        if !is_framed(&bytes) {
            let reason = format!("{} bytes from here on are not a message", bytes.len());
            reader.problem(None, otlp::Error::Frame(reason));
            break;
        }
        reader.packed = count.get();
        let read = reader.frames(&bytes);
        bytes.drain(..read);
        reader.hand_on(sink);
        if read == 0 && !more {
            break;
        }
        if more {
            let further = PIECE.max(bytes.len());
            more = fill_further(from, &mut bytes, further, reader);
        }
    }
}
