//! Standard output, for people and for other programs.

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

/// For other programs: nothing is added for a terminal, and what a terminal would obey is written as JSON escapes it.
pub fn print_json(text: &str) -> anyhow::Result<()> {
    let escaped: String = text
        .chars()
        .map(|it| match it {
            '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(it)),
            _ => it.to_string(),
        })
        .collect();
    write((escaped + "\n").as_bytes())
}

/// Writes to standard output; nobody needs to hear that whoever read it has had enough.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        _ => Ok(()),
    }
}

/// Unlike `println!`, does not panic where nobody reads standard output any more. Colours only where they can be seen.
pub fn print(text: &str) {
    let _ = anstream::stdout().write_all(text.as_bytes());
}
