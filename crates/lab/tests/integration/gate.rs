//! The command `diagnose` as a gate for CI: its formats, and the exit status of every command.

use serde_json::{Value, json};
use support::has;
use support::in_process::{table, trace_id};
use support::process::{Lab, command, finds, run, write};

/// A failure without an error status, which is certain, and a name with an id in it, which is worth a look.
const FOUND: &str = "1 shop 1 SERVER 0..9 pay http.response.status_code=500; 2 shop 1 SERVER 0..1 /users/4bf92f3577b34da6";
const WORTH_A_LOOK: &str = "2 shop 1 SERVER 0..1 /users/4bf92f3577b34da6";

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_says_what_was_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name, spans| write(folder.path(), name, &table(spans).to_string());
    let sound = file("sound.json", "1 shop 1 SERVER 0..9 pay");
    let (found, look) = (file("found.json", FOUND), file("look.json", WORTH_A_LOOK));
    let unreadable = write(folder.path(), "no.json", "no");
    for (arguments, status) in [
        (format!("diagnose {sound}"), 0),
        (format!("diagnose {found}"), 1),
        (format!("diagnose --all {found}"), 1),
        (format!("diagnose {look}"), 0),
        (format!("diagnose {look} --fail-on high-cardinality"), 1),
        (format!("diagnose {found} --fail-on orphan,secret"), 0),
        (format!("diagnose {found} --fail-on orphan,status-not-set"), 1),
        (format!("diagnose {found} --fail-on orphan --fail-on status-not-set --format json"), 1),
        (format!("diagnose {unreadable}"), 2),
        ("diagnose /nowhere.json".to_owned(), 2),
        ("diagnose --site 127.0.0.1:1".to_owned(), 2),
        ("diagnose --all --site 127.0.0.1:1".to_owned(), 2),
        ("trace --site 127.0.0.1:1".to_owned(), 2),
        ("break list --site 127.0.0.1:1".to_owned(), 2),
        ("diagnose --format xml".to_owned(), 2),
    ] {
        let output = run("lab", &arguments).await;
        assert_eq!(output.status.code(), Some(status), "{arguments}: {output:?}");
    }
    let unknown = run("lab", "diagnose --fail-on orphan,orphans").await;
    assert_eq!(unknown.status.code(), Some(2));
    let unknown = String::from_utf8(unknown.stderr).expect("text");
    has(&unknown, ["invalid value 'orphans'", "possible values: nothing-arrived, broken-header"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_trace_of_a_lab_is_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let spans =
        "1 shop 1 SERVER 0..9 pay http.response.status_code=500; 2 shop 1 SERVER 20..21 sound";
    let file = write(folder.path(), "session.json", &table(spans).to_string());
    let lab = Lab::view(&format!("--open {file}")).await;
    lab.ask("diagnose").await;
    has(&lab.finds("diagnose --all").await, ["A failure without an error status (certain): "]);
    lab.ask("diagnose --all --fail-on orphan").await;
    lab.refuses("diagnose --all 1", "leave out the id").await;
}

/// A root that isn't a request is diagnosed by other traces: the one of a request, and any with a request of its service.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_alone_is_diagnosed_as_in_the_file_with_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let spans = "1 shop 1 SERVER 0..9 pay; 2 shop 1 INTERNAL 2..4 validate;
                 3 shop 1 CLIENT 20..26 ask; 3 bank 2<1 SERVER 21..25 ask;
                 4 shop 1 INTERNAL 40..41 job; 5 shop 1 SERVER 39..45 list; 6 shop 1 SERVER 39..46 list";
    let file = write(folder.path(), "all.json", &table(spans).to_string());
    let of_file = async |file: &str| {
        let output = run("lab", &format!("diagnose {file}")).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let all = of_file(&file).await;
    let lab = Lab::view(&format!("--open {file}")).await;
    let within = "A root in the middle of a request (worth a look): ";
    let begins = "A trace that begins with a call (worth a look): ";
    let nothing = "No rule found a fault";
    for (trace, expected) in
        [(1, within), (2, within), (3, begins), (4, nothing), (5, nothing), (6, nothing)]
    {
        let id = trace_id(trace);
        let alone = lab.ask(&format!("diagnose {id}")).await;
        let alone = alone.replace(&format!("http://{}/", lab.site()), "the book's page ");
        assert!(alone.starts_with(expected), "{trace}: {alone}");
        assert!(expected == nothing || all.contains(alone.trim_end()), "{trace}: {alone}{all}");
        // The file of the case says the same, and so does the page.
        let case =
            write(folder.path(), "case.json", &lab.get(&format!("/traces/{id}.case.json")).await);
        assert_eq!(of_file(&case).await, alone);
        let page = lab.get(&format!("/traces/{id}")).await;
        has(&page, [expected.split(" (").next().expect("a title")]);
    }
    has(&all, [within, begins, "`validate` (INTERNAL, shop)", "such as `pay` (SERVER, shop)"]);
}

/// A lab that has opened a file in Zipkin's form says what the command says about the file, and so do its page and its case file.
#[tokio::test(flavor = "multi_thread")]
async fn a_lab_knows_which_traces_came_in_zipkins_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let (id, other) = (trace_id(1), trace_id(2));
    let local = |service: &str| json!({ "serviceName": service });
    let zipkin = json!([
        { "traceId": id, "id": "1", "kind": "CLIENT", "name": "ask", "timestamp": 10, "duration": 90,
          "localEndpoint": local("shop") },
        { "traceId": id, "id": "1", "kind": "SERVER", "name": "ask", "timestamp": 20, "duration": 70,
          "shared": true, "localEndpoint": local("bank") },
        { "traceId": id, "id": "2", "parentId": "1", "kind": "PRODUCER", "name": "send", "timestamp": 30,
          "localEndpoint": local("bank") },
    ]);
    let zipkin = write(folder.path(), "zipkin.json", &zipkin.to_string());
    let running = r#"2 stall 1 PRODUCER 0..1 send {"endTimeUnixNano": "0"}"#;
    let otlp = write(folder.path(), "otlp.json", &table(running).to_string());
    let printed = async |file: &str| {
        let output = run("lab", &format!("diagnose {file}")).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let of_file = printed(&zipkin).await;
    has(&of_file, ["`send` (PRODUCER, bank) has no duration", "If it is a message or an event"]);
    let lab = Lab::view(&format!("--open {zipkin} --open {otlp}")).await;
    let of_lab = lab.ask(&format!("diagnose {id}")).await;
    assert_eq!(of_lab.replace(&format!("http://{}/", lab.site()), "the book's page "), of_file);
    has(&lab.ask(&format!("diagnose {other}")).await, ["`send` (PRODUCER, stall) has no end"]);
    let all = lab.ask("diagnose --all").await;
    has(&all, ["(PRODUCER, bank) has no duration", "(PRODUCER, stall) has no end"]);
    has(&lab.get(&format!("/traces/{id}")).await, ["(PRODUCER, bank) has no duration"]);
    let case = lab.get(&format!("/traces/{id}.case.json")).await;
    assert_eq!(printed(&write(folder.path(), "case.json", &case)).await, of_file);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_the_findings_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "found.json", &table(FOUND).to_string());
    let report = finds("lab", &format!("diagnose {file} --format json")).await;
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let inspected = json!({ "traces": 2, "spans": 2, "services": 1, "requests": 0, "headers": 0 });
    assert_eq!(report["inspected"], inspected);
    let findings = report["findings"].as_array().expect("findings");
    let rules: Vec<_> = findings
        .iter()
        .map(|it| (it["rule"].as_str(), it["certainty"].as_str(), it["fails"].as_bool()))
        .collect();
    let expected = [
        (Some("status-not-set"), Some("certain"), Some(true)),
        (Some("high-cardinality"), Some("worth-a-look"), Some(false)),
    ];
    assert_eq!(rules, expected);
    let found = &findings[0];
    let trace = trace_id(1);
    assert_eq!(found["spans"], json!([{ "traceId": trace, "spanId": "0000000000000001" }]));
    assert_eq!(found["traces"], json!([trace]));
    has(
        found["sentence"].as_str().expect("a sentence"),
        ["`pay` (SERVER, shop) has the HTTP status 500"],
    );
    has(found["advice"][0].as_str().expect("a step"), ["Set the status to error"]);

    let sound =
        "1 shop 1 SERVER 0..9 pay; 1 shop 2<1 CLIENT 1..8 ask error=late error.type=timeout";
    let sound = write(folder.path(), "sound.json", &table(sound).to_string());
    let report = run("lab", &format!("diagnose {sound} --format json")).await.stdout;
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["findings"], json!([]));
    let failure = json!({
        "name": "ask", "kind": "CLIENT", "service": "shop", "errorType": "timeout", "message": "late",
    });
    assert_eq!(report["failure"], failure);
}

