//! How two traces are compared: the fewest spans that differ, and all of the time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use fastrand::Rng;
use support::in_process::table;
use traces::case::Case;
use traces::compare::{Change, Comparison, Row, Sides, Unsure, compare};
use traces::otlp;
use traces::span::{SpanKind, Status};
use traces::tree::Tree;

/// The tree of the only trace of a table.
fn tree(rows: &str) -> Tree {
    let spans = otlp::from_json(table(rows).to_string().as_bytes()).expect("spans").items;
    Tree::new(&spans.into_iter().map(Arc::new).collect::<Vec<_>>()).expect("a tree")
}

/// The rows of a comparison, one per line: a mark, the depth as blanks, the name, the counts, the changes.
fn shown(comparison: &Comparison) -> String {
    let mut text = String::new();
    for row in &comparison.rows {
        let Sides { a, b } = row.counts();
        let mark = match a.cmp(&b) {
            std::cmp::Ordering::Greater => '-',
            std::cmp::Ordering::Less => '+',
            std::cmp::Ordering::Equal => ' ',
        };
        let counts = if a.max(b) > 1 { format!(" {a}:{b}") } else { String::new() };
        let changed = if row.changes.is_empty() { "" } else { " ~" };
        let _ = writeln!(text, "{mark}{}{}{counts}{changed}", " ".repeat(row.depth), row.name);
    }
    text
}

#[track_caller]
fn check(a: &str, b: &str, expected: &str) {
    let comparison = compare(&tree(a), &tree(b));
    let expected: String =
        expected.trim_matches('\n').lines().map(|line| format!("{line}\n")).collect();
    assert_eq!(shown(&comparison), expected);
    assert!(comparison.exact);
    // The other way round, the same spans differ.
    let back = compare(&tree(b), &tree(a));
    let Sides { a, b } = comparison.alone();
    assert_eq!(back.alone(), Sides { a: b, b: a });
    assert_eq!(back.changed(), comparison.changed());
}

#[test]
fn siblings_are_paired_so_that_the_fewest_spans_differ() {
    // Pairing the first with the first would leave four spans alone.
    check(
        "1 a 1 SERVER 0..100 root
         1 a 2<1 CLIENT 1..20 call; 1 b 3<2 SERVER 2..19 cart; 1 b 4<3 CLIENT 3..18 read
         1 a 5<1 CLIENT 21..40 call; 1 b 6<5 SERVER 22..39 mail",
        "1 a 1 SERVER 0..100 root
         1 a 2<1 CLIENT 1..20 call; 1 b 3<2 SERVER 2..19 mail
         1 a 5<1 CLIENT 21..40 call; 1 b 6<5 SERVER 22..39 cart",
        "
 root
  call
   cart
-   read
  call
   mail",
    );
    // One of three calls fits exactly; the two others are paired by what is below.
    check(
        "1 a 1 SERVER 0..100 root
         1 a 2<1 INTERNAL 1..2 x; 1 a 3<2 INTERNAL 1..2 p; 1 a 4<2 INTERNAL 1..2 q
         1 a 5<1 INTERNAL 3..4 x; 1 a 6<5 INTERNAL 3..4 r
         1 a 7<1 INTERNAL 5..6 x; 1 a 8<7 INTERNAL 5..6 s",
        "1 a 1 SERVER 0..100 root
         1 a 2<1 INTERNAL 1..2 x; 1 a 3<2 INTERNAL 1..2 r; 1 a 9<2 INTERNAL 1..2 s
         1 a 5<1 INTERNAL 3..4 x; 1 a 6<5 INTERNAL 3..4 q
         1 a 7<1 INTERNAL 5..6 x; 1 a 8<7 INTERNAL 5..6 s",
        "
 root
  x
-  p
   q
  x
   r
+  s
  x
   s",
    );
}

