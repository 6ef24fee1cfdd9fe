//! A case as text and as HTML, for terminal, page and browser: what was found, its waterfalls, and the headers on the wire.

mod advice;
mod model_call;
mod sentence;

use std::collections::HashMap;
use std::fmt::Write as _;

use maud::{Markup, html};

use crate::case::Case;
use crate::diagnose::{Finding, Place};
use crate::exchange::{Exchange, lines};
use crate::read::Unreadable;
use crate::tree::{plain, visible};
use crate::waterfall::{count, picture};

pub use model_call::usage;
pub use sentence::{LINKED, cause, notes};

/// The style of findings and headers, shared with the book.
pub const CSS: &str = include_str!("../report.css");

/// The headers that a trace travels in.
const OF_TRACES: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// How many spans of a finding are named; the others are counted.
const NAMED: usize = 5;

/// The page that has a section for each rule, as a path below the book's own folder.
pub const GUIDE: &str = "how-to/diagnose.html";

/// The addresses that a page links to.
pub struct Links<'a> {
    /// The folder of the book's pages, with its slash. `None` where the book can't be reached.
    pub book: Option<&'a str>,
    /// The address of a span; nothing where it is only named.
    pub span: &'a dyn Fn(Place) -> Option<String>,
}

/// The findings of a case as a list, below the failure of its request. Without any, says what the rules looked at.
pub fn findings(case: &Case, links: &Links) -> Markup {
    let findings = case.findings();
    html! {
        @if findings.is_empty() {
            p.findings { (no_finding(case)) }
        } @else {
            @if let Some(failure) = failure(case) { p.findings { (failure) } }
            (list(&findings, links))
        }
    }
}

/// Findings as a list.
pub fn list(findings: &[Finding], links: &Links) -> Markup {
    html! { ul.findings { @for finding in findings { (finding_item(finding, links)) } } }
}

/// Says where the request of a case failed; `None` if no span has an error.
pub fn failure(case: &Case) -> Option<Markup> {
    case.inspected().failure().map(|failure| marked(&failure))
}

/// Says what the rules looked at in a case without findings.
pub fn no_finding(case: &Case) -> Markup {
    marked(&case.inspected().to_string())
}

fn finding_item(finding: &Finding, links: &Links) -> Markup {
    let Finding { rule, spans, .. } = finding;
    html! {
        li {
            b { (rule.title()) } " (" (finding.evidence.certainty()) "). " (marked(&cause(finding)))
            @if let [step] = finding.advice() { " " i { (marked(step)) } } @else {
                ol { @for step in finding.advice() { li { (marked(step)) } } }
            }
            " "
            @for (index, place) in spans.iter().take(NAMED).enumerate() {
                @if index == 0 { (if spans.len() == 1 { "Span " } else { "Spans " }) } @else { ", " }
                @match (links.span)(*place) {
                    Some(address) => a href=(address) { code { (place.1) } },
                    None => code { (place.1) },
                }
            }
            @if spans.len() > NAMED { " and " (spans.len() - NAMED) " more" }
            @if !spans.is_empty() { ". " }
            @if let Some(book) = links.book {
                a href={ (book) (GUIDE) "#" (rule.name()) } { "About this: " (rule.title().to_lowercase()) }
            }
        }
    }
}

/// The findings of a case as text, one paragraph for each, below the failure of its request. Without any, says what the rules looked at. `book` is the address
/// of the book's pages.
pub fn text(case: &Case, book: &str) -> String {
    let findings = case.findings();
    let mut text = String::new();
    if findings.is_empty() {
        let _ = writeln!(text, "{}", visible(&case.inspected().to_string()));
    } else if let Some(failure) = case.inspected().failure() {
        let _ = writeln!(text, "{}\n", visible(&failure));
    }
    for (index, finding) in findings.iter().enumerate() {
        let Finding { rule, spans, .. } = finding;
        if index > 0 {
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "{} ({}): {}",
            rule.title(),
            finding.evidence.certainty(),
            visible(&cause(finding))
        );
        match finding.advice() {
            [step] => drop(writeln!(text, "  cure   {step}")),
            several => {
                for (number, step) in several.iter().enumerate() {
                    let _ = writeln!(text, "  {}. {step}", number + 1);
                }
            }
        }
        if !spans.is_empty() {
            let named: Vec<String> =
                spans.iter().take(NAMED).map(|(_, id)| id.to_string()).collect();
            let more = match spans.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let label = if spans.len() == 1 { "span " } else { "spans" };
            let _ = writeln!(text, "  {label}  {}{more}", named.join(", "));
        }
        let _ = writeln!(text, "  more   {book}{GUIDE}#{}", rule.name());
    }
    text
}

/// Shows what went over the wire: the headers of each request that a trace travels in, and whether they were changed. With
/// `whole`, also all bytes of each head.
pub fn wire(exchanges: &[Exchange], whole: bool) -> Markup {
    html! {
        @if !exchanges.is_empty() {
            div.wide tabindex="0" role="group" aria-label="Headers" {
                table.wire {
                    caption { "On the wire: " (count(exchanges.len(), "request")) }
                    thead { tr { th scope="col" { "Hop" } th scope="col" { "Sent" } th scope="col" { "Arrived" } th scope="col" { "Answer" } } }
                    tbody {
                        @for exchange in exchanges { (wire_row(exchange, whole)) }
                    }
                }
            }
        }
    }
}

