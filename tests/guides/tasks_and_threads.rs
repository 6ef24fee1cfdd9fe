//! Work that leaves its task or thread takes the context along, or begins a trace of its own.

use super::example::Example;
use crate::support::recording::recorded;

const GUIDE: &str = "tasks-and-threads";

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_context_along_is_one_trace() {
    let command = "cargo run --bin tasks_and_threads -- kept";
    let ran = Example::on(GUIDE, command).run().await.well();
    let whole = "\
import INTERNAL importer
  fetch INTERNAL importer
  parse INTERNAL importer
  unpack INTERNAL importer
  checksum INTERNAL importer
  checksum INTERNAL importer
  render line INTERNAL importer
  render line INTERNAL importer
";
    assert_eq!(ran.shapes(), whole);
    ran.figure(recorded!("tasks-and-threads/kept.html"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_begins_a_trace_for_each_piece() {
    let command = "cargo run --bin tasks_and_threads -- lost";
    let ran = Example::on(GUIDE, command).run().await.well();
    let names = "import fetch parse unpack checksum checksum render_line render_line";
    let alone: Vec<String> = names
        .split(' ')
        .map(|name| format!("{} INTERNAL importer\n", name.replace('_', " ")))
        .collect();
    assert_eq!(ran.shapes(), alone.join("\n"));
    ran.figure(recorded!("tasks-and-threads/lost.html"));
}

/// A mistake in the command is one line that says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_choice_is_refused() {
    let ran = Example::new("cargo run --bin tasks_and_threads").run().await;
    let refusal = "Error: say what becomes of the context: `kept` or `lost`\n";
    assert_eq!((ran.output.status.code(), ran.stderr().as_str()), (Some(1), refusal));
}
