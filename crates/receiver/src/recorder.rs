//! Writes received spans to a file of OTLP JSON with one request per line, as the OpenTelemetry Collector's file exporter does.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use traces::otlp;
use traces::span::Span;

/// The file can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {} (--save)", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// Writes received spans to a file.
pub struct Recorder {
    path: PathBuf,
    /// The open file, or `None` after a write has failed.
    file: Mutex<Option<File>>,
}

impl Recorder {
    /// Opens the file at `path` to append to it. Creates the file when it doesn't exist.
    ///
    /// # Errors
    /// [`Error`].
    pub fn append(path: &Path) -> Result<Self, Error> {
        let not_saved = |source| Error { path: path.to_owned(), source };
        let file = File::options().create(true).append(true).open(path);
        let mut file = file.map_err(not_saved)?;
        // End a line that a killed lab may have left unfinished.
        if file.metadata().is_ok_and(|it| it.is_file() && it.len() > 0) {
            file.write_all(b"\n").map_err(not_saved)?;
        }
        Ok(Recorder { path: path.to_owned(), file: Mutex::new(Some(file)) })
    }

    /// Writes the spans as one line, unless `spans` is empty. After an error, such as a full disk, prints a warning and saves
    /// nothing more, so that the lab keeps running.
    pub fn record<'a>(&self, spans: impl ExactSizeIterator<Item = &'a Span>) {
        if spans.len() == 0 {
            return;
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = file.as_mut() else { return };
        let written = serde_json::to_vec(&otlp::to_request(spans))
            .map_err(std::io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                open.write_all(&line)
            });
        if let Err(error) = written {
            let path = self.path.display();
            eprintln!("Warning: nothing is saved from here on: cannot write {path}: {error}");
            *file = None;
        }
    }
}
