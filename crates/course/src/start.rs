//! The command `start FOLDER`: writes the project that a reader starts from, which is the finished example without its
//! tracing.
//!
//! In the example, what the reader adds is between the marks `// <added>` and `// </added>`. A module that only those lines
//! declare is the reader's own file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use walkdir::WalkDir;

/// The folder of the finished example, below the root of the repository.
const EXAMPLE: &str = "examples/distributed_tracing";

/// The files that a project has apart from its sources, with `Cargo.lock`, which is the repository's.
const MANIFESTS: [&str; 2] = ["Cargo.toml", ".cargo/config.toml"];

/// The line that only the project's manifest has: in the clone, `cargo run` starts the course.
const RUNNER: &str = "default-run = \"distributed_tracing\"\n";

/// Returns the files that the reader starts from, by their path in the project, without `Cargo.lock`.
///
/// # Errors
/// Fails if the example can't be read.
pub fn starter(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let example = root.join(EXAMPLE);
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
    };
    let mut files = BTreeMap::new();
    for path in MANIFESTS {
        let text = read(&example.join(path))?;
        files.insert(
            path.into(),
            text.replace("\n[dependencies]", &format!("{RUNNER}\n[dependencies]")),
        );
    }
    files.insert(".gitignore".into(), "/target\n".to_owned());
    let library = without_added(&read(&example.join("src/lib.rs"))?);
    for entry in WalkDir::new(example.join("src")) {
        let entry = entry.context("the example can't be read")?;
        let path = entry.path();
        let below = path.strip_prefix(&example).context("the example can't be read")?;
        let module = path.file_stem().unwrap_or_default().display();
        let is_program = entry.depth() > 1 || ["lib", "main"].contains(&&*module.to_string());
        let is_declared = library.lines().any(|line| line == format!("pub mod {module};"));
        if entry.file_type().is_file() && (is_program || is_declared) {
            files.insert(below.to_owned(), without_added(&read(path)?));
        }
    }
    Ok(files)
}

/// Returns the lines of a source without the marks, and for each line whether the reader adds it.
pub fn lines(source: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut is_added = false;
    source.lines().filter_map(move |line| match line.trim_start() {
        "// <added>" => {
            is_added = true;
            None
        }
        "// </added>" => {
            is_added = false;
            None
        }
        _ => Some((line, is_added)),
    })
}

/// Removes the marks and what is between them.
fn without_added(source: &str) -> String {
    let kept = lines(source).filter(|(_, is_added)| !is_added);
    kept.map(|(line, _)| format!("{line}\n")).collect()
}

/// Writes the project into `folder`, which must not exist or be empty. Returns the number of files.
///
/// # Errors
/// Fails if there is something in the folder, if it is in the repository at `root`, or if a file can't be written.
pub fn write(root: &Path, folder: &Path) -> anyhow::Result<usize> {
    let place = folder.display();
    let is_empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !folder.exists(),
    };
    ensure!(is_empty, "{place} isn't empty: name a folder that doesn't exist yet");
    let lock = root.join("Cargo.lock");
    let mut files = starter(root)?;
    files.insert(
        "Cargo.lock".into(),
        fs::read_to_string(&lock).context("Cargo.lock can't be read")?,
    );
    // Only a folder that exists has a path that can be compared.
    fs::create_dir_all(folder).with_context(|| format!("{place} can't be created"))?;
    let is_inside = folder.canonicalize()?.starts_with(root.canonicalize()?);
    if is_inside {
        fs::remove_dir(folder)?;
    }
    ensure!(
        !is_inside,
        "{place} is in the clone, where cargo would take it for a part of the book: name a folder beside it"
    );
    for (path, text) in &files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(files.len())
}