#[test]
fn repetitions_are_one_row() {
    let calls = |count: usize| {
        let rows = (0..count).map(|it| format!("1 a {}<1 CLIENT {it}..{} SELECT", it + 2, it + 1));
        format!("1 a 1 SERVER 0..100 root; {}", rows.collect::<Vec<_>>().join(";"))
    };
    check(&calls(3), &calls(5), " root\n+ SELECT 3:5");
    check(&calls(4), &calls(4), " root\n  SELECT 4:4");
    check(&calls(2), "1 a 1 SERVER 0..100 root", " root\n- SELECT 2:0");
    // With what is below each.
    check(
        "1 a 1 SERVER 0..100 root
         1 a 2<1 CLIENT 1..9 call; 1 b 3<2 SERVER 2..8 answer
         1 a 4<1 CLIENT 11..19 call; 1 b 5<4 SERVER 12..18 answer",
        "1 a 1 SERVER 0..100 root; 1 a 2<1 CLIENT 1..9 call; 1 b 3<2 SERVER 2..8 answer",
        " root\n- call 2:1\n-  answer 2:1",
    );
}

#[test]
fn ids_in_names_make_no_difference() {
    let trace = |name: &str| format!("1 a 1 SERVER 0..9 root; 1 a 2<1 INTERNAL 1..2 {name}");
    for (a, b, expected) in [
        ("GET /users/17", "GET /users/18", Some("GET /users/*")),
        ("GET /users/17", "GET /users/17", Some("GET /users/17")),
        ("GET /users/17/orders", "GET /users/18/orders", Some("GET /users/*/orders")),
        (
            "load 550e8400-e29b-41d4-a716-446655440000",
            "load 6fa459ea-ee8a-3ca4-894e-db77e160355e",
            Some("load *"),
        ),
        (
            "load item-550e8400-e29b-41d4-a716-446655440000",
            "load item-6fa459ea-ee8a-3ca4-894e-db77e160355e",
            Some("load item-*"),
        ),
        ("GET order_10017", "GET order_10018", Some("GET order_*")),
        ("mail to ada@example.com", "mail to bob@example.com", Some("mail to *")),
        ("connect 10.0.0.7:5432", "connect 10.0.0.8:5433", Some("connect *:*")),
        ("start v1.24.3", "start v1.24.4", Some("start *")),
        ("checkout-6d4cf56db6-x7k2p", "checkout-6d4cf56db6-q2m4z", Some("checkout-*")),
        ("chat gpt-4", "chat gpt-5", None),
        ("GET /v1/users", "GET /v2/users", None),
        ("GET /users/{id}", "GET /users/17", None),
    ] {
        let comparison = compare(&tree(&trace(a)), &tree(&trace(b)));
        assert_eq!(!comparison.differs(), expected.is_some(), "{a}");
        if let Some(name) = expected {
            assert_eq!(comparison.rows[1].name, name);
        }
    }
}

#[test]
fn what_differs_in_a_pair_is_a_change() {
    let a = tree(
        "1 a 1 SERVER 0..9 root http.response.status_code=200
         1 a 2<1 INTERNAL 1..2 x; 1 a 3<1 CLIENT 3..4 call error= error.type=timeout",
    );
    let b = tree(
        "1 a 1 SERVER 0..9 root http.response.status_code=502 error= error.type=502
         1 a 2<1 CLIENT 1..2 x; 1 a 3<1 CLIENT 3..4 call error= error.type=unreachable",
    );
    let comparison = compare(&a, &b);
    let changes: Vec<&[Change]> = comparison.rows.iter().map(|row| &row.changes[..]).collect();
    let text = |a: &str, b: &str| Sides { a: Some(a.to_owned()), b: Some(b.to_owned()) };
    let expected: [&[Change]; 3] = [
        &[
            Change::Status(Sides { a: Status::Unset, b: Status::Error }),
            Change::HttpStatus(text("200", "502")),
        ],
        &[Change::Kind(Sides { a: SpanKind::Internal, b: SpanKind::Client })],
        &[Change::ErrorType(text("timeout", "unreachable"))],
    ];
    assert_eq!(changes, expected);
    assert_eq!((comparison.alone(), comparison.changed()), (Sides::default(), 3));
    // Of two siblings, the one that fails is paired with the one that fails, also if both differ below.
    for [one, other] in [["", "error="], ["error=", ""]] {
        let trace = |first: &str, second: &str, below: &str| {
            tree(&format!(
                "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..2 try {first}; 1 a 3<1 CLIENT 3..4 try {second}
                 1 a 4<2 CLIENT 1..2 {below}; 1 a 5<3 CLIENT 3..4 {below}
                 1 a 6<1 CLIENT 5..6 x; 1 a 7<1 CLIENT 5..6 y"
            ))
        };
        let comparison = compare(&trace("error=", "", "x"), &trace(one, other, "y"));
        assert_eq!((comparison.alone(), comparison.changed()), (Sides { a: 2, b: 2 }, 0));
    }
    check(
        "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..2 try error=; 1 a 3<1 CLIENT 3..4 try",
        "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..2 try; 1 a 3<1 CLIENT 3..4 try error=",
        " root\n  try\n  try",
    );
}

