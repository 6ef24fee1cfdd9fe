//! The transportation problem: what is at the sources goes to the sinks at the lowest total cost.
//!
//! Each augmentation follows a shortest path in the residual graph, found with Dijkstra's algorithm on reduced costs, as in
//! [Edmonds and Karp, 1972](https://doi.org/10.1145/321694.321699). With one unit everywhere this is the Hungarian method.

/// Returns how many units go from which source to which sink, without the zeros. `cost` has a row for each source. Supply and
/// demand must have the same sum, and costs must not be negative.
pub(super) fn transport(
    supply: &[usize],
    demand: &[usize],
    cost: &[Vec<i64>],
) -> Vec<(usize, usize, usize)> {
    let mut network = Network {
        cost,
        demand: demand.to_vec(),
        flow: vec![vec![0; demand.len()]; supply.len()],
        source_potential: vec![0; supply.len()],
        sink_potential: vec![0; demand.len()],
    };
    for (source, units) in supply.iter().enumerate() {
        let mut left = *units;
        while left > 0 {
            match network.augment(source, left) {
                0 => break,
                sent => left -= sent,
            }
        }
    }
    let flow = network.flow.iter().enumerate();
    let sent = flow.flat_map(|(source, row)| {
        row.iter().enumerate().map(move |(sink, units)| (source, sink, *units))
    });
    sent.filter(|(_, _, units)| *units > 0).collect()
}

struct Network<'a> {
    cost: &'a [Vec<i64>],
    /// The units that each sink still takes.
    demand: Vec<usize>,
    flow: Vec<Vec<usize>>,
    source_potential: Vec<i64>,
    sink_potential: Vec<i64>,
}

/// The shortest paths from one source.
struct Paths {
    /// The distance of each sink and the source before it.
    sinks: Vec<(i64, usize)>,
    /// The sinks whose distance is final.
    reached: Vec<usize>,
    is_reached: Vec<bool>,
    /// The sources that were passed: the distance and the sink before it.
    sources: Vec<Option<(i64, usize)>>,
}

impl Network<'_> {
    /// Sends up to `limit` units from a source along the shortest path to a sink that takes some. Returns how many.
    fn augment(&mut self, from: usize, limit: usize) -> usize {
        let Some((paths, end)) = self.shortest_paths(from) else { return 0 };
        let (distance, _) = paths.sinks[end];
        for (source, passed) in paths.sources.iter().enumerate() {
            if let Some((at, _)) = passed {
                self.source_potential[source] += distance - at;
            }
        }
        for sink in &paths.reached {
            self.sink_potential[*sink] -= distance - paths.sinks[*sink].0;
        }
        // From the end back to the source: each sink with the source that sends to it, and the sink that this source sends less to.
        let mut steps = Vec::new();
        let mut sink = end;
        loop {
            let source = paths.sinks[sink].1;
            if source == from {
                steps.push((source, sink, None));
                break;
            }
            let before = paths.sources[source].map_or(sink, |(_, before)| before);
            steps.push((source, sink, Some(before)));
            sink = before;
        }
        let taken = steps.iter().filter_map(|(source, _, less)| Some(self.flow[*source][(*less)?]));
        let units = taken.chain([limit, self.demand[end]]).min().unwrap_or_default();
        for (source, more, less) in steps {
            self.flow[source][more] += units;
            if let Some(less) = less {
                self.flow[source][less] -= units;
            }
        }
        self.demand[end] -= units;
        units
    }

    /// Returns the paths and the nearest sink that takes more.
    fn shortest_paths(&self, from: usize) -> Option<(Paths, usize)> {
        let mut paths = Paths {
            sinks: vec![(i64::MAX, from); self.demand.len()],
            reached: Vec::new(),
            is_reached: vec![false; self.demand.len()],
            sources: vec![None; self.flow.len()],
        };
        self.pass(&mut paths, from, 0, 0);
        loop {
            let open = (0..self.demand.len()).filter(|sink| !paths.is_reached[*sink]);
            let sink = open.min_by_key(|sink| paths.sinks[*sink].0)?;
            paths.is_reached[sink] = true;
            paths.reached.push(sink);
            if self.demand[sink] > 0 {
                return Some((paths, sink));
            }
            let distance = paths.sinks[sink].0;
            for source in 0..self.flow.len() {
                if self.flow[source][sink] > 0 && paths.sources[source].is_none() {
                    self.pass(&mut paths, source, distance, sink);
                }
            }
        }
    }

    /// Looks at what is sent from a source at this distance, which was reached from the sink `before`.
    fn pass(&self, paths: &mut Paths, source: usize, distance: i64, before: usize) {
        paths.sources[source] = Some((distance, before));
        for (sink, cost) in self.cost[source].iter().enumerate() {
            let reduced = cost - self.source_potential[source] - self.sink_potential[sink];
            let known = &mut paths.sinks[sink];
            if !paths.is_reached[sink] && distance + reduced < known.0 {
                *known = (distance + reduced, source);
            }
        }
    }
}
