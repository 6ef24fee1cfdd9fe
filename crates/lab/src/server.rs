//! The server of the lab: its three listeners, its store and its shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::map_response;
use axum::response::Response;
use axum::{Extension, Router};
use futures_util::FutureExt as _;
use tokio::net::TcpListener;

use crate::editor::Editor;
use crate::forward::Forwarder;
use crate::held::{self, Users};
use crate::listen::{self, AllowedHosts};
use crate::receivers::Receivers;
use crate::store::Store;
use crate::waterfall::count;
use crate::wire::{HopState, ProxyLimits, Wire};
use crate::{guard, jaeger, viewer};

/// How long requests in flight may take when the lab stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The headers of every answer that doesn't set them itself. The policy allows only our own script and styles, so that the text
/// of a span can't run. With the referrer policy `no-referrer`, browsers would hide the origin of our own forms.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// A lab that listens on its three addresses. [`Server::serve`] answers the requests.
pub struct Server {
    pub store: Store,
    pub wire: Wire,
    /// The largest number of connections at each address.
    pub connections: usize,
    /// Links the pages to source files.
    pub editor: Option<Editor>,
    /// Forwards what the receivers take. Its queue is that of `store`.
    pub forwarder: Option<Forwarder>,
    /// Whether the lab ends with the last command that uses it.
    pub ends_with_users: bool,
    users: Users,
    site: TcpListener,
    receivers: Receivers,
    addresses: Addresses,
}

/// The addresses of a lab: its pages, OTLP over HTTP and OTLP over gRPC.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub site: SocketAddr,
    pub otlp: SocketAddr,
    pub grpc: SocketAddr,
}

/// Serves the pages of the viewer and Jaeger's query API, without a page at `/`.
pub fn pages(store: Store, wire: Wire) -> Router {
    viewer::routes(store.clone(), wire).merge(jaeger::routes(store))
}

/// Protects the reader's browser and traces from other sites: refuses requests of their pages, and adds [`HEADERS`].
pub fn protected(routes: Router) -> Router {
    let with_headers = async |mut response: Response| {
        let is_cached = response.status() == StatusCode::NOT_MODIFIED;
        for (name, value) in HEADERS {
            // The browser keeps the policy of its copy.
            if is_cached && name == CONTENT_SECURITY_POLICY {
                continue;
            }
            response.headers_mut().entry(name).or_insert(value);
        }
        response
    };
    guard::only_our_pages(routes).layer(map_response(with_headers))
}

impl Server {
    /// Listens on `addresses`. Port 0 takes a free port.
    ///
    /// # Errors
    /// [`listen::Error::Taken`] when an address can't be used.
    pub async fn bind(
        addresses: Addresses,
        store: Store,
        connections: usize,
    ) -> Result<Self, listen::Error> {
        let site = listen::bind("--site", addresses.site).await?;
        let receivers = Receivers::bind(addresses.otlp, addresses.grpc).await?;
        let (otlp, grpc) = receivers.addresses();
        let addresses = Addresses { site: listen::address(&site)?, otlp, grpc };
        let wire = Wire::with_limits(ProxyLimits { connections, ..ProxyLimits::default() });
        let (users, ends_with_users) = (Users::default(), false);
        Ok(Server {
            store,
            wire,
            connections,
            editor: None,
            forwarder: None,
            ends_with_users,
            users,
            site,
            receivers,
            addresses,
        })
    }

    /// Returns the addresses of the lab, with the ports that the system chose for port 0.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    fn receivers(&self) -> held::Receivers {
        let Addresses { otlp, grpc, .. } = self.addresses;
        held::Receivers { otlp: otlp.to_string(), grpc: grpc.to_string() }
    }

    /// Returns the message that `lab view` prints. `book` is the URL of a book that is served next to the traces. A lab that ends with
    /// the commands that use it prints its receivers as JSON instead, for the command that has started it.
    pub fn welcome(&self, book: Option<&str>) -> String {
        if self.ends_with_users {
            return serde_json::json!(self.receivers()).to_string() + "\n";
        }
        let Addresses { site, otlp, grpc } = self.addresses;
        let forward = self.forwarder.as_ref().map_or(String::new(), |it| {
            let name = &it.queue().name;
            format!("Forward  {name}\n")
        });
        let book = book.map_or(String::new(), |book| format!("Book     {book}\n"));
        let proxies = self.wire.states();
        let mut wire: String = proxies
            .iter()
            .map(|HopState { hop, address, target, .. }| {
                format!("Proxy    http://{address} -> {target} ({hop})\n")
            })
            .collect();
        if !proxies.is_empty() {
            wire = format!("Wire     http://{site}/wire\n{wire}");
        }
        format!(
            "{book}\
             Traces   http://{site}/traces\n\
             OTLP     http://{otlp}\n\
             gRPC     http://{grpc}\n\
             {forward}\
             {wire}\n\
             Send spans here: Traces shows them at once. Ctrl-C stops.\n"
        )
    }

    /// Serves `pages`, [`protected`], and both receivers until `stop` ends. The receivers and the proxies then finish the requests
    /// in flight, for at most five seconds, so that every acknowledged span is in the store and in the `--save` file. After that,
    /// the requests that wait to be forwarded are sent.
    ///
    /// # Errors
    /// [`listen::Error::Failed`] when a listener fails.
    pub async fn serve(
        self,
        pages: Router,
        stop: impl Future<Output = ()>,
    ) -> Result<(), listen::Error> {
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let stopped = async move {
            let mut stopped = stopped;
            // An error means that the sender was dropped, which also means stop.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let (connections, users) = (self.connections, self.users.clone());
        let pages = pages.merge(users.routes(self.receivers()));
        let gone = async {
            match self.ends_with_users {
                true => users.gone().await,
                false => std::future::pending().await,
            }
        };
        let receivers = self.receivers.serve(self.store, connections, stopped.shared());
        let wire = &self.wire;
        let finished = async {
            receivers.await?;
            wire.finished().await;
            Ok::<_, listen::Error>(())
        };
        // An open page keeps its event stream until it is closed, so the pages' server can't wait for its requests.
        let pages = listen::serve(
            self.site,
            connections,
            AllowedHosts::Addresses,
            protected(pages).layer(Extension(self.editor)),
            std::future::pending(),
        );
        let drained = async {
            tokio::select! {
                () = stop => {}
                () = gone => {}
            }
            stopping.send_replace(true);
            wire.stop();
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        let ended = tokio::select! {
            ended = finished => ended,
            ended = pages => ended,
            () = drained => {
                match wire.busy() {
                    0 => eprintln!("Warning: some senders were still sending when the lab stopped"),
                    busy => eprintln!(
                        "Warning: {} of the proxies had no whole answer when the lab stopped",
                        count(busy, "request")
                    ),
                }
                Ok(())
            }
        };
        if let Some(forwarder) = self.forwarder {
            forwarder.finish().await;
        }
        ended
    }
}
