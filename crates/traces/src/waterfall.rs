//! The waterfall: a trace as one table, a row a span, indented by depth, with a bar for its place in time. The viewer's
//! pages and the book's pictures are made of it.

use maud::{Markup, html};

use crate::analysis::Segment;
use crate::diagnose::Place;
use crate::report::LINKED;
use crate::span::{Span, SpanId, TraceId};
use crate::tree::{Note, Row, Tree, label, took};

/// The style of the waterfall, shared with the book.
pub const CSS: &str = include_str!("waterfall.css");

/// The number of looks that services can have before they repeat. Each bar has a label too.
const LOOKS: usize = 6;

/// With more rows, the columns have fixed widths and the rows come in blocks, so that a browser need not lay out what
/// it does not show.
const LARGE: usize = 500;

/// The largest number of rows that are shown. A browser takes seconds for more, and a page of them would be tens of megabytes.
pub const MOST: usize = 5_000;

/// The rows of a block.
const BLOCK: usize = 20;

/// The additions of the viewer to the picture: a grid to walk through, with links to the spans.
pub struct Interactive<'a> {
    pub critical_path: &'a [Segment],
    pub selected: Option<SpanId>,
}

/// The additions of a file that has everything about a request: links to the spans and traces in it.
pub struct Linked<'a> {
    pub critical_path: &'a [Segment],
    /// The number of rows to show, at most [`MOST`].
    pub rows: usize,
    /// The address of a span's detail, or `None` where the file has none.
    pub span: &'a dyn Fn(Place) -> Option<String>,
    /// The address of another trace, or `None` where the file doesn't have the trace.
    pub trace: &'a dyn Fn(TraceId) -> Option<String>,
}

/// Returns the id of a span's row in a file.
pub fn row_id((trace, span): Place) -> String {
    format!("row-{trace}-{span}")
}

/// The place where a waterfall is shown.
#[derive(Clone, Copy)]
enum Form<'a> {
    Picture,
    Grid(&'a Interactive<'a>),
    File(&'a Linked<'a>),
}

impl Form<'_> {
    fn is_grid(self) -> bool {
        matches!(self, Form::Grid(_))
    }

    fn critical_path(&self) -> &[Segment] {
        match self {
            Form::Picture => &[],
            Form::Grid(grid) => grid.critical_path,
            Form::File(file) => file.critical_path,
        }
    }

    fn has_ticks(self) -> bool {
        !matches!(self, Form::Picture)
    }

    fn row_id(self, span: &Span) -> Option<String> {
        match self {
            Form::Picture => None,
            Form::Grid(_) => Some(format!("s{}", span.id)),
            Form::File(_) => Some(row_id((span.trace_id, span.id))),
        }
    }

    fn span(self, span: &Span) -> Option<String> {
        match self {
            Form::Picture => None,
            Form::Grid(_) => Some(format!("?span={}", span.id)),
            Form::File(file) => (file.span)((span.trace_id, span.id)),
        }
    }

    fn trace(self, trace: TraceId) -> Option<String> {
        match self {
            Form::Picture => None,
            Form::Grid(_) => Some(format!("/traces/{trace}")),
            Form::File(file) => (file.trace)(trace),
        }
    }

    fn rows(self) -> usize {
        match self {
            Form::Picture | Form::Grid(_) => MOST,
            Form::File(file) => file.rows.min(MOST),
        }
    }
}

/// The picture, as it stands in the book: a table.
pub fn picture(tree: &Tree) -> Markup {
    table(tree, Form::Picture)
}

/// The same for the viewer: a tree grid, whose rows open and close.
pub fn tree_grid(tree: &Tree, interactive: &Interactive) -> Markup {
    table(tree, Form::Grid(interactive))
}

/// The same for a file: a table, whose rows lead to the spans.
pub fn linked_table(tree: &Tree, linked: &Linked) -> Markup {
    table(tree, Form::File(linked))
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
fn table(tree: &Tree, form: Form) -> Markup {
    let large = tree.rows.len() > LARGE;
    let (table, cell) = match form.is_grid() {
        true => ("treegrid", "gridcell"),
        false => ("table", "cell"),
    };
    let mut critical: Vec<Vec<&Segment>> = vec![Vec::new(); tree.rows.len()];
    for segment in form.critical_path() {
        critical[segment.row].push(segment);
    }
    let rows = tree.rows.iter().zip(critical).take(form.rows());
    let rows: Vec<(&Row, Vec<&Segment>)> = rows.collect();
    let block = if large { BLOCK } else { rows.len().max(1) };
    let selected = match form {
        Form::Grid(grid) => grid.selected,
        Form::Picture | Form::File(_) => None,
    };
    let is_grid = form.is_grid();
    html! {
        div.wide tabindex=[(!is_grid).then_some("0")] role="group" aria-label="Waterfall" {
            table.waterfall.large[large] role=(table) aria-label=[is_grid.then_some("Spans")] {
                caption { (caption(tree)) @if tree.rows.len() > rows.len() { (left_out(rows.len(), form)) } }
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { "Span" }
                        th scope="col" role="columnheader" { "Kind" }
                        th scope="col" role="columnheader" { "Service" }
                        th scope="col" role="columnheader" { "Remarks" }
                        th.number scope="col" role="columnheader" { "Duration" }
                        th.time scope="col" role="columnheader" {
                            "Time"
                            @if form.has_ticks() {
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
                                id=[form.row_id(span)]
                                data-below=[is_grid.then_some(row.below)]
                                aria-level=[is_grid.then_some(row.depth + 1)]
                                aria-expanded=[(is_grid && row.below > 0).then_some("true")]
                                aria-selected=[is_grid.then_some(if selected { "true" } else { "false" })] {
                                th scope="row" role="rowheader" { (name(row, form)) }
                                td.kind role=(cell) { (span.kind()) }
                                td.service role=(cell) { span class={ "swatch look" (look(span.service())) } aria-hidden="true" {} (label(span.service())) }
                                td.remarks role=(cell) { (remarks(row, form)) }
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

/// Says how many rows are shown of a trace that has more.
fn left_out(shown: usize, form: Form) -> Markup {
    html! {
        "; the first " (shown) " rows are shown"
        @match form {
            Form::Picture | Form::Grid(_) => ": choose a span, and only what is below it",
            Form::File(_) => ": the data in this file has all of them",
        }
    }
}

fn name(row: &Row, form: Form) -> Markup {
    let (span, depth) = (&row.span, row.depth.min(30));
    let name = label(span.name());
    html! {
        // A name must not turn the line around.
        div.name title=[(name.chars().count() > 40).then_some(&name)] style=[(depth > 0).then(|| format!("--depth:{depth}"))] dir="auto" {
            @if form.is_grid() && row.below > 0 { span.twist aria-hidden="true" {} }
            @match form.span(span) {
                Some(address) => a href=(address) { (name) },
                None => (name),
            }
            @if form.is_grid() && row.below > 0 { span.below { (row.below) " below" } }
        }
    }
}

fn remarks(row: &Row, form: Form) -> Markup {
    html! {
        @for (index, note) in row.notes().iter().enumerate() {
            @if index > 0 { ", " }
            @let address = match note { Note::LinkedTo(trace) => form.trace(*trace), _ => None };
            @match (note, address) {
                (Note::LinkedTo(trace), Some(address)) => { (LINKED) a href=(address) { (trace) } },
                (note, _) => bdi { (note) },
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
