//! Who is trusted: identities, authorities, and the TLS settings of both edges.
//!
//! TLS 1.3 only, the ring provider given explicitly, no early data, no session tickets (a resumed
//! handshake saves a tenth of its cost and would need secrets shared between nodes). Verification
//! is never skipped: a peer always shows a certificate of the cluster's authority.

use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "server")]
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
#[cfg(feature = "server")]
use rustls::client::WebPkiServerVerifier;
#[cfg(feature = "server")]
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
#[cfg(feature = "server")]
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::error::TlsError;
use super::profile::{Edge, KNOCK_BYTES_MAX, KNOCKS_BYTES_MAX, KNOCKS_MAX};
#[cfg(feature = "server")]
use crate::clock::Clock;
#[cfg(feature = "server")]
use crate::config::settings::TlsFiles;
use crate::domain::node_name::NodeName;

/// What every node's certificate carries beside the node's own name; a peer is dialled under it,
/// as the name behind an address is not known before.
pub const ANY_NODE: &str = "node.quorate";

/// The DNS name that stands for the node `name` in its certificate.
#[must_use]
pub fn node_server_name(name: &str) -> String {
    format!("{name}.{ANY_NODE}")
}

/// The node that a certificate with these DNS names is for; none unless it is exactly one.
#[must_use]
pub fn node_name_in(names: &[String]) -> Option<NodeName> {
    let mut nodes = names
        .iter()
        .filter_map(|name| name.strip_suffix(ANY_NODE)?.strip_suffix('.'))
        .filter_map(|name| NodeName::parse(name).ok());
    let only = nodes.next()?;
    nodes.next().is_none().then_some(only)
}

/// Loads what a node's configuration names.
///
/// # Errors
/// [`TlsError`], naming the file.
#[cfg(feature = "server")]
pub fn load(files: &TlsFiles) -> Result<(Authority, Identity), TlsError> {
    Ok((Authority::load(&files.ca)?, Identity::load(&files.certificate, &files.key)?))
}

/// Whether a node of this name can work with these files: they can be read and used together, the
/// certificate is the node's, and the authority has signed it for both ends of a connection.
///
/// # Errors
/// [`TlsError`], saying what is wrong.
#[cfg(feature = "server")]
pub fn check(files: &TlsFiles, name: &NodeName, clock: &Clock) -> Result<(), TlsError> {
    let (authority, identity) = load(files)?;
    let found = identity.names();
    if !found.iter().any(|found| *found == node_server_name(name.as_str())) {
        return Err(TlsError::WrongNode { name: name.clone(), found });
    }
    ServerTls::for_peers(&identity, &authority)?;
    ClientTls::for_peer(&authority, &identity)?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(clock.wall_ms()));
    let untrusted = |source| TlsError::Untrusted { source };
    let (leaf, intermediates) =
        identity.chain.split_first().ok_or(TlsError::Untrusted { source: NO_LEAF })?;
    WebPkiClientVerifier::builder_with_provider(Arc::clone(&authority.roots), provider())
        .build()
        .map_err(|error| TlsError::Verifier { reason: error.to_string() })?
        .verify_client_cert(leaf, intermediates, now)
        .map_err(untrusted)?;
    let server =
        ServerName::try_from(ANY_NODE).map_err(|_| TlsError::Name { name: ANY_NODE.into() })?;
    WebPkiServerVerifier::builder_with_provider(Arc::clone(&authority.roots), provider())
        .build()
        .map_err(|error| TlsError::Verifier { reason: error.to_string() })?
        .verify_server_cert(leaf, intermediates, &server, &[], now)
        .map_err(untrusted)?;
    Ok(())
}

#[cfg(feature = "server")]
const NO_LEAF: rustls::Error = rustls::Error::NoCertificatesPresented;

/// A certificate chain and its key: who we are.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Reads a chain (leaf first) and a private key from PEM files.
    ///
    /// # Errors
    /// [`TlsError::Read`] or [`TlsError::Pem`], naming the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let pem = read(key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| TlsError::Pem { path: key.to_owned(), wanted: "private key" })?;
        Ok(Self { chain, key })
    }

    /// The same from texts in memory.
    ///
    /// # Errors
    /// [`TlsError::Pem`].
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        let chain = parse_certificates(certificate.as_bytes(), Path::new("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| TlsError::Pem { path: "key".into(), wanted: "private key" })?;
        Ok(Self { chain, key })
    }

    /// The DNS names in the leaf certificate.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.chain.first().map(|leaf| super::certificate::dns_names(leaf)).unwrap_or_default()
    }
}

/// The certificate authorities that are trusted: whom we believe.
#[derive(Debug, Clone)]
pub struct Authority {
    roots: Arc<RootCertStore>,
}

impl Authority {
    /// Reads one or more authority certificates from a PEM file.
    ///
    /// # Errors
    /// [`TlsError::Read`], [`TlsError::Pem`] or [`TlsError::Authority`].
    pub fn load(path: &Path) -> Result<Self, TlsError> {
        Self::new(certificates(path)?)
    }

    /// The same from a text in memory.
    ///
    /// # Errors
    /// [`TlsError::Pem`] or [`TlsError::Authority`].
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        Self::new(parse_certificates(pem.as_bytes(), Path::new("authority"))?)
    }

    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|source| TlsError::Authority { source })?;
        }
        Ok(Self { roots: Arc::new(roots) })
    }
}

