//! A real browser, driven over [WebDriver](https://www.w3.org/TR/webdriver2/): the few commands that we need. The
//! libraries for it bring a second `http`, or switch on features of serde that the crates here are not built with.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// A browser with one window that no test has used before. To start one takes longer than most tests do with it, so one
/// that a test is done with is kept for the next.
pub struct Browser {
    client: reqwest::Client,
    lab: SocketAddr,
    dark: bool,
    /// There until it is dropped.
    driver: Option<Driver>,
}

/// ChromeDriver with a session. It ends with this, or with the program of the tests.
struct Driver {
    session: String,
    /// Its input is open as long as it is needed.
    _process: Child,
}

/// Debian's headless shell: Chromium without what a window needs. It takes half of the time; where it is missing, Chromium
/// itself does.
pub fn shell() -> Option<&'static str> {
    let shell = "/usr/bin/chromium-headless-shell";
    Path::new(shell).exists().then_some(shell)
}

/// Those that no test uses.
static IDLE: Mutex<Vec<Driver>> = Mutex::new(Vec::new());

/// Ends the driver when the input ends; and the browser, which outlives its driver, by what only it is called with.
const UNTIL_INPUT_ENDS: &str = r#"chromedriver --port=0 &
    while read -r _; do :; done
    kill -KILL $!
    while pkill -TERM -f "$TMPDIR"; do sleep 0.1; done
    rm -rf "$TMPDIR""#;

impl Drop for Browser {
    fn drop(&mut self) {
        // After a failure nobody knows what state it is in.
        if std::thread::panicking() {
            return;
        }
        // The page that it leaves may play, or ask again and again for a lab that is gone.
        let leave = self.visit("about:blank");
        tokio::task::block_in_place(|| Handle::current().block_on(leave));
        if let (Some(driver), Ok(mut idle)) = (self.driver.take(), IDLE.lock()) {
            idle.push(driver);
        }
    }
}

impl Driver {
    /// Starts ChromeDriver, and has in `session` the address under which one can be asked for.
    fn start() -> Driver {
        let mut process = Command::new("sh")
            .args(["-c", UNTIL_INPUT_ENDS])
            // Below it is what the driver makes for the browser, which is called with that.
            .env("TMPDIR", tempfile::tempdir().expect("a folder").keep())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let output = process.stdout.take().expect("an output");
        let mut lines = BufReader::new(output).lines();
        let port = loop {
            let line = lines.next().expect("ChromeDriver starts").expect("text");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        Driver { session: format!("http://127.0.0.1:{port}/session"), _process: process }
    }
}

/// How long a test waits for what surely happens on a page.
const DEADLINE: Duration = Duration::from_secs(120);

/// The keys that have no letter (WebDriver, "Keyboard actions").
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

/// The name under which an answer has an element (WebDriver, "Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The width of a window, and whether its user prefers dark pages.
pub type Look = (u32, bool);

pub const WIDE: Look = (1280, false);

impl Browser {
    /// Opens `path` of the lab at an address.
    pub async fn open(lab: SocketAddr, path: &str, (width, dark): Look) -> Browser {
        let idle = IDLE.lock().expect("no panic").pop();
        let client = reqwest::Client::builder().no_proxy().build();
        let mut browser = Browser { client: client.expect("a client"), lab, dark, driver: idle };
        if browser.driver.is_none() {
            browser.start().await;
        } else {
            browser.begin_anew().await;
        }
        let size = json!({ "width": width, "height": 900 });
        browser.post("/window/rect", size).await;
        browser.look_as("screen", false).await;
        browser.go(path).await;
        browser
    }

    async fn start(&mut self) {
        let driver = Driver::start();
        let address = driver.session.clone();
        self.driver = Some(driver);
        let arguments = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
        ]);
        let mut options = json!({ "args": arguments });
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

    /// A new window in place of the one that another test has left.
    async fn begin_anew(&self) {
        let old = self.command(Method::GET, "/window", None).await;
        let new = self.post("/window/new", json!({ "type": "window" })).await;
        self.post("/window", json!({ "handle": old })).await;
        self.command(Method::DELETE, "/window", None).await;
        self.post("/window", json!({ "handle": new["handle"] })).await;
        // What the other has logged.
        self.post("/se/log", json!({ "type": "browser" })).await;
    }

    /// Sends a command; returns its value.
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

