//! The map of the services: the calls between them, as a drawing and as a table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use crate::analysis::Calls;
use crate::list::List;
use crate::operations::{OPERATIONS_LIMIT, Operation, Operations};
use crate::service_map::ServiceMap;
use crate::span::shortened;
use crate::tree::{LONGEST, Tree, label, took};
use crate::viewer;
use crate::waterfall::{count, look};

/// The calls between services. The key has the caller and the called service.
type Edges<'a> = BTreeMap<(&'a str, &'a str), Calls>;

pub async fn page(State(list): State<List>) -> Response {
    let seen = list.store.version();
    let map = ServiceMap::new(&list.store, |_| true);
    let entries: BTreeSet<&str> = map.entries.iter().map(String::as_str).collect();
    let (edges, outside) = edges(&map, &entries);
    let body = html! {
        h1 { "Map of the services" }
        div id="results" data-live=(viewer::events_url(seen, None)) {
            @if edges.is_empty() {
                p { "No service has called another yet." }
            } @else {
                p { "Of " (count(map.traces, "trace")) "." }
                @if map.is_cut { p.notice { "Calls between further services are not counted." } }
                @if !outside.is_empty() {
                    p { "A dashed box is a destination without spans of its own, such as a database. It has the name that its callers give it." }
                }
                (drawing(&edges, &entries, &outside))
            }
            (operations(Operations::new(&list.store), map.traces))
        }
    };
    viewer::page("Map", body)
}

/// Returns all calls of a map, and the destinations among them that have sent no spans.
fn edges<'a>(map: &'a ServiceMap, entries: &BTreeSet<&'a str>) -> (Edges<'a>, BTreeSet<&'a str>) {
    fn names<'a>(((caller, called), _): (&'a (String, String), &'a Calls)) -> [&'a str; 2] {
        [caller, called]
    }
    let mut edges = Edges::new();
    for ((caller, called), calls) in map.calls.iter().chain(&map.outgoing) {
        // A service can name itself.
        if caller != called {
            let sum = edges.entry((&**caller, &**called)).or_default();
            sum.count += calls.count;
            sum.errors += calls.errors;
        }
    }
    let callers = map.outgoing.keys().map(|(caller, _)| &**caller);
    let services: BTreeSet<&str> = map.calls.iter().flat_map(names).chain(callers).collect();
    let called = edges.keys().map(|(_, called)| *called);
    let outside = called.filter(|it| !services.contains(it) && !entries.contains(it)).collect();
    (edges, outside)
}

/// The largest number of operations in the table.
const OPERATIONS_SHOWN: usize = 200;

/// Renders how long the operations of all services took, the slowest first.
fn operations(Operations { found, is_cut }: Operations, traces: usize) -> Markup {
    let count_of_found = found.len();
    let mut slowest: Vec<((String, String), Operation)> = found.into_iter().collect();
    slowest.sort_by_key(|(_, operation)| Reverse(operation.percentile(95)));
    slowest.truncate(OPERATIONS_SHOWN);
    html! {
        @if count_of_found > 0 {
            h2 id="operations" { "How long operations took" }
            p {
                "Half of the spans took at most p50, and 95 of 100 at most p95. The table counts the SERVER and CONSUMER spans of "
                (count(traces, "trace")) " that the lab has now, and the roots. Ids and numbers in names don't count."
            }
            @if is_cut { p.notice { "The lab counts " (OPERATIONS_LIMIT) " operations. Others are left out." } }
            div.wide tabindex="0" role="group" aria-label="Operations" {
                table.traces.operations {
                    caption {
                        (count(count_of_found, "operation")) ", by p95"
                        @if count_of_found > OPERATIONS_SHOWN { "; the first " (OPERATIONS_SHOWN) " are shown" }
                    }
                    thead {
                        tr {
                            th scope="col" { "Operation" } th scope="col" { "Service" } th.number scope="col" { "Spans" }
                            th.number scope="col" { "p50" } th.number scope="col" { "p95" } th.number scope="col" { "Errors" }
                            th.number scope="col" { "Error rate" }
                        }
                    }
                    tbody { @for ((service, name), operation) in &slowest { (operation_row(service, name, operation)) } }
                }
            }
        }
    }
}

