//! The page of one trace: the waterfall, the time in each service and the calls between services.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::analysis::{Segment, calls, critical_path, shares};
use crate::case::Case;
use crate::diagnose::Finding;
use crate::editor::Editor;
use crate::list::List;
use crate::log::LogRecord;
use crate::render::{logs_json, otlp_json};
use crate::report::{self, Links};
use crate::request::{self, TracedRequest};
use crate::span::{TraceId, shortened, span_id, trace_id};
use crate::summary::Break;
use crate::tree::{LONGEST, Tree, label, took};
use crate::viewer::document::{self, Document};
use crate::viewer::span::{self, Around, Page, detail, linked_from};
use crate::viewer::{self, ViewerState, map, moment, timeline};
use crate::waterfall::{Interactive, caption, count, look, picture, tree_grid};
use traces::exchange::Exchange;
use traces::expect::Arrived;
use traces::model_call::usage;

#[derive(Deserialize)]
pub struct Choice {
    /// The id of the span to show in detail.
    span: Option<String>,
    /// The id of the span to show alone, with everything below it, on its own time scale.
    focus: Option<String>,
}

/// Serves one form of a trace: the page, `.txt` (its tree), `.json` (its spans as OTLP JSON), `.html` (only its waterfall, as
/// the book shows it), `.case.json` (its whole request) or `.full.html` (the whole request as one file to hand on).
pub async fn page(
    State(site): State<ViewerState>,
    Path(name): Path<String>,
    Query(choice): Query<Choice>,
    editor: Option<Extension<Option<Editor>>>,
) -> Response {
    let (id, form) = name.split_once('.').unwrap_or((&name, ""));
    let request = || trace_id(id).and_then(|id| request::find(&site.list, &site.wire, id));
    if form == "case.json" {
        return whole_request(id, request().map(|it| it.case).as_ref());
    }
    if form == "full.html" {
        return one_file(request().map(|it| it.case), trace_id(id));
    }
    if form == "linked.json" {
        return linked(id, &site);
    }
    if let Some(id) = trace_id(id).filter(|_| form == "json") {
        let (spans, logs) = (site.list.store.trace(id), site.list.store.logs(id));
        if spans.is_some() || !logs.is_empty() {
            let json = otlp_json(spans.into_iter(), logs_json(iter::once(logs)));
            return attachment(&format!("trace-{id}.json"), site.renderers.stream(json));
        }
    }
    let Some(spans) = trace_id(id).and_then(|id| site.list.store.trace(id)) else {
        let was_dropped = trace_id(id).is_some_and(|id| site.list.store.was_evicted(id));
        return without_spans(was_dropped, trace_id(id), request().map(|it| it.case).as_ref());
    };
    let Some(tree) = Tree::new(&spans) else {
        return without_spans(false, None, None);
    };
    drop(spans);
    match form {
        "" => View::new(&site, tree, request(), &choice).page(span::known(&editor)),
        "txt" => tree.to_text().into_response(),
        "html" => Html(picture(&tree).into_string() + "\n").into_response(),
        _ => {
            let forms = "There are .txt, .json, .case.json, .linked.json, .html and .full.html.";
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

    fn page(&self, editor: Option<&Editor>) -> Response {
        let tree = &self.tree;
        let (shown, path) = self.shown();
        let row = self.selected.map(|row| &tree.rows[row]);
        let interactive = Interactive { critical_path: path, selected: row.map(|row| row.span.id) };
        let edges = calls([shown]);
        let page = Page::Lab(self.list);
        let logs = &self.case.logs;
        let records = row.map(|row| timeline::of_span(logs, (tree.trace_id, row.span.id)));
        let records = records.unwrap_or_default();
        let around = Around { tree, page, wire: &self.exchanges, records: &records, editor };
        let body = html! {
            h1 dir="auto" { (label(tree.name())) }
            @if let Some(id) = &self.not_here { p.notice { "This trace has no span " code { (shortened(id, 40)) } "." } }
            p.actions {
                a href="#times" { "Where the time went" }
                @if !edges.is_empty() { a href="#calls" { "Who called whom" } }
                @if logs.iter().any(|it| it.trace_id == tree.trace_id) { a href="#logs" { "Log records" } }
                a href={ "/traces/" (tree.trace_id) ".json" } download { "Download as OTLP JSON" }
                a href={ "/traces/" (tree.trace_id) ".case.json" } download { "With all of its request" }
                a href={ "/traces/" (tree.trace_id) ".full.html" } download { "Download as one HTML file" }
                a href={ "/traces/" (tree.trace_id) ".txt" } { "As text" }
            }
            div id="results" data-live=(viewer::events_url(self.seen, Some(tree.trace_id))) {
                p.facts { "Trace " code { (tree.trace_id) } ", " (moment(tree.start)) ". " (summary(tree, &self.critical_path)) }
                @if let Some(focus) = &self.focus {
                    p.notice { "Only " bdi { (label(focus.name())) } " and what is below it. " a href={ "/traces/" (tree.trace_id) } { "The whole trace" } }
                }
                (self.pieces())
                (linked_from(tree, None, Page::Lab(self.list)))
                (diagnosis(&self.case))
                (tree_grid(shown, &interactive))
                (timeline::of_trace(logs, tree, shown, page))
            }
            aside id="span" tabindex="-1" aria-label="Span" hidden[row.is_none()] {
                @if let Some(row) = row { (detail(row, &around)) }
            }
            h2 id="times" { "Where the time went" }
            (times(shown, path))
            @if !edges.is_empty() {
                h2 id="calls" { "Who called whom" }
                (map::drawing(&edges, &map::entries([shown]), &BTreeSet::new()))
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

/// Renders the page of a trace without spans. The lab may still have its headers and log records.
fn without_spans(was_dropped: bool, id: Option<TraceId>, case: Option<&Case>) -> Response {
    let logs = case.into_iter().flat_map(|case| &case.logs).map(Arc::as_ref);
    let logs: Vec<&LogRecord> = logs.filter(|record| Some(record.trace_id) == id).collect();
    let title = if logs.is_empty() { "No such trace" } else { "Only log records" };
    let body = html! {
        h1 { (title) }
        p {
            @if was_dropped {
                "Spans of this trace arrived and had to make room: raise --max-spans or --max-bytes to keep more. "
            } @else if logs.is_empty() {
                "No span with this trace id has arrived, or it had to make room. "
            } @else {
                (count(logs.len(), "log record")) " of this trace arrived, and no span did. "
            }
            a href="/traces" { "All traces" }
        }
        @if !logs.is_empty() { (timeline::alone(&logs)) }
        @if let Some(case) = case.filter(|case| !case.wire.is_empty()) {
            (diagnosis(case))
            h2 { "What went over the wire" }
            (report::wire(&case.wire, true))
        }
    };
    let mut response = viewer::page(title, body);
    if logs.is_empty() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
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

/// Returns the request that the trace belongs to as one HTML file.
fn one_file(case: Option<Case>, id: Option<TraceId>) -> Response {
    let (Some(case), Some(id)) = (case, id) else { return StatusCode::NOT_FOUND.into_response() };
    match Document::new(case, id, None) {
        Ok(Document { html, .. }) => {
            let name = format!("attachment; filename=\"trace-{id}.html\"");
            ([(CONTENT_DISPOSITION, name)], Html(html)).into_response()
        }
        Err(document::Error::NoSpans) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Renders the findings about the request.
fn diagnosis(case: &Case) -> Markup {
    let found = case.findings();
    let span = |place| Some(viewer::span_address(place));
    let links = Links { book: Some("/"), span: &span };
    html! {
        @if found.is_empty() { p.facts { "Diagnosis: " (report::no_finding(case)) } }
        @else {
            @if let Some(failure) = report::failure(case) { p.facts { (failure) } }
            details.diagnosis {
                summary { (findings_in_short(&found)) }
                (report::list(&found, &links))
            }
        }
    }
}

/// Counts the findings and lists their titles.
pub fn findings_in_short(found: &[Finding]) -> String {
    let mut titles: Vec<&str> = found.iter().map(|finding| finding.rule.title()).collect();
    titles.dedup();
    format!("Diagnosis: {}. {}", count(found.len(), "finding"), titles.join("; "))
}

pub fn attachment(name: &str, json: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, json.into()).into_response()
}

/// Summarises the trace in a few sentences. Readers who can't see the picture rely on them.
pub fn summary(tree: &Tree, path: &[Segment]) -> Markup {
    let shares = shares(tree, path);
    let longest = shares.first().filter(|(_, share)| share.critical_time > 0);
    let errors = tree.rows.iter().filter(|row| row.span.is_error());
    // The failure began at the deepest error. The diagnosis picks the same span.
    let deepest = errors.clone().min_by_key(|row| (Reverse(row.depth), row.span.start()));
    html! {
        (caption(tree)) "."
        @if let Some((service, share)) = longest {
            " The request waited longest for " bdi { (label(service)) } ": " (took(share.critical_time)) "."
        }
        @if let Some(row) = deepest {
            " " (count(errors.count(), "span")) " with an error, the deepest " bdi { (label(row.span.name())) } " of " bdi { (label(row.span.service())) } "."
        }
        @if let Some(usage) = report::usage(&usage(tree)) { " " (report::marked(&usage)) }
        @if tree.rows.iter().any(|row| row.skew.is_some()) { " The clocks of its services differ: see the remarks." }
    }
}

/// The largest number of services whose times a page shows.
const SHARES_SHOWN: usize = 200;

pub fn times(tree: &Tree, path: &[Segment]) -> Markup {
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
