//! Turns every Rust block of the book, as rendered, into a test: see `tests/skeptic.rs`.
//!
//! mdBook itself expands the includes. Each block then gets a file of its own for skeptic to read, named so that
//! the test is called after the page and the line of the block: `src_introduction_line_12`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mdbook_driver::MDBook;
use mdbook_driver::book::BookItem;
use mdbook_html::HtmlHandlebars;
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

/// An example with crates that the book's workspace lacks. The test of its guide compiles it whole, and a warning is an error there too.
const COMPILED_BY_ITS_GUIDE: &str = "examples/agents_and_tools";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("blocks");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    for watched in ["book.toml", "src"] {
        println!("cargo:rerun-if-changed={}", root.join(watched).display());
    }

    let book = MDBook::load(&root)?;
    let (rendered, _) = book.preprocess_book(&HtmlHandlebars::new())?;
    let mut files = Vec::new();
    for item in rendered.iter() {
        let BookItem::Chapter(chapter) = item else {
            continue;
        };
        let Some(path) = &chapter.source_path else {
            continue;
        };
        let page = Path::new("src").join(path);
        let source = fs::read_to_string(root.join(&page))?;
        let written = rust_blocks(&source);
        let expanded = rust_blocks(&chapter.content);
        if written.len() != expanded.len() {
            return Err(format!(
                "{}: an include must not bring Rust fences of its own",
                page.display()
            )
            .into());
        }
        for (written, expanded) in written.iter().zip(&expanded) {
            files.extend(write_block(&root, &out, &page, written, expanded)?);
        }
    }
    if files.is_empty() {
        return Err("the book has no Rust block: nothing would be tested".into());
    }
    skeptic::generate_doc_tests(&files);

    println!("cargo:rustc-env=BLOCK_TARGET={}", std::env::var("TARGET")?);

    // The tests go through `tests/skeptic.rs`, which chooses the compiler.
    let generated = PathBuf::from(std::env::var("OUT_DIR")?).join("skeptic-tests.rs");
    let tests = fs::read_to_string(&generated)?;
    let tests = tests
        .replace("extern crate skeptic;\n", "")
        .replace("skeptic::rt::", "crate::block::");
    fs::write(generated.with_file_name("blocks.rs"), tests)?;
    Ok(())
}

/// A fenced block of Rust: the words after the fence, the code, and the line of the fence, from 1.
struct Block {
    info: String,
    code: String,
    line: usize,
}

fn rust_blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (event, range) in Parser::new(markdown).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info)))
                if info
                    .split(',')
                    .next()
                    .is_some_and(|language| language.trim() == "rust") =>
            {
                let line = markdown[..range.start].matches('\n').count() + 1;
                open = Some(Block {
                    info: info.to_string(),
                    code: String::new(),
                    line,
                });
            }
            Event::Text(text) => {
                if let Some(block) = &mut open {
                    block.code.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
            _ => {}
        }
    }
    blocks
}

/// Writes the block where skeptic names its test after the page and line, unless its file is one of [`COMPILED_BY_ITS_GUIDE`]. The compiler's
/// wrapper, `tests/skeptic/rustc.rs`, reads from the first line which file and line a person would edit.
fn write_block(
    root: &Path,
    out: &Path,
    page: &Path,
    written: &Block,
    expanded: &Block,
) -> Result<Option<PathBuf>, Box<dyn Error>> {
    let (origin, line) = match included(root, page, &written.code)? {
        Some(place) => place,
        None => (page.to_owned(), written.line + 1),
    };
    if origin.starts_with(COMPILED_BY_ITS_GUIDE) {
        return Ok(None);
    }
    let name: String = page
        .with_extension("")
        .to_string_lossy()
        .replace(['/', '\\', '-', '.'], "_");
    let folder = out.join(format!("{name}_{}", written.line));
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.md"));
    // The fence must be the longest run of backticks, and the text must begin on the line that the test is named after.
    let padding = "\n".repeat(written.line - 1);
    let mut code = complete(&expanded.code, teaches(&origin));
    if let Some(folder) = root.join(&origin).parent() {
        // `#[path]` counts from the folder of the file that the listing shows.
        code = code.replace("#[path = \"", &format!("#[path = \"{}/", folder.display()));
    }
    let text = format!(
        "{padding}````{}\n//@ {} {line}\n{code}\n````\n",
        expanded.info,
        origin.display()
    );
    fs::write(&file, text)?;
    // skeptic makes cargo watch this file. With a date after the last build, every build would start again.
    fs::File::options()
        .write(true)
        .open(&file)?
        .set_modified(SystemTime::UNIX_EPOCH)?;
    Ok(Some(file))
}

/// Resolves a block that consists of one `{{#include}}` to the file, relative to the root, and the line that it shows. mdBook only
/// gives the expanded text, so this is the one place besides `tests/support/includes.rs` that reads an include. A build script can't
/// share a module with the tests.
fn included(
    root: &Path,
    page: &Path,
    code: &str,
) -> Result<Option<(PathBuf, usize)>, Box<dyn Error>> {
    let include = code
        .trim()
        .strip_prefix("{{#include")
        .or_else(|| code.trim().strip_prefix("{{#rustdoc_include"));
    let Some(target) = include.and_then(|rest| rest.strip_suffix("}}")) else {
        return Ok(None);
    };
    let (path, anchor) = target.trim().split_once(':').unwrap_or((target.trim(), ""));
    let folder = page.parent().unwrap_or(page);
    let file = root
        .join(folder)
        .join(path)
        .canonicalize()
        .map_err(|error| format!("{}: {path}: {error}", page.display()))?;
    println!("cargo:rerun-if-changed={}", file.display());
    let source = fs::read_to_string(&file)?;
    let mark = format!("ANCHOR: {anchor}");
    let line = match anchor {
        "" => 1,
        _ => source
            .lines()
            .position(|line| line.trim_end().ends_with(&mark))
            .map_or(1, |index| index + 2),
    };
    Ok(Some((
        file.strip_prefix(root.canonicalize()?)?.to_owned(),
        line,
    )))
}

/// The crate that a listing of this file belongs to: the one that the book teaches, unless it is of another example.
fn teaches(origin: &Path) -> &str {
    let example = origin.strip_prefix("examples").ok();
    let name = example.and_then(|path| path.iter().next()?.to_str());
    name.unwrap_or("production")
}

/// A listing may be a module of a crate. Then it is compiled as one; what it takes from other modules (`crate::NAME`)
/// comes from `library`. And a program needs a `main`.
fn complete(code: &str, library: &str) -> String {
    let code = code.trim_end();
    if code.contains("fn main(") {
        return code.to_owned();
    }
    let is_name = |c: &char| c.is_alphanumeric() || *c == '_';
    let mut modules = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{').and_then(|list| list.split_once('}')) {
            Some((list, _)) => modules.extend(list.split(',').map(|name| name.trim().to_owned())),
            None => drop(modules.insert(rest.chars().take_while(is_name).collect())),
        }
    }
    let imports: String = modules
        .iter()
        .map(|name| format!("use {library}::{name};\n"))
        .collect();
    // On the line of the code's first line, so that the compiler counts lines as the file does.
    format!("mod listing {{ {code}\n}}\n{imports}fn main() {{}}")
}
