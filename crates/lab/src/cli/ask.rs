//! The commands that query a running lab or a file and print the result.

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand, ValueEnum as _};

use super::Outcome;
use super::diagnose::Diagnose;
use crate::client::{self, Lab};
use crate::list::Fields;
use crate::output::{print, print_json};
use crate::terminal;
use crate::wire::Fault;

/// The commands for a lab that runs in another terminal.
#[derive(Subcommand)]
pub enum Ask {
    /// Lists the traces of a running lab, the newest first.
    Traces {
        #[command(flatten)]
        lab: LabAddress,
        #[command(flatten)]
        filter: Fields,
        /// The most traces to list.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Prints JSON, one array, with durations in nanoseconds.
        #[arg(long)]
        json: bool,
    },
    /// Shows one trace of a running lab as a tree with bars.
    Trace {
        /// The trace id or its first digits; the newest trace when it is left out.
        id: Option<String>,
        #[command(flatten)]
        lab: LabAddress,
        /// Prints OTLP JSON, which `--open` and other tools read.
        #[arg(long)]
        json: bool,
    },
    /// Says what is wrong with a trace, why, and what to do about it.
    ///
    /// Reads the trace from a running lab or from a file of OTLP JSON; `-` reads standard input. The exit status is 1 when
    /// a finding counts (see --fail-on), 2 when the trace can't be read, and otherwise 0.
    Diagnose(Diagnose),
    /// Breaks the requests of one hop between the services of a running lab, until it is restored.
    ///
    /// `break list` shows the hops, and `break restore` restores all of them.
    #[command(after_long_help = faults())]
    Break {
        /// A hop, or `list`, or `restore`.
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

fn host_and_port(text: &str) -> Result<String, String> {
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
        "Faults:\n{lines}\nExamples:\n  lab break gateway-user drop-traceparent\n  lab break gateway-user restore\n  \
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
            Ask::Traces { lab, filter, limit, json } => {
                traces(&lab.site, &filter, limit, json).await?;
            }
            Ask::Trace { id, lab, json } => trace(&lab.site, id.as_deref(), json).await?,
            Ask::Diagnose(diagnose) => return diagnose.run().await,
            Ask::Break { hop, fault, lab } => break_hop(&lab.site, &hop, fault.as_deref()).await?,
        }
        Ok(Outcome::Fine)
    }
}

async fn traces(site: &str, filter: &Fields, limit: usize, json: bool) -> anyhow::Result<()> {
    let mut traces = Lab::at(site).traces(filter).await?;
    let found = traces.len();
    traces.truncate(limit);
    if json {
        return print_json(&serde_json::to_string_pretty(&traces)?);
    }
    print(&terminal::list(&traces))?;
    match found {
        0 if filter.is_empty() => eprintln!("No trace has arrived yet."),
        0 => eprintln!("No trace passes this filter."),
        _ if found > limit => eprintln!("{} more: --limit shows all.", found - limit),
        _ => {}
    }
    Ok(())
}

async fn trace(site: &str, id: Option<&str>, json: bool) -> anyhow::Result<()> {
    let lab = Lab::at(site);
    if json {
        return print_json(std::str::from_utf8(&lab.trace(id).await?)?);
    }
    let case = lab.case(id).await?;
    let (id, case) = case.ok_or_else(|| match id {
        Some(id) => client::Error::NoSuchTrace(id.to_owned()),
        None => client::Error::NoTrace,
    })?;
    // Take the shell's setting, else the terminal's width, else the width of a listing in the book.
    let shell = std::env::var("COLUMNS").ok();
    let columns = shell.and_then(|columns| columns.parse().ok());
    let columns =
        columns.or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()));
    let text = terminal::trace(&case, id, columns.unwrap_or(100));
    print(&text.with_context(|| {
        format!("no span of trace {id} has arrived: `lab diagnose {id}` says more")
    })?)
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
    print(&terminal::hops(&hops))
}
