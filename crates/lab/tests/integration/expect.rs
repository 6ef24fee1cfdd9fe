//! `lab expect` and `lab mutate` with a lab whose proxies stand before two services.

use std::net::SocketAddr;
use std::process::Output;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;
use lab::case::Case;
use lab::diagnose::diagnose;
use lab::otlp;
use lab::span::SpanId;
use lab::store::{Limits, Store};
use lab::traceparent::Traceparent;
use lab::wire::{Fault, Hop, Wire, now, random_traceparent};
use serde_json::{Value, json};
use support::in_process::Lab;
use support::process::{fails, run, write};
use support::{FREE, client, has, is_missing, lacks, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// One service, which writes its spans to a store before it answers.
#[derive(Clone)]
struct Service {
    name: &'static str,
    /// The URL that it calls.
    next: Option<String>,
    /// Whether it reads the context of its caller.
    extracts: bool,
    store: Store,
}

/// A span that has ended: its place, its kind and its name, and when it began.
struct Ended {
    place: Traceparent,
    parent: Option<SpanId>,
    kind: u8,
    start: u64,
}

const SERVER: u8 = 2;
const CLIENT: u8 = 3;

impl Service {
    async fn serve(self) -> SocketAddr {
        serve(Router::new().route("/pay", get(Service::answer)).with_state(self)).await
    }

    async fn answer(State(service): State<Service>, headers: HeaderMap) {
        let start = now();
        let values: Vec<_> = headers.get_all("traceparent").iter().collect();
        let caller = match values[..] {
            [only] if service.extracts => Traceparent::parse(only.to_str().expect("text")).ok(),
            _ => None,
        };
        let place = child_of(caller);
        if let Some(next) = &service.next {
            let (start, call) = (now(), child_of(Some(place)));
            let request = client().get(next).header("traceparent", call.to_string());
            // As SDKs do.
            let request = request.header("tracestate", "");
            // A fault may answer with anything, or not at all.
            let _ = request.send().await;
            service.end(Ended { place: call, parent: Some(place.parent_id), kind: CLIENT, start });
        }
        service.log(place);
        let parent = caller.map(|caller| caller.parent_id);
        service.end(Ended { place, parent, kind: SERVER, start });
    }

    /// Logs that it has paid.
    fn log(&self, place: Traceparent) {
        let record = json!({
            "traceId": place.trace_id.to_string(), "spanId": place.parent_id.to_string(),
            "timeUnixNano": now().to_string(), "body": { "stringValue": "paid in full" },
        });
        let logs = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] });
        let logs = otlp::logs_from_json(logs.to_string().as_bytes()).expect("a record");
        self.store.add_logs(logs.items);
    }

    fn end(&self, span: Ended) {
        let Ended { place, parent, kind, start } = span;
        if !place.sampled {
            return;
        }
        let span = json!({
            "traceId": place.trace_id.to_string(), "spanId": place.parent_id.to_string(),
            "parentSpanId": parent.map(|id| id.to_string()).unwrap_or_default(),
            "name": "GET /pay", "kind": kind,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": now().to_string(),
        });
        let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": self.name } }] });
        let scope_spans = json!([{ "spans": [span] }]);
        let request =
            json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": scope_spans }] });
        self.store.add(otlp::from_json(request.to_string().as_bytes()).expect("a span").items);
    }
}

/// The place of a new span below another, or on top of a trace of its own.
fn child_of(caller: Option<Traceparent>) -> Traceparent {
    let own = random_traceparent();
    caller.map_or(own, |caller| Traceparent { parent_id: own.parent_id, ..caller })
}

/// The shop, which calls the bank. A proxy stands before each of them.
struct Shop {
    lab: Lab,
    address: SocketAddr,
    folder: TempDir,
}

const SOUND: &str = "\
GET /pay        SERVER  shop
└─ GET /pay     CLIENT  shop
   └─ GET /pay  SERVER  bank
";

impl Shop {
    async fn start() -> Shop {
        Shop::with(true).await
    }

    /// `extracts` says whether the bank reads the context of the shop.
    async fn with(extracts: bool) -> Shop {
        let (store, wire) = (Store::new(Limits::default()), Wire::default());
        let service = |name, next, extracts| {
            let store = store.clone();
            Service { name, next, extracts, store }.serve()
        };
        let bank = service("bank", None, extracts).await;
        let bank = proxy(&wire, "bank", bank).await;
        let shop = service("shop", Some(format!("http://{bank}/pay")), true).await;
        let address = proxy(&wire, "shop", shop).await;
        let lab = Lab::around(store, wire).await;
        Shop { lab, address, folder: tempfile::tempdir().expect("a folder") }
    }

    fn file(&self) -> String {
        self.folder.path().join("pay.trace").to_str().expect("text").to_owned()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("written");
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.file()).expect("a file")
    }

    /// Runs a command with the file. All spans are there when the request has been answered.
    async fn run(&self, command: &str, more: &str) -> Ran {
        let (file, site, shop) = (self.file(), self.lab.address, self.address);
        let times = "--settle 50ms --timeout 300ms";
        let request = format!("--request http://{shop}/pay");
        Ran::new(
            run("lab", &format!("{command} {file} --site {site} {times} {request} {more}")).await,
        )
    }

    async fn expect(&self, more: &str) -> Ran {
        self.run("expect", more).await
    }
}