#[test]
fn spans_that_only_one_trace_knows_are_looked_through() {
    let plain = "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..8 call; 1 b 3<2 SERVER 2..7 answer";
    // A middleware that is new, two of them, and a client before the first service.
    check(
        plain,
        "1 a 1 SERVER 0..9 root; 1 a 4<1 INTERNAL 1..8 retry
         1 a 2<4 CLIENT 1..8 call; 1 b 3<2 SERVER 2..7 answer",
        " root\n+ retry\n   call\n    answer",
    );
    check(
        plain,
        "1 t 9 CLIENT 0..9 test; 1 a 1<9 SERVER 0..9 root; 1 a 4<1 INTERNAL 1..8 retry
         1 a 5<4 INTERNAL 1..8 limit; 1 a 2<5 CLIENT 1..8 call; 1 b 3<2 SERVER 2..7 answer
         1 a 6<5 INTERNAL 8..8 count",
        "
+test
  root
+  retry
+   limit
     call
      answer
+    count",
    );
    // Of two spans that fit equally well, the one that wasn't moved is the pair, also where it comes first.
    check(
        "1 a 1 SERVER 0..9 root; 1 a 5<1 CLIENT 1..2 call; 1 b 6<5 SERVER 1..2 x
         1 a 2<1 INTERNAL 3..4 retry; 1 a 3<2 CLIENT 3..4 call; 1 b 4<3 SERVER 3..4 x; 1 b 7<1 SERVER 5..6 y",
        "1 a 1 SERVER 0..9 root; 1 a 5<1 CLIENT 1..2 call; 1 b 6<5 SERVER 1..2 y; 1 b 7<1 SERVER 5..6 y",
        "
 root
  call
-  x
+  y
- retry
-  call
-   x
  y",
    );
    // A new name.
    check(
        plain,
        "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..8 request; 1 b 3<2 SERVER 2..7 answer",
        " root\n- call\n+ request\n   answer",
    );
    // A service that is no longer called, and all that it did.
    check(plain, "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..8 call", " root\n  call\n-  answer");
    // Nothing in common.
    check(plain, "1 x 1 SERVER 0..9 other", "-root\n- call\n-  answer\n+other");
}

#[test]
fn pieces_are_paired_as_siblings_are() {
    check(
        "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..8 call; 1 b 3<2 SERVER 2..7 answer",
        "1 a 1 SERVER 0..9 root; 1 a 2<1 CLIENT 1..8 call; 1 b 3<7 SERVER 2..7 answer",
        " root\n  call\n-  answer\n+answer",
    );
    let a = tree("1 a 1 SERVER 0..9 root; 1 b 3<7 SERVER 2..7 answer");
    assert_eq!(compare(&a, &a).pieces, Sides { a: 2, b: 2 });
}

fn milliseconds(comparison: &Comparison) -> Vec<(&str, i64)> {
    let services = comparison.services().into_iter();
    services.map(|(name, waited, _)| (name, waited.difference() / 1_000_000)).collect()
}

