//! Every link, image and `#fragment` of the built book leads somewhere, and every include is found.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{BufferQueue, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer};
use regex::Regex;
use reqwest::Url;

use super::tree::{Tree, place};

/// Names and values of the attributes of all tags of a file; none if it isn't HTML.
type Attributes = Vec<(String, String)>;

/// The built book.
#[derive(Default)]
pub struct Site {
    files: BTreeMap<String, Attributes>,
    /// The includes that mdBook has left as they are, with their pages: it only logs what it doesn't find.
    left: Vec<(String, String)>,
    /// Why it could not be built.
    error: Option<String>,
}

/// Finds the links and the redirects of old headings that lead nowhere.
pub fn links(tree: &Tree) -> Vec<String> {
    let site = tree.site();
    let mut problems = Vec::from_iter(site.error.clone());
    for (page, attributes) in &site.files {
        for (_, link) in attributes.iter().filter(|(name, _)| ["href", "src"].contains(&&**name)) {
            if let Some(problem) = site.problem(page, link) {
                problems.push(format!("{}: the link {link}: {problem}", source(tree, page, link)));
            }
        }
    }
    let redirect = Regex::new(r##"(?m)^"/([^"#]+)#([^"]+)" = "([^"]+)"$"##).expect("a pattern");
    for found in redirect.captures_iter(&tree.read("book.toml")) {
        let (_, [page, id, to]) = found.extract();
        let is_heading = |(name, value): &(String, String)| name == "id" && value == id;
        match site.files.get(page) {
            Some(attributes) if attributes.iter().any(is_heading) => {
                problems.push(format!("book.toml: {page}#{id} is redirected, and is a heading"));
            }
            Some(_) => problems.extend(
                site.problem(page, to)
                    .map(|it| format!("book.toml: {page}#{id} leads to {to}: {it}")),
            ),
            None => problems.push(format!("book.toml: {page} isn't a page")),
        }
    }
    problems
}

/// Finds the includes that show nothing.
pub fn includes(tree: &Tree) -> Vec<String> {
    let left =
        tree.site().left.iter().map(|(page, include)| {
            format!("{}: {include} is not found", source(tree, page, include))
        });
    left.collect()
}

/// The line of the page's source that `what` comes from, if it can be found.
fn source(tree: &Tree, page: &str, what: &str) -> String {
    let file = format!("src/{}", page.replace(".html", ".md"));
    let text = tree.read(&file);
    let start = text.find(what).or_else(|| text.find(&what.replace(".html", ".md")));
    start.map_or(page.to_owned(), |start| place(&file, &text, start))
}

impl Site {
    pub fn build(root: &Path) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        match course::book::build(root, folder.path()) {
            Ok(pages) => Site::read(&Tree::at(&pages)),
            Err(error) => Site { error: Some(format!("{error:#}")), ..Site::default() },
        }
    }

    fn read(built: &Tree) -> Site {
        let include = Regex::new(r"\{\{#[^}]*\}\}").expect("a pattern");
        let mut site = Site::default();
        for file in built.files("", "") {
            let is_page = file.ends_with(".html") && !file.starts_with("recordings/");
            let html = match is_page {
                true => std::fs::read_to_string(built.root().join(file)).expect("text"),
                false => String::new(),
            };
            let left = include.find_iter(&html);
            site.left.extend(left.map(|it| (file.to_owned(), it.as_str().to_owned())));
            site.files.insert(file.to_owned(), attributes(&html));
        }
        site
    }

    /// Explains why `link` on `page` leads nowhere. Links to the web aren't followed.
    fn problem(&self, page: &str, link: &str) -> Option<String> {
        // The page that is served for any unknown path has a base of its own, which its headings don't know.
        let page = match page {
            "404.html" if link.starts_with('#') => return None,
            "404.html" => "",
            page => page,
        };
        let base = Url::parse("book:///").and_then(|base| base.join(page)).expect("a URL");
        let target = base.join(link).ok();
        let scheme = target.as_ref().map_or("", Url::scheme);
        if ["http", "https", "mailto", "data"].contains(&scheme) {
            return None;
        }
        let Some(target) = target.filter(|it| it.scheme() == "book") else {
            return Some("not a URL that a browser follows".to_owned());
        };
        let mut file = target.path().trim_start_matches('/').to_owned();
        if file.is_empty() || file.ends_with('/') {
            file.push_str("index.html");
        }
        let Some(attributes) = self.files.get(&file) else {
            return Some(format!("there is no {file}"));
        };
        let fragment = target.fragment().filter(|it| !it.is_empty())?;
        let found = attributes.iter().any(|(name, value)| name == "id" && value == fragment);
        (!found).then(|| format!("{file} has no #{fragment}"))
    }
}

fn attributes(html: &str) -> Attributes {
    let input = BufferQueue::default();
    input.push_back(html.into());
    let tokenizer = Tokenizer::new(Collector::default(), Default::default());
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    tokenizer.sink.0.into_inner()
}

#[derive(Default)]
struct Collector(RefCell<Attributes>);

impl TokenSink for Collector {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        if let Token::TagToken(tag) = token
            && tag.kind == TagKind::StartTag
        {
            let attributes = tag.attrs.iter();
            let attributes = attributes.map(|it| (it.name.local.to_string(), it.value.to_string()));
            self.0.borrow_mut().extend(attributes);
            // The text of a script is not HTML.
            if &*tag.name == "script" {
                return TokenSinkResult::RawData(RawKind::ScriptData);
            }
        }
        TokenSinkResult::Continue
    }
}
