//! Finds trace headers in text that people paste: the head of a request, what `curl -v` prints, a `curl` command, a log
//! line, JSON or source code.

mod template;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use crate::span::{TraceId, trace_id};
use crate::traceparent::Traceparent;

/// The headers of one request that carry a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pasted {
    /// The line of the first of them, counted from 1.
    pub line: usize,
    /// The values of its `traceparent` headers as they came, valid or not.
    pub traceparent: Vec<String>,
    /// Its headers of other formats, one for each format.
    pub foreign: Vec<Foreign>,
}

/// The content of a request's headers in another format than W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Foreign {
    pub format: Format,
    /// `None` where the caller only said whether to sample.
    pub trace_id: Option<TraceId>,
    /// `None` where the caller left that to the called service.
    pub sampled: Option<bool>,
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

    /// The name of the header that says whether the request is sampled, in lower case.
    pub fn sampling_header(self) -> &'static str {
        match self {
            Format::B3Multi => "x-b3-sampled",
            Format::Datadog => "x-datadog-sampling-priority",
            own => own.header(),
        }
    }

    /// The names of both headers, or the one name.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let other = Some(self.sampling_header()).filter(|it| *it != self.header());
        std::iter::once(self.header()).chain(other)
    }

    /// Reads whether the request is sampled from the value of that header. Returns `None` when it doesn't say.
    pub fn sampled(self, value: &str) -> Option<bool> {
        let value = value.trim();
        let field = |name| value.split(';').find_map(|field| field.trim().strip_prefix(name));
        let decision = match self {
            // A value without ids is a decision alone.
            Format::B3 => value.split('-').nth(if value.len() == 1 { 0 } else { 2 })?,
            Format::B3Multi => value,
            Format::Jaeger => {
                let value = value.replace("%3A", ":").replace("%3a", ":");
                let flags = value.rsplit(':').next()?;
                return Some(u8::from_str_radix(flags, 16).ok()? & 1 == 1);
            }
            // https://docs.datadoghq.com/tracing/trace_pipeline/ingestion_mechanisms/
            Format::Datadog => return Some(value.parse::<i8>().ok()? > 0),
            Format::XRay => field("Sampled=")?,
            Format::GoogleCloud => field("o=")?,
        };
        match decision {
            "0" | "false" => Some(false),
            "1" | "true" | "d" => Some(true),
            _ => None,
        }
    }

    /// Whether its header and a `traceparent` of the same request have to name one trace. A load balancer adds the other formats
    /// to requests of any caller.
    fn agrees(self) -> bool {
        !matches!(self, Format::XRay | Format::GoogleCloud)
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

impl Foreign {
    pub fn new(format: Format) -> Self {
        Foreign { format, trace_id: None, sampled: None }
    }

    /// Takes the value of one of the format's headers.
    pub fn add(&mut self, name: &str, value: &str) {
        let format = self.format;
        if name == format.header() {
            self.trace_id = self.trace_id.or_else(|| format.trace_id(value));
        }
        if name == format.sampling_header() {
            self.sampled = self.sampled.or_else(|| format.sampled(value));
        }
    }

    /// Whether the called service has to know it: without ids, a decision to sample changes nothing.
    pub fn matters(&self) -> bool {
        self.trace_id.is_some() || self.sampled == Some(false)
    }

    /// Returns in what the `traceparent` of the same request and this one differ. Where they name different traces, whether to
    /// sample these isn't compared.
    pub fn contradicts(&self, own: &Traceparent) -> Option<Contradiction> {
        let is_same = self.trace_id.map(|named| is_same_trace(own.trace_id, named));
        match (is_same, self.trace_id) {
            (Some(false), Some(named)) => {
                let traces = [own.trace_id, named];
                self.format.agrees().then_some(Contradiction::Traces(traces))
            }
            // Without a trace, a load balancer's decision may be about one of its own.
            (None, _) if !self.format.agrees() => None,
            _ => {
                let differs = self.sampled? != own.sampled;
                differs.then_some(Contradiction::Sampling { own: own.sampled })
            }
        }
    }
}

/// Whether the trace that a header of another format names is that of a `traceparent`. Some formats have the lower half of the id
/// alone.
fn is_same_trace(own: TraceId, named: TraceId) -> bool {
    let [own, named] = [own, named].map(|it| u128::from_be_bytes(it.0));
    let is_half = named <= u128::from(u64::MAX);
    own == named || is_half && own as u64 == named as u64
}

/// In what a `traceparent` and a header of another format differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// They name different traces: that of the `traceparent`, and that of the other header.
    Traces([TraceId; 2]),
    /// They agree on the trace, and only one of them says to sample it.
    Sampling {
        /// Whether the `traceparent` does.
        own: bool,
    },
}

