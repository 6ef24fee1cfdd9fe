//! Records the reader's terminals while the tutorial is followed, scene by scene, for people who would rather watch.
//! `src/walkthrough.md` includes the scenes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use course::book::Page;
use tokio::sync::watch;

/// The events in all terminals, in the order of time.
pub type Tape = watch::Sender<Vec<Entry>>;

/// An event, and then also one line of a scene.
#[derive(Clone)]
pub struct Entry {
    at: Instant,
    place: Place,
    what: What,
    text: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Editor,
    /// The number of the terminal and its folder.
    Terminal(u8, String),
}

#[derive(Clone, Copy, PartialEq)]
pub enum What {
    /// A command, a key, or the name of a file.
    Typed,
    /// A part of an output, or lines of a change.
    Shown,
}

pub fn put(tape: &Tape, place: Place, what: What, text: &str) {
    let entry = Entry { at: Instant::now(), place, what, text: text.to_owned() };
    tape.send_modify(|entries| entries.push(entry));
}

/// The name of the scene that a line of a page belongs to: its section. A checkpoint belongs to the section before it.
pub fn scene(page: &Page, line: usize) -> String {
    let before = page.source.lines().take(line);
    let headings = before.filter_map(|line| line.strip_prefix("## "));
    let section = headings.filter(|it| *it != "Checkpoint").last().unwrap_or_default();
    let stem = page.path.file_stem().unwrap_or_default().display();
    let name = format!("{stem}-{section}").to_lowercase().replace(' ', "-");
    name.chars().filter(|it| it.is_alphanumeric() || *it == '-').collect()
}

/// Whether anything was typed into a terminal. Files that are written belong to the scene that follows.
pub fn is_a_scene(entries: &[Entry]) -> bool {
    entries.iter().any(|it| it.what == What::Typed && it.place != Place::Editor)
}

/// Whether a request was sent.
pub fn asks(entries: &[Entry]) -> bool {
    entries.iter().any(|it| it.what == What::Typed && it.text.starts_with("curl"))
}

/// Longer pauses are cut.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the traces of a request are shown before the next command is typed.
const TRACES: Duration = Duration::from_secs(4);

/// The entries as lines. Nobody watches a compiler: of cargo's own output, only the last line counts.
fn lines(entries: &[Entry]) -> Vec<Entry> {
    let mut of_place: BTreeMap<&Place, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        let lines = of_place.entry(&entry.place).or_default();
        if entry.what == What::Typed {
            lines.push(Entry { text: entry.text.trim_end().to_owned(), ..entry.clone() });
            continue;
        }
        for piece in entry.text.split_inclusive('\n') {
            match lines.last_mut() {
                Some(last) if last.what == What::Shown && !last.text.ends_with('\n') => {
                    last.text.push_str(piece);
                }
                _ => lines.push(Entry { text: piece.to_owned(), ..entry.clone() }),
            }
        }
    }
    let mut kept = Vec::new();
    for lines in of_place.values() {
        for command in lines.chunk_by(|_, next| next.what == What::Shown) {
            let last = |start| command.iter().rposition(|it| it.text.starts_with(start));
            let from = match last("     Running ") {
                Some(at) => at + 1,
                None => last("    Finished ").unwrap_or(1),
            };
            kept.extend(command[..1].iter().chain(&command[from..]).cloned());
        }
    }
    kept.sort_by_key(|it| it.at);
    kept
}

/// A scene as HTML. `traces` are what the lab shows after the last request of the scene, or before there was any.
pub fn render(entries: &[Entry], traces: &str) -> String {
    let (mut clock, mut before) = (Duration::ZERO, None);
    let (mut asked, mut shown) = (false, None);
    let mut panes: BTreeMap<(bool, &Place), String> = BTreeMap::new();
    let lines = lines(entries);
    for Entry { at, place, what, text } in &lines {
        let pause = before.replace(*at).map_or(Duration::ZERO, |before| *at - before);
        clock += pause.min(LONGEST_PAUSE);
        let (typed, asks) = (*what == What::Typed, text.starts_with("curl"));
        if typed && asked && shown.is_none() && !asks {
            shown = Some(clock);
            clock += TRACES;
        }
        asked |= typed && asks;
        // The terminals with commands are in front.
        let in_front = lines.iter().any(|it| it.what == What::Typed && it.place == *place);
        let pane = panes.entry((!in_front, place)).or_default();
        let (at, takes) = (clock.as_millis(), 25 * text.chars().count().clamp(20, 60) as u64);
        let tag = match (place, text.as_bytes().first()) {
            _ if typed => "kbd",
            (Place::Editor, Some(b'-')) => "del",
            (Place::Editor, Some(b'+')) => "ins",
            _ => "samp",
        };
        let time = if typed { format!(" data-for=\"{takes}\"") } else { String::new() };
        let text = escaped(text.trim_end_matches(['\r', '\n']));
        let _ = writeln!(pane, "<{tag} data-at=\"{at}\"{time}>{text}</{tag}>");
        clock += Duration::from_millis(if typed { takes } else { 0 });
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
        let (at, traces) = (shown.unwrap_or(clock).as_millis(), traces.trim_end());
        let traces =
            format!("<div class=\"traces\" data-at=\"{at}\">\n<p>The lab</p>\n{traces}\n</div>\n");
        html += &traces;
    }
    html + "</div>\n"
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
