//! The viewer in a real browser: its live updates, its keys, and its accessibility.

use std::net::SocketAddr;

use super::{NO_ERRORS, open};
use course::hops::HOPS;
use lab::proto::trace::{Span, Status};
use lab::wire::Fault;
use serde_json::json;
use support::browser::{WIDE, key};
use support::in_process::{Lab, attribute, json_body, span, trace_path};
use support::skips::axe;
use support::{FREE, client, until};
use tokio::net::TcpListener;

/// A trace of a root with two children, the first of which has a child too.
fn family() -> Vec<Span> {
    [(1, 0, "root"), (2, 1, "left"), (3, 2, "leaf"), (4, 1, "right")]
        .map(|(id, parent, name)| span(1, id, parent, name))
        .to_vec()
}

/// The names of the visible rows of a trace.
const ROWS: &str = "texts('[role=treegrid] tbody tr:not([hidden]) a')";
const ROW_COUNT: &str = "$$('[role=treegrid] tbody tr').length";
const TRACES: &str = "$$('table.traces th a').map(it => it.firstChild.textContent)";
/// The heading of the span that is shown in detail.
const DETAIL: &str = "text('#span h2')";
const RESULTS: &str = "return $('#results').innerHTML;";

#[tokio::test(flavor = "multi_thread")]
async fn the_list_and_the_trace_are_live() {
    let lab = Lab::start().await;
    let Some(browser) = open(lab.address, "/traces", WIDE).await else { return };
    browser.shows("text('#results').startsWith('No trace yet')", true).await;
    browser.run("window.same = true;").await;
    lab.export_spans(family()).await;
    browser.click("table.traces th a").await;
    browser.arrives_at(&trace_path(1)).await;
    browser.wait_for("$('[role=treegrid]') !== null", true).await;
    // A click on a trace leads to another page.
    browser.shows("window.same ?? null", ()).await;

    // After a late span, collapsed rows stay collapsed, and the focus stays where it was.
    browser.run("window.same = true; $('[role=treegrid] tbody tr').focus();").await;
    browser.press(&[key::DOWN, key::LEFT].concat()).await;
    browser.shows(ROWS, ["root", "left", "right"]).await;
    lab.export_spans(vec![span(1, 5, 1, "late")]).await;
    browser.wait_for(ROW_COUNT, 5).await;
    browser.shows(ROWS, ["root", "left", "right", "late"]).await;
    let kept = "[document.activeElement.id, window.same]";
    browser.shows(kept, json!(["s0000000000000002", true])).await;
    // Only the spans of this trace change the page.
    let before = browser.run(RESULTS).await;
    lab.export_spans(vec![span(2, 1, 0, "other")]).await;
    lab.export_spans(vec![span(1, 6, 1, "later")]).await;
    browser.wait_for(ROW_COUNT, 6).await;
    assert_ne!(browser.run(RESULTS).await, before);
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_with_keys_alone_and_the_address_can_be_shared() {
    let lab = Lab::start().await;
    lab.export_of("shop", vec![span(1, 1, 0, "GET /cart")]).await;
    lab.export_of("mail", vec![span(2, 1, 0, "send"), span(3, 1, 0, "receive")]).await;
    let Some(browser) = open(lab.address, "/traces", WIDE).await else { return };
    browser.press(&["/SEND", key::ENTER].concat()).await;
    browser.arrives_at("text=SEND").await;
    browser.wait_for(TRACES, ["send"]).await;
    let query = browser.run("return location.search;").await;
    let query = query.as_str().expect("text");
    assert!(query.contains("text=SEND"), "{query}");

    // The address shows the same elsewhere, and the filter also applies to later traces.
    browser.go("/traces").await;
    browser.go(&format!("/traces{query}")).await;
    lab.export_of("mail", vec![span(4, 1, 0, "send again"), span(5, 1, 0, "receive")]).await;
    browser.wait_for(TRACES, ["send again", "send"]).await;

    // Letters lead from trace to trace, and Enter into one.
    browser.go("/traces?service=mail").await;
    for (keys, trace) in [("jjk", "receive"), ("j", "send again")] {
        browser.press(keys).await;
        browser.shows("document.activeElement.firstChild.textContent", trace).await;
    }
    browser.press(key::ENTER).await;
    browser.arrives_at(&trace_path(4)).await;
}

/// Live updates can be paused, and don't undo what the reader does.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_waits_for_its_reader() {
    let lab = Lab::start().await;
    lab.export_spans(family()).await;
    let Some(browser) = open(lab.address, "/traces", WIDE).await else { return };
    let (count, label) = ("$$('table.traces tbody tr').length", "text('button.live')");
    browser.shows(label, "Live: pause").await;
    browser.click("button.live").await;
    lab.export_spans(vec![span(2, 1, 0, "second")]).await;
    // The lab has the trace by now.
    let arrived = "fetch('/traces').then(it => it.text()).then(it => it.includes('second'))";
    browser.wait_for(arrived, true).await;
    browser.shows(&format!("[{count}, {label}]"), json!([1, "Paused: go on"])).await;
    browser.click("button.live").await;
    browser.wait_for(count, 2).await;

    // Selected text stays selected.
    browser.run("getSelection().selectAllChildren($('code.id'));").await;
    lab.export_spans(vec![span(3, 1, 0, "third")]).await;
    browser.wait_for(label, "Something new: show").await;
    browser.shows("getSelection().toString().length", 32).await;
    browser.click("button.live").await;
    browser.wait_for(count, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grid_is_walked_with_keys_alone() {
    let lab = Lab::start().await;
    lab.export_of("shop", family()).await;
    let Some(browser) = open(lab.address, &trace_path(1), WIDE).await else { return };
    let focused =
        "document.activeElement.querySelector('a')?.textContent ?? document.activeElement.id";
    // The grid is one stop of the Tab key.
    let before = "$('.actions > :last-child').focus();";
    browser.run(before).await;
    browser.press(key::TAB).await;
    browser.shows(focused, "root").await;
    browser.press(key::TAB).await;
    browser.shows("document.activeElement.closest('[role=treegrid]') === null", true).await;
    browser.run(before).await;
    for (key, row) in [
        (key::TAB, "root"),
        (key::DOWN, "left"),
        (key::RIGHT, "leaf"),
        (key::DOWN, "right"),
        (key::UP, "leaf"),
        (key::LEFT, "left"),
        (key::END, "right"),
        (key::HOME, "root"),
    ] {
        browser.press(key).await;
        browser.shows(focused, row).await;
    }
    browser.press(key::LEFT).await;
    browser.shows(ROWS, ["root"]).await;
    browser.shows("document.activeElement.getAttribute('aria-expanded')", "false").await;
    browser.press(" ").await;
    browser.shows(ROWS, ["root", "left", "leaf", "right"]).await;

    // Enter shows one span in detail, and Escape goes back to its row.
    browser.press(&[key::DOWN, key::ENTER].concat()).await;
    browser.wait_for(DETAIL, "left").await;
    let place = "[document.activeElement.id, location.search]";
    browser.shows(place, ["span", "?span=0000000000000002"]).await;
    browser.press(key::ESCAPE).await;
    let closed = format!("[{focused}, location.search, $('#span').hidden]");
    browser.shows(&closed, json!(["left", "", true])).await;
    // Letters lead from span to span while the detail is open.
    browser.press(key::ENTER).await;
    browser.wait_for("document.activeElement.id", "span").await;
    for (key, span) in [("j", "leaf"), ("k", "left")] {
        browser.press(key).await;
        browser.wait_for(DETAIL, span).await;
    }
    browser.press(key::ESCAPE).await;
    // The browser's own way back leads to the span again.
    browser.back().await;
    browser.wait_for("$('#span').hidden", false).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_span_says_is_text() {
    let lab = Lab::start().await;
    let long = "long ".repeat(1024 * 1024 / 5);
    let evil = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    let template = "{{7*7}} ${7*7} javascript:alert(3)";
    let mut root = span(1, 1, 0, evil);
    root.attributes = vec![
        attribute("markup", evil),
        attribute("unbroken", &"x".repeat(900)),
        attribute("long", &long),
        attribute("control", "a\u{0}b\u{1b}[31mc"),
        attribute("arabic", "\u{645}\u{631}\u{62d}\u{628}\u{627} 123"),
        attribute("turned", "\u{202e}gpj.exe"),
        attribute("\"><b>key", "x"),
        attribute("template", template),
    ];
    root.status = Some(Status { code: 2, message: evil.to_owned() });
    lab.export_of(evil, vec![root]).await;
    let detail = format!("{}?span=0000000000000001", trace_path(1));
    let Some(browser) = open(lab.address, &detail, WIDE).await else { return };
    for (key, value) in [
        ("markup", evil),
        ("control", "a\\u{0}b\\u{1b}[31mc"),
        ("turned", "\u{202e}gpj.exe"),
        ("\"><b>key", "x"),
        ("template", template),
    ] {
        let shown = format!(
            "$$('#span dt').find(it => it.textContent === {key:?}).nextSibling.firstChild.textContent"
        );
        browser.shows(&shown, value).await;
    }
    browser.shows("text('#span dd details pre')", long).await;
    for path in ["/traces", "/traces/map", &trace_path(1), &detail] {
        browser.go(path).await;
        // An alert would fail this command, and markup would have become an element. Turned text turns nothing outside itself,
        // and long text widens neither the page nor the detail.
        let seen = "[$$('main img, main script, main b, #span b').length,
            [document.documentElement, $('#span')].every(it => !it || it.scrollWidth <= it.clientWidth)]";
        browser.shows(seen, json!([0, true])).await;
    }
    let isolated = "$$('#span dd').every(it => getComputedStyle(it.firstElementChild ?? it).unicodeBidi !== 'normal' || !/[\\u202e]/.test(it.textContent))";
    browser.shows(isolated, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_dropped_is_shown() {
    let lab = Lab::start().await;
    let Some(browser) = open(lab.address, "/traces", WIDE).await else { return };
    let drop = async |text: String| {
        let drop = "const files = new DataTransfer();
             files.items.add(new File([given], 'trace.json'));
             document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true }));";
        browser.run_with(drop, text.into()).await
    };
    drop("not a trace".to_owned()).await;
    let refused =
        "text('#problem').startsWith('trace.json was not taken: there is no trace in it')";
    browser.wait_for(refused, true).await;
    // The page still shows the problem when the list has changed.
    drop(format!("{}\n{{bad", json_body())).await;
    let partly = "$$('table.traces tbody tr').length > 0
        && /spans taken: 1; parts that can't be read: 1. The first: line 2: not JSON/.test(text('#problem'))";
    browser.wait_for(partly, true).await;
    drop(json_body().to_string()).await;
    browser.arrives_at(&trace_path(0x0a)).await;
    browser.wait_for("$('[role=treegrid]') !== null", true).await;
    // The button copies the same as the download.
    let download = lab.get_json(&format!("{}.json", trace_path(0x0a))).await;
    let copied = browser.run(
        "let text;
         navigator.clipboard.writeText = async it => { text = it; };
         $('.actions button').click();
         while (text === undefined) await frame();
         return JSON.parse(text);",
    );
    assert_eq!(copied.await, download);
}

/// Puts a proxy before the lab, as before a service. Returns its address.
async fn serve_hop(lab: &Lab) -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    lab.wire.serve(HOPS[1], listener, lab.address).expect("an address")
}

