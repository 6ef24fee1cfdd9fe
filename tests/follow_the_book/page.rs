//! A page of the book as what its reader does, in the order of the page.
//!
//! The rules are those that a person reads by: a listing belongs to the path in italics above it, a command to the
//! terminal and folder that the sentence before it names, an output to the command before it.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

use crate::support::includes::includes;

#[derive(Debug, PartialEq)]
pub enum Action {
    /// Put a listing into a file.
    Write { path: String, how: Writing, content: String },
    /// Change a file as the lines of a diff say.
    Edit { path: String, diff: String },
    /// Type a command.
    Run { terminal: u8, folder: Folder, command: String },
    /// See an output: in each of the terminals it names, or in that of the last command.
    See { terminals: Vec<u8>, part: Part, output: String },
    /// Press Ctrl-C in each of these terminals, in this order.
    Interrupt { terminals: Vec<u8> },
    /// Open an address in a browser.
    Open { url: String },
    /// The page that was opened says this.
    Says { text: String },
    /// The waterfalls of the traces that the last command left, as HTML.
    Figure { html: String },
    /// The compiler is said to warn, until the next change of a file.
    Warns,
}

#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Writing {
    /// There is no such file yet.
    New,
    /// There is one, and the page says that all of it is replaced.
    Replace,
    /// At the end of a file that is there.
    Append,
}

#[derive(Debug, PartialEq, Clone)]
pub enum Folder {
    Clone,
    Parent,
    Named(String),
}

/// How much of what a command prints is shown.
#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Part {
    All,
    End,
    Among,
    /// What tells that a command is ready which goes on running.
    Ready,
}

/// Something to do, and the line of the page that says so, from 1.
#[derive(Debug)]
pub struct Step {
    pub line: usize,
    pub action: Action,
}

/// A block of a page: prose, code, or HTML.
enum Block {
    Prose(String),
    Code { language: String, code: String },
    Html(String),
}

/// The blocks of a page, each with its line.
///
/// # Errors
/// Where a block of code does not say its language: nobody would type it.
fn blocks(markdown: &str) -> Result<Vec<(usize, Block)>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
        let line = markdown[..range.start].matches('\n').count() + 1;
        match event {
            // What was open is prose that another block stands in: the text of a list's item.
            Event::Start(Tag::Paragraph | Tag::Heading { .. } | Tag::Item) => {
                blocks.extend(open.replace((line, Block::Prose(String::new()))));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let language = info.split(',').next().unwrap_or_default().to_owned();
                let code = String::new();
                blocks.extend(open.replace((line, Block::Code { language, code })));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)) => {
                return Err(format!("line {line}: a block of code must say its language"));
            }
            Event::Start(Tag::HtmlBlock) => {
                blocks.extend(open.replace((line, Block::Html(String::new()))));
            }
            Event::End(
                TagEnd::Paragraph
                | TagEnd::Item
                | TagEnd::Heading(_)
                | TagEnd::CodeBlock
                | TagEnd::HtmlBlock,
            ) => blocks.extend(open.take()),
            event => match &mut open {
                Some((_, Block::Code { code: into, .. } | Block::Html(into))) => {
                    if let Event::Text(text) | Event::Html(text) = event {
                        into.push_str(&text);
                    }
                }
                Some((_, Block::Prose(prose))) => match event {
                    Event::Text(text) => prose.push_str(&text),
                    Event::Code(code) => prose.push_str(&format!("`{code}`")),
                    Event::SoftBreak => prose.push(' '),
                    Event::Start(Tag::Emphasis) | Event::End(TagEnd::Emphasis) => prose.push('*'),
                    Event::Start(Tag::Link { dest_url, .. }) => {
                        prose.push_str(&format!("<{dest_url}> "))
                    }
                    _ => {}
                },
                None => {}
            },
        }
    }
    Ok(blocks)
}

fn captures(pattern: &str, text: &str) -> Option<Vec<String>> {
    let captures = Regex::new(pattern).expect("a pattern").captures(text)?;
    let groups = captures.iter().skip(1);
    Some(
        groups
            .map(|group| group.map_or_else(String::new, |group| group.as_str().to_owned()))
            .collect(),
    )
}

