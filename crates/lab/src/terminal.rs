//! Traces in a terminal: asks a running lab, and shows its list and its waterfalls as text.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Effects, Style};
use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use crate::analysis::critical_path;
use crate::case::Case;
use crate::list::Filter;
use crate::report;
use crate::span::TraceId;
use crate::summary::Summary;
use crate::tree::{Row, Tree, plain, took, visible};
use crate::viewer::wire::HopState;
use crate::waterfall::{caption, count, look};
use crate::wire::{Fault, Hop};

/// How long a lab may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The fewest columns of a bar, and the most.
const BAR: (usize, usize) = (12, 60);

/// A running lab.
pub struct Lab {
    site: String,
    client: Client,
}

impl Lab {
    /// The lab whose pages are at `site`, as HOST:PORT.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn at(site: &str) -> anyhow::Result<Self> {
        let site = site.to_owned();
        let client = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Lab { site, client })
    }

    /// The traces that pass the filter, the newest first.
    ///
    /// # Errors
    /// When no lab answers.
    pub async fn traces(&self, filter: &Filter) -> anyhow::Result<Vec<Summary>> {
        let url = format!("http://{}/traces.json", self.site);
        let url = Url::parse_with_params(&url, filter.pairs())?;
        let answer = self.get(url).await?;
        ensure!(
            answer.status().is_success(),
            "what answers at {} is not the lab ({}): name the address of its pages with --site",
            self.site,
            answer.status()
        );
        answer
            .json()
            .await
            .context("the lab's answer is not a list of traces: is it of another version?")
    }

    /// The spans of one trace in OTLP JSON: of the newest, or of the only one whose id starts with `id`.
    ///
    /// # Errors
    /// When no lab answers, or there is no such trace, or more than one.
    pub async fn trace(&self, id: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let id = self.id(id).await?.context("there is no trace yet")?;
        let json = self.document(id, "json").await?;
        json.with_context(|| no_such_trace(&id.to_string()))
    }

    /// The case of the request that such a trace is of, and the id; nothing where the lab knows nothing of it.
    ///
    /// # Errors
    /// When no lab answers, or no trace begins so, or more than one.
    pub async fn case(&self, id: Option<&str>) -> anyhow::Result<Option<(TraceId, Case)>> {
        let Some(id) = self.id(id).await? else {
            return Ok(None);
        };
        let Some(json) = self.document(id, "case.json").await? else {
            return Ok(None);
        };
        let case = Case::read(&json)?;
        Ok(Some((id, case)))
    }

    /// The whole id; nothing where there is no trace at all.
    async fn id(&self, id: Option<&str>) -> anyhow::Result<Option<TraceId>> {
        if let Some(id) = id.and_then(TraceId::parse) {
            return Ok(Some(id));
        }
        let traces = self.traces(&Filter::default()).await?;
        let Some(start) = id.map(|id| id.trim().to_lowercase()) else {
            return Ok(traces.first().map(|newest| newest.trace_id));
        };
        let found = traces
            .iter()
            .filter(|trace| trace.trace_id.to_string().starts_with(&start));
        let found: Vec<_> = found.collect();
        match found[..] {
            [only] => Ok(Some(only.trace_id)),
            [] => bail!("no trace begins with {start:?}: `lab traces` lists those there are"),
            _ => bail!(
                "{} traces begin with {start:?}: write more of the id",
                found.len()
            ),
        }
    }

    /// A form of a trace; nothing where there is no such trace.
    async fn document(&self, id: TraceId, form: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let url = format!("http://{}/traces/{id}.{form}", self.site);
        let answer = self.get(url.parse()?).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => Ok(Some(answer.error_for_status()?.bytes().await?.to_vec())),
        }
    }

    /// The hops, where their proxies listen, and the faults that are set.
    ///
    /// # Errors
    /// When no lab answers.
    pub async fn hops(&self) -> anyhow::Result<Vec<HopState>> {
        let url = format!("http://{}/wire.json", self.site);
        let answer = self.get(url.parse()?).await?;
        answer
            .json()
            .await
            .context("the lab's answer is no list of hops: is it of another version?")
    }

    /// Sets the fault of a hop, or restores it; the hops as they are then.
    ///
    /// # Errors
    /// When no lab answers, or it runs no services.
    pub async fn set(&self, hop: Hop, fault: Option<Fault>) -> anyhow::Result<Vec<HopState>> {
        let url = format!("http://{}/wire/{}", self.site, hop.name);
        let setting = serde_json::json!({ "fault": fault.map(Fault::name) });
        let answer = self.send(self.client.post(url).json(&setting)).await?;
        if !answer.status().is_success() {
            bail!("{}", answer.text().await?.trim_end());
        }
        Ok(answer.json().await?)
    }

    async fn get(&self, url: Url) -> anyhow::Result<Response> {
        self.send(self.client.get(url)).await
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let sent = request.send().await;
        sent.with_context(|| {
            format!(
                "no lab answers at {}: start it with `lab view`, or name its address with --site",
                self.site
            )
        })
    }
}

