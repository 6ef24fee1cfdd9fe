//! The cheapest way to give each span to a line of the file, as a transportation problem.

use crate::transport::transport;

/// A line that spans can be given to.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    pub min: usize,
    /// `None` without a limit.
    pub max: Option<usize>,
    /// The cost of each span that is missing to make `min`.
    pub missing: u64,
}

/// Equal spans.
#[derive(Debug, Clone, Copy)]
pub struct Supply {
    pub count: usize,
    /// The cost of each that no line takes.
    pub surplus: u64,
}

/// A cheapest assignment.
#[derive(Debug, PartialEq, Eq)]
pub struct Assignment {
    pub cost: u64,
    /// For each supply and each demand: how many are given.
    pub given: Vec<Vec<usize>>,
}

/// The most that one unit costs, so that sums stay far from the limit of the type.
const MOST: i64 = 1 << 40;

/// The cost of a pair that never pays. There is always a cheaper way.
const NEVER: i64 = 1 << 44;

/// Finds a cheapest assignment. `cost` says what it costs to give one of a supply to a demand.
pub fn assign(
    supplies: &[Supply],
    demands: &[Demand],
    cost: impl Fn(usize, usize) -> u64,
) -> Assignment {
    let all: usize = supplies.iter().map(|it| it.count).sum();
    // Each demand has a part that has to be filled and one that may be. The last sink takes the spans that no line takes.
    let parts = demands.iter().flat_map(|Demand { min, max, .. }| {
        let needed = (*min).min(all);
        [needed, max.unwrap_or(all).min(all).saturating_sub(needed)]
    });
    let sinks: Vec<usize> = parts.chain([all]).collect();
    // The first source fills the sinks with the spans that aren't there.
    let absent = sinks.iter().sum::<usize>() - all;
    let sources: Vec<usize> =
        [absent].into_iter().chain(supplies.iter().map(|it| it.count)).collect();
    let of_absent = demands.iter().flat_map(|it| [signed(it.missing), 0]).chain([0]).collect();
    let mut costs: Vec<Vec<i64>> = vec![of_absent];
    for (index, Supply { surplus, .. }) in supplies.iter().enumerate() {
        let of_demand = |(demand, Demand { min, missing, .. }): (usize, &Demand)| {
            let cost = cost(index, demand);
            // What costs more than to have the span too much and another too little is never best.
            let worth = surplus.saturating_add(if *min > 0 { *missing } else { 0 });
            [if cost < worth || cost == 0 { signed(cost) } else { NEVER }; 2]
        };
        let row = demands.iter().enumerate().flat_map(of_demand);
        costs.push(row.chain([signed(*surplus)]).collect());
    }
    let mut given = vec![vec![0; demands.len()]; supplies.len()];
    let mut total = 0;
    for (source, sink, count) in transport(&sources, &sinks, &costs) {
        total += costs[source][sink] * count as i64;
        if source > 0 && sink < 2 * demands.len() {
            given[source - 1][sink / 2] += count;
        }
    }
    // The spans that are missing beyond the number of those that are there.
    let beyond = demands
        .iter()
        .map(|Demand { min, missing, .. }| missing.saturating_mul(min.saturating_sub(all) as u64));
    let cost = beyond.fold(total.unsigned_abs(), u64::saturating_add);
    Assignment { cost, given }
}

fn signed(cost: u64) -> i64 {
    i64::try_from(cost).unwrap_or(MOST).min(MOST)
}
