//! Each rule finds its fault in a small trace, and nothing in others that look like it. `tests/guides/diagnose.rs` has a recorded trace for each rule.

use support::in_process::table;
use traces::case::Case;
use traces::diagnose::{Certainty, Evidence, Finding, Rule, diagnose};
use traces::report;
use traces::tree::{Note, Skew, Tree};

/// The findings in the traces of a table.
fn findings(rows: &str) -> Vec<Finding> {
    Case::read(table(rows).to_string().as_bytes()).expect("a case").findings()
}

fn rules(rows: &str) -> Vec<Rule> {
    findings(rows).iter().map(|finding| finding.rule).collect()
}

/// The tree of the only trace of a table.
fn tree(rows: &str) -> Tree {
    let mut case = Case::read(table(rows).to_string().as_bytes()).expect("a case");
    assert_eq!(case.trees.len(), 1);
    case.trees.remove(0)
}

fn names(tree: &Tree) -> Vec<String> {
    tree.rows.iter().map(|row| format!("{}{}", " ".repeat(row.depth), row.span.name())).collect()
}

#[test]
fn only_a_call_that_is_like_the_request_is_its_caller() {
    let with = |call: &str| {
        rules(&format!(
            "1 shop 1 SERVER 0..40 GET /cart; 1 shop 2<1 CLIENT 5..30 {call};
             1 pods 3<1 SERVER 10..20 GET /pods http.request.method=GET url.path=/pods"
        ))
    };
    for other in [
        "SELECT cart db.system.name=postgresql",
        "GET /pods db.type=redis",
        "publish messaging.system=kafka",
        "SELECT",
        "POST http.request.method=POST url.full=https://pods/pods",
        "GET http.method=GET http.url=http://pods/other",
    ] {
        assert_eq!(with(other), [], "{other}");
    }
    for caller in [
        "GET /pods",
        "GET http.method=GET http.url=http://pods/pods?all=1",
        "HTTP GET http.request.method=GET url.full=https://pods/pods",
    ] {
        assert_eq!(with(caller), [Rule::WrongParent], "{caller}");
    }
}

#[test]
fn a_url_makes_a_client_only_where_the_span_sends_it() {
    let with = |attributes: &str, more: &str| {
        rules(&format!(
            "1 a 1 SERVER 0..9 top url.path=/a; 1 a 2<1 INTERNAL 1..8 work http.method=GET {attributes}; {more}"
        ))
    };
    assert_eq!(with("http.url=http://b/c", ""), [Rule::WrongKind]);
    // A path with a query; the URL of the request that is being answered; a span around the CLIENT span.
    assert_eq!(with("http.url=/customer?customer=1", ""), []);
    assert_eq!(with("http.url=http://a/a", ""), []);
    assert_eq!(with("http.url=http://b/c", "1 a 3<2 CLIENT 2..7 GET"), []);
    // A root may be either side.
    let root = "1 a 2 INTERNAL 1..8 work http.method=GET http.url=http://b/c";
    assert_eq!(rules(root), []);
    assert_eq!(rules(&format!("{root}; 1 b 3<2 SERVER 2..3 GET /c")), [Rule::WrongKind]);
}

