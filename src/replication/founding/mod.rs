//! How empty nodes become a cluster: the rules, their carrying out, and the directory that remembers
//! how far it has come.

pub(super) mod bootstrap;
pub(super) mod directory;
pub(super) mod loss;
pub(super) mod rules;
