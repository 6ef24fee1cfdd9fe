//! Reads traces from the bytes of a file, in any of the forms that tools write. Recognises the form by the content: names of
//! files and media types are often wrong.
//!
//! [`read`] unpacks and decodes the bytes ([`unpack`]), finds the JSON documents in the text, and hands each to the reader of its
//! form. One that can't be read costs nothing but itself.

mod console;
mod foreign;
mod jaeger;
pub(crate) mod json;
pub(crate) mod otlp;
mod stream;
mod unpack;
pub(crate) mod value;
mod zipkin;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::proto::collector::ExportTraceServiceRequest;
use crate::proto::common::{InstrumentationScope, KeyValue};
use crate::proto::logs::ResourceLogs;
use crate::proto::logs_collector::ExportLogsServiceRequest;
use crate::proto::resource::Resource;
use crate::proto::trace::{ResourceSpans, ScopeSpans, Span as Proto};
use prost::Message as _;
use prost::bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::json::Json;
use self::value::Losses;
use crate::diagnose::NamedSpan;
use crate::embedded;
use crate::exchange::Exchange;
use crate::headers;
use crate::log::LogRecord;
use crate::otlp::{
    Batch, Error, Reason, Rejected, SOURCES_LIMIT, from_json, from_protobuf, from_request,
    logs_from_json, logs_from_protobuf, logs_from_request,
};
use crate::shared::Trace;
use crate::span::{Source, Span, TraceId};

pub use foreign::Foreign;
pub use stream::{Error as StreamError, stream};
pub(crate) use unpack::unpack_document;
pub use unpack::{Error as UnpackError, UNPACKED_LIMIT, text, unpack};
pub use value::{Flaw, LeftOut};

/// The forms of traces that are read, as a sentence lists them.
pub const FORMS: &str = "OTLP in JSON or protobuf (also as Tempo and Grafana have it), Jaeger JSON, Zipkin JSON, and \
                         what the console exporters of Go, Python and PHP print; the lab's own HTML files; packed with gzip or zstd or not at all";

/// The most problems that are described. Further ones are counted.
const PROBLEMS_LIMIT: usize = 100;

/// A document that breaks off costs a look at the text behind it. When that adds up to the length of the text times `LOOKS`, plus
/// `SHORT` bytes, a document must end in its line. So reading takes time in proportion to the text.
const LOOKS: usize = 16;
const SHORT: usize = 1024 * 1024;

/// The first byte of a request in protobuf: the field 1, which is a message.
const PROTOBUF: u8 = 0x0a;

/// A form in which traces are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// [OTLP](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding), also in the wrappers of Tempo and of version 3
    /// of Jaeger's API.
    OtlpJson,
    /// [OTLP](https://opentelemetry.io/docs/specs/otlp/#binary-protobuf-encoding), alone or in the frames of the Collector's
    /// file exporter.
    OtlpProtobuf,
    /// A download from Jaeger's page, or an answer of `/api/traces`.
    Jaeger,
    /// Version 2, or the older version 1.
    Zipkin,
    /// The output of `stdouttrace`.
    GoConsole,
    /// The output of `ConsoleSpanExporter`.
    PythonConsole,
    /// The output of the exporter with the same name in PHP.
    PhpConsole,
    /// A `ReadableSpan` of JavaScript's SDK as JSON.
    JavaScript,
    /// An HTML file of the lab, with the data of a request in it: see [`crate::embedded`].
    Page,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::OtlpJson => "OTLP JSON",
            Form::OtlpProtobuf => "OTLP protobuf",
            Form::Jaeger => "Jaeger JSON",
            Form::Zipkin => "Zipkin JSON",
            Form::GoConsole => "output of Go's console exporter",
            Form::PythonConsole => "output of Python's console exporter",
            Form::PhpConsole => "output of PHP's console exporter",
            Form::JavaScript => "spans of JavaScript's SDK",
            Form::Page => "an HTML file of the lab",
        })
    }
}

/// The contents of a file.
#[derive(Debug)]
pub struct Contents {
    /// The form of the first spans.
    pub form: Form,
    pub spans: Vec<Span>,
    /// The log records that belong to a trace.
    pub logs: Vec<LogRecord>,
    /// The number of spans and of log records, with those that [`stream`] has handed on.
    pub count: usize,
    pub log_count: usize,
    /// The exchanges on the wire, which the lab's own files have.
    pub wire: Vec<Exchange>,
    /// The requests of services in other traces, likewise.
    pub elsewhere: Vec<NamedSpan>,
    /// The number of problems, each of which cost itself alone.
    pub unread: usize,
    /// The first hundred problems.
    pub problems: Vec<Problem>,
    pub others: Others,
}

