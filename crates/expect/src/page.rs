//! A request that isn't as its file says, as a page: the report, the findings and the waterfalls. Its data is in the page, so
//! `lab view --open` shows everything else.

use std::env;
use std::path::{Path, PathBuf};

use maud::{DOCTYPE, Markup, PreEscaped, html};
use traces::case::Case;
use traces::diagnose::Finding;
use traces::embedded;
use traces::redact::Redacted;
use traces::report::{self, Links};
use traces::tree::{Tree, label};
use traces::waterfall::{self, count, picture};

/// The name of the folder with the pages, in Cargo's target folder.
const FOLDER: &str = "trace-expect";

/// Files that Cargo puts into its target folder; the first one only if it makes the folder.
const TARGET_MARKS: [&str; 2] = ["CACHEDIR.TAG", ".rustc_info.json"];

/// The policy of the page: nothing is loaded, nothing runs, nothing is sent.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

const CSS: &str = "
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 90rem; margin: 0 auto; padding: 0 1rem 2rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid; padding: 0.6rem 0.8rem; }
";

/// The largest number of traces that are shown.
const TRACES: usize = 20;

/// The largest number of characters in a file's name, without the extension.
const NAME: usize = 100;

/// The reasons why a page can't be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the spans can't be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the data of the request can't be put into it")]
    Data(#[from] embedded::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// Returns the path of the page of a request: `trace-expect/PACKAGE-FILE-REQUEST.html` in Cargo's target folder, or in that of the
/// system's temporary files if the test wasn't built by Cargo.
pub fn path(file: &Path, request: Option<&str>) -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let is_target = |folder: &Path| TARGET_MARKS.iter().any(|mark| folder.join(mark).is_file());
    let target = program.ancestors().find(|folder| is_target(folder));
    let folder = target.map_or_else(env::temp_dir, Path::to_owned).join(FOLDER);
    let here = env::current_dir().unwrap_or_default();
    let file = file.strip_prefix(here).unwrap_or(file);
    let file = if file.is_absolute() { file.file_name().map_or(file, Path::new) } else { file };
    // Cargo sets it for the programs that it runs. The packages of a workspace share the folder.
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let file = file.with_extension("");
    let file = file.to_string_lossy();
    let parts = [&*package, &*file, request.unwrap_or_default()];
    let words = parts.iter().flat_map(|part| {
        part.split(|it: char| !it.is_alphanumeric() && it != '_').filter(|word| !word.is_empty())
    });
    let name: String = words.collect::<Vec<_>>().join("-").chars().take(NAME).collect();
    folder.join(format!("{name}.html"))
}

/// Writes the page of a request. `report` is what the test prints.
///
/// # Errors
/// The traces are too large for a page, or it can't be written.
pub fn write(path: &Path, title: &str, report: &str, mut case: Case) -> Result<(), Error> {
    let mut redacted = Redacted::default();
    redacted.names(&mut case);
    // A redacted URL would mislead the rules.
    let findings = case.findings();
    redacted.values(&mut case);
    let data = embedded::element(&case.to_json()?)?;
    let page = page(title, report, &case, &findings, &redacted, &data).into_string();
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = folder.and_then(|()| std::fs::write(path, page));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn page(
    title: &str,
    report: &str,
    case: &Case,
    findings: &[Finding],
    redacted: &Redacted,
    data: &Markup,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "trace-expect " (env!("CARGO_PKG_VERSION")) };
                title { (label(title)) " · One Trace" }
                link rel="icon" href="data:,";
                style { (PreEscaped([waterfall::CSS, report::CSS, CSS].concat())) }
            }
            body {
                main {
                    h1 dir="auto" { "Compared with " (label(title)) }
                    pre dir="auto" tabindex="0" role="group" aria-label="The report of the test" { (report.trim_end()) }
                    h2 { "Diagnosis" }
                    @if findings.is_empty() { p { (report::no_finding(case)) } } @else {
                        @if let Some(failure) = report::failure(case) { p { (failure) } }
                        (report::list(findings, &Links { book: None, span: &|_| None }))
                    }
                    h2 { "Spans" }
                    @for tree in case.trees.iter().take(TRACES) { (waterfall_of(tree)) }
                    @let left = case.trees.len().saturating_sub(TRACES);
                    @if left > 0 { p { (count(left, "further trace")) " of this request: only in the data of this file." } }
                    p {
                        "This file has all data of the request, with its log records. "
                        code { "lab view --open FILE" } " shows it in the lab, and " code { "lab trace FILE" } " in a terminal. "
                        @if redacted.values > 0 { (count(redacted.values, "value")) " of it that looked like a secret was redacted." }
                    }
                }
                (data)
            }
        }
    }
}

fn waterfall_of(tree: &Tree) -> Markup {
    html! {
        p { "Trace " code { (tree.trace_id) } }
        (picture(tree))
    }
}
