//! The cheapest way to give each span to a line of the file: a flow of least cost, found by shortest paths.

use std::collections::VecDeque;

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

struct Edge {
    to: usize,
    capacity: usize,
    cost: i64,
}

/// Finds a cheapest assignment. `cost` says what it costs to give one of a supply to a demand.
pub fn assign(
    supplies: &[Supply],
    demands: &[Demand],
    cost: impl Fn(usize, usize) -> u64,
) -> Assignment {
    let all: usize = supplies.iter().map(|it| it.count).sum();
    let (source, sink) = (supplies.len() + demands.len(), supplies.len() + demands.len() + 1);
    let mut graph = Graph { edges: Vec::new(), of: vec![Vec::new(); sink + 1] };
    let mut pairs = Vec::new();
    for (index, supply) in supplies.iter().enumerate() {
        graph.add(source, index, supply.count, 0);
        graph.add(index, sink, supply.count, signed(supply.surplus));
        for (demand, Demand { min, missing, .. }) in demands.iter().enumerate() {
            let cost = cost(index, demand);
            // What costs more than to have the span too much and another too little is never best.
            let worth = supply.surplus.saturating_add(if *min > 0 { *missing } else { 0 });
            if cost < worth || cost == 0 {
                pairs.push((index, demand, graph.edges.len()));
                graph.add(index, supplies.len() + demand, supply.count, signed(cost));
            }
        }
    }
    let mut base = 0;
    for (index, Demand { min, max, missing }) in demands.iter().enumerate() {
        let needed = (*min).min(all);
        base += missing.saturating_mul(*min as u64);
        graph.add(supplies.len() + index, sink, needed, -signed(*missing));
        let more = max.unwrap_or(all).min(all).saturating_sub(needed);
        graph.add(supplies.len() + index, sink, more, 0);
    }
    let flow = graph.cheapest_flow(source, sink);
    let mut given = vec![vec![0; demands.len()]; supplies.len()];
    for (supply, demand, edge) in pairs {
        given[supply][demand] = graph.edges[edge + 1].capacity;
    }
    Assignment { cost: base.saturating_add_signed(flow), given }
}

fn signed(cost: u64) -> i64 {
    i64::try_from(cost).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

struct Graph {
    /// Each edge is followed by the one that takes its flow back.
    edges: Vec<Edge>,
    of: Vec<Vec<usize>>,
}

impl Graph {
    fn add(&mut self, from: usize, to: usize, capacity: usize, cost: i64) {
        self.of[from].push(self.edges.len());
        self.edges.push(Edge { to, capacity, cost });
        self.of[to].push(self.edges.len());
        self.edges.push(Edge { to: from, capacity: 0, cost: -cost });
    }

    /// Sends as much as the source has and returns the cost.
    fn cheapest_flow(&mut self, source: usize, sink: usize) -> i64 {
        let mut total = 0;
        loop {
            let mut cost = vec![i64::MAX; self.of.len()];
            let mut by: Vec<Option<usize>> = vec![None; self.of.len()];
            let mut waiting = vec![false; self.of.len()];
            let mut queue = VecDeque::from([source]);
            cost[source] = 0;
            while let Some(node) = queue.pop_front() {
                waiting[node] = false;
                for index in &self.of[node] {
                    let edge = &self.edges[*index];
                    let there = cost[node] + edge.cost;
                    if edge.capacity > 0 && there < cost[edge.to] {
                        cost[edge.to] = there;
                        by[edge.to] = Some(*index);
                        if !std::mem::replace(&mut waiting[edge.to], true) {
                            queue.push_back(edge.to);
                        }
                    }
                }
            }
            if cost[sink] == i64::MAX {
                return total;
            }
            let mut path = Vec::new();
            let mut node = sink;
            while let Some(index) = by[node] {
                path.push(index);
                node = self.edges[index ^ 1].to;
            }
            let amount = path.iter().map(|index| self.edges[*index].capacity).min().unwrap_or(0);
            for index in path {
                self.edges[index].capacity -= amount;
                self.edges[index ^ 1].capacity += amount;
                total += self.edges[index].cost * amount as i64;
            }
        }
    }
}
