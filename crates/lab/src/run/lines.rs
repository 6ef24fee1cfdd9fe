//! Cuts output into lines and looks in each for a trace id, a span id and a level.

use std::borrow::Cow;

use crate::span::{SpanId, TraceId};
use crate::traceparent::Traceparent;

/// The most bytes of a line that are looked at and sent.
pub const LINE_LIMIT: usize = 16 * 1024;

/// The most characters between the name of a value and the value, such as quotes, a colon and blanks.
const GLUE_LIMIT: usize = 8;

/// The number of bytes at the beginning of a line that may have its level, unless the level has a name.
const LEVEL_LIMIT: usize = 160;

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Adds the next bytes of the stream. Calls `each` with the lines that end in them, without their ends and cut to
    /// [`LINE_LIMIT`].
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            if self.partial.is_empty() && !is_last {
                each(&part[..part.len().min(LINE_LIMIT)]);
                continue;
            }
            let room = LINE_LIMIT - self.partial.len();
            self.partial.extend_from_slice(&part[..part.len().min(room)]);
            if !is_last {
                each(&self.partial);
                self.partial.clear();
            }
        }
    }

    /// Calls `each` with the last line, if the stream ended within it.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            each(&self.partial);
            self.partial.clear();
        }
    }
}

/// A line that belongs to a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub trace_id: TraceId,
    pub span_id: Option<SpanId>,
    pub level: Option<Level>,
    /// The time at the beginning of the line, in nanoseconds since 1970.
    pub time: Option<u64>,
    /// The line without the escape sequences of a terminal, and without the time, level and ids at its beginning and the ids at its
    /// end.
    pub text: String,
}

/// The level of a line, as the number that OpenTelemetry gives the first severity of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Trace = 1,
    Debug = 5,
    Info = 9,
    Warn = 13,
    Error = 17,
    Fatal = 21,
}

impl Line {
    /// Reads a line. Returns `None` when it has no trace id.
    pub fn read(line: &[u8]) -> Option<Self> {
        if !may_have_id(line) {
            return None;
        }
        let text = String::from_utf8_lossy(line);
        let text = without_escapes(text.trim_end_matches('\r'));
        let traceparent = named(&text, "trace", &["parent"])
            .find_map(|(_, value)| Traceparent::parse(value).ok());
        let trace_id = named(&text, "trace", &["id"])
            .filter_map(|(_, value)| TraceId::parse(value))
            .find(|id| id.0 != [0; 16])
            .or(traceparent.map(|it| it.trace_id))?;
        let span_id = named(&text, "span", &["id"])
            // The parent of a span is another one.
            .filter(|(before, _)| !ends_with(before.trim_end_matches(['_', '-', '.']), "parent"))
            .filter_map(|(_, value)| SpanId::parse(value))
            .find(|id| id.0 != [0; 8]);
        let of_traceparent =
            traceparent.filter(|it| it.trace_id == trace_id).map(|it| it.parent_id);
        let span_id = span_id.or(of_traceparent);
        let ids = [Some(trace_id.to_string()), span_id.map(|it| it.to_string())];
        let is_id = |word: &str| {
            let value = word.split_once('=').map(|(_, value)| value.trim_matches('"'));
            let mut ids = ids.iter().flatten();
            value.is_some_and(|value| ids.any(|id| id.eq_ignore_ascii_case(value)))
        };
        let first = text.split_whitespace().next().unwrap_or_default();
        let time = time(first);
        let is_known = |word: &str| {
            (time.is_some() && word == first) || is_id(word) || Level::is_written_as(word)
        };
        let message = message(&text, is_known, is_id).to_owned();
        Some(Line { trace_id, span_id, level: Level::of(&text), time, text: message })
    }
}

/// Reads a time with its zone, such as `2026-11-29T10:00:00.25Z`.
fn time(word: &str) -> Option<u64> {
    let time: jiff::Timestamp = word.trim_matches(['[', ']']).parse().ok()?;
    time.as_nanosecond().try_into().ok()
}

/// Cuts words off the beginning and the end of a line. At least one word is left.
fn message(
    line: &str,
    is_at_start: impl Fn(&str) -> bool,
    is_at_end: impl Fn(&str) -> bool,
) -> &str {
    let mut rest = line.trim();
    while let Some((first, after)) = rest.split_once(char::is_whitespace)
        && is_at_start(first)
    {
        rest = after.trim_start();
    }
    while let Some((before, last)) = rest.rsplit_once(char::is_whitespace)
        && is_at_end(last)
    {
        rest = before.trim_end();
    }
    rest
}

/// Whether a line has a word that the name of a trace id begins with. This is fast.
pub fn may_have_id(line: &[u8]) -> bool {
    line.windows(5).any(|it| it[0] | 0x20 == b't' && it.eq_ignore_ascii_case(b"trace"))
}

