//! Writes a request as one HTML file.

use std::path::Path;

use anyhow::Context as _;

use crate::case::Case;
use crate::output;
use crate::span::TraceId;
use crate::viewer::document::{Document, Remark};
use crate::waterfall::count;

/// Writes the request of a trace to a file, or to standard output for `-`. Says in a line on standard error what was written.
///
/// # Errors
/// The request has no spans, or the file can't be written.
pub fn write(path: &Path, case: Case, id: TraceId, remark: Option<&Remark>) -> anyhow::Result<()> {
    let document = Document::new(case, id, remark);
    let Document { html, spans, redacted } = document.with_context(|| format!("trace {id}"))?;
    if path == Path::new("-") {
        output::write(html.as_bytes())?;
    } else {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let written = folder.map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| std::fs::write(path, html));
        written.with_context(|| format!("cannot write {} (--html)", path.display()))?;
    }
    let values = match redacted.values {
        0 => "nothing looks like a secret".to_owned(),
        values => format!("{} redacted", count(values, "value")),
    };
    eprintln!("Written  {}: {}, {values}", path.display(), count(spans, "span"));
    Ok(())
}
