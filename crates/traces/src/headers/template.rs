//! Tells a header that source code makes from one that was sent, such as
//! `format!("traceparent: 00-{trace_id}-{span_id}-01")`. An option of a command, such as `curl -H`, isn't source code here: a
//! variable in it that nothing has replaced is a mistake that people look for.

use super::{LONGEST, QUOTES, enclosing};

/// Words that begin a line of source code.
const KEYWORDS: [&str; 31] = [
    "async",
    "class",
    "const",
    "def",
    "enum",
    "final",
    "fn",
    "from",
    "fun",
    "func",
    "function",
    "impl",
    "import",
    "interface",
    "let",
    "mod",
    "module",
    "namespace",
    "package",
    "private",
    "protected",
    "pub",
    "public",
    "return",
    "static",
    "struct",
    "trait",
    "use",
    "using",
    "val",
    "var",
];

/// Counts the lines of source code from the beginning of a text.
#[derive(Default)]
pub(super) struct Lines {
    /// The byte up to which lines are counted.
    end: usize,
    code: usize,
    all: usize,
}

impl Lines {
    /// Whether the line that starts at `line` stands in source code: it looks like that, a fifth of the lines before it do, or the text
    /// is a script. Takes the lines of a text in order.
    pub fn is_code(&mut self, text: &str, line: usize) -> bool {
        /// A log may quote one line of a program.
        const LEAST: usize = 2;
        for passed in text[self.end..line].lines().filter(|it| !it.trim().is_empty()) {
            self.all += 1;
            self.code += usize::from(looks_like_code(passed));
        }
        self.end = line;
        let is_among_code = self.code >= LEAST && self.code * 5 >= self.all;
        let own = beginning(&text[line..]).lines().next().unwrap_or_default();
        is_among_code || text.starts_with("#!") || looks_like_code(own)
    }
}

fn looks_like_code(line: &str) -> bool {
    let line = line.trim();
    let first = line.split(|it: char| !it.is_ascii_alphabetic()).next().unwrap_or_default();
    let is_statement = line.ends_with(';') && (line.contains('(') || line.contains(" = "));
    let is_block = line.ends_with("{") && line.contains(") ") || line.ends_with("):");
    let goes_on = line[first.len()..].starts_with([' ', '(']);
    let is_import = first == "import" || line.contains(" import ");
    let is_declaration = goes_on
        && KEYWORDS.contains(&first)
        && (line.contains(['=', '(', '{']) || line.ends_with([';', ':']) || is_import);
    // A header may end in a semicolon.
    let is_header = line.split(' ').next().is_some_and(|word| word.ends_with(':'));
    line.starts_with("//")
        || line.contains(" := ")
        || is_declaration
        || !is_header && (is_statement || is_block)
}

/// The beginning of a text, which is all that is looked at.
fn beginning(text: &str) -> &str {
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// Whether a value at the byte `at`, in the line that starts at `line`, is a part of a literal that a program completes: a template,
/// a text that something is added to, or an argument with placeholders of a call. In the option of a command, the shell may complete
/// the first two.
pub(super) fn is_completed(text: &str, line: usize, at: usize, is_of_command: bool) -> bool {
    let Some((open, quote)) = literal(text, line, at) else { return false };
    let (before, content) = (&text[..open], beginning(&text[open + 1..]));
    let end = content.find(quote).unwrap_or(content.len());
    let (content, behind) = (&content[..end], content[end..].trim_start_matches(quote));
    let has = |marks: &[&str]| marks.iter().any(|mark| content.contains(mark));
    let is_template = match quote {
        '`' => has(&["${"]),
        // Ruby and Swift.
        _ => has(&["#{", "\\("]),
    };
    // Python, Scala and C#.
    let prefix = before.trim_end_matches(['r', 'R', '@']).chars().next_back();
    let mut behind_prefix = before.trim_end_matches(['r', 'R', '@']).chars().rev().skip(1);
    let is_word = behind_prefix.next().is_some_and(char::is_alphanumeric);
    let is_formatted = match prefix {
        Some('f' | 'F' | 's') => !is_word && has(&["{", "$"]),
        Some('$') => quote == '"' && has(&["{"]) && !has(&["${"]),
        _ => false,
    };
    const OPERATORS: [&str; 8] = [" +", "+ ", " % ", " . ", " .. ", " <> ", ".format", " ++ "];
    let is_added_to = OPERATORS.iter().any(|operator| behind.starts_with(operator));
    let is_argument = has(&["{", "%", "$", "<"])
        && enclosing(before).is_some_and(|bracket| {
            let name = before[..bracket].trim_end_matches('!');
            before[bracket..].starts_with('(')
                && name.ends_with(|it: char| it.is_alphanumeric() || it == '_')
        });
    is_argument || is_formatted || !is_of_command && (is_template || is_added_to)
}

/// Finds the literal around the byte `at`, or that begins there, in the line that starts at `line`: the place of its first quote.
fn literal(text: &str, line: usize, at: usize) -> Option<(usize, char)> {
    let from = (line.max(at.saturating_sub(LONGEST))..=at).find(|it| text.is_char_boundary(*it))?;
    let mut open: Option<(usize, char)> = None;
    let mut previous = ' ';
    for (index, it) in text[from..].char_indices().take_while(|(index, _)| from + index <= at) {
        let is_quote = QUOTES.contains(&it) && previous != '\\';
        match open {
            Some((_, quote)) if is_quote && it == quote => open = None,
            // An apostrophe isn't a quote.
            None if is_quote && !(it == '\'' && previous.is_alphanumeric()) => {
                open = Some((from + index, it));
            }
            _ => {}
        }
        previous = it;
    }
    open
}
