//! Finds trace headers in text that people paste: the head of a request, what `curl -v` prints, a `curl` command, a log
//! line, JSON or source code.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use crate::span::{TraceId, trace_id};
use crate::traceparent::Traceparent;

/// The headers of one request that carry a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pasted {
    /// The values of its `traceparent` headers as they came, valid or not.
    Traceparent(Vec<String>),
    /// A header of another format, in a text without any `traceparent`, and the id of the trace that it names.
    Foreign(Format, TraceId),
}

/// A format of trace headers other than W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// B3 in one header.
    B3,
    /// B3 in a header for each field.
    B3Multi,
    Jaeger,
    Datadog,
    /// AWS X-Ray.
    XRay,
    GoogleCloud,
}

impl Format {
    pub const ALL: [Format; 6] = [
        Format::B3,
        Format::B3Multi,
        Format::Jaeger,
        Format::Datadog,
        Format::XRay,
        Format::GoogleCloud,
    ];

    /// The name of the header that carries the trace id, in lower case.
    pub fn header(self) -> &'static str {
        match self {
            Format::B3 => "b3",
            Format::B3Multi => "x-b3-traceid",
            Format::Jaeger => "uber-trace-id",
            Format::Datadog => "x-datadog-trace-id",
            Format::XRay => "x-amzn-trace-id",
            Format::GoogleCloud => "x-cloud-trace-context",
        }
    }

    /// Reads the trace id from the value of the header. Returns `None` when the value isn't of this format.
    pub fn trace_id(self, value: &str) -> Option<TraceId> {
        let value = value.trim();
        match self {
            // https://github.com/openzipkin/b3-propagation#single-header
            Format::B3 => {
                let (id, rest) = value.split_once('-')?;
                let span = rest.split('-').next()?;
                of_length(id, &[16, 32]).filter(|_| of_length(span, &[16]).is_some())
            }
            Format::B3Multi => of_length(value, &[16, 32]),
            // https://www.jaegertracing.io/docs/1.76/client-libraries/#tracespan-identity
            Format::Jaeger => {
                let value = value.replace("%3A", ":").replace("%3a", ":");
                let fields: Vec<&str> = value.split(':').collect();
                let [id, _span, _parent, _flags] = fields[..] else { return None };
                trace_id(id)
            }
            Format::Datadog => {
                let number: u64 = value.parse().ok().filter(|number| *number > 0)?;
                Some(TraceId(u128::from(number).to_be_bytes()))
            }
            // https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
            Format::XRay => {
                let root = value.split(';').find_map(|field| field.trim().strip_prefix("Root="))?;
                let fields: Vec<&str> = root.split('-').collect();
                let ["1", time, random] = fields[..] else { return None };
                let right = time.len() == 8 && random.len() == 24;
                TraceId::parse(&format!("{time}{random}")).filter(|_| right)
            }
            // https://cloud.google.com/trace/docs/trace-context#legacy-http-header
            Format::GoogleCloud => of_length(value.split(['/', ';']).next()?, &[32]),
        }
    }
}

fn of_length(id: &str, lengths: &[usize]) -> Option<TraceId> {
    trace_id(id).filter(|_| lengths.contains(&id.len()))
}

/// A valid `traceparent`, with the two fields whose bits [`Traceparent`] doesn't keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valid {
    pub version: u8,
    pub flags: u8,
}

impl Valid {
    /// Returns `None` when the value isn't valid.
    pub fn read(value: &str) -> Option<Self> {
        let value = value.trim();
        Traceparent::parse(value).ok()?;
        let byte = |range| u8::from_str_radix(value.get(range)?, 16).ok();
        Some(Valid { version: byte(0..2)?, flags: byte(53..55)? })
    }
}

/// Counts the values that somebody joined with commas into one `traceparent`. Returns `None` when the value isn't a list of
/// valid ones.
pub fn joined(value: &str) -> Option<usize> {
    let values = value.split(',').map(str::trim);
    let count = values.clone().count();
    (count > 1 && values.into_iter().all(|it| Traceparent::parse(it).is_ok())).then_some(count)
}

const TRACEPARENT: &str = "traceparent";

/// How many bytes after a name, and how many lines before it, are looked at. A long text must not take long.
const LONGEST: usize = 1000;
const LINES: usize = 100;

