//! `TRACE_EXPECT=update` writes the file and warns about the faults of the trace that it is written from. A trace that differs leaves a
//! page.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use trace_expect::Expect;
use traces::case::Case;

/// The environment variable with the file that [`a_checkout`] expects.
const FILE: &str = "CHECKOUT_TRACE";

/// The environment variable with the parent of the span of `stock`; `sent` for the one that was sent.
const PARENT: &str = "CHECKOUT_PARENT";

/// A parent whose span never arrives.
const LOST: &str = "00000000000000ff";

/// A test as users write them. The tests below run it, each with its own environment; alone, it does nothing.
#[tokio::test]
async fn a_checkout() {
    let Ok(file) = std::env::var(FILE) else { return };
    let expect = Expect::new(file).settle(Duration::from_millis(100));
    let expect = expect.timeout(Duration::from_secs(1));
    expect.run(async |traceparent| export(&traceparent)).await;
}

/// Sends a span of `shop`, which continues the trace, and one of `stock`.
fn export(traceparent: &str) -> std::io::Result<()> {
    let [_, trace, sent, _] = traceparent.split('-').collect::<Vec<_>>()[..] else {
        panic!("{traceparent}")
    };
    let parent = std::env::var(PARENT).expect("a parent");
    let stock = if parent == "sent" { sent } else { &parent };
    let spans = [("shop", "01", sent), ("stock", "02", stock)].map(|(service, id, parent)| {
        json!({
            "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] },
            "scopeSpans": [{ "spans": [{
                "traceId": trace, "spanId": id.repeat(8), "parentSpanId": parent,
                "name": format!("GET /{service}"), "kind": 2,
                "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000001000000",
            }] }],
        })
    });
    let body: Value = json!({ "resourceSpans": spans });
    let body = body.to_string();
    let address = trace_expect::endpoint().replace("http://", "");
    let mut connection = TcpStream::connect(&address)?;
    write!(
        connection,
        "POST /v1/traces HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

/// Runs [`a_checkout`] in a process of its own, as `cargo test` does.
fn run(file: &Path, parent: &str, update: bool) -> Output {
    let mut test = Command::new(std::env::current_exe().expect("a program"));
    test.args(["--exact", "a_checkout"]).env(FILE, file).env(PARENT, parent);
    match update {
        true => test.env(trace_expect::UPDATE, "update"),
        false => test.env_remove(trace_expect::UPDATE),
    };
    test.output().expect("it runs")
}

/// The lines that begin with `Warning`, without the path of the file.
fn warnings(output: &Output, file: &Path) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stderr);
    let start = format!("Warning: {}: ", file.display());
    printed.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

#[test]
fn a_file_is_written_from_a_sound_trace_without_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("checkout.trace");
    assert!(!run(&file, "sent", false).status.success(), "there is no file yet");
    assert_eq!(warnings(&run(&file, "sent", true), &file), [""; 0]);
    assert_eq!(
        std::fs::read_to_string(&file).expect("a file"),
        "GET /shop   SERVER  shop\nGET /stock  SERVER  stock\n"
    );
    assert!(run(&file, "sent", false).status.success(), "the file matches");
}

#[test]
fn the_faults_of_the_trace_are_warnings() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("checkout.trace");
    for (parent, parts) in [("", ["several roots", "`GET /shop`"]), (LOST, ["orphan", LOST])] {
        let warnings = warnings(&run(&file, parent, true), &file);
        let [only] = &warnings[..] else { panic!("{warnings:#?}") };
        assert!(parts.iter().all(|part| only.contains(part)), "{only}");
    }
}

#[test]
fn a_trace_that_differs_leaves_a_page_until_it_matches() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("differs.trace");
    std::fs::write(&file, "GET /shop  SERVER  shop\n").expect("it is written");
    let output = run(&file, "sent", false);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && printed.contains("1 surplus"), "{printed}");
    let (_, page) = printed.split_once("Open this page in a browser: ").expect(&printed);
    let page = Path::new(page.lines().next().expect("a path"));
    assert!(page.ends_with("trace-expect/trace-expect-differs.html"), "{page:?}");
    let target = page.ancestors().nth(2).expect("a folder");
    let program = std::env::current_exe().expect("a program");
    assert!(program.starts_with(target), "{target:?}");

    let text = std::fs::read_to_string(page).expect("a page");
    for part in ["1 surplus", "GET /stock", "</table>"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("<script"), "{text}");
    let [tree] = &Case::read(text.as_bytes()).expect("its data").trees[..] else {
        panic!("not one trace")
    };
    assert_eq!(tree.rows.len(), 2);

    std::fs::write(&file, "GET /shop   SERVER  shop\nGET /stock  SERVER  stock\n").expect("a file");
    assert!(run(&file, "sent", false).status.success(), "the file matches");
    assert!(!page.exists(), "the page is that of an earlier run");
}
