//! The rules of a single span, and of the libraries that a process made its spans with.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as Proto;

use super::{
    Evidence, Finding, Library, NamedSpan, Place, Rule, WrongKind, header, place, secrets,
};
use crate::span::{Span, SpanKind, any_text, attribute, shortened};
use crate::tree::{Row, Tree};

/// Makes one finding of a fault that several spans of a service have: with the evidence of the first span.
#[derive(Default)]
pub(super) struct Grouped(BTreeMap<Subject, (Evidence, Vec<Place>)>);

/// The rule, the service, and the attribute where the rule looks at several.
type Subject = (Rule, String, String);

impl Grouped {
    pub fn add(&mut self, service: &str, evidence: Evidence, span: Place) {
        let attribute = match &evidence {
            Evidence::Secret { attribute, .. } => attribute.clone(),
            _ => String::new(),
        };
        let subject = (evidence.rule(), service.to_owned(), attribute);
        let (_, spans) = self.0.entry(subject).or_insert_with(|| (evidence, Vec::new()));
        if spans.last() != Some(&span) {
            spans.push(span);
        }
    }

    pub fn findings(self) -> impl Iterator<Item = Finding> {
        self.0.into_values().map(|(evidence, spans)| Finding {
            same: spans.len() - 1,
            ..Finding::new(evidence, spans)
        })
    }
}

/// Looks for faults in one span, and in its resource where that is new.
pub(super) fn of_span(tree: &Tree, row: &Row, proto: &Proto, is_new: bool) -> Vec<Evidence> {
    let span = &row.span;
    let mut found = Vec::new();
    found.extend(status_not_set(span, proto));
    found.extend(wrong_kind(tree, row, proto));
    found.extend(value_in_name(span, proto));
    let own = proto.attributes.iter();
    let events = proto.events.iter().flat_map(|event| &event.attributes);
    let resource = &span.source.resource.attributes;
    let resource = resource.iter().filter(|_| is_new);
    for KeyValue { key, value, .. } in own.chain(events).chain(resource) {
        let text = any_text(value);
        let may_hold = matches!(
            value.as_ref().and_then(|any| any.value.as_ref()),
            Some(Value::StringValue(_) | Value::ArrayValue(_) | Value::BytesValue(_))
        );
        if may_hold && let Some(secret) = secrets::find(key, &text) {
            found.push(Evidence::Secret {
                span: NamedSpan::new(span),
                attribute: key.clone(),
                secret,
            });
        }
        if key == "http.request.header.traceparent" && span.kind() == SpanKind::Server {
            found.extend(header::recorded(span, &text));
        }
    }
    found
}

/// The first of two attributes that the span has: the name in the stable conventions, and the older one.
fn either(proto: &Proto, keys: [&str; 2]) -> Option<String> {
    keys.into_iter().find_map(|key| attribute(proto, key))
}

/// A SERVER span fails with a status of 500 and above, a CLIENT span with 400 and above, as the
/// [conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status) have it.
fn status_not_set(span: &Span, proto: &Proto) -> Option<Evidence> {
    let status = either(proto, ["http.response.status_code", "http.status_code"])?;
    let status: u16 = status.parse().ok()?;
    let failed = match span.kind() {
        SpanKind::Server => status >= 500,
        SpanKind::Client => status >= 400,
        _ => false,
    };
    (failed && !span.is_error())
        .then(|| Evidence::StatusNotSet { span: NamedSpan::new(span), status })
}

fn wrong_kind(tree: &Tree, row: &Row, proto: &Proto) -> Option<Evidence> {
    let span = &row.span;
    if span.kind() != SpanKind::Internal {
        return None;
    }
    let above = row.parent.map(|parent| &tree.rows[parent].span);
    let other_service = above.filter(|above| above.service() != span.service());
    let caller =
        other_service.filter(|above| matches!(above.kind(), SpanKind::Client | SpanKind::Producer));
    let method = either(proto, ["http.request.method", "http.method"]).is_some();
    let why = if let Some(caller) = caller {
        WrongKind::CalledBy(NamedSpan::new(caller))
    } else if method && attribute(proto, "http.route").is_some() {
        // Below a span of its own service it is a part of answering.
        if above.is_some() && other_service.is_none() {
            return None;
        }
        WrongKind::HasRoute
    } else if method && either(proto, ["url.full", "http.url"]).is_some() {
        WrongKind::HasUrl
    } else {
        return None;
    };
    let span = NamedSpan::new(span);
    Some(Evidence::WrongKind { span, why })
}

fn value_in_name(span: &Span, proto: &Proto) -> Option<Evidence> {
    let path = either(proto, ["url.path", "http.target"]);
    let has_route = attribute(proto, "http.route").is_some_and(|it| span.name().contains(&it));
    let path = path.as_deref().filter(|_| !has_route);
    let value = never_repeats(span.name(), path)?;
    Some(Evidence::ValueInName { span: NamedSpan::new(span), value: shortened(value, 60) })
}

/// The part of a name that is a value: an id, a number in a raw path, an address, a query.
fn never_repeats<'a>(name: &'a str, path: Option<&str>) -> Option<&'a str> {
    let raw = path.is_some_and(|path| name.split(' ').any(|word| word == path));
    let words = name.split([' ', '/', '?', '&', '=', ':', ',', '(', ')', '\'', '"']);
    let mut parts = words.filter(|part| !part.is_empty());
    parts.find(|part| {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        let hex = part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let number = part.bytes().filter(u8::is_ascii_digit).count();
        let mail =
            part.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
        (digits && (raw || part.len() >= 5)) || (hex && part.len() >= 16 && number >= 4) || mail
    })
}

/// The versions of each library, by service and process.
#[derive(Default)]
pub(super) struct Versions(BTreeMap<(String, String, Library), ByVersion>);

type ByVersion = BTreeMap<String, Vec<Place>>;

impl Versions {
    pub fn add(&mut self, span: &Span) {
        let resource = &span.source.resource.attributes;
        let find = |key: &str| {
            let found = resource.iter().find(|attribute| attribute.key == key)?;
            Some(any_text(&found.value)).filter(|text| !text.is_empty())
        };
        // One of two processes of a service may be newer.
        let process = find("service.instance.id").or_else(|| {
            let host = find("host.name").or_else(|| find("host.id"))?;
            Some(format!("{host} {}", find("process.pid")?))
        });
        let Some(process) = process else { return };
        let sdk = find("telemetry.sdk.language").zip(find("telemetry.sdk.version"));
        let sdk = sdk.map(|(language, version)| (Library::Sdk(language), version));
        let scope = &span.source.scope;
        let scope = (!scope.name.is_empty() && !scope.version.is_empty())
            .then(|| (Library::Scope(scope.name.clone()), scope.version.clone()));
        for (library, version) in sdk.into_iter().chain(scope) {
            let key = (span.service().to_owned(), process.clone(), library);
            let versions = self.0.entry(key).or_default();
            versions.entry(version).or_default().push(place(span));
        }
    }

    pub fn findings(self) -> impl Iterator<Item = Finding> {
        let several = self.0.into_iter().filter(|(_, versions)| versions.len() > 1);
        several.map(|((service, _, library), versions)| {
            let evidence = Evidence::MixedVersions {
                service,
                library,
                versions: versions.keys().cloned().collect(),
            };
            let first = versions.into_values().filter_map(|spans| spans.first().copied());
            Finding::new(evidence, first.collect())
        })
    }
}
