//! How headers and files are read, and how findings are counted. `tests/guides/diagnose.rs` has a trace for each rule.

use support::in_process::table;
use traces::case::Case;
use traces::diagnose::{Finding, Rule, of_header};
use traces::report;
use traces::traceparent::Traceparent;

#[test]
fn a_header_is_read_byte_by_byte() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert!(of_header(valid).is_none());
    assert!(Traceparent::parse(&valid.replace("00-4b", "01-4b")).is_ok());
    assert!(Traceparent::parse(&(valid.replace("00-4b", "cc-4b") + "-more")).is_ok());
    let cases = [
        (String::new(), 0, "ends here"),
        (valid[..30].to_owned(), 30, "within the trace id"),
        (valid[..35].to_owned(), 35, "after the trace id"),
        (valid[..54].to_owned(), 54, "within the flags"),
        (valid.to_uppercase(), 4, "upper case"),
        (valid.replace("00-", "ff-"), 0, "version ff"),
        (valid.replace("4bf9", "4bg9"), 5, "not a hexadecimal digit"),
        (valid.replace("00f067aa0ba902b7", "0000000000000000"), 36, "all zero"),
        (valid.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), 3, "all zero"),
        (valid.replace("-00f0", "_00f0"), 35, "stands where"),
        (format!("{valid}-00"), 55, "there is more"),
        (format!("{valid}0"), 55, "there is more"),
        ("é".repeat(55), 0, "not a hexadecimal digit"),
    ];
    for (value, byte, reason) in cases {
        let broken = Traceparent::parse(&value).expect_err(&value);
        assert_eq!(broken.byte, byte, "{value}: {broken}");
        assert!(broken.reason.to_string().contains(reason), "{value}: {broken}");
        assert_eq!(of_header(&value).expect("a finding").rule, Rule::BrokenHeader);
    }
    let unsampled = valid.replace("-01", "-00");
    assert_eq!(of_header(&unsampled).expect("a finding").rule, Rule::Unsampled);
}

#[test]
fn what_is_pasted_is_read_as_what_it_is() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let header = format!("traceparent: {valid}");
    for (text, expected) in [
        (valid, &[][..]),
        (&format!("\n{valid}\n"), &[]),
        (&format!("POST / HTTP/1.1\nhost: x\nTraceparent: {valid}\n\n"), &[]),
        ("traceparent: 00-1-2-3", &[Rule::BrokenHeader]),
        (&format!("{header}\n{header}"), &[Rule::BrokenHeader]),
    ] {
        let findings = Case::read(text.as_bytes()).expect("a case").findings();
        let rules: Vec<Rule> = findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, expected, "{text}");
    }
    for (wrong, expected) in [
        ("", "it is empty"),
        ("hello", "there is no trace in it"),
        ("host: x", "there is no trace in it"),
        ("\n[1", "there is no trace in it"),
        ("\n{\"a\"", "line 2: not JSON"),
        (r#"{"resourceSpans": []}"#, "it is OTLP JSON, and there are no spans in it"),
    ] {
        let error = Case::read(wrong.as_bytes()).expect_err(wrong).to_string();
        assert!(error.starts_with(expected), "{wrong}: {error}");
    }
}

/// A span that was exported twice, and children of one parent that is missing, are one finding.
#[test]
fn what_is_the_same_is_told_once() {
    let child = "10 shop 1<12 CLIENT 0..1 SELECT";
    let spans = [child, child, &child.replace("1<12", "2<12")].join("\n");
    let case = Case::read(table(&spans).to_string().as_bytes()).expect("a case");
    let findings = case.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let Finding { rule, spans, same, .. } = &findings[0];
    assert_eq!((rule, spans.len(), same), (&Rule::MissingSpans, 2, &1));
    assert_eq!(
        report::cause(&findings[0]),
        "The parent 000000000000000c of `SELECT` (CLIENT, shop) has not arrived. It is probably of the same process: it has \
         not ended, or was not sent. The same of 1 more."
    );
}

/// The lists of rules and their names agree with each other.
#[test]
fn every_rule_is_listed_once() {
    let mut sorted = Rule::ALL.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, Rule::ALL);
}

