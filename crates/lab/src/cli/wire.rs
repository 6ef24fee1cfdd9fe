//! The proxies that `lab wire` and `--wire` put in front of services.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use clap::Args;
use tokio::net::{TcpListener, lookup_host};

use crate::wire::{Hop, Wire};

/// Names that mean something else in commands and URLs.
const RESERVED: [&str; 3] = ["list", "restore", "try"];

/// The proxies of `lab wire`.
#[derive(Args)]
pub struct Proxies {
    /// A proxy: its name, the address where it listens, and the service that it forwards to. Port 0 takes a free port.
    ///
    /// Take the name from the service's `service.name`. `lab break NAME` breaks its requests.
    #[arg(required = true, value_name = "NAME=LISTEN,TARGET")]
    pub proxies: Vec<Proxy>,
}

/// A proxy to start, written as `NAME=LISTEN,TARGET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    name: String,
    listen: SocketAddr,
    /// The host and port of the service.
    target: String,
}

/// The reasons why a text isn't a [`Proxy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    #[error("write NAME=LISTEN,TARGET, such as gateway=127.0.0.1:8080,localhost:9090")]
    Form,
    #[error("{0:?} can't be a name: use letters, digits, `-`, `_` and `.`")]
    Name(String),
    #[error("{0:?} can't be a name, because `lab break` has another use for it")]
    Reserved(String),
    #[error("{0:?} isn't an address to listen at: write IP:PORT, such as 127.0.0.1:8080")]
    Listen(String),
    #[error("{0:?} isn't a service: write HOST:PORT, such as localhost:9090")]
    Target(String),
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let (name, addresses) = text.split_once('=').ok_or(InvalidProxy::Form)?;
        let (listen, target) = addresses.split_once(',').ok_or(InvalidProxy::Form)?;
        let is_allowed = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
        if !name.chars().all(is_allowed) || name.trim_matches('.').is_empty() {
            return Err(InvalidProxy::Name(name.to_owned()));
        }
        if RESERVED.contains(&name) {
            return Err(InvalidProxy::Reserved(name.to_owned()));
        }
        if !is_target(target) {
            return Err(InvalidProxy::Target(target.to_owned()));
        }
        let listen = listen.parse().map_err(|_| InvalidProxy::Listen(listen.to_owned()))?;
        Ok(Proxy { name: name.to_owned(), listen, target: target.to_owned() })
    }
}

/// Returns whether a text is a host and a port. The host is a name, an IPv4 address, or an IPv6 address in brackets.
fn is_target(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match in_brackets {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_allowed = |it: char| it.is_alphanumeric() || "-_.".contains(it);
            !host.is_empty() && host.chars().all(is_allowed)
        }
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The reasons why proxies can't be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("two proxies are named {0}: give each another name")]
    Duplicate(String),
    #[error("the proxy {name} cannot listen on {address} (choose another address)")]
    Taken { name: String, address: SocketAddr, source: io::Error },
    #[error("the proxy {name} would forward to itself: {target} is where it listens")]
    Itself { name: String, target: String },
    #[error("the proxies {} would forward to each other in a circle", names.join(", "))]
    Circle { names: Vec<String> },
}

/// Starts the proxies on a wire.
///
/// # Errors
/// Fails when a name is used twice, an address is taken, or a proxy would forward to itself.
pub async fn start(proxies: Vec<Proxy>, wire: &Wire) -> Result<(), Error> {
    let mut bound: Vec<(Proxy, TcpListener)> = Vec::new();
    for proxy in proxies {
        let Proxy { name, listen, .. } = &proxy;
        if bound.iter().any(|(other, _)| other.name == *name) {
            return Err(Error::Duplicate(name.clone()));
        }
        let taken = |source| Error::Taken { name: name.clone(), address: *listen, source };
        let listener = TcpListener::bind(listen).await.map_err(taken)?;
        let listen = listener.local_addr().map_err(taken)?;
        bound.push((Proxy { listen, ..proxy }, listener));
    }
    let listening: Vec<SocketAddr> = bound.iter().map(|(proxy, _)| proxy.listen).collect();
    let mut next = Vec::new();
    for (proxy, _) in &bound {
        // A name that can't be looked up now is looked up again for each connection.
        let targets: Vec<SocketAddr> = match may_be(&proxy.target, &listening) {
            true => lookup_host(&proxy.target).await.map(Iterator::collect).unwrap_or_default(),
            false => Vec::new(),
        };
        let reaches = |listen: &SocketAddr| targets.iter().any(|it| is_same(*listen, *it));
        next.push(listening.iter().position(reaches));
    }
    for start in 0..bound.len() {
        let path = std::iter::successors(next[start], |at| next[*at]).take(bound.len());
        let path: Vec<usize> = path.collect();
        let Some(end) = path.iter().position(|at| *at == start) else { continue };
        let proxy = &bound[start].0;
        return Err(match end {
            0 => Error::Itself { name: proxy.name.clone(), target: proxy.target.clone() },
            _ => {
                let names = path[..=end].iter().map(|at| bound[*at].0.name.clone());
                Error::Circle { names: names.collect() }
            }
        });
    }
    for (Proxy { name, listen, target }, listener) in bound {
        let taken = |source| Error::Taken { name: name.clone(), address: listen, source };
        wire.serve(Hop::named_after(&name), listener, target).map_err(taken)?;
    }
    Ok(())
}

/// Returns whether the port of a target is that of a listener.
fn may_be(target: &str, listening: &[SocketAddr]) -> bool {
    let port = target.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    listening.iter().any(|listen| Some(listen.port()) == port)
}

/// Returns whether a connection to `target` arrives at the listener.
fn is_same(listen: SocketAddr, target: SocketAddr) -> bool {
    let is_here = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    listen.port() == target.port()
        && (listen.ip() == target.ip() || listen.ip().is_unspecified() && is_here(target.ip()))
}
