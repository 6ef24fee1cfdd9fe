//! Recognises what the lab doesn't read, to say what it is and what to do.

use std::fmt;

use super::json::Json;

/// Something that people take for a trace that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    XRay,
    Datadog,
    ChromeTrace,
    ElasticApm,
    CloudTrace,
    Sentry,
    GrafanaFrame,
    TempoSearch,
    Langfuse,
    LangSmith,
    Lightstep,
    SkyWalking,
    Tracetest,
    JavaScriptConsole,
    CollectorDebug,
    CppConsole,
    DotNetConsole,
    RustConsole,
    JavaConsole,
    RubyConsole,
    /// Objects with the fields of spans, in a form without a name here.
    OtherSpans,
    /// An answer of Jaeger or of the lab that has an error and no trace.
    ErrorAnswer,
    Har,
    Html,
    Xml,
    Yaml,
    Archive,
    Image,
    Binary,
}

impl Foreign {
    /// Whether it has traces, in a form that the lab doesn't read. Headers in it are a part of these.
    pub(crate) fn has_traces(self) -> bool {
        match self {
            Foreign::XRay
            | Foreign::Datadog
            | Foreign::ChromeTrace
            | Foreign::ElasticApm
            | Foreign::CloudTrace
            | Foreign::Sentry
            | Foreign::GrafanaFrame
            | Foreign::TempoSearch
            | Foreign::Langfuse
            | Foreign::LangSmith
            | Foreign::Lightstep
            | Foreign::SkyWalking
            | Foreign::Tracetest
            | Foreign::JavaScriptConsole
            | Foreign::CollectorDebug
            | Foreign::CppConsole
            | Foreign::DotNetConsole
            | Foreign::RustConsole
            | Foreign::JavaConsole
            | Foreign::RubyConsole
            | Foreign::OtherSpans => true,
            Foreign::ErrorAnswer
            | Foreign::Har
            | Foreign::Html
            | Foreign::Xml
            | Foreign::Yaml
            | Foreign::Archive
            | Foreign::Image
            | Foreign::Binary => false,
        }
    }

    /// Says in a sentence what the person can do instead.
    pub fn advice(self) -> &'static str {
        const COLLECTOR: &str = "To see these requests here, add an exporter for OTLP: either in the services' OpenTelemetry SDK, or in an \
                                 OpenTelemetry Collector that receives this form";
        const EXPORTER: &str = "Set the service's exporter to OTLP (`OTEL_TRACES_EXPORTER=otlp`) and send the spans to `lab view`";
        match self {
            Foreign::XRay
            | Foreign::Datadog
            | Foreign::Sentry
            | Foreign::ElasticApm
            | Foreign::CloudTrace
            | Foreign::Langfuse
            | Foreign::LangSmith
            | Foreign::Lightstep
            | Foreign::SkyWalking
            | Foreign::Tracetest
            | Foreign::OtherSpans => COLLECTOR,
            Foreign::ChromeTrace => {
                "It shows what a program did on its threads, not requests between services: open it at ui.perfetto.dev"
            }
            Foreign::GrafanaFrame => {
                "In Grafana's view of the trace, use \"Export\", or get the trace from `/api/traces/ID` of Tempo"
            }
            Foreign::TempoSearch => {
                "It has only summaries: get each trace from `/api/traces/ID` of Tempo"
            }
            Foreign::CollectorDebug => {
                "Add the exporter `file` to the Collector's pipeline, whose output the lab reads, or one for OTLP that sends to `lab view`"
            }
            Foreign::JavaScriptConsole
            | Foreign::CppConsole
            | Foreign::DotNetConsole
            | Foreign::RustConsole
            | Foreign::RubyConsole => EXPORTER,
            Foreign::JavaConsole => {
                "Use the exporter `logging-otlp` (`OTEL_TRACES_EXPORTER=logging-otlp`), whose output the lab reads, or `otlp`"
            }
            Foreign::ErrorAnswer => "Check the id of the trace, and ask again",
            Foreign::Har => {
                "It has a browser's requests and no spans: look in its headers for `traceparent`"
            }
            Foreign::Html => {
                "It is a page about a trace, or one that asks you to log in: look for a download as JSON on it"
            }
            Foreign::Xml | Foreign::Yaml => "Look for an export as JSON",
            Foreign::Archive => "Unpack it first",
            Foreign::Image => "A picture of a trace can't be read: look for a download as JSON",
            Foreign::Binary => "Look for an export as JSON or OTLP",
        }
    }
}

