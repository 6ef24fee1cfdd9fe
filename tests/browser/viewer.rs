//! The viewer in a real browser: what is live, what keys do, and whether everybody can use it.

use crate::support;
use crate::support::browser;
use crate::support::browser::{Browser, WIDE, key};
use crate::support::in_process::{JSON, Lab, attribute, json_body, span, trace_path};
use crate::support::skips::{axe, browser_is_missing};
use course::hops::HOPS;
use lab::wire::Fault;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::Status;
use serde_json::{Value, json};

/// Opens `path` of the lab; `None` where there is no browser.
async fn open(lab: &Lab, path: &str, look: browser::Look) -> Option<Browser> {
    if browser_is_missing() {
        return None;
    }
    Some(Browser::open(lab.address, path, look).await)
}

/// A trace of a root with two children, the first of which has one of its own.
fn family() -> Vec<Span> {
    vec![
        span(1, 1, 0, "root"),
        span(1, 2, 1, "left"),
        span(1, 3, 2, "leaf"),
        span(1, 4, 1, "right"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_and_the_trace_are_live() {
    let lab = Lab::start().await;
    let Some(browser) = open(&lab, "/traces", WIDE).await else {
        return;
    };
    let text = browser.run("return document.getElementById('results').textContent;").await;
    assert!(text.as_str().is_some_and(|it| it.starts_with("No trace yet")), "{text}");
    browser.run("window.same = true;").await;
    lab.export_spans(family()).await;
    browser.click("table.traces th a").await;
    browser.arrives_at(&trace_path(1)).await;
    browser
        .wait_for("return document.querySelector('[role=treegrid]') !== null;", json!(true))
        .await;
    assert_eq!(browser.run("return window.same ?? null;").await, Value::Null, "another page");

    // A late span; what was collapsed stays so, and the focus where it was.
    browser.run("window.same = true;").await;
    browser.run("document.querySelector('[role=treegrid] tbody tr').focus();").await;
    browser.press(key::DOWN).await;
    browser.press(key::LEFT).await;
    assert_eq!(browser.rows().await, ["root", "left", "right"]);
    lab.export_spans(vec![span(1, 5, 1, "late")]).await;
    browser
        .wait_for("return document.querySelectorAll('[role=treegrid] tbody tr').length;", json!(5))
        .await;
    assert_eq!(browser.rows().await, ["root", "left", "right", "late"]);
    assert_eq!(
        browser.run("return [document.activeElement.id, window.same];").await,
        json!(["s0000000000000002", true])
    );
    // A trace of somebody else is none of its business.
    let before = browser.run("return document.getElementById('results').innerHTML;").await;
    lab.export_spans(vec![span(2, 1, 0, "other")]).await;
    lab.export_spans(vec![span(1, 6, 1, "later")]).await;
    browser
        .wait_for("return document.querySelectorAll('[role=treegrid] tbody tr').length;", json!(6))
        .await;
    assert_ne!(browser.run("return document.getElementById('results').innerHTML;").await, before);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_with_keys_alone_and_the_address_can_be_shared() {
    let lab = Lab::start().await;
    lab.export_of("shop", vec![span(1, 1, 0, "GET /cart")]).await;
    lab.export_of("mail", vec![span(2, 1, 0, "send"), span(3, 1, 0, "receive")]).await;
    let Some(browser) = open(&lab, "/traces", WIDE).await else {
        return;
    };
    browser.press("/").await;
    browser.press(&format!("SEND{}", key::ENTER)).await;
    browser.arrives_at("text=SEND").await;
    let names = "return [...document.querySelectorAll('table.traces th a')].map(it => it.firstChild.textContent);";
    browser.wait_for(names, json!(["send"])).await;
    let query = browser.run("return location.search;").await;
    let query = query.as_str().expect("text");
    assert!(query.contains("text=SEND"), "{query}");

    // Shared, it shows the same; and what comes later is held against it too.
    browser.go("/traces").await;
    browser.go(&format!("/traces{query}")).await;
    lab.export_of("mail", vec![span(4, 1, 0, "send again"), span(5, 1, 0, "receive")]).await;
    browser.wait_for(names, json!(["send again", "send"])).await;

    // From trace to trace, and into one; by letters, until they are switched off.
    browser.go("/traces?service=mail").await;
    browser.press("jj").await;
    browser.press("k").await;
    let focused = "return document.activeElement.firstChild.textContent;";
    assert_eq!(browser.run(focused).await, "receive");
    browser.press("j").await;
    assert_eq!(browser.run(focused).await, "send again");
    browser.press(key::ENTER).await;
    browser.arrives_at(&trace_path(4)).await;
}

/// What moves by itself can be paused, and what the reader does is not undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_waits_for_its_reader() {
    let lab = Lab::start().await;
    lab.export_spans(family()).await;
    let Some(browser) = open(&lab, "/traces", WIDE).await else {
        return;
    };
    let rows = "return document.querySelectorAll('table.traces tbody tr').length;";
    let label = "return document.querySelector('button.live').textContent;";
    assert_eq!(browser.run(label).await, "Live: pause");
    browser.click("button.live").await;
    lab.export_spans(vec![span(2, 1, 0, "second")]).await;
    // Another page is told of the same event.
    browser
        .wait_for("return (await (await fetch('/traces')).text()).includes('second');", json!(true))
        .await;
    assert_eq!(
        (browser.run(rows).await, browser.run(label).await),
        (json!(1), json!("Paused: go on"))
    );
    browser.click("button.live").await;
    browser.wait_for(rows, json!(2)).await;

    // A text that is marked stays so.
    browser.run("getSelection().selectAllChildren(document.querySelector('code.id'));").await;
    lab.export_spans(vec![span(3, 1, 0, "third")]).await;
    browser.wait_for(label, json!("Something new: show")).await;
    assert_eq!(browser.run("return getSelection().toString().length;").await, 32);
    browser.click("button.live").await;
    browser.wait_for(rows, json!(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grid_is_walked_with_keys_alone() {
    let lab = Lab::start().await;
    lab.export_spans(family()).await;
    let Some(browser) = open(&lab, &trace_path(1), WIDE).await else {
        return;
    };
    let focused = "return document.activeElement.querySelector('a')?.textContent ?? document.activeElement.id;";
    // The grid is one stop of the Tab key.
    let before = "document.querySelector('.actions > :last-child').focus();";
    browser.run(before).await;
    browser.press(key::TAB).await;
    assert_eq!(browser.run(focused).await, "root");
    browser.press(key::TAB).await;
    let within = "return document.activeElement.closest('[role=treegrid]') !== null;";
    assert_eq!(browser.run(within).await, false);
    browser.run(before).await;
    browser.press(key::TAB).await;
    for (key, row) in [
        (key::DOWN, "left"),
        (key::RIGHT, "leaf"),
        (key::DOWN, "right"),
        (key::UP, "leaf"),
        (key::LEFT, "left"),
        (key::END, "right"),
        (key::HOME, "root"),
    ] {
        browser.press(key).await;
        assert_eq!(browser.run(focused).await, row, "{key:?}");
    }
    browser.press(key::LEFT).await;
    assert_eq!(browser.rows().await, ["root"]);
    let expanded = "return document.activeElement.getAttribute('aria-expanded');";
    assert_eq!(browser.run(expanded).await, "false");
    browser.press(" ").await;
    assert_eq!(browser.rows().await, ["root", "left", "leaf", "right"]);

    // One span in detail, and back to its row.
    browser.press(key::DOWN).await;
    browser.press(key::ENTER).await;
    browser
        .wait_for("return document.querySelector('#span h2')?.textContent ?? '';", json!("left"))
        .await;
    assert_eq!(browser.run("return document.activeElement.id;").await, "span");
    assert_eq!(browser.run("return location.search;").await, "?span=0000000000000002");
    browser.press(key::ESCAPE).await;
    assert_eq!(browser.run(focused).await, "left");
    assert_eq!(
        browser.run("return [location.search, document.getElementById('span').hidden];").await,
        json!(["", true])
    );
    // From span to span with the detail open.
    browser.press(key::ENTER).await;
    browser.wait_for("return document.activeElement.id;", json!("span")).await;
    browser.press("j").await;
    browser.wait_for("return document.querySelector('#span h2').textContent;", json!("leaf")).await;
    browser.press("k").await;
    browser.wait_for("return document.querySelector('#span h2').textContent;", json!("left")).await;
    browser.press(key::ESCAPE).await;
    // The browser's own way back leads to the span again.
    browser.back().await;
    browser.wait_for("return document.getElementById('span').hidden;", json!(false)).await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_span_says_is_text() {
    let lab = Lab::start().await;
    let long = "long ".repeat(1024 * 1024 / 5);
    let evil = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    let mut root = span(1, 1, 0, evil);
    root.attributes = vec![
        attribute("markup", evil),
        attribute("unbroken", &"x".repeat(900)),
        attribute("long", &long),
        attribute("control", "a\u{0}b\u{1b}[31mc"),
        attribute("arabic", "\u{645}\u{631}\u{62d}\u{628}\u{627} 123"),
        attribute("turned", "\u{202e}gpj.exe"),
        attribute("\"><b>key", "x"),
        attribute("template", "{{7*7}} ${7*7} javascript:alert(3)"),
    ];
    root.status = Some(Status { code: 2, message: evil.to_owned() });
    lab.export_of(evil, vec![root]).await;
    let Some(browser) = open(&lab, &format!("{}?span=0000000000000001", trace_path(1)), WIDE).await
    else {
        return;
    };
    let value = |key: &str| {
        format!(
            "return [...document.querySelectorAll('#span dt')].find(it => it.textContent === {key:?}).nextSibling.firstChild.textContent;"
        )
    };
    assert_eq!(browser.run(&value("markup")).await, evil);
    let whole = "return document.querySelector('#span dd details pre').textContent;";
    assert_eq!(browser.run(whole).await, long.as_str());
    assert_eq!(browser.run(&value("control")).await, "a\\u{0}b\\u{1b}[31mc");
    assert_eq!(browser.run(&value("turned")).await, "\u{202e}gpj.exe");
    assert_eq!(browser.run(&value("\"><b>key")).await, "x");
    assert_eq!(browser.run(&value("template")).await, "{{7*7}} ${7*7} javascript:alert(3)");
    for path in [
        "/traces",
        "/traces/map",
        &trace_path(1),
        &format!("{}?span=0000000000000001", trace_path(1)),
    ] {
        browser.go(path).await;
        // An alert would fail the next command; markup would have become an element.
        assert_eq!(browser.run("return document.querySelectorAll('main img, main script, main b, #span b').length;").await, 0, "{path}");
        // A turned text turns nothing outside of itself, and a long one makes neither page nor detail wider.
        let fits = "return [document.documentElement, document.getElementById('span')].every(it => !it || it.scrollWidth <= it.clientWidth);";
        assert_eq!(browser.run(fits).await, true, "{path}");
    }
    let isolated = "return [...document.querySelectorAll('#span dd')].every(it => getComputedStyle(it.firstElementChild ?? it).unicodeBidi !== 'normal' || !/[\\u202e]/.test(it.textContent));";
    assert_eq!(browser.run(isolated).await, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_dropped_is_shown() {
    let lab = Lab::start().await;
    let Some(browser) = open(&lab, "/traces", WIDE).await else {
        return;
    };
    let drop = |text: &str| {
        format!(
            "const files = new DataTransfer(); files.items.add(new File([{text:?}], 'trace.json'));
             document.body.dispatchEvent(new DragEvent('drop', {{ dataTransfer: files, bubbles: true, cancelable: true }}));"
        )
    };
    browser.run(&drop("not a trace")).await;
    browser
        .wait_for(
            "return document.getElementById('problem').textContent.split(':')[0];",
            json!("trace.json was not taken. line 1"),
        )
        .await;
    // What could not be taken is still said when the list has changed.
    browser.run(&drop(&format!("{}\n{{bad", json_body()))).await;
    let text = "return document.querySelectorAll('table.traces tbody tr').length > 0 && document.getElementById('problem').textContent;";
    browser.wait_for(&format!("return /spans taken: 1; .*not whole: 1. The first: line 2: not JSON/.test((() => {{ {text} }})());"), json!(true)).await;
    browser.run(&drop(&json_body().to_string())).await;
    browser.arrives_at(&trace_path(0x0a)).await;
    browser
        .wait_for("return document.querySelector('[role=treegrid]') !== null;", json!(true))
        .await;
    // And copied, it is what the download is.
    let download = lab.get_json(&format!("{}.json", trace_path(0x0a))).await;
    let copied = browser.run(
        "let text; navigator.clipboard.writeText = async (it) => { text = it; }; document.querySelector('.actions button').click();
         while (text === undefined) await new Promise(requestAnimationFrame); return JSON.parse(text);",
    );
    assert_eq!(copied.await, download);
    lab.export(JSON, "", "{}").await;
}

/// The form of the wire's page passes the policy of the page, and the lab's check of who sends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hop_is_broken_on_the_page_with_keys_alone() {
    let lab = Lab::start().await;
    let listener = tokio::net::TcpListener::bind(support::FREE).await;
    lab.wire.serve(HOPS[1], listener.expect("a free port"), lab.address).expect("an address");
    let Some(browser) = open(&lab, "/wire", WIDE).await else {
        return;
    };
    for (option, fault) in [("clear-sampled", Some(Fault::ClearSampled)), ("no fault", None)] {
        browser.run("document.querySelector('.hop select').focus();").await;
        browser.press(option).await;
        browser.strike(key::TAB).await;
        browser.strike(key::ENTER).await;
        // A script that waits would go with its page.
        support::until(async || match lab.wire.fault(HOPS[1]) {
            now if now == fault => Ok(()),
            now => Err(format!("{now:?}")),
        })
        .await;
        browser.go("/wire").await;
        let shown = "return document.querySelector('.hop select').value;";
        assert_eq!(browser.run(shown).await, fault.map_or(String::new(), Fault::name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_use_it() {
    let Some(axe) = axe() else {
        return;
    };
    let lab = Lab::start().await;
    lab.export_of("shop", family()).await;
    let mut failed = span(2, 2, 99, "SELECT");
    failed.status = Some(Status { code: 2, message: "gone".to_owned() });
    failed.attributes = vec![attribute("long", &"line\n".repeat(100)), attribute("short", "x")];
    lab.export_of("database", vec![failed, span(1, 9, 3, "INSERT")]).await;
    // With a hop, and a request on it.
    let listener = tokio::net::TcpListener::bind(support::FREE).await;
    let hop = lab.wire.serve(HOPS[1], listener.expect("a free port"), lab.address);
    lab.wire.set(HOPS[1], Some(Fault::DropTraceparent));
    let url = format!("http://{}/traces", hop.expect("an address"));
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = support::client().get(url).header("traceparent", header);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    // Colours do not depend on the width, nor the layout on the colours.
    for look in [WIDE, (500, true)] {
        let Some(browser) = open(&lab, "/traces", look).await else {
            return;
        };
        browser.bring(&axe).await;
        let span = format!("{}?span=0000000000000002", trace_path(2));
        for path in [
            "/traces",
            "/traces?min=soon",
            "/traces?text=nothing",
            &trace_path(1),
            &span,
            "/traces/map",
            "/wire",
            &trace_path(7),
        ] {
            browser.go(path).await;
            let dark =
                browser.run("return matchMedia('(prefers-color-scheme: dark)').matches;").await;
            assert_eq!(dark, look.1);
            let what = format!("{path} {look:?}");
            browser.is_for_everybody(&what).await;
        }
    }
}
