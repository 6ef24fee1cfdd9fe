//! The gates that are programs of others, pinned in `tests/components/gates.txt`.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;

use super::tree::{MADE, Tree};
use support::component;

/// The folder of the programs, if they are installed.
pub static BINARIES: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| Some(component("gates")?.join("bin")));

/// Words that are misspelt anywhere, and words that the style of the pages does without; `Cargo.toml` names them.
pub fn spelling(tree: &Tree) -> Vec<String> {
    let made = MADE.map(|name| format!("--exclude={name}"));
    let made = made.iter().map(String::as_str);
    run(tree, "typos", &["--format=brief", "--hidden", "."], made)
}

/// Markdown of another form than `.rumdl.toml` asks for.
pub fn markdown(tree: &Tree) -> Vec<String> {
    run(tree, "rumdl", &["check", "--no-cache", "--quiet", "."], [])
}

/// Workflows that GitHub would not run as they are meant.
pub fn workflows(tree: &Tree) -> Vec<String> {
    let Some(binaries) = &*BINARIES else {
        return Vec::new();
    };
    let shellcheck = format!("-shellcheck={}", binaries.join("shellcheck").display());
    let files = tree.files("", ".yml");
    let files = files.filter(|file| file.contains(".github/workflows/"));
    run(tree, "actionlint", &["-oneline", &shellcheck, "-pyflakes="], files)
}

/// Workflows that do more than they need, or run what they did not choose.
pub fn permissions(tree: &Tree) -> Vec<String> {
    let arguments = ["--offline", "--quiet", "--format=github"];
    let files = tree.files("", ".yml").filter(|file| file.contains(".github/"));
    let lines = run(tree, "zizmor", &arguments, files);
    // ::warning file=FILE,line=LINE,title=RULE::FILE:LINE: MESSAGE
    lines.iter().filter_map(|line| line.splitn(3, "::").last()).map(str::to_owned).collect()
}

/// Mistakes in shell scripts.
pub fn scripts(tree: &Tree) -> Vec<String> {
    let files = tree.files("", ".sh").chain(tree.files(".ci/", ""));
    run(tree, "shellcheck", &["--severity=warning", "--format=gcc"], files)
}

/// Crates whose licence is not allowed, or that come from elsewhere than crates.io. Advisories need the network: the
/// weekly workflow looks at them.
pub fn licences(tree: &Tree) -> Vec<String> {
    let arguments = ["--offline", "--locked", "--log-level=error", "check"];
    let output = output(tree, "cargo-deny", &arguments, ["bans", "licenses", "sources"]);
    let Some(output) = output else { return Vec::new() };
    let printed = String::from_utf8_lossy(&output.stderr);
    let problems = printed.split("error[").skip(1).map(|it| format!("error[{it}"));
    or_failure(problems.collect(), "cargo-deny", &output)
}

/// The lines that a program prints about these files: each is a problem.
fn run<'a>(
    tree: &Tree,
    program: &str,
    arguments: &[&str],
    files: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    let Some(output) = output(tree, program, arguments, files) else {
        return Vec::new();
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    let lines = printed.lines().filter(|line| !line.is_empty());
    or_failure(lines.map(str::to_owned).collect(), program, &output)
}

/// The problems, or what a program that has failed without any says.
fn or_failure(problems: Vec<String>, program: &str, output: &Output) -> Vec<String> {
    if !problems.is_empty() || output.status.success() {
        return problems;
    }
    vec![format!("{program}: {}", String::from_utf8_lossy(&output.stderr))]
}

/// Runs a program of the component; `None` where that is not installed.
fn output<'a>(
    tree: &Tree,
    program: &str,
    arguments: &[&str],
    files: impl IntoIterator<Item = &'a str>,
) -> Option<Output> {
    let mut command = Command::new(BINARIES.as_ref()?.join(program));
    command.args(arguments).args(files).current_dir(tree.root());
    Some(command.output().expect("it runs"))
}
