//! A request as one HTML file: it reads back, nothing in it runs or is loaded, and secrets are neither on it nor in it.

use std::fs;

use lab::case::Case;
use lab::read::{self, Form};
use lab::viewer::document::Document;
use lab::waterfall::MOST;
use regex::Regex;
use support::in_process::{JSON, Lab, table, trace_id, trace_path};
use support::process::{Lab as Process, run, write};
use support::{has, lacks, root};
use traces::exchange::Exchange;
use traces::redact::Redacted;

/// A request of every kind of trouble: names that are empty, that are markup or that turn a line around, and two traces.
const HOSTILE: &str = "1 a 1 SERVER 0..100 GET / http.request.method=GET url.path=/
     1 a 2<1 CLIENT 10..90 POST http.request.method=POST url.full=http://b:80/process?x=1
     2 <u>\u{202e} 3 SERVER 20..80 POST /process http.request.method=POST url.path=/process
     1 a 4<1 INTERNAL 30..40 </data><script>alert(1)</script> a=<img/src=//evil.example/x> error=\"'><script>
     1 a 5<1 INTERNAL 30..40 \u{202e}back\u{7} b=\"onload='x' {\"links\": [{\"traceId\": \"02020202020202020202020202020202\", \"spanId\": \"0000000000000003\"}]}
     1 a 6<1 INTERNAL 41..42
     1 a 7<77 CONSUMER 43..44 orphan";

const SECRETS: &str = "1 a 1 SERVER 0..100 GET /login user.password=hunter2000 user.id=7
     1 a 2<1 CLIENT 10..90 GET url.full=http://b/x?token=abcdef123 http.response.status_code=200 {\"status\": {\"code\": 2, \"message\": \"Bearer 0123456789abcdef\"}}";

fn case(table: &str) -> Case {
    Case::read(self::table(table).to_string().as_bytes()).expect("a case")
}

fn document(case: Case) -> Document {
    let id = case.trees.first().map(|tree| tree.trace_id);
    Document::new(case, id.expect("a trace"), None).expect("a file")
}

/// Everything that a case says, in the lab's own form.
fn contents(case: &Case) -> String {
    String::from_utf8(case.to_json().expect("JSON")).expect("text")
}

/// The traces as text.
fn texts(case: &Case) -> String {
    case.trees.iter().map(|tree| tree.to_text()).collect()
}

/// An exchange on the wire between the first two spans of [`HOSTILE`].
fn exchange(headers: &str) -> Exchange {
    let id = trace_id(1);
    let sent =
        format!("GET / HTTP/1.1\r\ntraceparent: 00-{id}-0000000000000002-01\r\n{headers}\r\n");
    Exchange {
        hop: "a-b".to_owned(),
        to: "b".to_owned(),
        start: 0,
        end: Some(1),
        delivered: Some(sent.clone()),
        sent,
        status: Some(200),
        fault: None,
    }
}

#[test]
fn a_file_reads_back_as_the_same_request() {
    let mut cases = vec![case(HOSTILE)];
    cases[0].wire.push(exchange("x: <script>"));
    let folder = fs::read_dir(root().join("crates/traces/tests/cases")).expect("cases");
    for entry in folder {
        let bytes = fs::read(entry.expect("a case").path()).expect("bytes");
        // Some have only headers, and some are refused.
        cases.extend(Case::read(&bytes).ok().filter(|case| !case.trees.is_empty()));
    }
    assert!(cases.len() > 20, "{}", cases.len());
    for case in cases {
        let (shown, before) = (texts(&case), contents(&case));
        let file = document(case);
        assert_eq!(file.redacted, Redacted::default(), "{shown}");
        let again = Case::read(file.html.as_bytes()).expect(&shown);
        assert_eq!(texts(&again), shown);
        assert_eq!(contents(&again), before);
    }
}

#[test]
fn secrets_are_neither_shown_nor_in_the_data_and_the_file_says_so() {
    let mut case = case(SECRETS);
    let headers = "x-api-key: 5up3rs3cr3t\r\nx-secret:\r\n f0ld3ds3cr3t\r\ncookie: (not kept)\r\nset: harmless";
    case.wire.push(exchange(headers));
    let file = document(case);
    let again = Case::read(file.html.as_bytes()).expect("a case");
    let all = format!("{}{}", file.html, contents(&again));
    lacks(&all, ["hunter2000", "abcdef123", "0123456789abcdef", "5up3rs3cr3t", "f0ld3d"]);
    has(&all, ["harmless", "user.id", "(not kept)"]);
    let names = file.redacted.names.iter().map(String::as_str);
    assert_eq!(
        Vec::from_iter(names),
        ["a status message", "url.full", "user.password", "x-api-key", "x-secret"]
    );
    // Each header was sent and arrived.
    assert_eq!(file.redacted.values, 7);
    has(&file.html, ["they look like secrets: 7 values of", "<code>user.password</code>"]);
    // The finding stays, as it was of the request.
    has(&file.html, ["A secret in a span"]);
}

