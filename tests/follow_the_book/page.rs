//! Turns a page of the book into the actions of its reader, in the order of the page.
//!
//! The rules are those that a person reads by: a listing belongs to the path in italics above it, a command to the terminal and
//! folder in the sentence before it, an output to the command before it.

use anyhow::{Context as _, Result, bail, ensure};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

use support::includes::includes;

#[derive(Debug, PartialEq)]
pub enum Action {
    /// Put a listing into a file.
    Write { path: String, how: Writing, content: String },
    /// Find a file that a command has written.
    Read { path: String, content: String },
    /// Change the lines of a file as a diff says.
    Edit { path: String, diff: String },
    /// Type a command in a terminal and a folder. The folder is as the page names it.
    Run { terminal: u8, folder: String, command: String },
    /// See an output in each of these terminals. If there are none, see it in the terminal of the last command.
    See { terminals: Vec<u8>, part: Part, output: String },
    /// Press Ctrl-C in each of these terminals, in this order.
    Interrupt { terminals: Vec<u8> },
    /// Press Enter in this terminal and wait for the lines that said that its command was ready.
    Enter { terminal: u8 },
    /// Open an address in a browser.
    Open { url: String },
    /// See this text on the page in the browser.
    Says { text: String },
    /// See the waterfalls of the traces that the last command left, as HTML.
    Figure { html: String },
    /// Expect the next command to exit with status 1.
    Fails,
}

#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Writing {
    /// The file doesn't exist yet.
    New,
    /// The file exists, and the page says that all of it is replaced.
    Replace,
}

/// The shown part of a command's output.
#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Part {
    All,
    End,
    Among,
    /// The lines that a command prints when it is ready. It then goes on running.
    Ready,
}

/// An action and its line on the page, from 1.
#[derive(Debug)]
pub struct Step {
    pub line: usize,
    pub action: Action,
}

struct Block {
    line: usize,
    kind: Kind,
    text: String,
}

enum Kind {
    Prose,
    Html,
    /// Code in a language.
    Code(String),
}

/// # Errors
/// Fails if a block of code has no language, because the reader wouldn't know what to do with it.
fn blocks(markdown: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
        let line = markdown[..range.start].matches('\n').count() + 1;
        let kind = match &event {
            Event::Start(Tag::Paragraph | Tag::Heading { .. } | Tag::Item) => Some(Kind::Prose),
            Event::Start(Tag::HtmlBlock) => Some(Kind::Html),
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                Some(Kind::Code(info.split(',').next().unwrap_or_default().to_owned()))
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)) => {
                bail!("line {line}: a block of code must say its language")
            }
            _ => None,
        };
        if let Some(kind) = kind {
            // The text of a list's item ends where another block begins in it.
            blocks.push(Block { line, kind, text: String::new() });
            is_open = true;
            continue;
        }
        // The text of tables stands in no block.
        let Some(Block { text, .. }) = blocks.last_mut().filter(|_| is_open) else { continue };
        match event {
            Event::Text(part) | Event::Html(part) => text.push_str(&part),
            Event::Code(code) => *text += &format!("`{code}`"),
            Event::SoftBreak => text.push(' '),
            Event::Start(Tag::Emphasis) | Event::End(TagEnd::Emphasis) => text.push('*'),
            Event::Start(Tag::Link { dest_url, .. }) => *text += &format!("<{dest_url}> "),
            Event::End(end) => is_open = is_inline(end),
            _ => {}
        }
    }
    Ok(blocks)
}

/// Whether this ends within a word or a sentence.
fn is_inline(end: TagEnd) -> bool {
    matches!(end, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link | TagEnd::Image)
}

