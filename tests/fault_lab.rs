//! The fault lab: without a fault the proxies change nothing; with each fault, what its page says happens to the real services.
//! `SNAPSHOTS=overwrite cargo test --test book fault_lab` rewrites the page's figures.

use clap::ValueEnum as _;
use course::experiment::Experiment;
use course::hops::{HOPS, Hop};
use lab::case::Case;
use lab::compare::compare;
use lab::list::List;
use lab::report::Links;
use lab::request;
use lab::span::{Span, SpanKind};
use lab::wire::{Fault, LATENCY};
use support::in_process::Lab;
use support::recording::{Compared, check_named};
use support::{Setup, WHOLE, has, lacks, shape};

/// One request of the fault lab, to services that are then stopped: so all their spans are there.
pub async fn experiment(hop: Hop, fault: Option<Fault>) -> Case {
    let system = Setup::default().wired().start().await;
    let gateway = system.wire.address(HOPS[0].name).expect("a proxy");
    let sent = Experiment { hop, fault }.send(gateway, &system.wire, &system.store);
    let id = sent.await.expect("it is sent");
    let stopped = system.stop().await;
    let list = List::new(stopped.store.clone());
    let case = request::case(&list, &stopped.wire, id).expect("a case");
    // Nothing of the request has been left out.
    assert_eq!(case.trees.len(), stopped.trees().len());
    assert_eq!(case.wire.len(), stopped.wire.exchanges().len());
    case
}

/// The tree of a request when nothing is wrong with its headers: that of the services, below the client.
fn whole() -> String {
    let services = WHOLE.lines().map(|line| format!("  {line}\n"));
    "POST /api/query CLIENT fault-lab http 200\n".to_owned() + &services.collect::<String>()
}

/// The lines of [`whole`] at which each hop's SERVER span stands, and how deep.
const SERVERS: [(usize, usize); 3] = [(1, 1), (3, 3), (6, 5)];

/// [`whole`] before a hop and behind it, each as a tree of its own.
fn halves(hop: Hop) -> [String; 2] {
    let index = HOPS.iter().position(|it| *it == hop).expect("a hop");
    let (line, depth) = SERVERS[index];
    let whole = whole();
    let lines: Vec<&str> = whole.lines().collect();
    let before = lines[..line].join("\n") + "\n";
    let behind: String = lines[line..].iter().map(|it| format!("{}\n", &it[2 * depth..])).collect();
    [before, behind]
}

