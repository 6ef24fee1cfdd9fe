//! A request as one HTML file: the page of its trace with everything on it, which needs no lab, no script and no network. The
//! request's data is in the file, so the lab reads it back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::moment;
use super::span::{self, Around, Page};
use super::timeline;
use super::trace;
use crate::analysis::critical_path;
use crate::case::Case;
use crate::diagnose::{Finding, Place};
use crate::log::LogRecord;
use crate::report::{self, Links};
use crate::span::{Span, SpanId, SpanKind, TraceId};
use crate::tree::{Row, Tree, label};
use crate::waterfall::{self, Linked, MOST, count, linked_table};
use traces::embedded;
use traces::exchange::Exchange;
use traces::redact::Redacted;

/// The style that only such a file needs.
const CSS: &str = include_str!("document.css");

/// The policy of the file: nothing is loaded, nothing runs, nothing is sent.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// The size in bytes of all spans in detail. Past it, a span is only named, because a browser takes seconds for a larger file.
const DETAILS_LIMIT: usize = 16 * 1024 * 1024;

/// The largest number of requests on the wire that are shown.
const EXCHANGES: usize = 1000;

/// The largest number of findings that are open at first. More of them would hide the waterfall.
const OPEN: usize = 3;

/// The largest number of redacted names that are listed.
const NAMES: usize = 20;

/// The reasons why a request can't become a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request has no spans")]
    NoSpans,
    #[error("its data can't be put into the file")]
    Data(#[from] embedded::Error),
    #[error("its spans can't be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// A report to show on top, such as that of `lab expect`.
pub struct Remark<'a> {
    pub title: &'a str,
    pub text: &'a str,
}

/// A finished file.
pub struct Document {
    pub html: String,
    /// The number of spans in its data.
    pub spans: usize,
    pub redacted: Redacted,
}

/// The places in a file that links lead to.
pub struct Anchors {
    /// The spans that are shown in detail.
    shown: HashSet<Place>,
    traces: HashSet<TraceId>,
    /// The spans with links, by the trace that they link to.
    linked: HashMap<TraceId, Vec<Arc<Span>>>,
}

impl Anchors {
    fn new(trees: &[&Tree], rows: &[usize]) -> Self {
        let shown = trees.iter().zip(rows).flat_map(|(tree, rows)| &tree.rows[..*rows]);
        let mut linked: HashMap<TraceId, Vec<Arc<Span>>> = HashMap::new();
        for row in trees.iter().flat_map(|tree| &tree.rows) {
            let targets: HashSet<TraceId> = row.span.links.iter().map(|(to, _)| *to).collect();
            for to in targets {
                linked.entry(to).or_default().push(Arc::clone(&row.span));
            }
        }
        Anchors {
            shown: shown.map(place).collect(),
            traces: trees.iter().map(|tree| tree.trace_id).collect(),
            linked,
        }
    }

    /// Returns the address of a span, or `None` if the file doesn't show it.
    pub fn span(&self, place: Place) -> Option<String> {
        self.shown.contains(&place).then(|| format!("#{}", span_id(place)))
    }

    fn trace(&self, trace: TraceId) -> Option<String> {
        self.traces.contains(&trace).then(|| format!("#trace-{trace}"))
    }

    /// Returns the spans that link to a trace, or to one span of it.
    pub fn linked_to(&self, trace: TraceId, span: Option<SpanId>) -> Vec<Arc<Span>> {
        let leads = |(to, id): &Place| *to == trace && span.is_none_or(|span| span == *id);
        let from = self.linked.get(&trace).into_iter().flatten();
        from.filter(|from| from.links.iter().any(leads)).cloned().collect()
    }
}

fn place(row: &Row) -> Place {
    (row.span.trace_id, row.span.id)
}

fn span_id((trace, span): Place) -> String {
    format!("span-{trace}-{span}")
}

/// The requests on the wire by the spans at their ends.
struct Wire<'a>(HashMap<Place, Vec<&'a Exchange>>);

impl<'a> Wire<'a> {
    fn new(exchanges: &'a [Exchange]) -> Self {
        let mut by_caller: HashMap<Place, Vec<&Exchange>> = HashMap::new();
        for exchange in exchanges {
            let ends = [exchange.sent_by(), exchange.received()].into_iter().flatten();
            let mut ends: Vec<Place> = ends.map(|it| (it.trace_id, it.parent_id)).collect();
            ends.dedup();
            for end in ends {
                by_caller.entry(end).or_default().push(exchange);
            }
        }
        Wire(by_caller)
    }

