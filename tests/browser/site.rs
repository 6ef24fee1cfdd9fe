//! The built book as a site: what a first visit waits for and weighs, how each page describes itself to search engines and to
//! links, its foot, its copies for offline and print, and its accessibility.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::{NO_ERRORS, between, only};
use crate::gates::TREE;
use axum::Router;
use course::publish::{self, Home};
use course::{book, site};
use serde_json::{Value, json};
use support::browser::{Browser, WIDE, key, shell};
use support::skips::axe;
use support::{binaries, client, empty_folder, in_ci, is_missing, recording, root, serve};
use tokio::sync::watch;

const FIRST: &str = "introduction.html";
const STEP: &str = "tutorial/llm-service.html";
const FAULT_LAB: &str = "after/fault-lab.html";
const DIAGNOSE: &str = "how-to/diagnose.html";

/// Pages that together have every kind of part that the book has: listings in each language, waterfalls, tables. The pages to
/// try are in `tests/browser/book.rs`.
const OF_EACH_KIND: [&str; 7] = [
    FIRST,
    STEP,
    "how-to/symptoms.html",
    "how-to/symptoms/wrong-parent.html",
    "how-to/compose-and-kubernetes.html",
    "how-to/polyglot.html",
    "appendix/exercises.html",
];

/// The crates whose versions stand at the foot of a page.
const SHOWN: [&str; 4] = ["opentelemetry", "axum", "reqwest", "tokio"];

const URL: &str = "https://example.org/one-trace/";
const REPOSITORY: &str = "https://example.org/owner/name";

/// The published copy, built once, without the parts that need a browser.
fn published() -> &'static Path {
    static PAGES: LazyLock<PathBuf> = LazyLock::new(|| {
        let url = Some(URL.parse().expect("an address"));
        let home = Home { url, repository: Some(REPOSITORY.to_owned()), browser: None };
        book::publish(&root(), &empty_folder("published"), &home).expect("the book is built")
    });
    &PAGES
}

/// Every page of the table of contents: its path in the site and its text.
fn pages() -> impl Iterator<Item = (String, String)> {
    let pages = book::pages(&root()).expect("the book can be read").into_iter();
    pages.map(|page| {
        let path = page.path.strip_prefix("src").expect("a page").with_extension("html");
        let name = path.display().to_string();
        let text = read(&name);
        (name, text)
    })
}

fn read(name: &str) -> String {
    fs::read_to_string(published().join(name)).expect(name)
}

/// The content of the only `attribute="NAME" content="…"` of a page.
#[track_caller]
fn content<'a>(page: &'a str, name: &str) -> &'a str {
    only(page, &format!("{name} content=\""), "\"")
}

#[test]
fn the_foot_of_a_page_has_the_versions_of_the_lock_file() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    let versions = SHOWN.map(|name| {
        let version = only(&lock, &format!("\nname = \"{name}\"\nversion = \""), "\"");
        format!("{name} {version}")
    });
    let path = root().join("theme/header.hbs");
    let header = fs::read_to_string(&path).expect("the header");
    let start = "reference/versions.html\">";
    let (shown, expected) = (only(&header, start, "</a>"), versions.join(", "));
    if recording::overwrite() {
        let header = header.replace(&format!("{start}{shown}<"), &format!("{start}{expected}<"));
        fs::write(&path, header).expect("written");
    } else {
        assert_eq!(shown, expected, "SNAPSHOTS=overwrite rewrites theme/header.hbs");
    }
}

#[test]
fn the_foot_of_a_published_page_has_its_commit() {
    let git = Command::new("git").current_dir(root()).args(["rev-parse", "HEAD"]).output();
    let hash = String::from_utf8(git.expect("git runs").stdout).expect("text");
    let link = format!("{REPOSITORY}/commit/{}\">{}</a>", hash.trim(), &hash[..12]);
    for (name, page) in pages() {
        only(&page, "<footer class=\"proved\">", "</footer>");
        let (_, after) = page.split_once("</main>").expect("a main part");
        let foot = only(after, "<footer class=\"proved\">", "</footer>");
        assert!(foot.contains(&link), "{name}: {foot}");
    }
}

