//! How bodies are laid and read: CBOR, and little-endian by hand.

pub(super) mod cbor;
#[cfg(test)]
mod golden;
pub(super) mod laid;
