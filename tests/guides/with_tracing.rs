//! Both ways of making spans give the same trace, and one system can mix them.

use lab::case::Case;
use lab::editor::Editor;
use lab::span::SpanKind;
use lab::tree::Tree;
use regex::Regex;
use reqwest::header::AUTHORIZATION;

use super::example::{binaries, sent};
use support::process::{run, write};
use support::recording::{check, check_as, figures, recorded, redact};
use support::{Setup, WHOLE, hung, refused, shape, span, within_reason};
use traces::code::Location;

const SERVICES: [&str; 3] = ["api-gateway", "user-service", "llm-service"];
const WAYS: [&str; 2] = ["instrumented_services", "ready_made_services"];

/// Each service by its own command; nothing for the tutorial's.
async fn setup(ways: [Option<&str>; 3]) -> Setup {
    binaries().await;
    let pairs = SERVICES.into_iter().zip(ways);
    pairs.fold(Setup::default(), |setup, (service, way)| match way {
        Some(way) => setup.run_by(service, &format!("{way} {service}")),
        None => setup,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_request_gives_the_tree_of_the_tutorial() {
    for way in WAYS {
        let tree = setup([Some(way); 3]).await.answers("user_1", 200).await.only_tree();
        assert_eq!(shape(&tree), WHOLE, "{way}");
        if way == WAYS[0] {
            names_the_code(&tree).await;
            check!("with-tracing/instrumented.html", &figures(&[tree]));
        }
    }
}

/// The bridge sends the file and the line of each span. The lab shows them and links to this repository's files.
async fn names_the_code(tree: &Tree) {
    let template = "vscode://file/{path}:{line}".parse().expect("a template");
    let editor = Editor::new(template, &[support::root()]).expect("a folder");
    for row in tree.rows.iter().filter(|row| !row.span.name().starts_with("chat ")) {
        let location = Location::read(&row.span.proto().attributes).expect("a location");
        assert!(location.file.starts_with("examples/with_tracing/src/"), "{location}");
        let link = editor.link(&location).expect("a file");
        assert!(link.ends_with(&location.to_string()), "{link}");
    }
    let case = Case::new(vec![tree.clone()], Vec::new()).to_json().expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "trace.json", str::from_utf8(&case).expect("text"));
    let printed = run("lab", &format!("trace {file}")).await.stdout;
    let line = Regex::new(r"\.rs:\d+").expect("a pattern");
    let normal = |text: &str| line.replace_all(&redact(text), ".rs:<line>").into_owned();
    let name = recorded!("with-tracing/code.txt");
    check_as(name, str::from_utf8(&printed).expect("text"), normal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_services_in_three_ways_give_one_trace() {
    let [one, other] = WAYS.map(Some);
    for ways in [[None, one, other], [one, other, None], [other, None, one]] {
        let stopped = setup(ways).await.answers("user_1", 200).await;
        assert_eq!(stopped.shapes(), WHOLE, "{ways:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_gives_the_tree_of_the_tutorial() {
    let reference = setup([None; 3]).await.answers("nobody", 403).await.only_tree();
    // The tutorial records the name of the Rust type.
    let kind = span(&reference, "validate_user", SpanKind::Internal).attribute("error.type");
    let reference = shape(&reference).replace(&*kind.expect("a type"), "invalid_user");
    for way in WAYS {
        let stopped = setup([Some(way); 3]).await.answers("nobody", 403).await;
        assert_eq!(stopped.shapes(), reference, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_gives_the_tree_of_the_tutorial() {
    let (nobody, _kept) = refused();
    let mut trees = Vec::new();
    for way in [None, Some(WAYS[0]), Some(WAYS[1])] {
        let setup = setup([way; 3]).await.with_llm_service_at(nobody);
        let tree = setup.answers("user_1", 502).await.only_tree();
        // A message that holds the address would be in the status, or in `error.message`.
        let failed = span(&tree, "POST /generate", SpanKind::Client);
        let message = failed.attribute("error.message").unwrap_or_default();
        assert!(!message.contains("127.0.0.1"), "{way:?}: {message}");
        trees.push(shape(&tree));
    }
    assert_eq!(trees[0], trees[1]);
    assert_eq!(trees[0], trees[2]);
}

/// Services of either way pass on the caller's headers and follow its sampling decision.
#[tokio::test(flavor = "multi_thread")]
async fn baggage_gets_through_and_the_flag_is_respected() {
    for way in WAYS {
        let system = setup([Some(way); 3]).await.wired().start().await;
        for flags in ["01", "00"] {
            let traceparent =
                format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            let key = (AUTHORIZATION.as_str(), "Bearer key-48151");
            let context = ("traceparent", &*traceparent);
            system.ask_with(&[context, ("baggage", "tenant=acme"), key]).await;
        }
        let stopped = system.stop().await;
        let tree = stopped.only_tree();
        assert_eq!(tree.rows.len(), 7, "{way}: of the request that its caller recorded");
        let exchanges = stopped.wire.exchanges();
        assert_eq!(exchanges.len(), 4, "two requests on two hops");
        for exchange in exchanges {
            assert!(exchange.sent.contains("baggage: tenant=acme"), "{way}: {}", exchange.sent);
        }
        // A layer that records all headers was told to leave this one out.
        assert!(!sent(&tree).contains("key-48151"), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_slow_to_answer_does_not_hold_up_the_stop() {
    for way in WAYS {
        let (silent, connected) = hung().await;
        let setup = setup([None, Some(way), None]).await.with_llm_service_at(silent);
        let system = setup.with("api-gateway", "USER_SERVICE_TIMEOUT_MS", 200).start().await;
        assert_eq!(system.ask("user_1").await.status(), 504);
        within_reason(connected.notified()).await;
        // The caller went away, so the work of the request was dropped; its spans ended.
        span(&system.stop().await.only_tree(), "POST /process", SpanKind::Server);
    }
}