fn operation_row(service: &str, name: &str, operation: &Operation) -> Markup {
    let errors = operation.errors;
    let rate = 100.0 * errors as f64 / operation.spans().max(1) as f64;
    html! {
        tr {
            th scope="row" dir="auto" { (label(name)) }
            td { span.service { span class={ "swatch look" (look(service)) } aria-hidden="true" {} (shortened(service, LONGEST)) } }
            td.number { (operation.spans()) }
            td.number { (took(operation.percentile(50))) }
            td.number { (took(operation.percentile(95))) }
            td.number.error[errors > 0] { (errors) }
            td.number.error[errors > 0] { (format!("{rate:.1}")) " %" }
        }
    }
}

/// The width and height of a service's box, in SVG units like the other lengths.
const WIDTH: usize = 190;
const HEIGHT: usize = 40;
/// The distances between the left edges of two columns and between the upper edges of two lines.
const COLUMN: usize = 300;
const LINE: usize = 70;

/// The largest number of services or arrows in a drawing. Larger drawings are unreadable.
const DRAWING_LIMIT: usize = 40;

/// The largest number of rows in the table.
const ROWS_LIMIT: usize = 500;

/// Returns the services in which traces begin. The map begins with them too.
pub fn entries<'a>(trees: impl IntoIterator<Item = &'a Tree>) -> BTreeSet<&'a str> {
    let tops = trees.into_iter().filter_map(|tree| tree.tops().next());
    tops.map(|top| top.span.service()).collect()
}

/// Renders the map. Callers are left of the services that they call. Those in `outside` have sent no spans.
pub fn drawing(edges: &Edges, entries: &BTreeSet<&str>, outside: &BTreeSet<&str>) -> Markup {
    let services: BTreeSet<&str> = edges.keys().flat_map(|(from, to)| [*from, *to]).collect();
    html! {
        @if services.len().max(edges.len()) <= DRAWING_LIMIT { (picture(edges, entries, outside)) }
        @else { p { (count(services.len(), "service")) " and " (edges.len()) " ways between them are too much to draw." } }
        (table(edges, outside))
    }
}

