//! Turns the bytes of a file into text or protobuf: unpacks gzip and zstd, and decodes UTF-16.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// The most bytes that a packed file may unpack to, so that a small file can't fill the memory.
pub const UNPACKED_LIMIT: usize = 256 * 1024 * 1024;

/// The size in bytes up to which any document may unpack, and how often its packed size a larger one may have.
const ANY_DOCUMENT: usize = 8 * 1024 * 1024;
const DOCUMENT_RATIO: usize = 32;

/// How often its packed size the values of a document are expected to have. They take more memory than its text.
const USUAL_RATIO: usize = 16;

/// The largest document in a file of which this many bytes have been read, in bytes. All of a document is in memory, so a small packed
/// file must not unpack to a large one.
pub(super) fn document_limit(packed: usize) -> usize {
    UNPACKED_LIMIT.min(ANY_DOCUMENT.saturating_add(DOCUMENT_RATIO.saturating_mul(packed)))
}

/// The size of a document of this many bytes, or a smaller one if it was packed very tightly.
pub(super) fn usual_size(document: usize, packed: usize) -> usize {
    document.min(USUAL_RATIO.saturating_mul(packed))
}

/// How often a file may be packed: `trace.json.gz` in a `.zst` is one packed twice.
const LAYERS: usize = 2;

/// The first bytes of gzip ([RFC 1952, 2.3.1](https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1)).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Whether bytes begin with a frame of zstd, or with one to skip
/// ([RFC 8878, 3.1](https://www.rfc-editor.org/rfc/rfc8878#section-3.1)).
pub(super) fn is_zstd(bytes: &[u8]) -> bool {
    matches!(bytes, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Why a packed file can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it begins like {form} and can't be unpacked: {reason}")]
    Broken { form: &'static str, reason: String },
    /// The data in a page of the lab.
    #[error("it is an HTML file of the lab, and the data in it can't be read: {reason}")]
    Embedded { reason: String },
    #[error("it unpacks to more than {UNPACKED_LIMIT} bytes")]
    TooLarge,
    /// It isn't a list of documents that can be read one after the other.
    #[error("it is one document of more than {0} bytes")]
    DocumentTooLarge(usize),
}

/// Unpacks `bytes` if they begin like gzip or zstd. Returns other bytes as they are.
///
/// # Errors
/// The packed data is damaged, or unpacks to more than [`UNPACKED_LIMIT`].
pub fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    unpack_within(bytes, UNPACKED_LIMIT).map_err(|error| match error {
        Error::DocumentTooLarge(_) => Error::TooLarge,
        other => other,
    })
}

/// Does the same for one document in a file of this many bytes.
pub(crate) fn unpack_document(bytes: &[u8], file: usize) -> Result<Cow<'_, [u8]>, Error> {
    unpack_within(bytes, document_limit(file))
}

fn unpack_within(bytes: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, Error> {
    let mut bytes = Cow::Borrowed(bytes);
    for _ in 0..LAYERS {
        let unpacked = if bytes.starts_with(GZIP) {
            gzip(&bytes, limit)?
        } else if is_zstd(&bytes) {
            zstd(&bytes, limit)?
        } else {
            break;
        };
        bytes = Cow::Owned(unpacked);
    }
    Ok(bytes)
}

fn gzip(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut unpacked = Vec::new();
    append("gzip", &mut MultiGzDecoder::new(bytes), &mut unpacked, limit)?;
    Ok(unpacked)
}

fn zstd(mut bytes: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let broken = |reason: String| Error::Broken { form: "zstd", reason };
    let mut unpacked = Vec::new();
    while !bytes.is_empty() {
        match StreamingDecoder::new(&mut bytes) {
            Ok(mut frame) => append("zstd", &mut frame, &mut unpacked, limit)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                bytes = bytes.get(length..).unwrap_or_default();
            }
            Err(error) => return Err(broken(error.to_string())),
        }
    }
    Ok(unpacked)
}

fn append(
    form: &'static str,
    packed: &mut impl Read,
    to: &mut Vec<u8>,
    limit: usize,
) -> Result<(), Error> {
    let rest = limit.saturating_sub(to.len()) as u64;
    packed
        .take(rest + 1)
        .read_to_end(to)
        .map_err(|error| Error::Broken { form, reason: error.to_string() })?;
    match to.len() > limit {
        true => Err(Error::DocumentTooLarge(limit)),
        false => Ok(()),
    }
}