#[test]
fn nothing_in_a_file_runs_or_is_loaded_whatever_its_text_says() {
    let mut case = case(HOSTILE);
    case.wire.push(exchange("x: </pre><script>"));
    let Document { html, .. } = document(case);
    // Of tags alone: text and values of attributes are escaped.
    let tags = Regex::new("<[a-zA-Z][^>]*>").expect("a pattern");
    let values = Regex::new(r#"="[^"]*""#).expect("a pattern");
    for tag in tags.find_iter(&html) {
        let names = values.replace_all(tag.as_str(), "");
        lacks(&names, ["<script", "<img", "<iframe", " on", " src", "<u>"]);
    }
    let addresses = Regex::new(r#"href="([^"]*)""#).expect("a pattern");
    let mut leading = 0;
    for address in addresses.captures_iter(&html) {
        let address = &address[1];
        if address == "data:," {
            continue;
        }
        let id = address.strip_prefix('#').expect(address);
        has(&html, [&format!("id=\"{id}\"")]);
        leading += 1;
    }
    assert!(leading > 20, "{leading}");
    let style = html.split("<style>").nth(1).and_then(|it| it.split("</style>").next());
    lacks(style.expect("a style"), ["url(", "@import", "<"]);
    has(&html, ["default-src 'none'; style-src 'unsafe-inline'"]);
}

#[test]
fn a_large_trace_is_cut_on_the_page_and_whole_in_the_data() {
    let root = table("1 a 1 SERVER 0..100 GET /");
    let mut rows = vec![root["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()];
    for id in 2..=MOST + 10 {
        let mut row = rows[0].clone();
        row["spanId"] = format!("{id:016x}").into();
        row["parentSpanId"] = rows[0]["spanId"].clone();
        // Too much text for a browser.
        row["name"] = "n".repeat(4000).into();
        rows.push(row);
    }
    let mut all = root;
    all["resourceSpans"][0]["scopeSpans"][0]["spans"] = rows.into();
    let file = document(Case::read(all.to_string().as_bytes()).expect("a case"));
    assert_eq!(file.spans, MOST + 10);
    assert_eq!(file.html.matches("<article").count(), MOST);
    has(&file.html, ["the first 5000 rows are shown: the data in this file has all of them"]);
    let again = Case::read(file.html.as_bytes()).expect("a case");
    assert_eq!(again.trees[0].rows.len(), MOST + 10);
    // A page of more than four megabytes is read as a stream, too.
    assert!(file.html.len() > 5_000_000, "{}", file.html.len());
    let mut spans = 0;
    let contents =
        read::stream(file.html.as_bytes(), |some| spans += some.spans.len()).expect("spans");
    assert_eq!((contents.form, spans), (Form::Page, MOST + 10));
}

#[test]
fn a_damaged_file_says_what_is_wrong() {
    let Document { html, .. } = document(case(HOSTILE));
    let (page, data) = html.split_once("<data").expect("data");
    let reason = |html: String| read::read(html.as_bytes()).expect_err("damaged").to_string();
    has(&reason(page.to_owned()), ["it looks like an HTML page"]);
    let broken = "it is an HTML file of the lab, and the data in it can't be read: ";
    has(
        &reason(format!("{page}<data{}", data.replace("H4sI", "!!!!"))),
        [broken, "Invalid symbol"],
    );
    has(&reason(format!("{page}<data{}", data.replace("H4sI", "H4sIAAAA"))), [broken]);
    // A browser that saves the page writes its tags in its own way.
    let saved = html.replace("<!DOCTYPE html>", "<!DOCTYPE html>\n<!-- saved from url -->");
    let saved = saved.replace(" hidden>", " hidden=\"\">");
    assert_eq!(read::read(saved.as_bytes()).expect("spans").count, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_hands_out_the_file_and_takes_it_back() {
    let lab = Lab::of(HOSTILE).await;
    has(&lab.page(trace_path(1)).await, ["Download as one HTML file"]);
    let path = format!("{}.full.html", trace_path(1));
    let file = lab.page(&path).await;
    assert_eq!(lab.get(path.replace("01", "0f")).await.0, 404);
    let other = Lab::start().await;
    let (status, answer) = other.post("/traces/import", &[("content-type", JSON)], file).await;
    assert_eq!(status, 200, "{answer}");
    for trace in [1, 2] {
        let text = format!("{}.txt", trace_path(trace));
        assert_eq!(other.page(&text).await, lab.page(&text).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_writes_the_request_of_one_trace_and_all_commands_read_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let unrelated = "9 z 9 SERVER 900000..900001 other";
    let traces = table(&format!("{HOSTILE};{unrelated}")).to_string();
    let traces = write(folder.path(), "traces.json", &traces);
    let file = folder.path().join("new/request.html").display().to_string();
    let id = trace_id(1);
    let output = run("lab", &format!("trace {traces} {id} --html {file}")).await;
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said, format!("Written  {file}: 7 spans, nothing looks like a secret\n"));
    let stdout = async |arguments: String| {
        String::from_utf8(run("lab", &arguments).await.stdout).expect("text")
    };
    for command in ["trace", "trace --json"] {
        let (name, flags) = command.split_once(' ').unwrap_or((command, ""));
        let of_file = stdout(format!("{name} {file} {id} {flags}")).await;
        assert_eq!(of_file, stdout(format!("{name} {traces} {id} {flags}")).await);
        assert!(!of_file.is_empty());
    }
    has(&stdout(format!("diagnose {file}")).await, ["fallen-apart"]);
    let opened = Process::view(&format!("--open {file}")).await;
    has(&opened.printed, ["7 spans, from an HTML file of the lab"]);
    assert_eq!(
        opened.ask(&format!("trace {id}")).await,
        stdout(format!("trace {traces} {id}")).await
    );
    // From a lab, and to standard output.
    let printed = opened.ask(&format!("trace {id} --html -")).await;
    assert_eq!(Case::read(printed.as_bytes()).expect("a case").trees.len(), 2);
}
