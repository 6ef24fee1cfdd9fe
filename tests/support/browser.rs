//! A real browser, driven over [WebDriver](https://www.w3.org/TR/webdriver2/) with the few commands that the tests need. The
//! libraries for it bring a second `http` or switch on features of serde that the crates here aren't built with.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::DEADLINE;

/// A browser with one new window. Starting one takes longer than most tests do with it, so a browser that a test has finished
/// with is kept for the next test.
pub struct Browser {
    client: reqwest::Client,
    lab: SocketAddr,
    dark: bool,
    /// `Some` until this is dropped.
    driver: Option<Driver>,
}

/// ChromeDriver with a session. It ends with this value, or with the test program.
struct Driver {
    /// The URL of the session.
    session: String,
    /// The process ends when its input is closed.
    _process: Child,
}

/// Returns the path of Debian's headless shell, Chromium without the parts that draw windows. It takes half the time. Where it
/// isn't installed, the tests use Chromium itself.
pub fn shell() -> Option<&'static str> {
    let shell = "/usr/bin/chromium-headless-shell";
    Path::new(shell).exists().then_some(shell)
}

/// The drivers that no test uses.
static IDLE: Mutex<Vec<Driver>> = Mutex::new(Vec::new());

/// Ends the driver when the input ends. The browser outlives its driver, so this also ends every process whose arguments name
/// the temporary folder.
const UNTIL_INPUT_ENDS: &str = r#"chromedriver --port=0 &
    while read -r _; do :; done
    kill -KILL $!
    while pkill -TERM -f "$TMPDIR"; do sleep 0.1; done
    rm -rf "$TMPDIR""#;

impl Drop for Browser {
    fn drop(&mut self) {
        // The state of a browser after a failure is unknown.
        if std::thread::panicking() {
            return;
        }
        // The last page may be playing, or polling a lab that is gone.
        let leave = self.visit("about:blank");
        tokio::task::block_in_place(|| Handle::current().block_on(leave));
        if let (Some(driver), Ok(mut idle)) = (self.driver.take(), IDLE.lock()) {
            idle.push(driver);
        }
    }
}

impl Driver {
    /// Starts ChromeDriver. `session` is the URL that creates a session.
    fn start() -> Driver {
        let mut process = Command::new("sh")
            .args(["-c", UNTIL_INPUT_ENDS])
            // The driver passes a folder below it to the browser.
            .env("TMPDIR", tempfile::tempdir().expect("a folder").keep())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut lines = BufReader::new(process.stdout.take().expect("an output")).lines();
        let port = loop {
            let line = lines.next().expect("ChromeDriver starts").expect("text");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        Driver { session: format!("http://127.0.0.1:{port}/session"), _process: process }
    }
}

/// Keys without a letter (WebDriver, "Keyboard actions").
pub mod key {
    pub const ESCAPE: &str = "\u{e00c}";
    pub const ENTER: &str = "\u{e007}";
    pub const TAB: &str = "\u{e004}";
    pub const END: &str = "\u{e010}";
    pub const HOME: &str = "\u{e011}";
    pub const LEFT: &str = "\u{e012}";
    pub const UP: &str = "\u{e013}";
    pub const RIGHT: &str = "\u{e014}";
    pub const DOWN: &str = "\u{e015}";
}

/// The key of an element's id in an answer (WebDriver, "Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The functions that every script can call.
const FUNCTIONS: &str = "
    const $ = css => document.querySelector(css);
    const $$ = css => [...document.querySelectorAll(css)];
    const text = css => $(css)?.textContent;
    const texts = css => $$(css).map(it => it.textContent);
    const frame = () => new Promise(requestAnimationFrame);";

/// The width of a window, and whether its user prefers dark pages.
pub type Look = (u32, bool);

pub const WIDE: Look = (1280, false);

impl Browser {
    /// Opens `path` of the lab at an address.
    pub async fn open(lab: SocketAddr, path: &str, (width, dark): Look) -> Browser {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let driver = IDLE.lock().expect("no panic").pop();
        let mut browser = Browser { client, lab, dark, driver };
        match browser.driver {
            Some(_) => browser.replace_window().await,
            None => browser.start().await,
        }
        browser.post("/window/rect", json!({ "width": width, "height": 900 })).await;
        browser.look_as("screen", false).await;
        browser.go(path).await;
        browser
    }

    async fn start(&mut self) {
        let address = self.driver.insert(Driver::start()).session.clone();
        let mut options = json!({ "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        ] });
        if let Some(shell) = shell() {
            options["binary"] = json!(shell);
        }
        let wanted = json!({ "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": 2 * DEADLINE.as_millis() as u64 },
        } });
        let session = self.post("", json!({ "capabilities": wanted })).await;
        let id = session["sessionId"].as_str().expect("a session");
        self.driver.as_mut().expect("it is open").session = format!("{address}/{id}");
    }

    /// Opens a new window and closes the one that another test has left.
    async fn replace_window(&self) {
        let old = self.command(Method::GET, "/window", None).await;
        let new = self.post("/window/new", json!({ "type": "window" })).await;
        self.post("/window", json!({ "handle": old })).await;
        self.command(Method::DELETE, "/window", None).await;
        self.post("/window", json!({ "handle": new["handle"] })).await;
        // Empties the log of the other test.
        self.post("/se/log", json!({ "type": "browser" })).await;
    }