/// The actions of the reader of a page.
///
/// # Errors
/// Fails if the page doesn't say what to do with a block. The error has the line and names what is missing.
pub fn steps(markdown: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    // The last two pieces of prose: a caption stands between a sentence and its listing.
    let (mut before, mut prose) = (String::new(), String::new());
    for Block { line, kind, text } in blocks(markdown)? {
        let actions = match kind {
            // In the source of a page, an include stands for the figure.
            Kind::Prose if is_figure(&text) => Ok(vec![Action::Figure { html: text }]),
            Kind::Html if text.contains("class=\"waterfall\"") => {
                Ok(vec![Action::Figure { html: text }])
            }
            Kind::Html => Ok(Vec::new()),
            Kind::Prose if text.is_empty() => Ok(Vec::new()),
            Kind::Prose => {
                before = std::mem::replace(&mut prose, text);
                spoken(&prose)
            }
            Kind::Code(language) => match &*language {
                "sh" => command(&prose, text),
                "text" if !prose.starts_with('*') => Ok(output(&prose, text)),
                _ => listing(&before, &prose, &language, text),
            }
            .map(|action| vec![action]),
        };
        let actions = actions.with_context(|| format!("line {line}"))?;
        steps.extend(actions.into_iter().map(|action| Step { line, action }));
    }
    Ok(steps)
}

pub fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern")
}

/// The actions in a sentence, in the order of the text.
///
/// # Errors
/// Fails if a sentence names such an action in other words than those that are understood.
fn spoken(prose: &str) -> Result<Vec<Action>> {
    let sentences = pattern(
        "[Ii]n terminals? (?<terminals>[\\d, and]+), press Ctrl-C|[Ii]n terminal (?<enter>\\d), press Enter|[Oo]pen <(?<url>http://127\\.0\\.0\\.1[^>]*)>\
         |[Tt]he page says \"(?<text>[^\"]+)\"|exits with 1",
    );
    let actions: Vec<Action> = sentences
        .captures_iter(prose)
        .map(|found| {
            let group = |name| found.name(name).map(|it| it.as_str().to_owned());
            if let Some(terminal) = group("enter") {
                return Action::Enter { terminal: numbers(&terminal)[0] };
            }
            match (group("terminals"), group("url"), group("text")) {
                (Some(list), ..) => Action::Interrupt { terminals: numbers(&list) },
                (_, Some(url), _) => Action::Open { url },
                (.., Some(text)) => Action::Says { text },
                _ => Action::Fails,
            }
        })
        .collect();
    let named = pattern(r"Ctrl-C|press Enter|<http://127\.0\.0\.1|page says|exits with 1");
    let understood = actions.len() == named.find_iter(prose).count();
    ensure!(understood, "an action stands in a sentence that is not understood: {prose:?}");
    Ok(actions)
}

/// Whether a paragraph is nothing but the include of a figure.
fn is_figure(prose: &str) -> bool {
    let included = includes("", prose);
    matches!(&included[..], [figure] if prose.starts_with("{{") && figure.file.ends_with(".html"))
}

fn command(prose: &str, command: String) -> Result<Action> {
    let place = r".*[Ii]n terminal (\d), in (the clone|any folder|`[\w/]+`)(?:, [\w ,]+)?:$";
    let found = pattern(place).captures(prose).with_context(|| {
        format!("the sentence before a command names no terminal and folder: {prose:?}")
    })?;
    Ok(Action::Run { terminal: found[1].parse()?, folder: found[2].replace('`', ""), command })
}

/// The digits of `5, 4 and 2`.
fn numbers(list: &str) -> Vec<u8> {
    list.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect()
}

fn output(prose: &str, output: String) -> Action {
    let named = pattern(r"terminals? ([\d, and]+)").captures(prose);
    let part = [
        ("ready when it prints", Part::Ready),
        ("ast line", Part::End),
        ("Among the lines", Part::Among),
    ];
    let part = part.into_iter().find(|(words, _)| prose.contains(words));
    Action::See {
        terminals: named.map(|found| numbers(&found[1])).unwrap_or_default(),
        part: part.map_or(Part::All, |(_, part)| part),
        output,
    }
}

fn listing(before: &str, caption: &str, language: &str, content: String) -> Result<Action> {
    let found = pattern(r"^\*([\w./-]+)\*$").captures(caption);
    let found = found.with_context(|| {
        format!("a listing of {language} has no path in italics above it, but: {caption:?}")
    })?;
    let path = found[1].to_owned();
    let how = match before.contains("Replace all of") {
        true => Writing::Replace,
        false => Writing::New,
    };
    Ok(match language {
        "text" if before.contains("has written") => Action::Read { path, content },
        "diff" => Action::Edit { path, diff: content },
        _ => Action::Write { path, how, content },
    })
}

