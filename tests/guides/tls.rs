//! HTTPS, with a certificate of an authority that nobody else knows.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

use crate::support::FREE;

/// A server, and the folder with its authority's certificate.
pub struct Tls {
    pub address: SocketAddr,
    folder: TempDir,
}

impl Tls {
    /// Serves `routes` on a free port until the test ends.
    pub async fn serve(routes: Router) -> Tls {
        let folder = TempDir::new().expect("a folder");
        let key = || KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = key();
        let root = authority.self_signed(&authority_key).expect("a root");
        std::fs::write(folder.path().join("ca.pem"), root.pem()).expect("a file");
        let issuer = Issuer::new(authority, authority_key);
        let key = key();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).expect("names");
        let certificate = certificate.signed_by(&key, &issuer).expect("a certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .expect("a configuration");
        let listener = TcpListener::bind(FREE).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move { axum::serve(TlsListener { listener, acceptor }, routes).await });
        Tls { address, folder }
    }

    /// The file with the authority's certificate.
    pub fn authority(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                continue;
            };
            // Who does not trust the certificate hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