    /// Sends a command and returns its value.
    async fn command(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let session = &self.driver.as_ref().expect("it is open").session;
        let mut request = self.client.request(method, format!("{session}{path}"));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("the driver answers");
        let status = answer.status();
        let answer: Value = answer.json().await.expect("JSON");
        assert!(status.is_success(), "{path} {body:?}: {answer}");
        answer["value"].clone()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.command(Method::POST, path, Some(body)).await
    }

    pub async fn go(&self, path: &str) {
        self.visit(&format!("http://{}{path}", self.lab)).await;
    }

    /// Goes to any URL.
    pub async fn visit(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub async fn devtools(&self, command: &str, params: Value) {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": params })).await;
    }

    /// Makes the page look as it does on paper (`print`), or to a reader who prefers less motion.
    pub async fn look_as(&self, medium: &str, calm: bool) {
        let features = json!([
            { "name": "prefers-reduced-motion", "value": if calm { "reduce" } else { "no-preference" } },
            { "name": "prefers-color-scheme", "value": if self.dark { "dark" } else { "light" } },
        ]);
        let media = json!({ "media": medium, "features": features });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Goes back, as the browser's own button does.
    pub async fn back(&self) {
        self.post("/back", json!({})).await;
    }

    /// Waits until the browser has gone to a URL that contains `part`. A script that waits would go with its page.
    pub async fn arrives_at(&self, part: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let url = self.command(Method::GET, "/url", None).await;
            if url.as_str().is_some_and(|url| url.contains(part)) {
                break;
            }
            assert!(Instant::now() < deadline, "{url} is not at {part}");
            // The browser needs the processor too.
            self.run("await frame();").await;
        }
        // The page's own script may not have run yet.
        self.wait_for("document.readyState", "complete").await;
    }

    /// Waits until such an element exists and clicks it.
    pub async fn click(&self, css: &str) {
        self.wait_for(&format!("$({css:?}) !== null"), true).await;
        let found = self.post("/element", json!({ "using": "css selector", "value": css })).await;
        let id = found[ELEMENT].as_str().expect("an element");
        self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    /// Runs a script, which may wait. Returns the value that the script returns.
    pub async fn run(&self, script: &str) -> Value {
        self.run_with(script, Value::Null).await
    }

    /// Runs a script that finds a value under the name `given`.
    pub async fn run_with(&self, script: &str, given: Value) -> Value {
        let script = format!(
            "const [given, done] = arguments; {FUNCTIONS}
             (async () => {{ {script} }})().then(value => done({{ value }}), it => done({{ error: `${{it}}` }}));"
        );
        let body = json!({ "script": script, "args": [given] });
        let mut answer = self.post("/execute/async", body).await;
        assert!(answer["error"].is_null(), "{}: {script}", answer["error"]);
        answer["value"].take()
    }

    /// Fails unless the value of a JavaScript expression is as expected now.
    pub async fn shows(&self, expression: &str, expected: impl Into<Value>) {
        let seen = self.run(&format!("return {expression};")).await;
        assert_eq!(seen, expected.into(), "{expression}");
    }

    /// Waits until the value of a JavaScript expression is as expected.
    pub async fn wait_for(&self, expression: &str, expected: impl Into<Value>) {
        // The browser waits a frame at a time, so this doesn't poll it.
        let (expected, most) = (expected.into(), DEADLINE.as_millis());
        let until = format!(
            "let last;
             const began = performance.now();
             while (performance.now() - began < {most}) {{
               last = await ({expression});
               if (JSON.stringify(last) === given) break;
               await frame();
             }}
             return last;"
        );
        let last = self.run_with(&until, expected.to_string().into()).await;
        assert_eq!(last, expected, "{expression}");
    }

    /// Presses keys one after the other, as a keyboard does, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|stroke| json!({ "type": stroke, "value": key.to_string() }))
        });
        let strokes: Vec<Value> = strokes.collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.post("/actions", json!({ "actions": [keyboard] })).await;
    }

    /// Makes the browser run a script on every later page, before the page's own scripts.
    pub async fn bring(&self, script: &str) {
        self.devtools("Page.enable", json!({})).await;
        let source = json!({ "source": script });
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source).await;
    }

    /// Fails unless the page keeps the rules of axe-core, which [`Browser::bring`] has loaded, and fits into the window.
    pub async fn is_for_everybody(&self, what: &str) {
        let script = "const found = await axe.run(document, { resultTypes: ['violations'] });
             const broken = found.violations.map(it => [it.id, it.nodes.map(node => node.html.slice(0, 200))]);
             return { broken, fits: document.documentElement.scrollWidth <= innerWidth };";
        assert_eq!(self.run(script).await, json!({ "broken": [], "fits": true }), "{what}");
    }

    /// Returns the page's requests that failed or went to another host, and the new lines of its console.
    pub async fn errors(&self) -> Vec<String> {
        let script = "const bad = it => it.responseStatus >= 400 || ![location.host, ''].includes(new URL(it.name).host);
             return performance.getEntriesByType('resource').filter(bad).map(it => it.name);";
        let requests = self.run(script).await;
        let mut errors: Vec<String> = serde_json::from_value(requests).expect("texts");
        let lines = self.post("/se/log", json!({ "type": "browser" })).await;
        errors.extend(lines.as_array().expect("a log").iter().map(|it| it["message"].to_string()));
        errors
    }
}