/// The parts of a file that aren't spans of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Others {
    /// Log records in a form that isn't read, as far as they can be told apart.
    pub logs: usize,
    /// Log records that belong to no trace.
    pub logs_without_trace: usize,
    pub metrics: usize,
    /// JSON documents of forms that the lab doesn't know.
    pub documents: usize,
    /// Lines of text between the documents.
    pub lines: usize,
    /// Spans that say no more than another one in the file.
    pub repeated: usize,
}

impl Others {
    /// Whether everything in the file was about spans.
    pub fn is_empty(&self) -> bool {
        *self == Others::default()
    }
}

/// A part of a file, as [`stream`] hands it on.
#[derive(Debug, Default)]
pub struct Piece {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
}

impl Piece {
    fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.logs.is_empty()
    }
}

/// Lists the counts that aren't 0.
impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.logs, "log record"),
            (self.logs_without_trace, "log record without a trace"),
            (self.metrics, "metric"),
            (self.documents, "other JSON document"),
            (self.lines, "line of text"),
            (self.repeated, "repeated span"),
        ];
        let mut first = true;
        for (count, noun) in counts.into_iter().filter(|(count, _)| *count > 0) {
            let noun = match (count, noun) {
                (1, noun) => noun.to_owned(),
                (_, "line of text") => "lines of text".to_owned(),
                (_, "log record without a trace") => "log records without a trace".to_owned(),
                (_, noun) => format!("{noun}s"),
            };
            write!(f, "{}{count} {noun}", if first { "" } else { ", " })?;
            first = false;
        }
        Ok(())
    }
}

/// Something in a file that can't be read.
#[derive(Debug)]
pub struct Problem {
    /// The line where it is, as far as it is known, or else the line in which its document begins, counted from 1; `None` in
    /// protobuf.
    pub line: Option<usize>,
    pub error: Error,
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.error.fmt(f)
    }
}

/// Why a file has nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it is empty")]
    Empty,
    #[error(transparent)]
    Packed(#[from] UnpackError),
    /// It looks like something that the lab doesn't read.
    #[error("it looks like {foreign}. The lab reads {FORMS}. {}", foreign.advice())]
    Foreign { foreign: Foreign },
    /// It is JSON, but of no form that is known; with the names of its first fields.
    #[error("it is JSON without spans in a form that the lab knows{}. The lab reads {FORMS}", fields(.0))]
    UnknownJson(Vec<String>),
    #[error("there is no trace in it. The lab reads {FORMS}")]
    NoTrace,
    /// It is source code that makes a header.
    #[error(
        "it is source code that makes a `traceparent`, and has no header that was sent. Run it and give the header that arrives: \
         `lab wire` shows the headers of each request"
    )]
    SourceCode,
    /// It is nothing but an id, of 32 hexadecimal digits or of 16.
    #[error("{}", id_alone(.0))]
    Id(String),
    /// The form is known, and there are no spans in it.
    #[error("it is {form}, and there are no spans in it{}", only(.others))]
    NoSpans { form: Form, others: Others },
    /// There are logs or metrics in it, and no spans.
    #[error("there are no spans in it, only {0}")]
    OtherSignals(Others),
    /// None of its spans can be read: the first problem.
    #[error(transparent)]
    Problem(Problem),
}

impl Unreadable {
    /// Whether the file may be headers of a request all the same. Headers in a trace are a part of it, even where the trace can't
    /// be read.
    pub(crate) fn may_be_headers(&self, text: &str) -> bool {
        /// Names that only spans have, in the forms that are read. What isn't JSON may be a trace that was cut off.
        const OF_SPANS: [&str; 5] = [
            "\"resourceSpans\"",
            "\"resource_spans\"",
            "\"operationName\"",
            "\"SpanContext\"",
            "\"localEndpoint\"",
        ];
        match self {
            Unreadable::Foreign { foreign } => !foreign.has_traces(),
            Unreadable::Problem(Problem { error: Error::NotJson(_), .. }) => {
                !OF_SPANS.iter().any(|name| text.contains(name))
            }
            Unreadable::UnknownJson(_) | Unreadable::NoTrace | Unreadable::OtherSignals(_) => true,
            Unreadable::Empty
            | Unreadable::Packed(_)
            | Unreadable::Id(_)
            | Unreadable::SourceCode
            | Unreadable::NoSpans { .. }
            | Unreadable::Problem(_) => false,
        }
    }
}