fn wire_row(exchange: &Exchange, whole: bool) -> Markup {
    let delivered = exchange.delivered.as_deref();
    let sent: Vec<&str> = lines(&exchange.sent).collect();
    let arrived: Vec<&str> = delivered.into_iter().flat_map(lines).collect();
    html! {
        tr {
            th scope="row" { (exchange.hop) @if let Some(fault) = &exchange.fault { " " small { (fault) } } }
            td { (headers(&sent, &arrived, delivered.is_some())) @if whole { (all("All that was sent", &exchange.sent)) } }
            td {
                @match delivered {
                    Some(head) => { (headers(&arrived, &sent, true)) @if whole && head != exchange.sent { (all("All that arrived", head)) } },
                    None => "nothing",
                }
            }
            td { @match exchange.status { Some(status) => (status), None => "none" } }
        }
    }
}

/// The lines of the headers that a trace travels in; those that the other end does not have are marked.
fn headers(own: &[&str], others: &[&str], compare: bool) -> Markup {
    let of_trace = |line: &&&str| {
        let name = line.split(':').next().unwrap_or_default();
        OF_TRACES.iter().any(|it| name.eq_ignore_ascii_case(it))
    };
    let shown: Vec<&str> = own.iter().filter(of_trace).copied().collect();
    html! {
        @if shown.is_empty() { "no header of a trace" }
        @for line in &shown {
            @let times = |lines: &[&str]| lines.iter().filter(|it| *it == line).count();
            @if compare && times(own) != times(others) { mark { code { (visible(line)) } } } @else { code { (visible(line)) } }
        }
    }
}

fn all(summary: &str, head: &str) -> Markup {
    let text = head.trim_end().lines().map(visible).collect::<Vec<_>>().join("\n");
    html! { details { summary { (summary) } pre tabindex="0" role="group" aria-label=(summary) { (text) } } }
}

/// Whether a header was changed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    /// It was sent and didn't arrive.
    Dropped,
    /// It arrived and wasn't sent.
    Added,
}

/// Returns all headers of an exchange: those that were sent, in order, then those that were added. If nothing arrived, none
/// counts as dropped.
pub fn changes(exchange: &Exchange) -> Vec<(Change, &str)> {
    let count = |head| {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        lines(head).for_each(|line| *counts.entry(line).or_default() += 1);
        counts
    };
    let delivered = exchange.delivered.as_deref();
    let mut added = delivered.map(count);
    let sent = lines(&exchange.sent).map(|line| {
        let is_kept = added.as_ref().is_none_or(|it| it.contains_key(line));
        (if is_kept { Change::None } else { Change::Dropped }, line)
    });
    let mut changes: Vec<_> = sent.collect();
    for (line, times) in count(&exchange.sent) {
        if let Some(more) = added.as_mut().and_then(|it| it.get_mut(line)) {
            *more = more.saturating_sub(times);
        }
    }
    for line in delivered.into_iter().flat_map(lines) {
        if let Some(more) = added.as_mut().and_then(|it| it.get_mut(line)).filter(|it| **it > 0) {
            *more -= 1;
            changes.push((Change::Added, line));
        }
    }
    changes
}

/// The same in a terminal, with all headers: what was sent and did not arrive behind `-`, what arrived and was not sent
/// behind `+`.
pub fn wire_text(case: &Case) -> String {
    let mut text = String::new();
    let rows = || case.trees.iter().flat_map(|tree| &tree.rows);
    for exchange in &case.wire {
        let Exchange { hop, delivered, status, fault, .. } = exchange;
        let answer = status.map_or("no answer".to_owned(), |status| status.to_string());
        let fault = fault.as_ref().map_or(String::new(), |fault| format!("  fault: {fault}"));
        let sender = exchange.sent_by().and_then(|it| {
            rows().find(|row| (row.span.trace_id, row.span.id) == (it.trace_id, it.parent_id))
        });
        let sender = sender.map_or(String::new(), |row| {
            format!("  sent by {} of {}", plain(row.span.name()), plain(row.span.service()))
        });
        let _ = writeln!(text, "{hop}  {answer}{sender}{fault}");
        for (change, line) in changes(exchange) {
            let mark = match change {
                Change::None => ' ',
                Change::Dropped => '-',
                Change::Added => '+',
            };
            let _ = writeln!(text, "  {mark} {}", visible(line));
        }
        if delivered.is_none() {
            text.push_str("  nothing arrived\n");
        }
    }
    text
}

/// A whole case, for a page: the findings first.
pub fn case(case: &Case, links: &Links) -> Markup {
    html! {
        (findings(case, links))
        @if case.unknown_json { p { (UNKNOWN_JSON) } }
        @if let Some(problem) = case.problems.first() {
            p { (count(case.unread, "part")) " of it can't be read; the first: " (problem) }
        }
        @if !case.others.is_empty() { p { "Not shown: " (case.others) } }
        @for tree in &case.trees { (picture(tree)) }
        (wire(&case.wire, false))
    }
}

/// The remark on a case whose headers stood in JSON of an unknown form.
pub const UNKNOWN_JSON: &str = "This is JSON, but no traces in a form that the lab knows: only the headers in it were looked at.";

/// Why there is nothing to show.
pub fn problem(problem: &Unreadable) -> Markup {
    html! { p.findings { "This cannot be read: " (problem) } }
}

/// A sentence whose code stands between backticks.
pub fn marked(sentence: &str) -> Markup {
    html! {
        @for (index, part) in visible(sentence).split('`').enumerate() {
            @if index % 2 == 1 { code { bdi { (part) } } } @else { (part) }
        }
    }
}
