//! The rules of a single span, and of the libraries that a process made its spans with.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::proto::common::KeyValue;
use crate::proto::common::any_value::Value;
use crate::proto::trace::Span as Proto;

use super::{
    Evidence, Finding, Library, NamedSpan, Place, Rule, WrongKind, header, place, secrets,
};
use crate::conventions;
use crate::span::{Span, SpanKind, Status, any_text, attribute};
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
    if !span.has_ended() {
        found.push(Evidence::NotEnded { span: NamedSpan::new(span), zipkin: span.from_zipkin });
    }
    // The SDKs' own name for a service without one: `unknown_service`, perhaps with the program's name.
    if is_new && span.service().starts_with("unknown_service") {
        found.push(Evidence::NoServiceName { span: NamedSpan::new(span) });
    }
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

/// A SERVER span fails with a status of 500 and above, a CLIENT span with 400 and above, as the
/// [conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status) have it. The status Ok is a decision of
/// the service, which may expect a refusal.
fn status_not_set(span: &Span, proto: &Proto) -> Option<Evidence> {
    let status: u16 = conventions::status(proto)?.parse().ok()?;
    let failed = match span.kind() {
        SpanKind::Server => status >= 500,
        SpanKind::Client => status >= 500 || (status >= 400 && span.status() != Status::Ok),
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
    let own = above.filter(|above| above.service() == span.service());
    let caller = above
        .filter(|_| own.is_none())
        .filter(|above| matches!(above.kind(), SpanKind::Client | SpanKind::Producer));
    let method = conventions::method(proto).is_some();
    let why = if let Some(caller) = caller {
        WrongKind::CalledBy(NamedSpan::new(caller))
    } else if method && attribute(proto, "http.route").is_some() {
        // Below a span of its own service it is a part of answering, and its parent may be missing.
        if own.is_some() || row.orphan {
            return None;
        }
        WrongKind::HasRoute
    } else if method && conventions::has_whole_url(proto) && sends(tree, row, own) {
        WrongKind::HasUrl
    } else {
        return None;
    };
    let span = NamedSpan::new(span);
    Some(Evidence::WrongKind { span, why })
}

/// Whether a span with a URL sends a request: another service answered it; or it is a part of its service's work, and is
/// neither a part of another HTTP span nor around the CLIENT span of the request.
fn sends(tree: &Tree, row: &Row, own: Option<&Arc<Span>>) -> bool {
    let at = |index: usize| &tree.rows[index];
    let Some(index) = tree.index_of(row) else { return false };
    let mut children = (index + 1..=index + row.below).filter(|it| at(*it).parent == Some(index));
    if children.clone().any(|child| {
        let child = &at(child).span;
        child.service() != row.span.service() && child.kind() == SpanKind::Server
    }) {
        return true;
    }
    let around_client = children.any(|child| at(child).span.kind() == SpanKind::Client);
    own.is_some_and(|own| {
        let part = own.kind() != SpanKind::Internal && {
            let (own, proto) = (own.proto(), row.span.proto());
            conventions::path(&own).is_some_and(|path| conventions::path(&proto) == Some(path))
        };
        !part && own.kind() != SpanKind::Client && !around_client
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
