//! Reads a file of expected traces, line by line.

use std::fmt;

use super::file::{
    Alternative, Body, Children, Comments, Edge, Expected, File, Item, Outcome, Request, Times,
};
use super::glob::Glob;
use crate::span::SpanKind;

/// How deep a file may be nested.
const DEPTH_LIMIT: usize = 100;

/// The most lines of a file.
const LINES_LIMIT: usize = 10_000;

/// A line that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The number of the line, from 1 on.
    pub line: usize,
    pub problem: Problem,
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// A mistake in a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("a tab: indent with blanks")]
    Tab,
    #[error("its indentation fits no line above it")]
    Indentation,
    #[error("the first span of a request must not be indented more than those after it")]
    FirstIndented,
    #[error("more than {DEPTH_LIMIT} levels")]
    TooDeep,
    #[error("more than {LINES_LIMIT} lines")]
    TooLong,
    #[error("{0:?} is not a span: write name, kind and service, with two blanks between them")]
    NotASpan(String),
    #[error("{0:?} ends in a kind: write two blanks before it")]
    KindInName(String),
    #[error("{written:?} is not a kind: write {kind}")]
    KindSpelling { written: String, kind: SpanKind },
    #[error("{0:?} has no service: write it behind the kind, with two blanks between them")]
    NoService(String),
    #[error(
        "{0:?} says nothing about a span: a status, `error`, `key=value`, `< 300 ms`, `?` or `x2..4` can stand behind the service"
    )]
    UnknownItem(String),
    #[error("{0:?} is said twice")]
    Twice(String),
    #[error("{0:?} is not a count: write `x3`, `x2..4` or `x2..`")]
    NotACount(String),
    #[error("{0:?} is not a limit: write `< 300 ms`")]
    NotALimit(String),
    #[error("nothing can stand below `{0}`")]
    Below(&'static str),
    #[error("nothing can stand below `{0}`: indent it like the lines that it separates")]
    BelowSeparator(&'static str),
    #[error("nothing stands before `{0}`")]
    NothingBefore(&'static str),
    #[error("nothing stands behind `{0}`")]
    NothingBehind(&'static str),
    #[error("a second request: start each with its name in brackets, such as `[checkout]`")]
    Unnamed,
    #[error("a second request {0:?}")]
    SameName(String),
    #[error("{0:?} is not a name: use letters, digits, `-`, `_`, `.` and blanks")]
    BadName(String),
    #[error(
        "{0:?} is not an edge: write `caller -> called`, `-> entered` or `sender ~> receiver`, and `\\ ` for a blank in a service"
    )]
    NotAnEdge(String),
    #[error(
        "`edges` stands alone on its line: write the calls below it, or for a span of that name its kind"
    )]
    BehindEdges,
    #[error("`edges` must be the first line of a request")]
    LateEdges,
    #[error("the request has neither a span nor `edges`")]
    NoBody,
}

/// One line, with what is below it.
struct Line {
    number: usize,
    indentation: usize,
    content: Content,
    below: Vec<Line>,
}

enum Content {
    Span(Box<Expected>),
    Any(Comments),
    Links,
    Or,
    Then,
}

/// Reads a whole file.
///
/// # Errors
/// The first line that can't be read.
pub fn parse(text: &str) -> Result<File, Mistake> {
    let mut file = File::default();
    let mut section: Option<Section> = None;
    let mut comments = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let mistake = |problem| Mistake { line: number, problem };
        if number > LINES_LIMIT {
            return Err(mistake(Problem::TooLong));
        }
        let (indentation, content) = indented(line);
        if content.starts_with('\t') {
            return Err(mistake(Problem::Tab));
        }
        let (columns, comment) = columns(content);
        let Some(first) = columns.first() else {
            comments.extend(comment);
            continue;
        };
        let name = first.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if let Some(name) = name.filter(|_| columns.len() == 1) {
            if section.as_ref().is_some_and(|it| it.name.is_none()) {
                return Err(mistake(Problem::Unnamed));
            }
            let allowed = |it: char| it.is_alphanumeric() || matches!(it, '-' | '_' | '.' | ' ');
            if name.trim().is_empty() || !name.chars().all(allowed) {
                return Err(mistake(Problem::BadName(name.to_owned())));
            }
            if let Some(done) = section.take() {
                file.requests.push(done.finish()?);
            }
            if file.requests.iter().any(|it| it.name.as_deref() == Some(name)) {
                return Err(mistake(Problem::SameName(name.to_owned())));
            }
            comments.extend(comment);
            section =
                Some(Section::new(Some(name.to_owned()), number, std::mem::take(&mut comments)));
            continue;
        }
        let section = section.get_or_insert_with(|| Section::new(None, number, Vec::new()));
        section.add(number, indentation, &columns, comment, &mut comments).map_err(mistake)?;
    }
    if let Some(done) = section {
        file.requests.push(done.finish()?);
    }
    file.comments = comments;
    Ok(file)
}

