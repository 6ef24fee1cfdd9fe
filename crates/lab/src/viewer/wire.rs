//! The page of the wire: the faults that are set, a form for each hop, and the last requests.

use axum::Json;
use axum::extract::{Form, FromRequest as _, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use clap::ValueEnum as _;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use crate::experiment::Experiment;
use crate::report::{self, Links};
use crate::viewer::{self, Site, span_address};
use crate::wire::{Fault, HOPS, Hop, Wire};

/// How many requests the page shows.
const SHOWN: usize = 20;

/// A hop as JSON tells it.
#[derive(Debug, Serialize, Deserialize)]
pub struct HopState {
    pub hop: String,
    /// Where its proxy listens.
    pub address: String,
    /// The name of the fault that is set.
    pub fault: Option<String>,
}

fn hops(wire: &Wire) -> Vec<HopState> {
    let served = HOPS.into_iter().filter_map(|hop| {
        Some(HopState {
            hop: hop.name.to_owned(),
            address: wire.address(hop)?.to_string(),
            fault: wire.fault(hop).map(Fault::name),
        })
    });
    served.collect()
}

pub async fn json(State(site): State<Site>) -> Response {
    Json(hops(&site.wire)).into_response()
}

pub async fn page(State(site): State<Site>) -> Response {
    let mut exchanges = site.wire.exchanges();
    let older = exchanges.len().saturating_sub(SHOWN);
    exchanges.drain(..older);
    exchanges.reverse();
    let served = hops(&site.wire);
    let body = html! {
        h1 { "The wire" }
        @if served.is_empty() {
            p { "This lab runs no services, so there is nothing between them to break. " code { "cargo run" } " in the book's repository starts both." }
        } @else {
            p { "A proxy stands before each service. It passes every byte on as it came, unless you set a fault; the services know nothing of it." }
            @for state in &served { (form(state)) }
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
                        option value=(name) selected[state.fault.as_ref() == Some(&name)] { (name) ": " (fault.what()) }
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
    /// Empty to restore.
    #[serde(default)]
    fault: Option<String>,
}

/// Sets or restores the fault of a hop: for the form of the page, and for the terminal in JSON.
pub async fn set(State(site): State<Site>, Path(hop): Path<String>, request: Request) -> Response {
    if !is_from_here(request.headers()) {
        let problem = "only a page of this lab may do this".to_owned();
        return refused(StatusCode::FORBIDDEN, problem);
    }
    let form = is_form(request.headers());
    let setting = match read::<Setting>(request).await {
        Ok(setting) => setting,
        Err(refused) => return refused,
    };
    let name = setting.fault.filter(|name| !name.is_empty());
    let wanted =
        Hop::named(&hop).and_then(|hop| Ok((hop, name.map(|it| Fault::named(&it)).transpose()?)));
    match wanted {
        Err(problem) => refused(StatusCode::NOT_FOUND, problem),
        Ok((hop, _)) if site.wire.address(hop).is_none() => no_services(),
        Ok((hop, fault)) => {
            site.wire.set(hop, fault);
            match form {
                true => Redirect::to("/wire").into_response(),
                false => Json(hops(&site.wire)).into_response(),
            }
        }
    }
}

#[derive(Deserialize)]
struct Wanted {
    hop: String,
    #[serde(default)]
    fault: Option<String>,
}

/// Sends one request with a fault, and answers with what came of it, as the fault lab of the book shows it.
pub async fn experiment(State(site): State<Site>, request: Request) -> Response {
    if !is_from_here(request.headers()) {
        let problem = "only a page of this lab may do this".to_owned();
        return refused(StatusCode::FORBIDDEN, problem);
    }
    let wanted = match read::<Wanted>(request).await {
        Ok(wanted) => wanted,
        Err(refused) => return refused,
    };
    let fault = wanted.fault.filter(|name| !name.is_empty());
    let found = Hop::named(&wanted.hop).and_then(|hop| {
        let fault = fault.map(|name| Fault::named(&name)).transpose()?;
        Ok(Experiment { hop, fault })
    });
    let experiment = match found {
        Ok(experiment) => experiment,
        Err(problem) => return refused(StatusCode::NOT_FOUND, problem),
    };
    let Some(gateway) = site.wire.address(HOPS[0]) else {
        return no_services();
    };
    let outcome = async {
        let id = experiment
            .send(gateway, &site.wire, &site.list.store)
            .await?;
        Experiment::settled(id, &site.list, &site.wire).await
    };
    match outcome.await {
        Ok(case) => {
            let span = |place| Some(span_address(place));
            let links = Links {
                book: "/",
                span: &span,
            };
            Html(experiment.figure(&case, &links).into_string()).into_response()
        }
        Err(error) => refused(StatusCode::BAD_GATEWAY, format!("{error:#}")),
    }
}

fn refused(status: StatusCode, problem: String) -> Response {
    (status, problem + "\n").into_response()
}

fn no_services() -> Response {
    refused(
        StatusCode::CONFLICT,
        "this lab runs no services: start it with `cargo run`, without `view`".to_owned(),
    )
}

fn is_form(headers: &HeaderMap) -> bool {
    let form = b"application/x-www-form-urlencoded";
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(form))
}

async fn read<T: for<'a> Deserialize<'a>>(request: Request) -> Result<T, Response> {
    if is_form(request.headers()) {
        let form = Form::from_request(request, &()).await;
        return form
            .map(|Form(it)| it)
            .map_err(|rejection| rejection.into_response());
    }
    let json = Json::from_request(request, &()).await;
    json.map(|Json(it)| it)
        .map_err(|rejection| rejection.into_response())
}

/// A page of another site can send a form too: what comes from a browser must come from a page of ours.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|it: &HeaderValue| it.to_str().unwrap_or_default())
    };
    let ours = text(ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == text(HOST));
    ours && headers
        .get("sec-fetch-site")
        .is_none_or(|it| it == "same-origin")
}
