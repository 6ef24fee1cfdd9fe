//! A text with gaps: `*` stands for any characters, and `\` makes the next character an ordinary one.

use std::fmt;

/// A pattern for a whole text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob {
    /// The texts between the gaps: one without a gap, two around one gap, and so on.
    parts: Vec<String>,
}

impl Glob {
    /// The pattern that only `text` matches.
    pub fn literal(text: &str) -> Self {
        Glob { parts: vec![text.to_owned()] }
    }

    /// The pattern with gaps between these texts.
    pub fn with_gaps(parts: Vec<String>) -> Self {
        debug_assert!(!parts.is_empty());
        Glob { parts }
    }

    /// Reads a pattern as a file has it. `""` is the empty text.
    pub fn parse(written: &str) -> Self {
        if written == "\"\"" {
            return Glob::literal("");
        }
        let (mut parts, mut part) = (Vec::new(), String::new());
        let mut characters = written.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '*' => parts.push(std::mem::take(&mut part)),
                '\\' => match characters.next() {
                    Some('u') if characters.peek() == Some(&'{') => {
                        characters.next();
                        let digits: String =
                            characters.by_ref().take_while(|it| *it != '}').collect();
                        let code = u32::from_str_radix(&digits, 16).ok();
                        part.push(code.and_then(char::from_u32).unwrap_or('\u{fffd}'));
                    }
                    Some(escaped) => part.push(escaped),
                    None => part.push('\\'),
                },
                ordinary => part.push(ordinary),
            }
        }
        parts.push(part);
        Glob { parts }
    }

    /// Whether the whole of `text` has this form.
    pub fn matches(&self, text: &str) -> bool {
        let [first, between @ .., last] = &self.parts[..] else {
            return self.parts[0] == text;
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in between {
            // The first place leaves the most room for what follows.
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last.as_str())
    }
}

/// Whether a character would move the cursor, change colours or turn what follows around, so that it is written as a number.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Glob {
    /// Writes the pattern so that [`Glob::parse`] reads the same one, also where two blanks end a column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts == [""] {
            return f.write_str("\"\"");
        }
        let mut written = String::new();
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                written.push('*');
            }
            let mut characters = part.chars().peekable();
            while let Some(character) = characters.next() {
                let first = written.is_empty();
                let last = characters.peek().is_none() && index + 1 == self.parts.len();
                // Two blanks end a column, and editors remove those at the end of a line.
                let is_lost = character == ' ' && (first || last || written.ends_with(' '));
                let is_special = match character {
                    '*' | '\\' => true,
                    '#' | '"' | '[' | '│' | '├' | '└' | '─' => first,
                    _ => false,
                };
                if is_lost || is_invisible(character) {
                    written.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
                } else {
                    written.extend(is_special.then_some('\\'));
                    written.push(character);
                }
            }
        }
        f.pad(&written)
    }
}