/// Finds the headers in a text, in order. A request that was printed twice is found once.
pub fn find(text: &str) -> Vec<Pasted> {
    // As text in JSON has its quotes.
    let text = text.replace("\\\"", "\"");
    let mut requests: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for Occurrence { request, values } in occurrences(&text, TRACEPARENT) {
        requests.entry(request).or_default().extend(values);
    }
    let mut found: Vec<Vec<String>> = requests.into_values().collect();
    if found.is_empty() {
        found.extend(bare(&text).into_iter().map(|value| vec![value]));
    }
    if found.is_empty() {
        match foreign(&text) {
            Some(foreign) => return vec![foreign],
            None => found.extend(one_word(&text).map(|value| vec![value])),
        }
    }
    let mut seen = HashSet::new();
    let new = found.into_iter().filter(|values| seen.insert(values.clone()));
    new.map(Pasted::Traceparent).collect()
}

/// Finds valid values without the name of the header.
fn bare(text: &str) -> Vec<String> {
    let alone = text.trim().trim_matches(['"', '\'', '`']);
    if joined(alone).is_some() {
        return vec![alone.to_owned()];
    }
    let words = text.split(|it: char| !(it.is_ascii_alphanumeric() || "-_".contains(it)));
    let valid = words.filter(|word| Traceparent::parse(word).is_ok());
    valid.map(str::to_owned).collect()
}

fn foreign(text: &str) -> Option<Pasted> {
    Format::ALL.into_iter().find_map(|format| {
        let mut values = occurrences(text, format.header()).into_iter().flat_map(|it| it.values);
        let id = values.find_map(|value| format.trace_id(&value))?;
        Some(Pasted::Foreign(format, id))
    })
}

/// Takes a text that is one word with a dash in it for a value that is wrong.
fn one_word(text: &str) -> Option<String> {
    let text = text.trim();
    let is_other = text.contains(|it: char| it.is_whitespace() || ":{[".contains(it));
    (!is_other && text.contains('-')).then(|| text.to_owned())
}

/// A header somewhere in a text.
struct Occurrence {
    /// The same number for all headers of one request.
    request: usize,
    values: Vec<String>,
}

/// Finds each place in the text that gives the header `name` a value.
fn occurrences(text: &str, name: &str) -> Vec<Occurrence> {
    // Keeps the length.
    let lower = text.to_ascii_lowercase();
    // curl prints the headers of HTTP/2 once as a remark and once as sent.
    let is_curl = text.lines().any(|line| line.starts_with("> "));
    let (mut line, mut searched) = (0, 0);
    let mut found = Vec::new();
    for (start, _) in lower.match_indices(name) {
        line = text[searched..start].rfind('\n').map_or(line, |at| searched + at + 1);
        searched = start;
        if !(is_curl && text[line..].starts_with("* ")) {
            found.extend(occurrence(text, line, start..start + name.len()));
        }
    }
    found
}