#[test]
fn a_published_page_says_what_to_clone() {
    let set_up = read("tutorial/set-up.html");
    let command = format!("git clone {REPOSITORY} one-trace\n");
    assert!(set_up.contains(&command), "{command}");
}

#[test]
fn each_published_page_has_an_address_a_description_and_a_link_to_edit_it() {
    let (mut descriptions, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for (name, page) in pages() {
        let address = format!("{URL}{name}");
        let title = only(&page, "<title>", "</title>");
        let description = content(&page, "name=\"description\"");
        let seen = ["url", "title", "description"]
            .map(|it| content(&page, &format!("property=\"og:{it}\"")));
        assert_eq!(seen, [&address, title, description], "{name}");
        assert_eq!(only(&page, "rel=\"canonical\" href=\"", "\""), address);
        assert!((40..=210).contains(&description.len()), "{name}: {description}");
        let is_new = descriptions.insert(description.to_owned());
        assert!(is_new, "{name}: another page has this description");
        let source = Path::new(&name).with_extension("md");
        let edit = format!("{REPOSITORY}/edit/main/src/{}", source.display());
        assert!(page.contains(&edit), "{name} has no link to {edit}");
        addresses.insert(address);
    }
    assert_eq!(between(&read("sitemap.xml"), "<loc>", "</loc>"), Vec::from_iter(&addresses));
    // mdBook writes the first page twice.
    let canonical = format!("{URL}{FIRST}");
    assert_eq!(only(&read("index.html"), "rel=\"canonical\" href=\"", "\""), canonical);
}

#[tokio::test]
async fn the_page_that_is_not_found_knows_where_the_book_is() {
    let page = read("404.html");
    assert_eq!(only(&page, "<base href=\"", "\""), "/one-trace/");
    assert!(!page.contains("canonical"), "{page}");
    let address = serve_published().await;
    let answer = client().get(format!("http://{address}/one-trace/nothing.html")).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.text().await.expect("a page"), page);
}

#[test]
fn a_page_waits_for_one_stylesheet_and_for_no_script() {
    let others = ["404.html", "print.html"].map(|name| (name.to_owned(), read(name)));
    for (name, page) in pages().chain(others) {
        let style = only(&page, "<link rel=\"stylesheet\" href=\"", "\"");
        let style = published().join(style.trim_start_matches("../"));
        assert!(style.is_file(), "{name}: {}", style.display());
        let scripts = between(&page, "<script ", ">");
        let all_wait = scripts.iter().all(|script| script.starts_with("defer "));
        assert!(!scripts.is_empty() && all_wait, "{name}: {scripts:?}");
    }
}

/// Serves the published copy as a web server does, below its address and without a lab.
async fn serve_published() -> SocketAddr {
    let (_built, pages) = watch::channel(Some(published().to_owned()));
    serve(Router::new().nest_service("/one-trace", site::book(pages))).await
}

/// Opens a page of the published copy.
async fn open(name: &str) -> Option<Browser> {
    super::open(serve_published().await, &at(name), WIDE).await
}

fn at(name: &str) -> String {
    format!("/one-trace/{name}")
}

/// Gives the browser another screen.
async fn resize(browser: &Browser, width: u32, height: u32, scale: f64, mobile: bool) {
    let screen =
        json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile });
    browser.devtools("Emulation.setDeviceMetricsOverride", screen).await;
}

