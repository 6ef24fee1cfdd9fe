//! The command `check STEP`: checks that a step of the tutorial left the expected trace and reports what is missing.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path as Segment, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use lab::diagnose::{self, Evidence};
use lab::render::Renderers;
use lab::report;
use lab::span::{Span, SpanKind};
use lab::store::Store;
use lab::tree::{Row, Tree};

/// How long a check waits for spans. By default, a service exports every five seconds.
const SPAN_TIMEOUT: Duration = Duration::from_secs(6);

/// A step of the tutorial that a reader can check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    #[value(name = "1")]
    LlmService,
    #[value(name = "2")]
    UserService,
    #[value(name = "3")]
    ApiGateway,
    #[value(name = "4")]
    BreakIt,
}

/// A span that must exist, with the spans that must be its children. The name `chat` matches any `chat MODEL`.
struct Expected {
    name: &'static str,
    /// The kinds that the span may have.
    kinds: &'static [SpanKind],
    service: &'static str,
    below: &'static [Expected],
}

static LLM_SERVICE: Expected = Expected {
    name: "POST /generate",
    kinds: &[SpanKind::Server],
    service: "llm-service",
    below: &[],
};

static USER_SERVICE: Expected = Expected {
    name: "POST /process",
    kinds: &[SpanKind::Server],
    service: "user-service",
    below: &[
        Expected {
            name: "validate_user",
            kinds: &[SpanKind::Internal],
            service: "user-service",
            below: &[],
        },
        Expected {
            name: "POST /generate",
            kinds: &[SpanKind::Client],
            service: "user-service",
            below: &[Expected {
                below: &[Expected {
                    name: "chat",
                    kinds: &[SpanKind::Internal, SpanKind::Client],
                    service: "llm-service",
                    below: &[],
                }],
                ..LLM_SERVICE
            }],
        },
    ],
};

static API_GATEWAY: Expected = Expected {
    name: "POST /api/query",
    kinds: &[SpanKind::Server],
    service: "api-gateway",
    below: &[Expected {
        name: "POST /process",
        kinds: &[SpanKind::Client],
        service: "api-gateway",
        below: std::slice::from_ref(&USER_SERVICE),
    }],
};

impl Expected {
    fn matches(&self, span: &Span) -> bool {
        let name = span.name();
        let named = name == self.name || (self.name == "chat" && name.starts_with("chat "));
        named && span.service() == self.service && self.kinds.contains(&span.kind())
    }

    fn description(&self) -> String {
        let Expected { name, kinds, service, .. } = self;
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        format!("`{name}` ({}, {service})", kinds.join(" or "))
    }

    /// Describes what is wrong with the status of `row` or with its children. Returns `None` when nothing is.
    fn problem(&self, row: &Row, tree: &Tree, all: &[Tree]) -> Option<String> {
        let status = row.span.attribute("http.response.status_code");
        if let Some(status) = status.filter(|status| status != "200") {
            let hint = match status.starts_with('5') {
                true => "Does the service that it calls run?",
                false => "Look at the body and the user id.",
            };
            return Some(format!(
                "{} was answered {status}. {hint} Then send the request again",
                self.description()
            ));
        }
        self.below.iter().find_map(|expected| {
            let child = tree.rows.iter().find(|below| {
                below.span.parent == Some(row.span.id) && expected.matches(&below.span)
            });
            match child {
                Some(child) => expected.problem(child, tree, all),
                None => Some(format!(
                    "below {} there is no {}: {}",
                    self.description(),
                    expected.description(),
                    expected.explain_absence(row, tree, all)
                )),
            }
        })
    }

