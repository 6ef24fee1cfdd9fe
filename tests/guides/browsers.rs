//! A page in a real browser begins the trace. The gateway allows that to one origin, limits what browsers export and sends the
//! trace's id back.

use std::path::PathBuf;
use std::process::Stdio;

use axum::Router;
use axum::http::{Method, header};
use axum::routing::post;
use course::services::Service;
use lab::diagnose::{Rule, diagnose};
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};
use serde_json::{Value, json};
use support::browser::{Browser, WIDE};
use support::recording::{check, recorded};
use support::skips::browser_is_missing;
use support::{
    Setup, Stopped, System, arrived, client, free_port, installed, is_missing, plan, root, serve,
    within_reason,
};
use tokio::process::Command;
use tower_http::cors::CorsLayer;

use super::example::{binaries, local};

/// The trace of a request from a page that exports its own span.
const FROM_THE_BROWSER: &str = "\
POST CLIENT web-page http 200
  POST /api/query SERVER api-gateway http 200
    POST /process CLIENT api-gateway http 200
      POST /process SERVER user-service http 200
        validate_user INTERNAL user-service
        POST /generate CLIENT user-service http 200
          POST /generate SERVER llm-service http 200
            chat offline INTERNAL llm-service
";

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Sends a request as the page does, without a span of its own. Returns the error.
const FETCH: &str = "
    const url = document.querySelector('meta[name=gateway]').content + '/api/query';
    const headers = { 'content-type': 'application/json', traceparent: given };
    const body = JSON.stringify({ user_id: 'user_1', query: 'What is a trace?' });
    const sent = fetch(url, { method: 'POST', headers, body });
    return sent.then(() => null, error => `${error}`);";

/// The ids that a script reads from the last answer of the gateway.
const SERVER_TIMING: &str = "
    performance.getEntriesByType('resource').filter(it => it.name.endsWith('/api/query'))
      .at(-1)?.serverTiming.find(it => it.name === 'traceparent')?.description";

/// A page in a browser that calls a gateway at another origin.
struct Site {
    browser: Browser,
    page: Service,
    system: System,
}

impl Site {
    /// Opens `path` of the page. `gateway` is a binary, which allows the page's origin, or the given one. `None` without a browser.
    async fn open(gateway: &str, path: &str, origin: Option<&str>) -> Option<Site> {
        Site::open_with(gateway, path, origin, PathBuf::new()).await
    }

    async fn open_with(
        gateway: &str,
        path: &str,
        origin: Option<&str>,
        bundle: PathBuf,
    ) -> Option<Site> {
        if browser_is_missing() {
            return None;
        }
        let binaries = binaries().await;
        let address = local(free_port());
        let own = format!("http://{address}");
        let setup = Setup::default().run_by("api-gateway", gateway);
        let setup = setup.with("api-gateway", "WEB_PAGE_ORIGIN", origin.unwrap_or(&own));
        let system = setup.start().await;
        let plan = plan(&binaries, "web-page", system.gateway.address)
            .with("WEB_PAGE_ADDR", address)
            .with("WEB_SDK_BUNDLE", bundle.display())
            .calling("api-gateway", system.gateway.address);
        let page = Service::start(plan, system.log.sink()).await.expect("it starts");
        let browser = Browser::open(address, path, WIDE).await;
        Some(Site { browser, page, system })
    }

    /// Clicks the button. Returns the trace id that the page shows, once the page's own span has arrived.
    async fn click(&self) -> String {
        self.browser.click("button").await;
        self.browser.wait_for("text('output').length > 0", true).await;
        let id = self.browser.run("return text('code');").await;
        arrived(&self.system.store, 1).await;
        id.as_str().expect("text").to_owned()
    }

    /// Sends a request that the browser refuses to send. Returns what the browser writes to its console.
    async fn refused(&self) -> String {
        let error = self.browser.run_with(FETCH, CALLER.into()).await;
        assert_eq!(error, "TypeError: Failed to fetch");
        let lines = self.browser.errors().await;
        let line = lines.iter().find(|line| line.contains("CORS policy"));
        let line: String = serde_json::from_str(line.expect("a reason")).expect("text");
        let message = line.split_once("Access to").expect("the message").1;
        let (page, gateway) = (self.page.address.port(), self.system.gateway.address.port());
        let message = message.replace(&format!(":{page}"), ":8080");
        let message = message.replace(&format!(":{gateway}"), ":5000");
        wrapped(&format!("Access to{message}"))
    }

    async fn stop(self) -> Stopped {
        self.page.stop().await;
        self.system.stop().await
    }
}

