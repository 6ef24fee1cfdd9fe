//! The page with the list of traces.

use std::collections::BTreeSet;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

use crate::forward::in_words;
use crate::list::{Fields, Filter, List, Page};
use crate::render::{array, json_of, logs_json, otlp_json};
use crate::span::shortened;
use crate::store::{Store, Usage};
use crate::summary::{self, Break, Summary};
use crate::tree::{LONGEST, label, took};
use crate::viewer::trace::attachment;
use crate::viewer::{self, ViewerState};
use crate::waterfall::{count, look};

/// The number of traces on one page of the list.
const PAGE_SIZE: usize = 200;

/// The largest number of services to choose from in the form. The URL takes the others too.
const SERVICES_LIMIT: usize = 500;

/// The largest number of services that the list names for one trace.
const SERVICES_NAMED: usize = 20;

/// The filter in the URL, or the reason why it can't be read.
type FilterQuery = Result<Query<Fields>, QueryRejection>;

/// Returns the fields for the form, and the filter or one sentence about what is wrong with it.
fn read(query: FilterQuery) -> (Fields, Result<Filter, String>) {
    match query {
        Ok(Query(fields)) => {
            let filter = Filter::try_from(&fields).map_err(|problem| problem.to_string());
            (fields, filter)
        }
        Err(rejection) => (Fields::default(), Err(rejection.body_text())),
    }
}

/// Serves the summaries of all matching traces as JSON.
pub async fn json(
    State(ViewerState { list, renderers, .. }): State<ViewerState>,
    query: FilterQuery,
) -> Response {
    match read(query).1 {
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
        Ok(filter) => {
            renderers.stream_json(array(list.find(filter).map(|summary| json_of(&summary))))
        }
    }
}

/// Serves all traces and all requests on the wire as one file for `diagnose`, in the form of [`Case::to_json`](crate::case::Case::to_json).
pub async fn whole_case(
    State(ViewerState { list, wire, renderers, .. }): State<ViewerState>,
) -> Response {
    let from_zipkin = Arc::new(Mutex::new(Vec::new()));
    let zipkin = Arc::clone(&from_zipkin);
    let traces = list.store.walk().inspect(move |spans| {
        if let Some(span) = spans.iter().find(|span| span.from_zipkin) {
            zipkin.lock().unwrap_or_else(PoisonError::into_inner).push(span.trace_id);
        }
    });
    let wire = wire.exchanges();
    let own = iter::once_with(move || {
        let zipkin =
            std::mem::take(&mut *from_zipkin.lock().unwrap_or_else(PoisonError::into_inner));
        let mut fields = Vec::new();
        for (name, value) in [("wire", json_of(&wire)), ("fromZipkin", json_of(&zipkin))] {
            if value != b"[]" {
                fields.extend([format!(",\"{name}\":").as_bytes(), &value].concat());
            }
        }
        fields
    });
    let logs = logs_json(list.store.walk_logs());
    attachment("traces.json", renderers.stream(otlp_json(traces, logs.chain(own))))
}

/// Serves the list as a page.
pub async fn page(State(list): State<List>, query: FilterQuery) -> Response {
    let (fields, filter) = read(query);
    let seen = list.store.version();
    let usage = list.usage();
    let (status, problem, found) = match filter {
        Err(problem) => (StatusCode::BAD_REQUEST, Some(problem), None),
        Ok(filter) => (StatusCode::OK, None, Some(list.page(&filter, fields.skip, PAGE_SIZE))),
    };
    let services = list.store.services(SERVICES_LIMIT);
    let body = html! {
        h1 { "Traces" }
        (form(&fields, &services, problem.as_deref()))
        @if let Some(found) = found { (results(&found, &list.store, usage, &fields, seen)) }
        (clear_form())
    };
    let mut response = viewer::page("Traces", body);
    *response.status_mut() = status;
    response
}

