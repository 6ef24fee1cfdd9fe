//! The page of one trace: the waterfall, one span in detail, the time in each service and the calls between services.

use std::iter;
use std::sync::Arc;

use crate::proto::common::KeyValue;
use crate::proto::common::any_value::Value;
use crate::proto::trace::Span as Proto;
use crate::proto::trace::span::Event;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::analysis::{Segment, calls, critical_path, shares};
use crate::case::Case;
use crate::list::List;
use crate::render::otlp_json;
use crate::report::{self, Links};
use crate::request::{self, TracedRequest};
use crate::span::{
    Span, SpanId, SpanKind, Status, TraceId, any_text, shortened, span_id, target, trace_id,
};
use crate::summary::Break;
use crate::traceparent::Traceparent;
use crate::tree::{LONGEST, Row, Tree, label, took};
use crate::viewer::{self, ViewerState, map};
use crate::waterfall::{Interactive, caption, count, look, picture, tree_grid};
use traces::exchange::Exchange;
use traces::expect::Arrived;

#[derive(Deserialize)]
pub struct Choice {
    /// The id of the span to show in detail.
    span: Option<String>,
    /// The id of the span to show alone, with everything below it, on its own time scale.
    focus: Option<String>,
}

/// Serves one form of a trace: the page, `.txt` (its tree), `.json` (its spans as OTLP JSON), `.html` (only its waterfall, as
/// the book shows it) or `.case.json` (its whole request).
pub async fn page(
    State(site): State<ViewerState>,
    Path(name): Path<String>,
    Query(choice): Query<Choice>,
) -> Response {
    let (id, form) = name.split_once('.').unwrap_or((&name, ""));
    let request = || trace_id(id).and_then(|id| request::find(&site.list, &site.wire, id));
    if form == "case.json" {
        return whole_request(id, request().map(|it| it.case).as_ref());
    }
    if form == "linked.json" {
        return linked(id, &site);
    }
    let Some(spans) = trace_id(id).and_then(|id| site.list.store.trace(id)) else {
        let was_dropped = trace_id(id).is_some_and(|id| site.list.store.was_evicted(id));
        return no_such_trace(was_dropped, request().map(|it| it.case).as_ref());
    };
    if form == "json" {
        let json = otlp_json(iter::once(spans), iter::empty());
        let id = trace_id(id).map(|id| id.to_string()).unwrap_or_default();
        return attachment(&format!("trace-{id}.json"), site.renderers.stream(json));
    }
    let Some(tree) = Tree::new(&spans) else {
        return no_such_trace(false, None);
    };
    drop(spans);
    match form {
        "" => View::new(&site, tree, request(), &choice).page(),
        "txt" => tree.to_text().into_response(),
        "html" => Html(picture(&tree).into_string() + "\n").into_response(),
        _ => {
            let forms = "There are .txt, .json, .case.json, .linked.json and .html.";
            viewer::not_found("No such form of a trace", forms)
        }
    }
}

/// Serves a trace together with those that are linked to it, for `expect`.
fn linked(id: &str, site: &ViewerState) -> Response {
    let arrived = trace_id(id).map(|id| trace_expect::arrived(&site.list.store, id));
    let Arrived { trace, joined } = arrived.unwrap_or_default();
    let traces = joined.into_iter().chain(iter::once(trace));
    site.renderers.stream_json(otlp_json(traces, iter::empty()))
}

/// The contents of a trace's page. [`View::new`] computes them once, and the other methods render them.
struct View<'a> {
    list: &'a List,
    /// The store's version when the page was made.
    seen: u64,
    tree: Tree,
    /// The part of the tree to show, or `None` to show the whole tree.
    focus: Option<Tree>,
    /// The row of the span to show in detail.
    selected: Option<usize>,
    /// The first span id in the URL that isn't in the trace.
    not_here: Option<String>,
    /// The critical paths of the whole tree and of the part in `focus`.
    critical_path: Vec<Segment>,
    focus_path: Vec<Segment>,
    case: Case,
    /// The breaks between this trace and others. Each has the call and the other trace.
    breaks: Vec<(Break, TraceId)>,
    exchanges: Vec<Arc<Exchange>>,
}

