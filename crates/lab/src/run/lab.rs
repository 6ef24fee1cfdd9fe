//! Finds the lab that a command's service sends to, or starts one that ends with the last command that uses it.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::client::{self, Lab};
use crate::held::{HELD, Receivers};
use crate::http;

/// How long a lab may take to accept that it is used, or to end when it no longer is.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often to look for a lab, while others start and end theirs at the same address.
const ATTEMPTS: usize = 5;

/// The reasons why a lab could be neither found nor started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lab(#[from] client::Error),
    #[error(
        "no lab answers at {site}, and none can be started there: `lab view --site {site}` says why"
    )]
    NotStarted { site: String },
}

/// A lab that runs for as long as this exists.
pub struct Used {
    pub receivers: Receivers,
    /// Whether it was started for this command.
    pub is_new: bool,
    /// The connection that keeps it running.
    _hold: Response<Incoming>,
}

/// Finds the lab whose pages are at `site`. If none answers and the address is one of this machine's own, starts a lab there.
///
/// # Errors
/// A lab can be neither found nor started, or something else answers.
pub async fn find_or_start(site: &str) -> Result<Used, Error> {
    let mut is_new = false;
    for _ in 0..ATTEMPTS {
        match Lab::at(site).receivers().await {
            Ok(receivers) => {
                if let Some(hold) = hold(site).await {
                    return Ok(Used { receivers, is_new, _hold: hold });
                }
            }
            Err(error @ client::Error::NoAnswer { .. }) => {
                let address = own_address(site).ok_or(error)?;
                let start = move || start(address, false) || start(address, true);
                is_new = spawn_blocking(start).await.unwrap_or_default();
            }
            Err(other) => return Err(other.into()),
        }
    }
    Err(Error::NotStarted { site: site.to_owned() })
}

/// Opens the connection that keeps a lab running. Returns `None` if the lab is about to end, once it has.
async fn hold(site: &str) -> Option<Response<Incoming>> {
    let request = Request::get(HELD).body(Body::empty()).ok()?;
    let answer = timeout(TIMEOUT, http::open(site, request, false)).await.ok()?.ok()?;
    if answer.status().is_success() {
        return Some(answer);
    }
    // It ends with the lab.
    let _ = timeout(TIMEOUT, answer.into_body().collect()).await;
    None
}

/// Returns the address where a lab may be started: one that only this machine can reach.
fn own_address(site: &str) -> Option<SocketAddr> {
    let address = site.replace("localhost:", "127.0.0.1:").parse().ok();
    address.filter(|it: &SocketAddr| it.ip().is_loopback() && it.port() != 0)
}

/// Starts a lab as a process of its own, out of reach of the terminal's signals. Returns whether it listens.
fn start(site: SocketAddr, at_free_ports: bool) -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let mut lab = Command::new(program);
    lab.args(["view", "--while-held", "--site", &site.to_string()]);
    if at_free_ports {
        let free = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0).to_string();
        lab.args(["--otlp", &free, "--grpc", &free]);
    }
    // Our error output must not stay open when we end.
    lab.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut lab, 0);
    let Ok(mut lab) = lab.spawn() else { return false };
    let mut line = String::new();
    let output = lab.stdout.take().map(|output| BufReader::new(output).read_line(&mut line));
    // It prints the receivers when it listens.
    let listens = output.is_some() && serde_json::from_str::<Receivers>(&line).is_ok();
    if !listens {
        // An error means that it has ended already.
        let _ = lab.kill();
        let _ = lab.wait();
    }
    listens
}
