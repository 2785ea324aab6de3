//! The client's file: where the cluster is, whom to trust, who we are.
//!
//! ```toml
//! addresses = ["127.0.0.1:7400", "127.0.0.1:7410"]
//! ca = "ca.pem"
//! principal = "admin"
//! password_file = "admin.password"
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ConfigError;
use super::keys::refuse_unknown;
use crate::domain::node_address::NodeAddress;

/// Addresses in a client's file.
const ADDRESSES_MAX: usize = 64;
const KEYS: [&str; 6] = ["addresses", "ca", "principal", "password_file", "certificate", "key"];

/// How to reach a cluster, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// The nodes' client ports, 1 to 64, tried in this order.
    pub addresses: Vec<NodeAddress>,
    /// The certificate authority that signed the nodes' certificates.
    pub ca: PathBuf,
    /// Who to be; none is anonymous.
    pub principal: Option<String>,
    /// Where the principal's password is; its first line counts.
    pub password_file: Option<PathBuf>,
    /// A client certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// As written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientFile {
    addresses: Option<Vec<String>>,
    ca: Option<PathBuf>,
    principal: Option<String>,
    password_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl ClientSettings {
    /// Reads a client's file; relative paths in it are relative to it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads the text of the client's file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        };
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        refuse_unknown(path, &table, &KEYS)?;
        let file: ClientFile = toml::from_str(text).map_err(syntax)?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let addresses = addresses(file.addresses.unwrap_or_default())?;
        let ca = file.ca.ok_or(ConfigError::Missing {
            key: "ca",
            fix: "name the file with the certificate authority of the cluster",
        })?;
        let certificate = match (file.certificate, file.key) {
            (Some(certificate), Some(key)) => Some((base.join(certificate), base.join(key))),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ConfigError::Missing {
                    key: "key",
                    fix: "name the certificate's key, or leave the certificate out",
                });
            }
            (None, Some(_)) => {
                return Err(ConfigError::Missing {
                    key: "certificate",
                    fix: "name the key's certificate, or leave the key out",
                });
            }
        };
        if file.password_file.is_some() && file.principal.is_none() {
            return Err(ConfigError::Missing {
                key: "principal",
                fix: "say whose password it is, or leave password_file out",
            });
        }
        Ok(Self {
            addresses,
            ca: base.join(ca),
            principal: file.principal,
            password_file: file.password_file.map(|file| base.join(file)),
            certificate,
        })
    }

    /// The principal's password, if one is needed.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if its file cannot be read.
    pub fn password(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }

    /// The file that means these settings, with paths as they are.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut table = toml::Table::new();
        let addresses = self.addresses.iter().map(|address| address.as_str().into()).collect();
        table.insert("addresses".to_owned(), toml::Value::Array(addresses));
        let path = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned());
        table.insert("ca".to_owned(), path(&self.ca));
        if let Some(principal) = &self.principal {
            table.insert("principal".to_owned(), principal.as_str().into());
        }
        if let Some(file) = &self.password_file {
            table.insert("password_file".to_owned(), path(file));
        }
        if let Some((certificate, key)) = &self.certificate {
            table.insert("certificate".to_owned(), path(certificate));
            table.insert("key".to_owned(), path(key));
        }
        table.to_string()
    }
}

fn addresses(written: Vec<String>) -> Result<Vec<NodeAddress>, ConfigError> {
    let fix = "list the nodes' client ports, as in [\"10.0.0.1:7400\"]";
    if written.is_empty() {
        return Err(ConfigError::Missing { key: "addresses", fix });
    }
    if written.len() > ADDRESSES_MAX {
        return Err(ConfigError::Value {
            key: "addresses",
            value: format!("{} addresses", written.len()),
            limit: format!("at most {ADDRESSES_MAX}"),
            fix: "a few are enough to find the rest",
        });
    }
    let parse = |text: String| {
        NodeAddress::parse(&text).map_err(|error| ConfigError::Value {
            key: "addresses",
            value: text,
            limit: error.to_string(),
            fix,
        })
    };
    written.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ClientSettings, String> {
        let settings = ClientSettings::parse(text, Path::new("/etc/q/client.toml"));
        settings.map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file_is_understood_and_comes_back() {
        let settings = parse(
            "addresses = ['127.0.0.1:7400', 'n2.example:7400']\nca = 'ca.pem'\n\
             principal = 'admin'\npassword_file = '/run/secret'\n\
             certificate = 'a.pem'\nkey = 'a.key'\n",
        )
        .unwrap();
        assert_eq!(settings.addresses.len(), 2);
        assert_eq!(settings.ca, Path::new("/etc/q/ca.pem"));
        assert_eq!(settings.password_file.as_deref(), Some(Path::new("/run/secret")));
        let (certificate, key) = settings.certificate.clone().unwrap();
        assert_eq!((certificate, key), ("/etc/q/a.pem".into(), "/etc/q/a.key".into()));
        assert_eq!(parse(&settings.to_toml()), Ok(settings));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = "addresses = ['a:1']\nca = 'ca.pem'\n";
        assert!(parse(good).unwrap().certificate.is_none());
        for (text, words) in [
            ("ca = 'x'", "addresses is missing"),
            ("addresses = []\nca = 'x'", "addresses is missing"),
            ("addresses = ['a']\nca = 'x'", "is no address"),
            ("addresses = ['a:1']", "ca is missing"),
            ("addresses = ['a:1']\nca = 7", "line 2"),
            ("adresses = ['a:1']", "did you mean addresses?"),
            ("addresses = ['a:1']\nca = 'x'\ncertificate = 'c'", "key is missing"),
            ("addresses = ['a:1']\nca = 'x'\nkey = 'c'", "certificate is missing"),
            ("addresses = ['a:1']\nca = 'x'\npassword_file = 'p'", "principal is missing"),
            ("addresses = [", "not understood"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        let many = format!("ca = 'x'\naddresses = {:?}", vec!["a:1"; 65]);
        assert!(parse(&many).unwrap_err().contains("at most 64"));
    }

    #[test]
    fn a_password_is_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p"), "geheim \nrest\n").unwrap();
        let path = dir.path().join("client.toml");
        std::fs::write(
            &path,
            "addresses = ['a:1']\nca = 'c'\nprincipal = 'x'\npassword_file = 'p'\n",
        )
        .unwrap();
        let settings = ClientSettings::load(&path).unwrap();
        assert_eq!(settings.password().unwrap().as_deref(), Some("geheim "));
        let gone = ClientSettings { password_file: Some("nowhere".into()), ..settings };
        assert!(matches!(gone.password(), Err(ConfigError::Read { .. })));
        assert!(matches!(
            ClientSettings::load(&dir.path().join("none.toml")),
            Err(ConfigError::Read { .. })
        ));
    }
}