impl<'a> View<'a> {
    fn new(
        site: &'a ViewerState,
        tree: Tree,
        request: Option<TracedRequest>,
        choice: &Choice,
    ) -> Self {
        let seen = site.list.store.version();
        let find = |id: &str| {
            let id = span_id(id)?;
            tree.rows.iter().position(|row| row.span.id == id)
        };
        let mut chosen = [&choice.span, &choice.focus].into_iter().flatten();
        let not_here = chosen.find(|id| find(id).is_none()).cloned();
        let focus = choice.focus.as_deref().and_then(find);
        let focus = focus.map(|row| tree.part(row));
        let selected = choice.span.as_deref().and_then(find);
        let id = tree.trace_id;
        let (case, breaks) = request.map(|it| (it.case, it.breaks)).unwrap_or_default();
        let own_breaks = breaks.into_iter().filter_map(|(it, [caller, called])| match id {
            id if id == caller => Some((it, called)),
            id if id == called => Some((it, caller)),
            _ => None,
        });
        View {
            list: &site.list,
            seen,
            critical_path: critical_path(&tree),
            focus_path: focus.as_ref().map(critical_path).unwrap_or_default(),
            focus,
            selected,
            not_here,
            case,
            breaks: own_breaks.collect(),
            exchanges: site.wire.recorded(),
            tree,
        }
    }

    /// Returns the tree to show and its critical path.
    fn shown(&self) -> (&Tree, &[Segment]) {
        match &self.focus {
            Some(part) => (part, &self.focus_path),
            None => (&self.tree, &self.critical_path),
        }
    }

    fn page(&self) -> Response {
        let tree = &self.tree;
        let (shown, path) = self.shown();
        let row = self.selected.map(|row| &tree.rows[row]);
        let interactive = Interactive { critical_path: path, selected: row.map(|row| row.span.id) };
        let edges = calls([shown]);
        let body = html! {
            h1 dir="auto" { (label(tree.name())) }
            @if let Some(id) = &self.not_here { p.notice { "This trace has no span " code { (shortened(id, 40)) } "." } }
            p.actions {
                a href="#times" { "Where the time went" }
                @if !edges.is_empty() { a href="#calls" { "Who called whom" } }
                a href={ "/traces/" (tree.trace_id) ".json" } download { "Download as OTLP JSON" }
                a href={ "/traces/" (tree.trace_id) ".case.json" } download { "With all of its request" }
                a href={ "/traces/" (tree.trace_id) ".txt" } { "As text" }
            }
            div id="results" data-live=(viewer::events_url(self.seen, Some(tree.trace_id))) {
                p.facts { "Trace " code { (tree.trace_id) } ", " (moment(tree.start)) ". " (summary(tree, &self.critical_path)) }
                @if let Some(focus) = &self.focus {
                    p.notice { "Only " bdi { (label(focus.name())) } " and what is below it. " a href={ "/traces/" (tree.trace_id) } { "The whole trace" } }
                }
                (self.pieces())
                (linked_from(tree, None, self.list))
                (diagnosis(&self.case))
                (tree_grid(shown, &interactive))
            }
            aside id="span" tabindex="-1" aria-label="Span" hidden[row.is_none()] {
                @if let Some(row) = row { (detail(tree, row, self.list, &self.exchanges)) }
            }
            h2 id="times" { "Where the time went" }
            (times(shown, path))
            @if !edges.is_empty() {
                h2 id="calls" { "Who called whom" }
                (map::drawing(&edges, &map::entries([shown])))
            }
            @if !self.case.wire.is_empty() {
                h2 id="wire" { "What went over the wire" }
                (report::wire(&self.case.wire, true))
            }
        };
        let id = tree.trace_id.to_string();
        viewer::page(&format!("{} · {}", label(tree.name()), &id[..8]), body)
    }

    /// Renders the other traces that look like parts of the same request.
    fn pieces(&self) -> Markup {
        html! {
            @for (Break { caller, called, name, .. }, other) in &self.breaks {
                p.notice {
                    span.broken { "This looks like a part of one request." } " "
                    bdi { (label(name)) } " of " bdi { (label(caller)) } " was answered by "
                    bdi { (label(called)) } " in a trace of its own; the other is "
                    a href={ "/traces/" (other) } { code { (other) } } "."
                }
            }
        }
    }
}

