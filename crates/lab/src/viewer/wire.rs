//! The page `/wire`: a form for each hop to set its fault, and the latest requests.

use std::fmt::Display;

use axum::Json;
use axum::extract::{Form, FromRequest as _, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use clap::ValueEnum as _;
use maud::{Markup, html};
use serde::Deserialize;

use crate::guard;
use crate::report;
use crate::viewer::{self, ViewerState};
use crate::wire::{Fault, HopState, NO_PROXIES};

/// The number of requests that the page shows.
const EXCHANGES_SHOWN: usize = 20;

pub async fn json(State(site): State<ViewerState>) -> Response {
    Json(site.wire.states()).into_response()
}

pub async fn page(State(site): State<ViewerState>) -> Response {
    let mut exchanges = site.wire.exchanges();
    let older = exchanges.len().saturating_sub(EXCHANGES_SHOWN);
    exchanges.drain(..older);
    exchanges.reverse();
    let hops = site.wire.states();
    let body = html! {
        h1 { "The wire" }
        @if hops.is_empty() {
            p { "This lab runs no services, so there is nothing between them to break. " code { "cargo run" } " in the book's repository starts both." }
        } @else {
            p { "A proxy stands before each service. It passes every byte on as it came, unless you set a fault; the services know nothing of it." }
            @for state in &hops { (form(state)) }
            h2 { "The last requests" }
            @if exchanges.is_empty() { p { "There are none yet." } }
            (report::wire(&exchanges, true))
        }
    };
    viewer::page("Wire", body)
}

fn form(state: &HopState) -> Markup {
    html! {
        form.hop method="post" action={ "/wire/" (state.hop) } aria-label=(state.hop) {
            label { (state.hop) " at " (state.address)
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
    if let Err(refused) = guard::only_our_pages(request.headers()) {
        return refused.into_response();
    }
    let form = is_form(request.headers());
    let setting = match read::<Setting>(request).await {
        Ok(setting) => setting,
        Err(refused) => return refused,
    };
    let name = setting.fault.filter(|name| !name.is_empty());
    let fault = name.map(|name| Fault::named(&name)).transpose();
    match (site.wire.hop(&hop), fault) {
        (Err(unknown), _) if unknown.known.is_empty() => refused(StatusCode::CONFLICT, NO_PROXIES),
        (Err(unknown), _) => refused(StatusCode::NOT_FOUND, unknown),
        (_, Err(unknown)) => refused(StatusCode::NOT_FOUND, unknown),
        (Ok(hop), Ok(fault)) => {
            site.wire.set(hop, fault);
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
