//! The detail of a span: its model call and its place in the source code, on its page and in the terminal.

use std::path::{Path, PathBuf};

use lab::case::Case;
use lab::editor::{Editor, InvalidTemplate, Template};
use lab::terminal;
use support::in_process::{Lab, table, trace_path};
use support::process::{Lab as ProcessLab, command, run, write};
use support::{has, lacks};
use traces::code::Location;

const CHAT: &str = "1 llm 2<1 CLIENT 10..90 chat gen_ai.operation.name=chat gen_ai.provider.name=openai \
                    gen_ai.request.model=m gen_ai.response.model=m-2026 gen_ai.usage.input_tokens=7 \
                    gen_ai.usage.output_tokens=2";

/// The first trace of a table, as the terminal shows it.
fn in_terminal(spans: &str) -> String {
    let case = Case::read(table(spans).to_string().as_bytes()).expect("a case");
    let text = terminal::trace(&case, case.trees[0].trace_id, Some(100)).expect("a trace");
    anstream::adapter::strip_str(&text).to_string()
}

#[tokio::test]
async fn a_model_call_is_shown_as_a_conversation() {
    let said = r#"gen_ai.output.messages=[{"role":"<b>","parts":[{"type":"text","content":"<i>"},{"type":"tool_call","name":"now","id":"call_1"}]}]"#;
    let root = "1 llm 1 SERVER 0..100 POST";
    let lab = Lab::of(&format!("{root}; {CHAT} {said}")).await;
    let detail = lab.page(trace_path(1) + "/spans/0000000000000002").await;
    let expected = [
        "Model call",
        "<bdi>m-2026</bdi>, asked for as <bdi>m</bdi>, of <bdi>openai</bdi>",
        "7 in, 2 out",
        "<li class=\"output\"><b><bdi>&lt;b&gt;</bdi></b>",
        "<bdi>&lt;i&gt;</bdi>",
        "calls the tool",
        "<bdi>now</bdi>",
    ];
    has(&detail, expected);
    lacks(&lab.page(trace_path(1) + "/spans/0000000000000001").await, ["Model call"]);
    // The head of the trace sums the tokens.
    has(
        &lab.page(trace_path(1)).await,
        ["Model calls: <code><bdi>m-2026</bdi></code> 1 call, 7 tokens in, 2 out."],
    );
    has(
        &in_terminal(&format!("{root}; {CHAT}")),
        ["\nModel calls: m-2026 1 call, 7 tokens in, 2 out.\n"],
    );
    // A service that keeps prompts to itself has nothing to show.
    let lab = Lab::of(CHAT).await;
    has(
        &lab.page(trace_path(1) + "/spans/0000000000000002").await,
        ["The service recorded no messages."],
    );
}

/// A folder with a file, a link that leads out of it, and a file beside it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("my shop");
    std::fs::create_dir_all(root.join("src")).expect("a folder");
    for file in ["my shop/src/main.rs", "my shop/src/a#b.rs", "secret.rs"] {
        std::fs::write(folder.path().join(file), "").expect("a file");
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../secret.rs", root.join("src/link.rs")).expect("a link");
    (folder, root)
}

fn at(file: impl AsRef<Path>) -> Location {
    let file = file.as_ref().to_str().expect("text").to_owned();
    Location { file, line: Some(7), function: None }
}

#[test]
fn only_files_below_the_named_folders_are_linked() {
    let (folder, root) = folder();
    let editor = |template: &str| {
        let template = template.parse::<Template>().expect("a template");
        Editor::new(template, std::slice::from_ref(&root)).expect("an editor")
    };
    let real = root.canonicalize().expect("a folder");
    let path = real.to_str().expect("text").replace(' ', "%20");
    let code = editor("vscode://file/{path}:{line}");
    let expected = format!("vscode://file{path}/src/main.rs:7");
    for file in [
        "src/main.rs".into(),
        "./src/main.rs".into(),
        root.join("src/main.rs"),
        real.join("src/main.rs"),
    ] {
        assert_eq!(code.link(&at(&file)).as_ref(), Some(&expected), "{}", file.display());
    }
    let outside = [
        "../secret.rs",
        "src/../../secret.rs",
        "src/link.rs",
        "src/none.rs",
        "src",
        "",
        "/etc/passwd",
        "//host/share/x.rs",
        "src/main.rs\0",
        "file:///etc/passwd",
        "~/x",
    ];
    for file in outside.map(PathBuf::from).into_iter().chain([
        folder.path().join("secret.rs"),
        root.join("../secret.rs"),
        root.clone(),
    ]) {
        assert_eq!(code.link(&at(&file)), None, "{}", file.display());
    }
    let whole = Location { line: None, ..at("src/a#b.rs") };
    let idea = editor("idea://open?file={path}&line={line}");
    assert_eq!(idea.link(&whole), Some(format!("idea://open?file={path}/src/a%23b.rs&line=1")));
    let url = editor("subl://open?url=file://{path}");
    assert_eq!(url.link(&whole), Some(format!("subl://open?url=file://{path}/src/a%23b.rs")));
}

