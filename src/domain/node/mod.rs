//! Nodes as the cluster knows them: what they are called, where they are found.

pub mod address;
pub mod name;