    /// Goes to an address anywhere.
    pub async fn visit(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// A command of Chromium's own (Chrome DevTools Protocol).
    pub async fn devtools(&self, command: &str, params: Value) {
        let body = json!({ "cmd": command, "params": params });
        self.post("/goog/cdp/execute", body).await;
    }

    /// Makes the page look as it does on paper (`print`), or to a reader who prefers less motion.
    pub async fn look_as(&self, medium: &str, calm: bool) {
        let motion = if calm { "reduce" } else { "no-preference" };
        let scheme = if self.dark { "dark" } else { "light" };
        let features = json!([
            { "name": "prefers-reduced-motion", "value": motion },
            { "name": "prefers-color-scheme", "value": scheme },
        ]);
        let media = json!({ "media": medium, "features": features });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// Goes back, as the browser's own button does.
    pub async fn back(&self) {
        self.post("/back", json!({})).await;
    }

    /// Waits until the browser has gone to an address that contains `part`. A script that waits would go with its page.
    pub async fn arrives_at(&self, part: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let url = self.command(Method::GET, "/url", None).await;
            if url.as_str().is_some_and(|url| url.contains(part)) {
                break;
            }
            assert!(Instant::now() < deadline, "{url} is not at {part}");
            // The browser needs the processor too.
            self.run("await new Promise(requestAnimationFrame);").await;
        }
        // By now it may still be without its script.
        self.wait_for("return document.readyState;", "complete".into()).await;
    }

    /// Waits until there is such an element, and clicks it.
    pub async fn click(&self, css: &str) {
        self.wait_for(&format!("return document.querySelector({css:?}) !== null;"), true.into())
            .await;
        let found = self.post("/element", json!({ "using": "css selector", "value": css })).await;
        let id = found[ELEMENT].as_str().expect("an element");
        self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    /// Runs a script, which may wait; returns what it returns.
    pub async fn run(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async () => {{ {script} }})().then(done, error => done(`failed: ${{error}}`));"
        );
        self.post("/execute/async", json!({ "script": script, "args": [] })).await
    }

    /// Waits until a script's value is what is expected.
    pub async fn wait_for(&self, script: &str, expected: Value) {
        // In the browser, a frame at a time: nothing here asks again and again.
        let (expression, most) = (expected.to_string(), DEADLINE.as_millis());
        let until = format!(
            "let last;
             const began = performance.now();
             while (performance.now() - began < {most}) {{
               last = await (async () => {{ {script} }})();
               if (JSON.stringify(last) === {expression:?}) break;
               await new Promise(requestAnimationFrame);
             }}
             return last;"
        );
        assert_eq!(self.run(&until).await, expected, "{script}");
    }

    /// Presses keys one after the other, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let focused = self.command(Method::GET, "/element/active", None).await;
        let id = focused[ELEMENT].as_str().expect("there is always one");
        self.post(&format!("/element/{id}/value"), json!({ "text": keys })).await;
    }

    /// Presses a key as a keyboard does, also where no text can be typed.
    pub async fn strike(&self, key: &str) {
        let strokes = ["keyDown", "keyUp"].map(|stroke| json!({ "type": stroke, "value": key }));
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.post("/actions", json!({ "actions": [keyboard] })).await;
    }

    /// The names of the rows that are to be seen.
    pub async fn rows(&self) -> Vec<String> {
        let rows = self.run("return [...document.querySelectorAll('[role=treegrid] tbody tr:not([hidden]) a')].map(it => it.textContent);");
        serde_json::from_value(rows.await).expect("texts")
    }

    /// From the next page on, the browser runs this before the scripts of a page.
    pub async fn bring(&self, script: &str) {
        self.devtools("Page.enable", json!({})).await;
        let source = json!({ "source": script });
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source).await;
    }

    /// The page must be for everybody, by the rules of axe-core, which was brought along; and as wide as the window.
    pub async fn is_for_everybody(&self, what: &str) {
        let script = "const found = await axe.run(document, { resultTypes: ['violations'] });
             return found.violations.map(it => [it.id, it.nodes.map(node => node.html.slice(0, 200))]);";
        assert_eq!(self.run(script).await, json!([]), "{what}");
        let fits = "return document.documentElement.scrollWidth <= innerWidth;";
        assert_eq!(self.run(fits).await, true, "{what} is wider than the window");
    }

    /// The page's own errors, and its requests to other hosts.
    pub async fn complaints(&self) -> Vec<String> {
        let script = "return performance.getEntriesByType('resource').map(it => it.name).filter(it => !it.startsWith(location.origin) && !it.startsWith('data:'));";
        let hosts: Vec<String> = serde_json::from_value(self.run(script).await).expect("texts");
        [self.errors().await, hosts].concat()
    }

    /// The page's failed requests and the lines of its console.
    pub async fn errors(&self) -> Vec<String> {
        let script = "return performance.getEntriesByType('resource').filter(it => it.responseStatus >= 400).map(it => it.name);";
        let mut errors: Vec<String> =
            serde_json::from_value(self.run(script).await).expect("texts");
        let lines = self.post("/se/log", json!({ "type": "browser" })).await;
        let lines = lines.as_array().expect("a log");
        errors.extend(lines.iter().map(|line| line["message"].to_string()));
        errors
    }
}
