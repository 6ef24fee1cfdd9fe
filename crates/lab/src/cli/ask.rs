//! The commands that query a running lab or a file and print the result.

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum as _};
use serde::Serialize;

use super::diagnose::Diagnose;
use super::diff::Diff;
use super::expect::Expect;
use super::mutate::Mutate;
use super::probe::Probe;
use super::run::Run;
use super::trace::Trace;
use super::{Outcome, file, skill};
use crate::brief::{self, Pages};
use crate::client::{self, Lab};
use crate::list::Fields;
use crate::output::{print, print_json};
use crate::summary::Summary;
use crate::terminal;
use crate::wire::{Fault, HopState};

/// The commands for a lab that runs in another terminal, or for a file.
#[derive(Subcommand)]
pub enum Ask {
    /// Lists the traces of a running lab or a file, the newest first.
    Traces {
        /// A file with traces, in any form that `view --open` takes; `-` reads standard input. The traces of a running lab when
        /// it is left out.
        file: Option<String>,
        #[command(flatten)]
        lab: LabAddress,
        #[command(flatten)]
        filter: Fields,
        /// The most traces to list.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Prints JSON, one array, with times in nanoseconds; those since 1970 are text.
        #[arg(long)]
        json: bool,
        /// Prints JSON of at most 200,000 bytes, for coding agents: what is left out is counted.
        #[arg(long, conflicts_with = "json")]
        brief: bool,
    },
    /// Shows one trace of a running lab or a file as a tree with bars.
    ///
    /// With --json or --brief, it prints JSON for programs: see "JSON for programs and agents" in the book's reference.
    Trace(Trace),
    /// Says what is wrong with a trace, why, and what to do about it.
    ///
    /// Reads the trace from a running lab or from a file, in any form that `view --open` takes; `-` reads standard input. The
    /// exit status is 1 when a finding counts (see --fail-on), 2 when the trace can't be read, and otherwise 0.
    Diagnose(Diagnose),
    /// Sends one request and compares its trace with a file.
    ///
    /// The request gets the id of a new trace, in the header `traceparent`. The exit status is 1 when the trace differs from the
    /// file, 2 when the request or the file is at fault or nothing arrives, and otherwise 0.
    Expect(Expect),
    /// Sets each fault of each proxy in turn and says which of them a file of `expect` doesn't notice.
    ///
    /// Needs a running lab with proxies between the services. The exit status is 1 when a fault goes unnoticed.
    Mutate(Mutate),
    /// Compares two traces: which spans only one of them has, and where the time went.
    ///
    /// Spans are paired by service and name, below spans that are paired. The exit status is 1 when the structures differ, 2 when a
    /// trace can't be read, and otherwise 0.
    Diff(Diff),
    /// Probes a service that runs: does it pass on the trace?
    ///
    /// Sends it requests as many callers do, with valid and with broken trace headers, plays the services that it calls, and looks
    /// at what reaches them and at the spans. The service is started as always, with the addresses of its neighbors and of its spans'
    /// receiver set to the probe's. Rules that the standards call a MUST fail the probe; other deviations are reported. The exit
    /// status is 1 when a case fails, 2 when the service can't be judged, and otherwise 0.
    Probe(Box<Probe>),
    /// Removes all traces of a running lab. Files and the requests on the wire stay.
    Clear {
        #[command(flatten)]
        lab: LabAddress,
    },
    /// Prints a page for coding agents: which command answers which question.
    ///
    /// For Claude Code: mkdir -p .claude/skills/lab && lab skill > .claude/skills/lab/SKILL.md
    Skill,
    /// Runs a service that sends its spans to the lab. Starts a lab if none runs.
    ///
    /// Sets the variables of OpenTelemetry that aren't set: where to export to, in which protocol, how soon, and as which service.
    /// The output of the command passes unchanged. Its lines that have a trace id, such as in `trace_id=`, also join their trace. The
    /// exit status is that of the command, or 128 and the number of the signal that ended it; 125 without a lab, 126 when the
    /// command can't be run, and 127 when it can't be found.
    Run(Run),
    /// Breaks the requests at one proxy of a running lab, until it is restored.
    ///
    /// `lab wire` starts proxies. `break list` lists them, and `break restore` restores all of them.
    #[command(after_long_help = faults())]
    Break {
        /// The name of a proxy, or `list`, or `restore`.
        hop: String,
        /// The fault, or `restore`.
        fault: Option<String>,
        #[command(flatten)]
        lab: LabAddress,
    },
}

/// The address of a running lab.
#[derive(Args)]
pub struct LabAddress {
    /// The address of the lab's pages: HOST:PORT, or the URL that the lab has printed.
    #[arg(long, env = "LAB_SITE", hide_env_values = true, value_name = "ADDRESS", value_parser = host_and_port, default_value = "127.0.0.1:3000")]
    pub site: String,
}

