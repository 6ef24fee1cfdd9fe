//! The parts of a file: requests, the spans that each is expected to have, and how often.

use std::fmt;

use super::glob::Glob;
use crate::span::SpanKind;
use crate::tree::took;

/// A file with the expected traces of one or several requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    pub requests: Vec<Request>,
    /// The comments behind the last line, without their `#`.
    pub comments: Vec<String>,
}

/// The expected trace of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name in brackets; `None` in a file with only one request.
    pub name: Option<String>,
    /// The comments above the name, without their `#`.
    pub comments: Vec<String>,
    pub body: Body,
}

/// The two ways to say what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Every span, at its place.
    Tree(Children),
    /// Only which services call which.
    Edges(Vec<Edge>),
}

/// The comments of one line, without their `#`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comments {
    /// Those on the lines before it.
    pub above: Vec<String>,
    /// The one at its end.
    pub behind: Option<String>,
}

/// The services of a call, or of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// `None` for a service that the request enters.
    pub from: Option<Glob>,
    pub to: Glob,
    /// Whether the services are joined by a link, as a queue does it.
    pub link: bool,
    /// Whether it may be missing.
    pub optional: bool,
    pub comments: Comments,
}

/// The spans that are expected below a span: one of several alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Children {
    /// At least one.
    pub alternatives: Vec<Alternative>,
}

/// One of the alternatives that `or` separates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The groups that `then` separates, at least one. The spans of a group begin when those of the groups before have ended.
    pub groups: Vec<Vec<Item>>,
    /// The spans of other traces that are linked to the span.
    pub links: Option<Box<Children>>,
}

/// One line below a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Span(Box<Expected>),
    /// `...`: any number of spans, with whatever is below them.
    Any(Comments),
}

/// One expected span, with what is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub name: Glob,
    /// `None` for any kind.
    pub kind: Option<SpanKind>,
    pub service: Glob,
    /// The HTTP status; `None` for any, or none.
    pub status: Option<Glob>,
    pub outcome: Outcome,
    /// Attributes by their keys, in the order of the file.
    pub attributes: Vec<(String, Glob)>,
    /// The duration, in nanoseconds, that the span has to stay below.
    pub limit: Option<u64>,
    pub times: Times,
    pub children: Children,
    pub comments: Comments,
}

/// Whether the span is expected to have the status [`Error`](crate::span::Status::Error).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    NoError,
    /// An error, of this type where the file names one.
    Error(Option<Glob>),
}

/// How often a span is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub min: usize,
    /// `None` without a limit.
    pub max: Option<usize>,
}

impl Times {
    pub const ONCE: Times = Times { min: 1, max: Some(1) };
    pub const OPTIONAL: Times = Times { min: 0, max: Some(1) };

    /// Whether a span may occur `count` times.
    pub fn allow(self, count: usize) -> bool {
        self.min <= count && self.max.is_none_or(|max| count <= max)
    }
}

impl Default for Children {
    fn default() -> Self {
        Children { alternatives: vec![Alternative::default()] }
    }
}

impl Default for Alternative {
    fn default() -> Self {
        Alternative { groups: vec![Vec::new()], links: None }
    }
}

impl Edge {
    /// An edge that has to be there.
    pub fn new(from: Option<Glob>, to: Glob, link: bool) -> Self {
        Edge { from, to, link, optional: false, comments: Comments::default() }
    }
}

impl Item {
    pub fn is_any(&self) -> bool {
        matches!(self, Item::Any(_))
    }
}

impl Children {
    /// The only alternative, with these spans in any order.
    pub fn of(items: Vec<Item>, links: Option<Children>) -> Self {
        Children {
            alternatives: vec![Alternative { groups: vec![items], links: links.map(Box::new) }],
        }
    }

    pub fn is_empty(&self) -> bool {
        self.alternatives.iter().all(|it| it.groups.iter().all(Vec::is_empty) && it.links.is_none())
    }

    /// Calls `visit` for every span of the tree, each before those below it.
    pub fn each<'a>(&'a self, visit: &mut impl FnMut(&'a Expected)) {
        for alternative in &self.alternatives {
            for item in alternative.groups.iter().flatten() {
                if let Item::Span(span) = item {
                    visit(span);
                    span.children.each(visit);
                }
            }
            if let Some(links) = &alternative.links {
                links.each(visit);
            }
        }
    }

