//! The place in the source code that made a span: the attributes
//! [`code.*`](https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/), also by their older names.

use std::fmt;

use serde::Serialize;

use crate::proto::common::KeyValue;
use crate::span::{any_text, shortened};

/// The most characters of a path or of a function's name.
const LIMIT: usize = 4096;

/// A file with a line, as the sender wrote them. The path may be relative, such as `src/main.rs`, and it may be of another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Location {
    pub file: String,
    /// Counted from 1.
    pub line: Option<u32>,
    /// The function, with its module where the sender gave that.
    pub function: Option<String>,
}

impl Location {
    /// Reads the location from the attributes of a span, an event or a log record. Returns `None` without a file.
    pub fn read(attributes: &[KeyValue]) -> Option<Self> {
        let first = |keys: &[&str]| {
            let text = |key: &&str| {
                let found = attributes.iter().find(|it| it.key == **key)?;
                Some(any_text(&found.value)).filter(|text| !text.is_empty())
            };
            keys.iter().find_map(text)
        };
        let file = first(&["code.file.path", "code.filepath"])?;
        let line = first(&["code.line.number", "code.lineno"]);
        let module = first(&["code.namespace"]);
        let function = first(&["code.function.name"]).or_else(|| {
            let function = first(&["code.function"])?;
            Some(module.map_or(function.clone(), |module| format!("{module}.{function}")))
        });
        Some(Location {
            file: shortened(&file, LIMIT),
            line: line.and_then(|line| line.parse().ok()).filter(|line| *line > 0),
            function: function.map(|it| shortened(&it, LIMIT)),
        })
    }
}

/// `FILE:LINE`, or the file alone.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}