async fn proxy(wire: &Wire, name: &str, target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    wire.serve(Hop::named_after(name), listener, target).expect("an address")
}

/// How a command has ended.
struct Ran {
    status: i32,
    printed: String,
    errors: String,
}

impl Ran {
    fn new(output: Output) -> Ran {
        let [printed, errors] =
            [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("text"));
        Ran { status: output.status.code().expect("it wasn't killed"), printed, errors }
    }

    #[track_caller]
    fn ends(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "{}{}", self.printed, self.errors);
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_gets_the_span_of_the_caller_and_reports_no_orphan() {
    if is_missing("curl", "install the package `curl`") {
        return;
    }
    let shop = Shop::start().await;
    shop.write(SOUND);
    shop.expect("").await.ends(0);
    let (file, site, address) = (shop.file(), shop.lab.address, shop.address);
    let curl = format!("curl -sf --noproxy * http://{address}/pay -H traceparent:{{traceparent}}");
    let command = format!("expect {file} --site {site} --settle 50ms --timeout 300ms -- {curl}");
    Ran::new(run("lab", &command).await).ends(0);
    let trees = shop.lab.store.trees();
    assert_eq!(trees.len(), 2);
    // The newest trace is first.
    for (tree, caller) in trees.iter().zip(["curl  ", "GET  "]) {
        assert!(tree.is_whole(), "{}", tree.to_text());
        has(&tree.to_text(), [caller, "lab expect", "└─ GET /pay"]);
        assert_eq!(diagnose(std::slice::from_ref(tree), &[]), []);
    }
    let call = &trees[1].rows[0].span;
    let url = format!("http://{address}/pay");
    assert_eq!(call.attribute("url.full"), Some(url));
    assert_eq!(call.attribute("http.response.status_code").as_deref(), Some("200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_on_a_proxy_is_named_as_by_the_diagnosis() {
    let shop = Shop::start().await;
    shop.write(SOUND);
    shop.expect("").await.ends(0);
    for (hop, fault, cause) in [
        ("bank", Fault::DropTraceparent, "did not arrive"),
        ("bank", Fault::ForgeTraceparent, "another `traceparent` arrived"),
        ("bank", Fault::TruncateTraceparent, "isn't valid"),
        ("bank", Fault::DuplicateTraceparent, "got 2"),
        ("shop", Fault::DropTraceparent, "did not arrive"),
    ] {
        shop.lab.wire.set(hop, Some(fault));
        let json = shop.expect("--format json").await.ends(1).printed;
        shop.lab.wire.set(hop, None);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let causes = json["causes"].as_array().expect("causes");
        let [first] = &causes[..] else { panic!("{hop} {fault:?}: not one cause: {causes:?}") };
        assert_eq!(first["rule"], "broken-header", "{hop} {fault:?}");
        let sentence = first["sentence"].as_str().expect("a sentence");
        has(sentence, [hop, cause]);
        let (site, trace) = (shop.lab.address, json["traceId"].as_str().expect("an id"));
        let diagnosed = Ran::new(run("lab", &format!("diagnose {trace} --site {site}")).await);
        has(&diagnosed.ends(1).printed, [sentence]);
    }
    // Nothing arrives, and the wire says why.
    shop.lab.wire.set("shop", Some(Fault::ClearSampled));
    let nothing = shop.expect("").await.ends(2);
    has(
        &nothing.errors,
        ["no span has arrived within 0 s: ", "On shop", "the sampled flag was cleared"],
    );
    lacks(&nothing.errors, ["do the services export"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_differs_is_left_as_one_html_file() {
    let shop = Shop::start().await;
    shop.write(SOUND);
    let file = shop.folder.path().join("report/trace.html");
    let html = format!("--html {}", file.display());
    shop.expect(&html).await.ends(0);
    assert!(!file.exists());
    // Both traces are in the file, and so is the wire that says why there are two.
    shop.lab.wire.set("bank", Some(Fault::DropTraceparent));
    let ran = shop.expect(&format!("{html} --format github")).await.ends(1);
    has(&ran.errors, [&format!("Written  {}: 3 spans", file.display())]);
    let written = std::fs::read(&file).expect("a file");
    let case = Case::read(&written).expect("a case");
    assert_eq!((case.trees.len(), case.wire.len(), case.logs.len()), (2, 2, 2));
    let page = String::from_utf8(written).expect("text");
    has(&page, ["Compared with", "pay.trace</h2>", "1 missing", "did not arrive"]);
    // The trace is whole and the answer isn't as expected.
    shop.lab.wire.set("bank", None);
    shop.expect(&format!("{html} --status 404")).await.ends(1);
    has(&std::fs::read_to_string(&file).expect("a file"), ["was answered 200 instead of 404"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_from_a_broken_trace_is_warned_about() {
    let shop = Shop::start().await;
    let sound = shop.expect("--update").await.ends(0);
    lacks(&sound.errors, ["Warning"]);
    assert_eq!(shop.read(), SOUND);

    // The spans of another trace never count, so they aren't written.
    let top = "GET /pay     SERVER  shop\n└─ GET /pay  CLIENT  shop\n";
    shop.lab.wire.set("bank", Some(Fault::DropTraceparent));
    let warning = "pay.trace: the diagnosis finds a fault in this trace: ";
    for _ in 0..2 {
        let broken = shop.expect("--update").await.ends(0);
        let lines: Vec<&str> =
            broken.errors.lines().filter(|it| it.starts_with("Warning: ")).collect();
        assert_eq!(lines.len(), 1, "{}", broken.errors);
        has(lines[0], [warning, "On bank", "did not arrive"]);
        assert_eq!(shop.read(), top);
    }
    shop.lab.wire.set("bank", None);

    let apart = Shop::with(false).await;
    let apart = apart.expect("--update").await.ends(0);
    has(&apart.errors, ["Warning: ", "one request, several traces", "bank"]);

    // None of the spans has the trace id that was sent.
    shop.lab.wire.set("shop", Some(Fault::DropTraceparent));
    let nothing = shop.expect("--update").await.ends(2);
    has(
        &nothing.errors,
        ["nothing was written: other traces arrived", "On shop", "did not arrive"],
    );
    assert_eq!(shop.read(), top);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_besides_the_trace_comes_first() {
    let shop = Shop::start().await;
    shop.write(SOUND);
    let answered = shop.expect("--status 404").await.ends(1);
    let (first, _) = answered.printed.split_once(", in trace ").expect("a line");
    assert_eq!(first, format!("{}: the request was answered 200 instead of 404", shop.file()));
    lacks(&answered.printed, ["as expected"]);
    let junit = shop.expect("--status 404 --format junit").await.ends(1);
    has(&junit.printed, ["<failure message=\"the request was answered 200 instead of 404\">"]);

    // A difference that no rule looks for.
    shop.write(&SOUND.replace("SERVER  bank", "CLIENT  bank"));
    let differs = shop.expect("--status 404").await.ends(1);
    has(&differs.printed, ["answered 200 instead of 404; 1 different, in trace "]);
    has(
        &differs.printed,
        [
            "\nThe diagnosis found no cause: propagation is intact; the difference is in what the services did.\n",
        ],
    );
    lacks(&differs.printed, ["No rule found"]);
    shop.write("");
    let empty = shop.expect("").await.ends(2);
    assert_eq!(empty.errors, format!("Error: {}: it is empty (--update writes it)\n", shop.file()));
}

/// The port of the receiver may be taken by a lab whose pages are at another address.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_may_be_a_labs() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "pay.trace", SOUND);
    let taken = TcpListener::bind(FREE).await.expect("a free port");
    let otlp = taken.local_addr().expect("an address");
    let arguments = format!("expect {file} --otlp {otlp} --grpc {FREE} -- true");
    fails("lab", &arguments, [&format!("cannot listen on {otlp}"), "--otlp", "with --site"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_does_not_become_edges() {
    let shop = Shop::start().await;
    shop.write(SOUND);
    let refused = shop.expect("--update --edges").await.ends(2);
    has(&refused.errors, ["pay.trace", "delete the request from the file"]);
    assert_eq!(shop.read(), SOUND);
    shop.write("");
    shop.expect("--update --edges").await.ends(0);
    assert_eq!(shop.read(), "edges\n-> shop\nshop -> bank\n");
    // It stays what it is.
    shop.expect("--update --edges").await.ends(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutate_says_what_became_of_each_fault() {
    let shop = Shop::start().await;
    shop.write(SOUND);
    let only = "--only drop-traceparent,upper-case-name,drop-baggage,cut";
    let all = shop.run("mutate", only).await.ends(1);
    let lines: Vec<&str> = all.printed.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "bank  drop-traceparent  noticed",
            "bank  upper-case-name   not noticed",
            "bank  drop-baggage      skipped: no value of `baggage` was sent here",
        ]
    );
    // The shop answers without the bank.
    assert_eq!(lines[3], "bank  cut               noticed");
    has(lines[7], ["shop  cut               noticed: the request to ", " failed (--request): "]);
    assert_eq!(
        lines[8],
        "4 of 6 faults noticed, 2 skipped; with the others, the trace still matches the file"
    );

    let allowed = format!("{only} --hop bank --allow upper-case-name,clear-sampled");
    let allowed = shop.run("mutate", &allowed).await.ends(0);
    has(
        &allowed.printed,
        [
            "bank  upper-case-name   not noticed, which is allowed\n",
            "2 of 3 faults noticed, 1 allowed, 1 skipped\n",
        ],
    );
    let unknown = shop.run("mutate", "--hop bank --hop banc").await.ends(2);
    has(&unknown.errors, ["unknown hop \"banc\": use one of bank, shop"]);
    assert!(shop.lab.wire.states().iter().all(|hop| hop.fault.is_none()));
}