/// Unpacks a file while it is read, if it begins like gzip or zstd. Reading fails with an [`Error`] where [`unpack`] would.
///
/// # Errors
/// The first bytes can't be read.
pub(super) fn reader<'a>(from: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
    let (mut from, mut is_packed) = (from, false);
    for _ in 0..=LAYERS {
        let mut beginning = Vec::new();
        from.by_ref().take(4).read_to_end(&mut beginning)?;
        let (is_gzip, is_zstd) = (beginning.starts_with(GZIP), is_zstd(&beginning));
        let whole = Cursor::new(beginning).chain(from);
        from = if is_gzip {
            Box::new(Unpacker { form: "gzip", from: MultiGzDecoder::new(whole) })
        } else if is_zstd {
            let packed = Shared(Rc::new(RefCell::new(BufReader::new(whole))));
            Box::new(Unpacker { form: "zstd", from: Zstd { packed, frame: None } })
        } else {
            from = Box::new(whole);
            break;
        };
        is_packed = true;
    }
    Ok(if is_packed { Box::new(Limited { from, left: UNPACKED_LIMIT }) } else { from })
}

/// Names the form in errors.
struct Unpacker<R> {
    form: &'static str,
    from: R,
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let form = self.form;
        self.from.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(Error::Broken { form, reason: error.to_string() }),
        })
    }
}

/// Fails at more than [`UNPACKED_LIMIT`] bytes.
struct Limited<R> {
    from: R,
    left: usize,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or_else(|| io::Error::other(Error::TooLarge))?;
        Ok(read)
    }
}

/// Unpacks the frames of zstd, one after the other.
struct Zstd<R: Read> {
    packed: Shared<R>,
    frame: Option<Box<StreamingDecoder<Shared<R>, FrameDecoder>>>,
}

/// The decoder of a frame owns its source, so it gets a clone.
struct Shared<R>(Rc<RefCell<BufReader<R>>>);

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.read(buffer)? {
                    0 if !buffer.is_empty() => self.frame = None,
                    read => return Ok(read),
                }
            }
            if self.packed.0.borrow_mut().fill_buf()?.is_empty() {
                return Ok(0);
            }
            match StreamingDecoder::new(Shared(Rc::clone(&self.packed.0))) {
                Ok(frame) => self.frame = Some(Box::new(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = self.packed.by_ref().take(length.into());
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    }
}

/// Decodes text: UTF-8 with or without a byte order mark, or UTF-16. Returns `None` for bytes that aren't text.
/// Single bytes that aren't UTF-8 become `U+FFFD`, because one damaged name shouldn't cost a whole file.
pub fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    /// The number of bytes to look at to tell text from binary data.
    const BEGINNING: usize = 4096;
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let text = char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER));
        Cow::Owned(text.collect())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => return Some(utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => return Some(utf16(rest, u16::from_be_bytes)),
        // Without a byte order mark, JSON shows the order by its first character.
        [b'{' | b'[', 0, ..] => return Some(utf16(bytes, u16::from_le_bytes)),
        [0, b'{' | b'[', ..] => return Some(utf16(bytes, u16::from_be_bytes)),
        _ => {}
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let beginning = &bytes[..bytes.len().min(BEGINNING)];
    // The escape character begins a colour in a log.
    let control =
        |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace() && *byte != 0x1b;
    match std::str::from_utf8(bytes) {
        Ok(text) => (!beginning.iter().any(control)).then_some(Cow::Borrowed(text)),
        Err(_) if beginning.iter().any(control) => None,
        Err(_) => Some(String::from_utf8_lossy(bytes)),
    }
}

/// The byte order mark in UTF-8, which Windows writes.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether [`text`] decodes bytes that begin so as UTF-16.
pub(super) fn is_utf16(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..]
    )
}

/// Whether [`without_log_prefix`] removes something.
pub(super) fn has_log_prefix(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    prefix(first) > 0
}

/// Removes what `docker compose logs` and the container runtimes of Kubernetes put in front of each line, if the first line has it.
pub fn without_log_prefix(text: Cow<'_, str>) -> Cow<'_, str> {
    match has_log_prefix(&text) {
        true => Cow::Owned(stripped(&text)),
        false => text,
    }
}

/// Removes it from each line that has it.
pub(super) fn stripped(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    for line in text.lines() {
        stripped.push_str(&line[prefix(line)..]);
        stripped.push('\n');
    }
    stripped
}

/// The length of the prefix of a line: `service-1  | `, or `2026-01-28T09:58:44Z stdout F `.
fn prefix(line: &str) -> usize {
    let name = line.bytes().take_while(|it| it.is_ascii_alphanumeric() || b"-_.".contains(it));
    let name = name.count();
    let bar = line[name..].trim_start_matches(' ');
    if name > 0 && (bar.starts_with("| ") || bar == "|") {
        return line.len() - bar.len() + bar.len().min(2);
    }
    // https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
    let mut words = line.splitn(4, ' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(time), Some("stdout" | "stderr"), Some("F" | "P"), Some(rest))
            if time.contains('T') =>
        {
            line.len() - rest.len()
        }
        _ => 0,
    }
}