/// The part of the tree before the hop, where the call fails as `call` says. The caller's own client gets the error too.
fn failed(hop: Hop, call: &str) -> String {
    let [before, _] = halves(hop);
    let before = before.replace("http 200", "http 502 error 502");
    before.trim_end().strip_suffix("http 502 error 502").expect("a call").to_owned() + call + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_there_is_one_trace_and_the_headers_arrive_as_they_were_sent() {
    let case = experiment(HOPS[0], None).await;
    assert_eq!(case.trees.iter().map(shape).collect::<Vec<_>>(), [whole()]);
    assert!(case.trees[0].is_whole());
    let hops: Vec<&str> = case.wire.iter().map(|it| it.hop.as_str()).collect();
    assert_eq!(hops, HOPS.map(|hop| hop.name));
    for exchange in &case.wire {
        assert_eq!(exchange.delivered.as_ref(), Some(&exchange.sent));
        assert_eq!(exchange.status, Some(200));
    }
    assert_eq!(case.findings(), []);
}

inventory::submit! {
    Compared(|| {
        let faults = Fault::value_variants().iter();
        faults.map(|fault| format!("faults/{}.html", fault.name())).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_on_every_hop_does_what_the_page_says() {
    for fault in Fault::value_variants() {
        let (fault, name) = (*fault, fault.name());
        let mut page = String::new();
        for hop in HOPS {
            let case = experiment(hop, Some(fault)).await;
            let what = format!("{name} on {}", hop.name);
            traces_are_as_said(&case, hop, fault, &what);
            headers_are_as_said(&case, hop, fault, &what);
            let links = Links { book: Some("../"), span: &|_| None };
            let figure = Experiment { hop, fault: Some(fault) }.figure(&case, &links).into_string();
            page.push_str(&format!(
                "<section class=\"fault\" id=\"{name}-{}\"><h4>{what}</h4>{figure}</section>\n",
                hop.name
            ));
        }
        check_named(&format!("faults/{name}.html"), &page);
    }
}

fn traces_are_as_said(case: &Case, hop: Hop, fault: Fault, what: &str) {
    let [before, behind] = halves(hop);
    let first = hop == HOPS[0];
    let (shapes, status) = match fault {
        Fault::DropTraceparent
        | Fault::TruncateTraceparent
        | Fault::UpperCaseValue
        | Fault::ForgeTraceparent => (vec![before, behind], Some(200)),
        Fault::ClearSampled => (vec![before], Some(200)),
        Fault::UpperCaseName
        | Fault::DuplicateTraceparent
        | Fault::DropTracestate
        | Fault::DropBaggage
        | Fault::AddLatency => (vec![whole()], Some(200)),
        Fault::Cut if first => (vec![failed(hop, "error connection")], None),
        Fault::Cut => (vec![failed(hop, "error unreachable")], Some(502)),
        Fault::Answer500 => {
            (vec![failed(hop, "http 500 error 500")], Some(if first { 500 } else { 502 }))
        }
    };
    let found: Vec<String> = case.trees.iter().map(shape).collect();
    assert_eq!((found, case.wire[0].status), (shapes, status), "{what}");
    for (index, tree) in case.trees.iter().enumerate() {
        // The part behind a forged header has a parent that nobody sent.
        let orphan = fault == Fault::ForgeTraceparent && index == 1;
        assert_eq!((tree.is_whole(), tree.rows[0].orphan), (!orphan, orphan), "{what}");
    }
    if fault == Fault::AddLatency {
        let rows = &case.trees[0].rows;
        let is_server = |span: &Span| span.kind() == SpanKind::Server && span.service() == hop.to;
        let server = rows.iter().find(|row| is_server(&row.span)).expect("the span");
        let client = &rows[server.parent.expect("its parent")].span;
        let gap = server.span.start() - client.start();
        assert!(u128::from(gap) >= LATENCY.as_nanos(), "{what}: {gap}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_a_hop_adds_is_found_in_the_call_before_it() {
    let whole = experiment(HOPS[0], None).await;
    for hop in HOPS {
        let slow = experiment(hop, Some(Fault::AddLatency)).await;
        let comparison = compare(&whole.trees[0], &slow.trees[0]);
        assert!(!comparison.differs(), "{}", hop.name);
        let (caller, waited, rows) = &comparison.services()[0];
        let server = comparison.answered_by(rows[0]);
        assert_eq!((*caller, server), (hop.from, Some(hop.to)), "{}", hop.name);
        // Of the rest, a request takes a few milliseconds.
        let added = waited.difference() as f64 / 1e6;
        let expected = LATENCY.as_secs_f64() * 1e3;
        assert!((expected - 100.0..expected + 100.0).contains(&added), "{}: {added}", hop.name);
    }
}

fn headers_are_as_said(case: &Case, hop: Hop, fault: Fault, what: &str) {
    let (at, others): (Vec<_>, Vec<_>) = case.wire.iter().partition(|it| it.hop == hop.name);
    let (sent, delivered) = (&at[0].sent, &at[0].delivered);
    assert_eq!(at[0].fault, Some(fault.name()), "{what}");
    let traceparent = |head: &str| -> String {
        let value = head.split("\r\n").find_map(|line| line.strip_prefix("traceparent: "));
        value.unwrap_or_else(|| panic!("{what}: no traceparent in {head}")).to_owned()
    };
    let without = |name: &str| -> String {
        let lines = sent.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with(&format!("{name}:"))).collect()
    };
    let value = traceparent(sent);
    let with = |lines: String| sent.replace(&format!("traceparent: {value}"), &lines);
    let expected = match fault {
        Fault::Cut | Fault::Answer500 => None,
        Fault::AddLatency => Some(sent.clone()),
        Fault::DropTraceparent => Some(without("traceparent")),
        Fault::DropTracestate => Some(without("tracestate")),
        Fault::DropBaggage => Some(without("baggage")),
        Fault::TruncateTraceparent => Some(with(format!("traceparent: {}", &value[..30]))),
        Fault::UpperCaseValue => Some(with(format!("traceparent: {}", value.to_uppercase()))),
        Fault::UpperCaseName => Some(with(format!("TRACEPARENT: {value}"))),
        Fault::DuplicateTraceparent => {
            Some(with(format!("traceparent: {value}\r\ntraceparent: {value}")))
        }
        Fault::ClearSampled => {
            let cleared = value.strip_suffix("01").expect("sampled");
            Some(with(format!("traceparent: {cleared}00")))
        }
        Fault::ForgeTraceparent => {
            let forged = traceparent(delivered.as_ref().expect("a request"));
            assert_ne!(forged, value, "{what}");
            Some(with(format!("traceparent: {forged}")))
        }
    };
    assert_eq!(delivered, &expected, "{what}");
    // On the other hops nothing was changed.
    for other in others {
        assert_eq!((&other.fault, other.delivered.as_ref()), (&None, Some(&other.sent)), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_over_the_wire_stands_beside_the_span_that_sent_it() {
    let system = Setup::default().wired().start().await;
    let gateway = system.wire.address(HOPS[0].name).expect("a proxy");
    let send = async |hop, fault| {
        let sent = Experiment { hop, fault }.send(gateway, &system.wire, &system.store);
        sent.await.expect("it is sent")
    };
    let unseen = send(HOPS[0], Some(Fault::ClearSampled)).await;
    let whole = send(HOPS[1], None).await;
    let stopped = system.stop().await;
    let tree = stopped.tree(&whole.to_string());
    let lab = Lab::around(stopped.store, stopped.wire).await;
    let detail = async |row: usize| {
        lab.page(format!("/traces/{whole}/spans/{}", tree.rows[row].span.id)).await
    };
    for (row, hop) in [(2, "gateway-user"), (3, "gateway-user"), (5, "user-llm")] {
        has(&detail(row).await, [&format!("<th scope=\"row\">{hop}</th>"), "All that was sent"]);
    }
    lacks(&detail(4).await, ["On the wire"]);
    let page = lab.page(format!("/traces/{whole}")).await;
    has(
        &page,
        [
            "What went over the wire",
            "On the wire: 3 requests",
            "Diagnosis: No rule found a fault in ",
        ],
    );
    // Only the client has a span of the other one.
    has(&lab.page(format!("/traces/{unseen}")).await, ["Diagnosis: 1 finding. Not sampled"]);
    let (status, _) = lab.get("/traces/4bf92f3577b34da6a3ce929d0e0e4736.case.json").await;
    assert_eq!(status, 404);
}
