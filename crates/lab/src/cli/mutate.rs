//! The command `mutate`: which faults on the wire does a file of `expect` notice?

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum as _};
use traces::exchange::{Exchange, values};

use super::Outcome;
use super::expect::{How, request};
use crate::client::Lab;
use crate::output::print;
use crate::wire::{Fault, HopState, NO_PROXIES, UnknownHop};

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
    /// A fault that may go unnoticed because it does no harm in this system. Can be given several times.
    #[arg(
        long,
        value_name = "FAULT",
        value_enum,
        value_delimiter = ',',
        hide_possible_values = true
    )]
    allow: Vec<Fault>,
}

/// The fate of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// The trace differed.
    Trace,
    /// The request itself failed, for this reason.
    Request(String),
    Unnoticed,
    /// It went unnoticed, which is allowed.
    Allowed,
    /// It wasn't set, because it changes nothing here, for this reason.
    Skipped(String),
}

impl Mutate {
    /// Runs the command. The outcome is [`Outcome::Found`] when a fault goes unnoticed.
    ///
    /// # Errors
    /// No lab with proxies answers, or the trace differs without a fault.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let request = request(&self.file, self.name.as_deref())?;
        let lab = Lab::at(self.how.lab_site());
        let hops = self.hops(lab.hops().await?)?;
        let sound = self.how.send(&request, &[]).await?;
        ensure!(sound.is_fine(), "the trace differs without a fault: run `lab expect` first");
        let case = lab.case(Some(&sound.report.sent.trace_id.to_string())).await?;
        let wire = case.map(|(_, case)| case.wire).unwrap_or_default();
        // The sound request shows which protocols the proxies can't read.
        let hops: Vec<HopState> =
            lab.hops().await?.into_iter().filter(|hop| hops.contains(&hop.hop)).collect();
        let faults = match self.only.is_empty() {
            true => Fault::value_variants().to_vec(),
            false => self.only.clone(),
        };
        let width = faults.iter().map(|fault| fault.name().len()).max().unwrap_or_default();
        let hop_width = hops.iter().map(|hop| hop.hop.len()).max().unwrap_or_default();
        let mut fates = Vec::new();
        for state in &hops {
            let hop = &state.hop;
            for fault in &faults {
                let fate = match no_effect(*fault, state, &wire) {
                    Some(reason) => Fate::Skipped(reason),
                    None => {
                        lab.set(hop, Some(*fault)).await?;
                        let sent = tokio::select! {
                            sent = self.how.send(&request, &[]) => Some(sent),
                            _ = tokio::signal::ctrl_c() => None,
                        };
                        lab.set(hop, None).await?;
                        match sent {
                            None => bail!("stopped: {hop} is restored"),
                            Some(Ok(sent)) if !sent.is_fine() => Fate::Trace,
                            Some(Ok(_)) if self.allow.contains(fault) => Fate::Allowed,
                            Some(Ok(_)) => Fate::Unnoticed,
                            Some(Err(error)) => Fate::Request(format!("{error:#}")),
                        }
                    }
                };
                let what = match &fate {
                    Fate::Trace => "noticed".to_owned(),
                    Fate::Request(reason) => format!("noticed: {reason}"),
                    Fate::Unnoticed => "not noticed".to_owned(),
                    Fate::Allowed => "not noticed, which is allowed".to_owned(),
                    Fate::Skipped(reason) => format!("skipped: {reason}"),
                };
                print(&format!("{hop:hop_width$}  {:width$}  {what}\n", fault.name()))?;
                fates.push(fate);
            }
        }
        print(&summary(&fates))?;
        match fates.contains(&Fate::Unnoticed) {
            false => Ok(Outcome::Fine),
            true => Ok(Outcome::Found),
        }
    }

    /// The names of the hops to break, all of which must be sound.
    fn hops(&self, states: Vec<HopState>) -> anyhow::Result<Vec<String>> {
        ensure!(!states.is_empty(), NO_PROXIES);
        if let Some(broken) = states.iter().find(|hop| hop.fault.is_some()) {
            bail!("{} is broken already: `lab break restore` restores it", broken.hop);
        }
        let known: Vec<String> = states.into_iter().map(|state| state.hop).collect();
        if let Some(name) = self.hop.iter().find(|name| !known.contains(name)) {
            return Err(UnknownHop { name: name.clone(), known }.into());
        }
        let is_chosen = |hop: &String| self.hop.is_empty() || self.hop.contains(hop);
        Ok(known.into_iter().filter(is_chosen).collect())
    }
}

/// Why a fault can't change a request like the sound one on this hop.
fn no_effect(fault: Fault, hop: &HopState, wire: &[Exchange]) -> Option<String> {
    let mut here = wire.iter().filter(|exchange| exchange.hop == hop.hop).peekable();
    if here.peek().is_none() && !hop.unread.is_empty() && fault != Fault::Cut {
        let protocols: Vec<String> = hop.unread.keys().map(ToString::to_string).collect();
        return Some(format!("{} passes here unread", protocols.join(" and ")));
    }
    let header = fault.header()?;
    // Some SDKs always send a `tracestate`, which is empty most of the time.
    let is_sent = here.any(|it| values(&it.sent, header).iter().any(|value| !value.is_empty()));
    (!is_sent).then(|| format!("no value of `{header}` was sent here"))
}

/// Counts the fates.
fn summary(fates: &[Fate]) -> String {
    let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
    let skipped = count(|fate| matches!(fate, Fate::Skipped(_)));
    let allowed = count(|fate| *fate == Fate::Allowed);
    let unnoticed = count(|fate| *fate == Fate::Unnoticed);
    let set = fates.len() - skipped;
    let mut text = format!("{} of {set} faults noticed", set - allowed - unnoticed);
    for (number, what) in [(allowed, "allowed"), (skipped, "skipped")] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    if unnoticed > 0 {
        text.push_str("; with the others, the trace still matches the file");
    }
    text + "\n"
}
