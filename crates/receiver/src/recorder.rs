//! Writes received spans and log records to a file of OTLP JSON with one request per line, as the OpenTelemetry Collector's file exporter does.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use traces::log::LogRecord;
use traces::otlp;
use traces::span::Span;

/// The file can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {} (--save)", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// Writes received spans and log records to a file.
pub struct Recorder {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// The open file, or `None` after a write has failed.
    file: Option<File>,
    /// Whether the warning was printed that the file has no name any more.
    is_lost: bool,
}

/// The file of a [`Recorder`], for one batch.
pub(crate) struct Writer<'a> {
    path: &'a Path,
    state: MutexGuard<'a, State>,
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
        let state = State { file: Some(file), is_lost: false };
        Ok(Recorder { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// Writes one batch of spans, as the store does.
    pub fn record<'a>(&self, spans: impl ExactSizeIterator<Item = &'a Span>) {
        self.lock().record(spans);
    }

    /// Waits until the batches before this one are written.
    pub(crate) fn lock(&self) -> Writer<'_> {
        Writer {
            path: &self.path,
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Writer<'_> {
    /// Writes the spans as one line, unless `spans` is empty. After an error, such as a full disk, prints a warning and saves
    /// nothing more, so that the lab keeps running.
    pub(crate) fn record<'a>(self, spans: impl ExactSizeIterator<Item = &'a Span>) {
        if spans.len() > 0 {
            self.write(serde_json::to_vec(&otlp::to_request(spans)));
        }
    }

    /// Does the same for log records.
    pub(crate) fn record_logs<'a>(self, records: impl ExactSizeIterator<Item = &'a LogRecord>) {
        if records.len() > 0 {
            self.write(serde_json::to_vec(&otlp::logs_to_request(records)));
        }
    }

    fn write(mut self, line: serde_json::Result<Vec<u8>>) {
        let State { file, is_lost } = &mut *self.state;
        let Some(open) = file else { return };
        let path = self.path.display();
        let written = line.map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            open.write_all(&line)
        });
        if let Err(error) = written {
            eprintln!("Warning: nothing is saved from here on: cannot write {path}: {error}");
            *file = None;
        } else if !*is_lost && !has_name(open, self.path) {
            *is_lost = true;
            eprintln!(
                "Warning: {path} was deleted or replaced, so what the lab saves will be gone when it stops: \
                 restart it to save to a new file (the traces that it shows can be downloaded from their pages)"
            );
        }
    }
}

/// Whether the open file is the one at `path`. Anything that isn't a regular file, such as a pipe, counts as that.
#[cfg(unix)]
fn has_name(open: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(open) = open.metadata() else { return true };
    let place = |it: &std::fs::Metadata| (it.dev(), it.ino());
    !open.is_file() || std::fs::metadata(path).is_ok_and(|named| place(&named) == place(&open))
}

/// Whether the file is there. Here an open file can't be deleted.
#[cfg(not(unix))]
fn has_name(_: &File, path: &Path) -> bool {
    path.exists()
}
