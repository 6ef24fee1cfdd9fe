//! The repository, or a copy of it: its files, and results that several gates share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use walkdir::WalkDir;

use super::links::Site;
use support::includes::{Include, includes};

/// Folders that aren't sources: git's own, and everything built or installed.
pub const MADE: [&str; 4] = [".git", "book", "node_modules", "target"];

/// The files below a folder, and the results that are computed once for all gates.
pub struct Tree {
    root: PathBuf,
    /// Paths from the root, with `/` between the parts.
    files: Vec<String>,
    site: OnceLock<Site>,
    metadata: OnceLock<Value>,
}

impl Tree {
    pub fn at(root: &Path) -> Tree {
        let entries = WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter();
        let entries = entries.filter_entry(|it| !MADE.iter().any(|name| it.path().ends_with(name)));
        let entries = entries.map(|entry| entry.expect("an entry"));
        let files = entries.filter(|entry| entry.file_type().is_file()).map(|entry| {
            let path = entry.path().strip_prefix(root).expect("below it");
            path.to_string_lossy().replace('\\', "/")
        });
        let files = files.collect();
        Tree { root: root.to_owned(), files, site: OnceLock::new(), metadata: OnceLock::new() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files whose paths have this start and end.
    pub fn files(&self, start: &str, end: &str) -> impl Iterator<Item = &str> {
        let named = move |file: &&str| file.starts_with(start) && file.ends_with(end);
        self.files.iter().map(String::as_str).filter(named)
    }

    /// Markdown that people write: the pages and the READMEs.
    pub fn markdown(&self) -> impl Iterator<Item = &str> {
        self.files("", ".md").filter(|file| !file.starts_with("src/recordings/"))
    }

    /// The pages of the book, without the page for unknown addresses.
    pub fn pages(&self) -> impl Iterator<Item = &str> {
        let other = ["src/404.md", "src/SUMMARY.md"];
        self.markdown().filter(move |file| file.starts_with("src/") && !other.contains(file))
    }

    /// The files that the pages include.
    pub fn includes(&self) -> impl Iterator<Item = Include> {
        self.pages().flat_map(|page| includes(page, &self.read(page)))
    }

    /// The text of a file; empty if the file is missing or isn't text.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root.join(file)).unwrap_or_default()
    }

    /// The book as mdBook builds it.
    pub fn site(&self) -> &Site {
        self.site.get_or_init(|| Site::build(&self.root))
    }

    /// The output of `cargo metadata` for the lock file.
    pub fn metadata(&self) -> &Value {
        self.metadata.get_or_init(|| {
            let arguments = ["metadata", "--format-version=1", "--locked"];
            serde_json::from_slice(&cargo(&self.root, &arguments)).expect("JSON")
        })
    }

    /// Copies all files to another folder.
    pub fn copy(&self, to: &Path) {
        for file in &self.files {
            let copy = to.join(file);
            fs::create_dir_all(copy.parent().expect("a folder")).expect("created");
            fs::copy(self.root.join(file), copy).expect("copied");
        }
    }
}

/// Runs cargo in `folder`, and returns what it prints.
pub fn cargo(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = support::cargo().args(arguments).current_dir(folder).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Writes the position `start` in the text of a file as `FILE:LINE`.
pub fn place(file: &str, text: &str, start: usize) -> String {
    let line = text[..start].matches('\n').count() + 1;
    format!("{file}:{line}")
}