    /// Returns the requests that a span may have sent or answered.
    fn of(&self, span: &Span) -> Vec<Arc<Exchange>> {
        let caller = span.parent.filter(|_| span.kind() == SpanKind::Server);
        let ends = [Some(span.id), caller].into_iter().flatten();
        let found = ends.filter_map(|id| self.0.get(&(span.trace_id, id))).flatten();
        found.map(|exchange| Arc::new(Exchange::clone(exchange))).collect()
    }
}

impl Document {
    /// Makes the file of a request. Its main trace is the one with this id, or the first if there is none.
    ///
    /// # Errors
    /// The request has no spans, or its data is too large.
    pub fn new(mut case: Case, id: TraceId, remark: Option<&Remark>) -> Result<Self, Error> {
        let mut redacted = Redacted::default();
        redacted.names(&mut case);
        // A redacted URL would mislead the rules.
        let findings = case.findings();
        redacted.values(&mut case);
        let main = case.trees.iter().find(|tree| tree.trace_id == id);
        let main = main.or(case.trees.first()).ok_or(Error::NoSpans)?;
        let others = case.trees.iter().filter(|tree| tree.trace_id != main.trace_id);
        let trees: Vec<&Tree> = [main].into_iter().chain(others).collect();
        let data = embedded::element(&case.to_json()?)?;
        let html = View::new(&case, trees, &findings, &redacted).page(remark, &data).into_string();
        let spans = case.trees.iter().map(|tree| tree.rows.len()).sum();
        Ok(Document { html, spans, redacted })
    }
}

/// The contents of a file.
struct View<'a> {
    case: &'a Case,
    /// The main trace first.
    trees: Vec<&'a Tree>,
    /// The number of rows to show of each trace.
    rows: Vec<usize>,
    anchors: Anchors,
    findings: &'a [Finding],
    redacted: &'a Redacted,
}

impl<'a> View<'a> {
    fn new(
        case: &'a Case,
        trees: Vec<&'a Tree>,
        findings: &'a [Finding],
        redacted: &'a Redacted,
    ) -> Self {
        let mut left = MOST;
        let rows = trees.iter().map(|tree| {
            let rows = tree.rows.len().min(left);
            left -= rows;
            rows
        });
        let rows: Vec<usize> = rows.collect();
        let anchors = Anchors::new(&trees, &rows);
        View { case, trees, rows, anchors, findings, redacted }
    }