/// The width of the indentation, in which the branches of a tree count as blanks, and the rest of the line.
fn indented(line: &str) -> (usize, &str) {
    let rest = line.trim_start_matches([' ', '│', '├', '└', '─']);
    (line[..line.len() - rest.len()].chars().count(), rest.trim_end())
}

/// The columns of a line, which two blanks separate, as they are written; and the comment behind them.
fn columns(content: &str) -> (Vec<String>, Option<String>) {
    let mut columns: Vec<String> = Vec::new();
    let mut column = String::new();
    let mut characters = content.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '#' if column.is_empty() => {
                return (columns, Some(content[at + 1..].trim().to_owned()));
            }
            '\\' => {
                column.push('\\');
                column.extend(characters.next().map(|(_, escaped)| escaped));
            }
            ' ' if characters.peek().is_none_or(|(_, next)| *next == ' ') => {
                if !column.is_empty() {
                    columns.push(std::mem::take(&mut column));
                }
                while characters.next_if(|(_, next)| *next == ' ').is_some() {}
            }
            ordinary => column.push(ordinary),
        }
    }
    if !column.is_empty() {
        columns.push(column);
    }
    (columns, None)
}

/// The lines of one request.
struct Section {
    name: Option<String>,
    line: usize,
    comments: Vec<String>,
    edges: Option<Vec<Edge>>,
    tops: Vec<Line>,
    /// The indentations of the last line and those above it.
    open: Vec<usize>,
}

impl Section {
    fn new(name: Option<String>, line: usize, comments: Vec<String>) -> Self {
        Section { name, line, comments, edges: None, tops: Vec::new(), open: Vec::new() }
    }

    fn add(
        &mut self,
        number: usize,
        indentation: usize,
        columns: &[String],
        comment: Option<String>,
        comments: &mut Vec<String>,
    ) -> Result<(), Problem> {
        if let Some(edges) = &mut self.edges {
            let comments = Comments { above: std::mem::take(comments), behind: comment };
            edges.push(Edge { comments, ..edge(columns)? });
            return Ok(());
        }
        match columns {
            [word] if word == "edges" => {
                if !self.tops.is_empty() {
                    return Err(Problem::LateEdges);
                }
                self.edges = Some(Vec::new());
                self.comments.append(comments);
                self.comments.extend(comment);
                return Ok(());
            }
            [word, next, ..] if word == "edges" && self.tops.is_empty() && kind(next).is_none() => {
                return Err(Problem::BehindEdges);
            }
            _ => {}
        }
        let mut content = content(columns)?;
        match &mut content {
            Content::Span(span) => {
                span.comments = Comments { above: std::mem::take(comments), behind: comment };
            }
            Content::Any(own) => {
                *own = Comments { above: std::mem::take(comments), behind: comment };
            }
            // The comment goes to the next line, above it.
            Content::Links | Content::Or | Content::Then => comments.extend(comment),
        }
        let depth = match self.open.iter().position(|open| *open == indentation) {
            Some(depth) => depth,
            None if self.open.last().is_none_or(|last| *last < indentation) => self.open.len(),
            None if indentation < self.open[0] => return Err(Problem::FirstIndented),
            None => return Err(Problem::Indentation),
        };
        if depth >= DEPTH_LIMIT {
            return Err(Problem::TooDeep);
        }
        self.open.truncate(depth);
        self.open.push(indentation);
        let mut lines = &mut self.tops;
        for _ in 0..depth {
            lower_separator(lines, indentation);
            let above = lines.last_mut().ok_or(Problem::Indentation)?;
            match above.content {
                Content::Any(_) => return Err(Problem::Below("...")),
                Content::Or => return Err(Problem::BelowSeparator("or")),
                Content::Then => return Err(Problem::BelowSeparator("then")),
                Content::Span(_) | Content::Links => lines = &mut above.below,
            }
        }
        lines.push(Line { number, indentation, content, below: Vec::new() });
        Ok(())
    }

