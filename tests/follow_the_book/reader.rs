//! A reader who does what the pages say and compares what they show.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem::{discriminant, take};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use course::book::Page;
use reqwest::Response;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::page::{Action, Part, Step, Writing, pattern, steps};
use super::reel::{self, Place, Tape, What, put};
use super::terminal::Terminal;
use support::includes::includes;
use support::recording::{self, check_as, redact};
use support::{DEADLINE, client, free_port, root, target, temporary};

/// Compiling from scratch takes the longest, on a slow machine.
const COMMAND_DEADLINE: Duration = Duration::from_secs(1800);
/// While recording, the number of spans is unknown: a trace counts as complete when nothing has been added for this long.
const QUIET: Duration = Duration::from_secs(2);

/// The end of cargo's lines about code that doesn't compile.
const NOT_COMPILED: &str = "error: could not compile";

/// The ports on the pages.
const PORTS: [u16; 6] = [3000, 4317, 4318, 5000, 5001, 5002];

pub struct Reader {
    clone: PathBuf,
    /// The folder that would hold the clone and holds the project.
    parent: PathBuf,
    terminals: BTreeMap<u8, Terminal>,
    last: u8,
    /// The addresses on the pages, and the free ones in their place.
    addresses: [(String, String); 6],
    /// The ids that the reader types. All others vary.
    typed: HashSet<String>,
    /// The traces before the last command.
    known: Vec<String>,
    /// The page in the browser.
    shown: String,
    /// Whether the page says that the next command fails.
    fails: bool,
    /// The lines of the last command that said that it was ready.
    ready: String,
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
    /// The reader before the first page. `pages` are all pages that will be followed.
    pub fn new(pages: &[Page]) -> Reader {
        let clone = root();
        // Always the same folder, so that cargo doesn't compile again; one per clone.
        let mut hasher = DefaultHasher::new();
        clone.hash(&mut hasher);
        let parent = std::env::temp_dir().join(format!("one-trace-{:x}", hasher.finish()));
        let _ = fs::remove_dir_all(&parent);
        fs::create_dir_all(parent.join(".cargo")).expect("a folder");
        // The reader's crates are the crates of our lock file, compiled next to ours, so that equal crates are shared. Nobody
        // debugs the reader's own crate, which is compiled again and again.
        let manifest = fs::read_to_string(clone.join("Cargo.toml")).expect("a manifest");
        let profiles = manifest.find("[profile.dev]").map(|at| &manifest[at..]);
        let settings = format!(
            "[build]\ntarget-dir = {:?}\nbuild-dir = {:?}\n\n[net]\noffline = true\n\n[term]\ncolor = \"never\"\n\n{}\n\
             [profile.dev.package.distributed_tracing]\ndebug = false\n",
            temporary().join("reader"),
            target(),
            profiles.expect("the profiles are at the end"),
        );
        fs::write(parent.join(".cargo/config.toml"), settings).expect("written");
        // In a terminal curl shows no progress.
        fs::write(parent.join(".curlrc"), "no-progress-meter\n").expect("written");

        let ids = pattern(r"\b([0-9a-f]{32}|[0-9a-f]{16})\b");
        let mut typed = HashSet::new();
        for step in pages.iter().flat_map(|page| steps(&page.expanded).unwrap_or_default()) {
            if let Action::Run { command, .. } = step.action {
                typed.extend(ids.find_iter(&command).map(|id| id.as_str().to_owned()));
            }
        }
        let address = |port: u16| format!("127.0.0.1:{port}");
        Reader {
            clone,
            parent,
            terminals: BTreeMap::new(),
            last: 0,
            addresses: PORTS.map(|port| (address(port), address(free_port()))),
            typed,
            known: Vec::new(),
            shown: String::new(),
            fails: false,
            ready: String::new(),
            tape: watch::Sender::default(),
            scene: Scene::default(),
            scenes: Vec::new(),
        }
    }

    pub fn project(&self) -> PathBuf {
        self.parent.join("distributed_tracing")
    }

    /// Returns the project's folder as a command in the clone names it. The clone is in another folder than on the page.
    fn project_seen_from_clone(&self) -> String {
        self.parent.join("./distributed_tracing").display().to_string()
    }

    /// Does everything that `page` says.
    pub async fn follow(&mut self, page: &Page) -> Result<()> {
        let path = page.path.display();
        let written = steps(&page.source).with_context(|| path.to_string())?;
        let expanded = steps(&page.expanded).with_context(|| path.to_string())?;
        ensure!(written.len() == expanded.len(), "{path}: an include brings steps");
        for (index, (written, step)) in written.iter().zip(&expanded).enumerate() {
            let mut later = expanded[index + 1..].iter().map(|step| &step.action);
            let next = later.find(|action| **action != Action::Fails);
            let done = self.act(page, written, &step.action, next).await;
            done.with_context(|| format!("{path}:{}", written.line))?;
        }
        Ok(())
    }

