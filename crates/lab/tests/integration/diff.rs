//! `lab diff`: what it prints about two traces, and its exit status.

use serde_json::{Value, json};
use support::in_process::{log_table, table, trace_id};
use support::process::{Lab, fails, finds, run, write};
use support::{has, lacks};

/// Two requests: in the second, `pay` is slower and asks another service twice.
const BEFORE: &str = "161 shop 1   SERVER 0..100 POST /orders/17 http.response.status_code=200
     161 shop 2<1 CLIENT 10..60 POST /pay
     161 pay  3<2 SERVER 20..50 POST /pay
     161 shop 4<1 CLIENT 70..90 SELECT";
const AFTER: &str =
    "178 shop 1   SERVER 0..312 POST /orders/18 http.response.status_code=502 error=
     178 shop 2<1 CLIENT 10..272 POST /pay
     178 pay  3<2 SERVER 20..262 POST /pay
     178 pay  5<3 CLIENT 30..40 score
     178 pay  6<3 CLIENT 40..45 score
     178 shop 4<1 CLIENT 280..300 SELECT";

fn json_of(rows: &str) -> String {
    table(rows).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_printed_as_one_tree_with_the_time_below() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = write(folder.path(), "before.json", &json_of(BEFORE));
    let after = write(folder.path(), "after.json", &json_of(AFTER));
    let expected = format!(
        "\
A  {before}, trace {}: 4 spans from 2 services in 100.00 ms
B  {after}, trace {}: 6 spans from 2 services in 312.00 ms

~ POST /orders/*   SERVER    shop  status UNSET -> ERROR, http 200 -> 502
  ├─ POST /pay     CLIENT    shop
  │  └─ POST /pay  SERVER    pay
+ │     └─ score   CLIENT    pay   x2
  └─ SELECT        CLIENT    shop

Structure: 2 spans only in B, 1 span changed
Time: 100.00 ms -> 312.00 ms, +212.00 ms, on the critical path:
    +212.00 ms  pay  30.00 ms -> 242.00 ms
                    +197.00 ms  POST /pay SERVER
                     +15.00 ms  score CLIENT
",
        trace_id(0xa1),
        trace_id(0xb2)
    );
    assert_eq!(finds("lab", &format!("diff {before} {after}")).await, expected);

    let same = run("lab", &format!("diff {before} {before} --slower-than 0%")).await;
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    let same = String::from_utf8(same.stdout).expect("text");
    assert!(
        same.ends_with("\n\nNo difference: 4 spans, 100.00 ms on the critical path\n"),
        "{same}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_printed_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let both = write(folder.path(), "both.json", &json_of(&format!("{BEFORE};{AFTER}")));
    let printed = finds("lab", &format!("diff {both}#A1 {both}#b2b2 --format json")).await;
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(report["a"]["traceId"], trace_id(0xa1));
    assert_eq!(report["b"]["durationNano"], 312_000_000);
    assert_eq!(report["alone"], json!({ "a": 0, "b": 2 }));
    let differences = json!([
        {
            "service": "shop", "name": "POST /orders/*", "kind": "SERVER", "below": [], "counts": { "a": 1, "b": 1 },
            "changes": [
                { "fact": "status", "a": "UNSET", "b": "ERROR" },
                { "fact": "httpStatus", "a": "200", "b": "502" },
            ],
            "spanIds": { "a": ["0000000000000001"], "b": ["0000000000000001"] },
        },
        {
            "service": "pay", "name": "score", "kind": "CLIENT",
            "below": ["POST /orders/*", "POST /pay", "POST /pay"], "counts": { "a": 0, "b": 2 }, "changes": [],
            "spanIds": { "a": [], "b": ["0000000000000005", "0000000000000006"] },
        },
    ]);
    assert_eq!(report["differences"], differences);
    let time = &report["time"]["services"][0];
    assert_eq!(time["service"], "pay");
    assert_eq!(time["differenceNano"], 212_000_000);
    assert_eq!(time["spans"][0]["nanoseconds"], json!({ "a": 30_000_000, "b": 227_000_000 }));
    assert_eq!(report["time"]["services"][1]["spans"][1]["answeredBy"], "pay");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_records_of_one_trace_only_are_listed_and_make_no_difference() {
    const LOGS: &str = "161 shop 1 9 5 order 17 taken; 161 pay 3 9 25 paid
        178 shop 1 9 5 order 18 taken; 178 pay 3 13 30 retrying in 20 ms; 178 pay 3 13 35 retrying in 40 ms
        178 pay 3 17 40 declined exception.type=Refused; 178 pay 0 9 50 gave up";
    let folder = tempfile::tempdir().expect("a folder");
    let second = BEFORE.replace("161 ", "178 ");
    let mut document = table(&format!("{BEFORE};{second}"));
    document["resourceLogs"] = log_table(LOGS)["resourceLogs"].take();
    let file = write(folder.path(), "both.json", &document.to_string());
    let lab = Lab::view(&format!("--open {file}")).await;
    for sides in [format!("{file}#a1 {file}#b2"), "a1 b2".to_owned()] {
        // Only records differ, so the exit status is 0.
        let printed = lab.ask(&format!("diff {sides}")).await;
        let expected = "
Structure: no difference in 4 spans
Time: 100.00 ms -> 100.00 ms, 0.00 ms, nowhere a difference of 1 % or more
Logs: 1 record only in A, 4 records only in B
+ ERROR  POST /pay of pay  declined  Refused
+ WARN   POST /pay of pay  retrying in * ms  x2
- INFO   POST /pay of pay  paid
+ INFO   pay, without a span  gave up
";
        assert!(printed.ends_with(expected), "{printed}");
    }
    for form in ["--json", "--brief"] {
        let report = lab.ask(&format!("diff a1 b2 {form}")).await;
        let report: Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!((&report["differs"], &report["differences"]), (&json!(false), &json!([])));
        let declined = json!({
            "service": "pay", "span": "POST /pay", "below": ["POST /orders/17", "POST /pay"], "severity": "ERROR",
            "body": "declined", "exceptionType": "Refused", "counts": { "a": 0, "b": 1 },
        });
        assert_eq!(report["records"][0], declined);
        assert_eq!(report["records"].as_array().map(Vec::len), Some(4));
    }
    lacks(&lab.ask("diff a1 a1").await, ["Logs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_alone_makes_no_difference_unless_a_flag_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = |end: u64, below: u64| {
        json_of(&format!("1 a 1 SERVER 0..{end} root; 1 b 2<1 SERVER 3..{below} x"))
    };
    let a = write(folder.path(), "a.json", &trace(100, 90));
    let b = write(folder.path(), "b.json", &trace(131, 91));
    let printed = run("lab", &format!("diff {a} {b} --slower-than 31.1%")).await;
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let printed = String::from_utf8(printed.stdout).expect("text");
    has(&printed, ["Structure: no difference in 2 spans", "+30.00 ms  a  13.00 ms -> 43.00 ms"]);
    has(&printed, ["131.00 ms, +31.00 ms, on", "+1.00 ms  elsewhere"]);
    let printed = finds("lab", &format!("diff {a} {b} --slower-than 30.9")).await;
    has(&printed, ["B takes 31.0 % longer than A, more than the 30.9 % that --slower-than allows"]);
    // Faster is fine.
    assert_eq!(run("lab", &format!("diff {b} {a} --slower-than 0%")).await.status.code(), Some(0));
    let wrong = run("lab", &format!("diff {a} {b} --slower-than much")).await;
    assert_eq!(wrong.status.code(), Some(2));
    has(&String::from_utf8_lossy(&wrong.stderr), ["write a percentage, such as 20%"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_same_in_large_traces_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = |last: &str| {
        let mut rows = "1 a 1 SERVER 0..100 root".to_owned();
        for call in 0..60 {
            let (id, name) = (2 + 2 * call, format!("call{call}"));
            rows += &format!(
                "\n1 a {id}<1 CLIENT {call}..90 {name}; 1 b {}<{id} SERVER 1..2 {name}",
                id + 1
            );
        }
        json_of(&format!("{rows}\n1 a 200<1 CLIENT 95..99 {last}"))
    };
    let a = write(folder.path(), "a.json", &trace("old"));
    let b = write(folder.path(), "b.json", &trace("new"));
    let printed = finds("lab", &format!("diff {a} {b}")).await;
    has(&printed, ["├─ (120 spans the same)\n- └─ old", "\n+ └─ new"]);
    assert!(printed.lines().count() < 15, "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_make_the_times_unsure() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = |start: u64, end: u64| {
        json_of(&format!("1 shop 1 CLIENT 10..{end} root; 1 pay 2<1 SERVER {start}..90 POST"))
    };
    let a = write(folder.path(), "a.json", &trace(3, 100));
    let b = write(folder.path(), "b.json", &trace(11, 120));
    let unsure =
        "Unsure: the clocks of pay and shop differ by at least 7.00 ms, so the times between";
    for arguments in [format!("diff {a} {b}"), format!("diff {b} {a}")] {
        let printed = run("lab", &arguments).await;
        has(&String::from_utf8_lossy(&printed.stdout), [unsure]);
    }
    let printed = run("lab", &format!("diff {b} {b}")).await;
    lacks(&String::from_utf8_lossy(&printed.stdout), ["Unsure"]);
}

/// A worker that begins a trace of its own for a message of the shop.
#[tokio::test(flavor = "multi_thread")]
async fn traces_that_are_linked_are_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let sent = |trace: u8, name: &str| {
        let link =
            json!({ "links": [{ "traceId": trace_id(trace * 17), "spanId": "0000000000000002" }] });
        format!(
            "{0} shop 1 SERVER 0..9 POST /orders; {0} shop 2<1 PRODUCER 1..2 send orders;
             {1} worker 6 INTERNAL 4..9 poll; {1} worker 7<6 CONSUMER 5..9 take order {link};
             {1} worker 8<7 CLIENT 6..7 {name}; {1} worker 9<6 CLIENT 7..8 poll again",
            trace * 17,
            trace * 17 + 1
        )
    };
    let rows = format!(
        "{};{};204 shop 1 SERVER 0..9 POST /orders; 204 shop 2<1 PRODUCER 1..2 send orders",
        sent(10, "INSERT"),
        sent(11, "UPDATE")
    );
    let file = write(folder.path(), "queue.json", &json_of(&rows));
    let lab = Lab::view(&format!("--open {file}")).await;
    for sides in [format!("{file}#aa {file}#bb"), "aa bb".to_owned()] {
        let printed = lab.finds(&format!("diff {sides}")).await;
        let expected = "
Linked from other traces: 1 span in A, 1 span in B

  take order  CONSUMER  worker
- └─ INSERT   CLIENT    worker
+ └─ UPDATE   CLIENT    worker

Structure: 1 span only in A, 1 span only in B
";
        assert!(printed.ends_with(expected), "{printed}");
        has(&printed, ["No difference: 2 spans"]);
    }
    let same = lab.ask("diff aa aa").await;
    has(&same, ["1 span in A, 1 span in B, no difference in them and below them\n"]);
    let lost = lab.finds("diff aa cc --format json").await;
    let lost: Value = serde_json::from_str(&lost).expect("JSON");
    assert_eq!(lost["differs"], true);
    assert_eq!(lost["differences"], json!([]));
    let linked = &lost["linked"];
    assert_eq!(linked["counts"], json!({ "a": 1, "b": 0 }));
    assert_eq!(linked["alone"], json!({ "a": 2, "b": 0 }));
    assert_eq!(linked["differences"][0]["name"], "take order");
    lacks(&lab.ask("diff cc cc").await, ["Linked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_of_a_running_lab_are_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "session.json", &json_of(&format!("{BEFORE};{AFTER}")));
    let lab = Lab::view(&format!("--open {file}")).await;
    has(&lab.finds("diff a1 b2").await, ["Structure: 2 spans only in B"]);
    has(&lab.finds(&format!("diff {file}#b2 A1")).await, ["Structure: 2 spans only in A"]);
    has(&lab.ask("diff a1 a1").await, ["No difference"]);
    lab.refuses("diff a1 c3", "no trace id begins with \"c3\"").await;
    let whole = trace_id(0xc3);
    lab.refuses(&format!("diff a1 {whole}"), &format!("the lab has no trace {whole}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_that_cannot_be_compared_are_named_in_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "a.json", &json_of(BEFORE));
    let notes = write(folder.path(), "notes.txt", "no trace at all");
    fails("lab", &format!("diff {file} {notes}"), ["notes.txt: there is no trace in it"]).await;
    fails("lab", &format!("diff {file} {file}#c"), ["no trace id in", "begins with \"c\""]).await;
    fails("lab", &format!("diff {file} /nowhere"), ["/nowhere is neither a file nor"]).await;
    fails("lab", &format!("diff {file} a1 --site 127.0.0.1:1"), ["no lab answers at"]).await;
}
