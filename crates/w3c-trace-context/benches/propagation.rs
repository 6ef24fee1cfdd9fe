//! Extract and inject: this crate against `opentelemetry_sdk`, on the same headers in the same run.
//!
//! `cargo bench -p w3c-trace-context`. First comes a table of both: their allocations, and the ratio of their times.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation as sdk;
use w3c_trace_context::{
    BaggagePropagator, HeaderExtractor, HeaderInjector, TraceContextPropagator,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: &dyn Fn()) -> usize {
    work();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Requests as they come: the name of the class, and their headers.
fn inputs() -> Vec<(&'static str, HeaderMap)> {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let state = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
    let long: Vec<String> = (0..32).map(|n| format!("vendor{n}=00f067aa0ba902b7")).collect();
    let baggage = "userId=alice,serverNode=DF%2028,isProduction=false;scope=global";
    let entries: Vec<String> = (0..40).map(|n| format!("key{n}=value%20{n}")).collect();
    let inputs: [(&str, &[(&'static str, &str)]); 8] = [
        ("none", &[]),
        ("traceparent", &[("traceparent", parent)]),
        ("tracestate", &[("traceparent", parent), ("tracestate", state)]),
        ("tracestate of 32", &[("traceparent", parent), ("tracestate", &long.join(","))]),
        ("invalid", &[("traceparent", &parent[1..])]),
        ("future version", &[("traceparent", &parent.replacen("00", "cc", 1))]),
        ("baggage", &[("baggage", baggage)]),
        ("baggage of 40", &[("baggage", &entries.join(","))]),
    ];
    let map = |headers: &[(&'static str, &str)]| -> HeaderMap {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        // As a server has them: among others.
        let others =
            [("host", "127.0.0.1"), ("accept", "*/*"), ("content-type", "application/json")];
        let others = others
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        others.into_iter().chain(headers).collect()
    };
    inputs.map(|(name, headers)| (name, map(headers))).to_vec()
}

type Extract = Box<dyn Fn(&HeaderMap) -> Context>;
type Inject = Box<dyn Fn(&Context, &mut HeaderMap)>;

/// Each with the carriers that belong to it.
fn contenders(input: &str) -> [(&'static str, Extract, Inject); 2] {
    let (ours, theirs): (Box<dyn TextMapPropagator>, Box<dyn TextMapPropagator>) = match input
        .starts_with("baggage")
    {
        true => (Box::new(BaggagePropagator::new()), Box::new(sdk::BaggagePropagator::new())),
        false => {
            (Box::new(TraceContextPropagator::new()), Box::new(sdk::TraceContextPropagator::new()))
        }
    };
    let (ours, theirs): (&'static _, &'static _) = (Box::leak(ours), Box::leak(theirs));
    [
        (
            "sdk",
            Box::new(|headers| {
                theirs.extract_with_context(
                    &Context::new(),
                    &opentelemetry_http::HeaderExtractor(headers),
                )
            }),
            Box::new(|cx, headers| {
                theirs.inject_context(cx, &mut opentelemetry_http::HeaderInjector(headers))
            }),
        ),
        (
            "ours",
            Box::new(|headers| {
                ours.extract_with_context(&Context::new(), &HeaderExtractor(headers))
            }),
            Box::new(|cx, headers| ours.inject_context(cx, &mut HeaderInjector(headers))),
        ),
    ]
}

/// How long `theirs` and `ours` take, as the ratio of ours to theirs: the median of many short turns, taken alternately,
/// so that what else the machine does falls on both.
fn ratio(theirs: &dyn Fn(), ours: &dyn Fn()) -> f64 {
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        (0..200).for_each(|_| work());
        start.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..1001).map(|_| time(ours) / time(theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// A line for each input: the allocations of both, and the ratio of their times.
fn table() {
    println!("{:28} {:>11} {:>11} {:>11}", "", "allocations", "allocations", "time");
    println!("{:28} {:>11} {:>11} {:>11}", "", "of the sdk", "of ours", "ours / sdk");
    for (input, headers) in inputs() {
        let [(_, extract_theirs, inject_theirs), (_, extract_ours, inject_ours)] =
            contenders(input);
        let cx = extract_ours(&headers);
        let line = |name: &str, theirs: &dyn Fn(), ours: &dyn Fn()| {
            let (theirs_made, ours_made) = (allocations(theirs), allocations(ours));
            let ratio = ratio(theirs, ours);
            let name = format!("{name} {input}");
            println!("{name:28} {theirs_made:11} {ours_made:11} {ratio:11.2}");
        };
        line("extract", &|| drop(black_box(extract_theirs(black_box(&headers)))), &|| {
            drop(black_box(extract_ours(black_box(&headers))))
        });
        line(
            "inject",
            &|| inject_theirs(black_box(&cx), &mut black_box(HeaderMap::new())),
            &|| inject_ours(black_box(&cx), &mut black_box(HeaderMap::new())),
        );
    }
}

fn propagation(criterion: &mut Criterion) {
    table();
    for (input, headers) in inputs() {
        for (name, extract, inject) in contenders(input) {
            let id = format!("extract {input}/{name}");
            criterion.bench_function(&id, |bencher| bencher.iter(|| extract(black_box(&headers))));
            let cx = extract(&headers);
            let id = format!("inject {input}/{name}");
            let mut sent = HeaderMap::new();
            criterion.bench_function(&id, |bencher| {
                bencher.iter(|| inject(black_box(&cx), &mut sent));
            });
        }
    }
}

criterion_group!(benches, propagation);
criterion_main!(benches);