    /// Does one step of a page. `written` is the step before its include was expanded.
    async fn act(
        &mut self,
        page: &Page,
        written: &Step,
        action: &Action,
        next: Option<&Action>,
    ) -> Result<()> {
        self.enter(reel::scene(page, written.line)).await?;
        let same = discriminant(action) == discriminant(&written.action);
        ensure!(same, "with its include expanded, it is another step: {:?}", written.action);
        match action {
            Action::Write { path, how, content } => self.write(path, *how, content),
            Action::Read { path, content } => {
                let text = fs::read_to_string(self.project().join(path)).context(path.clone())?;
                put(&self.tape, Place::Editor, What::Typed, path);
                put(&self.tape, Place::Editor, What::Shown, &text);
                ensure!(text == *content, "{path} is\n{text}\nand the page shows\n{content}");
                Ok(())
            }
            // The clone is the one that this test is compiled in.
            Action::Run { command, .. } if command.starts_with("git clone ") => {
                let form = pattern(r"^git clone REPOSITORY (\S+)\ncd (\S+)\n$");
                let named = form.captures(command).context("not how to clone")?;
                ensure!(named[1] == named[2], "the clone is not where `cd` goes");
                Ok(())
            }
            Action::Edit { path, diff } => self.edit(path, diff),
            Action::Run { terminal, folder, command } => {
                self.run(*terminal, folder, command, next).await
            }
            Action::See { terminals, part, output } => {
                let last = [self.last];
                let terminals = if terminals.is_empty() { &last[..] } else { terminals };
                for terminal in terminals {
                    self.see(*terminal, *part, output, recording(page, &written.action)).await?;
                }
                let ids = terminals.iter().map(|number| self.last_trace_id(*number));
                let ids: HashSet<_> = ids.collect();
                ensure!(ids.len() == 1, "terminals {terminals:?} show different traces: {ids:?}");
                Ok(())
            }
            Action::Interrupt { terminals } => self.interrupt(terminals).await,
            Action::Enter { terminal } => self.enter_key(*terminal).await,
            Action::Open { url } => self.open(url).await,
            Action::Says { text } => {
                let says = self.shown.contains(text);
                ensure!(says, "the page does not say {text:?}, but:\n{}", self.shown);
                self.scene.traces = format!("<p>{text}</p>");
                Ok(())
            }
            Action::Figure { html } => self.figure(html, recording(page, &written.action)).await,
            Action::Fails => {
                self.fails = true;
                Ok(())
            }
        }
    }

    fn write(&mut self, path: &str, how: Writing, content: &str) -> Result<()> {
        let file = self.project().join(path);
        let is_new = how == Writing::New;
        ensure!(is_new != file.exists(), "{path} is written as {how:?}, and that does not fit");
        put(&self.tape, Place::Editor, What::Typed, path);
        fs::write(&file, content).with_context(|| path.to_owned())
    }

    /// Makes a change of one or more hunks, which lines that start with `@@` separate.
    fn edit(&mut self, path: &str, diff: &str) -> Result<()> {
        put(&self.tape, Place::Editor, What::Typed, path);
        put(&self.tape, Place::Editor, What::Shown, diff);
        let file = self.project().join(path);
        let mut text = fs::read_to_string(&file).with_context(|| path.to_owned())?;
        let lines = Vec::from_iter(diff.lines());
        for hunk in lines.split(|line| line.starts_with("@@")) {
            let side = |sign: char| -> String {
                let lines =
                    hunk.iter().filter(|line| line.is_empty() || line.starts_with([' ', sign]));
                lines.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect()
            };
            let (before, after) = (side('-'), side('+'));
            let count = text.matches(&before).count();
            ensure!(count == 1, "{path} has the lines before the change {count} times:\n{before}");
            text = text.replace(&before, &after);
        }
        Ok(fs::write(file, text)?)
    }

