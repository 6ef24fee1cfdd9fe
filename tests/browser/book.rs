//! The pages of the book that one can try, in a real browser: the fault lab, recorded and live, "paste your trace", which
//! must say what the lab itself says, and the walkthrough. With keys alone, and for everybody.

#[path = "../../crates/browser_diagnosis/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::support;
use crate::support::browser::{Browser, Look, WIDE, key};
use crate::support::includes::includes;
use crate::support::skips::{axe, browser_is_missing};
use crate::support::{FREE, Setup, empty_folder, recording, serve};
use course::hops::HOPS;
use course::{book, site};
use lab::case::Case;
use lab::diagnose::Rule;
use lab::report::{self, Links};
use lab::store::{Limits, Store};
use lab::wire::Wire;
use serde_json::json;
use tokio::sync::watch;

const FAULT_LAB: &str = "/after/fault-lab.html";
const DIAGNOSE: &str = "/how-to/diagnose.html";
const WALKTHROUGH: &str = "/walkthrough.html";

/// The book as the lab builds it, once.
fn built() -> &'static Path {
    static PAGES: LazyLock<PathBuf> = LazyLock::new(|| {
        book::build(&support::root(), &empty_folder("book")).expect("the book is built")
    });
    &PAGES
}

/// The book as the lab serves it, with the pages of a store and a wire.
async fn serve_book(store: Store, wire: Wire) -> SocketAddr {
    let (_built, pages) = watch::channel(Some(built().to_owned()));
    let otlp = FREE.parse().expect("an address");
    serve(site::pages(store, wire, Some(pages), otlp)).await
}

async fn open(address: SocketAddr, path: &str, look: Look) -> Option<Browser> {
    match browser_is_missing() {
        true => None,
        false => Some(Browser::open(address, path, look).await),
    }
}

