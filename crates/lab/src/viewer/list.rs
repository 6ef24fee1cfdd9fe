//! The list of traces.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use crate::list::{Filter, List};
use crate::span::shortened;
use crate::store::Usage;
use crate::summary::{self, Break, Summary};
use crate::tree::{LONGEST, label, took};
use crate::viewer;
use crate::waterfall::{count, look};

/// How many traces the list shows; a filter or their id finds the others.
const LISTED: usize = 200;

/// What the address says; and what is wrong with it, in one sentence.
type Asked = Result<Query<Filter>, QueryRejection>;

fn read(asked: Asked) -> (Filter, Option<String>) {
    match asked {
        Ok(Query(filter)) => {
            let problem = filter.check().err();
            (filter, problem)
        }
        Err(rejection) => (Filter::default(), Some(rejection.body_text())),
    }
}

/// The summaries of all traces that pass, as JSON.
pub async fn json(State(list): State<List>, asked: Asked) -> Response {
    match read(asked) {
        (_, Some(problem)) => (StatusCode::BAD_REQUEST, problem).into_response(),
        (filter, None) => {
            let found = list.find(&filter);
            Json(found.iter().map(Arc::as_ref).collect::<Vec<&Summary>>()).into_response()
        }
    }
}

/// The page.
pub async fn page(State(list): State<List>, asked: Asked) -> Response {
    let (filter, problem) = read(asked);
    let seen = list.store.version();
    let (status, found) = match problem {
        Some(_) => (StatusCode::BAD_REQUEST, Vec::new()),
        None => (StatusCode::OK, list.find(&filter)),
    };
    let services = match filter.is_empty() {
        true => services(&found),
        false => services(&list.summaries()),
    };
    let body = html! {
        h1 { "Traces" }
        (form(&filter, &services, problem.as_deref()))
        @if problem.is_none() { (results(&found, list.usage(), &filter, seen)) }
    };
    let mut response = viewer::page("Traces", body);
    *response.status_mut() = status;
    response
}

fn services(summaries: &[Arc<Summary>]) -> BTreeSet<String> {
    let services = summaries.iter().flat_map(|summary| &summary.services);
    services.cloned().collect()
}

fn form(filter: &Filter, services: &BTreeSet<String>, problem: Option<&str>) -> Markup {
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
            button { "Filter" }
            @if !filter.is_empty() { a href="/traces" { "All traces" } }
        }
        @if let Some(problem) = problem { p.error role="alert" { (problem) } }
    }
}

fn results(found: &[Arc<Summary>], usage: Usage, filter: &Filter, seen: u64) -> Markup {
    let from = filter.skip.min(found.len());
    let shown = &found[from..found.len().min(from + LISTED)];
    let breaks = summary::breaks(shown);
    let groups = summary::grouped(shown, &breaks);
    html! {
        div id="results" data-live=(viewer::news(seen, None)) {
            @if found.is_empty() && filter.is_empty() {
                p { "No trace yet. Send a request to a service that exports here: it shows up by itself." }
            } @else if found.is_empty() {
                p { "No trace passes this filter; there are " (usage.traces) ". " a href="/traces" { "All traces" } }
            } @else {
                table.traces {
                    caption { (summary_line(found.len(), shown.len(), usage, filter)) }
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
                            tbody { (row(&shown[one])) }
                        } @else {
                            tbody.apart {
                                tr { th colspan="6" scope="rowgroup" { (apart(&group, &breaks)) } }
                                @for index in group { (row(&shown[index])) }
                            }
                        }
                    }
                }
                p.actions {
                    @if from > 0 { a href=(address(filter, from.saturating_sub(LISTED))) rel="prev" { "Newer traces" } }
                    @if found.len() > from + LISTED { a href=(address(filter, from + LISTED)) rel="next" { "Older traces" } }
                }
            }
        }
    }
}

/// The address of the list with the same filter and another beginning.
fn address(filter: &Filter, skip: usize) -> String {
    let skip = skip.to_string();
    let pairs = filter.pairs().into_iter().chain([("skip", skip.as_str())]);
    let pairs = pairs.filter(|(_, value)| !value.is_empty());
    match reqwest::Url::parse_with_params("http://localhost/traces", pairs) {
        Ok(url) => format!("/traces?{}", url.query().unwrap_or_default()),
        Err(_) => "/traces".to_owned(),
    }
}

fn summary_line(found: usize, shown: usize, usage: Usage, filter: &Filter) -> Markup {
    html! {
        (count(usage.traces, "trace")) ", " (count(usage.spans, "span"))
        @if !filter.is_empty() { "; " (found) " pass the filter" }
        ", the last to start first"
        @if shown < found { "; " (filter.skip + 1) " to " (filter.skip + shown) " are shown" }
        @if usage.evicted > 0 {
            "; " (count(usage.evicted, "older trace")) " of " (count(usage.evicted_spans, "span")) " made room"
        }
    }
}

/// Says of a group why its traces stand together.
fn apart(group: &[usize], breaks: &[Break]) -> Markup {
    let broken = breaks.iter().filter(|it| group.contains(&it.traces.0));
    html! {
        span.broken { "One request in " (group.len()) " traces, it seems" }
        @for Break { caller, called, name, .. } in broken {
            ": " bdi { (shortened(name, LONGEST)) } " of " bdi { (shortened(caller, LONGEST)) } " was answered by "
            bdi { (shortened(called, LONGEST)) } ", in a trace of its own"
        }
    }
}

fn row(summary: &Summary) -> Markup {
    html! {
        tr {
            th scope="row" {
                a href={ "/traces/" (summary.trace_id) } dir="auto" { (label(&summary.name)) code.id { (summary.trace_id) } }
            }
            td {
                @for service in &summary.services {
                    span.service { span class={ "swatch look" (look(service)) } aria-hidden="true" {} (shortened(service, LONGEST)) " " }
                }
            }
            td.number { (summary.spans) }
            td.number { (took(summary.duration_nano)) }
            td {
                @if summary.errors > 0 { span.error { (count(summary.errors, "error")) } " " }
                @if summary.pieces > 1 { span.broken { "in " (summary.pieces) " pieces" } }
                @else if !summary.whole { span.broken { "its root is missing" } }
            }
            td.when { (viewer::trace::moment(summary.start_time_unix_nano)) }
        }
    }
}