#[test]
fn differences_on_the_critical_path_add_up_to_the_whole() {
    let a = tree(
        "1 shop 1 SERVER 0..100 root
         1 shop 2<1 CLIENT 10..40 pay; 1 pay 3<2 SERVER 12..38 POST
         1 shop 4<1 CLIENT 10..30 look; 1 stock 5<4 SERVER 12..28 GET",
    );
    let b = tree(
        "1 shop 1 SERVER 0..303 root
         1 shop 2<1 CLIENT 10..250 pay; 1 pay 3<2 SERVER 12..248 POST
         1 shop 4<1 CLIENT 10..200 look; 1 stock 5<4 SERVER 12..198 GET
         1 mail 6<1 CLIENT 255..258 send",
    );
    let comparison = compare(&a, &b);
    assert_eq!(comparison.duration.map(|it| it / 1_000_000), Sides { a: 100, b: 303 });
    // Nobody waited for `stock`, which was as much slower.
    assert_eq!(milliseconds(&comparison), [("pay", 210), ("shop", -10), ("mail", 3)]);
    let (_, _, rows) = &comparison.services()[1];
    let names: Vec<&str> = rows.iter().map(|row| comparison.rows[*row].name.as_str()).collect();
    assert_eq!(names, ["root", "pay"]);
    assert_eq!(comparison.answered_by(rows[1]), Some("pay"));
    assert_eq!(comparison.answered_by(rows[0]), None);
    assert_eq!(comparison.unsure, []);
}

#[test]
fn clocks_that_differ_are_named() {
    let a = tree("1 shop 1 CLIENT 10..100 root; 1 pay 2<1 SERVER 3..90 POST");
    let b = tree("1 shop 1 CLIENT 10..100 root; 1 pay 2<1 SERVER 8..90 POST");
    let services = ["pay", "shop"].map(str::to_owned);
    let expected = |milliseconds: u64| {
        [Unsure { services: services.clone(), nanoseconds: milliseconds * 1_000_000 }]
    };
    assert_eq!(compare(&a, &b).unsure, expected(7));
    assert_eq!(compare(&b, &b).unsure, expected(2));
}

/// A tree to be: each node has a service, a name, and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    label: usize,
    children: Vec<Node>,
}

impl Node {
    /// A random tree with this many spans and at most this many names.
    fn random(random: &mut Rng, size: usize, labels: usize) -> Node {
        let mut parents = vec![0];
        parents.extend((1..size).map(|it| random.usize(it.saturating_sub(5)..it)));
        let mut nodes: Vec<Node> = (0..size)
            .map(|_| Node { label: random.usize(..labels), children: Vec::new() })
            .collect();
        for index in (1..size).rev() {
            let node = nodes.pop().expect("a node");
            nodes[parents[index]].children.push(node);
        }
        nodes.remove(0)
    }

    fn size(&self) -> usize {
        1 + self.children.iter().map(Node::size).sum::<usize>()
    }

    fn labels(&self) -> BTreeMap<usize, usize> {
        let mut labels: BTreeMap<usize, usize> = BTreeMap::from([(self.label, 1)]);
        for (label, count) in self.children.iter().flat_map(Node::labels) {
            *labels.entry(label).or_default() += count;
        }
        labels
    }

    /// The tree of spans. Siblings start in their order here.
    fn tree(&self) -> Tree {
        let mut rows = Vec::new();
        let mut pending = vec![(self, 0)];
        while let Some((node, parent)) = pending.pop() {
            let (id, label) = (rows.len() + 1, node.label);
            let parent = if parent == 0 { String::new() } else { format!("<{parent}") };
            let service = label % 3;
            // Letters: a number would be a value.
            let name: String =
                format!("{label}").chars().map(|it| (b'a' + it as u8 - b'0') as char).collect();
            rows.push(format!("1 s{service} {id}{parent} SERVER {id}..{} {name}", id + 1000));
            pending.extend(node.children.iter().rev().map(|child| (child, id)));
        }
        tree(&rows.join("\n"))
    }