    async fn run(
        &mut self,
        number: u8,
        folder: &str,
        command: &str,
        next: Option<&Action>,
    ) -> Result<()> {
        let folder = match folder {
            "the clone" => self.clone.clone(),
            name => self.parent.join(name),
        };
        self.known = self.traces().await;
        let environment = self.environment();
        let mut typed = command.to_owned();
        for (page, free) in &self.addresses {
            typed = typed.replace(page, free);
        }
        typed = typed.replace("../distributed_tracing", &self.project_seen_from_clone());
        // A terminal that has not been used is opened where the page says.
        let new = || Terminal::new(number, &folder, &self.tape);
        let terminal = self.terminals.entry(number).or_insert_with(new);
        let is_in = &terminal.folder;
        ensure!(is_in.canonicalize()? == folder.canonicalize()?, "the terminal is in {is_in:?}");
        ensure!(!terminal.is_busy(), "terminal {number} is busy");
        self.last = number;
        let started = Instant::now();
        terminal.start(&typed, &environment);
        if matches!(next, Some(Action::See { part: Part::Ready, .. })) {
            return Ok(());
        }
        let status = terminal.finish(COMMAND_DEADLINE).await?;
        let printed = terminal.printed();
        println!("{:5.1} s  {}", started.elapsed().as_secs_f64(), command.trim_end());
        let expected = i32::from(take(&mut self.fails));
        ensure!(status.code() == Some(expected), "it ended with {status}, and printed:\n{printed}");
        check_warnings(&printed)
    }

    async fn see(
        &mut self,
        number: u8,
        part: Part,
        shown: &str,
        file: Option<String>,
    ) -> Result<()> {
        let normal = self.normal();
        let terminal = self.terminals.get_mut(&number).context("nothing ran in the terminal")?;
        let shown: Vec<&str> = shown.trim_end().lines().collect();
        let is = |text: &str| {
            let text = normal(text);
            let lines: Vec<&str> = text.lines().collect();
            match part {
                Part::All => lines == shown,
                Part::End => lines.ends_with(&shown),
                // Lines of several services come in any order.
                Part::Among => shown.iter().all(|line| lines.contains(line)),
                Part::Ready => lines.windows(shown.len().max(1)).any(|lines| lines == shown),
            }
        };
        let ready = part == Part::Ready;
        if ready {
            terminal.prints(COMMAND_DEADLINE, |text| text.contains(" Running `")).await;
        }
        let most = match ready {
            // The program that runs may be compiling others, or waiting for another cargo that does.
            true => COMMAND_DEADLINE,
            false if recording::overwrite() => QUIET,
            false => DEADLINE,
        };
        let fails = |text: &str| ready && text.contains(NOT_COMPILED);
        let as_shown = terminal.prints(most, |text| is(text) || fails(text)).await;
        let printed = terminal.printed();
        if ready {
            self.ready = shown.join("\n");
            check_warnings(&printed)?;
        }
        if as_shown && !fails(&printed) && !shown.is_empty() {
            return Ok(());
        }
        let now = normal(&printed);
        let lines: Vec<&str> = now.lines().collect();
        let keep = match part {
            Part::All => lines.len(),
            Part::End => shown.len().max(1),
            // A person chooses which lines to show.
            Part::Among | Part::Ready => 0,
        };
        let Some(file) = file.filter(|_| keep > 0) else {
            bail!("the page shows\n{}\nbut terminal {number} shows\n{now}", shown.join("\n"));
        };
        let kept = lines[lines.len().saturating_sub(keep)..].join("\n") + "\n";
        check_as(&file, &kept, normal).map_err(Error::msg)
    }

    /// The last trace id that a terminal shows.
    fn last_trace_id(&self, number: u8) -> Option<String> {
        let printed = self.terminals.get(&number)?.printed();
        let id = pattern(r"\b[0-9a-f]{32}\b").find_iter(&printed).last()?;
        Some(id.as_str().to_owned())
    }

    /// Replaces the addresses and folders of this run by those on the pages.
    fn as_printed(&self) -> impl Fn(&str) -> String + use<> {
        let mut words = self.addresses.clone().map(|(page, free)| (free, page)).to_vec();
        words.push((self.project_seen_from_clone(), "../distributed_tracing".to_owned()));
        words.extend(
            [
                (&self.project(), "distributed_tracing"),
                (&self.parent, "the folder that holds the clone"),
                (&self.clone, "the clone"),
            ]
            .map(|(path, name)| (path.display().to_string(), name.to_owned())),
        );
        move |text| {
            words.iter().fold(text.to_owned(), |text, (here, page)| text.replace(here, page))
        }
    }

    /// Replaces everything that differs from run to run. The ids that the reader types stay the same.
    fn normal(&self) -> impl Fn(&str) -> String + use<> {
        let words =
            [(r"\r", ""), (r"date: .*", "date: <date>"), (r"in (\d+m )?[\d.]+s\b", "in <time>")];
        let words = words.map(|(text, word)| (pattern(text), word));
        let (as_printed, typed) = (self.as_printed(), self.typed.clone());
        move |text| {
            let text = words.iter().fold(as_printed(text), |text, (pattern, word)| {
                pattern.replace_all(&text, *word).into_owned()
            });
            let marked =
                typed.iter().fold(text, |text, id| text.replace(id, &format!("typed_{id}")));
            redact(&marked).replace("typed_", "")
        }
    }