/// A text that stands where the value of a `traceparent` should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    Empty,
    /// The word of a language for no value, such as `null` or `None`.
    Null,
    /// A variable that a shell or a template should have replaced.
    Variable,
}

impl Placeholder {
    /// Returns `None` for a value, even one that isn't valid.
    pub fn of(value: &str) -> Option<Self> {
        const NULLS: [&str; 6] = ["null", "none", "nil", "undefined", "(null)", "<nil>"];
        let value = value.trim().trim_matches(QUOTES);
        if value.is_empty() {
            Some(Placeholder::Empty)
        } else if NULLS.iter().any(|null| value.eq_ignore_ascii_case(null)) {
            Some(Placeholder::Null)
        } else {
            value.contains(['$', '%', '{', '<']).then_some(Placeholder::Variable)
        }
    }
}

/// Returns the id that a text consists of, in lower case: 32 or 16 hexadecimal digits, with a name in front or without.
pub fn id_alone(text: &str) -> Option<String> {
    const NAMES: [&str; 5] = ["", "traceid", "trace", "spanid", "span"];
    let text = Some(text.trim()).filter(|text| text.len() < LONGEST)?;
    let bare = |text: &str| {
        let around = |it: char| it.is_whitespace() || "\"'`{}.,;".contains(it);
        text.trim_matches(around).to_ascii_lowercase()
    };
    let (name, id) = text.rsplit_once([':', '=']).unwrap_or(("", text));
    let (name, id) = (bare(name).replace(['_', '-', '.', ' '], ""), bare(id));
    let digits = if id.len() == 36 { id.replace('-', "") } else { id };
    let is_id = [16, 32].contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_hexdigit());
    (is_id && NAMES.contains(&&*name)).then_some(digits)
}

const TRACEPARENT: &str = "traceparent";

/// How many bytes around a name, and how many lines before it, are looked at. A long text must not take long.
const LONGEST: usize = 1000;
const LINES: usize = 100;

const QUOTES: [char; 3] = ['"', '\'', '`'];

/// The characters that may follow a value in a sentence.
const PUNCTUATION: [char; 6] = ['.', ',', ';', ':', '!', '?'];

