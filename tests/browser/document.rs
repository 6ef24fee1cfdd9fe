//! A request as one HTML file in a real browser: from disk and from a file server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::response::Html;
use lab::case::Case;
use lab::viewer::document::{Document, Remark};
use serde_json::json;
use support::browser::{Browser, WIDE};
use support::in_process::table;
use support::skips::axe;
use traces::exchange::Exchange;

use super::{NO_ERRORS, open};

/// A broken request with an error, a secret, a link, a long value, and names that are markup or have no letters.
const TABLE: &str = "1 shop 1 SERVER 0..100 GET /pay user.password=hunter2000
     1 shop 2<1 CLIENT 10..90 POST error=gone http.request.method=POST url.full=http://b:80/process
     2 bank 3 SERVER 20..80 POST /process http.request.method=POST url.path=/process
     1 shop 4<1 INTERNAL 30..40 <script>document.title='run'</script>
     1 shop 5<1 INTERNAL 41..42
     1 shop 6<77 CONSUMER 43..44 orphan {\"links\": [{\"traceId\": \"02020202020202020202020202020202\", \"spanId\": \"0000000000000003\"}]}";

fn html() -> String {
    let mut case = Case::read(table(TABLE).to_string().as_bytes()).expect("a case");
    let id = case.trees[0].trace_id;
    let sent = format!("POST / HTTP/1.1\r\ntraceparent: 00-{id}-0000000000000002-01\r\n\r\n");
    case.wire.push(Exchange {
        hop: "bank".to_owned(),
        to: "bank".to_owned(),
        start: case.trees[0].start,
        end: None,
        sent,
        delivered: Some("POST / HTTP/1.1\r\n\r\n".to_owned()),
        status: Some(200),
        fault: Some("drop-traceparent".to_owned()),
    });
    let remark = Remark { title: "Compared with pay.trace", text: "1 missing\n  - bank" };
    Document::new(case, id, Some(&remark)).expect("a file").html
}

/// Serves a file at every path. Returns the number of requests, too.
async fn file_server(html: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let answer = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Html(html.clone()))
    };
    (support::serve(Router::new().fallback(answer)).await, requests)
}

const CALL: &str = "table.waterfall tbody tr:nth-child(2) a";
const DETAIL: &str = "text('.span:target h2') ?? null";
const SHOWN: &str = "$$('.span').filter(it => it.checkVisibility()).length";

async fn is_used(browser: &Browser) {
    browser
        .shows(
            "[document.title, $$('script').length]",
            json!(["GET /pay · 01010101 · One Trace", 0]),
        )
        .await;
    browser.shows(DETAIL, ()).await;
    browser.shows(SHOWN, 0).await;
    browser.click(CALL).await;
    browser.wait_for(DETAIL, "POST").await;
    browser.shows(SHOWN, 1).await;
    browser.shows("text('.span:target dd.error')", "Error: gone").await;
    browser.click(".span:target .close").await;
    browser.wait_for("text('tr:target th') ?? null", "POST").await;
    browser.shows(SHOWN, 0).await;
    browser.click("a[href='#spans']").await;
    browser.wait_for(SHOWN, 6).await;
    browser.click("#spans > .all a").await;
    browser.wait_for(SHOWN, 0).await;
    browser.shows("performance.getEntriesByType('resource').length", 0).await;
    assert_eq!(browser.errors().await, NO_ERRORS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_opens_from_disk_without_a_request_or_a_script() {
    let file = tempfile::Builder::new().suffix(".html").tempfile().expect("a file");
    let html = html();
    std::fs::write(file.path(), &html).expect("written");
    let (address, requests) = file_server(html).await;
    let Some(browser) = open(address, "/trace.html", WIDE).await else { return };
    is_used(&browser).await;
    // Not even an icon.
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    browser.visit(&format!("file://{}", file.path().display())).await;
    is_used(&browser).await;
    assert_eq!(requests.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_use_a_file() {
    let Some(axe) = axe() else { return };
    let (address, _) = file_server(html()).await;
    for look in [WIDE, (390, true)] {
        let Some(browser) = open(address, "/", look).await else { return };
        browser.bring(&axe).await;
        browser.go("/trace.html").await;
        browser.is_for_everybody(&format!("{look:?}")).await;
        for (link, shown) in [(CALL, 1), ("a[href='#spans']", 6)] {
            browser.go("/trace.html").await;
            browser.click(link).await;
            browser.wait_for(SHOWN, shown).await;
            browser.is_for_everybody(&format!("{look:?} {link}")).await;
        }
    }
}
