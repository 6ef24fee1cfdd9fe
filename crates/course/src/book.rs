//! Builds the book with mdBook as a library, so that readers don't have to install mdBook.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mdbook_driver::MDBook;
use mdbook_driver::config::Config;
use mdbook_html::HtmlHandlebars;

use crate::publish::{self, Home};

/// Builds the HTML of the book whose `book.toml` is in `root` below the folder `to`. Returns the folder of the pages. The
/// other renderers in `book.toml` don't run: they are checks.
///
/// # Errors
/// Fails when the book cannot be read or built.
pub fn build(root: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    publish(root, to, &Home::default())
}

/// Builds the book like [`build`], with links and metadata for the site at `home`.
///
/// # Errors
/// Fails when the book cannot be read or built, or its pages cannot be finished.
pub fn publish(root: &Path, to: &Path, home: &Home) -> anyhow::Result<PathBuf> {
    html(root, to, home).with_context(|| format!("the book at {} does not build", root.display()))
}

/// A page of the book, in Markdown.
pub struct Page {
    /// The path relative to the folder of `book.toml`.
    pub path: PathBuf,
    pub source: String,
    /// The source after mdBook has expanded its includes.
    pub expanded: String,
}

/// Returns the pages of the book below `root`, in the order of its table of contents.
///
/// # Errors
/// Fails when the book cannot be read.
pub fn pages(root: &Path) -> anyhow::Result<Vec<Page>> {
    let book = load(root, None, &Home::default())?;
    let (expanded, _) = book.preprocess_book(&HtmlHandlebars::new())?;
    let pages = book.book.chapters().zip(expanded.chapters());
    let pages = pages.filter_map(|(chapter, expanded)| {
        let path = book.config.book.src.join(chapter.source_path.as_ref()?);
        let (source, expanded) = (chapter.content.clone(), expanded.content.clone());
        Some(Page { path, source, expanded })
    });
    Ok(pages.collect())
}

fn html(root: &Path, to: &Path, home: &Home) -> anyhow::Result<PathBuf> {
    let book = load(root, Some(to), home)?;
    book.execute_build_process(&HtmlHandlebars::new())?;
    let pages = book.build_dir_for("html");
    publish::finish(&pages, root, home)?;
    Ok(pages)
}

fn load(root: &Path, to: Option<&Path>, home: &Home) -> anyhow::Result<MDBook> {
    let mut config = Config::from_disk(root.join("book.toml"))?;
    config.build.create_missing = false;
    if let Some(to) = to {
        config.build.build_dir = to.to_owned();
    }
    if let Some(url) = &home.url {
        config.set("output.html.site-url", url.path())?;
    }
    if let Some(repository) = &home.repository {
        let edit = format!("{repository}/edit/main/{{path}}");
        config.set("output.html.edit-url-template", edit)?;
        config.set("output.html.git-repository-url", repository)?;
    }
    MDBook::load_with_config(root, config)
}