    fn finish(self) -> Result<Request, Mistake> {
        let Section { name, line, comments, edges, tops, .. } = self;
        let body = match edges {
            Some(edges) => Body::Edges(edges),
            None if tops.is_empty() => return Err(Mistake { line, problem: Problem::NoBody }),
            None => Body::Tree(children(tops)?),
        };
        Ok(Request { name, comments, body })
    }
}

/// Moves an `or` or `then` that stands where the branches of the lines around it begin to these lines. The line that follows it has
/// this indentation.
fn lower_separator(lines: &mut Vec<Line>, indentation: usize) {
    let [.., above, Line { content: Content::Or | Content::Then, .. }] = &lines[..] else { return };
    let belongs_below = above.below.first().is_some_and(|it| it.indentation == indentation);
    if belongs_below
        && let Some(separator) = lines.pop()
        && let Some(above) = lines.last_mut()
    {
        above.below.push(separator);
    }
}

/// Sorts the lines below one line into alternatives and groups.
fn children(lines: Vec<Line>) -> Result<Children, Mistake> {
    let mut alternatives = Vec::new();
    // The alternative that is being read, and its last group.
    let (mut groups, mut group, mut links) = (Vec::new(), Vec::new(), None);
    let mut open: Option<(usize, &'static str)> = None;
    for Line { number, content, below, .. } in lines {
        let mistake = |problem| Mistake { line: number, problem };
        match content {
            Content::Or | Content::Then if open.is_some() => {
                let word = if matches!(content, Content::Or) { "or" } else { "then" };
                return Err(mistake(Problem::NothingBefore(word)));
            }
            Content::Or => {
                if group.is_empty() && links.is_none() {
                    return Err(mistake(Problem::NothingBefore("or")));
                }
                open = Some((number, "or"));
                groups.push(std::mem::take(&mut group));
                let groups = std::mem::take(&mut groups);
                alternatives.push(Alternative { groups, links: links.take() });
                continue;
            }
            Content::Then => {
                if group.is_empty() {
                    return Err(mistake(Problem::NothingBefore("then")));
                }
                open = Some((number, "then"));
                groups.push(std::mem::take(&mut group));
                continue;
            }
            Content::Any(comments) => group.push(Item::Any(comments)),
            Content::Links if links.is_some() => {
                return Err(mistake(Problem::Twice("links".to_owned())));
            }
            Content::Links if below.is_empty() => {
                return Err(mistake(Problem::NothingBehind("links")));
            }
            Content::Links => links = Some(Box::new(children(below)?)),
            Content::Span(mut span) => {
                span.children = children(below)?;
                group.push(Item::Span(span));
            }
        }
        open = None;
    }
    match open {
        Some((line, word)) => Err(Mistake { line, problem: Problem::NothingBehind(word) }),
        None => {
            groups.push(group);
            alternatives.push(Alternative { groups, links });
            Ok(Children { alternatives })
        }
    }
}

fn content(columns: &[String]) -> Result<Content, Problem> {
    let words: Vec<&str> = columns.iter().map(String::as_str).collect();
    let (name, kind, service, items) = match words[..] {
        ["..."] => return Ok(Content::Any(Comments::default())),
        ["links"] => return Ok(Content::Links),
        ["or"] => return Ok(Content::Or),
        ["then"] => return Ok(Content::Then),
        [name, second, ref rest @ ..] => match (kind(second), rest) {
            (Some(kind), [service, items @ ..]) => (name, Some(kind), *service, items),
            (Some(_), []) => return Err(Problem::NoService(words.join("  "))),
            (None, items) => {
                check_spelling(second, items)?;
                (name, None, second, items)
            }
        },
        _ => return Err(Problem::NotASpan(words.join("  "))),
    };
    let last = name.rsplit_once(' ').map(|(_, last)| last);
    if kind.is_none() && last.is_some_and(|word| self::kind(word).is_some()) {
        return Err(Problem::KindInName(name.to_owned()));
    }
    let mut span = Expected::new(Glob::parse(name), kind, Glob::parse(service));
    for item in items {
        add_item(&mut span, item)?;
    }
    Ok(Content::Span(Box::new(span)))
}

/// Finds a kind that isn't written as the file has them. It stands before the service, so what follows says nothing about a span.
fn check_spelling(written: &str, items: &[&str]) -> Result<(), Problem> {
    let upper = written.to_uppercase();
    let kind = kind(upper.strip_prefix("SPAN_KIND_").unwrap_or(&upper));
    let (Some(kind), Some(next)) = (kind, items.first()) else { return Ok(()) };
    let empty = || Glob::literal("");
    match add_item(&mut Expected::new(empty(), None, empty()), next) {
        Err(Problem::UnknownItem(_)) => {
            Err(Problem::KindSpelling { written: written.to_owned(), kind })
        }
        _ => Ok(()),
    }
}

fn kind(word: &str) -> Option<SpanKind> {
    const KINDS: [SpanKind; 6] = [
        SpanKind::Unspecified,
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];
    KINDS.into_iter().find(|kind| kind.as_str() == word)
}

fn add_item(span: &mut Expected, item: &str) -> Result<(), Problem> {
    let twice = || Problem::Twice(item.to_owned());
    let is_status = |text: &str| {
        text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'*')
    };
    let is_count = |text: &str| text.starts_with(|it: char| it.is_ascii_digit());
    if item == "?" || item.strip_prefix('x').is_some_and(is_count) {
        if span.times != Times::ONCE {
            return Err(twice());
        }
        span.times = times(item)?;
    } else if item == "error" || item.starts_with("error ") {
        if span.outcome != Outcome::NoError {
            return Err(twice());
        }
        let kind = item.strip_prefix("error ").map(Glob::parse);
        span.outcome = Outcome::Error(kind);
    } else if is_status(item) {
        if span.status.replace(Glob::parse(item)).is_some() {
            return Err(twice());
        }
    } else if let Some(limit) = item.strip_prefix('<') {
        let limit = nanoseconds(limit).ok_or_else(|| Problem::NotALimit(item.to_owned()))?;
        if span.limit.replace(limit).is_some() {
            return Err(twice());
        }
    } else if let Some((key, value)) = item.split_once('=').filter(|(key, _)| !key.is_empty()) {
        if span.attributes.iter().any(|(known, _)| known == key) {
            return Err(twice());
        }
        span.attributes.push((key.to_owned(), Glob::parse(value)));
    } else {
        return Err(Problem::UnknownItem(item.to_owned()));
    }
    Ok(())
}

