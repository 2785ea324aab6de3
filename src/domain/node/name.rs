//! What people call a node.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A node's name, in bytes: one DNS label, since it stands in the node's certificate.
pub const NODE_NAME_BYTES_MAX: usize = 63;

/// The name of a node: 1 to 63 lower-case letters, digits and inner hyphens. Names order as texts;
/// cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NodeNameError`] for anything that could not be a DNS label.
    pub fn parse(text: &str) -> Result<Self, NodeNameError> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = !text.is_empty()
            && text.len() <= NODE_NAME_BYTES_MAX
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good { Ok(Self(text.into())) } else { Err(NodeNameError { text: text.to_owned() }) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, NodeNameError> {
        Self::parse(text)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeName({})", self.0)
    }
}

/// A text that cannot name a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no node name: 1 to 63 lower-case letters, digits and hyphens, \
     a hyphen neither first nor last"
)]
pub struct NodeNameError {
    /// What was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["n1", "a", "0", "eu-west-1a", &"x".repeat(63)] {
            assert_eq!(NodeName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "N1", "n_1", "-a", "a-", "n.1", "nö", "n 1", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
        assert!(NodeName::parse("n1").unwrap() < NodeName::parse("n2").unwrap());
    }
}
