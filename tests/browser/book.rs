//! The pages of the book that one can try, in a real browser: the fault lab, recorded and live, "paste your trace", which
//! must show the same report as the lab, and the walkthrough. Keys alone must be enough for each.

#[path = "../../crates/browser_diagnosis/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::{NO_ERRORS, between, only};
use clap::ValueEnum as _;
use course::hops::HOPS;
use course::{book, site};
use flate2::Compression;
use flate2::read::GzEncoder;
use lab::case::Case;
use lab::diagnose::Rule;
use lab::report::{self, Links};
use lab::server;
use lab::store::{Limits, Store};
use lab::wire::{Fault, Wire};
use serde_json::json;
use support::browser::{Browser, Look, WIDE, key};
use support::includes::includes;
use support::skips::axe;
use support::{Setup, empty_folder, recording, root, serve};
use tokio::sync::watch;

const FAULT_LAB: &str = "/after/fault-lab.html";
const DIAGNOSE: &str = "/how-to/diagnose.html";
const WALKTHROUGH: &str = "/walkthrough.html";

/// The book as the lab builds it, once.
fn built() -> &'static Path {
    static PAGES: LazyLock<PathBuf> =
        LazyLock::new(|| book::build(&root(), &empty_folder("book")).expect("the book is built"));
    &PAGES
}

/// Opens a page of the book as a lab serves it that runs no services.
async fn open(path: &str, look: Look) -> Option<Browser> {
    open_with(Store::new(Limits::default()), Wire::default(), path, look).await
}

/// Opens a page of the book as the lab of this store and wire serves it.
async fn open_with(store: Store, wire: Wire, path: &str, look: Look) -> Option<Browser> {
    let (_built, pages) = watch::channel(Some(built().to_owned()));
    let pages = server::protected(site::pages(store, wire, Some(pages)));
    let address = serve(pages).await;
    super::open(address, path, look).await
}

