//! Where a node is found.

use core::net::{IpAddr, SocketAddr};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A host and port, in bytes of text.
pub const NODE_ADDRESS_BYTES_MAX: usize = 259;

/// `HOST:PORT`, where the host is a DNS name, an IPv4 address or an IPv6 address in brackets, and
/// the port is not 0. Names are not resolved here; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    text: Arc<str>,
    host_bytes: usize,
}

impl NodeAddress {
    /// Checks and takes an address.
    ///
    /// # Errors
    /// [`NodeAddressError`] for anything else than `HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, NodeAddressError> {
        Self::checked(text).ok_or_else(|| NodeAddressError { text: text.to_owned() })
    }

    fn checked(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port_good = port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0);
        let host_good = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?.parse::<core::net::Ipv6Addr>().is_ok(),
            None => {
                let label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                !host.is_empty() && host.bytes().all(label)
            }
        };
        (port_good && host_good && text.len() <= NODE_ADDRESS_BYTES_MAX)
            .then(|| Self { text: text.into(), host_bytes: host.len() })
    }

    /// The text, as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host without brackets: what a certificate is checked against.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.text.get(..self.host_bytes).unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.text.get(self.host_bytes + 1..).and_then(|port| port.parse().ok()).unwrap_or_default()
    }

    /// The socket address, if the host is an IP address.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        self.host().parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, self.port()))
    }

    /// This address as seen from someone who reached its node at `seen`: a node that listens on
    /// all of its interfaces cannot know under which one it is reached.
    #[must_use]
    pub fn reached_at(&self, seen: IpAddr) -> Self {
        match self.socket() {
            Some(socket) if socket.ip().is_unspecified() => {
                Self::from_socket(SocketAddr::new(seen.to_canonical(), self.port()))
                    .unwrap_or_else(|| self.clone())
            }
            _ => self.clone(),
        }
    }

    /// The address of a socket; none if its port is 0.
    #[must_use]
    pub fn from_socket(socket: SocketAddr) -> Option<Self> {
        Self::checked(&socket.to_string())
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    fn from_str(text: &str) -> Result<Self, NodeAddressError> {
        Self::parse(text)
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for NodeAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeAddress({})", self.text)
    }
}

/// A text that is no address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address such as 10.0.0.1:7401, [::1]:7401 or n1.example:7401")]
pub struct NodeAddressError {
    /// What was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, host, port) in [
            ("127.0.0.1:7401", "127.0.0.1", 7401),
            ("[::1]:1", "::1", 1),
            ("n1.example:65535", "n1.example", 65_535),
            ("localhost:7400", "localhost", 7_400),
        ] {
            let address = NodeAddress::parse(text).unwrap();
            assert_eq!((address.as_str(), address.host(), address.port()), (text, host, port));
        }
        for bad in [
            "",
            ":1",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "::1:7401",
            "[::1]",
            "[x]:1",
            "a b:1",
            "quic://a:1",
            &format!("{}:1", "a".repeat(300)),
        ] {
            assert!(bad.parse::<NodeAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_is_where_it_was_reached() {
        let seen: IpAddr = "10.1.2.3".parse().unwrap();
        let reached = |text: &str| NodeAddress::parse(text).unwrap().reached_at(seen);
        assert_eq!(reached("0.0.0.0:7401").as_str(), "10.1.2.3:7401");
        assert_eq!(reached("[::]:7401").as_str(), "10.1.2.3:7401");
        assert_eq!(reached("10.9.9.9:7401").as_str(), "10.9.9.9:7401");
        assert_eq!(reached("n1:7401").as_str(), "n1:7401");
    }
}
