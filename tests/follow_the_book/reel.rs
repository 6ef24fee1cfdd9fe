//! What the reader's terminals show while the tutorial is followed, scene by scene, for those who would rather watch:
//! `src/walkthrough.md` includes the scenes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use course::book::Page;
use tokio::sync::watch;

/// What happened in all terminals, in the order of time.
pub type Tape = watch::Sender<Vec<Entry>>;

#[derive(Clone)]
pub struct Entry {
    pub at: Instant,
    /// The number of the terminal and its folder, or the editor.
    pub place: Place,
    pub what: What,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Editor,
    Terminal(u8, String),
}

#[derive(Clone)]
pub enum What {
    /// A command, a key, or the name of a file.
    Typed(String),
    /// Part of an output, or lines of a change.
    Shown(String),
}

pub fn put(tape: &Tape, place: Place, what: What) {
    let at = Instant::now();
    tape.send_modify(|entries| entries.push(Entry { at, place, what }));
}

/// The name of the scene that a line of a page belongs to: its section. A checkpoint belongs to the section before it.
pub fn scene(page: &Page, line: usize) -> String {
    let before = page.source.lines().take(line);
    let headings = before.filter_map(|line| line.strip_prefix("## "));
    let section = headings.filter(|it| *it != "Checkpoint").last();
    let stem = page.path.file_stem().unwrap_or_default();
    let name = format!("{}-{}", stem.display(), section.unwrap_or_default());
    name.to_lowercase().replace(' ', "-")
}

/// Whether somebody did something that others see happen: files that are written belong to the scene that follows.
pub fn is_a_scene(entries: &[Entry]) -> bool {
    let mut typed = entries.iter().filter(|it| matches!(it.what, What::Typed(_)));
    typed.any(|it| it.place != Place::Editor)
}

/// Whether a request was sent.
pub fn asks(entries: &[Entry]) -> bool {
    let mut entries = entries.iter();
    entries.any(|it| matches!(&it.what, What::Typed(text) if text.starts_with("curl")))
}

/// A pause is no longer, when it is watched.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the traces of a request have for themselves before somebody types again.
const TRACES: Duration = Duration::from_secs(4);

/// A line of the scene, or a command of several.
struct Line<'a> {
    at: Instant,
    place: &'a Place,
    typed: bool,
    text: String,
}

/// The entries as lines. Nobody watches a compiler: of what cargo says, only its last word counts.
fn lines(entries: &[Entry]) -> Vec<Line<'_>> {
    let mut of_place: BTreeMap<&Place, Vec<Line>> = BTreeMap::new();
    for Entry { at, place, what } in entries {
        let lines = of_place.entry(place).or_default();
        let mut push = |text: &str, typed| {
            lines.push(Line { at: *at, place, typed, text: text.to_owned() });
        };
        match what {
            What::Typed(text) => push(text.trim_end(), true),
            What::Shown(text) => {
                for piece in text.split_inclusive('\n') {
                    push(piece, false);
                }
            }
        }
    }
    let mut all = Vec::new();
    for lines in of_place.into_values() {
        let mut whole: Vec<Line> = Vec::new();
        for line in lines {
            match whole.last_mut() {
                Some(last) if !line.typed && !last.typed && !last.text.ends_with('\n') => {
                    last.text.push_str(&line.text);
                }
                _ => whole.push(line),
            }
        }
        for command in whole.chunk_by(|_, next| !next.typed) {
            let says = |word| command.iter().rposition(|it| it.text.starts_with(word));
            let from = match says("     Running ") {
                Some(at) => at + 1,
                // Its words differ between versions.
                None if command[0].text.starts_with("cargo new") => command.len(),
                None => says("    Finished ").unwrap_or(1),
            };
            let kept = command[..1].iter().chain(&command[from..]);
            all.extend(kept.map(|it| Line { text: it.text.clone(), ..*it }));
        }
    }
    all.sort_by_key(|it| it.at);
    all
}

/// A scene as HTML. `traces` are what the lab shows after the last request of the scene, or before there was any.
pub fn render(entries: &[Entry], traces: &str) -> String {
    let (mut clock, mut before) = (Duration::ZERO, None);
    let (mut asked, mut shown) = (false, None);
    let mut panes: BTreeMap<(bool, &Place), String> = BTreeMap::new();
    let lines = lines(entries);
    for Line { at, place, typed, text } in &lines {
        let pause = before.replace(*at).map_or(Duration::ZERO, |before| *at - before);
        clock += pause.min(LONGEST_PAUSE);
        if *typed && asked && shown.is_none() && !text.starts_with("curl") {
            shown = Some(clock);
            clock += TRACES;
        }
        asked |= *typed && text.starts_with("curl");
        let text = text.trim_end_matches(['\r', '\n']);
        // In front are the terminals that somebody types into.
        let in_front = lines.iter().any(|it| it.typed && it.place == *place);
        let pane = panes.entry((!in_front, place)).or_default();
        let at = clock.as_millis();
        if *typed {
            let takes = Duration::from_millis(25) * text.chars().count().clamp(20, 60) as u32;
            clock += takes;
            let takes = takes.as_millis();
            let text = escaped(text);
            let _ = writeln!(pane, "<kbd data-at=\"{at}\" data-for=\"{takes}\">{text}</kbd>");
        } else {
            let tag = match (place, text.as_bytes().first()) {
                (Place::Editor, Some(b'-')) => "del",
                (Place::Editor, Some(b'+')) => "ins",
                _ => "samp",
            };
            let text = escaped(text);
            let _ = writeln!(pane, "<{tag} data-at=\"{at}\">{text}</{tag}>");
        }
    }
    let mut html = "<div class=\"scene\">\n<div class=\"terminals\">\n".to_owned();
    for ((_, place), pane) in panes {
        let place = match place {
            Place::Editor => "The editor".to_owned(),
            Place::Terminal(number, folder) => format!("Terminal {number}, in {folder}"),
        };
        let _ = writeln!(html, "<p>{place}</p>\n<pre>{}</pre>", pane.trim_end());
    }
    html += "</div>\n";
    if !traces.is_empty() {
        let at = shown.unwrap_or(clock).as_millis();
        let traces = traces.trim_end();
        let _ = writeln!(
            html,
            "<div class=\"traces\" data-at=\"{at}\">\n<p>The lab</p>\n{traces}\n</div>"
        );
    }
    html + "</div>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
