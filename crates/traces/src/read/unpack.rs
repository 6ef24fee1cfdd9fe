//! Turns the bytes of a file into text or protobuf: unpacks gzip and zstd, and decodes UTF-16.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// The most bytes that a packed file may unpack to, so that a small file can't fill the memory.
pub const UNPACKED_LIMIT: usize = 256 * 1024 * 1024;

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
    #[error("it unpacks to more than {UNPACKED_LIMIT} bytes")]
    TooLarge,
}

/// Unpacks `bytes` if they begin like gzip or zstd. Returns other bytes as they are.
///
/// # Errors
/// The packed data is damaged, or unpacks to more than [`UNPACKED_LIMIT`].
pub fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let mut bytes = Cow::Borrowed(bytes);
    for _ in 0..LAYERS {
        let unpacked = if bytes.starts_with(GZIP) {
            gzip(&bytes)?
        } else if is_zstd(&bytes) {
            zstd(&bytes)?
        } else {
            break;
        };
        bytes = Cow::Owned(unpacked);
    }
    Ok(bytes)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut unpacked = Vec::new();
    append("gzip", &mut MultiGzDecoder::new(bytes), &mut unpacked)?;
    Ok(unpacked)
}

fn zstd(mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = |reason: String| Error::Broken { form: "zstd", reason };
    let mut unpacked = Vec::new();
    while !bytes.is_empty() {
        match StreamingDecoder::new(&mut bytes) {
            Ok(mut frame) => append("zstd", &mut frame, &mut unpacked)?,
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

fn append(form: &'static str, packed: &mut impl Read, to: &mut Vec<u8>) -> Result<(), Error> {
    let rest = UNPACKED_LIMIT.saturating_sub(to.len()) as u64;
    packed
        .take(rest + 1)
        .read_to_end(to)
        .map_err(|error| Error::Broken { form, reason: error.to_string() })?;
    match to.len() > UNPACKED_LIMIT {
        true => Err(Error::TooLarge),
        false => Ok(()),
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
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
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

/// Removes what `docker compose logs` and the container runtimes of Kubernetes put in front of each line, if the first line has it.
pub fn without_log_prefix(text: Cow<'_, str>) -> Cow<'_, str> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if prefix(first) == 0 {
        return text;
    }
    let mut stripped = String::with_capacity(text.len());
    for line in text.lines() {
        stripped.push_str(&line[prefix(line)..]);
        stripped.push('\n');
    }
    Cow::Owned(stripped)
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