#[test]
fn numbers_in_names_are_values_where_several_occur_or_their_form_says_so() {
    let with = |names: &[&str]| {
        let rows = names
            .iter()
            .enumerate()
            .map(|(at, name)| format!("1 a {}<1 INTERNAL 1..2 {name}", at + 2));
        let rows: Vec<String> =
            std::iter::once("1 a 1 SERVER 0..9 top".to_owned()).chain(rows).collect();
        rules(&rows.join(";"))
    };
    for fixed in [
        &["localhost:10000"][..],
        &["localhost:10000", "localhost:10001"],
        &["GET 10.1.2.3:50051", "GET 10.1.2.3:50052"],
        &["cache:16379 server.port=16379", "cache:16380 server.port=16380"],
        &["load 48151", "load 48151"],
        &["report 20260806"],
        &["npm install lodash@4.17.21"],
        &["clone git@github.com"],
        &["clone https://x-access-token:***@github.com/a/b.git"],
        &["clone https://ada@github.com/a/b.git"],
        &["GET /errors/404 url.path=/errors/404"],
        &["HTTP 404", "HTTP 500", "HTTP 200"],
        &["GET /zip/12345 http.route=/zip/12345", "GET /zip/12346 http.route=/zip/12346"],
    ] {
        assert_eq!(with(fixed), [], "{fixed:?}");
    }
    for values in [
        &["load 48151", "load 48152"][..],
        &["GET user:48151", "GET user:48152"],
        &["load 1234567"],
        &["mail to ada@example.com"],
        &["GET /users/42 url.path=/users/42", "GET /users/43 http.target=/users/43?x=1"],
    ] {
        assert_eq!(with(values), [Rule::HighCardinality], "{values:?}");
    }
    // An anonymiser replaced the names by hashes.
    assert_eq!(rules("1 16af988c443cff37 1 SERVER 0..1 a071653098f9250d"), []);
    let found = findings(
        "1 a 1 SERVER 0..1 load 48151; 1 a 2<1 INTERNAL 0..1 load 48152; 1 a 3<1 INTERNAL 0..1 load 48152",
    );
    assert!(
        matches!(&found[0].evidence, Evidence::ValueInName { value, others: 1, .. } if value == "48151")
    );
    assert_eq!((found[0].same, found[0].spans.len()), (2, 3));
}

#[test]
fn clocks_that_are_ahead_are_found_where_the_call_was_answered() {
    let with = |client: &str, server: &str| {
        findings(&format!("1 a 1 CLIENT 0..100 GET {client}; 1 b 2<1 SERVER {server}"))
    };
    let found = with(
        "http.request.method=GET http.response.status_code=200",
        "5000..5050 GET /x http.response.status_code=200",
    );
    let Evidence::ClockSkew { by, .. } = &found[0].evidence else { panic!("{found:#?}") };
    assert_eq!(*by, Skew::Ahead(4_900_000_000));
    // Nobody knows that the call was answered; it was not; another one answered; what started later also took longer.
    for (client, server) in [
        ("", "5000..5050 GET /x"),
        ("error=timeout", "5000..5050 GET /x"),
        ("http.response.status_code=200", "5000..5050 GET /x http.response.status_code=404"),
        ("http.response.status_code=200", "5000..5200 GET /x"),
    ] {
        assert_eq!(with(client, server), [], "{client} {server}");
    }
    let tree =
        tree("1 a 1 CLIENT 0..100 GET http.status_code=200; 1 b 2<1 SERVER 5000..5050 GET /x");
    assert_eq!(tree.rows[1].notes(), [Note::Skew(Skew::Ahead(4_900_000_000))]);
    for (status, found) in [
        ("rpc.grpc.status_code=0", 1),
        ("rpc.response.status_code=OK", 1),
        ("rpc.status_code=OK", 1),
        ("rpc.status_code=NOT_FOUND", 0),
    ] {
        assert_eq!(with(status, "5000..5050 GET /x").len(), found, "{status}");
    }
}

/// Each of the conventions for remote procedure calls has its own name for the status. An error that repeats it is enough.
#[test]
fn the_status_of_a_remote_procedure_call_is_shown() {
    for (fields, shown) in [
        ("rpc.status_code=NOT_FOUND", "NOT_FOUND"),
        ("rpc.response.status_code=OK", "OK"),
        ("rpc.grpc.status_code=5", "NOT_FOUND"),
        ("rpc.grpc.status_code=99", "99"),
        ("rpc.status_code=NOT_FOUND error= error.type=NOT_FOUND", "error NOT_FOUND"),
        ("rpc.status_code=UNKNOWN error= error.type=timeout", "UNKNOWN, error timeout"),
    ] {
        let tree = tree(&format!("1 a 1 SERVER 0..9 shop.Stock/Get {fields}"));
        assert_eq!(report::notes(&tree.rows[0].notes()), shown, "{fields}");
    }
}

