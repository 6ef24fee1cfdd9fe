//! Stands in for `rustc` when skeptic compiles a block of the book. Three things are different:
//!
//! - the edition is the one that `cargo new` gives a reader (skeptic stops at 2021);
//! - a warning is an error: a reader would see it;
//! - messages name the file and the line that a person would edit, instead of a temporary file.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

/// The edition of `cargo new`; a test compares the two.
const EDITION: &str = "2024";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = env::args_os().skip(1).collect();
    for argument in &mut arguments {
        if argument.to_string_lossy().starts_with("--edition=") {
            *argument = format!("--edition={EDITION}").into();
        }
    }
    if let Some(source) =
        arguments.iter().map(Path::new).find(|path| path.extension().is_some_and(|e| e == "rs"))
        && let Some(origin) = move_to_origin(source)
    {
        let mut remap = OsString::from("--remap-path-prefix=");
        remap.push(source);
        remap.push(format!("={origin}"));
        arguments.push(remap);
        // A listing may be half a program: what is unused here is used elsewhere in the crate.
        arguments.extend(["-Dwarnings", "-Adead_code", "-Aunused_imports"].map(OsString::from));
    }
    // An integration test of an example starts the example's program, by the name that cargo gives it.
    let program = ("CARGO_BIN_EXE_shop", "shop");
    let rustc = env::var_os("BOOK_RUSTC").unwrap_or_else(|| "rustc".into());
    match Command::new(&rustc).args(arguments).env(program.0, program.1).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{} cannot be started: {error}", rustc.display());
            ExitCode::FAILURE
        }
    }
}

/// Rewrites the block so that its lines have the numbers of the file that they come from. Returns the name of that file.
/// `build.rs` has written both into the first line: `//@ FILE LINE`.
fn move_to_origin(source: &Path) -> Option<String> {
    let text = fs::read_to_string(source).ok()?;
    let (mark, code) = text.trim_start().split_once('\n')?;
    let (origin, line) = mark.strip_prefix("//@ ")?.rsplit_once(' ')?;
    let padding = line.parse::<usize>().ok()?.saturating_sub(1);
    fs::write(source, "\n".repeat(padding) + code).ok()?;
    Some(origin.to_owned())
}
