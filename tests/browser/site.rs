//! The built book as a site: what a first visit waits for and weighs, what each page says of itself to search engines and to
//! links, its foot, its copies for offline and print; and that each page is for everybody.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::support;
use crate::support::browser::{Browser, Look, WIDE, key, shell};
use crate::support::skips::{axe, browser_is_missing};
use crate::support::{empty_folder, in_ci, is_missing, recording, serve};
use axum::Router;
use course::publish::{self, Home};
use course::{book, site};
use serde_json::{Value, json};
use tokio::sync::watch;

const FIRST: &str = "introduction.html";
const STEP: &str = "tutorial/llm-service.html";
const FAULT_LAB: &str = "after/fault-lab.html";
const DIAGNOSE: &str = "how-to/diagnose.html";

/// Pages that together have every kind of part that the book has: listings in each language, waterfalls, tables. Those to
/// try are in `tests/browser/book.rs`.
const OF_EACH_KIND: [&str; 6] = [
    FIRST,
    STEP,
    "how-to/symptoms.html",
    "how-to/compose-and-kubernetes.html",
    "how-to/polyglot.html",
    "appendix/exercises.html",
];

/// What the foot of a page names, by the names of crates.io.
const SHOWN: [&str; 4] = ["opentelemetry", "axum", "reqwest", "tokio"];

const URL: &str = "https://example.org/one-trace/";
const REPOSITORY: &str = "https://example.org/owner/name";

/// The published copy, built once; without what needs a browser.
fn published() -> &'static Path {
    static PAGES: LazyLock<PathBuf> = LazyLock::new(|| {
        let home = Home {
            url: Some(URL.parse().expect("an address")),
            repository: Some(REPOSITORY.to_owned()),
            browser: None,
        };
        let folder = empty_folder("published");
        book::publish(&support::root(), &folder, &home).expect("the book is built")
    });
    &PAGES
}

/// Every page of the table of contents, as the site has it.
fn pages() -> Vec<String> {
    let pages = book::pages(&support::root()).expect("the book can be read");
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
    parts.filter_map(|part| part.split_once(end)).map(|(it, _)| it).collect()
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
    let lock = fs::read_to_string(support::root().join("Cargo.lock")).expect("the lock file");
    let versions = SHOWN.map(|name| {
        let version = only(&lock, &format!("\nname = \"{name}\"\nversion = \""), "\"");
        format!("{name} {version}")
    });
    let path = support::root().join("theme/header.hbs");
    let header = fs::read_to_string(&path).expect("the header");
    let start = "reference/versions.html\">";
    let shown = only(&header, start, "</a>");
    let expected = versions.join(", ");
    if recording::overwrite() {
        let header = header.replace(&format!("{start}{shown}<"), &format!("{start}{expected}<"));
        fs::write(&path, header).expect("written");
    } else {
        assert_eq!(shown, expected, "SNAPSHOTS=overwrite writes theme/header.hbs anew");
    }
}

#[test]
fn the_foot_of_a_published_page_has_its_commit() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(support::root()).args(arguments).output();
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
        let address = format!("{URL}{name}");
        assert_eq!(only(&page, "rel=\"canonical\" href=\"", "\""), address);
        assert_eq!(only(&page, "property=\"og:url\" content=\"", "\""), address);
        let title = only(&page, "<title>", "</title>");
        assert_eq!(only(&page, "property=\"og:title\" content=\"", "\""), title);
        let description = only(&page, "name=\"description\" content=\"", "\"");
        assert_eq!(only(&page, "property=\"og:description\" content=\"", "\""), description);
        assert!((40..=210).contains(&description.len()), "{name}: {description}");
        assert!(descriptions.insert(description.to_owned()), "{name} is described as another is");
        let source = Path::new(&name).with_extension("md");
        let edit = format!("{REPOSITORY}/edit/main/src/{}", source.display());
        assert!(page.contains(&edit), "{name} has no link to {edit}");
        addresses.insert(address);
    }
    let map = read("sitemap.xml");
    let listed: Vec<_> = between(&map, "<loc>", "</loc>");
    assert_eq!(listed, addresses.iter().collect::<Vec<_>>());
    // mdBook writes the first page twice.
    let index = read("index.html");
    let canonical = only(&index, "rel=\"canonical\" href=\"", "\"");
    assert_eq!(canonical, format!("{URL}{FIRST}"));
}

#[test]
fn the_page_that_is_not_found_knows_where_the_book_is() {
    let page = read("404.html");
    assert_eq!(only(&page, "<base href=\"", "\""), "/one-trace/");
    assert!(!page.contains("canonical"), "{page}");
}