pub(super) fn host_and_port(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    let (address, _) = text.split_once('/').unwrap_or((text, ""));
    match address.rsplit_once(':').map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(address.to_owned()),
        _ => Err("write HOST:PORT, such as localhost:3000".to_owned()),
    }
}

/// Lists the faults, for the long help of `break`.
fn faults() -> String {
    let faults = Fault::value_variants().iter();
    let lines = faults.map(|fault| format!("  {:23}{}\n", fault.name(), fault.description()));
    let lines: String = lines.collect();
    format!(
        "Faults:\n{lines}\nExamples:\n  lab break gateway drop-traceparent\n  lab break gateway restore\n  \
         lab break list"
    )
}

impl Ask {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when no lab answers, it doesn't have the trace or hop, or a file can't be read.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Ask::Traces { file, lab, filter, limit, json, brief } => {
                let pages = file.as_ref().map_or(Pages::of(&lab.site), |_| Pages::NONE);
                let (traces, none) = match file {
                    Some(file) => (file::traces(&file, &filter)?, client::Error::NoTrace),
                    None => {
                        let lab = Lab::at(&lab.site);
                        let traces = lab.traces(&filter).await?;
                        let none = match traces.is_empty() {
                            true => lab.no_trace().await,
                            false => client::Error::NoTrace,
                        };
                        (traces, none)
                    }
                };
                match (json, brief) {
                    (true, _) => {
                        let listed = traces.iter().take(limit);
                        let listed: Vec<_> = listed.map(|it| WithPage::new(it, pages)).collect();
                        print_json(&serde_json::to_string_pretty(&listed)?)?;
                    }
                    (_, true) => {
                        let brief = brief::List::new(&traces, limit, pages);
                        print_json(&serde_json::to_string(&brief)?)?;
                    }
                    _ => list(traces, filter.is_empty().then_some(none), limit)?,
                }
            }
            Ask::Trace(trace) => trace.run().await?,
            Ask::Diagnose(diagnose) => return diagnose.run().await,
            Ask::Expect(expect) => return expect.run().await,
            Ask::Mutate(mutate) => return mutate.run().await,
            Ask::Diff(diff) => return diff.run().await,
            Ask::Probe(probe) => return probe.run().await,
            Ask::Clear { lab } => Lab::at(&lab.site).clear().await?,
            Ask::Skill => skill::run()?,
            Ask::Run(run) => return Ok(run.run().await),
            Ask::Break { hop, fault, lab } => break_hop(&lab.site, &hop, fault.as_deref()).await?,
        }
        Ok(Outcome::Fine)
    }
}

/// A trace of the list in JSON, with the address of its page.
#[derive(Serialize)]
struct WithPage<'a> {
    page: Option<String>,
    #[serde(flatten)]
    summary: &'a Summary,
}

impl<'a> WithPage<'a> {
    fn new(summary: &'a Summary, pages: Pages) -> Self {
        WithPage { page: pages.trace(summary.trace_id), summary }
    }
}

/// Prints a list. `none` says why it is empty where no filter is the reason.
fn list(mut traces: Vec<Summary>, none: Option<client::Error>, limit: usize) -> anyhow::Result<()> {
    let found = traces.len();
    traces.truncate(limit);
    print(&terminal::list(&traces))?;
    match (found, none) {
        (0, Some(client::Error::Dropped(reason))) => eprintln!("{reason}"),
        (0, Some(_)) => eprintln!("No trace has arrived yet."),
        (0, None) => eprintln!("No trace passes this filter."),
        (found, _) if found > limit => eprintln!("{} more: --limit shows all.", found - limit),
        _ => {}
    }
    Ok(())
}

async fn break_hop(site: &str, hop: &str, fault: Option<&str>) -> anyhow::Result<()> {
    let lab = Lab::at(site);
    let hops = match (hop, fault) {
        ("list", None) => lab.hops().await?,
        ("restore", None) => {
            for state in lab.hops().await? {
                if state.fault.is_some() {
                    lab.set(&state.hop, None).await?;
                }
            }
            lab.hops().await?
        }
        (hop, Some("restore")) => lab.set(hop, None).await?,
        (hop, Some(fault)) => lab.set(hop, Some(Fault::named(fault)?)).await?,
        (_, None) => bail!("which fault? `lab break --help` lists them; `restore` is one too"),
    };
    ensure!(!hops.is_empty(), crate::wire::NO_PROXIES);
    print(&terminal::hops(&hops))?;
    for note in hops.iter().filter_map(HopState::note) {
        eprintln!("Note: {note}");
    }
    Ok(())
}
