//! Every link, image and `#fragment` of the built book leads somewhere, and every include is found.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};
use regex::Regex;
use reqwest::Url;

use super::tree::{Tree, place};

/// The tags of a page, in order: name and attributes.
pub type Tags = Vec<(String, BTreeMap<String, String>)>;

/// The built book: the tags of each file below it (none where it is not HTML).
#[derive(Default)]
pub struct Site {
    files: BTreeMap<String, Tags>,
    /// The includes that mdBook has left as they are, with their pages: it only logs what it does not find.
    left: Vec<(String, String)>,
    /// Why it could not be built.
    error: Option<String>,
}

/// A link that leads nowhere.
pub fn links(tree: &Tree) -> Vec<String> {
    let site = tree.site();
    let error = site.error.iter().cloned();
    let problems = site.problems().into_iter().map(|(page, link, problem)| {
        let place = source(tree, page, link);
        format!("{place}: the link {link}: {problem}")
    });
    error.chain(problems).collect()
}

/// An include that shows nothing.
pub fn includes(tree: &Tree) -> Vec<String> {
    let left = tree.site().left.iter().map(|(page, include)| {
        let place = source(tree, page, include);
        format!("{place}: {include} is not found")
    });
    left.collect()
}

/// The line of the page's source that `what` comes from, if it can be found.
fn source(tree: &Tree, page: &str, what: &str) -> String {
    let file = format!("src/{}", page.replace(".html", ".md"));
    let text = tree.read(&file);
    let written = [what.to_owned(), what.replace(".html", ".md")];
    let found = written.iter().find_map(|what| text.find(what));
    found.map_or(page.to_owned(), |start| place(&file, &text, start))
}

impl Site {
    pub fn build(root: &Path) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        match course::book::build(root, folder.path()) {
            Ok(pages) => Site::read(&pages),
            Err(error) => Site { error: Some(format!("{error:#}")), ..Site::default() },
        }
    }

    fn read(folder: &Path) -> Site {
        let include = Regex::new(r"\{\{#[^}]*\}\}").expect("a pattern");
        let mut site = Site::default();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(&next).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path
                    .strip_prefix(folder)
                    .expect("below it")
                    .to_string_lossy()
                    .replace('\\', "/");
                let page = name.ends_with(".html") && !name.starts_with("recordings/");
                let html = page.then(|| fs::read_to_string(&path).expect("text"));
                let html = html.unwrap_or_default();
                let left = include.find_iter(&html);
                let left = left.map(|include| (name.clone(), include.as_str().to_owned()));
                site.left.extend(left);
                site.files.insert(name, tags(&html));
            }
        }
        site
    }

    /// Explains why `link` on `page` leads nowhere. Links to the web aren't followed.
    fn problem(&self, page: &str, link: &str) -> Option<String> {
        // The page that is served for any unknown path has a base of its own, which its headings do not know.
        if page == "404.html" && link.starts_with('#') {
            return None;
        }
        let page = if page == "404.html" { "" } else { page };
        let base = Url::parse("book:///").and_then(|base| base.join(page)).expect("a URL");
        let target = match base.join(link) {
            Ok(target) if target.scheme() == "book" => target,
            Ok(target) if ["http", "https", "mailto", "data"].contains(&target.scheme()) => {
                return None;
            }
            _ => return Some("not a URL that a browser follows".to_owned()),
        };
        let mut file = target.path().trim_start_matches('/').to_owned();
        if file.is_empty() || file.ends_with('/') {
            file.push_str("index.html");
        }
        let Some(tags) = self.files.get(&file) else {
            return Some(format!("there is no {file}"));
        };
        let mut ids = tags.iter().filter_map(|(_, attributes)| attributes.get("id"));
        match target.fragment() {
            None | Some("") => None,
            Some(fragment) if ids.any(|id| id == fragment) => None,
            Some(fragment) => Some(format!("{file} has no #{fragment}")),
        }
    }

    /// Page, link, and what is wrong with it.
    fn problems(&self) -> Vec<(&str, &str, String)> {
        let mut problems = Vec::new();
        for (page, tags) in &self.files {
            for (_, attributes) in tags {
                for attribute in ["href", "src"] {
                    let link = attributes.get(attribute);
                    problems.extend(link.and_then(|link| {
                        let problem = self.problem(page, link)?;
                        Some((page.as_str(), link.as_str(), problem))
                    }));
                }
            }
        }
        problems
    }
}

pub fn tags(html: &str) -> Tags {
    let input = BufferQueue::default();
    input.push_back(html.into());
    let tokenizer = Tokenizer::new(Collector::default(), TokenizerOpts::default());
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    tokenizer.sink.0.into_inner()
}

#[derive(Default)]
struct Collector(RefCell<Tags>);

impl TokenSink for Collector {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        if let Token::TagToken(tag) = token
            && tag.kind == TagKind::StartTag
        {
            let attributes =
                tag.attrs.iter().map(|it| (it.name.local.to_string(), it.value.to_string()));
            self.0.borrow_mut().push((tag.name.to_string(), attributes.collect()));
            // What stands in a script is not HTML.
            if &*tag.name == "script" {
                return TokenSinkResult::RawData(RawKind::ScriptData);
            }
        }
        TokenSinkResult::Continue
    }
}
