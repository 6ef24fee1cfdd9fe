//! The running lab: its three listeners, its store, and an orderly end.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;

use crate::listen::{self, Names};
use crate::store::Store;
use crate::wire::Wire;
use crate::{grpc, jaeger, receiver, viewer};

/// How long requests that are under way may take when the lab stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Listens at three addresses; [`Server::serve`] answers.
pub struct Server {
    pub store: Store,
    pub wire: Wire,
    /// The most connections at each address.
    pub connections: usize,
    site: TcpListener,
    otlp: TcpListener,
    grpc: TcpListener,
    addresses: Addresses,
}

/// Where a lab listens: its pages, OTLP over HTTP, and OTLP over gRPC.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub site: SocketAddr,
    pub otlp: SocketAddr,
    pub grpc: SocketAddr,
}

/// The pages of the viewer and Jaeger's query API, without a page at `/`.
pub fn pages(store: Store, wire: Wire) -> Router {
    viewer::routes(store.clone(), wire).merge(jaeger::routes(store))
}

impl Server {
    /// Listens at `addresses`; port 0 takes a free port.
    ///
    /// # Errors
    /// When an address is taken or can't be listened at.
    pub async fn bind(
        addresses: Addresses,
        store: Store,
        connections: usize,
    ) -> Result<Self, listen::Error> {
        let site = listen::bind("--site", addresses.site).await?;
        let otlp = listen::bind("--otlp", addresses.otlp).await?;
        let grpc = listen::bind("--grpc", addresses.grpc).await?;
        let addresses = Addresses {
            site: listen::address(&site)?,
            otlp: listen::address(&otlp)?,
            grpc: listen::address(&grpc)?,
        };
        Ok(Server {
            store,
            wire: Wire::default(),
            connections,
            site,
            otlp,
            grpc,
            addresses,
        })
    }

    /// Where it listens: with the port that port 0 became.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What `lab view` prints; `book` is the address of a book that is served beside the traces.
    pub fn welcome(&self, book: Option<&str>) -> String {
        let Addresses { site, otlp, grpc } = self.addresses;
        let book = book.map_or(String::new(), |book| format!("Book     {book}\n"));
        format!(
            "{book}\
             Traces   http://{site}/traces\n\
             OTLP     http://{otlp}\n\
             gRPC     http://{grpc}\n\n\
             Send spans here: Traces shows them at once. Ctrl-C stops.\n"
        )
    }

    /// Serves `pages` and both receivers until `stop`. The receivers then finish the requests that are under way, so that
    /// every span they have acknowledged is in the store and in the `--save` file.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn serve(self, pages: Router, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let stopped = || {
            let mut stopped = stopped.clone();
            async move {
                // An error means that the sender is gone, which is the same.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            }
        };
        let connections = self.connections;
        let receivers = async {
            tokio::try_join!(
                listen::serve(
                    self.otlp,
                    connections,
                    Names::Any,
                    receiver::routes(self.store.clone()),
                    stopped(),
                ),
                listen::serve(
                    self.grpc,
                    connections,
                    Names::Any,
                    grpc::routes(self.store.clone()),
                    stopped(),
                ),
            )
        };
        // A page that is open listens for changes until it is closed: the pages can't be waited for.
        let pages = listen::serve(
            self.site,
            connections,
            Names::Addresses,
            pages,
            std::future::pending(),
        );
        let drained = async {
            stop.await;
            stopping.send_replace(true);
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = receivers => ended.map(drop)?,
            ended = pages => ended?,
            () = drained => eprintln!("Warning: some senders were still sending when the lab stopped"),
        }
        Ok(())
    }
}
