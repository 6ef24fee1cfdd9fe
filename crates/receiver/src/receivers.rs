//! Both receivers, of OTLP over HTTP and over gRPC.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::listen::{self, AllowedHosts};
use crate::store::Store;
use crate::{grpc, http};

/// The receivers, which listen. [`Receivers::serve`] answers the requests.
pub struct Receivers {
    otlp: TcpListener,
    grpc: TcpListener,
    addresses: (SocketAddr, SocketAddr),
}

impl Receivers {
    /// Listens for OTLP over HTTP and over gRPC at these addresses. Port 0 takes a free port.
    ///
    /// # Errors
    /// [`listen::Error::Taken`] when an address can't be used.
    pub async fn bind(otlp: SocketAddr, grpc: SocketAddr) -> Result<Self, listen::Error> {
        let otlp = listen::bind("--otlp", otlp).await?;
        let grpc = listen::bind("--grpc", grpc).await?;
        let addresses = (listen::address(&otlp)?, listen::address(&grpc)?);
        Ok(Receivers { otlp, grpc, addresses })
    }

    /// Returns the addresses, with the ports that the system chose for port 0.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        self.addresses
    }

    /// Adds what arrives to `store`, until `stop` ends. Then finishes the requests in flight. `connections` is the largest
    /// number of connections at each address.
    ///
    /// # Errors
    /// [`listen::Error::Failed`] when a listener fails.
    pub async fn serve(
        self,
        store: Store,
        connections: usize,
        stop: impl Future<Output = ()> + Clone + Send + 'static,
    ) -> Result<(), listen::Error> {
        let any = AllowedHosts::Any;
        let http = http::routes(store.clone());
        let grpc = grpc::routes(store);
        tokio::try_join!(
            listen::serve(self.otlp, connections, any, http, stop.clone()),
            listen::serve(self.grpc, connections, any, grpc, stop),
        )
        .map(drop)
    }
}