    /// The same with the siblings in another order.
    fn shuffled(&self, random: &mut Rng) -> Node {
        let mut children: Vec<Node> =
            self.children.iter().map(|child| child.shuffled(random)).collect();
        random.shuffle(&mut children);
        Node { label: self.label, children }
    }

    /// Takes away a random part below the root. Returns it.
    fn cut(&mut self, random: &mut Rng) -> Option<Node> {
        let index = (!self.children.is_empty()).then(|| random.usize(..self.children.len()))?;
        if random.bool()
            && let Some(cut) = self.children[index].cut(random)
        {
            return Some(cut);
        }
        Some(self.children.remove(index))
    }

    /// The fewest spans that are alone when these two are paired, by trying all ways.
    fn fewest(&self, other: &Node) -> usize {
        fn of(children: &[Node], others: &[Node], taken: &mut Vec<bool>) -> usize {
            let Some((child, rest)) = children.split_first() else {
                let left = others.iter().zip(taken).filter(|(_, taken)| !**taken);
                return left.map(|(other, _)| other.size()).sum();
            };
            let mut fewest = child.size() + of(rest, others, taken);
            for (index, other) in others.iter().enumerate() {
                if other.label == child.label && !std::mem::replace(&mut taken[index], true) {
                    fewest = fewest.min(child.fewest(other) + of(rest, others, taken));
                    taken[index] = false;
                }
            }
            fewest
        }
        of(&self.children, &other.children, &mut vec![false; other.children.len()])
    }
}

#[test]
fn a_trace_does_not_differ_from_itself() {
    let mut random = Rng::with_seed(1);
    for _ in 0..150 {
        let (size, labels) = (random.usize(1..60), random.usize(1..12));
        let node = Node::random(&mut random, size, labels);
        let a = node.tree();
        let comparison = compare(&a, &a);
        assert!(!comparison.differs() && comparison.exact, "{node:?}");
        assert!(comparison.rows.iter().all(|row| row.waited.a == row.waited.b), "{node:?}");
        let b = node.shuffled(&mut random).tree();
        let comparison = compare(&a, &b);
        assert!(!comparison.differs(), "{node:?}");
        let spans = |side: fn(Sides<usize>) -> usize| {
            comparison.rows.iter().map(|row| side(row.counts())).sum::<usize>()
        };
        assert_eq!((spans(|it| it.a), spans(|it| it.b)), (size, size));
    }
}

#[test]
fn a_part_that_is_missing_is_what_differs() {
    let mut random = Rng::with_seed(2);
    for round in 0..150 {
        let size = random.usize(2..60);
        // With as many names as spans, it is clear which span is which.
        let labels = if round % 2 == 0 { random.usize(1..12) } else { 1000 };
        let node = Node::random(&mut random, size, labels);
        let mut rest = node.shuffled(&mut random);
        let missing = rest.cut(&mut random).expect("a part");
        let comparison = compare(&node.tree(), &rest.tree());
        assert_eq!(comparison.alone(), Sides { a: missing.size(), b: 0 }, "{node:?}\n{rest:?}");
        assert_eq!(comparison.changed(), 0);
        if labels == 1000 && node.labels().values().all(|count| *count == 1) {
            let differs: Vec<&Row> = comparison.rows.iter().filter(|row| row.differs()).collect();
            assert_eq!(differs[0].below + 1, missing.size());
            assert_eq!(differs.len(), missing.size(), "{}", shown(&comparison));
        }
        // The spans of B that are new when A is compared with it.
        let back = compare(&rest.tree(), &node.tree());
        assert_eq!(back.alone(), Sides { a: 0, b: missing.size() });
    }
}