/// Names it, with an article where it needs one.
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Foreign::XRay => "a trace of AWS X-Ray",
            Foreign::Datadog => "a trace of Datadog",
            Foreign::ChromeTrace => "Chrome's trace events",
            Foreign::ElasticApm => "documents of Elastic APM",
            Foreign::CloudTrace => "a trace of Google Cloud Trace",
            Foreign::Sentry => "an event of Sentry",
            Foreign::GrafanaFrame => "a data frame of Grafana",
            Foreign::TempoSearch => "the result of a search in Tempo",
            Foreign::Langfuse => "a trace of Langfuse",
            Foreign::LangSmith => "runs of LangSmith",
            Foreign::Lightstep => "a trace of Lightstep",
            Foreign::SkyWalking => "segments of SkyWalking",
            Foreign::Tracetest => "a trace of Tracetest",
            Foreign::OtherSpans => "spans in a form that the lab doesn't know",
            Foreign::JavaScriptConsole => {
                "the output of JavaScript's console exporter, which isn't JSON"
            }
            Foreign::CollectorDebug => "the output of the Collector's exporter `debug`",
            Foreign::CppConsole => "the output of C++'s `ostream` exporter",
            Foreign::DotNetConsole => "the output of .NET's console exporter",
            Foreign::RustConsole => "the output of Rust's `opentelemetry-stdout`",
            Foreign::JavaConsole => "the output of Java's exporter `logging`",
            Foreign::RubyConsole => "the output of Ruby's console exporter",
            Foreign::ErrorAnswer => "an answer that reports an error in place of a trace",
            Foreign::Har => "a HAR file",
            Foreign::Html => "an HTML page",
            Foreign::Xml => "XML",
            Foreign::Yaml => "YAML",
            Foreign::Archive => "an archive",
            Foreign::Image => "an image or a PDF",
            Foreign::Binary => "binary data",
        })
    }
}

/// Looks at a JSON document of which no part is known.
pub fn of_json(json: &Json) -> Option<Foreign> {
    let has = |names: &[&str]| names.iter().all(|name| json.has(name));
    if let Json::Array(items) = json {
        return items.first().and_then(of_json);
    }
    let id = json.any(&["traceid", "id"]).text();
    let amazon = |id: &str| id.starts_with("1-") && id.len() == 35;
    let number = |name: &str| matches!(json.get(name), Json::Int(_) | Json::Big(_));
    if has(&["traces", "unprocessedtraceids"])
        || has(&["segments"])
        || has(&["traceid", "starttime"]) && amazon(json.get("traceid").text())
        || amazon(id)
    {
        Some(Foreign::XRay)
    } else if has(&["traceevents"]) || has(&["ph", "ts"]) {
        Some(Foreign::ChromeTrace)
    } else if has(&["traceid", "roottracename"])
        || has(&["traces"])
            && json
                .get("traces")
                .items()
                .iter()
                .any(|it| it.has("roottracename") || it.has("durationms"))
    {
        Some(Foreign::TempoSearch)
    } else if number("traceid") && number("spanid")
        || has(&["resource", "service", "metrics", "meta"])
    {
        Some(Foreign::Datadog)
    } else if has(&["processor"]) && (has(&["transaction"]) || has(&["span"]))
        || json.fields().len() == 1 && (has(&["transaction"]) || has(&["metadata"]))
    {
        Some(Foreign::ElasticApm)
    } else if has(&["projectid", "traceid", "spans"])
        || has(&["batchwritespansrequest"])
        || json.get("name").text().starts_with("projects/")
    {
        Some(Foreign::CloudTrace)
    } else if json.get("contexts").has("trace")
        || has(&["eventid", "spans"])
        || has(&["eventid", "sentat"])
    {
        Some(Foreign::Sentry)
    } else if has(&["schema", "data"]) && json.get("schema").has("fields")
        || has(&["fields", "refid"])
        || json.get("fields").items().first().is_some_and(|field| field.has("values"))
    {
        Some(Foreign::GrafanaFrame)
    } else if has(&["rootspan"]) {
        Some(Foreign::Tracetest)
    } else if json.get("type").text() == "stored-traces" {
        Some(Foreign::Lightstep)
    } else if has(&["tracesegmentid"]) {
        Some(Foreign::SkyWalking)
    } else if has(&["trace", "observations"]) {
        Some(Foreign::Langfuse)
    } else if has(&["dottedorder"]) {
        Some(Foreign::LangSmith)
    } else if json.get("log").has("entries") {
        Some(Foreign::Har)
    } else if !json.get("errors").items().is_empty() || json.get("error").has("message") {
        Some(Foreign::ErrorAnswer)
    } else if let Json::Array(items) =
        json.any(&["traces", "spans", "data", "results", "frames", "post"])
    {
        items.first().and_then(of_json)
    } else {
        None
    }
}

