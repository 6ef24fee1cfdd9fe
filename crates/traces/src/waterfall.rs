//! The waterfall: a trace as one table, a row a span, indented by depth, with a bar for its place in time. The viewer's
//! pages and the book's pictures are made of it.

use maud::{Markup, html};

use crate::analysis::Segment;
use crate::report::LINKED;
use crate::span::{Span, SpanId};
use crate::tree::{Note, Row, Tree, label, took};

/// The style of the waterfall, shared with the book.
pub const CSS: &str = include_str!("waterfall.css");

/// The number of looks that services can have before they repeat. Each bar has a label too.
const LOOKS: usize = 6;

/// With more rows, the columns have fixed widths and the rows come in blocks, so that a browser need not lay out what
/// it does not show.
const LARGE: usize = 500;

/// The largest number of rows that are shown. A browser takes seconds for more, and a page of them would be tens of megabytes.
const MOST: usize = 5_000;

/// The rows of a block.
const BLOCK: usize = 20;

/// The additions of the viewer to the picture: a grid to walk through, with links to the spans.
pub struct Interactive<'a> {
    pub critical_path: &'a [Segment],
    pub selected: Option<SpanId>,
}

/// The picture, as it stands in the book: a table.
pub fn picture(tree: &Tree) -> Markup {
    table(tree, None)
}

/// The same for the viewer: a tree grid, whose rows open and close.
pub fn tree_grid(tree: &Tree, interactive: &Interactive) -> Markup {
    table(tree, Some(interactive))
}

/// One sentence that says what the waterfall shows.
pub fn caption(tree: &Tree) -> String {
    let tops = tree.tops().count();
    let mut caption = format!(
        "{} from {} in {}",
        count(tree.rows.len(), "span"),
        count(tree.services().len(), "service"),
        took(tree.duration),
    );
    if tops > 1 {
        caption.push_str(&format!(", in {tops} pieces"));
    }
    caption
}

/// On a phone, the style sheet lays a row out on three lines. The roles are named, because a browser may not take that for
/// a table any longer.
fn table(tree: &Tree, interactive: Option<&Interactive>) -> Markup {
    let large = tree.rows.len() > LARGE;
    let (table, cell) = match interactive {
        Some(_) => ("treegrid", "gridcell"),
        None => ("table", "cell"),
    };
    let mut critical: Vec<Vec<&Segment>> = vec![Vec::new(); tree.rows.len()];
    for segment in interactive.iter().flat_map(|it| it.critical_path) {
        critical[segment.row].push(segment);
    }
    let rows = tree.rows.iter().zip(critical).take(MOST);
    let rows: Vec<(&Row, Vec<&Segment>)> = rows.collect();
    let block = if large { BLOCK } else { rows.len().max(1) };
    let selected = interactive.and_then(|it| it.selected);
    html! {
        div.wide tabindex=[interactive.is_none().then_some("0")] role="group" aria-label="Waterfall" {
            table.waterfall.large[large] role=(table) aria-label=[interactive.map(|_| "Spans")] {
                caption { (caption(tree)) @if tree.rows.len() > MOST { "; the first " (MOST) " rows are shown: choose a span, and only what is below it" } }
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { "Span" }
                        th scope="col" role="columnheader" { "Kind" }
                        th scope="col" role="columnheader" { "Service" }
                        th scope="col" role="columnheader" { "Remarks" }
                        th.number scope="col" role="columnheader" { "Duration" }
                        th.time scope="col" role="columnheader" {
                            "Time"
                            @if interactive.is_some() {
                                span.ticks aria-hidden="true" {
                                    @for quarter in 0..=4 { span { (took(tree.duration / 4 * quarter)) } }
                                }
                            }
                        }
                    }
                }
                @for rows in rows.chunks(block) {
                    tbody role="rowgroup" {
                        @for (row, critical) in rows {
                            @let span = &row.span;
                            @let selected = selected == Some(span.id);
                            tr.error[span.is_error()] role="row"
                                id=[interactive.map(|_| format!("s{}", span.id))]
                                data-below=[interactive.map(|_| row.below)]
                                aria-level=[interactive.map(|_| row.depth + 1)]
                                aria-expanded=[interactive.filter(|_| row.below > 0).map(|_| "true")]
                                aria-selected=[interactive.map(|_| if selected { "true" } else { "false" })] {
                                th scope="row" role="rowheader" { (name(row, interactive.is_some())) }
                                td.kind role=(cell) { (span.kind()) }
                                td.service role=(cell) { span class={ "swatch look" (look(span.service())) } aria-hidden="true" {} (label(span.service())) }
                                td.remarks role=(cell) { (remarks(row, interactive.is_some())) }
                                td.number role=(cell) { (took(span.duration())) }
                                td.time role=(cell) { (track(tree, span, critical)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn name(row: &Row, interactive: bool) -> Markup {
    let (span, depth) = (&row.span, row.depth.min(30));
    let name = label(span.name());
    html! {
        // A name must not turn the line around.
        div.name title=[(name.chars().count() > 40).then_some(&name)] style=[(depth > 0).then(|| format!("--depth:{depth}"))] dir="auto" {
            @if interactive {
                @if row.below > 0 { span.twist aria-hidden="true" {} }
                a href={ "?span=" (span.id) } { (name) }
                @if row.below > 0 { span.below { (row.below) " below" } }
            } @else {
                (name)
            }
        }
    }
}

fn remarks(row: &Row, interactive: bool) -> Markup {
    html! {
        @for (index, note) in row.notes().iter().enumerate() {
            @if index > 0 { ", " }
            @match note {
                Note::LinkedTo(trace) if interactive => { (LINKED) a href={ "/traces/" (trace) } { (trace) } },
                note => bdi { (note) },
            }
        }
    }
}

/// The look of a service, the same in every trace.
pub fn look(service: &str) -> usize {
    let hash =
        service.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
    hash as usize % LOOKS
}

/// The bar of a span within the trace. Below it are the times for which the request waited for the span. The style sheet
/// draws a hairline if a span is too short.
fn track(tree: &Tree, span: &Span, critical: &[&Segment]) -> Markup {
    let percent = |nanoseconds: u64| 100.0 * nanoseconds as f64 / tree.duration.max(1) as f64;
    let place = |start: u64, end: u64| {
        // What ends the trace must still be seen.
        let left = percent(start.saturating_sub(tree.start)).min(99.5);
        let width = percent(end - start).min(100.0 - left);
        format!("left:{left:.2}%;width:{width:.2}%")
    };
    let waited: u64 = critical.iter().map(|it| it.end - it.start).sum();
    html! {
        div.track {
            div class={ "bar look" (look(span.service())) } style=(place(span.start(), span.end())) {}
            @for segment in critical { i style=(place(segment.start, segment.end)) {} }
        }
        @if waited > 0 { span.unseen { (took(waited)) " of the critical path" } }
    }
}

/// `1 span`, `2 spans`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The waterfall as a picture of its own, for places that show images and no HTML, such as a README.
pub fn svg(tree: &Tree, width: usize) -> String {
    let height = 96 + 29 * tree.rows.len();
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
            foreignObject width="100%" height="100%" {
                div.picture xmlns="http://www.w3.org/1999/xhtml" {
                    style { (maud::PreEscaped(CSS)) }
                    (picture(tree))
                }
            }
        }
    }
    .into_string()
}