const STATUS: &str = "text('.try [role=status]')";
const HEADING: &str = "text('.try div.outcome h3')";

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_trace_is_told_what_the_lab_tells() {
    let Some(browser) = open(DIAGNOSE, WIDE).await else { return };
    let recorded = ["", "-near"].into_iter().flat_map(|what| {
        let name = move |rule: Rule| format!("diagnose/{}{what}.json", rule.name());
        Rule::ALL.map(|rule| recording::folder().join(name(rule)))
    });
    let recorded = recorded.map(|path| fs::read_to_string(path).expect("a recording"));
    let unreadable =
        ["hello", "traceparent: 00-1-2-3", "{\"resourceSpans\": [", "\u{fffd}\u{202e}<b>"];
    let links = Links { book: Some("../"), span: &|_| None };
    let cases = recorded.chain(unreadable.map(str::to_owned)).map(|text| {
        let report = match Case::read(text.as_bytes()) {
            Ok(case) => report::case(&case, &links),
            Err(problem) => report::problem(&problem),
        };
        [text, report.into_string()]
    });
    let cases: Vec<[String; 2]> = cases.collect();
    let different = browser.run_with(
        "const form = $('.try form'), outcome = $('.try div.outcome'), different = [];
         for (const [text, report] of given) {
             outcome.replaceChildren();
             form.text.value = text;
             form.requestSubmit();
             while (!outcome.firstChild) await frame();
             // As the browser would write it.
             const expected = document.createElement('div');
             expected.innerHTML = report;
             if (outcome.innerHTML !== expected.innerHTML) different.push([text, outcome.innerHTML]);
         }
         return different;",
        json!(cases),
    );
    assert_eq!(different.await, json!([]));
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[test]
fn the_program_of_the_page_is_not_stale() {
    let program = fs::read(root().join("src/how-to/diagnose.wasm")).expect("the program");
    let sources = sources::state_of_sources(&root().join("crates")).expect("the sources");
    let found = program.windows(sources.len()).any(|it| it == sources.as_bytes());
    assert!(found, "src/how-to/diagnose.wasm is stale: run crates/browser_diagnosis/build.sh");
    let mut packed = GzEncoder::new(&program[..], Compression::best());
    let packed = std::io::copy(&mut packed, &mut std::io::sink()).expect("packed");
    assert!(packed < 300_000, "{packed} bytes, packed, are too many for a page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_pasted_with_keys_alone() {
    let Some(browser) = open(DIAGNOSE, WIDE).await else { return };
    // The last link before the form.
    browser.run("$$('main a').filter(it => it.compareDocumentPosition($('#pasted')) & 4).at(-1).focus();").await;
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    // Tab leads into the form, then to a file, an example, and the button.
    browser.press(&[key::TAB, header, key::TAB, key::TAB, key::TAB, key::ENTER].concat()).await;
    browser.wait_for(STATUS, "1 finding.").await;
    browser.shows("text('.try div.outcome').includes('byte 52')", true).await;
    // An example, by its first letters.
    browser.run("$('.try [name=example]').focus();").await;
    browser.press(&["Clocks", key::TAB].concat()).await;
    browser.wait_for("text('.try div.outcome').includes('Clocks differ')", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_of_a_change_copies_the_added_lines() {
    let Some(browser) = open("/tutorial/llm-service.html", WIDE).await else { return };
    // mdBook's button copies what this function returns. A script may not click it: copying needs a person.
    let copied = |css| format!("playground_text($('{css}').closest('pre'), false)");
    let added = "pub mod incoming;\npub mod telemetry;";
    browser.shows(&copied("code.language-diff"), added).await;
    let listing = copied("code.language-rust") + ".startsWith('//! Collects')";
    browser.shows(&listing, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_lab_is_used_with_keys_alone_and_shows_what_was_recorded() {
    let Some(browser) = open(FAULT_LAB, WIDE).await else { return };
    // This lab runs no services.
    browser.shows("$('.own').hidden", true).await;
    browser.run("$('.try select').focus();").await;
    let [tab, right, enter] = [key::TAB, key::RIGHT, key::ENTER];
    let keys = ["user-llm", tab, "drop-traceparent", tab, " ", right, tab, enter];
    browser.press(&keys.concat()).await;
    browser.wait_for(STATUS, "Right: 2 traces.").await;
    browser.shows(HEADING, "drop-traceparent on user-llm").await;
    // The other cases open for print and for a link to one of them.
    let open = "$('#fault-cases').closest('details').open";
    browser.shows(open, false).await;
    for (event, is_open) in [("beforeprint", true), ("afterprint", false)] {
        browser.run(&format!("dispatchEvent(new Event('{event}'));")).await;
        browser.shows(open, is_open).await;
    }
    browser.run("location.hash = '#cut-user-llm';").await;
    browser.wait_for(open, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_lab_sends_a_request_through_the_readers_own_services() {
    let setup = Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 50);
    let system = setup.wired().start().await;
    let (store, wire) = (system.store.clone(), system.wire.clone());
    let Some(browser) = open_with(store, wire, FAULT_LAB, WIDE).await else { return };
    browser.wait_for("$('.own').hidden", false).await;
    let seen = system.wire.exchanges().len();
    let ask = "const form = $('.try form');
        [form.hop.value, form.fault.value, form.guess.value] = ['gateway-user', 'clear-sampled', '3'];
        form.requestSubmit();";
    browser.run(ask).await;
    browser.wait_for(STATUS, "You said 3 traces; there is 1 trace.").await;
    browser.shows(HEADING, "clear-sampled on gateway-user, just now").await;
    assert_eq!(system.wire.exchanges().len(), seen + 3);
    let faults = HOPS.map(|hop| system.wire.fault(hop.name));
    assert_eq!(faults, [None; 3], "the page restores the faults that it has set");
    assert_eq!(browser.errors().await, NO_ERRORS);
    system.stop().await;
}

#[tokio::test]
async fn all_cases_are_on_the_page_without_a_script() {
    let page = fs::read_to_string(built().join(&FAULT_LAB[1..])).expect("the page");
    let ids = between(&page, "<section class=\"fault\" id=\"", "\"");
    let ids: BTreeSet<String> = ids.into_iter().map(str::to_owned).collect();
    let faults = Fault::value_variants().iter();
    let cases = faults.flat_map(|it| HOPS.map(|hop| format!("{}-{}", it.name(), hop.name)));
    assert_eq!(ids, cases.collect());
}

/// The state of the walkthrough, as an object.
const STATE: &str = "(() => {
    const scene = $('#walkthrough section:not([hidden]) .scene');
    const seen = css => [...scene.querySelectorAll(css)].filter(it => it.checkVisibility({ visibilityProperty: true })).length;
    return {
        scene: parseInt(text('.try [role=status]')),
        button: text('.try [name=play]'),
        typed: [...scene.querySelectorAll('kbd')].some(it => it.firstChild.data.length > 0),
        spans: seen('tbody tr'),
        lines: seen('samp'),
    };
})()";

/// Some parts of it, as an array.
fn state(parts: &str) -> String {
    format!("(({{ {parts} }}) => [{parts}])({STATE})")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walkthrough_is_for_those_with_keys_alone_without_motion_without_a_script_and_on_paper()
{
    is_whole_without_a_script();
    let Some(browser) = open(WALKTHROUGH, WIDE).await else { return };
    is_watched_with_keys_alone(&browser).await;
    stands_still_without_motion_and_on_paper(&browser).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

/// Without a script, every scene of the walkthrough is on the page, and none of it is hidden.
fn is_whole_without_a_script() {
    let page = fs::read_to_string(built().join(&WALKTHROUGH[1..])).expect("the page");
    let source = fs::read_to_string(root().join("src/walkthrough.md")).expect("its source");
    let main = only(&page, "<main>", "</main>");
    let count = |part: &str| main.matches(part).count();
    let scenes = includes("src/walkthrough.md", &source).len();
    assert_eq!(count("<div class=\"scene\">"), scenes);
    assert_eq!(count("<table class=\"waterfall\""), 12);
    let hiding = [" hidden", "display:", "{{#include", "<details"];
    assert_eq!(hiding.map(count), [0; 4], "{hiding:?}");
}

async fn is_watched_with_keys_alone(browser: &Browser) {
    // Nothing plays by itself: the first scene stands there as it ends.
    browser.shows(&state("scene, button, lines"), json!([1, "Play", 6])).await;
    // The arrows go from scene to scene, and the book doesn't turn its page.
    browser.run("$('.try [name=play]').focus();").await;
    browser.press(&key::RIGHT.repeat(7)).await;
    browser.wait_for(&state("scene, spans"), json!([8, 7])).await;
    browser.press(key::LEFT).await;
    browser.wait_for(&state("scene, spans"), json!([7, 5])).await;
    // A scene begins empty. Its command is typed letter by letter and stops where it is paused.
    browser.press(key::ENTER).await;
    let playing = state("scene, button, spans, typed");
    browser.wait_for(&playing, json!([7, "Pause", 0, true])).await;
    browser.press(" ").await;
    browser.wait_for(&state("button"), json!(["Play"])).await;
    let stands = "const before = $('.try input').value;
        for (let frames = 0; frames < 10; frames++) await frame();
        return before === $('.try input').value;";
    assert_eq!(browser.run(stands).await, true);
    // Halfway through the time of a trace, half of it is there.
    browser.run("location.hash = '#start-the-trace';").await;
    browser.wait_for(&state("scene"), json!([8])).await;
    seek(browser, "Number(seek.value) + Number($('.still .traces').dataset.at) + 1000").await;
    browser.shows(&format!("({STATE}).spans > 0 && ({STATE}).spans < 7"), true).await;
    // To the end: by the bar, and then by itself.
    browser.run("$('.try input').focus();").await;
    browser.press(&[key::END, &key::LEFT.repeat(5)].concat()).await;
    browser.run("$('.try [name=play]').focus();").await;
    browser.press(key::ENTER).await;
    let at_end = "[$('.try input').value === $('.try input').max, text('.try [name=play]')]";
    browser.wait_for(at_end, json!([true, "Play"])).await;
    browser.shows(&format!("({STATE}).scene === $$('#walkthrough h2').length"), true).await;
}

/// Moves the bar of the walkthrough to a time in milliseconds.
async fn seek(browser: &Browser, time: &str) {
    let script = format!(
        "const seek = $('.try input'); seek.value = {time}; seek.dispatchEvent(new Event('input'));"
    );
    browser.run(&script).await;
}

async fn stands_still_without_motion_and_on_paper(browser: &Browser) {
    browser.look_as("screen", true).await;
    browser.wait_for("$('.try [name=play]').checkVisibility()", false).await;
    // Wherever the bar stands, the scene is there as it ends.
    seek(browser, "1").await;
    browser.shows(&state("scene, lines"), json!([1, 6])).await;

    browser.look_as("print", false).await;
    browser.run("dispatchEvent(new Event('beforeprint'));").await;
    let paper = "const seen = css => $$(css).filter(it => it.checkVisibility({ visibilityProperty: true })).length;
        return [seen('.try'), seen('.scene'), seen('.still tbody tr'), seen('#walkthrough h2') - $$('#walkthrough h2').length];";
    assert_eq!(browser.run(paper).await, json!([0, 1, 7, 0]));
    browser.look_as("screen", false).await;
    browser.run("dispatchEvent(new Event('afterprint'));").await;
    browser.shows("$$('#walkthrough section:not([hidden])').length", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_use_them() {
    let Some(axe) = axe() else { return };
    for look in [WIDE, (500, true)] {
        let Some(browser) = open("/404.html", look).await else { return };
        browser.bring(&axe).await;
        for path in [FAULT_LAB, DIAGNOSE] {
            browser.go(path).await;
            // With an outcome.
            let fill = "const form = $('.try form');
                if (form.guess) form.guess.value = '2';
                else form.text.value = await (await fetch('../recordings/diagnose/fallen-apart.json')).text();
                form.requestSubmit();";
            browser.run(fill).await;
            browser.wait_for("$('.try div.outcome').childElementCount > 0", true).await;
            browser.is_for_everybody(&format!("{path} {look:?}")).await;
        }
        // As it stands in one look, and as it plays in the other.
        browser.go(&format!("{WALKTHROUGH}#start-a-trace")).await;
        if look != WIDE {
            browser.click(".try [name=play]").await;
        }
        browser.is_for_everybody(&format!("{WALKTHROUGH} {look:?}")).await;
    }
}
