//! How a client gets in: the handshake, passwords, the secrets that resume sessions.

mod authenticate;
pub(in crate::gateway) mod handshake;
mod look;
pub(super) mod password;
pub(in crate::gateway) mod secret;

pub use secret::NoEntropy;
