//! The command `skill`: a page that explains the other commands to a coding agent.

use crate::output;

/// The page, in Markdown. The tests run its commands.
const PAGE: &str = include_str!("skill.md");

/// Prints the page.
///
/// # Errors
/// Fails when standard output can't be written.
pub fn run() -> anyhow::Result<()> {
    output::write(PAGE.as_bytes())
}
