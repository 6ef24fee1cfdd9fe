//! Step 5: changes of one line that leave every answer as it is. The test of the services catches one of them, that of the
//! solution all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::gates::TREE;
use crate::reference::{anchored, code, table};
use support::recording::check;
use support::root;

/// Changes that leave every answer as it is: the file, what stands there, what takes its place, and whether the test of the
/// services catches it.
#[rustfmt::skip] // one row for each mutant
const MUTANTS: [(&str, &str, &str, bool); 6] = [
    ("src/incoming.rs", "status.is_server_error()", "false", false),
    ("src/incoming.rs", "status.is_server_error()", "!status.is_success()", false),
    ("src/outgoing.rs", "self.send(url, body).with_context(cx.clone()).await", "self.send(url, body).await", true),
    ("src/outgoing.rs", "record_error(&cx.span(), error.error_type(), description(error))", "()", false),
    ("src/outgoing.rs", "record_error(&cx.span(), error.error_type(), description(error))", "record_error(&cx.span(), error.to_string(), description(error))", false),
    ("src/spans.rs", "record_error(&cx.span(), type_name::<E>(), error.to_string())", "()", false),
];

/// All mutants in one copy of the project, so that it is compiled once: `MUTANT` chooses which one it is.
#[test]
fn the_extended_test_catches_every_mutant_and_the_first_test_one() {
    let project = support::temporary().join("mutant-services");
    write_mutants(&project);
    let tests = compile_tests(&project);
    let catches = |mutant: usize| {
        ["services", "solution"].map(|test| {
            let mut run = std::process::Command::new(&tests[test]);
            let run = run.env("MUTANT", mutant.to_string()).output();
            !run.expect("it runs").status.success()
        })
    };
    assert_eq!(catches(0), [false, false], "no mutant");
    let (mut question, mut answer) = (Vec::new(), Vec::new());
    for (number, (file, line, becomes, caught)) in (1..).zip(MUTANTS) {
        assert_eq!(catches(number), [caught, true], "mutant {number}");
        let number = number.to_string();
        question.push(vec![number.clone(), code(file), code(line), code(becomes)]);
        let first = if caught { "red" } else { "green" };
        answer.push([&number, first, "red"].map(str::to_owned).to_vec());
    }
    let question = table(&["No.", "File", "The line", "Becomes"], question);
    let answer = table(&["No.", "The test", "Solution"], answer);
    let tables = anchored("question", &question) + &anchored("answer", &answer);
    check!("exercises/mutants.md", &tables);
}

/// The example, with both tests and, where the mutants change it, a choice between them.
fn write_mutants(project: &Path) {
    const EXAMPLE: &str = "examples/production/";
    let write = |name: &str, text: &str| {
        let path = project.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        // What has not changed is not compiled again.
        if !fs::read_to_string(&path).is_ok_and(|there| there == text) {
            fs::write(path, text).expect("written");
        }
    };
    let mut choices: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for (number, (file, line, becomes, _)) in (1..).zip(MUTANTS) {
        let arms = choices.entry((file, line)).or_default();
        arms.push_str(&format!("Ok(\"{number}\") => {{ {becomes} }}\n"));
    }
    for path in TREE.files(&format!("{EXAMPLE}src/"), ".rs") {
        let name = &path[EXAMPLE.len()..];
        let mut source = TREE.read(path);
        for ((_, line), arms) in choices.iter().filter(|((file, _), _)| *file == name) {
            assert_eq!(source.matches(line).count(), 1, "{name}: {line}");
            let choice = "match std::env::var(\"MUTANT\").as_deref()";
            source = source.replace(line, &format!("({choice} {{\n{arms}_ => {{ {line} }}\n}})"));
        }
        write(name, &source);
    }
    let solution = TREE.read("examples/exercises/tests/one_trace.rs");
    write("tests/solution.rs", &solution);
    write("tests/services.rs", &TREE.read(&format!("{EXAMPLE}tests/one_trace.rs")));

    // A workspace of its own, with the crates of our lock file and our profiles. The tests include the services.
    let manifest = TREE.read("Cargo.toml");
    let (_, profiles) = manifest.split_once("[profile.dev]").expect("the profiles are at the end");
    // Under a name of its own: in the build folder, a package of the same name would be taken for the reader's project
    // of another test.
    let manifest = TREE.read(&format!("{EXAMPLE}Cargo.toml")).replace(
        "[package]\nname = \"production\"\n",
        "[workspace]\n\n[lib]\nname = \"production\"\n\n[package]\nname = \"mutants\"\nautobins = false\n",
    );
    assert!(manifest.contains("mutants"));
    let examples = format!("path = \"{}/", root().join("examples").display());
    let manifest = manifest.replace("path = \"../", &examples);
    write("Cargo.toml", &format!("{manifest}\n[profile.dev]{profiles}"));
    write("Cargo.lock", &TREE.read("Cargo.lock"));
}

/// The programs of the two tests, by name.
fn compile_tests(project: &Path) -> BTreeMap<String, PathBuf> {
    let output = support::cargo()
        .args(["test", "--offline", "--no-run", "--tests", "--message-format=json"])
        .current_dir(project)
        // Next to ours: what is the same is shared.
        .env("CARGO_BUILD_BUILD_DIR", support::target())
        .env("CARGO_TARGET_DIR", project.join("target"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("text");
    let messages = printed.lines().map(|it| serde_json::from_str::<Value>(it).expect("JSON"));
    let programs = messages.filter_map(|message| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.into()))
    });
    programs.collect()
}
