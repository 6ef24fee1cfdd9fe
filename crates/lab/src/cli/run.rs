//! The command `run`: runs a service that exports to the lab.

use std::ffi::OsString;
use std::process::ExitStatus;

use clap::Args;

use super::{LabAddress, Outcome};
use crate::run::environment::Settings;
use crate::run::{self, Ended, Error, lab};
use crate::waterfall::count;

/// The exit status when no lab can be used. `env` has the same for its own failures.
const FAILED: u8 = 125;

/// The exit statuses of a shell for a command that can't be run, and for one that can't be found.
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The arguments of the command.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Run {
    /// The name of the service. Without it, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES name it, else the file of the command does.
    #[arg(long, value_name = "SERVICE")]
    name: Option<String>,
    #[command(flatten)]
    lab: LabAddress,
    /// Says which variables are set and which are left as they are.
    #[arg(short, long)]
    verbose: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const EXAMPLES: &str = "Examples:
  lab run --name shop -- cargo run
  lab run -- opentelemetry-instrument python3 shop.py";

impl Run {
    /// Runs the command and prints what went wrong. The outcome is the exit status of the command.
    pub async fn run(self) -> Outcome {
        let site = &self.lab.site;
        // Lives until the command has ended, and so does the lab.
        let lab = match lab::find_or_start(site).await {
            Ok(lab) => lab,
            Err(error) => return failed(error.into(), FAILED),
        };
        if lab.is_new || self.verbose {
            let until = if lab.is_new { ", until the last `lab run` ends" } else { "" };
            eprintln!("Traces: http://{site}/traces{until}");
        }
        let is = |key: &str| std::env::var_os(key).map(|it| it.to_string_lossy().into_owned());
        let program = self.command.first().map_or("".as_ref(), OsString::as_os_str);
        let settings = Settings::new(is, &lab.receivers, self.name.as_deref(), program);
        self.explain(&settings);
        match run::run(&self.command, &settings, &lab.receivers.otlp).await {
            Ok(ended) => {
                warn(&ended);
                Outcome::Ran(status(ended.status))
            }
            Err(error) => {
                let status = match error {
                    Error::NotFound { .. } => NOT_FOUND,
                    Error::NotRun { .. } => NOT_RUN,
                    Error::Output(_) | Error::Signals(_) | Error::NotFollowed(_) => FAILED,
                };
                failed(error.into(), status)
            }
        }
    }

    fn explain(&self, Settings { set, kept, elsewhere, .. }: &Settings) {
        if !elsewhere.is_empty() {
            let names = elsewhere.join(", ");
            eprintln!("Warning: {names} is set, so what the service sends may not reach this lab");
        }
        if self.verbose {
            for (key, value) in set {
                eprintln!("Set: {key}={value}");
            }
            // Their values can be secret.
            for key in kept {
                eprintln!("Left as it is: {key}");
            }
        }
    }
}

fn failed(error: anyhow::Error, status: u8) -> Outcome {
    eprintln!("Error: {error:#}");
    Outcome::Ran(status)
}

fn warn(Ended { lost, is_held, .. }: &Ended) {
    if *lost > 0 {
        let lines = count(*lost, "line");
        eprintln!("Warning: {lines} with a trace id did not reach the lab");
    }
    if *is_held {
        eprintln!(
            "Warning: the command has ended, but a program that it started still writes: that output is lost"
        );
    }
}

/// Returns the exit status of a shell whose command has ended like this.
fn status(ended: ExitStatus) -> u8 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&ended).map(|it| it + 128);
    #[cfg(not(unix))]
    let signal = None;
    let status = ended.code().or(signal).unwrap_or_default();
    // The system keeps the lowest byte only.
    u8::try_from(status & 0xff).unwrap_or(FAILED)
}