fn times(written: &str) -> Result<Times, Problem> {
    if written == "?" {
        return Ok(Times::OPTIONAL);
    }
    let count = |text: &str| text.parse::<usize>().ok();
    let range = written.strip_prefix('x').unwrap_or_default();
    let times = match range.split_once("..") {
        None => count(range).map(|count| Times { min: count, max: Some(count) }),
        Some((min, "")) => count(min).map(|min| Times { min, max: None }),
        Some((min, max)) => {
            let bounds = count(min).zip(count(max)).filter(|(min, max)| min <= max);
            bounds.map(|(min, max)| Times { min, max: Some(max) })
        }
    };
    let times = times.filter(|times| times.max != Some(0));
    times.ok_or_else(|| Problem::NotACount(written.to_owned()))
}

/// A duration such as `300 ms`, in nanoseconds.
fn nanoseconds(written: &str) -> Option<u64> {
    let written = written.trim();
    let digits = written.find(|it: char| !it.is_ascii_digit() && it != '.')?;
    let (number, unit) = written.split_at(digits);
    let unit = match unit.trim() {
        "µs" | "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let nanoseconds = number.parse::<f64>().ok()? * unit;
    (nanoseconds > 0.0 && nanoseconds < 1e18).then_some(nanoseconds as u64)
}

fn edge(columns: &[String]) -> Result<Edge, Problem> {
    let is_arrow = |word: &str| matches!(word, "->" | "~>");
    let words: Vec<String> = columns.iter().flat_map(|column| words(column)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (words, optional) = match &words[..] {
        [words @ .., "?"] if words.len() > 1 => (words, true),
        words => (words, false),
    };
    let (from, arrow, to) = match *words {
        [arrow, to] if is_arrow(arrow) => (None, arrow, to),
        [from, arrow, to] if is_arrow(arrow) => (Some(Glob::parse(from)), arrow, to),
        _ => return Err(Problem::NotAnEdge(columns.join("  "))),
    };
    Ok(Edge { optional, ..Edge::new(from, Glob::parse(to), arrow == "~>") })
}

/// The words of a column, which blanks separate, as they are written.
fn words(column: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = column.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            (' ', _) => words.push(String::new()),
            ('\\', Some(word)) => {
                word.push('\\');
                word.extend(characters.next());
            }
            (ordinary, Some(word)) => word.push(ordinary),
            (_, None) => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