    /// Explains why this span isn't a child of `row`: it is elsewhere, or it hasn't arrived.
    fn explain_absence(&self, row: &Row, tree: &Tree, all: &[Tree]) -> String {
        if tree.rows.iter().any(|row| self.matches(&row.span)) {
            return "it is in this trace, below another span".to_owned();
        }
        // Ignore the spans of earlier requests.
        let since = row.span.start();
        let is_found = |row: &Row| self.matches(&row.span) && row.span.start() >= since;
        let elsewhere = all.iter().find(|other| other.rows.iter().any(is_found));
        match elsewhere {
            Some(other) => format!(
                "the newest one is in another trace, {}. Does src/client.rs inject the context?",
                other.trace_id
            ),
            None => {
                format!(
                    "none has arrived. Look whether {} runs and sends its spans here",
                    self.service
                )
            }
        }
    }

    /// Finds the trace of the newest request that has this span. All its children must be there. A trace may contain
    /// several requests, because the tutorial sends the same `traceparent` each time. `root` says whether the span must be
    /// a root or must have a parent.
    ///
    /// # Errors
    /// Describes what is wrong with that request.
    fn search<'a>(&self, all: &'a [Tree], root: bool) -> Result<&'a Tree, String> {
        let found = all.iter().flat_map(|tree| tree.rows.iter().map(move |row| (tree, row)));
        let found = found.filter(|(_, row)| self.matches(&row.span));
        let (tree, row) = found.max_by_key(|(_, row)| row.span.start()).ok_or_else(|| {
            format!(
                "no {} has arrived since the lab was started. Does {} run and call `telemetry::init`, and did you send the \
                 request of this step?",
                self.description(),
                self.service
            )
        })?;
        let misplaced = match (root, row.span.parent.is_none()) {
            (true, false) => Some(format!(
                "{} has a parent: send the request without a `traceparent`",
                self.description()
            )),
            (false, true) => Some(format!(
                "{} has no parent. Send the request with its `traceparent`, and let the service extract it",
                self.description()
            )),
            _ => None,
        };
        match misplaced.or_else(|| self.problem(row, tree, all)) {
            None => Ok(tree),
            Some(problem) => Err(format!("in trace {}, {problem}", tree.trace_id)),
        }
    }
}

/// The result of a check. `/check/{step}` returns it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// One sentence about the trace that the step left.
    Passed(String),
    NotYet {
        /// One sentence for each thing that is missing.
        missing: Vec<String>,
        /// The findings of `diagnose` in the newest request, each with a line of the tutorial's code to look at.
        why: Vec<String>,
    },
}

/// The advice below everything that is missing.
const AGAIN: &str = "After a change, press Enter in terminal 2 and send the request again. The page Troubleshooting has more.";

/// Writes one line for each sentence, as the command prints them.
impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passed(found) => writeln!(f, "passed: {found}"),
            Verdict::NotYet { missing, why } => {
                missing.iter().try_for_each(|it| writeln!(f, "not yet: {it}"))?;
                why.iter().try_for_each(|it| writeln!(f, "why: {it}"))?;
                writeln!(f, "{AGAIN}")
            }
        }
    }
}

/// Checks `step` against `all` traces, the newest first.
pub fn verdict(step: Step, all: &[Tree]) -> Verdict {
    match check_step(step, all) {
        Ok(found) => Verdict::Passed(found),
        Err(missing) => Verdict::NotYet { missing, why: explain_newest(all) },
    }
}

/// Explains the findings of `diagnose` in the newest request, one sentence for each.
fn explain_newest(all: &[Tree]) -> Vec<String> {
    let Some(newest) = all.iter().max_by_key(|tree| tree.start) else {
        return Vec::new();
    };
    let end = |tree: &Tree| tree.start.saturating_add(tree.duration);
    let parts = all.iter().filter(|tree| tree.start <= end(newest) && newest.start <= end(tree));
    let parts: Vec<Tree> = parts.cloned().collect();
    let found = diagnose::diagnose(&parts, &[]).into_iter();
    let reasons = found.filter_map(|finding| {
        let (line, file) = look_at(&finding.evidence)?;
        let cause = report::cause(&finding);
        Some(format!("{cause} Look at `{line}` in src/{file}"))
    });
    reasons.collect()
}

