//! Every link, image and `#fragment` of the built book leads somewhere, and every include is found.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};
use reqwest::Url;

/// The tags of a page, in order: name and attributes.
type Tags = Vec<(String, BTreeMap<String, String>)>;

/// The built book: the tags of each file below it (none where it is not HTML).
struct Site(BTreeMap<String, Tags>);

impl Site {
    fn read(folder: &Path) -> Site {
        let mut files = BTreeMap::new();
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
                files.insert(name, html.map(|html| tags(&html)).unwrap_or_default());
            }
        }
        Site(files)
    }

    /// What is wrong with `link` on `page`; nothing when it leads somewhere. Links to the web are not followed.
    fn problem(&self, page: &str, link: &str) -> Option<String> {
        // The page that is served for any unknown path has a base of its own, which its headings do not know.
        if page == "404.html" && link.starts_with('#') {
            return None;
        }
        let page = if page == "404.html" { "" } else { page };
        let base = Url::parse("book:///")
            .and_then(|base| base.join(page))
            .expect("a URL");
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
        let Some(tags) = self.0.get(&file) else {
            return Some(format!("there is no {file}"));
        };
        let mut ids = tags
            .iter()
            .filter_map(|(_, attributes)| attributes.get("id"));
        match target.fragment() {
            None | Some("") => None,
            Some(fragment) if ids.any(|id| id == fragment) => None,
            Some(fragment) => Some(format!("{file} has no #{fragment}")),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (page, tags) in &self.0 {
            for (name, attributes) in tags {
                for attribute in ["href", "src"] {
                    let link = attributes.get(attribute);
                    let problem = link.and_then(|link| self.problem(page, link));
                    problems.extend(problem.map(|problem| {
                        format!("{page}: <{name} {attribute}={link:?}>: {problem}")
                    }));
                }
                if name == "img" && !attributes.contains_key("alt") {
                    problems.push(format!("{page}: an image has no alt text: {attributes:?}"));
                }
            }
        }
        problems
    }
}

fn tags(html: &str) -> Tags {
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
            let attributes = tag
                .attrs
                .iter()
                .map(|it| (it.name.local.to_string(), it.value.to_string()));
            self.0
                .borrow_mut()
                .push((tag.name.to_string(), attributes.collect()));
            // What stands in a script is not HTML.
            if &*tag.name == "script" {
                return TokenSinkResult::RawData(RawKind::ScriptData);
            }
        }
        TokenSinkResult::Continue
    }
}

/// Where mdBook does not find what a page includes, it leaves the include as it is, and only logs it.
fn unexpanded(folder: &Path, pages: &Site) -> Vec<String> {
    let html = pages.0.keys().filter(|name| name.ends_with(".html"));
    html.filter(|name| {
        fs::read_to_string(folder.join(name))
            .expect("text")
            .contains("{{#")
    })
    .cloned()
    .collect()
}

fn build(root: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = lab::book::build(root, folder.path()).expect("the book builds");
    (folder, pages)
}

#[test]
fn every_link_image_and_fragment_of_the_book_leads_somewhere() {
    let (_folder, pages) = build(&lab::book::root());
    let site = Site::read(&pages);
    assert!(
        site.0.contains_key("introduction.html"),
        "{:?}",
        site.0.keys()
    );
    let problems = site.problems();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(
        unexpanded(&pages, &site),
        Vec::<String>::new(),
        "pages with an include that was not found"
    );
}

#[test]
fn a_broken_link_image_or_fragment_is_found() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("written");
    fs::create_dir(root.path().join("src")).expect("a folder");
    write("book.toml", "[book]\ntitle = \"x\"\n");
    write("src/SUMMARY.md", "- [One](one.md)\n");
    let page = "# One\n\n[good](#one) [good](one.md) [web](https://example.com/)\n\n\
                [bad](two.md) [bad](one.md#nowhere) <a href=\"three.html\">bad</a> ![bad](four.png)\n\n<img src=\"one.html\">\n\n{{#include five.md}}\n";
    write("src/one.md", page);
    let (_folder, pages) = build(root.path());
    let site = Site::read(&pages);
    assert!(unexpanded(&pages, &site).contains(&"one.html".to_owned()));
    let problems = site.problems().join("\n");
    for expected in [
        "there is no two",
        "one.html has no #nowhere",
        "there is no three.html",
        "there is no four.png",
        "has no alt text",
    ] {
        assert!(
            problems.contains(expected),
            "{expected:?} is not found in:\n{problems}"
        );
    }
    assert!(
        !problems.contains("good") && !problems.contains("example.com"),
        "{problems}"
    );
}
