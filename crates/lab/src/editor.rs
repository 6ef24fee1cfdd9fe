//! Links from spans to source files in an editor. Only files below folders that the user names are linked, and none is read.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use traces::code::Location;

/// Schemes that run code, show contents from the link itself or read files.
const REFUSED_SCHEMES: [&str; 7] =
    ["javascript", "data", "vbscript", "blob", "file", "about", "view-source"];

/// The reasons why a template can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    #[error("it needs a scheme and {{path}}: write vscode://file/{{path}}:{{line}}")]
    Incomplete,
    #[error("links with the scheme {0} are refused: use that of your editor, such as vscode")]
    Scheme(String),
}

/// A folder that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the folder {} (--code-root)", root.display())]
pub struct UnusableRoot {
    root: PathBuf,
    source: std::io::Error,
}

/// The address of a file in an editor, with `{path}` and `{line}` where the file and the line belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl std::str::FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidTemplate::Incomplete)?;
        let is_scheme = scheme.starts_with(|it: char| it.is_ascii_alphabetic())
            && scheme.bytes().all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it));
        let is_plain = text.bytes().all(|it| it.is_ascii_graphic());
        if !is_scheme || !is_plain || !rest.contains("{path}") {
            return Err(InvalidTemplate::Incomplete);
        }
        let scheme = scheme.to_ascii_lowercase();
        match REFUSED_SCHEMES.contains(&&*scheme) {
            true => Err(InvalidTemplate::Scheme(scheme)),
            false => Ok(Template(text.to_owned())),
        }
    }
}

/// Makes the links. Cloning is cheap enough for each request.
#[derive(Debug, Clone)]
pub struct Editor {
    template: Template,
    /// The folders, as they were given and without symbolic links.
    roots: Vec<(PathBuf, PathBuf)>,
}

impl Editor {
    /// Links the files below the folders `roots`.
    ///
    /// # Errors
    /// [`UnusableRoot`] for a folder that doesn't exist.
    pub fn new(template: Template, roots: &[PathBuf]) -> Result<Self, UnusableRoot> {
        let real = |root: &PathBuf| {
            let absolute = std::path::absolute(root);
            let pair = absolute.and_then(|given| Ok((given, root.canonicalize()?)));
            pair.map_err(|source| UnusableRoot { root: root.clone(), source })
        };
        let roots = roots.iter().map(real).collect::<Result<_, _>>()?;
        Ok(Editor { template, roots })
    }

    /// Returns the address of a location in the editor. Returns `None` for a file that isn't below one of the folders.
    pub fn link(&self, location: &Location) -> Option<String> {
        let file = self.roots.iter().find_map(|root| below(root, Path::new(&location.file)))?;
        let Template(template) = &self.template;
        let path = encoded(file.to_str()?);
        let (before, _) = template.split_once("{path}")?;
        // `file:///x` and `vscode://file/x` have one slash in front of the path.
        let has_slash = before.ends_with('/') && !before.ends_with("://");
        let path = if has_slash { path.trim_start_matches('/') } else { &path };
        let line = location.line.unwrap_or(1).to_string();
        Some(template.replacen("{line}", &line, 1).replacen("{path}", path, 1))
    }
}

/// Returns the real path of a file below a folder. Looks at no file that isn't written as one below it: a path could lead to a share
/// of another machine.
fn below((given, real): &(PathBuf, PathBuf), file: &Path) -> Option<PathBuf> {
    let inner = match file.is_absolute() {
        true => file.strip_prefix(given).or_else(|_| file.strip_prefix(real)).ok()?,
        false => file,
    };
    let is_inner = |it: Component| matches!(it, Component::Normal(_) | Component::CurDir);
    if !inner.components().all(is_inner) || inner.as_os_str().is_empty() {
        return None;
    }
    // Fails for a file that doesn't exist.
    let file = real.join(inner).canonicalize().ok()?;
    (file.starts_with(real) && file.is_file()).then_some(file)
}

/// A path in a URL: percent-encoded, with `/` between its parts.
fn encoded(path: &str) -> String {
    // Windows adds `\\?\` to a real path.
    let path = path.strip_prefix(r"\\?\").unwrap_or(path);
    let mut encoded = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(byte.into());
            }
            b'\\' if cfg!(windows) => encoded.push('/'),
            b':' if cfg!(windows) => encoded.push(':'),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}
