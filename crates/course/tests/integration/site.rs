//! The pages of the course and of the lab behind it.

use lab::server;
use lab::store::{Limits, Store};
use lab::wire::Wire;
use support::in_process::{Lab, trace_id};
use support::{client, has};
use tokio::sync::watch;

/// Each path in the tables of the reference answers.
#[tokio::test]
async fn every_path_of_the_reference_answers() {
    let lab = Lab::of("1 a 1 SERVER 0..9 GET /").await;
    let page = support::root().join("src/reference/lab.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let paths = page.lines().filter_map(|line| line.strip_prefix("| `/")?.split_once('`'));
    // Only a process has receivers. The tests of `lab run` read their addresses.
    let paths = paths.filter(|(path, _)| format!("/{path}") != lab::held::RECEIVERS);
    let mut count = 0;
    for (path, _) in paths {
        let path = path.replace("{id}", &trace_id(1)).replace("{span}", "0000000000000001");
        let path = path.replace("{service}", "a");
        let query = if path == "api/operations" { "?service=a" } else { "" };
        lab.page(format!("/{path}{query}")).await;
        count += 1;
    }
    assert!(count > 10, "{count}");
}

/// A lab that was installed by itself has no book.
#[tokio::test]
async fn a_lab_without_a_book_says_so() {
    let store = Store::new(Limits::default());
    let address = support::serve(course::site::pages(store, Wire::default(), None)).await;
    for (path, expected) in [("", 200), ("x.html", 404)] {
        let answer = client().get(format!("http://{address}/{path}")).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), expected);
        let page = answer.text().await.expect("text");
        has(&page, ["The book is not here", "href=\"/traces\""]);
    }
}

/// mdBook writes scripts into its pages. Only those that it wrote may run.
#[tokio::test]
async fn the_book_runs_its_own_scripts_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = "<script>alert(1)</script><script defer src=\"a.js\"></script>";
    for (name, text) in [("a.html", page), ("404.html", page), ("a.js", "alert(2)")] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let (_built, pages) = watch::channel(Some(folder.path().to_owned()));
    let pages = course::site::pages(Store::new(Limits::default()), Wire::default(), Some(pages));
    let address = support::serve(server::protected(pages)).await;
    let hash = "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='";
    for (path, scripts) in [
        ("a.html", format!("script-src 'self' 'wasm-unsafe-eval' {hash};")),
        ("nowhere", format!("script-src 'self' 'wasm-unsafe-eval' {hash};")),
        ("a.js", "script-src 'self' 'wasm-unsafe-eval';".to_owned()),
    ] {
        let answer = client().get(format!("http://{address}/{path}")).send().await;
        let answer = answer.expect("an answer");
        let text = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        let policy = text("content-security-policy");
        has(&policy, [&*scripts, "default-src 'none'", "frame-ancestors 'self'"]);
        assert_eq!(text("x-content-type-options"), "nosniff");
        assert_eq!(text("referrer-policy"), "same-origin");
    }
    let modified = client().get(format!("http://{address}/a.html"));
    let modified = modified.header("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT");
    let cached = modified.send().await.expect("an answer");
    // The policy of the copy stays, with its hashes.
    let policy = cached.headers().get("content-security-policy");
    assert_eq!((cached.status().as_u16(), policy), (304, None));
}
