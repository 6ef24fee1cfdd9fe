//! The tables of the reference are made from what they are about: the code and its docs, the lock file, and runs of the
//! services. A committed table that differs is red.

mod api;
mod expect;
mod outcomes;
mod settings;
mod versions;

/// A table of Markdown.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let cells: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let mut table = line(&cells) + &"|---".repeat(head.len()) + "|\n";
    table.extend(rows.into_iter().map(|row| line(&row)));
    table
}

/// Text as code, for a cell of a table.
pub fn code(text: &str) -> String {
    let text = text.replace('|', "\\|");
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

/// A part of a recording that a page can include by its name.
pub fn anchored(name: &str, text: &str) -> String {
    format!("<!-- ANCHOR: {name} -->\n{text}<!-- ANCHOR_END: {name} -->\n")
}
