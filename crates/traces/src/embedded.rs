//! The data of a request within a page: JSON, packed with gzip and in base64, as the value of a `data` element. A browser neither
//! shows nor runs the value, and no text of a span can end the element, because base64 has no quotes.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use maud::{Markup, html};

use crate::read::{self, UNPACKED_LIMIT, UnpackError};

/// The id of the element.
const ID: &str = "one-trace";

/// The length of a line of base64, because editors are slow with long lines.
const LINE: usize = 120;

/// Why data can't be put into a page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it has {0} bytes, and at most {UNPACKED_LIMIT} can be read again")]
    TooLarge(usize),
    #[error("it can't be packed")]
    Io(#[from] std::io::Error),
}

/// Returns an element that has `json` as its value.
///
/// # Errors
/// There is too much to read it again.
pub fn element(json: &[u8]) -> Result<Markup, Error> {
    if json.len() > UNPACKED_LIMIT {
        return Err(Error::TooLarge(json.len()));
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(json)?;
    let text = BASE64_STANDARD.encode(packed.finish()?);
    let mut lines = String::with_capacity(text.len() + text.len() / LINE + 2);
    for (index, character) in text.chars().enumerate() {
        if index % LINE == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    Ok(html! { data id=(ID) value=(lines) hidden {} })
}

/// Finds such an element in a page and returns the text of its value; `None` for any other text.
pub(crate) fn find(text: &str) -> Option<&str> {
    if !is_page(text) {
        return None;
    }
    let mark = format!("<data id=\"{ID}\"");
    let (_, element) = text.rsplit_once(mark.as_str())?;
    let (element, _) = element.split_once('>')?;
    element.split_once("value=\"")?.1.split_once('"').map(|(value, _)| value)
}

/// Whether a text begins like a page.
pub(crate) fn is_page(text: &str) -> bool {
    let beginning = text.trim_start().get(..9);
    beginning.is_some_and(|it| it.eq_ignore_ascii_case("<!doctype"))
}

/// Unpacks the value of an element in a file of this many bytes.
///
/// # Errors
/// It isn't base64, or the bytes in it can't be unpacked.
pub(crate) fn unpack(value: &str, file: usize) -> Result<Vec<u8>, UnpackError> {
    let text: String = value.chars().filter(|it| !it.is_ascii_whitespace()).collect();
    let broken = |reason: String| UnpackError::Embedded { reason };
    let packed = BASE64_STANDARD.decode(text).map_err(|error| broken(error.to_string()))?;
    match read::unpack_document(&packed, file) {
        Ok(json) => Ok(json.into_owned()),
        Err(UnpackError::Broken { reason, .. }) => Err(broken(reason)),
        Err(error) => Err(error),
    }
}
