//! Nodes as processes: one in this process, or several as children of it.

pub(super) mod dev;
pub(super) mod local_cluster;
pub(super) mod run;