#[tokio::test(flavor = "multi_thread")]
async fn github_gets_an_annotation_for_each_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    let spans = FOUND.replace("pay", "100%::stop,\u{7}now");
    let file = write(folder.path(), "found.json", &table(&spans).to_string());
    let report = finds("lab", &format!("diagnose {file} --format github")).await;
    let lines: Vec<&str> = report.lines().collect();
    let [error, notice] = lines[..] else { panic!("{report}") };
    assert!(
        error.starts_with("::error title=A failure without an error status::`100%25::stop"),
        "{report}"
    );
    has(
        error,
        ["%0ASet the status", "%0AMore: the book's page how-to/diagnose.html#status-not-set"],
    );
    assert!(notice.starts_with("::notice title=A name that never repeats::"), "{report}");
    // The level is that of an error where the exit status is 1 because of the finding.
    for (options, levels) in [
        ("", ["error", "notice"]),
        ("--fail-on orphan", ["warning", "notice"]),
        ("--fail-on high-cardinality", ["warning", "error"]),
    ] {
        let report = run("lab", &format!("diagnose {file} --format github {options}")).await.stdout;
        let report = String::from_utf8(report).expect("text");
        let level = |line: &str| line[2..].split(' ').next().expect("a word").to_owned();
        assert_eq!(report.lines().map(level).collect::<Vec<_>>(), levels, "{options}: {report}");
    }
}

