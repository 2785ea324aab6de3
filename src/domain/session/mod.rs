//! Sessions: who they are, where they are served, what they were answered.

pub mod admission;
pub mod answered;
pub mod lifecycle;
pub mod record;
pub mod table;
