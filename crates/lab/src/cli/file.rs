//! Shows the traces of a file, without a running lab.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::case::Case;
use crate::list::{Fields, Filter, List};
use crate::output::print_json;
use crate::read::{self, Contents};
use crate::span::TraceId;
use crate::store::{Limits, Store};
use crate::summary::Summary;

/// Whether an argument names a file, or standard input with `-`.
pub fn is_file(name: &str) -> bool {
    name == "-" || Path::new(name).exists()
}

/// Reads the bytes of a file, or of standard input for `-`.
///
/// # Errors
/// The file can't be read.
pub fn bytes(name: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = match name {
        "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        }
        path => std::fs::read(path),
    };
    bytes.with_context(|| format!("{name} cannot be read"))
}

/// Reads a file and prints a warning for each part that can't be read.
fn contents(name: &str) -> anyhow::Result<Contents> {
    let contents = read::read(&bytes(name)?).with_context(|| name.to_owned())?;
    for problem in &contents.problems {
        eprintln!("Warning: {problem}");
    }
    if !contents.others.is_empty() {
        eprintln!("Not shown: {}", contents.others);
    }
    Ok(contents)
}

/// Returns the traces of a file that pass the filter, the last to start first, as a running lab lists them.
///
/// # Errors
/// The file can't be read.
pub fn traces(name: &str, filter: &Fields) -> anyhow::Result<Vec<Summary>> {
    let filter = Filter::try_from(filter)?;
    let store = Store::new(Limits { spans: usize::MAX, bytes: usize::MAX });
    store.add(contents(name)?.spans);
    let found = List::new(store).find(&filter);
    Ok(found.iter().map(|summary| Summary::clone(summary)).collect())
}

/// Returns the contents of a file and the id of one of its traces: the only one whose id begins with `id`, with its leading zeros
/// or without, or the last to start.
///
/// # Errors
/// The file can't be read, or not exactly one trace matches.
pub fn trace(name: &str, id: Option<&str>) -> anyhow::Result<(TraceId, Case)> {
    let case = Case::from(contents(name)?);
    let ids = case.trees.iter().map(|tree| tree.trace_id);
    let Some(start) = id.map(|id| id.trim().to_lowercase()) else {
        let last = case.trees.last().with_context(|| format!("{name} has no spans"))?.trace_id;
        return Ok((last, case));
    };
    let begins = |id: &TraceId| {
        let id = id.to_string();
        id.starts_with(&start) || id.trim_start_matches('0').starts_with(&start)
    };
    let found: Vec<TraceId> = ids.filter(begins).collect();
    match found[..] {
        [only] => Ok((only, case)),
        [] => bail!("no trace id in {name} begins with {start:?}: `lab traces {name}` lists them"),
        _ => bail!("{} traces in {name} begin with {start:?}: write more of the id", found.len()),
    }
}

/// Prints one trace of a case as OTLP JSON.
///
/// # Errors
/// Standard output can't be written.
pub fn print_otlp(case: Case, id: TraceId) -> anyhow::Result<()> {
    let trees = case.trees.into_iter().filter(|tree| tree.trace_id == id);
    let json = Case::new(trees.collect(), Vec::new()).to_json()?;
    print_json(std::str::from_utf8(&json)?)
}