/// One host has one clock: the times of the spans are wrong, and not the clock.
#[test]
fn services_of_one_host_have_one_clock() {
    let on = |host: &str| {
        let rows = "1 a 1 CLIENT 100..110 GET; 1 b 2<1 SERVER 50..60 GET /x";
        let mut json = table(rows);
        for (index, host) in ["one", host].into_iter().enumerate() {
            let attributes = &mut json["resourceSpans"][index]["resource"]["attributes"];
            let attribute =
                serde_json::json!({ "key": "host.name", "value": { "stringValue": host } });
            attributes.as_array_mut().expect("a list").push(attribute);
        }
        Case::read(json.to_string().as_bytes()).expect("a case").findings().len()
    };
    assert_eq!((on("one"), on("other")), (0, 1));
}

/// In Zipkin's model the two ends of a call share an id.
#[test]
fn two_ends_of_a_call_may_share_an_id() {
    let rows = "1 front 1 SERVER 0..40 get; 1 front 2<1 CLIENT 5..35 call; 1 back 2<1 SERVER 8..30 get /things;
        1 back 3<2 INTERNAL 10..20 lookup; 1 front 4<2 INTERNAL 6..7 connect";
    let tree = tree(rows);
    assert_eq!(names(&tree), ["get", " call", "  connect", "  get /things", "   lookup"]);
    assert!(tree.is_whole());
    assert_eq!(diagnose(&[tree], &[]), []);
    // A trace that begins with the call.
    let root = self::tree("1 front 2 CLIENT 5..35 call; 1 back 2 SERVER 8..30 get /things");
    assert_eq!(names(&root), ["call", " get /things"]);
    assert_eq!(diagnose(&[root], &[]), []);
    // The same by clocks that differ.
    let early = self::tree("1 front 2 CLIENT 5..35 call; 1 back 2 SERVER 1..20 get /things");
    assert_eq!(names(&early), ["call", " get /things"]);
}

#[test]
fn a_span_without_an_end_has_not_ended() {
    let rows = r#"1 a 1 SERVER 0..1 top {"endTimeUnixNano": "0"}
        1 a 2<1 INTERNAL 5..25 done"#;
    let tree = tree(rows);
    assert_eq!(tree.rows[0].notes(), [Note::NotEnded]);
    assert_eq!(tree.rows[1].notes(), []);
    let found = diagnose(&[tree], &[]);
    assert_eq!(found.iter().map(|it| it.rule).collect::<Vec<_>>(), [Rule::NotEnded]);
}

