//! The append log: what is readable, what is durable, and the one writer between the two.

pub mod append_log;
pub mod group_commit;
pub mod hard_state;
pub(crate) mod log_state;
pub mod mending;
pub(crate) mod piece;
pub(crate) mod points;
pub mod poison;
pub mod rotation;
pub(crate) mod standing;
pub mod twin_file;
pub(crate) mod visible;
