//! Requests of OTLP: what is read of them, in whatever order it stands, and what is too much.

use prost::Message as _;
use serde_json::{Value, json};
use traces::otlp::{self, Batch, Error, Reason};
use traces::proto::collector::ExportTraceServiceRequest;
use traces::proto::common::KeyValue;
use traces::proto::resource::Resource;
use traces::proto::trace::span::{Event, Link};
use traces::proto::trace::{ResourceSpans, ScopeSpans, Span};
use traces::span::{Flaw, VALUES_LIMIT};

fn span(id: u8, name: &str) -> Value {
    json!({ "traceId": "07".repeat(16), "spanId": format!("{id:016x}"), "name": name })
}

fn service(name: &str) -> Value {
    json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": name } }] })
}

/// The service, the scope and the name of each span.
fn read(batch: &Batch) -> Vec<(&str, &str, &str)> {
    let spans = batch.items.iter();
    spans.map(|it| (it.service(), it.source.scope.name.as_str(), it.name())).collect()
}

fn from_json(text: &str) -> Batch {
    otlp::from_json(text.as_bytes()).expect("spans")
}

/// Senders write the fields of an object in any order.
#[test]
fn a_resource_and_a_scope_may_stand_behind_their_spans() {
    let spans = json!([span(1, "a"), span(2, "b")]);
    let text = format!(
        r#"{{"resourceSpans": [
            {{"scopeSpans": [
                {{"spans": {spans}, "scope": {{"name": "behind"}}}}, {{"scope": {{"name": "before"}}, "spans": [{third}]}}
            ], "resource": {shop}}},
            {{"resource": {mail}, "scopeSpans": [{{"spans": [{fourth}]}}]}}
        ]}}"#,
        third = span(3, "c"),
        fourth = span(4, "d"),
        shop = service("shop"),
        mail = service("mail"),
    );
    let expected = [
        ("shop", "behind", "a"),
        ("shop", "behind", "b"),
        ("shop", "before", "c"),
        ("mail", "", "d"),
    ];
    assert_eq!(read(&from_json(&text)), expected);
}

/// Before version 1.0 scopes had another name, and some senders write both.
#[test]
fn spans_that_stand_under_the_old_and_the_new_name_are_read_once() {
    let scope = |name: &str, spans: Value| json!([{ "scope": { "name": name }, "spans": spans }]);
    let (new, old) = (json!([span(1, "a")]), json!([span(1, "a"), span(2, "b")]));
    let old = scope("old", old);
    let both = json!({ "resourceSpans": [
        { "instrumentationLibrarySpans": old, "scopeSpans": scope("new", new) },
        { "instrumentationLibrarySpans": old },
    ] });
    let expected = [
        ("unknown_service", "new", "a"),
        ("unknown_service", "old", "a"),
        ("unknown_service", "old", "b"),
    ];
    assert_eq!(read(&from_json(&both.to_string())), expected);
}

#[test]
fn what_is_no_list_or_object_has_no_spans() {
    for text in [
        "{}",
        r#"{"resourceSpans": null}"#,
        r#"{"resourceSpans": []}"#,
        r#"{"resourceSpans": [0, null, "a", [1], {"scopeSpans": 1}, {"scopeSpans": [{"spans": {"a": 1}}, 2]}]}"#,
        r#"{"other": {"a": [1]}}"#,
    ] {
        assert_eq!(read(&from_json(text)), [], "{text}");
    }
    for text in ["", "1", "[]", r#"{"resourceSpans": 1}"#, r#"{"resourceSpans": {}}"#, "{}{}"] {
        let error = otlp::from_json(text.as_bytes()).expect_err(text);
        assert!(matches!(error, Error::Json(_)), "{text}: {error}");
    }
}

/// All that a resource and a scope may have arrives, in JSON as in protobuf.
#[test]
fn json_says_as_much_as_protobuf() {
    let text = json!({ "resourceSpans": [{
        "resource": {
            "attributes": [], "droppedAttributesCount": 3,
            "entityRefs": [{ "schemaUrl": "s", "type": "t", "idKeys": ["i"], "descriptionKeys": ["d"] }],
        },
        "scopeSpans": [{ "scope": { "name": "n", "version": "v", "droppedAttributesCount": 4 }, "spans": [span(1, "a")] }],
    }] });
    let request: ExportTraceServiceRequest =
        serde_json::from_value(text.clone()).expect("a request");
    let expected = otlp::from_protobuf(request.encode_to_vec().into()).expect("spans");
    assert_eq!(from_json(&text.to_string()).items[0].source, expected.items[0].source);
}

fn request(resource: Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

/// The request in each form.
fn read_in_all_forms(request: &ExportTraceServiceRequest) -> [Result<Batch, Error>; 3] {
    [
        otlp::from_protobuf(request.encode_to_vec().into()),
        otlp::from_json(&serde_json::to_vec(request).expect("JSON")),
        otlp::from_request(request.clone()),
    ]
}

/// A value takes two bytes of a message and a hundred when it is read, for each page that shows it.
#[test]
fn a_span_with_too_many_values_is_rejected_and_its_neighbours_are_kept() {
    let sound = Span { trace_id: vec![7; 16], span_id: vec![1; 8], ..Span::default() };
    let attributes = |count| vec![KeyValue::default(); count];
    let event = |count| Event { attributes: attributes(count), ..Event::default() };
    let link = |count| Link { attributes: attributes(count), ..Link::default() };
    let half = VALUES_LIMIT / 2;
    for large in [
        Span { attributes: attributes(VALUES_LIMIT + 1), ..sound.clone() },
        Span { events: vec![event(half), event(half)], ..sound.clone() },
        Span { links: vec![link(half), link(half)], ..sound.clone() },
    ] {
        for batch in read_in_all_forms(&request(
            Resource::default(),
            vec![sound.clone(), large.clone(), sound.clone()],
        )) {
            let batch = batch.expect("two spans");
            let rejected = batch.rejected.expect("one is rejected");
            assert_eq!((batch.items.len(), rejected.items), (2, 1));
            assert!(matches!(rejected.first, Reason::Span(it) if it.flaw == Flaw::TooManyValues));
        }
    }
    let most = Span { attributes: attributes(VALUES_LIMIT), ..sound.clone() };
    for batch in read_in_all_forms(&request(Resource::default(), vec![most])) {
        assert_eq!(batch.expect("a span").items.len(), 1);
    }
    let resource = Resource { attributes: attributes(VALUES_LIMIT + 1), ..Resource::default() };
    for refused in read_in_all_forms(&request(resource, vec![sound])) {
        let error = refused.expect_err("no span is left");
        assert!(matches!(&error, Error::Unfit(it) if it.flaw == Flaw::TooManyValues), "{error}");
    }
}