/// A finding must not hide that the request failed.
#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_the_request_is_in_every_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let spans = "1 shop 1 SERVER 0..9 pay error=late; 1 shop 2<9 INTERNAL 1..8 load";
    let file = write(folder.path(), "failed.json", &table(spans).to_string());
    let failure = "The request failed. The span with the error is `pay` (SERVER, shop): late.";
    let text = finds("lab", &format!("diagnose {file}")).await;
    assert!(text.starts_with(&format!("{failure}\n\nSpans are missing (likely): ")), "{text}");
    let github = finds("lab", &format!("diagnose {file} --format github")).await;
    let notice = format!("::notice title=The request failed::{failure}\n::error title=Spans");
    assert!(github.starts_with(&notice), "{github}");
    let json = finds("lab", &format!("diagnose {file} --format json")).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["failure"]["name"], &json["findings"][0]["fails"]),
        (&json!("pay"), &json!(true))
    );
    let lab = Lab::view(&format!("--open {file}")).await;
    let page = lab.get(&format!("/traces/{}", trace_id(1))).await;
    has(
        &page,
        ["<p class=\"facts\">The request failed. The span with the error is <code><bdi>pay"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_headers_has_no_trace_to_show() {
    let folder = tempfile::tempdir().expect("a folder");
    let header = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n";
    let file = write(folder.path(), "head.txt", header);
    for command in ["trace", "traces"] {
        let output = run("lab", &format!("{command} {file}")).await;
        let error = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{error}");
        has(
            &error,
            [&format!("has headers of requests and no trace: `lab diagnose {file}` looks")],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_found_without_its_zeros_and_in_any_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = table("1 shop 1 SERVER 0..9 pay").to_string();
    let long = "0000000000000000a7890b687652000e";
    let json = json.replace(&trace_id(1), long);
    let json = json.replace("0000000000000001", "0000000000000abc");
    let lab = Lab::view(&format!("--open {}", write(folder.path(), "a.json", &json))).await;
    for id in [long, "a7890b687652000e", "A7890B687652000E", "00000000-0000-0000-a789-0b687652000e"]
    {
        has(&lab.ask(&format!("trace {id}")).await, [&format!("Trace {long}")]);
        has(
            &lab.ask(&format!("diagnose {id}")).await,
            ["No rule found a fault in 1 span of 1 service."],
        );
        has(&lab.get(&format!("/traces/{id}?span=abc")).await, [long, "aria-selected=\"true\""]);
        has(&lab.get(&format!("/traces/{id}?focus=ABC")).await, ["Only <bdi>pay</bdi>"]);
        has(&lab.get(&format!("/traces/{id}/spans/abc")).await, ["0000000000000abc"]);
        has(&lab.get(&format!("/traces/{id}.json")).await, [long]);
        has(&lab.get(&format!("/api/traces/{id}")).await, [long]);
        has(&lab.get(&format!("/api/traces?traceID={id}")).await, [long]);
        has(&lab.get(&format!("/traces.json?text={id}")).await, [long]);
    }
    // The first digits, with the zeros and without them.
    has(&lab.ask("trace a789").await, [long]);
    has(&lab.ask("trace 0000").await, [long]);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_written_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "found.json", &table(FOUND).to_string());
    let lab = Lab::view(&format!("--open {file}")).await;
    for arguments in
        ["traces", "trace", "traces --json", "trace --json", "diagnose", "diagnose --format json"]
    {
        let mut command = command("lab", &format!("{arguments} --site {}", lab.site())).await;
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a full disk");
        let child = command.stdout(full).spawn().expect("it starts");
        let output = child.wait_with_output().await.expect("it ends");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(
            (output.status.code(), stderr.lines().count()),
            (Some(2), 1),
            "{arguments}: {stderr}"
        );
        has(&stderr, ["Error: cannot write to standard output: No space left"]);
    }
}

/// Counts the columns before `part` in the line that has `name` in it.
fn column(text: &str, name: &str, part: &str) -> usize {
    let line = text.lines().find(|line| line.contains(name)).expect(text);
    let (before, _) = line.split_once(part).expect(line);
    // The wide characters of these tests.
    before.chars().map(|it| if it >= '\u{3000}' { 2 } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_characters_leave_columns_aligned() {
    let folder = tempfile::tempdir().expect("a folder");
    let wide = "注文を確認する";
    let spans = format!(
        "1 店舗 1 SERVER 0..9 {wide}🎉; 1 shop 2<1 SERVER 1..8 pay; 2 shop 3 SERVER 10..19 a {}",
        "長".repeat(60)
    );
    let lab = Lab::view(&format!(
        "--open {}",
        write(folder.path(), "a.json", &table(&spans).to_string())
    ))
    .await;
    let first = trace_id(1);
    for text in
        [lab.ask(&format!("trace {first}")).await, lab.get(&format!("/traces/{first}.txt")).await]
    {
        assert_eq!(column(&text, wide, "店舗"), column(&text, "pay", "shop"), "{text}");
        assert_eq!(column(&text, wide, ".00 ms"), column(&text, "pay", ".00 ms"), "{text}");
    }
    let list = lab.ask("traces").await;
    assert_eq!(column(&list, wide, ".00 ms"), column(&list, "長", ".00 ms"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_thing_is_not_several() {
    let folder = tempfile::tempdir().expect("a folder");
    let file =
        write(folder.path(), "a.json", &table("1 shop 1 SERVER 0..9 pay error=late").to_string());
    let lab = Lab::view(&format!("--open {file}")).await;
    has(
        &lab.get("/traces?name=nothing").await,
        ["No trace passes this filter. The lab has 1 trace."],
    );
    has(&lab.get("/traces?name=pay").await, ["1 trace, 1 span; 1 passes the filter"]);
    has(
        &lab.ask("diagnose").await,
        [
            "Propagation is intact, and the request failed. The span with the error is `pay` (SERVER, shop): late. \
          No rule found a fault in 1 span of 1 service.",
        ],
    );
    let found = write(folder.path(), "b.json", &table(FOUND).to_string());
    has(&finds("lab", &format!("diagnose {found}")).await, ["\n  span   0000000000000001\n"]);
}

#[test]
fn an_id_that_was_typed_completely_is_the_only_one() {
    let ids = ["a1".to_owned(), trace_id(0xa1), trace_id(0xb1)];
    let ids = ids.map(|id| lab::span::trace_id(&id).expect("an id"));
    let found = |typed: &str| lab::client::starting_with(typed, ids.into_iter());
    assert_eq!(found("a1"), [ids[0]]);
    assert_eq!(found("A1a1"), [ids[1]]);
    assert_eq!(found("a"), ids[..2]);
    assert_eq!(found("c"), []);
}