fn form(filter: &Fields, services: &BTreeSet<String>, problem: Option<&str>) -> Markup {
    let statuses = [
        ("", "any"),
        ("error", "with an error"),
        ("ok", "without errors"),
        ("pieces", "in pieces"),
    ];
    html! {
        form.filter method="get" action="/traces" role="search" aria-label="Filter" {
            label { "Text" input type="search" name="text" value=(filter.text) aria-keyshortcuts="/" placeholder="id, value, message"; }
            label { "Service"
                select name="service" {
                    option value="" { "any" }
                    @for service in services {
                        option value=(service) selected[*service == filter.service] { (shortened(service, LONGEST)) }
                    }
                    @if !filter.service.is_empty() && !services.contains(&filter.service) {
                        option value=(filter.service) selected { (shortened(&filter.service, LONGEST)) }
                    }
                }
            }
            label { "Span name" input name="name" value=(filter.name); }
            label { "Status"
                select name="status" {
                    @for (value, label) in statuses {
                        option value=(value) selected[value == filter.status] { (label) }
                    }
                }
            }
            label.short { "At least" input name="min" value=(filter.min) placeholder="5ms"; }
            label.short { "At most" input name="max" value=(filter.max) placeholder="1.5s"; }
            label.short { "Since" input name="since" value=(filter.since) placeholder="30s"; }
            @if let Some(mark) = filter.mark { input type="hidden" name="mark" value=(mark); }
            button { "Filter" }
            @if !filter.is_empty() { a href="/traces" { "All traces" } }
        }
        @if let Some(problem) = problem { p.error role="alert" { (problem) } }
    }
}

/// Renders a button that removes all traces. Because a click can't be undone, it takes two.
fn clear_form() -> Markup {
    html! {
        details.clear {
            summary { "Clear" }
            form method="post" action="/traces/clear" {
                p { "This removes all traces from the lab. Files stay as they are." }
                button { "Remove all traces" }
            }
        }
    }
}

/// Removes all traces and goes back to the list.
pub async fn clear(State(list): State<List>) -> Redirect {
    list.store.clear();
    Redirect::to("/traces")
}

/// Renders the number of traces that have arrived since the mark, and a link that sets a mark.
fn mark(store: &Store, filter: &Fields) -> Markup {
    let arrived = store.arrived();
    let marked = |mark| address(&Fields { mark, ..filter.clone() }, 0);
    html! {
        p.actions {
            @if let Some(mark) = filter.mark {
                span { span.new { (count(arrived.saturating_sub(mark), "new trace")) } " since the mark" }
                a href=(marked(None)) { "Remove the mark" }
            }
            a href=(marked(Some(arrived))) { @if filter.mark.is_some() { "Move the mark here" } @else { "Mark: new from here" } }
        }
    }
}

fn results(page: &Page, store: &Store, usage: Usage, filter: &Fields, seen: u64) -> Markup {
    let (shown, from) = (&page.summaries, filter.skip.min(page.found));
    let breaks = summary::breaks(shown);
    let groups = summary::grouped(shown, &breaks);
    let is_new = |summary: &Summary| {
        let number =
            filter.mark.and_then(|mark| Some((mark, store.arrived_before(summary.trace_id)?)));
        number.is_some_and(|(mark, number)| mark <= number)
    };
    html! {
        div id="results" data-live=(viewer::events_url(seen, None)) {
            @if usage.traces > 0 || filter.mark.is_some() { (mark(store, filter)) }
            @if let Some(queue) = store.forward() {
                p { "Forwarded to " bdi { (queue.name) } ": " (in_words(queue.counts(), "waiting")) "." }
            }
            @if page.found == 0 && filter.is_empty() && usage.evicted > 0 {
                p { (none_left(usage)) }
            } @else if page.found == 0 && filter.is_empty() {
                p { "No trace yet. Send a request to a service that exports here: it shows up by itself" (of_logs(usage)) "." }
            } @else if page.found == 0 {
                p { "No trace passes this filter. The lab has " (count(usage.traces, "trace")) ". " a href="/traces" { "All traces" } }
            } @else {
                table.traces {
                    caption { (summary_line(page, from, usage, filter)) }
                    thead {
                        tr {
                            th scope="col" { "Trace" }
                            th scope="col" { "Services" }
                            th.number scope="col" { "Spans" }
                            th.number scope="col" { "Duration" }
                            th scope="col" { "Remarks" }
                            th.when scope="col" { "Started" }
                        }
                    }
                    @for group in groups {
                        @if let [one] = group[..] {
                            tbody { (row(&shown[one], is_new(&shown[one]))) }
                        } @else {
                            tbody.apart {
                                tr { th colspan="6" scope="rowgroup" { (group_reason(&group, &breaks)) } }
                                @for index in group { (row(&shown[index], is_new(&shown[index]))) }
                            }
                        }
                    }
                }
                p.actions {
                    @if from > 0 { a href=(address(filter, from.saturating_sub(PAGE_SIZE))) rel="prev" { "Newer traces" } }
                    @if page.found > from + shown.len() { a href=(address(filter, from + PAGE_SIZE)) rel="next" { "Older traces" } }
                }
            }
        }
    }
}