#[test]
fn no_other_pairs_leave_fewer_spans_alone() {
    let mut random = Rng::with_seed(3);
    let mut compared = 0;
    while compared < 500 {
        let labels = random.usize(1..4);
        let [mut a, mut b] = [0; 2].map(|_| {
            let size = random.usize(1..13);
            Node::random(&mut random, size, labels)
        });
        a.label = 0;
        b.label = 0;
        // A span whose name the other trace doesn't have is looked through, which leaves fewer alone still.
        if a.labels().keys().ne(b.labels().keys()) {
            continue;
        }
        let comparison = compare(&a.tree(), &b.tree());
        let alone = comparison.alone();
        assert_eq!(alone.a + alone.b, a.fewest(&b), "{a:?}\n{b:?}\n{}", shown(&comparison));
        compared += 1;
    }
}

#[test]
fn a_chain_deeper_than_the_stack_is_compared() {
    let chain = |length: usize| {
        let rows = (1..=length).map(|it| format!("1 a {}<{} INTERNAL 0..9 step", it + 1, it));
        tree(&rows.collect::<Vec<_>>().join("\n"))
    };
    let comparison = compare(&chain(5000), &chain(4999));
    assert_eq!(comparison.alone(), Sides { a: 1, b: 0 });
    // Below a span that is looked through, and nothing in common.
    let other = tree("1 b 1 INTERNAL 0..9 other");
    assert_eq!(compare(&chain(5000), &other).alone(), Sides { a: 5000, b: 1 });
}

#[test]
fn large_traces_are_compared_exactly_as_long_as_that_is_bounded() {
    // 1,000 siblings, of which 250 have lost a span below, with 50 kinds of what is below.
    let trace = |lost: bool| {
        let mut rows = vec!["1 a 1 SERVER 0..9 root".to_owned()];
        for call in 0..1000 {
            let id = 2 + 4 * call;
            let kind = |number: usize| char::from(b'a' + number as u8);
            rows.push(format!("1 a {id}<1 CLIENT 1..2 call"));
            rows.push(format!("1 b {}<{id} SERVER 1..2 {}", id + 1, kind(call % 10)));
            rows.push(format!("1 b {}<{id} SERVER 1..2 {}", id + 2, kind(10 + call % 5)));
            if !lost || call % 4 != 0 {
                rows.push(format!("1 b {}<{id} SERVER 1..2 z", id + 3));
            }
        }
        tree(&rows.join("\n"))
    };
    let comparison = compare(&trace(false), &trace(true));
    assert!(comparison.exact);
    assert_eq!(comparison.alone(), Sides { a: 250, b: 0 });
    assert_eq!(comparison.changed(), 0);
    // 700 siblings that all differ below: the pairs are some, and said not to be the best.
    let all_differ = |seed| {
        let mut random = Rng::with_seed(seed);
        let mut rows = vec!["1 a 1 SERVER 0..9 root".to_owned()];
        for call in 0..700 {
            let id = 2 + 10 * call;
            rows.push(format!("1 a {id}<1 CLIENT 1..2 call"));
            for below in 1..6 {
                let name = char::from(random.u8(b'a'..b'm'));
                rows.push(format!("1 b {}<{id} SERVER 1..2 {name}", id + below));
            }
        }
        tree(&rows.join("\n"))
    };
    let comparison = compare(&all_differ(4), &all_differ(5));
    assert!(!comparison.exact);
    let Sides { a, b } = comparison.alone();
    assert!(a == b && a > 0 && a < 700 * 5, "{a} {b}");
}

/// A trace that a real system has sent, against itself and against the same rule's other recording.
#[test]
fn recorded_traces_are_compared() {
    let folder = support::root().join("src/recordings/diagnose");
    let trees = |name: &str| {
        let bytes = fs::read(folder.join(name)).expect(name);
        Case::read(&bytes).expect(name).trees
    };
    let mut compared = 0;
    for entry in fs::read_dir(&folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        if name.ends_with(".json") && name != "nothing-arrived.json" {
            for tree in trees(&name) {
                let comparison = compare(&tree, &tree);
                assert!(!comparison.differs(), "{name}\n{}", shown(&comparison));
                compared += 1;
            }
        }
    }
    assert!(compared > 40, "{compared}");
}
