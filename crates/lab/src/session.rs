//! Opens sessions that were saved, and all other files with traces.

use std::path::{Path, PathBuf};

use crate::read::{self, Contents, Unreadable};

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

/// Reads the file at `path`, in any form that [`read::read`] knows. Skips what can't be read, such as an unfinished line of a
/// killed lab.
///
/// # Errors
/// [`Error::Open`] or [`Error::Unreadable`].
pub fn open(path: &Path) -> Result<Contents, Error> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
    read::read(&bytes)
        .map_err(|reason| Error::Unreadable { path: path.to_owned(), reason: Box::new(reason) })
}