/// Breaks a line at blanks, so that it fits on a page.
fn wrapped(line: &str) -> String {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        if lines.last().is_some_and(|line| line.len() + word.len() > 80) {
            lines.push(String::new());
        }
        lines.last_mut().expect("a line").push_str(word);
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_is_one_trace_whose_id_the_page_shows() {
    let Some(site) = Site::open("browser_gateway", "/", None).await else { return };
    let id = site.click().await;
    let timing = format!("({SERVER_TIMING})?.slice(3, 35)");
    site.browser.wait_for(&timing, id.clone()).await;
    let stopped = site.stop().await;
    let trees = stopped.compare(recorded!("browsers/one-trace.html"), FROM_THE_BROWSER);
    assert_eq!(trees[0].trace_id.to_string(), id);
    assert_eq!(diagnose(&trees, &[]), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_browsers_span_the_root_is_missing() {
    let Some(site) = Site::open("browser_gateway", "/", None).await else { return };
    assert_eq!(site.browser.run_with(FETCH, CALLER.into()).await, Value::Null);
    let stopped = site.stop().await;
    let expected: String =
        FROM_THE_BROWSER.lines().skip(1).map(|it| format!("{}\n", &it[2..])).collect();
    let trees = stopped.compare(recorded!("browsers/root-missing.html"), &expected);
    assert_eq!(diagnose(&trees, &[])[0].rule, Rule::Orphan);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_permission_gets_no_further_than_the_preflight() {
    let Some(site) = Site::open("production_services api-gateway", "/", None).await else { return };
    let message = site.refused().await;
    check!("browsers/refused.txt", &message);
    let expected = "OPTIONS /api/query SERVER api-gateway http 405\n";
    site.stop().await.compare(recorded!("browsers/preflight.html"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_page_of_one_origin_is_allowed() {
    let other = Some("https://shop.example");
    let Some(site) = Site::open("browser_gateway", "/", other).await else { return };
    check!("browsers/other-origin.txt", &site.refused().await);
    assert_eq!(site.stop().await.shapes(), "");
}

/// The usual mistake: a service with permissions that nobody has extended for tracing.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_not_allowed_refuses_the_request() {
    let Some(mut site) = Site::open("browser_gateway", "/", None).await else { return };
    let cors = CorsLayer::new().allow_origin(tower_http::cors::Any);
    let cors = cors.allow_methods([Method::POST]).allow_headers([header::CONTENT_TYPE]);
    let routes = Router::new().route("/api/query", post(async || ())).layer(cors);
    let address = serve(routes).await;
    let gateway = format!("$('meta[name=gateway]').content = 'http://{address}';");
    site.browser.run(&gateway).await;
    site.system.gateway.address = address;
    check!("browsers/header-refused.txt", &site.refused().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_trace_links_to_the_browsers_span() {
    let Some(site) = Site::open("browser_gateway link", "/", None).await else { return };
    let id = site.click().await;
    let stopped = site.stop().await;
    let (browser, services) = FROM_THE_BROWSER.split_once('\n').expect("two spans");
    let services: String = services.lines().map(|it| format!("{}\n", &it[2..])).collect();
    let expected = format!("{browser}\n\n{services}");
    let trees = stopped.compare(recorded!("browsers/linked.html"), &expected);
    let caller = &trees[0].rows[0].span;
    assert_eq!(*trees[1].rows[0].span.links, [(caller.trace_id, caller.id)]);
    assert_eq!(trees[1].trace_id.to_string(), id, "the page shows the service's trace");
}

/// The script `sdk.js` with all that it imports, as the page's command makes it. `None` where a part is missing.
async fn bundle(folder: &tempfile::TempDir) -> Option<PathBuf> {
    let modules = installed("web-sdk")?.join("node_modules");
    if is_missing("node", "install Node.js 20") {
        return None;
    }
    let bundle = folder.path().join("sdk.bundle.js");
    let bundled = Command::new(modules.join(".bin/esbuild"))
        .current_dir(root().join("examples/browsers/web"))
        .args(["sdk.js", "--bundle", "--format=esm", "--minify"])
        .arg(format!("--outfile={}", bundle.display()))
        .env("NODE_PATH", &modules)
        .stderr(Stdio::piped())
        .output();
    let bundled = within_reason(bundled).await.expect("esbuild runs");
    assert!(bundled.status.success(), "{}", String::from_utf8_lossy(&bundled.stderr));
    Some(bundle)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_sdks_trace_is_one_trace_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(bundle) = bundle(&folder).await else { return };
    let site = Site::open_with("browser_gateway", "/sdk", None, bundle).await;
    let Some(site) = site else { return };
    let id = site.click().await;
    let stopped = site.stop().await;
    let trees = stopped.compare(recorded!("browsers/sdk.html"), FROM_THE_BROWSER);
    assert_eq!(trees[0].trace_id.to_string(), id);
    assert_eq!(diagnose(&trees, &[]), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_exports_little_and_only_as_itself() {
    binaries().await;
    let system = Setup::default().run_by("api-gateway", "browser_gateway").start().await;
    let url = format!("http://{}/v1/traces", system.gateway.address);
    let export = async |spans: usize, name: &str| {
        let span = json!({
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "name": name,
            "startTimeUnixNano": "1", "endTimeUnixNano": "2", "kind": 3,
        });
        let pretended = json!({ "key": "service.name", "value": { "stringValue": "bank" } });
        let body = json!({ "resourceSpans": [{
            "resource": { "attributes": [pretended] },
            "scopeSpans": [{ "spans": vec![span; spans] }],
        }] });
        let sent = client().post(&url).json(&body).send();
        within_reason(sent).await.expect("an answer").status().as_u16()
    };
    assert_eq!(export(65, "many").await, 400);
    assert_eq!(export(1, &"long".repeat(20_000)).await, 413);
    assert_eq!(export(1, "click").await, 200);
    let tree = system.stop().await.only_tree();
    assert_eq!(tree.rows[0].span.service(), "web-page");
}

/// A caller that chooses the trace id chooses what a ratio decides.
#[test]
fn a_ratio_of_nearly_zero_records_an_id_that_the_caller_has_chosen() {
    let decide = |low: u64| {
        let id = TraceId::from((1u128 << 64) | u128::from(low));
        let sampler = Sampler::TraceIdRatioBased(1e-9);
        sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]).decision
    };
    assert_eq!(decide(1), SamplingDecision::RecordAndSample);
    assert_eq!(decide(u64::MAX), SamplingDecision::Drop);
}
