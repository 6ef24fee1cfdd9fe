//! The two trees as the comparison sees them: what each span is called, which spans are looked through, and which parts of the
//! trees are equal.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::Sides;
use super::name::pattern;
use crate::conventions;
use crate::span::{Span, SpanKind, Status};
use crate::tree::Tree;

/// The facts in which two spans of one place may differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    pub kind: SpanKind,
    pub status: Status,
    pub http_status: Option<String>,
    pub error_type: Option<String>,
}

impl Facts {
    pub fn of(span: &Span) -> Self {
        let proto = span.proto();
        let http_status = conventions::status(&proto);
        let error_type = crate::span::attribute(&proto, "error.type");
        Facts {
            kind: span.kind(),
            status: span.status(),
            // A status of 500 is often both.
            error_type: error_type.filter(|it| Some(it) != http_status.as_ref()),
            http_status,
        }
    }
}

/// Gives equal things equal numbers.
pub(super) struct Numbers<T> {
    numbers: HashMap<T, usize>,
    pub things: Vec<T>,
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    fn new() -> Self {
        Numbers { numbers: HashMap::new(), things: Vec::new() }
    }

    fn of(&mut self, thing: T) -> usize {
        if let Some(number) = self.numbers.get(&thing) {
            return *number;
        }
        let number = self.things.len();
        self.numbers.insert(thing.clone(), number);
        self.things.push(thing);
        number
    }
}

/// The spans looked through on the way from a span to the next one above that isn't, as the path of the nearest of them and that
/// one's key. `None` without any.
type Path = Option<(usize, usize)>;

/// The path without spans.
pub(super) const NO_PATH: usize = 0;

/// All equal parts of both trees: a span with everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub key: Key,
    /// The number of its [`Facts`].
    pub facts: usize,
    pub path: usize,
    /// The classes right below it, in order, and how often each is there.
    pub children: Vec<(usize, usize)>,
    /// The number of its spans, without those that are looked through.
    pub size: usize,
}

/// The number of a service and a name; `None` above the top spans.
pub(super) type Key = Option<usize>;

/// The things that both trees share.
pub(super) struct Shared {
    /// Services and names.
    pub keys: Numbers<(String, String)>,
    pub facts: Numbers<Facts>,
    pub paths: Numbers<Path>,
    pub classes: Numbers<Class>,
}

/// One tree. A row past the last stands for what is above the top spans.
pub(super) struct Side<'a> {
    pub tree: &'a Tree,
    pub keys: Vec<usize>,
    pub classes: Vec<usize>,
    /// The path from each row upwards.
    pub paths: Vec<usize>,
    /// The rows below each, in the order of the tree; those that are looked through are replaced by what is below them.
    pub children: Vec<Vec<usize>>,
    /// The rows that are looked through, at the next row above that isn't, and the path from what is below them.
    pub passed: Vec<Vec<(usize, usize)>>,
}

impl Side<'_> {
    /// The row above the top spans.
    pub fn top(&self) -> usize {
        self.tree.rows.len()
    }
}

/// Reads both trees.
///
/// A span that the other tree has nothing like can't be paired, so it is looked through: then what is below it still can be. This
/// never costs a pair, and a middleware that is new between two spans is one difference and not all that is below it.
pub(super) fn read<'a>(trees: Sides<&'a Tree>) -> (Shared, Sides<Side<'a>>) {
    let mut shared = Shared {
        keys: Numbers::new(),
        facts: Numbers::new(),
        paths: Numbers::new(),
        classes: Numbers::new(),
    };
    shared.paths.of(None);
    let keys = trees.map(|tree| shared.keys_of(tree));
    let known = keys.as_ref().map(|keys| keys.iter().copied().collect::<HashSet<usize>>());
    let a = shared.side(trees.a, keys.a, &known.b);
    let b = shared.side(trees.b, keys.b, &known.a);
    (shared, Sides { a, b })
}

impl Shared {
    fn keys_of(&mut self, tree: &Tree) -> Vec<usize> {
        let spans = tree.rows.iter().map(|row| &row.span);
        spans.map(|it| self.keys.of((it.service().to_owned(), pattern(it.name())))).collect()
    }

    fn side<'a>(&mut self, tree: &'a Tree, keys: Vec<usize>, others: &HashSet<usize>) -> Side<'a> {
        let top = tree.rows.len();
        let mut side = Side {
            tree,
            keys,
            classes: vec![0; top + 1],
            paths: vec![NO_PATH; top],
            children: vec![Vec::new(); top + 1],
            passed: vec![Vec::new(); top + 1],
        };
        // For each row, the next row at or above it that isn't looked through, and the path from what is below the row.
        let mut below: Vec<(usize, usize)> = Vec::with_capacity(top);
        for (index, row) in tree.rows.iter().enumerate() {
            let (above, path) = row.parent.map_or((top, NO_PATH), |parent| below[parent]);
            side.paths[index] = path;
            if others.contains(&side.keys[index]) {
                side.children[above].push(index);
                below.push((index, NO_PATH));
            } else {
                let path = self.paths.of(Some((path, side.keys[index])));
                side.passed[above].push((index, path));
                below.push((above, path));
            }
        }
        // A row stands before those below it.
        for index in (0..top).rev() {
            if !others.contains(&side.keys[index]) {
                continue;
            }
            let facts = self.facts.of(Facts::of(&tree.rows[index].span));
            self.classify(&mut side, index, facts);
        }
        self.classify(&mut side, top, 0);
        side
    }

    /// Gives a row its class. All below it have theirs.
    fn classify(&mut self, side: &mut Side<'_>, row: usize, facts: usize) {
        let mut below: Vec<usize> =
            side.children[row].iter().map(|child| side.classes[*child]).collect();
        below.sort_unstable();
        let children: Vec<(usize, usize)> =
            below.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len())).collect();
        let sizes = children.iter().map(|(class, count)| self.classes.things[*class].size * count);
        let key = side.keys.get(row).copied();
        let size = sizes.sum::<usize>() + usize::from(key.is_some());
        let path = side.paths.get(row).copied().unwrap_or(NO_PATH);
        side.classes[row] = self.classes.of(Class { key, facts, path, children, size });
    }
}