/// The form on the wire's page must pass the policy of the page and the lab's check of the sender.
#[tokio::test(flavor = "multi_thread")]
async fn a_hop_is_broken_on_the_page_with_keys_alone() {
    let lab = Lab::start().await;
    serve_hop(&lab).await;
    let Some(browser) = open(lab.address, "/wire", WIDE).await else { return };
    for (option, fault) in [("clear-sampled", Some(Fault::ClearSampled)), ("no fault", None)] {
        browser.run("$('.hop select').focus();").await;
        browser.press(&[option, key::TAB, key::ENTER].concat()).await;
        // A script that waits would go with its page.
        until(async || match lab.wire.fault(HOPS[1].name) {
            now if now == fault => Ok(()),
            now => Err(format!("{now:?}")),
        })
        .await;
        browser.go("/wire").await;
        browser.shows("$('.hop select').value", fault.map_or(String::new(), Fault::name)).await;
    }
}

/// The requests are live, and an update undoes nothing that the reader has done.
#[tokio::test(flavor = "multi_thread")]
async fn the_requests_on_the_wire_are_live() {
    let lab = Lab::start().await;
    let url = format!("http://{}/traces", serve_hop(&lab).await);
    let send = async || {
        let answer = client().get(&url).header("x-order", "7").send().await;
        assert_eq!(answer.expect("an answer").status(), 200);
    };
    let Some(browser) = open(lab.address, "/wire", WIDE).await else { return };
    browser.run("window.same = true;").await;
    send().await;
    browser.wait_for("texts('.requests th code')", ["GET /traces"]).await;
    browser.click("#request0 summary").await;
    browser.run("$('.hop select').value = 'cut';").await;
    send().await;
    browser.wait_for("$$('.requests tbody').length", 2).await;
    let kept = "[window.same, $('#request0').open, $('#request1').open, $('.hop select').value]";
    browser.shows(kept, json!([true, true, false, "cut"])).await;
    browser.shows("text('#request0 .headers').includes('x-order: 7')", true).await;
    // A fault that is set elsewhere.
    lab.wire.set(HOPS[1].name, Some(Fault::DropBaggage));
    browser.wait_for("text('.hop .broken')", "Broken: drop-baggage").await;
    browser.shows("[window.same, $('.hop select').value]", json!([true, "drop-baggage"])).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_use_it() {
    let Some(axe) = axe() else { return };
    let lab = Lab::start().await;
    lab.export_of("shop", family()).await;
    let mut failed = span(2, 2, 99, "SELECT");
    failed.status = Some(Status { code: 2, message: "gone".to_owned() });
    failed.attributes = vec![attribute("long", &"line\n".repeat(100)), attribute("short", "x")];
    lab.export_of("database", vec![failed, span(1, 9, 3, "INSERT")]).await;
    // With a hop, and a request on it.
    lab.wire.set(HOPS[1].name, Some(Fault::DropTraceparent));
    let url = format!("http://{}/traces", serve_hop(&lab).await);
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = client().get(url).header("traceparent", header);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let lists = ["/traces", "/traces?min=soon", "/traces?text=nothing", "/traces/map", "/wire"];
    let detail = format!("{}?span=0000000000000002", trace_path(2));
    let paths = [trace_path(1), detail, trace_path(7)].into_iter();
    let paths: Vec<String> = paths.chain(lists.map(str::to_owned)).collect();
    // Colours don't depend on the width, nor the layout on the colours.
    for look in [WIDE, (500, true)] {
        let Some(browser) = open(lab.address, "/traces", look).await else { return };
        browser.bring(&axe).await;
        for path in &paths {
            browser.go(path).await;
            browser.shows("matchMedia('(prefers-color-scheme: dark)').matches", look.1).await;
            browser.is_for_everybody(&format!("{path} {look:?}")).await;
        }
    }
}
