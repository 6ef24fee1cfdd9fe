//! Runs a command as a service of the lab: sets up its exporter and passes on its output and its signals. The lines of
//! its output that have a trace id go to the lab as log records.
//!
//! [`lab`] finds the lab or starts one, [`environment`] decides the settings, [`output`] copies the output, [`lines`] looks for
//! trace ids in it, and [`records`] sends the lines.

pub mod environment;
pub mod lab;
pub mod lines;
pub mod output;
pub mod records;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod terminal;

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;

use crate::process;
use environment::Settings;
use lines::Lines;
use output::{Output, Stream};
use records::Records;

/// How long the last lines may take to reach the lab when the command has ended.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The reasons why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot find the command {program}")]
    NotFound { program: String },
    #[error("cannot run the command {program}")]
    NotRun {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot pass on the output of the command")]
    Output(#[source] io::Error),
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    #[error("cannot wait for the command")]
    NotFollowed(#[source] io::Error),
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// The number of lines with a trace id that did not reach the lab.
    pub lost: usize,
    /// Whether a program that the command has started still holds its output.
    pub is_held: bool,
}

/// Runs a command to its end. `otlp` is the address of the lab's receiver over HTTP.
///
/// # Errors
/// The command can't be started or followed.
pub async fn run(command: &[OsString], settings: &Settings, otlp: &str) -> Result<Ended, Error> {
    let [program, arguments @ ..] = command else {
        return Err(Error::NotFound { program: String::new() });
    };
    let mut process = Command::new(program);
    process.args(arguments).envs(settings.set.iter().map(|(key, value)| (key, value)));
    let output = Output::new(&mut process).map_err(Error::Output)?;
    #[cfg(unix)]
    let mut signals = signals::Signals::listen().map_err(Error::Signals)?;

    let program = || program.to_string_lossy().into_owned();
    let mut child = process::spawn(process).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { program: program() },
        _ => Error::NotRun { program: program(), source },
    })?;
    #[cfg(unix)]
    let terminals = output.terminals();
    let (records, sending) = Records::start(otlp, &settings.service);
    let records = Arc::new(records);
    let copying = output.copy(|stream| sent(stream, &records)).map_err(Error::Output)?;

    #[cfg(unix)]
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            signal = signals.next() => signals::forward(&child, signal, &terminals),
        }
    };
    #[cfg(not(unix))]
    let status = wait(&mut child).await;
    let status = status.map_err(Error::NotFollowed)?;
    let is_held = copying.finish().await;
    let lost = records::finish(records, sending, LAST_LINES).await;
    Ok(Ended { status, lost, is_held })
}

/// Returns a function that sends the lines with a trace id of one stream. It takes the pieces of the stream, and `None` at its end.
fn sent(stream: Stream, records: &Arc<Records>) -> impl FnMut(Option<&[u8]>) + Send + use<> {
    let records = Arc::clone(records);
    let mut lines = Lines::default();
    move |bytes: Option<&[u8]>| {
        let each = |line: &[u8]| records.add(stream, line);
        match bytes {
            Some(bytes) => lines.push(bytes, each),
            None => lines.finish(each),
        }
    }
}

/// Waits for the command. Ctrl-C reaches the command too, so it ends when the command does.
#[cfg(not(unix))]
async fn wait(child: &mut tokio::process::Child) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}
