//! The command `mutate`: which faults on the wire does a file of `expect` notice?

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum as _};

use super::Outcome;
use super::expect::{How, request};
use crate::client::Lab;
use crate::output::print;
use crate::wire::{Fault, NO_PROXIES};

/// The arguments of the command.
#[derive(Args)]
pub struct Mutate {
    /// The file that says what the trace looks like.
    file: PathBuf,
    /// The name of the request in a file with several.
    name: Option<String>,
    #[command(flatten)]
    how: How,
    /// Only these faults, separated by commas. `lab break --help` describes them.
    #[arg(long, value_name = "FAULT", value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
    /// Only this hop. Can be given several times.
    #[arg(long, value_name = "HOP")]
    hop: Vec<String>,
}

/// Whether a file noticed a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Noticed {
    /// The trace differed.
    Trace,
    /// The request itself failed, for this reason.
    Request(String),
    No,
}

impl Mutate {
    /// Runs the command. The outcome is [`Outcome::Found`] when a fault goes unnoticed.
    ///
    /// # Errors
    /// No lab with proxies answers, or the trace differs without a fault.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let request = request(&self.file, self.name.as_deref())?;
        let lab = Lab::at(self.how.lab_site());
        let hops = lab.hops().await?;
        ensure!(!hops.is_empty(), NO_PROXIES);
        if let Some(broken) = hops.iter().find(|hop| hop.fault.is_some()) {
            bail!("{} is broken already: `lab break restore` restores it", broken.hop);
        }
        let hops = hops.into_iter().map(|hop| hop.hop);
        let hops: Vec<String> =
            hops.filter(|hop| self.hop.is_empty() || self.hop.contains(hop)).collect();
        ensure!(!hops.is_empty(), "no hop has this name: `lab break list` shows them");
        let whole = self.how.send(&request, &[]).await?;
        ensure!(whole.is_fine(), "the trace differs without a fault: run `lab expect` first");
        let faults = match self.only.is_empty() {
            true => Fault::value_variants().to_vec(),
            false => self.only.clone(),
        };
        let width = faults.iter().map(|fault| fault.name().len()).max().unwrap_or_default();
        let hop_width = hops.iter().map(String::len).max().unwrap_or_default();
        let (mut set, mut unnoticed) = (0, 0);
        for hop in &hops {
            for fault in &faults {
                lab.set(hop, Some(*fault)).await?;
                let sent = tokio::select! {
                    sent = self.how.send(&request, &[]) => Some(sent),
                    _ = tokio::signal::ctrl_c() => None,
                };
                lab.set(hop, None).await?;
                let noticed = match sent {
                    None => bail!("stopped: {hop} is restored"),
                    Some(Ok(sent)) if sent.is_fine() => Noticed::No,
                    Some(Ok(_)) => Noticed::Trace,
                    Some(Err(error)) => Noticed::Request(format!("{error:#}")),
                };
                set += 1;
                unnoticed += usize::from(noticed == Noticed::No);
                let what = match noticed {
                    Noticed::Trace => "noticed".to_owned(),
                    Noticed::Request(reason) => format!("noticed, by the request: {reason}"),
                    Noticed::No => "not noticed".to_owned(),
                };
                print(&format!("{hop:hop_width$}  {:width$}  {what}\n", fault.name()))?;
            }
        }
        let rest = match unnoticed {
            0 => "",
            _ => "; with the others, the trace still matches the file",
        };
        print(&format!("{} of {set} faults noticed{rest}\n", set - unnoticed))?;
        match unnoticed {
            0 => Ok(Outcome::Fine),
            _ => Ok(Outcome::Found),
        }
    }
}