/// Returns the line of the tutorial's code that a finding is about, and its file below `src`. `None` when the tutorial has
/// no such line.
pub fn look_at(evidence: &Evidence) -> Option<(&'static str, &'static str)> {
    match evidence {
        Evidence::HeaderDropped { .. }
        | Evidence::HeaderInvalid { .. }
        | Evidence::HeaderReplaced { .. }
        | Evidence::HeaderRepeated { .. }
        | Evidence::HeaderPlaceholder { .. }
        | Evidence::HeadersJoined { .. }
        | Evidence::FallenApart { .. } => {
            Some(("outgoing::inject_context_into_carrier(&mut headers);", "client.rs"))
        }
        Evidence::OwnAncestor { .. } | Evidence::BesideItsCall { .. } => {
            Some(("let result = work.with_context(cx.clone()).await;", "spans.rs"))
        }
        Evidence::SeveralRoots { .. } | Evidence::SharedId { .. } => {
            Some(("let parent = extract_context_from_carrier(request.headers());", "incoming.rs"))
        }
        Evidence::ParentNotHere { .. } | Evidence::ServiceBetweenNotHere { .. } => Some((
            "Ok(exporter) => provider.with_batch_exporter(exporter).build(),",
            "telemetry.rs",
        )),
        Evidence::StatusNotSet { span, .. } if span.kind == SpanKind::Server => {
            Some((r#"span.set_status(Status::error(""));"#, "incoming.rs"))
        }
        Evidence::StatusNotSet { .. } => {
            Some(("cx.span().set_status(Status::error(error.to_string()));", "spans.rs"))
        }
        Evidence::WrongKind { why, .. } => match why.expected() {
            SpanKind::Server => Some((".with_kind(SpanKind::Server)", "incoming.rs")),
            _ => Some((".with_kind(SpanKind::Client)", "outgoing.rs")),
        },
        // The tutorial's caller is curl, which exports no spans. For the other findings the tutorial has no line.
        Evidence::NothingArrived { .. }
        | Evidence::ForeignFormat { .. }
        | Evidence::HeaderUnsampled { .. }
        | Evidence::HeadersContradict { .. }
        | Evidence::FlagNotSet { .. }
        | Evidence::CallerNotHere { .. }
        | Evidence::RootWithin { .. }
        | Evidence::ClientRoot { .. }
        | Evidence::NotEnded { .. }
        | Evidence::CallerHungUp { .. }
        | Evidence::ClockSkew { .. }
        | Evidence::NoServiceName { .. }
        | Evidence::MixedVersions { .. }
        | Evidence::HeldOpen { .. }
        | Evidence::RequestsBelow { .. }
        | Evidence::TinySpans { .. }
        | Evidence::ValueInName { .. }
        | Evidence::Secret { .. } => None,
    }
}

/// Returns one sentence about the trace that the step left.
///
/// # Errors
/// Returns one sentence for each thing that is missing.
fn check_step(step: Step, all: &[Tree]) -> Result<String, Vec<String>> {
    let one = |missing: String| vec![missing];
    match step {
        Step::LlmService => {
            let tree = LLM_SERVICE.search(all, false).map_err(one)?;
            Ok(format!("llm-service joined the trace {}", tree.trace_id))
        }
        Step::UserService => USER_SERVICE.search(all, false).map(count_spans).map_err(one),
        Step::ApiGateway => API_GATEWAY.search(all, true).map(count_spans).map_err(one),
        Step::BreakIt => check_broken_requests(all),
    }
}

fn count_spans(tree: &Tree) -> String {
    let (spans, services) = (tree.rows.len(), tree.services().len());
    format!("{spans} spans from {services} services are one trace, {}", tree.trace_id)
}

/// Checks that step 4 left its three requests and that the newest request is in one piece again.
fn check_broken_requests(all: &[Tree]) -> Result<String, Vec<String>> {
    let has_span = |tree: &Tree, kind: SpanKind, attribute: &str, value: &str| {
        tree.rows.iter().any(|row| {
            row.span.service() == "user-service"
                && row.span.kind() == kind
                && row.span.attribute(attribute).as_deref() == Some(value)
        })
    };
    let unreachable = |tree: &Tree| has_span(tree, SpanKind::Client, "error.type", "unreachable");
    let slow = |tree: &Tree| has_span(tree, SpanKind::Internal, "user.archived", "true");
    let mut missing = Vec::new();
    if !all.iter().any(unreachable) {
        missing.push("no request met a stopped llm-service".to_owned());
    }
    if !all.iter().any(|tree| is_split(tree, all)) {
        missing.push("no request has fallen apart into several traces".to_owned());
    }
    if !all.iter().any(slow) {
        missing.push("no request came from a user in the archive".to_owned());
    }
    if let Err(problem) = API_GATEWAY.search(all, true) {
        missing.push(format!(
            "the newest request is not whole: {problem}. Fix that and send another one"
        ));
    }
    match missing.is_empty() {
        true => {
            Ok("you have seen a dead service, a request in pieces and a slow one, and the newest \
                    request is whole"
                .to_owned())
        }
        false => Err(missing),
    }
}

/// Returns whether a call in `tree` was answered 200 while the called service started a separate trace for it.
fn is_split(tree: &Tree, all: &[Tree]) -> bool {
    tree.rows.iter().any(|row| {
        let call = &row.span;
        let answered = call.attribute("http.response.status_code").as_deref() == Some("200");
        let alone = !tree.rows.iter().any(|below| below.span.parent == Some(call.id));
        let during = call.start()..=call.start() + call.duration();
        let other_end = |top: &Row| {
            let span = &top.span;
            let begins = span.parent.is_none() && span.kind() == SpanKind::Server;
            begins && span.name() == call.name() && during.contains(&span.start())
        };
        call.kind() == SpanKind::Client
            && answered
            && alone
            && all.iter().any(|other| other.tops().any(other_end))
    })
}

/// Serves `/check/{step}`, which returns a [`Verdict`] with status 200 when the step has passed and 409 when something is
/// missing.
pub fn routes(store: Store) -> Router {
    Router::new().route("/check/{step}", get(answer)).with_state((store, Renderers::default()))
}

async fn answer(
    State((store, renderers)): State<(Store, Renderers)>,
    Segment(step): Segment<String>,
) -> Response {
    let Ok(step) = Step::from_str(&step, false) else {
        return (StatusCode::NOT_FOUND, "there is no such step\n").into_response();
    };
    let mut changes = store.changes();
    let deadline = Instant::now() + SPAN_TIMEOUT;
    loop {
        let is_last = Instant::now() >= deadline;
        let store = store.clone();
        let check = move || {
            let trees = store.trees();
            match check_step(step, &trees) {
                Ok(found) => Some(Verdict::Passed(found)),
                Err(_) => is_last.then(|| verdict(step, &trees)),
            }
        };
        match renderers.run(check).await {
            Ok(Some(verdict @ Verdict::Passed(_))) => return Json(verdict).into_response(),
            Ok(Some(verdict)) => return (StatusCode::CONFLICT, Json(verdict)).into_response(),
            // An error means that the time is over, and the check after it is the last.
            Ok(None) => drop(timeout_at(deadline, changes.changed()).await),
            Err(error) => {
                return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
            }
        }
    }
}

/// Asks the lab at `site` whether `step` is done.
///
/// # Errors
/// Fails when no lab answers.
pub async fn ask(site: &str, step: Step) -> anyhow::Result<Verdict> {
    let name = step.to_possible_value().context("every step has a name")?;
    let client = reqwest::Client::builder().no_proxy().timeout(5 * SPAN_TIMEOUT).build()?;
    let url = format!("http://{site}/check/{}", name.get_name());
    let response = client.get(url).send().await.with_context(|| {
        format!(
            "no lab answers at {site}: start it with `cargo run -- view` in another terminal, or say with --site where \
             it is"
        )
    })?;
    let status = response.status();
    response.json().await.with_context(|| {
        format!("what answers at {site} is not the lab ({status}): say with --site where it is")
    })
}