/// In Zipkin's form, a span may have no duration for other reasons than that it runs.
#[test]
fn the_advice_about_a_span_without_an_end_fits_zipkins_form() {
    let span = r#"[{"traceId": "1", "id": "2", "name": "send", "kind": "PRODUCER", "timestamp": 1, "localEndpoint": {"serviceName": "a"}}]"#;
    let zipkin = Case::read(span.as_bytes()).expect("a case").findings();
    let otlp = findings(r#"1 a 1 PRODUCER 0..1 send {"endTimeUnixNano": "0"}"#);
    let [zipkin, otlp] = [&zipkin[..], &otlp[..]].map(|found| match found {
        [finding] => (finding.rule, finding.evidence.to_string(), finding.advice()),
        found => panic!("{found:?}"),
    });
    assert_eq!((zipkin.0, otlp.0), (Rule::NotEnded, Rule::NotEnded));
    assert!(zipkin.1.starts_with("`send` (PRODUCER, a) has no duration"), "{}", zipkin.1);
    assert!(
        zipkin.2[0].contains("If it is a message") && otlp.2[0].contains("look at the trace again")
    );
}

/// However often its resource was sent: a file may have it with each span, and a running lab keeps it once.
#[test]
fn a_service_without_a_name_is_named_once() {
    let rows = "1 unknown_service 1 SERVER 0..9 top; 1 unknown_service 2<1 INTERNAL 1..2 work; 1 a 3<1 INTERNAL 1..2 work";
    let found = findings(rows);
    assert_eq!(
        found.iter().map(|it| (it.rule, it.same)).collect::<Vec<_>>(),
        [(Rule::NoServiceName, 0)]
    );
}

/// The older names of attributes are read as the newer ones are.
#[test]
fn a_status_is_read_by_both_names() {
    for key in ["http.response.status_code", "http.status_code"] {
        let with = |kind: &str, status: u16, more: &str| {
            rules(&format!("1 a 1 {kind} 0..1 GET {key}={status} {more}"))
        };
        assert_eq!(with("SERVER", 500, ""), [Rule::StatusNotSet]);
        assert_eq!(with("CLIENT", 404, ""), [Rule::StatusNotSet]);
        assert_eq!(with("SERVER", 404, ""), []);
        assert_eq!(with("CLIENT", 404, r#"{"status": {"code": 1}}"#), [], "the service expects it");
    }
}

/// A caller may export its spans elsewhere. Another service of the trace has probably made the call.
#[test]
fn an_orphan_is_likely_where_another_service_is_here() {
    let with = |other: &str| {
        let found = findings(&format!("1 a 1<8 SERVER 0..9 GET /; {other}"));
        found.iter().map(|it| (it.rule, it.evidence.certainty())).collect::<Vec<_>>()
    };
    let alone = (Rule::Orphan, Certainty::WorthALook);
    assert_eq!(with("1 a 2<8 SERVER 10..19 GET /"), [alone]);
    assert_eq!(with("1 a 2<9 SERVER 10..19 GET /"), [alone, alone]);
    assert_eq!(with("1 b 2 CLIENT 10..19 GET /"), [(Rule::Orphan, Certainty::Likely)]);
}

/// A root with a link into its trace says what it follows from.
#[test]
fn a_root_may_be_linked_to_its_own_trace() {
    let link = format!(
        r#"{{"links": [{{"traceId": "{}", "spanId": "0000000000000001"}}]}}"#,
        "01".repeat(16)
    );
    let with = |fields: &str| {
        rules(&format!("1 a 1 SERVER 0..9 top\n1 a 2 CONSUMER 10..11 later {fields}"))
    };
    assert_eq!(with(""), [Rule::SeveralRoots]);
    assert_eq!(with(&link), []);
}

/// A link to itself says nothing: neither what a root follows, nor what it belongs to.
#[test]
fn a_link_to_the_span_itself_explains_nothing() {
    let link = r#"{"links": [{"traceId": "TRACE", "spanId": "0000000000000002"}]}"#;
    let to = |trace: u32| link.replace("TRACE", &format!("{trace:02x}").repeat(16));
    let roots = format!("1 a 1 SERVER 0..9 top\n1 a 2 CONSUMER 10..11 later {}", to(1));
    assert_eq!(rules(&roots), [Rule::SeveralRoots]);
    assert_eq!(tree(&roots).rows[1].notes(), [Note::LinkedToItself]);
    let within =
        |to: String| rules(&format!("1 a 1 SERVER 0..9 top\n2 a 2 INTERNAL 2..4 work {to}"));
    assert_eq!(within(to(2)), [Rule::RootWithin]);
    assert_eq!(within(to(1)), []);
}

/// Roots that share an id have one cause.
#[test]
fn roots_that_came_with_one_id_are_one_finding_with_that_cause() {
    // As two processes that forked from one make them.
    let forked = "1 a 1 SERVER 0..9 top host.name=x; 1 a 2<1 INTERNAL 1..8 work;
        1 b 1 SERVER 20..29 top; 1 b 2<1 INTERNAL 21..28 work";
    let found = findings(forked);
    let [finding] = &found[..] else { panic!("{found:?}") };
    let Evidence::SharedId { count: 2, first, .. } = &finding.evidence else {
        panic!("{finding:?}")
    };
    assert_eq!((finding.rule, &*first.name, finding.spans.len()), (Rule::SeveralRoots, "top", 2));
    // They count as one of several roots.
    let other = findings(&format!("{forked}; 1 c 3 SERVER 40..41 other"));
    let counts = other.iter().map(|it| match it.evidence {
        Evidence::SharedId { count, .. } | Evidence::SeveralRoots { count, .. } => count,
        _ => 0,
    });
    assert_eq!(counts.collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn many_spans_of_one_id_are_a_tree() {
    let rows = (0..20_000).map(|at| format!("1 service-{at} 1<1 SERVER {at}..20000 same"));
    assert_eq!(tree(&rows.collect::<Vec<_>>().join("\n")).rows.len(), 20_000);
}

#[test]
fn a_root_within_a_request_is_worth_a_look() {
    let request = "1 a 1 SERVER 0..9 GET /";
    for (other, expected) in [
        ("2 a 2 INTERNAL 2..4 work", &[Rule::RootWithin][..]),
        ("2 a 2 CLIENT 2..4 GET", &[Rule::RootWithin]),
        ("2 a 2 SERVER 2..4 GET", &[]),
        ("2 b 2 INTERNAL 2..4 work", &[]),
        ("2 a 2 INTERNAL 8..10 work", &[]),
        ("2 a 2 CLIENT 20..24 GET", &[Rule::ClientRoot]),
        ("2 a 2 CLIENT 20..24 SELECT db.system.name=postgresql", &[]),
        ("2 a 2<7 INTERNAL 2..4 work", &[Rule::MissingSpans]),
    ] {
        assert_eq!(rules(&format!("{request};{other}")), expected, "{other}");
    }
    // The span of the request was filtered out; the call was answered, failed, or is one of a database.
    let work = "2 b 9 INTERNAL 2..4 work";
    for (call, expected) in [
        ("GET", &[Rule::RootWithin][..]),
        ("GET; 1 c 3<2 SERVER 1..8 GET /", &[]),
        ("GET error=refused", &[]),
        ("SELECT db.system.name=postgresql", &[]),
    ] {
        assert_eq!(
            rules(&format!("{request};1 a 2<1 CLIENT 1..9 {call};{work}")),
            expected,
            "{call}"
        );
    }
}

/// A request that goes on after its caller has failed, by durations: one of the clocks is an hour ahead.
#[test]
fn a_caller_that_hung_up_is_found_by_durations() {
    let with = |client: &str, server: &str| {
        rules(&format!("1 a 1 CLIENT 0..100 GET {client}; 1 b 2<1 SERVER {server}"))
    };
    let hung_up = "error=timeout";
    assert_eq!(with(hung_up, "50..200 GET /"), [Rule::HungUp]);
    assert_eq!(with(hung_up, "3600000..3600200 GET /"), [Rule::HungUp]);
    assert_eq!(with(hung_up, "50..90 GET / http.method=GET"), [Rule::HungUp]);
    assert_eq!(with(hung_up, "50..90 GET /"), []);
    assert_eq!(with(hung_up, "50..200 GET / error=cancelled"), []);
    assert_eq!(with("error=502 http.status_code=502", "50..200 GET /"), []);
    assert_eq!(with("", "50..90 GET / http.method=GET"), []);
}

/// No number of spans makes the rules slow.
#[test]
fn ten_thousand_spans_are_looked_at_in_time() {
    let span =
        |id: u64, kind: &str| format!("{} a {id} {kind} {id}..{} work {id}", id % 90 + 1, id + 9);
    let rows: Vec<String> =
        (1..=10_000).map(|id| span(id, if id % 2 == 0 { "INTERNAL" } else { "SERVER" })).collect();
    assert!(findings(&rows.join(";")).len() < 100);
}
