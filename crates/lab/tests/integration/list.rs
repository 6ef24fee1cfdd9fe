//! The list of traces over time: clearing it, the traces since a moment, a mark, and how long operations took.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use lab::store::Limits;
use regex::Regex;
use support::in_process::{Lab, spans, table};
use support::process::{Lab as Process, fails, run, write};
use support::{has, lacks};

/// The text of a page without its tags.
fn text(page: &str) -> String {
    Regex::new(r"(<[^>]*>|\s)+").expect("a pattern").replace_all(page, " ").into_owned()
}

#[tokio::test]
async fn a_cleared_lab_is_empty_and_goes_on() {
    let lab = Lab::of("1 a 1 SERVER 0..10 earlier; 2 a 2 SERVER 0..10 earliest").await;
    has(&lab.page("/traces").await, ["method=\"post\" action=\"/traces/clear\""]);
    let foreign = [("sec-fetch-site", "cross-site")];
    assert_eq!(lab.post("/traces/clear", &foreign, "").await.0, 403);
    assert_eq!(lab.spans(), 2);
    let ours = [("sec-fetch-site", "same-origin")];
    let (status, page) = lab.post("/traces/clear", &ours, "").await;
    assert_eq!(status, 200, "it leads to the list");
    has(&page, ["No trace yet"]);
    assert_eq!(lab.counts(), [0, 0, 0]);
    lab.store.add(spans("1 a 1 SERVER 0..10 again"));
    let page = lab.page("/traces").await;
    has(&page, ["again"]);
    lacks(&page, ["earli", "made room"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_clears_a_running_lab_and_leaves_files_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "old.json", &table("1 a 1 SERVER 0..10 old").to_string());
    let before = std::fs::read(&file).expect("a file");
    let lab = Process::view(&format!("--open {file}")).await;
    has(&lab.ask("traces").await, ["old"]);
    assert_eq!(lab.ask("clear").await, "");
    assert_eq!(lab.ask("traces").await, "");
    assert_eq!(std::fs::read(&file).expect("a file"), before);
    fails("lab", "clear --site 127.0.0.1:9", ["no lab answers at 127.0.0.1:9"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_since_a_moment_are_listed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_nanos();
    let folder = tempfile::tempdir().expect("a folder");
    let rows = format!(
        r#"1 a 1 SERVER 0..10 january
           2 a 2 SERVER 2000..2010 later
           3 a 3 SERVER 0..0 now {{"startTimeUnixNano": "{now}", "endTimeUnixNano": "{now}"}}"#
    );
    let file = write(folder.path(), "times.json", &table(&rows).to_string());
    for (since, expected) in [
        ("1h", vec!["now"]),
        ("2026-01-01T00:00:01Z", vec!["now", "later"]),
        ("2026-01-01T00:00:02Z", vec!["now", "later"]),
        ("2026-01-01T01:00:00+01:00", vec!["now", "later", "january"]),
    ] {
        let output = run("lab", &format!("traces {file} --since {since}")).await;
        let list = String::from_utf8(output.stdout).expect("text");
        let names: Vec<&str> =
            list.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
        assert_eq!(names, expected, "{since}");
    }
    let output = run("lab", "traces --since yesterday").await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    has(&String::from_utf8_lossy(&output.stderr), ["write 30s or 2026-11-29T16:00:00Z"]);
    let lab = Lab::of(&rows).await;
    let page = lab.page("/traces?since=1h").await;
    has(&page, ["1 passes the filter", "value=\"1h\""]);
    lacks(&page, ["january"]);
}

#[tokio::test]
async fn traces_that_arrive_after_a_mark_are_new() {
    let lab = Lab::with(Limits { spans: 2, ..Limits::default() }).await;
    lab.store.add(spans("1 a 1 SERVER 50..60 first"));
    let page = lab.page("/traces?name=r").await;
    has(&page, ["href=\"/traces?name=r&amp;mark=1\""]);
    lacks(&page, ["since the mark", "Remove the mark"]);
    // It started earlier, and arrives later.
    lab.store.add(spans("2 a 2 SERVER 10..20 second"));
    let page = lab.page("/traces?mark=1").await;
    has(&page, ["Remove the mark", "href=\"/traces?mark=2\"", "name=\"mark\" value=\"1\""]);
    let shown = text(&page);
    has(&shown, ["1 new trace since the mark"]);
    let (first, second) = shown.split_once("second").expect("both traces");
    lacks(first.split_once("first").expect("both traces").1, [" new "]);
    has(second, [" new "]);
    // The first makes room, and the list may be cleared: the mark stays where it is.
    lab.store.add(spans("3 a 3 SERVER 10..20 third"));
    assert_eq!(text(&lab.page("/traces?mark=2").await).matches(" new ").count(), 2);
    lab.store.clear();
    lab.store.add(spans("4 a 4 SERVER 10..20 fourth"));
    has(&text(&lab.page("/traces?mark=3").await), ["1 new trace since the mark", "new 2026"]);
    lacks(&text(&lab.page("/traces?mark=4").await), ["new 2026"]);
}

#[tokio::test]
async fn the_map_shows_destinations_without_spans() {
    let lab = Lab::of(
        "1 shop 1 SERVER 0..100 order
         1 shop 2<1 CLIENT 1..9 SELECT db.system.name=postgresql server.address=db.internal error=
         1 shop 3<2 CLIENT 2..8 query server.address=db.internal server.port=5432
         1 shop 4<1 CLIENT 10..50 POST server.address=pay.internal
         1 pay 5<4 SERVER 11..49 POST
         1 pay 6<5 CLIENT 12..20 POST server.address=card.example server.port=443
         1 pay 7<5 CLIENT 21..30 POST peer.service=<b>mail
         1 pay 8<5 CLIENT 31..40 POST",
    )
    .await;
    let page = lab.page("/traces/map").await;
    has(&page, ["A dashed box"]);
    has(
        &text(&page),
        [
            "shop postgresql at db.internal (no spans) 1 1",
            "pay &lt;b&gt;mail (no spans) 1 0",
            "pay card.example (no spans) 1 0",
            "shop pay 1 0",
        ],
    );
    lacks(&text(&page), ["5432", "pay.internal"]);
    // Other clients of Jaeger's API expect services here.
    assert_eq!(lab.get_json("/api/dependencies").await["total"], 1);
    // Broken propagation: the called service has spans in a trace of its own.
    let lab = Lab::of("1 shop 1 CLIENT 0..9 POST peer.service=pay; 2 pay 1 SERVER 1..8 POST").await;
    let page = lab.page("/traces/map").await;
    has(&page, ["Calls between services"]);
    lacks(&page, ["A dashed box", "(no spans)"]);
}

#[tokio::test]
async fn the_map_says_how_long_operations_took() {
    let mut rows = String::new();
    for request in 1..=20 {
        let error = if request == 3 { "error=no" } else { "" };
        let _ = writeln!(
            rows,
            "{request} shop {request} SERVER 0..{request} GET /items/{request}0000 {error}\n\
             {request} shop 9{request}<{request} CLIENT 0..1 GET /stock",
        );
    }
    rows.push_str("30 job 1 INTERNAL 0..7 nightly\n31 job 2 CONSUMER 0..9 unended {\"endTimeUnixNano\": \"0\"}");
    let lab = Lab::of(&rows).await;
    let page = text(&lab.page("/traces/map").await);
    has(
        &page,
        [
            "Half of the spans took at most p50, and 95 of 100 at most p95",
            "GET /items/* shop 20 10.00 ms 19.00 ms 1 5.0 %",
            "nightly job 1 7.00 ms 7.00 ms 0 0.0 %",
            "2 operations, by p95",
        ],
    );
    lacks(&page, ["GET /stock", "unended"]);
}