/// Finds the headers in a text, in order. A request that was printed twice is found once.
pub fn find(text: &str) -> Vec<Pasted> {
    // As text in JSON has its quotes.
    let text = text.replace("\\\"", "\"");
    // Keeps the length.
    let lower = text.to_ascii_lowercase();
    let mut own = occurrences(&text, &lower, TRACEPARENT);
    own.retain(|it| !it.is_made);
    let mut requests = Requests::default();
    // The number of headers in a line, and the request of the last.
    let mut in_line: HashMap<usize, (usize, usize)> = HashMap::new();
    for it in &own {
        let is_value = |value: &&String| it.is_header || may_be_a_value(value);
        let values: Vec<String> = it.values.iter().filter(is_value).cloned().collect();
        if !values.is_empty() {
            let request = it.request.unwrap_or(it.name);
            requests.at(request, it.line).traceparent.extend(values);
            let (count, last) = in_line.entry(it.line).or_default();
            (*count, *last) = (*count + 1, request);
        }
    }
    if requests.0.is_empty() {
        let (mut line, mut counted) = (1, 0);
        for value in bare(&text) {
            let offset = value.as_ptr() as usize - text.as_ptr() as usize;
            line += text[counted..offset].matches('\n').count();
            counted = offset;
            requests.at(offset, line).traceparent.push(value.to_owned());
        }
    }
    let has_own = !requests.0.is_empty();
    for format in Format::ALL {
        let mut found: BTreeMap<usize, (usize, Foreign)> = BTreeMap::new();
        for name in format.names() {
            let is_valid = |value: &String| format.trace_id(value).is_some();
            for it in occurrences(&text, &lower, name) {
                if it.is_made && !it.values.iter().any(is_valid) {
                    continue;
                }
                let beside = in_line.get(&it.line).copied().filter(|(count, _)| *count == 1);
                let request = match (it.request, beside) {
                    (Some(request), _) | (None, Some((_, request))) => request,
                    (None, None) if has_own => continue,
                    (None, None) => it.start,
                };
                let (line, foreign) =
                    found.entry(request).or_insert((it.line, Foreign::new(format)));
                *line = it.line.min(*line);
                // `b3=0` may say anything.
                let is_value = |value: &&String| it.is_quoted || value.len() + name.len() > 3;
                it.values.iter().filter(is_value).for_each(|value| foreign.add(name, value));
            }
        }
        for (request, (line, foreign)) in found {
            if foreign.matters() {
                requests.at(request, line).foreign.push(foreign);
            }
        }
    }
    if requests.0.is_empty() {
        if let Some(value) = one_word(&text) {
            requests.at(0, 1).traceparent.push(value);
        }
        for it in own {
            let mut values = it.values.into_iter();
            if let Some(value) = values.find(|value| Placeholder::of(value).is_some()) {
                requests.at(it.name, it.line).traceparent.push(value);
            }
        }
    }
    let mut seen = HashSet::new();
    let found = requests.0.into_values();
    found.filter(|it| seen.insert((it.traceparent.clone(), it.foreign.clone()))).collect()
}

/// Whether there is source code in a text that makes a `traceparent` from its parts.
pub fn is_made(text: &str) -> bool {
    occurrences(text, &text.to_ascii_lowercase(), TRACEPARENT).iter().any(|it| it.is_made)
}

/// Requests by the place in the text that their headers have in common.
#[derive(Default)]
struct Requests(BTreeMap<usize, Pasted>);

impl Requests {
    fn at(&mut self, place: usize, line: usize) -> &mut Pasted {
        let new = Pasted { line, traceparent: Vec::new(), foreign: Vec::new() };
        let request = self.0.entry(place).or_insert(new);
        request.line = request.line.min(line);
        request
    }
}

/// Finds valid values without the name of the header.
fn bare(text: &str) -> Vec<&str> {
    let alone = text.trim().trim_matches(QUOTES);
    if joined(alone).is_some() {
        return vec![alone];
    }
    let words = text.split(|it: char| !(it.is_ascii_alphanumeric() || "-_".contains(it)));
    words.filter(|word| Traceparent::parse(word).is_ok()).collect()
}

/// Takes a text that is one word with a dash in it for a value that is wrong.
fn one_word(text: &str) -> Option<String> {
    let text = text.trim().trim_matches(QUOTES).trim_end_matches(PUNCTUATION);
    let is_other = text.contains(|it: char| it.is_whitespace() || ":[".contains(it))
        || text.starts_with('{')
        || id_alone(text).is_some();
    (!is_other && text.contains('-')).then(|| text.to_owned())
}

/// A header somewhere in a text.
struct Occurrence {
    /// The byte at which its name begins.
    name: usize,
    /// The byte at which its line begins, and the number of the line, counted from 1.
    start: usize,
    line: usize,
    /// The same number for all headers of one request; `None` where the text doesn't show what belongs to the request.
    request: Option<usize>,
    /// Whether it is certainly a header: it has a line, a quoted text or an option of a command to itself.
    is_header: bool,
    /// Whether it is that, or has a name in quotes.
    is_quoted: bool,
    /// Whether source code makes the value: the text shows a part of it, or none.
    is_made: bool,
    values: Vec<String>,
}

