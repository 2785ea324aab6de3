//! Replicated configuration: the founding, the members' names and runs, who may connect.

use imbl::OrdMap;

use super::id::{ClusterId, Lineage, NodeId};
use crate::domain::machine::hash::{ItemKind, ItemSum, digest, item};

/// The principal that the founding command makes.
pub const ADMINISTRATOR: &str = "admin";

/// Replicated configuration.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    founding: Option<Founding>,
    names: OrdMap<NodeId, String>,
    incarnations: OrdMap<NodeId, u64>,
    principals: OrdMap<String, String>,
    anonymous: bool,
    sum: ItemSum,
}

/// What the founding command fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Founding {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its lineage.
    pub lineage: Lineage,
}

impl Configuration {
    /// Cluster and lineage; none before the founding command.
    #[must_use]
    pub fn founding(&self) -> Option<Founding> {
        self.founding
    }

    /// The members' names, in the order of their identifiers.
    pub fn names(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.names.iter().map(|(node, name)| (*node, name.as_str()))
    }

    /// A member's name.
    #[must_use]
    pub fn name(&self, node: NodeId) -> Option<&str> {
        self.names.get(&node).map(String::as_str)
    }

    /// The newest incarnation of each node that has reported a start.
    pub fn incarnations(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.incarnations.iter().map(|(node, incarnation)| (*node, *incarnation))
    }

    /// The newest incarnation that a node has reported; zero before the first.
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> u64 {
        self.incarnations.get(&node).copied().unwrap_or(0)
    }

    /// The principals that have a password, in order, each with its argon2id PHC string.
    pub fn principals(&self) -> impl Iterator<Item = (&str, &str)> {
        self.principals.iter().map(|(principal, password)| (principal.as_str(), password.as_str()))
    }

    /// A principal's password as an argon2id PHC string.
    #[must_use]
    pub fn password(&self, principal: &str) -> Option<&str> {
        self.principals.get(principal).map(String::as_str)
    }

    /// Whether clients may connect without credentials.
    #[must_use]
    pub fn anonymous(&self) -> bool {
        self.anonymous
    }

    /// How many principals have a password.
    pub(in crate::domain) fn principals_len(&self) -> usize {
        self.principals.len()
    }

    /// The part's share of the state hash.
    pub(in crate::domain) fn hash(&self) -> u64 {
        self.sum.value().wrapping_add(item(ItemKind::Anonymous, [u64::from(self.anonymous)]))
    }

    /// Fixes cluster and lineage.
    pub(in crate::domain) fn found(&mut self, founding: Founding) {
        if let Some(before) = self.founding.replace(founding) {
            self.sum.remove(founding_item(before));
        }
        self.sum.add(founding_item(founding));
    }

    /// Names a member.
    pub(in crate::domain) fn set_name(&mut self, node: NodeId, name: String) {
        self.sum.add(name_item(node, &name));
        if let Some(before) = self.names.insert(node, name) {
            self.sum.remove(name_item(node, &before));
        }
    }

    /// Takes down the incarnation of a node.
    pub(in crate::domain) fn set_incarnation(&mut self, node: NodeId, incarnation: u64) {
        self.sum.add(incarnation_item(node, incarnation));
        if let Some(before) = self.incarnations.insert(node, incarnation) {
            self.sum.remove(incarnation_item(node, before));
        }
    }

    /// Sets a principal's password, or removes the principal.
    pub(in crate::domain) fn set_password(&mut self, principal: String, password: Option<String>) {
        let before = match password {
            Some(password) => {
                self.sum.add(principal_item(&principal, &password));
                self.principals.insert(principal.clone(), password)
            }
            None => self.principals.remove(&principal),
        };
        if let Some(before) = before {
            self.sum.remove(principal_item(&principal, &before));
        }
    }

    /// Lets clients connect without credentials, or not.
    pub(in crate::domain) fn set_anonymous(&mut self, allowed: bool) {
        self.anonymous = allowed;
    }

    /// Computes the part's share of the state hash from nothing.
    pub(in crate::domain) fn recomputed_hash(&self) -> u64 {
        let sum: ItemSum = (self.founding.into_iter().map(founding_item))
            .chain(self.names().map(|(node, name)| name_item(node, name)))
            .chain(self.incarnations().map(|(node, number)| incarnation_item(node, number)))
            .chain(self.principals().map(|(principal, word)| principal_item(principal, word)))
            .collect();
        sum.value().wrapping_add(item(ItemKind::Anonymous, [u64::from(self.anonymous)]))
    }
}

fn founding_item(founding: Founding) -> u64 {
    item(ItemKind::Founding, [founding.cluster.0, founding.lineage.0])
}

fn name_item(node: NodeId, name: &str) -> u64 {
    item(ItemKind::Name, [node.0, digest(name.as_bytes())])
}

fn incarnation_item(node: NodeId, incarnation: u64) -> u64 {
    item(ItemKind::Incarnation, [node.0, incarnation])
}

fn principal_item(principal: &str, password: &str) -> u64 {
    item(ItemKind::Principal, [digest(principal.as_bytes()), digest(password.as_bytes())])
}