    fn page(&self, remark: Option<&Remark>, data: &Markup) -> Markup {
        let main = self.trees[0];
        let path = critical_path(main);
        let name = label(main.name());
        let case = self.case;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    meta name="generator" content={ "one-trace-lab " (env!("CARGO_PKG_VERSION")) };
                    title { (name) " · " (&main.trace_id.to_string()[..8]) " · One Trace" }
                    link rel="icon" href="data:,";
                    style { (PreEscaped([waterfall::CSS, report::CSS, super::CSS, CSS].concat())) }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    main id="main" {
                        h1 dir="auto" { (name) }
                        p.facts { "Trace " code { (main.trace_id) } ", " (moment(main.start)) ". " (trace::summary(main, &path)) }
                        (notice(self.redacted))
                        @if let Some(Remark { title, text }) = remark {
                            h2 { (title) }
                            pre.remark dir="auto" tabindex="0" role="group" aria-label=(title) { (text.trim_end()) }
                        }
                        (self.diagnosis())
                        h2 id="waterfall" { "Spans" }
                        p.actions {
                            "A span's name leads to its details. "
                            a href="#spans" { "All spans in full" }
                            a href="#times" { "Where the time went" }
                            @if !case.wire.is_empty() { a href="#wire" { "What went over the wire" } }
                        }
                        (self.trace(0))
                        @for index in 1..self.trees.len() {
                            @if self.rows[index] > 0 {
                                @let tree = self.trees[index];
                                h2 dir="auto" { "Another trace of this request: " (label(tree.name())) }
                                p.facts { "Trace " code { (tree.trace_id) } ", " (moment(tree.start)) ". " (trace::summary(tree, &critical_path(tree))) }
                                (self.trace(index))
                            }
                        }
                        @let left = self.rows.iter().filter(|rows| **rows == 0).count();
                        @if left > 0 { p.notice { (count(left, "further trace")) " of this request: only in the data of this file." } }
                        @for tree in &self.trees { (timeline::of_trace(&case.logs, tree, tree, Page::File(&self.anchors))) }
                        (self.details())
                        h2 id="times" { "Where the time went" }
                        (trace::times(main, &path))
                        @if !case.wire.is_empty() {
                            h2 id="wire" { "What went over the wire" }
                            @let shown = case.wire.len().min(EXCHANGES);
                            @if shown < case.wire.len() { p.notice { "The first " (shown) " of " (case.wire.len()) " requests; the data of this file has all of them." } }
                            (report::wire(&case.wire[..shown], true))
                        }
                    }
                    footer {
                        p {
                            "This file has all data of the request. "
                            code { "lab view --open FILE" } " shows it in the lab, " code { "lab trace FILE" } " in a terminal, and "
                            code { "lab trace FILE --json" } " prints it as OTLP."
                        }
                    }
                    (data)
                }
            }
        }
    }

    fn diagnosis(&self) -> Markup {
        let span = |place| self.anchors.span(place);
        let links = Links { book: None, span: &span };
        let found = self.findings;
        html! {
            @if found.is_empty() { p.facts { "Diagnosis: " (report::no_finding(self.case)) } } @else {
                @if let Some(failure) = report::failure(self.case) { p.facts { (failure) } }
                details.diagnosis open[found.len() <= OPEN] {
                    summary { (trace::findings_in_short(found)) }
                    (report::list(found, &links))
                    p { "The page “Know why a trace is broken” of the book One Trace explains each of these rules." }
                }
            }
        }
    }

    fn trace(&self, index: usize) -> Markup {
        let tree = self.trees[index];
        let linked = Linked {
            critical_path: &critical_path(tree),
            rows: self.rows[index],
            span: &|place| self.anchors.span(place),
            trace: &|trace| self.anchors.trace(trace),
        };
        html! {
            div id={ "trace-" (tree.trace_id) } {
                (span::linked_from(tree, None, Page::File(&self.anchors)))
                (linked_table(tree, &linked))
            }
        }
    }

    /// Renders each span in detail. The style sheet shows the one that the address names, or all of them.
    fn details(&self) -> Markup {
        let wire = Wire::new(&self.case.wire);
        let mut records: HashMap<Place, Vec<&LogRecord>> = HashMap::new();
        for record in &self.case.logs {
            if let Some(span) = record.span_id {
                records.entry((record.trace_id, span)).or_default().push(record);
            }
        }
        let page = Page::File(&self.anchors);
        let mut left = DETAILS_LIMIT;
        let mut details = String::new();
        for (tree, rows) in self.trees.iter().zip(&self.rows) {
            for row in &tree.rows[..*rows] {
                let wire = wire.of(&row.span);
                let records = records.get(&place(row)).map(Vec::as_slice).unwrap_or_default();
                let around = Around { tree, page, wire: &wire, records, editor: None };
                let mut detail = span::detail(row, &around);
                match left.checked_sub(detail.0.len()) {
                    Some(rest) => left = rest,
                    None => detail = too_large(row),
                }
                let article = html! {
                    article.span id=(span_id(place(row))) tabindex="-1" { (detail) }
                };
                details.push_str(&article.0);
            }
        }
        html! {
            section id="spans" tabindex="-1" aria-label="All spans in full" {
                p.all { a href="#waterfall" { "Hide the details" } }
                (PreEscaped(details))
            }
        }
    }
}

/// Renders a span whose details don't fit into the file.
fn too_large(row: &Row) -> Markup {
    html! {
        a.close href={ "#" (waterfall::row_id(place(row))) } { "Close" }
        h2 dir="auto" { (label(row.span.name())) }
        p.notice { "The details of this span are only in the data of this file: it would be too large for a browser." }
    }
}

/// Says what was redacted.
fn notice(redacted: &Redacted) -> Markup {
    let names = &redacted.names;
    html! {
        @if redacted.values == 0 {
            p.facts { "Nothing in it looks like a secret, so nothing was redacted." }
        } @else {
            p.notice {
                "Redacted, because " (if redacted.values == 1 { "it looks" } else { "they look" }) " like secrets: "
                (count(redacted.values, "value")) " of "
                @for (index, name) in names.iter().take(NAMES).enumerate() {
                    @if index > 0 { ", " }
                    bdi { code { (label(name)) } }
                }
                @if names.len() > NAMES { " and " (count(names.len() - NAMES, "other name")) }
                ". The data in this file is without them, too."
            }
        }
    }
}