/// Returns the values whose name ends in `first`, perhaps a `_`, `-` or `.`, and one of `seconds`, in any case; and what
/// stands before each of these names.
fn named<'a>(
    text: &'a str,
    first: &'a str,
    seconds: &'a [&'a str],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    positions(text, first).filter_map(move |at| {
        let rest = &text[at + first.len()..];
        let rest = rest.strip_prefix(['_', '-', '.']).unwrap_or(rest);
        let second = seconds.iter().find(|it| starts_with(rest, it))?;
        Some((&text[..at], value(&rest[second.len()..])?))
    })
}

/// Returns where `word` begins in `text`, in any case.
fn positions<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let windows = text.as_bytes().windows(word.len());
    let found = windows.enumerate().filter(|(_, it)| it.eq_ignore_ascii_case(word.as_bytes()));
    found.map(|(at, _)| at)
}

fn starts_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word))
}

fn ends_with(text: &str, word: &str) -> bool {
    let start = text.len().checked_sub(word.len());
    start.and_then(|start| text.get(start..)).is_some_and(|it| it.eq_ignore_ascii_case(word))
}

/// Reads the value behind a name, such as `abc` behind `: "abc"`.
fn value(rest: &str) -> Option<&str> {
    let is_glue = |it: char| " \t\"'\\:=>([{".contains(it);
    let glue = rest.find(|it| !is_glue(it))?;
    let is_separated = glue > 0 && glue <= GLUE_LIMIT;
    let value = rest.get(glue..).filter(|_| is_separated)?;
    let end = value.find(|it: char| !(it.is_ascii_alphanumeric() || it == '-'));
    let value = &value[..end.unwrap_or(value.len())];
    (!value.is_empty()).then_some(value)
}

impl Level {
    /// Finds the level of a line: behind a name such as `level` or `severity`, else at the beginning of the line in capitals,
    /// in brackets or before a colon.
    fn of(text: &str) -> Option<Self> {
        let names =
            [("level", &["", "name"][..]), ("severity", &["", "text"][..]), ("lvl", &[""][..])];
        for (first, seconds) in names {
            let seconds = &seconds.iter().rev().copied().collect::<Vec<_>>();
            if let Some(level) = named(text, first, seconds).find_map(|(_, it)| Level::named(it)) {
                return Some(level);
            }
        }
        let end = (0..=text.len().min(LEVEL_LIMIT)).rev().find(|it| text.is_char_boundary(*it));
        let start = &text[..end.unwrap_or_default()];
        let is_word = |it: char| it.is_alphanumeric() || it == '_';
        let words = start.split(|it| !is_word(it)).filter(|it| !it.is_empty());
        words
            .filter(|word| {
                let at = word.as_ptr() as usize - start.as_ptr() as usize;
                let before = &start[..at];
                let after = text[at + word.len()..].chars().next();
                let is_marked = match after {
                    Some(']') => before.ends_with('['),
                    Some(':') => before.trim().is_empty(),
                    _ => false,
                };
                is_marked || word.bytes().all(|it| it.is_ascii_uppercase())
            })
            .find_map(Level::word)
    }

    /// Whether a word is a level in capitals, perhaps in brackets or before a colon.
    fn is_written_as(word: &str) -> bool {
        let word = word.trim_matches(['[', ']', ':']);
        word.bytes().all(|it| it.is_ascii_uppercase()) && Level::word(word).is_some()
    }

    /// Reads a level behind its name: a word, or a number as pino and bunyan write it.
    fn named(text: &str) -> Option<Self> {
        match text {
            "10" => Some(Level::Trace),
            "20" => Some(Level::Debug),
            "30" => Some(Level::Info),
            "40" => Some(Level::Warn),
            "50" => Some(Level::Error),
            "60" => Some(Level::Fatal),
            word => Level::word(word),
        }
    }

    fn word(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "trace" | "verbose" => Some(Level::Trace),
            "debug" => Some(Level::Debug),
            "info" | "information" | "notice" => Some(Level::Info),
            "warn" | "warning" => Some(Level::Warn),
            "error" | "err" | "severe" | "fail" => Some(Level::Error),
            "fatal" | "critical" | "crit" | "panic" | "emergency" => Some(Level::Fatal),
            _ => None,
        }
    }

    /// The name that OpenTelemetry gives the severity.
    pub fn name(self) -> &'static str {
        match self {
            Level::Trace => "TRACE",
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
            Level::Fatal => "FATAL",
        }
    }
}

