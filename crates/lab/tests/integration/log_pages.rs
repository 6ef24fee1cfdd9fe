//! Log records on the pages: in the detail of their span, on the page of their trace, and counted in the list.

use serde_json::json;
use support::in_process::{Lab, NEW_YEAR, PROTOBUF, logs_in_protobuf, trace_path};
use support::{has, lacks};

/// Sends the records of a table, as an exporter does.
async fn send(lab: &Lab, table: &str) {
    let headers = [("content-type", PROTOBUF)];
    let (status, answer) = lab.post("/v1/logs", &headers, logs_in_protobuf(table)).await;
    assert_eq!(status, 200, "{answer}");
}

/// A lab with a trace of two spans, the second with an event, and the page of that span.
async fn shop() -> (Lab, String) {
    let time = ((NEW_YEAR + 20) * 1_000_000).to_string();
    let event = json!({ "events": [{ "name": "cache.miss", "timeUnixNano": time }] });
    let spans = format!("1 shop 1 SERVER 0..100 GET /; 1 shop 2<1 INTERNAL 10..90 pay {event}");
    (Lab::of(&spans).await, trace_path(1) + "/spans/0000000000000002")
}

/// Asserts that a page has parts in this order.
fn in_order<const N: usize>(page: &str, parts: [&str; N]) {
    let mut rest = page;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part} is not next in {rest}"));
        rest = &rest[at + part.len()..];
    }
}

#[tokio::test]
async fn records_stand_among_the_events_of_their_span_in_order_of_time() {
    let (lab, detail) = shop().await;
    has(&lab.page(&detail).await, ["<h3>Events</h3>"]);
    let records = "1 shop 2 13 30 slow <b>bank</b> bank=ubs; 1 shop 2 9 15 asked the bank; 1 shop 1 9 16 of another span";
    send(&lab, records).await;
    let page = lab.page(&detail).await;
    let first = ["Events and log records", "INFO", "asked the bank", "5.00 ms after the start"];
    in_order(&page, first);
    let then = [
        "asked the bank",
        "cache.miss",
        "10.00 ms",
        "WARN",
        "slow &lt;b&gt;bank",
        "20.00 ms",
        ">bank<",
        "ubs",
    ];
    in_order(&page, then);
    lacks(&page, ["of another span", "Exception, in a log record"]);
}

#[tokio::test]
async fn an_exception_that_came_only_as_a_record_leads_the_detail() {
    let (lab, detail) = shop().await;
    let exception =
        "exception.type=CardDeclined exception.message=<declined> exception.stacktrace=at_pay";
    send(&lab, &format!("1 shop 2 17 15 {exception}")).await;
    let said = "CardDeclined: &lt;declined&gt;";
    let expected =
        ["<h2", "Exception, in a log record", said, "<dt>span id", "exception.stacktrace"];
    in_order(&lab.page(&detail).await, expected);
    has(&lab.page(trace_path(1)).await, [said]);
}

#[tokio::test]
async fn the_page_of_a_trace_lists_its_records_and_links_their_spans() {
    let (lab, _) = shop().await;
    lacks(&lab.page(trace_path(1)).await, ["log record"]);
    send(&lab, "1 shop 9 0 40 from a lost span; 1 shop 0 21 50 from no span; 1 shop 2 13 30 slow")
        .await;
    let page = lab.page(trace_path(1)).await;
    let link = format!("<a href=\"{}?span=0000000000000002\">pay</a>", trace_path(1));
    in_order(
        &page,
        ["3 log records", "30.00 ms", "WARN", "slow", &link, "LOG", "from a lost span"],
    );
    let lost = "its span <code>0000000000000009</code> never came";
    in_order(&page, ["from a lost span", lost, "FATAL", "from no span", ": no span<"]);
    let part = lab.page(trace_path(1) + "?focus=0000000000000002").await;
    has(&part, ["1 log record<"]);
    lacks(&part, ["from a lost span"]);
    // The file of the trace shows them too.
    let file = lab.page(trace_path(1) + ".full.html").await;
    in_order(
        &file,
        ["3 log records", "slow", "from a lost span", lost, "Events and log records", "slow"],
    );
}

#[tokio::test]
async fn a_long_list_of_records_keeps_the_most_severe() {
    let (lab, detail) = shop().await;
    let records: String =
        (0..300).map(|index| format!("1 shop 2 9 20 all is well, {index}\n")).collect();
    send(&lab, &(records + "1 shop 2 17 80 it burns")).await;
    for page in [detail, trace_path(1)] {
        let page = lab.page(page).await;
        has(
            &page,
            ["The 200 most severe of 301 log records are shown", "it burns", "all is well, 0<"],
        );
        assert_eq!(page.matches("all is well").count(), 199);
    }
}

#[tokio::test]
async fn records_without_a_span_have_a_page_and_those_without_a_trace_are_counted() {
    let lab = Lab::start().await;
    send(&lab, "1 shop 2 17 30 it burns; 0 shop 0 9 30 of nobody").await;
    let page = lab.page(trace_path(1)).await;
    has(&page, ["Only log records", "it burns", "span <code>0000000000000002</code>"]);
    has(&lab.page("/traces").await, ["1 log record without a trace"]);
}

/// Some services send the messages of a model call as records.
#[tokio::test]
async fn a_conversation_is_read_from_records() {
    let lab = Lab::of("1 llm 2 CLIENT 0..100 chat gen_ai.operation.name=chat").await;
    let content = json!({ "key": "content", "value": { "stringValue": "Is it raining?" } });
    let record = json!({ "eventName": "gen_ai.user.message", "body": { "kvlistValue": { "values": [content] } } });
    send(&lab, &format!("1 llm 2 9 10 {record}")).await;
    let detail = lab.page(trace_path(1) + "/spans/0000000000000002").await;
    has(&detail, ["<b><bdi>user</bdi></b>", "Is it raining?"]);
}
