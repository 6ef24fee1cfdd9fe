//! What the book shows of real runs: the files in src/recordings, written when that is asked for, compared otherwise.
#![allow(dead_code)] // each test file uses a part of it

use std::path::{Path, PathBuf};
use std::{fs, io};

use lab::tree::Tree;
use lab::waterfall;
use regex::Regex;

/// Whether `SNAPSHOTS=overwrite` asks to record anew.
pub fn overwrite() -> bool {
    std::env::var("SNAPSHOTS").is_ok_and(|mode| mode == "overwrite")
}

pub fn folder() -> PathBuf {
    crate::support::root().join("src/recordings")
}

/// The names of the recordings in a folder below it.
pub fn names(of: &str) -> Vec<String> {
    let entries = fs::read_dir(folder().join(of)).expect("recordings");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    names.map(|name| name.expect("text")).collect()
}

/// Compares a recording with `now`, ids and times aside; where they differ and that is asked for, writes it anew.
///
/// # Errors
/// Both, when they differ.
pub fn check(name: &str, now: &str) -> Result<(), String> {
    check_as(name, now, redact)
}

/// The same, with `normal` in the place of [`redact`].
///
/// # Errors
/// Both, when they differ.
pub fn check_as(name: &str, now: &str, normal: impl Fn(&str) -> String) -> Result<(), String> {
    let path = folder().join(name);
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    if normal(&recorded) == normal(now) {
        return Ok(());
    }
    match overwrite() {
        true => write(&path, now).map_err(|error| format!("{}: {error}", path.display())),
        false => Err(format!(
            "{name} is stale (SNAPSHOTS=overwrite records anew): {}",
            difference(&normal(&recorded), &normal(now))
        )),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}

/// Where two texts differ first, with what stands around it.
fn difference(recorded: &str, now: &str) -> String {
    let pairs = recorded.char_indices().zip(now.chars());
    let same = pairs.take_while(|((_, a), b)| a == b).count();
    let around = |text: &str| -> String {
        text.chars()
            .skip(same.saturating_sub(300))
            .take(600)
            .collect()
    };
    format!(
        "recorded\n… {} …\nbut now\n… {} …",
        around(recorded),
        around(now)
    )
}

/// The waterfalls of several traces.
pub fn figures(trees: &[Tree]) -> String {
    let figures = trees
        .iter()
        .map(|tree| waterfall::picture(tree).into_string() + "\n");
    figures.collect()
}

/// Puts a word in the place of everything that differs from run to run.
pub fn redact(text: &str) -> String {
    let rules = [
        (r" *\d+\.\d\d (ms|µs|s)\b", " <time>"),
        (r"<time>[ █░]+", "<time> "),
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