const STATUS: &str = "return document.querySelector('.try [role=status]').textContent;";

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_trace_is_told_what_the_lab_tells() {
    let address = serve_book(Store::new(Limits::default()), Wire::default()).await;
    let Some(browser) = open(address, DIAGNOSE, WIDE).await else {
        return;
    };
    let mut texts: Vec<String> = ["", "-near"]
        .into_iter()
        .flat_map(|what| Rule::ALL.map(|rule| format!("diagnose/{}{what}.json", rule.name())))
        .map(|name| fs::read_to_string(recording::folder().join(name)).expect("a recording"))
        .collect();
    texts.extend(
        ["hello", "traceparent: 00-1-2-3", "{\"resourceSpans\": [", "\u{fffd}\u{202e}<b>"]
            .map(str::to_owned),
    );
    for text in texts {
        let links = Links { book: "../", span: &|_| None };
        let expected = match Case::read(text.as_bytes()) {
            Ok(case) => report::case(&case, &links),
            Err(problem) => report::problem(&problem),
        };
        let expected = serde_json::to_string(&expected.into_string()).expect("JSON");
        let text = serde_json::to_string(&text).expect("JSON");
        // As the browser would write both.
        let script = format!(
            "const form = document.querySelector('.try form');
             const outcome = document.querySelector('.try div.outcome');
             outcome.replaceChildren();
             form.text.value = {text};
             form.requestSubmit();
             while (!outcome.firstChild) await new Promise(requestAnimationFrame);
             const expected = document.createElement('div');
             expected.innerHTML = {expected};
             return outcome.innerHTML === expected.innerHTML ? 'same' : outcome.innerHTML;"
        );
        assert_eq!(browser.run(&script).await, "same", "{text}");
    }
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// The program of the page is made of the sources as they are.
#[test]
fn the_program_of_the_page_is_not_stale() {
    let program = fs::read(support::root().join("src/how-to/diagnose.wasm")).expect("the program");
    let sources = sources::state_of_sources(&support::root().join("crates")).expect("the sources");
    let found = program.windows(sources.len()).any(|it| it == sources.as_bytes());
    assert!(found, "src/how-to/diagnose.wasm is stale: run crates/browser_diagnosis/build.sh");
    assert!(program.len() < 1_000_000, "{} bytes are too many for a page", program.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_pasted_with_keys_alone() {
    let address = serve_book(Store::new(Limits::default()), Wire::default()).await;
    let Some(browser) = open(address, DIAGNOSE, WIDE).await else {
        return;
    };
    // From the last link before the form.
    browser
        .run("[...document.querySelectorAll('main a')].filter(it => it.compareDocumentPosition(document.getElementById('pasted')) & 4).at(-1).focus();")
        .await;
    browser.strike(key::TAB).await;
    browser.press("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7").await;
    // A file, an example, and the button.
    for _ in 0..3 {
        browser.strike(key::TAB).await;
    }
    browser.strike(key::ENTER).await;
    browser.wait_for(STATUS, json!("1 finding.")).await;
    let text = browser.run("return document.querySelector('.try div.outcome').textContent;").await;
    assert!(text.as_str().is_some_and(|it| it.contains("byte 52")), "{text}");
    // An example, by its first letters.
    browser.run("document.querySelector('.try [name=example]').focus();").await;
    browser.press("Clocks").await;
    browser.press(key::TAB).await;
    browser.wait_for("return document.querySelector('.try div.outcome').textContent.includes('Clocks differ');", json!(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_lab_is_used_with_keys_alone_and_shows_what_was_recorded() {
    let address = serve_book(Store::new(Limits::default()), Wire::default()).await;
    let Some(browser) = open(address, FAULT_LAB, WIDE).await else {
        return;
    };
    // This lab runs no services.
    assert_eq!(browser.run("return document.querySelector('.own').hidden;").await, true);
    browser.run("document.querySelector('.try select').focus();").await;
    browser.press("user-llm").await;
    browser.press(key::TAB).await;
    browser.press("drop-traceparent").await;
    browser.press(key::TAB).await;
    browser.press(" ").await;
    browser.press(key::RIGHT).await;
    browser.press(key::TAB).await;
    browser.press(key::ENTER).await;
    browser.wait_for(STATUS, json!("Right: 2 traces.")).await;
    let heading = "return document.querySelector('.try div.outcome h3').textContent;";
    assert_eq!(browser.run(heading).await, "drop-traceparent on user-llm");
    // The rest is there when it is asked for, and in print.
    let open = "return document.getElementById('fault-cases').closest('details').open;";
    assert_eq!(browser.run(open).await, false);
    browser.run("dispatchEvent(new Event('beforeprint'));").await;
    assert_eq!(browser.run(open).await, true);
    browser.run("dispatchEvent(new Event('afterprint'));").await;
    assert_eq!(browser.run(open).await, false);
    browser.run("location.hash = '#cut-user-llm';").await;
    browser.wait_for(open, json!(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_lab_sends_a_request_through_the_readers_own_services() {
    let setup = Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 50);
    let system = setup.wired().start().await;
    let address = serve_book(system.store.clone(), system.wire.clone()).await;
    let Some(browser) = open(address, FAULT_LAB, WIDE).await else {
        return;
    };
    browser.wait_for("return document.querySelector('.own').hidden;", json!(false)).await;
    let seen = system.wire.exchanges().len();
    let ask = "const form = document.querySelector('.try form');
        form.hop.value = 'gateway-user'; form.fault.value = 'clear-sampled'; form.guess.value = '3'; form.requestSubmit();";
    browser.run(ask).await;
    browser.wait_for(STATUS, json!("You said 3 traces; there is 1 trace.")).await;
    let heading = "return document.querySelector('.try div.outcome h3').textContent;";
    assert_eq!(browser.run(heading).await, "clear-sampled on gateway-user, just now");
    assert_eq!(system.wire.exchanges().len(), seen + 3);
    let faults: Vec<_> = HOPS.iter().filter_map(|hop| system.wire.fault(*hop)).collect();
    assert_eq!(faults, [], "it restores what it has set");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    system.stop().await;
}

/// Without a script, and in print, every case is on the page.
#[tokio::test]
async fn all_cases_are_on_the_page_without_a_script() {
    let pages = built();
    let page = fs::read_to_string(pages.join(&FAULT_LAB[1..])).expect("the page");
    let ids: BTreeSet<&str> = page
        .split("<section class=\"fault\" id=\"")
        .skip(1)
        .filter_map(|it| it.split('"').next())
        .collect();
    let faults = <lab::wire::Fault as clap::ValueEnum>::value_variants();
    let expected: BTreeSet<String> = faults
        .iter()
        .flat_map(|fault| HOPS.map(|hop| format!("{}-{}", fault.name(), hop.name)))
        .collect();
    assert_eq!(ids, expected.iter().map(String::as_str).collect());
}

/// The state of the walkthrough: its scene, its button, the typed letters, and the spans.
const WATCHED: &str = "
    const scene = document.querySelector('#walkthrough section:not([hidden]) .scene');
    const seen = it => it.checkVisibility({ visibilityProperty: true });
    const typed = [...scene.querySelectorAll('kbd')].map(it => it.firstChild.data.length);
    const watched = {
        scene: parseInt(document.querySelector('.try [role=status]').textContent),
        button: document.querySelector('.try [name=play]').textContent,
        typed: typed.reduce((sum, it) => sum + it, 0),
        spans: [...scene.querySelectorAll('tbody tr')].filter(seen).length,
        lines: [...scene.querySelectorAll('samp')].filter(seen).length,
    };";

/// Puts the bar of the walkthrough where it is to stand.
async fn seek(browser: &Browser, milliseconds: &str) {
    let script = format!(
        "const seek = document.querySelector('.try input');
         seek.value = {milliseconds};
         seek.dispatchEvent(new Event('input'));"
    );
    browser.run(&script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walkthrough_is_for_those_with_keys_alone_without_motion_without_a_script_and_on_paper()
{
    let address = serve_book(Store::new(Limits::default()), Wire::default()).await;
    let page = support::client().get(format!("http://{address}{WALKTHROUGH}"));
    let page = page.send().await.expect("an answer").text().await;
    is_whole_without_a_script(&page.expect("a page"));
    let Some(browser) = open(address, WALKTHROUGH, WIDE).await else {
        return;
    };
    is_watched_with_keys_alone(&browser).await;
    stands_still_without_motion_and_on_paper(&browser).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

async fn is_watched_with_keys_alone(browser: &Browser) {
    let watched = |what: &str| format!("{WATCHED} return {what};");
    // Nothing plays by itself: the first scene stands there as it ends.
    let first = watched("[watched.scene, watched.button, watched.lines]");
    assert_eq!(browser.run(&first).await, json!([1, "Play", 6]));
    // From scene to scene, and the book does not turn its page.
    browser.run("document.querySelector('.try [name=play]').focus();").await;
    for _ in 0..6 {
        browser.strike(key::RIGHT).await;
    }
    let state = "[watched.scene, watched.spans]";
    browser.wait_for(&watched(state), json!([7, 7])).await;
    browser.strike(key::LEFT).await;
    browser.wait_for(&watched(state), json!([6, 5])).await;
    // A scene begins with nothing; its command is typed letter by letter, and stays where it is when it is paused.
    browser.strike(key::ENTER).await;
    let state = "[watched.scene, watched.button, watched.spans, watched.typed > 0]";
    browser.wait_for(&watched(state), json!([6, "Pause", 0, true])).await;
    browser.strike(" ").await;
    browser.wait_for(&watched("watched.button"), json!("Play")).await;
    let stands = "const before = document.querySelector('.try input').value;
        for (let frame = 0; frame < 10; frame++) await new Promise(requestAnimationFrame);
        return before === document.querySelector('.try input').value;";
    assert_eq!(browser.run(stands).await, true);
    // Half of the time of a trace is when half of it is there.
    let seven = "const start = Number(seek.value); const traces = document.querySelector('.still .traces');                  seek.value = start + Number(traces.dataset.at) + 1000";
    browser.run("location.hash = '#start-a-trace';").await;
    browser.wait_for(&watched("watched.scene"), json!(7)).await;
    let half = format!(
        "const seek = document.querySelector('.try input'); {seven}; seek.dispatchEvent(new Event('input'));
         {WATCHED} return watched.spans > 0 && watched.spans < 7;"
    );
    assert_eq!(browser.run(&half).await, true);
    // To the end: by the bar, and then by itself.
    browser.run("document.querySelector('.try input').focus();").await;
    browser.strike(key::END).await;
    for _ in 0..5 {
        browser.strike(key::LEFT).await;
    }
    browser.run("document.querySelector('.try [name=play]').focus();").await;
    browser.strike(key::ENTER).await;
    let over = "const seek = document.querySelector('.try input'); return [seek.value === seek.max, document.querySelector('.try [name=play]').textContent];";
    browser.wait_for(over, json!([true, "Play"])).await;
    assert_eq!(
        browser.run(&watched("watched.scene")).await,
        browser.run("return document.querySelectorAll('#walkthrough h2').length;").await
    );
}

async fn stands_still_without_motion_and_on_paper(browser: &Browser) {
    browser.look_as("screen", true).await;
    let play = "return document.querySelector('.try [name=play]').checkVisibility();";
    browser.wait_for(play, json!(false)).await;
    // Wherever the bar stands, the scene is there as it ends.
    seek(browser, "1").await;
    let whole = format!("{WATCHED} return [watched.scene, watched.lines];");
    assert_eq!(browser.run(&whole).await, json!([1, 6]));

    browser.look_as("print", false).await;
    browser.run("dispatchEvent(new Event('beforeprint'));").await;
    let paper = "const seen = css => [...document.querySelectorAll(css)].filter(it => it.checkVisibility({ visibilityProperty: true })).length;
        return [seen('.try'), seen('.scene'), seen('.still tbody tr'), seen('#walkthrough h2') - document.querySelectorAll('#walkthrough h2').length];";
    assert_eq!(browser.run(paper).await, json!([0, 1, 7, 0]));
    browser.look_as("screen", false).await;
    browser.run("dispatchEvent(new Event('afterprint'));").await;
    let scenes = "return document.querySelectorAll('#walkthrough section:not([hidden])').length;";
    assert_eq!(browser.run(scenes).await, 1);
}

/// Without a script, every scene of the walkthrough is on the page, and nothing of it is hidden.
fn is_whole_without_a_script(page: &str) {
    let path = "src/walkthrough.md";
    let source = fs::read_to_string(support::root().join(path)).expect("the page");
    let main = page.split("<main>").nth(1).expect("the text of the page");
    let main = main.split("</main>").next().expect("its end");
    let scenes = includes(path, &source).len();
    assert_eq!(main.matches("<div class=\"scene\">").count(), scenes);
    assert_eq!(main.matches("<table class=\"waterfall\"").count(), 8);
    for hides in [" hidden", "display:", "{{#include", "<details"] {
        assert!(!main.contains(hides), "{hides}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_use_them() {
    let Some(axe) = axe() else {
        return;
    };
    let address = serve_book(Store::new(Limits::default()), Wire::default()).await;
    for look in [WIDE, (500, true)] {
        let Some(browser) = open(address, "/404.html", look).await else {
            return;
        };
        browser.bring(&axe).await;
        for path in [FAULT_LAB, DIAGNOSE] {
            browser.go(path).await;
            // With an outcome.
            let fill = "const form = document.querySelector('.try form');
                if (form.guess) { form.guess.value = '2'; } else { form.text.value = await (await fetch('../recordings/diagnose/fallen-apart.json')).text(); }
                form.requestSubmit();";
            browser.run(fill).await;
            browser
                .wait_for(
                    "return document.querySelector('.try div.outcome').childElementCount > 0;",
                    json!(true),
                )
                .await;
            let what = format!("{path} {look:?}");
            browser.is_for_everybody(&what).await;
        }
        // As it stands, and as it plays.
        let page = format!("{WALKTHROUGH}#start-a-trace");
        browser.go(&page).await;
        if look != WIDE {
            browser.click(".try [name=play]").await;
        }
        let what = format!("{page} {look:?}");
        browser.is_for_everybody(&what).await;
    }
}