/// Returns the URL of the list with the same filter from another position.
fn address(filter: &Fields, skip: usize) -> String {
    let skip = if skip > 0 { skip.to_string() } else { String::new() };
    let mark = filter.mark.map(|mark| mark.to_string()).unwrap_or_default();
    let pairs =
        filter.pairs().into_iter().chain([("mark", mark.as_str()), ("skip", skip.as_str())]);
    let pairs = pairs.filter(|(_, value)| !value.is_empty());
    let query = serde_urlencoded::to_string(pairs.collect::<Vec<_>>());
    // Pairs of strings can always be encoded.
    format!("/traces?{}", query.unwrap_or_default())
}

fn summary_line(page: &Page, from: usize, usage: Usage, filter: &Fields) -> Markup {
    let (found, shown) = (page.found, page.summaries.len());
    html! {
        (count(usage.traces, "trace")) ", " (count(usage.spans, "span"))
        @if !filter.is_empty() {
            "; " @if page.is_cut { "at least " } (found) (if found == 1 { " passes" } else { " pass" }) " the filter"
        }
        ", the last to start first"
        @if shown == 0 { "; no trace is so far down" }
        @else if shown < found { "; " (from + 1) " to " (from + shown) " are shown" }
        @if usage.evicted > 0 {
            "; " (count(usage.evicted, "older trace")) " of " (count(usage.evicted_spans, "span")) " made room"
        }
        @if usage.repeated > 0 { "; " (count(usage.repeated, "repeated span")) " dropped" }
        (of_logs(usage))
    }
}

/// Counts log records that no page of a trace shows.
fn of_logs(usage: Usage) -> Markup {
    html! {
        @if usage.logs_without_trace > 0 { "; " (count(usage.logs_without_trace, "log record")) " without a trace" }
        @if usage.logs_dropped > 0 { "; " (count(usage.logs_dropped, "log record")) " dropped, as their traces had too many" }
    }
}

/// Says that traces arrived and none is left, because the last was larger than the store.
fn none_left(usage: Usage) -> String {
    format!(
        "{} with {} arrived and had to be dropped: the lab keeps at most {} spans (--max-spans) and {} bytes (--max-bytes).",
        count(usage.evicted, "trace"),
        count(usage.evicted_spans, "span"),
        usage.limits.spans,
        usage.limits.bytes,
    )
}

/// Serves one sentence that says why the list is empty although traces arrived; nothing in any other case.
pub async fn dropped(State(list): State<List>) -> String {
    let usage = list.usage();
    let none_is_left = usage.traces == 0 && usage.evicted > 0;
    if none_is_left { none_left(usage) } else { String::new() }
}

/// Explains why the traces of a group are shown together.
fn group_reason(group: &[usize], breaks: &[Break]) -> Markup {
    let broken = breaks.iter().filter(|it| group.contains(&it.traces.0));
    html! {
        span.broken { "One request in " (group.len()) " traces, it seems" }
        @for Break { caller, called, name, .. } in broken {
            ": " bdi { (shortened(name, LONGEST)) } " of " bdi { (shortened(caller, LONGEST)) } " was answered by "
            bdi { (shortened(called, LONGEST)) } ", in a trace of its own"
        }
    }
}

fn row(summary: &Summary, is_new: bool) -> Markup {
    html! {
        tr {
            th scope="row" {
                a href={ "/traces/" (summary.trace_id) } dir="auto" { (label(&summary.name)) code.id { (summary.trace_id) } }
            }
            td {
                @for service in summary.services.iter().take(SERVICES_NAMED) {
                    span.service { span class={ "swatch look" (look(service)) } aria-hidden="true" {} (shortened(service, LONGEST)) " " }
                }
                @if summary.services.len() > SERVICES_NAMED { "and " (summary.services.len() - SERVICES_NAMED) " more" }
            }
            td.number { (summary.spans) }
            td.number { (took(summary.duration_nano)) }
            td {
                @if is_new { span.new { "new" } " " }
                @if summary.errors > 0 { span.error { (count(summary.errors, "error")) } " " }
                @if summary.pieces > 1 { span.broken { "in " (summary.pieces) " pieces" } }
                @else if !summary.whole { span.broken { "its root is missing" } }
            }
            td.when { (viewer::moment(summary.start_time_unix_nano)) }
        }
    }
}