/// The parts of Lighthouse's score that don't depend on the clock: see "Run the checks" on the page Contributing.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_visit_is_light_and_nothing_moves() {
    let Some(browser) = open("404.html").await else { return };
    // A phone on its first visit.
    resize(&browser, 412, 823, 1.75, true).await;
    browser.errors().await;
    for name in [FIRST, STEP, FAULT_LAB, DIAGNOSE] {
        browser.devtools("Network.clearBrowserCache", json!({})).await;
        browser.go(&at(name)).await;
        let seen = browser.run(
            "let moved = 0;
             const add = entries => { for (const it of entries) moved += it.value; };
             const observer = new PerformanceObserver(list => add(list.getEntries()));
             observer.observe({ type: 'layout-shift', buffered: true });
             for (let frames = 0; frames < 5; frames++) await frame();
             add(observer.takeRecords());
             const loads = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
             const bytes = loads.reduce((sum, it) => sum + it.transferSize, 0);
             return {
               bytes, moved,
               blocking: loads.filter(it => it.renderBlockingStatus === 'blocking').map(it => it.name.split('/').at(-1).split('-')[0]),
               elsewhere: loads.map(it => it.name).filter(it => !it.startsWith(location.origin)),
               unloads: typeof onunload === 'function',
             };",
        );
        let mut seen = seen.await;
        let [bytes, moved] = ["bytes", "moved"].map(|it| seen[it].take().as_f64());
        assert!(
            bytes.is_some_and(|it| (20_000.0..200.0 * 1024.0).contains(&it)),
            "{name}: {bytes:?}"
        );
        assert!(moved.is_some_and(|it| it < 0.01), "{name}: {moved:?}");
        let expected = json!({ "bytes": null, "moved": null, "blocking": ["style"], "elsewhere": [], "unloads": false });
        assert_eq!(seen, expected, "{name}");
        assert_eq!(browser.errors().await, NO_ERRORS, "{name}");
    }
}

