//! Makes certificates: an authority, nodes, clients.
//!
//! P-256 throughout. A node's certificate carries `NAME.node.quorate` (who it is),
//! `node.quorate` (that it is a node) and the hosts under which clients reach it; it serves and
//! dials. A client's certificate can only dial and carries no node name, so that none can pose as
//! a peer.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use xxhash_rust::xxh3::xxh3_64;

use super::error::TlsError;
use super::tls::{ANY_NODE, node_server_name};
use crate::config::settings::TlsFiles;
use crate::domain::node_name::NodeName;

/// A certificate and its private key, both as PEM text.
#[derive(Debug, Clone)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The private key: a secret.
    pub key: String,
}

/// Certificates are good from the first to the second of January of these years: a cluster must
/// not stop on a date that nobody remembers, and whom to trust is changed by changing the CA.
const VALID_YEARS: (i32, i32) = (2024, 2124);

/// A new certificate authority of this name, good for signing only. A part of its key's hash is
/// added to the name: a certificate of another authority of the same name is then refused as one
/// of an unknown authority, and not as a broken signature.
///
/// # Errors
/// [`TlsError::Make`].
pub fn make_ca(name: &str) -> Result<Pem, TlsError> {
    let key = KeyPair::generate().map_err(make)?;
    let fingerprint = xxh3_64(key.public_key_raw()) as u32;
    let mut params = parameters(&format!("{name} {fingerprint:08x}"), Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(make)?;
    Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A node's certificate, for `localhost`, `127.0.0.1`, `::1` and the given host names and IP
/// addresses.
///
/// # Errors
/// [`TlsError::Name`] for a host that is neither, [`TlsError::Make`] if the authority is not
/// usable.
pub fn make_node(ca: &Pem, name: &NodeName, hosts: &[String]) -> Result<Pem, TlsError> {
    let mut names = vec![node_server_name(name.as_str()), ANY_NODE.to_owned()];
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    for host in hosts {
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(TlsError::Name { name: host.clone() });
        }
        if !names.contains(host) {
            names.push(host.clone());
        }
    }
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    signed(ca, name.as_str(), names, usages)
}

/// A client's certificate for this principal.
///
/// # Errors
/// [`TlsError::Make`] if the authority is not usable.
pub fn make_client(ca: &Pem, principal: &str) -> Result<Pem, TlsError> {
    signed(ca, principal, Vec::new(), vec![ExtendedKeyUsagePurpose::ClientAuth])
}

impl Pem {
    /// Reads an authority or an identity from its two files.
    ///
    /// # Errors
    /// [`TlsError::Read`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        Ok(Self { certificate: read(certificate)?, key: read(key)? })
    }

    /// Writes both files, the key readable by its owner only. Neither may exist: a key that is
    /// overwritten cannot be had back.
    ///
    /// # Errors
    /// [`TlsError::Write`], naming the file.
    pub fn store(&self, certificate: &Path, key: &Path) -> Result<(), TlsError> {
        write_new(key, &self.key, 0o600)?;
        write_new(certificate, &self.certificate, 0o644)
    }
}

/// The certificates of a node that was given none: an authority of its own, kept below the node's
/// directory and made at its first start. Good for one node on loopback, since nobody else trusts
/// that authority.
///
/// # Errors
/// [`TlsError`].
pub fn generated(dir: &Path, name: &NodeName) -> Result<TlsFiles, TlsError> {
    let kept = dir.join(GENERATED_DIR);
    if !kept.exists() {
        // Made aside and moved as a whole: a start that was cut short leaves nothing half done.
        let aside = dir.join(format!("{GENERATED_DIR}.new"));
        let unwritable = |source| TlsError::Write { path: aside.clone(), source };
        if aside.exists() {
            std::fs::remove_dir_all(&aside).map_err(unwritable)?;
        }
        std::fs::create_dir_all(&aside).map_err(unwritable)?;
        let ca = make_ca("Quorate generated CA")?;
        let node = make_node(&ca, name, &[])?;
        for (pem, stem) in [(&ca, GENERATED_CA), (&node, GENERATED_NODE)] {
            let (certificate, key) = paths(&aside, stem);
            pem.store(&certificate, &key)?;
        }
        let sync = |dir: &Path| std::fs::File::open(dir).and_then(|dir| dir.sync_all());
        sync(&aside).map_err(unwritable)?;
        std::fs::rename(&aside, &kept).map_err(unwritable)?;
        sync(dir).map_err(|source| TlsError::Write { path: dir.to_owned(), source })?;
    }
    let (ca, _) = paths(&kept, GENERATED_CA);
    let (certificate, key) = paths(&kept, GENERATED_NODE);
    Ok(TlsFiles { ca, certificate, key })
}

const GENERATED_DIR: &str = "tls";
const GENERATED_CA: &str = "ca";
const GENERATED_NODE: &str = "node";

/// Where `cert` puts the two files of `name` below `dir`.
#[must_use]
pub fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")))
}

/// The DNS names in a certificate that was verified before; none if it cannot be parsed.
pub(super) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

fn parameters(common_name: &str, names: Vec<String>) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(names.clone())
        .map_err(|_| TlsError::Name { name: names.join(" ") })?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params.not_before = date_time_ymd(VALID_YEARS.0, 1, 1);
    params.not_after = date_time_ymd(VALID_YEARS.1, 1, 1);
    Ok(params)
}

fn signed(
    ca: &Pem,
    common_name: &str,
    names: Vec<String>,
    usages: Vec<ExtendedKeyUsagePurpose>,
) -> Result<Pem, TlsError> {
    let mut params = parameters(common_name, names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    let ca_key = KeyPair::from_pem(&ca.key).map_err(make)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, ca_key).map_err(make)?;
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.signed_by(&key, &issuer).map_err(make)?;
    Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn make(error: rcgen::Error) -> TlsError {
    TlsError::Make { reason: error.to_string() }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let unwritable = |source| TlsError::Write { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path).map_err(unwritable)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)
}
