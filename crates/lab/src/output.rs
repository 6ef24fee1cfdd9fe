//! Writes to standard output, for people and for other programs.

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

/// Prints JSON for other programs, without colours.
///
/// # Errors
/// Fails when standard output can't be written.
pub fn print_json(text: &str) -> anyhow::Result<()> {
    write((escaped(text) + "\n").as_bytes())
}

/// Escapes the control characters that JSON allows but a terminal would act on (U+007F to U+009F).
pub fn escaped(json: &str) -> String {
    let escaped = json.chars().map(|it| match it {
        '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(it)),
        _ => it.to_string(),
    });
    escaped.collect()
}

/// Writes to standard output. Ignores a closed pipe, as in `lab traces | head -1`.
///
/// # Errors
/// Fails when standard output can't be written.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    ignore_closed_pipe(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Prints text for people. Removes colours when standard output isn't a terminal. Ignores a closed pipe, as [`write`] does.
///
/// # Errors
/// Fails when standard output can't be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout();
    ignore_closed_pipe(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

fn ignore_closed_pipe(written: std::io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