    /// Whether the order of spans matters somewhere.
    pub fn has_order(&self) -> bool {
        let mut ordered = self.alternatives.iter().any(|it| it.groups.len() > 1);
        for alternative in &self.alternatives {
            ordered |= alternative.links.as_ref().is_some_and(|links| links.has_order());
            for item in alternative.groups.iter().flatten() {
                ordered |= matches!(item, Item::Span(span) if span.children.has_order());
            }
        }
        ordered
    }
}

impl Request {
    /// The services that the file names without a gap.
    pub fn services(&self) -> Vec<String> {
        let mut services = Vec::new();
        let mut add = |service: &Glob| {
            let name = service.to_string();
            if Glob::literal(&name) == *service && !services.contains(&name) {
                services.push(name);
            }
        };
        match &self.body {
            Body::Tree(tree) => tree.each(&mut |span| add(&span.service)),
            Body::Edges(edges) => {
                edges.iter().flat_map(|edge| edge.from.iter().chain([&edge.to])).for_each(add);
            }
        }
        services
    }

    /// The keys of the attributes that the file names.
    pub fn attributes(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        if let Body::Tree(tree) = &self.body {
            tree.each(&mut |span| {
                for (key, _) in &span.attributes {
                    if !keys.contains(key) {
                        keys.push(key.clone());
                    }
                }
            });
        }
        keys
    }
}

impl File {
    /// The request with this name; without a name, the only one.
    ///
    /// # Errors
    /// There is none, or the file has several and no name is given.
    pub fn request(&self, name: Option<&str>) -> Result<&Request, NoRequest> {
        let names = || self.requests.iter().filter_map(|it| it.name.clone()).collect();
        match name {
            Some(name) => {
                let found = self.requests.iter().find(|it| it.name.as_deref() == Some(name));
                found.ok_or_else(|| NoRequest::Unknown { name: name.to_owned(), names: names() })
            }
            None => match &self.requests[..] {
                [only] => Ok(only),
                [] => Err(NoRequest::Empty),
                _ => Err(NoRequest::Several { names: names() }),
            },
        }
    }
}

/// The file doesn't have the one request that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRequest {
    #[error("it is empty")]
    Empty,
    #[error("it has several requests: name one of {}", names.join(", "))]
    Several { names: Vec<String> },
    #[error("it has no request {name:?}{}", the_others(names))]
    Unknown { name: String, names: Vec<String> },
}

fn the_others(names: &[String]) -> String {
    match names {
        [] => ": its request has no name".to_owned(),
        names => format!(", only {}", names.join(", ")),
    }
}

impl Expected {
    /// One span of this name, of any kind where there is none, without conditions.
    pub fn new(name: Glob, kind: Option<SpanKind>, service: Glob) -> Self {
        Expected {
            name,
            kind,
            service,
            status: None,
            outcome: Outcome::NoError,
            attributes: Vec::new(),
            limit: None,
            times: Times::ONCE,
            children: Children::default(),
            comments: Comments::default(),
        }
    }

    /// The columns behind the service: status, error, attributes, limit and count.
    pub fn items(&self) -> Vec<String> {
        let mut items: Vec<String> = self.status.iter().map(Glob::to_string).collect();
        match &self.outcome {
            Outcome::NoError => {}
            Outcome::Error(None) => items.push("error".to_owned()),
            Outcome::Error(Some(kind)) => items.push(format!("error {kind}")),
        }
        items.extend(self.attributes.iter().map(|(key, value)| format!("{key}={value}")));
        items.extend(self.limit.map(|limit| format!("< {}", limit_text(limit))));
        items.extend((self.times != Times::ONCE).then(|| self.times.to_string()));
        items
    }
}

/// A limit as a person writes it: in the largest unit that makes it a whole number, or else as durations are shown.
fn limit_text(nanoseconds: u64) -> String {
    for (unit, length) in [("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)] {
        if nanoseconds.is_multiple_of(length) {
            return format!("{} {unit}", nanoseconds / length);
        }
    }
    took(nanoseconds)
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Times::OPTIONAL => f.write_str("?"),
            Times { min, max: Some(max) } if min == max => write!(f, "x{min}"),
            Times { min, max: Some(max) } => write!(f, "x{min}..{max}"),
            Times { min, max: None } => write!(f, "x{min}.."),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Blanks separate the words of an edge.
        let word = |service: &Glob| match service.to_string() {
            mark if mark == "?" => "\\?".to_owned(),
            name => name.replace(' ', "\\ "),
        };
        if let Some(from) = &self.from {
            write!(f, "{} ", word(from))?;
        }
        write!(f, "{} {}", if self.link { "~>" } else { "->" }, word(&self.to))?;
        f.write_str(if self.optional { "  ?" } else { "" })
    }
}