/// What a command says of an id that leads nowhere.
pub fn no_such_trace(id: &str) -> String {
    format!("there is no trace {id}: `lab traces` lists those there are")
}

/// The list as lines of text: the first digits of the id, start, name, services, spans, duration, remarks.
pub fn list(traces: &[Summary]) -> String {
    /// The most columns of a name, and of the services.
    const WIDEST: usize = 40;
    let rows: Vec<[String; 4]> = traces
        .iter()
        .map(|trace| {
            let services: Vec<String> = trace.services.iter().map(|it| plain(it)).collect();
            [
                plain(&trace.name),
                services.join(", "),
                count(trace.spans, "span"),
                took(trace.duration_nano),
            ]
        })
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default().min(WIDEST)
    };
    let [names, services, spans, durations] = [0, 1, 2, 3].map(width);
    let dimmed = Style::new().effects(Effects::DIMMED);
    let mut text = String::new();
    for (trace, row) in traces.iter().zip(&rows) {
        let mut remarks = Vec::new();
        if trace.errors > 0 {
            remarks.push(styled(error_style(), &count(trace.errors, "error")));
        }
        if !trace.whole {
            let broken = AnsiColor::Yellow.on_default();
            remarks.push(styled(broken, "not in one piece"));
        }
        let start = jiff::Timestamp::from_nanosecond(trace.start_time_unix_nano.into());
        let line = format!(
            "{}  {}  {}  {}  {:>spans$}  {:>durations$}  {}",
            styled(dimmed, &trace.trace_id.to_string()[..8]),
            start.map_or_else(|_| String::new(), |start| format!("{start:.0}")),
            fitted(&row[0], names),
            fitted(&row[1], services),
            row[2],
            row[3],
            remarks.join(", "),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The hops as lines of text.
pub fn hops(hops: &[HopState]) -> String {
    let broken = AnsiColor::Yellow.on_default();
    let lines = hops.iter().map(
        |HopState {
             hop,
             address,
             fault,
         }| {
            let fault = fault
                .as_ref()
                .map_or("no fault".to_owned(), |fault| styled(broken, fault));
            format!("{hop:14}  {address:21}  {fault}\n")
        },
    );
    lines.collect()
}

/// One trace as a tree with bars: `█` is the critical path, `░` the rest of a span; and what went over the wire.
/// `columns` is the terminal's width.
///
/// # Errors
/// When the case has no span of the trace.
pub fn trace(case: &Case, id: TraceId, columns: usize) -> anyhow::Result<String> {
    let tree = case.trees.iter().find(|tree| tree.trace_id == id);
    let tree = tree.with_context(|| {
        format!("no span of trace {id} has arrived: `lab diagnose {id}` says more")
    })?;

    let labels: Vec<String> = tree
        .rows
        .iter()
        .map(|row| branch(row) + &plain(row.span.name()))
        .collect();
    let widest = |texts: &mut dyn Iterator<Item = usize>, most: usize| {
        texts.max().unwrap_or_default().min(most)
    };
    let label_width = widest(&mut labels.iter().map(|it| it.chars().count()), columns / 2);
    let services: Vec<String> = tree
        .rows
        .iter()
        .map(|row| plain(row.span.service()))
        .collect();
    let service_width = widest(&mut services.iter().map(|it| it.chars().count()), 30);
    // Name, service and duration, with two blanks behind each.
    let taken = label_width + service_width + 12 + 6;
    let bar_width = columns.saturating_sub(taken + 20).clamp(BAR.0, BAR.1);

    let path = critical_path(tree);
    let mut critical = vec![Vec::new(); tree.rows.len()];
    for segment in &path {
        critical[segment.row].push((segment.start, segment.end));
    }
    let mut text = format!("Trace {}: {}\n\n", tree.trace_id, caption(tree));
    for (index, row) in tree.rows.iter().enumerate() {
        let span = &row.span;
        let cells = |times: &[(u64, u64)]| cells(tree, times, bar_width);
        let (own, waited) = (
            cells(&[(span.start(), span.end())]),
            cells(&critical[index]),
        );
        let bar: String = own
            .into_iter()
            .zip(waited)
            .map(|(own, waited)| {
                if waited {
                    '█'
                } else if own {
                    '░'
                } else {
                    ' '
                }
            })
            .collect();
        let notes = report::notes(&row.notes());
        let bar = if notes.is_empty() {
            bar.trim_end()
        } else {
            &bar
        };
        let style = if span.is_error() {
            error_style()
        } else {
            Style::new()
        };
        let line = format!(
            "{}  {}  {:>12}  {}  {}",
            styled(style, &fitted(&labels[index], label_width)),
            styled(
                service_style(span.service()),
                &fitted(&services[index], service_width)
            ),
            took(span.duration()),
            styled(service_style(span.service()), bar),
            styled(style, &visible(&notes)),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str("\n█ critical path: what the request waited for   ░ the rest of a span\n");
    if !case.wire.is_empty() {
        let _ = write!(text, "\nOn the wire:\n{}", report::wire_text(case));
    }
    Ok(text)
}

/// Where the row hangs; in words where there is no room to draw it.
fn branch(row: &Row) -> String {
    match row.depth {
        0..=12 => row.branch(),
        depth => format!("{}{depth}: ", " ".repeat(36)),
    }
}

/// Which of `width` cells the times touch.
fn cells(tree: &Tree, times: &[(u64, u64)], width: usize) -> Vec<bool> {
    let mut cells = vec![false; width];
    let place = |time: u64| {
        let offset = u128::from(time.saturating_sub(tree.start)) * width as u128;
        usize::try_from(offset / u128::from(tree.duration.max(1))).unwrap_or(width)
    };
    for (start, end) in times {
        let first = place(*start).min(width - 1);
        let last = place(end.saturating_sub(1)).clamp(first, width - 1);
        cells[first..=last].fill(true);
    }
    cells
}

/// A text in exactly `width` columns.
fn fitted(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
        false => format!("{text:width$}"),
    }
}

fn styled(style: Style, text: &str) -> String {
    match text.is_empty() || style.is_plain() {
        true => text.to_owned(),
        false => format!("{style}{text}{style:#}"),
    }
}

fn error_style() -> Style {
    AnsiColor::Red.on_default().effects(Effects::BOLD)
}

/// As on the pages: the same for a service in every trace.
fn service_style(service: &str) -> Style {
    let colours = [
        AnsiColor::White,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Yellow,
        AnsiColor::Cyan,
        AnsiColor::Blue,
    ];
    colours[look(service) % colours.len()].on_default()
}