/// What the reader of `markdown` does.
///
/// # Errors
/// When a block does not say what to do with it: its line, and what is missing.
pub fn steps(markdown: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    // The last two pieces of prose: a caption stands between a sentence and its listing.
    let (mut before, mut prose) = (String::new(), String::new());
    for (line, block) in blocks(markdown)? {
        let actions = match block {
            Block::Prose(text) if text.is_empty() => Vec::new(),
            // In the source of a page, an include stands for the figure.
            Block::Prose(html) if is_figure(&html) => vec![Action::Figure { html }],
            Block::Prose(text) => {
                let actions = spoken(&text).map_err(|error| format!("line {line}: {error}"))?;
                before = std::mem::replace(&mut prose, text);
                actions
            }
            Block::Html(html) if html.contains("class=\"waterfall\"") => {
                vec![Action::Figure { html }]
            }
            Block::Html(_) => Vec::new(),
            Block::Code { language, code } => {
                let action = match &*language {
                    "sh" => command(&prose, code)?,
                    "text" if !prose.starts_with('*') => output(&prose, code),
                    _ => listing(&before, &prose, &language, code)?,
                };
                vec![action]
            }
        };
        steps.extend(actions.into_iter().map(|action| Step { line, action }));
    }
    Ok(steps)
}

/// What prose alone tells the reader to do, or to see, in the order of the text.
///
/// # Errors
/// Where it speaks of something that a reader does, in words that are not understood.
fn spoken(prose: &str) -> Result<Vec<Action>, String> {
    type Meaning = fn(&str) -> Action;
    let sentences: [(&str, &str, Meaning); 4] = [
        ("Ctrl-C", r"[Ii]n terminals? ([\d, and]+), press Ctrl-C", |list| Action::Interrupt {
            terminals: numbers(list),
        }),
        ("<http://127.0.0.1", r"(?:Open|open) <(http://127\.0\.0\.1[^>]*)>", |url| Action::Open {
            url: url.to_owned(),
        }),
        ("page says", "[Tt]he page says \"([^\"]+)\"", |text| Action::Says {
            text: text.to_owned(),
        }),
        ("compiler warns", "[Tt]he (compiler) warns", |_| Action::Warns),
    ];
    let mut actions = Vec::new();
    for (word, pattern, meaning) in sentences {
        let pattern = Regex::new(pattern).expect("a pattern");
        let found: Vec<_> = pattern
            .captures_iter(prose)
            .filter_map(|found| found.get(1))
            .map(|found| (found.start(), meaning(found.as_str())))
            .collect();
        if found.len() < prose.matches(word).count() {
            return Err(format!("{word:?} stands in a sentence that is not understood: {prose:?}"));
        }
        actions.extend(found);
    }
    actions.sort_by_key(|(place, _)| *place);
    Ok(actions.into_iter().map(|(_, action)| action).collect())
}

/// Whether a paragraph is nothing but the include of a figure.
fn is_figure(prose: &str) -> bool {
    let included = includes("", prose);
    matches!(&included[..], [figure] if prose.starts_with("{{") && figure.file.ends_with(".html"))
}

fn command(prose: &str, command: String) -> Result<Action, String> {
    let place = r".*[Ii]n terminal (\d), in (the clone|the folder that holds the clone|`([\w/]+)`)(?:, [\w ,]+)?:$";
    let found = captures(place, prose).ok_or_else(|| {
        format!("the sentence before a command names no terminal and folder: {prose:?}")
    })?;
    let folder = match &*found[1] {
        "the clone" => Folder::Clone,
        "the folder that holds the clone" => Folder::Parent,
        _ => Folder::Named(found[2].clone()),
    };
    let terminal = found[0].parse().map_err(|error| format!("{error}"))?;
    Ok(Action::Run { terminal, folder, command })
}

/// The digits of `5, 4 and 2`.
fn numbers(list: &str) -> Vec<u8> {
    let digits = list.chars().filter_map(|letter| letter.to_digit(10));
    digits.filter_map(|digit| u8::try_from(digit).ok()).collect()
}

fn output(prose: &str, output: String) -> Action {
    let named = captures(r"terminals? ([\d, and]+)", prose);
    let terminals = named.map(|found| numbers(&found[0])).unwrap_or_default();
    let part = if prose.contains("ready when it prints") {
        Part::Ready
    } else if prose.contains("ast line") {
        Part::End
    } else if prose.contains("Among the lines") {
        Part::Among
    } else {
        Part::All
    };
    Action::See { terminals, part, output }
}