/// Serves one span in detail as HTML, for the script to show next to the grid.
pub async fn span(
    State(site): State<ViewerState>,
    Path((id, span)): Path<(String, String)>,
) -> Response {
    let ViewerState { list, wire, .. } = site;
    let spans = trace_id(&id).and_then(|id| list.store.trace(id));
    let tree = spans.and_then(|spans| Tree::new(&spans));
    let found = tree.as_ref().and_then(|tree| {
        let id = span_id(&span)?;
        Some((tree, tree.rows.iter().find(|row| row.span.id == id)?))
    });
    match found {
        Some((tree, row)) => {
            Html(detail(tree, row, &list, &wire.recorded()).into_string()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Renders the page of a trace without spans. The lab may still have its headers.
fn no_such_trace(was_dropped: bool, case: Option<&Case>) -> Response {
    let body = html! {
        h1 { "No such trace" }
        p {
            @if was_dropped {
                "Spans of this trace arrived and had to make room: raise --max-spans or --max-bytes to keep more. "
            } @else {
                "No span with this trace id has arrived, or it had to make room. "
            }
            a href="/traces" { "All traces" }
        }
        @if let Some(case) = case {
            (diagnosis(case))
            h2 { "What went over the wire" }
            (report::wire(&case.wire, true))
        }
    };
    let mut response = viewer::page("No such trace", body);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Returns the request that the trace belongs to, with its headers on the wire, as a file for `diagnose`.
fn whole_request(id: &str, case: Option<&Case>) -> Response {
    match case.map(Case::to_json) {
        Some(Ok(json)) => attachment(&format!("request-{id}.json"), json),
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Renders the findings about the request.
fn diagnosis(case: &Case) -> Markup {
    let found = case.findings();
    let span = |place| Some(viewer::span_address(place));
    let links = Links { book: "/", span: &span };
    let mut titles: Vec<&str> = found.iter().map(|finding| finding.rule.title()).collect();
    titles.dedup();
    html! {
        @if found.is_empty() { p.facts { "Diagnosis: " (report::no_finding(case)) } }
        @else {
            @if let Some(failure) = report::failure(case) { p.facts { (failure) } }
            details.diagnosis {
                summary { "Diagnosis: " (count(found.len(), "finding")) ". " (titles.join("; ")) }
                (report::list(&found, &links))
            }
        }
    }
}

pub fn attachment(name: &str, json: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, json.into()).into_response()
}

/// Summarises the trace in a few sentences. Readers who can't see the picture rely on them.
fn summary(tree: &Tree, path: &[Segment]) -> Markup {
    let shares = shares(tree, path);
    let longest = shares.first().filter(|(_, share)| share.critical_time > 0);
    let errors = tree.rows.iter().filter(|row| row.span.is_error());
    // The failure began at the deepest error.
    let deepest = errors.clone().max_by_key(|row| row.depth);
    html! {
        (caption(tree)) "."
        @if let Some((service, share)) = longest {
            " The request waited longest for " bdi { (label(service)) } ": " (took(share.critical_time)) "."
        }
        @if let Some(row) = deepest {
            " " (count(errors.count(), "span")) " with an error, the deepest " bdi { (label(row.span.name())) } " of " bdi { (label(row.span.service())) } "."
        }
        @if tree.rows.iter().any(|row| row.skew.is_some()) { " The clocks of its services differ: see the remarks." }
    }
}

/// Renders the spans that link to this trace or to one span of it.
fn linked_from(tree: &Tree, span: Option<SpanId>, list: &List) -> Markup {
    let from = list.store.linked_to(tree.trace_id, span);
    html! {
        @for from in from.iter().take(20) {
            p.notice {
                "Linked from "
                a href={ "/traces/" (from.trace_id) "?span=" (from.id) } { (label(from.name())) }
                " of " bdi { (label(from.service())) }
                @if from.trace_id != tree.trace_id { ", trace " code { (from.trace_id) } }
            }
        }
        @if from.len() > 20 { p.notice { (from.len()) " spans in all are linked to it." } }
    }
}

/// The largest number of services whose times a page shows.
const SHARES_SHOWN: usize = 200;

fn times(tree: &Tree, path: &[Segment]) -> Markup {
    let whole: u64 = path.iter().map(|segment| segment.end - segment.start).sum();
    let shares = shares(tree, path);
    html! {
        table.traces.times {
            caption {
                "The critical path is what the request waited for; it is drawn as a line below the bars."
                @if shares.len() > SHARES_SHOWN { " The first " (SHARES_SHOWN) " of " (shares.len()) " services are shown." }
            }
            thead {
                tr {
                    th scope="col" { "Service" } th.number scope="col" { "Spans" } th.number scope="col" { "Errors" }
                    th.number scope="col" { "Own time" } th.number scope="col" { "Critical path" } th scope="col" { "Share" }
                }
            }
            tbody {
                @for (service, share) in shares.iter().take(SHARES_SHOWN) {
                    @let percent = format!("{:.0}", 100.0 * share.critical_time as f64 / whole.max(1) as f64);
                    tr {
                        th scope="row" { span class={ "swatch look" (look(service)) } aria-hidden="true" {} (shortened(service, LONGEST)) }
                        td.number { (share.spans) }
                        td.number.error[share.errors > 0] { (share.errors) }
                        td.number { (took(share.own_time)) }
                        td.number { (took(share.critical_time)) }
                        td.share { div class={ "bar look" (look(service)) } style={ "width:" (percent) "%" } {} (percent) " %" }
                    }
                }
            }
        }
    }
}

/// Renders everything that the lab received about one span.
fn detail(tree: &Tree, row: &Row, list: &List, wire: &[Arc<Exchange>]) -> Markup {
    let span = &row.span;
    let proto = span.proto();
    let scope = &span.source.scope;
    let below = tree.rows.iter().filter(|it| it.span.parent == Some(span.id)).count();
    let status = match span.status() {
        Status::Unset => "Unset",
        Status::Ok => "Ok",
        Status::Error => "Error",
    };
    let is_here = |end: Option<Traceparent>, id: Option<SpanId>| {
        end.is_some_and(|end| end.trace_id == span.trace_id && Some(end.parent_id) == id)
    };
    let wire = wire.iter().filter(|it| {
        let received = span.kind() == SpanKind::Server && is_here(it.received(), span.parent);
        received || is_here(it.sent_by(), Some(span.id))
    });
    let wire: Vec<Exchange> = wire.map(|it| Exchange::clone(it)).collect();
    html! {
        a.close href={ "/traces/" (tree.trace_id) "#s" (span.id) } aria-keyshortcuts="Escape" { "Close" }
        h2 dir="auto" { (label(span.name())) }
        @if row.below > 0 { p { a href={ "/traces/" (tree.trace_id) "?focus=" (span.id) } { "Only this and what is below it" } } }
        dl {
            dt { "span id" } dd { code { (span.id) } " " a href={ "?span=" (span.id) } { "link to this span" } }
            @if let Some(parent) = span.parent {
                dt { "parent" }
                dd { @if row.orphan { code { (parent) } " " span.broken { "not here" } } @else { a href={ "?span=" (parent) } { code { (parent) } } } }
            }
            dt { "service" } dd { (value(span.service())) }
            dt { "kind" } dd { (span.kind()) }
            dt { "status" }
            dd.error[span.is_error()] { (status) @if let Some(message) = proto.status.as_ref().map(|it| &it.message).filter(|it| !it.is_empty()) { ": " (value(message)) } }
            dt { "started" }
            dd { (moment(span.start())) @if span.start() > 0 { ", " (took(span.start().saturating_sub(tree.start))) " into the trace" } }
            dt { "duration" } dd { (took(span.duration())) ", with " (below) " right below" }
            dt { "library" } dd { (value(&scope.name)) " " (scope.version) }
            @if !proto.trace_state.is_empty() { dt { "tracestate" } dd { (value(&proto.trace_state)) } }
            @for note in row.notes() { dt { "remark" } dd { (note) } }
        }
        (report::wire(&wire, true))
        (attributes("Attributes", &proto.attributes, proto.dropped_attributes_count))
        (events(&proto, span))
        (links(&proto))
        (linked_from(tree, Some(span.id), list))
        (attributes("Scope", &scope.attributes, scope.dropped_attributes_count))
        (attributes("Resource", &span.source.resource.attributes, span.source.resource.dropped_attributes_count))
    }
}

fn attributes(title: &str, attributes: &[KeyValue], dropped: u32) -> Markup {
    html! {
        @if !attributes.is_empty() || dropped > 0 {
            h3 { (title) }
            (pairs(attributes))
            (missing(dropped, "attribute"))
        }
    }
}

fn pairs(attributes: &[KeyValue]) -> Markup {
    html! {
        dl {
            @for attribute in attributes {
                dt dir="auto" { (shortened(&attribute.key, LONGEST)) }
                dd { (value(&any_text(&attribute.value))) (kind_of(attribute)) }
            }
        }
    }
}

/// Renders the number of items that the sender reported as dropped.
fn missing(dropped: u32, noun: &str) -> Markup {
    html! { @if dropped > 0 { p.broken { (count(dropped as usize, noun)) " more, dropped by the sender" } } }
}

/// Renders the type of a value unless it is a string.
fn kind_of(attribute: &KeyValue) -> Markup {
    let kind = match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(_)) => "",
        Some(Value::BoolValue(_)) => "bool",
        Some(Value::IntValue(_)) => "int",
        Some(Value::DoubleValue(_)) => "double",
        Some(Value::ArrayValue(_)) => "array",
        Some(Value::KvlistValue(_)) => "map",
        Some(Value::BytesValue(_)) | Some(Value::StringValueStrindex(_)) => "bytes",
        None => "empty",
    };
    html! { @if !kind.is_empty() { " " small { (kind) } } }
}

/// Renders text from a span: with its own writing direction and its line breaks, and in a box when it is long.
fn value(text: &str) -> Markup {
    // Show control characters as numbers.
    let control = |it: char| it.is_control() && it != '\n' && it != '\t';
    let shown: String = match text.contains(control) {
        true => text
            .chars()
            .map(|it| if control(it) { it.escape_unicode().to_string() } else { it.into() })
            .collect(),
        false => text.to_owned(),
    };
    let (long, huge) = (shown.len() > 1000 || shown.contains('\n'), shown.len() > HUGE);
    let boxed = |label: String, text: &str| html! { pre dir="auto" tabindex="0" role="group" aria-label=(label) { (text) } };
    html! {
        @if huge {
            (boxed("Beginning of the value".to_owned(), &shortened(&shown, HUGE / 10)))
            // A browser doesn't lay out the contents of a closed `details`.
            details { summary { "All " (text.len()) " bytes" } (boxed("Value".to_owned(), &shown)) }
        } @else if long {
            (boxed(format!("Value of {} bytes", text.len()), &shown))
        } @else { bdi { (shown) } }
    }
}

/// The size in bytes above which only the beginning of a value is shown at first. A browser takes seconds to lay out a megabyte.
const HUGE: usize = 20_000;

fn events(proto: &Proto, span: &Span) -> Markup {
    html! {
        @if !proto.events.is_empty() || proto.dropped_events_count > 0 {
            h3 { "Events" }
            @for event in &proto.events {
                p.event { b dir="auto" { (shortened(&event.name, LONGEST)) } " " (moment_of(event, span)) }
                (pairs(&event.attributes))
                (missing(event.dropped_attributes_count, "attribute"))
            }
            (missing(proto.dropped_events_count, "event"))
        }
    }
}

fn moment_of(event: &Event, span: &Span) -> String {
    let from_start = took(event.time_unix_nano.abs_diff(span.start()));
    match event.time_unix_nano {
        0 => "without a time".to_owned(),
        _ if span.start() == 0 => String::new(),
        time if time < span.start() => format!("{from_start} before the start"),
        _ => format!("{from_start} after the start"),
    }
}

fn links(proto: &Proto) -> Markup {
    html! {
        @if !proto.links.is_empty() || proto.dropped_links_count > 0 {
            h3 { "Links" }
            @for link in &proto.links {
                @match target(link) {
                    Some((trace, span)) => p.event { "to " a href={ "/traces/" (trace) "?span=" (span) } { "span " code { (span) } " of trace " code { (trace) } } },
                    None => p.event.broken { "to an id that is not valid" },
                }
                (pairs(&link.attributes))
                (missing(link.dropped_attributes_count, "attribute"))
            }
            (missing(proto.dropped_links_count, "link"))
        }
    }
}

/// Renders a time in nanoseconds since 1970 as UTC. The script converts it to local time.
pub fn moment(nanoseconds: u64) -> Markup {
    let moment = jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok();
    html! {
        @match moment.filter(|_| nanoseconds > 0) {
            Some(moment) => {
                @let text = format!("{moment:.3}");
                time datetime=(text) { (text.replace('T', " ").replace('Z', " UTC")) }
            },
            None => "without a time",
        }
    }
}