    /// Presses Enter in a terminal whose command prints again that it is ready.
    async fn enter_key(&mut self, number: u8) -> Result<()> {
        let normal = self.normal();
        let ready = self.ready.clone();
        let terminal = self.terminals.get_mut(&number).context("nothing runs in the terminal")?;
        let before = terminal.printed().len();
        terminal.press_enter()?;
        let is_ready = |text: &str| normal(text.get(before..).unwrap_or_default()).contains(&ready);
        let fails = |text: &str| text.get(before..).is_some_and(|it| it.contains(NOT_COMPILED));
        terminal.prints(COMMAND_DEADLINE, |text| is_ready(text) || fails(text)).await;
        let printed = terminal.printed();
        let is_ready = is_ready(&printed);
        ensure!(is_ready, "it isn't ready again, but prints:\n{}", &printed[before..]);
        check_warnings(&printed[before..])
    }

    async fn interrupt(&mut self, terminals: &[u8]) -> Result<()> {
        for number in terminals {
            let terminal = self.terminals.get_mut(number);
            let terminal = terminal.with_context(|| format!("nothing ran in terminal {number}"))?;
            let status = terminal.interrupt(DEADLINE).await?;
            let printed = terminal.printed();
            ensure!(status.success(), "terminal {number}: {status}, and printed:\n{printed}");
        }
        Ok(())
    }

    /// The address that takes the place of a port on the pages.
    fn address(&self, port: u16) -> &str {
        let at = PORTS.iter().position(|it| *it == port).expect("a port on the pages");
        &self.addresses[at].1
    }

    async fn request(&self, path: &str) -> Result<Response> {
        let url = format!("http://{}{path}", self.address(3000));
        Ok(client().get(url).send().await?)
    }

    async fn get(&self, path: &str) -> Result<String> {
        Ok(self.request(path).await?.text().await?)
    }

    /// Subscribes to the live updates of the lab's pages. The response has a chunk for each change from now on.
    async fn changes(&self) -> Result<Response> {
        self.request("/traces/events").await
    }

    async fn open(&mut self, url: &str) -> Result<()> {
        let path = url.strip_prefix("http://127.0.0.1:3000").context("the lab is elsewhere")?;
        // A trace that hasn't arrived yet has no page.
        let deadline = Instant::now() + DEADLINE;
        let mut changes = self.changes().await?;
        loop {
            let answer = self.request(path).await?;
            let status = answer.status();
            self.shown = answer.text().await?;
            if status == 200 {
                return Ok(());
            }
            let next = timeout_at(deadline.into(), changes.chunk()).await;
            let next =
                next.with_context(|| format!("{url} is answered {status}: {}", self.shown))??;
            next.context("the lab has ended")?;
        }
    }

    /// The ids of all traces in the lab, the earliest first; none where it doesn't run.
    async fn traces(&self) -> Vec<String> {
        let Ok(json) = self.get("/api/traces?limit=1000").await else { return Vec::new() };
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let mut traces: Vec<_> = json["data"].as_array().expect("traces").iter().collect();
        traces.sort_by_cached_key(|trace| {
            let spans = trace["spans"].as_array().expect("spans");
            let start = spans.iter().filter_map(|span| span["startTime"].as_u64()).min();
            (start, trace["traceID"].to_string())
        });
        traces.iter().map(|it| it["traceID"].as_str().expect("an id").to_owned()).collect()
    }

    /// The waterfalls of the traces that the last command left must be those of the page.
    async fn figure(&mut self, shown: &str, file: Option<String>) -> Result<()> {
        let (normal, deadline) = (self.normal(), Instant::now() + DEADLINE);
        let mut changes = self.changes().await?;
        loop {
            let mut figures = String::new();
            for id in self.traces().await.iter().filter(|id| !self.known.contains(id)) {
                figures += &self.get(&format!("/traces/{id}.html")).await?;
            }
            let as_shown = normal(&figures) == normal(shown);
            // A recording must also wait until nothing more arrives.
            let end = if recording::overwrite() { Instant::now() + QUIET } else { deadline };
            if !as_shown && let Ok(change) = timeout_at(end.into(), changes.chunk()).await {
                change?.context("the lab has ended")?;
                continue;
            }
            self.scene.traces = figures;
            if as_shown {
                return Ok(());
            }
            let file = file.context("a figure must be included from src/recordings")?;
            return check_as(&file, &self.scene.traces, normal).map_err(Error::msg);
        }
    }

