//! Traces in a terminal: asks a running lab, and shows its list and its waterfalls as text.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Effects, Style};
use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, Response, StatusCode, Url};

use crate::analysis::critical_path;
use crate::list::Filter;
use crate::otlp;
use crate::span::TraceId;
use crate::summary::Summary;
use crate::tree::{Row, Tree, plain, took, visible};
use crate::waterfall::{caption, count, look};

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
        if let Some(id) = id.filter(|id| TraceId::parse(id).is_some()) {
            return self.spans(&id.to_lowercase()).await;
        }
        let traces = self.traces(&Filter::default()).await?;
        let chosen = match id {
            None => traces.first().context("there is no trace yet")?,
            Some(id) => {
                let start = id.trim().to_lowercase();
                let mut found = traces
                    .iter()
                    .filter(|trace| trace.trace_id.starts_with(&start));
                match (found.next(), found.count()) {
                    (Some(only), 0) => only,
                    (Some(_), others) => bail!(
                        "{} traces begin with {id:?}: write more of the id",
                        others + 1
                    ),
                    (None, _) => {
                        bail!("no trace begins with {id:?}: `lab traces` lists those there are")
                    }
                }
            }
        };
        self.spans(&chosen.trace_id).await
    }

    async fn spans(&self, id: &str) -> anyhow::Result<Vec<u8>> {
        let url = format!("http://{}/traces/{id}.json", self.site);
        let answer = self.get(url.parse()?).await?;
        ensure!(
            answer.status() != StatusCode::NOT_FOUND,
            "there is no trace {id}: `lab traces` lists those there are"
        );
        Ok(answer.error_for_status()?.bytes().await?.to_vec())
    }

    async fn get(&self, url: Url) -> anyhow::Result<Response> {
        let sent = self.client.get(url).send().await;
        sent.with_context(|| {
            format!(
                "no lab answers at {}: start it with `lab view`, or name its address with --site",
                self.site
            )
        })
    }
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
            styled(dimmed, trace.trace_id.get(..8).unwrap_or_default()),
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

/// One trace as a tree with bars: `█` is the critical path, `░` the rest of a span. `columns` is the terminal's width.
///
/// # Errors
/// When the text is no trace in OTLP JSON.
pub fn trace(json: &[u8], columns: usize) -> anyhow::Result<String> {
    let otlp::Lines {
        spans, problems, ..
    } = otlp::from_json_lines(json);
    let spans: Vec<_> = spans.into_iter().map(std::sync::Arc::new).collect();
    let tree = Tree::new(&spans);
    let tree = tree.with_context(|| {
        problems
            .first()
            .cloned()
            .unwrap_or("there is no span in it".to_owned())
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

    let path = critical_path(&tree);
    let mut critical = vec![Vec::new(); tree.rows.len()];
    for segment in &path {
        critical[segment.row].push((segment.start, segment.end));
    }
    let mut text = format!("Trace {}: {}\n\n", tree.trace_id, caption(&tree));
    for (index, row) in tree.rows.iter().enumerate() {
        let span = &row.span;
        let cells = |times: &[(u64, u64)]| cells(&tree, times, bar_width);
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
        let notes = row.notes().join(", ");
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
