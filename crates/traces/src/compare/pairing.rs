//! Which spans of one tree belong to which of the other, so that the fewest spans are left alone.
//!
//! Two spans may be paired when their service and name are the same and the spans above them are paired. At each level that is
//! a transportation problem between the classes of children, whose costs are the same problem one level below. Children that are
//! wholly equal are paired first: the cost is a metric, so no other pairing is cheaper.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Sides;
use super::structure::{Facts, Key, NO_PATH, Shared};
use super::transport::transport;

/// The cost of a span that is left alone. It is more than all changes in a trace cost together.
const SPAN: i64 = 1 << 40;

/// The cost of a fact in which paired spans differ.
const CHANGE: i64 = 1 << 20;

/// The cost of pairing spans below others that are looked through.
const PASSED: i64 = 1;

/// How much work is done to find the best pairs, in steps of a few nanoseconds: a few seconds in all.
const WORK_LIMIT: usize = 100_000_000;

/// How many steps the cost of one pair takes, without its share of the transportation problem.
const PAIR: usize = 50;

/// Children that are paired with each other, or left alone.
pub(super) struct Share {
    pub classes: Sides<Option<usize>>,
    pub counts: Sides<usize>,
}

/// Classes with the same key that are left on either side, and how often each is there.
type Group = Sides<Vec<(usize, usize)>>;

/// Finds pairs. Remembers the costs of those that it has looked at.
pub(super) struct Pairing<'a> {
    shared: &'a Shared,
    costs: HashMap<(usize, usize), i64>,
    /// The pairs of classes whose children were paired in the order of their sizes, because the limit was reached.
    in_order: HashSet<(usize, usize)>,
    work: usize,
}