fn picture(edges: &Edges, entries: &BTreeSet<&str>, outside: &BTreeSet<&str>) -> Markup {
    let columns = columns(edges, entries);
    let mut filled: BTreeMap<usize, usize> = BTreeMap::new();
    let mut places: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (service, column) in &columns {
        let line = filled.entry(*column).or_default();
        places.insert(service, (8 + column * COLUMN, 8 + *line * LINE));
        *line += 1;
    }
    let width = columns.values().max().map_or(0, |last| last * COLUMN) + WIDTH + 16;
    let height = filled.values().max().map_or(0, |most| (most - 1) * LINE) + LINE + 16;
    html! {
        div.wide.map tabindex="0" role="group" aria-label="Map" {
            svg role="img" aria-label="Map of the services; the table below says the same" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
                defs {
                    marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse" {
                        path d="M0 0 10 5 0 10z" fill="currentColor" {}
                    }
                }
                @for ((caller, called), calls) in edges {
                    (arrow(places[caller], places[called], calls))
                }
                @for (service, (x, y)) in &places {
                    @let is_outside = outside.contains(service);
                    rect.outside[is_outside] x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="5" {}
                    foreignObject x=(x) y=(y) width=(WIDTH) height=(HEIGHT) {
                        div.node {
                            @if !is_outside { span class={ "swatch look" (look(service)) } {} }
                            span { (shortened(service, 60)) }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the pairs of services with the most calls.
fn table(edges: &Edges, outside: &BTreeSet<&str>) -> Markup {
    let link = |service: &str| {
        if outside.contains(service) {
            return html! { bdi { (shortened(service, LONGEST)) } " (no spans)" };
        }
        // Pairs of strings can always be encoded.
        let query = serde_urlencoded::to_string([("service", service)]).unwrap_or_default();
        html! { a href={ "/traces?" (query) } { (shortened(service, LONGEST)) } }
    };
    let mut busiest: Vec<_> = edges.iter().collect();
    if busiest.len() > ROWS_LIMIT {
        busiest.sort_by_key(|(_, calls)| Reverse(calls.count));
        busiest.truncate(ROWS_LIMIT);
    }
    html! {
        table.traces.calls {
            caption {
                "Calls between services"
                @if edges.len() > ROWS_LIMIT { "; the " (ROWS_LIMIT) " most frequent of " (edges.len()) " are shown" }
            }
            thead { tr { th scope="col" { "From" } th scope="col" { "To" } th.number scope="col" { "Calls" } th.number scope="col" { "Errors" } } }
            tbody {
                @for ((caller, called), Calls { count, errors }) in busiest {
                    tr { th scope="row" { (link(caller)) } td { (link(called)) } td.number { (count) } td.number.error[*errors > 0] { (errors) } }
                }
            }
        }
    }
}

/// Draws an arrow between the boxes of two services at these positions. An arrow to the right goes from the right edge to the
/// left edge. Other arrows go from lower edge to lower edge.
fn arrow(from: (usize, usize), to: (usize, usize), calls: &Calls) -> Markup {
    let forward = from.0 < to.0;
    let (start, end) = match forward {
        true => ((from.0 + WIDTH, from.1 + HEIGHT / 2), (to.0, to.1 + HEIGHT / 2)),
        false => ((from.0 + WIDTH / 2, from.1 + HEIGHT), (to.0 + WIDTH / 2 + 20, to.1 + HEIGHT)),
    };
    let (x, y) = ((start.0 + end.0) / 2, (start.1 + end.1) / 2);
    let bend = if forward { 0 } else { 40 };
    html! {
        path.call.error[calls.errors > 0] d=(format!("M{} {}Q{} {} {} {}", start.0, start.1, x, y + bend, end.0, end.1)) marker-end="url(#arrow)" {}
        text x=(x) y=(if forward { y - 6 } else { y + bend / 2 - 4 }) text-anchor="middle" {
            (count(calls.count, "call"))
            @if calls.errors > 0 { tspan.error x=(x) dy="22" { (count(calls.errors, "error")) } }
        }
    }
}

/// Returns the column of each service, which is right of the columns of its callers. Ignores calls that close a cycle,
/// because no order exists with them.
fn columns<'a>(edges: &Edges<'a>, entries: &BTreeSet<&str>) -> BTreeMap<&'a str, usize> {
    let mut called: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    for (from, to) in edges.keys() {
        called.entry(from).or_default().push(to);
        called.entry(to).or_default();
    }
    let services: Vec<&'a str> = edges.keys().flat_map(|(from, to)| [*from, *to]).collect();
    let mut first: Vec<&'a str> = services.clone();
    first.sort_by_key(|service| {
        let is_called = edges.keys().any(|(_, to)| to == service);
        (!entries.contains(service), is_called, *service)
    });
    // A depth-first search: a service is added after all services that it calls.
    let (mut order, mut seen): (Vec<&'a str>, BTreeSet<&str>) = (Vec::new(), BTreeSet::new());
    for service in first {
        let mut pending = vec![(service, 0)];
        while let Some((service, next)) = pending.pop() {
            if next == 0 && !seen.insert(service) {
                continue;
            }
            match called[service].get(next) {
                Some(below) => {
                    pending.push((service, next + 1));
                    if !seen.contains(below) {
                        pending.push((below, 0));
                    }
                }
                None => order.push(service),
            }
        }
    }
    order.reverse();
    let place: BTreeMap<&str, usize> =
        order.iter().enumerate().map(|(place, service)| (*service, place)).collect();
    let mut columns: BTreeMap<&'a str, usize> =
        services.iter().map(|service| (*service, 0)).collect();
    for service in &order {
        for below in &called[service] {
            if place[below] > place[service] {
                let column = columns[below].max(columns[service] + 1);
                columns.insert(below, column);
            }
        }
    }
    columns
}