/// Reads the header whose name is at `name`, in the line that starts at `line`. Returns `None` for any other use of the word.
fn occurrence(text: &str, line: usize, name: Range<usize>) -> Option<Occurrence> {
    let (before, after) = (&text[..name.start], &text[name.end..]);
    let end = (0..=LONGEST.min(after.len())).rev().find(|end| after.is_char_boundary(*end));
    let after = &after[..end.unwrap_or_default()];
    let before_name = &before[line..];
    let previous = before.chars().next_back();
    // `HTTP_TRACEPARENT` and `http.request.header.traceparent` end in the name; `my-traceparent` is another header.
    let is_other = previous.is_some_and(|it| it.is_alphanumeric() || it == '-');
    if is_other && !before.ends_with("-H") {
        return None;
    }
    let quote = previous.filter(|it| ['"', '\'', '`'].contains(it));
    // `"traceparent": "…"` has quotes around the name, and `-H "traceparent: …"` around the header.
    let quoted_name = quote.and_then(|quote| after.strip_prefix(quote));
    let rest = quoted_name.unwrap_or(after).trim_start_matches([' ', '\t']);
    let separators: &[&str] = match quoted_name {
        // Also `{"name": "traceparent", "value": "…"}` and `set("traceparent", "…")`.
        Some(_) => &["=>", ":", "=", ","],
        None => &["=>", ":", "="],
    };
    let separator = separators.iter().find(|it| rest.starts_with(**it))?;
    let rest = rest[separator.len()..].trim_start_matches([' ', '\t']);
    let rest = match *separator {
        "," => after_key(rest),
        _ => rest,
    };

    let of_header = quote.filter(|_| quoted_name.is_none() && *separator == ":");
    let whole_line = quote.is_none()
        && *separator == ":"
        && before_name.chars().all(|it| it.is_whitespace() || ['>', '<'].contains(&it));
    let request = match whole_line {
        true => head_start(text, line),
        false if of_header.is_some() || before.ends_with("-H") || before.ends_with('=') => {
            command_start(text, line)
        }
        false => name.start,
    };
    let rest_of_line = rest.lines().next().unwrap_or_default();
    let values = if whole_line {
        match (rest_of_line.trim(), rest.lines().nth(1)) {
            // Browsers copy the value to the next line.
            ("", Some(next)) if Traceparent::parse(next.trim()).is_ok() => {
                vec![next.trim().to_owned()]
            }
            (value, _) => vec![value.to_owned()],
        }
    } else if let Some(quote) = of_header {
        let value = rest_of_line.split(quote).next().unwrap_or_default().trim();
        // In quotes may also be a message that goes on.
        let word = value.split(char::is_whitespace).next().unwrap_or_default();
        vec![if Traceparent::parse(word).is_ok() { word } else { value }.to_owned()]
    } else if let Some(list) = rest.strip_prefix('[') {
        let list = list.split(']').next().unwrap_or_default();
        let items = list.split([',', ' ', '\n', '"', '\'']).filter(|it| !it.is_empty());
        items.filter(|it| may_be_a_value(it)).map(str::to_owned).collect()
    } else {
        Vec::from_iter(Some(value(rest)).filter(|it| may_be_a_value(it)))
    };
    (!values.is_empty()).then_some(Occurrence { request, values })
}

/// Tells a value from `null` and from the next word of a sentence.
fn may_be_a_value(value: &str) -> bool {
    value.len() >= 3 && value.contains(|it: char| it.is_ascii_digit())
}

/// Skips `"value":`, and `{"stringValue":` as OTLP has it, behind a key.
fn after_key(rest: &str) -> &str {
    let mut rest = rest.trim_start();
    for key in ["\"value\"", "{", "\"stringValue\""] {
        if let Some(after) = rest.strip_prefix(key) {
            rest = after.trim_start().trim_start_matches(':').trim_start();
        }
    }
    rest
}

/// Reads one value in quotes or one word, to which others may be joined by commas.
fn value(rest: &str) -> String {
    let first = rest.chars().next().filter(|it| ['"', '\'', '`'].contains(it));
    if let Some(quote) = first {
        return rest[1..].split(quote).next().unwrap_or_default().to_owned();
    }
    let ends = |it: char| it.is_whitespace() || "\"'`,;{}[]()&|<>\\".contains(it);
    let mut end = rest.find(ends).unwrap_or(rest.len());
    while let Some(next) = rest[end..].strip_prefix(',') {
        let word = next.trim_start_matches(' ');
        let word = &word[..word.find(ends).unwrap_or(word.len())];
        if Traceparent::parse(word).is_err() {
            break;
        }
        end += 1 + (next.len() - next.trim_start_matches(' ').len()) + word.len();
    }
    rest[..end].to_owned()
}

/// Returns the start of the head that has the line at `line`: after an empty line, or at a request line or status line.
fn head_start(text: &str, line: usize) -> usize {
    let marker = |line: &str| line.trim_start().chars().next().filter(|it| ['>', '<'].contains(it));
    let own = marker(&text[line..]);
    let mut start = line;
    for before in text[..line].lines().rev().take(LINES) {
        let content = before.trim().trim_start_matches(['>', '<']).trim();
        if content.is_empty() || marker(before) != own {
            break;
        }
        start = before.as_ptr() as usize - text.as_ptr() as usize;
        if content.contains("HTTP/") {
            break;
        }
    }
    start
}

/// Returns the start of the command that has the line at `line`. A line that ends in `\`, `^` or a backtick continues on the next.
fn command_start(text: &str, line: usize) -> usize {
    let mut start = line;
    for before in text[..line].lines().rev().take(LINES) {
        if !before.trim_end().ends_with(['\\', '^', '`']) {
            break;
        }
        start = before.as_ptr() as usize - text.as_ptr() as usize;
    }
    start
}
