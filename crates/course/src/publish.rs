//! Prepares mdBook's pages for publishing. Merges the stylesheets, defers the scripts, and adds a description, link previews
//! and the commit that the book was tested at. With a browser, also prints the book as a PDF and draws the preview picture.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use reqwest::Url;

/// The addresses of a published book. A book that is only read on this machine has none.
#[derive(Default)]
pub struct Home {
    /// The address of the folder of the pages, with a slash at its end.
    pub url: Option<Url>,
    /// The address of the repository, such as `https://github.com/OWNER/NAME`.
    pub repository: Option<String>,
    /// The path of a Chromium, which makes [`BOOK`] and [`CARD`].
    pub browser: Option<PathBuf>,
}

/// The path of the book as a PDF, relative to the folder of the pages.
pub const BOOK: &str = "one-trace.pdf";
/// The path of the preview picture for shared links (`og:image`), relative to the folder of the pages.
pub const CARD: &str = "pictures/card.png";
/// The width and height of [`CARD`] in pixels, as link previews expect them.
const CARD_SIZE: [u32; 2] = [1200, 630];
/// The longest description of a page, in characters. Search engines cut off the rest.
const DESCRIPTION_LIMIT: usize = 200;

/// The command that gets the book. Its last word stands for [`Home::repository`].
const CLONE: &str = "git clone REPOSITORY";

/// A comment that every page of mdBook contains.
const MDBOOK_MARK: &str = "<!-- Book generated using mdBook -->";

/// Prepares the pages in the folder `pages`, which mdBook has built from the sources below `root`.
///
/// # Errors
/// Fails when a page differs from what mdBook 0.5.4 writes, a file cannot be read or written, or the browser fails.
pub fn finish(pages: &Path, root: &Path, home: &Home) -> anyhow::Result<()> {
    // A lab without services gives this answer. On a static site the file stands in for it.
    fs::write(pages.join("wire.json"), "[]\n")?;
    if let Some(browser) = &home.browser {
        card(browser, pages)?;
    }
    let commit = commit(root, home);
    let mut addresses = Vec::new();
    for path in html_files(pages)? {
        let html = fs::read_to_string(&path)?;
        if !html.contains(MDBOOK_MARK) {
            continue;
        }
        let name = path.strip_prefix(pages)?.to_string_lossy().replace('\\', "/");
        let address = address(&name, home);
        let html = finished(&html, pages, commit.as_deref(), address.as_ref(), home)
            .with_context(|| format!("{name} is not as mdBook 0.5.4 writes it"))?;
        fs::write(&path, html)?;
        addresses.extend(address.map(String::from));
    }
    if home.url.is_some() {
        addresses.sort();
        addresses.dedup();
        fs::write(pages.join("sitemap.xml"), sitemap(&addresses))?;
    }
    if let Some(browser) = &home.browser {
        let file = format!("--print-to-pdf={}", pages.join(BOOK).display());
        let outline = "--generate-pdf-document-outline";
        let page = pages.join("print.html");
        run(browser, &[&file, outline, "--no-pdf-header-footer"], &page, &pages.join(BOOK))?;
    }
    Ok(())
}

fn html_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(html_files(&path)?);
        } else if path.extension().is_some_and(|it| it == "html") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the canonical address of a page. mdBook writes the first page twice, and search engines shouldn't index
/// `404.html` and `print.html`.
fn address(name: &str, home: &Home) -> Option<Url> {
    let name = match name {
        "404.html" | "print.html" => return None,
        "index.html" => "introduction.html",
        name => name,
    };
    home.url.as_ref()?.join(name).ok()
}

