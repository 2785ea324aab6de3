//! Connections of a session, one after the other: dialling, serving, noticing their end, resuming.

mod delivery;
pub(super) mod dial;
pub(super) mod driver;
mod life;
mod live;
pub(super) mod look;
