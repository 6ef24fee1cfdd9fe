//! Runs a composite action of this repository as GitHub's runner does: its steps in order, with their expressions replaced.

use std::fs;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::Path as RequestPath;
use axum::routing::get;
use regex::{Captures, Regex};
use serde_yaml_ng::{Mapping, Value};
use tempfile::TempDir;
use tokio::process::Command;

use super::collector::source;
use support::process::write;
use support::{root, serve, within_reason};

/// A runner, with a server that has the lab as its release of every system.
pub struct Runner {
    /// Answers `RELEASES/...` with an archive that holds a script, which starts the lab in `binaries`.
    server: String,
    temp: TempDir,
}

/// The result of an action.
pub struct Ran {
    pub succeeded: bool,
    pub printed: String,
    /// The artifacts that its steps upload: their names and folders.
    pub artifacts: Vec<(String, PathBuf)>,
}

impl Runner {
    pub async fn new(binaries: &Path) -> Runner {
        let temp = tempfile::tempdir().expect("a folder");
        let lab = format!("#!/bin/sh\nexec {} \"$@\"\n", binaries.join("lab").display());
        write(temp.path(), "built/lab", &lab);
        let mut pack = Command::new("bash");
        pack.arg(root().join(".github/release.sh")).args(["any", "built", "packed"]);
        let packed = pack.current_dir(temp.path()).output().await.expect("it runs");
        assert!(packed.status.success(), "{packed:?}");
        let file = |name| fs::read(temp.path().join("packed").join(name)).expect("a file");
        let archive = file("one-trace-lab-any.tar.gz");
        let checksum = file("one-trace-lab-any.tar.gz.sha256");
        let answer = |RequestPath(path): RequestPath<String>| async move {
            if path.ends_with(".sha256") { checksum } else { archive }
        };
        let address = serve(Router::new().route("/{*path}", get(answer))).await;
        Runner { server: format!("http://{address}"), temp }
    }

    /// Runs the action in `.github/actions/NAME` with these inputs, in a folder with these variables.
    pub async fn run(
        &self,
        name: &str,
        inputs: &[(&str, &str)],
        folder: &Path,
        variables: &[(&str, &str)],
    ) -> Ran {
        let action = source(&format!(".github/actions/{name}/action.yml"));
        let action: Value = serde_yaml_ng::from_str(&action).expect("YAML");
        let known = action["inputs"].as_mapping().expect("inputs");
        let unknown = inputs.iter().find(|(name, _)| !known.contains_key(*name));
        assert_eq!(unknown, None, "the action has no such input");
        let value = |expression: &str| match expression.split_once('.') {
            Some(("inputs", input)) => {
                let given = inputs.iter().find(|(name, _)| *name == input);
                let default = || known[input]["default"].as_str().expect("a default");
                given.map_or_else(default, |(_, value)| *value).to_owned()
            }
            Some(("runner", "temp")) => self.temp.path().display().to_string(),
            Some(("github", "server_url")) => self.server.clone(),
            Some(("github", "repository")) => "OWNER/one-trace".to_owned(),
            // As for an action of the same repository.
            Some(("github", "action_repository")) => String::new(),
            _ => panic!("unknown in an expression: {expression}"),
        };
        let expressions = Regex::new(r"\$\{\{ *(.+?) *\}\}").expect("a pattern");
        let replaced = |text: &Value| {
            let either = |found: &Captures<'_>| {
                let mut values = found[1].split(" || ").map(&value);
                values.find(|value| !value.is_empty()).unwrap_or_default()
            };
            expressions.replace_all(text.as_str().expect("text"), either).into_owned()
        };

        let path_file = self.temp.path().join("path");
        fs::write(&path_file, "").expect("it is written");
        let mut ran = Ran { succeeded: true, printed: String::new(), artifacts: Vec::new() };
        for step in action["runs"]["steps"].as_sequence().expect("steps") {
            match step.get("if").map(|condition| condition.as_str().expect("text")) {
                None if ran.succeeded => {}
                Some("failure()") if !ran.succeeded => {}
                None | Some("failure()") => continue,
                Some(other) => panic!("unknown condition: {other}"),
            }
            if let Some(uses) = step.get("uses") {
                assert!(uses.as_str().expect("text").starts_with("actions/upload-artifact@"));
                let with = |key: &str| replaced(&step["with"][key]);
                ran.artifacts.push((with("name"), with("path").into()));
                continue;
            }
            assert_eq!(step["shell"], "bash");
            let script = write(self.temp.path(), "step.sh", &replaced(&step["run"]));
            let added = fs::read_to_string(&path_file).expect("it is there");
            let path = std::env::var("PATH").unwrap_or_default();
            let path = added.lines().rev().chain([&*path]).collect::<Vec<_>>().join(":");
            let mut bash = Command::new("bash");
            // As GitHub's documentation says for `shell: bash`.
            bash.args(["--noprofile", "--norc", "-eo", "pipefail", &script])
                .current_dir(folder)
                .envs(variables.iter().copied())
                .env("PATH", path)
                .env("no_proxy", "*")
                .env("GITHUB_PATH", &path_file)
                .env("GITHUB_ACTION_PATH", root().join(".github/actions").join(name))
                .kill_on_drop(true);
            let none = Mapping::new();
            for (name, value) in step.get("env").and_then(Value::as_mapping).unwrap_or(&none) {
                bash.env(name.as_str().expect("a name"), replaced(value));
            }
            let output = within_reason(bash.output()).await.expect("bash runs");
            ran.printed += &String::from_utf8_lossy(&output.stdout);
            ran.printed += &String::from_utf8_lossy(&output.stderr);
            ran.succeeded = output.status.success();
        }
        ran
    }
}