/// A report without findings says what was looked at, and where a request failed although its trace is whole.
#[test]
fn a_report_without_findings_says_what_was_looked_at() {
    let whole =
        "1 shop 1 SERVER 0..9 pay; 1 shop 2<1 CLIENT 1..8 call; 1 mail 3<2 SERVER 2..7 send";
    for (spans, expected) in [
        (whole.to_owned(), "No rule found a fault in 3 spans of 2 services."),
        (
            format!("{whole} error=late error.type=timeout"),
            "Propagation is intact, and a part of the request failed. The span with the error is `send` (SERVER, mail): timeout: late. \
             No rule found a fault in 3 spans of 2 services.",
        ),
        (
            format!("{} error=late", whole.replace("pay", "pay error=failed")),
            "Propagation is intact, and the request failed. The deepest of 2 spans with an error is `send` (SERVER, mail): late. \
             No rule found a fault in 3 spans of 2 services.",
        ),
        (
            format!("{whole}; 2 shop 1 SERVER 0..9 pay error=failed"),
            "Propagation is intact, and 1 of 2 traces has spans with an error, and 1 of the requests failed. The span with the error there \
             is `pay` (SERVER, shop): failed. No rule found a fault in 4 spans of 2 services.",
        ),
    ] {
        let case = Case::read(table(&spans).to_string().as_bytes()).expect("a case");
        assert_eq!(report::text(&case, ""), format!("{expected}\n"), "{spans}");
    }
}

/// A retry that helped is deeper than the request that failed, and isn't what people ask about.
#[test]
fn a_request_that_failed_comes_before_those_that_recovered() {
    let recovered = "1 shop 1 SERVER 0..9 pay; 1 shop 2<1 CLIENT 1..4 first error=503; 1 shop 3<1 CLIENT 5..8 second";
    let refused = "2 shop 1 SERVER 0..9 order http.response.status_code=409; 2 shop 2<1 INTERNAL 1..4 take error=sold";
    let failed = "3 shop 1 SERVER 0..9 buy error=502";
    let sentence = |spans: &[&str]| {
        let case = Case::read(table(&spans.join(";")).to_string().as_bytes()).expect("a case");
        case.inspected().failure().expect("a failure")
    };
    for (spans, expected) in [
        (
            &[recovered, refused, failed][..],
            "3 of 3 traces have spans with an error, and 1 of the requests failed. The span with the error there is \
             `buy` (SERVER, shop): 502.",
        ),
        (
            &[recovered, refused],
            "2 of 2 traces have spans with an error, and 1 of the requests got an answer of 4xx. The span with the error \
             there is `take` (INTERNAL, shop): sold.",
        ),
        (
            &[recovered, recovered],
            "A part of the request failed. The span with the error is `first` (CLIENT, shop): 503.",
        ),
    ] {
        assert_eq!(sentence(spans), expected);
    }
}

/// A finding must not hide that the request failed, and where.
#[test]
fn the_failure_of_the_request_stands_before_the_findings() {
    let spans = "1 shop 1 SERVER 0..9 pay error=failed; 1 shop 2<1 CLIENT 1..8 call error=late error.type=timeout;
                 1 shop 3 SERVER 0..9 list";
    let case = Case::read(table(spans).to_string().as_bytes()).expect("a case");
    let failure = "The request failed. The deepest of 2 spans with an error is `call` (CLIENT, shop): timeout: late.";
    let text = report::text(&case, "");
    assert!(text.starts_with(&format!("{failure}\n\nSeveral roots (likely): ")), "{text}");
    let page =
        report::case(&case, &report::Links { book: Some(""), span: &|_| None }).into_string();
    let start = "<p class=\"findings\">The request failed. The deepest of 2 spans with an error is <code><bdi>call</bdi></code>";
    assert!(page.starts_with(start), "{page}");
    assert!(
        page.contains("timeout: late.</p><ul class=\"findings\"><li><b>Several roots</b>"),
        "{page}"
    );
    let sound =
        Case::read(table(&spans.replace("error", "e")).to_string().as_bytes()).expect("a case");
    assert!(report::text(&sound, "").starts_with("Several roots (likely): "));
}
