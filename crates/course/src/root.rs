//! Finds the book's repository at run time, so that a clone can be moved and two clones can share a target folder.

use std::path::{Path, PathBuf};

/// The repository can't be found.
#[derive(Debug, thiserror::Error)]
#[error(
    "the book's repository is not here: run this in a clone of it, or name its folder with --book"
)]
pub struct NotFound;

/// Finds the folder of `book.toml` above the package that cargo runs, or else above the working directory.
///
/// # Errors
/// Fails when neither is in a clone of the repository.
pub fn find() -> Result<PathBuf, NotFound> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts = [package, std::env::current_dir().ok()];
    let found = starts.iter().flatten().find_map(|start| repository_of(start));
    found.ok_or(NotFound)
}

/// Returns the repository that `folder` is in.
fn repository_of(folder: &Path) -> Option<PathBuf> {
    let is_ours = |folder: &&Path| {
        let has = |path: &str| folder.join(path).is_file();
        has("book.toml") && has("examples/distributed_tracing/Cargo.toml")
    };
    folder.ancestors().find(is_ours).map(Path::to_owned)
}