/// Finds each place in the text that gives the header `name` a value. `lower` is the text in lower case.
fn occurrences(text: &str, lower: &str, name: &str) -> Vec<Occurrence> {
    // curl prints the headers of HTTP/2 once as a remark and once as sent.
    let is_curl = text.lines().any(|line| line.starts_with("> "));
    let (mut line, mut number, mut searched) = (0, 1, 0);
    let mut found = Vec::new();
    let mut lines = template::Lines::default();
    for (start, _) in lower.match_indices(name) {
        let passed = &text[searched..start];
        line = passed.rfind('\n').map_or(line, |at| searched + at + 1);
        number += passed.matches('\n').count();
        searched = start;
        if !(is_curl && text[line..].starts_with("* ")) {
            let name = start..start + name.len();
            found.extend(occurrence(text, (line, number), name, &mut lines));
        }
    }
    found
}

/// Reads the header whose name is at `name`, in the line that starts at `line` and has this number. Returns `None` for any other
/// use of the word.
fn occurrence(
    text: &str,
    (line, number): (usize, usize),
    name: Range<usize>,
    lines: &mut template::Lines,
) -> Option<Occurrence> {
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
    let quote = previous.filter(|it| QUOTES.contains(it));
    // `"traceparent": "…"` has quotes around the name, and `-H "traceparent: …"` around the header.
    let quoted_name = quote.and_then(|quote| after.strip_prefix(quote));
    let rest = quoted_name.unwrap_or(after).trim_start_matches([' ', '\t']);
    let separators: &[&str] = match quoted_name {
        // Also `{"name": "traceparent", "value": "…"}` and `set("traceparent", "…")`.
        Some(_) => &["=>", ":", "=", ","],
        None => &["=>", ":", "="],
    };
    // A path in Rust goes on behind two colons.
    let separator =
        separators.iter().find(|it| rest.starts_with(**it) && !rest.starts_with("::"))?;
    let rest = rest[separator.len()..].trim_start_matches([' ', '\t']);
    let rest = match *separator {
        "," => after_key(rest),
        _ => rest,
    };

    let of_header = quote.filter(|_| quoted_name.is_none() && *separator == ":");
    let whole_line = quote.is_none()
        && *separator == ":"
        && before_name.chars().all(|it| it.is_whitespace() || ['>', '<'].contains(&it));
    let is_option = |before: &str| before.ends_with("-H") || before.ends_with('=');
    let option = before.trim_end_matches(QUOTES).trim_end_matches(['$', ' ']);
    let is_of_command = ["-H", "--header", "--header="].iter().any(|it| option.ends_with(it));
    let request = match quote {
        _ if whole_line => Some(head_start(text, line)),
        _ if of_header.is_some() || is_option(before) => Some(command_start(text, line)),
        Some(_) => object_start(before, *separator == ","),
        None => enclosing(before).filter(|start| before[..*start].ends_with("map")),
    };
    let rest_of_line = rest.lines().next().unwrap_or_default();
    let values = if whole_line {
        match (rest_of_line.trim(), rest.lines().nth(1)) {
            // Browsers copy the value to the next line.
            ("", Some(next)) if Traceparent::parse(next.trim()).is_ok() => {
                vec![next.trim().to_owned()]
            }
            // What a program printed of a request is as it was sent.
            (value, _) if !before_name.trim().is_empty() => vec![value.to_owned()],
            (value, _) if is_head(text, request.unwrap_or(line)) => vec![value.to_owned()],
            (value, _) => vec![of_prose(value).to_owned()],
        }
    } else if let Some(quote) = of_header {
        let value = rest_of_line.split(quote).next().unwrap_or_default().trim();
        let is_sent = is_of_command || is_option(option);
        vec![if is_sent { value } else { of_prose(value) }.to_owned()]
    } else if let Some(list) = rest.strip_prefix('[') {
        let list = list.split(']').next().unwrap_or_default();
        let items = list.split([',', ' ', '\n', '"', '\'']).filter(|it| !it.is_empty());
        items.map(str::to_owned).collect()
    } else {
        let value = value(rest);
        // An empty value has quotes, or is the last of its line. `{}` in source code is an object.
        let is_object = quoted_name.is_some() && rest.starts_with("{}");
        let has_value = !value.is_empty()
            || rest.starts_with(QUOTES)
            || *separator == "=" && rest_of_line.is_empty();
        let is_value = has_value && !is_object;
        Vec::from_iter(Some(value).filter(|_| is_value))
    };
    let is_header = whole_line || of_header.is_some();
    let is_printed = whole_line && !before_name.trim().is_empty();
    let is_valid = |it: &String| Traceparent::parse(it).is_ok() || joined(it).is_some();
    let is_expression = |it: &String| {
        let is_word = whole_line && !rest.starts_with(QUOTES) && !may_be_a_value(it);
        is_word || Placeholder::of(it).is_some()
    };
    let at = rest.as_ptr() as usize - text.as_ptr() as usize;
    let is_made = !is_printed
        && !values.iter().any(is_valid)
        && (template::is_completed(text, line, at, is_of_command)
            || !is_of_command && values.iter().all(is_expression) && lines.is_code(text, line));
    (!values.is_empty()).then_some(Occurrence {
        name: name.start,
        start: line,
        line: number,
        request,
        is_header,
        is_quoted: is_header || quote.is_some(),
        is_made,
        values,
    })
}

