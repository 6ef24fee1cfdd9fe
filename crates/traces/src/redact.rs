//! Removes what looks like a secret from a request that is about to be handed on. The rule `secrets` of the diagnosis decides.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::case::Case;
use crate::diagnose::{is_secret, is_secret_name};
use crate::exchange::Exchange;
use crate::proto::common::any_value::Value;
use crate::proto::common::{AnyValue, KeyValue};
use crate::span::{NAME_LIMIT, Source, Span, any_text, shortened};

/// The text in place of a secret. The rule doesn't take it for one.
pub const REDACTED: &str = "[redacted]";

/// The text in place of a header's value that the lab has never kept.
const NOT_KEPT: &str = "(not kept)";

/// Sources by their address, each with the redacted one. Keeps both, so that an address stays that of its source.
type Sources = HashMap<*const Source, [Arc<Source>; 2]>;

/// Counts the values that were redacted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Redacted {
    /// The number of values. A value of a resource counts once, not for each of its spans.
    pub values: usize,
    /// The names of the attributes and headers.
    pub names: BTreeSet<String>,
}

impl Redacted {
    fn count(&mut self, name: &str) {
        self.values += 1;
        self.names.insert(shortened(name, NAME_LIMIT));
    }

    fn text(&mut self, name: &str, text: &mut String) -> bool {
        let found = is_secret("", text);
        if found {
            self.count(name);
            *text = REDACTED.to_owned();
        }
        found
    }

    fn attributes(&mut self, attributes: &mut [KeyValue]) -> bool {
        let mut changed = false;
        for KeyValue { key, value, .. } in attributes {
            changed |= value.as_mut().is_some_and(|value| self.value(key, value));
        }
        changed
    }

    fn value(&mut self, key: &str, any: &mut AnyValue) -> bool {
        let text = match &mut any.value {
            Some(Value::KvlistValue(_)) if is_secret_name(key) => any_text(&Some(any.clone())),
            Some(Value::KvlistValue(list)) => return self.attributes(&mut list.values),
            Some(Value::ArrayValue(list)) if !list.values.iter().all(is_plain) => {
                let mut changed = false;
                for value in &mut list.values {
                    changed |= self.value(key, value);
                }
                return changed;
            }
            Some(Value::StringValue(_) | Value::ArrayValue(_) | Value::BytesValue(_)) => {
                any_text(&Some(any.clone()))
            }
            _ => return false,
        };
        let found = is_secret(key, &text);
        if found {
            self.count(key);
            any.value = Some(Value::StringValue(REDACTED.to_owned()));
        }
        found
    }

    fn source(&mut self, source: &Arc<Source>) -> Arc<Source> {
        let mut redacted = Source::clone(source);
        let changed = self.attributes(&mut redacted.resource.attributes);
        match self.attributes(&mut redacted.scope.attributes) || changed {
            true => Arc::new(redacted),
            false => Arc::clone(source),
        }
    }

    /// Redacts a source once for all that share it.
    fn known(&mut self, sources: &mut Sources, source: &Arc<Source>) -> Arc<Source> {
        let redacted = || [Arc::clone(source), self.source(source)];
        let [_, redacted] = sources.entry(Arc::as_ptr(source)).or_insert_with(redacted);
        Arc::clone(redacted)
    }

    /// Redacts the values in the head of a request.
    fn head(&mut self, head: &str) -> String {
        let mut lines = head.split_inclusive('\n');
        let first = lines.next().map(|line| self.request_line(line)).unwrap_or_default();
        let mut name = "";
        let lines = lines.map(|line| {
            let text = line.trim_end_matches(['\r', '\n']);
            let (before, value) = match text.split_once(':') {
                // The line continues the header above it (RFC 9112, 5.2).
                _ if text.starts_with([' ', '\t']) => ("", text),
                Some((header, value)) => {
                    name = header;
                    (header, value)
                }
                None => ("", text),
            };
            let value = value.trim();
            if value == NOT_KEPT || !is_secret(name, value) {
                return line.to_owned();
            }
            self.count(name);
            let before = if before.is_empty() { " ".to_owned() } else { format!("{before}: ") };
            format!("{before}{REDACTED}{}", &line[text.len()..])
        });
        let lines: String = lines.collect();
        first + &lines
    }

    /// Redacts the target of a request line.
    fn request_line(&mut self, line: &str) -> String {
        let text = line.trim_end_matches(['\r', '\n']);
        let (method, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (target, version) = rest.rsplit_once(' ').unwrap_or((rest, ""));
        if !is_secret("", target) {
            return line.to_owned();
        }
        self.count("a request line");
        format!("{method} {REDACTED} {version}{}", &line[text.len()..])
    }

    fn exchange(&mut self, exchange: &mut Exchange) {
        exchange.sent = self.head(&exchange.sent);
        exchange.delivered = exchange.delivered.as_deref().map(|head| self.head(head));
    }
}

/// Whether a value isn't a list or a map.
fn is_plain(value: &AnyValue) -> bool {
    !matches!(value.value, Some(Value::ArrayValue(_) | Value::KvlistValue(_)))
}

impl Redacted {
    /// Redacts the names of spans, events and log records and the messages of failures, which findings repeat.
    pub fn names(&mut self, case: &mut Case) {
        for span in spans(case) {
            let mut proto = span.proto();
            let mut changed = self.text("a span's name", &mut proto.name);
            for event in &mut proto.events {
                changed |= self.text("an event's name", &mut event.name);
            }
            if let Some(status) = &mut proto.status {
                changed |= self.text("a status message", &mut status.message);
            }
            if changed {
                *span = Arc::new(span.with(proto, Arc::clone(&span.source)));
            }
        }
        for span in &mut case.elsewhere {
            self.text("a span's name", &mut span.name);
        }
        for record in &mut case.logs {
            let mut proto = record.proto();
            let mut changed = self.text("an event's name", &mut proto.event_name);
            changed |= self.text("a log record's severity", &mut proto.severity_text);
            if changed {
                *record = Arc::new(record.with(&proto, Arc::clone(&record.source)));
            }
        }
    }

    /// Redacts the values of attributes and headers, and the bodies of log records.
    pub fn values(&mut self, case: &mut Case) {
        let mut sources = Sources::new();
        for span in spans(case) {
            let source = &self.known(&mut sources, &span.source);
            let mut proto = span.proto();
            let mut changed = self.attributes(&mut proto.attributes);
            for event in &mut proto.events {
                changed |= self.attributes(&mut event.attributes);
            }
            for link in &mut proto.links {
                changed |= self.attributes(&mut link.attributes);
            }
            if changed || !Arc::ptr_eq(source, &span.source) {
                *span = Arc::new(span.with(proto, Arc::clone(source)));
            }
        }
        for record in &mut case.logs {
            let source = &self.known(&mut sources, &record.source);
            let mut proto = record.proto();
            let mut changed = self.attributes(&mut proto.attributes);
            if let Some(body) = &mut proto.body {
                changed |= self.value("a log record's body", body);
            }
            if changed || !Arc::ptr_eq(source, &record.source) {
                *record = Arc::new(record.with(&proto, Arc::clone(source)));
            }
        }
        for exchange in &mut case.wire {
            self.exchange(exchange);
        }
    }
}

fn spans(case: &mut Case) -> impl Iterator<Item = &mut Arc<Span>> {
    case.trees.iter_mut().flat_map(|tree| &mut tree.rows).map(|row| &mut row.span)
}