#[test]
fn a_template_has_a_path_and_a_scheme_that_runs_nothing() {
    let refused = |template: &str| template.parse::<Template>().expect_err(template);
    for template in
        ["vscode://file/{path}:{line}", "idea://open?file={path}&line={line}", "zed://file{path}"]
    {
        template.parse::<Template>().expect(template);
    }
    let incomplete = [
        "",
        "{path}",
        "{path}:{line}",
        "vscode://file/",
        "//host/{path}",
        "java script:{path}",
        " javascript:{path}",
        "x:{path}\n",
    ];
    for template in incomplete {
        assert_eq!(refused(template), InvalidTemplate::Incomplete, "{template}");
    }
    for scheme in ["javascript", "JavaScript", "data", "vbscript", "file", "blob"] {
        let expected = InvalidTemplate::Scheme(scheme.to_ascii_lowercase());
        assert_eq!(refused(&format!("{scheme}:{{path}}")), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_span_links_to_its_file_if_the_lab_was_given_an_editor() {
    let (_folder, root) = folder();
    let spans = table(
        "1 a 1 SERVER 0..1 GET code.file.path=src/main.rs code.lineno=7 code.function=get code.namespace=shop",
    );
    let file = write(root.parent().expect("a folder"), "session.jsonl", &spans.to_string());
    let flags = format!("view --open {file}");
    let mut with_editor = command("lab", &flags).await;
    with_editor.args(["--editor", "vscode://file/{path}:{line}"]).arg("--code-root").arg(&root);
    let lab = ProcessLab::ready(with_editor).await;
    let path = root.canonicalize().expect("a folder").to_str().expect("text").replace(' ', "%20");
    let link = format!(
        "<a href=\"vscode://file{path}/src/main.rs:7\"><code><bdi>src/main.rs:7</bdi></code></a> in <code><bdi>shop.get</bdi></code>"
    );
    let detail = trace_path(1) + "/spans/0000000000000001";
    for page in [&detail, &(trace_path(1) + "?span=1")] {
        has(&lab.get(page).await, [&link]);
    }
    let lab = ProcessLab::ready(command("lab", &flags).await).await;
    has(&lab.get(&detail).await, ["<dd><code><bdi>src/main.rs:7</bdi></code> in"]);
    for (flags, reason) in [
        (
            "--editor javascript:{path} --code-root .",
            "links with the scheme javascript are refused",
        ),
        (
            "--editor vscode://file/{path} --code-root /nowhere",
            "cannot use the folder /nowhere (--code-root)",
        ),
        ("--editor vscode://file/{path}", "--code-root <FOLDER>"),
    ] {
        let refused = run("lab", &format!("view {flags}")).await;
        assert_eq!(refused.status.code(), Some(2), "{flags}");
        has(str::from_utf8(&refused.stderr).expect("text"), [reason]);
    }
}

#[test]
fn a_terminal_names_the_file_and_the_line_of_each_span() {
    let spans = "1 a 1 SERVER 0..100 GET / code.file.path=src/main.rs code.line.number=31
                 1 a 2<1 CLIENT 10..90 POST code.filepath=a/long/path/that/does/not/fit/into/it/src/client.py code.lineno=7
                 1 a 3<1 CLIENT 90..100 other error=gone";
    let expected = "\
Trace 01010101010101010101010101010101: 3 spans from 1 service in 100.00 ms

GET /     a     100.00 ms  ██░░░░░░░░░░░░░░░  src/main.rs:31
├─ POST   a      80.00 ms   ███████████████   …oes/not/fit/into/it/src/client.py:7
└─ other  a      10.00 ms                 ██                                        error: gone

█ critical path: what the request waited for   ░ the rest of a span
";
    assert_eq!(in_terminal(spans), expected);
}

#[test]
fn a_failure_names_the_code_of_its_span() {
    let spans = "1 a 1 SERVER 0..1 pay error=gone code.file.path=src/pay.rs code.line.number=9";
    let case = Case::read(table(spans).to_string().as_bytes()).expect("a case");
    let expected = "The request failed. The span with the error is `pay` (SERVER, a), at `src/pay.rs:9`: gone.";
    assert_eq!(case.inspected().failure().as_deref(), Some(expected));
}