/// The TLS settings of a side that listens, with the edge's QUIC parameters; cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerTls {
    edge: Edge,
    config: quinn::ServerConfig,
    leaf: Option<CertificateDer<'static>>,
}

impl ServerTls {
    /// For clients. With `clients` a client may show a certificate of that authority; one that
    /// shows none is let in all the same and authenticates otherwise.
    ///
    /// # Errors
    /// [`TlsError`] if certificate and key are not usable together.
    pub fn for_clients(identity: &Identity, clients: Option<&Authority>) -> Result<Self, TlsError> {
        Self::new(Edge::Client, identity, clients)
    }

    /// For peers: each must show a certificate of `authority`.
    ///
    /// # Errors
    /// [`TlsError`] if certificate, key or authority are not usable.
    pub fn for_peers(identity: &Identity, authority: &Authority) -> Result<Self, TlsError> {
        Self::new(Edge::Peer, identity, Some(authority))
    }

    fn new(
        edge: Edge,
        identity: &Identity,
        authority: Option<&Authority>,
    ) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| TlsError::Identity { source })?;
        let builder = match authority {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(&authority.roots),
                    provider(),
                );
                let verifier = match edge {
                    Edge::Client => verifier.allow_unauthenticated(),
                    Edge::Peer => verifier,
                };
                let unusable =
                    |error: VerifierBuilderError| TlsError::Verifier { reason: error.to_string() };
                builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
        };
        let mut tls = builder
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|source| TlsError::Identity { source })?;
        tls.alpn_protocols = vec![edge.alpn().to_vec()];
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        let crypto = QuicServerConfig::try_from(tls).map_err(|_| TlsError::NoCipherSuite)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(edge.server_parameters());
        config.max_incoming(KNOCKS_MAX);
        config.incoming_buffer_size(KNOCK_BYTES_MAX).incoming_buffer_size_total(KNOCKS_BYTES_MAX);
        Ok(Self { edge, config, leaf: identity.chain.first().cloned() })
    }

    pub(super) fn edge(&self) -> Edge {
        self.edge
    }

    pub(super) fn config(&self) -> quinn::ServerConfig {
        self.config.clone()
    }

    /// The names in the certificate, for a network that does not read certificates.
    pub(super) fn names(&self) -> Vec<String> {
        names_in(self.leaf.as_ref())
    }
}

/// The TLS settings of a side that dials, with the edge's QUIC parameters; cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    edge: Edge,
    config: quinn::ClientConfig,
    leaf: Option<CertificateDer<'static>>,
}

impl ClientTls {
    /// For a client that believes `authority` and may show a certificate.
    ///
    /// # Errors
    /// [`TlsError`] if certificate and key are not usable together.
    pub fn for_client(
        authority: &Authority,
        identity: Option<&Identity>,
    ) -> Result<Self, TlsError> {
        Self::new(Edge::Client, authority, identity)
    }

    /// For a peer, which always shows its certificate.
    ///
    /// # Errors
    /// [`TlsError`] if certificate and key are not usable together.
    pub fn for_peer(authority: &Authority, identity: &Identity) -> Result<Self, TlsError> {
        Self::new(Edge::Peer, authority, Some(identity))
    }

    /// A peer without a certificate, to be refused.
    #[cfg(test)]
    pub(super) fn without_certificate(authority: &Authority) -> Result<Self, TlsError> {
        Self::new(Edge::Peer, authority, None)
    }

    fn new(
        edge: Edge,
        authority: &Authority,
        identity: Option<&Identity>,
    ) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| TlsError::Identity { source })?
            .with_root_certificates(Arc::clone(&authority.roots));
        let mut tls = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|source| TlsError::Identity { source })?,
        };
        tls.alpn_protocols = vec![edge.alpn().to_vec()];
        tls.resumption = Resumption::disabled();
        let crypto = QuicClientConfig::try_from(tls).map_err(|_| TlsError::NoCipherSuite)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(edge.client_parameters());
        let leaf = identity.and_then(|identity| identity.chain.first().cloned());
        Ok(Self { edge, config, leaf })
    }

    pub(super) fn edge(&self) -> Edge {
        self.edge
    }

    pub(super) fn config(&self) -> quinn::ClientConfig {
        self.config.clone()
    }

    /// As [`ServerTls::names`]; empty without a certificate.
    pub(super) fn names(&self) -> Vec<String> {
        names_in(self.leaf.as_ref())
    }
}

#[cfg(feature = "server")]
fn names_in(leaf: Option<&CertificateDer<'static>>) -> Vec<String> {
    leaf.map(|leaf| super::certificate::dns_names(leaf)).unwrap_or_default()
}

/// Only a server reads certificates.
#[cfg(not(feature = "server"))]
fn names_in(_leaf: Option<&CertificateDer<'static>>) -> Vec<String> {
    Vec::new()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    parse_certificates(&read(path)?, path)
}

fn parse_certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = || TlsError::Pem { path: path.to_owned(), wanted: "certificate" };
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| unusable())?;
    if certificates.is_empty() { Err(unusable()) } else { Ok(certificates) }
}