fn finished(
    html: &str,
    pages: &Path,
    commit: Option<&str>,
    address: Option<&Url>,
    home: &Home,
) -> anyhow::Result<String> {
    let html = with_one_stylesheet(html, pages)?;
    let html = with_description(&html)?;
    // Deferred scripts keep their order and run after the page is parsed.
    let html = html.replace("<script src=", "<script defer src=");
    let html = with_footer(&html, commit)?;
    let html = match &home.repository {
        Some(repository) => html.replace(CLONE, &format!("git clone {repository}")),
        None => html,
    };
    let Some(address) = address else {
        return Ok(html);
    };
    let mut head = format!(
        "<link rel=\"canonical\" href=\"{address}\">\n<meta property=\"og:url\" content=\"{address}\">\n"
    );
    if let (Some(url), Some(_)) = (&home.url, &home.browser) {
        let [width, height] = CARD_SIZE;
        head += &format!(
            "<meta property=\"og:image\" content=\"{}\">\n\
             <meta property=\"og:image:alt\" content=\"One request as one trace, through three services\">\n\
             <meta property=\"og:image:width\" content=\"{width}\">\n\
             <meta property=\"og:image:height\" content=\"{height}\">\n",
            url.join(CARD)?
        );
    }
    let (before, after) = html.split_once("</head>").context("it has no head")?;
    Ok(format!("{before}{head}</head>{after}"))
}

/// Merges the stylesheets into one file, so that a browser waits for one instead of a dozen. Stylesheets that mdBook's script
/// switches on and off by id are inlined into the page.
fn with_one_stylesheet(html: &str, pages: &Path) -> anyhow::Result<String> {
    let (mut style, mut inline, mut rest) = (String::new(), String::new(), String::new());
    for line in html.split_inclusive('\n') {
        if !line.trim_start().starts_with("<link rel=\"stylesheet\"") {
            rest += line;
            continue;
        }
        let path = attribute(line, "href").context("a stylesheet has no address")?;
        let path = pages.join(path.trim_start_matches("../"));
        let css = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        match (attribute(line, "id"), attribute(line, "media")) {
            (Some(id), _) => inline += &format!("<style id=\"{id}\">\n{css}</style>\n"),
            (None, Some(media)) => style += &format!("@media {media} {{\n{css}\n}}\n"),
            (None, None) => style += &format!("{css}\n"),
        }
    }
    ensure!(!style.is_empty(), "it has no stylesheet");
    // The hash in the name keeps browsers from using a cached older version.
    let mut hasher = DefaultHasher::new();
    style.hash(&mut hasher);
    let name = format!("style-{:016x}.css", hasher.finish());
    let file = pages.join(&name);
    if !file.exists() {
        fs::write(file, style)?;
    }
    let start = "const path_to_root = \"";
    let to_root = rest.split(start).nth(1).and_then(|it| it.split('"').next());
    let to_root = to_root.context("it does not say where the book begins")?;
    let link = format!("<link rel=\"stylesheet\" href=\"{to_root}{name}\">\n{inline}");
    let (before, after) =
        rest.split_once("<!-- Fonts -->\n").context("it has no place for fonts")?;
    Ok(format!("{before}{link}{after}"))
}

/// Replaces the book's description with the first paragraph of the page.
fn with_description(html: &str) -> anyhow::Result<String> {
    let line = html.lines().find(|it| it.contains("<meta name=\"description\""));
    let of_book = line.and_then(|it| attribute(it, "content")).context("it has no description")?;
    let (_, main) = html.split_once("<main>").context("it has no main part")?;
    let paragraph = main.split_once("<p>").and_then(|(_, it)| it.split_once("</p>"));
    let Some((paragraph, _)) = paragraph else {
        return Ok(html.to_owned());
    };
    let of_page = shorten(&text(paragraph)).replace('"', "&quot;");
    Ok(html.replace(&format!("content=\"{of_book}\""), &format!("content=\"{of_page}\"")))
}

/// Returns the text between the tags, on one line.
fn text(html: &str) -> String {
    let mut parts = html.split('<');
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |text, part| text + part.split_once('>').map_or("", |(_, it)| it));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cuts the text after the last sentence that fits into [`DESCRIPTION_LIMIT`], or else after the last word.
fn shorten(text: &str) -> String {
    if text.chars().count() <= DESCRIPTION_LIMIT {
        return text.to_owned();
    }
    let start: String = text.chars().take(DESCRIPTION_LIMIT).collect();
    match (start.rfind(". "), start.rfind(' ')) {
        (Some(end), _) => start[..=end].to_owned(),
        (None, Some(end)) => format!("{} …", &start[..end]),
        (None, None) => start,
    }
}