/// Whether there are spans in a JSON document, in whatever form: a list or an object named after spans whose members begin and
/// end, or an object with the id of a span and of its parent that does. A record of a log has at most the ids and one time.
pub fn has_spans(json: &Json) -> bool {
    match json {
        Json::Array(items) => items.iter().any(has_spans),
        Json::Object(fields) => {
            let names: Vec<String> = fields.iter().map(|(key, _)| letters(key)).collect();
            let is_span = is_timed(&names)
                && names.iter().any(|name| name == "spanid")
                && names.iter().any(|name| name.starts_with("parent"));
            let members = names
                .iter()
                .zip(fields)
                .filter(|(name, _)| name.contains("span") || *name == "children");
            let mut members = members.map(|(_, (_, value))| value.items().first().unwrap_or(value));
            is_span || members.any(is_member) || fields.iter().any(|(_, value)| has_spans(value))
        }
        _ => false,
    }
}

/// Whether an object has the times of a span and a name or an id, which a period of time hasn't.
fn is_member(json: &Json) -> bool {
    let names: Vec<String> = json.fields().iter().map(|(key, _)| letters(key)).collect();
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    let is_named = names.iter().any(|name| name == "name" || name == "id")
        || has("spanid")
        || has("spanname")
        || has("operation");
    is_named && is_timed(&names)
}

/// Whether one of these names of fields is that of a time of a beginning, and one of an end or how long it took.
fn is_timed(names: &[String]) -> bool {
    let any = |whole: &str, parts: &[&str]| {
        names.iter().any(|name| name == whole || parts.iter().any(|part| name.contains(part)))
    };
    any("start", &["starttime", "startedat", "timestart", "timestamp"])
        && any("end", &["endtime", "endedat", "timeend", "duration", "finish"])
}

/// The letters of a name, in lower case: `span-id` and `spanID` are the same.
fn letters(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphabetic);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Looks at a text without JSON.
pub fn of_text(text: &str) -> Option<Foreign> {
    /// The beginning that is searched, in bytes.
    const BEGINNING: usize = 64 * 1024;
    let end = (0..=text.len().min(BEGINNING)).rev().find(|end| text.is_char_boundary(*end));
    let beginning = text[..end.unwrap_or_default()].trim_start();
    let lower = beginning.get(..200).unwrap_or(beginning).to_ascii_lowercase();
    let has = |text: &str| beginning.contains(text);
    if lower.starts_with("<!doctype html") || lower.contains("<html") {
        Some(Foreign::Html)
    } else if beginning.starts_with('<') {
        Some(Foreign::Xml)
    } else if has("Activity.TraceId:") {
        Some(Foreign::DotNetConsole)
    } else if has("#<struct OpenTelemetry::SDK::Trace::SpanData") {
        Some(Foreign::RubyConsole)
    } else if has("Instrumentation Scope") && has("TraceId") || has("Spans\nResource") {
        Some(Foreign::RustConsole)
    } else if has("\nSpan #0\n") && has("Trace ID") {
        Some(Foreign::CollectorDebug)
    } else if has("parent_span_id") && has("span kind") {
        Some(Foreign::CppConsole)
    } else if has("[tracer:") && has("AttributesMap") {
        Some(Foreign::JavaConsole)
    } else if has("traceId: '") {
        Some(Foreign::JavaScriptConsole)
    } else if has("resourceSpans:") || beginning.starts_with("---\n") {
        Some(Foreign::Yaml)
    } else {
        None
    }
}

/// Looks at bytes that aren't text.
pub fn of_bytes(bytes: &[u8]) -> Foreign {
    let starts = |beginnings: &[&[u8]]| beginnings.iter().any(|it| bytes.starts_with(it));
    if starts(&[b"PK\x03\x04", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ", b"Rar!"])
        || bytes.get(257..262) == Some(b"ustar")
    {
        Foreign::Archive
    } else if starts(&[b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"RIFF"]) {
        Foreign::Image
    } else {
        Foreign::Binary
    }
}
