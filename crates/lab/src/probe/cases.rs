//! The cases of the probe as a table: the headers that it sends, what the service should do with them, and the rule that says so.
//!
//! Most cases are those of the [W3C's test suite](https://github.com/w3c/trace-context/tree/main/test) and of the contract in the
//! guide *Test propagation in your own CI*. The expectations are those of
//! [Trace Context Level 1](https://www.w3.org/TR/trace-context-1/); Level 2 adds a rule for the random flag, which is only reported.

use std::borrow::Cow;

use serde::Deserialize;

use crate::traceparent::{SpanId, TraceId};
use traces::headers::Format;

/// A document with rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec {
    TraceContext,
    TraceContext2,
    /// The rule that the W3C's test suite checks and the text of the standard doesn't have.
    Suite,
    Baggage,
    OpenTelemetry,
    B3,
    Jaeger,
}

impl Spec {
    pub const ALL: [Spec; 7] = [
        Spec::TraceContext,
        Spec::TraceContext2,
        Spec::Suite,
        Spec::Baggage,
        Spec::OpenTelemetry,
        Spec::B3,
        Spec::Jaeger,
    ];
}

/// A section of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub spec: Spec,
    pub section: &'static str,
}

impl Rule {
    pub const fn new(spec: Spec, section: &'static str) -> Self {
        Rule { spec, section }
    }
}

/// How binding a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A service that breaks the rule is broken.
    Must,
    /// A service may have a reason. It is reported and doesn't fail.
    Should,
}

/// The expected treatment of the trace that the headers name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Continue it.
    Continue,
    /// Start another trace.
    Restart,
    /// Continue it if the service reads this format. Reported either way.
    Choice(Format),
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text in which upper-case letters stand for ids, as [`Ids::fill`] says.
    Template(Cow<'static, str>),
    /// A `tracestate` with this number of members.
    Members(usize),
    /// A `baggage` with this number of entries.
    Entries(usize),
}

/// One request with its headers.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: Cow<'static, str>,
    pub headers: Vec<(Cow<'static, str>, Value)>,
    /// Whether the names of the headers are sent as `Traceparent`.
    pub title_case: bool,
    pub expected: Expected,
    /// How binding that expectation is.
    pub level: Level,
    pub rule: Rule,
}

/// The ids of one case. No two cases have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    pub trace: TraceId,
    pub parent: SpanId,
    /// The trace id of a second `traceparent`.
    pub other: TraceId,
}

/// Each id begins with a letter, so that it differs from itself in upper case, and isn't all zero.
const FIRST_DIGIT: u8 = 0xa0;

impl Ids {
    pub fn random() -> Self {
        let trace = || {
            let mut bytes = fastrand::u128(..).to_be_bytes();
            bytes[0] = FIRST_DIGIT | bytes[0] & 0xf;
            TraceId(bytes)
        };
        let mut parent = fastrand::u64(..).to_be_bytes();
        parent[0] = FIRST_DIGIT | parent[0] & 0xf;
        Ids { trace: trace(), parent: SpanId(parent), other: trace() }
    }

    /// Replaces the letters of a template: `T` the trace id, `U` the trace id in upper case, `X` another trace id, `P` the parent
    /// id, `O` a trace id of zeros, `Q` a parent id of zeros.
    pub fn fill(&self, template: &str) -> String {
        let mut filled = String::new();
        for letter in template.chars() {
            match letter {
                'T' => filled += &self.trace.to_string(),
                'U' => filled += &self.trace.to_string().to_uppercase(),
                'X' => filled += &self.other.to_string(),
                'P' => filled += &self.parent.to_string(),
                'O' => filled += &"0".repeat(32),
                'Q' => filled += &"0".repeat(16),
                other => filled.push(other),
            }
        }
        filled
    }

    /// Returns the value of a header with these ids.
    pub fn value(&self, value: &Value) -> String {
        match value {
            Value::Template(template) => self.fill(template),
            Value::Members(count) => list(*count, |n| format!("member{n}={n}")),
            Value::Entries(count) => list(*count, |n| format!("entry{n}={n}")),
        }
    }
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (1..=count).map(item).collect::<Vec<_>>().join(",")
}

impl Case {
    /// Returns the templates of the headers with this name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.headers.iter().filter(move |(it, _)| it == name).map(|(_, value)| value)
    }

    /// Returns the flags of the caller, if the case expects that they are read.
    pub fn flags(&self) -> Option<u8> {
        let Some(Value::Template(template)) = self.values("traceparent").next() else {
            return None;
        };
        let flags = template.split('-').nth(3)?.get(..2)?;
        u8::from_str_radix(flags, 16).ok().filter(|_| self.expected == Expected::Continue)
    }
}

/// The number of members that a `tracestate` may have.
const MOST_MEMBERS: usize = 32;

/// More entries than any service has to pass on.
const TOO_MANY_ENTRIES: usize = 200;