fn id_alone(id: &str) -> String {
    let header = "To check a header, give all of it: `traceparent: ` and its value";
    match id.len() {
        32 => format!(
            "it is a trace id and nothing else. `lab trace {id}` shows that trace if a running lab has it. {header}"
        ),
        _ => format!(
            "it is the id of a span, or a short trace id, and nothing else. `lab traces --text {id}` lists the traces of a running lab that have it. {header}"
        ),
    }
}

fn fields(names: &[String]) -> String {
    match names.is_empty() {
        true => String::new(),
        false => format!(" (its fields: {})", names.join(", ")),
    }
}

fn only(others: &Others) -> String {
    match others.is_empty() {
        true => String::new(),
        false => format!(", only {others}"),
    }
}

/// Reads the spans of a file.
///
/// # Errors
/// There is no span in the bytes, and no exchange; the error says what is there instead.
pub fn read(bytes: &[u8]) -> Result<Contents, Unreadable> {
    read_unpacked(unpack(bytes)?.into_owned().into(), bytes.len())
}

/// Reads the spans of a file that had `packed` bytes before it was unpacked.
fn read_unpacked(bytes: Bytes, packed: usize) -> Result<Contents, Unreadable> {
    let mut reader = Reader { packed, ..Reader::default() };
    let binary = reader.protobuf(&bytes);
    if !binary {
        let bytes = &*bytes;
        let text =
            text(bytes).ok_or_else(|| Unreadable::Foreign { foreign: foreign::of_bytes(bytes) })?;
        if text.trim().is_empty() {
            return Err(Unreadable::Empty);
        }
        let text = unpack::without_log_prefix(text);
        if let Some(id) = headers::id_alone(&text) {
            return Err(Unreadable::Id(id));
        }
        if let Some(value) = embedded::find(&text) {
            reader.form = Some(Form::Page);
            let json = embedded::unpack(value, packed)?;
            reader.all_documents(&String::from_utf8_lossy(&json));
            return reader.finish();
        }
        reader.all_documents(&text);
        if reader.form.is_none() && reader.foreign.is_none() {
            reader.foreign = foreign::of_text(&text);
        }
    }
    reader.finish()
}

/// The spans of one JSON document, on their way to [`from_request`].
#[derive(Default)]
pub(crate) struct Document {
    resource_spans: Vec<ResourceSpans>,
    resource_logs: Vec<ResourceLogs>,
    /// The resources that [`Document::resource`] has met.
    resources: Vec<Resource>,
    /// The index in `resources` of each, encoded.
    numbers: HashMap<Vec<u8>, usize>,
    /// The index in `resource_spans` of each source: the number of its resource, and its scope, encoded.
    known: HashMap<(usize, Vec<u8>), usize>,
    /// The size of these sources in bytes, and the index of the newest.
    source_bytes: usize,
    newest: usize,
    losses: Losses,
    form: Option<Form>,
}

impl Document {
    /// Adds a span of a form that repeats its source with each span.
    fn add(&mut self, resource: Vec<KeyValue>, scope: InstrumentationScope, span: Proto) {
        let number = self.resource(resource);
        self.add_of(number, scope, span);
    }

    /// Returns the number of a resource, for [`Document::add_of`].
    fn resource(&mut self, attributes: Vec<KeyValue>) -> usize {
        let resource = Resource { attributes, ..Resource::default() };
        let next = self.resources.len();
        *self.numbers.entry(resource.encode_to_vec()).or_insert_with(|| {
            self.resources.push(resource);
            next
        })
    }

    /// Adds a span of a resource with this number.
    fn add_of(&mut self, number: usize, scope: InstrumentationScope, span: Proto) {
        let key = (number, scope.encode_to_vec());
        let index = match self.known.get(&key) {
            Some(index) => *index,
            // The request will be refused for its sources. A further one would only take memory.
            None if self.source_bytes > SOURCES_LIMIT => self.newest,
            None => self.add_source(key, scope),
        };
        self.resource_spans[index].scope_spans[0].spans.push(span);
    }

