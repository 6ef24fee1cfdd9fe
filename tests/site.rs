//! The built book as a site: what a first visit waits for and weighs, what each page says of itself to search engines and to
//! links, its foot, its copies for offline and print; and that each page is for everybody.

#[path = "support/browser.rs"]
mod browser;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use browser::{Browser, Look, WIDE, key};
use lab::publish::{self, Home};
use lab::store::{Limits, Store};
use lab::wire::Wire;
use lab::{book, site};
use serde_json::{Value, json};
use support::{FREE, is_missing, recording, serve, skipped};
use tokio::sync::watch;

const FIRST: &str = "introduction.html";
const STEP: &str = "tutorial/llm-service.html";
const FAULT_LAB: &str = "after/fault-lab.html";
const DIAGNOSE: &str = "how-to/diagnose.html";

/// What the foot of a page names, by the names of crates.io.
const SHOWN: [&str; 4] = ["opentelemetry", "axum", "reqwest", "tokio"];

const URL: &str = "https://example.org/one-trace/";
const REPOSITORY: &str = "https://example.org/owner/name";

/// The published copy, built once; without what needs a browser.
fn published() -> &'static Path {
    static PAGES: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, pages) = PAGES.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home {
            url: Some(URL.parse().expect("an address")),
            repository: Some(REPOSITORY.to_owned()),
            browser: None,
        };
        let pages = book::publish(&book::root(), folder.path(), &home).expect("the book is built");
        (folder, pages)
    });
    pages
}

/// Every page of the table of contents, as the site has it.
fn pages() -> Vec<String> {
    let pages = book::pages(&book::root()).expect("the book can be read");
    let names = pages.iter().map(|page| {
        let path = page.path.strip_prefix("src").expect("a page");
        path.with_extension("html").display().to_string()
    });
    names.collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(published().join(name)).expect(name)
}

/// The parts of `text` that stand between two others.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let parts = text.split(start).skip(1);
    parts
        .filter_map(|part| part.split_once(end))
        .map(|(it, _)| it)
        .collect()
}

/// The one part.
#[track_caller]
fn only<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let found = between(text, start, end);
    assert_eq!(found.len(), 1, "{start} … {end}: {found:?}");
    found[0]
}

#[test]
fn the_foot_of_a_page_has_the_versions_of_the_lock_file() {
    let lock = fs::read_to_string(book::root().join("Cargo.lock")).expect("the lock file");
    let versions = SHOWN.map(|name| {
        let version = only(&lock, &format!("\nname = \"{name}\"\nversion = \""), "\"");
        format!("{name} {version}")
    });
    let path = book::root().join("theme/header.hbs");
    let header = fs::read_to_string(&path).expect("the header");
    let start = "reference/versions.html\">";
    let shown = only(&header, start, "</a>");
    let expected = versions.join(", ");
    if recording::overwrite() {
        let header = header.replace(&format!("{start}{shown}<"), &format!("{start}{expected}<"));
        fs::write(&path, header).expect("written");
    } else {
        assert_eq!(
            shown, expected,
            "SNAPSHOTS=overwrite writes theme/header.hbs anew"
        );
    }
}

#[test]
fn the_foot_of_a_published_page_has_its_commit() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(book::root())
            .args(arguments)
            .output();
        String::from_utf8(output.expect("git runs").stdout).expect("text")
    };
    let hash = git(&["rev-parse", "HEAD"]);
    let hash = hash.trim();
    for name in pages() {
        let page = read(&name);
        let foot = only(&page, "<footer class=\"proved\">", "</footer>");
        let link = format!("{REPOSITORY}/commit/{hash}\">{}</a>", &hash[..12]);
        assert!(foot.contains(&link), "{name}: {foot}");
        let (_, after) = page.split_once("</main>").expect("a main part");
        assert!(after.contains(foot), "{name}: it is not at the foot");
    }
}

#[test]
fn each_published_page_has_an_address_a_description_and_a_link_to_edit_it() {
    let mut descriptions = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for name in pages() {
        let page = read(&name);
        let address = match name.as_str() {
            FIRST => URL.to_owned(),
            name => format!("{URL}{name}"),
        };
        assert_eq!(only(&page, "rel=\"canonical\" href=\"", "\""), address);
        assert_eq!(only(&page, "property=\"og:url\" content=\"", "\""), address);
        let title = only(&page, "<title>", "</title>");
        assert_eq!(only(&page, "property=\"og:title\" content=\"", "\""), title);
        let description = only(&page, "name=\"description\" content=\"", "\"");
        assert_eq!(
            only(&page, "property=\"og:description\" content=\"", "\""),
            description
        );
        assert!(
            (40..=210).contains(&description.len()),
            "{name}: {description}"
        );
        assert!(
            descriptions.insert(description.to_owned()),
            "{name} is described as another is"
        );
        let source = Path::new(&name).with_extension("md");
        let edit = format!("{REPOSITORY}/edit/main/src/{}", source.display());
        assert!(page.contains(&edit), "{name} has no link to {edit}");
        addresses.insert(address);
    }
    let map = read("sitemap.xml");
    let listed: Vec<_> = between(&map, "<loc>", "</loc>");
    assert_eq!(listed, addresses.iter().collect::<Vec<_>>());
    // mdBook writes the first page twice.
    assert_eq!(
        only(&read("index.html"), "rel=\"canonical\" href=\"", "\""),
        URL
    );
}

#[test]
fn the_page_that_is_not_found_knows_where_the_book_is() {
    let page = read("404.html");
    assert_eq!(only(&page, "<base href=\"", "\""), "/one-trace/");
    assert!(!page.contains("canonical"), "{page}");
}

#[test]
fn a_page_waits_for_one_stylesheet_and_for_no_script() {
    for name in pages()
        .into_iter()
        .chain(["404.html".into(), "print.html".into()])
    {
        let page = read(&name);
        let style = only(&page, "<link rel=\"stylesheet\" href=\"", "\"");
        let style = published().join(style.trim_start_matches("../"));
        assert!(style.is_file(), "{name}: {}", style.display());
        let scripts = between(&page, "<script ", ">");
        assert!(!scripts.is_empty(), "{name}");
        for script in scripts {
            assert!(script.starts_with("defer "), "{name}: {script}");
        }
    }
}
