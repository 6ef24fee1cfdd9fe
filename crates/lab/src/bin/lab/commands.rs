//! What each command does but for the lab itself: asks a running lab, or reads a file, and prints.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use lab::case::Case;
use lab::check::{self, Step};
use lab::list::Filter;
use lab::publish::Home;
use lab::terminal::{self, Lab};
use lab::wire::{Fault, Hop};
use lab::{book, report};

use crate::output::{print, print_json};

pub fn publish(folder: &Path, book: Option<PathBuf>, home: &Home) -> anyhow::Result<()> {
    let root = book.or_else(book::root_if_there);
    let root =
        root.context("the book is no longer where the lab was built: --book says where it is")?;
    let pages = book::publish(&root, folder, home)?;
    print(&format!("The book is in {}\n", pages.display()));
    Ok(())
}

pub async fn traces(site: &str, filter: Filter, limit: usize, json: bool) -> anyhow::Result<()> {
    let mut traces = Lab::at(site)?.traces(&filter).await?;
    let found = traces.len();
    traces.truncate(limit);
    if json {
        return print_json(&serde_json::to_string_pretty(&traces)?);
    }
    print(&terminal::list(&traces));
    match found {
        0 if filter.is_empty() => eprintln!("There is no trace yet."),
        0 => eprintln!("No trace passes this filter."),
        _ if found > limit => eprintln!("{} more: --limit shows them.", found - limit),
        _ => {}
    }
    Ok(())
}

pub async fn trace(site: &str, id: Option<&str>, json: bool) -> anyhow::Result<()> {
    let lab = Lab::at(site)?;
    if json {
        return print_json(&String::from_utf8(lab.trace(id).await?)?);
    }
    let case = lab.case(id).await?;
    let (id, case) = case.with_context(|| match id {
        Some(id) => terminal::no_such_trace(id),
        None => "there is no trace yet".to_owned(),
    })?;
    // As a shell tells it, as the terminal does, or as a page of the book has room for.
    let told = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let columns = told.or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()));
    print(&terminal::trace(&case, id, columns.unwrap_or(100))?);
    Ok(())
}

pub async fn diagnose(site: &str, trace: Option<&str>) -> anyhow::Result<()> {
    let file = trace.filter(|name| *name == "-" || Path::new(name).exists());
    let is_id = |name: &str| name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(name) = trace.filter(|name| file.is_none() && !is_id(name)) {
        anyhow::bail!("there is no file {name}, and no trace id begins so");
    }
    let (case, book) = match file {
        Some(name) => {
            let text = match name {
                "-" => std::io::read_to_string(std::io::stdin()).map(String::into_bytes),
                path => std::fs::read(path),
            };
            let text = text.with_context(|| format!("{name} cannot be read"))?;
            let case = Case::read(&text).with_context(|| name.to_owned())?;
            // There need not be a lab.
            (case, "the book's page ".to_owned())
        }
        None => {
            let case = Lab::at(site)?.case(trace).await?;
            let case = case.map(|(_, case)| case).unwrap_or_default();
            (case, format!("http://{site}/"))
        }
    };
    for problem in &case.problems {
        eprintln!("Warning: {problem}");
    }
    print(&report::text(&case.findings(), &book));
    Ok(())
}

pub async fn break_hop(site: &str, hop: &str, fault: Option<&str>) -> anyhow::Result<()> {
    let lab = Lab::at(site)?;
    let hops = match (hop, fault) {
        ("list", None) => lab.hops().await?,
        ("restore", None) => {
            let broken = lab
                .hops()
                .await?
                .into_iter()
                .filter(|it| it.fault.is_some());
            for state in broken {
                let hop = Hop::named(&state.hop).map_err(anyhow::Error::msg)?;
                lab.set(hop, None).await?;
            }
            lab.hops().await?
        }
        (name, Some(fault)) => {
            let hop = Hop::named(name).map_err(anyhow::Error::msg)?;
            let fault = match fault {
                "restore" => None,
                fault => Some(Fault::named(fault).map_err(anyhow::Error::msg)?),
            };
            lab.set(hop, fault).await?
        }
        (name, None) => {
            Hop::named(name).map_err(anyhow::Error::msg)?;
            anyhow::bail!("which fault? `lab break --help` lists them; `restore` is one too")
        }
    };
    ensure!(
        !hops.is_empty(),
        "this lab runs no services: start it with `cargo run`, without `view`"
    );
    print(&terminal::hops(&hops));
    Ok(())
}

pub async fn check(site: &str, step: Step, project: &Path) -> anyhow::Result<()> {
    print(&match step {
        Step::KeepItWhole => check::project(project).await?,
        _ => check::ask(site, step).await?,
    });
    Ok(())
}