/// Checks every page in CI, where there is time.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_for_everybody_in_light_and_in_dark() {
    let Some(axe) = axe() else { return };
    let Some(browser) = open("404.html").await else { return };
    browser.bring(&axe).await;
    let names = pages().map(|(name, _)| name);
    let (kinds, others): (Vec<_>, Vec<_>) = names.partition(|it| OF_EACH_KIND.contains(&&**it));
    assert_eq!(kinds.len(), OF_EACH_KIND.len(), "{kinds:?}");
    let mut bad = Vec::new();
    for name in kinds.into_iter().chain(others.into_iter().filter(|_| in_ci())) {
        browser.go(&at(&name)).await;
        // The parts around the text are the same everywhere: `tests/browser/book.rs`. The next page begins in the theme that this
        // one ends in, and one part of a listing stands for all of its colour.
        let found = browser.run(
            "const main = { include: [['main'], ['footer']] };
             const of = found => found.violations.map(it => [it.id, it.nodes.map(node => node.html.slice(0, 200))]);
             const dark = document.documentElement.classList.contains('navy');
             const colours = new Set();
             for (const it of $$('pre span:not(.boring)')) {
               if (colours.has(it.className)) it.replaceWith(...it.childNodes);
               colours.add(it.className);
             }
             const first = await axe.run(main, { resultTypes: ['violations'] });
             $(`#mdbook-theme-${dark ? 'light' : 'navy'}`).click();
             const other = await axe.run(main, { resultTypes: ['violations'], runOnly: ['color-contrast'] });
             return [...of(first), ...of(other)];",
        );
        bad.push((name, found.await));
    }
    bad.retain(|(_, found)| *found != json!([]));
    assert_eq!(bad, Vec::<(String, Value)>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_is_one_key_away() {
    let Some(browser) = open(STEP).await else { return };
    browser.press(key::TAB).await;
    browser.wait_for("document.activeElement.textContent", "Skip to the text").await;
    browser.press(key::ENTER).await;
    browser.wait_for("document.activeElement.tagName", "MAIN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_of_any_depth_leads_back_to_the_book() {
    let Some(browser) = open("no/such/page.html").await else { return };
    browser.wait_for("text('main h1')", "This page does not exist").await;
    let styles =
        "[...document.styleSheets].filter(it => it.href).map(it => it.cssRules.length > 100)";
    browser.wait_for(styles, [true]).await;
    browser.click("main a[href*='set-up']").await;
    browser.arrives_at("/one-trace/tutorial/set-up.html").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_heading_or_page_that_moved_leads_to_its_new_place() {
    let Some(browser) = open("404.html").await else { return };
    for (old, new) in [
        ("how-to/symptoms.html#no-flush", "how-to/symptoms/no-flush.html"),
        ("explanation/suite.html", "explanation/context-and-propagation.html#how-strict"),
        (
            "explanation/suite.html#what-strictness-costs",
            "explanation/context-and-propagation.html#how-strict",
        ),
    ] {
        browser.go(&at(old)).await;
        browser.arrives_at(&at(new)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn print_has_the_text_and_its_figures_whole_and_nothing_to_click() {
    let Some(browser) = open(DIAGNOSE).await else { return };
    // A sheet of A4 between its margins.
    resize(&browser, 718, 1047, 1.0, false).await;
    browser.look_as("print", false).await;
    for name in [DIAGNOSE, STEP, FAULT_LAB] {
        browser.go(&at(name)).await;
        let seen = browser.run(
            "dispatchEvent(new Event('beforeprint'));
             const cut = it => it.scrollWidth > it.clientWidth + 1;
             return {
               text: $('main').checkVisibility() && $('footer.proved').checkVisibility(),
               tools: $$('nav, #mdbook-menu-bar, .try, .skip, button').filter(it => it.checkVisibility()).map(it => it.outerHTML.slice(0, 80)),
               cut: $$('.wide, pre, .table-wrapper').filter(cut).map(it => it.textContent.slice(0, 80)),
             };",
        );
        assert_eq!(seen.await, json!({ "text": true, "tools": [], "cut": [] }), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_a_folder_can_be_read_and_searched_without_a_server() {
    let Some(browser) = open(STEP).await else { return };
    browser.errors().await;
    let file = |name: &str| format!("file://{}", published().join(name).display());
    browser.visit(&file(STEP)).await;
    browser.click("#mdbook-search-toggle").await;
    browser.press("baggage").await;
    browser.wait_for("$$('#mdbook-searchresults li').length > 3", true).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
    browser.visit(&file(FAULT_LAB)).await;
    browser.wait_for("$('.try select').length", 3).await;
    // The page doesn't offer what needs a lab.
    browser.shows("$('.try .own').checkVisibility()", false).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

/// Uses a book of one page, because the whole book takes a minute.
#[tokio::test(flavor = "multi_thread")]
async fn lab_book_prints_the_book_and_draws_the_picture_of_its_links() {
    let browser = shell().unwrap_or("chromium");
    if is_missing(browser, "install Chromium (Debian: chromium)") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let small = folder.path().join("small");
    let write = |name: &str, content: &[u8]| {
        let path = small.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("written");
    };
    let copied = TREE.files("theme/", "").chain(TREE.files("crates/traces/src/", ""));
    for name in copied.chain(["src/recordings/whole.svg"]) {
        write(name, &fs::read(root().join(name)).expect("a file"));
    }
    // It has no page with an old heading to redirect.
    let settings = TREE.read("book.toml");
    let settings = settings.lines().filter(|line| !line.starts_with("\"/"));
    write("book.toml", Vec::from_iter(settings).join("\n").as_bytes());
    write("src/SUMMARY.md", b"[One](introduction.md)\n");
    write("src/introduction.md", b"# One\n\nA page.\n\n## Part of it\n");
    fs::create_dir(small.join("src/pictures")).expect("a folder");
    let output = Command::new(binaries().await.join("course"))
        .args(["book", "--url", URL.trim_end_matches('/'), "--browser", browser, "--book"])
        .args([&small, &folder.path().join("out")])
        .output()
        .expect("it runs");
    let pages = folder.path().join("out/html");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(printed, format!("The book is in {}\n", pages.display()));
    let book = fs::read(pages.join(publish::BOOK)).expect("the book in one file");
    let has = |what: &[u8]| book.windows(what.len()).any(|it| it == what);
    assert!(has(b"%PDF") && has(b"/Outlines"));
    let card = fs::read(pages.join(publish::CARD)).expect("the picture");
    // The header of a PNG: 8 bytes of signature, 8 of the first chunk's length and name, width, height.
    assert_eq!(card[16..24], [0, 0, 4, 176, 0, 0, 2, 118], "not 1200 by 630");
    let page = fs::read_to_string(pages.join("index.html")).expect("a page");
    assert_eq!(content(&page, "property=\"og:image\""), format!("{URL}{}", publish::CARD));
}