/// Removes the escape sequences of a terminal, such as colours.
fn without_escapes(text: &str) -> Cow<'_, str> {
    const ESCAPE: char = '\u{1b}';
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once(ESCAPE) {
        plain.push_str(before);
        let end = match sequence.chars().next() {
            Some('[') => sequence[1..].find(|it| ('@'..='~').contains(&it)).map(|at| at + 2),
            Some(']') => sequence.find(['\u{7}', '\\']).map(|at| at + 1),
            Some(other) => Some(other.len_utf8()),
            None => None,
        };
        rest = end.and_then(|end| sequence.get(end..)).unwrap_or_default();
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(line: &str) -> Option<Line> {
        Line::read(line.replace("TTT", TRACE).replace("SSS", SPAN).as_bytes())
    }

    #[test]
    fn a_trace_id_is_found_beside_its_name_as_loggers_write_it() {
        for line in [
            "paid trace_id=TTT span_id=SSS",
            r#"{"trace_id":"TTT","span_id":"SSS","level":"info"}"#,
            r#"{"trace_id": "TTT", "parent_span_id": "1111111111111111", "span_id": "SSS"}"#,
            r#""{\"traceId\":\"TTT\",\"spanId\":\"SSS\"}""#,
            "2026 INFO [otelTraceID=TTT otelSpanID=SSS] paid",
            "traceparent: 00-TTT-SSS-01",
            "headers={'traceparent': '00-TTT-SSS-01'}",
            "TraceId: TTT, SpanId: SSS",
            "\u{1b}[3mtrace_id\u{1b}[0m\u{1b}[2m=\u{1b}[0mTTT \u{1b}[3mspan_id\u{1b}[0m=SSS",
            "trace.id=TTT span.id=SSS\r",
        ] {
            let found = read(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(found.trace_id.to_string(), TRACE, "{line}");
            assert_eq!(found.span_id.map(|it| it.to_string()).as_deref(), Some(SPAN), "{line}");
            assert!(!found.text.contains(['\u{1b}', '\r']), "{line}");
        }
        let upper = read(&format!("TRACE_ID={}", TRACE.to_uppercase())).expect("an id");
        assert_eq!((upper.trace_id.to_string().as_str(), upper.span_id), (TRACE, None));
    }

    #[test]
    fn what_is_not_a_trace_id_is_left_alone() {
        for line in [
            "TTT",
            "commit_id=TTT",
            "trace_id=00000000000000000000000000000000",
            "trace_id=TTT0",
            "trace_id=4bf92f35",
            "trace_id was TTT",
            "trace_idTTT",
            "traceparent: 00-TTT-0000000000000000-01",
            "trace",
            "trace_id=",
            "trace_id=\u{fffd}é",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn the_level_is_the_lines_own() {
        for (line, level) in [
            ("2026-11-29T10:00:00Z  WARN shop: late", Some(Level::Warn)),
            (r#"{"level":"error","msg":"INFO"}"#, Some(Level::Error)),
            (r#"{"level":30,"msg":"x"}"#, Some(Level::Info)),
            (r#"{"severity":"CRITICAL"}"#, Some(Level::Fatal)),
            (r#"{"levelname": "DEBUG"}"#, Some(Level::Debug)),
            ("ERROR:root:no", Some(Level::Error)),
            ("2026/11/29 [error] 12#0: no", Some(Level::Error)),
            ("info: Microsoft.Hosting[0]", Some(Level::Info)),
            ("TRACE entered", Some(Level::Trace)),
            ("the error was: no", None),
            ("the level: high", None),
            ("paid", None),
        ] {
            let found = read(&format!("{line} trace_id=TTT")).expect("an id");
            assert_eq!(found.level, level, "{line}");
        }
    }

    #[test]
    fn what_has_a_field_of_its_own_is_not_in_the_text() {
        for (line, text, has_time) in [
            (
                "2026-11-29T10:00:00.25Z  INFO trace_id=TTT span_id=SSS paid  twice",
                "paid  twice",
                true,
            ),
            ("[2026-11-29T10:00:00+02:00] [WARN] paid trace_id=\"TTT\" span_id=SSS", "paid", true),
            (
                "2026-11-29 10:00:00,250 INFO paid trace_id=TTT",
                "2026-11-29 10:00:00,250 INFO paid",
                false,
            ),
            ("paid trace_id=TTT for=2", "paid trace_id=TTT for=2", false),
            ("trace_id=TTT", "trace_id=TTT", false),
            (
                r#"{"trace_id":"TTT","message":"paid"}"#,
                r#"{"trace_id":"TTT","message":"paid"}"#,
                false,
            ),
        ] {
            let found = read(line).expect("an id");
            assert_eq!(found.text.replace(TRACE, "TTT").replace(SPAN, "SSS"), text);
            assert_eq!(found.time.is_some(), has_time, "{line}");
        }
        let found = read("1970-01-01T00:00:01Z trace_id=TTT x").expect("an id");
        assert_eq!(found.time, Some(1_000_000_000));
    }

    #[test]
    fn lines_are_cut_out_of_any_chunks() {
        let long = "x".repeat(LINE_LIMIT + 10);
        let text = format!("one\n\ntwo\r\n{long}\nthree\nlast");
        for size in [1, 2, 3, 7, 1000, text.len()] {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            let mut each = |line: &[u8]| found.push(String::from_utf8_lossy(line).into_owned());
            for chunk in text.as_bytes().chunks(size) {
                lines.push(chunk, &mut each);
            }
            lines.finish(&mut each);
            assert_eq!(found, ["one", "", "two\r", &long[..LINE_LIMIT], "three", "last"], "{size}");
        }
    }
}