/// Moves the contents of `theme/header.hbs` to the foot of the page and adds the commit. A book without this file has no
/// footer.
fn with_footer(html: &str, commit: Option<&str>) -> anyhow::Result<String> {
    let Some((before, rest)) = html.split_once("<footer") else {
        return Ok(html.to_owned());
    };
    let (footer, after) = rest.split_once("</footer>\n").context("its footer has no end")?;
    let footer = match commit {
        Some(commit) => {
            let (start, rest) =
                footer.split_once("<span class=\"commit\">").context("its footer has no commit")?;
            let (_, end) = rest.split_once("</span>").context("its footer has no commit")?;
            format!("{start}{commit}{end}")
        }
        None => footer.to_owned(),
    };
    let (main, foot) = after.split_once("</main>\n").context("it has no main part")?;
    Ok(format!("{before}{main}</main>\n<footer{footer}</footer>\n{foot}"))
}

/// Returns the value of an attribute of a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// Describes the commit that is checked out, for the footer. `None` without git or outside a repository.
fn commit(root: &Path, home: &Home) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let hash = git(&["rev-parse", "HEAD"])?;
    let short = hash.get(..12)?;
    let shown = match &home.repository {
        Some(repository) => format!("<a href=\"{repository}/commit/{hash}\">{short}</a>"),
        None => short.to_owned(),
    };
    let changes = match git(&["status", "--porcelain"])?.as_str() {
        "" => "",
        _ => ", with changes",
    };
    Some(format!(", at commit {shown}{changes}"))
}

/// Writes a [site map](https://www.sitemaps.org/protocol.html) of the addresses.
fn sitemap(addresses: &[String]) -> String {
    let pages = addresses.iter().map(|it| format!("<url><loc>{it}</loc></url>\n"));
    let pages: String = pages.collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n{pages}</urlset>\n"
    )
}

/// Draws [`CARD`]: the title and a recorded trace.
fn card(browser: &Path, pages: &Path) -> anyhow::Result<()> {
    let trace = fs::read_to_string(pages.join("recordings/whole.svg"))?;
    let [width, height] = CARD_SIZE;
    let folder = tempfile::tempdir()?;
    let page = folder.path().join("card.html");
    let html = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><style>\
         html {{ background: #fff; font: 600 52px system-ui, sans-serif; color: #1b1b1b; }}\
         body {{ margin: 0; width: {width}px; height: {height}px; display: flex; flex-direction: column; justify-content: center; gap: 28px; }}\
         p, svg {{ margin: 0 40px; }} p {{ padding-inline: 16px; }} small {{ font-weight: 400; font-size: 30px; display: block; }} svg {{ width: auto; height: auto; }}\
         </style><p>One Trace <small>End-to-end distributed tracing in Rust, every line of it proved</small></p>{trace}"
    );
    fs::write(&page, html)?;
    let file = pages.join(CARD);
    let shot = format!("--screenshot={}", file.display());
    let size = format!("--window-size={width},{height}");
    run(browser, &[&shot, &size, "--hide-scrollbars"], &page, &file)
}

/// Runs the browser, which must create `file` from `page`. The sandbox is off because Chromium refuses to run with it as root,
/// as in a container. The browser only opens our own pages.
fn run(browser: &Path, arguments: &[&str], page: &Path, file: &Path) -> anyhow::Result<()> {
    let profile = tempfile::tempdir()?;
    let page = fs::canonicalize(page)?;
    let page = Url::from_file_path(&page).ok().context("the page has no address")?;
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-dev-shm-usage",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(page.as_str())
        .output()
        .with_context(|| format!("{} does not run", browser.display()))?;
    ensure!(
        output.status.success() && file.is_file(),
        "{} did not make {}: {}",
        browser.display(),
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
