//! The pages of the course and of the lab behind it.

use lab::store::{Limits, Store};
use lab::wire::Wire;
use support::in_process::{Lab, trace_id};
use support::{client, has};

/// Each path in the tables of the reference answers.
#[tokio::test]
async fn every_path_of_the_reference_answers() {
    let lab = Lab::of("1 a 1 SERVER 0..9 GET /").await;
    let page = support::root().join("src/reference/lab.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let paths = page.lines().filter_map(|line| line.strip_prefix("| `/")?.split_once('`'));
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
