//! Shows the traces of a file, without a running lab.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use crate::case::Case;
use crate::client::starting_with;
use crate::list::{Fields, Filter, List};
use crate::output::print_json;
use crate::read::{self, Contents, Others, Problem};
use crate::span::TraceId;
use crate::store::{Limits, Store};
use crate::summary::Summary;
use crate::waterfall::count;

/// Whether an argument names a file, or standard input with `-`.
pub fn is_file(name: &str) -> bool {
    name == "-" || Path::new(name).exists()
}

/// Checks that an argument that isn't a file can be a trace id or its first digits.
///
/// # Errors
/// Fails when it can't.
pub fn ensure_id(name: &str) -> anyhow::Result<()> {
    let is_id = name.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-');
    ensure!(is_id, "{name} is neither a file nor the beginning of a trace id");
    Ok(())
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
    let bytes = bytes(name)?;
    let contents = match read::read(&bytes) {
        Err(_) if Case::read(&bytes).is_ok() => {
            bail!(
                "{name} has headers of requests and no trace: `lab diagnose {name}` looks at them"
            )
        }
        read => read.with_context(|| name.to_owned())?,
    };
    warn(contents.unread, &contents.problems, contents.others);
    Ok(contents)
}

/// How many parts of a file that can't be read are listed.
const LISTED: usize = 10;

/// Prints a warning for each of the first parts of a file that can't be read, the number of the others, and the number of things
/// that aren't shown.
pub fn warn(unread: usize, problems: &[Problem], others: Others) {
    let listed = &problems[..problems.len().min(LISTED)];
    for problem in listed {
        eprintln!("Warning: {problem}");
    }
    if unread > listed.len() {
        let more = count(unread - listed.len(), "further part");
        eprintln!("Warning: {more} of it can't be read either");
    }
    if !others.is_empty() {
        eprintln!("Not shown: {others}");
    }
}

/// Returns the traces of a file that pass the filter, the last to start first, as a running lab lists them.
///
/// # Errors
/// The file can't be read.
pub fn traces(name: &str, filter: &Fields) -> anyhow::Result<Vec<Summary>> {
    let filter = Filter::try_from(filter)?;
    let store = Store::new(Limits { spans: usize::MAX, bytes: usize::MAX });
    let contents = contents(name)?;
    store.add(contents.spans);
    store.add_logs(contents.logs);
    Ok(List::new(store).find(filter).collect())
}

/// Returns the contents of a file and the id of one of its traces: the only one whose id begins with `id`, with its leading zeros
/// or without, or the last to start.
///
/// # Errors
/// The file can't be read, or not exactly one trace matches.
pub fn trace(name: &str, id: Option<&str>) -> anyhow::Result<(TraceId, Case)> {
    let case = Case::from(contents(name)?);
    let id = match id {
        Some(typed) => id_of(&case, name, typed)?,
        None => {
            let last = case.trees.last().map(|tree| tree.trace_id);
            let last = last.or(case.logs.last().map(|record| record.trace_id));
            last.with_context(|| format!("{name} has no spans"))?
        }
    };
    Ok((id, case))
}

/// Returns the id in the case of the file `name` that begins as it is typed.
///
/// # Errors
/// Not exactly one trace matches.
pub fn id_of(case: &Case, name: &str, typed: &str) -> anyhow::Result<TraceId> {
    let without_span = case.logs.iter().map(|record| record.trace_id);
    let ids: BTreeSet<_> =
        case.trees.iter().map(|tree| tree.trace_id).chain(without_span).collect();
    match starting_with(typed, ids.into_iter())[..] {
        [only] => Ok(only),
        [] => bail!("no trace id in {name} begins with {typed:?}: `lab traces {name}` lists them"),
        [..] => bail!("several traces in {name} begin with {typed:?}: write more of the id"),
    }
}

/// Prints one trace of a case as OTLP JSON.
///
/// # Errors
/// Standard output can't be written.
pub fn print_otlp(case: Case, id: TraceId) -> anyhow::Result<()> {
    let trees = case.trees.into_iter().filter(|tree| tree.trace_id == id);
    let logs = case.logs.into_iter().filter(|record| record.trace_id == id).collect();
    let json = Case { logs, ..Case::new(trees.collect(), Vec::new()) }.to_json()?;
    print_json(std::str::from_utf8(&json)?)
}
