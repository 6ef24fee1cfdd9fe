//! Someone who does what the pages say, and looks at what they show.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use course::book::Page;
use regex::Regex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::page::{Action, Folder, Part, Step, Writing, steps};
use super::reel::{self, Place, Tape, What, put};
use super::terminal::Terminal;
use crate::support::includes::includes;
use crate::support::recording::{self, redact};
use crate::support::{DEADLINE, free_port};

/// Compiling from scratch takes the longest, on a slow machine.
const COMMAND_DEADLINE: Duration = Duration::from_secs(1800);
/// While recording, the number of spans is unknown: a trace counts as complete when nothing has been added for this long.
const QUIET: Duration = Duration::from_secs(2);

/// The ports that the pages name.
const PORTS: [u16; 6] = [3000, 4317, 4318, 5000, 5001, 5002];

pub struct Reader {
    clone: PathBuf,
    /// The folder that would hold the clone and holds the project.
    parent: PathBuf,
    terminals: BTreeMap<u8, Terminal>,
    last: u8,
    /// For each port of the pages, the free one that takes its place.
    ports: Vec<(u16, u16)>,
    /// The ids that the reader types: all others vary.
    typed: HashSet<String>,
    /// The traces that there were before the last command.
    known: HashSet<String>,
    /// The page in the browser.
    shown: String,
    /// Whether the page says that the compiler warns, and whether it still has to.
    warns: bool,
    must_warn: bool,
    record: bool,
    /// How long the reader waited on each page for anything but a compiler.
    waited: Duration,
    tape: Tape,
    scene: Scene,
    /// The names of the scenes that are over.
    scenes: Vec<String>,
}

/// The current scene of the walkthrough.
#[derive(Default)]
struct Scene {
    name: String,
    /// Its start on the tape.
    from: usize,
    /// The traces that the lab shows, if the page looks at them.
    traces: String,
}

