//! Work that leaves its task or thread takes the context along, or begins a trace of its own.

use super::example::Example;
use support::recording::recorded;

/// Runs the command with this argument, which is on the page. Compares the shapes and the figure.
async fn leaves(argument: &str, shapes: &str, figure: &str) {
    let command = format!("cargo run --bin tasks_and_threads -- {argument}");
    let ran = Example::on("tasks-and-threads", &command).run().await.well();
    assert_eq!(ran.shapes(), shapes);
    ran.figure(figure);
}

const KEPT: &str = "\
import INTERNAL importer
  fetch INTERNAL importer
  parse INTERNAL importer
  unpack INTERNAL importer
  checksum INTERNAL importer
  checksum INTERNAL importer
  render line INTERNAL importer
  render line INTERNAL importer
";

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_context_along_is_one_trace() {
    leaves("kept", KEPT, recorded!("tasks-and-threads/kept.html")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_begins_a_trace_for_each_piece() {
    let alone: Vec<_> = KEPT.lines().map(|line| line.trim_start().to_owned() + "\n").collect();
    leaves("lost", &alone.join("\n"), recorded!("tasks-and-threads/lost.html")).await;
}

/// A mistake in the command is one line that says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_choice_is_refused() {
    let ran = Example::new("cargo run --bin tasks_and_threads").run().await;
    let refusal = "Error: say what becomes of the context: `kept` or `lost`\n";
    assert_eq!((ran.output.status.code(), ran.stderr().as_str()), (Some(1), refusal));
}
