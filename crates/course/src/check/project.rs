//! Checks the reader's own project. At set-up it must compile. In step 5 its test must pass, and must fail without the
//! line that injects the context.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::process::Command;

use super::{Step, Verdict};

/// The line of the reader's project that step 5 is about.
pub(super) const INJECT: &str = "inject_context_into_carrier(&mut headers);";

/// The modules that set-up creates, in the order of the tutorial page.
const MODULES: [&str; 5] = ["settings", "error", "logs", "delivery", "telemetry"];

/// Checks that a lab answers at `site` and that the project in `folder` has the shared modules and compiles.
///
/// # Errors
/// Fails when no lab answers or the project can't be read.
pub async fn set_up(site: &str, folder: &Path) -> anyhow::Result<Verdict> {
    let lab = match super::ask(site, Step::SetUp).await? {
        Verdict::Passed(found) => found,
        not_yet => return Ok(not_yet),
    };
    let library = folder.join("src/lib.rs");
    let source = std::fs::read_to_string(&library).with_context(|| unreadable(&library))?;
    let declared = |module: &str| {
        let line = format!("pub mod {module};");
        source.lines().any(|it| it.trim() == line)
    };
    if let Some(module) = MODULES.into_iter().find(|module| !declared(module)) {
        let library = library.display();
        let missing = format!("{library} has no line `pub mod {module};`");
        return Ok(Verdict::missing(missing));
    }
    let output = cargo(folder)
        .args(["build", "--color=never"])
        .output()
        .await
        .context("cargo cannot be started")?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        let missing = format!("the project in {} does not compile", folder.display());
        return Ok(Verdict::missing(missing));
    }
    Ok(Verdict::Passed(format!("your project compiles, and {lab}")))
}

fn unreadable(file: &Path) -> String {
    format!("{} cannot be read (--project names the folder of your project)", file.display())
}

/// Runs the test of the project in `folder`, which must pass. Then runs it in a copy without the line that injects the
/// context, where it must fail.
///
/// # Errors
/// Fails when the project can't be read, copied or compiled.
pub async fn project(folder: &Path) -> anyhow::Result<Verdict> {
    let outgoing = folder.join("src/outgoing.rs");
    let source = std::fs::read_to_string(&outgoing).with_context(|| unreadable(&outgoing))?;
    if !source.lines().any(|line| line.trim() == INJECT) {
        let missing = format!("{} has no line `{INJECT}`", outgoing.display());
        return Ok(Verdict::missing(missing));
    }
    let (passed, output) = test(folder, None).await?;
    if !passed {
        eprintln!("{output}");
        return Ok(Verdict::missing("the test fails".to_owned()));
    }

    let (root, target) = root_and_target(folder).await?;
    // The copy is below the project so that cargo finds the same settings, and always at the same path so that cargo can
    // reuse its last build. It is a member of a workspace because cargo would otherwise mistake it for the project.
    let workspace = folder.join("target/check");
    let copy = workspace.join("project");
    let _ = std::fs::remove_dir_all(&workspace);
    std::fs::create_dir_all(&copy).context("there is no place to copy the project to")?;
    for part in ["Cargo.toml", "src", "tests"] {
        copy_all(&folder.join(part), &copy.join(part))
            .with_context(|| format!("{part} cannot be copied"))?;
    }
    copy_all(&root.join("Cargo.lock"), &workspace.join("Cargo.lock"))
        .context("Cargo.lock cannot be copied")?;
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"project\"]\n";
    std::fs::write(workspace.join("Cargo.toml"), members)?;
    // The replacement still uses the variable, so the compiler doesn't warn about it.
    let broken = source.replace(INJECT, "let _ = &mut headers;");
    std::fs::write(copy.join("src/outgoing.rs"), broken)?;
    let (passed, output) = test(&copy, Some(&target)).await?;
    if passed {
        let missing = format!("the test passes without the line `{INJECT}`");
        return Ok(Verdict::missing(missing));
    }
    // cargo gives a test that fails and code that doesn't compile the same exit status.
    if !output.contains("test result: FAILED") {
        eprintln!("{output}");
        let missing = format!("without the line `{INJECT}` the project does not compile");
        return Ok(Verdict::missing(missing));
    }
    Ok(Verdict::Passed("your test succeeds, and fails without the line that injects".to_owned()))
}

/// Runs the test of step 5 in `folder`. Returns whether it passed and what it printed.
async fn test(folder: &Path, target: Option<&Path>) -> anyhow::Result<(bool, String)> {
    let mut command = cargo(folder);
    command.args(["test", "--test", "one_trace"]);
    if let Some(target) = target {
        command.arg("--target-dir").arg(target);
    }
    let output = command.output().await.context("cargo cannot be started")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// Returns the folder of the project's `Cargo.lock` and cargo's target folder, which already has the compiled dependencies.
async fn root_and_target(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let mut command = cargo(folder);
    command.args(["metadata", "--no-deps", "--format-version=1"]);
    let output = command.output().await.context("cargo cannot be started")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let path = |key: &str| {
        let path = metadata[key].as_str().map(PathBuf::from);
        path.with_context(|| format!("cargo does not say its {key}"))
    };
    Ok((path("workspace_root")?, path("target_directory")?))
}

fn cargo(folder: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folder).stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return std::fs::copy(from, to).map(drop);
    }
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
