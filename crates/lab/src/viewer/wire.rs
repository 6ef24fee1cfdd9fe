//! The page `/wire`: a form for each proxy to set its fault, and the latest requests, updated as they happen.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Form, FromRequest as _, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Redirect, Response};
use clap::ValueEnum as _;
use maud::{Markup, html};
use serde::Deserialize;

use crate::report::{self, Change};
use crate::span::{TraceId, shortened};
use crate::tree::{LONGEST, took, visible};
use crate::viewer::moment;
use crate::viewer::{self, EVENT_INTERVAL, EventsQuery, ViewerState};
use crate::waterfall::count;
use crate::wire::{EXCHANGES, Fault, HopState, NO_PROXIES, RECORD_BYTES};
use traces::exchange::Exchange;

/// The number of requests that the page shows.
const EXCHANGES_SHOWN: usize = 50;

pub async fn json(State(site): State<ViewerState>) -> Response {
    Json(site.wire.states()).into_response()
}

/// Sends an empty event whenever something has changed that the page shows. If it has changed since the page was rendered, sends
/// the first event immediately.
pub async fn events(State(site): State<ViewerState>, Query(query): Query<EventsQuery>) -> Response {
    let mut changes = site.wire.changes();
    if query.seen.is_some_and(|seen| seen != *changes.borrow()) {
        changes.mark_changed();
    }
    let events = futures_util::stream::unfold(changes, async |mut changes| {
        changes.changed().await.ok()?;
        tokio::time::sleep(EVENT_INTERVAL).await;
        changes.mark_unchanged();
        Some((Ok::<_, Infallible>(Event::default().data("new")), changes))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

pub async fn page(State(site): State<ViewerState>) -> Response {
    // Read this first: a change in between causes one event too many, and not one too few.
    let seen = *site.wire.changes().borrow();
    let exchanges = site.wire.latest(EXCHANGES_SHOWN);
    let hops = site.wire.states();
    let body = html! {
        h1 { "The wire" }
        @if hops.is_empty() {
            p {
                "This lab has no proxies. " code { "lab wire NAME=LISTEN,TARGET" } " puts one in front of a service, shows the headers of \
                each request here, and breaks requests when you ask for it: see "
                a href="/how-to/proxy.html" { "Put a proxy between your services" } ". In the book's repository, " code { "cargo run" }
                " starts three services with a proxy in front of each."
            }
        } @else {
            p { "Each proxy passes every byte to its service unchanged, unless you set a fault." }
            div id="hops" { @for state in &hops { (form(state)) } }
            div id="results" data-live={ "/wire.events?seen=" (seen) } {
                @for state in &hops { (limits(state)) }
                (requests(&exchanges, hops.iter().map(|it| it.dropped_requests).sum()))
            }
        }
    };
    viewer::page("Wire", body)
}

fn form(state: &HopState) -> Markup {
    html! {
        form.hop method="post" action={ "/wire/" (state.hop) } aria-label=(state.hop) {
            label { b { (state.hop) } " " span { (state.address) " → " (state.target) }
                select name="fault" {
                    option value="" { "no fault" }
                    @for fault in Fault::value_variants() {
                        @let name = fault.name();
                        option value=(name) selected[state.fault.as_ref() == Some(&name)] { (name) ": " (fault.description()) }
                    }
                }
            }
            button { "Set" }
            @if let Some(fault) = &state.fault { span.broken { "Broken: " (fault) } }
        }
        @if let Some(note) = state.note() {
            p.notice {
                (note) ". "
                @for (index, (protocol, connections)) in state.unread.iter().enumerate() {
                    @if index > 0 { ", " } (protocol) ": " (count(*connections, "connection"))
                }
                "."
            }
        }
    }
}

/// Says what the limit of connections has done.
fn limits(state: &HopState) -> Markup {
    let HopState { hop, refused_connections, replaced_connections, .. } = state;
    html! {
        @if *refused_connections > 0 {
            p.notice {
                (hop) " refused " (count(*refused_connections, "connection")) " with the status 429, because all others were in use. \
                The lab's option " code { "--max-connections" } " is the limit."
            }
        }
        @if *replaced_connections > 0 {
            p.notice {
                (hop) " closed " (count(*replaced_connections, "connection")) " that waited for a request or were quiet, to make room for new ones. \
                The lab's option " code { "--max-connections" } " is the limit."
            }
        }
    }
}

/// Renders the table of the latest requests, each with its number.
fn requests(exchanges: &[(usize, Arc<Exchange>)], dropped: usize) -> Markup {
    let total = exchanges.first().map_or(0, |(number, _)| number + 1);
    html! {
        h2 { "Requests" }
        @if exchanges.is_empty() {
            p { "None yet. Send a request to a proxy: it shows up by itself." }
        } @else {
            table.requests {
                caption {
                    @if exchanges.len() < total { "The last " (exchanges.len()) " of " }
                    (count(total, "request")) ", the newest first"
                    @if dropped > 0 {
                        ". The lab has dropped " (count(dropped, "older request")) ": it keeps the last " (EXCHANGES) ", with at most "
                        (RECORD_BYTES >> 20) " MiB of headers"
                    }
                }
                thead {
                    tr {
                        th scope="col" { "Request" }
                        th scope="col" { "Proxy" }
                        th scope="col" { "Answer" }
                        th scope="col" { "Trace" }
                        th scope="col" { "Fault" }
                        th scope="col" { "Time" }
                    }
                }
                @for (number, exchange) in exchanges { tbody { (request(*number, exchange)) } }
            }
        }
    }
}

fn request(number: usize, exchange: &Exchange) -> Markup {
    let line = exchange.sent.lines().next().unwrap_or_default();
    let line = line.rsplit_once(" HTTP/").map_or(line, |(line, _)| line);
    let ends = [exchange.sent_by(), exchange.received()].into_iter().flatten();
    let mut traces: Vec<TraceId> = ends.map(|it| it.trace_id).collect();
    traces.dedup();
    html! {
        tr {
            th scope="row" { code { (visible(&shortened(line, LONGEST))) } }
            td { (exchange.hop) }
            td.answer {
                @match exchange.status { Some(status) => span.error[status >= 500] { (status) }, None => "none" }
                @if let Some(end) = exchange.end { " " small { (took(end.saturating_sub(exchange.start))) } }
            }
            td {
                @for id in &traces { a href={ "/traces/" (id) } { code { (&id.to_string()[..8]) } } " " }
                @if traces.is_empty() { "none" }
            }
            td.fault { @if let Some(fault) = &exchange.fault { span.broken { (fault) } } }
            td.when { (moment(exchange.start)) }
        }
        tr { td colspan="6" { (headers(number, exchange)) } }
    }
}

/// Renders all headers of a request. Marks those that were dropped or added on the way.
fn headers(number: usize, exchange: &Exchange) -> Markup {
    let changes = report::changes(exchange);
    let is_changed = changes.iter().any(|(change, _)| *change != Change::None);
    html! {
        details id={ "request" (number) } {
            summary {
                "Headers"
                @if exchange.delivered.is_none() { ": nothing arrived" } @else if is_changed { ", changed on the way" }
            }
            div.headers {
                @for (change, line) in &changes {
                    @match change {
                        Change::None => code { (visible(line)) },
                        Change::Dropped => del { code { (visible(line)) } },
                        Change::Added => ins { code { (visible(line)) } },
                    }
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Setting {
    /// The name of a fault. An empty name or none restores the hop.
    #[serde(default)]
    fault: Option<String>,
}

/// Sets the fault of a hop or restores the hop. The page sends a form, and `lab break` sends JSON.
pub async fn set(
    State(site): State<ViewerState>,
    Path(hop): Path<String>,
    request: Request,
) -> Response {
    let form = is_form(request.headers());
    let setting = match read::<Setting>(request).await {
        Ok(setting) => setting,
        Err(refused) => return refused,
    };
    let name = setting.fault.filter(|name| !name.is_empty());
    let fault = name.map(|name| Fault::named(&name)).transpose();
    match (site.wire.check(&hop), fault) {
        (Err(unknown), _) if unknown.known.is_empty() => refused(StatusCode::CONFLICT, NO_PROXIES),
        (Err(unknown), _) => refused(StatusCode::NOT_FOUND, unknown),
        (_, Err(unknown)) => refused(StatusCode::NOT_FOUND, unknown),
        (Ok(()), Ok(fault)) => {
            site.wire.set(&hop, fault);
            match form {
                true => Redirect::to("/wire").into_response(),
                false => Json(site.wire.states()).into_response(),
            }
        }
    }
}

fn refused(status: StatusCode, problem: impl Display) -> Response {
    (status, format!("{problem}\n")).into_response()
}

fn is_form(headers: &HeaderMap) -> bool {
    let form = b"application/x-www-form-urlencoded";
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(form))
}

async fn read<T: for<'a> Deserialize<'a>>(request: Request) -> Result<T, Response> {
    if is_form(request.headers()) {
        let form = Form::from_request(request, &()).await;
        return form.map(|Form(it)| it).map_err(|rejection| rejection.into_response());
    }
    let json = Json::from_request(request, &()).await;
    json.map(|Json(it)| it).map_err(|rejection| rejection.into_response())
}