fn listing(before: &str, caption: &str, language: &str, content: String) -> Result<Action, String> {
    let found = captures(r"^\*([\w./-]+)(, at the end)?\*$", caption).ok_or_else(|| {
        format!("a listing of {language} has no path in italics above it, but: {caption:?}")
    })?;
    let path = found[0].clone();
    let how = match (&*found[1], before.contains("Replace all of")) {
        ("", false) => Writing::New,
        ("", true) => Writing::Replace,
        _ => Writing::Append,
    };
    Ok(match language {
        "diff" => Action::Edit { path, diff: content },
        _ => Action::Write { path, how, content },
    })
}

/// Whether what ends stands within a word or a sentence.
fn inline(end: TagEnd) -> bool {
    matches!(end, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link)
}

/// What a page asks of its reader. Tables and folded answers are words too; what stands in a block of code is not.
pub struct Effort {
    pub words: usize,
    pub commands: usize,
    /// Files to write and to change.
    pub listings: usize,
}

impl Effort {
    /// A page that is not to be followed has words alone.
    pub fn of(markdown: &str) -> Effort {
        let mut effort = Effort { words: 0, commands: 0, listings: 0 };
        for step in steps(markdown).unwrap_or_default() {
            match step.action {
                Action::Run { .. } => effort.commands += 1,
                Action::Write { .. } | Action::Edit { .. } => effort.listings += 1,
                _ => {}
            }
        }
        let (mut prose, mut in_block) = (String::new(), false);
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::CodeBlock(_)) => in_block = true,
                Event::End(TagEnd::CodeBlock) => in_block = false,
                Event::Text(text) | Event::Code(text) if !in_block => prose.push_str(&text),
                Event::SoftBreak => prose.push(' '),
                Event::End(end) if !inline(end) => prose.push(' '),
                _ => {}
            }
        }
        effort.words = prose.split_whitespace().count();
        effort
    }

    /// Minutes for a reader of 200 words a minute who takes ten seconds for each command and each listing.
    pub fn minutes(&self) -> f64 {
        self.words as f64 / 200.0 + (self.commands + self.listings) as f64 / 6.0
    }
}

#[test]
fn what_the_page_does_not_say_is_an_error() {
    for (page, expected) in [
        ("Run this:\n\n```sh\nls\n```\n", "names no terminal and folder"),
        ("In terminal 3:\n\n```sh\nls\n```\n", "names no terminal and folder"),
        ("A module:\n\n```rust\nfn a() {}\n```\n", "no path in italics"),
    ] {
        let error = steps(page).expect_err("something is missing");
        assert!(error.contains(expected), "{page}: {error}");
    }
}

#[test]
fn a_page_is_read_as_a_person_reads_it() {
    let page = "# One\n\nReplace all of `a.rs`:\n\n*a.rs*\n\n```rust\nfn a() {}\n```\n\n\
                In terminal 2, press Ctrl-C. Then, in terminal 2, in `x`:\n\n```sh\nls\n```\n\n\
                The last line is:\n\n```text\nb\n```\n\nOpen <http://127.0.0.1:3000/traces>. \
                The page says \"No trace yet\".\n";
    let actions: Vec<Action> =
        steps(page).expect("a page").into_iter().map(|step| step.action).collect();
    let expected = [
        Action::Write { path: "a.rs".into(), how: Writing::Replace, content: "fn a() {}\n".into() },
        Action::Interrupt { terminals: vec![2] },
        Action::Run { terminal: 2, folder: Folder::Named("x".into()), command: "ls\n".into() },
        Action::See { terminals: vec![], part: Part::End, output: "b\n".into() },
        Action::Open { url: "http://127.0.0.1:3000/traces".into() },
        Action::Says { text: "No trace yet".into() },
    ];
    assert_eq!(actions, expected);
}

#[test]
fn the_text_of_a_list_is_read_before_the_block_in_it() {
    let page = "1. In terminal 5, press Ctrl-C. In terminal 5, in `x`:\n   ```sh\n   ls\n   ```\n";
    assert_eq!(steps(page).expect("a page").len(), 2);
}
