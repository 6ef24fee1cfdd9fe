//! The rule of span names: a name that has a value in it is another name for each value.
//!
//! A number proves little: it can be a port, a version, a year or a status. It counts when it is too long for these, or when
//! several numbers stand in the same place of otherwise equal names. Other values are known by their form.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::proto::trace::Span as Proto;

use super::{Evidence, Finding, NamedSpan, Place, place};
use crate::conventions;
use crate::span::{Span, attribute, shortened};
use crate::values::{SEPARATORS, is_id, is_mail};

/// The names of all spans, as far as they may have a value in them.
#[derive(Default)]
pub(super) struct Names {
    /// For each service and each name, with a gap where the value stands.
    places: HashMap<(String, String), Values>,
    count: usize,
}

struct Values {
    first: NamedSpan,
    value: String,
    /// The position of the first span among all.
    order: usize,
    distinct: BTreeSet<String>,
    proven: bool,
    spans: Vec<Place>,
}

impl Names {
    pub fn add(&mut self, span: &Span, proto: &Proto) {
        self.count += 1;
        // Some tools replace all names by hashes before a trace is passed on.
        if is_id(span.service()) {
            return;
        }
        let Some(Value { start, text, proven }) = find(span, proto) else { return };
        let name = span.name();
        let gap = format!("{}\0{}", &name[..start], &name[start + text.len()..]);
        let values = self.places.entry((span.service().to_owned(), gap));
        let values = values.or_insert_with(|| Values {
            first: NamedSpan::new(span),
            value: shortened(text, 60),
            order: self.count,
            distinct: BTreeSet::new(),
            proven,
            spans: Vec::new(),
        });
        values.distinct.insert(shortened(text, 60));
        values.spans.push(place(span));
    }

    /// One finding for each service, with the evidence of its first span.
    pub fn findings(self) -> impl Iterator<Item = Finding> {
        let places = self.places.into_iter();
        let found = places.filter(|(_, values)| values.proven || values.distinct.len() > 1);
        let mut found: Vec<(String, Values)> =
            found.map(|((service, _), values)| (service, values)).collect();
        found.sort_by_key(|(_, values)| values.order);
        let mut services: BTreeMap<String, Finding> = BTreeMap::new();
        for (service, values) in found {
            let evidence = Evidence::ValueInName {
                span: values.first,
                value: values.value,
                others: values.distinct.len() - 1,
            };
            let finding =
                services.entry(service).or_insert_with(|| Finding::new(evidence, Vec::new()));
            finding.traces.extend(values.spans.iter().map(|(trace, _)| *trace));
            finding.spans.extend(values.spans);
        }
        services.into_values().map(|finding| Finding { same: finding.spans.len() - 1, ..finding })
    }
}

/// A part of a name that may be a value.
struct Value<'a> {
    /// The offset at which it begins, in bytes.
    start: usize,
    text: &'a str,
    /// Whether its form alone says that it is one.
    proven: bool,
}

fn find<'a>(span: &'a Span, proto: &Proto) -> Option<Value<'a>> {
    let name = span.name();
    // What stands in a route doesn't change.
    let route = attribute(proto, "http.route").filter(|route| !route.is_empty());
    let fixed = route.and_then(|route| Some((name.find(&route)?, route.len())));
    let path = conventions::path(proto);
    let raw = path.is_some_and(|path| name.split(' ').any(|word| word == path));
    let mut start = 0;
    for text in name.split(SEPARATORS) {
        let here = start;
        start += text.len() + 1;
        let in_route = fixed.is_some_and(|(at, length)| (at..at + length).contains(&here));
        if text.is_empty() || in_route {
            continue;
        }
        // A URL may have a user, which looks like a mail address.
        let word = name[..here].rsplit(' ').next().unwrap_or_default();
        let mail = !word.contains("://") && is_mail(text);
        if mail || is_id(text) {
            return Some(Value { start: here, text, proven: true });
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && (text.len() >= 5 || raw) && !is_port(&name[..here], text, proto) {
            return Some(Value { start: here, text, proven: false });
        }
    }
    None
}

/// Whether a number behind a colon is the port of an address: the attributes say so, or a host stands before the colon.
fn is_port(before: &str, number: &str, proto: &Proto) -> bool {
    let Some(before) = before.strip_suffix(':') else { return false };
    let host = before.rsplit([' ', '/', '@', '[', ']']).next().unwrap_or_default();
    let fits = number.parse::<u16>().is_ok();
    let is_host = host == "localhost" || host.is_empty() || host.contains('.');
    fits && (is_host || conventions::ports(proto).any(|port| port == number))
}
