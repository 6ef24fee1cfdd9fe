//! A session in a file, a line of OTLP JSON for each request: to keep it, to share it, and to open it again. The
//! OpenTelemetry Collector's file exporter writes the same form.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};

use crate::otlp::{self, Lines};
use crate::span::Span;
use crate::store::Store;

/// Writes what is received to a file.
pub struct Recorder {
    path: PathBuf,
    /// `None` after a write has failed.
    file: Mutex<Option<File>>,
}

impl Recorder {
    /// Appends to the file at `path`, and makes it where there is none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let mut file = file.with_context(|| format!("cannot write {} (--save)", path.display()))?;
        // A lab that was killed may have left half a line: what comes next must not be a part of it.
        if file.metadata().is_ok_and(|it| it.is_file() && it.len() > 0) {
            file.write_all(b"\n")?;
        }
        Ok(Recorder {
            path: path.to_owned(),
            file: Mutex::new(Some(file)),
        })
    }

    /// Writes one line. A disk that is full must not stop the lab: the reader is told once, and nothing more is saved.
    pub fn record(&self, spans: &[Span]) {
        if spans.is_empty() {
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

/// Adds the spans of the file at `path` to `store`; returns how many there were, and what could not be read. A lab
/// that was killed may have left half a line: that must not cost the rest.
///
/// # Errors
/// When the file cannot be read, or nothing in it is OTLP JSON; the message has the number of the line.
pub fn open(path: &Path, store: &Store) -> anyhow::Result<(usize, Lines)> {
    let name = path.display();
    let text = std::fs::read(path).with_context(|| format!("cannot open {name} (--open)"))?;
    let mut lines = otlp::from_json_lines(&text);
    let spans = std::mem::take(&mut lines.spans);
    let count = spans.len();
    store.add(spans);
    match lines.problems.first() {
        Some(problem) if count == 0 => bail!("nothing in {name} can be read (--open): {problem}"),
        _ => Ok((count, lines)),
    }
}