/// The words, commands and lines that a page asks of its reader.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Tables and folded answers have words too, and blocks of code have none.
    pub words: usize,
    pub commands: usize,
    /// The lines to type or paste that aren't blank.
    pub lines: usize,
    /// The lines before the first figure of a trace.
    pub lines_before_a_trace: Option<usize>,
    /// The lines of the longest listing.
    pub longest: usize,
}

impl Effort {
    /// The minutes for a reader of 200 words and 20 lines a minute, who takes ten seconds for each command.
    pub fn minutes(self) -> f64 {
        self.words as f64 / 200.0 + self.lines as f64 / 20.0 + self.commands as f64 / 6.0
    }
}

/// A page that can't be followed has only words.
pub fn effort(markdown: &str) -> Effort {
    let mut effort = Effort::default();
    for Step { action, .. } in steps(markdown).unwrap_or_default() {
        let lines = match &action {
            Action::Write { content, .. } => {
                content.lines().filter(|line| !line.trim().is_empty()).count()
            }
            Action::Edit { diff, .. } => {
                let added = diff.lines().filter_map(|line| line.strip_prefix('+'));
                added.filter(|line| !line.trim().is_empty()).count()
            }
            _ => 0,
        };
        effort.lines += lines;
        effort.longest = effort.longest.max(lines);
        match action {
            Action::Run { .. } => effort.commands += 1,
            Action::Figure { .. } => {
                effort.lines_before_a_trace.get_or_insert(effort.lines);
            }
            _ => {}
        }
    }
    let (mut prose, mut in_block) = (String::new(), false);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_block = true,
            Event::End(TagEnd::CodeBlock) => in_block = false,
            Event::Text(text) | Event::Code(text) if !in_block => prose.push_str(&text),
            Event::End(end) if is_inline(end) => {}
            Event::SoftBreak | Event::End(_) => prose.push(' '),
            _ => {}
        }
    }
    effort.words = prose.split_whitespace().count();
    effort
}

#[test]
fn what_the_page_does_not_say_is_an_error() {
    for (page, expected) in [
        ("Run this:\n\n```sh\nls\n```\n", "names no terminal and folder"),
        ("In terminal 3:\n\n```sh\nls\n```\n", "names no terminal and folder"),
        ("A module:\n\n```rust\nfn a() {}\n```\n", "no path in italics"),
    ] {
        let error = format!("{:#}", steps(page).expect_err("something is missing"));
        assert!(error.contains(expected), "{page}: {error}");
    }
}

#[test]
fn a_page_is_read_as_a_person_reads_it() {
    let page = "# One\n\nReplace all of `a.rs`:\n\n*a.rs*\n\n```rust\nfn a() {}\n```\n\n\
                In terminal 2, press Ctrl-C. Then, in terminal 2, in `x`:\n\n```sh\nls\n```\n\n\
                The last line is:\n\n```text\nb\n```\n\nOpen <http://127.0.0.1:3000/traces>. \
                The page says \"No trace yet\".\n";
    let actions = steps(page).expect("a page").into_iter().map(|step| step.action);
    let expected = [
        Action::Write { path: "a.rs".into(), how: Writing::Replace, content: "fn a() {}\n".into() },
        Action::Interrupt { terminals: vec![2] },
        Action::Run { terminal: 2, folder: "x".into(), command: "ls\n".into() },
        Action::See { terminals: vec![], part: Part::End, output: "b\n".into() },
        Action::Open { url: "http://127.0.0.1:3000/traces".into() },
        Action::Says { text: "No trace yet".into() },
    ];
    assert_eq!(Vec::from_iter(actions), expected);
}

#[test]
fn the_text_of_a_list_is_read_before_the_block_in_it() {
    let page = "1. In terminal 5, press Ctrl-C. In terminal 5, in `x`:\n   ```sh\n   ls\n   ```\n";
    assert_eq!(steps(page).expect("a page").len(), 2);
}
