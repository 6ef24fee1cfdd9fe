//! `symptoms NAME broken` shows a symptom in a trace. `symptoms NAME repaired` shows
//! the same program after the repair.

use anyhow::{anyhow, bail};
use production::error::Failure;
use production::telemetry;
use symptoms::stock::{self, Stock};
use symptoms::*;

/// Which of a symptom's two ways is run.
#[derive(Clone, Copy)]
enum Way {
    Broken,
    Repaired,
}

/// Calls `MODULE::broken` or `MODULE::repaired`.
macro_rules! run {
    ($module:ident, $way:expr $(, $argument:expr)?) => {
        match $way {
            Way::Broken => $module::broken($($argument)?).await,
            Way::Repaired => $module::repaired($($argument)?).await,
        }
    };
}

/// On one thread, as in a small container: some symptoms need that.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, way, role) = match arguments[..] {
        [name, "broken", ref role @ ..] => (name, Way::Broken, role),
        [name, "repaired", ref role @ ..] => (name, Way::Repaired, role),
        _ => {
            return Err(anyhow!("say which: `symptoms NAME broken|repaired`").into());
        }
    };
    match role {
        [] => Ok(show(name, way).await?),
        ["stock"] => Ok(serve_stock(name, way).await?),
        [other, ..] => Err(anyhow!("{other}: a name and a way are enough").into()),
    }
}

async fn show(name: &str, way: Way) -> anyhow::Result<()> {
    match name {
        // These set up OpenTelemetry themselves: that is what is wrong with them.
        "async-client" => run!(async_client, way),
        "exporter-traces-itself" => run!(exporter_traces_itself, way),
        "grpc-shutdown" => run!(grpc_shutdown, way),
        "line-without-ids" => run!(line_without_ids, way),
        "log-filter" => run!(log_filter, way),
        "missing-tls" => run!(missing_tls, way),
        "no-flush" => run!(no_flush, way),
        "number-as-text" => run!(number_as_text, way),
        "secret-recorded" => run!(secret_recorded, way),
        "wrong-path" => run!(wrong_path, way),
        "no-propagator" => {
            let stock = Stock::start().await?;
            let called = run!(no_propagator, way, stock.upstream()?);
            stock.stop().await?;
            called
        }
        _ => {
            let telemetry = telemetry::init("shop");
            let shown = show_in_trace(name, way).await;
            telemetry.shutdown();
            shown
        }
    }
}

async fn show_in_trace(name: &str, way: Way) -> anyhow::Result<()> {
    match name {
        "baggage-not-copied" => run!(baggage_not_copied, way),
        "guard-across-await" => run!(guard_across_await, way),
        "high-cardinality" => run!(high_cardinality, way),
        "filtered-server"
        | "layer-behind-reload"
        | "set-parent-too-late"
        | "status-not-set"
        | "wrong-parent" => {
            let stock = Stock::start().await?;
            let called = match name {
                "status-not-set" => run!(status_not_set, way, &stock.url),
                "wrong-parent" => run!(wrong_parent, way, &stock.url),
                _ => stock::order(stock.upstream()?).await,
            };
            stock.stop().await?;
            called
        }
        _ => bail!("no symptom is named {name}: see src/how-to/symptoms.md"),
    }
}

/// The other process of the symptoms that need one.
async fn serve_stock(name: &str, way: Way) -> anyhow::Result<()> {
    match name {
        "filtered-server" => run!(filtered_server, way),
        "layer-behind-reload" => run!(layer_behind_reload, way),
        "set-parent-too-late" => run!(set_parent_too_late, way),
        _ => stock::sound().await,
    }
}
