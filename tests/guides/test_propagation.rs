//! The contract holds for the service of the tutorial, and each way to break it is seen.

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::span::SpanKind;
use serde_yaml_ng::Value;
use test_propagation::faults::Fault;

use super::example::Example;
use support::recording::{check, figures};

const COMMAND: &str = "cargo run --bin test_propagation -- ";

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_the_tutorial_keeps_the_contract() {
    let ran = Example::on("test-propagation", &format!("{COMMAND}sound")).run().await.well();
    check!("test-propagation/sound.txt", &ran.stdout());
    assert_eq!(ran.stdout().lines().filter(|line| line.starts_with("kept ")).count(), 6);
    let mut trees = ran.trees();
    trees.retain(|tree| tree.trace_id.to_string().starts_with("4bf92f35"));
    assert_eq!(trees.len(), 1);
    let servers = trees[0].rows.iter().filter(|row| row.span.kind() == SpanKind::Server);
    assert_eq!(servers.count(), 3, "the sampled ones");
    check!("test-propagation/sound.html", &figures(&trees));
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_services_keep_the_contract_however_often_they_call() {
    for service in ["two-calls", "spawned", "leaf"] {
        for _ in 0..5 {
            let ran = Example::new(&format!("{COMMAND}{service}")).run().await;
            let kept = ran.stdout().lines().filter(|line| line.starts_with("kept ")).count();
            assert_eq!(kept, 6, "{service}: {}", ran.stdout());
            assert!(ran.output.status.success(), "{service}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_breaks_the_contract_in_its_own_way() {
    let seen = [
        ("no-propagator", "0 traceparent headers"),
        ("nothing-injected", "0 traceparent headers"),
        ("nothing-extracted", "the trace is another"),
        ("injected-too-early", "the parent is not the CLIENT span"),
        ("appended-twice", "2 traceparent headers"),
        ("copied", "the parent is the caller"),
        ("second-call-bare", "0 traceparent headers"),
        ("spawned-bare", "the trace is another"),
        ("leaf-not-extracted", "the trace is another"),
    ];
    let names: Vec<&str> = Fault::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, seen.map(|(name, _)| name)[1..]);
    for (fault, violation) in seen {
        let ran = Example::new(&format!("{COMMAND}{fault}")).run().await;
        assert_eq!(ran.output.status.code(), Some(1), "{fault}");
        assert!(ran.stdout().contains(violation), "{fault}: {}", ran.stdout());
        assert!(ran.stderr().starts_with("Error: the contract is broken: "));
        if fault == "injected-too-early" {
            check!("test-propagation/broken.txt", &ran.stdout());
        }
    }
}

/// The script of a step of the workflow that the page shows.
fn script(step: &str) -> String {
    let path = "examples/test_propagation/.github/workflows/propagation.yml";
    let text = fs::read_to_string(support::root().join(path)).expect("a workflow");
    let file: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    let steps = file["jobs"]["contract"]["steps"].as_sequence().expect("steps");
    let step = steps.iter().find(|it| it["name"] == step).expect("a step");
    step["run"].as_str().expect("a script").to_owned()
}

fn passes(script: &str, folder: &Path) -> bool {
    let mut shell = Command::new("bash");
    let output = shell.args(["-e", "-c", script]).current_dir(folder).output();
    output.expect("bash runs").status.success()
}

/// The names of two versions are enough: what is in them does not matter to cargo.
#[test]
fn the_workflow_refuses_two_versions_of_opentelemetry() {
    let script = script("One version of OpenTelemetry");
    assert!(passes(&script, &support::root()));

    let folder = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    };
    let package = |name: &str, version: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n")
    };
    let mut manifest = package("reader", "0.1.0") + "[dependencies]\n";
    for version in ["0.1.0", "0.2.0"] {
        write(&format!("{version}/Cargo.toml"), &package("opentelemetry", version));
        write(&format!("{version}/src/lib.rs"), "");
        let name = version.replace('.', "_");
        manifest += &format!("v{name} = {{ package = \"opentelemetry\", path = \"{version}\" }}\n");
    }
    write("Cargo.toml", &manifest);
    write("src/lib.rs", "");
    assert!(!passes(&script, folder.path()));
}