impl Reader {
    /// Before the first page. `pages` are all that will be followed.
    pub fn new<'a>(pages: impl Iterator<Item = &'a str>) -> Reader {
        let clone = crate::support::root();
        // Always the same folder, so that cargo doesn't compile again; one per clone.
        let mut hasher = DefaultHasher::new();
        clone.hash(&mut hasher);
        let parent = std::env::temp_dir().join(format!("one-trace-{:x}", hasher.finish()));
        let _ = fs::remove_dir_all(&parent);
        fs::create_dir_all(parent.join(".cargo")).expect("a folder");
        // The reader's crates are those of our lock file, compiled next to ours: what is the same is shared. Nobody debugs
        // the reader's own, which is compiled again and again.
        let (temporary, target) = (crate::support::temporary(), crate::support::target());
        let manifest = fs::read_to_string(clone.join("Cargo.toml")).expect("a manifest");
        let profiles = manifest.find("[profile.dev]").map(|at| &manifest[at..]);
        let settings = format!(
            "[build]\ntarget-dir = {:?}\nbuild-dir = {target:?}\n\n[net]\noffline = true\n\n[term]\ncolor = \"never\"\n\n{}\n\
             [profile.dev.package.distributed_tracing]\ndebug = false\n",
            temporary.join("reader"),
            profiles.expect("the profiles are at the end"),
        );
        fs::write(parent.join(".cargo/config.toml"), settings).expect("written");
        // In a terminal curl shows no progress.
        fs::write(parent.join(".curlrc"), "no-progress-meter\n").expect("written");

        let ids = Regex::new(r"\b([0-9a-f]{32}|[0-9a-f]{16})\b").expect("a pattern");
        let commands = pages.flat_map(|page| steps(page).unwrap_or_default()).filter_map(|step| {
            match step.action {
                Action::Run { command, .. } => Some(command),
                _ => None,
            }
        });
        let typed = commands
            .flat_map(|command| {
                let found = ids.find_iter(&command).map(|id| id.as_str().to_owned());
                found.collect::<Vec<_>>()
            })
            .collect();
        Reader {
            clone,
            parent,
            terminals: BTreeMap::new(),
            last: 0,
            ports: PORTS.map(|port| (port, free_port())).into_iter().collect(),
            typed,
            known: HashSet::new(),
            shown: String::new(),
            warns: false,
            must_warn: false,
            record: recording::overwrite(),
            waited: Duration::ZERO,
            tape: watch::Sender::default(),
            scene: Scene::default(),
            scenes: Vec::new(),
        }
    }

    pub fn project(&self) -> PathBuf {
        self.parent.join("distributed_tracing")
    }

    /// Does all that `page` says.
    pub async fn follow(&mut self, page: &Page) {
        let place = |step: &Step| format!("{}:{}", page.path.display(), step.line);
        let (written, expanded) = (steps(&page.source), steps(&page.expanded));
        let written = written.unwrap_or_else(|error| panic!("{}: {error}", page.path.display()));
        let expanded = expanded.unwrap_or_else(|error| panic!("{}: {error}", page.path.display()));
        assert_eq!(
            written.len(),
            expanded.len(),
            "{}: an include brings steps",
            page.path.display()
        );
        self.waited = Duration::ZERO;
        for (index, (written, step)) in written.iter().zip(&expanded).enumerate() {
            let mut next = expanded[index + 1..].iter().map(|step| &step.action);
            let next = next.find(|action| **action != Action::Warns);
            let mut done = self.enter(reel::scene(page, written.line)).await;
            if done.is_ok() {
                done = self.act(&step.action, &written.action, next, page).await;
            }
            if let Err(problem) = done {
                panic!("{}: {problem}", place(written));
            }
        }
        println!("{}: {:.1} s of waiting", page.path.display(), self.waited.as_secs_f64());
    }

    async fn act(
        &mut self,
        action: &Action,
        written: &Action,
        next: Option<&Action>,
        page: &Page,
    ) -> Result<(), String> {
        match (action, written) {
            (Action::Write { path, how, content }, _) => self.write(path, *how, content),
            (Action::Edit { path, diff }, _) => self.edit(path, diff),
            (Action::Run { terminal, folder, command }, _) => {
                self.run(*terminal, folder, command, next).await
            }
            (Action::See { terminals, part, output }, Action::See { output: source, .. }) => {
                let last = [self.last];
                let terminals = if terminals.is_empty() { &last[..] } else { terminals };
                for terminal in terminals {
                    self.see(*terminal, *part, output, recording(page, source)).await?;
                }
                let ids: HashSet<_> =
                    terminals.iter().map(|number| self.last_trace_id(*number)).collect();
                match terminals.len() > 1 && ids.len() > 1 {
                    true => {
                        Err(format!("terminals {terminals:?} show different trace ids: {ids:?}"))
                    }
                    false => Ok(()),
                }
            }
            (Action::Interrupt { terminals }, _) => self.interrupt(terminals).await,
            (Action::Open { url }, _) => self.open(url).await,
            (Action::Says { text }, _) if self.shown.contains(text.as_str()) => {
                self.scene.traces = format!("<p>{text}</p>");
                Ok(())
            }
            (Action::Says { text }, _) => {
                Err(format!("the page does not say {text:?}, but:\n{}", self.shown))
            }
            (Action::Figure { html }, Action::Figure { html: source }) => {
                self.figure(html, recording(page, source)).await
            }
            (Action::Warns, _) => {
                (self.warns, self.must_warn) = (true, true);
                Ok(())
            }
            (_, written) => {
                Err(format!("with its include expanded, it is another step: {written:?}"))
            }
        }
    }

    fn write(&mut self, path: &str, how: Writing, content: &str) -> Result<(), String> {
        self.warns = false;
        let file = self.project().join(path);
        match (how, file.exists()) {
            (Writing::New, true) => {
                return Err(format!(
                    "{path} is there already: the page must say what becomes of it"
                ));
            }
            (Writing::Append | Writing::Replace, false) => {
                return Err(format!("there is no {path} yet"));
            }
            _ => {}
        }
        let before = match how {
            Writing::Append => fs::read_to_string(&file).map_err(|error| error.to_string())?,
            _ => String::new(),
        };
        put(&self.tape, Place::Editor, What::Typed(path.to_owned()));
        fs::write(&file, before + content).map_err(|error| format!("{path}: {error}"))?;
        if path == "Cargo.toml" {
            fs::copy(self.clone.join("Cargo.lock"), self.project().join("Cargo.lock"))
                .expect("copied");
        }
        Ok(())
    }

    fn edit(&mut self, path: &str, diff: &str) -> Result<(), String> {
        self.warns = false;
        let side = |sign: char| -> String {
            let lines = diff.lines().filter(|line| line.starts_with([' ', sign]));
            lines.map(|line| format!("{}\n", &line[1..])).collect()
        };
        put(&self.tape, Place::Editor, What::Typed(path.to_owned()));
        put(&self.tape, Place::Editor, What::Shown(diff.to_owned()));
        let (before, after) = (side('-'), side('+'));
        let file = self.project().join(path);
        let text = fs::read_to_string(&file).map_err(|error| format!("{path}: {error}"))?;
        match text.matches(&before).count() {
            1 => fs::write(file, text.replace(&before, &after))
                .map_err(|error| format!("{path}: {error}")),
            count => {
                Err(format!("{path} has the lines before the change {count} times:\n{before}"))
            }
        }
    }

    async fn run(
        &mut self,
        number: u8,
        folder: &Folder,
        command: &str,
        next: Option<&Action>,
    ) -> Result<(), String> {
        let folder = match folder {
            Folder::Clone => self.clone.clone(),
            Folder::Parent => self.parent.clone(),
            Folder::Named(name) => self.parent.join(name),
        };
        self.known = self.traces().await.into_iter().collect();
        let environment = self.environment();
        let typed = self.ports.iter().fold(command.to_owned(), |text, (page, free)| {
            text.replace(&format!("127.0.0.1:{page}"), &format!("127.0.0.1:{free}"))
        });
        // A terminal that has not been used is opened where the page says.
        let terminal = self
            .terminals
            .entry(number)
            .or_insert_with(|| Terminal::new(number, &folder, &self.tape));
        let same = |a: &Path, b: &Path| a.canonicalize().ok() == b.canonicalize().ok();
        if !same(&terminal.folder, &folder) {
            return Err(format!(
                "terminal {number} is in {}, not in {}",
                terminal.folder.display(),
                folder.display()
            ));
        }
        if terminal.is_busy() {
            return Err(format!("terminal {number} is busy"));
        }
        self.last = number;
        let started = Instant::now();
        terminal.start(&typed, &environment);
        let (goes_on, fails) = match next {
            Some(Action::See { part, output, .. }) => {
                let fails = command.starts_with("cargo test") && output.contains("failed");
                (*part == Part::Ready, fails)
            }
            _ => (false, false),
        };
        if goes_on {
            return Ok(());
        }
        let status = terminal.finish(COMMAND_DEADLINE).await?;
        let printed = terminal.printed();
        println!(
            "{:5.1} s  {}",
            started.elapsed().as_secs_f64(),
            command.lines().next().unwrap_or_default()
        );
        if !command.starts_with("cargo") {
            self.waited += started.elapsed();
        }
        // A page may show a command that fails; then it shows how.
        if status.success() == fails {
            return Err(format!("it ended with {status}, and printed:\n{printed}"));
        }
        self.check_warnings(&printed)
    }

    /// The compiler warns where the page says so, and nowhere else.
    fn check_warnings(&mut self, printed: &str) -> Result<(), String> {
        let warned = printed.contains("warning: ") && printed.contains(" --> ");
        if warned && !self.warns {
            return Err(format!("the page does not say that the compiler warns:\n{printed}"));
        }
        if !warned && self.must_warn && printed.contains("Compiling") {
            return Err(format!("the page says that the compiler warns:\n{printed}"));
        }
        self.must_warn &= !warned;
        Ok(())
    }

    async fn see(
        &mut self,
        number: u8,
        part: Part,
        shown: &str,
        file: Option<PathBuf>,
    ) -> Result<(), String> {
        let normal = self.normal();
        let terminal =
            self.terminals.get_mut(&number).ok_or(format!("nothing ran in terminal {number}"))?;
        let shown: Vec<&str> = shown.trim_end().lines().collect();
        let is = |text: &str| {
            let text = normal(text);
            let lines: Vec<&str> = text.trim_end().lines().collect();
            match part {
                Part::All => lines == shown,
                Part::End => lines.ends_with(&shown),
                Part::Among | Part::Ready => {
                    lines.windows(shown.len().max(1)).any(|lines| lines == shown)
                }
            }
        };
        let as_shown = match part {
            Part::Ready => {
                let starts = |text: &str| text.contains(" Running `");
                terminal.prints(COMMAND_DEADLINE, starts).await;
                terminal.prints(DEADLINE, &is).await
            }
            _ if self.record => terminal.prints(QUIET, &is).await,
            _ => terminal.prints(DEADLINE, &is).await,
        };
        let printed = terminal.printed();
        if part == Part::Ready {
            self.check_warnings(&printed)?;
        }
        if as_shown && !shown.is_empty() {
            return Ok(());
        }
        let now = normal(&printed);
        let lines: Vec<&str> = now.trim_end().lines().collect();
        let keep = match part {
            Part::All => lines.len(),
            Part::End => shown.len().max(1),
            // Which lines to show is for a person to choose.
            Part::Among | Part::Ready => 0,
        };
        match file.filter(|_| self.record && keep > 0) {
            Some(file) => {
                let kept = &lines[lines.len().saturating_sub(keep)..];
                fs::write(&file, kept.join("\n") + "\n")
                    .map_err(|error| format!("{}: {error}", file.display()))
            }
            None => Err(format!(
                "the page shows\n{}\nbut terminal {number} shows\n{now}",
                shown.join("\n")
            )),
        }
    }

    /// The last trace id that a terminal shows, as it is.
    fn last_trace_id(&self, number: u8) -> Option<String> {
        let ids = Regex::new(r"\b[0-9a-f]{32}\b").expect("a pattern");
        let printed = self.terminals.get(&number)?.printed();
        ids.find_iter(&printed).last().map(|id| id.as_str().to_owned())
    }

    /// Replaces everything that differs from run to run, and restores the ports of the pages.
    fn normal(&self) -> impl Fn(&str) -> String + use<> {
        let pattern = |pattern: &str| Regex::new(pattern).expect("a pattern");
        let words = [
            (pattern(r"\r"), ""),
            (pattern(r"date: .*"), "date: <date>"),
            (pattern(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "<time>"),
            (pattern(r"in (\d+m )?[\d.]+s\b"), "in <time>"),
        ];
        let (trace_id, span_id) = (pattern(r"\b[0-9a-f]{32}\b"), pattern(r"\b[0-9a-f]{16}\b"));
        let (ports, typed) = (self.ports.clone(), self.typed.clone());
        move |text| {
            let mut text = text.to_owned();
            for (page, free) in &ports {
                text = text.replace(&format!("127.0.0.1:{free}"), &format!("127.0.0.1:{page}"));
            }
            for (pattern, word) in &words {
                text = pattern.replace_all(&text, *word).into_owned();
            }
            for (pattern, word) in [(&trace_id, "<trace-id>"), (&span_id, "<span-id>")] {
                let put = |found: &regex::Captures| match typed.contains(&found[0]) {
                    true => found[0].to_owned(),
                    false => word.to_owned(),
                };
                text = pattern.replace_all(&text, put).into_owned();
            }
            text
        }
    }

    async fn interrupt(&mut self, terminals: &[u8]) -> Result<(), String> {
        for number in terminals {
            let terminal = self.terminals.get_mut(number).filter(|terminal| terminal.is_busy());
            let terminal = terminal.ok_or(format!("nothing runs in terminal {number}"))?;
            let started = Instant::now();
            let status = terminal.interrupt(DEADLINE).await?;
            self.waited += started.elapsed();
            if !status.success() {
                return Err(format!(
                    "terminal {number} ended with {status}, and printed:\n{}",
                    terminal.printed()
                ));
            }
        }
        Ok(())
    }

    /// The live updates of the lab's pages: a chunk whenever spans arrive, from now on.
    async fn news(&self) -> Result<reqwest::Response, String> {
        let url = format!("http://127.0.0.1:{}/traces/events", self.port(3000));
        let client = reqwest::Client::builder().no_proxy().build();
        let answer = client.expect("a client").get(&url).send().await;
        answer.map_err(|error| format!("{url}: {error}"))
    }

    async fn open(&mut self, url: &str) -> Result<(), String> {
        let path = url
            .strip_prefix("http://127.0.0.1:3000")
            .ok_or(format!("{url} is not an address of the lab"))?;
        // A trace that is on its way has no page yet.
        let deadline = Instant::now() + DEADLINE;
        let mut news = self.news().await?;
        loop {
            let (status, text) = self.get(path).await?;
            if status == 200 {
                self.shown = text;
                return Ok(());
            }
            if timeout_at(deadline.into(), news.chunk()).await.is_err() {
                return Err(format!("{url} is answered {status}: {text}"));
            }
        }
    }

    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = client.get(format!("http://127.0.0.1:{}{path}", self.port(3000))).send().await;
        let answer = answer.map_err(|error| format!("{path}: {error}"))?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|error| error.to_string())?))
    }

    /// The ids of all traces that the lab has, the earliest first; none where it does not run.
    async fn traces(&self) -> Vec<String> {
        let Ok((_, json)) = self.get("/api/traces?limit=1000").await else {
            return Vec::new();
        };
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let mut traces: Vec<(u64, String)> = json["data"]
            .as_array()
            .expect("a list of traces")
            .iter()
            .map(|trace| {
                let spans = trace["spans"].as_array().expect("a list of spans");
                let start = spans.iter().filter_map(|span| span["startTime"].as_u64()).min();
                (start.unwrap_or_default(), trace["traceID"].as_str().expect("an id").to_owned())
            })
            .collect();
        traces.sort();
        traces.into_iter().map(|(_, id)| id).collect()
    }

    /// The waterfalls of the traces that the last command left must be those of the page.
    async fn figure(&mut self, shown: &str, file: Option<PathBuf>) -> Result<(), String> {
        let started = Instant::now();
        let mut last = (String::new(), Instant::now());
        let mut news = self.news().await?;
        loop {
            let mut figures = String::new();
            for id in self.traces().await {
                if !self.known.contains(&id) {
                    let (_, picture) = self.get(&format!("/traces/{id}.html")).await?;
                    figures.push_str(&picture);
                }
            }
            if self.without_times(&figures) == self.without_times(shown) {
                self.waited += started.elapsed();
                self.scene.traces = figures;
                return Ok(());
            }
            if figures != last.0 {
                last = (figures, Instant::now());
            } else if self.record && last.1.elapsed() > QUIET {
                let file = file.ok_or("a figure must be included from src/recordings")?;
                self.scene.traces = last.0;
                return fs::write(&file, &self.scene.traces)
                    .map_err(|error| format!("{}: {error}", file.display()));
            } else if !self.record && started.elapsed() > DEADLINE {
                return Err(format!("the page shows\n{shown}\nbut the lab shows\n{}", last.0));
            }
            // A recording must also wait until nothing more arrives.
            let most = if self.record { QUIET } else { DEADLINE };
            let _ = timeout(most, news.chunk()).await;
        }
    }

    /// The reader comes to a section of a page: what happened in another one before is a scene.
    async fn enter(&mut self, name: String) -> Result<(), String> {
        if name == self.scene.name {
            return Ok(());
        }
        let mut from = self.scene.from;
        if reel::is_a_scene(&self.tape.borrow()[from..]) {
            from = self.cut().await?;
        }
        let traces = String::new();
        self.scene = Scene { name, from, traces };
        Ok(())
    }

    /// Compares the scene with its recording, or records it; returns where the next one begins. A service may still be
    /// about to print its last line.
    async fn cut(&mut self) -> Result<usize, String> {
        let started = Instant::now();
        let Scene { name, from, traces } = std::mem::take(&mut self.scene);
        let mut tape = self.tape.subscribe();
        let mut traces = traces;
        if traces.is_empty() && reel::asks(&tape.borrow()[from..]) {
            let last = self.traces().await.pop().ok_or("the lab has no trace")?;
            (_, traces) = self.get(&format!("/traces/{last}.html")).await?;
        }
        let file = format!("walkthrough/{name}.html");
        let recorded = fs::read_to_string(recording::folder().join(&file)).unwrap_or_default();
        let (normal, as_printed) = (self.normal(), self.as_printed());
        let varies = Regex::new(r#" data-(at|for)="\d+"| \(\d+\)"#).expect("a pattern");
        let normal = |text: &str| redact(&normal(&varies.replace_all(text, "")));
        self.scenes.push(name);
        let most = if self.record { QUIET } else { DEADLINE };
        loop {
            let (now, until) = {
                let tape = tape.borrow_and_update();
                (as_printed(&reel::render(&tape[from..], &traces)), tape.len())
            };
            if normal(&now) == normal(&recorded) {
                self.waited += started.elapsed();
                return Ok(until);
            }
            if timeout(most, tape.changed()).await.is_ok() {
                continue;
            }
            recording::check_as(&file, &now, normal)?;
            return Ok(until);
        }
    }

    /// The scenes of all that was followed; the last one ends here.
    pub async fn last_scene(&mut self) -> Vec<String> {
        let done = self.enter(String::new()).await;
        done.unwrap_or_else(|problem| panic!("{problem}"));
        self.scenes.clone()
    }

    /// Replaces the ports and folders of this run with those on the pages.
    fn as_printed(&self) -> impl Fn(&str) -> String + use<> {
        let (ports, project) = (self.ports.clone(), self.project());
        let words = [
            (project.display().to_string(), "distributed_tracing"),
            (self.parent.display().to_string(), "the folder that holds the clone"),
            (self.clone.display().to_string(), "the clone"),
        ];
        move |text| {
            let ports = ports
                .iter()
                .map(|(page, free)| (format!("127.0.0.1:{free}"), format!("127.0.0.1:{page}")));
            let words = words.iter().map(|(here, page)| (here.clone(), (*page).to_owned()));
            let all = ports.chain(words);
            all.fold(text.to_owned(), |text, (here, page)| text.replace(&here, &page))
        }
    }

    /// A figure without the parts that differ from run to run. The ids that the reader types stay the same.
    fn without_times(&self, figure: &str) -> String {
        let typed = self.typed.iter();
        redact(
            &typed.fold(figure.to_owned(), |figure, id| figure.replace(id, &format!("typed_{id}"))),
        )
    }

    /// The addresses to use instead of the ports on the pages, without the settings of this machine.
    fn environment(&self) -> Vec<(String, String)> {
        let address = |port| format!("127.0.0.1:{}", self.port(port));
        let url = |port| format!("http://{}", address(port));
        let own = [
            ("CURL_HOME", self.parent.display().to_string()),
            ("LAB_SITE", address(3000)),
            ("LAB_OTLP", address(4318)),
            ("LAB_GRPC", address(4317)),
            ("LAB_PROJECT", self.project().display().to_string()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url(4318)),
            ("API_GATEWAY_ADDR", address(5000)),
            ("USER_SERVICE_ADDR", address(5001)),
            ("USER_SERVICE_URL", url(5001)),
            ("LLM_SERVICE_ADDR", address(5002)),
            ("LLM_SERVICE_URL", url(5002)),
            ("NO_PROXY", "127.0.0.1".to_owned()),
            ("no_proxy", "127.0.0.1".to_owned()),
        ];
        own.map(|(key, value)| (key.to_owned(), value)).to_vec()
    }

    fn port(&self, page: u16) -> u16 {
        let found = self.ports.iter().find(|(named, _)| *named == page);
        found.map_or(page, |(_, free)| *free)
    }

    /// The pages end with everything stopped.
    pub fn nothing_runs(&self) {
        let busy = self.terminals.iter().filter(|(_, terminal)| terminal.is_busy());
        let busy: Vec<_> = busy.map(|(number, _)| number).collect();
        assert!(busy.is_empty(), "the pages leave something running in terminals {busy:?}");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.terminals.clear();
        let _ = fs::remove_dir_all(&self.parent);
    }
}

/// The file of the recording that a page includes.
fn recording(page: &Page, source: &str) -> Option<PathBuf> {
    let include = includes(page.path.to_str()?, source).into_iter().next()?;
    Some(crate::support::root().join(include.file))
}