    /// Adds a source, with a copy of its resource. Returns its index.
    fn add_source(&mut self, key: (usize, Vec<u8>), scope: InstrumentationScope) -> usize {
        let resource = self.resources[key.0].clone();
        let source = Source { resource, scope, ..Source::default() };
        self.source_bytes += source.size();
        self.newest = self.resource_spans.len();
        self.known.insert(key, self.newest);
        let scope = Some(source.scope);
        self.resource_spans.push(ResourceSpans {
            resource: Some(source.resource),
            scope_spans: vec![ScopeSpans { scope, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        });
        self.newest
    }

    fn resource_spans(&mut self, json: &Json) {
        let items = json.items().iter();
        self.resource_spans.extend(items.map(|json| otlp::resource_spans(json, &mut self.losses)));
    }

    fn resource_logs(&mut self, json: &Json) {
        let items = json.items().iter();
        self.resource_logs.extend(items.map(|json| otlp::resource_logs(json, &mut self.losses)));
    }
}

/// The state while a file is read.
#[derive(Default)]
struct Reader {
    form: Option<Form>,
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    wire: Vec<Exchange>,
    elsewhere: Vec<NamedSpan>,
    unread: usize,
    problems: Vec<Problem>,
    others: Others,
    /// The line of the first span whose ids can't be read, and how many there are.
    renamed: Option<(usize, usize)>,
    /// The number of messages of the Collector's file exporter, and of lines, that have been read.
    frame_count: usize,
    lines: usize,
    /// How many bytes may still be looked at for documents that break off.
    looks_left: usize,
    /// The line from which on a document must end in its line, because too many have broken off.
    given_up: Option<usize>,
    /// The number of spans and log records, and whether there were exchanges, in what [`Reader::hand_on`] has handed on.
    count: usize,
    log_count: usize,
    has_wire: bool,
    /// The number of bytes of the file that have been read, before they were unpacked.
    packed: usize,
    foreign: Option<Foreign>,
    /// The names of the fields of the first document of an unknown form.
    unknown: Option<Vec<String>>,
}

/// The parts of a case file that other readers ignore.
#[derive(Default, Deserialize)]
struct Own {
    #[serde(default)]
    wire: Vec<Exchange>,
    #[serde(default, rename = "requestsElsewhere")]
    elsewhere: Vec<NamedSpan>,
    /// The traces whose spans came in Zipkin's form.
    #[serde(default, rename = "fromZipkin")]
    from_zipkin: HashSet<TraceId>,
}

/// Reads a document of OTLP JSON without a tree in between: its spans and its log records. Returns `None` if anything of it can't be
/// read so.
fn flawless(text: &str) -> Option<(Batch, Batch<LogRecord>)> {
    fn checked<T>(batch: Batch<T>) -> Option<Batch<T>> {
        (batch.rejected.is_none() && !batch.items.is_empty()).then_some(batch)
    }
    let (mut spans, mut logs) = (Batch::default(), Batch::default());
    if text.contains("\"resourceSpans\"") {
        spans = checked(from_json(text.as_bytes()).ok()?)?;
    }
    if text.contains("\"resourceLogs\"") {
        logs = checked(logs_from_json(text.as_bytes()).ok()?)?;
    }
    Some((spans, logs))
}

impl Reader {
    /// Reads protobuf, with a length of four bytes in front of each message or without. Returns whether it is that.
    fn protobuf(&mut self, bytes: &Bytes) -> bool {
        if bytes.first() == Some(&PROTOBUF) {
            // A text may begin with the same byte, which is a line feed.
            let is_text = || text(bytes).is_some();
            match message(bytes.clone()) {
                Message::Traces(Ok(batch)) if batch.items.is_empty() && is_text() => return false,
                Message::Traces(Err(Error::Protobuf(_))) if is_text() => return false,
                message => self.message(message),
            }
            return true;
        }
        // As the Collector's file exporter writes them:
        // https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/fileexporter
        let mut rest = &**bytes;
        while let Some((frame, behind)) = first_frame(rest) {
            let packed = unpack::is_zstd(frame);
            if !packed && !matches!(frame.first(), Some(&PROTOBUF | &b'{')) {
                return false;
            }
            rest = behind;
        }
        self.frames(bytes) > 0
    }

    /// Reads the messages that follow their lengths. Returns the length of those that are whole.
    fn frames(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some((frame, behind)) = first_frame(rest) {
            rest = behind;
            self.frame_count += 1;
            match unpack_document(frame, frame.len()) {
                Ok(frame) if frame.first() == Some(&b'{') => {
                    self.all_documents(&String::from_utf8_lossy(&frame));
                }
                Ok(frame) => {
                    self.message(message(frame.into_owned().into()));
                }
                Err(error) => {
                    self.problem(Some(self.frame_count), Error::Frame(error.to_string()));
                }
            }
        }
        bytes.len() - rest.len()
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Traces(batch) => self.batch(Form::OtlpProtobuf, None, batch),
            Message::Logs(batch) => self.log_batch(Form::OtlpProtobuf, None, Ok(batch)),
        }
    }

    /// Reads the JSON documents of a whole text.
    fn all_documents(&mut self, text: &str) {
        self.lines = 0;
        self.looks_left = LOOKS * text.len() + SHORT;
        self.documents(text, false);
    }

    /// Reads JSON documents one after the other, a line each or laid out for people, and skips the text between them. With `more`,
    /// the text goes on, and a document that its end cuts off is left. Returns the length of what was read.
    fn documents(&mut self, text: &str, more: bool) -> usize {
        let mut start = 0;
        while let Some(blank) = text[start..].find(|it: char| !it.is_ascii_whitespace()) {
            self.lines += newlines(&text[start..start + blank]);
            start += blank;
            let (rest, line) = (&text[start..], self.lines + 1);
            let line_end = rest.find('\n');
            if more && line_end.is_none() && !rest.starts_with(['{', '[']) {
                return start;
            }
            let is_cut_off = more && (self.looks_left > 0 || line_end.is_none());
            let line_end = line_end.unwrap_or(rest.len());
            let mut length = line_end;
            if rest.starts_with(['{', '[']) {
                let whole = if self.looks_left > 0 { rest } else { &rest[..line_end] };
                match length_of_document(whole) {
                    Ok(whole) => {
                        length = whole;
                        self.document(&rest[..whole], line);
                    }
                    Err(error) if error.is_eof() && is_cut_off => return start,
                    Err(error) => {
                        let looked_at = whole.split_inclusive('\n').take(error.line().max(1));
                        let looked_at = looked_at.map(str::len).sum();
                        self.looks_left = self.looks_left.saturating_sub(looked_at);
                        // A line of a log may begin with a bracket too.
                        if rest.starts_with('[') && !is_json_array(rest) {
                            self.others.lines += 1;
                        } else {
                            let at = line + error.line().max(1) - 1;
                            self.problem(Some(at), Error::NotJson(error));
                        }
                        if self.looks_left == 0 {
                            self.given_up.get_or_insert(line);
                        }
                    }
                }
            } else {
                let document = rest[..line_end].find('{').map(|at| &rest[at..line_end]);
                match document.and_then(|it| Some(&it[..length_of_document(it).ok()?])) {
                    Some(document) => self.document(document, line),
                    // Between the documents of a list that isn't quite JSON.
                    None if matches!(rest[..line_end].trim_end(), "," | "]" | "],") => {}
                    None => self.others.lines += 1,
                }
            }
            self.lines += newlines(&rest[..length]);
            start += length;
        }
        self.lines += newlines(&text[start..]);
        text.len()
    }

    /// Reads one JSON document.
    fn document(&mut self, text: &str, line: usize) {
        /// The program for browsers does without this parser, which reads nothing more and would add 20 KB to it.
        const FAST: bool = !cfg!(target_arch = "wasm32");
        /// The names of the fields of [`Own`].
        const OWN: [&str; 3] = ["\"wire\"", "\"requestsElsewhere\"", "\"fromZipkin\""];
        let first = text[1..].trim_ascii_start();
        let first_span = self.spans.len();
        let has_own = OWN.iter().any(|name| text.contains(name));
        if FAST
            && (first.starts_with("\"resourceSpans\"") || first.starts_with("\"resourceLogs\""))
            && let Some((spans, logs)) = flawless(text)
        {
            if !spans.items.is_empty() {
                self.batch(Form::OtlpJson, Some(line), Ok(spans));
            }
            self.log_batch(Form::OtlpJson, Some(line), Ok(logs));
            if has_own {
                self.own(serde_json::from_str(text).unwrap_or_default(), first_span);
            }
            return;
        }
        let size = unpack::usual_size(text.len(), self.packed);
        let json = match Json::parse(text, size) {
            Ok(json) => json,
            Err(error) => {
                let whole = json::without_halves(text);
                if let Some(whole) = whole.filter(|it| Json::parse(it, size).is_ok()) {
                    return self.document(&whole, line);
                }
                return self.problem(Some(line + error.line().max(1) - 1), Error::NotJson(error));
            }
        };
        let mut document = Document { losses: Losses::of(text), ..Document::default() };
        if !self.take(&json, &mut document) {
            self.others.documents += 1;
            self.foreign = self.foreign.or_else(|| {
                let spans = || foreign::has_spans(&json).then_some(Foreign::OtherSpans);
                foreign::of_json(&json).or_else(spans)
            });
            self.unknown.get_or_insert_with(|| {
                let names = json.fields().iter().map(|(key, _)| crate::span::shortened(key, 30));
                names.take(8).collect()
            });
            return;
        }
        let Document { mut resource_spans, mut resource_logs, losses, form, .. } = document;
        let renamed = value::rename_ids(&mut resource_spans, &mut resource_logs);
        if renamed > 0 {
            self.renamed.get_or_insert((line, 0)).1 += renamed;
        }
        self.log_request(line, resource_logs);
        if let Some(form) = form {
            if form == Form::Zipkin {
                zipkin::join_fragments(&mut resource_spans);
            }
            self.request(form, text, line, resource_spans);
        }
        if has_own {
            self.own(serde_json::from_str(text).unwrap_or_default(), first_span);
        }
        self.unread += losses.count - losses.first.len();
        for (offset, loss) in losses.first {
            let before = &text[..offset.unwrap_or_default()];
            self.problem(Some(line + newlines(before)), Error::LeftOut(loss));
        }
    }

    /// Takes the lab's own parts of a document, whose spans begin at the index `first_span`.
    fn own(&mut self, Own { wire, elsewhere, from_zipkin }: Own, first_span: usize) {
        self.wire.extend(wire);
        self.elsewhere.extend(elsewhere);
        for span in &mut self.spans[first_span..] {
            span.from_zipkin |= from_zipkin.contains(&span.trace_id);
        }
    }

    /// Hands a value to the reader of its form, or looks for one in it. Returns whether anything of it was known.
    fn take(&mut self, json: &Json, document: &mut Document) -> bool {
        /// The fields in which answers of several programs have their traces.
        const WRAPPERS: [&str; 5] = ["trace", "result", "data", "hits", "source"];
        if let Json::Array(items) = json {
            let mut known = false;
            for item in items {
                known |= self.take(item, document);
            }
            return known;
        }
        if json.fields().is_empty() {
            return false;
        }
        let others = self.other_signals(json, document);
        let form = if json.has("resourcespans") || json.has("batches") {
            document.resource_spans(json.any(&["resourcespans", "batches"]));
            Form::OtlpJson
        } else if json.has("scopespans") || json.has("instrumentationlibraryspans") {
            // One alone, as Java's logging exporter prints them.
            document.resource_spans.push(otlp::resource_spans(json, &mut document.losses));
            Form::OtlpJson
        } else if json.has("spans")
            && (json.has("processes")
                || json.get("spans").items().first().is_some_and(jaeger::is_span))
        {
            jaeger::trace(json, document);
            Form::Jaeger
        } else if jaeger::is_span(json) {
            jaeger::span(json, json.get("process"), document);
            Form::Jaeger
        } else if console::is_javascript(json) {
            console::javascript(json, document);
            Form::JavaScript
        } else if json.has("spancontext") && json.has("name") {
            console::go(json, document);
            Form::GoConsole
        } else if json.get("context").has("traceid") && json.has("name") {
            if console::is_php(json) {
                console::php(json, document);
                Form::PhpConsole
            } else {
                console::python(json, document);
                Form::PythonConsole
            }
        } else if console::php_scopes(json, document) {
            Form::PhpConsole
        } else if zipkin::is_version_1(json) {
            zipkin::version_1(json, document);
            Form::Zipkin
        } else if zipkin::is_span(json) && foreign::of_json(json).is_none() {
            zipkin::span(json, document);
            Form::Zipkin
        } else if json.has("traceid") && json.has("spanid") && json.has("starttimeunixnano") {
            let span = otlp::span(json, &mut document.losses);
            document.add(Vec::new(), InstrumentationScope::default(), span);
            Form::OtlpJson
        } else {
            let inner = WRAPPERS.iter().map(|name| json.get(name));
            return inner.fold(others, |known, json| self.take(json, document) || known);
        };
        document.form.get_or_insert(form);
        true
    }

    /// Takes the log records of OTLP. Counts metrics and the log records of a console exporter. Returns whether there are
    /// any.
    fn other_signals(&mut self, json: &Json, document: &mut Document) -> bool {
        document.resource_logs(json.get("resourcelogs"));
        if json.has("scopelogs") {
            // One alone, as Java's logging exporter prints them.
            document.resource_logs.push(otlp::resource_logs(json, &mut document.losses));
        }
        let groups = json.get("resourcemetrics").items().iter();
        let scopes = groups.flat_map(|group| {
            group.any(&["scopemetrics", "instrumentationlibrarymetrics"]).items()
        });
        self.others.metrics +=
            scopes.map(|scope| scope.get("metrics").items().len()).sum::<usize>();
        // PHP's console exporters print the records of a scope together.
        let of_scopes = |records: &str| -> usize {
            console::scopes(json).map(|scope| scope.get(records).items().len()).sum()
        };
        let (logs_of_scopes, metrics_of_scopes) = (of_scopes("logs"), of_scopes("metrics"));
        self.others.logs += logs_of_scopes;
        self.others.metrics += metrics_of_scopes;
        let record = json.has("body") && (json.has("severitynumber") || json.has("severity"));
        self.others.logs += usize::from(record);
        let scope_metrics = json.get("scopemetrics").items().iter();
        self.others.metrics +=
            scope_metrics.map(|it| it.get("metrics").items().len()).sum::<usize>();
        record
            || logs_of_scopes + metrics_of_scopes > 0
            || ["resourcelogs", "scopelogs", "resourcemetrics", "scopemetrics"]
                .iter()
                .any(|it| json.has(it))
    }

    /// Takes the spans of a document that begins in the line `line`.
    fn request(&mut self, form: Form, text: &str, line: usize, resource_spans: Vec<ResourceSpans>) {
        let batch = from_request(ExportTraceServiceRequest { resource_spans });
        let refused = match &batch {
            Ok(Batch { rejected: Some(Rejected { first: Reason::Span(unfit), .. }), .. })
            | Err(Error::Unfit(unfit)) => unfit.span.as_deref(),
            _ => None,
        };
        let line = line_of_span(text, line, refused);
        self.batch(form, Some(line), batch);
    }

    fn batch(&mut self, form: Form, line: Option<usize>, batch: Result<Batch, Error>) {
        self.form.get_or_insert(form);
        match batch {
            Ok(mut batch) => {
                batch.items.iter_mut().for_each(|span| span.from_zipkin = form == Form::Zipkin);
                self.spans.extend(batch.items);
                if let Some(rejected) = batch.rejected {
                    self.problem(line, Error::Rejected(rejected));
                }
            }
            Err(error) => self.problem(line, error),
        }
    }

    /// Takes the log records of a document that begins in the line `line`.
    fn log_request(&mut self, line: usize, resource_logs: Vec<ResourceLogs>) {
        if !resource_logs.is_empty() {
            let batch = logs_from_request(ExportLogsServiceRequest { resource_logs });
            self.log_batch(Form::OtlpJson, Some(line), batch);
        }
    }

    fn log_batch(
        &mut self,
        form: Form,
        line: Option<usize>,
        batch: Result<Batch<LogRecord>, Error>,
    ) {
        match batch {
            Ok(batch) => {
                if !batch.items.is_empty() {
                    self.form.get_or_insert(form);
                }
                self.logs.extend(batch.items);
                self.others.logs_without_trace += batch.without_trace;
                if let Some(rejected) = batch.rejected {
                    self.problem(line, Error::Rejected(rejected));
                }
            }
            Err(error) => self.problem(line, error),
        }
    }

    fn problem(&mut self, line: Option<usize>, error: Error) {
        self.unread += 1;
        if self.problems.len() < PROBLEMS_LIMIT {
            self.problems.push(Problem { line, error });
        }
    }

    fn finish(mut self) -> Result<Contents, Unreadable> {
        if let Some((line, spans)) = self.renamed {
            self.problem(Some(line), Error::RenamedIds(spans));
        }
        if let Some(line) = self.given_up {
            self.unread += 1;
            // Behind the first, which is the reason where nothing can be read.
            let behind = self.problems.len().min(1);
            self.problems.insert(behind, Problem { line: Some(line), error: Error::GivenUp });
        }
        let Piece { spans, logs } = self.piece();
        let Reader {
            form,
            count,
            log_count,
            wire,
            has_wire,
            elsewhere,
            unread,
            mut problems,
            others,
            foreign,
            unknown,
            ..
        } = self;
        let form = match form {
            Some(form) if count + log_count > 0 || has_wire || !wire.is_empty() => form,
            _ => {
                let problem = (!problems.is_empty()).then(|| problems.swap_remove(0));
                let signals = others.logs + others.logs_without_trace + others.metrics > 0;
                return Err(match (form, foreign, problem, unknown) {
                    // What isn't JSON can be something else.
                    (None, Some(foreign), Some(_), _) => Unreadable::Foreign { foreign },
                    (_, _, Some(problem), _) => Unreadable::Problem(problem),
                    (Some(form), ..) => Unreadable::NoSpans { form, others },
                    _ if signals => Unreadable::OtherSignals(others),
                    (_, Some(foreign), ..) => Unreadable::Foreign { foreign },
                    (.., Some(fields)) => Unreadable::UnknownJson(fields),
                    _ => Unreadable::NoTrace,
                });
            }
        };
        Ok(Contents {
            form,
            spans,
            logs,
            count,
            log_count,
            wire,
            elsewhere,
            unread,
            problems,
            others,
        })
    }

    /// Takes the spans and log records that have been read and counts them. Of spans that are repeated, takes one.
    fn piece(&mut self) -> Piece {
        let mut spans = std::mem::take(&mut self.spans);
        // Some exporters write a span when it starts and again when it has ended, so the ended one is compared first.
        spans.sort_by_key(|span| !span.has_ended());
        let all = spans.len();
        let spans = each_once(spans);
        self.others.repeated += all - spans.len();
        self.count += spans.len();
        let logs = std::mem::take(&mut self.logs);
        self.log_count += logs.len();
        Piece { spans, logs }
    }

    /// Hands on what has been read, and forgets the lab's own parts of the file.
    fn hand_on(&mut self, sink: &mut impl FnMut(Piece)) {
        let piece = self.piece();
        if !piece.is_empty() {
            sink(piece);
        }
        self.has_wire |= !std::mem::take(&mut self.wire).is_empty();
        self.elsewhere.clear();
    }
}

/// Leaves out a span if another one says as much. Keeps the spans of a trace together, and otherwise their order.
fn each_once(spans: Vec<Span>) -> Vec<Span> {
    let mut indices = HashMap::new();
    let mut traces: Vec<Trace> = Vec::new();
    for span in spans {
        let index = *indices.entry(span.trace_id).or_insert_with(|| {
            traces.push(Trace::default());
            traces.len() - 1
        });
        traces[index].add(Arc::new(span));
    }
    traces
        .into_iter()
        .flat_map(|trace| trace.received().to_vec())
        .map(Arc::unwrap_or_clone)
        .collect()
}

/// A message of protobuf.
enum Message {
    Traces(Result<Batch, Error>),
    Logs(Batch<LogRecord>),
}

/// Reads a message. Nothing in it says which request it is, and both have the same fields down to their items: if no item is a
/// span, and one is a log record of a trace, it is a request of logs.
fn message(bytes: Bytes) -> Message {
    let traces = from_protobuf(bytes.clone());
    if traces.as_ref().is_ok_and(|batch| !batch.items.is_empty()) {
        return Message::Traces(traces);
    }
    match logs_from_protobuf(bytes) {
        Ok(logs) if !logs.items.is_empty() => Message::Logs(logs),
        _ => Message::Traces(traces),
    }
}

/// Splits off the first message behind its length, if it is whole.
fn first_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, behind) = bytes.split_first_chunk::<4>()?;
    behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The line of a span in a document that begins in the line `line`: that of its name, if it is the only one.
fn line_of_span(text: &str, line: usize, name: Option<&str>) -> usize {
    let name = name.map(|name| format!("\"{name}\""));
    let mut found = name.iter().flat_map(|name| text.match_indices(name.as_str()));
    match (found.next(), found.next()) {
        (Some((offset, _)), None) => line + newlines(&text[..offset]),
        _ => line,
    }
}

/// The length of the JSON document that a text begins with, in bytes.
fn length_of_document(text: &str) -> serde_json::Result<usize> {
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    match documents.next() {
        Some(Err(error)) => Err(error),
        _ => Ok(documents.byte_offset()),
    }
}

/// Whether a text that begins with `[` goes on as a list of JSON does, and not as `[2024-01-02 …]` or `[INFO]` in a log.
fn is_json_array(text: &str) -> bool {
    text[1..].trim_ascii_start().starts_with(['{', '['])
}