impl<'a> Pairing<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Pairing { shared, costs: HashMap::new(), in_order: HashSet::new(), work: 0 }
    }

    /// Whether all pairs are the best that there are.
    pub fn is_exact(&self) -> bool {
        self.in_order.is_empty()
    }

    /// The children of two paired classes, or of one that is left alone.
    pub fn shares(&mut self, classes: Sides<Option<usize>>) -> Vec<Share> {
        let shares = |class: usize, counts: fn(usize) -> Sides<usize>| {
            let children = &self.shared.classes.things[class].children;
            let share = |(child, count): &(usize, usize)| {
                let counts = counts(*count);
                let class = |count: usize| (count > 0).then_some(*child);
                Share { classes: Sides { a: class(counts.a), b: class(counts.b) }, counts }
            };
            children.iter().map(share).collect()
        };
        match classes {
            Sides { a: Some(a), b: Some(b) } if a != b => self.pairs(a, b),
            Sides { a: Some(both), b: Some(_) } => {
                shares(both, |count| Sides { a: count, b: count })
            }
            Sides { a: Some(a), b: None } => shares(a, |count| Sides { a: count, b: 0 }),
            Sides { a: None, b: Some(b) } => shares(b, |count| Sides { a: 0, b: count }),
            Sides { a: None, b: None } => Vec::new(),
        }
    }

    fn pairs(&mut self, a: usize, b: usize) -> Vec<Share> {
        self.cost(a, b);
        let (equal, groups) = self.groups(a, b);
        // The number on each side, by the classes: equal ones that are left over join those that are paired.
        let mut counts: BTreeMap<(usize, usize), Sides<usize>> = BTreeMap::new();
        for (class, count) in equal {
            counts.insert((class, class), Sides { a: count, b: count });
        }
        let mut alone = Sides { a: Vec::new(), b: Vec::new() };
        for group in groups {
            for (pair, count) in self.solve(&group, self.in_order.contains(&(a, b))) {
                match pair {
                    Sides { a: Some(a), b: Some(b) } => {
                        counts.insert((a, b), Sides { a: count, b: count });
                    }
                    Sides { a, b } => {
                        alone.a.extend(a.map(|class| (class, count)));
                        alone.b.extend(b.map(|class| (class, count)));
                    }
                }
            }
        }
        let mut shares = Vec::new();
        for (class, count) in alone.a {
            match counts.get_mut(&(class, class)) {
                Some(counts) => counts.a += count,
                None => shares.push(Share {
                    classes: Sides { a: Some(class), b: None },
                    counts: Sides { a: count, b: 0 },
                }),
            }
        }
        for (class, count) in alone.b {
            match counts.get_mut(&(class, class)) {
                Some(counts) => counts.b += count,
                None => shares.push(Share {
                    classes: Sides { a: None, b: Some(class) },
                    counts: Sides { a: 0, b: count },
                }),
            }
        }
        shares.extend(
            counts.into_iter().map(|((a, b), counts)| Share {
                classes: Sides { a: Some(a), b: Some(b) },
                counts,
            }),
        );
        shares
    }

    /// The lowest cost of pairing two classes with the same key.
    fn cost(&mut self, a: usize, b: usize) -> i64 {
        // A stack of our own: a trace may be deeper than the thread's.
        let mut pending = vec![(a, b, None)];
        while let Some((a, b, groups)) = pending.pop() {
            if a == b || self.costs.contains_key(&(a, b)) {
                continue;
            }
            let Some(groups) = groups else {
                let (_, groups) = self.groups(a, b);
                let work = groups.iter().map(|group| self.work_for(group)).sum::<usize>();
                let in_order = self.work.saturating_add(work) > WORK_LIMIT;
                match in_order {
                    true => drop(self.in_order.insert((a, b))),
                    false => self.work += work,
                }
                let mut below = Vec::new();
                for Sides { a, b } in &groups {
                    match in_order {
                        true => below.extend(by_size(a, b).map(|(a, b, _)| (a, b))),
                        false => below.extend(a.iter().flat_map(|a| b.iter().map(|b| (a.0, b.0)))),
                    }
                }
                pending.push((a, b, Some(groups)));
                pending.extend(below.into_iter().map(|(a, b)| (a, b, None)));
                continue;
            };
            let in_order = self.in_order.contains(&(a, b));
            let below = groups.iter().flat_map(|group| self.solve(group, in_order));
            let below: i64 = below
                .map(|(pair, count)| {
                    let of_one = match pair {
                        Sides { a: Some(a), b: Some(b) } => self.known(a, b),
                        Sides { a, b } => a.or(b).map_or(0, |class| self.alone(class)),
                    };
                    of_one * count as i64
                })
                .sum();
            self.costs.insert((a, b), self.own_cost(a, b) + below);
        }
        self.known(a, b)
    }

    /// A cost that has been computed.
    fn known(&self, a: usize, b: usize) -> i64 {
        self.costs.get(&(a, b)).copied().unwrap_or_default()
    }

    /// The cost of leaving a class alone.
    fn alone(&self, class: usize) -> i64 {
        SPAN * self.shared.classes.things[class].size as i64
    }

    /// The cost of pairing the spans at the top of two classes.
    fn own_cost(&self, a: usize, b: usize) -> i64 {
        let [a, b] = [a, b].map(|class| &self.shared.classes.things[class]);
        let mut cost = 0;
        if a.key.is_some() && a.facts != b.facts {
            let [a, b] = [a, b].map(|class| &self.shared.facts.things[class.facts]);
            cost += CHANGE * changed(a, b);
        }
        let passes = a.path != NO_PATH || b.path != NO_PATH;
        cost + if passes { PASSED } else { 0 }
    }

    /// The children that are equal in both classes, and the others by their key.
    fn groups(&self, a: usize, b: usize) -> (Vec<(usize, usize)>, Vec<Group>) {
        let classes = &self.shared.classes.things;
        let (mut left, mut right) = (&classes[a].children[..], &classes[b].children[..]);
        let mut equal = Vec::new();
        let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
        loop {
            let [first, second] = [left, right].map(|children| children.first().copied());
            let order =
                |child: Option<(usize, usize)>| child.map_or(usize::MAX, |(class, _)| class);
            let class = order(first).min(order(second));
            let [a, b] = [first, second]
                .map(|child| child.filter(|child| child.0 == class).map_or(0, |it| it.1));
            if a + b == 0 {
                break;
            }
            if a.min(b) > 0 {
                equal.push((class, a.min(b)));
            }
            if a > b {
                groups.entry(classes[class].key).or_default().a.push((class, a - b));
            } else if b > a {
                groups.entry(classes[class].key).or_default().b.push((class, b - a));
            }
            left = &left[usize::from(a > 0)..];
            right = &right[usize::from(b > 0)..];
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        let size = |class: &(usize, usize)| (classes[class.0].size, class.0);
        for Sides { a, b } in &mut groups {
            a.sort_by_key(size);
            b.sort_by_key(size);
        }
        (equal, groups)
    }

    /// How much work it takes at most to find the best pairs of a group.
    fn work_for(&self, Sides { a, b }: &Group) -> usize {
        let size = |class: &(usize, usize)| self.shared.classes.things[class.0].size;
        let nodes = (a.len() + b.len()) as u128;
        if nodes > 10_000 {
            return WORK_LIMIT + 1;
        }
        if a.is_empty() || b.is_empty() {
            return 0;
        }
        let pairs = a.iter().flat_map(|a| b.iter().map(move |b| size(a).min(size(b))));
        PAIR * pairs.sum::<usize>() + (nodes * nodes * nodes / 4) as usize
    }

    /// Pairs the classes of a group. One that is alone has no partner.
    fn solve(&self, Sides { a, b }: &Group, in_order: bool) -> Vec<(Sides<Option<usize>>, usize)> {
        let pairs: Vec<(usize, usize, usize)> = match in_order {
            true => by_size(a, b).collect(),
            false => self.best(a, b),
        };
        let mut left: Sides<BTreeMap<usize, usize>> =
            Sides { a: a.iter().copied().collect(), b: b.iter().copied().collect() };
        let mut solved = Vec::new();
        for (a, b, count) in pairs {
            *left.a.entry(a).or_default() -= count;
            *left.b.entry(b).or_default() -= count;
            solved.push((Sides { a: Some(a), b: Some(b) }, count));
        }
        solved.extend(left.a.into_iter().map(|(a, count)| (Sides { a: Some(a), b: None }, count)));
        solved.extend(left.b.into_iter().map(|(b, count)| (Sides { a: None, b: Some(b) }, count)));
        solved.retain(|(_, count)| *count > 0);
        solved
    }

    /// The pairs with the lowest cost. A pair never costs more than leaving both alone, so as many as possible are paired.
    fn best(&self, a: &[(usize, usize)], b: &[(usize, usize)]) -> Vec<(usize, usize, usize)> {
        if a.is_empty() || b.is_empty() {
            return Vec::new();
        }
        let counts = |classes: &[(usize, usize)]| -> Vec<usize> {
            classes.iter().map(|(_, count)| *count).collect()
        };
        let (mut supply, mut demand) = (counts(a), counts(b));
        let mut costs: Vec<Vec<i64>> =
            a.iter().map(|(a, _)| b.iter().map(|(b, _)| self.known(*a, *b)).collect()).collect();
        // Those that are too many on one side go to nobody on the other.
        let (of_a, of_b) = (supply.iter().sum::<usize>(), demand.iter().sum::<usize>());
        if of_a > of_b {
            demand.push(of_a - of_b);
            costs.iter_mut().zip(a).for_each(|(costs, (class, _))| costs.push(self.alone(*class)));
        } else if of_b > of_a {
            supply.push(of_b - of_a);
            costs.push(b.iter().map(|(class, _)| self.alone(*class)).collect());
        }
        let sent = transport(&supply, &demand, &costs).into_iter();
        sent.filter_map(|(source, sink, count)| Some((a.get(source)?.0, b.get(sink)?.0, count)))
            .collect()
    }
}

/// Pairs the classes in the order in which they stand.
fn by_size<'a>(
    a: &'a [(usize, usize)],
    b: &'a [(usize, usize)],
) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    let (mut a, mut b) = (a.iter().copied(), b.iter().copied());
    let (mut first, mut second) = (a.next(), b.next());
    std::iter::from_fn(move || {
        let (left, right) = (first.as_mut()?, second.as_mut()?);
        let count = left.1.min(right.1);
        let pair = (left.0, right.0, count);
        left.1 -= count;
        right.1 -= count;
        if left.1 == 0 {
            first = a.next();
        }
        if right.1 == 0 {
            second = b.next();
        }
        Some(pair)
    })
}

/// Counts the facts in which two spans differ.
fn changed(a: &Facts, b: &Facts) -> i64 {
    let changed = [
        a.kind != b.kind,
        a.status != b.status,
        a.http_status != b.http_status,
        a.error_type != b.error_type,
    ];
    changed.into_iter().filter(|it| *it).count() as i64
}