/// Tells a value from `null` and from the next word of a sentence.
fn may_be_a_value(value: &str) -> bool {
    value.len() >= 3 && value.contains(|it: char| it.is_ascii_digit())
}

/// Leaves out quotes around a value, and the rest of the sentence behind it, unless another value follows.
fn of_prose(value: &str) -> &str {
    let inner = value.trim_matches(QUOTES).trim_end_matches(PUNCTUATION).trim_matches(QUOTES);
    let end = inner.find(|it: char| it.is_whitespace() || QUOTES.contains(&it));
    let (word, rest) = inner.split_at(end.unwrap_or(inner.len()));
    let word = word.trim_end_matches(PUNCTUATION);
    let is_value = |word: &str| word.len() > 2 && word.as_bytes()[2] == b'-';
    match Traceparent::parse(word).is_ok() && !rest.split_whitespace().any(is_value) {
        true => word,
        false => inner,
    }
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
    let first = rest.chars().next().filter(|it| QUOTES.contains(it));
    if let Some(quote) = first {
        return rest[1..].split(quote).next().unwrap_or_default().to_owned();
    }
    let ends = |it: char| it.is_whitespace() || "\"'`,;&|\\".contains(it);
    let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
    let is_pair = |(open, close)| word.strip_prefix(open).is_some_and(|it| it.contains(close));
    if word.contains('$') || [('{', '}'), ('<', '>'), ('%', '%')].into_iter().any(is_pair) {
        return word.trim_end_matches(PUNCTUATION).to_owned();
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
    rest[..end].trim_end_matches(PUNCTUATION).to_owned()
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

/// Whether the line at `line` is a request line or a status line.
fn is_head(text: &str, line: usize) -> bool {
    text[line..].lines().next().is_some_and(|line| line.contains("HTTP/"))
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

/// Returns the start of the object that a quoted name behind `before` is a key of, or of the list of pairs that it stands in.
fn object_start(before: &str, is_pair: bool) -> Option<usize> {
    let start = enclosing(before)?;
    match is_pair {
        true => enclosing(&before[..start]).filter(|start| before[*start..].starts_with('[')),
        false => Some(start).filter(|start| !before[*start..].starts_with('(')),
    }
}

/// Returns the place of the last bracket in a text that isn't closed.
fn enclosing(text: &str) -> Option<usize> {
    let mut closed = 0;
    for (index, byte) in text.bytes().enumerate().rev().take(LONGEST) {
        match byte {
            b')' | b']' | b'}' => closed += 1,
            b'(' | b'[' | b'{' if closed == 0 => return Some(index),
            b'(' | b'[' | b'{' => closed -= 1,
            _ => {}
        }
    }
    None
}
