//! Step 5: changes of one line that leave every answer as it is. The test of the tutorial catches one of them, that of the
//! solution all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::root;
use serde_json::Value;

use super::{anchored, changes, table};
use crate::support::recording::{check, recorded};

/// A change that leaves every answer as it is: the file, what stands there, and what takes its place.
struct Mutant {
    file: &'static str,
    line: &'static str,
    becomes: &'static str,
    /// Whether the test of the tutorial fails.
    caught: bool,
}

const MUTANTS: [Mutant; 6] = [
    Mutant {
        file: "src/incoming.rs",
        line: "status.is_server_error()",
        becomes: "false",
        caught: false,
    },
    Mutant {
        file: "src/incoming.rs",
        line: "status.is_server_error()",
        becomes: "!status.is_success()",
        caught: false,
    },
    Mutant {
        file: "src/outgoing.rs",
        line: "self.send(url, body).with_context(cx.clone()).await",
        becomes: "self.send(url, body).await",
        caught: true,
    },
    Mutant {
        file: "src/outgoing.rs",
        line: "record_error(&cx.span(), error.error_type(), error.description())",
        becomes: "()",
        caught: false,
    },
    Mutant {
        file: "src/error.rs",
        line: "\"unreachable\".into()",
        becomes: "self.to_string().into()",
        caught: false,
    },
    Mutant {
        file: "src/spans.rs",
        line: "record_error(&cx.span(), type_name::<E>(), error.to_string())",
        becomes: "()",
        caught: false,
    },
];

/// All mutants in one copy of the project, so that it is compiled once: `MUTANT` chooses which one it is.
#[test]
fn the_extended_test_catches_every_mutant_and_the_tutorials_test_one() {
    changes("tests/one_trace.rs", "tests/one_trace.rs", recorded!("exercises/mutants.diff"));
    let project = crate::support::temporary().join("mutants");
    write_mutants(&project);
    let tests = compile_tests(&project);
    let passes = |test: &str, mutant: usize| {
        let mut run = Command::new(&tests[test]);
        let run = run.env("MUTANT", mutant.to_string()).output();
        run.expect("it runs").status.success()
    };
    assert!(passes("tutorial", 0) && passes("solution", 0), "no mutant");
    let mut rows =
        vec![["No.", "File", "The line", "Becomes", "Step 5", "Solution"].map(str::to_owned)];
    for (number, mutant) in (1..).zip(MUTANTS) {
        let [tutorial, solution] = ["tutorial", "solution"].map(|test| !passes(test, number));
        assert_eq!((tutorial, solution), (mutant.caught, true), "mutant {number}");
        let words = |caught| if caught { "red" } else { "green" }.to_owned();
        let [file, line, becomes] =
            [mutant.file, mutant.line, mutant.becomes].map(|text| format!("`{text}`"));
        let number = number.to_string();
        rows.push([number, file, line, becomes, words(tutorial), words(solution)]);
    }
    let question = rows
        .iter()
        .map(|[number, file, line, becomes, ..]| [number, file, line, becomes].map(String::clone));
    let answer = rows
        .iter()
        .map(|[number, .., tutorial, solution]| [number, tutorial, solution].map(String::clone));
    let tables = anchored("question", &table(question)) + &anchored("answer", &table(answer));
    check!("exercises/mutants.md", &tables);
}

/// The example, with both tests and, where the mutants change it, a choice between them.
fn write_mutants(project: &Path) {
    let example = root().join("examples/distributed_tracing");
    let read = |path: &Path| fs::read_to_string(path).expect("text");
    let write = |name: &str, text: &str| {
        let path = project.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        // What has not changed is not compiled again.
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return;
        }
        fs::write(path, text).expect("written");
    };
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    for folder in ["src", "src/bin"] {
        for entry in fs::read_dir(example.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().and_then(|it| it.to_str()).expect("text");
                sources.insert(format!("{folder}/{name}"), read(&path));
            }
        }
    }
    let mut choices: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for (number, mutant) in (1..).zip(MUTANTS) {
        let arms = choices.entry((mutant.file, mutant.line)).or_default();
        arms.push_str(&format!("Ok(\"{number}\") => {{ {} }}\n", mutant.becomes));
    }
    for ((file, line), arms) in choices {
        let source = sources.get_mut(file).expect("a source");
        assert_eq!(source.matches(line).count(), 1, "{file}: {line}");
        let choice =
            format!("(match std::env::var(\"MUTANT\").as_deref() {{\n{arms}_ => {{ {line} }}\n}})");
        *source = source.replace(line, &choice);
    }
    for (name, source) in sources {
        write(&name, &source);
    }
    let solution = read(&root().join("examples/exercises/tests/one_trace.rs"));
    let solution = solution.replace("\"../../distributed_tracing/", "\"../");
    let solution = solution.replace("one_trace::user_service", "solution::user_service");
    write("tests/solution.rs", &solution);
    write("tests/tutorial.rs", &read(&example.join("tests/one_trace.rs")));

    // A workspace of its own, with the crates of our lock file and our profiles. The tests include the services.
    let manifest = read(&root().join("Cargo.toml"));
    let profiles = manifest.find("[profile.dev]").map(|at| &manifest[at..]);
    let profiles = profiles.expect("the profiles are at the end");
    let manifest = read(&example.join("Cargo.toml"));
    // Under a name of its own: in the build folder, a package of the same name would be taken for the reader's project
    // of another test.
    let manifest = manifest.replace(
        "[package]\nname = \"distributed_tracing\"\n",
        "[workspace]\n\n[lib]\nname = \"distributed_tracing\"\n\n[package]\nname = \"mutants\"\nautobins = false\n",
    );
    assert!(manifest.contains("mutants"));
    write("Cargo.toml", &format!("{manifest}\n{profiles}"));
    write("Cargo.lock", &read(&root().join("Cargo.lock")));
}

/// The programs of the two tests, by name.
fn compile_tests(project: &Path) -> BTreeMap<String, PathBuf> {
    let target = crate::support::target();
    let output = crate::support::cargo()
        .args(["test", "--offline", "--no-run", "--tests", "--message-format=json"])
        .current_dir(project)
        // Next to ours: what is the same is shared.
        .env("CARGO_BUILD_BUILD_DIR", target)
        .env("CARGO_TARGET_DIR", project.join("target"))
        .output()
        .expect("cargo runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.into()))
    });
    programs.collect()
}
