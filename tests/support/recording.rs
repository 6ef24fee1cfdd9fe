//! The recordings: files under `src/recordings` that hold the output of real runs and that the pages include. A test compares each
//! of them with a new run, and rewrites it when `SNAPSHOTS=overwrite` asks for that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use lab::tree::Tree;
use lab::waterfall;
use regex::Regex;

/// Names of recordings that a test compares, relative to [`folder`]. The code that compares a recording submits its name, and the
/// linker collects the names. They are therefore complete whichever tests run, and in whatever order.
pub struct Compared(pub fn() -> Vec<String>);

inventory::collect!(Compared);

/// The names of all recordings that some test compares.
pub fn compared() -> BTreeSet<String> {
    let submitted = inventory::iter::<Compared>.into_iter();
    submitted.flat_map(|names| (names.0)()).collect()
}

/// Evaluates to the name of a recording and submits it: its caller compares the recording.
#[macro_export]
macro_rules! recorded {
    ($name:expr) => {{
        $crate::inventory::submit! { $crate::recording::Compared(|| vec![$name.to_owned()]) }
        $name
    }};
}
pub use recorded;

/// Calls [`check_named`] and submits the name.
#[macro_export]
macro_rules! check {
    ($name:expr, $now:expr $(,)?) => {
        $crate::recording::check_named($crate::recorded!($name), $now)
    };
}
pub use check;

/// Whether `SNAPSHOTS=overwrite` asks the tests to rewrite what they compare.
pub fn overwrite() -> bool {
    std::env::var("SNAPSHOTS").is_ok_and(|mode| mode == "overwrite")
}

pub fn folder() -> PathBuf {
    crate::root().join("src/recordings")
}

/// Fails unless a recording agrees with `now`, except in ids and times. The name is that of a [`recorded!`] file.
#[track_caller]
pub fn check_named(name: &str, now: &str) {
    check_as(name, now, redact).unwrap();
}

/// Compares a recording with `now` as `normal` leaves them. If they differ and [`overwrite`] is set, rewrites it.
///
/// # Errors
/// If they differ: the first difference.
pub fn check_as(name: &str, now: &str, normal: impl Fn(&str) -> String) -> Result<(), String> {
    let path = folder().join(name);
    let recorded = normal(&fs::read_to_string(&path).unwrap_or_default());
    if recorded == normal(now) {
        return Ok(());
    }
    if overwrite() {
        return write(&path, now).map_err(|error| format!("{}: {error}", path.display()));
    }
    let difference = difference(&recorded, &normal(now));
    Err(format!("{name} is stale (SNAPSHOTS=overwrite rewrites it): {difference}"))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}

/// The place where two texts first differ, with some context.
fn difference(recorded: &str, now: &str) -> String {
    let pairs = recorded.chars().zip(now.chars());
    let same = pairs.take_while(|(a, b)| a == b).count();
    let around = |text: &str| -> String {
        let rest = text.chars().skip(same.saturating_sub(300));
        rest.take(600).collect()
    };
    let (recorded, now) = (around(recorded), around(now));
    format!("recorded\n… {recorded} …\nbut now\n… {now} …")
}

/// The waterfalls of several traces.
pub fn figures(trees: &[Tree]) -> String {
    let figures = trees.iter().map(|tree| waterfall::picture(tree).into_string() + "\n");
    figures.collect()
}

/// Replaces everything that differs from run to run with a word. Leaves a text alone that it has returned.
pub fn redact(text: &str) -> String {
    let rules = [
        (r" *\d+\.\d\d (ms|µs|s)\b[ █░]+", " <time> "),
        (r" *\d+\.\d\d (ms|µs|s)\b", " <time>"),
        (r"left:[\d.]+%;width:[\d.]+%", "<place>"),
        (r"(?m)^[0-9a-f]{8}  ", "<id>  "),
        (r"\b00-[0-9a-f]{27}\b", "00-<27 digits>"),
        (r"byte \d+: '[A-F]'", "byte <n>: '<digit>'"),
        (r"\b[0-9a-fA-F]{32}\b", "<trace-id>"),
        (r"\b[0-9a-fA-F]{16}\b", "<span-id>"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
    ];
    let text = rules.iter().fold(text.to_owned(), |text, (pattern, word)| {
        let pattern = Regex::new(pattern).expect("a pattern");
        pattern.replace_all(&text, *word).into_owned()
    });
    text.trim_end().to_owned()
}