/// Returns the cases in the order in which they are sent. The first one shows how often the service calls. The last ones are
/// valid, so that their spans come after those of the cases before.
pub fn cases() -> Vec<Case> {
    use Expected::{Choice, Continue, Restart};
    use Level::{Must, Should};
    const TP: &str = "traceparent";
    const TS: &str = "tracestate";
    const SAMPLED: &str = "00-T-P-01";
    let tc = |section| Rule::new(Spec::TraceContext, section);
    let text = |name, value: &'static str| (Cow::from(name), Value::Template(value.into()));
    let case =
        |name: &'static str, headers: &[(Cow<'static, str>, Value)], expected, level, rule| Case {
            name: name.into(),
            headers: headers.to_vec(),
            title_case: false,
            expected,
            level,
            rule,
        };
    let tp = |value| [text(TP, value)];
    let with = |second| [text(TP, SAMPLED), second];
    let state = |value| with(text(TS, value));
    let members = |count| with((Cow::from(TS), Value::Members(count)));
    let mutating = tc("Mutating the traceparent Field");
    let titled = Case {
        title_case: true,
        ..case("name as Traceparent", &tp(SAMPLED), Continue, Must, tc("Header Name"))
    };
    let versions = tc("Versioning of traceparent");
    let limits = Rule::new(Spec::Baggage, "Limits");
    vec![
        case("sampled", &tp(SAMPLED), Continue, Must, mutating),
        case("no header", &[], Restart, Must, mutating),
        case("not sampled", &tp("00-T-P-00"), Continue, Must, tc("Sampled flag")),
        case(
            "sampled and random",
            &tp("00-T-P-03"),
            Continue,
            Must,
            Rule::new(Spec::TraceContext2, "Random Trace ID Flag"),
        ),
        // A sender of version 00 must not set them, so a receiver may call the header invalid, as Go's SDK does.
        case("flags of the future", &tp("00-T-P-ff"), Continue, Should, tc("Other Flags")),
        titled,
        case(
            "two headers",
            &[text(TP, SAMPLED), text(TP, "00-X-P-01")],
            Restart,
            Should,
            Rule::new(Spec::Suite, "test_traceparent_duplicated"),
        ),
        case("two values, joined", &tp("00-T-P-01,00-X-P-01"), Restart, Must, tc("version-format")),
        case(
            "cut off",
            &[text(TP, "00-T-00f0"), text(TS, "lab=1")],
            Restart,
            Must,
            tc("parent-id"),
        ),
        case("upper case", &tp("00-U-P-01"), Restart, Must, tc("trace-id")),
        case("trace id of zeros", &tp("00-O-P-01"), Restart, Must, tc("trace-id")),
        case("parent id of zeros", &tp("00-T-Q-01"), Restart, Must, tc("parent-id")),
        case("version 00 and more", &tp("00-T-P-01-more"), Restart, Must, tc("version-format")),
        case("later version", &tp("cc-T-P-01"), Continue, Should, versions),
        case("later version and more", &tp("cc-T-P-01-more"), Continue, Should, versions),
        case("version ff", &tp("ff-T-P-01"), Restart, Must, tc("version")),
        case("32 members", &members(MOST_MEMBERS), Continue, Must, tc("tracestate Limits")),
        case("33 members", &members(MOST_MEMBERS + 1), Continue, Must, tc("list")),
        case("empty tracestate", &state(""), Continue, Must, tc("tracestate Header Field Values")),
        case(
            "one key twice",
            &state("lab=1,other=2,lab=3"),
            Continue,
            Must,
            tc("Combined Header Value"),
        ),
        case(
            "two tracestate headers",
            &[text(TP, SAMPLED), text(TS, "lab=1"), text(TS, "other=2")],
            Continue,
            Must,
            tc("tracestate Header Field Values"),
        ),
        case(
            "tracestate alone",
            &[text(TS, "lab=1")],
            Restart,
            Must,
            tc("No traceparent Received"),
        ),
        case(
            "B3 alone",
            &[text("b3", "T-P-1")],
            Choice(Format::B3),
            Should,
            Rule::new(Spec::B3, "Single Header"),
        ),
        case(
            "Jaeger's header alone",
            &[text("uber-trace-id", "T:P:0:1")],
            Choice(Format::Jaeger),
            Should,
            Rule::new(Spec::Jaeger, "Trace/Span Identity"),
        ),
        case(
            "too much baggage",
            &with((Cow::from("baggage"), Value::Entries(TOO_MANY_ENTRIES))),
            Continue,
            Must,
            limits,
        ),
        case(
            "baggage, encoded",
            &with(text("baggage", "city=K%C3%B6ln,sum=1%2C5")),
            Continue,
            Must,
            Rule::new(Spec::Baggage, "value"),
        ),
        case("baggage", &with(text("baggage", "tenant=acme,level=2")), Continue, Must, limits),
    ]
}

/// The headers that SDKs and proxies send, with letters for ids. `tests/probe.rs` records them.
const CALLERS: &str = include_str!("callers.json");

/// A program that sends requests, and the trace headers of one.
#[derive(Deserialize)]
struct Caller {
    /// Its name and version.
    name: String,
    headers: Vec<(String, String)>,
}

/// Returns a case for each caller whose headers were recorded.
///
/// # Errors
/// Never fails: the recording is part of the program.
pub fn callers() -> Result<Vec<Case>, serde_json::Error> {
    let callers: Vec<Caller> = serde_json::from_str(CALLERS)?;
    let case = |Caller { name, headers }: Caller| Case {
        name: name.into(),
        title_case: headers.iter().any(|(name, _)| name.starts_with(char::is_uppercase)),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name.to_lowercase().into(), Value::Template(value.into())))
            .collect(),
        expected: Expected::Continue,
        level: Level::Must,
        rule: Rule::new(Spec::TraceContext, "Mutating the traceparent Field"),
    };
    Ok(callers.into_iter().map(case).collect())
}
