//! Opens sessions that were saved, and all other files with traces.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::read::{self, Contents, Piece, StreamError, Unreadable};

/// The reasons why a session can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open {} (--open)", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("nothing in {} can be read (--open)", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        reason: Box<Unreadable>,
    },
}

/// Reads the file at `path`, in any form that [`read::read`] knows, a piece at a time, and calls `sink` with each.
/// Skips what can't be read, such as an unfinished line of a killed lab.
///
/// # Errors
/// [`Error::Open`] or [`Error::Unreadable`].
pub fn open(path: &Path, sink: impl FnMut(Piece)) -> Result<Contents, Error> {
    let path = path.to_owned();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) => return Err(Error::Open { path, source }),
    };
    read::stream(file, sink).map_err(|error| match error {
        StreamError::Io(source) => Error::Open { path, source },
        StreamError::Unreadable(reason) => Error::Unreadable { path, reason: Box::new(reason) },
    })
}