    /// Begins a section of a page. The commands and outputs of the section before it are a scene.
    async fn enter(&mut self, name: String) -> Result<()> {
        if name == self.scene.name {
            return Ok(());
        }
        let mut from = self.scene.from;
        if reel::is_a_scene(&self.tape.borrow()[from..]) {
            from = self.cut().await?;
        }
        self.scene = Scene { name, from, traces: String::new() };
        Ok(())
    }

    /// Compares the scene with its recording, or records it. Returns where the next one begins. A service may still be about
    /// to print its last line.
    async fn cut(&mut self) -> Result<usize> {
        let Scene { name, from, mut traces } = take(&mut self.scene);
        let mut tape = self.tape.subscribe();
        let asks = reel::asks(&tape.borrow()[from..]);
        if traces.is_empty() && asks {
            let last = self.traces().await.pop().context("the lab has no trace")?;
            traces = self.get(&format!("/traces/{last}.html")).await?;
        }
        let file = format!("walkthrough/{name}.html");
        let recorded = fs::read_to_string(recording::folder().join(&file)).unwrap_or_default();
        let (normal, as_printed) = (self.normal(), self.as_printed());
        let varies = pattern(r#" data-(at|for)="\d+"| \(\d+\)"#);
        let normal = |text: &str| in_any_order(&normal(&varies.replace_all(text, "")));
        self.scenes.push(name);
        let most = if recording::overwrite() { QUIET } else { DEADLINE };
        loop {
            let (now, until) = {
                let tape = tape.borrow_and_update();
                (as_printed(&reel::render(&tape[from..], &traces)), tape.len())
            };
            if normal(&now) == normal(&recorded) {
                return Ok(until);
            }
            if timeout(most, tape.changed()).await.is_err() {
                check_as(&file, &now, normal).map_err(Error::msg)?;
                return Ok(until);
            }
        }
    }

    /// Ends the last scene. Returns the names of all scenes. Nothing may still run in a terminal.
    pub async fn end(&mut self) -> Result<&[String]> {
        self.enter(String::new()).await?;
        let busy = self.terminals.iter().filter(|(_, terminal)| terminal.is_busy());
        let busy: Vec<_> = busy.map(|(number, _)| number).collect();
        ensure!(busy.is_empty(), "the pages leave something running in terminals {busy:?}");
        Ok(&self.scenes)
    }

    /// The variables that set the addresses of this run.
    fn environment(&self) -> [(&'static str, String); 12] {
        let address = |port| self.address(port).to_owned();
        let url = |port| format!("http://{}", self.address(port));
        [
            ("CURL_HOME", self.parent.display().to_string()),
            ("LAB_SITE", address(3000)),
            ("LAB_OTLP", address(4318)),
            ("LAB_GRPC", address(4317)),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url(4318)),
            ("API_GATEWAY_ADDR", address(5000)),
            ("USER_SERVICE_ADDR", address(5001)),
            ("USER_SERVICE_URL", url(5001)),
            ("LLM_SERVICE_ADDR", address(5002)),
            ("LLM_SERVICE_URL", url(5002)),
            ("NO_PROXY", "127.0.0.1".to_owned()),
            ("no_proxy", "127.0.0.1".to_owned()),
        ]
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.terminals.clear();
        let _ = fs::remove_dir_all(&self.parent);
    }
}

/// The name of the recording that a step includes, if it does.
fn recording(page: &Page, written: &Action) -> Option<String> {
    let (Action::See { output: source, .. } | Action::Figure { html: source }) = written else {
        return None;
    };
    let include = includes(page.path.to_str()?, source).into_iter().next()?;
    Some(include.file.strip_prefix("src/recordings/")?.to_owned())
}

/// Fails if the compiler warns: the reader would wonder why.
fn check_warnings(printed: &str) -> Result<()> {
    let warned = printed.contains("warning: ") && printed.contains(" --> ");
    ensure!(!warned, "the page doesn't say that the compiler warns:\n{printed}");
    Ok(())
}

/// Sorts neighboring log lines, because those of several services come in any order.
fn in_any_order(text: &str) -> String {
    let is_log = |line: &str| line.contains(" | <time>");
    let text = text.replace("<pre>", "<pre>\n").replace("</pre>", "\n</pre>");
    let mut lines: Vec<&str> = text.lines().collect();
    for run in lines.chunk_by_mut(|one, next| is_log(one) && is_log(next)) {
        run.sort_unstable();
    }
    lines.join("\n")
}