#[test]
fn a_page_waits_for_one_stylesheet_and_for_no_script() {
    for name in pages().into_iter().chain(["404.html".into(), "print.html".into()]) {
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
/// The published copy below its address, as a web server has it; there is no lab behind it.
async fn open(name: &str, look: Look) -> Option<Browser> {
    if browser_is_missing() {
        return None;
    }
    let (_built, pages) = watch::channel(Some(published().to_owned()));
    let address = serve(Router::new().nest_service("/one-trace", site::book(pages))).await;
    Some(Browser::open(address, &at(name), look).await)
}

fn at(name: &str) -> String {
    format!("/one-trace/{name}")
}

/// What Lighthouse's score comes from, and does not depend on the clock: see "Run the checks" of the page Contributing.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_visit_is_light_and_nothing_moves() {
    let Some(browser) = open("404.html", WIDE).await else {
        return;
    };
    // A phone that has never been here.
    let phone = json!({ "width": 412, "height": 823, "deviceScaleFactor": 1.75, "mobile": true });
    browser.devtools("Emulation.setDeviceMetricsOverride", phone).await;
    browser.errors().await;
    for name in [FIRST, STEP, FAULT_LAB, DIAGNOSE] {
        browser.devtools("Network.clearBrowserCache", json!({})).await;
        browser.go(&at(name)).await;
        let seen = browser
            .run(
                "const frame = () => new Promise(requestAnimationFrame);
                 let moved = 0;
                 const add = entries => { for (const it of entries) moved += it.value; };
                 const observer = new PerformanceObserver(list => add(list.getEntries()));
                 observer.observe({ type: 'layout-shift', buffered: true });
                 for (let frames = 0; frames < 5; frames++) await frame();
                 add(observer.takeRecords());
                 const loads = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
                 return {
                   bytes: loads.reduce((sum, it) => sum + it.transferSize, 0),
                   blocking: loads.filter(it => it.renderBlockingStatus === 'blocking').map(it => it.name.split('/').at(-1).split('-')[0]),
                   elsewhere: loads.map(it => it.name).filter(it => !it.startsWith(location.origin)),
                   unload: typeof onunload,
                   moved,
                 };",
            )
            .await;
        println!("{name}: {seen}");
        let bytes = seen["bytes"].as_u64().expect("a number");
        assert!((20_000..200 * 1024).contains(&bytes), "{name}: {bytes} bytes");
        assert_eq!(seen["blocking"], json!(["style"]), "{name}");
        assert_eq!(seen["elsewhere"], json!([]), "{name}");
        assert_ne!(seen["unload"], "function", "{name}");
        assert!(seen["moved"].as_f64() < Some(0.01), "{name}: {seen}");
        assert_eq!(browser.errors().await, Vec::<String>::new(), "{name}");
    }
}

/// In CI, where there is time, of every page.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_for_everybody_in_light_and_in_dark() {
    let Some(axe) = axe() else {
        return;
    };
    let Some(browser) = open("404.html", WIDE).await else {
        return;
    };
    browser.bring(&axe).await;
    let mut names = pages();
    assert!(OF_EACH_KIND.iter().all(|one| names.iter().any(|name| name == one)));
    names.retain(|name| in_ci() || OF_EACH_KIND.contains(&name.as_str()));
    let mut bad = Vec::new();
    for name in names {
        browser.go(&at(&name)).await;
        // What is around the text is the same everywhere: `tests/browser/book.rs`. The next page begins in dark where this
        // ends, and one part of a listing stands for all of its colour.
        let found = browser
            .run(
                "const text = { include: [['main'], ['footer']] };
                 const of = found => found.violations.map(it => [it.id, it.nodes.map(node => node.html.slice(0, 200))]);
                 const dark = document.documentElement.classList.contains('navy');
                 const colours = new Set();
                 for (const it of document.querySelectorAll('pre span')) {
                   if (colours.has(it.className)) it.replaceWith(...it.childNodes);
                   colours.add(it.className);
                 }
                 const first = await axe.run(text, { resultTypes: ['violations'] });
                 document.getElementById(`mdbook-theme-${dark ? 'light' : 'navy'}`).click();
                 const other = await axe.run(text, { resultTypes: ['violations'], runOnly: ['color-contrast'] });
                 return [...of(first), ...of(other)];",
            )
            .await;
        if found != json!([]) {
            bad.push((name, found));
        }
    }
    assert_eq!(bad, Vec::<(String, Value)>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_is_one_key_away() {
    let Some(browser) = open(STEP, WIDE).await else {
        return;
    };
    browser.strike(key::TAB).await;
    let focused = "return document.activeElement.textContent;";
    browser.wait_for(focused, json!("Skip to the text")).await;
    browser.strike(key::ENTER).await;
    browser.wait_for("return document.activeElement.tagName;", json!("MAIN")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_of_any_depth_leads_back_to_the_book() {
    let Some(browser) = open("no/such/page.html", WIDE).await else {
        return;
    };
    let title = "return document.querySelector('main h1').textContent;";
    browser.wait_for(title, json!("This page does not exist")).await;
    let style = "return [...document.styleSheets].filter(it => it.href).map(it => it.cssRules.length > 100);";
    browser.wait_for(style, json!([true])).await;
    browser.click("main a[href*='set-up']").await;
    browser.arrives_at("/one-trace/tutorial/set-up.html").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn print_has_the_text_and_its_figures_whole_and_nothing_to_click() {
    let Some(browser) = open(DIAGNOSE, WIDE).await else {
        return;
    };
    // A sheet of A4 between its margins.
    let sheet = json!({ "width": 718, "height": 1047, "deviceScaleFactor": 1, "mobile": false });
    browser.devtools("Emulation.setDeviceMetricsOverride", sheet).await;
    browser.devtools("Emulation.setEmulatedMedia", json!({ "media": "print" })).await;
    for name in [DIAGNOSE, STEP, FAULT_LAB] {
        browser.go(&at(name)).await;
        browser.run("dispatchEvent(new Event('beforeprint'));").await;
        let seen = browser
            .run(
                "const shown = css => document.querySelector(css).checkVisibility();
                 const cut = it => it.scrollWidth > it.clientWidth + 1;
                 return {
                   text: shown('main') && shown('footer.proved'),
                   tools: [...document.querySelectorAll('nav, #mdbook-menu-bar, .try, .skip, button')].filter(it => it.checkVisibility()).map(it => it.outerHTML.slice(0, 80)),
                   cut: [...document.querySelectorAll('.wide, pre, .table-wrapper')].filter(cut).map(it => it.textContent.slice(0, 80)),
                 };",
            )
            .await;
        assert_eq!(seen, json!({ "text": true, "tools": [], "cut": [] }), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_a_folder_can_be_read_and_searched_without_a_server() {
    let Some(browser) = open(STEP, WIDE).await else {
        return;
    };
    browser.errors().await;
    browser.visit(&format!("file://{}", published().join(STEP).display())).await;
    browser.click("#mdbook-search-toggle").await;
    browser.press("baggage").await;
    let found = "return document.querySelectorAll('#mdbook-searchresults li').length > 3;";
    browser.wait_for(found, json!(true)).await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.visit(&format!("file://{}", published().join(FAULT_LAB).display())).await;
    browser.wait_for("return document.querySelector('.try select').length;", json!(3)).await;
    // Nor does it ask for what only a lab can do.
    let own = "return document.querySelector('.try .own').checkVisibility();";
    assert_eq!(browser.run(own).await, false);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// With a book of one page: in this way the whole book takes a minute.
#[tokio::test(flavor = "multi_thread")]
async fn lab_book_prints_the_book_and_draws_the_picture_of_its_links() {
    let browser = shell().unwrap_or("chromium");
    if is_missing(browser, "install Chromium (Debian: chromium)") {
        return;
    }
    let (root, folder) = (support::root(), tempfile::tempdir().expect("a folder"));
    let small = folder.path().join("small");
    let taken = ["book.toml", "theme", "crates/traces/src", "src/recordings/whole.svg"];
    for name in taken {
        copy(&root.join(name), &small.join(name));
    }
    fs::create_dir_all(small.join("src/pictures")).expect("a folder");
    fs::write(small.join("src/SUMMARY.md"), "[One](introduction.md)\n").expect("written");
    fs::write(small.join("src/introduction.md"), "# One\n\nA page.\n\n## Part of it\n")
        .expect("written");
    let course = support::binaries().await.join("course");
    let output = Command::new(course)
        .args(["book", "--url", URL.trim_end_matches('/'), "--browser", browser, "--book"])
        .args([&small, &folder.path().join("out")])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let pages = folder.path().join("out/html");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("The book is in {}\n", pages.display())
    );
    let book = fs::read(pages.join(publish::BOOK)).expect("the book in one file");
    let has = |what: &[u8]| book.windows(what.len()).any(|it| it == what);
    assert!(has(b"%PDF") && has(b"/Outlines"));
    let card = fs::read(pages.join(publish::CARD)).expect("the picture");
    // The header of a PNG: 8 bytes of signature, 8 of the first chunk's name and length, width, height.
    assert_eq!(card[16..24], [0, 0, 4, 176, 0, 0, 2, 118], "not 1200 by 630");
    let page = fs::read_to_string(pages.join("index.html")).expect("a page");
    let picture = only(&page, "property=\"og:image\" content=\"", "\"");
    assert_eq!(picture, format!("{URL}{}", publish::CARD));
}

/// A file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(from, to).expect("copied");
    }
}
