//! How long it takes to compare two traces of 10,000 spans: `cargo bench -p traces`.
//!
//! The last case is the slowest that there is: the work on pairs reaches its limit.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use support::in_process::table;
use traces::compare::compare;
use traces::otlp;
use traces::tree::Tree;

fn tree(rows: &[String]) -> Tree {
    let spans = otlp::from_json(table(&rows.join("\n")).to_string().as_bytes());
    let spans = spans.map(|it| it.items.into_iter().map(Arc::new).collect::<Vec<_>>());
    Tree::new(&spans.unwrap_or_default()).expect("a tree")
}

/// Seven services whose spans have about three children each. If `renamed` isn't 0, every span with a multiple of it as its number
/// has a name of its own.
fn wide(renamed: usize) -> Tree {
    let rows: Vec<String> = (1..=10_000_usize)
        .map(|id| {
            let parent = if id > 1 { format!("<{}", (id / 3).max(1)) } else { String::new() };
            let letter = |number: usize| char::from(b'a' + (number % 26) as u8);
            let name = if renamed > 0 && id % renamed == 0 { 'Z' } else { letter(id * 7) };
            format!("1 {} {id}{parent} CLIENT {}..{} {name}", letter(id % 7), id, 20_000 - id)
        })
        .collect();
    tree(&rows)
}

/// Siblings with the same name, and below each five spans of random names.
fn siblings(count: usize, seed: u64) -> Tree {
    let mut random = Rng::with_seed(seed);
    let mut rows = vec!["1 a 1 SERVER 0..9 root".to_owned()];
    for call in 0..count {
        let id = 2 + 10 * call;
        rows.push(format!("1 a {id}<1 CLIENT 1..2 call"));
        for below in 1..6 {
            rows.push(format!(
                "1 b {}<{id} SERVER 1..2 {}",
                id + below,
                char::from(random.u8(b'a'..b'm'))
            ));
        }
    }
    tree(&rows)
}

fn compared(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compare");
    group.sample_size(10);
    for (name, a, b) in [
        ("10,000 spans with themselves", wide(0), wide(0)),
        ("10,000 spans, one in a hundred with another name", wide(0), wide(100)),
        ("250 siblings that all differ below", siblings(250, 1), siblings(250, 2)),
        ("1,666 siblings that all differ below", siblings(1666, 1), siblings(1666, 2)),
    ] {
        group.bench_function(name, |bench| bench.iter(|| black_box(compare(&a, &b))));
        let found = compare(&a, &b);
        println!("{name}: {:?} alone, exact: {}", found.alone(), found.exact);
    }
    group.finish();
}

criterion_group!(benches, compared);
criterion_main!(benches);
